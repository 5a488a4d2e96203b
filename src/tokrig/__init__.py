"""tokrig measures how fast open-weight language models run on the machines people own.

``tokrig.load()`` has the results of a content folder for Python: see docs/query.md.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``load``, imported when it is asked for: importing tokrig itself costs nothing."""
    if name == "load":
        return importlib.import_module("tokrig.query").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
