"""Files that were damaged in every way: a clear refusal or true figures, never a traceback and
never a figure that does not stand in the file.

Each file is changed ``TOKRIG_MUTATIONS`` times (default 60), at random but always the same:
fields missing, renamed, of another type, not-a-number, infinite, negative, huge; text cut off, of
another encoding, nested deeply, with a key twice, packed.
"""

from __future__ import annotations

import copy
import gzip
import json
import math
import os
import random
import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_import import READ, label, said
from tokrig.errors import TokrigError
from tokrig.exchange import imports
from tokrig.record import consistency
from tokrig.record.block import Percentiles, Summary
from tokrig.record.metrics import METRICS
from tokrig.record.model import Record

TIMES = int(os.environ.get("TOKRIG_MUTATIONS", "60"))
SCALES = (1.0, 1e-3, 1e-9)
STRANGE: tuple[Any, ...] = (
    *(None, True, "", "12.5", "abc", [], {}, [1], {"a": 1}, -1, -0.5, 0, 0.0, 1e300, 10**400),
    *(math.nan, math.inf, -math.inf, 2**63, 1e-300, "1,5", [None], [[]], [-1.0], "\u202e", 1),
)
# Sums and what they are divided by: nothing else is computed of two numbers.
QUOTIENTS = re.compile(
    r"total_(?:in|out)put_tokens|completed|eval_count|eval_duration|prompt_eval_\w+|hardware"
)


# What may stand in a record


def numbers(data: Any) -> Iterator[float]:
    """All numbers of a file, and the medians of its lists and of what objects in a list share."""
    if isinstance(data, dict):
        for one in data.values():
            yield from numbers(one)
    elif isinstance(data, list):
        yield from middles(data)
        if data and all(isinstance(one, dict) for one in data):
            for key in {key for one in data for key in one}:
                yield from middles([one.get(key) for one in data])
        for one in data:
            yield from numbers(one)
    elif isinstance(data, int | float) and not isinstance(data, bool):
        if abs(data) < 1e20 and data:
            yield float(data)


def middles(values: list[Any]) -> Iterator[float]:
    real = [
        float(v)
        for v in values
        if isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < 1e20
    ]
    if real:
        yield statistics.median(real)
        yield 1 / statistics.median([1 / v for v in real])


def quotients(data: Any) -> Iterator[float]:
    """Tokens by requests, tokens by seconds."""
    found = [float(v) for k, v in pairs(data) if QUOTIENTS.search(k) and 0 < v < 1e20]
    found = list(dict.fromkeys(found))[:40]
    each = [a / b for a in found for b in found] + [1e9 * a / b for a in found for b in found]
    yield from each
    if len(found) < 20:
        yield from ((a + b) / 2 for a in each for b in each)


def pairs(data: Any) -> Iterator[tuple[str, float]]:
    if isinstance(data, dict):
        for key, value in data.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield key, value
            yield from pairs(value)
    elif isinstance(data, list):
        for one in data:
            yield from pairs(one)


def allowed(text: str) -> list[float]:
    """Every value that a record of this file may have as a figure, sorted."""
    try:
        data: Any = list(values_of(text))
    except ValueError:
        written = re.findall(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", text)
        data = [n for n in map(float, written) if n < 1e20] + list(printed(text))
    found = {*numbers(data), *quotients(data)}
    scaled = {n * scale for n in found for scale in SCALES}
    return sorted(scaled | {1 / n for n in scaled if n})


def values_of(text: str) -> Iterator[Any]:
    """The JSON values of a text, one after the other."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        value, at = decoder.raw_decode(text, at)
        yield value


def printed(text: str) -> Iterator[float]:
    """Rates by the counts and durations that Ollama prints, and medians of two of them."""
    counts = [float(n) for n in re.findall(r"count: +(\d{1,12}) ", text)]
    took = [
        60 * float(minutes or 0) + float(number) * (1e-3 if unit == "ms" else 1)
        for minutes, number, unit in re.findall(r"duration: +(?:(\d+)m)?([\d.]+)(ms|s)\b", text)
    ]
    rates = [c / seconds for c in {*counts} for seconds in {*took} if seconds][:200]
    yield from rates
    yield from ((a + b) / 2 for a in rates for b in rates)
    yield from ((a + b) / 2 for a in counts for b in counts)


def is_there(value: float, sorted_values: list[float], slack: float) -> bool:
    from bisect import bisect_left

    at = bisect_left(sorted_values, value * (1 - slack))
    return at < len(sorted_values) and sorted_values[at] <= value * (1 + slack)


def figures(record: Record) -> Iterator[tuple[str, float]]:
    for raw in record.raw:
        yield from parts(raw.test, raw.tok_per_s)
        yield from parts(f"{raw.test} TTFT", raw.ttft_s)
    for result in record.results:
        for name in METRICS:
            yield from parts(f"{result.cell.label} {name}", getattr(result, name))


def parts(name: str, figure: object) -> Iterator[tuple[str, float]]:
    if isinstance(figure, Summary):
        told = (figure.median, figure.min, figure.max)
        yield from ((name, value) for value in told if value is not None)
    elif isinstance(figure, Percentiles):
        shares = (figure.p50, figure.p90, figure.p95, figure.p99, figure.max)
        yield from ((name, value) for value in shares if value is not None)


# How files are damaged


def places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in list(inside)[:400]:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


def damaged_data(data: Any, chance: random.Random) -> Any:
    data = copy.deepcopy(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        known = list(places(data))
        if not known:
            return data
        *way, last = chance.choice(known)
        holder = data
        for key in way:
            holder = holder[key]
        match chance.randrange(6):
            case 0:
                del holder[last]
            case 1 if isinstance(holder, dict):
                holder[f"{last}_{chance.randrange(9)}"] = holder.pop(last)
            case 2 if isinstance(holder[last], int | float) and abs(holder[last]) < 1e300:
                holder[last] = holder[last] * chance.choice((-1, 0, 1e9, 1e-9, 1000, 0.5))
            case 3 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[last]))
            case _:
                holder[last] = copy.deepcopy(chance.choice(STRANGE))
    return data


def of_json(text: str, chance: random.Random) -> bytes:
    try:
        values, is_one = [json.loads(text)], True
    except ValueError:
        values, is_one = [json.loads(line) for line in text.splitlines() if line.strip()], False
    if is_one and not isinstance(values[0], dict | list):
        return text.encode()
    at = chance.randrange(len(values))
    values[at] = damaged_data(values[at], chance)
    return "\n".join(json.dumps(value) for value in values).encode()


def of_lines(text: str, chance: random.Random) -> bytes:
    lines = text.splitlines(keepends=True)
    at = chance.randrange(len(lines))
    found = list(re.finditer(r"\d+(?:\.\d+)?|[A-Za-z_/]+", lines[at]))
    match chance.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[chance.randrange(len(lines))])
        case _ if found:
            one = chance.choice(found)
            new = str(chance.choice((*STRANGE, "1.234,5", "1 234", "-3", "1e5", "|", ",", "'")))[
                :400
            ]
            lines[at] = lines[at][: one.start()] + new + lines[at][one.end() :]
    return "".join(lines).encode("utf-8", "surrogatepass")


def of_bytes(text: str, chance: random.Random) -> bytes:
    data = text.encode()
    cut = chance.randrange(len(data))
    kinds: list[Callable[[], bytes]] = [
        lambda: data[:cut],
        lambda: data[cut:],
        lambda: data[:cut] + bytes([chance.randrange(256)]) + data[cut + 1 :],
        lambda: data[:cut] + data[cut : cut + 200] * 3 + data[cut + 200 :],
        lambda: b"\xef\xbb\xbf" + data,
        lambda: data.replace(b"\n", b"\r\n"),
        lambda: text.encode("utf-16"),
        lambda: text.replace("a", "ä").encode("latin-1", "replace"),
        lambda: gzip.compress(data),
        lambda: gzip.compress(data)[: 20 + cut // 10],
        lambda: data[:cut] + b"[" * 20_000 + data[cut:],
        lambda: data.replace(b'"', b'"a": 1, "', 1),
        lambda: data + data,
        lambda: data.replace(b".", b","),
    ]
    return chance.choice(kinds)()


def damaged(text: str, chance: random.Random) -> bytes:
    is_json = text.lstrip()[0] in "{["
    whole = of_json if is_json else of_lines
    return chance.choice((whole, whole, whole, of_bytes))(text, chance)


@pytest.mark.parametrize("path", READ, ids=label)
def test_damaged_files_are_refused_or_tell_the_truth(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    chance = random.Random(path.name)
    other = tmp_path / path.name
    outcomes = {"read": 0, "refused": 0}
    for _ in range(TIMES):
        data = damaged(text, chance)
        other.write_bytes(data)
        try:
            found = imports.read(other, said(path)).records
        except TokrigError as problem:
            assert problem.message.startswith(str(other)), problem.message
            assert len(problem.message) < 600
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        read = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        values = allowed(read)
        # Ollama prints rates with two decimals, which tokrig computes from counts and durations.
        for one in found:
            assert consistency.own_contradictions(one) == []
            assert one.validity.word != "valid"
            for name, value in figures(one):
                assert is_there(value, values, 2e-5), f"{name}: {value} does not stand in it"
    assert outcomes["read"] and outcomes["refused"]


def test_a_figure_that_does_not_stand_in_a_file_would_be_found() -> None:
    values = allowed('{"median_ttft_ms": 12.5, "times": [0.1, 0.3]}')
    assert is_there(0.0125, values, 2e-5) and is_there(0.2, values, 2e-5)
    assert is_there(80.0, values, 2e-5), "one over it"
    assert not is_there(0.0126, values, 2e-5) and not is_there(0.17, values, 2e-5)
