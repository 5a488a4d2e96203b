"""Reading the small text files by which Linux tells about hardware.

A file that is missing, unreadable or oddly filled yields ``None``: a probe reports what it can.
"""

from __future__ import annotations

from pathlib import Path


def read_bytes(path: Path) -> bytes | None:
    """The whole file, or None when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def read_text(path: Path) -> str | None:
    """The file's text without surrounding blanks; None when unreadable or empty."""
    raw = read_bytes(path)
    if raw is None:
        return None
    # Device-tree strings end with NUL.
    return raw.decode("utf-8", "replace").strip().strip("\0").strip() or None


def read_int(path: Path) -> int | None:
    """The file's content as an integer (decimal, or hexadecimal after ``0x``), or None."""
    text = read_text(path)
    if text is None:
        return None
    try:
        return int(text, 0)
    except ValueError:
        return None


def read_scaled(path: Path, factor: float) -> float | None:
    """The file's integer times ``factor`` (1e-6 turns microwatts into watts), or None."""
    value = read_int(path)
    return None if value is None else value * factor


def listing(folder: Path, pattern: str) -> list[Path]:
    """Entries of ``folder`` matching ``pattern``, sorted; empty when it cannot be listed."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def key_values(text: str | None, separator: str) -> dict[str, str]:
    """``key<separator>value`` lines as a dict; quotes around values are dropped; the first
    of repeated keys wins."""
    pairs: dict[str, str] = {}
    for line in (text or "").splitlines():
        key, found, value = line.partition(separator)
        if found:
            pairs.setdefault(key.strip(), value.strip().strip("\"'"))
    return pairs
