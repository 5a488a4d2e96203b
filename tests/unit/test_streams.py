"""No wrong rate counts as valid, and no honest stream is refused: streams of known truth.

Each goes the way of a measured one: response, answer, sample, figures, verdict. TOKRIG_STREAMS
says how many, TOKRIG_STREAMS_FIRST with which seed they begin.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pytest

from tests.streams import Stream, prompt_tokens, recipe, stream
from tokrig.backends.llamacpp import BACKEND
from tokrig.record.checks import Seen, judge
from tokrig.record.metrics import figures
from tokrig.record.model import BackendFacts, Validity, WorkloadFacts
from tokrig.record.samples import Sample
from tokrig.run.counting import observe

SEEDS = int(os.environ.get("TOKRIG_STREAMS", "300"))
FIRST = int(os.environ.get("TOKRIG_STREAMS_FIRST", "0"))
OFF = 0.01


@dataclass(frozen=True)
class Outcome:
    """What became of a stream."""

    made: Stream
    sample: Sample
    found: dict[str, Any]
    validity: Validity

    @property
    def rate(self) -> float | None:
        return self.found["output_tok_per_s"].median if self.found["output_tok_per_s"] else None

    @property
    def off(self) -> float:
        return abs((self.rate or 0) / self.made.truth.tok_per_s - 1) if self.rate else 0.0

    @property
    def valid(self) -> bool:
        return self.validity.verdict == "valid"


def outcome(made: Stream) -> Outcome:
    place = Sample("chat", 1, 0, 0, 0, "measured", 0, "salt", 0)
    sample = observe(made.response, place, BACKEND, made.count_text, asked=made.recipe.tokens)
    seen = Seen(
        workload=WorkloadFacts(
            name="chat", prompt_tokens=prompt_tokens(), answer_tokens=made.recipe.tokens
        ),
        backend=BackendFacts(name="x", engine="x", api="cuda", api_confirmed=True),
        compared_greedy=True,
    )
    return Outcome(made, sample, figures([sample]), judge([sample], seen))


@pytest.mark.parametrize(
    ("longest", "seed"),
    [
        # The engine's clock ran over more tokens than the window, at another pace, and agreed.
        *((1024, 2751), (1024, 3973), (1024, 7959), (1024, 10414)),
        *((256, 100292), (256, 101076), (256, 101840), (256, 302031), (256, 305293)),
        # Its clock settled which tokens came, and with the same figure when they did.
        (256, 103298),
        # A timer's ticks took about as long as tokens, or as steps of speculative decoding.
        *((1024, 5335), (256, 502261)),
        # The count was 1 % off, and deliveries came on top.
        *((1024, 9804), (1024, 10018), (1024, 11077), (256, 100376)),
    ],
)
def test_what_agreed_by_chance_confirms_nothing(longest: int, seed: int) -> None:
    found = outcome(stream(recipe(seed, longest=longest)))
    assert not found.valid or found.off <= OFF


def test_no_wrong_rate_is_valid_and_what_can_be_known_is() -> None:
    longest = 1024 if SEEDS > 1000 else 256
    all_of_them = [
        outcome(stream(recipe(seed, longest=longest))) for seed in range(FIRST, FIRST + SEEDS)
    ]
    wrong = [
        (o.made.recipe, o.rate, o.made.truth.tok_per_s)
        for o in all_of_them
        if o.valid and o.off > OFF
    ]
    assert wrong == []
    knowable = [o for o in all_of_them if o.made.truth.knowable]
    refused = [(o.made.recipe, o.validity) for o in knowable if not o.valid]
    assert len(knowable) > 0.2 * SEEDS
    assert len(refused) <= 0.05 * len(knowable), refused
