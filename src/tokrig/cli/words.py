"""Figures and names as short text, and JSON. Plain strings: no rich, so nothing here costs time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tokrig import units
from tokrig.query import labels
from tokrig.record import names

if TYPE_CHECKING:
    from tokrig.record.model import Metric, Model, Record, Result, Validity

NULL = "–"
rate = units.human_rate


def print_json(data: Any) -> None:
    """``data`` on stdout, for machines."""
    print(json.dumps(data, indent=1, ensure_ascii=False))


def spread(metric: Metric | None) -> str:
    """The interval where there is one, else the range: ``148–152``; ``–`` without either."""
    if metric is None:
        return NULL
    low, high = metric.ci95 or (metric.min, metric.max)
    if low is None or high is None:
        return NULL
    decimals = 0 if high >= 100 else 1 if high >= 10 else 2
    return f"{low:,.{decimals}f}–{high:,.{decimals}f}"


def model_name(model: Model) -> str:
    """``Gemma-3 270m · Q4_K_M``."""
    return " · ".join(filter(None, (names.model_name(model), model.quant)))


def subject(record: Record) -> str:
    """What was measured: ``Gemma-3 270m · Q4_K_M · llama.cpp b9174 (cuda) · rig my-rig``; the mode
    before the rig, unless it is the baseline."""
    what = (model_name(record.model), labels.backend(record.backend), mode(record.mode.name))
    return " · ".join(filter(None, (*what, f"rig {record.rig.id}")))


def mode(name: str) -> str:
    """``n-gram speculation, reasoning off``; nothing for the baseline."""
    return labels.mode_besides(name)


def label(result: Result) -> str:
    """``agent × 4``."""
    return f"{result.workload.name} × {result.concurrency}"


def verdict(validity: Validity) -> str:
    """``valid``, ``unverified`` or ``INVALID``."""
    return "INVALID" if validity.verdict == "invalid" else validity.word


def caption(record: Record) -> str:
    """How often was measured, and so what the range beside a median is."""
    if not record.results:
        return ""
    level = record.provenance.level or record.provenance.kind
    requests = sorted({r.requests for r in record.results if r.requests is not None})
    if not requests:
        return f"{level}: medians; of how many requests is not known"
    number = f"{requests[0]}" if len(requests) == 1 else f"{requests[0]}–{requests[-1]}"
    interval = any(r.output_tok_per_s and r.output_tok_per_s.ci95 for r in record.results)
    spread_is = "95 % interval" if interval else "range, no interval"
    text = f"{level}: medians of {number} requests, {spread_is}"
    if any(r.prefill_source == "ttft_derived" for r in record.results):
        text += "; ~ prefill derived from TTFT"
    return text
