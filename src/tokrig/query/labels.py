"""What people call a mode and a backend: the same words in lists, comparisons and on pages. Pure.

Without the record's model, which takes a while to load: lists of records do without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tokrig.record import names

if TYPE_CHECKING:
    from tokrig.record.model import BackendFacts, Result

BASELINE = "baseline"
# Parts of a mode's name; other parts, such as a power profile, are called what they are.
_PARTS = {
    "ngram": "n-gram speculation",
    "draft": "draft-model speculation",
    "mtp": "MTP",
    "eagle": "EAGLE",
    "reasoning-off": "reasoning off",
    "reasoning-on": "reasoning on",
}


def mode(name: str) -> str:
    """``n-gram speculation, reasoning off`` for ``ngram+reasoning-off``."""
    return ", ".join(_PARTS.get(part, part) for part in re.split(r"\s*\+\s*", name))


def mode_besides(name: str) -> str:
    """The same, and nothing for the baseline, which is the absence of a mode."""
    return "" if name == BASELINE else mode(name)


def accepted_percent(result: Result) -> int | None:
    """Accepted / drafted tokens in whole percent; None where nothing was drafted."""
    found = result.speculative
    if found is None or not found.drafted_tokens:
        return None
    return round(100 * found.accepted_tokens / found.drafted_tokens)


def accepted(results: Iterable[Result]) -> str:
    """``52 % accepted``, ``31–64 % accepted`` over several shapes, or nothing."""
    known = [share for result in results if (share := accepted_percent(result)) is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    return f"{low} % accepted" if low == high else f"{low}–{high} % accepted"


def how(name: str, results: Iterable[Result]) -> str:
    """``n-gram speculation, 52 % accepted``; nothing for the baseline."""
    called = mode_besides(name)
    return ", ".join(filter(None, (called, accepted(results)))) if called else ""


def backend(backend: BackendFacts) -> str:
    """``llama.cpp b9174 (vulkan) via lemonade 11.7.0``, ``llama.cpp b9174 (cpu, vulkan asked)``.

    What was asked for is said only where something else computed.
    """
    asked = backend.api_asked
    if asked not in (None, backend.api):
        api = ", ".join(filter(None, (backend.api, f"{asked} asked")))
        backend = backend.model_copy(update={"api": api})
    name = names.backend_name(backend)
    return f"{name} via {backend.wrapper}" if backend.wrapper else name
