"""Trace files: when requests came, and how long they and their answers were.

Known are the public formats of the field and a plain one, told apart by their columns:

- ``csv``: ``timestamp,input,output`` (seconds, tokens)
- ``azure``: Azure's LLM inference traces, ``TIMESTAMP,ContextTokens,GeneratedTokens``, a date and
  time each
- ``burstgpt``: BurstGPT, ``Timestamp`` (s), ``Request tokens``, ``Response tokens`` among others
- ``mooncake``: a JSON object a line, ``timestamp`` (ms), ``input_length``, ``output_length``

Files are read line by line, and no further than is asked for.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from tokrig.errors import InputError, did_you_mean
from tokrig.record.loads import Trace
from tokrig.spec.arrivals import MOST_ANSWER_TOKENS, MOST_REQUESTS
from tokrig.workloads import Variant, Workload, annals_hash, tolerance

# Prompt lengths are rounded to steps of this ratio: each step is fitted once.
STEP = 1.05
_QUESTION = "{material}\n\nWhat does this tell of the canals, and what came of it?{ending}"
_HINT = "a trace has a line for each request, in the order of time: see docs/methodology.md"


@dataclass(frozen=True)
class Arrival:
    """One request: seconds after the first one, tokens of prompt (rounded to a step) and answer."""

    due_s: float
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class TraceFile:
    """What was taken of a file, and for how long its requests arrive."""

    facts: Trace
    arrivals: tuple[Arrival, ...]
    duration_s: float

    @property
    def longest(self) -> Arrival:
        """The request that takes the most context."""
        return max(self.arrivals, key=_need)


@dataclass(frozen=True)
class Traced(Workload):
    """The requests of a trace as a shape: its lengths are those of the longest one."""

    digest: str = ""

    @property
    def content_hash(self) -> str:
        return hashlib.sha256(f"{self.digest} {annals_hash()}".encode()).hexdigest()[:12]


def shape(trace: TraceFile, slots: int) -> Traced:
    """The shape of a trace's requests."""
    longest = trace.longest
    return Traced(
        name="trace",
        summary="Requests as a trace has them: when they came, and how long they were.",
        prompt_tokens=longest.prompt_tokens,
        answer_tokens=longest.answer_tokens,
        concurrencies=(slots,),
        variants=(
            Variant((("user", _QUESTION),), (), ("", " Tell it.", " Tell it in short."), ""),
        ),
        digest=trace.facts.sha256,
    )


def read(path: Path, duration_s: float | None = None, rate: float | None = None) -> TraceFile:
    """The requests of the first ``duration_s`` seconds of a trace, stretched or shrunk evenly to a
    mean ``rate``.

    Raises InputError with file and line for what no trace can hold.
    """
    found: list[Arrival] = []
    first_s = 0.0
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            kind, lines = _lines(path, file)
            _, *lengths = _COLUMNS[kind]
            for place, time_s, row in lines:
                first_s = first_s if found else time_s
                due_s = time_s - first_s
                if found and due_s < found[-1].due_s:
                    raise _wrong(place, f"time goes back by {found[-1].due_s - due_s:g} s")
                if duration_s is not None and due_s >= duration_s:
                    break
                if len(found) == MOST_REQUESTS:
                    raise _wrong(
                        place,
                        f"more than {MOST_REQUESTS:,} requests",
                        "take the beginning of it: --duration 10m",
                    )
                prompt, answer = (_tokens(place, name, row) for name in lengths)
                found.append(Arrival(due_s, _step(prompt), answer))
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise InputError(f"cannot read the trace {path}: {why}", hint=_HINT) from None
    return _timed(path, kind, found, duration_s, rate)


def _timed(
    path: Path, kind: str, found: list[Arrival], asked_s: float | None, rate: float | None
) -> TraceFile:
    if len(found) < 2 or not found[-1].due_s:
        raise InputError(
            f"{path}: {len(found)} requests in no time: a trace needs two at different times",
            hint=_HINT if asked_s is None else "give a longer --duration",
        )
    answers = sum(one.answer_tokens for one in found)
    if answers > MOST_ANSWER_TOKENS:
        raise InputError(
            f"{path}: answers of {answers:,} tokens, and {MOST_ANSWER_TOKENS:,} are the limit",
            hint="take the beginning of it: --duration 10m",
        )
    own = (len(found) - 1) / found[-1].due_s
    factor = 1.0 if rate is None else own / rate
    arrivals = tuple(
        Arrival(one.due_s * factor, one.prompt_tokens, one.answer_tokens) for one in found
    )
    text = json.dumps([[round(a.due_s, 6), a.prompt_tokens, a.answer_tokens] for a in arrivals])
    facts = Trace(
        file=path.name,
        format=kind,
        requests=len(found),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
    return TraceFile(facts, arrivals, len(found) / own * factor)


def _step(tokens: int) -> int:
    return round(STEP ** round(math.log(tokens, STEP)))


def _need(arrival: Arrival) -> int:
    prompt = arrival.prompt_tokens
    return prompt + tolerance(prompt) + arrival.answer_tokens


def too_long(trace: TraceFile, context: int) -> str | None:
    """How many of a trace's requests are too long for a context; None where all fit."""
    fit = sum(_need(arrival) <= context for arrival in trace.arrivals)
    if fit == len(trace.arrivals):
        return None
    longest = trace.longest
    return (
        f"{fit:,} of the {len(trace.arrivals):,} requests of {trace.facts.file} fit into a context"
        f" of {context:,} tokens: the longest has {longest.prompt_tokens:,} and"
        f" {longest.answer_tokens:,} for its answer"
    )


# Lines

Row = Mapping[str, Any]
Read = tuple[str, float, Row]
"""Where a request stands, its time in seconds, and all that is said of it."""

_COLUMNS: dict[str, tuple[str, str, str]] = {
    "azure": ("timestamp", "contexttokens", "generatedtokens"),
    "burstgpt": ("timestamp", "request tokens", "response tokens"),
    "csv": ("timestamp", "input", "output"),
    "mooncake": ("timestamp", "input_length", "output_length"),
}


def _lines(path: Path, file: Any) -> tuple[str, Iterator[Read]]:
    """The format of a file, and its requests."""
    head = next((line for line in file if line.strip()), "")
    if head.lstrip().startswith("{"):
        return "mooncake", _rows("mooncake", _objects(path, head, file))
    names = [name.strip().lower() for name in next(csv.reader([head]), [])]
    kind = next((k for k, wanted in _COLUMNS.items() if set(wanted) <= set(names)), None)
    if kind is None:
        known = [", ".join(columns) for columns in _COLUMNS.values()]
        shown = ", ".join(names) or "none"
        raise InputError(
            f"{path}:1: the columns of no known trace: {shown}", hint=did_you_mean(shown, known)
        )
    table = (
        (f"{path}:{number}", dict(zip(names, row, strict=False)))
        for number, row in enumerate(csv.reader(file), 2)
        if row
    )
    return kind, _rows(kind, table)


def _objects(path: Path, head: str, file: Any) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(chain([head], file), 1):
        if line.strip():
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                raise _wrong(f"{path}:{number}", "no JSON object") from None
            if not isinstance(found, dict):
                raise _wrong(f"{path}:{number}", "no JSON object")
            yield f"{path}:{number}", found


def _rows(kind: str, rows: Iterator[tuple[str, Row]]) -> Iterator[Read]:
    time = _COLUMNS[kind][0]
    for place, row in rows:
        stamp = row.get(time)
        if stamp in (None, ""):
            raise _wrong(place, f"{time} is missing")
        seconds = _date_s(place, stamp) if kind == "azure" else _number(place, time, stamp)
        if kind == "mooncake":
            seconds /= 1000
        yield place, seconds, row


def _date_s(place: str, stamp: Any) -> float:
    try:
        found = datetime.fromisoformat(str(stamp).strip())
    except ValueError:
        raise _wrong(place, f"timestamp is no date and time: {stamp!r}") from None
    return (found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _number(place: str, name: str, value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise _wrong(place, f"{name} is no number: {value!r}") from None
    if not math.isfinite(found):
        raise _wrong(place, f"{name} is no number: {value!r}")
    return found


def _tokens(place: str, name: str, row: Row) -> int:
    value = row.get(name)
    if value in (None, ""):
        raise _wrong(place, f"{name} is missing")
    found = _number(place, name, value)
    if found < 1 or found != int(found) or isinstance(value, bool):
        raise _wrong(place, f"{name} is {value}: a length is a whole number from 1 on")
    return int(found)


def _wrong(place: str, why: str, hint: str = _HINT) -> InputError:
    return InputError(f"{place}: {why}", hint=hint)


def steps(arrivals: Sequence[Arrival]) -> list[int]:
    """The prompt lengths there are, shortest first."""
    return sorted({arrival.prompt_tokens for arrival in arrivals})
