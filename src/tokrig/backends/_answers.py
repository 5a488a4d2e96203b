"""Reading what a server answers and prints, whatever stands in the place of a fact."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokrig.errors import RequestError

if TYPE_CHECKING:
    from tokrig.backends import Ask


def answer(ask: Ask, path: str, body: Any = None) -> dict[str, Any]:
    """The object a server answers; empty where it refuses, or answers something else."""
    try:
        return mapping(ask(path, body))
    except RequestError:
        return {}


def page(ask: Ask, path: str) -> str:
    """A text a server answers; empty where it refuses."""
    try:
        return str(ask(path, text=True))
    except RequestError:
        return ""


def one_token(model: Any = None) -> dict[str, Any]:
    """A chat request as short as can be, for servers that tell more of themselves in answers."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    return {"model": model, **body} if model is not None else body


def models(ask: Ask) -> list[dict[str, Any]]:
    """``/v1/models``; empty where the server has no such list."""
    return mappings(answer(ask, "/v1/models").get("data"))


def served_models(ask: Ask) -> tuple[str, ...]:
    """The models' ids."""
    return tuple(name for model in models(ask) if (name := text(model.get("id"))))


def owner(ask: Ask) -> str | None:
    """``owned_by`` of the first model: "vllm", "llamacpp", … where the server says so."""
    return next((text(model.get("owned_by")) for model in models(ask)), None)


def metric(page: str, name: str) -> float | None:
    """The sum of all samples of the Prometheus counter ``name``; None without any, and where one
    is no number."""
    lines = (line for line in page.splitlines() if line.startswith((name + " ", name + "{")))
    words = [line.rsplit(" ", 1)[-1] for line in lines]
    try:
        total = sum(map(float, words)) if words else None
    except ValueError:
        return None
    return total if total is not None and math.isfinite(total) else None


def at(value: Any, *keys: str) -> Any:
    """What stands below these keys; None where it is not there."""
    for key in keys:
        value = mapping(value).get(key)
    return value


def mapping(value: Any) -> dict[str, Any]:
    """An object; empty where there is none."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[dict[str, Any]]:
    """The objects of a list."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def whole(value: Any) -> int | None:
    """A whole number of 0 or more."""
    usable = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if usable else None


def count(value: Any) -> int | None:
    """A whole number above 0, also where it is sent as text or as 4096.0. Where 0 or less is
    impossible it is what a server says that does not know."""
    if isinstance(value, str):
        value = value.strip()
        value = int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 63
    return value if usable else None


def text(value: Any) -> str | None:
    """Text with something in it."""
    return value.strip() or None if isinstance(value, str) else None


def word(log: str, pattern: str) -> str | None:
    """The first group of the first match; None where there is none or it is Python's None."""
    found = re.search(pattern, log)
    return found.group(1) if found and found.group(1) != "None" else None


def number(log: str, pattern: str) -> int | None:
    """The same as a number above 0: where 0 is impossible it is no fact."""
    found = word(log, pattern)
    return int(found) or None if found and len(found) < 19 else None


def logged(log: str, patterns: Mapping[str, str]) -> dict[str, Any]:
    r"""Facts by the patterns that find them in a log; those of ``(\d+)`` are numbers above 0."""
    return {
        name: number(log, pattern) if r"(\d+)" in pattern else word(log, pattern)
        for name, pattern in patterns.items()
    }
