"""The index of hardware: every card and its rigs, to sort; and any two of them side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from tokrig.compare import rules
from tokrig.site import Output
from tokrig.site.cards import Card
from tokrig.site.cells import Relative, columns, histories, most_shared, relative, starts
from tokrig.site.context import Site, key_of, script


@dataclass(frozen=True)
class Line:
    """A card, and how fast it is beside the reference; None where they share nothing."""

    card: Card
    relative: Relative | None


def outputs(site: Site) -> Iterable[Output]:
    """``gpus.html``, ``versus.html``, ``builds.html``, and the data of their scripts."""
    facts = {rig: str(one) for rig, one in site.rigs.items()}
    key = key_of([run.digest for run in site.runs], facts)
    yield Output("gpus.html", key, partial(_page, site))
    yield Output("versus.html", key, partial(_versus, site))
    yield Output("builds.html", key_of(rules(), site.measured), partial(_builds, site))
    yield Output("assets/relative.js", key, lambda: script("relative", pairs(site.cards)))
    yield Output("assets/cells.js", key, lambda: script("cells", columns(site.runs, site.cards)))
    for metric in ("prefill_tok_per_s", "ttft_s"):
        yield Output(f"assets/starts-{metric}.js", key, partial(_starts, site, metric))


def _page(site: Site) -> bytes:
    reference = most_shared(site.cards)
    lines = [Line(card, relative(card, reference) if reference else None) for card in site.cards]
    # As its script sorts them: the fastest first.
    lines.sort(key=lambda line: -line.relative.times if line.relative else 0.0)
    return site.page(
        "gpus.html",
        "gpus.html",
        title="GPUs and machines",
        reference=reference,
        cards=site.cards,
        machines=len(site.by_rig),
        histories={card.address for card in site.cards if histories(card.runs)},
        lines=lines,
    )


def _starts(site: Site, metric: str) -> bytes:
    """What intervals of that figure are made from: loaded when a reader asks for it."""
    return script(f"starts_{metric}", starts(site.runs, metric))


def _versus(site: Site) -> bytes:
    title = "Two GPUs side by side"
    return site.page("versus.html", "versus.html", title=title, cards=site.cards, rules=rules())


def _builds(site: Site) -> bytes:
    return site.page("builds.html", "builds.html", title="Builds", rules=rules())


def pairs(cards: Sequence[Card]) -> dict[str, dict[str, list[float]]]:
    """By the addresses of two cards, the second of which comes later: the ratio of the second to
    the first, and over how many cells."""
    found: dict[str, dict[str, list[float]]] = {}
    for number, one in enumerate(cards):
        others = {
            other.address: [float(f"{known.times:.6g}"), known.cells]
            for other in cards[number + 1 :]
            if (known := relative(other, one))
        }
        if others:
            found[one.address] = others
    return found


PAGE = outputs
