"""Whether a part of a stream bears a token: comments, pings and empty chunks do not.

Asked about twice a second, never for every token. What cannot be read (the second half of an event,
say) counts as a token: it is no heartbeat, and a stream must not be cut on a guess.
"""

from __future__ import annotations

import json
from typing import Any

# The fields of an event below which text can stand, in the dialects of all engines.
_TEXT = ("delta", "message", "text", "response", "content")


def bears_token(data: bytes) -> bool:
    """Whether any line of this piece of a body bears a token, or may."""
    return any(map(_line_bears_token, reversed(data.splitlines())))


def _line_bears_token(line: bytes) -> bool:
    name, found, value = line.partition(b":")
    if found and name.strip() in (b"", b"event", b"id", b"retry"):
        return False  # a comment, or a line about the event
    text = (value if name == b"data" else line).strip()
    if not text:
        return False
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return True
    if not isinstance(event, dict):
        return True
    if event.get("error") is not None:
        return True  # the stream has something to say, and ends
    choices = event.get("choices")
    found_in = choices if isinstance(choices, list) else [event]
    return any(
        _holds_text(one.get(key)) for one in found_in if isinstance(one, dict) for key in _TEXT
    )


def _holds_text(value: Any) -> bool:
    """Whether there is a text that is not empty anywhere below, the role left out."""
    if isinstance(value, dict):
        return any(_holds_text(v) for k, v in value.items() if k not in ("role", "type", "id"))
    if isinstance(value, list):
        return any(map(_holds_text, value))
    return isinstance(value, str) and value != ""
