"""A setting is one entry of ``SETTINGS``: a made-up one is found wherever settings are."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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


class Tokrig:
    """The package as it is with the made-up setting; attributes are its modules."""

    def __getattr__(self, name: str) -> Any:
        return importlib.import_module(f"tokrig.{name.replace('__', '.')}")


@pytest.fixture(scope="module")
def warped() -> Iterator[Tokrig]:
    """All of tokrig imported anew after one entry was added to the table."""
    before = {name: module for name, module in sys.modules.items() if _is_ours(name)}
    for name in before:
        del sys.modules[name]
    try:
        settings = importlib.import_module("tokrig.spec.settings")
        settings.SETTINGS["warp_factor"] = settings.Setting(**MADE_UP)
        yield Tokrig()
    finally:
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def _is_ours(name: str) -> bool:
    return name == "tokrig" or name.startswith("tokrig.")


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
        made = warped.plan.plan(
            [file], warped.plan.PlanInputs(), here="desktop", catalog=(), own_models=(), needs={}
        )
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
    model, judge = warped.record__model, warped.record__rules
    assert warped.spec__settings.asked_values({"warp_factor": 5}) == {"warp_factor": 5}
    assert warped.spec__settings.option_of("warp_factor") == "--warp-factor"

    def facts(**found: int) -> Any:
        resolved = model.Resolved(**found)
        return model.BackendFacts(name="x", engine="x", asked={"warp_factor": 5}, resolved=resolved)

    assert judge.ignored(facts(warp_factor=5)) == {}
    assert judge.ignored(facts(warp_factor=4)) == {"warp_factor": "5 asked, 4 used"}
    assert judge.untold(facts()) == ["warp_factor"]


def test_every_entry_says_what_it_needs() -> None:
    assert "warp_factor" not in SETTINGS
    for setting in SETTINGS.values():
        assert setting.label
        assert (setting.kind == "word") == bool(setting.choices)
        assert setting.found or setting.kind == "options"
    options = [s.option for s in SETTINGS.values() if s.can_be_asked]
    assert len(set(options)) == len(options)
