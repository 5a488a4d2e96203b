"""What is said of a campaign while it goes on, and at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from tokrig.cli.campaign_words import STYLES, WORDS, labelled, run_name
from tokrig.cli.present import NULL, count, line, rate, verdict
from tokrig.plan import Planned
from tokrig.plan.queue import roughly
from tokrig.units import human_seconds

if TYPE_CHECKING:
    from tokrig.campaign.work import Tally
    from tokrig.errors import TokrigError
    from tokrig.measure import Ended

# Phases by what people call them; whatever else a campaign does is "other".
SPENT = {"start": "engine start", "warm_up": "warm-up", "measure": "measurement"}


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
    for done in invalid:
        reasons = ", ".join(done.ended.record.validity.reasons)
        text = f"{run_name(done.planned.run)}: {reasons}; record {done.ended.path}"
        labelled(out, Text(WORDS["invalid"], style=STYLES["invalid"]), line(text))
    for done in tally.failed:
        why = done.ended.error.message if done.ended.error else ""
        text = f"{run_name(done.planned.run)}: {why}; record {done.ended.path}"
        labelled(out, Text(WORDS["failed"], style=STYLES["failed"]), line(text))
    for delayed in tally.delayed:
        hint = f" ({delayed.why.hint})" if delayed.why.hint else ""
        text = f"{run_name(delayed.planned.run)}: {delayed.why.message}{hint}"
        labelled(out, Text("put off", style="yellow"), line(text))
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
