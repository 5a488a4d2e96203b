"""Machines that are no PCs: named by device tree, firmware and MIDR, over made-up trees.

The contents are those of the kernel's device trees (``model``, ``compatible``) and of the
``/proc/cpuinfo`` of each architecture.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_limits import tree
from tokrig.naming import gpu_name
from tokrig.probes import Facts, _sysfs
from tokrig.probes.linux import LinuxProbe
from tokrig.probes.nvidia import NvidiaProbe
from tokrig.record.model import Cpu, Gpu, Memory, Rig
from tokrig.rig import default_rig_id, merge
from tokrig.units import GIB


def arm(*clusters: tuple[int, str, str]) -> str:
    """``/proc/cpuinfo`` of clusters of so many cores."""
    parts = [(who, part) for count, who, part in clusters for _ in range(count)]
    return "".join(
        f"processor\t: {n}\nFeatures\t: fp asimd\nCPU implementer\t: {who}\nCPU part\t: {part}\n\n"
        for n, (who, part) in enumerate(parts)
    )


def found(root: Path, files: dict[str, str]) -> Facts:
    return LinuxProbe(tree(root, files), system="Linux").facts()


MACHINES = [
    (
        arm((4, "0x41", "0xd0b")),
        {"model": "Raspberry Pi 5 Model B Rev 1.0", "compatible": "raspberrypi,5\0brcm,bcm2712"},
        ("ARM Cortex-A76", "brcm,bcm2712", "Raspberry Pi 5 Model B Rev 1.0"),
    ),
    (
        arm((4, "0x41", "0xd05"), (4, "0x41", "0xd0b")),
        {"model": "Radxa ROCK 5B", "compatible": "radxa,rock-5b\0rockchip,rk3588"},
        ("ARM 4x Cortex-A55 + 4x Cortex-A76", "rockchip,rk3588", "Radxa ROCK 5B"),
    ),
    (
        arm((12, "0x41", "0xd42")),
        {
            "model": "NVIDIA Jetson AGX Orin Developer Kit",
            "compatible": "nvidia,p3737-0000+p3701-0000\0nvidia,p3701-0000\0nvidia,tegra234",
        },
        ("ARM Cortex-A78AE", "nvidia,tegra234", "NVIDIA Jetson AGX Orin Developer Kit"),
    ),
    (
        arm((12, "0x51", "0x001")),
        {"model": "Lenovo ThinkPad T14s Gen 6", "compatible": "lenovo,t14s\0qcom,x1e80100"},
        ("Qualcomm Oryon", "qcom,x1e80100", "Lenovo ThinkPad T14s Gen 6"),
    ),
    (
        arm((4, "0x61", "0x032"), (4, "0x61", "0x033")),
        {
            "model": "Apple MacBook Air (13-inch, M2, 2022)",
            "compatible": "apple,j413\0apple,t8112\0apple,arm-platform",
        },
        (
            "Apple 4x M2-Blizzard + 4x M2-Avalanche",
            "apple,t8112",
            "Apple MacBook Air (13-inch, M2, 2022)",
        ),
    ),
    # cores of two makers in one chip (Snapdragon 865)
    (
        arm((4, "0x51", "0x805"), (4, "0x41", "0xd0d")),
        {},
        ("Qualcomm 4x Kryo-4xx-Silver + ARM 4x Cortex-A77", None, None),
    ),
    # QEMU's made-up board is no board
    (
        arm((2, "0x41", "0xd0c")),
        {"model": "linux,dummy-virt", "compatible": "linux,dummy-virt"},
        ("ARM Neoverse-N1", None, None),
    ),
    (
        "processor\t: 0\nhart\t: 0\nisa\t: rv64imafdcv_zba\nuarch\t: thead,c920\n",
        {"model": "Sophgo Mango", "compatible": "sophgo,mango\0sophgo,sg2042"},
        ("thead,c920", "sophgo,sg2042", "Sophgo Mango"),
    ),
    (
        "system type\t: generic\n\nprocessor\t\t: 0\nModel Name\t\t: Loongson-3A6000\n"
        "Features\t\t: cpucfg lam fpu lsx lasx\n",
        {},
        ("Loongson-3A6000", None, None),
    ),
    (
        "processor\t: 0\ncpu\t\t: POWER9, altivec supported\n",
        {"model": "T2P9D01 REV 1.01", "compatible": "rcs,talos\0ibm,powernv"},
        ("POWER9, altivec supported", "ibm,powernv", "T2P9D01 REV 1.01"),
    ),
    (
        "vendor_id       : IBM/S390\n# processors    : 2\nfeatures\t: esan3 vx vxe nnpa\n"
        "processor 0: version = FF,  identification = 0133E8,  machine = 8561\n",
        {},
        ("IBM Z 8561", None, None),
    ),
]


@pytest.mark.parametrize(("cpuinfo", "properties", "expected"), MACHINES)
def test_what_a_machine_is_called(
    tmp_path: Path,
    cpuinfo: str,
    properties: dict[str, str],
    expected: tuple[str | None, str | None, str | None],
) -> None:
    files = {f"proc/device-tree/{name}": f"{text}\0" for name, text in properties.items()}
    facts = found(tmp_path, {"proc/cpuinfo": cpuinfo, **files})
    assert facts.cpu is not None
    assert (facts.cpu.model, facts.cpu.soc, facts.board) == expected
    # A word in a list of features is no hypervisor bit.
    assert facts.virtualization is None


def test_features_of_other_architectures(tmp_path: Path) -> None:
    for number, (text, features) in enumerate(
        [
            ("isa\t: rv64imafdcv_zba\n", ["rvv"]),
            ("isa\t: rv64imafdc_zve32x\n", []),
            ("Features\t: cpucfg fpu lsx lasx\n", ["lsx", "lasx"]),
            ("features\t: esan3 vx vxe nnpa\n", ["vx", "vxe", "nnpa"]),
        ]
    ):
        cpu = found(tmp_path / str(number), {"proc/cpuinfo": text}).cpu
        assert cpu is not None
        assert cpu.features == features


def test_registers_where_cpuinfo_tells_nothing(tmp_path: Path) -> None:
    files = {
        f"sys/devices/system/cpu/cpu{n}/regs/identification/midr_el1": f"{midr:#018x}\n"
        for n, midr in ((0, 0x412FD050), (1, 0x412FD050), (10, 0x414FD0B1))
    }
    cpu = found(tmp_path, {"proc/cpuinfo": "processor\t: 0\n", **files}).cpu
    assert cpu is not None
    assert cpu.model == "ARM 2x Cortex-A55 + 1x Cortex-A76"


@pytest.mark.parametrize(
    ("firmware", "name"),
    [
        (("LENOVO", "21N1CTO1WW", "ThinkPad T14s Gen 6"), "LENOVO ThinkPad T14s Gen 6"),
        (("NVIDIA", "NVIDIA_DGX_Spark", "A.7"), "NVIDIA_DGX_Spark"),
        (("Ampere(R)", "Mt. Jade", "1.0"), "Ampere(R) Mt. Jade"),
        (("To be filled by O.E.M.", "Board 7", ""), "Board 7"),
        (("ASUS", "System Product Name", ""), None),
        (("ASUS", "", ""), None),
    ],
)
def test_a_board_by_its_firmware(
    tmp_path: Path, firmware: tuple[str, str, str], name: str | None
) -> None:
    fields = zip(("sys_vendor", "product_name", "product_version"), firmware, strict=True)
    files = {f"sys/class/dmi/id/{field}": f"{text}\n" for field, text in fields}
    assert _sysfs.board(tree(tmp_path, files)) == name


def test_a_pc_is_told_by_its_processor(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: N100\nflags\t\t: fpu sse4_2\n",
        "sys/class/dmi/id/product_name": "Mini PC\n",
    }
    assert found(tmp_path, files).board is None


def test_android_hides_its_load_and_no_more(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/cpuinfo": arm((8, "0x41", "0xd05"))})
    state = LinuxProbe(root, system="Linux").availability()
    assert state.ok
    assert "nothing of its load" in state.detail


ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
}


def test_a_jetson_without_nvml_has_graphics(tmp_path: Path) -> None:
    class NoDriver:
        """NVML's binding on a system without the library."""

        class NVMLError(Exception):
            pass

        NVMLError_LibraryNotFound = NVMLError

        def nvmlInit(self) -> None:
            raise self.NVMLError

    root = tree(tmp_path, {**ORIN, "proc/cpuinfo": arm((6, "0x41", "0xd42"))})
    tree(root, {"proc/meminfo": "MemTotal: 7800000 kB\n"})
    (gpu,) = NvidiaProbe(NoDriver(), root).facts().gpus
    assert (gpu.vendor, gpu.arch, gpu.unified_memory) == ("nvidia", "Ampere", True)
    rig = merge([Facts(gpus=(gpu,)), LinuxProbe(root, system="Linux").facts()])
    assert default_rig_id(rig) == "jetson-orin-nano-developer-kit-8gb"


def test_a_jetsons_board_names_the_rig_with_nvml_too() -> None:
    """JetPack 6 has NVML, which calls every Orin by one name and tells no memory."""
    rig = Rig(
        id="x",
        board="NVIDIA Jetson AGX Orin Developer Kit",
        cpu=Cpu(soc="nvidia,tegra234"),
        memory=Memory(total_bytes=int(61.4 * GIB)),
        gpus=[Gpu(name="Orin (nvgpu)", vendor="nvidia")],
    )
    assert default_rig_id(rig) == "jetson-agx-orin-developer-kit-64gb"


def test_a_slice_of_a_card_is_named_as_such() -> None:
    card = Gpu(name="NVIDIA H100 80GB HBM3", vendor="nvidia", vram_bytes=80 * GIB)
    part = card.model_copy(update={"mig_profile": "1g.10gb", "vram_bytes": 10 * GIB})
    assert default_rig_id(Rig(id="x", gpus=[part])) == "h100-hbm3-mig-1g.10gb"
    assert default_rig_id(Rig(id="x", gpus=[part, part])) == "2x-h100-hbm3-mig-1g.10gb"
    assert default_rig_id(Rig(id="x", gpus=[card])) == "h100-hbm3-80gb"
    assert gpu_name(part) == "H100 80GB HBM3 MIG 1g.10gb"
