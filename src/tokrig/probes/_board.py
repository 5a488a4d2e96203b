"""Which board or device this is, where the processor's name does not say it: on machines that are
no PCs, from the device tree or the firmware's table."""

from __future__ import annotations

from pathlib import Path

from tokrig.probes import _sysfs

# What firmware says where nobody filled it in.
_PLACEHOLDERS = (
    "to be filled by o.e.m.",
    "system product name",
    "system manufacturer",
    "default string",
    "not specified",
    "not applicable",
    "none",
    "n/a",
    "unknown",
    "o.e.m.",
)
# Names of a whole family or of a made-up machine: no name of a chip.
_NO_CHIP = ("apple,arm-platform", "linux,dummy-virt")

# NVIDIA's systems on a chip, and the architecture of their graphics.
TEGRAS = {
    "nvidia,tegra210": "Maxwell",
    "nvidia,tegra186": "Pascal",
    "nvidia,tegra194": "Volta",
    "nvidia,tegra234": "Ampere",
    "nvidia,tegra264": "Blackwell",
}


def board(root: Path) -> str | None:
    """``Raspberry Pi 5 Model B Rev 1.0``, ``NVIDIA Jetson AGX Orin Developer Kit``,
    ``LENOVO ThinkPad T14s Gen 6``."""
    if model := _tree(root, "model"):
        return None if model[0] in _NO_CHIP else model[0]
    folder = root / "sys/class/dmi/id"
    vendor = _sysfs.read_text(folder / "sys_vendor")
    # Lenovo has its order number where others have the name.
    field = "product_version" if (vendor or "").upper() == "LENOVO" else "product_name"
    product = _sysfs.read_text(folder / field)
    if product is None or product.lower() in _PLACEHOLDERS:
        return None
    if vendor is None or vendor.lower() in _PLACEHOLDERS or product.startswith(vendor):
        return product
    return f"{vendor} {product}"


def chip(root: Path) -> str | None:
    """The system on a chip as the device tree names it: ``qcom,x1e80100``, ``rockchip,rk3588``.
    What a board is compatible with stands from the board itself to the chip."""
    names = [name for name in _tree(root, "compatible") if name not in _NO_CHIP]
    return names[-1] if names else None


def tegra_graphics(root: Path) -> tuple[str, str] | None:
    """Name and architecture of the graphics of a Jetson, which are the board's own."""
    arch = TEGRAS.get(chip(root) or "")
    return (board(root) or "NVIDIA Tegra", arch) if arch else None


def _tree(root: Path, name: str) -> list[str]:
    """A property of the device tree's root: texts that end with NUL."""
    for place in ("proc/device-tree", "sys/firmware/devicetree/base"):
        raw = _sysfs.read_bytes(root / place / name)
        if raw:
            words = raw.decode("utf-8", "replace").split("\0")
            return [word.strip() for word in words if word.strip()]
    return []
