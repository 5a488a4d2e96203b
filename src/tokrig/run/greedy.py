"""Greedy answers with and without speculation: the same prompt, the same engine, one at a time.

Speculative decoding promises the answer that the model would have given anyway. Numerics differ a
little between batch sizes, so a difference is no fault; where it begins is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tokrig.record.model import Greedy
from tokrig.record.samples import Sample
from tokrig.run.prepare import Prepared

SALT = 0  # both answers need the same prompt


def without_speculation(prepared: Prepared) -> Prepared:
    """The same run without its speculation, and without the options that belong to it."""
    launch, belong = prepared.launch, prepared.backend.speculation_options
    assert launch is not None
    kept = {k: v for k, v in launch.options.items() if not k.lstrip("-").startswith(belong)}
    return replace(prepared, launch=replace(launch, speculation=None, options=kept))


def text_of(sample: Sample) -> str:
    """All that the model said, in the order in which it said it."""
    return "".join(chunk.text for chunk in sample.chunks)


def compare(before: str, after: str, count_text: Callable[[str], int | None]) -> Greedy:
    """``before`` was answered without speculation, ``after`` with it."""
    common = _common(before, after)
    same = before == after
    return Greedy(
        compared_characters=min(len(before), len(after)),
        same=same,
        first_divergence_characters=None if same else common,
        first_divergence_tokens=None if same else count_text(before[:common]),
    )


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many items two sequences begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
