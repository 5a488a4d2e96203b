"""Backends: how each engine is started, asked and read. They describe; ``run`` acts.

One file an engine exposing ``BACKEND``. A backend builds a command line, a request body and the
questions that read its settings back; it starts nothing, opens no socket, reads no clock and
measures nothing. Where it needs an answer of the running server it is handed ``ask``. Most derive
from ``_openai_http.OpenAIServer``, which answers everything for a server that tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from tokrig.record.model import Resolved
from tokrig.record.samples import EngineTimings
from tokrig.spec.reasoning import Switch
from tokrig.spec.run import Api, SpeculativeType

Json = Any
Messages = list[dict[str, str]]


class Ask(Protocol):
    """A question to the running server, outside the measurement."""

    def __call__(self, path: str, body: Json = None, *, text: bool = False) -> Json:
        """GET without a body, POST with one; the decoded JSON answer, or with ``text`` the
        answer as it is (``/metrics``).

        Raises RequestError on any status but 2xx, EngineDied when nobody answers.
        """
        ...


@dataclass(frozen=True)
class Speculation:
    """Speculative decoding as asked for. ``draft_tokens`` is the longest draft, None the
    engine's own default; ``draft_model`` is there for the types that need one."""

    type: SpeculativeType
    draft_model: Path | None = None
    draft_tokens: int | None = None


@dataclass(frozen=True)
class Launch:
    """What a managed server is to be started with. Sizes in tokens, ``port`` on loopback.

    ``model`` is a file or a folder of weights. ``answers`` are what the binary said to the
    backend's ``questions``, in their order: of these a command line may learn how this build
    spells a flag. ``kv_type`` is the type of the KV cache in the engine's own words.
    """

    model: Path
    port: int
    context_per_slot: int
    slots: int
    threads: int | None = None
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    binary: str | None = None
    api: Api | None = None
    devices: tuple[str, ...] = ()
    speculation: Speculation | None = None
    reasoning: Switch | None = None
    kv_type: str | None = None
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """A command line and the environment variables it needs on top of the user's own."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Loading:
    """How far a server is with fetching or loading a model; ``share`` 0–1 where it tells.
    ``fetching`` is no part of the time that loading takes."""

    doing: str
    share: float | None = None
    fetching: bool = False


@dataclass(frozen=True)
class Engine:
    """What a running server said about itself.

    ``api`` is what computes, as the engine's own device list or log shows it, never what was
    asked for; ``no_device`` its own words that it found no GPU.

    ``asked_gpu_layers`` is the number of layers that should be on the GPU; ``spilled`` the
    engine's own words that a part of the model is not where it was asked to be, ``offload`` what
    is kept off the GPU because it was asked for. ``device_bytes`` is its own account of memory by
    device, ``weight_bytes`` that of the weights among it, main memory being ``CPU``;
    ``unused_bytes`` of the file it leaves aside.

    ``asked`` are options of this engine that choose a setting of ``resolved``, by its name.
    ``speculation`` is False where the engine says that it does not speculate, None where it does
    not tell; ``speculates_by`` how it does, as a spec calls it; ``wrapper`` the program in front
    of the engine, with its version; ``model_file`` where the engine's machine has the model's
    file, to look at and never to be recorded.
    """

    engine: str
    build: str | None = None
    api: str | None = None
    api_confirmed: bool | None = None
    served_models: tuple[str, ...] = ()
    resolved: Resolved = field(default_factory=Resolved)
    asked_gpu_layers: int | None = None
    spilled: str | None = None
    offload: str | None = None
    asked: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    device_bytes: Mapping[str, int] = field(default_factory=dict)
    weight_bytes: Mapping[str, int] = field(default_factory=dict)
    unused_bytes: int = 0
    no_device: str | None = None
    speculation: bool | None = None
    speculates_by: str | None = None
    wrapper: str | None = None
    model_file: str | None = None


@dataclass(frozen=True)
class Request:
    """One measured request, before it becomes an engine's own body."""

    messages: Messages
    answer_tokens: int
    seed: int
    served_model: str | None = None
    salt: str = ""
    reasoning: Switch | None = None
    """How this family's reasoning is switched; what of it stands in messages is in them."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here, and how to get what is missing."""

    ok: bool
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do and tell, as far as its interface goes.

    ``cache_switch``: where its prompt cache is switched off, ``None`` where only the salt keeps
    prompts apart. ``reasoning_switch``: where reasoning is switched, beside messages.
    ``timings``: a clock of its own for each request, counters over all, or none. ``kv_types``:
    whether the type of its KV cache can be chosen when it is started.
    """

    speculation: tuple[SpeculativeType, ...] = ()
    apis: tuple[Api, ...] = ()
    cache_switch: Literal["request", "start"] | None = None
    reasoning_switch: Literal["request", "start"] | None = None
    fixed_length: bool = False
    timings: Literal["request", "counters"] | None = None
    counts_prompts: bool = False
    kv_types: bool = False


Counters = Mapping[str, float]
"""Sums of an engine since its start, under tokrig's names; differences of two readings count.

``requests``, ``prompt_tokens``, ``cached_tokens``, ``output_tokens``; ``prefill_s`` and
``decode_s`` summed over requests; ``drafts`` (steps with a draft), ``drafted_tokens``,
``accepted_tokens``. A key an engine does not count is left out.
"""


class Backend(Protocol):
    """One engine. ``starts``: tokrig can start it; ``attaches``: it can be measured by URL.

    ``precedence`` orders recognition: an engine that imitates another's API comes before it.
    ``patience_s`` is how long it may take to become ready. ``own_models``: models are named as
    the engine's own store knows them, not by files. ``speculation_options`` are the beginnings of
    option names that mean something with speculation only.
    """

    name: str
    title: str
    starts: bool
    attaches: bool
    own_models: bool
    precedence: int
    ports: tuple[int, ...]
    patience_s: float
    options: Mapping[str, str]
    speculation_options: tuple[str, ...]
    capabilities: Capabilities
    chat_path: str
    ready_path: str
    bypass_ready_path: str

    def availability(self) -> Availability:
        """Whether this backend can be used on this machine."""
        ...

    def questions(self, launch: Launch) -> tuple[tuple[str, ...], ...]:
        """Command lines that make the binary tell what it is; each ends by itself in seconds."""
        ...

    def vet(self, launch: Launch) -> None:
        """Refuse a launch that ``launch.answers`` show to be impossible.

        Raises InputError: another program, too old for a flag (which), built without the API.
        """
        ...

    def command(self, launch: Launch) -> Command:
        """The command line that serves ``launch.model``.

        Raises InputError for an option the engine does not know.
        """
        ...

    def load(self, ask: Ask, launch: Launch | None, served_model: str | None) -> Iterator[Loading]:
        """Make the ready server serve the model: fetch it, load it. Yields while it waits; who
        drives it sleeps between and gives up when patience ends. Nothing for servers that load
        when they start.

        Raises StartError when the server gives up: with the code ``load_gave_up`` where a
        ``bypass`` may help.
        """
        ...

    def bypass(self, ask: Ask, launch: Launch | None, port: int) -> Command | None:
        """The bundled engine's own command line, for a wrapper that gave up on a slow first
        load: started once until it is ready it fills its kernel cache. None where there is no
        such thing. It gets ready at ``bypass_ready_path``.
        """
        ...

    def unload(self, ask: Ask, served_model: str | None) -> None:
        """Undo ``load`` on a server that goes on running. Raises nothing."""
        ...

    def resident(self, ask: Ask) -> tuple[str, ...]:
        """The models that a server with a store of its own has in memory: loading another one may
        put them out."""
        ...

    def life(self, ask: Ask, served_model: str | None) -> str | None:
        """What is the same as long as the engine runs and another one after it was started anew;
        None where nothing tells."""
        ...

    def recognises(self, ask: Ask) -> bool:
        """Whether the server behind ``ask`` is this engine. Raises nothing but EngineDied."""
        ...

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """What the running server says about itself; ``log`` is its output so far."""
        ...

    def body(self, request: Request) -> dict[str, Json]:
        """The request body: streaming, greedy, of fixed length, with the prompt cache off."""
        ...

    def event(self, data: dict[str, Json]) -> dict[str, Json]:
        """A stream event of the engine's own in the form of an OpenAI chunk."""
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

    def counters(self, ask: Ask) -> Counters | None:
        """The engine's sums at this moment; None where it keeps none."""
        ...

    def failure(self, log: str) -> str | None:
        """The log's own reason for a failure, in one line."""
        ...


def asked_of(argv: Sequence[str]) -> str:
    """A command line as a short phrase for messages: ``llama-server --help``."""
    return " ".join([Path(argv[0]).name, *argv[1:]])


# Parts of a server's JSON answer, whatever the server sent in their place.


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
