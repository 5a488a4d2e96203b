"""The main table: runs as lines, in groups by family; and the same data for the page's script.

Pure. A *line* is one run at one concurrency; its figure is the range over the shapes, or the
value of one shape. Only valid results count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokrig import naming
from tokrig.compare.reproduced import Reproduced
from tokrig.compare.statistics import Side, starts_of, tie_span
from tokrig.record.block import Summary
from tokrig.record.metric import Metric
from tokrig.record.metrics import shown_in
from tokrig.record.model import Model, Record, Result, Rig
from tokrig.site import formats
from tokrig.spec.settings import said_asked
from tokrig.store.facts import Family
from tokrig.store.load import Row, Run
from tokrig.units import significant

# Without the script the page shows at most so many lines; all of them are on the models' pages.
MOST_LINES = 250


@dataclass(frozen=True)
class Heading:
    """The head of one column: its name in addresses and scripts, the term that explains it ("" for
    what needs no words), its label; whether its cells are figures."""

    name: str
    term: str
    label: str
    is_number: bool = False


_RUN_HEADINGS = (
    Heading("variant", "variant", "Variant"),
    Heading("quant", "quant", "Quant"),
    Heading("hardware", "rig", "Hardware"),
    Heading("backend", "backend", "Backend"),
)
_CONCURRENCY = Heading("concurrency", "concurrency", "Conc.", is_number=True)
_GEN = Heading("gen", "output_tok_per_s", "Gen tok/s", is_number=True)
_WAITS = (
    Heading("ttft", "ttft_s", "TTFT", is_number=True),
    Heading("prefill", "prefill_tok_per_s", "Prefill tok/s", is_number=True),
)
_WHOLE = Heading("whole", "end_to_end_tok_per_s", "End-to-end tok/s", is_number=True)
SPEED_HEADINGS = (*_RUN_HEADINGS, _CONCURRENCY, _GEN)
"""The columns of the first page, as it is opened. What is switched on stands beside the name."""
LATENCY_HEADINGS = (
    *(Heading("rank", "not_distinguishable", "Rank", is_number=True), *_RUN_HEADINGS),
    *(*_WAITS, _GEN, _WHOLE),
)
MORE_HEADINGS = (
    Heading("mode", "mode", "Mode"),
    Heading("parameters", "", "Params", is_number=True),
    Heading("file", "", "File", is_number=True),
    Heading("vram", "memory.engine_vram_bytes", "VRAM seen", is_number=True),
    *_WAITS,
    _WHOLE,
    Heading("depth", "depth_tokens", "At depth", is_number=True),
    Heading("energy", "energy.j_per_output_token", "J/token", is_number=True),
    Heading("ceiling", "ceiling_share", "Of ceiling", is_number=True),
    Heading("quality", "quality", "Same tokens", is_number=True),
    Heading("engine", "backend", "Engine"),
    Heading("build", "", "Build"),
    Heading("api", "", "API"),
    Heading("date", "", "Date"),
)
"""What readers of the first page can add to them."""


@dataclass(frozen=True)
class Line:
    """One run at one concurrency. ``low`` and ``high``: the slowest and fastest shape's median
    decode rate, tok/s."""

    run: Run
    concurrency: int
    results: tuple[Result, ...]
    low: float
    high: float

    @property
    def left_out(self) -> str:
        """What of this run is not in the range: ``agent invalid, rag skipped``."""
        record, at = self.run.record, self.concurrency
        here = [r for r in record.plain if r.concurrency == at and not is_headline(r)]
        skipped = [s.workload for s in record.skipped if s.cell.plain and s.concurrency == at]
        return ", ".join(
            [f"{r.workload.name} {_why_not(r)}" for r in here] + [f"{s} skipped" for s in skipped]
        )

    @property
    def covers(self) -> str:
        """Over which shapes the range is, where that is not all of tokrig's own:
        ``chat, rag; agent invalid``."""
        shapes = [result.workload.name for result in self.results if is_headline(result)]
        named = "" if set(naming.SHAPES) <= set(shapes) else ", ".join(shapes)
        return "; ".join(filter(None, (named, self.left_out)))


@dataclass(frozen=True)
class Group:
    """The lines of one family, those of its largest model first. ``results`` counts its rows of
    data."""

    family: str
    released: str | None
    results: int
    lines: tuple[Line, ...]

    @property
    def address(self) -> str:
        """The family in an address."""
        return naming.filter_word(self.family)


def is_headline(result: Result) -> bool:
    """Whether a result can stand as a headline: nothing speaks against it, and it has a decode
    rate."""
    return result.validity.stands and result.output_tok_per_s is not None


def _why_not(result: Result) -> str:
    return "invalid" if result.validity.verdict == "invalid" else "without a rate"


def overview(lines_of_family: Sequence[Line], most: int) -> list[Line]:
    """Of the lines of a family one of each model, at most so many."""
    firsts = {naming.model_name(line.run.record.model): line for line in reversed(lines_of_family)}
    shown = [
        line for line in lines_of_family if firsts[naming.model_name(line.run.record.model)] is line
    ]
    return shown[:most]


def speed(result: Result) -> float:
    """The headline figure, tok/s; 0 without one, to sort by."""
    return result.output_tok_per_s.median if result.output_tok_per_s else 0.0


def lines(runs: Iterable[Run], concurrency: int) -> list[Line]:
    """A line for each run with a headline result at ``concurrency``, fastest first."""
    found = []
    for run in runs:
        results = tuple(
            r for r in run.record.plain if r.concurrency == concurrency and is_headline(r)
        )
        if results:
            speeds = [speed(r) for r in results]
            found.append(Line(run, concurrency, results, min(speeds), max(speeds)))
    return sorted(found, key=lambda line: (-line.high, -line.low, line.run.id))


def groups(
    runs: Sequence[Run], families: Mapping[str, Family], concurrency: int = 1
) -> list[Group]:
    """Families newest first, those without a date last; then by name. In each the models with most
    parameters come first, of one size the fastest line; those of unknown size come last."""
    by_family: dict[str, list[Line]] = {}
    for line in lines(runs, concurrency):
        by_family.setdefault(line.run.record.model.family, []).append(line)
    for members in by_family.values():
        members.sort(key=lambda line: -(formats.size_of(line.run.record.model)[0] or 0))
    found = []
    for family, members in by_family.items():
        released = families[family].released if family in families else None
        count = sum(len(line.results) for line in members)
        found.append(Group(family, released, count, tuple(members)))
    found.sort(key=lambda group: group.family.casefold())
    return sorted(found, key=lambda group: group.released or "", reverse=True)


def shapes(runs: Iterable[Run]) -> list[str]:
    """The shapes there are: tokrig's own in their order, then others by name."""
    there = {result.workload.name for run in runs for result in run.record.plain}
    return sorted(there, key=naming.shape_order)


def in_order(run: Run) -> Run:
    """The run with its results by shape, as lists have them; those of a shape as they were."""
    record = run.record
    changed = {
        "results": sorted(record.results, key=lambda one: naming.shape_order(one.workload.name)),
        "skipped": sorted(record.skipped, key=lambda one: naming.shape_order(one.workload)),
        "ladders": sorted(record.ladders, key=lambda one: naming.shape_order(one.workload)),
    }
    return replace(run, record=record.model_copy(update=changed))


def by_speed(runs: Iterable[Run], shape: str, concurrency: int = 1) -> list[Row]:
    """Headline results of one shape, fastest first."""
    found = [
        Row(run, result)
        for run in runs
        for result in run.record.plain
        if (result.workload.name, result.concurrency) == (shape, concurrency)
        and is_headline(result)
    ]
    return sorted(found, key=lambda row: (-speed(row.result), row.run.id))


_VERDICTS = ("invalid", "valid", "unverified")
_HEADLINE = "output_tok_per_s"
# What no setting was asked for of.
AS_IT_CAME = "the engine's own"
_RUN = "id model quant rig backend engine build api mode settings kind errata apart bytes date"
_ROW = "run shape concurrency valid gen low high spread from to"


class _Words:
    """Labels by number, each told once."""

    def __init__(self) -> None:
        self.listed: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, key: Any, label: Any = None) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self.listed)
            self.listed.append(key if label is None else label)
        return self._numbers[key]


def columns(
    runs: Sequence[Run], families: Mapping[str, Family], reproduced: Mapping[str, Reproduced] = {}
) -> dict[str, Any]:
    """All rows, column by column, names by number: small, and quick to filter in a browser.

    ``runs`` has a column per fact of a run, ``rows`` one per fact of a result; ``rows.run`` is
    the number of the run. A word is ``[label, word for the address]``; that of a model is
    ``[family, variant, address, name, parameters, active ones]``, with a 1 behind where only its
    name tells the parameters; that of a rig ``[label, id,
    badges, cards, GB of VRAM (0 without a card), whether that is main memory, the cards as a word
    for the address, their vendors]``; ``bytes`` are
    those of the weights, ``date`` is ``2026-11-22`` or empty; ``valid`` is 0 for invalid,
    1 for valid, 2 for unverified; ``apart`` tells runs of one name apart; two figures tie where
    what they cover, ``from`` to ``to``, overlaps. Every other metric that tables show has a column
    of its medians. ``accepted`` has the accepted
    drafts in percent of those rows that drafted, ``skipped`` the shapes and concurrencies that a
    run could not measure, ``quality`` the share of like tokens and the KL divergence of runs that
    were held against a reference, ``depths`` of runs the longest context that stood before a
    question, in tokens, and the gen tok/s behind it, ``reproduced`` the mark of runs that another
    machine repeated, its kind, label and text: all of these are few.
    """
    family, model, quant, rig, mode = (_Words() for _ in range(5))
    backend, engine, build, api = (_Words() for _ in range(4))
    kind, shape, settings = _Words(), _Words(), _Words()
    for name in shapes(runs):
        shape.number(name)
    of_runs: list[list[Any]] = []
    of_rows: list[list[Any]] = []
    accepted: dict[int, int] = {}
    skipped: dict[int, list[list[Any]]] = {}
    quality: dict[int, list[float | int | None]] = {}
    depths: dict[int, list[float | int | None]] = {}
    repeated: dict[int, list[str]] = {}
    told_apart = naming.apart([run.record for run in runs])
    for number, run in enumerate(runs):
        record = run.record
        named = record.model.family
        released = families[named].released if named in families else None
        family_number = family.number(named, [named, naming.filter_word(named), released])
        full = naming.model_name(record.model)
        of_runs.append(
            [
                run.id,
                model.number(
                    (family_number, full),
                    _model_words(family_number, record.model),
                ),
                quant.number(record.model.quant, _word(record.model.quant)),
                rig.number(record.rig.id, _rig_words(record.rig)),
                _number_of(backend, formats.backend(record.backend)),
                _number_of(engine, record.backend.engine),
                _number_of(build, record.backend.build),
                _number_of(api, record.backend.api),
                mode.number(record.mode.name, _mode_word(record.mode.name)),
                _number_of(settings, ", ".join(said_asked(record.backend.asked)) or AS_IT_CAME),
                kind.number((record.provenance.kind, record.provenance.level, record.status)),
                len(record.errata),
                told_apart.get(run.id, ""),
                record.model.bytes,
                (record.provenance.started_at or "")[:10],
            ]
        )
        if (found := record.quality) is not None and found.top1_agreement is not None:
            quality[number] = [
                _median(one and one.value) for one in (found.top1_agreement, found.kl_nats)
            ]
        if (deepest := _deepest(record)) is not None:
            depths[number] = [deepest.depth_tokens, _median(deepest.output_tok_per_s)]
        if told := formats.reproduced_marks(reproduced.get(run.id)):
            repeated[number] = [told[0].kind, told[0].label, told[0].text]
        if record.skipped:
            left = [one for one in record.skipped if one.cell.plain]
            skipped[number] = [[one.workload, one.concurrency] for one in left]
        for result in record.plain:
            share = naming.accepted_percent(result)
            if share is not None:
                accepted[len(of_rows)] = share
            of_rows.append(_row(number, record, result, shape))
    return {
        "families": family.listed,
        "models": model.listed,
        "quants": quant.listed,
        "rigs": rig.listed,
        "backends": backend.listed,
        "engines": engine.listed,
        "builds": build.listed,
        "apis": api.listed,
        "modes": mode.listed,
        "settings": settings.listed,
        "kinds": kind.listed,
        "shapes": shape.listed,
        "runs": _turned(_RUN, of_runs),
        "rows": _turned(" ".join([_ROW, *(metric.name for metric in _others())]), of_rows),
        "accepted": accepted,
        "skipped": skipped,
        "quality": quality,
        "depths": depths,
        "reproduced": repeated,
    }


def _deepest(record: Record) -> Result | None:
    """The headline behind the longest context that one request alone had before it."""
    deep = [
        result
        for result in record.results
        if result.depth_tokens and result.concurrency == 1 and is_headline(result)
    ]
    return max(deep, key=lambda result: result.depth_tokens, default=None)


def _model_words(family: int, model: Model) -> list[Any]:
    name = naming.model_name(model)
    size, is_named = formats.size_of(model)
    sizes = map(_number, (size, model.active_parameters))
    words = [family, model.variant or name, naming.address(name), name, *sizes]
    return [*words, 1] if is_named else words


def _number_of(listed: _Words, label: str | None) -> int:
    return listed.number(label, _word(label))


def _word(label: str | None) -> list[str]:
    return [label or formats.NULL, naming.filter_word(label or "unknown")]


def _mode_word(name: str) -> list[str]:
    """The record's own name stands in the address, and last, exact: it stays when people call it
    otherwise."""
    return [naming.mode_name(name), naming.filter_word(name), name]


def _rig_words(rig: Rig) -> list[Any]:
    """``unified``: what is called its VRAM is main memory."""
    unified = any(gpu.unified_memory for gpu in rig.gpus)
    cards = " + ".join(dict.fromkeys(naming.gpu_name(gpu) for gpu in rig.gpus))
    return [
        naming.hardware_name(rig),
        rig.id,
        formats.badges(rig),
        cards or naming.cpu_name(rig),
        naming.vram_gb(rig),
        unified,
        naming.filter_word(cards or naming.cpu_name(rig)),
        sorted({gpu.vendor for gpu in rig.gpus}),
    ]


def _row(run: int, record: Record, result: Result, shape: _Words) -> list[Any]:
    gen = result.output_tok_per_s
    found = formats.bounds(gen)
    low, high = found or (None, None)
    span = tie_span(Side(gen, starts_of(record, result))) if gen else None
    return [
        run,
        shape.number(result.workload.name),
        result.concurrency,
        _VERDICTS.index(result.validity.word),
        _number(gen.median if gen else None),
        _number(low),
        _number(high),
        0 if found is None else 2 if gen and gen.ci95 else 1,
        *(_number(significant(bound, 5)) for bound in span or ()),
        *((None, None) if span is None else ()),
        *(_median(metric.of(result)) for metric in _others()),
    ]


def _others() -> list[Metric[Any]]:
    """What tables show beside the headline."""
    return [metric for metric in shown_in("table") if metric.name != _HEADLINE]


def _number(value: float | None) -> float | int | None:
    """Short as JSON: ``128`` for 128.0."""
    return int(value) if value is not None and value == int(value) else value


def _median(value: Any) -> float | int | None:
    figure = value.median if isinstance(value, Summary) else value
    return None if figure is None else _number(significant(float(figure), 4))


def _turned(header: str, table: list[list[Any]]) -> dict[str, list[Any]]:
    """Rows as columns by name."""
    found: list[list[Any]] = [list(column) for column in zip(*table, strict=True)]
    named = header.split()
    return dict(zip(named, found or [[] for _ in named], strict=True))
