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


def count(value: Any) -> int | None:
    """A whole number above 0, also where it is sent as text or as 4096.0. Where 0 or less is
    impossible it is what a server says that does not know."""
    if isinstance(value, str):
        value = value.strip()
        value = int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 63
    return value if usable else None


def text(value: Any) -> str | None:
    """Text with something in it."""
    return value.strip() or None if isinstance(value, str) else None
