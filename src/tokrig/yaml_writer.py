"""YAML that people read and diff with pleasure, and that every reader takes the same way.

Order is kept. A small map stands on one line, a list of words fills its lines, text of several
lines is a literal block. Nothing depends on how a reader guesses types: what could be taken for
a number, a date or a truth value is quoted. Characters nobody can see (controls, right-to-left
marks, zero-width joiners) are escaped, so that a diff cannot hide anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import yaml

WIDTH = 100
_WORD = 60
_DEEP = 4
_MAX_PLAIN_KEY = 100

_NUMBER = re.compile(
    r"[-+]?(?:\.[0-9_]+|[0-9][0-9_,]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|0[oOxXbB][0-9a-fA-F_]+"
)
_TRUTH = re.compile(r"(?i:yes|no|on|off|true|false|null)")
_START = re.compile(r"[^\W_]|[_./(~+$\\]|--?[A-Za-z]")
_BREAKS_BLOCK = re.compile(r": |:$| #|^---|^\.\.\.")
_BREAKS_FLOW = re.compile(r"[,?\[\]{}:]")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}
_RESOLVERS = yaml.SafeLoader.yaml_implicit_resolvers


def dump(data: Mapping[str, Any], *, omit_none: bool = False, spaced: bool = False) -> str:
    """``data`` as YAML: maps with text keys, lists, text, numbers, truth values, None.

    ``omit_none`` leaves out keys whose value is None; ``spaced`` sets blank lines between the
    large blocks of the top level. Lone surrogates, which no file can hold, become U+FFFD.

    Raises TypeError for any other type.
    """
    if omit_none:
        data = _without_none(data)
    if not data:
        return "{}\n"
    lines: list[str] = []
    was_large = False
    for key, value in data.items():
        block = list(_pair(key, value, 0))
        if spaced and isinstance(value, list | tuple) and len(block) > 1:
            block = [block[0], *_separated(block[1:])]
        is_large = len(block) > 1
        if spaced and lines and (is_large or was_large):
            lines.append("")
        lines += block
        was_large = is_large
    return "\n".join(lines) + "\n"


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [_without_none(one) for one in value]
    return value


def _separated(lines: list[str]) -> Iterator[str]:
    """A blank line before each item of a top-level list that takes several lines."""
    starts = [i for i, line in enumerate(lines) if line.startswith("  - ")]
    if len(starts) == len(lines):
        yield from lines
        return
    for i, line in enumerate(lines):
        if i in starts[1:]:
            yield ""
        yield line


def _pair(key: str, value: Any, indent: int) -> Iterator[str]:
    """The lines of one key and its value."""
    if not isinstance(key, str):
        raise TypeError(f"a YAML key must be text, not {key!r}")
    pad = " " * indent
    name = _text(key, flow=True)
    if len(name) > _MAX_PLAIN_KEY:  # YAML reads a simple key of at most 1,024 characters
        yield f"{pad}? {name}"
        name = ""
    first, *rest = _value(value, indent, len(name) + 1)
    yield f"{pad}{name}: {first}" if first else f"{pad}{name}:"
    yield from rest


def _value(value: Any, indent: int, used: int) -> Iterator[str]:
    """The value's lines: the first follows ``used`` characters after ``indent``."""
    if isinstance(value, str) and _fits_literal(value):
        yield from _literal(value, indent + 2)
        return
    parts = _flow_parts(value)
    if parts is not None:
        opening, *words, _ = parts
        flow = _joined(parts)
        if not words or indent + used + 1 + len(flow) <= WIDTH:
            yield flow
            return
        # Facts stand one a line where they stand once; deep in a list they would drown it.
        if (opening == "[" or indent >= _DEEP) and max(map(len, words)) <= _WORD:
            yield from _filled(parts, indent, used)
            return
    yield ""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _pair(key, one, indent + 2)
    else:
        for one in value:
            yield from _item(one, indent + 2)


def _item(value: Any, indent: int) -> Iterator[str]:
    """One list item: a map starts on the dash's own line."""
    pad = " " * indent
    parts = _flow_parts(value)
    fits = parts is not None and indent + 2 + len(_joined(parts)) <= WIDTH
    if isinstance(value, Mapping) and value and not fits:
        lines = [line for key, one in value.items() for line in _pair(key, one, indent + 2)]
        yield f"{pad}- {lines[0].lstrip()}"
        yield from lines[1:]
        return
    first, *rest = _value(value, indent, 1)
    yield f"{pad}- {first}" if first else f"{pad}-"
    yield from rest


def _filled(parts: list[str], indent: int, used: int) -> Iterator[str]:
    """A flow map or list over several lines, each filled up to the width."""
    opening, *words, closing = parts
    line, room = opening, WIDTH - indent - used - 1
    for i, word in enumerate(words):
        word += closing if i == len(words) - 1 else ","
        gap = "" if line == opening else " "
        if len(line) + len(gap) + len(word) > room:
            yield line
            line, gap, room = " " * (indent + 2), "", WIDTH
        line += gap + word
    yield line


def _flow_parts(value: Any) -> list[str] | None:
    """What stands on one line: an opening, the parts, a closing; None where it has to be a
    block. A scalar is all opening."""
    if isinstance(value, Mapping):
        pairs: list[str] = []
        for key, one in value.items():
            inner = _flow_list(one) if isinstance(one, list | tuple) else _flow_scalar(one)
            if inner is None or not isinstance(key, str) or len(key) > _MAX_PLAIN_KEY:
                return None
            pairs.append(f"{_text(key, flow=True)}: {inner}")
        return ["{", *pairs, "}"]
    if isinstance(value, list | tuple):
        words = [_flow_scalar(one) for one in value]
        return None if None in words else ["[", *(word for word in words if word), "]"]
    return [_scalar(value, flow=False), ""]


def _flow_list(values: list[Any] | tuple[Any, ...]) -> str | None:
    parts = _flow_parts(values)
    return _joined(parts) if parts else None


def _joined(parts: list[str]) -> str:
    return parts[0] + ", ".join(parts[1:-1]) + parts[-1]


def _flow_scalar(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return None if value else "{}"
    if isinstance(value, list | tuple):
        return None if value else "[]"
    if isinstance(value, str) and "\n" in value:
        return None
    return _scalar(value, flow=True)


def _scalar(value: Any, *, flow: bool) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, str):
        return _text(value, flow=flow)
    raise TypeError(f"cannot be written as YAML: {type(value).__name__}")


def _float(value: float) -> str:
    """Shortest digits that read back the same. PyYAML takes ``1e-05`` for text, so small
    numbers are written out and the rest get a dot and a sign: ``0.00001``, ``1.0e+22``."""
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else (".inf" if value > 0 else "-.inf")
    text = repr(float(value))
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    if -10 < int(exponent) < 0:
        return f"{Decimal(text):f}"
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{mantissa}e{int(exponent):+03d}"


def _text(text: str, *, flow: bool) -> str:
    if _is_plain(text, flow):
        return text
    if "\\" not in text and '"' not in text and text.isprintable():
        return f'"{text}"'
    if text.isprintable() and "'" not in text:
        return f"'{text}'"
    return '"' + "".join(map(_escaped, text)) + '"'


def _is_plain(text: str, flow: bool) -> bool:
    """Whether ``text`` means itself without quotes, to YAML 1.1 and 1.2 readers alike."""
    if not _START.match(text) or not text.isprintable() or text.endswith(" "):
        return False
    if _BREAKS_BLOCK.search(text) or (flow and _BREAKS_FLOW.search(text)):
        return False
    if _NUMBER.fullmatch(text) or _TRUTH.fullmatch(text):
        return False
    return not any(pattern.match(text) for _, pattern in _RESOLVERS.get(text[0], []))


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    if code < 0x100:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _fits_literal(text: str) -> bool:
    """Whether a literal block holds ``text`` exactly, and shows all of it."""
    lines = text.removesuffix("\n").split("\n")
    return (
        "\n" in text
        and bool(lines[-1].strip())
        and all(line.replace("\t", "").isprintable() for line in lines)
    )


def _literal(text: str, indent: int) -> Iterator[str]:
    starts_blank = text[0] in " \t\n"
    yield "|" + ("2" if starts_blank else "") + ("" if text.endswith("\n") else "-")
    for line in text.removesuffix("\n").split("\n"):
        yield " " * indent + line if line else ""
