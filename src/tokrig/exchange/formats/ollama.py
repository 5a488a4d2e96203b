"""Ollama: what ``ollama run --verbose`` prints, and the last object of its API's answers.

Fields after ``Metrics`` of ``api/types.go`` (ollama/ollama): durations in nanoseconds, printed as
Go writes them; a zero is left out. A rate is tokens by the engine's own clock: it begins at the
first token, but counts it. What of the prompt was cached is not told. The printed form names no
model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tokrig.exchange.document import Document
from tokrig.exchange.fields import Fields
from tokrig.exchange.format import (
    NS,
    Format,
    Found,
    Take,
    figures_of,
    objects,
    result_of,
    shape,
)
from tokrig.exchange.models import model_of
from tokrig.record.model import BackendFacts, Result
from tokrig.units import significant

_LINE = re.compile(
    r"^\W*(?:total duration|load duration|prompt eval (?:count|duration|rate)"
    r"|eval (?:count|duration|rate)):\s+\S.*$"
)
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|µs|us|ns)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "ns": 1e-9}
_TAKES = (
    Take("rates", "output_tok_per_s.values", 1.0, ("engine_clock",)),
    Take("prompt_rates", "prefill_tok_per_s.values", 1.0, ("cache_untold",)),
    Take("prompt_tokens", "prompt_tokens.values"),
    Take("tokens", "output_tokens.values"),
)


def _read(document: Document) -> Iterable[Found]:
    answers: dict[str | None, list[Fields]] = {}
    for one in objects(document) if document.items else _printed(document):
        if one.count("eval_count") and one.number("eval_duration"):
            answers.setdefault(one.text("model"), []).append(one)
    for name, mine in answers.items():
        yield Found(
            model=model_of(name),
            backend=BackendFacts(name=FORMAT.name, engine="Ollama"),
            results=[_result(mine)],
        )


def _result(answers: list[Fields]) -> Result:
    """Of requests that were sent one after the other, as the file has them."""
    told: dict[str, list[float]] = {}
    for one in answers:
        for rates, count, duration in (
            ("rates", "eval_count", "eval_duration"),
            ("prompt_rates", "prompt_eval_count", "prompt_eval_duration"),
        ):
            tokens, took_ns = one.count(count), one.positive(duration)
            if tokens:
                told.setdefault(rates.replace("rates", "tokens"), []).append(tokens)
            if tokens and took_ns:
                told.setdefault(rates, []).append(significant(tokens / (took_ns * NS), 6))
    figures, codes = figures_of(Fields(told, answers[0].name), _TAKES)
    if "prefill_tok_per_s" in figures:
        figures["prefill_source"] = "server"
    figures["requests"] = len(answers)
    return result_of(
        figures, [*FORMAT.codes, *codes], workload=shape(FORMAT.name, None, None), concurrency=1
    )


def _printed(document: Document) -> Iterator[Fields]:
    """What was printed after each answer, as the API has it."""
    told: dict[str, float] = {}
    first = 1
    for number, line in enumerate(document.text.splitlines(), 1):
        if not _LINE.match(line):
            continue
        name, _, value = line.strip().lstrip("-*>• ").partition(":")
        key = name.strip().replace(" ", "_")
        if key in told or key == "total_duration":
            yield from _answer(told, document, first)
            told, first = {}, number
        told |= _number(key, value.strip(), document, number)
    yield from _answer(told, document, first)


def _answer(told: dict[str, float], document: Document, line: int) -> Iterator[Fields]:
    if told:
        yield Fields(told, document.name, f"line {line}")


def _number(key: str, value: str, document: Document, line: int) -> dict[str, float]:
    if key.endswith("_rate"):
        return {}  # count by duration, rounded
    if key.endswith("_count"):
        whole = value.split(" ", maxsplit=1)[0]
        if whole.isascii() and whole.isdigit() and len(whole) < 13:
            return {key: int(whole)}
    elif (parts := _PART.findall(value)) and _is_written(parts, value):
        return {key: sum(float(number) * _UNITS[unit] for number, unit in parts) / NS}
    at = Fields({}, document.name, f"line {line}", is_table=True)
    raise at.refuse(key.replace("_", " "), f"{value[:40]!r} is not what Ollama prints")


def _is_written(parts: list[tuple[str, str]], value: str) -> bool:
    """Whether a duration is as Go writes it: ``1m2.104s``, with decimals in the last unit alone."""
    whole = all("." not in number for number, _ in parts[:-1])
    return whole and "".join(map("".join, parts)) == value


FORMAT = Format(
    name="ollama",
    title="Ollama",
    files="the text of ollama run --verbose, or the JSON of its API",
    kinds=frozenset({"json", "text"}),
    signatures=(
        frozenset({"eval count:", "eval duration:", "eval rate:"}),
        frozenset({"model", "created_at", "done"}),
    ),
    read=_read,
    codes=("warm_up_untold",),
)
