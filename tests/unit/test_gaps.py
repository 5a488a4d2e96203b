"""The gaps map: one state a model and machine, the reason, and the command that fills the gap."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.compared import cell as result
from tests.unit.queued import RIG, campaign, plan, planned, record
from tokrig.plan import STATES as PLAN_STATES
from tokrig.plan import Plan, Weights
from tokrig.plan.gaps import STATES, UNMEASURED, Cell, Gaps, gaps
from tokrig.record.model import Failure, Gpu, Memory, Validity
from tokrig.store import load
from tokrig.units import GIB

OTHER = "other-rig"
WORD = "gemma-4-e2b-it"


def cells(found: Gaps) -> dict[tuple[str, str], Cell]:
    return {
        (model.name, one.rig): one
        for family in found.families
        for model in family.models
        for one in model.cells
    }


def cell(wanted: Plan, runs: list[load.Run], rig: str = RIG, model: str = "Gemma-4 E2B-it") -> Cell:
    return cells(gaps(wanted, runs))[model, rig]


def failed(run_id: str, **values: Any) -> load.Run:
    failure = Failure(code="engine_died", message="it went")
    return record(run_id, status="failed", results=[], failure=failure, **values)


# States


def test_a_valid_result_is_measured_and_leads_to_its_newest_run() -> None:
    invalid = record(
        "newer", validity=Validity(verdict="invalid"), results=[result("chat", valid=False)]
    )
    assert cell(plan(), [invalid, record("new"), record("old")]) == Cell("measured", RIG, run="new")


def test_one_valid_shape_of_an_invalid_run_counts() -> None:
    mixed = [result("chat"), result("rag", valid=False)]
    run = record("mixed", validity=Validity(verdict="invalid"), results=mixed)
    assert cell(plan(), [run]).state == "measured"


@pytest.mark.parametrize("state", ["todo", "unfinished"])
def test_what_a_campaign_can_run_is_queued(state: Any) -> None:
    found = cell(plan(planned("e", state, word=WORD)), [], model=WORD)
    assert (found.state, found.command) == (
        "queued",
        "tokrig campaign run campaigns/first.yaml --only e",
    )


def test_blocked_says_why_and_until_when() -> None:
    run = planned("e", "blocked", why="no driver", until="it comes")
    found = cell(plan(run), [], model=WORD)
    assert (found.state, found.why) == ("blocked", "no driver; until it comes")
    assert found.command == "tokrig campaign run campaigns/first.yaml --only e"


@pytest.mark.parametrize("state", ["failed", "invalid"])
def test_a_planned_run_that_failed_says_why_and_how_to_retry(state: Any) -> None:
    found = cell(plan(planned("e", state, why="it went", record="x")), [], model=WORD)
    assert found == Cell(
        "failed",
        RIG,
        "it went",
        "",
        "x",
        f"tokrig campaign run campaigns/first.yaml --only e --retry {state}",
    )


def test_what_does_not_fit_asks_what_would() -> None:
    found = cell(plan(planned("e", "does_not_fit", why="24 GiB of 12")), [], model=WORD)
    asks = f"tokrig fit --rig {RIG}"
    assert (found.state, found.why, found.command) == ("does_not_fit", "24 GiB of 12", asks)


@pytest.mark.parametrize(
    ("vram", "ram", "sizes", "state"),
    [
        (12, 16, [40, 60], "does_not_fit"),
        (12, 16, [60, 20], "never"),  # split between card and processor
        (0, 16, [15.5], "does_not_fit"),  # the engine takes 600 MiB beside its weights
        (0, 16, [15.2], "never"),
        (None, 16, [60], "never"),
        (12, None, [60], "never"),
        (12, 16, [None], "never"),
    ],
)
def test_memory_tells_what_does_not_fit_where_no_campaign_does(
    vram: float | None, ram: float | None, sizes: list[float | None], state: str
) -> None:
    """Weights split between a card and main memory fit as they do for ``fit.place``."""
    card = Gpu(name="A", vendor="nvidia", vram_bytes=round(vram * GIB) if vram else None)
    there = record(
        "small",
        rig__id=OTHER,
        rig__gpus=[] if vram == 0 else [card],
        rig__facts_from="probes",
        rig__memory=Memory(total_bytes=round(ram * GIB) if ram else None),
        model__variant="E4B-it",
    )
    measured = [
        record(f"x{n}", model__bytes=round(size * GIB) if size else None, model__quant=f"Q{n}")
        for n, size in enumerate(sizes)
    ]
    found = cell(plan(), [there, *measured], OTHER)
    assert found.state == state
    if state == "does_not_fit":
        assert found.command == f"tokrig fit --rig {OTHER}" and " Q0, need " in found.why


def test_a_campaign_tells_the_memory_of_a_machine_without_records() -> None:
    rigs = {"small": {"vram_gib": 0, "memory_gib": 8}}
    files = (campaign("first", {"name": "e"}, rigs=rigs),)
    wanted = plan(planned("e", rig="small", word="other"), files=files)
    found = cell(wanted, [record("x", model__bytes=9 * GIB)], "small")
    assert found.state == "does_not_fit"


def test_a_failed_record_without_a_plan() -> None:
    found = cell(plan(), [failed("x")])
    assert (found.state, found.why, found.run) == ("failed", "it went", "x")
    assert found.command and found.command.startswith("tokrig run --model ")


def test_an_invalid_record_says_what_was_wrong() -> None:
    verdict = Validity(verdict="invalid", reasons=["cached_tokens", "throttled"])
    run = record("x", validity=verdict, results=[result("chat", valid=False)])
    found = cell(plan(), [run])
    assert (found.state, found.why) == (
        "failed",
        "complete, but invalid: cached tokens, throttled",
    )


def test_where_nobody_tried_the_command_is_a_run() -> None:
    runs = [record("x"), record("y", rig__id=OTHER, model__variant="E4B-it")]
    assert cell(plan(), runs, OTHER) == Cell(
        "never", OTHER, command="tokrig run --model gemma-q4_k_m.gguf --backend llamacpp"
    )


# One cell, several runs


def test_the_most_hopeful_state_stands_the_others_beside() -> None:
    runs = [
        planned("e", state, why=state) for state in ("failed", "blocked", "todo", "does_not_fit")
    ]
    found = cell(plan(*runs, planned("e", "todo")), [], model=WORD)
    assert (found.state, found.besides) == ("queued", "1 blocked, 1 failed, 1 does not fit")
    found = cell(plan(*runs), [record("x")])
    assert (found.state, found.besides) == (
        "measured",
        "1 queued, 1 blocked, 1 failed, 1 does not fit",
    )


@given(st.lists(st.sampled_from(PLAN_STATES)), st.booleans())
def test_every_model_has_one_state_on_every_machine(states: list[Any], measured: bool) -> None:
    wanted = plan(*(planned("e", state, word=f"m{n % 3}") for n, state in enumerate(states)))
    runs = [record("x", rig__id=OTHER)] if measured else []
    found = gaps(wanted, runs)
    counted = Counter(one.state for one in cells(found).values())
    assert found.counts == {state: counted[state] for state in STATES}
    models = sum(len(family.models) for family in found.families)
    assert counted.total() == models * len(found.machines)
    assert all(
        one.run or one.why or one.command or one.state == "does_not_fit"
        for one in cells(found).values()
    )


# Builds


def dated(run_id: str, build: str | None, day: int | None, **values: Any) -> load.Run:
    moment = f"2026-11-{day:02d}T10:00:00Z" if day else None
    return record(run_id, backend__build=build, provenance__started_at=moment, **values)


def test_a_model_measured_before_the_rigs_newest_build_is_stale() -> None:
    runs = [dated("new", "b2", 20, model__variant="E4B-it"), dated("old", "b1", 10)]
    found = cell(plan(), runs)
    assert (found.state, found.run) == ("stale", "old")
    assert found.why == "measured with llama.cpp b1; this machine has since measured with b2"
    assert found.command == "tokrig run --model gemma-q4_k_m.gguf --backend llamacpp"
    assert cell(plan(), runs, model="Gemma-4 E4B-it").state == "measured"


@pytest.mark.parametrize(
    "newer",
    [
        {"rig__id": OTHER},
        {"backend__engine": "vllm"},
        {"backend__build": "b1"},
        {"backend__build": None},
        {"provenance__started_at": None},
    ],
    ids=["other machine", "other engine", "same build", "no build", "no date"],
)
def test_what_makes_nothing_stale(newer: dict[str, Any]) -> None:
    newest = {
        "backend__build": "b2",
        "provenance__started_at": "2026-11-20T10:00:00Z",
        "model__variant": "E4B-it",
    }
    runs = [record("new", **{**newest, **newer}), dated("old", "b1", 10)]
    assert cell(plan(), runs).state == "measured"


def test_a_comparison_that_ends_with_the_old_build_is_not_stale() -> None:
    runs = [
        dated("a2", "b1", 13),
        dated("b2", "b2", 12),
        dated("b1", "b2", 11),
        dated("a1", "b1", 10),
    ]
    assert cell(plan(), runs).state == "measured"


# Names


def test_a_campaigns_word_leads_to_the_model_of_that_name() -> None:
    found = gaps(plan(planned("e", word="gemma-4-e2b-it", rig=OTHER)), [record("x")])
    assert {key: one.state for key, one in cells(found).items()} == {
        ("Gemma-4 E2B-it", RIG): "measured",
        ("Gemma-4 E2B-it", OTHER): "queued",
    }


def test_a_campaigns_word_leads_to_the_model_that_answered() -> None:
    answered = planned("e", "done", word="small", record="x")
    found = gaps(plan(answered, planned("e", word="small", rig=OTHER)), [record("x")])
    assert [model.name for family in found.families for model in family.models] == [
        "Gemma-4 E2B-it"
    ]
    assert cells(found)["Gemma-4 E2B-it", OTHER].state == "queued"


def test_models_not_measured_yet_join_their_family_or_stand_last() -> None:
    wanted = plan(planned("e", word="gemma-4-31b"), planned("e", word="another"))
    found = gaps(wanted, [record("x"), record("y", model__family="Zebra", model__variant=None)])
    assert [(f.name, [m.name for m in f.models]) for f in found.families] == [
        ("Gemma-4", ["Gemma-4 E2B-it", "gemma-4-31b"]),
        ("Zebra", ["Zebra"]),
        (UNMEASURED, ["another"]),
    ]
    addresses = [model.address for family in found.families for model in family.models]
    assert addresses == ["gemma-4-e2b-it", None, "zebra", None]


def test_the_machine_with_most_models_stands_first() -> None:
    runs = [record("a", rig__id="a-rig"), record("b"), record("c", model__variant="E4B-it")]
    assert [machine.id for machine in gaps(plan(), runs).machines] == [RIG, "a-rig"]


# Commands


def command_for(*runs: load.Run, wanted: Plan | None = None) -> list[str]:
    """What fills the gap of the first run's model on a machine of its own."""
    elsewhere = record("elsewhere", rig__id=OTHER, model__family="Another", model__variant=None)
    there = cells(gaps(wanted or plan(), [*runs, elsewhere]))
    found = next(one for (model, rig), one in there.items() if rig == OTHER and model != "Another")
    assert found.state == "never"
    return shlex.split(found.command or "")


def test_a_fetched_file_is_named_by_where_it_came_from() -> None:
    fetched = record("x", model__repo="o/n", model__revision="abc")
    assert command_for(fetched)[3] == "hf:o/n@abc/gemma-q4_k_m.gguf"
    fetched = record("x", model__repo="o/n")
    assert command_for(fetched)[3] == "hf:o/n/gemma-q4_k_m.gguf"


def test_a_campaign_says_what_to_fetch() -> None:
    weights = Weights(WORD, repo="o/n", file="f.gguf")
    wanted = plan(planned("e", "done", weights=weights, record="x"))
    assert command_for(record("x"), wanted=wanted)[3] == "hf:o/n/f.gguf"


def test_a_transcribed_model_gets_a_likely_name() -> None:
    assert command_for(record("x", model__file=None))[3] == "gemma-4-e2b-it-q4_k_m.gguf"


def test_the_backend_is_one_that_serves_the_model_and_is_used_on_the_machine() -> None:
    ollama = record("x", backend__name="ollama")
    assert command_for(ollama)[5] == "ollama"
    assert command_for(ollama, record("y"))[5] == "llamacpp"


@pytest.mark.parametrize("name", ["; rm -rf ~", "$(x)", "a b", "-x", "'\"`"])
def test_a_hostile_name_is_one_word_of_the_command(name: str) -> None:
    words = command_for(record("x", model__file=name, backend__name=name))
    assert words == ["tokrig", "run", "--model", name, "--backend", name]


@pytest.mark.parametrize("name", ["a\nb", "\x1b[201~", "\u202ea"])
def test_a_name_that_does_not_print_is_not_to_be_pasted(name: str) -> None:
    words = command_for(record("x", model__file=name, backend__name=name))
    assert words == ["tokrig", "run", "--model", "gemma-4-e2b-it-q4_k_m.gguf"]
