"""Backends: how each engine is started, asked and read. They describe; ``run`` acts.

One file an engine exposing ``BACKEND``. A backend builds a command line, a request body and the
questions that read its settings back; it starts nothing, opens no socket and measures nothing.
Where it needs an answer of the running server it is handed ``ask``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tokrig.record.model import Resolved
from tokrig.record.samples import EngineTimings

Json = Any
Messages = list[dict[str, str]]

Ask = Callable[..., Json]
"""``ask(path, body=None)``: GET without a body, POST with one; the decoded JSON answer.

Raises RequestError on any status but 2xx, EngineDied when nobody answers.
"""


@dataclass(frozen=True)
class Launch:
    """What a managed server is to be started with. Sizes in tokens, ``port`` on loopback."""

    model: Path
    port: int
    context_per_slot: int
    slots: int
    threads: int | None = None
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    binary: str | None = None


@dataclass(frozen=True)
class Command:
    """A command line and the environment variables it needs on top of the user's own."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Engine:
    """What a running server said about itself."""

    engine: str
    build: str | None = None
    api: str | None = None
    api_confirmed: bool | None = None
    served_models: tuple[str, ...] = ()
    resolved: Resolved = field(default_factory=Resolved)


@dataclass(frozen=True)
class Request:
    """One measured request, before it becomes an engine's own body."""

    messages: Messages
    answer_tokens: int
    seed: int
    served_model: str | None = None
    plain: bool = False
    """Only what the OpenAI API defines: for endpoints that refuse fields they do not know."""
    salt: str = ""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here, and how to get what is missing."""

    ok: bool
    detail: str
    hint: str = ""


class Backend(Protocol):
    """One engine. ``managed`` ones are started by tokrig, the others are attached to by URL."""

    name: str
    title: str
    managed: bool
    options: Mapping[str, str]
    chat_path: str
    ready_path: str

    def availability(self) -> Availability:
        """Whether this backend can be used on this machine."""
        ...

    def command(self, launch: Launch) -> Command:
        """The command line that serves ``launch.model``.

        Raises InputError for an option the engine does not know.
        """
        ...

    def inspect(self, ask: Ask, log: str) -> Engine:
        """What the running server says about itself; ``log`` is its output so far."""
        ...

    def body(self, request: Request) -> dict[str, Json]:
        """The request body: streaming, greedy, of fixed length, with the prompt cache off."""
        ...

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """Tokens of the prompt after the chat template; None where the server cannot tell."""
        ...

    def count_text(self, ask: Ask, text: str) -> int | None:
        """Tokens of plain text; None where the server has no tokenizer to ask."""
        ...

    def timings(self, event: Mapping[str, Json]) -> EngineTimings | None:
        """The engine's own clock, where this stream event carries it."""
        ...

    def failure(self, log: str) -> str | None:
        """The log's own reason for a failure, in one line."""
        ...
