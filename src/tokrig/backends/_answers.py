"""Parts of a server's JSON answer, whatever the server sent in their place."""

from __future__ import annotations

from typing import Any


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
