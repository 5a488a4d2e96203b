"""Figures of sessions: requests that are turns of one conversation, each prompt a longer one that
begins with that of the turn before.

Pure. A sample's ``iteration`` is its turn, its ``worker`` (in a repeat) the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from tokrig.record.formulas import DIGITS, Measured, median, summary, total, ttft_s
from tokrig.record.samples import Sample
from tokrig.units import significant

if TYPE_CHECKING:
    from tokrig.record.block import Summary
    from tokrig.record.loads import SessionFigures, SessionTurn

# A cache that has less of the prompts than this is none: templates open all prompts alike.
HITS_SHOW = 0.01


def walks(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The answered turns of each session, in order."""
    found: dict[tuple[int, int], list[Sample]] = {}
    for sample in samples:
        if sample.load == "session":
            found.setdefault((sample.repeat, sample.worker), []).append(sample)
    return [sorted(walk, key=lambda s: s.iteration) for _, walk in sorted(found.items())]


def session_s(of: Measured) -> Summary | None:
    """First request sent to last token, of each session that is whole."""
    by_repeat: dict[int, list[float]] = {}
    for walk in _whole(of.good):
        last = walk[-1]
        elapsed_ns = last.sent_ns + last.chunks[-1].t_ns - walk[0].sent_ns
        by_repeat.setdefault(last.repeat, []).append(elapsed_ns / 1e9)
    groups = [by_repeat[repeat] for repeat in sorted(by_repeat)]
    return summary(groups, starts=of.starts, by_start=of.by_start)


def session(of: Measured) -> SessionFigures | None:
    """All of it; None where nothing answered was a turn."""
    from tokrig.record.loads import SessionFigures

    each = walks(of.good)
    if not each:
        return None
    prompts = total(s.prompt_tokens for walk in each for s in walk)
    told = prompts is not None and all(s.prompt_tokens is not None for walk in each for s in walk)
    cached: float | None = total(s.cached_tokens for walk in each for s in walk)
    if any(s.cached_tokens is None for walk in each for s in walk):
        cached = of.counters.get("cached_tokens")
    reusable = total(map(reusable_tokens, (pair for walk in each for pair in pairwise(walk))))
    turns = _turns(each)
    return SessionFigures(
        turns=turns,
        sessions=len(_whole(of.good)),
        hit_rate=_share(cached, prompts) if told else None,
        reusable_share=_share(reusable or 0, prompts) if told else None,
        by_turn=[_turn(turn, each) for turn in range(turns)],
    )


def reusable_tokens(pair: tuple[Sample, Sample]) -> int | None:
    """What the second of two turns shares with the first: the whole of its prompt, but for the few
    tokens by which a template asks for an answer."""
    before, after = pair
    known = before.prompt_tokens is not None and after.prompt_tokens is not None
    if not known or after.iteration != before.iteration + 1:
        return None
    return min(before.prompt_tokens or 0, after.prompt_tokens or 0)


def _turns(each: Sequence[Sequence[Sample]]) -> int:
    return 1 + max(walk[-1].iteration for walk in each)


def _whole(good: Sequence[Sample]) -> list[list[Sample]]:
    each = walks(good)
    turns = _turns(each) if each else 0
    return [walk for walk in each if len(walk) == turns and walk[-1].chunks]


def _share(part: float | None, whole: int | None) -> float | None:
    return significant(part / whole, DIGITS) if part is not None and whole else None


def _turn(turn: int, each: Sequence[Sequence[Sample]]) -> SessionTurn:
    from tokrig.record.loads import SessionTurn

    mine = [s for walk in each for s in walk if s.iteration == turn]
    pairs = [pair for walk in each for pair in pairwise(walk) if pair[1].iteration == turn]
    counted = [s for s in mine if s.prompt_tokens is not None and s.cached_tokens is not None]
    figures = {
        "prompt_tokens": median(s.prompt_tokens for s in mine),
        "reusable_tokens": median(map(reusable_tokens, pairs)) if turn else 0.0,
        "cached_tokens": median(s.cached_tokens for s in mine),
        "new_tokens": median((s.prompt_tokens or 0) - (s.cached_tokens or 0) for s in counted),
        "output_tokens": median(s.output_tokens for s in mine),
        "ttft_s": median(map(ttft_s, mine)),
        "total_s": median(s.chunks[-1].t_ns / 1e9 for s in mine if s.chunks),
    }
    return SessionTurn(
        **{name: None if v is None else significant(v, DIGITS) for name, v in figures.items()}
    )


def without_cache(found: SessionFigures) -> bool:
    """Whether nothing came from a prompt cache: there is none, it is off, or a chat template
    changes how prompts begin."""
    return found.hit_rate is not None and found.hit_rate < HITS_SHOW
