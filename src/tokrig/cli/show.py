"""``tokrig show``: one record as a person wants to see it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokrig.cli.options import complete_run_id, content_and_json, example
from tokrig.errors import InputError, TokrigError

if TYPE_CHECKING:
    from rich.console import Console

    from tokrig.record.model import Record, Resolved, Result
    from tokrig.record.samples import Sample
    from tokrig.store import Store

BINS = 40


@click.command(
    "show",
    epilog=example("tokrig show 20261122-171500", "tokrig show 20261122-171500 --plot speed.png"),
)
@click.argument("run_id", metavar="ID", shell_complete=complete_run_id)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also draw a chart into FILE, .png or .svg.",
)
@click.option("--chart", metavar="NAME", help="The chart to plot; a wrong name lists them.")
@content_and_json
def command(
    run_id: str, plot: Path | None, chart: str | None, content: Path, as_json: bool
) -> None:
    """Show one record: figures, validity, machine, charts.

    ID is a record's id, the beginning of one, or the path of its file. With --json the record
    itself is printed.
    """
    from tokrig.cli import present, words
    from tokrig.store import Store

    if chart is not None and plot is None:
        raise InputError("--chart needs --plot", hint="add --plot FILE.png or --plot FILE.svg")
    store = Store(content)
    path = store.find(run_id)
    record = store.read(path)
    samples = [] if as_json and not plot else _samples(Store(root_of(path) or content), record)
    if plot:
        from tokrig.cli.plot import plot as draw

        name = draw(record, samples, plot, chart)
        click.echo(f"chart {name}: {plot}", err=True)
    if as_json:
        words.print_json(present.record_json(record))
        return
    out = present.console()
    print_record(out, record)
    print_charts(out, record, samples)
    click.echo(f"record: {path}", err=True)


def root_of(record_path: Path) -> Path | None:
    """The content folder a record's file lies in, where its place tells."""
    parents = record_path.absolute().parents
    in_place = len(parents) > 3 and (parents[1].name, parents[2].name) == ("runs", "benchmarks")
    return parents[3] if in_place else None


def _samples(store: Store, record: Record) -> list[Sample]:
    """The samples, or none with a word on stderr: a record can be shown without them."""
    try:
        return store.read_samples(record.id)
    except TokrigError as problem:
        click.echo(f"note: no charts: {problem.message}", err=True)
        return []


def print_record(out: Console, record: Record) -> None:
    """Everything but the charts."""
    from tokrig.cli import present, words
    from tokrig.rig import summary_rows

    present.print_pairs(out, _header(record))
    if record.results:
        out.print()
        present.print_results(out, record.results, tokens=True)
        out.print()
        out.print(words.caption(record), style="dim")
    if record.raw:
        out.print()
        present.print_raw(out, record)
    present.print_skipped(out, record)
    if record.failure:
        out.print(f"failed: {record.failure.code}: {record.failure.message}", style="bold red")
        for line in record.failure.log_tail.splitlines()[-8:]:
            out.print(f"  | {line}", style="dim", soft_wrap=True)
    for erratum in record.errata:
        out.print(f"erratum {erratum.date}, {erratum.field}: {erratum.text}")
    out.print()
    present.print_findings(out, record, full=True)
    out.print()
    present.print_pairs(out, [*summary_rows(record.rig), *_resolved(record.backend.resolved)])


def _header(record: Record) -> list[tuple[str, str]]:
    from tokrig.cli import words
    from tokrig.query import labels
    from tokrig.units import human_bytes, human_seconds

    model, provenance, cold = record.model, record.provenance, record.cold_start
    bits = f"{model.bits_per_weight:.2f} bits/weight" if model.bits_per_weight else ""
    size = human_bytes(model.bytes) if model.bytes is not None else ""
    creator = f"quantized by {model.quant_creator}" if model.quant_creator else ""
    stated = f"called {model.quant_stated}" if model.quant_stated else ""
    file = ", ".join(filter(None, (model.file, size, bits, stated, creator)))
    seed = f"seed {provenance.seed}" if provenance.seed is not None else ""
    measured = ", ".join(filter(None, (provenance.level, provenance.started_at, seed)))
    version = f"tokrig {provenance.tokrig_version}" if provenance.tokrig_version else ""
    source = ", ".join(filter(None, (provenance.kind, provenance.source, version)))
    verdict = words.verdict(record.validity)
    pairs = [
        ("Run", record.id),
        ("Model", words.model_name(model)),
        ("File", file),
        ("Backend", labels.backend(record.backend)),
        ("Mode", labels.how(record.mode.name, record.results)),
        ("Status", f"{record.status}, {verdict}"),
        ("Measured", measured if provenance.started_at else ""),
        ("Source", source),
    ]
    if cold and cold.load_s is not None:
        first = f", first token after {human_seconds(cold.first_ttft_s)}"
        pairs.append(("Cold start", f"loaded in {human_seconds(cold.load_s)}{first}"))
    pairs.append(("Notes", record.notes or ""))
    return [(name, value) for name, value in pairs if value]


def _resolved(resolved: Resolved) -> list[tuple[str, str]]:
    """Settings the engine reported, in its own words."""
    rows = []
    for name in type(resolved).model_fields:
        value = getattr(resolved, name)
        if isinstance(value, list):
            value = " ".join(value)
        if value not in (None, "", {}):
            rows.append((name.replace("_", " ").capitalize(), _first_line(str(value))))
    return rows


def _first_line(text: str) -> str:
    """A chat template is a page long; its beginning tells it from others."""
    line = text.split("\n", 1)[0]
    return line if line == text and len(line) <= 100 else line[:100] + " …"


def print_charts(out: Console, record: Record, samples: Sequence[Sample]) -> None:
    """Time between chunks and TTFT of each request, one block of lines a result."""
    from tokrig.cli.words import label

    out.print()
    for result in record.results:
        key = (result.workload.name, result.concurrency)
        mine = [
            s
            for s in samples
            if (s.workload, s.concurrency) == key and s.phase == "measured" and s.error is None
        ]
        lines = [*_gap_lines(result, mine), *_ttft_lines(result, mine)]
        if lines:
            out.print(label(result), style="bold")
        for line in lines:
            out.print(f"  {line}", soft_wrap=True)


def _gap_lines(result: Result, samples: Sequence[Sample]) -> list[str]:
    from tokrig.cli.charts import bins, histogram
    from tokrig.units import human_seconds

    gaps = [
        (b.t_ns - a.t_ns) / 1e9
        for s in samples
        for a, b in zip(s.chunks, s.chunks[1:], strict=False)
    ]
    if gaps:
        counts, low, high, beyond = bins(gaps, BINS)
        tail = f", {beyond} beyond, up to {human_seconds(max(gaps))}" if beyond else ""
        return [
            f"between chunks  {human_seconds(low):>8} │{histogram(counts)}│ "
            f"{human_seconds(high)}  ({len(gaps)} gaps{tail})"
        ]
    if result.icl_s:
        names = ("p50", "p90", "p95", "p99", "max")
        shares = ((name, getattr(result.icl_s, name)) for name in names)
        known = ", ".join(f"{name} {human_seconds(v)}" for name, v in shares if v is not None)
        return [f"between chunks  {known}  ({result.icl_s.n} gaps)"]
    return []


def _ttft_lines(result: Result, samples: Sequence[Sample]) -> list[str]:
    from tokrig.cli.charts import sparkline
    from tokrig.units import human_seconds

    values = [s.chunks[0].t_ns / 1e9 for s in samples if s.chunks]
    if values:
        return [
            f"TTFT, each       {human_seconds(min(values)):>7} │{sparkline(values)}│ "
            f"{human_seconds(max(values))}  ({len(values)} requests)"
        ]
    if result.ttft_s:
        ttft = result.ttft_s
        known = [s for s in (ttft.min, ttft.median, ttft.max) if s is not None]
        return [f"TTFT            {' … '.join(map(human_seconds, known))}"]
    return []
