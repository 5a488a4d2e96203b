"""Pictures for previews of links, on a site that says where it is published: nobody else could
name them. Of models, machines and the first page; of every run where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from tokrig import naming
from tokrig.site import Output, formats, sharing
from tokrig.site.context import Site, key_of
from tokrig.site.picture import MOST_BARS, Bar, Picture, png
from tokrig.site.sharing import Headline
from tokrig.store.load import Run

Quoted = tuple[Run, Headline]
Label = Callable[[Run], str]


def outputs(site: Site) -> Iterable[Output]:
    """``pictures/index.png``, ``pictures/models/…``, ``pictures/rigs/…``, ``pictures/runs/…``."""
    if not site.url:
        return
    quoted = {run.id: (run, sharing.headline(run.record)) for run in site.runs}
    yield _output("pictures/index.png", of_all(site, quoted.values()))
    for address, runs in site.by_model.items():
        machines = formats.count(len({run.record.rig.id for run in runs}), "machine")
        about = f"{formats.count(len(runs), 'run')} on {machines}"
        found = [quoted[run.id] for run in runs]
        drawn = of_many(naming.model_name(runs[0].record.model), about, found, _quant_and_where)
        yield _output(f"pictures/models/{address}.png", drawn)
    for rig, runs in site.by_rig.items():
        models = formats.count(len({naming.model_name(run.record.model) for run in runs}), "model")
        about = f"{formats.count(len(runs), 'run')} of {models}"
        found = [quoted[run.id] for run in runs]
        drawn = of_many(naming.hardware_name(runs[0].record.rig), about, found, _what)
        yield _output(f"pictures/rigs/{rig}.png", drawn)
    if site.pictures_of_runs:
        for runs in site.by_model.values():
            found = [quoted[run.id] for run in runs]
            for one in found:
                yield _output(
                    f"pictures/runs/{one[0].id}.png", of_run(one, found), sharing.RUN_SCALE
                )


def _output(path: str, picture: Picture, scale: float = 1) -> Output:
    return Output(path, key_of(str(picture), scale), partial(png, picture, scale))


def of_run(quoted: Quoted, of_model: Iterable[Quoted]) -> Picture:
    """A run beside other quants of its model on its machine, then beside other machines: the
    fastest of each, in the same cell."""
    run, found = quoted
    alike = [one for one in of_model if one[1].value and one[1].what == found.what]
    alike.sort(key=lambda one: (one[0].record.rig.id != run.record.rig.id, _order(one)))
    beside = _distinct([quoted, *alike], _quant_and_where)[:MOST_BARS] if found.value else []
    return Picture(
        naming.model_label(run.record.model),
        f"{naming.hardware_name(run.record.rig)} · {formats.backend(run.record.backend)}",
        *_figure(found),
        bars=_bars(beside, _quant_and_where, run),
    )


def of_many(title: str, about: str, quoted: Iterable[Quoted], label: Label) -> Picture:
    """A model by quants and machines, or a machine by its models: the fastest run of each."""
    standing = sorted((one for one in quoted if one[1].value), key=_order)
    if not standing:
        return Picture(title, about, "–", "tok/s", ("no valid figure yet",))
    run, found = standing[0]
    beside = _distinct(standing, label)[:MOST_BARS]
    bars = _bars(beside, label, run)
    return Picture(title, about if bars else label(run), *_figure(found), bars)


def of_all(site: Site, quoted: Iterable[Quoted]) -> Picture:
    """The site: how much there is, and the machines with the most of it."""
    most = sorted(site.by_rig.values(), key=lambda runs: -len(runs))[:MOST_BARS]
    models = formats.count(len(site.by_model), "model")
    machines = formats.count(len(site.by_rig), "machine")
    valid = sum(found.verdict == "valid" for _, found in quoted)
    return Picture(
        "How fast open-weight models run",
        "measured on the machines that people own",
        f"{len(site.runs):,}",
        "run" if len(site.runs) == 1 else "runs",
        (f"{models} on {machines}", f"{valid:,} of them valid"),
        bars=tuple(
            Bar(naming.hardware_name(runs[0].record.rig), len(runs), f"{len(runs):,}", ours=True)
            for runs in most
        ),
    )


def _figure(found: Headline) -> tuple[str, str, tuple[str, ...], str]:
    """Figure, unit, notes and verdict; a verdict instead of the figure where none may stand."""
    if found.value is None:
        return found.verdict, "", ("kept, with its reasons",), ""
    notes = tuple(filter(None, (found.spread, found.what)))
    return formats.rate(found.value), "tok/s", notes, found.verdict


def _order(one: Quoted) -> tuple[bool, float]:
    """Valid ones before unverified ones, the fastest first."""
    return (one[1].verdict != "valid", -(one[1].value or 0))


def _distinct(quoted: Iterable[Quoted], label: Label) -> list[Quoted]:
    """The first of each label."""
    return list({label(one[0]): one for one in reversed(list(quoted))}.values())[::-1]


def _bars(quoted: Sequence[Quoted], label: Label, ours: Run) -> tuple[Bar, ...]:
    """One bar alone compares nothing."""
    if len(quoted) < 2:
        return ()
    fastest = sorted(quoted, key=lambda one: -(one[1].value or 0))
    return tuple(
        Bar(label(run), found.value or 0, formats.rate(found.value), run is ours)
        for run, found in fastest
    )


def _what(run: Run) -> str:
    return naming.model_label(run.record.model)


def _quant_and_where(run: Run) -> str:
    parts = run.record.model.quant, naming.hardware_name(run.record.rig)
    return " · ".join(filter(None, parts))


PAGE = outputs
