"""Runs that differ in one thing each: in every setting, and in what else tells runs apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.unit.compared import cell, measured, with_value
from tokrig.record.block import Summary
from tokrig.record.model import Raw, Record, Skipped
from tokrig.spec.settings import SETTINGS, Setting

STARTED = "2026-11-22T12:00:00Z"
VALUES: dict[str, Any] = {"text": "other", "texts": ["CUDA1"], "whole": 7, "amount": 123.0}
"""What a setting of a kind is changed to; a word to its last choice."""
OTHERS: dict[str, tuple[Any, str]] = {
    "backend.build": ("b9999", "b9999"),
    "backend.engine": ("ik_llama.cpp", "ik_llama.cpp"),
    "backend.wrapper": ("lemonade 11.7.0", "lemonade 11.7.0"),
    "mode.name": ("quiet", "quiet"),
    "model.quant_creator": ("bartowski", "bartowski"),
    "model.variant": ("E4B-it", "E4B-it"),
    "rig.kernel": ("7.1.0", "7.1.0"),
    "provenance.started_at": ("2026-11-23T09:30:00Z", "2026-11-23"),
}
"""By place in a record another value, and the word that says it."""


class Other(NamedTuple):
    """``record`` differs from ``plain()`` in ``place`` alone: its label says so with ``word``."""

    place: str
    record: Record
    word: str


def plain() -> Record:
    """What the others are like: a bit of everything that pages list of runs."""
    skipped = Skipped(workload="rag", concurrency=4, code="context_too_small", message="too long")
    figures = Summary(median=101, min=99, max=102, n=5)
    changes = {
        "id": "plain-0000",
        "provenance.started_at": STARTED,
        "results": [*measured().results, cell("chat", 4), cell("agent", 4, valid=False)],
        "skipped": [skipped],
        "raw": [Raw(test="tg128", output_tokens=128, tok_per_s=figures)],
    }
    record = measured()
    for path, value in changes.items():
        record = with_value(record, path, value)
    return record


def value_of(setting: Setting) -> Any:
    return setting.choices[-1] if setting.kind == "word" else VALUES[setting.kind]


def others() -> Iterator[Other]:
    """One of each."""
    base = plain()
    changes = [
        (path, value_of(setting), setting.say(value_of(setting)).split()[-1])
        for setting in SETTINGS.values()
        for path in setting.found
    ]
    # The engine's own options stand in its command line alone.
    argv = [*(base.backend.argv or []), "--no-mmap"]
    changes += [("backend.argv", argv, "--no-mmap")]
    changes += [(path, *both) for path, both in OTHERS.items()]
    for number, (path, value, word) in enumerate(changes, 1):
        record = with_value(base, path, value)
        yield Other(path, with_value(record, "id", f"{path.replace('.', '-')}-{number:04x}"), word)
