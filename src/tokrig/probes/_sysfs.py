"""Reading the small text files by which Linux tells about hardware, and which board this is.

A file that is missing, unreadable or oddly filled yields ``None``: a probe reports what it can.
"""

from __future__ import annotations

from pathlib import Path


def read_bytes(path: Path) -> bytes | None:
    """The whole file, or None when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def read_text(path: Path) -> str | None:
    """The file's text without surrounding blanks; None when unreadable or empty."""
    raw = read_bytes(path)
    if raw is None:
        return None
    # Device-tree strings end with NUL.
    return raw.decode("utf-8", "replace").strip().strip("\0").strip() or None


def read_int(path: Path) -> int | None:
    """The file's content as an integer (decimal, or hexadecimal after ``0x``), or None."""
    text = read_text(path)
    if text is None:
        return None
    try:
        return int(text, 0)
    except ValueError:
        return None


def read_scaled(path: Path, factor: float) -> float | None:
    """The file's integer times ``factor`` (1e-6 turns microwatts into watts), or None."""
    value = read_int(path)
    return None if value is None else value * factor


def listing(folder: Path, pattern: str) -> list[Path]:
    """Entries of ``folder`` matching ``pattern``, sorted; empty when it cannot be listed."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def key_values(text: str | None, separator: str) -> dict[str, str]:
    """``key<separator>value`` lines as a dict; quotes around values are dropped; the first
    of repeated keys wins."""
    pairs: dict[str, str] = {}
    for line in (text or "").splitlines():
        key, found, value = line.partition(separator)
        if found:
            pairs.setdefault(key.strip(), value.strip().strip("\"'"))
    return pairs


# --- boards -------------------------------------------------------------------------------------

# What firmware says where nobody filled it in.
_PLACEHOLDERS = (
    "to be filled by o.e.m.|system product name|system manufacturer|default string|not specified"
    "|not applicable|none|n/a|unknown|o.e.m."
).split("|")
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
    vendor = read_text(folder / "sys_vendor")
    # Lenovo has its order number where others have the name.
    field = "product_version" if (vendor or "").upper() == "LENOVO" else "product_name"
    product = read_text(folder / field)
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
        raw = read_bytes(root / place / name)
        if raw:
            words = raw.decode("utf-8", "replace").split("\0")
            return [word.strip() for word in words if word.strip()]
    return []
