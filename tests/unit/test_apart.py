"""Runs that are called the same are told apart; marks and gaps travel with every figure."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.unit.alike import Other, others, plain
from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.naming import apart, full_name
from tokrig.record.model import Resolved, Skipped, Validity
from tokrig.site import formats, table
from tokrig.site.charts.points import label_runs
from tokrig.spec.settings import SETTINGS
from tokrig.store.load import Run

NUMBERS = itertools.count()


def run(resolved: dict[str, Any] | None = None, **changes: Any) -> Run:
    record = record_of([sample()], f"20261122-120000-tiny-{next(NUMBERS):04x}")
    backend = record.backend.model_copy(update={"resolved": Resolved(**(resolved or {}))})
    provenance = record.provenance.model_copy(update={"started_at": "2026-11-22T12:00:00Z"})
    changes = {"backend": backend, "provenance": provenance} | changes
    return Run(record.model_copy(update=changes), f"test-rig/{record.id}.yaml", record.id)


@pytest.mark.parametrize(
    ("setting", "one", "other", "said"),
    [
        ("cache_type_k", "f16", "q8_0", ("KV f16", "KV q8_0")),
        ("context_per_slot", 4096, 8192, ("context 4,096", "context 8,192")),
        ("threads", 4, 8, ("4 threads", "8 threads")),
        ("batch", 512, 2048, ("batch 512", "batch 2048")),
        ("gpu_layers", 20, None, ("20 layers on the GPU", "")),
    ],
)
def test_what_differs_is_said(setting: str, one: Any, other: Any, said: tuple[str, str]) -> None:
    runs = [run({setting: one}), run({setting: other})]
    assert tuple(apart([run.record for run in runs]).values()) == said


def test_a_run_that_shares_its_name_with_nobody_needs_nothing() -> None:
    tiny = run()
    other = run(model=tiny.record.model.model_copy(update={"quant": "Q8_0"}))
    assert apart([run.record for run in (tiny, other)]) == {}


def test_runs_alike_in_everything_known_are_told_apart_by_when_and_which() -> None:
    first, second = run(), run()
    later = run(
        provenance=first.record.provenance.model_copy(update={"started_at": "2026-11-23T09:30:00Z"})
    )
    found = list(apart([run.record for run in (first, second, later)]).values())
    assert len(set(found)) == 3
    assert found[2] == "2026-11-23"
    assert all(text.startswith("2026-11-22, 12:00, ") for text in found[:2])


@pytest.mark.parametrize(
    ("handed", "said"),
    [
        ('{"model": "tiny.gguf", "port": 0, "context": 8192, "slots": 16}', "slots 16"),
        ('{"slots": 4, "keeps_prompts": true, "api": null}', "keeps prompts, slots 4"),
        ("{no object", "{no object"),
    ],
)
def test_what_an_engine_is_handed_as_an_object_is_said_as_options(handed: str, said: str) -> None:
    records = []
    for words in (handed, '{"slots": 1}'):
        record = run().record
        argv = ["python", "-m", "tokrig.backends.embedded", words]
        backend = record.backend.model_copy(update={"argv": argv})
        records.append(record.model_copy(update={"backend": backend}))
    assert [one.partition(", 2026")[0] for one in apart(records).values()] == [said, "slots 1"]


def test_no_two_configurations_share_a_label_in_a_chart() -> None:
    runs = [run({"threads": n}) for n in (2, 4, 8)] + [run(), run()]
    labels = label_runs(runs)
    assert len({label.short for label in labels}) == len({label.full for label in labels}) == 5


def judged(one: Run, **validity: Any) -> Run:
    (result,) = one.record.results
    changed = result.model_copy(update={"validity": Validity(**validity)})
    return Run(one.record.model_copy(update={"results": [changed]}), one.path, one.digest)


def test_what_is_unverified_says_so_in_charts_however_long_its_name() -> None:
    doubtful = judged(run(), verdict="unverified", unverified=["no_rate"])
    long = doubtful.record.model.model_copy(update={"quant": "Q" * 90})
    doubtful = Run(doubtful.record.model_copy(update={"model": long}), "p", "d")
    label, other = label_runs([doubtful, run()])
    assert label.short.endswith("· unverified")
    assert "unverified" not in other.full


def test_transcribed_figures_are_never_unmarked() -> None:
    """They came without samples: methodology 1 called them valid."""
    seed = judged(run(), verdict="valid", unchecked=["samples"])
    (line,) = table.lines([seed], 1)
    assert [mark.label for mark in formats.line_marks(line) if mark.kind == "unchecked"] == [
        "unverified"
    ]


def test_a_range_names_its_shapes_and_what_is_missing() -> None:
    whole = run()
    (chat,) = whole.record.results
    others = [
        chat.model_copy(update={"workload": chat.workload.model_copy(update={"name": name})})
        for name in ("rag", "codegen", "agent")
    ]
    complete = Run(whole.record.model_copy(update={"results": [chat, *others]}), "p", "d")
    assert table.lines([complete], 1)[0].covers == ""
    bad = others[2].model_copy(update={"validity": Validity(verdict="invalid", reasons=["x"])})
    skipped = Skipped(workload="rag", concurrency=1, code="context_too_small", message="too long")
    gaps = {"results": [chat, others[1], bad], "skipped": [skipped]}
    (line,) = table.lines([Run(whole.record.model_copy(update=gaps), "p", "d")], 1)
    assert line.covers == "chat, codegen; agent invalid, rag skipped"


@pytest.mark.parametrize("other", list(others()), ids=lambda other: other.place)
def test_every_setting_that_differs_is_said(other: Other) -> None:
    told = apart([plain(), other.record]).get(other.record.id, "")
    assert other.word in " ".join((*full_name(other.record), told))


def test_every_setting_has_a_run_that_differs_in_it_alone() -> None:
    there = {other.place for other in others()}
    assert {path for setting in SETTINGS.values() for path in setting.found} <= there
