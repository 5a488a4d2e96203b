"""The linux probe over made-up /proc and /sys trees."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import pytest

from tokrig.probes.linux import PROBE, LinuxProbe, memory_type_and_speed

CPUINFO = """processor\t: {number}
model name\t: AMD Ryzen 9 7900 12-Core Processor
flags\t\t: fpu sse4_2 avx avx2 fma f16c avx512f avx512_vnni aes{extra}

"""
ARM_CPUINFO = """processor\t: {number}
Features\t: fp asimd aes asimdhp asimddp sve2
CPU implementer\t: {implementer}
CPU part\t: {part}

"""


def write(root: Path, name: str, text: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.fixture
def desktop(tmp_path: Path) -> Path:
    """Two cores of two threads each."""
    write(tmp_path, "proc/cpuinfo", "".join(CPUINFO.format(number=n, extra="") for n in range(4)))
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        cpu = f"sys/devices/system/cpu/cpu{number}"
        write(tmp_path, f"{cpu}/topology/core_cpus_list", f"{siblings}\n")
        write(tmp_path, f"{cpu}/cpufreq/scaling_governor", "powersave\n")
        write(tmp_path, f"{cpu}/cpufreq/cpuinfo_max_freq", f"{5_400_000 + number}\n")
    write(tmp_path, "proc/meminfo", "MemTotal:       32000000 kB\nMemFree: 1 kB\n")
    write(tmp_path, "etc/os-release", 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n')
    write(tmp_path, "proc/sys/kernel/osrelease", "6.12.4-amd64\n")
    write(tmp_path, "proc/loadavg", "1.25 0.50 0.10 2/345 6789\n")
    ticks = os.sysconf("SC_CLK_TCK")
    fields = [n * ticks for n in (100, 10, 20, 5000, 300, 3, 4, 5, 50, 5)]
    write(tmp_path, "proc/stat", f"cpu  {' '.join(map(str, fields))}\ncpu0 1 2 3\n")
    return tmp_path


def linux(root: Path) -> LinuxProbe:
    return LinuxProbe(root, system="Linux")


def test_facts(desktop: Path) -> None:
    facts = linux(desktop).facts()
    assert facts.cpu is not None
    assert facts.memory is not None
    assert facts.cpu.model == "AMD Ryzen 9 7900 12-Core Processor"
    assert (facts.cpu.cores, facts.cpu.threads) == (2, 4)
    assert facts.cpu.governor == "powersave"
    assert facts.cpu.max_mhz == pytest.approx(5400.003)
    assert facts.cpu.features == ["sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni"]
    assert facts.memory.total_bytes == 32_000_000 * 1024
    assert (facts.memory.type, facts.memory.speed_mt_per_s) == (None, None)
    assert facts.os == "Debian GNU/Linux 13 (trixie)"
    assert facts.kernel == "6.12.4-amd64"
    assert facts.virtualization == "none"


def test_reading(desktop: Path) -> None:
    reading = linux(desktop).read()
    assert reading.load_average == 1.25
    # user + nice + system + irq + softirq + steal; guest time is inside user and nice.
    assert reading.busy_cpu_s == pytest.approx(100 + 10 + 20 + 3 + 4 + 5)


def test_governors_that_differ_are_all_named(desktop: Path) -> None:
    write(desktop, "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n")
    cpu = linux(desktop).facts().cpu
    assert cpu is not None
    assert cpu.governor == "performance+powersave"


@pytest.mark.parametrize(
    ("implementer", "parts", "model"),
    [
        ("0x41", ["0xd0b", "0xd0b"], "ARM Cortex-A76"),
        ("0x41", ["0xd87", "0xd85", "0xd85"], "ARM 1x Cortex-A725 + 2x Cortex-X925"),
        ("0x41", ["0xd0b", "0xfff"], "ARM 1x Cortex-A76 + 1x part 0xfff"),
        ("0x51", ["0x001", "0x001"], "Qualcomm Oryon"),
        ("0x51", ["0x002"], "Qualcomm part 0x002"),
        ("0x61", ["0x022", "0x023"], "Apple 1x M1-Icestorm + 1x M1-Firestorm"),
        ("0xc0", ["0xac3"], "Ampere Ampere-1"),
        ("0x4e", ["0x004"], "NVIDIA Carmel"),
        ("0x99", ["0x001"], "implementer 0x99 part 0x001"),
    ],
)
def test_arm(tmp_path: Path, implementer: str, parts: list[str], model: str | None) -> None:
    blocks = [
        ARM_CPUINFO.format(number=n, implementer=implementer, part=part)
        for n, part in enumerate(parts)
    ]
    write(tmp_path, "proc/cpuinfo", "".join(blocks))
    facts = linux(tmp_path).facts()
    assert facts.cpu is not None
    assert facts.cpu.model == model
    assert facts.cpu.features == ["asimd", "asimdhp", "asimddp", "sve2"]
    assert facts.virtualization is None  # ARM has no hypervisor flag: not known


def test_an_empty_root_yields_nothing(tmp_path: Path) -> None:
    probe = linux(tmp_path)
    facts = probe.facts()
    assert facts.cpu is not None
    assert facts.cpu.model_dump(exclude={"features"}) == dict.fromkeys(
        "model soc cores threads usable_cpus governor max_mhz cache_bytes"
        " matrix_flop_per_s matrix_type".split()
    )
    assert (facts.os, facts.kernel, facts.virtualization) == (None, None, None)
    assert probe.read().busy_cpu_s is None
    assert not probe.availability().ok


VIRTUAL = [
    ({}, "vm"),
    ({"sys/class/dmi/id/sys_vendor": "QEMU\n"}, "qemu"),
    (
        {
            "sys/class/dmi/id/sys_vendor": "QEMU\n",
            "sys/devices/system/clocksource/clocksource0/available_clocksource": "kvm-clock tsc\n",
        },
        "kvm",
    ),
    (
        {
            "sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n",
            "sys/class/dmi/id/product_name": "Virtual Machine\n",
        },
        "hyper-v",
    ),
    ({"sys/class/dmi/id/product_name": "VMware Virtual Platform\n"}, "vmware"),
    ({"sys/class/dmi/id/product_name": "VirtualBox\n"}, "virtualbox"),
    ({"sys/hypervisor/type": "xen\n"}, "xen"),
    ({"proc/sys/kernel/osrelease": "6.6.36.6-microsoft-standard-WSL2\n"}, "wsl"),
    ({".dockerenv": ""}, "docker on vm"),
    ({"run/.containerenv": ""}, "podman on vm"),
    ({"run/systemd/container": "lxc\n"}, "lxc on vm"),
    ({"proc/1/cgroup": "0::/kubepods/besteffort/pod1\n"}, "kubernetes on vm"),
]


@pytest.mark.parametrize(("files", "expected"), VIRTUAL)
def test_virtual_machines(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    write(tmp_path, "proc/cpuinfo", CPUINFO.format(number=0, extra=" hypervisor"))
    for name, text in files.items():
        write(tmp_path, name, text)
    assert linux(tmp_path).facts().virtualization == expected


def test_a_container_on_real_hardware(desktop: Path) -> None:
    write(desktop, ".dockerenv", "")
    # A firmware vendor that also sells virtual machines does not make one of real hardware.
    write(desktop, "sys/class/dmi/id/sys_vendor", "Amazon EC2\n")
    assert linux(desktop).facts().virtualization == "docker"


def module(
    size: int, kind: int, speed: int, configured: int = 0, *, length: int = 0x28, extended: int = 0
) -> bytes:
    raw = bytearray(max(length, 0x5C))
    raw[0], raw[1] = 17, length
    raw[0x0C:0x0E] = size.to_bytes(2, "little")
    raw[0x12] = kind
    raw[0x15:0x17] = speed.to_bytes(2, "little")
    raw[0x20:0x22] = configured.to_bytes(2, "little")
    raw[0x58:0x5C] = extended.to_bytes(4, "little")
    return bytes(raw[:length]) + b"DIMM 0\0Maker\0\0"


BIOS = bytes([0, 0x18, 0, 0]) + bytes(0x14) + b"Vendor\0\0"
END = bytes([127, 4, 9, 0]) + b"\0\0"
TABLES = [
    (BIOS + module(16384, 0x22, 5600, 5200) + module(0, 0x22, 0) + END, ("DDR5", 5200)),
    (BIOS + module(16384, 0x1A, 3200, 3200) + module(8192, 0x1A, 2666) + END, ("DDR4", 2666)),
    # SMBIOS 2.3: too short a structure for the configured speed.
    (module(2048, 0x13, 800, length=0x1B) + END, ("DDR2", 800)),
    # Speeds from 65535 MT/s on stand in a field of their own.
    (module(16384, 0x23, 0xFFFF, 0xFFFF, length=0x5C, extended=70000) + END, ("LPDDR5", 70000)),
    (module(16384, 0x1A, 3200) + module(8192, 0x22, 4800) + END, ("DDR4+DDR5", 3200)),
    (module(4096, 0x07, 0) + END, (None, None)),  # QEMU says only "RAM"
    (END + module(16384, 0x22, 5600), (None, None)),
    (b"", (None, None)),
    (b"\x11\x03\x00\x00", (None, None)),
    (module(16384, 0x22, 5600)[:20], (None, None)),
    (module(16384, 0x22, 5600) + b"\x11\xff\x00", ("DDR5", 5600)),
]


@pytest.mark.parametrize(("table", "expected"), TABLES)
def test_memory_modules(table: bytes, expected: tuple[str | None, int | None]) -> None:
    assert memory_type_and_speed(table) == expected


def test_memory_modules_reach_the_facts(desktop: Path) -> None:
    assert "no SMBIOS table" in linux(desktop).availability().detail
    write(desktop, "sys/firmware/dmi/tables/DMI", BIOS + module(16384, 0x22, 5600, 5200) + END)
    probe = linux(desktop)
    memory = probe.facts().memory
    assert memory is not None
    assert (memory.type, memory.speed_mt_per_s) == ("DDR5", 5200)
    assert probe.availability().detail.startswith("processor, memory with type and speed")


def test_other_systems_tell_what_psutil_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    probe = LinuxProbe(system="Darwin")
    facts, reading = probe.facts(), probe.read()
    assert facts.cpu is not None
    assert facts.memory is not None
    assert facts.os == "macOS 15.1"
    assert facts.cpu.model is None  # "arm" names no processor
    assert facts.cpu.threads == os.cpu_count()
    assert facts.memory.total_bytes
    assert reading.busy_cpu_s is not None
    assert probe.availability().ok
    assert probe.availability().hint


def test_this_machine_counts_work() -> None:
    """The real /proc: burning a tenth of a CPU second shows up in the busy seconds."""
    before = PROBE.read().busy_cpu_s
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    after = PROBE.read().busy_cpu_s
    assert before is not None
    assert after is not None
    assert after - before > 0.05


def test_portable_and_linux_busy_time_agree() -> None:
    ours, portable = LinuxProbe().read().busy_cpu_s, LinuxProbe(system="Other").read().busy_cpu_s
    assert ours is not None
    assert portable is not None
    assert portable == pytest.approx(ours, rel=0.01, abs=1.0)


# What a processor does while it works: the kernel's "CPU Performance Scaling" (scaling_cur_freq in
# kHz), "Naming and data format standards for sysfs files" (temp1_input in millidegrees), "Generic
# Thermal Sysfs driver How To" (temp in millidegrees).


def test_clocks_temperature_and_throttling_are_read(desktop: Path) -> None:
    assert linux(desktop).read().cpu_mhz is None
    for number, khz in enumerate((4_000_000, 3_000_000, 2_000_000, 3_000_000)):
        cpu = f"sys/devices/system/cpu/cpu{number}"
        write(desktop, f"{cpu}/cpufreq/scaling_cur_freq", f"{khz}\n")
        write(desktop, f"{cpu}/thermal_throttle/core_throttle_count", f"{number}\n")
        write(desktop, f"{cpu}/thermal_throttle/package_throttle_count", "10\n")
    write(desktop, "sys/class/hwmon/hwmon0/name", "nvme\n")
    write(desktop, "sys/class/hwmon/hwmon0/temp1_input", "90000\n")
    write(desktop, "sys/class/hwmon/hwmon1/name", "k10temp\n")
    write(desktop, "sys/class/hwmon/hwmon1/temp1_input", "71250\n")
    write(desktop, "sys/class/hwmon/hwmon1/temp3_input", "65000\n")
    write(desktop, "sys/class/thermal/thermal_zone0/type", "acpitz\n")
    write(desktop, "sys/class/thermal/thermal_zone0/temp", "99000\n")
    reading = linux(desktop).read()
    assert (reading.cpu_mhz, reading.cpu_temperature_c, reading.cpu_throttles) == (3000, 71.25, 46)


@pytest.mark.parametrize("zone", ["x86_pkg_temp", "cpu-thermal", "cpu0-thermal", "soc_thermal"])
def test_a_thermal_zone_tells_the_temperature_where_no_chip_does(desktop: Path, zone: str) -> None:
    write(desktop, "sys/class/thermal/thermal_zone0/type", "gpu-thermal\n")
    write(desktop, "sys/class/thermal/thermal_zone0/temp", "99000\n")
    write(desktop, "sys/class/thermal/thermal_zone1/type", f"{zone}\n")
    write(desktop, "sys/class/thermal/thermal_zone1/temp", "55500\n")
    assert linux(desktop).read().cpu_temperature_c == 55.5


def test_of_many_processors_some_are_looked_at(desktop: Path) -> None:
    for number in range(256):
        write(desktop, f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_cur_freq", "2000000\n")
    probe = linux(desktop)
    assert probe.read().cpu_mhz == 2000
    assert len(probe._gauges.clocks) <= 16
