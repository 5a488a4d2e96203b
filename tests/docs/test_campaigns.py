"""docs/campaigns.md tells every key of a campaign file, its examples are campaigns, and so is
every file in campaigns/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from math import comb
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tokrig import registry
from tokrig.documents import dump, parse
from tokrig.models.catalog import CATALOG
from tokrig.plan import STATES, Plan, PlanInputs
from tokrig.plan.order import plan
from tokrig.run.room import need
from tokrig.spec import campaign
from tokrig.spec.campaign import MAX_CELLS, Campaign, CampaignFile, load_campaign
from tokrig.workloads import texts

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "campaigns.md").read_text(encoding="utf-8")
FILES = sorted((ROOT / "campaigns").glob("*.yaml"))
PARTS: tuple[type[BaseModel], ...] = (
    Campaign,
    campaign.ModelSource,
    campaign.RigFacts,
    campaign.Entry,
    campaign.Matrix,
    campaign.Speculative,
    campaign.Blocked,
)
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
"""Whole files, or parts of one that are completed by what a file must have."""

ENTRY = {"name": "one", "title": "One", "matrix": {"model": "smollm2-135m", "backend": "embedded"}}


def loaded(example: str, folder: Path) -> CampaignFile:
    file = folder / "example.yaml"
    file.write_text(dump({"title": "An example", "entries": [ENTRY], **parse(example, "docs")}))
    return load_campaign(file)


def planned(*files: CampaignFile) -> Plan:
    backends = {n: registry.load("backends", n, "BACKEND") for n in registry.names("backends")}
    shapes = [registry.load("workloads", n, "WORKLOAD") for n in registry.names("workloads")]
    known = PlanInputs(
        here="my-rig",
        catalog=set(CATALOG),
        own_models={name for name, backend in backends.items() if backend.own_models},
        texts=texts(),
        needs={shape.name: need(shape) for shape in shapes},
    )
    return plan(files, known)


@cache
def file_plan(path: Path) -> Plan:
    return planned(load_campaign(path))


# The page


def table(mark: str) -> set[str]:
    """The words in the first column of a marked table."""
    found = re.search(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", PAGE, re.DOTALL)
    assert found, mark
    rows = re.findall(r"^\| (`.+?) \|", found[1], re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_key_is_in_its_table_and_no_other(part: type[BaseModel]) -> None:
    assert table(part.__name__) == set(part.model_fields)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_loads_and_plans(example: str, tmp_path: Path) -> None:
    assert planned(loaded(example, tmp_path)).runs


def used(part: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """The keys that somebody wrote in a part of a campaign and in all parts of it."""
    if isinstance(part, BaseModel):
        for key in part.model_fields_set:
            yield type(part), key
            yield from used(getattr(part, key))
    elif isinstance(part, dict):
        yield from (pair for value in part.values() for pair in used(value))
    elif isinstance(part, list | tuple):
        yield from (pair for value in part for pair in used(value))


def test_every_key_is_shown_in_an_example(tmp_path: Path) -> None:
    written = [load_campaign(file).campaign for file in FILES]
    shown = {pair for e in EXAMPLES for pair in used(loaded(e, tmp_path).campaign)}
    shown |= {pair for one in written for pair in used(one)}
    assert {(part, key) for part in PARTS for key in part.model_fields} - shown == set()


def test_every_axis_example_means_what_its_title_says(tmp_path: Path) -> None:
    (example,) = (e for e in EXAMPLES if "Eight combinations, two more, one less" in e)
    assert len(planned(loaded(example, tmp_path)).runs) == 8 + 2 - 1


def test_the_first_example_is_two_runs_of_two_cells(tmp_path: Path) -> None:
    runs = planned(loaded(EXAMPLES[0], tmp_path)).runs
    assert [run.cells for run in runs] == [2, 2]
    assert {run.run.rig for run in runs} == {"my-rig"}
    assert len(EXAMPLES[0].splitlines()) <= 10


def test_every_state_is_told() -> None:
    states = PAGE.partition("| state | meaning |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", states, re.MULTILINE) == list(STATES)


def test_the_limits_and_probabilities_are_those_of_the_code() -> None:
    assert f"more than {MAX_CELLS:,} cells" in PAGE
    for repeats, told in ((2, "1/3 with 2"), (4, "0.03 with 4"), (6, "0.002 with 6")):
        assert told in PAGE
        smallest = 2 / comb(2 * repeats, repeats)
        value = told.split()[0]
        assert smallest == pytest.approx(1 / 3 if "/" in value else float(value), rel=0.1)


# The campaigns of this repository


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_on_the_page(path: Path) -> None:
    assert f"(../campaigns/{path.name})" in PAGE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_plans(path: Path) -> None:
    made = file_plan(path)
    assert made.of("todo")
    assert {run.run.entry for run in made.runs} == {
        e.name for e in load_campaign(path).campaign.entries
    }
    declared = load_campaign(path).campaign.rigs
    assert {run.run.rig for run in made.runs} <= set(declared)


def test_all_files_are_one_plan() -> None:
    runs = planned(*map(load_campaign, FILES)).runs
    assert len({run.run.key for run in runs}) == len(runs)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_has_a_condition_is_known_to_fit_or_not(path: Path) -> None:
    """Sizes and caches are declared wherever something depends on them; the size of a draft model
    comes from its repository alone."""
    conditional = {e.name for e in load_campaign(path).campaign.entries if e.when}
    planned_runs = [run for run in file_plan(path).runs if run.run.entry in conditional]
    runs = [run for run in planned_runs if run.run.setting("draft_model") is None]
    assert [run.why for run in runs if run.state == "todo" and run.why] == []
    assert [run.run.weights.reference for run in runs if run.state == "does_not_fit"] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_comparisons_can_show_a_difference(path: Path) -> None:
    """All figures of an entry share one correction: with too few repeats none could pass it."""
    for entry in load_campaign(path).campaign.entries:
        if entry.ab is None:
            continue
        runs = [run for run in file_plan(path).runs if run.run.entry == entry.name]
        one_of_each = [run for run in runs if run.run.arm == "A" and run.run.repeat == 1]
        tests = 3 * sum(run.cells for run in one_of_each)
        assert tests * 2 / comb(2 * entry.repeats, entry.repeats) < 0.05


def state(path: str, entry: str) -> set[str]:
    return {
        run.state for run in file_plan(ROOT / "campaigns" / path).runs if run.run.entry == entry
    }


@pytest.mark.parametrize(
    ("path", "entry", "expected"),
    [
        ("strix-halo.yaml", "fp8-mtp", "todo"),
        ("strix-halo.yaml", "fp8-lemonade", "blocked"),
        ("strix-halo.yaml", "quant-sweep", "todo"),
        ("strix-halo.yaml", "quant-creators", "todo"),
        ("strix-halo.yaml", "heavyweights", "todo"),
        ("rtx-5070.yaml", "cuda-pass", "todo"),
        ("rtx-5070.yaml", "cuda-vs-vulkan", "todo"),
        ("rtx-3090.yaml", "power-caps", "blocked"),
        ("rtx-3090.yaml", "drivers", "blocked"),
    ],
)
def test_the_seed_s_queue_is_all_there(path: str, entry: str, expected: str) -> None:
    assert state(path, entry) == {expected}


def test_the_cuda_pass_has_the_models_of_the_seed_records() -> None:
    """One file of weights for each record that was transcribed."""
    seeds = list((ROOT / "content/benchmarks/runs/geforce-rtx-5070-12gb").glob("seed-*.yaml"))
    models = {
        run.run.weights.name
        for run in file_plan(ROOT / "campaigns/rtx-5070.yaml").runs
        if run.run.entry == "cuda-pass"
    }
    assert models == {file.stem.removeprefix("seed-").removesuffix("-q4_k_m") for file in seeds}
