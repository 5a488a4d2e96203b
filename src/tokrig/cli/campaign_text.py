"""A campaign's plan and state as text for people. Only printing; nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokrig.cli import present
from tokrig.cli.campaign_told import delayed_line, done_line, head, print_summary
from tokrig.cli.campaign_words import (
    STYLES,
    WORDS,
    backend,
    labelled,
    mode,
    model,
    quiet,
    run_name,
    shapes,
)
from tokrig.cli.compare import print_outcomes
from tokrig.cli.present import NULL, count, fits, line
from tokrig.plan import STATES, TO_DO, Plan, Planned, State
from tokrig.plan.queue import QueueEntry, queue, roughly
from tokrig.units import human_bytes

if TYPE_CHECKING:
    from tokrig.compare.ab import Outcome

__all__ = [
    "delayed_line",
    "done_line",
    "head",
    "next_command",
    "nothing_to_do",
    "print_plan",
    "print_runs",
    "print_status",
    "print_summary",
    "run_name",
    "status_json",
]

LISTED = 100
BAR = 20
# What a bar is made of: its sign tells without colour, too.
PARTS: tuple[tuple[str, str, str, tuple[State, ...]], ...] = (
    ("█", "green", "done", ("done",)),
    ("▒", "bold red", "failed or invalid", ("failed", "invalid")),
    ("░", "", "left", TO_DO),
    ("·", "dim", "blocked or too large", ("blocked", "does_not_fit")),
)
HEADINGS = ("state", "rig", "model · quant", "backend (API)", "mode", "shapes", "about", "download")


# The plan


def print_plan(out: Console, plan: Plan, *, everything: bool = False) -> None:
    """What is to be done in order, then what is not and why, then what all of it costs."""
    runs = plan.runs if everything else plan.of(*TO_DO)
    shown = runs if everything else runs[:LISTED]
    if shown:
        print_runs(out, shown, states=everything)
        if len(shown) < len(runs):
            quiet(out, f"… and {len(runs) - len(shown):,} more; --all lists every run")
        out.print()
    _print_others(out, plan)
    out.print(Text(_totals(plan)), style="bold")


def print_runs(out: Console, runs: Sequence[Planned], *, states: bool = False) -> None:
    """Runs in their order: a table, or two lines each where the terminal is narrow."""
    rigs = list(dict.fromkeys(planned.run.rig for planned in runs))
    if len(rigs) == 1:
        quiet(out, f"rig {rigs[0]}")
    rows = [_row(planned) for planned in runs]
    hidden = {"rig"} if len(rigs) == 1 else set()
    hidden |= set() if states else {"state"}
    used = dict.fromkeys(heading for row in rows for heading, text in row.items() if text)
    wanted = [heading for heading in HEADINGS if heading in used.keys() - hidden]
    table = present.plain_table()
    table.add_column("#", justify="right", no_wrap=True)
    for heading in wanted:
        right = heading in ("about", "download")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for number, row in enumerate(rows, 1):
        table.add_row(str(number), *(Text(row[heading]) for heading in wanted))
    present.put(out, table if fits(out, table) else _listing(rows, wanted))


def _row(planned: Planned) -> dict[str, str]:
    run, size = planned.run, planned.download_bytes
    to_do = planned.state in TO_DO
    return {
        "state": WORDS[planned.state],
        "rig": line(run.rig),
        "model · quant": model(run),
        "backend (API)": backend(run),
        "mode": mode(run) + (", begun" if planned.state == "unfinished" else ""),
        "shapes": shapes(run),
        "about": (_time(planned.time_s) or NULL) if to_do else "",
        "download": ("?" if size is None else human_bytes(size) if size else "") if to_do else "",
    }


def _time(seconds: float | None) -> str:
    return "" if seconds is None else roughly(seconds).removeprefix("about ")


def _listing(rows: Sequence[Mapping[str, str]], wanted: Sequence[str]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    named = ("state", "rig", "model · quant", "backend (API)")
    for number, row in enumerate(rows, 1):
        first = [row[heading] for heading in wanted if heading in named]
        rest = [row[heading] for heading in ("mode", "shapes")]
        rest += [f"{word} {row[word]}" for word in ("about", "download") if row[word]]
        text = "\n".join(" · ".join(filter(None, parts)) for parts in (first, rest))
        grid.add_row(str(number), Text(text))
    return grid


def _print_others(out: Console, plan: Plan) -> None:
    """What is not to be done: one line for all runs of an entry with the same reason."""
    groups: dict[tuple[State, str, str, str], list[Planned]] = {}
    for planned in plan.runs:
        if planned.state not in TO_DO:
            entry = f"{planned.run.campaign}/{planned.run.entry}"
            key = (planned.state, entry, planned.why, planned.until)
            groups.setdefault(key, []).append(planned)
    ordered = sorted(groups.items(), key=lambda item: STATES.index(item[0][0]))
    rows = [(state, _told(entry, why, until, runs))
            for (state, entry, why, until), runs in ordered]  # fmt: skip
    for state, text in rows[:LISTED]:
        labelled(out, Text(WORDS[state], style=STYLES[state]), text)
    if len(rows) > LISTED:
        quiet(out, f"… and {len(rows) - LISTED:,} more; --json names them all")
    if rows:
        out.print()


def _told(entry: str, why: str, until: str, runs: Sequence[Planned]) -> str:
    """``sweeps/quants: 3 runs: why; until: …``; one run alone is named, with its record."""
    state, one = runs[0].state, len(runs) == 1
    named = one and state != "done"
    parts = [entry, run_name(runs[0].run) if named else count(len(runs), "run"), why]
    text = ": ".join(filter(None, parts))
    text += f"; until: {until}" if until else ""
    text += f" (record {runs[0].record})" if one and runs[0].record else ""
    return line(text)


def _totals(plan: Plan) -> str:
    """``3 to do: 24 results, about 42 min, 1.20 GiB to download · 6 done · 1 failed``."""
    to_do = plan.of(*TO_DO)
    told = []
    if to_do:
        cost = [count(sum(planned.cells for planned in to_do), "result")]
        if plan.time_s:
            cost.append(roughly(plan.time_s))
        if plan.without_time:
            cost.append(f"{plan.without_time:,} of unknown length")
        if plan.download_bytes:
            cost.append(f"{human_bytes(plan.download_bytes)} to download")
        if unknown := sum(planned.download_bytes is None for planned in to_do):
            cost.append(f"{unknown:,} of unknown size")
        told.append(f"{len(to_do):,} to do: {', '.join(cost)}")
    told += _others(plan)
    return " · ".join(told) or "no runs"


def _others(plan: Plan) -> list[str]:
    return [f"{n:,} {WORDS[s]}" for s, n in plan.counts.items() if n and s not in TO_DO]


def nothing_to_do(plan: Plan) -> str:
    """Why ``campaign run`` ends at once: ``nothing is left to do: 6 done · 1 failed``."""
    text = ": ".join(filter(None, ("nothing is left to do", " · ".join(_others(plan)))))
    retry = [word for word in ("failed", "invalid") if plan.counts[word]]
    return "\n".join([text, *(f"measure again with: --retry {word}" for word in retry)])


# The state


def print_status(out: Console, plan: Plan, compared: Mapping[str, Sequence[Outcome]]) -> None:
    """Every entry: how far it is, what holds it up, what its comparison says, the next command.
    ``compared`` by ``campaign/entry``."""
    entries = queue(plan, ())
    for entry in entries:
        _print_entry(out, entry, compared.get(f"{entry.campaign}/{entry.name}", ()))
    if entries:
        out.print(Text("  ".join(f"{sign} {word}" for sign, _, word, _ in PARTS), style="dim"))
    out.print(Text(_totals(plan)), style="bold")


def _print_entry(out: Console, entry: QueueEntry, outcomes: Sequence[Outcome]) -> None:
    title = Text(line(f"{entry.campaign}/{entry.name}"), style="bold")
    out.print(title.append(f"  {line(entry.title)}", style="not bold"))
    told = Text(f"  {line(', '.join(filter(None, (entry.progress, entry.cost))))}")
    out.print(bar(entry.counts).append_text(told))
    for reason in entry.reasons:
        until = f"; until: {reason.until}" if reason.until else ""
        text = f"{count(reason.runs, 'run')}: {reason.why}{until}"
        labelled(out, Text(WORDS[reason.state], style=STYLES[reason.state]), line(text))
    print_outcomes(out, outcomes)
    if command := next_command(entry):
        # Unwrapped, so that it can be copied.
        out.print(Text(f"next: {line(command)}"), soft_wrap=True)
    out.print()


def next_command(entry: QueueEntry) -> str:
    """What brings an entry further; "" where nothing does."""
    if entry.left:
        return entry.command
    again = next((word for word in ("failed", "invalid") if entry.counts.get(word)), None)
    return f"{entry.command} --retry {again}" if again else ""


def bar(counts: Mapping[State, int]) -> Text:
    """How the runs of an entry stand, ``BAR`` cells wide; what there is gets one at least."""
    numbers = [sum(counts.get(state, 0) for state in states) for *_, states in PARTS]
    total = sum(numbers) or 1
    cells = [max(1, round(BAR * number / total)) if number else 0 for number in numbers]
    cells[cells.index(max(cells))] += BAR - sum(cells)
    text = Text()
    for (sign, style, *_), width in zip(PARTS, cells, strict=True):
        text.append(sign * width, style=style)
    return text


def status_json(plan: Plan, compared: Mapping[str, Sequence[Outcome]]) -> list[dict[str, Any]]:
    """What ``print_status`` shows, as plain data."""
    return [
        {
            "campaign": entry.campaign,
            "entry": entry.name,
            "title": entry.title,
            "counts": {state: entry.counts.get(state, 0) for state in STATES},
            "left": entry.left,
            "time_s": entry.time_s,
            "download_bytes": entry.download_bytes,
            "reasons": [
                {"state": r.state, "why": r.why, "until": r.until, "runs": r.runs}
                for r in entry.reasons
            ],
            "next": next_command(entry) or None,
            "compared": [
                outcome.as_dict() for outcome in compared.get(f"{entry.campaign}/{entry.name}", ())
            ],
        }
        for entry in queue(plan, ())
    ]
