"""The wire recordings as tests use them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "data" / "recordings"


@dataclass(frozen=True)
class Recording:
    """One streamed answer: its headers, and each line of the body with its time in seconds."""

    name: str
    request: dict[str, Any]
    status: int
    headers: dict[str, str]
    lines: tuple[tuple[float, bytes], ...]

    @property
    def body(self) -> bytes:
        return b"".join(line for _, line in self.lines)

    @property
    def events(self) -> tuple[tuple[float, bytes], ...]:
        """Lines joined to whole events (or comments), each with its first line's time."""
        found: list[tuple[float, bytes]] = []
        fresh = True
        for t, line in self.lines:
            if fresh:
                found.append((t, line))
            else:
                found[-1] = (found[-1][0], found[-1][1] + line)
            fresh = line == b"\n"
        return tuple(found)


def recording(name: str) -> Recording:
    head, *lines = (
        json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()
    )
    return Recording(
        name,
        head["request"],
        head["status"],
        head["headers"],
        tuple((line["t"], line["line"].encode()) for line in lines),
    )


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.jsonl"))
