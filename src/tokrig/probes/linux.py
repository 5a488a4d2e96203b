"""Processor, memory and operating system.

On Linux from ``/proc`` and ``/sys``; elsewhere the little that Python and psutil know.
"""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import psutil

from tokrig.probes import Availability, Facts, Reading, _sysfs
from tokrig.probes._sysfs import Limits
from tokrig.record.model import Cpu, Memory

# Instruction sets that inference engines have kernels for, by the kernel's names.
USEFUL_FEATURES = (
    "sse4_2 avx avx2 fma f16c bmi2 avx_vnni avx_vnni_int8 avx512f avx512bw avx512vl avx512vbmi"
    " avx512_vbmi2 avx512_vnni avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16"
    " neon asimd asimdhp asimddp i8mm bf16 sve sve2 svei8mm sme vsx lsx lasx rvv vx vxe vxe2 nnpa"
).split()

# A reading has to be cheap.
MOST_LOOKED_AT = 16
_CPU_CHIPS = frozenset("coretemp k10temp zenpower cpu_thermal soc_thermal".split())
_CPU_ZONE = re.compile(r"^(?:x86_pkg_temp|TCPU)$|cpu|soc[-_]thermal|core.*thermal", re.IGNORECASE)


class LinuxProbe:
    """The machine around the accelerators. ``root`` is where ``/proc`` and ``/sys`` are."""

    name = "linux"

    def __init__(self, root: Path = Path("/"), system: str = "") -> None:
        self._root = root
        self._system = system or platform.system()

    def availability(self) -> Availability:
        if self._system != "Linux":
            return Availability(
                True,
                f"{self._system}: processor, memory and load only",
                "instruction sets, memory speed and virtualization are read on Linux only",
            )
        if not (self._root / "proc/cpuinfo").exists():
            return Availability(False, "/proc is not mounted", "mount it: mount -t proc proc /proc")
        table = self._root / "sys/firmware/dmi/tables/DMI"
        lacking, hint = "", ""
        if _sysfs.read_bytes(self._root / "proc/stat") is None:
            lacking = "; no /proc/stat, hence nothing of its load"
            hint = "normal on Android and in sandboxes"
        elif not table.exists():
            lacking = "; no SMBIOS table, hence no memory type and speed"
            hint = "normal in virtual machines and on boards without UEFI or BIOS"
        elif _sysfs.read_bytes(table) is None:
            lacking = "; memory type and speed are readable by root only"
            hint = "run `tokrig rig` once as root to see them"
        else:
            return Availability(True, "processor, memory with type and speed, system")
        return Availability(True, f"processor, memory, system{lacking}", hint)

    def facts(self, process: str = "self") -> Facts:
        """The lasting facts; what may be used is that of one process and its children."""
        if self._system != "Linux":
            return _portable_facts(self._system)
        root = self._root
        cpuinfo = _sysfs.read_text(root / "proc/cpuinfo") or ""
        flags = _flags(cpuinfo)
        # Only x86 kernels show the hypervisor bit, and only they call the list so.
        x86 = "fpu" in flags and "flags" in _sysfs.key_values(cpuinfo, ":")
        limits = _sysfs.limits_of(root, process)
        release = _sysfs.read_text(root / "etc/os-release")
        release = release or _sysfs.read_text(root / "usr/lib/os-release")
        return Facts(
            cpu=self._cpu(cpuinfo, flags, limits),
            memory=self._memory(limits),
            os=_sysfs.key_values(release, "=").get("PRETTY_NAME"),
            kernel=_sysfs.read_text(root / "proc/sys/kernel/osrelease"),
            virtualization=virtualization(root, "hypervisor" in flags if x86 else None),
            # A PC is told by its processor; its maker's name for it says nothing of its speed.
            board=None if x86 else _sysfs.board(root),
        )

    def read(self) -> Reading:
        """Load average over a minute, busy CPU seconds since boot; clocks and temperature now."""
        if self._system != "Linux":
            return _portable_reading()
        load = (_sysfs.read_text(self._root / "proc/loadavg") or "").split()
        clocks = [_sysfs.read_scaled(path, 1e-3) for path in self._gauges.clocks]
        heat = [_sysfs.read_scaled(path, 1e-3) for path in self._gauges.sensors]
        held = [_sysfs.read_int(path) for path in self._gauges.throttles]
        known = [mhz for mhz in clocks if mhz is not None]
        return Reading(
            load_average=float(load[0]) if load else None,
            busy_cpu_s=_busy_seconds(_sysfs.read_text(self._root / "proc/stat") or ""),
            cpu_mhz=round(sum(known) / len(known), 1) if known else None,
            cpu_temperature_c=max((c for c in heat if c is not None), default=None),
            cpu_throttles=sum(filter(None, held)) if held else None,
        )

    @cached_property
    def _gauges(self) -> _Gauges:
        return _Gauges.of(self._root)

    def _cpu(self, cpuinfo: str, flags: set[str], limits: Limits) -> Cpu:
        folders = _sysfs.listing(self._root / "sys/devices/system/cpu", "cpu[0-9]*")
        governors = {_sysfs.read_text(f / "cpufreq/scaling_governor") for f in folders}
        maxima = [_sysfs.read_scaled(f / "cpufreq/cpuinfo_max_freq", 1e-3) for f in folders]
        shown = sum(line.partition(":")[0].strip() == "processor" for line in cpuinfo.splitlines())
        # s390 numbers its lines another way, and LXC shows a container its own share of the file.
        online = sum((f / "topology").is_dir() for f in folders)
        # Distinct sets of sibling threads among the processors online.
        siblings = {
            _sysfs.read_text(f / "topology/core_cpus_list")
            or _sysfs.read_text(f / "topology/thread_siblings_list")
            for f in folders
        } - {None}
        usable = [n for n in (shown or online, len(limits.cpus or ()), limits.quota) if n]
        return Cpu(
            model=_model(cpuinfo, self._root),
            soc=_sysfs.chip(self._root),
            cores=len(siblings) or None,
            threads=max(shown, online) or None,
            usable_cpus=round(float(min(usable)), 2) if usable else None,
            governor="+".join(sorted(filter(None, governors))) or None,
            max_mhz=max(filter(None, maxima), default=None),
            cache_bytes=_sysfs.last_level_cache_bytes(self._root),
            features=[f for f in USEFUL_FEATURES if f in flags],
        )

    def _memory(self, limits: Limits) -> Memory:
        pairs = _sysfs.key_values(_sysfs.read_text(self._root / "proc/meminfo"), ":")
        kib = pairs.get("MemTotal", "").removesuffix("kB").strip()
        total = int(kib) * 1024 if kib.isdigit() else None
        table = _sysfs.read_bytes(self._root / "sys/firmware/dmi/tables/DMI")
        kind, speed = memory_type_and_speed(table or b"")
        return Memory(
            total_bytes=total,
            usable_bytes=min(filter(None, (total, limits.memory_bytes)), default=None),
            speed_mt_per_s=speed,
            type=kind,
        )


@dataclass(frozen=True)
class _Gauges:
    """The files that tell the processors' clocks (kHz; the kernel's "CPU Performance Scaling"),
    their temperature (millidegrees; "Naming and data format standards for sysfs files", and
    "Generic Thermal Sysfs driver How To") and how often they were too hot (of Intel's). A container
    and a virtual machine have none of them. Of many processors some are looked at."""

    clocks: Sequence[Path]
    sensors: Sequence[Path]
    throttles: Sequence[Path]

    @classmethod
    def of(cls, root: Path) -> _Gauges:
        folders = _sysfs.listing(root / "sys/devices/system/cpu", "cpu[0-9]*")
        some = folders[:: -(-len(folders) // MOST_LOOKED_AT)] if folders else []
        found = [
            sensor
            for chip in _sysfs.listing(root / "sys/class/hwmon", "hwmon*")
            if (_sysfs.read_text(chip / "name") or "") in _CPU_CHIPS
            for sensor in _sysfs.listing(chip, "temp*_input")
        ] or [
            zone / "temp"
            for zone in _sysfs.listing(root / "sys/class/thermal", "thermal_zone*")
            if _CPU_ZONE.search(_sysfs.read_text(zone / "type") or "")
        ]
        counts = (f"thermal_throttle/{of}_throttle_count" for of in ("core", "package"))
        return cls(
            [path for f in some if (path := f / "cpufreq/scaling_cur_freq").exists()],
            found[:MOST_LOOKED_AT],
            [path for name in counts for f in some if (path := f / name).exists()],
        )


def _flags(cpuinfo: str) -> set[str]:
    """The first processor's feature words: ``flags`` on x86, ``Features`` on ARM and LoongArch,
    ``features`` on s390; of RISC-V its vector extension, a letter of ``isa``."""
    pairs = _sysfs.key_values(cpuinfo, ":")
    words = pairs.get("flags") or pairs.get("Features") or pairs.get("features") or ""
    letters = pairs.get("isa", "").partition("_")[0].removeprefix("rv64").removeprefix("rv32")
    return {*words.split(), *(["rvv"] if "v" in letters else [])}


def _model(cpuinfo: str, root: Path) -> str | None:
    """The processor's name, by whatever key an architecture has for it."""
    pairs = _sysfs.key_values(cpuinfo, ":")
    keys = ("model name", "Model Name", "cpu model", "cpu")
    if name := next(filter(None, map(pairs.get, keys)), None):
        return " ".join(name.split())
    if name := _arm_processor(cpuinfo, root):
        return name
    if "IBM/S390" in pairs.get("vendor_id", ""):
        machine = re.search(r"machine = (\d+)", cpuinfo)
        return f"IBM Z {machine[1]}" if machine else "IBM Z"
    return pairs.get("uarch")  # RISC-V: "sifive,u74-mc"


def _busy_seconds(stat: str) -> float | None:
    """CPU seconds spent on anything but idling, over all processors, since boot.

    user + nice + system + irq + softirq + steal of ``/proc/stat`` / clock ticks (proc(5)).
    Guest time is inside user and nice. Stolen time counts: somebody else had the processor.
    """
    fields = stat.split("\n", 1)[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


# --- other systems ------------------------------------------------------------------------------


def _portable_facts(system: str) -> Facts:
    """What psutil and the standard library tell on any system."""
    processor = platform.processor()
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    # macOS pins no process to processors.
    own = psutil.Process()
    mac = platform.mac_ver()[0]
    return Facts(
        cpu=Cpu(
            # macOS answers with the bare architecture ("arm"), which names no processor.
            model=processor if " " in processor else None,
            cores=psutil.cpu_count(logical=False),
            threads=psutil.cpu_count(logical=True),
            usable_cpus=len(own.cpu_affinity()) if hasattr(own, "cpu_affinity") else None,
            max_mhz=frequency.max if frequency and frequency.max else None,
        ),
        memory=Memory(total_bytes=psutil.virtual_memory().total),
        os=f"macOS {mac}" if mac else f"{system} {platform.release()}",
        kernel=platform.release(),
    )


def _portable_reading() -> Reading:
    times = psutil.cpu_times()
    # psutil's guest times are contained in user and nice.
    names = ("idle", "iowait", "guest", "guest_nice")
    idle = sum(getattr(times, name, 0.0) for name in names)
    return Reading(load_average=psutil.getloadavg()[0], busy_cpu_s=sum(times) - idle)


# --- virtual machines ---------------------------------------------------------------------------

# Words in the firmware's vendor or product name, and what they stand for.
_FIRMWARE_WORDS = {
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
_CGROUP_WORDS = {
    "kubepods": "kubernetes",
    "docker": "docker",
    "libpod": "podman",
    "lxc": "lxc",
    "containerd": "containerd",
}
_CLOCK_WORDS = {"kvm-clock": "kvm", "hyperv": "hyper-v", "xen": "xen"}


def virtualization(root: Path, hypervisor_flag: bool | None) -> str | None:
    """Container and machine in words, from files that anybody may read: ``none``, ``kvm``,
    ``wsl``, ``docker``, ``docker on kvm``; ``vm`` for an unknown hypervisor.

    ``hypervisor_flag`` is the processor's own word: x86 tells it (True or False), others do
    not (None). Without that word nothing short of a find can be known, hence None.
    """
    inside, outside = _container(root), _machine(root, hypervisor_flag)
    if inside is None:
        return outside
    return inside if outside in (None, "none") else f"{inside} on {outside}"


def _named(words: dict[str, str], text: str | None) -> str | None:
    return next((name for word, name in words.items() if word in (text or "")), None)


def _container(root: Path) -> str | None:
    if word := _sysfs.read_text(root / "run/systemd/container"):
        return word.split()[0]
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    return _named(_CGROUP_WORDS, _sysfs.read_text(root / "proc/1/cgroup"))


def _machine(root: Path, hypervisor_flag: bool | None) -> str | None:
    release = _sysfs.read_text(root / "proc/sys/kernel/osrelease") or ""
    if "microsoft" in release.lower():
        return "wsl"
    if hypervisor_flag is False:
        return "none"
    folder = root / "sys/class/dmi/id"
    firmware = " ".join(_sysfs.read_text(folder / n) or "" for n in ("sys_vendor", "product_name"))
    firmware = firmware.lower()
    # Microsoft makes real machines too; only this product is virtual.
    windows = firmware == "microsoft corporation virtual machine"
    found = "hyper-v" if windows else _named(_FIRMWARE_WORDS, firmware)
    if found in (None, "qemu", "amazon"):
        found = _by_kernel(root) or found
    return found or ("vm" if hypervisor_flag else None)


def _by_kernel(root: Path) -> str | None:
    """A guest kernel offers the clock of its hypervisor, and Xen has a folder of its own."""
    if hypervisor := _sysfs.read_text(root / "sys/hypervisor/type"):
        return hypervisor
    clocks = root / "sys/devices/system/clocksource/clocksource0/available_clocksource"
    if found := _named(_CLOCK_WORDS, _sysfs.read_text(clocks)):
        return found
    tree = _sysfs.read_text(root / "proc/device-tree/hypervisor/compatible")
    return "kvm" if tree and "kvm" in tree else None


# --- memory modules -----------------------------------------------------------------------------

# SMBIOS (DMTF DSP0134): structure type 17 is a memory device. Values of its type that are left
# out, such as Other, Unknown or plain RAM, tell nothing.
_MEMORY_DEVICE, _END_OF_TABLE = 17, 127
_MEMORY_TYPES = {
    int(number, 16): name
    for number, name in (
        entry.split()
        for entry in (
            "12 DDR, 13 DDR2, 18 DDR3, 1A DDR4, 1B LPDDR, 1C LPDDR2, 1D LPDDR3, 1E LPDDR4,"
            "20 HBM, 21 HBM2, 22 DDR5, 23 LPDDR5, 24 HBM3"
        ).split(",")
    )
}


def memory_type_and_speed(table: bytes) -> tuple[str | None, int | None]:
    """Memory type and speed (MT/s) of the whole machine, by its SMBIOS table, which the kernel
    shows to root alone. A length that the table states is not trusted: a broken table yields what
    came before the break.

    Modules of different speed run at the slowest one's; different types are joined by ``+``.
    """
    types, speeds = set[str](), []
    for structure in _structures(table):
        if structure[0] != _MEMORY_DEVICE or not _word(structure, 0x0C):  # an empty slot
            continue
        types.add(_MEMORY_TYPES.get(_word(structure, 0x12, 1), ""))
        # The configured speed where told; large ones stand elsewhere.
        speeds.append(_speed(structure, 0x20, 0x58) or _speed(structure, 0x15, 0x54))
    return "+".join(sorted(types - {""})) or None, min(filter(None, speeds), default=None)


def _structures(table: bytes) -> Iterator[bytes]:
    """The formatted parts of all structures; their strings are skipped."""
    at = 0
    while at + 4 <= len(table):
        kind, length = table[at], table[at + 1]
        if length < 4 or at + length > len(table):
            return
        yield table[at : at + length]
        end = table.find(b"\0\0", at + length)
        if kind == _END_OF_TABLE or end < 0:
            return
        at = end + 2


def _word(structure: bytes, at: int, size: int = 2) -> int:
    """A little-endian number; 0 (= unknown) where the structure is too short to hold it."""
    return int.from_bytes(structure[at : at + size], "little") if at + size <= len(structure) else 0


def _speed(structure: bytes, at: int, extended_at: int) -> int:
    speed = _word(structure, at)
    return _word(structure, extended_at, 4) if speed == 0xFFFF else speed


# --- Arm ----------------------------------------------------------------------------------------

# Arm processors tell numbers only: implementer and part of MIDR_EL1. The numbers are those of the
# kernel's ``cputype.h``, of LLVM's host detection and of util-linux; a part that none of them
# names is told by its number.
_ARM = {
    0x41: "ARM: c07 Cortex-A7, c08 Cortex-A8, c09 Cortex-A9, c0d Cortex-A17, c0e Cortex-A17,"
    "c0f Cortex-A15, d01 Cortex-A32, d02 Cortex-A34, d03 Cortex-A53, d04 Cortex-A35,"
    "d05 Cortex-A55, d06 Cortex-A65, d07 Cortex-A57, d08 Cortex-A72, d09 Cortex-A73,"
    "d0a Cortex-A75, d0b Cortex-A76, d0c Neoverse-N1, d0d Cortex-A77, d0e Cortex-A76AE,"
    "d40 Neoverse-V1, d41 Cortex-A78, d42 Cortex-A78AE, d43 Cortex-A65AE, d44 Cortex-X1,"
    "d46 Cortex-A510, d47 Cortex-A710, d48 Cortex-X2, d49 Neoverse-N2, d4a Neoverse-E1,"
    "d4b Cortex-A78C, d4c Cortex-X1C, d4d Cortex-A715, d4e Cortex-X3, d4f Neoverse-V2,"
    "d80 Cortex-A520, d81 Cortex-A720, d82 Cortex-X4, d83 Neoverse-V3AE, d84 Neoverse-V3,"
    "d85 Cortex-X925, d87 Cortex-A725, d88 Cortex-A520AE, d89 Cortex-A720AE, d8a C1-Nano,"
    "d8b C1-Pro, d8c C1-Ultra, d8e Neoverse-N3, d8f Cortex-A320, d90 C1-Premium",
    0x42: "Broadcom: 100 Brahma-B53, 516 ThunderX2",
    0x43: "Cavium: 0a0 ThunderX, 0a1 ThunderX-88XX, 0a2 ThunderX-81XX, 0a3 ThunderX-83XX,"
    "0af ThunderX2-99xx, 0b1 OcteonTX2-98XX, 0b2 OcteonTX2-96XX, 0b3 OcteonTX2-95XX,"
    "0b8 ThunderX3-T110",
    0x46: "Fujitsu: 001 A64FX, 003 MONAKA",
    0x48: "HiSilicon: d01 TaiShan-v110, d02 TaiShan-v120, d06 HIP12, d40 Cortex-A76",
    0x4E: "NVIDIA: 000 Denver, 003 Denver-2, 004 Carmel, 010 Olympus",
    0x50: "APM: 000 X-Gene",
    0x51: "Qualcomm: 001 Oryon, 201 Kryo, 205 Kryo, 211 Kryo, 800 Kryo-2xx-Gold,"
    "801 Kryo-2xx-Silver, 802 Kryo-3xx-Gold, 803 Kryo-3xx-Silver, 804 Kryo-4xx-Gold,"
    "805 Kryo-4xx-Silver, c00 Falkor, c01 Saphira",
    0x53: "Samsung: 001 Exynos-M1, 002 Exynos-M3, 003 Exynos-M4, 004 Exynos-M5",
    0x56: "Marvell: ",
    0x61: "Apple: 022 M1-Icestorm, 023 M1-Firestorm, 024 M1-Pro-Icestorm, 025 M1-Pro-Firestorm,"
    "028 M1-Max-Icestorm, 029 M1-Max-Firestorm, 032 M2-Blizzard, 033 M2-Avalanche,"
    "034 M2-Pro-Blizzard, 035 M2-Pro-Avalanche, 038 M2-Max-Blizzard, 039 M2-Max-Avalanche,"
    "048 M3-Max-Sawtooth, 049 M3-Max-Everest",
    0x6D: "Microsoft: d49 Azure-Cobalt-100",
    0x70: "Phytium: 303 FTC310, 660 FTC660, 661 FTC661, 662 FTC662, 663 FTC663, 664 FTC664",
    0xC0: "Ampere: ac3 Ampere-1, ac4 Ampere-1a",
}
"""By implementer, its name and ``NUMBER NAME`` of its parts."""


def _arm_processor(cpuinfo: str, root: Path) -> str | None:
    """``ARM Cortex-A76``, ``ARM 4x Cortex-A55 + 4x Cortex-A76``, ``Qualcomm Oryon``; None where
    nothing tells numbers."""
    counts = Counter([*_from_cpuinfo(cpuinfo)] or _from_registers(root))
    words = []
    for implementer, group in groupby(counts, key=lambda pair: pair[0]):
        unknown = f"implementer {implementer:#04x}: "
        vendor, _, text = _ARM.get(implementer, unknown).partition(": ")
        known = dict(entry.split() for entry in text.split(",") if entry)
        parts = []
        for pair in group:
            name = known.get(f"{pair[1]:03x}", f"part {pair[1]:#05x}")
            parts.append(f"{counts[pair]}x {name}" if len(counts) > 1 else name)
        words.append(f"{vendor} {' + '.join(parts)}")
    return " + ".join(words) or None


def _from_cpuinfo(cpuinfo: str) -> Iterator[tuple[int, int]]:
    """Implementer and part of each processor; they stand in this order."""
    implementer = None
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        try:
            number = int(value.strip(), 16)
        except ValueError:
            number = None
        if key.strip() == "CPU implementer":
            implementer = number
        elif key.strip() == "CPU part" and implementer is not None and number is not None:
            yield implementer, number


def _from_registers(root: Path) -> Iterable[tuple[int, int]]:
    """The same by MIDR_EL1: bits 31 to 24 and 15 to 4 (Arm ARM, DDI 0487)."""
    folders = _sysfs.listing(root / "sys/devices/system/cpu", "cpu[0-9]*")
    for folder in sorted(folders, key=lambda f: (len(f.name), f.name)):
        register = _sysfs.read_int(folder / "regs/identification/midr_el1")
        if register:
            yield register >> 24 & 0xFF, register >> 4 & 0xFFF


PROBE = LinuxProbe()
