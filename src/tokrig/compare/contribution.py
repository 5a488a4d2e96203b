"""What a pull request of records says: title, branch, places of files, its text in Markdown.

Pure. ``TEXTS`` are the sentences with their gaps: the page that makes a pull request of a dropped
record fills in the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tokrig.compare import Comparison
from tokrig.naming import (
    backend_label,
    full_name,
    hardware_name,
    in_markdown,
    limited_bytes,
    model_label,
)
from tokrig.record.checks import headline
from tokrig.record.model import Record
from tokrig.units import human_bytes

TEXTS = {
    "title": "{model} on {machine}",
    "branch": "add-{id}",
    "place": "benchmarks/runs/{rig}/{id}.yaml",
    "head": "| model | engine | gen tok/s | level | validity |\n|---|---|--:|---|---|",
    "line": "| {model} | {engine} | {speed} | {level} | {verdict} |",
    "machine": "**Machine** `{rig}`: {facts}",
    "memory": "{memory} of memory",
    "driver": "driver {driver}",
    "first": "- {model}: the first record of this model",
    "nearest": "nearest is {id}, class {grade} ({reason})",
    "ratio": ", gen {ratio} × over {shapes} shapes",
    "files": "Files: {files}",
    "checked": "Checked with `tokrig check`: figures follow from samples.",
}

Entry = tuple[Record, Comparison | None, Sequence[str]]
"""A record, the comparison with the nearest published one, the places of its files."""


def title(records: Sequence[Record]) -> str:
    """``Gemma-3 270M Q4_K_M on GeForce RTX 5070``, or how many records of which machine."""
    first = records[0]
    if len(records) > 1:
        return f"{len(records)} records of {hardware_name(first.rig)}"
    names = {"model": model_label(first.model), "machine": hardware_name(first.rig)}
    return TEXTS["title"].format(**names).replace(" · ", " ")


def branch(ids: Sequence[str]) -> str:
    """The name of the branch."""
    return TEXTS["branch"].format(id=ids[0]) + (f"-and-{len(ids) - 1}" if ids[1:] else "")


def place(record: Record) -> str:
    """Where a record lies in a content folder."""
    return TEXTS["place"].format(rig=record.rig.id, id=record.id)


def text(entries: Iterable[Entry]) -> str:
    """The text of the pull request: what was measured, on what, how it stands."""
    listed = [*entries]
    first = listed[0][0]
    facts = in_markdown(_machine(first))
    lines = [TEXTS["head"], *(_line(record) for record, _, _ in listed), ""]
    lines += [TEXTS["machine"].format(rig=first.rig.id, facts=facts), ""]
    lines += [one for record, pair, _ in listed for one in _beside(record, pair)]
    held = ", ".join(f"`{path}`" for _, _, files in listed for path in files)
    lines += ["", TEXTS["files"].format(files=held), "", TEXTS["checked"]]
    return "\n".join(lines)


def _line(record: Record) -> str:
    rates = [r.output_tok_per_s.median for r in headline(record) if r.output_tok_per_s]
    low, high = (f"{end(rates):.1f}" if rates else "–" for end in (min, max))
    codes = ", ".join(record.validity.reasons or record.validity.unverified)
    cells = {
        "model": model_label(record.model),
        "engine": backend_label(record.backend),
        "speed": low if low == high else f"{low}–{high}",
        "level": record.provenance.level or record.provenance.kind,
        "verdict": f"{record.validity.word} ({codes})" if codes else record.validity.word,
    }
    return TEXTS["line"].format(**{name: in_markdown(cell) for name, cell in cells.items()})


def _machine(record: Record) -> str:
    rig = record.rig
    memory = human_bytes(limited_bytes(rig.memory) or rig.memory.total_bytes)
    driver = rig.gpus[0].driver if rig.gpus else None
    parts = (
        hardware_name(rig),
        rig.cpu.model,
        TEXTS["memory"].format(memory=memory),
        driver and TEXTS["driver"].format(driver=driver),
        rig.os,
    )
    return ", ".join(dict.fromkeys(filter(None, parts)))


def _beside(record: Record, pair: Comparison | None) -> Iterator[str]:
    if pair is None:
        yield TEXTS["first"].format(model=in_markdown(model_label(record.model)))
        return
    name = " · ".join(filter(None, full_name(record)))
    means = [mean for mean in pair.means if mean.metric == "output_tok_per_s"]
    nearest = TEXTS["nearest"].format(id=pair.a.id, grade=pair.grade, reason=pair.reason)
    if means:
        value = f"{means[0].value:.2f}"
        nearest += TEXTS["ratio"].format(ratio=value, shapes=means[0].shapes)
    yield f"- {in_markdown(f'{name}: {nearest}')}"
