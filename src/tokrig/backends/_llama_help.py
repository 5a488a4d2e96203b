"""The flags of one ``llama-server``, as its own ``--help`` lists them.

llama.cpp renames its flags, takes some away and goes on listing those it removed. So each flag is
looked up under all the names it ever had, and the one this build has is used.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tokrig.errors import InputError

_REMOVED = "the argument has been removed"
# Descriptions are indented by far more than flags.
_HEAD = re.compile(r"^ {0,8}(-{1,2}[A-Za-z].*)$")
_NAME = re.compile(r"(?<!\S)--?[A-Za-z][\w-]*")


@dataclass(frozen=True)
class Flag:
    """``--gpu-layers`` under all its names, with the form of its value ("" where it has none)
    and the description."""

    names: tuple[str, ...]
    value: str = ""
    about: str = ""

    @property
    def choices(self) -> tuple[str, ...]:
        """The words it takes: of ``[on|off|auto]`` or ``none,draft-simple``; else nothing."""
        words = tuple(re.split(r"[|,]", self.value.strip("[]{}")))
        return words if len(words) > 1 else ()


@dataclass(frozen=True)
class Help:
    """What a build can be told, and what it no longer can. ``binary`` is its name, for messages."""

    binary: str
    flags: Mapping[str, Flag] = field(default_factory=dict)
    removed: Mapping[str, Flag] = field(default_factory=dict)

    def find(self, *names: str) -> Flag | None:
        """The flag that goes by one of these names, without dashes; None where there is none."""
        return next((self.flags[name] for name in names if name in self.flags), None)

    def spelling(self, *names: str) -> str | None:
        """The first of these names that this build knows."""
        return next((name for name in names if name in self.flags), None)

    def require(self, *names: str) -> str:
        """``spelling``. Raises InputError naming the flag that is missing."""
        found = self.spelling(*names)
        if found is None:
            raise InputError(
                f"this {self.binary} is too old for --{names[0]}: its --help does not list it",
                hint="take a newer llama-server, or leave out what needs the flag",
            )
        return found

    def long(self, name: str) -> str:
        """The long name of a flag that a user calls by its short one (``ngl``)."""
        if name in self.flags:
            return name
        of_it = (long for long, flag in self.flags.items() if f"-{name}" in flag.names)
        return next(of_it, name)

    def same(self, name: str, other: str) -> bool:
        """Whether two names are one flag."""
        return name == other or (name in self.flags and self.find(name) is self.find(other))

    def check(self, name: str) -> None:
        """Raises InputError for an option this build does not know."""
        if name in self.flags:
            return
        if name in self.removed:
            raise InputError(
                f"this {self.binary} takes --{name} no longer", hint=self.removed[name].about
            )
        near = difflib.get_close_matches(name, self.flags, n=1)
        raise InputError(
            f"this {self.binary} knows no --{name}: its --help does not list it",
            hint=f"did you mean --{near[0]}?" if near else "it may be too old, or too new, for it",
        )


def read(binary: str, text: str) -> Help:
    """The flags in the output of ``--help``, by their long names."""
    flags: dict[str, Flag] = {}
    removed: dict[str, Flag] = {}
    for flag in _entries(text):
        of_which = removed if flag.about.startswith(_REMOVED) else flags
        of_which |= {name[2:]: flag for name in flag.names if name.startswith("--")}
    return Help(binary, flags, removed)


def _entries(text: str) -> list[Flag]:
    """A flag begins at the left; what follows further right belongs to its description."""
    heads: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if match := _HEAD.match(line):
            # Two spaces part names from the description, but also short names from long ones.
            head, *about = re.split(r"(?<![,\s])\s{2,}", match.group(1), maxsplit=1)
            heads.append((head, about))
        elif heads:
            heads[-1][1].append(line.strip())
    return [
        Flag(tuple(_NAME.findall(head)), _value(head), " ".join(about)) for head, about in heads
    ]


def _value(head: str) -> str:
    """``-ngl, --gpu-layers N`` → ``N``."""
    parts = head.split()
    return "" if parts[-1].startswith("-") else parts[-1]
