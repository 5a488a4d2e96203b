"""llama-bench of llama.cpp: JSON, JSON lines, CSV, SQL, and its Markdown table.

Fields after ``struct test`` and the printers of ``tools/llama-bench/llama-bench.cpp``
(ggml-org/llama.cpp, b11434; older builds lack some fields and have others). A row is a test of one
configuration. Its figures involve no server and no client. Its own average is a mean: JSON and
JSON lines have all repetitions (``samples_ts``), the others only that. ``backends`` are those that
the build has, not what computed, and ``-ngl 99`` is what was asked for, not what was found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tokrig.exchange.document import Document
from tokrig.exchange.fields import Fields
from tokrig.exchange.format import Format, Found, objects, summary
from tokrig.exchange.machine import card, machine
from tokrig.exchange.models import llama_model
from tokrig.record.model import BackendFacts, Mode, Raw, Resolved
from tokrig.units import significant

# What differs between two tests of one configuration; everything else is the configuration.
_OF_A_TEST = frozenset(
    "n_prompt n_gen n_depth test test_time avg_ns stddev_ns avg_ts stddev_ts samples_ns samples_ts"
    " t/s".split()
)
_SHORT = {"ngl": "n_gpu_layers", "threads": "n_threads", "fa": "flash_attn", "sm": "split_mode"}
_TEST = re.compile(r"(?:pp(\d+))?\+?(?:tg(\d+))?(?: @ d(\d+))?")
_BUILD = re.compile(r"^build: \w+ \((\d{1,9})\)\s*$", re.M)  # beneath the table
_FLASH = {0: "off", 1: "on"}


def _read(document: Document) -> Iterable[Found]:
    by_configuration: dict[tuple[tuple[str, str], ...], Found] = {}
    for row in objects(document):
        told = tuple((name, repr(value)) for name, value in row.data.items())
        key = tuple(pair for pair in told if pair[0] not in _OF_A_TEST)
        if key not in by_configuration:
            by_configuration[key] = _configuration(row)
        found = by_configuration[key]
        found.raw += _figure(row, found)
        times = filter(None, (found.started_at, row.text("test_time")))
        found.started_at = min(times, default=None)
    if built := _BUILD.search(document.text) if document.kind == "markdown" else None:
        for found in by_configuration.values():
            found.backend = found.backend.model_copy(update={"build": f"b{built[1]}"})
            found.version = f"b{built[1]}"
    return by_configuration.values()


def _configuration(row: Fields) -> Found:
    short = {long: name for name, long in _SHORT.items() if row.is_table and row.has(name)}

    def count(name: str) -> int | None:
        at = short.get(name, name)
        return None if str(row.get(at)).startswith("-") else row.count(at)  # -1: its own choice

    flash = _FLASH.get(count("flash_attn") or 0) if row.get("flash_attn") is not None else None
    build, layers, moe = count("build_number"), count("n_gpu_layers"), count("n_cpu_moe")
    return Found(
        model=llama_model(
            row.text("model_type") or row.text("model"),
            row.text("model_filename"),
            size=count("model_size"),
            parameters=count("model_n_params"),
        ),
        backend=BackendFacts(
            name="llama-bench",
            engine="llama.cpp",
            build=f"b{build}" if build else row.text("build_commit"),
            asked={} if layers is None else {"gpu_layers": layers},
            resolved=Resolved(
                threads=count("n_threads"),
                threads_batch=count("n_threads"),
                batch=count("n_batch"),
                ubatch=count("n_ubatch"),
                cache_type_k=row.text("type_k"),
                cache_type_v=row.text("type_v"),
                flash_attention=flash,
            ),
        ),
        mode=Mode(name=f"n-cpu-moe {moe}", offload=f"n-cpu-moe {moe}") if moe else Mode(),
        rig=machine(row.text("cpu_info"), [*map(card, _names(row.text("gpu_info")))]),
        version=f"b{build}" if build else None,
    )


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(", ") if name.strip()]


def _figure(row: Fields, found: Found) -> Iterator[Raw]:
    if row.has("test") and not row.has("n_prompt"):
        named = _TEST.fullmatch(row.text("test") or "")
        if named is None or not row.get("test"):
            raise row.refuse("test", f"{str(row.get('test'))[:40]!r} is no test of llama-bench")
        prompt, output, depth = (int(one[:12]) if one else 0 for one in named.groups())
    else:
        prompt, output, depth = (row.count(name) or 0 for name in ("n_prompt", "n_gen", "n_depth"))
    both = f"pp{prompt}+tg{output}"
    if prompt and output:
        found.left_out[f"{both}: a rate over prompt and answer is neither prefill nor decode"] = (
            None
        )
        return
    rates = summary([significant(one, 6) for one in row.numbers("samples_ts") or () if one])
    rates = rates or summary(mean=_mean(row))
    if rates is None or not (prompt or output):
        return
    test = f"pp{prompt}" if prompt else f"tg{output}"
    yield Raw(
        test=test + (f" @ d{depth}" if depth else ""),
        tok_per_s=rates,
        prompt_tokens=prompt,
        output_tokens=output,
        depth_tokens=depth,
    )


def _mean(row: Fields) -> float | None:
    """tok/s; in the table ``182.31 ± 2.11``."""
    if not row.has("t/s"):
        mean = row.positive("avg_ts")
    else:
        first = str(row.get("t/s")).split("±")[0].strip()
        mean = Fields({"t/s": first}, row.name, row.place, is_table=True).positive("t/s")
    return None if mean is None else significant(mean, 6)


FORMAT = Format(
    name="llama-bench",
    title="llama-bench",
    files="-o json, jsonl, csv, sql or md",
    kinds=frozenset({"json", "csv", "sql", "markdown"}),
    signatures=(
        frozenset({"n_prompt", "n_gen", "avg_ts", "model_type", "n_threads"}),
        frozenset({"model", "size", "params", "backend", "test", "t/s"}),
    ),
    read=_read,
)
