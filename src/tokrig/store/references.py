"""Which run the answers of a model are held against: that of the highest precision in the store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tokrig.errors import TokrigError
from tokrig.quants import bits_per_weight
from tokrig.record.model import Mode, Model
from tokrig.record.quality import Reference
from tokrig.store import Row, Store


def reference_for(store: Store, model: Model, mode: Mode, run_id: str) -> Reference | None:
    """The run of the same model, with the same wish for reasoning, whose file holds most bits a
    weight, and at least as many as ``model``: of several the oldest. None where there is none, or
    where this model's precision is not known. ``run_id`` is the run itself."""
    own = precision(model.quant)
    if own is None:
        return None
    for bits, row in sorted(_candidates(store, model), key=lambda one: (-one[0], _age(one[1]))):
        if bits < own or row.id == run_id:
            continue
        with contextlib.suppress(TokrigError):  # tokrig check names what cannot be read
            record = store.read(store.runs / row.path)
            answers, sha256 = store.read_answers(row.id)
            if record.mode.reasoning_asked == mode.reasoning_asked and answers.told:
                return Reference(row.id, record.model.quant, sha256, answers)
    return None


def precision(quant: str | None) -> float | None:
    """Bits a weight, as far as they say how near a file is to its original: nothing is lost from
    16 on."""
    bits = bits_per_weight(quant) if quant else None
    return None if bits is None else min(bits, 16.0)


def _candidates(store: Store, model: Model) -> Iterator[tuple[float, Row]]:
    same = (model.family.casefold(), (model.variant or "").casefold())
    for row in store.rows():
        bits = precision(row.quant)
        named = (row.family.casefold(), (row.variant or "").casefold())
        if bits is not None and named == same and store.answers_path(row.id).exists():
            yield bits, row


def _age(row: Row) -> tuple[str, str]:
    return row.started_at or "", row.id
