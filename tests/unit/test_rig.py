"""Merging probes' facts, naming a rig, telling people about it."""

from __future__ import annotations

import os
import platform

import pytest

from tokrig import rig as rig_module
from tokrig.cli.machine import rig_rows
from tokrig.naming import gpus_known, hardware_name
from tokrig.probes import Facts
from tokrig.record.model import Cpu, Gpu, Memory, Rig
from tokrig.rig import (
    default_rig_id,
    merge,
    probe_rig,
    rig_elsewhere,
    rig_of_server,
)
from tokrig.units import GIB, MIB

RTX_5070 = Gpu(name="NVIDIA GeForce RTX 5070", vendor="nvidia", vram_bytes=12227 * MIB)
INTEGRATED = Gpu(name="AMD Radeon Graphics", vendor="amd", vram_bytes=512 * MIB)


def rig(*gpus: Gpu, model: str | None = None, cores: int | None = None, gib: float = 0) -> Rig:
    return Rig(
        id="x",
        cpu=Cpu(model=model, cores=cores),
        memory=Memory(total_bytes=int(gib * GIB) or None),
        gpus=list(gpus),
    )


@pytest.mark.parametrize(
    ("name", "vram_mib", "expected"),
    [
        ("NVIDIA GeForce RTX 5070", 12227, "geforce-rtx-5070-12gb"),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", 6144, "geforce-rtx-3060-laptop-gpu-6gb"),
        ("NVIDIA H100 80GB HBM3", 81559, "h100-hbm3-80gb"),
        ("NVIDIA A100-SXM4-40GB", 40960, "a100-sxm4-40gb"),
        ("AMD Radeon RX 7900 XTX", 24560, "radeon-rx-7900-xtx-24gb"),
        ("AMD GPU 0x744c", 24560, "amd-gpu-0x744c-24gb"),
        ("Intel(R) Arc(TM) A770 Graphics", 16288, "arc-a770-graphics-16gb"),
    ],
)
def test_names_of_gpu_rigs(name: str, vram_mib: int, expected: str) -> None:
    gpu = Gpu(name=name, vendor="other", vram_bytes=vram_mib * MIB)
    assert default_rig_id(rig(gpu)) == expected


def test_names_of_several_gpus() -> None:
    other = Gpu(name="NVIDIA RTX A2000", vendor="nvidia", vram_bytes=6 * GIB)
    assert default_rig_id(rig(RTX_5070, RTX_5070)) == "2x-geforce-rtx-5070-12gb"
    assert default_rig_id(rig(RTX_5070, other)) == "geforce-rtx-5070-12gb-and-rtx-a2000-6gb"


def test_integrated_graphics_name_no_rig() -> None:
    assert default_rig_id(rig(RTX_5070, INTEGRATED)) == "geforce-rtx-5070-12gb"
    alone = rig(INTEGRATED, model="AMD Ryzen 9 7900 12-Core Processor", cores=12, gib=30.5)
    assert default_rig_id(alone) == "amd-ryzen-9-7900-12c-32gb"


def test_a_gpu_of_unknown_memory_still_names_the_rig() -> None:
    assert default_rig_id(rig(Gpu(name="NVIDIA GB10", vendor="nvidia"))) == "gb10"


@pytest.mark.parametrize(
    ("model", "cores", "gib", "expected"),
    [
        ("Intel(R) Xeon(R) Processor", 2, 23.54, "intel-xeon-processor-2c-24gb"),
        ("AMD Ryzen 9 7900 12-Core Processor", 12, 31.1, "amd-ryzen-9-7900-12c-32gb"),
        ("Intel(R) Xeon(R) CPU E5-2690 v4 @ 2.60GHz", 14, 62.7, "intel-xeon-e5-2690-v4-14c-64gb"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", 1, 3.8, "intel-xeon-1c-4gb"),
        ("Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz", 6, 15.5, "intel-core-i7-8700k-6c-16gb"),
        ("13th Gen Intel(R) Core(TM) i7-13700K", 16, 94.0, "intel-core-i7-13700k-16c-96gb"),
        (
            "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S",
            16,
            125.1,
            "amd-ryzen-ai-max-395-16c-128gb",
        ),
        ("AMD EPYC 7763 64-Core Processor", 64, 1007.5, "amd-epyc-7763-64c-1024gb"),
        ("ARM Cortex-A76", 4, 7.9, "arm-cortex-a76-4c-8gb"),
        # as it was when the cores were not yet counted
        ("ARM 4x Cortex-A55 + 4x Cortex-A76", 8, 15.6, "arm-cortex-a55-cortex-a76-8c-16gb"),
        ("Qualcomm Oryon", 12, 31.0, "qualcomm-oryon-12c-32gb"),
        ("Intel(R) N100", 4, 13.5, "intel-n100-4c-14gb"),
        (None, None, 0, "unknown-cpu"),
    ],
)
def test_names_of_cpu_rigs(model: str | None, cores: int | None, gib: float, expected: str) -> None:
    assert default_rig_id(rig(model=model, cores=cores, gib=gib)) == expected


def test_merge_takes_the_first_known_and_the_largest_gpu_first() -> None:
    merged = merge(
        [
            Facts(gpus=(INTEGRATED,)),
            Facts(cpu=Cpu(model="A"), os="Debian", kernel="6.12", virtualization="none"),
            Facts(cpu=Cpu(model="B"), memory=Memory(total_bytes=5), gpus=(RTX_5070,)),
        ]
    )
    assert merged.cpu.model == "A"
    assert merged.memory.total_bytes == 5
    assert merged.gpus == [RTX_5070, INTEGRATED]
    assert (merged.os, merged.kernel, merged.virtualization) == ("Debian", "6.12", "none")


def test_probe_rig_on_this_machine() -> None:
    found = probe_rig()
    assert found.cpu.threads
    assert found.memory.total_bytes
    assert found.kernel == platform.release()
    assert found.id == default_rig_id(found)
    host = platform.node()
    assert len(host) < 4 or host not in found.model_dump_json()


def test_an_own_name_is_made_safe() -> None:
    assert probe_rig("../My Rig #1").id == "my-rig-1"


def test_rows_of_a_full_rig() -> None:
    gpu = RTX_5070.model_copy(
        update={
            "arch": "Blackwell",
            "driver": "570.86.10",
            "power_limit_w": 200.0,
            "power_max_w": 300.0,
            "power_default_w": 250.0,
            "clock_max_mhz": 3090.0,
            "memory_clock_max_mhz": 14001.0,
            "pcie_generation": 5,
            "pcie_width": 16,
        }
    )
    full = Rig(
        id="geforce-rtx-5070-12gb",
        cpu=Cpu(model="Ryzen", cores=12, threads=24, governor="powersave", max_mhz=5400.5),
        memory=Memory(total_bytes=32 * GIB, speed_mt_per_s=5200, type="DDR5"),
        gpus=[gpu],
    )
    rows = dict(rig_rows(full))
    assert rows["Cores"] == "12 cores, 24 threads"
    assert rows["Memory"] == "32.00 GiB"
    assert rows["Memory type"] == "DDR5, 5200 MT/s"
    assert rows["GPU"] == "NVIDIA GeForce RTX 5070, Blackwell"
    assert rows["GPU memory"] == "11.94 GiB"
    assert rows["GPU power limit"] == "200 W (default 250 W, max 300 W)"
    assert rows["GPU max clocks"] == "3090 MHz core, 14001 MHz memory"
    assert rows["GPU PCIe"] == "5.0 x16"
    assert rows["Virtualization"] == "–"


def test_rows_of_an_unknown_rig_and_of_two_gpus() -> None:
    rows = dict(rig_rows(rig()))
    assert {v for k, v in rows.items() if k != "Rig"} == {"–"}
    two = dict(rig_rows(rig(RTX_5070, INTEGRATED)))
    assert two["GPU 2"] == "AMD Radeon Graphics"
    shared = INTEGRATED.model_copy(update={"unified_memory": True})
    assert "shared" in dict(rig_rows(rig(shared)))["GPU memory"]


def test_memory_sizes_rise() -> None:
    sizes = list(rig_module.MEMORY_SIZES_GB)
    assert sizes == sorted(set(sizes))


def test_a_machine_elsewhere_has_no_facts_but_what_is_stated() -> None:
    nobody = rig_elsewhere(None, None)
    assert nobody == Rig(id="unknown-rig", facts_from="nobody")
    assert hardware_name(nobody) == "machine not known"
    named = rig_elsewhere("My Box", None)
    assert (named.id, named.facts_from) == ("my-box", "nobody")
    stated = rig_elsewhere("box", rig(RTX_5070, cores=12))
    assert (stated.id, stated.facts_from, stated.cpu.cores) == ("box", "user", 12)
    assert [gpus_known(one) for one in (nobody, named, stated, rig())] == [False, False, True, True]


def test_a_server_that_cannot_be_seen_may_be_limited() -> None:
    """Its own limits are told; of one whose process cannot be seen they are not known."""
    assert rig_of_server(None, os.getpid()) == probe_rig()
    unseen = rig_of_server(None, None)
    assert (unseen.cpu.usable_cpus, unseen.memory.usable_bytes) == (None, None)
    assert unseen.cpu.threads == probe_rig().cpu.threads


def test_a_limit_stands_in_the_id_and_the_name_of_the_hardware() -> None:
    cpu = Cpu(model="AMD EPYC 7643 48-Core Processor", cores=48, threads=96, usable_cpus=4)
    memory = Memory(total_bytes=503 * GIB, usable_bytes=16 * GIB)
    limited = Rig(id="x", cpu=cpu, memory=memory)
    assert default_rig_id(limited) == "amd-epyc-7643-4t-16gb"
    assert hardware_name(limited) == "EPYC 7643 · 4 CPUs · 16 GB RAM"
    rows = dict(rig_rows(limited))
    assert rows["CPUs to use"].startswith("4,")
    assert rows["Memory to use"].startswith("16.00 GiB")
    with_card = limited.model_copy(update={"gpus": [RTX_5070]})
    assert default_rig_id(with_card) == "geforce-rtx-5070-12gb-with-4t-16gb"
    assert hardware_name(with_card) == "GeForce RTX 5070 · 12 GB · 4 CPUs"
