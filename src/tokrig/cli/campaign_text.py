"""A campaign as text for people: its plan, its state, what is said while it goes on and at its end.

Campaign files and records are strangers' text: every string goes through ``line``, and into rich
as ``Text``, where no markup is read. Only printing; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokrig import naming
from tokrig.cli import present
from tokrig.cli.compare import print_outcomes
from tokrig.cli.present import NULL, count, fits, line, rate, verdict
from tokrig.plan import STATES, TO_DO, Plan, Planned, Run, State
from tokrig.plan.queue import QueueEntry, queue, roughly
from tokrig.spec.settings import said
from tokrig.units import human_bytes, human_seconds

if TYPE_CHECKING:
    from tokrig.campaign.work import Done, Tally
    from tokrig.compare.ab import Outcome
    from tokrig.errors import TokrigError
    from tokrig.measure import Ended

WORDS: dict[State, str] = {
    "todo": "to do",
    "unfinished": "unfinished",
    "done": "done",
    "invalid": "INVALID",
    "failed": "failed",
    "does_not_fit": "does not fit",
    "blocked": "blocked",
}
STYLES: dict[State, str] = {
    "done": "green",
    "invalid": "bold red",
    "failed": "bold red",
    "does_not_fit": "yellow",
    "blocked": "yellow",
}

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

# Phases by what people call them; whatever else a campaign does is "other".
SPENT = {"start": "engine start", "warm_up": "warm-up", "measure": "measurement"}


# Runs by name


def run_name(run: Run) -> str:
    """``gemma-3-270m · Q4_K_M · llamacpp b9174 (cuda) · MTP``; the baseline is not named."""
    called = mode(run)
    called = "" if called == naming.BASELINE else called
    return " · ".join(filter(None, (model(run), backend(run), called)))


def model(run: Run) -> str:
    """``gemma-3-270m · Q4_K_M · ggml-org``."""
    return line(" · ".join(filter(None, (run.weights.name, run.quant, run.creator))))


def backend(run: Run) -> str:
    """``llamacpp b9174 (cuda)``."""
    built = " ".join(filter(None, (run.backend, run.build)))
    api = run.setting("api")
    return line(f"{built} ({api})" if api else built)


def mode(run: Run) -> str:
    """All that is switched on or set, and which repeat it is where there are several."""
    told = said({**run.settings, "api": None})
    told += [f"driver {run.driver}"] if run.driver else []
    told = told or [naming.BASELINE]
    told += [f"arm {run.arm}"] if run.arm else []
    told += [f"repeat {run.repeat}"] if run.arm or run.repeat > 1 else []
    return line(", ".join(told))


def shapes(run: Run) -> str:
    """``chat, codegen × 1, 4``; what a run leaves to the shapes is not named."""
    names = ", ".join(run.workloads) if run.workloads else "all shapes"
    levels = ", ".join(map(str, run.concurrency)) if run.concurrency else ""
    return line(f"{names} × {levels}" if levels else names)


def _labelled(out: Console, state: State | None, text: str) -> None:
    """A word and a sentence, which is wrapped beside it; None for what was put off."""
    word, style = (WORDS[state], STYLES[state]) if state else ("put off", "yellow")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=max(map(len, WORDS.values())))
    grid.add_column(overflow="fold")
    grid.add_row(Text(word, style=style), Text(line(text)))
    present.put(out, grid)


def quiet(out: Console, text: str) -> None:
    """A remark."""
    out.print(Text(line(text)), style="dim")


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
    table = present.plain_table("#", *wanted, right=("#", "about", "download"))
    for number, row in enumerate(rows, 1):
        table.add_row(str(number), *(Text(row[heading]) for heading in wanted))
    present.put(out, table if fits(out, table) else _listing(rows, wanted))


def _row(planned: Planned) -> dict[str, str]:
    run, size, seconds = planned.run, planned.download_bytes, planned.time_s
    to_do = planned.state in TO_DO
    about = NULL if seconds is None else roughly(seconds).removeprefix("about ")
    return {
        "state": WORDS[planned.state],
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
    rows = [(key[0], _told(*key[1:], runs)) for key, runs in ordered]
    for state, text in rows[:LISTED]:
        _labelled(out, state, text)
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
        _labelled(out, reason.state, text)
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


# While it goes on, and at its end


def head(
    runs: Sequence[Planned],
    *,
    done: int,
    failed: int,
    delayed: int,
    current: Planned | None,
    elapsed_s: float,
) -> str:
    """``run 3 of 12 · 2 done, 1 failed · about 14 min left · gemma-3-270m · Q4_K_M``."""
    number = next((n for n, planned in enumerate(runs, 1) if planned is current), 0)
    counted = ((done, "done"), (failed, "failed"), (delayed, "put off"))
    left_s = _left_s(runs, current, elapsed_s)
    parts = (
        f"run {number:,} of {len(runs):,}" if number else count(len(runs), "run"),
        ", ".join(f"{n:,} {word}" for n, word in counted if n),
        f"{roughly(left_s)} left" if left_s else "",
        run_name(current.run) if current else "",
    )
    return " · ".join(filter(None, parts))


def _left_s(runs: Sequence[Planned], current: Planned | None, elapsed_s: float) -> float:
    """Seconds until the rig with most to do is through, by the estimates less what has passed;
    at least those of the runs that follow the current one."""
    by_rig: dict[str, float] = {}
    after = 0.0
    for planned in runs:
        if current is not None and planned.run.rig == current.run.rig:
            after = 0.0 if planned is current else after + (planned.time_s or 0.0)
        by_rig[planned.run.rig] = by_rig.get(planned.run.rig, 0.0) + (planned.time_s or 0.0)
    return max(max(by_rig.values(), default=0.0) - elapsed_s, after)


def done_line(planned: Planned, ended: Ended) -> str:
    """``✓ gemma-3-270m · Q4_K_M · embedded (cpu): 4 results, 31.2–148.3 tok/s, valid``."""
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


def delayed_line(planned: Planned, why: TokrigError) -> str:
    """``· gemma-3-270m · Q4_K_M · llamacpp (cuda): put off: the rig is in use``."""
    return line(f"· {run_name(planned.run)}: put off: {why.message}")


def print_summary(out: Console, tally: Tally, spent: Mapping[str, float]) -> None:
    """What became of the runs, and where the time went; ``spent`` are seconds by phase."""
    invalid = [d for d in tally.done if d.ended.record.validity.verdict == "invalid"]
    bad: Sequence[tuple[State, Sequence[Done]]] = (("invalid", invalid), ("failed", tally.failed))
    for state, records in bad:
        for done in records:
            error, reasons = done.ended.error, done.ended.record.validity.reasons
            why = error.message if error else ", ".join(reasons)
            text = f"{run_name(done.planned.run)}: {why}; record {done.ended.path}"
            _labelled(out, state, text)
    for delayed in tally.delayed:
        hint = f" ({delayed.why.hint})" if delayed.why.hint else ""
        _labelled(out, None, f"{run_name(delayed.planned.run)}: {delayed.why.message}{hint}")
    counted = (
        (len(tally.done), "done"),
        (len(invalid), "of them INVALID"),
        (len(tally.failed), "failed"),
        (len(tally.delayed), "put off"),
        (tally.left, "left"),
    )
    told = ", ".join(f"{n:,} {word}" for n, word in counted if n)
    out.print(Text(told or "nothing was done"), style="bold")
    if spent:
        out.print(Text(_spent(spent)), style="dim")


def _spent(spent: Mapping[str, float]) -> str:
    """``12 min 05 s: engine start 14.2 s (2.0 %), warm-up …, measurement …, other …``."""
    total = sum(spent.values())
    by_word = {word: spent.get(phase, 0.0) for phase, word in SPENT.items()}
    by_word["other"] = total - sum(by_word.values())
    parts = [
        f"{word} {human_seconds(max(0.0, seconds))} ({max(0.0, seconds) / (total or 1):.1%})"
        for word, seconds in by_word.items()
    ]
    return f"{human_seconds(total)}: {', '.join(parts)}".replace("%", " %")
