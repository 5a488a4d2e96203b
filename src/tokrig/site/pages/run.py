"""One page a run: its figures, what they are worth, its samples drawn, every field it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from pydantic import BaseModel

from tokrig import naming
from tokrig.record.checks import HINTS
from tokrig.record.model import Percentiles, Record, Result, Summary
from tokrig.site import Output, formats
from tokrig.site.charts import Figure
from tokrig.site.charts.points import short
from tokrig.site.charts.samples import inter_chunk_times, ttft_of_requests
from tokrig.site.context import Site, key_of
from tokrig.store.load import Run
from tokrig.units import human_bytes, human_seconds, significant

MAX_TITLE = 100


def outputs(site: Site) -> Iterable[Output]:
    """``runs/<id>.html``."""
    for run in site.runs:
        path = f"runs/{run.id}.html"
        key = key_of(run.digest, run.samples_digest)
        yield Output(path, key, partial(_page, site, run, path))


def _page(site: Site, run: Run, path: str) -> bytes:
    record = run.record
    return site.page(
        path,
        "run.html",
        title=short(f"{_model(record)}, run {record.id}", MAX_TITLE),
        run=run,
        record=record,
        model=_model(record),
        findings=findings(record),
        lines=[line for line in _LINES if any(line.cell(r).text for r in record.results)],
        raw_cell=lambda one: _rate(one.tok_per_s),
        charts=_charts(site, run),
        blocks=blocks(record),
    )


def _model(record: Record) -> str:
    return " ".join(filter(None, (naming.model_name(record.model), record.model.quant)))


def _charts(site: Site, run: Run) -> list[Figure]:
    """What the samples show; nothing where there are none."""
    if run.samples_digest is None:
        return []
    samples = site.store.read_samples(run.id)
    drawn = (inter_chunk_times(samples), ttft_of_requests(samples))
    return [figure for figure in drawn if figure is not None]


@dataclass(frozen=True)
class Finding:
    """A validity code: how grave, in which results it holds (empty: in all), and its meaning."""

    kind: str
    code: str
    where: str
    meaning: str


def findings(record: Record) -> list[Finding]:
    """Everything that keeps a run from being simply valid, the gravest first."""
    found = []
    for kind, attribute in (
        ("invalid", "reasons"),
        ("unverified", "unverified"),
        ("unchecked", "unchecked"),
    ):
        lists = [(_name(r), getattr(r.validity, attribute)) for r in record.results]
        codes = [code for _, held in lists for code in held]
        for code in dict.fromkeys([*getattr(record.validity, attribute), *codes]):
            holders = [name for name, held in lists if code in held]
            where = ", ".join(holders) if len(holders) < len(lists) else ""
            found.append(Finding(kind, code, where, HINTS.get(code, "not known to this tokrig")))
    return found


def _name(result: Result) -> str:
    return f"{result.workload.name} × {result.concurrency}"


@dataclass(frozen=True)
class Cell:
    """A figure and, in smaller type, its interval or range. Empty where it is not known."""

    text: str = ""
    spread: str = ""


@dataclass(frozen=True)
class Line:
    """One line of the table of results: a metric. ``key`` leads to its definition, if any."""

    key: str
    label: str
    cell: Callable[[Result], Cell]


def _rate(metric: Summary | None) -> Cell:
    if metric is None:
        return Cell()
    return Cell(formats.rate(metric.median), formats.spread(metric))


def _time(metric: Summary | None, say: Callable[[float], str] = human_seconds) -> Cell:
    if metric is None:
        return Cell()
    known = formats.bounds(metric)
    if known is None:
        return Cell(say(metric.median))
    kind = "95 % interval" if metric.ci95 else "range"
    low, high = map(say, known)
    return Cell(say(metric.median), f"{kind} {low} – {high}")


def _fine(seconds: float) -> str:
    """``28.6 ms``: times of a token, which differ in the third digit."""
    return f"{significant(seconds * 1e3, 3):g} ms" if seconds < 1 else human_seconds(seconds)


def _count(metric: Summary | None) -> Cell:
    if metric is None:
        return Cell()
    same = metric.min is None or metric.min == metric.max
    return Cell(
        f"{metric.median:,.0f}", "" if same else f"range {metric.min:,.0f}–{metric.max:,.0f}"
    )


def _plain(value: float | None, form: str = ",.0f", unit: str = "") -> Cell:
    return Cell() if value is None else Cell(f"{value:{form}}{unit}")


def _prefill(result: Result) -> Cell:
    cell = _rate(result.prefill_tok_per_s)
    derived = result.prefill_source == "ttft_derived"
    return Cell(f"~ {cell.text}", f"{cell.spread}, from TTFT".lstrip(", ")) if derived else cell


def _percentiles(result: Result) -> Cell:
    found = result.icl_s
    if found is None or (found.p50 is None and found.max is None):
        return Cell()
    rest = {"p90": found.p90, "p95": found.p95, "p99": found.p99, "longest": found.max}
    known = (f"{name} {_fine(value)}" for name, value in rest.items() if value is not None)
    return Cell("–" if found.p50 is None else _fine(found.p50), ", ".join(known))


def _finish(result: Result) -> Cell:
    return Cell(", ".join(f"{name} {n:,}" for name, n in result.finish_reasons.items()))


def _engine(result: Result) -> Cell:
    return _rate(result.server.output_tok_per_s) if result.server else Cell()


def _difference(result: Result) -> Cell:
    difference = result.server.difference if result.server else None
    if difference is None:
        return Cell()
    percent = round(100 * difference, 2)
    return Cell(f"{percent:+.2f} %".replace("-", "−") if percent else "0.00 %")


def _accepted(result: Result) -> Cell:
    found = result.speculative
    if found is None:
        return Cell()
    counts = f"{found.accepted_tokens:,} of {found.drafted_tokens:,} tokens"
    if found.acceptance_rate is None:
        return Cell(counts)
    return Cell(f"{found.acceptance_rate:.1%}".replace("%", " %"), counts)


def _memory(result: Result) -> Cell:
    found = result.memory
    if found is None:
        return Cell()
    parts = {"VRAM": found.engine_vram_bytes, "RAM": found.engine_rss_bytes}
    return Cell(", ".join(f"{human_bytes(n)} {of}" for of, n in parts.items() if n is not None))


def _energy(result: Result) -> Cell:
    found = result.energy
    if found is None:
        return Cell()
    total = f"{found.total_j:,.0f} J, {found.scope}"
    if found.j_per_output_token is None:
        return Cell(total)
    return Cell(f"{found.j_per_output_token:.3g} J/token", total)


def _share(value: float | None) -> Cell:
    return _plain(None if value is None else 100 * value, ".1f", " %")


_LINES: Sequence[Line] = (
    Line("output_tok_per_s", "gen tok/s", lambda r: _rate(r.output_tok_per_s)),
    Line("prefill_tok_per_s", "prefill tok/s", _prefill),
    Line("ttft_s", "TTFT", lambda r: _time(r.ttft_s)),
    Line("ttfa_s", "TTFA", lambda r: _time(r.ttfa_s)),
    Line("tpot_s", "TPOT", lambda r: _time(r.tpot_s, _fine)),
    Line("icl_s", "inter-chunk latency, p50", _percentiles),
    Line("end_to_end_tok_per_s", "end-to-end tok/s", lambda r: _rate(r.end_to_end_tok_per_s)),
    Line("useful_tok_per_s", "useful tok/s", lambda r: _rate(r.useful_tok_per_s)),
    Line("system_tok_per_s", "system tok/s", lambda r: _rate(r.system_tok_per_s)),
    Line("prompt_tokens", "prompt tokens", lambda r: _count(r.prompt_tokens)),
    Line("output_tokens", "output tokens", lambda r: _count(r.output_tokens)),
    Line("reasoning_tokens", "reasoning tokens", lambda r: _plain(r.reasoning_tokens_median)),
    Line("content_tokens", "content tokens", lambda r: _plain(r.content_tokens_median)),
    Line("tool_call_tokens", "tool call tokens", lambda r: _plain(r.tool_call_tokens_median)),
    Line("hidden_tokens", "tokens not shown", lambda r: _plain(r.hidden_tokens_median)),
    Line("answered_share", "requests that answered", lambda r: _share(r.answered_share)),
    Line("cached_tokens", "cached prompt tokens", lambda r: _plain(r.cached_tokens)),
    Line("finish_reasons", "finish reasons", _finish),
    Line("speculative", "drafts accepted", _accepted),
    Line("server", "the engine's own gen tok/s", _engine),
    Line("difference", "client against engine", _difference),
    Line("client_cpu_share", "client CPU, of one core", lambda r: _share(r.client_cpu_share)),
    Line("memory", "memory, peak", _memory),
    Line("energy", "energy", _energy),
    Line("ceiling_share", "share of the ceiling", lambda r: _share(r.ceiling_share)),
    Line("repeats", "repeats", lambda r: _plain(r.repeats)),
    Line("requests", "requests", lambda r: _plain(r.requests)),
    Line("request_errors", "failed requests", lambda r: _plain(r.request_errors)),
)


# Every field of a record as name and text, block by block, whatever fields there are. Names are
# those of the YAML; what is not known says so, because a gap is a fact, too.

UNKNOWN = "not known"
# Where nothing stands, there was nothing to say.
_ABSENT = {"failure": "none", "notes": "none"}
# From here on a text is shown as a block that wraps and scrolls.
LONG = 160


@dataclass(frozen=True)
class Field:
    """One field: its name inside its block, dots between levels, and its value as text."""

    name: str
    text: str
    known: bool = True

    @property
    def is_long(self) -> bool:
        """Whether the text has several lines or would fill several."""
        return len(self.text) > LONG or "\n" in self.text


@dataclass(frozen=True)
class Block:
    """A top-level block of the record, or one of its results."""

    title: str
    fields: tuple[Field, ...]
    is_result: bool = False


def blocks(record: Record) -> list[Block]:
    """All blocks in the order of the file: what stands alone first, results one by one."""
    alone: list[Field] = []
    found: list[Block] = []
    for name, value in _members(record):
        if isinstance(value, BaseModel):
            found.append(Block(name, tuple(_of_model(value))))
        elif name == "results":
            found += [Block(_title(r), tuple(_of_model(r)), is_result=True) for r in value]
        else:
            alone += _fields(name, _ABSENT.get(name, value) if value is None else value)
    return [Block("run", tuple(alone)), *found]


def _title(result: Result) -> str:
    return f"{result.workload.name} × {result.concurrency}"


def _members(model: BaseModel) -> Iterator[tuple[str, Any]]:
    for name, attribute in _names(type(model)):
        yield name, getattr(model, attribute)


@cache
def _names(block: type[BaseModel]) -> list[tuple[str, str]]:
    """The names in the file, and those of the attributes."""
    return [(field.alias or name, name) for name, field in block.model_fields.items()]


def _of_model(model: BaseModel, prefix: str = "") -> Iterator[Field]:
    for name, value in _members(model):
        yield from _fields(f"{prefix}{name}", value)


def _fields(name: str, value: Any) -> Iterator[Field]:
    """One field for a plain value; one for each member of a block or of a list of blocks."""
    if value is None or isinstance(value, str | int | float):
        yield Field(name, _text(name, value), known=value is not None)
    elif isinstance(value, Summary | Percentiles):
        yield Field(name, ", ".join(f"{key} {_text(key, v)}" for key, v in _members(value)))
    elif isinstance(value, BaseModel):
        yield from _of_model(value, f"{name}.")
    elif isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
        for number, item in enumerate(value, start=1):
            yield from _of_model(item, f"{name} {number}.")
    else:
        yield Field(name, _text(name, value))


def _text(name: str, value: Any) -> str:
    """A plain value as it stands in the file; bytes also in the units people use."""
    match value:
        case None:
            return UNKNOWN
        case bool():
            return "yes" if value else "no"
        case float():
            return str(value)
        case str():
            return value or "empty"
        case int() if name.endswith("bytes"):
            return f"{value} ({human_bytes(value)})"
        case Mapping():
            return ", ".join(f"{key}: {_text(name, item)}" for key, item in value.items()) or "none"
        case tuple():
            return " – ".join(str(item) for item in value)
        case Sequence():
            separator = "\n" if any(len(str(item)) > 60 for item in value) else ", "
            return separator.join(_text("", item) for item in value) or "none"
        case _:
            return str(value)


PAGE = outputs
