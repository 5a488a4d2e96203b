"""YAML documents: read with line numbers, checked against a model, written for people.

Read is YAML 1.1 as PyYAML's safe loader knows it, with four differences: duplicate keys are
errors, aliases are errors (they can blow a small file up without end), nesting has a limit, and
dates stay text, because no model here has a date type. Written is a subset that every YAML
reader takes the same way, and large texts of that subset are read by a faster parser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import yaml

from tokrig.errors import InputError, SpecError, did_you_mean
from tokrig.yaml_writer import dump

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML built without libyaml
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

__all__ = ["dump", "lines_of", "parse", "validate"]

# Loaded where it is needed: lists of records parse, and validate nothing.
if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

M = TypeVar("M", bound="BaseModel")
Place = tuple[int | str, ...]

MAX_NESTING = 100
MAX_LISTED = 10
_SUSPICIOUS = 5000
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Loader(_SafeLoader):
    """The safe loader with duplicate keys refused and dates left as text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) != len(keys):
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        reason = f"duplicate key {key.value!r}"
                        raise yaml.MarkedYAMLError(problem=reason, problem_mark=key.start_mark)
                    seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
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


def _text(char: str, end: str) -> str:
    """Text, quoted or such that nobody takes it for anything else; ``end`` is what may follow."""
    return rf"(?:{_QUOTED}|(?!(?:{_TYPED})(?:{end}))(?={_START}){char}++(?: {char}++)*+)"


_NO_TEXT = rf"(?:{_NUMBER}|true|false|null)"
_KEY = _text(_FLOW_CHAR, ":")
_LINE_END = r"\n"
_FLOW_END = r"[,\]}]"
_IN_FLOW = rf"(?:{_NO_TEXT}(?={_FLOW_END})|{_text(_FLOW_CHAR, _FLOW_END)})"
_LIST = rf"\[(?:{_IN_FLOW}(?:,\s++{_IN_FLOW})*+)?\]"
_PAIR = rf"{_KEY}: (?:{_IN_FLOW}|{_LIST})"
_MAP = rf"\{{(?:{_PAIR}(?:,\s++{_PAIR})*+)?\}}"
_VALUE = rf"(?:{_LIST}|{_MAP}|{_NO_TEXT}|{_text(_BLOCK_CHAR, _LINE_END)})(?=\n)"
_PROSE = rf"( *+){_KEY}: \|-?\n\1  [^ {_UNSEEN}][^{_UNSEEN}]*\n(?:(?:\1  [^{_UNSEEN}]+)?\n)*+"
_LINE = rf"\n|#[^{_UNSEEN}]*\n| *+(?:- )?+(?:{_KEY}:(?: {_VALUE})?|{_VALUE})\n"
_SIMPLE = re.compile(rf"(?:{_LINE}|{_PROSE})*+")
# A small text is parsed before the faster parser is even loaded.
_WORTH_IT = 1500


def _parse_simple(text: str) -> Any:
    """The data of a text in simple forms; None where PyYAML has to look at it."""
    if len(text) < _WORTH_IT or not _SIMPLE.fullmatch(text):
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
        raise _unreadable(problem, text, name, error) from None
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = mark.line + 1 if mark else 1
        reason = " ".join(part for part in (problem.problem, problem.context) if part)
        raise error(f"{name}:{line}: {reason}", hint=_yaml_hint(text, line)) from None
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


def _unreadable(
    problem: yaml.reader.ReaderError, text: str, name: str, error: type[InputError]
) -> InputError:
    """A character YAML does not allow; the reader gives an offset, not a line."""
    bad = next((c for c in text if not c.isprintable() and c not in "\n\r\t\x85\ufeff"), "")
    line = text[: text.find(bad)].count("\n") + 1 if bad else 1
    return error(
        f"{name}:{line}: {problem.reason}",
        hint='write control characters as escapes in double quotes: "\\x1B"',
    )


def _yaml_hint(text: str, line: int) -> str:
    lines = text.splitlines()
    if line <= len(lines) and "\t" in lines[line - 1]:
        return "indent with spaces, not tabs"
    return ""


def validate(
    model: type[M], data: Any, text: str, name: str, error: type[InputError] = SpecError
) -> M:
    """``data`` as a ``model``. ``text`` is the YAML it came from, or "" where there is none.

    Raises ``error`` naming file and line of everything that is wrong (the first ten).
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(data)
    except ValidationError as invalid:
        root = yaml.compose(text, Loader=_Loader) if text else None
        found = [
            (_line(root, detail), _message(detail), _hint(model, detail))
            for detail in invalid.errors(include_url=False)
        ]
    found.sort(key=lambda one: one[0])
    messages = [
        f"{name}:{line}: {reason}" if text else f"{name}: {reason}" for line, reason, _ in found
    ]
    if len(messages) > MAX_LISTED:
        messages[MAX_LISTED:] = [f"… and {len(messages) - MAX_LISTED} more"]
    hints = dict.fromkeys(hint for _, _, hint in found[:MAX_LISTED] if hint)
    raise error("\n".join(messages), hint="\n".join(hints))


def lines_of(text: str, places: Sequence[Place]) -> list[int]:
    """The lines of keys or items in a YAML text, or of the nearest blocks around them."""
    root = yaml.compose(text, Loader=_Loader)
    return [_line_at(root, place) for place in places]


def _line(root: yaml.Node | None, detail: ErrorDetails) -> int:
    return _line_at(root, detail["loc"])


def _line_at(root: yaml.Node | None, place: Place) -> int:
    """The line of the key or item at ``place``, or of the nearest block around it."""
    line, node = 1, root
    for part in place:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, node = key.start_mark.line + 1, value
                    break
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _message(detail: ErrorDetails) -> str:
    """What is wrong, in the words of a file: keys and values, not fields and inputs."""
    *parents, last = detail["loc"] or ("",)
    where = _dotted(tuple(parents))
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return f"unknown key {str(last)!r}" + (f" in {where}" if where else "")
    if kind == "missing":
        return f"missing key {str(last)!r}" + (f" in {where}" if where else "")
    place = _dotted(detail["loc"])
    prefix = f"{place}: " if place else ""
    if kind in ("value_error", "assertion_error"):
        # The validator wrote the message; it may have had a reason to leave the value out.
        return prefix + detail["msg"].split(", ", 1)[-1]
    if kind in ("model_type", "model_attributes_type"):
        return f"{prefix}should be a mapping of keys, not {_shown(value)}"
    reason = detail["msg"].replace("Input should", "should", 1)
    return f"{prefix}{reason}, not {_shown(value)}"


def _dotted(place: Place) -> str:
    """``results[0].ttft_s``: the path as people write it."""
    dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return dotted.removeprefix(".")


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
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
    block = _block(owner)
    return did_you_mean(str(last), _keys(block)) if block else ""


def _keys(block: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in block.model_fields.items()]


def _block(annotation: Any) -> type[BaseModel] | None:
    """The model inside ``Model``, ``Model | None`` or ``Annotated[Model, …]``."""
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, dict, tuple):
        return None
    return next((b for b in map(_block, get_args(annotation)) if b), None)


def _inside(annotation: Any, part: int | str) -> Iterator[Any]:
    """The annotation one step down an error's path."""
    block = _block(annotation)
    if block:
        for name, field in block.model_fields.items():
            if part in (name, field.alias):
                yield field.annotation
        return
    if get_origin(annotation) in (list, dict, tuple):
        yield get_args(annotation)[-1]
    else:
        for argument in get_args(annotation):
            yield from _inside(argument, part)
