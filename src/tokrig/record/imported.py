"""The verdict on figures that another tool measured. Pure.

Nobody here saw the requests, so they are never valid. What is wrong with a tool's figures for a
reader of tokrig's stands on every row as a code of ``MARKS``; what their own fields determine is
computed again by ``tokrig check``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokrig.record.checks import UNLOOKED, judge_raw, verdict
from tokrig.record.metrics import METRICS
from tokrig.record.model import BackendFacts, Raw, Result, Validity

MARKS = frozenset(
    "chunks_as_tokens chunks_at_once tpot_with_ttft prefill_from_ttft cache_untold engine_clock"
    " mean_not_median warm_up_untold weighted_by_tokens".split()
)
"""Codes of figures that other tools define otherwise; no measured result has one."""

# Given by formats, too, and those that the figures determine.
_ALSO = frozenset({"token_count_unverified", "first_chunk_assumed"})
_DETERMINED = frozenset({"mean_not_median", "prefill_from_ttft"})
UNCHECKED = frozenset({"warm_up_untold"})
_SUMMARIES = [name for name, metric in METRICS.items() if metric.kind == "summary"]
# What tokrig looks at while it measures, and nobody did here.
UNSEEN = ("server_clock", "api", *dict.fromkeys(UNLOOKED.values()))


def judge_imported(result: Result, codes: Iterable[str]) -> Validity:
    """The verdict on one served result of another tool; ``codes`` are those that its format
    gives."""
    reasons = ["request_errors"] if result.request_errors else []
    given, unchecked = _split([*codes, *_own(result)])
    unverified = ["samples", *given]
    return Validity(
        verdict=verdict(bool(reasons), unverified),
        reasons=reasons,
        unverified=unverified,
        unchecked=[*UNSEEN, *unchecked],
    )


def judge_imported_raw(
    raw: Sequence[Raw], backend: BackendFacts, codes: Iterable[str], *, complete: bool
) -> Validity:
    """The verdict on the figures of an engine's own benchmark that somebody else ran."""
    seen = dict.fromkeys(UNLOOKED)
    found = judge_raw(len(raw), backend, seen, complete=complete)
    means = ["mean_not_median"] if any(one.tok_per_s.is_mean for one in raw) else []
    given, unchecked = _split([*codes, *means])
    unverified = [*dict.fromkeys(["samples", *found.unverified, *given])]
    return found.model_copy(
        update={
            "verdict": verdict(bool(found.reasons) or not raw, unverified),
            "unverified": unverified,
            "unchecked": [*found.unchecked, *unchecked],
        }
    )


def given_codes(validity: Validity) -> list[str]:
    """The codes of a verdict that came from a file's format: its fields do not determine them."""
    given = (MARKS | _ALSO) - _DETERMINED
    return [code for code in validity.unverified + validity.unchecked if code in given]


def _own(result: Result) -> list[str]:
    """Codes that the figures themselves give."""
    summaries = [getattr(result, name, None) for name in _SUMMARIES]
    own = ["mean_not_median"] if any(one is not None and one.is_mean for one in summaries) else []
    if getattr(result, "prefill_source", None) == "ttft_derived":
        own.append("prefill_from_ttft")
    return own + ([] if getattr(result, "output_tok_per_s", None) else ["no_rate"])


def _split(codes: Iterable[str]) -> tuple[list[str], list[str]]:
    known = list(dict.fromkeys(codes))
    unchecked = [code for code in known if code in UNCHECKED]
    return [code for code in known if code not in UNCHECKED], unchecked
