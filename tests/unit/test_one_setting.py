"""A setting is one entry of ``SETTINGS``: a made-up one is found wherever settings are."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.anew import Tokrig, anew
from tokrig.spec.settings import SETTINGS

MADE_UP: dict[str, Any] = {
    "name": "warp_factor",
    "kind": "whole",
    "label": "warp factor",
    "help": "How fast the ship goes.",
    "metavar": "N",
    "axis": "warp_factor",
    "found": ("backend.resolved.warp_factor",),
    "word": "warp {}",
}


@pytest.fixture(scope="module")
def warped() -> Iterator[Tokrig]:
    """All of tokrig, after one entry was added to the table."""

    def add(settings: ModuleType) -> None:
        settings.SETTINGS["warp_factor"] = settings.Setting(**MADE_UP)

    with anew("tokrig.spec.settings", add) as tokrig:
        yield tokrig


RUNS = ("20261122-120000-tiny-aaaa", "20261122-130000-tiny-bbbb")


@pytest.fixture(scope="module")
def content(warped: Tokrig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as the engine does by itself, and one for which warp 5 was asked."""
    folder = tmp_path_factory.mktemp("content")
    store = warped.store.Store(folder, cache=folder / "cache")
    samples = importlib.import_module("tests.unit.samples")
    records = importlib.import_module("tests.unit.records")
    for run_id, warp in zip(RUNS, (None, 5), strict=True):
        measured = [samples.sample()]
        record = records.record_of(measured, run_id)
        asked = {} if warp is None else {"warp_factor": warp}
        found = record.backend.resolved.model_copy(update={"warp_factor": warp or 1})
        backend = record.backend.model_copy(update={"asked": asked, "resolved": found})
        store.save(record.model_copy(update={"backend": backend}), measured)
    return folder


def test_a_spec_file_and_the_command_line_take_it(warped: Tokrig, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("warp_factor: 7\n", encoding="utf-8")
    spec = warped.spec__run.load_spec(path)
    assert (spec.warp_factor, spec.settings) == (7, {"warp_factor": 7})
    path.write_text("warp_factor: 0\n", encoding="utf-8")
    with pytest.raises(warped.errors.SpecError, match=r"spec\.yaml:1: warp_factor: should be"):
        warped.spec__run.load_spec(path)
    option = next(p for p in warped.cli__run.command.params if p.name == "warp_factor")
    assert option.opts == ["--warp-factor"]
    assert (option.help, option.metavar) == ("How fast the ship goes.", "N")
    assert warped.spec__run.merge(spec, {"warp_factor": 9}).warp_factor == 9


def test_it_is_an_axis_and_in_the_key_and_changes_no_other_key(
    warped: Tokrig, tmp_path: Path
) -> None:
    def keys(matrix: dict[str, Any]) -> dict[str, Any]:
        entry = {"name": "e", "title": "E", "matrix": matrix}
        path = tmp_path / "t.yaml"
        data = {"title": "T", "rig": "desktop", "entries": [entry]}
        path.write_text(json.dumps(data), encoding="utf-8")
        file = warped.spec__campaign.load_campaign(path)
        made = warped.plan__order.plan([file], warped.plan.PlanInputs(here="desktop"))
        return {p.run.key: p.run for p in made.runs}

    matrix: dict[str, Any] = {"model": "a.gguf", "backend": "embedded", "kv_type": [None, "q8_0"]}
    with_it = keys({**matrix, "warp_factor": [None, 3]})
    assert len(with_it) == 4
    without = keys(matrix)
    assert without.keys() < with_it.keys()
    run = next(run for run in with_it.values() if run.settings == {"warp_factor": 3})
    assert warped.plan.run_spec(run).warp_factor == 3
    assert warped.plan__expand.key_before(run) == ""
    assert warped.plan.command(run).endswith("--only e")
    assert warped.cli__campaign_text.mode(run) == "warp 3"


def test_it_is_asked_and_found(warped: Tokrig) -> None:
    model, judge = warped.record__model, warped.record__checks
    assert warped.spec__settings.asked_values({"warp_factor": 5}) == {"warp_factor": 5}
    assert warped.spec__settings.option_of("warp_factor") == "--warp-factor"

    def facts(**found: int) -> Any:
        resolved = model.Resolved(**found)
        return model.BackendFacts(name="x", engine="x", asked={"warp_factor": 5}, resolved=resolved)

    assert judge.ignored(facts(warp_factor=5)) == {}
    assert judge.ignored(facts(warp_factor=4)) == {"warp_factor": "5 asked, 4 used"}
    assert judge.untold(facts()) == ["warp_factor"]


def test_a_wrong_value_names_the_option_that_was_typed(warped: Tokrig) -> None:
    run = warped.spec__run
    with pytest.raises(warped.errors.SpecError, match=r"^--warp-factor: should be .* 1, not 0$"):
        run.merge(run.RunSpec(), {"warp_factor": 0})


def test_it_is_in_schema_and_yaml(warped: Tokrig, content: Path) -> None:
    schema = json.loads(warped.record__model.schema_text())["$defs"]["Resolved"]["properties"]
    assert schema["warp_factor"]["anyOf"][0] == {"minimum": 1, "type": "integer"}
    store = warped.store.Store(content)
    path = store.find(RUNS[1])
    written = path.read_text(encoding="utf-8")
    assert "  asked: {warp_factor: 5}\n  resolved: {warp_factor: 5}\n" in written
    assert warped.record__model.record_text(store.read(path)) == written


def test_it_is_a_column_of_the_flat_files(warped: Tokrig, content: Path) -> None:
    table = warped.store__table
    rows = list(table.flat_rows(warped.store__load.load(warped.store.Store(content)).runs))
    read = csv.DictReader(io.StringIO(table.to_csv(rows).decode()))
    assert [row["warp_factor"] for row in read] == ["1", "5"]


def test_the_commands_have_it(warped: Tokrig, content: Path) -> None:
    shown = warped.says(content, "show", RUNS[1]).stdout
    assert any(line.split() == ["Warp", "factor", "5"] for line in shown.splitlines())
    header, plain, asked = warped.says(content, "list").stdout.splitlines()
    assert "mode" in header and "warp 5" in asked and "warp" not in plain
    found = json.loads(warped.says(content, "list", "--mode", "warp", "--json").stdout)
    assert [(row["id"], row["asked"]) for row in found] == [(RUNS[1], {"warp_factor": 5})]
    compared = warped.says(content, "compare", *RUNS).stdout
    differs = "backend.resolved.warp_factor warp factor 1 5".split()
    assert differs in [line.split() for line in compared.splitlines()]


def test_the_pages_have_it(warped: Tokrig, content: Path) -> None:
    runs = warped.store__load.load(warped.store.Store(content)).runs
    data = warped.site__table.columns(runs, {})
    words = [data["settings"][number] for number in data["runs"]["settings"]]
    assert words == [["the engine's own", "the-engine-s-own"], ["warp 5", "warp-5"]]
    assert data["runs"]["apart"] == ["warp 1", "warp 5"]
    site = warped.site__context.Site(
        warped.store.Store(content), runs, families={}, rigs={}, redirects={}
    )
    files = warped.files(site, "run", "downloads", "index")
    html = files[f"runs/{RUNS[1]}.html"]
    assert "warp_factor" in files["data.html"]
    assert "warp-5" in files["assets/rows.js"]
    named = "resolved.<wbr>warp_<wbr>factor"
    assert f'<dt title="warp factor. How fast the ship goes.">{named}</dt>' in html


def test_every_entry_says_what_it_needs() -> None:
    assert "warp_factor" not in SETTINGS
    for setting in SETTINGS.values():
        assert setting.label
        assert (setting.kind == "word") == bool(setting.choices)
        assert setting.found or setting.kind == "options"
    options = [s.option for s in SETTINGS.values() if s.can_be_asked]
    assert len(set(options)) == len(options)
