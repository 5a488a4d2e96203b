"""What a run has learned of its engine and model, kept in the journal in case it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokrig.errors import InputError
from tokrig.record.model import BackendFacts, ColdStart, Greedy, LoadMemory, Mode, Model


@dataclass(frozen=True)
class Told:
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


def told_to_json(told: Told) -> dict[str, Any]:
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


def told_from_json(data: Mapping[str, Any]) -> Told:
    """What ``told_to_json`` wrote. Raises InputError for what another version of tokrig wrote."""
    try:
        return _told(data)
    except (KeyError, TypeError, ValueError) as problem:
        raise InputError(
            f"the unfinished run was begun by another version of tokrig: {problem!r}",
            hint="discard it with: tokrig run --discard ID",
        ) from None


def _told(data: Mapping[str, Any]) -> Told:
    cold, load_memory = data["cold"], data["load_memory"]
    return Told(
        model=Model.model_validate(data["model"]),
        backend=BackendFacts.model_validate(data["backend"]),
        mode=Mode.model_validate(data["mode"]),
        cold=None if cold is None else ColdStart.model_validate(cold),
        server_starts=int(data["server_starts"]),
        load_memory=None if load_memory is None else LoadMemory.model_validate(load_memory),
        greedy_texts=data["greedy_texts"],
        greedy={name: Greedy.model_validate(one) for name, one in data["greedy"].items()},
    )
