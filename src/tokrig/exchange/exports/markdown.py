"""A Markdown table a run, to paste into an issue or a forum: narrow, with units, marks, and a line
that says how it was measured.

Names in records come from strangers: what Markdown, HTML or a forum would act upon (tables, tags,
mentions of people, numbers of issues) is written as a character reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokrig import naming
from tokrig.exchange.exports import Export, Exported, Samples
from tokrig.naming import in_markdown
from tokrig.record.block import Summary
from tokrig.record.metric import Metric
from tokrig.record.metrics import METRICS
from tokrig.record.model import Record, Result
from tokrig.store.load import Run
from tokrig.units import human_rate, human_seconds

FIGURES = ("output_tok_per_s", "ttft_s", "prefill_tok_per_s", "system_tok_per_s")
LONGEST_PART = 120
_HEADINGS = {"output_tok_per_s": "gen tok/s", "system_tok_per_s": "all, tok/s"}


def _make(runs: Sequence[Run], samples: Samples) -> Exported:
    blocks = ["\n".join(_lines(run.record)) for run in runs]
    return Exported(("\n\n".join(blocks) + "\n").encode("utf-8", "replace"))


def _lines(record: Record) -> Iterator[str]:
    what = " · ".join(
        filter(
            None,
            (
                naming.model_label(record.model),
                naming.backend_label(record.backend),
                naming.mode_label(record.mode.name),
            ),
        )
    )
    yield f"**{in_markdown(what)}**"
    yield f"on {in_markdown(naming.hardware_name(record.rig))} (rig {in_markdown(record.rig.id)})"
    yield ""
    if record.results:
        yield from _results(record.results)
    if record.raw:
        yield from _raw(record)
    for skipped in record.skipped:
        yield f"Not measured: {in_markdown(skipped.cell.label)}: {in_markdown(skipped.message)}"
        yield ""
    yield f"<sub>{_method(record)}</sub>"


def _results(results: Sequence[Result]) -> Iterator[str]:
    metrics = [m for m in (METRICS[n] for n in FIGURES) if any(m.of(r) for r in results)]
    if all(result.concurrency == 1 for result in results):
        metrics = [metric for metric in metrics if metric.name != "system_tok_per_s"]
    headings = [_HEADINGS.get(metric.name, metric.label) for metric in metrics]
    yield f"| workload × at once | {' | '.join(headings)} | verdict |"
    yield f"|:--|{'--:|' * len(metrics)}:--|"
    for result in results:
        cells = [_cell(metric, metric.of(result)) for metric in metrics]
        yield f"| {in_markdown(result.cell.label)} | {' | '.join(cells)} | {_verdict(result)} |"
    yield ""


def quoted(record: Record, result: Result | None, link: str) -> str:
    """One line for a forum: what ran, its rate with interval and verdict, on what, with what; the
    name leads to ``link``. A result that is invalid, and a run without any, has no figure."""
    name = _part(naming.model_label(record.model))
    told = [_without_result(record)]
    if result:
        told = [_rate_said(result), _part(result.cell.label), _verdict(result)]
    mode, day = naming.mode_label(record.mode.name), (record.provenance.started_at or "")[:10]
    where = naming.hardware_name(record.rig), naming.backend_label(record.backend), mode, day
    return "; ".join(
        (
            f"**[{name}]({link})**: {', '.join(filter(None, told))}",
            *(_part(text) for text in where if text),
        )
    )


def _without_result(record: Record) -> str:
    if record.validity.verdict == "invalid":
        return "**INVALID**"
    return "raw engine figures" if record.raw else record.status


def _part(text: str) -> str:
    return in_markdown(text if len(text) <= LONGEST_PART else f"{text[: LONGEST_PART - 1]}…")


def _rate_said(result: Result) -> str:
    metric = METRICS["output_tok_per_s"]
    rate = metric.of(result)
    if rate is None or result.validity.verdict == "invalid":
        return ""
    shown = _cell(metric, rate).replace(" (", " tok/s (", 1)
    if "tok/s" not in shown:
        return f"{shown} tok/s"
    return shown.replace(")", f", {'95 % interval' if rate.ci95 else 'range'})")


def _cell(metric: Metric[Summary | None], found: Summary | None) -> str:
    if found is None:
        return "–"
    show = human_seconds if metric.unit == "s" else human_rate
    low, high = found.ci95 or (found.min, found.max)
    wide = metric.name == "output_tok_per_s" and low is not None and high is not None and low < high
    return f"{show(found.median)} ({show(low)}–{show(high)})" if wide else show(found.median)


def _verdict(result: Result) -> str:
    word = result.validity.word
    if word == "valid":
        return "valid"
    codes = result.validity.reasons if word == "invalid" else result.validity.unverified
    because = (
        f": {in_markdown(', '.join(code.replace('_', ' ') for code in codes))}" if codes else ""
    )
    return f"**{'INVALID' if word == 'invalid' else word}**{because}"


def _raw(record: Record) -> Iterator[str]:
    yield "| engine's own benchmark | at once | tok/s | repetitions |"
    yield "|:--|--:|--:|--:|"
    for figure in record.raw:
        told, n = figure.tok_per_s, figure.tok_per_s.n
        cells = (
            in_markdown(figure.test),
            figure.concurrency,
            human_rate(told.median),
            n or "–",
        )
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""


def _method(record: Record) -> str:
    told = record.provenance
    if told.kind != "measured":
        source = f" from {told.source}" if told.source else ""
        how = [f"Not measured by tokrig: {told.kind}{source}"]
    else:
        version = f" {told.tokrig_version}" if told.tokrig_version else ""
        how = [f"Measured with tokrig{version}, methodology {told.methodology}"]
        how += [_medians(record)] if record.results else []
    if record.results:
        how.append("gen is the rate after the first token, TTFT the time to it")
    if record.raw:
        how.append("engine's own figures: no server, no client, no chat template")
    if record.status != "complete":
        how.append(f"the run is {record.status}")
    day = (told.started_at or "")[:10]
    how.append(" ".join(filter(None, (day, f"run {record.id}"))))
    return in_markdown("; ".join(how))


def _medians(record: Record) -> str:
    """``medians of 10 starts, 95 % intervals``."""
    rates = [r.output_tok_per_s for r in record.results if r.output_tok_per_s]
    intervals = bool(rates) and all(rate.ci95 for rate in rates)
    starts = record.provenance.server_starts
    of = f" of {starts} start{'s' if starts != 1 else ''} of the engine" if starts else ""
    return f"medians{of}, in brackets {'95 % intervals' if intervals else 'ranges'}"


EXPORT = Export("a table to paste into an issue or a forum", (".md",), _make)
