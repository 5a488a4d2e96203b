"""What is installed: parts by name, and the commands that add what is missing.

A part is one file exposing one constant (``BACKEND``, ``WORKLOAD``, ``PROBE``…). The folder is
listed without importing anything; a part is imported when it is asked for. Files whose names
begin with an underscore are shared code, not parts. Other packages add parts by entry points.
"""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokrig.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def names(package: str) -> list[str]:
    """Names of all parts of ``package`` ("backends"), own ones and those of entry points."""
    folder = Path(__file__).parent.joinpath(*package.split("."))
    own = [m.name for m in pkgutil.iter_modules([str(folder)]) if not m.name.startswith("_")]
    return sorted({*own, *added(package)})


def added(package: str) -> dict[str, EntryPoint]:
    """The parts of other packages, by name."""
    return _added(package, tuple(sys.path))


@functools.cache
def _added(package: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Looking through all that is installed on ``path`` takes its time, so it is done once."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=f"tokrig.{package}")}


def load(package: str, name: str, constant: str) -> Any:
    """The part called ``name``.

    Raises InputError (with the nearest known name) when there is none.
    """
    if name not in (known := names(package)):
        what = package.removesuffix("s")
        raise InputError(f"unknown {what} {name!r}", hint=did_you_mean(name, known))
    if name in (others := added(package)):
        return others[name].load()
    return getattr(importlib.import_module(f"tokrig.{package}.{name}"), constant)


@functools.cache
def _installation() -> tuple[str, str]:
    """How tokrig was installed (``checkout``, ``uv``, ``pipx`` or ``pip``), and what an installer
    wants after ``tokrig[extra]``."""
    from importlib import metadata

    try:
        origin = json.loads(metadata.distribution("tokrig").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        origin = {}
    if origin.get("dir_info", {}).get("editable"):
        return "checkout", ""
    url, vcs = origin.get("url", ""), origin.get("vcs_info", {}).get("vcs")
    source = f" @ {vcs}+{url}" if vcs else f" @ {url}" if url else ""
    for receipt, tool in (("uv-receipt.toml", "uv"), ("pipx_metadata.json", "pipx")):
        if Path(sys.prefix, receipt).exists():
            return tool, source
    return "pip", source


def get_extra(extra: str) -> str:
    """The command that adds an extra to this installation of tokrig."""
    tool, source = _installation()
    wanted = f"'tokrig[{extra}]{source}'"
    return {
        "checkout": f"in tokrig's checkout: uv sync --inexact --extra {extra}",
        "uv": f"uv tool install --force {wanted}",
        "pipx": f"pipx install --force {wanted}",
        "pip": f"{sys.executable} -m pip install {wanted}",
    }[tool]


def get_package(words: str) -> str:
    """The command that installs a package beside tokrig; ``words`` are what pip is given."""
    return {
        "checkout": f"in tokrig's checkout: uv pip install {words}",
        "uv": f"uv pip install --python {sys.executable} {words}",
        "pipx": f"pipx runpip tokrig install {words}",
        "pip": f"{sys.executable} -m pip install {words}",
    }[_installation()[0]]


@functools.cache
def program() -> str:
    """What the user types for ``tokrig``: its path where the shell would not find it."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{Path(sys.executable).name} -m tokrig"
    found = shutil.which("tokrig")
    by_name = called.name != "tokrig" or (found and Path(found).resolve() == called.resolve())
    return "tokrig" if by_name else sys.argv[0]
