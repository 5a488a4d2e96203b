"""Files of other tools as records: which tool a file is of, what its records are called, what a
user says beside it.

A record has what its file says, converted to tokrig's units, and nothing else. What a user adds is
marked as theirs. The same file gives the same records, under ids made of its hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tokrig import registry
from tokrig.errors import ImportRefused
from tokrig.exchange import document, rows
from tokrig.exchange.document import Document
from tokrig.exchange.format import Format, Found
from tokrig.models.identity import identify, named
from tokrig.naming import model_label
from tokrig.record import METHODOLOGY_VERSION
from tokrig.record.checks import judge_run
from tokrig.record.consistency import own_contradictions
from tokrig.record.imported import judge_imported_raw
from tokrig.record.model import Model, Provenance, Raw, Record, Result, Rig
from tokrig.rig import rig_elsewhere

PACKAGE = "exchange.formats"
LIKELY = 0.5
# Parameters that a file of weights and a file of results may differ in: helper tensors.
_SAME_SIZE = 0.02


@dataclass(frozen=True)
class Stated:
    """What a user says beside a file: which machine and which model it is of."""

    rig: Rig | None = None
    model: Model | None = None


@dataclass(frozen=True)
class Imported:
    """What a file gives: its format and its records, with what each had to leave out."""

    path: Path
    format: Format
    sha256: str
    records: tuple[Record, ...]
    left_out: tuple[tuple[str, ...], ...]


@cache
def formats() -> dict[str, Format]:
    """All formats by name."""
    return {name: load(name) for name in names()}


def names() -> list[str]:
    """The names of all formats, as ``--format`` takes them."""
    return sorted(name.replace("_", "-") for name in registry.names(PACKAGE))


def load(name: str) -> Format:
    """The format of a name. Raises InputError, with the nearest, where there is none."""
    found: Format = registry.load(PACKAGE, name.replace("-", "_"), "FORMAT")
    return found


def stated(rig_id: str | None, rig: Rig | None, model: str | None) -> Stated:
    """What a user says: a rig's id with the facts that are written of it, and a model by its name
    or its file, whose header tells the rest. Raises InputError for a file that is no model."""
    known = rig_elsewhere(rig_id, rig) if rig_id else None
    if model is None:
        return Stated(known)
    path = Path(model)
    is_here = path.exists() and (path.is_dir() or path.suffix.lower() == ".gguf")
    return Stated(known, identify(path) if is_here else named(model))


def read(path: Path, said: Stated, name: str | None = None) -> Imported:
    """The records in a file of the format ``name``, or of the one that it looks like.

    Raises ImportRefused where it is none of them, holds no figures or contradicts itself.
    """
    text = document.read(path)
    of = _format(text, name)
    try:
        found = [
            one for each in rows.read(text, of) for one in _apart(each) if one.results or one.raw
        ]
    except ValidationError as problem:
        raise _invalid(text, problem) from None
    if not found:
        raise ImportRefused(
            f"{path}: no figures in it", hint=f"was {of.title} stopped before its first result?"
        )
    if (
        said.model is not None
        and len({one.model and one.model.model_dump_json() for one in found}) > 1
    ):
        raise ImportRefused(
            f"{path}: is of several models, so --model cannot name one",
            hint="leave --model out, or split the file",
        )
    records = [
        _record(text, of, one, said, number if len(found) > 1 else None)
        for number, one in enumerate(found, 1)
    ]
    left_out = tuple(tuple(one.left_out) for one in found)
    return Imported(path, of, text.sha256, tuple(records), left_out)


def _format(text: Document, name: str | None) -> Format:
    """The format of a file. Several may know its kind, one at most its fields."""
    like = {one.name: one.likeness(text) for one in formats().values()}
    matching = [known for known, share in like.items() if share == 1]
    if name is not None:
        wanted = load(name)
        if wanted.name in matching or (wanted.kinds == {text.kind} and not matching):
            return wanted
        looks = f"; it looks like {formats()[matching[0]].title}" if matching else ""
        raise ImportRefused(
            f"{text.name}: not a file of {wanted.title}{looks}",
            hint="leave --format out" if matching else f"{wanted.title}: {wanted.files}",
        )
    if matching:
        return formats()[matching[0]]
    best = max(like, key=lambda known: like[known])
    hint = "known are " + ", ".join(one.title for one in formats().values())
    if like[best] >= LIKELY:
        hint = (
            f"most like {formats()[best].title} ({formats()[best].files}), but fields are missing"
        )
    elif text.kind == "csv":
        hint = "a table of your own needs columns called like tokrig's: docs/cli.md lists them"
    raise ImportRefused(f"{text.name}: of no tool that tokrig knows", hint=hint)


def _invalid(text: Document, problem: ValidationError) -> ImportRefused:
    first = problem.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return ImportRefused(
        f"{text.name}: cannot be a record: {place}: {first['msg']}",
        hint="a field of the file holds what no measurement gives",
    )


def _apart(found: Found) -> Iterator[Found]:
    """One record holds each cell once: what was measured again is another record, and what stands
    there twice is one."""
    rounds: list[list[Result | Raw]] = []
    seen: dict[Any, list[Result | Raw]] = {}
    everything: list[Result | Raw] = [*found.results, *found.raw]
    for one in everything:
        cell = (one.test, one.concurrency) if isinstance(one, Raw) else one.cell
        before = seen.setdefault(cell, [])
        if one in before:
            continue
        before.append(one)
        turn = len(before) - 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(one)
    for mine in rounds:
        yield Found(
            **vars(found)
            | {
                "results": [one for one in mine if isinstance(one, Result)],
                "raw": [one for one in mine if isinstance(one, Raw)],
            }
        )


def _record(text: Document, of: Format, found: Found, said: Stated, number: int | None) -> Record:
    model = _model(text, found, said)
    validity = (
        judge_imported_raw(found.raw, found.backend, of.codes, complete=found.complete)
        if found.raw
        else judge_run(found.results, complete=found.complete)
    )
    record = Record(
        id=f"import-{of.name}-{text.sha256[:12]}{'' if number is None else f'-{number}'}",
        status="complete" if found.complete else "interrupted",
        validity=validity,
        provenance=Provenance(
            kind="imported",
            source=" ".join(filter(None, (of.title, found.version))),
            source_sha256=text.sha256,
            stated=[name for name in ("model", "rig") if getattr(said, name) is not None],
            methodology=METHODOLOGY_VERSION,
            started_at=found.started_at,
            finished_at=found.finished_at,
        ),
        model=model,
        rig=said.rig or found.rig,
        backend=found.backend,
        mode=found.mode,
        results=found.results,
        raw=found.raw,
        notes="\n".join(_notes(found, said)) or None,
    )
    if broken := own_contradictions(record):
        raise ImportRefused(
            f"{text.name}: its figures contradict each other: {broken[0]}",
            hint="was the file edited, or written by another version?",
        )
    return record


def _notes(found: Found, said: Stated) -> Iterator[str]:
    if said.model is not None and found.model is not None:
        yield f"the file calls the model {model_label(found.model)}"
    yield from (f"not taken from the file: {one}" for one in found.left_out)


def _model(text: Document, found: Found, said: Stated) -> Model:
    if said.model is None:
        if found.model is None:
            raise ImportRefused(
                f"{text.name}: does not say which model it is of",
                hint="say it with --model NAME, or --model FILE.gguf",
            )
        return found.model
    theirs, ours = found.model, said.model
    if theirs is None:
        return ours
    one, other = theirs.parameters, ours.parameters
    if one and other and abs(one - other) > _SAME_SIZE * max(one, other):
        raise ImportRefused(
            f"{text.name}: is of a model of {one:,} parameters, --model of {other:,}",
            hint="name the model that was measured",
        )
    if theirs.quant and ours.quant and theirs.quant.upper() != ours.quant.upper():
        raise ImportRefused(
            f"{text.name}: is of a model in {theirs.quant}, --model in {ours.quant}",
            hint="name the file that was measured",
        )
    told = {name: value for name, value in theirs if value not in (None, [], {})}
    return ours.model_copy(
        update={name: told[name] for name in told if getattr(ours, name) in (None, [], {})}
    )
