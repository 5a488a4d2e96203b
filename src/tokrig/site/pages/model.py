"""The page of a model: what it is, its files of weights, and every run of it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from tokrig import naming
from tokrig.compare.reproduced import GRAVEST
from tokrig.compare.statistics import NO_RATIO, Ratio, Side, ratio, starts_of
from tokrig.record.model import Model, Record, Result, Rig
from tokrig.site import Output, curves, formats, sharing, table
from tokrig.site.charts import Figure
from tokrig.site.charts.runs import (
    BY_WORKLOAD,
    MAX_ROWS,
    by_backend,
    by_quant,
    by_workload,
    concurrency_drop,
    quant_sweep,
    same_silicon,
)
from tokrig.site.context import Site, key_of
from tokrig.store.facts import Family, Variant
from tokrig.store.load import Run
from tokrig.units import significant

# So many runs are shown with all their figures, the fastest; the others have a line each.
MOST_IN_FULL = 6


@dataclass(frozen=True)
class Fact:
    """One line of facts. ``term`` is the key of its definition, empty for what has none."""

    label: str
    text: str
    term: str = ""


@dataclass(frozen=True)
class Weights:
    """One file of weights, and how many runs used it."""

    model: Model
    runs: int


@dataclass(frozen=True)
class Measured:
    """A run, and those of its results that stand in one table, few requests in flight first."""

    run: Run
    results: Sequence[Result]


@dataclass(frozen=True)
class RawFigures:
    """Runs of engines' own benchmarks: all figures of the newest, the others by name."""

    shown: Sequence[Run]
    further: Sequence[Run]


@dataclass(frozen=True)
class Step:
    """One shape of a run at its lowest concurrency and at a higher one.

    The ratios are more / few: of the rate of each request, and of all requests together.
    """

    few: Result
    more: Result
    each: Ratio
    together: Ratio


def _elsewhere(site: Site, runs: Sequence[Run]) -> str:
    """How many runs another machine repeated, and with what result: ``reproduced 3, open 1``."""
    words = Counter(site.reproduced[run.id].word for run in runs if run.id in site.reproduced)
    return ", ".join(f"{word} {words[word]}" for word in GRAVEST if words[word])


@dataclass(frozen=True)
class Drop:
    """A run that was measured at several concurrencies."""

    run: Run
    steps: Sequence[Step]


def outputs(site: Site) -> Iterable[Output]:
    """``models/<address>.html``."""
    for address, runs in site.by_model.items():
        path = f"models/{address}.html"
        family = site.families.get(runs[0].record.model.family)
        yield Output(
            path,
            key_of([(run.digest, str(site.reproduced.get(run.id))) for run in runs], str(family)),
            partial(_page, site, path, runs, family),
        )


def _page(site: Site, path: str, runs: Sequence[Run], family: Family | None) -> bytes:
    model = runs[0].record.model
    facts = _facts(runs, family)
    valid, invalid = _measured(runs, invalid=False), _measured(runs, invalid=True)
    drops = [Drop(one.run, found) for one in valid if (found := steps(one.run.record, one.results))]
    return site.page(
        path,
        "model.html",
        title=naming.model_name(model),
        card=sharing.of_many(runs, naming.model_name(model), f"pictures/{path[:-5]}.png"),
        shared=sharing.Shared(path, badge=path, text=naming.model_name(model)).on(site),
        address=naming.model_address(model),
        curves=[view for view in curves.VIEWS if curves.of_view(view, runs)],
        family=family,
        reproduced=site.reproduced,
        elsewhere=_elsewhere(site, runs),
        variant=_variant(model, family),
        facts=[fact for fact in facts if fact.text],
        unknown=[fact.label for fact in facts if not fact.text],
        weights=_weights(runs),
        runs=runs,
        apart=naming.apart(run.record for run in runs),
        backends=formats.backends(runs),
        valid=valid[:MOST_IN_FULL],
        further=[line(one.run) for one in valid[MOST_IN_FULL:]],
        invalid=invalid[:MOST_IN_FULL],
        further_invalid=invalid[MOST_IN_FULL:],
        raw=_raw(runs),
        total_s=total_s,
        drawn=MAX_ROWS,
        charts=[chart for slug in BY_WORKLOAD if (chart := by_workload(runs, slug))],
        drops=drops[:MOST_IN_FULL],
        further_drops=len(drops[MOST_IN_FULL:]),
        drop_chart=concurrency_drop(runs),
        quants=quants(runs),
        silicon=silicon(runs),
        unfinished=[run for run in runs if run.record.status != "complete" or run.record.skipped],
        errata=list(dict.fromkeys(erratum for run in runs for erratum in run.record.errata)),
    )


def _facts(runs: Sequence[Run], family: Family | None) -> list[Fact]:
    """What is known of the model, and with an empty text what is not."""
    models = [run.record.model for run in runs]
    variant = _variant(models[0], family)
    released = f"released {family.released}" if family and family.released else ""
    written_context = f"{variant.context:,} tokens" if variant and variant.context else ""
    return [
        Fact("family", " · ".join(filter(None, (models[0].family, released))), "family"),
        Fact("variant", models[0].variant or "", "variant"),
        Fact("parameters", _each(_parameters(model) for model in models)),
        Fact("architecture", _each(model.architecture for model in models)),
        Fact("context", written_context or _each(_context(model) for model in models)),
        Fact("capabilities", ", ".join(variant.capabilities) if variant else ""),
        Fact("checkpoint", _checkpoint(variant.checkpoint, variant.commit) if variant else ""),
        Fact("license", _each(model.license for model in models)),
        Fact("reasoning", _reasoning(models), "reasoning"),
    ]


def _variant(model: Model, family: Family | None) -> Variant | None:
    return family.variants.get(model.variant or model.family) if family else None


def _each(texts: Iterable[str | None]) -> str:
    """Texts joined, each once: runs of one model can differ in what they read."""
    return ", ".join(dict.fromkeys(text for text in texts if text))


def _parameters(model: Model) -> str | None:
    if model.parameters is None:
        size, _ = formats.size_of(model)
        return None if size is None else f"about {_many(size)}, by its name"
    if model.active_parameters in (None, model.parameters):
        return _many(model.parameters)
    return f"{_many(model.parameters)}, {_many(model.active_parameters or 0)} active"


def _many(number: int) -> str:
    """``268 million``, ``7.62 billion``."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{significant(number / size, 3):g} {word}"
    return f"{number:,}"


def _context(model: Model) -> str | None:
    return None if model.context_train is None else f"{model.context_train:,} tokens"


def _checkpoint(repository: str | None, commit: str | None) -> str:
    return " @ ".join(filter(None, (repository, commit)))


def _reasoning(models: Sequence[Model]) -> str:
    looked = [model.reasoning for model in models if model.reasoning is not None]
    if not looked:
        return ""
    return f"seen in {sum(looked):,} of {formats.count(len(looked), 'run')} that looked"


def _weights(runs: Sequence[Run]) -> list[Weights]:
    """The distinct files, smallest first, those of unknown size last."""
    groups: dict[tuple[object, ...], list[Model]] = {}
    for model in (run.record.model for run in runs):
        key = (model.sha256 or model.file, model.quant, model.quant_creator)
        groups.setdefault(key, []).append(model)
    found = [Weights(of_file[0], len(of_file)) for of_file in groups.values()]
    return sorted(found, key=lambda one: (one.model.bytes is None, one.model.bytes or 0))


def _measured(runs: Sequence[Run], *, invalid: bool) -> list[Measured]:
    """Runs with results that failed no check, or with those that did; the fastest first."""
    found = []
    for run in runs:
        results = [r for r in run.record.plain if (r.validity.verdict == "invalid") == invalid]
        if results:
            found.append(Measured(run, sorted(results, key=lambda result: result.concurrency)))
    return sorted(found, key=lambda one: -max(map(table.speed, one.results)))


def _raw(runs: Sequence[Run]) -> RawFigures:
    """Runs with raw figures, the valid ones first, each in the order of ``runs``: newest first."""
    found = [run for run in runs if run.record.raw]
    found.sort(key=lambda run: run.record.validity.verdict == "invalid")
    return RawFigures(found[:MOST_IN_FULL], found[MOST_IN_FULL:])


def total_s(result: Result) -> float | None:
    """From request sent to last token, s: median output length / median end-to-end rate."""
    length, rate = result.output_tokens, result.end_to_end_tok_per_s
    if length is None or rate is None or not rate.median:
        return None
    return length.median / rate.median


def steps(record: Record, results: Iterable[Result]) -> list[Step]:
    """Each shape's results at more than its lowest concurrency, beside the one at the lowest."""
    by_shape: dict[str, list[Result]] = {}
    for result in filter(table.is_headline, results):
        by_shape.setdefault(result.workload.name, []).append(result)
    found = []
    for of_shape in by_shape.values():
        few, *others = sorted(of_shape, key=lambda result: result.concurrency)
        found += [
            Step(few, more, *(_ratio(record, more, few, rate) for rate in ("output", "system")))
            for more in others
            if more.concurrency > few.concurrency
        ]
    return found


def _ratio(record: Record, more: Result, few: Result, rate: str) -> Ratio:
    figures = [(one, getattr(one, f"{rate}_tok_per_s")) for one in (more, few)]
    sides = [Side(figure, starts_of(record, one)) for one, figure in figures if figure]
    return ratio(*sides, higher_is_better=True) if len(sides) == 2 else NO_RATIO


# Runs of a model that differ in one thing on one machine: a chart of the machine that has most of
# them, a line for every other machine.

Name = Callable[[Run], str]


@dataclass(frozen=True)
class Elsewhere:
    """Another machine: ``alike`` is what its runs share, ``lines`` are the fastest run of each of
    the things in which they differ, with that thing's name."""

    rig: Rig
    alike: str
    lines: Sequence[tuple[str, table.Line]]


@dataclass(frozen=True)
class Compared:
    """The chart of the machine that has most to compare, and the other machines."""

    rig: Rig
    figure: Figure
    elsewhere: Sequence[Elsewhere]


def quants(runs: Sequence[Run]) -> Compared | None:
    """Quants under one backend; None where no machine ran two."""
    return _compared(quant_sweep, by_quant(runs), _quant, _backend_and_mode)


def silicon(runs: Sequence[Run]) -> Compared | None:
    """Backends with one quant; None where no machine ran two."""
    return _compared(same_silicon, by_backend(runs), _backend, _quant_and_mode)


def line(run: Run) -> table.Line:
    """The valid results of a run that has any, at the lowest concurrency they have."""
    valid = [result for result in run.record.plain if result.validity.verdict != "invalid"]
    lowest = min(result.concurrency for result in valid)
    results = tuple(result for result in valid if result.concurrency == lowest)
    speeds = [table.speed(result) for result in results]
    return table.Line(run, lowest, results, min(speeds), max(speeds))


def _compared(
    draw: Callable[[Sequence[Run]], Figure | None],
    groups: Sequence[Sequence[Run]],
    name: Name,
    alike: Name,
) -> Compared | None:
    """``groups`` in the order of how much they compare."""
    by_rig: dict[str, Sequence[Run]] = {}
    for group in groups:
        by_rig.setdefault(group[0].record.rig.id, group)
    most, *others = by_rig.values() or [()]
    figure = draw(most)
    if figure is None:
        return None
    rig = most[0].record.rig
    return Compared(
        rig,
        dataclasses.replace(figure, slug=f"{figure.slug}-{rig.id}"),
        [Elsewhere(of[0].record.rig, alike(of[0]), _fastest(of, name)) for of in others],
    )


def _fastest(runs: Iterable[Run], name: Name) -> list[tuple[str, table.Line]]:
    """The fastest line of each name, fastest first."""
    found: dict[str, table.Line] = {}
    for one in sorted(map(line, runs), key=lambda one: -one.high):
        found.setdefault(name(one.run), one)
    return list(found.items())


def _quant(run: Run) -> str:
    model = run.record.model
    return " ".join(filter(None, (model.quant, model.quant_creator))) or formats.NULL


def _backend(run: Run) -> str:
    return formats.backend(run.record.backend)


def _quant_and_mode(run: Run) -> str:
    return ", ".join(filter(None, (_quant(run), formats.mode(run.record))))


def _backend_and_mode(run: Run) -> str:
    return ", ".join(filter(None, (_backend(run), formats.mode(run.record))))


PAGE = outputs
