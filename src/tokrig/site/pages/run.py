"""One page a run: its figures, what they are worth, its samples drawn, every field it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from html import escape
from typing import Any, NamedTuple

from pydantic import BaseModel

from tokrig import naming
from tokrig.compare import quality
from tokrig.compare.causes import Shares
from tokrig.compare.reproduced import Reproduced
from tokrig.record.block import Percentiles, Summary
from tokrig.record.checks import HINTS
from tokrig.record.metric import Metric
from tokrig.record.metrics import METRICS, shown_in
from tokrig.record.model import Record, Result
from tokrig.site import Output, formats, plain, sharing
from tokrig.site.charts import Figure, short
from tokrig.site.charts.arrivals import by_rate, over_time
from tokrig.site.charts.depth import speed_by_depth
from tokrig.site.charts.load import ladder_chart, sustained_chart
from tokrig.site.charts.samples import inter_chunk_times, ttft_of_requests
from tokrig.site.charts.sessions import COLUMNS, by_turn, turns
from tokrig.site.context import Site, key_of
from tokrig.spec.settings import SETTINGS
from tokrig.store.load import Run
from tokrig.units import human_seconds, significant

MAX_TITLE = 100


def outputs(site: Site) -> Iterable[Output]:
    """``runs/<id>.html``."""
    shares = Shares(run.record for run in site.runs)
    for run in site.runs:
        path = f"runs/{run.id}.html"
        low = [(one.result.cell.label, str(one)) for one in shares.shortfalls(run.record)]
        others = str(site.reproduced.get(run.id))
        key = key_of(run.digest, run.samples_digest, low, others)
        yield Output(path, key, partial(_page, site, run, path, low))


def _page(site: Site, run: Run, path: str, low: Sequence[tuple[str, str]]) -> bytes:
    record = run.record
    return site.page(
        path,
        "run.html",
        title=short(f"{_model(record)}, run {record.id}", MAX_TITLE),
        card=sharing.of_run(site, run),
        short_address=sharing.short_address(run.id),
        shared=sharing.shared_run(site, run),
        lines=lines(record.results),
        run=run,
        record=record,
        model=_model(record),
        reproduced=site.reproduced.get(run.id, Reproduced()),
        findings=findings(record),
        low=low,
        answers=quality.lines(record.quality) if record.quality else [],
        arrivals=_arrivals(site, run),
        raw_cell=lambda one: Cell(
            formats.rate(one.tok_per_s.median), formats.spread(one.tok_per_s)
        ),
        ladders=[(one, ladder_chart(record, one)) for one in record.ladders],
        lasting=[(r, sustained_chart(r)) for r in record.results if r.sustained],
        arrived=[result for result in record.results if result.open_loop],
        charts=_charts(site, run),
        sessions=[result for result in record.results if result.session],
        session_chart=by_turn(record.results),
        turn_columns=COLUMNS,
        turns=turns,
        depths=depths(record),
        depth_chart=speed_by_depth(record),
        blocks=blocks(record),
    )


def _model(record: Record) -> str:
    return " ".join(filter(None, (naming.model_name(record.model), record.model.quant)))


def _arrivals(site: Site, run: Run) -> list[Figure]:
    """Charts of requests that arrived by themselves."""
    record = run.record
    if not any(result.open_loop for result in record.results):
        return []
    samples = [] if run.samples_digest is None else site.store.read_samples(run.id)
    dots = over_time(samples)
    return by_rate(record.results) + ([dots] if dots else [])


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
            meaning = "not known to this tokrig"
            if code in HINTS:
                meaning = plain.exactly(plain.of_code(code), HINTS[code])
            found.append(Finding(kind, code, where, meaning))
    return found


def _name(result: Result) -> str:
    return result.cell.label


@dataclass(frozen=True)
class Cell:
    """A figure and, in smaller type, its interval or range. Empty where it is not known."""

    text: str = ""
    spread: str = ""


def lines(results: Sequence[Result]) -> list[tuple[Metric[Any], list[Cell]]]:
    """The table of results: a line for each metric that any of them has, with its cells; first
    those by which runs are compared."""
    order = sorted(shown_in("run"), key=lambda metric: -len(metric.shown))
    table = [(metric, [cell(metric, result) for result in results]) for metric in order]
    return [(metric, cells) for metric, cells in table if any(one.text for one in cells)]


def depths(record: Record) -> list[tuple[Result, Sequence[Cell]]]:
    """The table of speed by depth: each result with its prefill and decode rate, the latter as a
    share of the shallowest one's, and its TTFT."""
    prefill, decode, ttft = (
        METRICS[n] for n in ("prefill_tok_per_s", "output_tok_per_s", "ttft_s")
    )
    return [
        (
            one,
            (
                cell(prefill, one),
                cell(decode, one),
                Cell("" if share is None else f"{100 * share:.0f} %"),
                cell(ttft, one),
            ),
        )
        for curve in naming.depth_curves(record)
        for one, share in zip(curve, naming.of_first(curve), strict=True)
    ]


def cell(metric: Metric[Any], result: Result) -> Cell:
    """A metric of a result as the page shows it, by its kind and its unit."""
    value = metric.of(result)
    if value is None or value == {}:
        return Cell()
    if metric.kind == "percentiles":
        return _percentiles(value)
    if metric.kind == "summary":
        shown = summary(metric, value)
        derived = metric.name == "prefill_tok_per_s" and result.prefill_source == "ttft_derived"
        if derived:
            return Cell(f"~ {shown.text}", f"{shown.spread}, from TTFT".lstrip(", "))
        return shown
    return Cell(_plain(metric, value))


def summary(metric: Metric[Any], value: Summary) -> Cell:
    """The median, and its interval or range."""
    if metric.unit == "tok/s":
        return Cell(formats.rate(value.median), formats.spread(value))
    if metric.unit == "tokens" and not value.ci95:
        same = value.min is None or value.min == value.max
        spread = "" if same else f"range {value.min:,.0f}–{value.max:,.0f}"
        return Cell(f"{value.median:,.0f}", ", ".join(filter(None, (formats.mean(value), spread))))
    say = {"s": human_seconds, "s/token": _fine}.get(metric.unit, partial(_number, metric.unit))
    known = formats.bounds(value)
    if known is None:
        return Cell(say(value.median), formats.mean(value))
    low, high = map(say, known)
    if low == high:
        return Cell(say(value.median), formats.mean(value))
    number, _, unit = low.rpartition(" ")
    is_short = number.replace(",", "").replace(".", "").isdigit() and high.endswith(f" {unit}")
    span = f"{number}–{high}" if is_short else f"{low} – {high}"
    kind = "95 % interval" if value.ci95 else "range"
    told = ", ".join(filter(None, (formats.mean(value), f"{kind} {span}")))
    return Cell(say(value.median), told)


def _fine(seconds: float) -> str:
    """``28.6 ms``: times of a token, which differ in the third digit."""
    return f"{significant(seconds * 1e3, 3):g} ms" if seconds < 1 else human_seconds(seconds)


def _number(unit: str, value: float) -> str:
    text = f"{significant(value, 4) + 0:,.10g}".replace("-", "−")  # + 0: never "−0"
    return text if unit in ("", "tokens", "requests") else f"{text} {unit}"


def _percentiles(found: Percentiles) -> Cell:
    if found.p50 is None and found.max is None:
        return Cell()
    rest = {"p90": found.p90, "p95": found.p95, "p99": found.p99, "longest": found.max}
    known = (f"{name} {_fine(value)}" for name, value in rest.items() if value is not None)
    return Cell(formats.NULL if found.p50 is None else f"p50 {_fine(found.p50)}", ", ".join(known))


def _plain(metric: Metric[Any], value: Any) -> str:
    match metric.kind:
        case "share":
            return _number("%", 100 * value)
        case "flag":
            return "yes" if value else "no"
        case "counts" | "sums":
            return ", ".join(f"{name} {_number('', one)}" for name, one in value.items())
        case "count" if metric.unit == "B":
            return formats.gigabytes(value)
        case "text":
            return str(value)
        case _:
            return _number(metric.unit, value)


# Every field of a record as name and text, block by block, whatever fields there are. Names are
# those of the YAML; what is not known says so, because a gap is a fact, too.

UNKNOWN = "not known"
# Where nothing stands, there was nothing to say.
_ABSENT = {"failure": "none", "notes": "none"}
# From here on a text is shown as a block that wraps and scrolls.
LONG = 160


class Field(NamedTuple):
    """One field: its name inside its block, dots between levels, its value as text, and what it
    means where it is a setting."""

    name: str
    text: str
    known: bool = True
    meaning: str = ""

    def __html__(self) -> str:
        """Name and text; in Python, because a page has hundreds of them."""
        title = f' title="{escape(self.meaning)}"' if self.meaning else ""
        text = escape(self.text)
        if len(self.text) > LONG or "\n" in text:
            shown = f'<pre tabindex="0">{text}</pre>'
        else:
            muted = "" if self.known else ' class="muted"'
            shown = f"<span{muted}>{text}</span>"
        return f"<dt{title}>{formats.breakable(self.name)}</dt><dd>{shown}</dd>"


class Block(NamedTuple):
    """A top-level block of the record, or one of its results."""

    title: str
    fields: list[Field]
    is_result: bool = False


def blocks(record: Record) -> list[Block]:
    """All blocks in the order of the file: what stands alone first, results one by one."""
    alone: list[Field] = []
    found: list[Block] = []
    for name, value in _members(record):
        if isinstance(value, BaseModel):
            found.append(Block(name, [_explained(name, one) for one in _of_model(value)]))
        elif name == "results":
            found += [Block(_name(one), list(_of_model(one)), is_result=True) for one in value]
        else:
            alone += _fields(name, _ABSENT.get(name, value) if value is None else value)
    return [Block("run", alone), *found]


def _explained(block: str, field: Field) -> Field:
    """A setting with its meaning, where it is as it was found."""
    setting = _SETTINGS.get(f"{block}.{field.name}")
    return field._replace(meaning=f"{setting.label}. {setting.help}".strip()) if setting else field


_SETTINGS = {path: setting for setting in SETTINGS.values() for path in setting.found}


def _members(model: BaseModel) -> list[tuple[str, Any]]:
    return [(name, getattr(model, attribute)) for name, attribute in _names(type(model))]


@cache
def _names(block: type[BaseModel]) -> list[tuple[str, str]]:
    """The names in the file, and those of the attributes."""
    return [(field.alias or name, name) for name, field in block.model_fields.items()]


def _of_model(model: BaseModel, prefix: str = "") -> list[Field]:
    found: list[Field] = []
    for name, value in _members(model):
        if value is None or isinstance(value, str):
            found.append(Field(prefix + name, _text(name, value), value is not None))
        else:
            found += _fields(prefix + name, value)
    return found


def _fields(name: str, value: Any) -> list[Field]:
    """One field for a plain value; one for each member of a block or of a list of blocks."""
    if isinstance(value, BaseModel):
        if isinstance(value, Summary | Percentiles):
            return [
                Field(name, ", ".join([f"{key} {_text(key, v)}" for key, v in _members(value)]))
            ]
        return _of_model(value, f"{name}.")
    if isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
        items = enumerate(value, start=1)
        return [one for number, item in items for one in _of_model(item, f"{name} {number}.")]
    return [Field(name, _text(name, value), known=value is not None)]


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
            return f"{value} ({formats.gigabytes(value)})"
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
