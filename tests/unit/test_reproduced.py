"""Has another machine measured the same? Only of one class, only on another machine, and by the
judgement of ``compare``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.compared import RIG, cell, measured, transcribed, with_value
from tokrig.cli.main import main
from tokrig.compare import comparison, subject
from tokrig.compare.reproduced import Beside, Reproduced
from tokrig.compare.statistics import WIDEST
from tokrig.naming import UNKNOWN_RIG
from tokrig.record.model import Record, record_text
from tokrig.site.build import build
from tokrig.store import Store

ELSEWHERE = RIG.model_copy(update={"id": "another", "os": "Debian", "kernel": "6.12"})


def speed(record: Record, times: float, **how: Any) -> Record:
    """The record with figures ``times`` as high."""
    results = [cell(one.workload.name, speed=100 * times, **how) for one in record.results]
    return with_value(record, "results", results)


def there(times: float = 1.0, number: int = 1, **how: Any) -> Record:
    """The same on another machine."""
    other = speed(with_value(measured(), "id", f"other-{number}"), times, **how)
    return with_value(other, "rig", ELSEWHERE.model_copy(update={"id": f"another-{number}"}))


def found(*others: Record, of: Record | None = None) -> Reproduced:
    record = of or measured()
    return Beside([record, *others]).of(record)


def test_nobody_else_yet() -> None:
    assert str(found()) == "nobody else yet"
    assert found().word == "alone"


def test_two_other_machines_within_three_percent() -> None:
    both = found(there(1.01, 1), there(0.975, 2))
    assert both.word == "reproduced"
    assert str(both) == "reproduced on 2 other machines, within 3 %"
    assert [other.run_id for other in both.others] == ["other-2", "other-1"]


def test_what_differs_with_nothing_to_explain_it_contradicts() -> None:
    one = found(there(0.78))
    assert one.word == "contradicted"
    assert str(one) == "contradicted by another machine: ×0.78 in chat × 1"


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("backend.build", "b9000", "build"),
        ("model.sha256", "f" * 64, "model file"),
        ("rig.gpus", [RIG.gpus[0].model_copy(update={"power_limit_w": 150.0})], "power limit"),
    ],
)
def test_what_differs_beside_the_machine_explains_it(path: str, value: Any, reason: str) -> None:
    one = found(with_value(there(0.78), path, value))
    assert (one.word, one.others[0].reasons) == ("differs", (reason,))
    assert reason in str(one)
    # Where both agree, nothing has to be explained.
    assert found(with_value(there(0.99), path, value)).word == "reproduced"


def test_too_few_starts_leave_it_open() -> None:
    one = found(there(1.01, spread=None))
    assert one.word == "open"
    assert str(one) == "measured on 1 other machine, ×1.01: too little to tell"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.quant", "Q8_0"),
        ("model.variant", "E4B-it"),
        ("backend.engine", "vllm"),
        ("backend.api", "vulkan"),
        ("mode.name", "ngram"),
        ("provenance.methodology", 1),
        ("provenance.methodology", None),
        ("rig.gpus", []),
        ("rig.gpus", [RIG.gpus[0].model_copy(update={"name": "NVIDIA GeForce RTX 5080"})]),
        ("rig.gpus", [*RIG.gpus, *RIG.gpus]),
        ("rig.id", UNKNOWN_RIG),
        ("results", []),
        ("results", [cell("chat", hash="another")]),
        ("results", [cell("chat", hash=None)]),
        ("results", [cell("chat", concurrency=4)]),
        ("results", [cell("chat", prompt_tokens=90.0)]),
        ("results", [cell("chat", valid=False)]),
    ],
)
def test_another_class_says_nothing(path: str, value: Any) -> None:
    assert found(with_value(there(), path, value)).word == "alone"


def test_the_same_machine_is_nobody_else() -> None:
    again = with_value(measured(), "id", "again")
    assert found(again).word == "alone"
    # Machines of one make have one id by default: another processor makes it another machine.
    assert found(with_value(again, "rig.cpu.model", "Intel Core i5-12400")).word == "reproduced"
    assert found(with_value(again, "rig.cpu.model", None)).word == "alone"


def test_a_machine_counts_once_by_the_run_of_the_same_build() -> None:
    newer = with_value(there(0.7, 1), "backend.build", "b9999")
    newer = with_value(with_value(newer, "id", "newer"), "rig", there(1.0, 1).rig)
    newer = with_value(newer, "provenance.started_at", "2026-12-01T00:00:00Z")
    one = found(newer, there(1.01, 1))
    assert [other.run_id for other in one.others] == ["other-1"]
    assert one.word == "reproduced"


def test_a_contradiction_stands_before_what_agrees() -> None:
    both = found(there(1.0, 1), there(1.4, 2))
    assert both.word == "contradicted"
    assert "reproduced on 1 other machine, within 1 %; contradicted" in str(both)


def test_what_others_published_is_nobody_s_repetition() -> None:
    assert found(there(), of=transcribed()).word == "alone"


def test_processors_are_compared_by_their_name_and_memory_explains() -> None:
    def on_cpu(record: Record) -> Record:
        return with_value(with_value(record, "backend.api", "cpu"), "rig.gpus", [])

    ours, theirs = on_cpu(measured()), on_cpu(there(0.7))
    assert found(theirs, of=ours).word == "contradicted"
    slower = with_value(theirs, "rig.memory.speed_mt_per_s", 4800)
    assert found(slower, of=ours).others[0].reasons == ("memory",)


RATIOS = st.lists(st.sampled_from([0.5, 0.9, 0.96, 0.99, 1.0, 1.01, 1.03, 1.06, 2.0]), max_size=6)


@settings(max_examples=30, deadline=None)
@given(ratios=RATIOS, spread=st.sampled_from([0.001, 0.01, 0.04, None]))
def test_made_stores_are_judged_as_compare_judges(
    ratios: Sequence[float], spread: float | None
) -> None:
    others = [there(times, n, spread=spread) for n, times in enumerate(ratios)]
    ours = speed(measured(), 1.0, spread=spread)
    one = found(*others, of=ours)
    assert {other.run_id for other in one.others} == {other.id for other in others}
    by_id = {other.id: other for other in others}
    for other in one.others:
        pair = comparison(subject(ours), subject(by_id[other.run_id]))
        verdicts = {
            figure.ratio.verdict
            for shape in pair.pairs
            for figure in shape.figures
            if figure.metric == "output_tok_per_s"
        }
        off = math.expm1(abs(math.log(other.ratio)))
        if other.word == "open":
            assert "faster" not in verdicts and "slower" not in verdicts
        elif other.word == "contradicted":
            assert off > WIDEST
        else:
            assert other.word == "reproduced" and off <= WIDEST + 1e-9
    # Order says nothing.
    assert str(Beside([*others[::-1], ours]).of(ours)) == str(one)


# Where it is told


def written(content: Path, records: Iterable[Record]) -> Path:
    store = Store(content)
    for record in records:
        path = store.record_path(record)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record_text(record), encoding="utf-8")
    return content


def test_pages_and_the_table_tell_it(tmp_path: Path) -> None:
    content = written(tmp_path / "content", [measured(), there(1.02, 1), there(1.4, 2)])
    out = tmp_path / "site"
    build(content, out, cache=tmp_path / "cache")
    page = (out / "runs" / "other-1.html").read_text(encoding="utf-8")
    assert "reproduced on 1 other machine, within 2 %; contradicted by another machine" in page
    assert 'href="other-2.html"' in page and f'href="{measured().id}.html"' in page
    model = (out / "models" / "gemma-4-e2b-it.html").read_text(encoding="utf-8")
    assert "<dd>contradicted 3</dd>" in model
    assert model.count(">contradicted</span>") >= 3
    rows = (out / "assets" / "rows.js").read_text(encoding="utf-8")
    assert '"reproduced":{"0":["unchecked","contradicted","' in rows
    # Another record changes what stands on the pages of the first ones, and only that.
    written(content, [there(1.0, 3)])
    build(content, out, cache=tmp_path / "cache")
    page = (out / "runs" / "other-1.html").read_text(encoding="utf-8")
    assert "reproduced on 2 other machines, within 2 %" in page


def test_show_tells_it(tmp_path: Path) -> None:
    content = written(tmp_path / "content", [measured(), there(1.0)])
    broken = Store(content).runs / "another-1" / "broken.yaml"
    broken.write_text("id: [\n", encoding="utf-8")
    done = CliRunner().invoke(main, ["show", "other-1", "--content", str(content)])
    assert "Other machines: reproduced on 1 other machine, within 1 %" in done.stdout, done.output
