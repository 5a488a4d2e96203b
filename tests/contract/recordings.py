"""The wire recordings as tests use them, and servers that answer out of a dictionary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokrig.errors import RequestError

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


class Turns(list[Any]):
    """Answers one after the other; the last for ever."""


class Server:
    """``ask`` out of a dictionary: path → answer, an error to raise, or turns of those.
    ``posted`` keeps what was sent."""

    def __init__(self, *layers: Mapping[str, Any]) -> None:
        self.answers = {path: value for layer in layers for path, value in layer.items()}
        self.posted: list[tuple[str, Any]] = []

    def __call__(self, path: str, body: Any = None, *, text: bool = False) -> Any:
        if body is not None:
            self.posted.append((path, body))
        found = self.answers.get(path, RequestError(f"{path} answered 404", code="http_404"))
        if isinstance(found, Turns):
            found = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(found, Exception):
            raise found
        return str(found) if text else found


def about(name: str) -> Server:
    """A server that says of itself what was recorded."""
    told = json.loads((FOLDER / "about" / f"{name}.json").read_text("utf-8"))
    return Server(told["answers"], told.get("posted", {}))
