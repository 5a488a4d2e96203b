"""The amd probe over made-up sysfs trees."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from tokrig.errors import InputError, PutOff
from tokrig.probes import Cap, PowerProbe
from tokrig.probes.amd import AmdProbe
from tokrig.units import GIB, MIB

CARD_FILES = {
    "vendor": "0x1002\n",
    "device": "0x744c\n",
    "revision": "0xc8\n",
    "mem_info_vram_total": f"{24 * GIB}\n",
    "mem_info_vram_used": f"{3 * GIB}\n",
    "mem_info_gtt_total": f"{16 * GIB}\n",
    "mem_info_gtt_used": f"{50 * MIB}\n",
    "mem_info_vram_vendor": "samsung\n",
    "pp_dpm_sclk": "0: 500Mhz *\n1: 2615Mhz\n",
    "pp_dpm_mclk": "0: 96Mhz *\n1: 456Mhz\n2: 1249Mhz\n",
    "drm/renderD128/dev": "226:128\n",
    "hwmon/hwmon4/name": "amdgpu\n",
    "hwmon/hwmon4/power1_average": "187000000\n",
    "hwmon/hwmon4/power1_cap": "300000000\n",
    "hwmon/hwmon4/power1_cap_min": "150000000\n",
    "hwmon/hwmon4/power1_cap_max": "355000000\n",
    "hwmon/hwmon4/power1_cap_default": "327000000\n",
    "hwmon/hwmon4/temp1_input": "61000\n",
    "hwmon/hwmon4/freq1_input": "2411000000\n",
}
APU_FILES = {
    "vendor": "0x1002\n",
    "device": "0x1586\n",
    "revision": "0xc1\n",
    "mem_info_vram_total": f"{512 * MIB}\n",
    "mem_info_vram_used": f"{200 * MIB}\n",
    "mem_info_gtt_used": f"{40 * GIB}\n",
    "hwmon/hwmon1/power1_input": "54000000\n",
}


def metrics(form: int, content: int, status: int) -> bytes:
    """A table with nothing but the throttle status filled; the driver's sizes and offsets."""
    size, at = {(1, 3): (120, 112), (2, 2): (128, 120), (3, 0): (264, 0)}[form, content]
    raw = bytearray(b"\xff" * size)
    struct.pack_into("<HBB", raw, 0, size, form, content)
    if at:
        struct.pack_into("<Q", raw, at, status)
    return bytes(raw)


def card(root: Path, number: int, files: dict[str, str]) -> Path:
    device = root / f"sys/class/drm/card{number}/device"
    for name, text in files.items():
        (device / name).parent.mkdir(parents=True, exist_ok=True)
        (device / name).write_text(text)
    return device


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def one_card(tmp_path: Path) -> Path:
    card(tmp_path, 0, CARD_FILES)
    (tmp_path / "sys/class/drm/card0-DP-1").mkdir()
    write(tmp_path / "sys/class/drm/card1/device/vendor", "0x10de\n")
    write(tmp_path / "proc/sys/kernel/osrelease", "6.12.4\n")
    return tmp_path


def test_facts_of_a_card(one_card: Path) -> None:
    probe = AmdProbe(one_card)
    (gpu,) = probe.facts().gpus
    assert gpu.name == "AMD GPU 0x744c"
    assert gpu.vendor == "amd"
    assert gpu.vram_bytes == 24 * GIB
    assert gpu.unified_memory is False
    assert gpu.driver == "amdgpu (kernel 6.12.4)"
    assert (gpu.power_limit_w, gpu.power_default_w) == (300, 327)
    assert (gpu.power_min_w, gpu.power_max_w) == (150, 355)
    assert (gpu.clock_max_mhz, gpu.memory_clock_max_mhz) == (2615, 1249)
    assert gpu.arch is None
    assert (gpu.pcie_generation, gpu.pcie_width) == (None, None)
    assert probe.availability().detail == "1 AMD card(s): AMD GPU 0x744c"


def test_the_name_comes_from_installed_tables_or_the_board(one_card: Path) -> None:
    table = (
        "# comment\n1.0.0\n744C,\tC8,\tAMD Radeon RX 7900 XTX\n744C,\tCC,\tAMD Radeon RX 7900 XT\n"
    )
    write(one_card / "usr/share/libdrm/amdgpu.ids", table)
    assert AmdProbe(one_card).facts().gpus[0].name == "AMD Radeon RX 7900 XTX"
    write(one_card / "sys/class/drm/card0/device/product_name", "Instinct MI210\n")
    assert AmdProbe(one_card).facts().gpus[0].name == "AMD Instinct MI210"


@pytest.mark.parametrize(
    ("version", "name"),
    [("110000", "gfx1100"), ("90010", "gfx90a"), ("110501", "gfx1151"), ("0", None)],
)
def test_the_architecture_comes_from_the_compute_driver(
    one_card: Path, version: str, name: str | None
) -> None:
    nodes = one_card / "sys/class/kfd/kfd/topology/nodes"
    write(nodes / "0/properties", "cpu_cores_count 16\ndrm_render_minor 0\ngfx_target_version 0\n")
    write(nodes / "1/properties", f"drm_render_minor 128\ngfx_target_version {version}\n")
    assert AmdProbe(one_card).facts().gpus[0].arch == name


def test_the_driver_version_of_an_out_of_tree_module(one_card: Path) -> None:
    write(one_card / "sys/module/amdgpu/version", "6.10.5\n")
    assert AmdProbe(one_card).facts().gpus[0].driver == "amdgpu 6.10.5"


def test_the_slot_limits_the_link_not_the_switch_on_the_card(tmp_path: Path) -> None:
    port = tmp_path / "sys/devices/pci0000:00/0000:00:01.1"
    inner = port / "0000:01:00.0/0000:02:00.0/0000:03:00.0"
    inner.mkdir(parents=True)
    for folder, speed, width in (
        (port, "16.0 GT/s PCIe", 8),
        (inner.parents[1], "16.0 GT/s PCIe", 8),
        (inner.parents[0], "16.0 GT/s PCIe", 16),
        (inner, "32.0 GT/s PCIe", 16),
    ):
        write(folder / "max_link_speed", f"{speed}\n")
        write(folder / "current_link_width", f"{width}\n")
    write(inner / "vendor", "0x1002\n")
    link = tmp_path / "sys/class/drm/card0/device"
    link.parent.mkdir(parents=True)
    link.symlink_to(inner)
    (gpu,) = AmdProbe(tmp_path).facts().gpus
    assert (gpu.pcie_generation, gpu.pcie_width) == (4, 8)


def test_reading_of_a_card(one_card: Path) -> None:
    device = one_card / "sys/class/drm/card0/device"
    (device / "gpu_metrics").write_bytes(metrics(1, 3, 1 << 36 | 1 << 0))
    write(device / "gpu_busy_percent", "93\n")
    reading = AmdProbe(one_card).read()
    (told,) = reading.cards
    assert (told.name, told.power_w, told.limit_w) == ("AMD GPU 0x744c", 187, 300)
    assert (told.temperature_c, told.clock_mhz, told.busy) == (61, 2411, 0.93)
    # Borrowed main memory is no VRAM.
    assert (told.memory_used_bytes, told.gtt_used_bytes) == (3 * GIB, 50 * MIB)
    assert told.reasons == ("power_limit", "thermal")
    assert told.energy_j is None
    write(device / "hwmon/hwmon4/energy1_input", "5000000\n")
    assert AmdProbe(one_card).read().cards[0].energy_j == 5.0


# The compute driver's width and clock of these cards, and GB/s by AMD's data sheets.
CARDS = [
    ("RX 7900 XTX", 110000, 384, 1249, 960),
    ("PRO W7900", 110000, 384, 1124, 864),
    ("RX 6900 XT", 100300, 256, 1000, 512),
    ("RX 9070 XT", 120001, 256, 1259, 645),
    ("RX 580", 80003, 256, 2000, 256),
    ("Radeon VII", 90006, 4096, 1000, 1024),
    ("MI100", 90008, 4096, 1200, 1229),
    ("MI250X, one of two", 90010, 4096, 1600, 1638),
    ("MI300X", 90402, 8192, 1300, 5300),
]


def node(root: Path, version: int, bits: object, mhz: object) -> None:
    """What the kernel's compute driver tells of render device 128 (kfd_topology.c)."""
    folder = root / "sys/class/kfd/kfd/topology/nodes/1"
    write(folder / "properties", f"drm_render_minor 128\ngfx_target_version {version}\n")
    told = "heap_type 1\nsize_in_bytes 25753026560\nflags 0\nwidth {}\nmem_clk_max {}\n"
    write(folder / "mem_banks/0/properties", told.format(bits, mhz))


@pytest.mark.parametrize(("name", "version", "bits", "mhz", "gb_per_s"), CARDS)
def test_bandwidths_of_cards_as_amd_states_them(
    tmp_path: Path, name: str, version: int, bits: int, mhz: int, gb_per_s: float
) -> None:
    card(tmp_path, 0, CARD_FILES)
    node(tmp_path, version, bits, mhz)
    (gpu,) = AmdProbe(tmp_path).facts().gpus
    assert gpu.bandwidth_bytes_per_s == pytest.approx(gb_per_s * 1e9, rel=0.006), name
    assert gpu.bandwidth_from == "driver"


@pytest.mark.parametrize(
    ("version", "bits", "mhz"),
    [(110000, 0, 1249), (110000, 384, 0), (0, 384, 1249), (110000, "x", "y"), (110000, -384, 1)],
)
def test_what_the_driver_leaves_open_gives_no_bandwidth(
    tmp_path: Path, version: int, bits: object, mhz: object
) -> None:
    card(tmp_path, 0, CARD_FILES)
    node(tmp_path, version, bits, mhz)
    (gpu,) = AmdProbe(tmp_path).facts().gpus
    assert (gpu.bandwidth_bytes_per_s, gpu.bandwidth_from) == (None, None)


def test_of_integrated_graphics_only_those_whose_width_is_right(tmp_path: Path) -> None:
    device = card(tmp_path, 1, APU_FILES | {"drm/renderD128/dev": "226:128\n"})
    (device / "gpu_metrics").write_bytes(metrics(2, 2, 0))
    # Strix Halo: 256 bits of LPDDR5X at 8000 MT/s. Of Van Gogh the driver tells twice its width.
    node(tmp_path, 110501, 256, 1000)
    assert AmdProbe(tmp_path).facts().gpus[0].bandwidth_bytes_per_s == 256e9
    node(tmp_path, 100303, 256, 800)
    assert AmdProbe(tmp_path).facts().gpus[0].bandwidth_bytes_per_s is None


def test_an_apu_shares_main_memory(tmp_path: Path) -> None:
    device = card(tmp_path, 1, APU_FILES)
    (device / "gpu_metrics").write_bytes(metrics(2, 2, 0))
    probe = AmdProbe(tmp_path)
    assert probe.facts().gpus[0].unified_memory is True
    (told,) = probe.read().cards
    assert told.memory_used_bytes == 200 * MIB + 40 * GIB
    assert (told.power_w, told.gtt_used_bytes, told.reasons) == (54, 40 * GIB, ())


def test_an_apu_of_today_counts_how_long_it_was_held_down(tmp_path: Path) -> None:
    # Format 3.0, that of Strix Point and Strix Halo: prochot, three of power, three of heat.
    device = card(tmp_path, 1, APU_FILES)

    def counted(*counters: int) -> None:
        raw = bytearray(metrics(3, 0, 0))
        struct.pack_into("<7I", raw, 228, *counters)
        (device / "gpu_metrics").write_bytes(raw)

    probe = AmdProbe(tmp_path)
    seen = []
    for counters in ((5, 1, 2, 3, 0, 9, 9), (5, 1, 2, 4, 0, 9, 9), (5, 1, 2, 4, 0, 10, 9)):
        counted(*counters)
        seen.append(probe.read().cards[0].reasons)
    assert seen == [(), ("power_limit",), ("thermal",)]


def fdinfo(
    root: Path, pid: int, number: int, text: str, target: str = "/dev/dri/renderD128"
) -> None:
    """An open file of a process, and what the kernel tells of it."""
    link = root / f"proc/{pid}/fd/{number}"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    write(root / f"proc/{pid}/fdinfo/{number}", f"pos:\t0\nflags:\t02100002\n{text}")


def client(number: int, *lines: str, card: str = "0000:03:00.0", driver: str = "amdgpu") -> str:
    head = (f"drm-driver:\t{driver}", f"drm-client-id:\t{number}", f"drm-pdev:\t{card}")
    return "\n".join((*head, *lines)) + "\n"


def at_slot(root: Path, number: int, address: str, files: dict[str, str]) -> None:
    """A card whose folder is named by its PCI address, as real ones are."""
    device = root / "sys/devices" / address
    for name, text in files.items():
        write(device / name, text)
    link = root / f"sys/class/drm/card{number}/device"
    link.parent.mkdir(parents=True)
    link.symlink_to(device)


def test_memory_of_each_process(tmp_path: Path) -> None:
    at_slot(tmp_path, 0, "0000:03:00.0", CARD_FILES)
    at_slot(tmp_path, 1, "0000:0a:00.0", CARD_FILES)
    # As Linux tells it from 6.14 on; the same open file under two numbers counts once.
    new = client(
        7, "drm-total-vram:\t9 GiB", "drm-resident-vram:\t2048 MiB", "drm-memory-vram:\t1 KiB"
    )
    fdinfo(tmp_path, 4242, 5, new)
    fdinfo(tmp_path, 4242, 6, new)
    # A second card, and a kernel before 6.14. Main memory that a card maps is not the card's.
    old = ("drm-memory-vram:\t1024 KiB", "drm-memory-gtt: \t77 KiB")
    fdinfo(tmp_path, 4242, 9, client(8, *old, card="0000:0a:00.0"), "/dev/dri/renderD129")
    fdinfo(tmp_path, 77, 3, client(1, "drm-resident-vram:\t0"))
    # No amdgpu, no graphics device, no card of ours, nothing told.
    fdinfo(tmp_path, 78, 3, client(1, "drm-resident-vram0:\t9 MiB", driver="xe"))
    fdinfo(tmp_path, 79, 3, client(1, "drm-resident-vram:\t9 MiB"), "/var/file")
    fdinfo(tmp_path, 80, 3, client(1, "drm-resident-vram:\t9 MiB", card="0000:99:00.0"))
    fdinfo(tmp_path, 81, 3, "")
    (tmp_path / "proc/82").mkdir()
    reading = AmdProbe(tmp_path).read()
    first, second = reading.cards
    assert first.process_bytes == {4242: 2048 * MIB, 77: 0}
    assert second.process_bytes == {4242: 1 * MIB}
    assert first.process_bytes == {4242: 2048 * MIB, 77: 0}
    assert second.process_bytes == {4242: 1 * MIB}
    assert not first.complete


def test_who_computes_with_rocm_and_how_busy_the_others_are(tmp_path: Path) -> None:
    at_slot(tmp_path, 0, "0000:03:00.0", CARD_FILES)
    node = tmp_path / "sys/class/kfd/kfd/topology/nodes/1"
    write(node / "gpu_id", "51737\n")
    write(node / "properties", "location_id 768\ndomain 0\ndrm_render_minor 128\n")
    # Files of the compute driver are everybody's to read, those of a process are not.
    write(tmp_path / "sys/class/kfd/kfd/proc/900/vram_51737", f"{GIB}\n")
    write(tmp_path / "sys/class/kfd/kfd/proc/901/vram_51737", "0\n")
    file = tmp_path / "proc/77/fdinfo/3"
    fdinfo(tmp_path, 77, 3, client(1, "drm-engine-gfx:\t5000000 ns", "drm-resident-vram:\t1 MiB"))
    probe = AmdProbe(tmp_path)
    (told,) = probe.read().cards
    assert (told.compute_bytes, told.graphics_bytes) == ({900: GIB}, {77: MIB})
    write(file, client(1, "drm-engine-gfx:\t9999000000000 ns"))
    (told,) = probe.read().cards
    assert told.process_busy is not None
    assert told.process_busy[77] > 1


def test_a_process_on_an_apu_holds_main_memory_too(tmp_path: Path) -> None:
    at_slot(tmp_path, 0, "0000:c1:00.0", APU_FILES)
    metrics_file = tmp_path / "sys/devices/0000:c1:00.0/gpu_metrics"
    metrics_file.write_bytes(metrics(2, 2, 0))
    lines = ("drm-resident-vram:\t100 MiB", "drm-resident-gtt:\t5000 MiB")
    fdinfo(tmp_path, 5, 3, client(1, *lines, card="0000:c1:00.0"))
    assert AmdProbe(tmp_path).read().cards[0].process_bytes == {5: 5100 * MIB}


@pytest.mark.parametrize("size", ["", "lots", "-4 MiB", "5 GB", "5 MiB MiB"])
def test_sizes_that_tell_nothing(tmp_path: Path, size: str) -> None:
    at_slot(tmp_path, 0, "0000:03:00.0", CARD_FILES)
    fdinfo(tmp_path, 5, 3, client(1, f"drm-resident-vram:\t{size}"))
    assert AmdProbe(tmp_path).read().cards[0].process_bytes == {5: 0}


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x78", metrics(1, 3, 0xFFFF_FFFF_FFFF_FFFF), metrics(1, 3, 1)[:100]],
    ids=["empty", "short header", "not filled", "cut"],
)
def test_metrics_that_tell_nothing(one_card: Path, raw: bytes) -> None:
    device = one_card / "sys/class/drm/card0/device"
    (device / "gpu_metrics").write_bytes(raw)
    assert AmdProbe(one_card).read().cards[0].reasons is None


def test_memory_of_unknown_kind_is_not_guessed(tmp_path: Path) -> None:
    card(tmp_path, 0, APU_FILES)
    assert AmdProbe(tmp_path).facts().gpus[0].unified_memory is None


def test_two_cards_and_one_that_tells_no_power(one_card: Path) -> None:
    silent = {"vendor": "0x1002", "device": "0x73bf", "mem_info_vram_used": str(GIB)}
    card(one_card, 2, silent)
    probe = AmdProbe(one_card)
    assert [g.name for g in probe.facts().gpus] == ["AMD GPU 0x744c", "AMD GPU 0x73bf"]
    reading = probe.read()
    assert sum(told.memory_used_bytes or 0 for told in reading.cards) == 4 * GIB
    assert [told.power_w for told in reading.cards] == [187, None]


def test_no_card(tmp_path: Path) -> None:
    probe = AmdProbe(tmp_path)
    assert not probe.availability().ok
    assert "amdgpu" in probe.availability().hint
    assert probe.facts().gpus == ()
    assert probe.read().cards == ()


CAP_FILE = "sys/class/drm/card0/device/hwmon/hwmon4/power1_cap"


def test_the_cap_of_a_card_is_told_and_set(one_card: Path) -> None:
    card(one_card, 2, APU_FILES)  # it has no cap
    probe = AmdProbe(one_card)
    assert isinstance(probe, PowerProbe)
    assert probe.caps() == (Cap("AMD GPU 0x744c", 0, 300, 327, 150, 355, settable=True),)
    probe.set_cap(0, 180.5)
    assert (one_card / CAP_FILE).read_text() == "180500000"
    assert probe.caps()[0].limit_w == 180.5


def test_a_cap_of_the_second_card(one_card: Path) -> None:
    card(one_card, 1, CARD_FILES)
    probe = AmdProbe(one_card)
    assert [cap.index for cap in probe.caps()] == [0, 1]
    probe.set_cap(1, 200)
    assert [cap.limit_w for cap in probe.caps()] == [300, 200]


def test_a_cap_that_this_user_may_not_set(one_card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (cap,) = AmdProbe(one_card).caps()
    assert (cap.settable, cap.limit_w) == (False, 300)
    assert f"sudo chmod a+w {one_card / CAP_FILE}" in cap.why


def test_a_card_that_sleeps_tells_no_cap(one_card: Path) -> None:
    (one_card / CAP_FILE).write_text("")
    (cap,) = AmdProbe(one_card).caps()
    assert (cap.settable, cap.limit_w) == (False, None)
    assert "card0/device/power/control" in cap.why


@pytest.mark.parametrize(
    ("number", "error", "says"),
    [
        (errno.EACCES, PutOff, "the power cap of AMD GPU 0x744c may not be set"),
        (errno.EINVAL, InputError, "a power cap of 180 W is not what the card allows"),
        (errno.EIO, PutOff, "a power cap of 180 W failed: Input/output error"),
    ],
)
def test_a_cap_that_the_driver_refuses(
    one_card: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[Exception],
    says: str,
) -> None:
    def refuse(path: Path, text: str) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(error, match=says):
        AmdProbe(one_card).set_cap(0, 180)
