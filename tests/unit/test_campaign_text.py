"""A campaign's words on a terminal: wide and narrow, without colour, with hostile names."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.unit.compared import cell, measured, with_value
from tokrig.campaign.work import Began, Delayed, Done, Tally, Waiting
from tokrig.cli import campaign_text
from tokrig.compare.ab import Effect, LeftOut, Outcome
from tokrig.compare.variables import Entry as Difference
from tokrig.errors import EngineError, PutOff
from tokrig.measure import Ended
from tokrig.plan import Plan, Planned, Run, State, Weights
from tokrig.record.model import Record, Validity
from tokrig.spec.campaign import Blocked, Campaign, CampaignFile, Entry, Matrix

HOSTILE = "evil[/bold]\x1b[2J\nname\u202e"
GIB = 1024**3
ERROR = EngineError("it ended")

RUN = Run(
    key="0" * 16,
    campaign="sweeps",
    entry="quants",
    priority=0,
    rig="my-rig",
    weights=Weights("gemma-3-270m", repo="ggml-org/gemma"),
    quant="Q4_K_M",
    creator=None,
    backend="llamacpp",
    build="b9174",
    server_bin=None,
    driver=None,
    workloads=("chat", "codegen"),
    concurrency=(1, 4),
    level="standard",
    settings={"api": "cuda"},
)


def planned(state: State = "todo", quant: str = "Q4_K_M", **said: Any) -> Planned:
    entry = said.pop("entry", "quants")
    run = replace(RUN, entry=entry, quant=quant, **said.pop("run", {}))
    if state in ("todo", "unfinished"):
        said = {"time_s": 600.0, "download_bytes": 0, "cells": 4, **said}
    return Planned(run, state, **said)


def plan(*runs: Planned, title: str = "The") -> Plan:
    entries = [
        Entry(name=name, title=f"{title} {name}", matrix=Matrix())
        for name in dict.fromkeys(one.run.entry for one in runs)
    ]
    file = Campaign(
        title="Sweeps", entries=entries or [Entry(name="x", title="x", matrix=Matrix())]
    )
    return Plan([CampaignFile("sweeps", "campaigns/sweeps.yaml", file, {})], runs)


WHOLE = plan(
    planned("unfinished", "Q2_K"),
    planned(
        "todo",
        "Q8_0",
        download_bytes=GIB,
        run={"settings": {"api": "cuda", "speculative": "ngram", "reasoning": "off"}},
    ),
    planned("done", record="20261122-aaaa"),
    planned("failed", "Q6_K", why="the engine ended with code 1", record="20261122-bbbb"),
    planned("invalid", "Q5_0", record="20261122-cccc"),
    planned("does_not_fit", "F16", why="needs 31.2 GiB, the card has 11.9 GiB"),
    planned("blocked", entry="mtp", why="no build yet", until="a release has it"),
    planned("blocked", "Q8_0", entry="mtp", why="no build yet", until="a release has it"),
)


def shown(show: Callable[[Console], None], width: int = 200) -> str:
    """What is printed on a console that reads markup, unless it is handed ``Text``."""
    out = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    show(out)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


# The plan


def test_a_plan_lists_what_is_to_be_done_in_order_and_the_rest_with_reasons() -> None:
    lines = squeezed(shown(lambda out: campaign_text.print_plan(out, WHOLE)))
    assert lines[0] == "rig my-rig"
    assert lines[1] == "# model · quant backend (API) mode shapes about download"
    assert lines[3:5] == [
        "1 gemma-3-270m · Q2_K llamacpp b9174 (cuda) baseline, begun chat, codegen × 1, 4 10 min",
        "2 gemma-3-270m · Q8_0 llamacpp b9174 (cuda) n-gram speculation, reasoning off"
        " chat, codegen × 1, 4 10 min 1.00 GiB",
    ]
    assert lines[6:] == [
        "done sweeps/quants: 1 run (record 20261122-aaaa)",
        "INVALID sweeps/quants: gemma-3-270m · Q5_0 · llamacpp b9174 (cuda) (record 20261122-cccc)",
        "failed sweeps/quants: gemma-3-270m · Q6_K · llamacpp b9174 (cuda):"
        " the engine ended with code 1 (record 20261122-bbbb)",
        "does not fit sweeps/quants: gemma-3-270m · F16 · llamacpp b9174 (cuda):"
        " needs 31.2 GiB, the card has 11.9 GiB",
        "blocked sweeps/mtp: 2 runs: no build yet; until: a release has it",
        "",
        "2 to do: 8 results, about 20 min, 1.00 GiB to download · 1 done · 1 INVALID · 1 failed"
        " · 1 does not fit · 2 blocked",
    ]


def test_every_run_is_listed_with_its_state_when_asked() -> None:
    lines = squeezed(shown(lambda out: campaign_text.print_plan(out, WHOLE, everything=True)))
    assert lines[1].startswith("# state model · quant")
    states = [line.split()[1] for line in lines[3:11]]
    assert states == ["unfinished", "to", "done", "failed", "INVALID", "does", "blocked", "blocked"]


def test_the_rig_is_named_in_each_row_where_there_are_several() -> None:
    two = plan(planned(), planned(run={"rig": "other-rig"}))
    lines = squeezed(shown(lambda out: campaign_text.print_plan(out, two)))
    assert lines[0].startswith("# rig model")
    assert lines[3].startswith("2 other-rig gemma")


def test_a_long_plan_is_cut() -> None:
    many = plan(*(planned() for _ in range(150)))
    text = shown(lambda out: campaign_text.print_plan(out, many))
    assert "… and 50 more; --all lists every run" in text
    assert "150 to do: 600 results, about 25 h" in text


def test_what_is_not_known_is_said() -> None:
    lines = squeezed(
        shown(
            lambda o: campaign_text.print_plan(o, plan(planned(time_s=None, download_bytes=None)))
        )
    )
    assert lines[3].endswith("– ?")
    assert lines[-1] == "1 to do: 4 results, 1 of unknown length, 1 of unknown size"


def test_settings_and_repeats_tell_runs_apart() -> None:
    settings = {"api": "cuda", "power_cap_w": 250.0, "threads": 4, "context": 8192}
    settings |= {"kv_type": "q8_0", "options": {"a": 1, "b": True}}
    run = replace(RUN, settings=settings, driver="600.1", arm="B")
    assert campaign_text.run_name(run) == (
        "gemma-3-270m · Q4_K_M · llamacpp b9174 (cuda) · KV q8_0, context 8,192, 4 threads,"
        " cap 250 W, a=1, b=True, driver 600.1, arm B, repeat 1"
    )
    draft = {"api": "cuda", "speculative": "draft", "draft_model": "tiny", "draft_tokens": 5}
    drafts = replace(RUN, settings=draft, creator="unsloth", repeat=2)
    assert campaign_text.run_name(drafts) == (
        "gemma-3-270m · Q4_K_M · unsloth · llamacpp b9174 (cuda) ·"
        " draft-model speculation, drafts by tiny, 5 tokens a draft, repeat 2"
    )


def test_nothing_to_do() -> None:
    over = plan(planned("done"), planned("failed", why="it ended"))
    assert campaign_text.nothing_to_do(over) == (
        "nothing is left to do: 1 done · 1 failed\nmeasure again with: --retry failed"
    )


# The state


WANTING = "about 12 starts on each side"


def effect(metric: str = "output_tok_per_s", **said: Any) -> Effect:
    made = Effect("chat", 1, metric, (100.0, 102.0), (120.0, 122.0), ratio=Fraction(6, 5))
    return replace(made, **{"p": Fraction(2, 924), "adjusted_p": Fraction(4, 924)} | said)


def outcome(**said: Any) -> Outcome:
    made = Outcome("gemma", "build", 6, (6, 6), "ABBA" * 3)
    return replace(made, **{"effects": (effect(verdict="faster"),)} | said)


def status(width: int = 200, **said: Any) -> str:
    compared = {"sweeps/quants": [outcome(**said)]} if said else {}
    return shown(lambda out: campaign_text.print_status(out, WHOLE, compared), width)


def test_every_entry_has_its_bar_its_reasons_and_its_next_command() -> None:
    lines = squeezed(status())
    assert lines[0] == "sweeps/quants The quants"
    assert lines[1].startswith("███▒▒▒▒▒▒▒░░░░░░░··· 1 of 6 runs done")
    assert "2 left" in lines[1]
    assert "next: tokrig campaign run campaigns/sweeps.yaml --only quants" in lines
    of_mtp = lines[lines.index("sweeps/mtp The mtp") :]
    assert of_mtp[1].startswith("·" * 20)
    assert of_mtp[2] == "blocked 2 runs: no build yet; until: a release has it"
    assert not any(line.startswith("next:") for line in of_mtp)
    assert "█ done ▒ failed or invalid ░ left · blocked or too large" in lines


@pytest.mark.parametrize(
    ("counts", "bar"),
    [
        ({"done": 4}, "█" * 20),
        ({"done": 998, "failed": 1, "todo": 1}, "█" * 18 + "▒░"),
        ({"unfinished": 1, "todo": 1, "done": 2}, "█" * 10 + "░" * 10),
        ({"blocked": 1, "done": 1000}, "█" * 19 + "·"),
    ],
)
def test_bars_are_of_one_width_and_hide_nothing(counts: dict[State, int], bar: str) -> None:
    assert campaign_text.bar(counts).plain == bar


def test_what_failed_is_measured_again_when_nothing_else_is_left() -> None:
    over = plan(planned("done"), planned("failed", why="it ended"))
    text = shown(lambda out: campaign_text.print_status(out, over, {}))
    assert "--only quants --retry failed" in text


def test_a_comparison_shows_figures_and_what_they_rest_on() -> None:
    lines = squeezed(
        status(
            effects=(
                effect(verdict="faster", low=1.15, high=1.25),
                effect("ttft_s", settle=WANTING),
            )
        )
    )
    assert "A/B build · gemma · measured as ABBAABBAABBA" in lines
    assert "chat × 1 gen tok/s 101.0 121.0 ×1.200 (1.15–1.25) 0.0043 B faster" in lines
    assert any(line.startswith("chat × 1 TTFT") and "inconclusive" in line for line in lines)
    said = next(line for line in lines if line.startswith("p: exact permutation test"))
    assert "over 2 figures" in said
    assert "an interval that excludes 1" in said
    assert f"inconclusive: {WANTING}" in lines


def test_a_comparison_that_is_none_says_why() -> None:
    away = Difference("rig.kernel", "kernel", "7.0", "7.1")
    lines = squeezed(
        status(reason="the arms differ in more than build: kernel", differing=(away,), effects=())
    )
    assert (
        "A/B build · gemma · measured as ABBAABBAABBA · not comparable:"
        " the arms differ in more than build: kernel" in lines
    )
    assert "rig.kernel: 7.0 → 7.1" in lines
    part = status(measured=(3, 2), order="ABBAA", effects=(effect(p=None, adjusted_p=None),))
    assert "3 and 2 of 6 repeats each are measured" in part
    assert "permutation" not in part
    left_out = (LeftOut("B", "20261122-B0", "chat × 1", "INVALID: cached_tokens"),)
    assert "left out: arm B, 20261122-B0 chat × 1: INVALID: cached_tokens" in squeezed(
        status(left_out=left_out)
    )


def test_the_state_as_plain_data() -> None:
    data = campaign_text.status_json(WHOLE, {"sweeps/quants": [outcome()]})
    quants = next(entry for entry in json.loads(json.dumps(data)) if entry["entry"] == "quants")
    assert (quants["left"], quants["counts"]["failed"], quants["time_s"]) == (2, 1, 1200.0)
    assert quants["compared"][0]["effects"][0]["verdict"] == "faster"
    assert quants["next"] == "tokrig campaign run campaigns/sweeps.yaml --only quants"


# While it goes on, and at its end


def test_the_head_counts_and_estimates() -> None:
    runs = [planned(quant=quant) for quant in ("Q2_K", "Q4_0", "Q6_K", "Q8_0")]

    def head(current: Planned | None, elapsed_s: float) -> str:
        fine, bad = Done(runs[0], ended(record())), Done(runs[1], ended(record(), ERROR))
        return campaign_text.head(Tally(runs, done=[fine], failed=[bad]), current, elapsed_s)

    assert head(runs[2], 1500.0) == (
        "run 3 of 4 · 1 done, 1 failed · about 15 min left"
        " · gemma-3-270m · Q6_K · llamacpp b9174 (cuda)"
    )
    # Slower than estimated: the runs that follow still take their time.
    assert "about 10 min left" in head(runs[2], 9000.0)
    assert head(None, 0.0) == "4 runs · 1 done, 1 failed · about 40 min left"


def test_rigs_work_at_the_same_time() -> None:
    runs = [planned(), planned(run={"rig": "other"}), planned(run={"rig": "other"})]
    text = campaign_text.head(Tally(runs), None, 0.0)
    assert "about 20 min left" in text


def ended(record: Record, error: EngineError | None = None) -> Ended:
    return Ended(record, Path("content/x.yaml"), error)


def record(verdict: Any = "valid", reasons: tuple[str, ...] = ()) -> Record:
    made = with_value(measured(), "validity", Validity(verdict=verdict, reasons=list(reasons)))
    return with_value(made, "results", [cell("chat", 1, 31.25), cell("chat", 4, 148.3)])


def test_a_line_for_each_run(capsys: pytest.CaptureFixture[str]) -> None:
    name = "gemma-3-270m · Q4_K_M · llamacpp b9174 (cuda)"
    one = planned()
    assert campaign_text.done_line(one, ended(record())) == (
        f"✓ {name}: 2 results, 31.3 to 148.3 tok/s, valid"
    )
    bad = ended(record("invalid", ("throttled",)))
    assert campaign_text.done_line(one, bad).endswith("tok/s, INVALID, throttled")
    failed = ended(record(), EngineError("it\nended"))
    assert campaign_text.done_line(one, failed) == f"✗ {name}: it ended (content/x.yaml)"
    eyes = campaign_text.Eyes(Tally([one]), quiet=False)
    for news in (Began(one), Waiting(one, "away"), Delayed(one, PutOff("no network"))):
        eyes.hear(news)
    assert capsys.readouterr().err.splitlines() == [
        f"run 1 of 1 · about 10 min left · {name}",
        f"  {name}: away",
        f"· {name}: put off: no network",
    ]


def tally() -> Tally:
    return Tally(
        wanted=[planned()] * 7,
        done=[
            Done(planned(), ended(record())),
            Done(planned(quant="Q2_K"), ended(record("invalid", ("throttled",)))),
        ],
        failed=[Done(planned(quant="Q6_K"), ended(record(), EngineError("out of memory")))],
        delayed=[Delayed(planned(quant="Q8_0"), PutOff("no network", hint="connect"))],
    )


SPENT = {"start": 30.0, "warm_up": 20.0, "measure": 945.0, "fit": 3.0, "other": 2.0}


def test_the_summary_tells_what_became_of_the_runs_and_of_the_time() -> None:
    lines = squeezed(shown(lambda out: campaign_text.print_summary(out, tally(), SPENT)))
    engine = "llamacpp b9174 (cuda)"
    assert lines == [
        f"INVALID gemma-3-270m · Q2_K · {engine}: throttled; record content/x.yaml",
        f"failed gemma-3-270m · Q6_K · {engine}: out of memory; record content/x.yaml",
        f"put off gemma-3-270m · Q8_0 · {engine}: no network (connect)",
        "2 done, 1 of them INVALID, 1 failed, 1 put off, 3 left",
        "16 min 40 s: engine start 30.00 s (3.0 %), warm-up 20.00 s (2.0 %),"
        " measurement 15 min 45 s (94.5 %), other 5.00 s (0.5 %)",
    ]
    assert squeezed(shown(lambda out: campaign_text.print_summary(out, Tally([]), {}))) == [
        "nothing was done"
    ]


# Terminals and strangers


@pytest.mark.parametrize("width", [60, 80, 120])
def test_narrow_terminals_lose_nothing(width: int) -> None:
    def everything(out: Console) -> None:
        campaign_text.print_plan(out, WHOLE)
        campaign_text.print_status(out, WHOLE, {"sweeps/quants": [outcome()]})
        campaign_text.print_summary(out, tally(), SPENT)

    text = shown(everything, width)
    lines = [line for line in text.splitlines() if not line.startswith("next: ")]
    assert max(map(len, lines)) <= width
    assert "…" not in text
    together = " ".join(text.split())
    for words in (
        "Q2_K",
        "n-gram speculation",
        "10 min",
        "1.00 GiB",
        "B faster",
        "×1.200",
        "94.5 %",
    ):
        assert words in together
    # Whole, so that it can be copied.
    assert "next: tokrig campaign run campaigns/sweeps.yaml --only quants\n" in text


def test_strangers_text_is_printed_as_it_is() -> None:
    evil = planned(
        "blocked",
        HOSTILE,
        why=HOSTILE,
        until=HOSTILE,
        run={
            "rig": HOSTILE,
            "weights": Weights(HOSTILE),
            "build": HOSTILE,
            "workloads": (HOSTILE,),
        },
    )
    evils = plan(evil, replace(evil, state="todo", time_s=1.0, cells=1), title=HOSTILE)
    left_out = (LeftOut("A", HOSTILE, HOSTILE, HOSTILE),)
    said = outcome(name=HOSTILE, reason=HOSTILE, left_out=left_out,
                   differing=(Difference(HOSTILE, "x", HOSTILE, None),))  # fmt: skip
    failed = Done(evil, ended(record(), EngineError(HOSTILE)))

    def everything(out: Console) -> None:
        campaign_text.print_plan(out, evils, everything=True)
        campaign_text.print_status(out, evils, {"sweeps/quants": [said]})
        campaign_text.print_summary(out, Tally([evil], failed=[failed]), {})
        out.file.write(campaign_text.done_line(evil, failed.ended) + "\n")

    for width in (60, 200):
        text = shown(everything, width)
        assert all(char.isprintable() or char == "\n" for char in text)
        assert "evil[/bold] [2J name" in " ".join(text.split())


def test_a_blocked_entry_without_runs_breaks_nothing() -> None:
    entry = Entry(
        name="later", title="Later", matrix=Matrix(), blocked=Blocked(why="no build", until="one")
    )
    file = CampaignFile("sweeps", "x.yaml", Campaign(title="x", entries=[entry]), {})
    empty = Plan([file], [])
    assert shown(lambda out: campaign_text.print_plan(out, empty)) == "no runs\n"
    assert shown(lambda out: campaign_text.print_status(out, empty, {})) == "no runs\n"
