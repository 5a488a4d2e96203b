"""Processor, memory and operating system.

On Linux from ``/proc`` and ``/sys``; elsewhere the little that Python and psutil know.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import psutil

from tokrig.probes import (
    Availability,
    Facts,
    Reading,
    _arm,
    _board,
    _dmi,
    _limits,
    _sysfs,
    _virtual,
)
from tokrig.probes._limits import Limits
from tokrig.record.model import Cpu, Memory

# Instruction sets that inference engines have kernels for, by the kernel's names.
USEFUL_FEATURES = (
    "sse4_2 avx avx2 fma f16c bmi2 avx_vnni avx_vnni_int8 avx512f avx512bw avx512vl avx512vbmi"
    " avx512_vbmi2 avx512_vnni avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16"
    " neon asimd asimdhp asimddp i8mm bf16 sve sve2 svei8mm sme vsx lsx lasx rvv vx vxe vxe2 nnpa"
).split()


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
        if _sysfs.read_bytes(self._root / "proc/stat") is None:
            return Availability(
                True,
                "processor, memory, system; no /proc/stat, hence nothing of its load",
                "normal on Android and in sandboxes",
            )
        table = self._root / "sys/firmware/dmi/tables/DMI"
        if not table.exists():
            return Availability(
                True,
                "processor, memory, system; no SMBIOS table, hence no memory type and speed",
                "normal in virtual machines and on boards without UEFI or BIOS",
            )
        if _sysfs.read_bytes(table) is None:
            return Availability(
                True,
                "processor, memory, system; memory type and speed are readable by root only",
                "run `tokrig rig` once as root to see them",
            )
        return Availability(True, "processor, memory with type and speed, system")

    def facts(self, process: str = "self") -> Facts:
        """The lasting facts; what may be used is that of one process and its children."""
        if self._system != "Linux":
            return _portable_facts(self._system)
        cpuinfo = _sysfs.read_text(self._root / "proc/cpuinfo") or ""
        flags = _flags(cpuinfo)
        # Only x86 kernels show the hypervisor bit, and only they call the list so.
        x86 = "fpu" in flags and "flags" in _sysfs.key_values(cpuinfo, ":")
        hypervisor = "hypervisor" in flags if x86 else None
        limits = _limits.of_process(self._root, process)
        return Facts(
            cpu=self._cpu(cpuinfo, flags, limits),
            memory=self._memory(limits),
            os=_sysfs.key_values(self._os_release(), "=").get("PRETTY_NAME"),
            kernel=_sysfs.read_text(self._root / "proc/sys/kernel/osrelease"),
            virtualization=_virtual.describe(self._root, hypervisor),
            # A PC is told by its processor; its maker's name for it says nothing of its speed.
            board=None if x86 else _board.board(self._root),
        )

    def read(self) -> Reading:
        """Load average over a minute, and busy CPU seconds since boot."""
        if self._system != "Linux":
            return _portable_reading()
        load = (_sysfs.read_text(self._root / "proc/loadavg") or "").split()
        return Reading(
            load_average=float(load[0]) if load else None,
            busy_cpu_s=_busy_seconds(_sysfs.read_text(self._root / "proc/stat") or ""),
        )

    def _os_release(self) -> str | None:
        etc = _sysfs.read_text(self._root / "etc/os-release")
        return etc or _sysfs.read_text(self._root / "usr/lib/os-release")

    def _cpu(self, cpuinfo: str, flags: set[str], limits: Limits) -> Cpu:
        folders = _sysfs.listing(self._root / "sys/devices/system/cpu", "cpu[0-9]*")
        governors = {_sysfs.read_text(f / "cpufreq/scaling_governor") for f in folders} - {None}
        maxima = [_sysfs.read_scaled(f / "cpufreq/cpuinfo_max_freq", 1e-3) for f in folders]
        shown = sum(1 for line in cpuinfo.splitlines() if _key(line) == "processor") or None
        # s390 numbers its lines another way, and LXC shows a container its own share of the file.
        online = sum(1 for f in folders if (f / "topology").is_dir()) or None
        return Cpu(
            model=_model(cpuinfo, self._root),
            soc=_board.chip(self._root),
            cores=_cores(folders),
            threads=max(filter(None, (shown, online)), default=None),
            usable_cpus=_usable(shown or online, limits),
            governor="+".join(sorted(g for g in governors if g)) or None,
            max_mhz=max((m for m in maxima if m), default=None),
            features=[f for f in USEFUL_FEATURES if f in flags],
        )

    def _memory(self, limits: Limits) -> Memory:
        total = _sysfs.key_values(_sysfs.read_text(self._root / "proc/meminfo"), ":").get(
            "MemTotal", ""
        )
        kib = total.removesuffix("kB").strip()
        total_bytes = int(kib) * 1024 if kib.isdigit() else None
        table = _sysfs.read_bytes(self._root / "sys/firmware/dmi/tables/DMI")
        kind, speed = _dmi.type_and_speed(table)
        return Memory(
            total_bytes=total_bytes,
            usable_bytes=min(filter(None, (total_bytes, limits.memory_bytes)), default=None),
            speed_mt_per_s=speed,
            type=kind,
        )


def _usable(shown: int | None, limits: Limits) -> float | None:
    """How many logical CPUs may be used, all limits together."""
    allowed = None if limits.cpus is None else len(limits.cpus)
    known = [float(n) for n in (shown, allowed, limits.quota) if n]
    return round(min(known), 2) if known else None


def _key(line: str) -> str:
    return line.partition(":")[0].strip()


def _flags(cpuinfo: str) -> set[str]:
    """The first processor's feature words: ``flags`` on x86, ``Features`` on ARM and LoongArch,
    ``features`` on s390; of RISC-V its vector extension, a letter of ``isa``."""
    pairs = _sysfs.key_values(cpuinfo, ":")
    words = set(
        (pairs.get("flags") or pairs.get("Features") or pairs.get("features") or "").split()
    )
    letters = pairs.get("isa", "").partition("_")[0].removeprefix("rv64").removeprefix("rv32")
    return words | ({"rvv"} if "v" in letters else set())


def _model(cpuinfo: str, root: Path) -> str | None:
    """The processor's name, by whatever key an architecture has for it."""
    pairs = _sysfs.key_values(cpuinfo, ":")
    keys = ("model name", "Model Name", "cpu model", "cpu")
    if name := next(filter(None, map(pairs.get, keys)), None):
        return " ".join(name.split())
    if name := _arm.processor(cpuinfo, root):
        return name
    if "IBM/S390" in pairs.get("vendor_id", ""):
        machine = re.search(r"machine = (\d+)", cpuinfo)
        return f"IBM Z {machine[1]}" if machine else "IBM Z"
    return pairs.get("uarch")  # RISC-V: "sifive,u74-mc"


def _cores(folders: list[Path]) -> int | None:
    """Physical cores: distinct sets of sibling threads among the processors online."""
    siblings = {
        _sysfs.read_text(f / "topology/core_cpus_list")
        or _sysfs.read_text(f / "topology/thread_siblings_list")
        for f in folders
    }
    return len(siblings - {None}) or None


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


def _portable_facts(system: str) -> Facts:
    """What psutil and the standard library tell on any system."""
    processor = platform.processor()
    # macOS answers with the bare architecture ("arm"), which names no processor.
    model = processor if " " in processor else None
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    # macOS pins no process to processors.
    own = psutil.Process()
    usable = len(own.cpu_affinity()) if hasattr(own, "cpu_affinity") else None
    mac = platform.mac_ver()[0]
    return Facts(
        cpu=Cpu(
            model=model,
            cores=psutil.cpu_count(logical=False),
            threads=psutil.cpu_count(logical=True),
            usable_cpus=usable,
            max_mhz=frequency.max if frequency and frequency.max else None,
        ),
        memory=Memory(total_bytes=psutil.virtual_memory().total),
        os=f"macOS {mac}" if mac else f"{system} {platform.release()}",
        kernel=platform.release(),
    )


def _portable_reading() -> Reading:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # psutil's guest times are contained in user and nice.
    guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return Reading(
        load_average=psutil.getloadavg()[0],
        busy_cpu_s=sum(times) - idle - guest,
    )


PROBE = LinuxProbe()
