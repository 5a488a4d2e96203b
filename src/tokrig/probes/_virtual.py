"""Whether this machine is virtual, told from files that anybody may read."""

from __future__ import annotations

from pathlib import Path

from tokrig.probes import _sysfs

# Words in the firmware's vendor or product name, and what they stand for.
FIRMWARE_WORDS = {
    "vmware": "vmware",
    "virtualbox": "virtualbox",
    "innotek": "virtualbox",
    "xen": "xen",
    "parallels": "parallels",
    "apple virtualization": "apple",
    "bhyve": "bhyve",
    "google compute engine": "kvm",
    "kvm": "kvm",
    "openstack": "kvm",
    "droplet": "kvm",
    "amazon ec2": "amazon",
    "qemu": "qemu",
}
CGROUP_WORDS = {
    "kubepods": "kubernetes",
    "docker": "docker",
    "libpod": "podman",
    "lxc": "lxc",
    "containerd": "containerd",
}


def container(root: Path) -> str | None:
    """The kind of container around this process; None when nothing shows one."""
    if word := _sysfs.read_text(root / "run/systemd/container"):
        return word.split()[0]
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    cgroup = _sysfs.read_text(root / "proc/1/cgroup") or ""
    return next((name for word, name in CGROUP_WORDS.items() if word in cgroup), None)


def _from_firmware(root: Path) -> str | None:
    folder = root / "sys/class/dmi/id"
    vendor = (_sysfs.read_text(folder / "sys_vendor") or "").lower()
    product = (_sysfs.read_text(folder / "product_name") or "").lower()
    # Microsoft makes real machines too; only this product is virtual.
    if vendor == "microsoft corporation" and product == "virtual machine":
        return "hyper-v"
    text = f"{vendor} {product}"
    return next((name for word, name in FIRMWARE_WORDS.items() if word in text), None)


def _from_kernel(root: Path) -> str | None:
    """A guest kernel offers the clock of its hypervisor, and Xen has a folder of its own."""
    if hypervisor := _sysfs.read_text(root / "sys/hypervisor/type"):
        return hypervisor
    clocks = root / "sys/devices/system/clocksource/clocksource0/available_clocksource"
    text = _sysfs.read_text(clocks) or ""
    for word, name in (("kvm-clock", "kvm"), ("hyperv", "hyper-v"), ("xen", "xen")):
        if word in text:
            return name
    tree = _sysfs.read_text(root / "proc/device-tree/hypervisor/compatible")
    return "kvm" if tree and "kvm" in tree else None


def machine(root: Path, hypervisor_flag: bool | None) -> str | None:
    """``kvm``, ``wsl``, … ; ``vm`` for an unknown hypervisor, ``none`` for real hardware.

    ``hypervisor_flag`` is the processor's own word: x86 tells it (True or False), others do
    not (None). Without that word nothing short of a find can be known, hence None.
    """
    release = _sysfs.read_text(root / "proc/sys/kernel/osrelease") or ""
    if "microsoft" in release.lower():
        return "wsl"
    if hypervisor_flag is False:
        return "none"
    firmware = _from_firmware(root)
    if firmware in (None, "qemu", "amazon"):
        found = _from_kernel(root) or firmware
    else:
        found = firmware
    return found or ("vm" if hypervisor_flag else None)


def describe(root: Path, hypervisor_flag: bool | None) -> str | None:
    """Container and machine in words: ``none``, ``kvm``, ``docker``, ``docker on kvm``."""
    inside, outside = container(root), machine(root, hypervisor_flag)
    if inside is None:
        return outside
    return inside if outside in (None, "none") else f"{inside} on {outside}"
