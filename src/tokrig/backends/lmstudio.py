"""LM Studio, by its REST API v1 (0.4 and newer) or v0, and by its OpenAI-compatible streams.

Its statistics (``tokens_per_second``, ``time_to_first_token``) come with answers that are not
streamed, without a definition, and never with OpenAI streams: they are not used as a clock. An
address it does not know it answers with status 200 and an error text, so only the form of an
answer tells whether it is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokrig.backends import Ask, Availability, Backend, Capabilities, Engine, Launch, Loading
from tokrig.backends import _reading as read
from tokrig.errors import InputError, RequestError, StartError, did_you_mean
from tokrig.record.model import Resolved

_APIS = ("cuda", "vulkan", "rocm", "metal")


class LMStudio(Backend):
    """Attached to: it is started in its window or with ``lms server start``."""

    name = "lmstudio"
    title = "LM Studio"
    own_models = True
    precedence = 25
    ports = (1234,)
    unloads = ("/api/v1/models/unload", "instance_id", {})
    capabilities = Capabilities(
        apis=("cpu", "cuda", "vulkan", "rocm", "metal"), counts_prompts=True
    )

    def availability(self) -> Availability:
        return Availability(True, "attaches to LM Studio: lms server start, then --url URL")

    def load(self, ask: Ask, launch: Launch | None, served_model: str | None) -> Iterator[Loading]:
        models = _models(ask) if served_model is not None else []
        if served_model is None or served_model in _loaded(models):
            return
        if served_model not in _keys(models):
            raise InputError(
                f"LM Studio has no model {served_model!r}",
                hint=did_you_mean(served_model, _keys(models)),
            )
        yield Loading(f"loading {served_model}")
        try:
            told = read.mapping(ask("/api/v1/models/load", {"model": served_model}))
        except RequestError as error:
            told = {"error": error.message}
        if told.get("status") != "loaded":
            reason = told.get("error") or "no reason given"
            raise StartError(
                f"LM Studio could not load {served_model}: {reason}",
                hint=f"try it by hand: lms load {served_model}",
                code="model_not_loaded",
            )

    def resident(self, ask: Ask) -> tuple[str, ...]:
        return _loaded(_models(ask))

    def recognises(self, ask: Ask) -> bool:
        return bool(_models(ask))

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """The loaded model's settings, and the runtime that v0 names with each answer. The
        runtime's name says what it was built for, not what computed."""
        models = _models(ask)
        loaded = _loaded(models)
        # Of several it does not tell which one is meant.
        model = next((m for m in models if _instances(m)), {}) if len(loaded) == 1 else {}
        config = _instances(model)[0][1] if model else {}
        told = (
            read.answer(ask, "/api/v0/chat/completions", read.one_token(loaded[0]))
            if loaded
            else {}
        )
        runtime = read.mapping(told, "runtime")
        parts = str(runtime.get("name") or "").split("-")
        flash, quant = config.get("flash_attention"), model.get("quantization")
        quant = quant.get("name") if isinstance(quant, dict) else quant
        return Engine(
            engine=parts[0] or "unknown",
            build=str(runtime["version"]) if runtime.get("version") else None,
            api=next((api for api in _APIS if api in parts), "cpu") if parts[0] else None,
            served_models=loaded or _keys(models),
            resolved=Resolved(
                context_per_slot=read.count(config, "context_length"),
                slots=read.count(config, "parallel"),
                batch=read.count(config, "eval_batch_size"),
                flash_attention=None if flash is None else "enabled" if flash else "disabled",
                quantization=str(quant) if quant else None,
            ),
            wrapper="LM Studio",
        )


def _models(ask: Ask) -> list[dict[str, Any]]:
    """Language models of API v1, or of v0 where there is no v1; empty for another server."""
    for path, key, name in (("/api/v1/models", "models", "key"), ("/api/v0/models", "data", "id")):
        found = read.answers(ask, path, key)
        own = [m for m in found if m.get(name) and "max_context_length" in m]
        if own:
            return [m for m in own if m.get("type") in ("llm", "vlm")]
    return []


def _keys(models: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(str(model.get("key") or model.get("id")) for model in models)


def _loaded(models: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(name for model in models for name, _ in _instances(model))


def _instances(model: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Name and settings of what is loaded of a model; v0 tells no settings."""
    if model.get("state") == "loaded":
        return [(str(model["id"]), {})]
    instances = read.mappings(model, "loaded_instances")
    return [(str(i["id"]), read.mapping(i, "config")) for i in instances if i.get("id")]


BACKEND = LMStudio()
