"""What of a machine may be used, over made-up /proc and /sys/fs/cgroup trees.

The forms of the files are those of cgroups(7), proc(5) and the kernel's admin-guide (cgroup-v1,
cgroup-v2); the situations those of ollama/ollama#17916, docker, Kubernetes, LXC and systemd.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tokrig.probes import _sysfs
from tokrig.probes._sysfs import Limits
from tokrig.probes.linux import LinuxProbe
from tokrig.record.model import Cpu, Memory
from tokrig.rig import default_rig_id, merge
from tokrig.units import GIB

V2 = "31 23 0:28 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n"
V1 = "".join(
    f"{n} 31 0:{n} {{top}} /sys/fs/cgroup/{where} rw - cgroup cgroup rw,{where}\n"
    for n, where in enumerate(("cpu,cpuacct", "memory", "cpuset"), start=32)
)
HYBRID = V1.format(top="/") + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
UNLIMITED = "9223372036854771712\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(own: str, groups: dict[str, str]) -> dict[str, str]:
    files = {f"sys/fs/cgroup/{name}": text for name, text in groups.items()}
    return {"proc/self/mountinfo": V2, "proc/self/cgroup": f"0::{own}\n", **files}


def v1(own: str, groups: dict[str, str], top: str = "/") -> dict[str, str]:
    lines = f"4:memory:{own}\n3:cpuset:{own}\n1:cpu,cpuacct:{own}\n0::/\n"
    files = {f"sys/fs/cgroup/{name}": text for name, text in groups.items()}
    return {"proc/self/mountinfo": V1.format(top=top), "proc/self/cgroup": lines, **files}


CASES = [
    # docker --cpus 4 --memory 16g: the container's group is the root it sees
    (
        v2("/", {"cpu.max": "400000 100000\n", "memory.max": f"{16 * GIB}\n"}),
        Limits(quota=4.0, memory_bytes=16 * GIB),
    ),
    (v2("/", {"cpu.max": "max 100000\n", "memory.max": "max\n"}), Limits()),
    # systemd: the slice allows less than the service asks for
    (
        v2(
            "/work.slice/run.scope",
            {
                "work.slice/run.scope/cpu.max": "800000 100000\n",
                "work.slice/cpu.max": "150000 100000\n",
                "work.slice/memory.max": "max\n",
                "work.slice/run.scope/memory.max": f"{8 * GIB}\n",
                "work.slice/memory.high": f"{6 * GIB}\n",
            },
        ),
        Limits(quota=1.5, memory_bytes=6 * GIB),
    ),
    (v2("/", {"cpuset.cpus.effective": "0-3,8\n"}), Limits(cpus=frozenset({0, 1, 2, 3, 8}))),
    # a group that this namespace does not show: its own is what is mounted here
    (v2("/../../pod1", {"memory.max": f"{2 * GIB}\n"}), Limits(memory_bytes=2 * GIB)),
    # systemd or kind in docker: the host's hierarchy, and the names of one's own groups hidden
    (
        {
            **v2(
                "/init.scope",
                {
                    "system.slice/one.scope/init.scope/cgroup.procs": "1\n2\n",
                    "system.slice/two.scope/init.scope/cgroup.procs": f"0\n{os.getpid()}\n",
                    "system.slice/one.scope/cpu.max": "100000 100000\n",
                    "system.slice/two.scope/cpu.max": "200000 100000\n",
                },
            ),
            "proc/self/mountinfo": V2.replace(" / ", " /../.. "),
        },
        Limits(quota=2.0),
    ),
    # version 1, docker without a namespace: the host's path, and only that part is mounted
    (
        v1(
            "/docker/3f2a",
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "memory/memory.limit_in_bytes": f"{4 * GIB}\n",
            },
            top="/docker/3f2a",
        ),
        Limits(quota=2.5, memory_bytes=4 * GIB),
    ),
    # version 1, Kubernetes: the container is not limited, the pod is, and cannot be seen
    (
        v1(
            "/kubepods/pod1/3f2a",
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "memory/memory.limit_in_bytes": UNLIMITED,
                "memory/memory.stat": f"cache 1\nhierarchical_memory_limit {3 * GIB}\n",
            },
            top="/kubepods/pod1/3f2a",
        ),
        Limits(memory_bytes=3 * GIB),
    ),
    (
        v1("/a/b", {"memory/a/memory.limit_in_bytes": f"{GIB}\n", "cpuset/a/cpuset.cpus": "2-3\n"}),
        Limits(cpus=frozenset({2, 3}), memory_bytes=GIB),
    ),
    # both versions mounted, the limit in the second: nothing of it in the first
    (
        {
            "proc/self/mountinfo": HYBRID,
            "proc/self/cgroup": "4:memory:/user\n1:cpu,cpuacct:/\n0::/user.slice\n",
            "sys/fs/cgroup/memory/user/memory.limit_in_bytes": UNLIMITED,
            "sys/fs/cgroup/unified/user.slice/cpu.max": "50000 100000\n",
        },
        Limits(quota=0.5),
    ),
    # taskset, and processors that are offline
    (
        {
            "proc/self/status": "Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t0-1,6-7\n",
            "sys/devices/system/cpu/online": "0-6\n",
        },
        Limits(cpus=frozenset({0, 1, 6})),
    ),
    # no mountinfo to read: the usual places
    (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"},
        Limits(quota=1.0),
    ),
    # nothing there, and files with nonsense in them
    ({}, Limits()),
    (
        {
            "proc/self/mountinfo": "\n1 2\n3 4 5 6 7 - \n" + V2,
            "proc/self/cgroup": "nonsense\n0\n::\n0::/x\n",
            "proc/self/status": "Cpus_allowed_list:\t0-x\n",
            "sys/fs/cgroup/cpu.max": "0 0\n",
            "sys/fs/cgroup/memory.max": "-5\n",
            "sys/fs/cgroup/x/cpu.max": "4e5\n",
            "sys/fs/cgroup/cpuset.cpus.effective": ",\n",
        },
        Limits(),
    ),
]


@pytest.mark.parametrize(("files", "expected"), CASES)
def test_limits(tmp_path: Path, files: dict[str, str], expected: Limits) -> None:
    assert _sysfs.limits_of(tree(tmp_path, files)) == expected


def test_limits_of_another_process(tmp_path: Path) -> None:
    """An engine that runs as a service, or in a container of which the host sees the group."""
    files = v2("/", {"engine.service/memory.max": f"{GIB}\n", "cpu.max": "100000 100000\n"})
    files["proc/77/cgroup"] = "0::/engine.service\n"
    files["proc/77/status"] = "Cpus_allowed_list:\t3\n"
    files["proc/78/cgroup"] = "0::/../elsewhere\n"
    root = tree(tmp_path, files)
    assert _sysfs.limits_of(root, "77") == Limits(frozenset({3}), 1.0, GIB)
    assert _sysfs.limits_of(root, "78") == Limits()
    assert _sysfs.limits_of(root, "79") == Limits(quota=1.0)  # it has just ended


def host(root: Path, shown: int = 8, kib: int = 64 << 20) -> Path:
    """Four cores of two threads each; ``shown`` of them in /proc/cpuinfo."""
    files = {
        "proc/cpuinfo": "".join(
            f"processor\t: {n}\nmodel name\t: AMD EPYC 7643 48-Core Processor\nflags\t\t: fpu\n\n"
            for n in range(shown)
        ),
        "proc/meminfo": f"MemTotal: {kib} kB\n",
    }
    for n in range(8):
        files[f"sys/devices/system/cpu/cpu{n}/topology/core_cpus_list"] = f"{n % 4},{n % 4 + 4}\n"
    return tree(root, files)


@pytest.mark.parametrize(
    ("files", "usable", "rig_id"),
    [
        ({}, (8.0, 64 * GIB), "amd-epyc-7643-4c-64gb"),
        (v2("/", {"cpu.max": "300000 100000"}), (3.0, 64 * GIB), "amd-epyc-7643-3t-64gb"),
        (v2("/", {"cpu.max": "250000 100000"}), (2.5, 64 * GIB), "amd-epyc-7643-2.5t-64gb"),
        (v2("/", {"memory.max": str(16 * GIB)}), (8.0, 16 * GIB), "amd-epyc-7643-4c-16gb"),
        # more than there is, and a limit that takes next to nothing, are no limits
        (v2("/", {"cpu.max": "6400000 100000"}), (8.0, 64 * GIB), "amd-epyc-7643-4c-64gb"),
        (v2("/", {"memory.max": str(63 * GIB)}), (8.0, 63 * GIB), "amd-epyc-7643-4c-64gb"),
        # one thread of each of two cores, and a quota below that
        ({"proc/self/status": "Cpus_allowed_list: 0,1"}, (2.0, 64 * GIB), "amd-epyc-7643-2t-64gb"),
        (
            {**v2("/", {"cpu.max": "100000 100000"}), "proc/self/status": "Cpus_allowed_list: 0,1"},
            (1.0, 64 * GIB),
            "amd-epyc-7643-1t-64gb",
        ),
    ],
)
def test_a_rig_is_named_by_what_may_be_used(
    tmp_path: Path, files: dict[str, str], usable: tuple[float, int], rig_id: str
) -> None:
    facts = LinuxProbe(tree(host(tmp_path), files), system="Linux").facts()
    assert facts.cpu is not None
    assert facts.memory is not None
    assert (facts.cpu.cores, facts.cpu.threads, facts.memory.total_bytes) == (4, 8, 64 * GIB)
    assert (facts.cpu.usable_cpus, facts.memory.usable_bytes) == usable
    assert default_rig_id(merge([facts])) == rig_id


def test_lxc_shows_a_container_its_share(tmp_path: Path) -> None:
    """lxcfs shortens /proc/cpuinfo and /proc/meminfo; /sys still shows the host's processors."""
    facts = LinuxProbe(host(tmp_path, shown=2, kib=4 << 20), system="Linux").facts()
    assert facts.cpu is not None
    assert (facts.cpu.threads, facts.cpu.usable_cpus) == (8, 2.0)
    assert default_rig_id(merge([facts])) == "amd-epyc-7643-2t-4gb"


def test_no_word_of_limits_where_nothing_is_known(tmp_path: Path) -> None:
    facts = LinuxProbe(tmp_path, system="Linux").facts()
    assert facts.cpu == Cpu()
    assert facts.memory == Memory()


def test_the_affinity_of_this_very_process() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from tokrig.probes.linux import PROBE; print(PROBE.facts().cpu.usable_cpus)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "1.0"
