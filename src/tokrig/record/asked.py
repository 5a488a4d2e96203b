"""Were the settings that a user chose the ones that the engine used? Pure, from a record."""

from __future__ import annotations

from tokrig.record.model import BackendFacts, Resolved

Value = str | int | float | bool

# Engines make contexts a multiple of this, never less than was asked.
CONTEXT_STEP = 256

# Other names of the same type.
_SAME = {"half": "float16", "float": "float32", "bf16": "bfloat16", "fp16": "float16"}


def ignored(backend: BackendFacts) -> dict[str, str]:
    """Settings that the engine resolved to something else than was asked, by name: ``1 asked, 2
    used``."""
    told = {name: getattr(backend.resolved, name, None) for name in backend.asked}
    return {
        name: f"{_shown(asked)} asked, {_shown(told[name])} used"
        for name, asked in backend.asked.items()
        if told[name] not in (None, []) and not _honoured(name, asked, told[name], backend.resolved)
    }


def untold(backend: BackendFacts) -> list[str]:
    """Settings that were asked for and that the engine does not read back."""
    return [n for n in backend.asked if getattr(backend.resolved, n, None) in (None, [])]


def _honoured(name: str, asked: Value, found: object, resolved: Resolved) -> bool:
    if name == "devices" and isinstance(found, list):
        return {*str(asked).split(",")} == {*map(str, found)}
    if isinstance(found, int) and isinstance(asked, int) and not isinstance(found, bool):
        return _number_honoured(name, asked, found, resolved)
    one, other = _plain(asked), _plain(found)
    # fp8 → fp8_e4m3, awq → awq_marlin.
    return one == other or other.startswith(f"{one}_")


def _number_honoured(name: str, asked: int, found: int, resolved: Resolved) -> bool:
    if name == "context_per_slot":
        return asked <= found < asked + CONTEXT_STEP
    # No batch is longer than the context, no part of it longer than the batch.
    largest = {"batch": resolved.context_total, "ubatch": resolved.batch}.get(name)
    return found == asked or (found < asked and found == largest)


def _plain(value: object) -> str:
    word = str(value).lower().removeprefix("torch.")
    return _SAME.get(word, word)


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
