"""Which models to measure on a machine of a size, from made records; the campaign file of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.browser.kinds import write
from tests.unit.compared import cell, measured, with_value
from tokrig.cli.main import main
from tokrig.documents import dump
from tokrig.models.catalog import CATALOG, resolve
from tokrig.plan import recipe
from tokrig.record.checks import judge_run
from tokrig.record.model import Gpu, Record
from tokrig.spec.campaign import load_campaign

GIB = 2**30


def record(
    model: str,
    gb: float,
    machine: str,
    shapes: str = "chat rag codegen agent",
    *,
    valid: bool = True,
) -> Record:
    """A record of a model on a card of so many GB, of one machine."""
    plain = with_value(measured(), "id", f"{model}-{machine}-{gb:g}")
    card = Gpu(name=f"Card {gb:g}", vendor="nvidia", vram_bytes=int(gb * GIB))
    plain = with_value(plain, "rig.gpus", [card] if gb else [])
    plain = with_value(plain, "rig.id", machine)
    plain = with_value(plain, "backend.api", "cuda" if gb else "cpu")
    named = {"family": model, "variant": None, "file": f"{model}.gguf", "repo": None}
    plain = with_value(plain, "model", plain.model.model_copy(update=named))
    cells = [cell(shape, valid=valid) for shape in shapes.split()]
    judged = with_value(plain, "validity", judge_run(cells, complete=True))
    return with_value(judged, "results", cells)


RECORDS = [
    record("shared", 12, "a"),
    record("shared", 11.94, "b"),
    record("common", 12, "a"),
    *(record("common", 24, f"big-{n}") for n in range(3)),
    record("alone", 12, "b", "chat rag"),
    record("small", 8, "c"),
    record("large", 24, "big-1"),
    record("broken", 12, "a", valid=False),
    record("slow", 0, "cpu-1"),
]


def test_what_most_machines_of_the_size_have_comes_first() -> None:
    found = recipe.recipe(RECORDS, 12)
    assert [(one.model.family, one.alike, one.machines) for one in found] == [
        ("shared", 2, 2),
        ("common", 1, 4),
        ("alone", 1, 1),
        ("small", 0, 1),  # of a smaller card: it fits
    ]
    assert found[0].command == "tokrig run --model shared.gguf --level publish"


def test_sizes_are_those_that_cards_are_sold_in() -> None:
    assert recipe.sizes(RECORDS) == [0, 8, 12, 24]
    assert recipe.size_of(record("x", 11, "a")) == 8
    assert recipe.size_of(record("x", 4, "a")) is None
    assert recipe.sizes([]) == [0]
    assert recipe.recipe([], 12) == []
    assert [one.model.family for one in recipe.recipe(RECORDS, 0)] == ["slow"]


def test_a_model_is_named_once_in_the_quant_that_is_shared_most() -> None:
    others = [with_value(record("shared", 12, m), "model.quant", "Q8_0") for m in "ab"]
    found = recipe.recipe([*RECORDS, *others, with_value(others[0], "rig.id", "d")], 12)
    assert [one.model.quant for one in found if one.model.family == "shared"] == ["Q8_0"]


def test_a_hub_is_named_where_the_record_names_it() -> None:
    plain = record("x", 12, "a", "chat")
    of_hub = with_value(plain, "model.repo", "owner/name")
    of_hub = with_value(of_hub, "model.revision", "abc123")
    [found] = recipe.recipe([of_hub], 12)
    assert found.command == (
        "tokrig run --model hf:owner/name@abc123/x.gguf --workload chat --level publish"
    )
    [spaced] = recipe.recipe([with_value(plain, "model.file", "a b;c.gguf")], 12)
    assert "--model 'a b;c.gguf'" in spaced.command


@pytest.mark.parametrize("size", [0, 8, 12, 24])
def test_the_recipe_is_a_campaign(size: int, tmp_path: Path) -> None:
    wanted = recipe.recipe(RECORDS, size)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(recipe.campaign(wanted, size)), "utf-8")
    read = load_campaign(path).campaign
    assert len(read.entries) == len(read.models) == len(wanted)


def test_the_catalog_knows_its_models_by_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, entry in CATALOG.items():
        assert resolve(entry.file) == resolve(name)


def test_the_command_prints_it_for_this_machine_or_a_size(tmp_path: Path) -> None:
    content = tmp_path / "content"
    write(content, RECORDS)
    asked = ["campaign", "recipe", "--content", str(content)]
    done = CliRunner().invoke(main, [*asked, "--vram", "13"])
    assert done.exit_code == 0, done.stderr
    (tmp_path / "mine.yaml").write_text(done.stdout, "utf-8")
    assert [one.name for one in load_campaign(tmp_path / "mine.yaml").campaign.entries][:2] == [
        *("shared-q4_k_m", "common-q4_k_m")
    ]
    assert CliRunner().invoke(main, [*asked, "--json"]).exit_code in (0, 2)  # as the machine is
    done = CliRunner().invoke(main, ["campaign", "recipe", "--content", str(tmp_path / "none")])
    assert (done.exit_code, "no record in" in done.stderr) == (2, True)
