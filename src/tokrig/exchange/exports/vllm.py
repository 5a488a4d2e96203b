"""What ``vllm bench serve`` writes with --save-detailed: a JSON object a result, one a line, as its
--append-result has them.

Fields and their meaning are those of vllm/benchmarks/serve.py (``calculate_metrics``): medians and
percentiles over all requests, not over starts; TPOT = (last chunk − first) / (tokens − 1); ITL is
the gap between chunks, which may carry several tokens. They are computed from the samples. A run
without samples has the medians that its record has, and no more. What tokrig does not have is
null where that tool always says something (the tokenizer's name), else left out, never filled in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokrig import naming
from tokrig.exchange.exports import Export, Exported, Samples
from tokrig.record.model import Record, Result
from tokrig.record.samples import Sample
from tokrig.store.load import Run

PERCENTILES = (90, 95, 99)


def _make(runs: Sequence[Run], samples: Samples) -> Exported:
    lines, notes = [], []
    for run in runs:
        found = samples(run)
        if not found and run.record.results:
            notes.append(f"{run.id} has no samples: medians alone, no percentiles, no requests")
        for result in run.record.results:
            of_cell = [s for s in found if s.phase == "measured" and s.cell == result.cell]
            measured = _of_requests(of_cell) if of_cell else _of_record(result)
            about = _about(run.record, result)
            lines.append(json.dumps(about | measured, ensure_ascii=False, allow_nan=False))
    return Exported(("\n".join(lines) + "\n").encode("utf-8", "replace"), notes)


def _about(record: Record, result: Result) -> dict[str, Any]:
    """What was asked, and in ``tokrig_…`` what vLLM's format has no place for."""
    told, rate = record.provenance, result.rate_per_s
    date = (told.started_at or "").replace("-", "").replace(":", "").replace("T", "-")
    shape = result.arrivals.burstiness if result.arrivals else None
    model = (record.model.family, record.model.variant, record.model.quant)
    dialect = "openai-chat" if told.kind == "measured" else None
    asked = {
        "date": date.rstrip("Z") or None,
        "endpoint_type": dialect,
        "backend": dialect,
        "label": record.id,
        "model_id": "-".join(filter(None, model)).replace(" ", "-"),
        "tokenizer_id": None,
        "num_prompts": result.requests,
        "request_rate": "inf" if rate is None else rate,
        "burstiness": 1.0 if result.load == "poisson" else shape,
        "max_concurrency": None if result.cell.is_open else result.concurrency,
    }
    ours = {
        "tokrig_run": record.id,
        "tokrig_provenance": told.kind,
        "tokrig_workload": result.workload.name,
        "tokrig_depth_tokens": result.depth_tokens or None,
        "tokrig_load": result.load,
        "tokrig_verdict": result.validity.word,
        "tokrig_invalid_because": result.validity.reasons or None,
        "tokrig_unverified": result.validity.unverified or None,
        "tokrig_rig": record.rig.id,
        "tokrig_build": naming.backend_label(record.backend),
    }
    return asked | _without_null(ours)


def _of_requests(samples: Sequence[Sample]) -> dict[str, Any]:
    """The fields that requests tell; times of each in seconds, of all in ms."""
    good = [s for s in samples if s.error is None and s.stream]
    duration = sum(_window_s(samples, repeat) for repeat in {s.repeat for s in samples})
    prompts = [s.prompt_tokens for s in good]
    answers = [0 if s.error else s.output_tokens for s in samples]
    gaps = [np.diff(s.stream.times_ns()) / 1e9 for s in good]
    found: dict[str, Any] = {
        "completed": len(good),
        "failed": len(samples) - len(good),
        "duration": duration,
        "request_throughput": len(good) / duration if duration else None,
    }
    if None not in prompts:
        found["total_input_tokens"] = sum(p or 0 for p in prompts)
    if None not in answers:
        found["total_output_tokens"] = total = sum(a or 0 for a in answers)
        found["output_throughput"] = total / duration if duration else None
        if None not in prompts and duration:
            both = total + found["total_input_tokens"]
            found["total_token_throughput"] = both / duration
    ttfts = [s.stream.stamps_ns[0] / 1e9 for s in good]
    ends = [s.stream.stamps_ns[-1] / 1e9 for s in good]
    found |= _spread("ttft", ttfts)
    counts = [s.output_tokens for s in good]
    if None not in counts:
        tpots = [
            (end - first) / (count - 1)
            for first, end, count in zip(ttfts, ends, counts, strict=True)
            if count is not None and count > 1
        ]
        found |= _spread("tpot", tpots)
    found |= _spread("itl", [gap for each in gaps for gap in each.tolist()])
    found |= _spread("e2el", ends)
    return _without_null(found) | _each(samples)


def _each(samples: Sequence[Sample]) -> dict[str, Any]:
    """One value a request, failed ones too, as --save-detailed has them."""
    counts = {
        "input_lens": [s.prompt_tokens for s in samples],
        "output_lens": [0 if s.error else s.output_tokens for s in samples],
    }
    found: dict[str, Any] = {name: all_ for name, all_ in counts.items() if None not in all_}
    if len({s.repeat for s in samples}) == 1:  # each start has a clock of its own
        found["start_times"] = [s.sent_ns / 1e9 for s in samples]
    found["ttfts"] = [s.stream.stamps_ns[0] / 1e9 if s.stream else 0.0 for s in samples]
    found["itls"] = [(np.diff(s.stream.times_ns()) / 1e9).tolist() for s in samples]
    found["errors"] = [s.error or "" for s in samples]
    if all(s.text_kept for s in samples):
        found["generated_texts"] = [s.stream.text for s in samples]
    return found


def _window_s(samples: Sequence[Sample], repeat: int) -> float:
    """From the first request sent to the last chunk of any."""
    own = [s for s in samples if s.repeat == repeat]
    ends = [s.sent_ns + s.stream.stamps_ns[-1] for s in own if s.stream]
    return (max(ends) - min(s.sent_ns for s in own)) / 1e9 if ends else 0.0


def _spread(name: str, seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ms = np.asarray(seconds) * 1000
    found = {"mean": ms.mean(), "median": np.median(ms), "std": ms.std()}
    found |= {f"p{p}": np.percentile(ms, p) for p in PERCENTILES}
    return {f"{part}_{name}_ms": float(value) for part, value in found.items()}


def _of_record(result: Result) -> dict[str, Any]:
    """Those that a record tells without samples."""
    failed = result.request_errors
    ran = None if result.requests is None else result.requests - (failed or 0)
    summaries = {
        "median_ttft_ms": (result.ttft_s, 1000),
        "median_tpot_ms": (result.tpot_s, 1000),
        "output_throughput": (result.system_tok_per_s, 1),
    }
    medians = {k: one.median * times for k, (one, times) in summaries.items() if one is not None}
    return _without_null({"completed": ran, "failed": failed, **medians})


def _without_null(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


EXPORT = Export("a JSON object a result, as vllm bench serve writes it", (".jsonl",), _make)
