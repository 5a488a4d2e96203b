"""What a run has learned of its engine and model, kept in the journal in case it is resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokrig.backends import Engine
from tokrig.errors import InputError, StartError
from tokrig.record.asked import Value, ignored, untold
from tokrig.record.model import BackendFacts, ColdStart, Greedy, LoadMemory, Mode, Model
from tokrig.run.prepare import Prepared


@dataclass(frozen=True)
class EngineState:
    """``greedy_texts`` are the answers without speculation, by workload, None before they were
    asked for."""

    model: Model
    backend: BackendFacts
    mode: Mode
    cold: ColdStart | None = None
    server_starts: int = 0
    load_memory: LoadMemory | None = None
    greedy_texts: Mapping[str, str] | None = None
    greedy: Mapping[str, Greedy] = field(default_factory=dict)


def told_to_json(told: EngineState) -> dict[str, Any]:
    """Plain data that ``told_from_json`` reads back."""

    def plain(block: Any) -> Any:
        return None if block is None else block.model_dump(mode="json")

    return {
        "model": plain(told.model),
        "backend": plain(told.backend),
        "mode": plain(told.mode),
        "cold": plain(told.cold),
        "server_starts": told.server_starts,
        "load_memory": plain(told.load_memory),
        "greedy_texts": None if told.greedy_texts is None else dict(told.greedy_texts),
        "greedy": {name: plain(one) for name, one in told.greedy.items()},
    }


def told_from_json(data: Mapping[str, Any]) -> EngineState:
    """What ``told_to_json`` wrote. Raises InputError for what another version of tokrig wrote."""
    try:
        return _told(data)
    except (KeyError, TypeError, ValueError) as problem:
        raise InputError(
            f"the unfinished run was begun by another version of tokrig: {problem!r}",
            hint="discard it with: tokrig run --discard ID",
        ) from None


def _told(data: Mapping[str, Any]) -> EngineState:
    cold, load_memory = data["cold"], data["load_memory"]
    return EngineState(
        model=Model.model_validate(data["model"]),
        backend=BackendFacts.model_validate(data["backend"]),
        mode=Mode.model_validate(data["mode"]),
        cold=None if cold is None else ColdStart.model_validate(cold),
        server_starts=int(data["server_starts"]),
        load_memory=None if load_memory is None else LoadMemory.model_validate(load_memory),
        greedy_texts=data["greedy_texts"],
        greedy={name: Greedy.model_validate(one) for name, one in data["greedy"].items()},
    )


_FLAGS = {
    "threads": "--threads",
    "context_per_slot": "--context",
    "cache_type_k": "--kv-type",
    "cache_type_v": "--kv-type",
}


def asked(prepared: Prepared, engine: Engine) -> dict[str, Value]:
    """Settings that were chosen, by their names among the resolved ones."""
    spec = prepared.spec
    given: dict[str, Value | None] = {
        "threads": spec.threads,
        "context_per_slot": spec.context,
        "cache_type_k": spec.kv_type,
        "cache_type_v": spec.kv_type,
    }
    return {name: value for name, value in given.items() if value is not None} | dict(engine.asked)


def require(prepared: Prepared, engine: Engine, facts: BackendFacts, log_tail: str = "") -> None:
    """Refuse to measure what is known to be something else than was asked for.

    Raises StartError (``other_api``) where an engine started here computes with another API;
    InputError where a running server does, or where it has another setting or tells none.
    """
    wanted, api = prepared.spec.api, engine.api
    if prepared.launch is None:
        _require_of_running(prepared, engine, facts)
    elif wanted is not None and api is not None and api != wanted:
        why = f": {engine.no_device}" if engine.no_device else ""
        raise StartError(
            f"{engine.engine} computes with {api}, not with {wanted}{why}",
            hint=_api_hint(wanted, prepared.backend.name),
            code="other_api",
            log_tail=log_tail,
        )


def _api_hint(wanted: str, backend: str) -> str:
    if wanted == "cpu":
        return "leave --api out to measure with the device that it uses"
    other = "--backend llamacpp and " if backend == "embedded" else ""
    return (
        f"tokrig doctor shows programs and their devices; give a build for {wanted} with"
        f" {other}--server-bin, look at its driver, or leave --api out to measure what computes"
    )


def _require_of_running(prepared: Prepared, engine: Engine, facts: BackendFacts) -> None:
    """A running server is measured as it is: a wish must be what it has already."""
    wanted, api = facts.api_asked, facts.api
    if wanted is not None and (api != wanted or not facts.api_confirmed):
        told = "does not tell what computes" if api is None else f"computes with {api}"
        told = "does not confirm what computes" if api == wanted else told
        raise InputError(
            f"--api {wanted}: the server {told}",
            hint=f"leave --api out, or start a server that computes with {wanted}",
        )
    kind, found = prepared.spec.speculative, engine.speculates_by
    if kind is not None and (engine.speculation is False or found not in (None, kind)):
        does = f"speculates by {found}" if engine.speculation else "does not speculate"
        raise InputError(
            f"--speculative {kind}: the server {does}",
            hint="start the server with it, or leave the option out",
        )
    if differing := ignored(facts):
        words = dict.fromkeys(
            f"{_FLAGS.get(name, name)} {said}" for name, said in differing.items()
        )
        raise InputError(
            f"the server runs with other settings: {'; '.join(words)}",
            hint="start the server with them, or leave the options out to measure it as it is",
        )
    if unknown := untold(facts):
        flags = ", ".join(dict.fromkeys(_FLAGS.get(name, name) for name in unknown))
        raise InputError(
            f"{flags}: the server does not tell this setting, and a running one is not changed",
            hint="start the server with it, and leave the option out",
        )


def found_mode(mode: Mode, engine: Engine) -> Mode:
    """The mode that was asked for with what the engine does beside it, in its name too: two runs
    never look alike. A running server may speculate though nobody asked it to here."""
    parts = [part for part in mode.name.split("+") if part != "baseline"]
    if engine.speculation and mode.speculative is None:
        kind = engine.speculates_by or "speculation"
        parts.insert(0, kind)
        mode = mode.model_copy(update={"speculative": kind})
    if engine.offload is not None:
        parts.append(_short(engine.offload))
        mode = mode.model_copy(update={"offload": engine.offload})
    return mode.model_copy(update={"name": "+".join(parts) or "baseline"})


def _short(offload: str) -> str:
    """Patterns would be a line long, and ``+`` parts a name's words: a piece of their digest tells
    them apart."""
    words = []
    for word in offload.split(", "):
        kind, _, pattern = word.partition("override-tensor ")
        if pattern:
            digest = hashlib.sha256(pattern.encode()).hexdigest()[:4]
            word = f"{kind}override-tensor {digest}"
        words.append(word.replace("+", " "))
    return ", ".join(words)
