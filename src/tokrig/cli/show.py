"""``tokrig show``: one record as a person wants to see it, and its chart as a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokrig import naming
from tokrig.cli import present
from tokrig.cli.options import complete_run_id, content_and_json, example
from tokrig.errors import InputError, StoreError, TokrigError, did_you_mean
from tokrig.files import atomic_write
from tokrig.registry import get_extra
from tokrig.units import human_bytes, human_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from tokrig.record.model import BackendFacts, Record, Result
    from tokrig.record.samples import Sample
    from tokrig.site.charts import Figure
    from tokrig.store import Store

SUFFIXES = (".png", ".svg")
# What engines report beside the settings that can be asked for, and what those settings name twice.
READ_BACK = {
    "context_per_slot": "context per slot",
    "context_total": "context of all slots",
    "kv_unified": "slots share one cache",
    "slots": "slots",
    "threads_batch": "threads for prompts",
    "cache_type_k": "KV cache type, keys",
    "cache_type_v": "KV cache type, values",
    "flash_attention": "flash attention",
    "layers": "layers of the model",
    "device_bytes": "weights on devices",
    "split_mode": "split between devices",
    "dtype": "data type of the weights",
    "quantization": "quantization",
    "tensor_parallel": "tensor parallel",
    "prefix_caching": "prefix caching",
    "cpu_features": "CPU features used",
    "chat_template": "chat template",
}
BINS = 40
BLOCKS = "▁▂▃▄▅▆▇█"
MAX_BARS = 60


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
    from tokrig.store import Store

    if chart is not None and plot is None:
        raise InputError("--chart needs --plot", hint="add --plot FILE.png or --plot FILE.svg")
    store = Store(content)
    path = store.find(run_id)
    record = store.read(path)
    samples = [] if as_json and not plot else _samples(Store(root_of(path) or content), record)
    if plot:
        name = draw(record, samples, plot, chart)
        click.echo(f"chart {name}: {plot}", err=True)
    if as_json:
        present.print_json(present.record_json(record))
        return
    out = present.console()
    print_record(out, record)
    for cell, why in _shortfalls(Store(root_of(path) or content), record):
        out.print(f"{cell}: {why}", soft_wrap=True)
    if record.results:
        others = _elsewhere(Store(root_of(path) or content), record)
        out.print(f"Other machines: {others}", soft_wrap=True)
    print_charts(out, record, samples)
    click.echo(f"record: {path}", err=True)


def _shortfalls(store: Store, record: Record) -> Iterator[tuple[str, str]]:
    """Which results stay far below their ceiling, beside all others in the store, and why."""
    from tokrig.compare.causes import Shares
    from tokrig.store.load import load

    if all(result.ceiling_share is None for result in record.results):
        return
    others = load(store, keep_going=True).runs
    for low in Shares(run.record for run in others).shortfalls(record):
        yield low.result.cell.label, str(low)


def _elsewhere(store: Store, record: Record) -> str:
    """Whether another machine measured the same, as far as its records can be read."""
    from tokrig.compare.reproduced import Beside

    name = naming.model_name(record.model).casefold()
    alike = [row for row in store.rows() if naming.model_name(row).casefold() == name]
    records = []
    for row in alike:
        try:
            records.append(store.read(store.runs / row.path))
        except TokrigError:  # tokrig check names what cannot be read
            continue
    return str(Beside(records).of(record))


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
    from tokrig.cli.machine import rig_rows

    present.print_pairs(out, _header(record))
    if record.results or record.raw:
        out.print()
    present.print_figures(out, record, asked=True)
    if record.failure:
        out.print(f"failed: {record.failure.code}: {record.failure.message}", style="bold red")
        for line in record.failure.log_tail.splitlines()[-8:]:
            out.print(f"  | {line}", style="dim", soft_wrap=True)
    for erratum in record.errata:
        out.print(f"erratum {erratum.date}, {erratum.field}: {erratum.text}")
    out.print()
    present.print_findings(out, record, full=True)
    out.print()
    present.print_pairs(out, [*rig_rows(record.rig), *_settings(record.backend)])


def _header(record: Record) -> list[tuple[str, str]]:
    model, provenance, cold = record.model, record.provenance, record.cold_start

    def listed(*parts: tuple[str, Any]) -> str:
        return ", ".join(text.format(value) for text, value in parts if value not in (None, ""))

    file = listed(
        ("{}", model.file),
        ("{}", None if model.bytes is None else human_bytes(model.bytes)),
        ("{:.2f} bits/weight", model.bits_per_weight),
        ("called {}", model.quant_stated),
        ("quantized by {}", model.quant_creator),
    )
    began = provenance.started_at
    measured = listed(("{}", provenance.level), ("{}", began), ("seed {}", provenance.seed))
    version = ("tokrig {}", provenance.tokrig_version)
    loaded = ""
    if cold and cold.load_s is not None:
        first = human_seconds(cold.first_ttft_s)
        loaded = f"loaded in {human_seconds(cold.load_s)}, first token after {first}"
    pairs = {
        "Run": record.id,
        "Model": naming.model_label(model),
        "File": file,
        "Backend": naming.backend_label(record.backend),
        "Mode": naming.mode_accepted(record.mode.name, record.results),
        "Status": f"{record.status}, {present.verdict(record.validity)}",
        "Measured": measured if began else "",
        "Source": listed(("{}", provenance.kind), ("{}", provenance.source), version),
        "Sent from": _senders(record),
        "Cold start": loaded,
        "Notes": record.notes or "",
    }
    return [(name, value) for name, value in pairs.items() if value]


def _senders(record: Record) -> str:
    """``3 load nodes, 1 lost``; nothing where this machine sent."""
    seen = [result.load_nodes for result in record.results if result.load_nodes is not None]
    if not seen:
        return ""
    most, lost = max(one.nodes for one in seen), max(one.lost for one in seen)
    return f"{most} load node{'s' if most > 1 else ''}" + (f", {lost} lost" if lost else "")


def _settings(backend: BackendFacts) -> list[tuple[str, str]]:
    """Settings as the engine reports them, else as they were asked for, labelled as everywhere."""
    from tokrig.spec.settings import SETTINGS

    labels = {name: s.label for s in SETTINGS.values() for name in s.asked} | READ_BACK
    rows = []
    for name, value in backend.resolved:
        if value in (None, [], {}) and name in backend.asked:
            value = f"{backend.asked[name]} asked, not confirmed"
        if isinstance(value, bool):
            value = "yes" if value else "no"
        if isinstance(value, list):
            value = " ".join(value)
        if isinstance(value, dict):
            value = ", ".join(f"{key} {human_bytes(size)}" for key, size in value.items())
        if value not in (None, ""):
            label = labels.get(name) or name.replace("_", " ")
            # A chat template is a page long; its beginning tells it from others.
            line = str(value).split("\n", 1)[0]
            shown = line if line == str(value) and len(line) <= 100 else line[:100] + " …"
            rows.append((label[0].upper() + label[1:], shown))
    return rows


def print_charts(out: Console, record: Record, samples: Sequence[Sample]) -> None:
    """Time between chunks and TTFT of each request, one block of lines a result."""
    out.print()
    for result in record.results:
        good = [
            [t_ns / 1e9 for t_ns in s.stream.stamps_ns]
            for s in samples
            if s.cell == result.cell and s.phase == "measured" and s.error is None
        ]
        lines = [*_gap_lines(result, good), *_ttft_lines(result, good)]
        if lines:
            out.print(result.cell.label, style="bold")
        for line in lines:
            out.print(f"  {line}", soft_wrap=True)


def _gap_lines(result: Result, stamps: Sequence[Sequence[float]]) -> Iterator[str]:
    gaps = [later - earlier for one in stamps for earlier, later in pairwise(one)]
    if gaps:
        counts, low, high, beyond = bins(gaps, BINS)
        tail = f", {beyond} beyond, up to {human_seconds(max(gaps))}" if beyond else ""
        yield (
            f"between chunks  {human_seconds(low):>8} │{histogram(counts)}│ "
            f"{human_seconds(high)}  ({len(gaps)} gaps{tail})"
        )
    elif result.icl_s:
        shares = (
            (name, getattr(result.icl_s, name)) for name in ("p50", "p90", "p95", "p99", "max")
        )
        known = ", ".join(f"{name} {human_seconds(v)}" for name, v in shares if v is not None)
        gaps_told = "" if result.icl_s.n is None else f"  ({result.icl_s.n} gaps)"
        yield f"between chunks  {known}{gaps_told}"


def _ttft_lines(result: Result, stamps: Sequence[Sequence[float]]) -> Iterator[str]:
    if values := [one[0] for one in stamps if one]:
        yield (
            f"TTFT, each       {human_seconds(min(values)):>7} │{sparkline(values)}│ "
            f"{human_seconds(max(values))}  ({len(values)} requests)"
        )
    elif ttft := result.ttft_s:
        known = [s for s in (ttft.min, ttft.median, ttft.max) if s is not None]
        yield f"TTFT            {' … '.join(map(human_seconds, known))}"


def sparkline(values: Sequence[float]) -> str:
    """One block a value, from the lowest to the highest; at most 60, evenly picked.

    Values within 1 % of each other are all drawn as the same block: noise is no shape.
    """
    if not values:
        return ""
    if len(values) > MAX_BARS:
        step = len(values) / MAX_BARS
        values = [values[int(i * step)] for i in range(MAX_BARS)]
    low, high = min(values), max(values)
    if high - low <= 0.01 * abs(high):
        return BLOCKS[3] * len(values)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((value - low) / (high - low) * top)] for value in values)


def histogram(counts: Sequence[int]) -> str:
    """One block a bin; an empty bin is a space, so that a lone value far out is seen."""
    highest = max(counts, default=0)
    top = len(BLOCKS) - 1
    return "".join(
        " " if count == 0 else BLOCKS[math.ceil(count / highest * top)] for count in counts
    )


def bins(values: Sequence[float], number: int) -> tuple[list[int], float, float, int]:
    """Counts in ``number`` equal bins from the lowest value to the 99th percentile (nearest
    rank), both edges, and how many values lie beyond. A few stalls would flatten the rest."""
    if not values:
        return [], 0.0, 0.0, 0
    ordered = sorted(values)
    low, high = ordered[0], ordered[math.ceil(0.99 * len(ordered)) - 1]
    within = [value for value in ordered if value <= high]
    counts = [0] * number
    for value in within:
        share = (value - low) / (high - low) if high > low else 0.0
        counts[min(number - 1, int(share * number))] += 1
    return counts, low, high, len(ordered) - len(within)


def draw(record: Record, samples: Sequence[Sample], file: Path, name: str | None) -> str:
    """Draw the chart called ``name`` (default: the most telling one) into ``file``; its name.

    Raises InputError for an unknown chart and a record with nothing to draw, and what ``picture``
    raises.
    """

    def drawn() -> tuple[Figure, str]:
        from tokrig.site.charts.points import subject

        return _figure(record, samples, name), subject(record)

    return picture(file, drawn)


def require_picture(file: Path) -> None:
    """Raises InputError for a file that is no picture by its name."""
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"--plot: {file} is neither PNG nor SVG", hint="end the file's name in .png or .svg"
        )


def picture(file: Path, drawn: Callable[[], tuple[Figure, str]]) -> str:
    """Write a figure, and what it is about, into ``file``; its name.

    Raises InputError for an unknown file type and missing packages; StoreError when the file cannot
    be written, which then is what it was.
    """
    require_picture(file)
    try:
        from tokrig.site.charts import png, svg_file

        figure, subject = drawn()
        if file.suffix.lower() == ".svg":
            data = svg_file(figure, subject=subject).encode()
        else:
            data = png(figure, subject=subject)
    except ModuleNotFoundError as missing:
        raise InputError(
            f"charts need the package {missing.name!r}", hint=get_extra("site")
        ) from None
    try:
        atomic_write(file.parent.resolve(strict=True) / file.name, data, sync=False)
    except OSError as problem:
        raise StoreError(
            f"cannot write {file}: {problem.strerror or problem}",
            hint="--plot takes a file in a folder that exists and that you may write to",
        ) from None
    return figure.slug


def _figure(record: Record, samples: Sequence[Sample], name: str | None) -> Figure:
    from tokrig.site.charts.runs import of_record
    from tokrig.store.load import Run

    figures = of_record(Run(record, path="", digest=""), samples)
    if not figures:
        raise InputError(
            f"{record.id} has nothing to draw",
            hint="a chart needs valid results or samples; tokrig show says what is wrong with them",
        )
    if name is not None and name not in figures:
        raise InputError(f"{record.id} has no chart {name!r}", hint=did_you_mean(name, figures))
    return figures[name or next(iter(figures))]
