"""What runs on a machine: the data that say it, against the estimates they are made of, and the
rules of an answer on stores whose truth is plain."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench.many.records import make_record, write_facts
from tests.unit.compared import cell, measured, with_value
from tokrig import naming
from tokrig.fit.estimate import Estimator
from tokrig.fit.evidence import candidates, points
from tokrig.fit.place import DECODE_AT, machine_of
from tokrig.record.model import Model, PeakMemory, Record
from tokrig.site import answer, finder, formats, table
from tokrig.site.context import Site
from tokrig.store import Store
from tokrig.store.facts import load_rigs
from tokrig.store.load import Run

MADE = 220


def site_of(records: list[Record], folder: Path) -> Site:
    runs = tuple(Run(record, f"{record.id}.yaml", record.id) for record in records)
    return Site(Store(folder), runs, families={}, rigs=load_rigs(folder), redirects={})


def finder_of(records: list[Record], folder: Path) -> finder.Finder:
    site = site_of(records, folder)
    return finder.Finder(site, table.columns(site.runs, {}))


@cache
def made() -> tuple[Record, ...]:
    return tuple(make_record(7, number) for number in reversed(range(MADE)))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> finder.Finder:
    folder = tmp_path_factory.mktemp("content")
    write_facts(folder)
    return finder_of(list(made()), folder)


def numbered(of: finder.Finder, word: str) -> int:
    return [machine.word for machine in of.machines].index(word)


def lines(of: finder.Finder, word: str, use: int = 0, fast: float = 20) -> list[answer.Line]:
    found = answer.answer(of.data, of.fit, numbered(of, word), use, fast)
    return [line for models in found.values() for every in models for line in every]


def test_every_model_stands_in_one_section_in_every_quant(many: finder.Finder) -> None:
    for machine in many.machines:
        found = [line["of"] for line in lines(many, machine.word, 1)]
        assert sorted(found) == list(range(len(many.fit["models"]["model"])))


def test_the_largest_that_is_fast_enough_comes_first(many: finder.Finder) -> None:
    found = answer.answer(many.data, many.fit, numbered(many, "24gb"), 1, 20)
    models = many.fit["models"]
    fast = [every[0] for every in found["fast"]]
    sizes = [many.data["models"][models["model"][line["of"]]][4] for line in fast]
    assert len(fast) > 10
    assert sizes == sorted(sizes, reverse=True)
    for first, *rest in found["fast"]:
        assert first["rate"] >= 20
        larger = [one for one in rest if models["bytes"][one["of"]] > models["bytes"][first["of"]]]
        assert all(one["rate"] is None or one["rate"] < 20 for one in larger)
    missing = [every[0]["missing"] for every in found["no"]]
    assert missing == sorted(missing)
    slower = [every[0]["rate"] for every in found["slower"]]
    assert slower == sorted(slower, reverse=True)


def test_what_is_expected_is_what_fit_expects(many: finder.Finder) -> None:
    records = many.records
    decode = Estimator(points(records, many.stated), "decode")
    known = candidates(records)
    rigs = {rig.id: rig for rig in (record.rig for record in reversed(records))}
    seen = set()
    for machine in many.machines:
        if machine.kind not in ("card", "processor"):
            continue
        rig = rigs[many.data["rigs"][machine.rigs[0]][1]]
        described = machine_of(rig, many.stated[rig.id])
        width = described.gpu_bytes_per_s if rig.gpus else described.cpu_bytes_per_s
        for line in lines(many, machine.word):
            if line["how"] != "expected":
                continue
            one = known[line["of"]]
            size = one.step_bytes(DECODE_AT)
            assert size is not None and width is not None
            wanted = decode.estimate(one.model, described.hardware, machine.place, width / size)
            assert wanted is not None
            seen.add(wanted.kind)
            assert line["basis"] == wanted.kind
            assert line["rate"] == pytest.approx(wanted.tok_per_s, rel=1e-2)
            if wanted.low is None:
                assert line["low"] is None
            else:
                assert line["low"] == pytest.approx(wanted.low, rel=1e-2)
                assert line["high"] == pytest.approx(wanted.high, rel=1e-2)
    assert seen == {"here", "elsewhere", "like"}


def test_of_a_size_the_middle_card_counts_and_the_interval_spans_all(many: finder.Finder) -> None:
    machine = many.machines[numbered(many, "12gb")]
    assert machine.widths is not None
    low, middle, high = machine.widths
    assert low < middle < high
    expected = [line for line in lines(many, "12gb") if line["how"] == "expected"]
    assert expected
    for line in expected:
        assert line["low"] < line["rate"] * low / middle
        assert line["high"] > line["rate"] * high / middle


# Stores whose truth is plain

GIB = 1024**3


def model(name: str, size: int | None = 4 * GIB, **changed: Any) -> Model:
    facts = {"family": name, "variant": None, "bytes": size, "sha256": None, **changed}
    return measured().model.model_copy(update=facts)


def run(name: str, of: Model, *cells: Any, **changed: Any) -> Record:
    record = with_value(with_value(measured(), "id", name), "model", of)
    record = with_value(record, "results", list(cells) or [cell("chat", speed=60.0)])
    for field, value in changed.items():
        record = with_value(record, field.replace("__", "."), value)
    return record


CARD = "geforce-rtx-5070-12gb"


def test_invalid_results_are_never_an_answer(tmp_path: Path) -> None:
    of = finder_of([run("a", model("Bad"), cell("chat", valid=False))], tmp_path)
    (line,) = lines(of, CARD)
    assert line["row"] is None
    assert line["how"] == "fits"


def test_the_newest_of_the_fastest_engine_stands_for_a_model_and_the_range_is_told(
    tmp_path: Path,
) -> None:
    one = model("Twice")
    records = [
        run("newest", one, cell("chat", speed=70.0)),
        run("vulkan", one, cell("chat", speed=64.0), backend__api="vulkan"),
        run("older", one, cell("chat", speed=90.0)),
        run("drafts", one, cell("chat", speed=150.0), mode__name="ngram"),
    ]
    (line,) = lines(finder_of(records, tmp_path), CARD)
    assert (line["how"], line["rate"], line["others"]) == ("here", 70.0, [64.0, 150.0, 4])


def test_a_small_peak_on_a_larger_card_shows_that_a_model_fits(tmp_path: Path) -> None:
    """Its file alone says nothing, and its speed is another card's."""
    large = measured().rig.gpus[0].model_copy(update={"name": "Big", "vram_bytes": 24 * GIB})
    rig = measured().rig.model_copy(update={"id": "big", "gpus": [large]})
    peak = cell("chat", speed=80.0)
    peak = peak.model_copy(update={"memory": PeakMemory(engine_vram_bytes=11 * GIB)})
    of = finder_of([run("a", model("Fits", 23 * GIB // 2), peak, rig=rig)], tmp_path)
    (line,) = lines(of, "12gb")
    assert (line["how"], line["seen"]) == ("fits", True)
    assert lines(of, "8gb")[0]["how"] == "no"


def test_what_nobody_knows_is_told_as_unknown(tmp_path: Path) -> None:
    nobody = model("Nobody", None, parameters=None, active_parameters=None)
    bare = measured().rig.model_copy(update={"id": naming.UNKNOWN_RIG, "gpus": []})
    of = finder_of(
        [run("a", nobody, rig=bare.model_copy(update={"facts_from": "nobody"}))], tmp_path
    )
    assert {machine.kind for machine in of.machines} == {"none", "size"}
    for machine in of.machines:
        assert [line["how"] for line in lines(of, machine.word)] == ["unknown"]


def test_without_any_row_there_are_machines_and_no_models(tmp_path: Path) -> None:
    of = finder_of([], tmp_path)
    assert [machine.word for machine in of.machines][:2] == ["no-gpu", "8gb"]
    assert lines(of, "12gb") == []


@pytest.mark.parametrize(
    ("number", "text"),
    [(7.6e9, "7.6 B"), (26.9e9, "26.9 B"), (270e6, "270 M"), (1.2345e12, "1230 B"), (999, "999")],
)
def test_parameters_as_text(number: float, text: str) -> None:
    assert formats.parameters(number) == text


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("4b-it", 4e9),
        ("E2B-it", 2e9),
        ("8B-A1B", 8e9),  # the active ones come second
        ("8x7B-Instruct", 56e9),
        ("135M", 135e6),
        ("1.2B-Tool", 1.2e9),
        ("v2.5", None),
        ("0B", None),
        ("4bit", None),
    ],
)
def test_a_name_tells_parameters_where_nothing_else_does(name: str, size: float | None) -> None:
    unknown = model("Some", None, parameters=None, variant=name)
    assert formats.size_of(unknown) == (size, size is not None)
    stated = model("Some", None, parameters=123, variant=name)
    assert formats.size_of(stated) == (123, False)
