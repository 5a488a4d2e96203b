"""Numbers and units for people: bytes, seconds, rates, significant digits."""

from __future__ import annotations

import math
import re
from decimal import ROUND_HALF_UP, Decimal

GIB = 1024**3
MIB = 1024**2
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?(ms|s|min|m|h)")


_SIZES = {"K": 1, "M": 2, "G": 3, "T": 4}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?([KMGT])(i?)B?", re.IGNORECASE)


def bytes_of(text: str) -> int:
    """A size with its unit in bytes: ``12GiB`` and ``12G`` by 1,024, ``12GB`` by 1,000. Raises
    ValueError with what is wrong for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or text.strip().endswith("b"):
        raise ValueError(f"should be a size with its unit, such as 12GiB or 24GB, not {text!r}")
    decimal = not found[3] and text.strip()[-1:].upper() == "B"
    size = float(found[1]) * float(1000 if decimal else 1024) ** _SIZES[found[2].upper()]
    if not 0 < size < 2**62:
        raise ValueError(f"should be a size above 0 that a memory may have, not {text!r}")
    return round(size)


def significant(value: float, digits: int = 5) -> float:
    """``value`` rounded to ``digits`` significant digits; 0, inf and nan pass through."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def seconds_of(text: str) -> float:
    """A time with its unit in seconds: ``500ms``, ``90s``, ``10m``, ``1.5h``. Raises ValueError
    with what is wrong for anything else."""
    if (found := _TIME.fullmatch(text.strip())) is None:
        raise ValueError(f"should be a time with its unit, such as 500ms, 90s or 10m, not {text!r}")
    return float(found[1]) * _SECONDS[found[2]]


def human_bytes(count: int | float | None) -> str:
    """``253 MB``-style text in binary units: ``241.2 MiB``, ``11.94 GiB``; ``–`` for None."""
    if count is None:
        return "–"
    if count >= GIB:
        return f"{count / GIB:.2f} GiB"
    if count >= MIB:
        return f"{count / MIB:.1f} MiB"
    return f"{count:.0f} B"


def human_seconds(seconds: float | None) -> str:
    """``0.8 ms``, ``412 ms``, ``3.21 s``, ``4 min 05 s``; ``–`` for None."""
    if seconds is None:
        return "–"
    if seconds < 0.01:
        return f"{seconds * 1e3:.2f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def duration(seconds: float) -> str:
    """``90s``, ``10m``, ``1h``: the shortest way to say it in one unit."""
    unit = next(name for name in "hms" if seconds % _SECONDS[name] == 0 or name == "s")
    return f"{seconds / _SECONDS[unit]:.12g}{unit}"


def decimals(value: float) -> int:
    """How many decimals of a rate say enough: ``1,234``, ``148.3``, ``3.42``."""
    return 0 if value >= 1000 else 1 if value >= 10 else 2


def human_rate(per_s: float | None) -> str:
    """Tokens per second in three or four digits; ``–`` for None.

    Halves are rounded up, as a browser's ``toFixed`` does: the site's script shows the same.
    """
    if per_s is None:
        return "–"
    step = Decimal(1).scaleb(-decimals(per_s))
    return f"{Decimal(per_s).quantize(step, ROUND_HALF_UP):,}"


def tokens_of(text: str) -> int:
    """A number of tokens as people write it, ``4096`` or ``4k``. Raises ValueError for others."""
    match = re.fullmatch(r"(\d{1,9})(k?)", text.strip().lower())
    if match is None:
        raise ValueError(f"should be a number of tokens such as 4096 or 4k, not {text!r}")
    return int(match[1]) * (1024 if match[2] else 1)


def slug(text: str) -> str:
    """Lower-case words joined by hyphens, safe as a file name and in a URL."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-.") or "unnamed"
