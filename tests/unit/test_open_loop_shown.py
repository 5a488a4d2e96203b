"""Requests that arrive by themselves as people see them: while they run, in show, on the page."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.unit.records import record_of
from tests.unit.test_open_loop import asked, queue
from tests.unit.test_page_run import page_of
from tests.unit.test_rate_limits import probed
from tokrig.cli import present
from tokrig.cli.board import Board, figures, said
from tokrig.record.samples import Cell
from tokrig.run.progress import CellBegan, CellDone, CellTick, Progress, Step
from tokrig.site.charts import svg_file
from tokrig.site.charts.arrivals import by_rate, over_time
from tokrig.site.charts.runs import of_record
from tokrig.spec.run import LEVELS
from tokrig.store.load import Run

FIVE = Cell("chat", 1, load="constant", rate_per_s=2.5)


def printed(*rates: float, **slo: float) -> str:
    out = io.StringIO()
    whole, _ = probed(*rates, **slo)
    present.print_figures(Console(file=out, width=200), whole)
    return out.getvalue()


def test_show_tells_each_rate_and_the_highest_that_meets_the_slo() -> None:
    text = printed(2.5, 4.0, 10.0, ttft_s=0.2)
    rows = {line.split("/s")[0]: line.split() for line in text.splitlines() if "constant" in line}
    assert rows["chat, constant 4"][3:6] == ["4.00", "4.00", "100"]
    assert "overloaded" in " ".join(rows["chat, constant 10"])
    assert "SLO: TTFT ≤ 200 ms" in text
    found = "chat, constant: 4 requests/s meet TTFT ≤ 200 ms, 10/s do not (3 rates tried)"
    assert found in text


@pytest.mark.parametrize(
    ("rates", "says"),
    [
        ((2.5, 4.0), "4 requests/s meet TTFT ≤ 200 ms, no higher one was tried (2 rates tried)"),
        ((10.0, 12.0), "not even 10 requests/s meet TTFT ≤ 200 ms (2 rates tried)"),
    ],
)
def test_a_limit_that_was_not_found_is_told(rates: tuple[float, ...], says: str) -> None:
    assert says in printed(*rates, ttft_s=0.2)


def test_without_an_slo_there_is_no_word_of_one() -> None:
    text = printed(2.5, 4.0)
    assert "SLO:" not in text
    assert "rates tried" not in text


def test_the_board_follows_rates_that_nobody_knew_before() -> None:
    made = Board({}, LEVELS["quick"], began_s=0)
    tick = CellTick(FIVE, 3, 63, 400, 2.0, in_flight=2)
    events: list[Progress] = [Step("fitting prompts", FIVE), CellBegan(FIVE, 0, 0, 0), tick]
    for second, event in enumerate(events):
        made.hear(event, second)
    [line] = [line.text for line in made.frame(3, 100, 20) if "constant" in line.text]
    assert "chat, constant 2.5/s  measuring 3 of 63, 2 in flight" in line
    assert said(CellBegan(FIVE, 0, 0, 0)) == "chat, constant 2.5/s: measuring"
    assert said(tick).endswith("requests, 2 in flight")


def test_a_result_is_a_line() -> None:
    samples = queue(2.5)
    result = record_of(samples, arrivals=asked(ttft_s=0.2)).results[0]
    line = " ".join(figures(result).split())
    assert line == "2.52/s answered TTFT 100 ms SLO met 100 % lag 0.00 ms valid"
    assert "SLO" not in figures(record_of(samples, arrivals=asked()).results[0])
    made = Board({}, LEVELS["quick"], began_s=0)
    made.hear(CellDone(FIVE, 0, result, 30.0), 30)
    assert "answered" in made.rows[FIVE].figures


def test_the_page_has_a_table_and_a_chart_by_rate(tmp_path: Path) -> None:
    whole, _ = probed(2.5, 4.0, 10.0, ttft_s=0.2)
    page = page_of(tmp_path, whole)
    assert "chat, constant: 4 requests/s meet TTFT ≤ 200 ms, 10/s do not" in page.text
    assert "chat, constant 10/s, overloaded" in page.text
    assert "Waiting by rate, chat, constant" in page.text
    [figure] = by_rate(whole.results)
    assert figure.slug == "rates"
    assert list(of_record(Run(whole, path="", digest=""), [])) == ["rates"]
    assert [row[0] for row in figure.rows] == ["2.5", "4", "10"]
    assert figure.rows[0][1:] == ("0.1", "0.1", "0.2", "100.0", "no")
    assert figure.rows[2][-1] == "yes"
    assert "SLO: TTFT" in svg_file(figure)


def test_one_rate_is_drawn_over_time(tmp_path: Path) -> None:
    samples = queue(10.0)
    record = record_of(samples, arrivals=asked())
    page = page_of(tmp_path, record, samples)
    assert "Time to first token of requests as they arrived" in page.text
    figure = over_time(samples)
    assert figure is not None
    assert len(figure.rows) == 300
    assert figure.rows[0] == ("1", "0", "warm-up window", "0.1", "0.000")
    assert figure.rows[-1][:3] == ("1", "29.9", "measured")
    assert by_rate(record.results) == []


def test_a_closed_loop_has_neither(tmp_path: Path) -> None:
    record = record_of(queue(2.5)[:1])
    page = page_of(tmp_path, record.model_copy(update={"results": []}))
    assert "arrive by themselves" not in page.text
