"""llama-batched-bench of llama.cpp: JSON lines, and its table.

Fields after ``tools/batched-bench/batched-bench.cpp`` (ggml-org/llama.cpp, b11434). A row is
``pl`` sequences of ``pp`` prompt tokens, then ``tg`` tokens each, measured once; its rates are of
all sequences together. The file names no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokrig.exchange.document import Document
from tokrig.exchange.fields import Fields
from tokrig.exchange.format import Format, Found, head, objects, summary
from tokrig.record.block import Summary
from tokrig.record.model import BackendFacts, Raw, Resolved
from tokrig.units import significant

_FLASH = {0: "off", 1: "on"}
_COLUMNS = {"pp": "PP", "tg": "TG", "pl": "B", "speed_pp": "S_PP t/s", "speed_tg": "S_TG t/s"}


def _read(document: Document) -> Iterable[Found]:
    first = head(document)

    def count(name: str) -> int | None:
        return None if str(first.get(name)).startswith("-") else first.count(name)

    found = Found(
        model=None,
        backend=BackendFacts(
            name="llama-batched-bench",
            engine="llama.cpp",
            resolved=Resolved(
                context_total=count("n_kv_max"),
                threads=count("n_threads"),
                threads_batch=count("n_threads_batch"),
                batch=count("n_batch"),
                ubatch=count("n_ubatch"),
                flash_attention=None if (flash := count("flash_attn")) is None else _FLASH[flash],
            )
            if document.kind == "json"
            else Resolved(),
        ),
    )
    for row in objects(document):
        found.raw += _figures(row)
    found.left_out["speed: a rate over prompts and answers is neither prefill nor decode"] = None
    return [found]


def _figures(row: Fields) -> Iterator[Raw]:
    names = _COLUMNS if row.is_table else {name: name for name in _COLUMNS}
    prompt, output, at_once = (row.count(names[name]) or 0 for name in ("pp", "tg", "pl"))
    if not at_once:
        raise row.refuse(names["pl"], "a test of no sequences")
    if prompt and (rate := _rate(row, names["speed_pp"])):
        test = f"pp{prompt}"
        yield Raw(test=test, prompt_tokens=prompt, concurrency=at_once, tok_per_s=rate)
    # Generation goes on behind the prompt, so at its depth.
    if output and (rate := _rate(row, names["speed_tg"])):
        yield Raw(
            test=f"tg{output} @ d{prompt}",
            output_tokens=output,
            depth_tokens=prompt,
            concurrency=at_once,
            tok_per_s=rate,
        )


def _rate(row: Fields, name: str) -> Summary | None:
    rate = row.positive(name)
    return summary([significant(rate, 6)]) if rate else None


FORMAT = Format(
    name="llama-batched-bench",
    title="llama-batched-bench",
    files="--output-format jsonl or md",
    kinds=frozenset({"json", "markdown"}),
    signatures=(
        frozenset({"pp", "tg", "pl", "speed_pp", "speed_tg"}),
        frozenset({"PP", "TG", "B", "S_PP t/s", "S_TG t/s"}),
    ),
    read=_read,
    names_model=False,
)
