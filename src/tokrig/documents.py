"""YAML documents: read with line numbers, checked against a model, written for people.

Read is YAML 1.1 as PyYAML's safe loader knows it, with four differences: duplicate keys are
errors, aliases are errors (they can blow a small file up without end), nesting has a limit, and
dates stay text, because no model here has a date type. Written is a subset that every YAML
reader takes the same way, and large texts of that subset are read by a faster parser.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import yaml

from tokrig.errors import InputError, SpecError, did_you_mean

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML built without libyaml
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

# Loaded where it is needed: lists of records parse, and validate nothing.
if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

M = TypeVar("M", bound="BaseModel")
Place = tuple[int | str, ...]

MAX_NESTING = 100
MAX_LISTED = 10
_SUSPICIOUS = 5000
_RESOLVERS = _SafeLoader.yaml_implicit_resolvers


class _Loader(_SafeLoader):
    """The safe loader with duplicate keys refused and dates left as text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    reason = f"duplicate key {key.value!r}"
                    raise yaml.MarkedYAMLError(problem=reason, problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in _RESOLVERS.items()
}

# What the faster parser is trusted with: the forms that ``dump`` writes, of whose plain scalars
# YAML 1.1 makes what JSON does. Anything else is PyYAML's, errors with their lines among it.
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:e[-+][0-9]+)?)?"
_TYPED = (
    r"~|(?i:yes|no|on|off|true|false|null|nan|inf|infinity)|[-+]?\.(?i:inf|nan)"
    r"|[-+]?\.?[0-9][0-9_]*+(?::[0-9]++)*+(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?"
    r"|0[xXoObB][0-9a-fA-F_]+"
)
_UNSEEN = r"\x00-\x1f\x7f-\xa0\xad\u200b-\u200f\u2028-\u202e\ud800-\udfff\ufeff\ufffe\uffff"
_QUOTED = rf'"(?:[^"\\{_UNSEEN}]|\\["\\nt])*+"|\'[^\'{_UNSEEN}]*+\''
_FLOW_CHAR = rf"[^ #,:\[\]{{}}{_UNSEEN}]"
_BLOCK_CHAR = rf"(?:[^ #:{_UNSEEN}]|:(?=[^ {_UNSEEN}])|(?<=[^ ])#)"
_START = r"(?:[^\W_]|[_./(~+$\\]|--?[A-Za-z])"


def _text_like(char: str, end: str) -> str:
    """Text, quoted or such that nobody takes it for anything else; ``end`` is what may follow."""
    return rf"(?:{_QUOTED}|(?!(?:{_TYPED})(?:{end}))(?={_START}){char}++(?: {char}++)*+)"


_NO_TEXT = rf"(?:{_NUMBER}|true|false|null)"
_KEY = _text_like(_FLOW_CHAR, ":")
_FLOW_END, _BLOCK_END = r"[,\]}]", r"\n"
_IN_FLOW = rf"(?:{_NO_TEXT}(?={_FLOW_END})|{_text_like(_FLOW_CHAR, _FLOW_END)})"
_LIST = rf"\[(?:{_IN_FLOW}(?:,\s++{_IN_FLOW})*+)?\]"
_PAIR = rf"{_KEY}: (?:{_IN_FLOW}|{_LIST})"
_MAP = rf"\{{(?:{_PAIR}(?:,\s++{_PAIR})*+)?\}}"
_VALUE = rf"(?:{_LIST}|{_MAP}|{_NO_TEXT}|{_text_like(_BLOCK_CHAR, _BLOCK_END)})(?=\n)"
_PROSE = rf"( *+){_KEY}: \|-?\n\1  [^ {_UNSEEN}][^{_UNSEEN}]*\n(?:(?:\1  [^{_UNSEEN}]+)?\n)*+"
_LINE = rf"\n|#[^{_UNSEEN}]*\n| *+(?:- )?+(?:{_KEY}:(?: {_VALUE})?|{_VALUE})\n"
_SIMPLE = rf"(?:{_LINE}|{_PROSE})*+"
# When the first text needs it: this one takes 30 ms.
_compiled = functools.cache(re.compile)
# A small text is parsed before the faster parser is even loaded.
_WORTH_IT = 1500


def _parse_simple(text: str) -> Any:
    """The data of a text in simple forms; None where PyYAML has to look at it."""
    if len(text) < _WORTH_IT or not _compiled(_SIMPLE).fullmatch(text):
        return None
    import ryml

    try:
        return json.loads(
            ryml.emit_json(ryml.parse_in_arena(text.encode())), object_pairs_hook=_without_twins
        )
    except (ryml.ExceptionBasic, ValueError, TypeError, RecursionError):
        return None


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def read_text(path: Path, error: type[InputError], *, hint: str = "", most: int = -1) -> str:
    """The text of a file, at most ``most`` characters of it. Raises ``error``, with ``hint`` where
    it cannot be opened."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(most)
    except UnicodeDecodeError as problem:
        reason = f"not UTF-8 text (byte {problem.start})"
        raise error(f"{path}: {reason}", hint="save it as UTF-8") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror or problem}", hint=hint) from None


def parse(text: str, name: str, error: type[InputError] = SpecError) -> Any:
    """The data of one YAML document; None for an empty one.

    Raises ``error`` with ``name:line: reason`` for anything that is not one plain document.
    """
    if simple := _parse_simple(text):
        return simple
    try:
        _refuse_bombs(text)
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as problem:
        # The reader gives an offset, not a line.
        bad = next((c for c in text if not c.isprintable() and c not in "\n\r\t\x85\ufeff"), "")
        line = text[: text.find(bad)].count("\n") + 1 if bad else 1
        raise error(
            f"{name}:{line}: {problem.reason}",
            hint='write control characters as escapes in double quotes: "\\x1B"',
        ) from None
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = mark.line if mark else 0
        reason = " ".join(filter(None, (problem.problem, problem.context)))
        tabbed = any("\t" in one for one in text.splitlines()[line : line + 1])
        hint = "indent with spaces, not tabs" if tabbed else ""
        raise error(f"{name}:{line + 1}: {reason}", hint=hint) from None
    except RecursionError:
        raise error(f"{name}: nested too deeply") from None
    except (ValueError, KeyError, AttributeError, TypeError) as problem:
        # The safe constructors let these through for "!!int foo" and the like, without a mark.
        raise error(
            f"{name}: a value does not fit its tag: {problem}", hint="remove the '!!' tag"
        ) from None


def _refuse_bombs(text: str) -> None:
    """Raises MarkedYAMLError for aliases and deep nesting.

    libyaml's composer recurses on the C stack and takes the process down with it at some
    30,000 levels; its event parser does not recurse. Records come from strangers, so the events
    are looked at first, but only where the text could hold such a thing at all.
    """
    alias = "*" in text and "&" in text
    deep = sum(text.count(mark) for mark in "[{:-?") > _SUSPICIOUS
    if not (alias or deep):
        return
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        problem = ""
        if isinstance(event, yaml.AliasEvent):
            problem = f"the alias '*{event.anchor}' is not allowed: write the value out"
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_NESTING:
                problem = f"nested more than {MAX_NESTING} levels deep"
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if problem:
            mark: Any = event.start_mark
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def validate(
    model: type[M],
    data: Any,
    text: str,
    name: str,
    error: type[InputError] = SpecError,
    names: Mapping[str, str] = MappingProxyType({}),
) -> M:
    """``data`` as a ``model``. ``text`` is the YAML it came from, or "" where there is none;
    ``names`` are what its keys are called where they came from elsewhere.

    Raises ``error`` naming file and line of everything that is wrong (the first ten).
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(data)
    except ValidationError as invalid:
        details = invalid.errors(include_url=False)
    where = [name] * len(details)
    if text:
        lines = lines_of(text, [detail["loc"] for detail in details])
        found = sorted(zip(lines, details, strict=True), key=lambda one: one[0])
        details = [detail for _, detail in found]
        where = [f"{name}:{line}" for line, _ in found]
    messages = [
        ": ".join(filter(None, (at, _message(one, names))))
        for at, one in zip(where, details, strict=True)
    ]
    if len(messages) > MAX_LISTED:
        messages[MAX_LISTED:] = [f"… and {len(messages) - MAX_LISTED} more"]
    hints = dict.fromkeys(_hint(model, detail) for detail in details[:MAX_LISTED])
    raise error("\n".join(messages), hint="\n".join(filter(None, hints)))


def lines_of(text: str, places: Sequence[Place]) -> list[int]:
    """The lines of keys or items in a YAML text, or of the nearest blocks around them."""
    root = yaml.compose(text, Loader=_Loader)
    return [_line_at(root, place) for place in places]


def _line_at(node: yaml.Node | None, place: Place) -> int:
    line = 1
    for part in place:
        inside: list[tuple[yaml.Node, yaml.Node]] = []
        if isinstance(node, yaml.MappingNode):
            inside = [pair for pair in node.value if pair[0].value == str(part)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            inside = [(item, item) for item in node.value[part : part + 1]]
        if inside:
            at, node = inside[0]
            line = at.start_mark.line + 1
    return line


def _message(detail: ErrorDetails, names: Mapping[str, str]) -> str:
    """What is wrong, in the words of a file: keys and values, not fields and inputs."""
    kind, value, reason = detail["type"], detail["input"], detail["msg"]
    if kind in ("extra_forbidden", "missing"):
        *parents, last = detail["loc"]
        inside = f" in {_dotted(parents)}" if parents else ""
        return f"{'missing' if kind == 'missing' else 'unknown'} key {str(last)!r}{inside}"
    place = names.get(str(next(iter(detail["loc"]), ""))) or _dotted(detail["loc"])
    prefix = f"{place}: " if place else ""
    if kind in ("value_error", "assertion_error"):
        # The validator wrote the message; it may have had a reason to leave the value out.
        reason = reason.split(", ", 1)[-1]
        if not place:  # about several keys, which it names
            reason = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), reason)
        return prefix + reason
    if kind in ("model_type", "model_attributes_type"):
        reason = "should be a mapping of keys"
    return f"{prefix}{re.sub('^[A-Z][a-z]+ should', 'should', reason)}, not {_shown(value)}"


def _dotted(place: Sequence[int | str]) -> str:
    """``results[0].ttft_s``: the path as people write it."""
    dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return dotted.removeprefix(".")


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value).removesuffix(".0")
    return text if len(text) <= 40 else text[:39] + "…"


def _hint(model: type[BaseModel], detail: ErrorDetails) -> str:
    if detail["type"] == "string_type" and isinstance(detail["input"], bool | int | float):
        return "put the value in quotes to make it text"
    if detail["type"] != "extra_forbidden":
        return ""
    *parents, last = detail["loc"]
    owner: Any = model
    for part in parents:
        owner = next(_inside(owner, part), None)
    keys = _keys(owner)
    return did_you_mean(str(last), keys) if keys else ""


def _keys(annotation: Any) -> dict[str, Any]:
    """Key → annotation of the model inside ``Model``, ``Model | None``, ``Annotated[Model, …]``."""
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {one.alias or name: one.annotation for name, one in annotation.model_fields.items()}
    if get_origin(annotation) in (list, dict, tuple):
        return {}
    return next(filter(None, map(_keys, get_args(annotation))), {})


def _inside(annotation: Any, part: int | str) -> Iterator[Any]:
    """The annotation one step down an error's path."""
    if keys := _keys(annotation):
        if part in keys:
            yield keys[str(part)]
    elif get_origin(annotation) in (list, dict, tuple):
        yield get_args(annotation)[-1]
    else:
        for argument in get_args(annotation):
            yield from _inside(argument, part)


# Written: order is kept. A small map stands on one line, a list of words fills its lines, text of
# several lines is a literal block. Nothing depends on how a reader guesses types: what could be
# taken for a number, a date or a truth value is quoted. Characters nobody can see (controls,
# right-to-left marks, zero-width joiners) are escaped, so that a diff cannot hide anything.
# PyYAML's emitter breaks lines after the width and indents lists otherwise: files would change.

WIDTH = 100
_LONGEST_WORD = 60
_DEEP = 4
_MAX_PLAIN_KEY = 100

_AMOUNT = re.compile(
    r"[-+]?(?:\.[0-9_]+|[0-9][0-9_,]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|0[oOxXbB][0-9a-fA-F_]+"
)
_TRUTH = re.compile(r"(?i:yes|no|on|off|true|false|null)")
_PLAIN_START = re.compile(_START)
_BREAKS_BLOCK = re.compile(r": |:$| #|^---|^\.\.\.")
_BREAKS_FLOW = re.compile(r"[,?\[\]{}:]")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


def dump(data: Mapping[str, Any]) -> str:
    """``data`` as YAML: maps with text keys, lists, text, numbers, truth values, None. Blank lines
    stand between the large blocks of the top level. Lone surrogates, which no file can hold, become
    U+FFFD.

    Raises TypeError for any other type.
    """
    lines: list[str] = []
    was_large = False
    for key, value in data.items():
        first, *block = _pair(key, value, 0)
        if lines and (block or was_large):
            lines.append("")
        was_large = bool(block)
        starts = [place for place, line in enumerate(block) if line.startswith("  - ")]
        if isinstance(value, list | tuple) and len(starts) < len(block):
            for place in reversed(starts[1:]):
                block.insert(place, "")
        lines += [first, *block]
    return "\n".join(lines) + "\n" if lines else "{}\n"


def _pair(key: Any, value: Any, indent: int) -> Iterator[str]:
    """The lines of one key and its value."""
    pad, name = " " * indent, _key(key)
    if len(name) > _MAX_PLAIN_KEY:  # YAML reads a simple key of at most 1,024 characters
        yield f"{pad}? {name}"
        name = ""
    first, *rest = _value(value, indent, len(name) + 1)
    yield f"{pad}{name}: {first}" if first else f"{pad}{name}:"
    yield from rest


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a YAML key must be text, not {key!r}")
    return _text(key, flow=True)


def _value(value: Any, indent: int, used: int, *, is_item: bool = False) -> Iterator[str]:
    """The value's lines: the first follows ``used`` characters after ``indent``, and is empty
    where the value begins on the next."""
    if isinstance(value, str) and _fits_literal(value):
        yield from _literal(value, indent + 2)
        return
    if not isinstance(value, Mapping | list | tuple):
        yield _scalar(value, flow=False)
        return
    is_map = isinstance(value, Mapping)
    words = _words(value)
    if words is not None:
        flow = _joined(words, is_map)
        if not words or indent + used + 1 + len(flow) <= WIDTH:
            yield flow
            return
        # Facts stand one a line where they stand once; deep in a list they would drown it.
        may_fill = not is_map or (indent >= _DEEP and not is_item)
        if may_fill and max(map(len, words)) <= _LONGEST_WORD:
            yield from _filled(flow[0], words, flow[-1], indent, used)
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
    lines = _value(value, indent, 1, is_item=True)
    first = next(lines)
    if not first and isinstance(value, Mapping):
        first = next(lines).lstrip()
    dash = " " * indent + "-"
    yield f"{dash} {first}" if first else dash
    yield from lines


def _filled(opening: str, words: list[str], closing: str, indent: int, used: int) -> Iterator[str]:
    """A flow map or list over several lines, each filled up to the width."""
    line, room = opening, WIDTH - indent - used - 1
    for i, word in enumerate(words):
        word += closing if i == len(words) - 1 else ","
        gap = "" if line == opening else " "
        if len(line) + len(gap) + len(word) > room:
            yield line
            line, gap, room = " " * (indent + 2), "", WIDTH
        line += gap + word
    yield line


def _words(value: Mapping[Any, Any] | Sequence[Any]) -> list[str] | None:
    """The parts of a map or list that may stand on one line; None where it has to be a block."""
    if not isinstance(value, Mapping):
        words = [_word(one) for one in value]
        return None if None in words else [word for word in words if word is not None]
    pairs = []
    for key, one in value.items():
        name, word = _key(key), _word(one, lists=True)
        if word is None or len(key) > _MAX_PLAIN_KEY:
            return None
        pairs.append(f"{name}: {word}")
    return pairs


def _word(value: Any, *, lists: bool = False) -> str | None:
    """A value inside of a map or list on one line; of those, only empty ones and ``lists``."""
    if isinstance(value, Mapping | list | tuple):
        is_map = isinstance(value, Mapping)
        words = [] if not value else _words(value) if lists and not is_map else None
        return None if words is None else _joined(words, is_map)
    if isinstance(value, str) and "\n" in value:
        return None
    return _scalar(value, flow=True)


def _joined(words: list[str], is_map: bool) -> str:
    return f"{{{', '.join(words)}}}" if is_map else f"[{', '.join(words)}]"


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
    if not _PLAIN_START.match(text) or not text.isprintable() or text.endswith(" "):
        return False
    if _BREAKS_BLOCK.search(text) or (flow and _BREAKS_FLOW.search(text)):
        return False
    if _AMOUNT.fullmatch(text) or _TRUTH.fullmatch(text):
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
