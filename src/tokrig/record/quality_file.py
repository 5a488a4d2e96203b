"""The answers of a run as a file: Parquet, one row a prompt.

``prompt_ids`` are the tokens that reached the model, ``text_ids`` those of the bare question,
``answer_ids`` the greedy answer. Of each of its tokens ``top_ids`` and ``top_logprobs`` hold the
likeliest, ``TOP_K`` a position, one position after the other; ``forced_ids`` and
``forced_logprobs`` those after the reference's tokens, from the position ``forced_from`` on. The
file's metadata carries ``tokrig_quality``: the version of this layout, that of the prompts, the
reference, why nothing was told. The same answers give the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from tokrig.record.parquet import arrow, read, require_layout, storable
from tokrig.record.quality import TOP_K, Answer, Answers, Position

LAYOUT_VERSION = 1
# Log-probabilities are rounded to what 32 bits hold of them anyway.
DECIMALS = 5
_KEY = b"tokrig_quality"
_TEXTS = ("name", "kind", "language", "text")
_IDS = ("prompt_ids", "text_ids", "answer_ids", "top_ids", "forced_ids")
_LOGPROBS = ("top_logprobs", "forced_logprobs")


def to_parquet(found: Answers) -> bytes:
    """The bytes of the file."""
    pa = arrow()
    about = {
        "layout": LAYOUT_VERSION,
        "version": found.version,
        "reference": found.reference,
        "failure": found.failure,
    }
    schema = _schema(pa).with_metadata({_KEY: json.dumps(about).encode()})
    rows = [_row(answer) for answer in found.answers]
    sink = pa.BufferOutputStream()
    arrow("pyarrow.parquet").write_table(
        pa.Table.from_pylist(rows, schema=schema),
        sink,
        compression="zstd",
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def from_parquet(data: bytes, name: str) -> Answers:
    """The answers in the bytes of a file; ``name`` (a path) stands in front of every message.

    Raises RecordError for a truncated, altered or foreign file and for a newer layout.
    """

    def understood(table: Any) -> Answers:
        about = json.loads((table.schema.metadata or {})[_KEY])
        require_layout(about["layout"], LAYOUT_VERSION, name)
        if not table.schema.equals(_schema(arrow()), check_metadata=False):
            raise ValueError("its columns are others")
        return Answers(
            version=str(about["version"]),
            reference=about["reference"],
            failure=about["failure"],
            answers=tuple(_answer(row) for row in table.to_pylist()),
        )

    return read(data, name, "file of answers", understood)


def _schema(pa: Any) -> Any:
    def of(names: Iterable[str], kind: Any) -> list[Any]:
        return [pa.field(name, kind, nullable=False) for name in names]

    lists = (pa.list_(pa.field("element", kind, nullable=False)) for kind in _numbers(pa))
    ids, logprobs = lists
    return pa.schema(
        [
            *of(_TEXTS, pa.string()),
            *of(_IDS, ids),
            *of(_LOGPROBS, logprobs),
            *of(["forced_from"], pa.int32()),
        ]
    )


def _numbers(pa: Any) -> tuple[Any, Any]:
    return pa.int32(), pa.float32()


def _row(answer: Answer) -> dict[str, Any]:
    return {
        **{name: storable(getattr(answer, name)) for name in _TEXTS},
        "prompt_ids": list(answer.prompt_ids),
        "text_ids": list(answer.text_ids),
        "answer_ids": list(answer.ids),
        **_flat("top", answer.positions),
        "forced_from": answer.forced_from,
        **_flat("forced", answer.forced),
    }


def _flat(name: str, positions: Sequence[Position]) -> dict[str, list[Any]]:
    return {
        f"{name}_ids": list(chain.from_iterable(at.ids for at in positions)),
        f"{name}_logprobs": [round(v, DECIMALS) for at in positions for v in at.logprobs],
    }


def _answer(row: Mapping[str, Any]) -> Answer:
    return Answer(
        **{name: row[name] for name in _TEXTS},
        prompt_ids=tuple(row["prompt_ids"]),
        text_ids=tuple(row["text_ids"]),
        ids=tuple(row["answer_ids"]),
        positions=_positions(row, "top"),
        forced_from=row["forced_from"],
        forced=_positions(row, "forced"),
    )


def _positions(row: Mapping[str, Any], name: str) -> tuple[Position, ...]:
    ids, logprobs = row[f"{name}_ids"], row[f"{name}_logprobs"]
    if len(ids) != len(logprobs) or len(ids) % TOP_K:
        raise ValueError(f"{name}_ids and {name}_logprobs are of different positions")
    if not all(math.isfinite(v) and v <= 1e-4 for v in logprobs):
        raise ValueError(f"{name}_logprobs holds what is no logarithm of a probability")
    found = []
    for at in range(0, len(ids), TOP_K):
        if len(set(ids[at : at + TOP_K])) < TOP_K:
            raise ValueError(f"{name}_ids names a token twice in one position")
        found.append(Position(tuple(ids[at : at + TOP_K]), tuple(logprobs[at : at + TOP_K])))
    return tuple(found)
