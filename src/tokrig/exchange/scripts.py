"""What the page of files of one's own needs to read other tools' files as this package does."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from tokrig.exchange import document, imports, machine, models, rows
from tokrig.exchange import fields as reading
from tokrig.exchange.format import DIGITS, NS, UNKNOWN_ENGINE, Format
from tokrig.models.identity import PACKED, SIZE, SPLIT
from tokrig.models.quantization import QUANT
from tokrig.record import METHODOLOGY_VERSION
from tokrig.record.block import Percentiles
from tokrig.record.imported import UNCHECKED, UNSEEN
from tokrig.record.metrics import METRICS
from tokrig.rig import HIDDEN_SHARE, MEMORY_SIZES_GB, SMALL_VRAM
from tokrig.units import GIB

_PATTERNS = {
    "number": reading.NUMBER,
    "decimals": reading.OTHER_DECIMALS,
    "path": reading.PATH,
    "address": reading.ADDRESS,
    "insert": document.INSERT,
    "printed": document.PRINTED,
    "rule": document.RULE,
    "line": rows.PRINTED,
    "duration": rows.DURATION,
    "metric": rows.METRIC,
    "described": models.DESCRIBED,
    "size": SIZE,
    "packed": PACKED,
    "split": SPLIT,
    "quant": QUANT,
}
_FLAGS = {re.I: "i", re.M: "m"}


def handed_over() -> dict[str, Any]:
    """Formats as plain data, patterns as ``[source, flags]``, limits, words."""
    return {
        "formats": [_plain(one) for one in imports.formats().values() if one.read is None],
        "patterns": {name: _pattern(one) for name, one in _PATTERNS.items()},
        "kinds": {name: metric.kind for name, metric in METRICS.items()},
        "percentiles": [*Percentiles.model_fields],
        "most": {
            "number": reading.MOST,
            "text": reading.MAX_TEXT,
            "bytes": document.MAX_BYTES,
            "rows": document.MAX_ROWS,
        },
        "digits": DIGITS,
        "gib": GIB,
        "ns": NS,
        "units": rows.UNITS,
        "vendors": machine.VENDORS,
        "quants": models.SIZES,
        "unknown_engine": UNKNOWN_ENGINE,
        "unseen": UNSEEN,
        "unchecked": sorted(UNCHECKED),
        "methodology": METHODOLOGY_VERSION,
        "likely": imports.LIKELY,
        "rig": {"sold": MEMORY_SIZES_GB, "hidden": HIDDEN_SHARE, "small": SMALL_VRAM},
    }


def _plain(of: Format) -> dict[str, Any]:
    told = {one.name: getattr(of, one.name) for one in fields(of) if one.name != "read"}
    sets = {name: sorted(one) for name, one in told.items() if isinstance(one, frozenset)}
    return {**told, **sets, "signatures": [sorted(one) for one in of.signatures]}


def _pattern(of: re.Pattern[str]) -> list[str]:
    """As JavaScript writes it."""
    flags = "".join(letter for flag, letter in _FLAGS.items() if of.flags & flag)
    return [of.pattern.replace("(?P<", "(?<"), flags]
