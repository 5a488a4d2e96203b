"""The report, made of the figures of all runs: nothing in it is written by hand but the words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.agreement.definitions import OWN, TTFT, Definition, Engine, Request, Row, row
from bench.agreement.engine import Load
from bench.agreement.tools import TOOLS, Tool
from bench.instrument.report import FOREIGN, Facts, rows

Run = Mapping[str, Any]
LIMIT = 0.02
OWN_NAME = "tokrig"
BUSY = (
    "**Other programs took up to {:.0%} of a tool's processor meanwhile.** The rates and times are"
    " of a busy machine. The arithmetic between them holds, since the server's log is of the same"
    " requests; not so for llama-bench, whose passes only lie between such requests: its rows need"
    " a quiet one."
)


@dataclass(frozen=True)
class Told:
    """A figure of a tool under a load, repeat by repeat."""

    load: Load
    tool: Tool
    definition: Definition
    rows: Sequence[Row]

    def middle(self, name: str) -> float:
        return float(median(getattr(each, name) for each in self.rows))

    @property
    def verdict(self) -> str:
        if abs(self.middle("left") - 1) > LIMIT:
            return "**not explained**"
        return "agrees" if abs(self.middle("ratio") - 1) <= LIMIT else "explained"


def found(runs: Sequence[Run], loads: Sequence[Load]) -> Iterator[Told]:
    """Every figure that a tool published in a repeat in which tokrig did, too."""
    good = {(r["load"], r["repeat"], r["tool"]): r for r in runs if "failed" not in r}
    repeats = sorted({run["repeat"] for run in runs})
    for load in loads:
        for tool in (each for each in TOOLS.values() if each.name != OWN_NAME):
            for definition in tool.definitions:
                if definition.alone and load.concurrency > 1:
                    continue
                pairs = [
                    (good[load.name, n, tool.name], good[load.name, n, OWN_NAME])
                    for n in repeats
                    if {(load.name, n, tool.name), (load.name, n, OWN_NAME)} <= set(good)
                ]
                if pairs:
                    yield Told(load, tool, definition, [one(definition, *pair) for pair in pairs])


def one(definition: Definition, run: Run, own: Run) -> Row:
    return row(
        definition,
        run["published"][definition.name],
        run["told"],
        [Engine(**each) for each in run["engine"]],
        [Request(**each) for each in own["requests"]],
        [Engine(**each) for each in own["engine"]],
    )


def page(facts: Facts, runs: Sequence[Run], loads: Sequence[Load]) -> str:
    """The whole page, Markdown."""
    told = list(found(runs, loads))
    busy = max((run["foreign"] for run in runs if "foreign" in run), default=0.0)
    repeats = 1 + max((run["repeat"] for run in runs), default=0)
    parts = [
        "# Agreement with other tools",
        f"Measured on {facts.day}: {facts.machine}; {facts.software}. Written by `python -m"
        " bench.agreement`, which measures the same on any machine.",
        *([BUSY.format(busy)] if busy > FOREIGN else []),
        f"llama-server computes with one thread on processor {facts.cores['server']}, each tool"
        f" runs with all it starts on processor {facts.cores['client']}; llama-bench takes the"
        " server's place. All send requests of the same length, one after the other (or four at a"
        " time), after a warm-up, to a server without a prompt cache, and get"
        f" answers of the same length. Everything is measured {repeats}"
        f" time{'s' * (repeats != 1)}, the tools in turn. What is compared is what each"
        " publishes, times turned into rates.",
        "Three things can make two tools differ, and each is measured by itself:",
        "- **engine**: the server's own log says how fast it was with just these requests; × is"
        " that over what it was with tokrig's. It has no part in any tool.\n"
        "- **definition**: what this tool's definition makes of these requests, over what tokrig's"
        " does.\n"
        "- **left**: what the tool said over what its definition makes of the server's log and of"
        " what tokrig found between server and client. It is the disagreement of the clients.",
        "The three multiply to × tokrig. A figure *agrees* within 2 % of tokrig's, is *explained*"
        " where no more than 2 % is left, else **not explained**. Medians of the repeats, lowest"
        " and highest in brackets.",
        "Of four requests at a time only the pace between tokens is compared: before its first"
        " token each waits for the batch that the engine is computing when it comes, and the log"
        " does not tell how long.",
    ]
    for load in loads:
        if mine := [each for each in told if each.load == load]:
            parts += [f"## {load.title}", own_words(load, runs), table(mine)]
    parts += ["## Why they differ", reasons(told), "## What each figure is", meanings()]
    parts += ["## Versions and commands", versions(facts, runs)]
    if remarks := notes(facts, runs):
        parts += ["## What else", remarks]
    return "\n\n".join(parts) + "\n"


def own_words(load: Load, runs: Sequence[Run]) -> str:
    """tokrig's own figures, and the engine's log of the same requests."""
    own = [r for r in runs if (r["load"], r["tool"]) == (load.name, OWN_NAME) and "engine" in r]
    told = []
    for definition in OWN.values():
        values = [run["published"][definition.name] for run in own]
        told.append(f"{definition.figure} {spread(values, unit(definition, median(values)))}")
    ratios = [
        median(1 / Request(**r).pace_s for r in run["requests"])
        / median((e["tokens"] - 1) / e["decode_s"] for e in run["engine"])
        for run in own
    ]
    return (
        f"{load.prompt} tokens in, {load.answer} out. tokrig says: {', '.join(told)}; its decode"
        f" rate is × {spread(ratios, '{:.4f}')} of the server's log of the same requests."
    )


def unit(definition: Definition, value: float) -> str:
    return "{:.4f} s" if definition.figure == TTFT else ("{:.1f} tok/s" if value else "{}")


def spread(values: Sequence[float], form: str) -> str:
    low, mid, high = (form.format(f(values)) for f in (min, median, max))
    return mid if low == high else f"{mid} ({low} to {high})"


def table(told: Sequence[Told]) -> str:
    header = ["figure", "tool", "its name", "says", "× tokrig", "engine", "definition", "left", ""]
    lines = [
        [
            each.definition.figure,
            each.tool.title,
            f"`{each.definition.name}`",
            unit(each.definition, each.middle("says")).format(each.middle("says")),
            *(
                spread([getattr(r, name) for r in each.rows], "{:.3f}")
                for name in ("ratio", "engine", "definition", "left")
            ),
            each.verdict,
        ]
        for figure in OWN
        for each in told
        if each.definition.figure == figure
    ]
    return rows(header, lines, words=3)


def reasons(told: Sequence[Told]) -> str:
    """The arithmetic of every difference above the limit, of the middle repeat."""
    lines = []
    for each in told:
        if each.verdict == "agrees":
            continue
        middle = sorted(each.rows, key=lambda r: r.ratio)[len(each.rows) // 2]
        parts = [f"× {middle.ratio:.4f} of tokrig's"]
        if abs(middle.engine - 1) > LIMIT / 4:
            parts.append(f"the engine itself was at × {middle.engine:.4f} meanwhile")
        if middle.why:
            parts.append(middle.why)
        parts.append(f"× {middle.left:.4f} is left")
        lines.append(
            f"- {each.load.title}, {each.tool.title}, `{each.definition.name}`: {'; '.join(parts)}"
        )
    none = "None differs by more than 2 %." if told else "Nothing was measured beside tokrig."
    return "\n".join(lines) or none


def meanings() -> str:
    lines = [
        [definition.figure, tool.title, f"`{definition.name}`", definition.words]
        for figure in OWN
        for tool in TOOLS.values()
        for definition in tool.definitions
        if definition.figure == figure
    ]
    words = (
        "Times between tokens are shown as the rates that they are the inverse of. What a tool has"
        " no row for, it does not publish."
    )
    return f"{words}\n\n{rows(['figure', 'tool', 'its name', 'what it is'], lines, words=4)}"


def versions(facts: Facts, runs: Sequence[Run]) -> str:
    commands = {run["tool"]: run["command"] for run in reversed(runs) if "command" in run}
    return "\n".join(
        f"- {TOOLS[name].title} {facts.versions[TOOLS[name].title]}: `{commands[name]}`"
        for name in TOOLS
        if name in commands
    )


def notes(facts: Facts, runs: Sequence[Run]) -> str:
    lines = [f"- {title} is left out: {reason}" for title, reason in facts.left_out.items()]
    for run in runs:
        where = f"{TOOLS[run['tool']].title}, {run['load']}, repeat {run['repeat'] + 1}"
        if "failed" in run:
            lines.append(f"- {where}, failed: {run['failed'].strip()}")
        elif run["remarks"]:
            lines.append(f"- {where}, is INVALID by its own checks: {', '.join(run['remarks'])}")
    return "\n".join(lines)
