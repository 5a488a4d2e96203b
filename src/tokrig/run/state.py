"""What a run asked of its engine and what it learned of it, and the refusals that need the engine's
answer: an API that did not compute, a setting that a running server has otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tokrig.backends import Engine
from tokrig.errors import InputError, StartError
from tokrig.record.model import BackendFacts, ColdStart, Greedy, LoadMemory, Mode, Model
from tokrig.record.rules import Value, ignored, untold
from tokrig.run.prepare import Prepared
from tokrig.spec.settings import asked_values, option_of


class EngineState(BaseModel):
    """What a run has learned of its engine and model so far, kept in the journal in case it is
    resumed. ``greedy_texts`` are the answers without speculation, by workload, None before they
    were asked for."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: Model
    backend: BackendFacts
    mode: Mode
    cold: ColdStart | None = None
    server_starts: int = 0
    load_memory: LoadMemory | None = None
    greedy_texts: dict[str, str] | None = None
    greedy: dict[str, Greedy] = {}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EngineState:
        """What ``model_dump(mode="json")`` gave. Raises InputError for what another version of
        tokrig wrote."""
        try:
            return cls.model_validate(data)
        except ValidationError as problem:
            first = problem.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(
                "the unfinished run was begun by another version of tokrig: "
                f"{where}: {first['msg']}",
                hint="discard it with: tokrig run --discard ID",
            ) from None


def asked(prepared: Prepared, engine: Engine) -> dict[str, Value]:
    """Settings that were chosen, by their names among the resolved ones."""
    return asked_values(prepared.spec.settings) | dict(engine.asked)


def require(prepared: Prepared, engine: Engine, facts: BackendFacts, log_tail: str = "") -> None:
    """Refuse to measure what is known to be something else than was asked for.

    Raises StartError (``other_api``) where an engine started here computes with another API;
    InputError where a running server does, or where it has another setting or tells none.
    """
    wanted, api = prepared.spec.api, engine.api
    if prepared.launch is None:
        _require_of_running(prepared, engine, facts)
    elif wanted is not None and api not in (None, wanted):
        other = "--backend llamacpp and " if prepared.backend.name == "embedded" else ""
        raise StartError(
            f"{engine.engine} computes with {api}, not with {wanted}"
            + (f": {engine.no_device}" if engine.no_device else ""),
            hint="leave --api out to measure with the device that it uses"
            if wanted == "cpu"
            else f"tokrig doctor shows programs and their devices; give a build for {wanted} with "
            f"{other}--server-bin, look at its driver, or leave --api out to measure what computes",
            code="other_api",
            log_tail=log_tail,
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
        words = dict.fromkeys(f"{option_of(name)} {said}" for name, said in differing.items())
        raise InputError(
            f"the server runs with other settings: {'; '.join(words)}",
            hint="start the server with them, or leave the options out to measure it as it is",
        )
    if unknown := untold(facts):
        flags = ", ".join(dict.fromkeys(option_of(name) for name in unknown))
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
