"""The gaps map: every model on every machine, measured or not, why not, and what fills the gap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tokrig.plan.gaps import STATES, State, gaps
from tokrig.site import Output
from tokrig.site.context import Site, key_of

# Families are folded where there are more models than one looks through.
MOST_UNFOLDED = 60
MEANINGS: Mapping[State, tuple[str, str]] = {
    "measured": ("measured", "A valid result is published; the link leads to the newest run."),
    "stale": (
        "stale build",
        "Measured, but the machine has since measured with a later build of the same engine.",
    ),
    "queued": ("queued", "A campaign wants it, and it can be run now."),
    "blocked": ("blocked", "A campaign wants it and waits for something."),
    "failed": ("failed", "It was tried, and nothing valid came of it."),
    "does_not_fit": ("does not fit", "A campaign wants it; the machine has too little memory."),
    "never": ("never tried", "Neither measured nor wanted by a campaign."),
}


def outputs(site: Site) -> Iterable[Output]:
    """``gaps.html``."""
    key = key_of([run.digest for run in site.runs], site.declared, str(site.rigs))
    yield Output("gaps.html", key, lambda: _page(site))


def _page(site: Site) -> bytes:
    found = gaps(site.plan, site.runs)
    models = sum(len(family.models) for family in found.families)
    return site.page(
        "gaps.html",
        "gaps.html",
        title="Gaps",
        gaps=found,
        models=models,
        titles={machine.id: machine.title for machine in found.machines},
        unfolded=models <= MOST_UNFOLDED,
        states=STATES,
        meanings=MEANINGS,
    )


PAGE = outputs
