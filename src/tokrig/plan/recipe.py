"""Which models to measure on a machine of a size, so that its rows meet those of others.

Pure: computed from the records. What most machines of that size have measured comes first, then
what most others have; a model is named once, in the quant that is shared most.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tokrig import naming
from tokrig.record.model import Model, Record, Result
from tokrig.units import slug

SIZES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
"""GB of VRAM. A machine belongs to the largest of these that it has; 0 is one without a card."""
MOST_MODELS = 8


@dataclass(frozen=True)
class Wanted:
    """A model with its quant, the shapes that most have measured of it, and how many machines of
    the size (``alike``) and of any (``machines``) have it. ``engine`` measured it last."""

    model: Model
    shapes: tuple[str, ...]
    alike: int
    machines: int
    engine: str

    @property
    def reference(self) -> str:
        """What ``--model`` takes: a file of a hub where the record names it, else the file."""
        model = self.model
        if model.repo is None:
            return model.file or f"{slug(naming.model_label(model))}.gguf"
        return str(naming.Reference(model.repo, model.revision or "main", model.file))

    @property
    def command(self) -> str:
        """The command that measures it."""
        chosen = "" if self.shapes == naming.SHAPES else f" --workload {','.join(self.shapes)}"
        return f"tokrig run --model {_quoted(self.reference)}{chosen} --level publish"


def size_of(record: Record) -> int | None:
    """The size of the machine that computed, one of ``SIZES`` or 0; None where it is not known, or
    is a card smaller than all of them."""
    if record.backend.api == "cpu":
        return 0
    held = naming.vram_gb(record.rig)
    return held if not held else (fitting(held) or None)


def fitting(gb: int) -> int:
    """The largest size that so many GB of VRAM have; 0 below all of them."""
    return max((size for size in SIZES if size <= gb), default=0)


def recipe(records: Iterable[Record], size: int) -> list[Wanted]:
    """What llama.cpp should measure on a machine of ``size``; ``records`` newest first."""
    return _recipe(_held(records), size)


def recipes(records: Sequence[Record]) -> dict[int, list[Wanted]]:
    """That of each size that a record is of, and of a machine without a card."""
    held = _held(records)
    return {size: _recipe(held, size) for size in sizes(records)}


_Key = tuple[str, str | None]


class _Held(NamedTuple):
    """What may stand in a recipe: a record, the size of its machine, the model's page and its
    quant, the shapes that it has measured."""

    record: Record
    at: int
    key: _Key
    shapes: frozenset[str]


def _held(records: Iterable[Record]) -> list[_Held]:
    return [
        _Held(r, at, (naming.model_address(r.model), r.model.quant), _measured(plain))
        for r in records
        if (plain := r.plain) and (at := size_of(r)) is not None and _sound(r, plain)
    ]


def _measured(results: Iterable[Result]) -> frozenset[str]:
    return frozenset(result.workload.name for result in results)


def _recipe(held: Sequence[_Held], size: int) -> list[Wanted]:
    everywhere = Counter(key for key, _ in {(one.key, one.record.rig.id) for one in held})
    here = {(one.key, one.record.rig.id) for one in held if one.at == size}
    alike = Counter(key for key, _ in here)
    of_size = [one for one in held if (one.at == 0 if size == 0 else 0 < one.at <= size)]
    shapes = _shapes(of_size)
    newest = {one.key: one.record for one in reversed(of_size)}

    def order(key: _Key) -> tuple[Any, ...]:
        record = newest[key]
        return (-alike[key], -everywhere[key], -(record.model.bytes or 0), record.id)

    found: dict[str, Wanted] = {}
    for key in sorted(newest, key=order):
        engine = naming.backend_name(newest[key].backend)
        one = Wanted(newest[key].model, shapes, alike[key], everywhere[key], engine)
        found.setdefault(key[0], one)
    return [*found.values()][:MOST_MODELS]


def sizes(records: Sequence[Record]) -> list[int]:
    """The sizes that a recipe is for: no card, and every one that a record is of."""
    return sorted({0} | {at for r in records if r.plain and (at := size_of(r)) is not None})


def campaign(wanted: Sequence[Wanted], size: int) -> dict[str, Any]:
    """The same as the content of a campaign file."""
    models: dict[str, dict[str, Any]] = {}
    entries = []
    for one in wanted:
        name = slug(naming.model_label(one.model))
        models[name] = _source(one)
        matrix = {"model": name, "backend": "llamacpp", "workloads": [*one.shapes]}
        entries.append({"name": name, "title": naming.model_label(one.model), "matrix": matrix})
    return {
        "title": f"What others measure {name_of(size)}",
        "level": "publish",
        "models": models,
        "entries": entries,
    }


def name_of(size: int) -> str:
    """``with 12 GB of VRAM``."""
    return f"with {size} GB of VRAM" if size else "without a graphics card"


def _source(one: Wanted) -> dict[str, Any]:
    model = one.model
    if model.repo is None:
        return {"file": one.reference}
    named = {"repo": model.repo, "revision": model.revision, "file": model.file}
    return {name: value for name, value in named.items() if value}


def _sound(record: Record, plain: Iterable[Result]) -> bool:
    stands = any(result.validity.stands for result in plain)
    return stands and record.model.format in (None, "gguf") and not record.mode.offload


def _shapes(held: Iterable[_Held]) -> tuple[str, ...]:
    """Of tokrig's shapes those that at least half as many machines have as the commonest."""
    seen = {(shape, one.record.rig.id) for one in held for shape in one.shapes}
    counted = Counter(shape for shape, _ in seen)
    enough = max((counted[shape] for shape in naming.SHAPES), default=0) / 2
    return tuple(shape for shape in naming.SHAPES if counted[shape] and counted[shape] >= enough)


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w@%+=:,./-]+", text, re.ASCII) else f"'{text}'"
