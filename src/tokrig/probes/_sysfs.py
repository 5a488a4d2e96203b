"""Reading the small text files by which Linux tells about hardware, which board this is, and what
of it a process may use.

A file that is missing, unreadable or oddly filled yields ``None``: a probe reports what it can.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
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


# --- caches -------------------------------------------------------------------------------------


def last_level_cache_bytes(root: Path) -> int | None:
    """Bytes of all last-level caches together; None where the system tells none."""
    caches: dict[tuple[int, str], int] = {}
    for folder in listing(root / "sys/devices/system/cpu", "cpu[0-9]*/cache/index*"):
        level = read_int(folder / "level")
        shared_by = read_text(folder / "shared_cpu_list")
        size = read_text(folder / "size") or ""
        if level and shared_by and size.endswith("K") and size[:-1].isdigit():
            caches[level, shared_by] = int(size[:-1]) * 1024
    last = max((level for level, _ in caches), default=0)
    return sum(s for (level, _), s in caches.items() if level == last) or None


# --- limits -------------------------------------------------------------------------------------

# CPU affinity and control groups. A limit of any ancestor binds, and the tightest one counts. The
# two versions of control groups may be mounted side by side (cgroups(7)); a container sees its own
# group as the root of a hierarchy, or the host's path with only its own part mounted
# (``mountinfo``, proc(5)).

# "No limit" of version 1 is the largest multiple of a page that fits 63 bits.
_NO_LIMIT = 1 << 62
# Where mounts cannot be listed: the usual places. "" stands for version 2.
_USUAL_MOUNTS = {
    "": ("/", "sys/fs/cgroup"),
    "cpu": ("/", "sys/fs/cgroup/cpu"),
    "cpuset": ("/", "sys/fs/cgroup/cpuset"),
    "memory": ("/", "sys/fs/cgroup/memory"),
}


@dataclass(frozen=True)
class Limits:
    """The numbers of the ``cpus`` that a process may run on, its ``quota`` in CPUs (1.5 is one and
    a half), and the memory that its groups may take; None where nothing limits or nobody tells."""

    cpus: frozenset[int] | None = None
    quota: float | None = None
    memory_bytes: int | None = None


def limits_of(root: Path, process: str = "self") -> Limits:
    """The limits of one process (``self`` or a number); children inherit them."""
    own = _groups(root, process)
    shares = filter(None, map(_quota, own.get("cpu", []) + own.get("", [])))
    sizes = (n for folder in own.get("memory", []) + own.get("", []) for n in _bytes(folder))
    return Limits(_cpus(root, process, own), min(shares, default=None), min(sizes, default=None))


def cpu_list(text: str | None) -> frozenset[int]:
    """The kernel's lists of CPUs, such as ``0-3,8``; empty for what is none."""
    found: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            return frozenset()
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _cpus(root: Path, process: str, own: dict[str, list[Path]]) -> frozenset[int] | None:
    """By affinity and cpuset, and of those only what is online."""
    status = key_values(read_text(root / "proc" / process / "status"), ":")
    told = [cpu_list(status.get("Cpus_allowed_list"))]
    # gVisor's status leaves it out, and Android may hide it.
    if not told[0] and process == "self" and root == Path("/") and hasattr(os, "sched_getaffinity"):
        told = [frozenset(os.sched_getaffinity(0))]
    names = ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")
    files = [folder / name for folder in own.get("cpuset", []) + own.get("", []) for name in names]
    # A group's effective CPUs are within its parent's: the nearest file says it all.
    told.append(next(filter(None, (cpu_list(read_text(file)) for file in files)), frozenset()))
    told.append(cpu_list(read_text(root / "sys/devices/system/cpu/online")))
    known = [cpus for cpus in told if cpus]
    # What is online alone is no limit.
    return frozenset.intersection(*known) or None if any(told[:2]) else None


def _groups(root: Path, process: str) -> dict[str, list[Path]]:
    """By controller, the folders of the process's group and its ancestors, innermost first."""
    mounts = _mounts(root)
    text = read_text(root / "proc" / process / "cgroup")
    found: dict[str, list[Path]] = {}
    for line in (text or "0::/").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for name in controllers.split(","):
            if name in mounts:
                mounted, point = mounts[name]
                found[name] = list(_folders(point, mounted, path, process))
    return found


def _mounts(root: Path) -> dict[str, tuple[str, Path]]:
    """By controller, which part of its hierarchy is mounted, and where."""
    found: dict[str, tuple[str, Path]] = {}
    for line in (read_text(root / "proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or not kind or kind[0] not in ("cgroup", "cgroup2"):
            continue
        for name in [""] if kind[0] == "cgroup2" else kind[-1].split(","):
            found.setdefault(name, (fields[3], root / fields[4].lstrip("/")))
    return found or {name: (top, root / at) for name, (top, at) in _USUAL_MOUNTS.items()}


def _folders(point: Path, mounted: str, path: str, process: str) -> Iterator[Path]:
    """From a group's folder up to the mount point. A group outside what is mounted cannot be
    looked at; of this process's own then the mount point is taken, as its container's group."""
    parts = [part for part in path.split("/") if part]
    top = [part for part in mounted.split("/") if part]
    if top and set(top) == {".."} and ".." not in parts:
        # The host's hierarchy inside a namespace: names above the namespace's root are hidden.
        own = _holding(process, point, len(top) + len(parts))
        inside = own.relative_to(point).parts if own else ()
    elif ".." not in parts and parts[: len(top)] == top:
        inside = tuple(parts[len(top) :])
    elif process == "self":
        inside = ()
    else:
        return
    for length in range(len(inside), -1, -1):
        yield point.joinpath(*inside[:length])


def _holding(process: str, point: Path, depth: int) -> Path | None:
    """The group at a depth below a mount point whose members include the process."""
    pid = str(os.getpid()) if process == "self" else process
    for folder in listing(point, "/".join(["*"] * depth)):
        if pid in (read_text(folder / "cgroup.procs") or "").split():
            return folder
    return None


def _quota(folder: Path) -> float | None:
    """CPU time a period / the period, of either version; None where there is no limit."""
    quota, _, period = (read_text(folder / "cpu.max") or "").partition(" ")
    if not quota:
        quota = read_text(folder / "cpu.cfs_quota_us") or ""
        period = read_text(folder / "cpu.cfs_period_us") or ""
    if not (quota.isdecimal() and period.isdecimal() and int(quota) and int(period)):
        return None
    return int(quota) / int(period)


def _bytes(folder: Path) -> Iterator[int]:
    """Memory limits of one group. Above ``memory.high`` a group is slowed until it is below."""
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")
    told = [read_text(folder / name) for name in names]
    # Version 1 tells here the limits of ancestors that a container cannot see.
    stat = key_values(read_text(folder / "memory.stat"), " ")
    for text in (*told, stat.get("hierarchical_memory_limit")):
        if text and text.isdecimal() and 0 < int(text) < _NO_LIMIT:
            yield int(text)
