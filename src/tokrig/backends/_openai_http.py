"""What OpenAI-compatible servers share, and the answers of one that tells nothing more."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tokrig.backends import (
    Ask,
    Availability,
    Capabilities,
    Command,
    Counters,
    Engine,
    Launch,
    Loading,
    Request,
    mapping,
    mappings,
    text,
)
from tokrig.errors import InputError, RequestError, did_you_mean
from tokrig.record.samples import EngineTimings

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
"""Engines by what their lists of models say in ``owned_by``, from their sources."""

WRAPPERS = {"llama-swap": "llama-swap"}
"""Programs in front of an engine that they do not name, likewise."""


class OpenAIServer:
    """Every question of a backend answered for a server of which nothing is known. An engine
    derives from it and answers better."""

    name = ""
    title = ""
    starts = False
    attaches = True
    own_models = False
    precedence = 50
    ports: tuple[int, ...] = ()
    patience_s = 180.0
    options: Mapping[str, str] = {}
    speculation_options: tuple[str, ...] = ("spec", "draft", "ngram")
    capabilities = Capabilities()
    chat_path = "/v1/chat/completions"
    ready_path = "/v1/models"
    bypass_ready_path = "/health"

    def availability(self) -> Availability:
        return Availability(True, f"attaches to a running server: --backend {self.name} --url URL")

    def questions(self, launch: Launch) -> tuple[tuple[str, ...], ...]:
        return ()

    def vet(self, launch: Launch) -> None:
        """Without answers nothing can be refused."""

    def command(self, launch: Launch) -> Command:
        raise InputError(
            f"the backend {self.name!r} starts no server",
            hint="give the address of one with --url",
        )

    def load(self, ask: Ask, launch: Launch | None, served_model: str | None) -> Iterator[Loading]:
        return iter(())

    def bypass(self, ask: Ask, launch: Launch | None, port: int) -> Command | None:
        return None

    def unload(self, ask: Ask, served_model: str | None) -> None:
        """What ``load`` did not load stays."""

    def resident(self, ask: Ask) -> tuple[str, ...]:
        return ()

    def life(self, ask: Ask, served_model: str | None) -> str | None:
        return None

    def recognises(self, ask: Ask) -> bool:
        return False

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """What the list of models says: its owner is an engine's name for some, any word for
        others ("me", "library", "openai"), which names nothing."""
        named = owner(ask) or ""
        return Engine(
            engine=OWNERS.get(named, "unknown"),
            served_models=served_models(ask),
            wrapper=WRAPPERS.get(named),
        )

    def body(self, request: Request) -> dict[str, Any]:
        return chat_body(request)

    def event(self, data: dict[str, Any]) -> dict[str, Any]:
        return data

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        return count_by_usage(ask, self.chat_path, self.body(request))

    def count_text(self, ask: Ask, text: str) -> int | None:
        return None

    def timings(self, event: Mapping[str, Any]) -> EngineTimings | None:
        return None

    def counters(self, ask: Ask) -> Counters | None:
        return None

    def failure(self, log: str) -> str | None:
        return None


def chat_body(request: Request) -> dict[str, Any]:
    """A streaming, greedy chat completion of fixed budget that reports its usage."""
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


def template_switch(request: Request) -> dict[str, Any]:
    """The request field with which llama.cpp, vLLM and SGLang hand arguments to the chat
    template; empty where this family has none."""
    switch = request.reasoning
    if switch is None or not switch.template:
        return {}
    return {"chat_template_kwargs": dict(switch.template)}


def count_by_usage(ask: Ask, path: str, body: Mapping[str, Any]) -> int | None:
    """Prompt tokens as the usage of a one-token request tells them. Costs a whole prefill."""
    once = {k: v for k, v in body.items() if k not in ("stream", "stream_options", "min_tokens")}
    answer = ask(path, {**once, "max_tokens": 1})
    usage = answer.get("usage") if isinstance(answer, dict) else None
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) and count > 0 else None


def served_models(ask: Ask) -> tuple[str, ...]:
    """Ids of ``/v1/models``; empty where the server has no such list."""
    return tuple(name for model in _models(ask) if (name := text(model.get("id"))))


def owner(ask: Ask) -> str | None:
    """``owned_by`` of the first model: "vllm", "llamacpp", … where the server says so."""
    models = _models(ask)
    return text(models[0].get("owned_by")) if models else None


def _models(ask: Ask) -> list[dict[str, Any]]:
    try:
        return mappings(mapping(ask("/v1/models")).get("data"))
    except RequestError:
        return []


def start_time(ask: Ask) -> str | None:
    """When the process behind ``/metrics`` was started, as Prometheus' own collectors tell it."""
    try:
        found = metric(str(ask("/metrics", text=True)), "process_start_time_seconds")
    except RequestError:
        return None
    return None if found is None else f"started at {found:.2f}"


def option_flags(options: Mapping[str, Any], own: frozenset[str]) -> list[str]:
    """Options as long flags: ``{"max-num-seqs": 4}`` → ``--max-num-seqs 4``; ``true`` is the bare
    flag, ``false`` leaves it out.

    Raises InputError for a flag in ``own``: those tokrig sets itself.
    """
    argv: list[str] = []
    for name, value in options.items():
        flag = name.lstrip("-").replace("_", "-")
        if flag in own:
            raise InputError(
                f"option {name!r} is set by tokrig itself",
                hint="use --model, --context, --threads, --concurrency, --api, --device or"
                " --speculative",
            )
        if value is False:
            continue
        argv += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
    return argv


def kv_flags(launch: Launch, *names: str, known: Collection[str] = ()) -> dict[str, str]:
    """The KV cache's type under the ``names`` that an engine's options have for it; empty where
    none is asked for. ``known`` are the types the engine takes, where it tells.

    Raises InputError for a type it does not take, or where an option says the same again.
    """
    if launch.kv_type is None:
        return {}
    if known and launch.kv_type not in known:
        raise InputError(
            f"the engine takes no KV cache of type {launch.kv_type!r}",
            hint=did_you_mean(launch.kv_type, known),
        )
    for option in launch.options:
        if option.lstrip("-").replace("_", "-") in {name.replace("_", "-") for name in names}:
            raise InputError(
                f"the option {option!r} and the KV type {launch.kv_type!r} say the same twice",
                hint="leave one of them out; where keys and values differ use the options alone",
            )
    return dict.fromkeys(names, launch.kv_type)


def metric(page: str, name: str) -> float | None:
    """The sum of all samples of the Prometheus counter ``name``; None without any, and where one
    is no number."""
    words = [
        line.rsplit(" ", 1)[-1]
        for line in page.splitlines()
        if line.startswith((name + " ", name + "{"))
    ]
    try:
        total = sum(map(float, words)) if words else None
    except ValueError:
        return None
    return total if total is not None and math.isfinite(total) else None
