"""Parts by name: a folder of modules plus the entry points of other packages.

A part is one file exposing one constant (``BACKEND``, ``WORKLOAD``, ``PROBE``…). The folder is
listed without importing anything; a part is imported when it is asked for. Files whose names
begin with an underscore are shared code, not parts.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from typing import Any

from tokrig.errors import InputError, did_you_mean


def names(package: str) -> list[str]:
    """Names of all parts of ``package`` ("backends"), own ones and those of entry points."""
    root = importlib.import_module(f"tokrig.{package}")
    own = [m.name for m in pkgutil.iter_modules(root.__path__) if not m.name.startswith("_")]
    foreign = [e.name for e in entry_points(group=f"tokrig.{package}")]
    return sorted({*own, *foreign})


def load(package: str, name: str, constant: str) -> Any:
    """The part called ``name``.

    Raises InputError (with the nearest known name) when there is none.
    """
    known = names(package)
    if name not in known:
        what = package.removesuffix("s")
        raise InputError(f"unknown {what} {name!r}", hint=did_you_mean(name, known))
    for entry in entry_points(group=f"tokrig.{package}", name=name):
        return entry.load()
    return getattr(importlib.import_module(f"tokrig.{package}.{name}"), constant)
