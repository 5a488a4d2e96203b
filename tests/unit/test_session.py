"""What a session puts into messages, and what the engine's sums tell."""

from __future__ import annotations

import pytest

from tests.unit.samples import sample
from tokrig.record.formulas import counted_difference, counted_tok_per_s
from tokrig.record.metrics import figures
from tokrig.run.monitor import grown
from tokrig.run.session import with_switch
from tokrig.spec.reasoning import Switch

USER = {"role": "user", "content": "Hello"}
SYSTEM = {"role": "system", "content": "[1] Be brief."}


@pytest.mark.parametrize("switch", [None, Switch("off", template={"enable_thinking": False})])
def test_messages_stay_where_the_switch_is_elsewhere(switch: Switch | None) -> None:
    assert with_switch([USER], switch, "[1]") == [USER]


def test_a_system_line_joins_the_system_message_behind_its_salt() -> None:
    found = with_switch([SYSTEM, USER], Switch("off", system="detailed thinking off"), "[1]")
    assert found[0]["content"] == "[1] Be brief.\n\ndetailed thinking off"
    assert SYSTEM["content"] == "[1] Be brief."


def test_a_system_line_without_a_system_message_begins_with_the_salt() -> None:
    found = with_switch([USER], Switch("off", system="detailed thinking off"), "[1]")
    assert found == [{"role": "system", "content": "[1] detailed thinking off"}, USER]


def test_a_suffix_goes_to_the_last_user_message() -> None:
    messages = [USER, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}]
    found = with_switch(messages, Switch("off", user_suffix="/no_think"), "[1]")
    assert [m["content"] for m in found] == ["Hello", "Hi", "Bye /no_think"]


def test_sums_count_by_their_growth() -> None:
    assert grown({"requests": 2.0}, {"requests": 5.0, "drafts": 1.0}) == {
        "requests": 3.0,
        "drafts": 1.0,
    }
    assert grown(None, {"requests": 5.0}) == {}
    assert grown({"requests": 5.0}, None) == {}


def test_an_engine_that_was_started_anew_meanwhile_counts_nothing() -> None:
    assert grown({"requests": 5.0}, {"requests": 2.0}) == {}


# 11 tokens, 10 ms apart: 100 tok/s after the first.
COUNTED = {
    "requests": 2.0,
    "output_tokens": 22.0,
    "decode_s": 0.2,
    "prompt_tokens": 128.0,
    "cached_tokens": 0.0,
    "prefill_s": 0.64,
}


def test_rates_of_an_engine_that_keeps_only_sums() -> None:
    samples = [sample(timings=None), sample(timings=None)]
    assert counted_tok_per_s(COUNTED) == pytest.approx(100)
    assert counted_difference(samples, COUNTED) == pytest.approx(0, abs=1e-9)
    found = figures(samples, COUNTED)
    assert found["server"] is not None
    assert found["server"].source == "counters"
    assert found["server"].difference == pytest.approx(0, abs=1e-9)
    assert found["prefill_source"] == "server"
    assert found["prefill_tok_per_s"] is not None
    assert found["prefill_tok_per_s"].median == pytest.approx(200)


def test_timings_of_each_request_come_before_sums() -> None:
    found = figures([sample()], COUNTED)
    assert found["server"] is not None
    assert found["server"].source == "request"


def test_without_the_number_of_requests_a_sum_tells_no_rate() -> None:
    counted = {k: v for k, v in COUNTED.items() if k != "requests"}
    assert counted_tok_per_s(counted) is None
    assert figures([sample(timings=None)], counted)["server"] is None


def test_drafts_from_sums_where_samples_tell_none() -> None:
    drafts = {"drafted_tokens": 40.0, "accepted_tokens": 30.0, "drafts": 10.0}
    counted = {**drafts, "output_tokens": 55.0, "requests": 5.0}
    found = figures([sample()], counted)["speculative"]
    assert found is not None
    # 50 tokens after the first ones, 30 of them accepted: 20 steps, of which 10 had a draft.
    assert (found.drafted_tokens, found.accepted_tokens, found.steps) == (40, 30, 20)
    assert (found.acceptance_rate, found.acceptance_length) == (0.75, 2.5)
    unknown = figures([sample()], drafts)["speculative"]
    assert unknown is not None
    assert (unknown.steps, unknown.acceptance_length) == (None, None)
    before = figures([sample()], counted, methodology=1)["speculative"]
    assert before is not None
    assert (before.steps, before.acceptance_length) == (10, 4.0)
    both = figures([sample(drafted_tokens=8, accepted_tokens=4)], counted)["speculative"]
    assert both is not None
    assert (both.drafted_tokens, both.accepted_tokens) == (8, 4)
