"""The first page: everything measured, family by family, and what it is worth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokrig import naming
from tokrig.compare.statistics import ties
from tokrig.site import Output, finder, sharing, table
from tokrig.site.context import Site, key_of, script
from tokrig.store.index import Problem
from tokrig.store.load import Row, Run

MOST_BARS = 12
MOST_CARDS = 12
# Of the queue: more is in the map of gaps, and on the pages of the runs.
MOST_ENTRIES = 40
MOST_REASONS = 3
MOST_DONE = 8
MOST_RESULTS = 12

# What bounds each shape: one sentence under its bars.
BOUNDS = {
    "chat": "Short prompt, short answer. Bound by decoding, so gen tok/s is close to the model's "
    "peak decode rate on that hardware.",
    "rag": "Long prompt stuffed with passages, short answer. Prefill makes most of the waiting; "
    "decoding dips a little, because every token attends to a longer KV cache.",
    "codegen": "Short prompt, long answer. Nothing but the decode loop: the nearest to what the "
    "model sustains.",
    "agent": "Mid-length prompt with tool schemas and results, mid-length answer. What an agent's "
    "loop feels like; the drop at concurrency 4, on each model's page, says more.",
}


@dataclass(frozen=True)
class Bars:
    """One shape's results, fastest first. ``ranks`` are words: ``1``, ``2=`` for a tie."""

    shape: str
    text: str
    rows: Sequence[Row]
    ranks: Sequence[str]
    fastest: float
    left_out: int


@dataclass(frozen=True)
class ErratumOnRuns:
    """One correction, and the runs it stands in."""

    text: str
    date: str
    field: str
    runs: Sequence[Run]


def outputs(site: Site) -> Iterable[Output]:
    """``index.html`` and the data of its table."""
    key = key_of(
        [run.digest for run in site.runs],
        [str(facts) for facts in (site.families, site.rigs, site.problems)],
    )
    yield Output(
        "assets/rows.js",
        key,
        lambda: script("data", table.columns(site.runs, site.families, site.reproduced)),
    )
    yield Output("index.html", key_of(key, site.declared), lambda: _page(site))


def _left_out(site: Site, problem: Problem) -> Problem:
    """A file that could not be read, named from the folder of runs on: where that lies is its
    owner's. The message goes on from the name that stands before it."""
    message = problem.message.replace(f"{site.store.runs}/", "").removeprefix(problem.path)
    return Problem(problem.path, message if message.startswith(":") else f": {message}")


def _page(site: Site) -> bytes:
    groups = table.groups(site.runs, site.families)
    most = max(1, table.MOST_LINES // max(1, len(groups)))
    waiting = [entry for entry in site.queue if not entry.is_done]
    done = [entry for entry in site.queue if entry.is_done]
    everything = sum(len(group.lines) for group in groups) <= table.MOST_LINES
    shown = {
        group.address: group.lines if everything else table.overview(group.lines, most)
        for group in groups
    }
    return site.page(
        "index.html",
        "index.html",
        reproduced=site.reproduced,
        title="Benchmarks of open-weight models",
        card=sharing.of_all(site),
        headings_shown=table.SPEED_HEADINGS,
        headings_more=table.MORE_HEADINGS,
        groups=groups,
        shown=shown,
        finder=finder.choices(site),
        fastest=max((line.high for group in groups for line in group.lines), default=1.0),
        bars=[_bars(site, shape) for shape in table.shapes(site.runs)],
        rigs=list(site.by_rig),
        cards=site.cards,
        most_cards=sorted(site.cards, key=lambda card: -card.results)[:MOST_CARDS],
        errata=_errata(site),
        reasoning=_reasoning(site),
        runs=site.runs,
        apart=naming.apart([run.record for run in site.runs]),
        problems=[_left_out(site, problem) for problem in site.problems],
        waiting=waiting,
        done=done[:MOST_DONE],
        most_entries=MOST_ENTRIES,
        most_reasons=MOST_REASONS,
        most_results=MOST_RESULTS,
    )


def _bars(site: Site, shape: str) -> Bars:
    rows = table.by_speed(site.runs, shape)
    shown = rows[:MOST_BARS]
    return Bars(
        shape,
        BOUNDS.get(shape, ""),
        shown,
        ties(rows)[:MOST_BARS],
        table.speed(shown[0].result) if shown else 1.0,
        len(rows) - len(shown),
    )


def _errata(site: Site) -> list[ErratumOnRuns]:
    found: dict[tuple[str, str, str], list[Run]] = {}
    for run in site.runs:
        for erratum in run.record.errata:
            found.setdefault((erratum.date, erratum.field, erratum.text), []).append(run)
    return [
        ErratumOnRuns(text, date, field, runs)
        for (date, field, text), runs in sorted(found.items(), reverse=True)
    ]


def _reasoning(site: Site) -> tuple[int, int]:
    """In how many runs reasoning was seen, and in how many one looked."""
    looked = [
        any(result.reasoning_tokens_median for result in run.record.results)
        for run in site.runs
        if any(result.reasoning_tokens_median is not None for result in run.record.results)
    ]
    return sum(looked), len(looked)


PAGE = outputs
