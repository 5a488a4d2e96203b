"""The gaps map: every model on every machine, measured or not, why not, and what fills the gap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tokrig import naming
from tokrig.plan import RigMemory
from tokrig.plan.gaps import STATES, Gaps, ModelGaps, State, gaps
from tokrig.site import Output
from tokrig.site.context import Site, key_of, script

MEANINGS: Mapping[State, tuple[str, str]] = {
    "measured": ("measured", "A valid result is published; the link leads to the newest run."),
    "stale": (
        "stale build",
        "Measured, but the machine has since measured with a later build of the same engine.",
    ),
    "queued": ("queued", "A campaign wants it, and it can be run now."),
    "blocked": ("blocked", "A campaign wants it and waits for something."),
    "failed": ("failed", "It was tried, and nothing valid came of it."),
    "does_not_fit": (
        "does not fit",
        "The machine has too little memory: as a campaign reckons it, or because the smallest "
        "known weights are more than its card and its main memory hold together.",
    ),
    "never": ("never tried", "Neither measured nor wanted by a campaign."),
}


class Group(NamedTuple):
    """Machines on which one thing is to be said of a model, each with the id of the run to look at
    or ""."""

    state: State
    besides: str
    why: str
    command: str | None
    machines: list[tuple[str, str]]


def outputs(site: Site) -> Iterable[Output]:
    """``gaps.html``, and ``assets/gaps-data.js`` that its script draws the map from."""
    key = key_of([run.digest for run in site.runs], site.declared, str(site.rigs))
    yield Output("gaps.html", key, lambda: _page(site, gaps(site.plan, site.runs)))
    yield Output(
        "assets/gaps-data.js", key, lambda: script("gaps", _data(gaps(site.plan, site.runs)))
    )


def _page(site: Site, found: Gaps) -> bytes:
    models = sum(len(family.models) for family in found.families)
    titles = {machine.id: machine.title for machine in found.machines}
    return site.page(
        "gaps.html",
        "gaps.html",
        title="Gaps",
        gaps=found,
        models=models,
        groups=lambda model: _groups(model, titles),
        states=STATES,
        meanings=MEANINGS,
    )


def _groups(model: ModelGaps, titles: Mapping[str, str]) -> list[Group]:
    """What is to be said of a model, the same of several machines once."""
    found: dict[tuple[Any, ...], Group] = {}
    for cell in sorted(model.cells, key=lambda cell: STATES.index(cell.state)):
        said = (cell.state, cell.besides, cell.why, cell.command)
        group = found.setdefault(said, Group(*said, machines=[]))
        group.machines.append((titles[cell.rig], cell.run or ""))
    return list(found.values())


def _data(found: Gaps) -> dict[str, Any]:
    """What the script draws: ``machines`` as title, id, whether it has a page and its memory;
    ``models`` as name, address and number of their family; ``cells`` by model and machine as
    state, run, why, command and besides, texts by their number in ``texts``, without the empty
    ones at the end."""
    texts: dict[str, int] = {"": 0}

    def number(text: str | None) -> int:
        return texts.setdefault(text or "", len(texts))

    families = [family.name for family in found.families]
    models, cells = [], []
    for at, family in enumerate(found.families):
        for model in family.models:
            models.append([model.name, model.address, at])
            row = []
            for one in model.cells:
                cell: list[Any] = [
                    STATES.index(one.state),
                    one.run or 0,
                    *map(number, (one.why, one.command, one.besides)),
                ]
                while len(cell) > 1 and not cell[-1]:
                    cell.pop()
                row.append(cell)
            cells.append(row)
    return {
        "states": [[state, MEANINGS[state][0]] for state in STATES],
        "families": [[name, naming.filter_word(name)] for name in families],
        "machines": [
            [one.title, one.id, one.has_page, *_memory(found.memories.get(one.id))]
            for one in found.machines
        ],
        "models": models,
        "cells": cells,
        "texts": list(texts),
    }


def _memory(found: RigMemory | None) -> tuple[int, str]:
    """The memory of a machine's cards in GB, to sort by, and in words: 0 without a card, -1 where
    it is not known."""
    size = found.vram_bytes if found else None
    if size is None:
        return -1, "not known"
    return (naming.memory_gb(size), naming.memory_text(size)) if size else (0, "no card")


PAGE = outputs
