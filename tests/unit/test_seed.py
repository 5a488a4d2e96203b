"""The committed seed records are the published page, figure by figure, and nothing beside it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.unit.seed_page import FIXTURE, Family, Row, SeedPage, seed_page
from tokrig.cli.main import main
from tokrig.naming import (
    backend_name,
    gpu_name,
    model_address,
    model_name,
    power_share,
)
from tokrig.record.model import Record, Rig, record_text
from tokrig.rig import default_rig_id
from tokrig.store import Store
from tokrig.store.facts import load_families, load_rigs
from tokrig.units import human_bytes, slug

CONTENT = Path(__file__).parents[2] / "content"
PAGE = seed_page()
ROWS = [(family, row) for family in PAGE.families for row in family.rows]
UNCHECKED = {
    *("server_clock", "cache", "throttle", "gpu_processes", "vram_fit"),
    "output_length_limit",
}


def record_path(family: str, row: Row) -> Path:
    name = family if family.endswith(row.variant) else f"{family} {row.variant}"
    run_id = f"seed-{slug(name)}-{slug(row.quant)}"
    return CONTENT / "benchmarks" / "runs" / "geforce-rtx-5070-12gb" / f"{run_id}.yaml"


def record_of(family: str, row: Row) -> Record:
    return Store(CONTENT).read(record_path(family, row))


each_row = pytest.mark.parametrize(
    ("family", "row"), ROWS, ids=[f"{family.name} {row.variant}" for family, row in ROWS]
)


# The page


def test_the_page_is_read_whole() -> None:
    assert [(f.name, f.count, f.released) for f in PAGE.families] == [
        ("Gemma-4", 8, "2026-04"),
        ("granite-4.1", 4, "2026-04"),
        ("LFM2.5-350M", 4, "2025-11"),
        ("LFM2", 16, "2025-07"),
        ("Gemma-3", 4, "2025-03"),
        ("Qwen2.5-Coder", 4, "2024-11"),
    ]
    assert [row.variant for _, row in ROWS][:5] == ["E2B-it", "E4B-it", "8b", "350M", "1.2B"]
    assert ROWS[0][1] == Row(
        variant="E2B-it",
        quant="Q4_K_M",
        hardware="GeForce RTX 5070 · 11.94 GiB",
        backend="llama.cpp b9174 (cuda)",
        concurrency=1,
        low="206.5",
        high="216.7",
    )
    assert [shape.name for shape in PAGE.shapes] == ["chat", "rag", "codegen", "agent"]
    assert all(shape.sentence.endswith(".") for shape in PAGE.shapes)
    assert PAGE.hardware["power"] == "250 W / 300 W max(83% cap)"
    assert len(PAGE.coming_soon) == 6
    assert PAGE.coming_soon[4].startswith("RTX 5070 CUDA pass. Currently Vulkan-only")


def test_every_figure_of_the_page_is_read() -> None:
    printed = re.findall(r"^[\d.]+ tok/s$", FIXTURE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(printed) == sum(len(shape.speeds) for shape in PAGE.shapes) == 40


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("206.5216.7", "206.5"),
        ("E2B-itQ4_K_M", "E2B-it4_K_M"),
        ("761.9 tok/s", "fast"),
        ("cpuAMD", "processorAMD"),
        ("VariantQuant", "QuantVariant"),
        ("Coming soon", "Later"),
    ],
)
def test_a_page_that_looks_different_is_refused(tmp_path: Path, before: str, after: str) -> None:
    text = FIXTURE.read_text(encoding="utf-8")
    assert before in text
    changed = tmp_path / "page.txt"
    changed.write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(ValueError, match=r"."):
        seed_page(changed)


# The records


def printed(rig: Rig) -> str:
    """A card as that page names it: with the memory that its driver shows."""
    (card,) = rig.gpus
    return f"{gpu_name(card)} · {human_bytes(card.vram_bytes)}"


def test_there_is_a_record_for_every_row_and_no_other() -> None:
    paths = {record_path(family.name, row) for family, row in ROWS}
    assert len(paths) == 10
    assert set(CONTENT.glob("benchmarks/runs/*/seed-*.yaml")) == paths
    assert set(CONTENT.glob("benchmarks/runs/geforce-rtx-5070-12gb/*.yaml")) >= paths


@each_row
def test_every_figure_is_the_printed_one(family: Family, row: Row) -> None:
    record = record_of(family.name, row)
    assert [result.workload.name for result in record.results] == [s.name for s in PAGE.shapes]
    medians = []
    for shape, result in zip(PAGE.shapes, record.results, strict=True):
        speeds = {(s.model, s.quant, s.hardware): s.tok_per_s for s in shape.speeds}
        key = (model_name(record.model), record.model.quant or "", printed(record.rig))
        assert result.output_tok_per_s is not None
        assert f"{result.output_tok_per_s.median:.1f}" == speeds[key]
        assert result.concurrency == row.concurrency
        medians.append(result.output_tok_per_s.median)
    assert (f"{min(medians):.1f}", f"{max(medians):.1f}") == (row.low, row.high)
    assert family.count == len(family.rows) * len(record.results)


@each_row
def test_every_name_is_the_printed_one(family: Family, row: Row) -> None:
    record = record_of(family.name, row)
    model = record.model
    assert (model.family, model.variant, model.quant) == (family.name, row.variant, row.quant)
    assert backend_name(record.backend) == row.backend
    assert printed(record.rig) == row.hardware
    assert record.id == f"seed-{model_address(model)}-{slug(row.quant)}"


@each_row
def test_the_machine_is_the_published_one(family: Family, row: Row) -> None:
    rig, printed = record_of(family.name, row).rig, PAGE.hardware
    (gpu,) = rig.gpus
    memory = (rig.memory.total_bytes or 0) / 1024**3
    share = power_share(gpu) or 0
    assert rig.cpu.model == printed["cpu"]
    assert f"{rig.cpu.cores}-Core" in printed["cpu"]
    assert gpu.name == printed["gpu"] == f"{printed['arch']} {gpu_name(gpu)}"
    assert gpu.vendor == printed["arch"].lower()
    assert f"{human_bytes(gpu.vram_bytes)} (system {memory:.1f} GiB)" == printed["vram"]
    power = f"{gpu.power_limit_w:g} W / {gpu.power_max_w:g} W max({share:.0%} cap)"
    assert power == printed["power"]
    assert (rig.os, rig.kernel, gpu.driver) == (
        printed["os"],
        printed["kernel"],
        printed["driver"],
    )
    assert rig.id == default_rig_id(rig)


@each_row
def test_nothing_is_invented(family: Family, row: Row) -> None:
    """Every key that has a value; all of them are on the page or say where the rest is from."""
    record = record_of(family.name, row)
    said = record.model_dump(by_alias=True, exclude_defaults=True)
    assert said.keys() == {
        *("id", "status", "validity", "provenance", "model", "rig", "backend", "results", "errata"),
    }
    assert said["provenance"] == {
        "kind": "transcribed",
        "source": "published benchmarks page; medians only",
        "source_url": "tests/fixtures/benchmarks-page.txt",
        "source_sha256": hashlib.sha256(FIXTURE.read_bytes()).hexdigest(),
        "methodology": 2,
    }
    assert said["model"].keys() == {"family", "variant", "quant", "identity_from"}
    assert said["backend"].keys() == {"name", "engine", "build", "api", "api_confirmed"}
    assert record.backend.api_confirmed is False
    for result in said["results"]:
        assert result.keys() == {"workload", "concurrency", "validity", "output_tok_per_s"}
        assert result["workload"].keys() == {"name"}
        assert result["output_tok_per_s"].keys() == {"median"}


@each_row
def test_nothing_passes_as_checked(family: Family, row: Row) -> None:
    record = record_of(family.name, row)
    for validity in (record.validity, *(result.validity for result in record.results)):
        assert (validity.verdict, validity.reasons) == ("unverified", [])
        assert validity.unverified == ["samples"]
        assert set(validity.unchecked) == UNCHECKED


@each_row
def test_the_label_is_kept_and_corrected_beside_it(family: Family, row: Row) -> None:
    record = record_of(family.name, row)
    assert f"({record.backend.api})" in row.backend
    (erratum,) = record.errata
    assert erratum.field == "backend.api"
    assert PAGE.hardware["backends"] in erratum.text
    assert "Currently Vulkan-only" in erratum.text
    assert "published label is kept" in erratum.text


@each_row
def test_the_files_are_as_tokrig_writes_them(family: Family, row: Row) -> None:
    text = record_path(family.name, row).read_text(encoding="utf-8")
    assert text == record_text(record_of(family.name, row))
    assert text.startswith("# One run as others published it")


def test_check_passes_them() -> None:
    folder = CONTENT / "benchmarks" / "runs" / "geforce-rtx-5070-12gb"
    done = CliRunner().invoke(main, ["check", str(folder)])
    assert done.exit_code == 0, done.output
    assert "0 valid, 10 unverified, 0 INVALID, 0 broken" in done.stdout


# What no probe can read


def families_of(page: SeedPage) -> dict[str, str]:
    return {family.name: family.released for family in page.families}


def test_the_release_months_are_the_printed_ones() -> None:
    known = load_families(CONTENT)
    assert {name: known[name].released for name in families_of(PAGE)} == families_of(PAGE)


def test_every_family_and_every_rig_with_a_record_is_described() -> None:
    families, rigs = load_families(CONTENT), load_rigs(CONTENT)
    for row in Store(CONTENT).rows():
        assert row.family in families
        assert rigs[row.rig].prose
