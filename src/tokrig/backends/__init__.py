"""Backends: how each engine is started, asked and read. They describe; ``run`` acts.

One file an engine exposing ``BACKEND``, an object of a class derived from ``Backend``, which
answers every question for a server of OpenAI's dialect of which nothing more is known. A backend
builds a command line, a request body and the questions that read its settings back; it starts
nothing, opens no socket, reads no clock and measures nothing. Where it needs an answer of the
running server it is handed ``ask``.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from tokrig import engines
from tokrig.backends import _reading as read
from tokrig.errors import EngineError, InputError, RequestError, did_you_mean
from tokrig.record.model import Resolved
from tokrig.record.quality import Position
from tokrig.record.samples import EngineTimings
from tokrig.spec.reasoning import Switch
from tokrig.spec.settings import SETTINGS, Api, SpeculativeType

Json = Any
Messages = list[dict[str, str]]
Value = str | int | float | bool


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
    spells a flag. ``settings`` are those of the spec that an engine is told as they are, by name:
    threads, the type of its KV cache. ``keeps_prompts``: its prompt cache is on, as it would be for
    anybody; else whatever could reuse a prompt is off.
    """

    model: Path
    port: int
    context_per_slot: int
    slots: int
    settings: Mapping[str, Value] = field(default_factory=dict)
    options: Mapping[str, Value] = field(default_factory=dict)
    binary: str | None = None
    api: Api | None = None
    devices: tuple[str, ...] = ()
    speculation: Speculation | None = None
    reasoning: Switch | None = None
    answers: tuple[str, ...] = ()
    keeps_prompts: bool = False

    @property
    def threads(self) -> int | None:
        """The engine's threads, where a number is asked for."""
        return int(self.settings["threads"]) if "threads" in self.settings else None

    @property
    def context(self) -> int:
        """Tokens of all slots together."""
        return self.context_per_slot * self.slots

    @property
    def engine_switch(self) -> str | None:
        """``on`` or ``off`` where reasoning is switched by the engine's own flag too."""
        return self.reasoning.asked if self.reasoning and self.reasoning.engine_flag else None

    @property
    def flags(self) -> dict[str, Value]:
        """Options under the names of flags, however they are written."""
        return {read.flag_name(name): value for name, value in self.options.items()}

    def answer(self, number: int) -> str:
        """What the binary said to a question; empty where it was not asked."""
        return self.answers[number] if number < len(self.answers) else ""


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
    asked: Mapping[str, Value] = field(default_factory=dict)
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
    """One measured request, before it becomes an engine's own body. ``reasoning``: how this
    family's reasoning is switched; what of it stands in messages is in them. ``keeps_prompt``: the
    engine may take from its prompt cache what it has, and keep what it reads."""

    messages: Messages
    answer_tokens: int
    seed: int
    served_model: str | None = None
    salt: str = ""
    reasoning: Switch | None = None
    keeps_prompt: bool = False

    def template(self, *, effort: bool = False) -> dict[str, Any]:
        """The field with which most engines hand arguments to the chat template, ``effort`` too
        where it is no part of the body anyway; empty where this family has none."""
        switch = self.reasoning
        found: dict[str, Any] = {}
        if switch is not None and switch.template:
            found["chat_template_kwargs"] = dict(switch.template)
        if switch is not None and switch.effort and effort:
            found["reasoning_effort"] = switch.effort
        return found


@dataclass(frozen=True)
class Greedy:
    """The likeliest answer: its text, its tokens (one that ends it among them), and what else the
    model held for likely at each; none of that where the server does not tell."""

    text: str
    ids: tuple[int, ...] = ()
    positions: tuple[Position, ...] = ()


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
    ``timings``: a clock of its own for each request, counters over all, or none.
    """

    speculation: tuple[SpeculativeType, ...] = ()
    apis: tuple[Api, ...] = ()
    cache_switch: Literal["request", "start"] | None = None
    reasoning_switch: Literal["request", "start"] | None = None
    fixed_length: bool = False
    timings: Literal["request", "counters"] | None = None
    counts_prompts: bool = False


Counters = Mapping[str, float]
"""Sums of an engine since its start, under tokrig's names; differences of two readings count.

``requests``, ``prompt_tokens``, ``cached_tokens``, ``output_tokens``; ``prefill_s`` and
``decode_s`` summed over requests; ``drafts`` (steps with a draft), ``drafted_tokens``,
``accepted_tokens``. A key an engine does not count is left out.
"""

ELSEWHERE = frozenset(
    {"api", "speculative", "draft_model", "draft_tokens", "reasoning"}
    | {"quantize", "context", "power_cap_w", "options"}
)
"""Settings that a launch has fields for, or that are none of the engine's. A backend that cannot do
one says so in its capabilities."""

# Engines by what their lists of models say in ``owned_by``, from their sources…
OWNERS = {
    "llamacpp": "llama.cpp",
    "vllm": "vllm",
    "sglang": "sglang",
    "koboldcpp": "KoboldCpp",
    "tabbyAPI": "TabbyAPI",
    "tensorrt_llm": "TensorRT-LLM",
    "OVMS": "OpenVINO Model Server",
    "MLC-LLM": "MLC LLM",
    "lmdeploy": "LMDeploy",
    "pygmalionai": "Aphrodite",
}
# … and programs in front of an engine that they do not name.
WRAPPERS = {"llama-swap": "llama-swap"}


class Backend:
    """One engine. An engine's class says what is otherwise.

    ``starts``: tokrig can start it; ``attaches``: it can be measured by URL. ``program`` is its
    usual name on the PATH, ``get_it`` how to get one. ``precedence`` orders recognition: an engine
    that imitates another's API comes before it. ``owned_by`` and ``tells`` are what its list of
    models and its own addresses say of themselves: path → keys of the answer. ``patience_s`` is
    how long it may take to become ready. ``own_models``: models are named as the engine's own
    store knows them, not by files. ``takes`` are settings that it can be told when it starts, by
    name, with its options for each: none where its code does it. ``options`` are those it takes
    from a user, with what they mean; ``speculation_options`` the beginnings of names that mean
    something with speculation only. ``prometheus`` are counters of ``/metrics`` under the names of
    ``Counters``. ``unloads`` is how a model is put out of memory: path, field of its name, more.
    """

    name: str = ""
    title: str = ""
    starts: bool = False
    attaches: bool = True
    own_models: bool = False
    program: str = ""
    get_it: str = ""
    precedence: int = 50
    owned_by: str = ""
    tells: Mapping[str, frozenset[str]] = {}
    ports: tuple[int, ...] = ()
    patience_s: float = 180.0
    takes: Mapping[str, tuple[str, ...]] = {}
    options: Mapping[str, str] = {}
    speculation_options: tuple[str, ...] = ("spec", "draft", "ngram")
    capabilities: Capabilities = Capabilities()
    prometheus: Mapping[str, str] = {}
    unloads: tuple[str, str, Mapping[str, Json]] = ("", "", {})
    chat_path: str = "/v1/chat/completions"
    ready_path: str = "/v1/models"
    bypass_ready_path: str = "/health"

    @property
    def hint(self) -> str:
        """How to get its program."""
        return self.get_it or f"give its path with --server-bin, or put {self.program} on the PATH"

    def availability(self) -> Availability:
        """Whether this backend can be used on this machine."""
        if not self.program:
            how = f"attaches to a running server: --backend {self.name} --url URL"
            return Availability(True, how)
        found, here = engines.program(self.program), shutil.which(self.program)
        if found is None:
            return Availability(False, f"no {self.program} on the PATH", self.hint)
        return Availability(True, f"{self.program} is on the PATH" if found == here else found)

    def binary(self, launch: Launch) -> str:
        """The engine's program, found. Raises InputError where there is none."""
        return read.find(launch.binary or self.program, self.program, self.hint)

    def questions(self, launch: Launch) -> tuple[tuple[str, ...], ...]:
        """Command lines that make the binary tell what it is; each ends by itself in seconds."""
        return ()

    def vet(self, launch: Launch) -> None:
        """Refuse a launch that ``launch.answers`` show to be impossible.

        Raises InputError: another program, too old for a flag (which), built without the API.
        """

    def command(self, launch: Launch) -> Command:
        """The command line that serves ``launch.model``.

        Raises InputError for an option the engine does not know.
        """
        raise InputError(
            f"the backend {self.name!r} starts no server",
            hint="give the address of one with --url",
        )

    def require_settings(self, settings: Iterable[str]) -> None:
        """Raises InputError for a setting that the engine cannot be told when it is started."""
        for name in settings:
            if name not in ELSEWHERE and name not in self.takes:
                option = SETTINGS[name].option
                raise InputError(
                    f"the backend {self.name!r} has no switch for {option}",
                    hint=f"leave {option} out, or take another backend",
                )

    def setting_flags(
        self, launch: Launch, given: Collection[str] | None = None
    ) -> dict[str, Value]:
        """The settings asked for, under the names of the engine's options. ``given`` are the
        flags that options say, where the engine has several names for one.

        Raises InputError for one that it has no switch for, a value that it does not take, and
        where an option says the same again.
        """
        self.require_settings(launch.settings)
        found: dict[str, Value] = {}
        for name, value in launch.settings.items():
            option = SETTINGS[name].option
            for flag in self.takes[name]:
                known = self.values(launch, flag)
                if known and value not in known:
                    raise InputError(
                        f"the backend {self.name!r} does not take {value!r} for {option}",
                        hint=did_you_mean(str(value), known),
                    )
                if read.flag_name(flag) in (launch.flags if given is None else given):
                    raise InputError(
                        f"the option {flag!r} and {option} {value} set the same thing twice",
                        hint="leave one of them out; only options can set keys and values apart",
                    )
                found[flag] = value
        return found

    def values(self, launch: Launch, flag: str) -> Collection[str]:
        """The words that one of its options takes; empty where nobody tells."""
        return ()

    def require_options(self, launch: Launch) -> None:
        """Raises InputError for an option that is none of ``options``."""
        for option in launch.options:
            if option not in self.options:
                raise InputError(
                    f"the backend {self.name!r} has no option {option!r}",
                    hint=did_you_mean(option, self.options),
                )

    def load(self, ask: Ask, launch: Launch | None, served_model: str | None) -> Iterator[Loading]:
        """Make the ready server serve the model: fetch it, load it. Yields while it waits; who
        drives it sleeps between and gives up when patience ends. Nothing for servers that load
        when they start.

        Raises StartError when the server gives up: with the code ``load_gave_up`` where a
        ``bypass`` may help.
        """
        return iter(())

    def bypass(self, ask: Ask, launch: Launch | None, port: int) -> Command | None:
        """The bundled engine's own command line, for a wrapper that gave up on a slow first
        load: started once until it is ready it fills its kernel cache. None where there is no
        such thing. It gets ready at ``bypass_ready_path``."""
        return None

    def unload(self, ask: Ask, served_model: str | None) -> None:
        """Undo ``load`` on a server that goes on running. Raises nothing."""
        path, field, more = self.unloads
        if path and served_model is not None:
            with contextlib.suppress(EngineError):
                ask(path, {field: served_model, **more})

    def resident(self, ask: Ask) -> tuple[str, ...]:
        """The models that a server with a store of its own has in memory: loading another one may
        put them out."""
        return ()

    def life(self, ask: Ask, served_model: str | None) -> str | None:
        """What is the same as long as the engine runs and another one after it was started anew;
        None where nothing tells."""
        return None

    def recognises(self, ask: Ask) -> bool:
        """Whether the server behind ``ask`` is this engine. Raises nothing but EngineDied."""
        told = all(keys <= read.answer(ask, path).keys() for path, keys in self.tells.items())
        return bool(self.tells) and told and (not self.owned_by or read.owner(ask) == self.owned_by)

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """What the running server says about itself; ``log`` is its output so far. Here the owner
        of its models: an engine's name for some, any word for others ("me", "library")."""
        named = read.owner(ask) or ""
        return Engine(
            engine=OWNERS.get(named, "unknown"),
            served_models=read.served_models(ask),
            wrapper=WRAPPERS.get(named),
        )

    def body(self, request: Request) -> dict[str, Json]:
        """The request body: streaming, greedy, of fixed length, with the prompt cache off, as far
        as there are fields for it. It reports its usage."""
        body: dict[str, Any] = {
            "messages": request.messages,
            "max_tokens": request.answer_tokens,
            "temperature": 0,
            "seed": request.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.served_model is not None:
            body["model"] = request.served_model
        if request.reasoning is not None and request.reasoning.effort:
            body["reasoning_effort"] = request.reasoning.effort
        return body

    def event(self, data: dict[str, Json]) -> dict[str, Json]:
        """A stream event of the engine's own in the form of an OpenAI chunk: its texts as they
        are, and nothing that depends on their words."""
        return data

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """Tokens of the prompt after the chat template; None where the server cannot tell. Here
        by the usage of a one-token request, which costs a whole prefill."""
        more = ("stream", "stream_options", "min_tokens", "generation_config")
        once = {key: value for key, value in self.body(request).items() if key not in more}
        return read.count(ask(self.chat_path, {**once, "max_tokens": 1}), "usage", "prompt_tokens")

    def count_text(self, ask: Ask, text: str) -> int | None:
        """Tokens of plain text; None where the server has no tokenizer to ask."""
        return None

    def answer(self, ask: Ask, request: Request) -> str:
        """The greedy answer to a chat, thoughts included, ended where the model ends it."""
        fixed = ("stream", "stream_options", "min_tokens", "ignore_eos", "generation_config")
        body = {key: value for key, value in self.body(request).items() if key not in fixed}
        return read.chat_text(ask(self.chat_path, body))

    def prompt_ids(self, ask: Ask, request: Request) -> tuple[int, ...] | None:
        """The tokens of a chat after its template; None where the server does not tell them, or
        takes no tokens for a prompt."""
        return None

    def text_ids(self, ask: Ask, text: str) -> tuple[int, ...] | None:
        """The tokens of plain text, where ``prompt_ids`` are told."""
        return None

    def greedy(self, ask: Ask, request: Request, prompt: tuple[int, ...], top: int) -> Greedy:
        """The likeliest answer to a prompt of tokens, with the ``top`` likeliest at each of its
        own. Raises RequestError."""
        raise RequestError(f"{self.title} tells no likely tokens")

    def likeliest(
        self,
        ask: Ask,
        request: Request,
        prompt: tuple[int, ...],
        answer: tuple[int, ...],
        first: int,
        top: int,
    ) -> tuple[Position, ...]:
        """The ``top`` likeliest tokens at each position of an answer from ``first`` on, after all
        of it that stands before; empty where they are not told. Raises RequestError."""
        raise RequestError(f"{self.title} tells no likely tokens")

    def timings(self, event: Mapping[str, Json]) -> EngineTimings | None:
        """The engine's own clock, where this stream event carries it."""
        return None

    def counters(self, ask: Ask) -> Counters | None:
        """The engine's sums at this moment; None where it keeps none."""
        metrics = read.page(ask, "/metrics") if self.prometheus else ""
        found = {ours: read.metric(metrics, theirs) for ours, theirs in self.prometheus.items()}
        return {name: value for name, value in found.items() if value is not None} or None

    def failure(self, log: str) -> str | None:
        """The log's own reason for a failure, in one line."""
        return None


def asked_of(argv: Sequence[str]) -> str:
    """A command line as a short phrase for messages: ``llama-server --help``."""
    return " ".join([Path(argv[0]).name, *argv[1:]])
