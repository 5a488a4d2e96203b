"""What no probe can read: facts about models and rigs that people wrote down, and old addresses.

    content/models/<family>.yaml     when a family was released, what its variants can do
    content/rigs/<rig>.md            prose about a machine, its bandwidths in the front matter
    content/site.yaml                where the site is published
    content/redirects.yaml           addresses of pages that have moved
    content/urls.txt                 addresses that were published and have to stay

All of it is optional. ``docs/content.md`` describes every key.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, RootModel

from tokrig.documents import parse, read_text, validate
from tokrig.errors import InputError
from tokrig.naming import address
from tokrig.record.block import Block, Count
from tokrig.record.model import Cpu, Gpu, Memory
from tokrig.units import slug

MAX_CHARACTERS = 200_000
MAX_URLS_CHARACTERS = 20_000_000  # a list of every page of a big site
MAX_ADDRESS = 200
# Lower case alone: two addresses that differ in case are one file on many disks.
_ADDRESS = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)*")
# Nothing that would need escaping in a page, in Markdown or in an attribute.
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?:/[A-Za-z0-9._~%/-]*)?(?:[?#].*)?")
_MONTH = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")


def _month(text: str) -> str:
    if not _MONTH.fullmatch(text):
        raise ValueError(f"{text[:20]!r} is no month: write it as 2026-04")
    return text


def _address(text: str) -> str:
    if len(text) > MAX_ADDRESS or not _ADDRESS.fullmatch(text):
        raise ValueError(
            f"{text[:60]!r} is no address inside the site: write it as models/gemma-3.html"
        )
    return text


def site_url(text: str) -> str:
    """The address of a published site as a folder: ``https://example.org/bench/``.

    Raises ValueError for what is no absolute address of a folder on the web.
    """
    shown = f"{text[:60]!r} is no address of a site"
    if len(text) > MAX_ADDRESS or not _URL.fullmatch(text) or not _is_host(text):
        raise ValueError(f"{shown}: write the whole of it, as https://example.org/bench/")
    if "?" in text or "#" in text:
        raise ValueError(f"{shown}: leave out what follows {'?' if '?' in text else '#'}")
    if text.endswith((".html", ".htm")):
        raise ValueError(f"{shown}: name the folder, not a page in it")
    return text.rstrip("/") + "/"


def _is_host(text: str) -> bool:
    """Whether an address names a host and, where it does, a port that there can be."""
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        return False


Month = Annotated[str, AfterValidator(_month)]
Address = Annotated[str, AfterValidator(_address)]
SiteUrl = Annotated[str, AfterValidator(site_url)]
PerSecond = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Variant(Block):
    """One variant of a family. ``context`` is in tokens, ``checkpoint`` the repository of the
    original weights, ``commit`` the state of it."""

    summary: str | None = None
    context: Count | None = None
    capabilities: list[str] = Field(default_factory=list)
    checkpoint: str | None = None
    commit: str | None = None


class Family(Block):
    """A family of models. ``released`` is the month of its first release, ``YYYY-MM``;
    ``summary`` is Markdown; ``variants`` go by the names that records use."""

    family: str
    released: Month | None = None
    summary: str | None = None
    variants: dict[str, Variant] = Field(default_factory=dict)


class Rate(Block):
    """One capacity of a machine: as measured, as the makers state it, and where both are from."""

    measured: PerSecond | None = None
    theoretical: PerSecond | None = None
    source: str | None = None


class Hardware(Block):
    """What a user states of a machine that tokrig cannot look at; the blocks are a record's."""

    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    gpus: list[Gpu] = Field(default_factory=list)
    os: str | None = None
    kernel: str | None = None
    virtualization: str | None = None


class RigFigures(Block):
    """The front matter of a rig's page: a short label, bytes and operations a second."""

    name: str | None = None
    hardware: Hardware | None = None
    memory_bandwidth_bytes_per_s: Rate | None = None
    matrix_flop_per_s: Rate | None = None

    @property
    def bandwidth(self) -> float | None:
        """The highest bandwidth that is written down, bytes/s."""
        told = self.memory_bandwidth_bytes_per_s
        known = [one for one in (told.measured, told.theoretical) if one] if told else []
        return max(known, default=None)


class RigFacts(RigFigures):
    """All that is written about a rig; ``prose`` is Markdown."""

    prose: str = ""


class Published(Block):
    """Where the site is published: ``url`` is its folder on the web, with a slash at the end.
    ``pictures_of_runs``: every run has a picture of its own for previews of its link."""

    url: SiteUrl | None = None
    pictures_of_runs: bool = False


class _Redirects(RootModel[dict[Address, Address]]):
    pass


def load_families(content: Path) -> dict[str, Family]:
    """The families under ``models``, by name.

    Raises InputError with file and line for what is no family, or lies in another's file.
    """
    families = {}
    for path in _files(content / "models", "*.yaml"):
        text = _text(path)
        family = validate(Family, parse(text, str(path), InputError), text, str(path), InputError)
        if path.stem != address(family.family):
            raise InputError(
                f"{path}: not the file of the family {family.family[:60]!r}",
                hint=f"rename it to {address(family.family)}.yaml, or correct its 'family'",
            )
        families[family.family] = family
    return families


def load_rigs(content: Path) -> dict[str, RigFacts]:
    """What is written under ``rigs``, by the rig's id.

    Raises InputError with file and line for a broken front matter or a name that is no id.
    """
    rigs = {}
    for path in _files(content / "rigs", "*.md"):
        if path.stem != slug(path.stem):
            raise InputError(
                f"{path}: {path.stem[:60]!r} cannot be the id of a rig",
                hint="name the file after the rig's id, as 'tokrig rig' shows it",
            )
        front, prose = _front_matter(_text(path), path)
        data = parse(front, str(path), InputError)
        figures = validate(RigFigures, {} if data is None else data, front, str(path), InputError)
        rigs[path.stem] = RigFacts(**dict(figures), prose=prose)
    return rigs


def load_site(content: Path) -> Published:
    """What ``site.yaml`` says. Raises InputError with file and line for what is no address."""
    path = content / "site.yaml"
    text = _text(path) if path.exists() else ""
    data = parse(text, str(path), InputError)
    return validate(Published, {} if data is None else data, text, str(path), InputError)


def load_redirects(content: Path) -> dict[str, str]:
    """Old addresses and where those pages are now, both relative to the site.

    Raises InputError for an address that leads out of the site and for redirects in a circle.
    """
    path = content / "redirects.yaml"
    text = _text(path) if path.exists() else ""
    data = parse(text, str(path), InputError)
    known = validate(_Redirects, {} if data is None else data, text, str(path), InputError).root
    _refuse_circles(known, path)
    return known


def load_published(content: Path) -> list[str]:
    """The addresses in ``urls.txt``, one a line; what follows a ``#`` is a comment.

    Raises InputError with file and line for what is no address inside the site.
    """
    path = content / "urls.txt"
    found = []
    text = _text(path, MAX_URLS_CHARACTERS) if path.exists() else ""
    for number, line in enumerate(text.splitlines(), 1):
        url = line.partition("#")[0].strip()
        try:
            found += [_address(url)] if url else []
        except ValueError as problem:
            raise InputError(f"{path}:{number}: {problem}") from None
    return found


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def _text(path: Path, most: int = MAX_CHARACTERS) -> str:
    """A file's text. Raises InputError for a huge one and for one that cannot be read."""
    text = read_text(path, InputError, most=most + 1)
    if len(text) > most:
        raise InputError(
            f"{path}: longer than {most:,} characters", hint="a page of facts is enough"
        )
    return text


def _front_matter(text: str, path: Path) -> tuple[str, str]:
    """The YAML between two lines ``---`` at the top, and the Markdown after it.

    The first ``---`` becomes an empty line, so that errors name the file's own lines.
    """
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        return "", text.strip()
    ends = [number for number, line in enumerate(lines) if line.rstrip() == "---"]
    if len(ends) < 2:
        raise InputError(
            f"{path}:1: the front matter does not end", hint="close it with a line '---'"
        )
    return "\n".join(["", *lines[1 : ends[1]]]) + "\n", "\n".join(lines[ends[1] + 1 :]).strip()


def _refuse_circles(redirects: dict[str, str], path: Path) -> None:
    settled: set[str] = set()
    for old in redirects:
        way: dict[str, None] = {}
        here = old
        while here in redirects and here not in settled:
            if here in way:
                raise InputError(
                    f"{path}: {here} is redirected back to itself",
                    hint="let one of them lead to a page that exists",
                )
            way[here] = None
            here = redirects[here]
        settled.update(way)
