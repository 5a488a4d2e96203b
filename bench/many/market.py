"""What people run and on what: the tables beside this file, as objects.

Sizes, layers and bandwidths are about as published; shares are guesses. They make plausible
records, and are no reference for anything else.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tokrig.record import model as m
from tokrig.rig import default_rig_id
from tokrig.units import GIB

HERE = Path(__file__).parent

GPU_MEMORY_SHARE, MAIN_MEMORY_SHARE = 0.92, 0.70  # what a model may fill
VISIBLE_MEMORY_SHARE = 0.97  # firmware keeps the rest
POWER_LIMITS = (1.0, 0.83, 1.0, 0.7)  # of the maximum: many people cap their cards


class Variant(NamedTuple):
    """A model: parameters in all and active for a token; ``kv_width`` = KV heads × their width.
    ``traits`` says "reasoning" (always), "switchable" (reasoning that can be off), "mtp"."""

    family: str
    released: str
    license: str
    architecture: str
    traits: str
    name: str
    parameters: int
    active: int
    layers: int
    kv_width: int
    context_train: int


class Machine(NamedTuple):
    """A rig: the bytes a model may fill, bytes/s of its memory, FLOP/s in dense FP16. Several
    GPUs take turns, layer by layer: they add memory, not speed."""

    rig: m.Rig
    vendor: str
    memory: float
    bandwidth: float
    flops: float
    share: int


class Quant(NamedTuple):
    """A quant, how often it is met, and the type of most of its tensors."""

    label: str
    bits_per_weight: float
    share: int
    tensor_type: str


@cache
def tables() -> dict[str, Any]:
    """Engines, formats, vendors, systems, drafts."""
    loaded: dict[str, Any] = yaml.safe_load((HERE / "engines.yaml").read_text(encoding="utf-8"))
    return loaded


@cache
def quants(format_name: str) -> list[Quant]:
    """The quants of a file format."""
    return [Quant(*row) for row in tables()["formats"][format_name]["quants"]]


@cache
def variants() -> list[Variant]:
    """All models."""
    return [
        Variant(
            family=row["family"],
            released=row["released"],
            license=row["license"],
            architecture=row["architecture"],
            traits=row["traits"],
            name=row["variant"],
            parameters=round(float(row["parameters_b"]) * 1e9),
            active=round(float(row["active_b"]) * 1e9),
            layers=int(row["layers"]),
            kv_width=int(row["kv_width"]),
            context_train=int(row["context_train"]),
        )
        for row in _rows("models.csv")
    ]


@cache
def machines() -> list[Machine]:
    """All rigs."""
    return [_machine(row, number) for number, row in enumerate(_rows("rigs.csv"))]


def _rows(name: str) -> list[dict[str, str]]:
    with open(HERE / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _machine(row: dict[str, str], number: int) -> Machine:
    memory_bytes = int(row["memory_gib"]) * GIB
    gpus = [_gpu(row, number) for _ in range(int(row["gpus"]))]
    is_apple = row["vendor"] == "apple"
    systems = tables()["systems"]
    system = ("macOS 26.1", "Darwin 25.1.0") if is_apple else systems[number % len(systems)]
    rig = m.Rig(
        id="unnamed",
        cpu=m.Cpu(
            model=row["cpu"],
            cores=int(row["cores"]),
            threads=int(row["threads"]),
            governor=None if is_apple else "performance",
            features=[] if is_apple else ["sse4_2", "avx", "avx2", "fma", "f16c", "bmi2"],
        ),
        memory=m.Memory(
            total_bytes=round(memory_bytes * VISIBLE_MEMORY_SHARE), type=row["memory_type"]
        ),
        gpus=gpus,
        os=system[0],
        kernel=system[1],
    )
    vram_bytes = sum(gpu.vram_bytes or 0 for gpu in gpus)
    return Machine(
        rig=rig.model_copy(update={"id": default_rig_id(rig)}),
        vendor=row["vendor"],
        memory=vram_bytes * GPU_MEMORY_SHARE if gpus else memory_bytes * MAIN_MEMORY_SHARE,
        bandwidth=float(row["bandwidth_gb_per_s"]) * 1e9,
        flops=float(row["fp16_tflop_per_s"]) * 1e12,
        share=int(row["share"]),
    )


def _gpu(row: dict[str, str], number: int) -> m.Gpu:
    unified = row["memory_type"].startswith("LPDDR")
    power_max_w = float(row["power_max_w"])
    facts = {
        "name": row["gpu"],
        "vendor": row["vendor"],
        "vram_bytes": round(float(row["vram_gib"]) * GIB),
        "unified_memory": unified,
        "driver": tables()["vendors"][row["vendor"]]["driver"],
        "power_limit_w": round(power_max_w * POWER_LIMITS[number % len(POWER_LIMITS)]),
        "power_max_w": power_max_w,
        "pcie_generation": None if unified else 4,
        "pcie_width": None if unified else 16,
    }
    return m.Gpu.model_validate(facts)
