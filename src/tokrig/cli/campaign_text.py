"""A campaign as text for people: its plan, its state, what is said while it goes on and at its end.

Campaign files and records are strangers' text: every string goes through ``line``, and into rich
as ``Text``, where no markup is read. Only printing; nothing is decided here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokrig import naming
from tokrig.campaign.work import Began, Delayed, Done, News, Stopwatch, Tally, Waiting
from tokrig.cli import live, present
from tokrig.cli.compare import print_outcomes
from tokrig.cli.present import NULL, count, fits, line, rate, verdict
from tokrig.plan import STATES, TO_DO, Plan, Planned, Run, State
from tokrig.plan.queue import QueueEntry, queue, roughly
from tokrig.record.samples import tokens
from tokrig.spec.settings import said
from tokrig.units import human_bytes, human_seconds

if TYPE_CHECKING:
    from tokrig.compare.ab import Outcome
    from tokrig.measure import Ended
    from tokrig.run.prepare import Prepared
    from tokrig.run.progress import Listener

# Words for states and how they look.
LOOKS: dict[State | None, tuple[str, str]] = {
    "todo": ("to do", ""),
    "unfinished": ("unfinished", ""),
    "done": ("done", "green"),
    "invalid": ("INVALID", "bold red"),
    "failed": ("failed", "bold red"),
    "does_not_fit": ("does not fit", "yellow"),
    "blocked": ("blocked", "yellow"),
    None: ("put off", "yellow"),
}
WIDEST = max(len(word) for word, _ in LOOKS.values())
RETRIED: tuple[State, ...] = ("failed", "invalid")

LISTED = 100
BAR = 20
# What a bar is made of: its sign tells without colour, too.
PARTS: tuple[tuple[str, str, str, tuple[State, ...]], ...] = (
    ("█", "green", "done", ("done",)),
    ("▒", "bold red", "failed or invalid", RETRIED),
    ("░", "", "left", TO_DO),
    ("·", "dim", "blocked or too large", ("blocked", "does_not_fit")),
)
# Phases by what people call them; whatever else a campaign does is "other".
SPENT = {"start": "engine start", "warm_up": "warm-up", "measure": "measurement"}


# Runs by name


def run_name(run: Run) -> str:
    """``gemma-3-270m · Q4_K_M · llamacpp b9174 (cuda) · MTP``; the baseline is not named."""
    called = mode(run)
    return joined(model(run), backend(run), "" if called == naming.BASELINE else called)


def joined(*parts: str | None) -> str:
    """``one · two``, in one line; without what is empty."""
    return line(" · ".join(filter(None, parts)))


def model(run: Run) -> str:
    """``gemma-3-270m · Q4_K_M · ggml-org``."""
    return joined(run.weights.name, run.quant, run.creator)


def backend(run: Run) -> str:
    """``llamacpp b9174 (cuda)``."""
    api = run.setting("api")
    return line(" ".join(filter(None, (run.backend, run.build, api and f"({api})"))))


def mode(run: Run) -> str:
    """All that is switched on or set, and which repeat it is where there are several."""
    told = said({**run.settings, "api": None})
    told += [f"driver {run.driver}"] if run.driver else []
    told = told or [naming.BASELINE]
    told += [f"arm {run.arm}"] if run.arm else []
    told += [f"repeat {run.repeat}"] if run.arm or run.repeat > 1 else []
    return line(", ".join(told))


def shapes(run: Run) -> str:
    """``chat × 1, 4 at depth 0, 4k``, ``chat × ladder to 64``, ``chat × 4, sustained 10m``;
    what a run leaves to the shapes is not named."""
    at = f"ladder to {run.ladder}" if run.ladder else ", ".join(map(str, run.concurrency or ()))
    parts = [", ".join(run.workloads or ["all shapes"]), at]
    depths = f" at depth {', '.join(map(tokens, run.depth))}" if run.depth else ""
    load = f", sustained {run.sustain}" if run.sustain else ""
    load = f", {', '.join(run.rate)}" if run.rate else load
    return line(" × ".join(filter(None, parts)) + depths + load)


def _labelled(out: Console, state: State | None, text: str) -> None:
    """A word and a sentence, which is wrapped beside it; None for what was put off."""
    word, style = LOOKS[state]
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=WIDEST)
    grid.add_column(overflow="fold")
    grid.add_row(Text(word, style=style), Text(line(text)))
    present.put(out, grid)


def _remark(out: Console, text: str) -> None:
    out.print(Text(line(text)), style="dim")


# The plan


def print_plan(out: Console, plan: Plan, *, everything: bool = False) -> None:
    """What is to be done in order, then what is not and why, then what all of it costs."""
    runs = plan.runs if everything else plan.of(*TO_DO)
    shown = runs if everything else runs[:LISTED]
    if shown:
        print_runs(out, shown, states=everything)
        if len(shown) < len(runs):
            _remark(out, f"… and {len(runs) - len(shown):,} more; --all lists every run")
        out.print()
    _print_others(out, plan)
    out.print(Text(_totals(plan)), style="bold")


def print_runs(out: Console, runs: Sequence[Planned], *, states: bool = False) -> None:
    """Runs in their order: a table, or two lines each where the terminal is narrow."""
    rigs = {planned.run.rig for planned in runs}
    if len(rigs) == 1:
        _remark(out, f"rig {runs[0].run.rig}")
    rows = [_row(planned) for planned in runs]
    hidden = {"rig"} if len(rigs) == 1 else set()
    hidden |= set() if states else {"state"}
    used = dict.fromkeys(heading for row in rows for heading, text in row.items() if text)
    wanted = [heading for heading in (rows[0] if rows else ()) if heading in used.keys() - hidden]
    table = present.plain_table("#", *wanted, right=("#", "about", "download"))
    for number, row in enumerate(rows, 1):
        table.add_row(str(number), *(Text(row[heading]) for heading in wanted))
    present.put(out, table if fits(out, table) else _listing(rows, wanted))


def _row(planned: Planned) -> dict[str, str]:
    """The cells of a run, in their order."""
    run, size, seconds = planned.run, planned.download_bytes, planned.time_s
    to_do = planned.state in TO_DO
    about = NULL if seconds is None else roughly(seconds).removeprefix("about ")
    return {
        "state": LOOKS[planned.state][0],
        "rig": line(run.rig),
        "model · quant": model(run),
        "backend (API)": backend(run),
        "mode": mode(run) + (", begun" if planned.state == "unfinished" else ""),
        "shapes": shapes(run),
        "about": about if to_do else "",
        "download": ("?" if size is None else human_bytes(size) if size else "") if to_do else "",
    }


def _listing(rows: Sequence[Mapping[str, str]], wanted: Sequence[str]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    named = ("state", "rig", "model · quant", "backend (API)")
    for number, row in enumerate(rows, 1):
        rest = [row["mode"], row["shapes"]]
        rest += [f"{word} {row[word]}" for word in ("about", "download") if row[word]]
        first = joined(*(row[heading] for heading in named if heading in wanted))
        grid.add_row(str(number), Text(f"{first}\n{joined(*rest)}"))
    return grid


def _print_others(out: Console, plan: Plan) -> None:
    """What is not to be done: one line for all runs of an entry with the same reason."""
    groups: dict[tuple[State, str, str, str], list[Planned]] = {}
    for planned in plan.runs:
        if planned.state not in TO_DO:
            key = (planned.state, planned.run.place, planned.why, planned.until)
            groups.setdefault(key, []).append(planned)
    ordered = sorted(groups.items(), key=lambda item: STATES.index(item[0][0]))
    for (state, place, why, until), runs in ordered[:LISTED]:
        # One run alone is named, with its record.
        [one, *more] = runs
        named = run_name(one.run) if not more and state != "done" else count(len(runs), "run")
        text = ": ".join(filter(None, (place, named, why))) + (f"; until: {until}" if until else "")
        text += f" (record {one.record})" if one.record and not more else ""
        _labelled(out, state, text)
    if len(ordered) > LISTED:
        _remark(out, f"… and {len(ordered) - LISTED:,} more; --json names them all")
    if ordered:
        out.print()


def _totals(plan: Plan) -> str:
    """``3 to do: 24 results, about 42 min, 1.20 GiB to download · 6 done · 1 failed``."""
    told = _others(plan)
    if to_do := plan.of(*TO_DO):
        unknown = sum(planned.download_bytes is None for planned in to_do)
        cost = (
            count(sum(planned.cells for planned in to_do), "result"),
            roughly(plan.time_s) if plan.time_s else "",
            f"{plan.without_time:,} of unknown length" if plan.without_time else "",
            f"{human_bytes(plan.download_bytes)} to download" if plan.download_bytes else "",
            f"{unknown:,} of unknown size" if unknown else "",
        )
        told.insert(0, f"{len(to_do):,} to do: {', '.join(filter(None, cost))}")
    return " · ".join(told) or "no runs"


def _others(plan: Plan) -> list[str]:
    return [f"{n:,} {LOOKS[s][0]}" for s, n in plan.counts.items() if n and s not in TO_DO]


def nothing_to_do(plan: Plan) -> str:
    """Why ``campaign run`` ends at once: ``nothing is left to do: 6 done · 1 failed``."""
    text = ": ".join(filter(None, ("nothing is left to do", " · ".join(_others(plan)))))
    retry = [word for word in RETRIED if plan.counts[word]]
    return "\n".join([text, *(f"measure again with: --retry {word}" for word in retry)])


# The state


def print_status(out: Console, plan: Plan, compared: Mapping[str, Sequence[Outcome]]) -> None:
    """Every entry: how far it is, what holds it up, what its comparison says, the next command.
    ``compared`` by ``campaign/entry``."""
    entries = queue(plan, ())
    for entry in entries:
        place = f"{entry.campaign}/{entry.name}"
        out.print(
            Text(line(place), style="bold").append(f"  {line(entry.title)}", style="not bold")
        )
        told = line(", ".join(filter(None, (entry.progress, entry.cost))))
        out.print(bar(entry.counts).append_text(Text(f"  {told}")))
        for reason in entry.reasons:
            until = f"; until: {reason.until}" if reason.until else ""
            _labelled(out, reason.state, f"{count(reason.runs, 'run')}: {reason.why}{until}")
        print_outcomes(out, compared.get(place, ()))
        if command := next_command(entry):
            # Unwrapped, so that it can be copied.
            out.print(Text(f"next: {line(command)}"), soft_wrap=True)
        out.print()
    if entries:
        out.print(Text("  ".join(f"{sign} {word}" for sign, _, word, _ in PARTS), style="dim"))
    out.print(Text(_totals(plan)), style="bold")


def next_command(entry: QueueEntry) -> str:
    """What brings an entry further; "" where nothing does."""
    if entry.left:
        return entry.command
    again = next((word for word in RETRIED if entry.counts.get(word)), None)
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
            "reasons": [vars(reason) for reason in entry.reasons],
            "next": next_command(entry) or None,
            "compared": [
                outcome.as_dict() for outcome in compared.get(f"{entry.campaign}/{entry.name}", ())
            ],
        }
        for entry in queue(plan, ())
    ]


# While it goes on


class Eyes:
    """What a person sees of a campaign: a line for each run, and the frame of the current one."""

    def __init__(self, tally: Tally, quiet: bool) -> None:
        self.tally, self.quiet = tally, quiet
        self.watch, self.began_s = Stopwatch(), time.monotonic()
        self.current: Planned | None = None
        self.steps = live.Status(sys.stderr, quiet=quiet)

    def hear(self, news: News) -> None:
        """A line for what has happened."""
        planned = news.planned
        match news:
            case Began():
                self.current = planned
                if sys.stderr.isatty():
                    return
                text = self.head()
            case Done(ended=ended):
                text = done_line(planned, ended)
            case Delayed(why=why):
                text = line(f"· {run_name(planned.run)}: put off: {why.message}")
            case Waiting(text=told):
                text = f"  {run_name(planned.run)}: {told}"
        if isinstance(news, Done | Delayed):
            self.steps.end()
        if not self.quiet:
            click.echo(text, err=True)

    def head(self) -> str:
        """``run 3 of 12 · 2 done · about 14 min left``, and the current run's name."""
        return head(self.tally, self.current, time.monotonic() - self.began_s)

    def view(self, prepared: Prepared) -> AbstractContextManager[Listener]:
        """The frame of one run."""
        self.steps.end()
        return live.view(sys.stderr, prepared, quiet=self.quiet, head=self.head)


def head(tally: Tally, current: Planned | None, elapsed_s: float) -> str:
    """``run 3 of 12 · 2 done, 1 failed · about 14 min left · gemma-3-270m · Q4_K_M``."""
    runs = tally.wanted
    number = next((n for n, planned in enumerate(runs, 1) if planned is current), 0)
    counted = _counted((tally.done, "done"), (tally.failed, "failed"), (tally.delayed, "put off"))
    # Until the rig with most to do is through, by the estimates less what has passed; at least
    # those of the runs that follow the current one.
    by_rig = dict.fromkeys((planned.run.rig for planned in runs), 0.0)
    after = 0.0
    for planned in runs:
        if current is not None and planned.run.rig == current.run.rig:
            after = 0.0 if planned is current else after + (planned.time_s or 0.0)
        by_rig[planned.run.rig] += planned.time_s or 0.0
    left_s = max(max(by_rig.values(), default=0.0) - elapsed_s, after)
    return joined(
        f"run {number:,} of {len(runs):,}" if number else count(len(runs), "run"),
        counted,
        f"{roughly(left_s)} left" if left_s else "",
        run_name(current.run) if current else "",
    )


def _counted(*parts: tuple[Sequence[object] | int, str]) -> str:
    """``2 done, 1 failed``; what there is none of is not named."""
    numbers = [(n if isinstance(n, int) else len(n), word) for n, word in parts]
    return ", ".join(f"{n:,} {word}" for n, word in numbers if n)


def done_line(planned: Planned, ended: Ended) -> str:
    """``✓ gemma-3-270m · Q4_K_M · embedded (cpu): 4 results, 31.2 to 148.3 tok/s, valid``."""
    name = run_name(planned.run)
    if ended.error is not None:
        return line(f"✗ {name}: {ended.error.message} ({ended.path})")
    record = ended.record
    speeds = [r.output_tok_per_s.median for r in record.results if r.output_tok_per_s]
    span = " to ".join(dict.fromkeys(map(rate, (min(speeds), max(speeds))))) if speeds else NULL
    told = [count(len(record.results), "result"), f"{span} tok/s", verdict(record.validity)]
    if record.validity.verdict == "invalid":
        told.append(", ".join(record.validity.reasons))
    return line(f"✓ {name}: {', '.join(told)}")


# At its end


def print_summary(out: Console, tally: Tally, spent: Mapping[str, float]) -> None:
    """What became of the runs, and where the time went; ``spent`` are seconds by phase."""
    invalid = [d for d in tally.done if d.ended.record.validity.verdict == "invalid"]
    for done in (*invalid, *tally.failed):
        error, reasons = done.ended.error, done.ended.record.validity.reasons
        why = error.message if error else ", ".join(reasons)
        text = f"{run_name(done.planned.run)}: {why}; record {done.ended.path}"
        _labelled(out, "failed" if error else "invalid", text)
    for delayed in tally.delayed:
        hint = f" ({delayed.why.hint})" if delayed.why.hint else ""
        _labelled(out, None, f"{run_name(delayed.planned.run)}: {delayed.why.message}{hint}")
    told = _counted(
        (tally.done, "done"),
        (invalid, "of them INVALID"),
        (tally.failed, "failed"),
        (tally.delayed, "put off"),
        (tally.left, "left"),
    )
    out.print(Text(told or "nothing was done"), style="bold")
    if total := sum(spent.values()):
        by_word = {word: spent.get(phase, 0.0) for phase, word in SPENT.items()}
        by_word["other"] = max(0.0, total - sum(by_word.values()))
        parts = ", ".join(
            f"{word} {human_seconds(seconds)} ({100 * seconds / total:.1f} %)"
            for word, seconds in by_word.items()
        )
        out.print(Text(f"{human_seconds(total)}: {parts}"), style="dim")


def summary_json(tally: Tally, watch: Stopwatch | None) -> dict[str, Any]:
    """What ``print_summary`` shows, as plain data."""

    def one(news: Done) -> dict[str, Any]:
        error = news.ended.error
        return {
            "planned": news.planned.run.key,
            "entry": news.planned.run.place,
            "record": news.ended.record.id,
            "path": str(news.ended.path),
            "verdict": news.ended.record.validity.verdict,
            **({"error": error.message, "code": error.code} if error else {}),
        }

    return {
        "done": [one(news) for news in tally.done],
        "failed": [one(news) for news in tally.failed],
        "put_off": [
            {"planned": news.planned.run.key, "why": news.why.message, "code": news.why.code}
            for news in tally.delayed
        ],
        "left": tally.left,
        "spent_s": {} if watch is None else {k: round(v, 3) for k, v in watch.spent_s.items()},
        "overhead": None if watch is None else watch.overhead,
    }
