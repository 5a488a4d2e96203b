"""How a model family's reasoning is switched on and off: the table ``reasoning.yaml``.

A site may add families or correct them in a file of the same form in its content folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tokrig.documents import parse, validate
from tokrig.errors import SpecError

ReasoningAsked = Literal["on", "off"]


@dataclass(frozen=True)
class Switch:
    """What is sent to get ``asked``.

    ``template``: arguments of the chat template; ``system``: a line put before the system
    message; ``user_suffix``: text put after the last user message; ``effort``: the OpenAI field
    ``reasoning_effort``; ``engine_flag``: the engine's own switch is used too. ``complete`` is
    False where the family can only think less, never not at all. ``family`` names the entry,
    None where the table has none for this model and only the engine's switches are tried.
    """

    asked: ReasoningAsked
    family: str | None = None
    template: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    user_suffix: str | None = None
    effort: str | None = None
    engine_flag: bool = True
    complete: bool = True
    source: str | None = None

    def describe(self) -> str:
        """What was sent, in a few words, for the record."""
        parts = [f"{key}={str(value).lower()}" for key, value in self.template.items()]
        if self.system:
            parts.append(f"system {self.system!r}")
        if self.user_suffix:
            parts.append(f"user suffix {self.user_suffix!r}")
        if self.effort:
            parts.append(f"reasoning_effort={self.effort}")
        if self.engine_flag:
            parts.append("the engine's own switch")
        return ", ".join(parts)


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Position(_Block):
    """One position of a family's switch; the fields of ``Switch`` that a family decides."""

    template: dict[str, bool | int | str] = {}
    system: str | None = None
    user_suffix: str | None = None
    effort: str | None = None
    engine_flag: bool = True
    complete: bool = True


class Entry(_Block):
    """A family: which names are its, and what is sent to switch its reasoning.

    Not ``off`` and ``on``: YAML takes those words for false and true.
    """

    family: str
    match: str
    disable: Position
    enable: Position
    source: str

    @field_validator("match")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if re.search(pattern, ""):
            raise ValueError("this regular expression matches every model")
        return pattern

    def matches(self, names: Sequence[str]) -> bool:
        """Whether any of a model's names is this family's."""
        return any(re.search(self.match, name, re.IGNORECASE) for name in names)


class Marker(_Block):
    """How a family's thoughts stand in plain content: the texts that open and close them.

    ``prose``: words that may stand in any answer; they mark a thought only where both are there.
    """

    family: str
    open: str = Field(min_length=1)
    close: str = Field(min_length=1)
    prose: bool = False
    source: str


class _Table(_Block):
    families: list[Entry]
    markers: list[Marker] = []


def table(extra: Path | None = None) -> list[Entry]:
    """The packaged families, those of the file ``extra`` in front of them: they win.

    Raises SpecError with ``file:line`` for what is wrong in ``extra``.
    """
    return (_own(extra) if extra else []) + _packaged().families


@cache
def markers() -> tuple[Marker, ...]:
    """The packaged spellings of a thought in plain content."""
    return tuple(_packaged().markers)


@cache
def _packaged() -> _Table:
    name = "reasoning.yaml"
    text = files("tokrig.spec").joinpath(name).read_text(encoding="utf-8")
    return validate(_Table, parse(text, name), text, name)


def switch_for(asked: ReasoningAsked, names: Sequence[str], table: Sequence[Entry]) -> Switch:
    """What to send to get ``asked`` from the model of these ``names``.

    ``names``: all that it is called, family, architecture, base model, file name. The first
    entry that matches one of them decides; without any only the engine's own switch is used.
    """
    entry = next((entry for entry in table if entry.matches(names)), None)
    if entry is None:
        return Switch(asked)
    position = entry.disable if asked == "off" else entry.enable
    return Switch(asked, family=entry.family, source=entry.source, **dict(position))


def _own(path: Path) -> list[Entry]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SpecError(
            f"{path.name}: cannot be read: {reason}", hint="check the path and its rights"
        ) from error
    return validate(_Table, parse(text, path.name), text, path.name).families
