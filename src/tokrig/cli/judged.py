"""Verdicts for people: on a terminal, and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tokrig.cli.present import NULL, figure_text, line, plain_table, print_pairs, put
from tokrig.compare.judge import Judged, Judgement, Verdict, percent
from tokrig.compare.statistics import LEVEL, SMALLEST_EFFECT, WIDEST
from tokrig.naming import in_markdown
from tokrig.record.metrics import METRICS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tokrig.compare import Pair

NOT_COMPARED = {
    "invalid": "not compared",
    "other_shape": "another shape of the same name",
    "other_length": "prompts of another length",
}
GRADE_STYLES = {"A": "bold green", "B": "bold green", "C": "bold yellow", "D": "bold red"}
STYLES = {"PASS": "green", "FAIL": "bold red", "INCONCLUSIVE": "yellow"}
# So many figures are named in the line that sums up; the table has them all.
NAMED = 4
# A comment of a forge takes 65,536 characters; so many lines of a table stay well below.
MOST_LINES = 200


def print_judgement(out: Console, judgement: Judgement, control: Judgement | None = None) -> None:
    """Each pair with its class, what differs and its figures; what the verdicts rest on; the
    verdict over all."""
    from rich.text import Text

    for number, pair in enumerate(judgement.pairs, 1):
        if number > 1:
            out.print()
        if len(judgement.pairs) > 1:
            out.print(f"pair {number} of {len(judgement.pairs)}", style="bold")
        _print_pair(out, pair, judgement.limits.judged())
    for text in judgement.left_out:
        put(out, Text(line(f"left out: {text}"), style="dim"))
    for text in _reading(judgement):
        put(out, Text(text, style="dim"))
    if control is not None:
        put(out, Text(f"A/A control: {_control(control)}", style=""))
    out.print()
    put(out, Text(conclusion(judgement), style=STYLES[judgement.verdict]))


def conclusion(judgement: Judgement) -> str:
    """The verdict over all in one line, and what decided it."""
    found, many = judgement.of(judgement.verdict), len(judgement.verdicts)
    more = f"slower than A by more than {judgement.limits}"
    if judgement.verdict == "PASS":
        return f"PASS: B is not {more}, in any of {many} figures"
    if judgement.verdict == "FAIL":
        told = _some([f"{one.where} {percent(one.slower or 0.0)}" for one in found])
        return f"FAIL: B is {more} in {len(found)} of {many} figures: {told}"
    missing = [text for pair in judgement.pairs for text in pair.missing]
    open_ = [f"{len(found)} of {many} figures are open"] * bool(found)
    open_ += [f"not judged: {_some(missing)}"] * bool(missing)
    return f"INCONCLUSIVE: {'; '.join(open_) or 'there is nothing to judge'}"


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more


def _control(control: Judgement) -> str:
    """How far the machine is off from itself."""
    apart = [one for one in control.verdicts if one.ratio is not None]
    if not apart:
        return "nothing of it can be judged"
    most = max(apart, key=lambda one: max(one.ratio or 1, 1 / (one.ratio or 1)))
    told = f"A differs from itself by up to {percent(_effect(most))} ({most.where})"
    return f"{told}; so much is no difference" + (
        "; the machine did not hold still" if control.verdict == "FAIL" else ""
    )


def _effect(one: Verdict) -> float:
    ratio = one.ratio or 1.0
    return max(ratio, 1 / ratio) - 1


def _print_pair(out: Console, pair: Judged, judged: Sequence[str]) -> None:
    from rich.text import Text

    found = pair.found
    sides = (("A", found.a), ("B", found.b))
    print_pairs(out, [(side, f"{one.id}  {one.name} · {one.place}") for side, one in sides])
    out.print()
    grade = Text(f"class {found.grade}", style=GRADE_STYLES[found.grade])
    put(out, grade.append(f": {found.reason}", style="default"))
    for note in (*found.notes, *pair.beside):
        put(out, Text(f"  {line(note)}", style="dim"))
    if found.differences.differing:
        out.print()
        table = plain_table("differs", "variable", "A", "B", fold=True)
        for entry in found.differences.differing:
            style = "" if entry.variable in found.differences.changed else "dim"
            table.add_row(entry.key, entry.variable, str(entry.a), str(entry.b), style=style)
        put(out, table)
    if found.pairs:
        out.print()
        put(out, _figures(pair, judged))
    if found.differences.unknown:
        keys = ", ".join(entry.key for entry in found.differences.unknown)
        put(out, Text(f"not known for both: {keys}", style="dim"))


def _figures(pair: Judged, judged: Sequence[str]) -> Table:
    """Shape by shape, the figures that are ``judged``; the geometric means where there are any."""
    from rich.text import Text

    from tokrig.compare import label

    verdicts = {(one.shape, one.concurrency, one.metric): one for one in pair.verdicts}
    headings = ("workload × conc.", "figure", "A", "B", "B / A", "verdict")
    table = plain_table(*headings, right=("A", "B"), fold=True)
    for cell in pair.found.pairs:
        where = label(cell.shape, cell.concurrency)
        for figure in (f for f in cell.figures if f.metric in judged and (f.a or f.b)):
            metric = METRICS[figure.metric]
            sides = (
                figure_text(metric.unit, m.median if m else None) for m in (figure.a, figure.b)
            )
            verdict = verdicts.get((cell.shape, cell.concurrency, figure.metric))
            said = Text(_said(cell, verdict), style=STYLES[verdict.verdict] if verdict else "")
            table.add_row(where, metric.label, *sides, _ratio(verdict), said)
            where = ""
        table.add_section()
    for mean in (one for one in pair.found.means if one.metric in judged):
        told = "geometric mean of ratios" + ("" if mean.verdict == "valid" else ", unverified")
        where = label(f"all {mean.shapes}", mean.concurrency)
        table.add_row(where, METRICS[mean.metric].label, "", "", f"×{mean.value:.2f}", told)
    return table


def _ratio(verdict: Verdict | None) -> str:
    value = verdict.ratio if verdict else None
    if value is None:
        return NULL
    return f"×{value:.2f}" + (interval(verdict) and f" ({interval(verdict)})")


def interval(verdict: Verdict | None) -> str:
    """``0.98–1.02``; empty where there is none."""
    if verdict is None or verdict.low is None or verdict.high is None:
        return ""
    return f"{verdict.low:.2f}–{verdict.high:.2f}"


def _said(cell: Pair, verdict: Verdict | None) -> str:
    """The verdict, and the marks of the figures it is about."""
    if verdict is not None:
        said = [verdict_text(verdict)]
    elif cell.comparable != "yes":
        said = [NOT_COMPARED[cell.comparable]]
    else:
        said = ["no ratio"]
    for side, word, codes in zip("AB", cell.verdicts, cell.codes, strict=True):
        if word != "valid":
            shown = word.upper() if word == "invalid" else word
            said.append(f"{side} {shown}" + (f" ({', '.join(codes)})" if codes else ""))
    return "; ".join(said)


def verdict_text(verdict: Verdict) -> str:
    """``FAIL, 4.1 % slower``."""
    share = verdict.slower or 0.0
    by = {"slower": share, "faster": 1 / (1 + share) - 1, "": 0.0}[verdict.effect]
    return (
        f"{verdict.verdict}, {percent(by)} {verdict.effect}" if verdict.effect else verdict.verdict
    )


def _reading(judgement: Judgement) -> Iterator[str]:
    """What the verdicts rest on, and what would settle those that are inconclusive."""
    if not judgement.rated:
        return
    yield f"question: is B slower than A by more than {judgement.limits}?"
    if judgement.tests:
        asked = judgement.limits.every or judgement.limits.own
        room = "" if asked else f", {percent(WIDEST)} where none is given"
        least = f"the limit, {percent(SMALLEST_EFFECT)} and the noise"
        yield (
            f"in brackets: 95 % of this ratio alone. FAIL: p ≤ {float(LEVEL):g} after Holm's"
            f" correction over {judgement.family}, and slower by more than {least}. PASS: all of"
            f" the interval within the limit{room}"
        )
    noise = max((one.noise for one in judgement.verdicts), default=0.0)
    if noise > SMALLEST_EFFECT:
        yield f"identical runs on this rig differ by up to {percent(noise)}: so must these"
    for settle, ones in _by_settle(judgement.of("INCONCLUSIVE")):
        where = f" ({ones[0].where}{f' and {len(ones) - 1} more' * (len(ones) > 1)})"
        yield f"inconclusive: {settle}{where}"
    sides = [side for pair in judgement.pairs for side in (pair.found.a, pair.found.b)]
    if any(side.keys.get("backend.managed") == "no" for side in sides):
        yield "an attached server counts as one start: let tokrig start it with --level standard"


def _by_settle(verdicts: Iterable[Verdict]) -> list[tuple[str, list[Verdict]]]:
    found: dict[str, list[Verdict]] = {}
    for one in verdicts:
        found.setdefault(one.settle, []).append(one)
    return [(settle, ones) for settle, ones in found.items() if settle]


# Markdown


def markdown(judgement: Judgement, control: Judgement | None = None) -> str:
    """A report for a pull request: the verdict, what failed or is open, the rest folded away."""
    parts = [f"### tokrig compare: {judgement.verdict}", "", in_markdown(conclusion(judgement)), ""]
    for pair in judgement.pairs:
        parts += [
            f"- {side}: {_code(one.id)} {_code(f'{one.name} · {one.place}')}"
            for side, one in (("A", pair.found.a), ("B", pair.found.b))
        ]
        parts += [f"- class {pair.found.grade}: {in_markdown(pair.found.reason)}"]
        parts += [f"- {in_markdown(text)}" for text in pair.beside]
        parts += [f"- not judged: {in_markdown(text)}" for text in pair.missing[:MOST_LINES]]
    if control is not None:
        parts.append(f"- A/A control: {in_markdown(_control(control))}")
    parts.append("")
    open_ = judgement.of("FAIL") + judgement.of("INCONCLUSIVE")
    parts += _table(open_)
    if passed := judgement.of("PASS"):
        parts += ["<details>", f"<summary>{len(passed)} figures pass</summary>", ""]
        parts += [*_table(passed), "</details>", ""]
    parts += [f"<sub>{in_markdown(text)}</sub>  " for text in _reading(judgement)]
    return "\n".join(parts).rstrip() + "\n"


def _table(verdicts: Sequence[Verdict]) -> list[str]:
    if not verdicts:
        return []
    rows = [
        "| workload × conc. | figure | A | B | B / A | 95 % | p | verdict |",
        "|---|---|---:|---:|---:|---|---:|---|",
    ]
    for one in verdicts[:MOST_LINES]:
        metric = METRICS[one.metric]
        p = NULL if one.adjusted_p is None else _p(one.adjusted_p)
        where = one.where.removesuffix(f" {metric.label}")
        cells = (
            where,
            metric.label,
            figure_text(metric.unit, one.a),
            figure_text(metric.unit, one.b),
            f"×{one.ratio:.3f}" if one.ratio else NULL,
            interval(one) or NULL,
            p,
            verdict_text(one) + ("; unverified" if one.unverified else ""),
        )
        rows.append(f"| {' | '.join(map(in_markdown, cells))} |")
    if len(verdicts) > MOST_LINES:
        rows.append(f"\n… and {len(verdicts) - MOST_LINES} more")
    return [*rows, ""]


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else f"{value:.2g}"


def _code(text: str) -> str:
    return f"`{line(text).replace('`', chr(39))}`"
