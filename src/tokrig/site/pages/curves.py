"""Curves: one view at a time, of the runs that a reader picks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from tokrig.site import Output, charts, curves
from tokrig.site.charts import Figure
from tokrig.site.charts.points import label_runs
from tokrig.site.charts.views import MOST, picture
from tokrig.site.context import Site, key_of, script

# Name, heading, and what can be seen.
VIEWS = {
    "depth": (
        "Depth",
        "Speed against depth",
        "How fast a model reads and answers behind so many tokens of context, and how long its"
        " first token takes then. A longer cache has to be read for every token.",
    ),
    "load": (
        "Load",
        "Each request against all together",
        "With more requests in flight, all together are faster and each is slower. A point is so"
        " many in flight; the knee, drawn as a ring, is the first with 95 % of the highest rate.",
    ),
    "session": (
        "Session",
        "A session, turn by turn",
        "A coding agent whose prompt grows turn by turn, with the engine’s prompt cache on: what"
        " the cache has need not be read again.",
    ),
    "sustained": (
        "Sustained",
        "A load that lasts",
        "Does it stay that fast? One shape without a pause: rate, clock, temperature and power over"
        " time.",
    ),
    "quality": (
        "Quality",
        "Speed against quality",
        "A model’s quants: how far the answers of each are from those of the model’s most precise"
        " file, and how fast it is. The line is the frontier: no other of that model and machine is"
        " both nearer and faster. Models do not compare here, each is held against itself.",
    ),
    "cost": (
        "Cost",
        "Energy and money a token",
        "Energy a token, and what a million tokens cost at your price. Where no counter told the"
        " energy, give the watts that your machine draws.",
    ),
}


class View(NamedTuple):
    """A view: its name in addresses, on its tab, its heading and lead, how many curves it has, and
    its picture."""

    name: str
    tab: str
    title: str
    lead: str
    curves: int
    figure: Figure | None


def outputs(site: Site) -> Iterable[Output]:
    """``curves.html``, and the data of each view as a script, loaded when the view is opened."""
    key = key_of([run.digest for run in site.runs])
    yield Output("curves.html", key, lambda: _page(site))
    for name in VIEWS:
        yield Output(f"assets/curves-{name}.js", key, partial(_data, site, name))


def _data(site: Site, name: str) -> bytes:
    return script(f"curves_{name}", curves.of_view(name, site.runs))


def _page(site: Site) -> bytes:
    views = [_view(site, name) for name in VIEWS]
    facts = {"shapes": charts.SHAPES, "fast": curves.FAST_ENOUGH}
    return site.page("curves.html", "curves.html", title="Curves", views=views, facts=facts)


def _view(site: Site, name: str) -> View:
    found = curves.of_view(name, site.runs)
    labels = label_runs([site.runs[curve["run"]] for curve in found[:MOST]])
    figure = picture(name, found, [label.full for label in labels])
    return View(name, *VIEWS[name], len(found), figure)


PAGE = outputs
