"""The simulated engine: its streams, its slots and caches, its mishaps; without a socket."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from tokrig.errors import SpecError
from tokrig.simulate.cache import CHARACTERS, Slots, cached_tokens, common_prefix, tokens_in
from tokrig.simulate.chat import BadRequest, read_chat
from tokrig.simulate.simulation import Asked, Simulation, draw, load, mishap
from tokrig.simulate.streams import (
    MS,
    Event,
    Noise,
    Recipe,
    delivered,
    encoder,
    events,
    generated,
    texts,
)


def played(made: Recipe) -> list[Event]:
    r = Random(made.seed)
    return [*events(made, generated(made, r), texts(made, r), Random(1))]


def bearing(made: Recipe) -> list[Event]:
    return [event for event in played(made) if event.tokens]


# Streams.


def test_tokens_come_at_their_times_in_their_order() -> None:
    found = bearing(Recipe(seed=3, tokens=50, ttft_ns=40 * MS, token_ns=5 * MS))
    assert [event.t_ns for event in found] == [(40 + 5 * i) * MS for i in range(50)]
    assert [event.last_token for event in found] == list(range(50))


@pytest.mark.parametrize("noise", ["normal", "uniform", "lognormal"])
def test_jitter_keeps_the_mean_and_has_its_deviation(noise: Noise) -> None:
    made = Recipe(seed=1, tokens=20_000, token_ns=10 * MS, jitter=0.2, noise=noise)
    gaps = [b - a for a, b in pairwise(generated(made, Random(2)))]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(10 * MS, rel=0.01)
    assert deviation == pytest.approx(2 * MS, rel=0.05)


def test_every_so_many_gaps_stall() -> None:
    made = Recipe(seed=1, tokens=200, token_ns=MS, stall_ns=7 * MS, stall_every=50)
    gaps = [b - a for a, b in pairwise(generated(made, Random(0)))]
    assert [i + 1 for i, gap in enumerate(gaps) if gap == 8 * MS] == [50, 100, 150]
    assert gaps.count(MS) == 196


def test_chunks_hold_the_tokens_that_were_asked_for() -> None:
    found = bearing(Recipe(seed=1, tokens=20, grouping="several", several=4))
    assert [event.tokens for event in found] == [1, 4, 4, 4, 4, 3]


def test_reasoning_comes_before_content() -> None:
    found = bearing(Recipe(seed=1, tokens=20, reasoning=6, grouping="several", several=4))
    assert sum(event.tokens for event in found if event.kind == "reasoning_content") == 6
    kinds = [event.kind for event in found]
    assert kinds == sorted(kinds, reverse=True)


def test_drafted_tokens_come_in_steps() -> None:
    made = Recipe(seed=5, tokens=300, accepted=3, tells_drafts=True, timings=True)
    found = bearing(made)
    assert sum(event.tokens for event in found) == 300
    assert {event.tokens for event in found} == {1, 2, 3, 4}
    timings = next(e.more["timings"] for e in played(made) if e.more and "timings" in e.more)
    assert timings["draft_n_accepted"] == 300 - 1 - (len(found) - 1)


def test_a_timer_and_a_size_hold_events_back() -> None:
    made = Recipe(seed=1, tokens=40, ttft_ns=3 * MS, token_ns=2 * MS, period_ns=10 * MS)
    encoded = encoder({"object": "x"})
    by_timer = [*delivered(replace(made, transport="timer"), played(made), encoded)]
    assert [t_ns // MS for t_ns, _ in by_timer] == [10, 20, 30, 40, 50, 60, 70, 80, 81]
    assert sum(event.tokens for _, group in by_timer for event in group) == 40
    by_size = [*delivered(replace(made, transport="size", size_bytes=400), played(made), encoded)]
    sizes = [sum(len(encoded(event)) for event in group) for _, group in by_size]
    assert min(sizes[:-1]) >= 400 > sizes[-1]


def test_a_chunk_is_json_whatever_its_text() -> None:
    encoded = encoder({"model": 'a "model"'})
    data = encoded(Event(0, "content", 'x"\n\\ é 漢', 0, 1))
    assert json.loads(data.removeprefix(b"data: ")) == {
        "model": 'a "model"',
        "choices": [{"index": 0, "delta": {"content": 'x"\n\\ é 漢'}, "finish_reason": None}],
    }


# What a request gets.


def test_prefill_lengthens_the_time_to_the_first_token() -> None:
    made = Simulation(ttft_s=0.05, prefill_tok_per_s=1000)
    assert draw(made, Asked("", "m"), 1, 500, 300).ttft_ns == 250 * MS


@pytest.mark.parametrize(
    ("own", "allowed", "tokens", "finish"),
    [
        (None, 7, 7, "length"),
        (None, None, 128, "stop"),
        (5, 7, 5, "stop"),
        (9, 7, 7, "length"),
        (9, None, 9, "stop"),
    ],
)
def test_length_of_an_answer(
    own: int | None, allowed: int | None, tokens: int, finish: str
) -> None:
    found = draw(Simulation(tokens=own), Asked("", "m", allowed), 1, 1, 0)
    assert (found.tokens, found.finish) == (tokens, finish)


def test_mishaps_come_as_often_as_asked_and_again() -> None:
    made = Simulation(error_share=0.1, cut_every=4, seed=9)
    first = [mishap(made, number) for number in range(1, 2001)]
    assert first == [mishap(made, number) for number in range(1, 2001)]
    assert 160 < sum(fails for fails, _ in first) < 240
    assert [cut is not None for _, cut in first[:8]] == [False, False, False, True] * 2
    assert first != [mishap(Simulation(error_share=0.1, cut_every=4), n) for n in range(1, 2001)]


# Slots and caches.


@pytest.mark.parametrize(("a", "b"), [("", "x"), ("abc", "abc"), ("abcd", "abXd"), ("ab", "abcd")])
def test_common_prefix(a: str, b: str) -> None:
    expected = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    assert common_prefix(a, b) == (min(len(a), len(b)) if expected is None else expected)


def test_a_session_finds_what_its_slot_has_seen() -> None:
    slots = Slots(2, "slot")
    prompts = ["a" * 400, "b" * 400]
    for prompt in prompts:
        taken = slots.take(prompt)
        assert taken is not None
        slot, seen = taken
        assert cached_tokens(seen, prompt) == 0
        slots.give_back(slot, prompt + "the answer")
    for prompt in (prompts[1], prompts[0]):
        taken = slots.take(prompt + "the answer and more")
        assert taken is not None
        slot, seen = taken
        assert cached_tokens(seen, prompt + "the answer and more") == 410 // CHARACTERS
        slots.give_back(slot, "")


def test_a_cache_over_all_serves_every_slot() -> None:
    slots = Slots(None, "all")
    first, second = slots.take("x" * 100), slots.take("y" * 100)
    assert first is not None
    assert second is not None
    slots.give_back(first[0], "x" * 100)
    slots.give_back(second[0], "y" * 100)
    taken = slots.take("x" * 80 + "z" * 80)
    assert taken is not None
    assert cached_tokens(taken[1], "x" * 80 + "z" * 80) == 20


def test_without_a_cache_nothing_is_kept() -> None:
    slots = Slots(1, "off")
    for _ in range(2):
        taken = slots.take("x" * 100)
        assert taken is not None
        assert taken[1] == ""
        assert slots.take("x") is None
        slots.give_back(taken[0], "x" * 100)


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    assert cached_tokens("x" * 400, "x" * 40) == tokens_in("x" * 40) - 1


# Requests.


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not JSON"),
        (b"[]", "messages"),
        (b'{"messages": []}', "messages"),
        (b'{"messages": ["x"]}', "each of"),
        (b'{"messages": [{}], "max_tokens": 0}', "max_tokens"),
        (b'{"messages": [{}], "max_tokens": true}', "max_tokens"),
    ],
)
def test_bad_requests(body: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        read_chat(body, Simulation())


def test_a_prompt_beyond_the_context_is_refused() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 20})
    assert read_chat(body.encode(), Simulation(context=200)).most_tokens == 20
    with pytest.raises(BadRequest, match="maximum context length is 100 tokens") as refused:
        read_chat(body.encode(), Simulation(context=100))
    assert (refused.value.status, refused.value.code) == (400, "context_length_exceeded")


def test_the_next_turn_begins_with_this_one_and_its_answer() -> None:
    first = [{"role": "user", "content": "one"}]
    second = [*first, {"role": "assistant", "content": "ANSWER"}, {"role": "user", "content": "x"}]
    prompts = [
        read_chat(json.dumps({"messages": m}).encode(), Simulation()).prompt
        for m in (first, second)
    ]
    assert prompts[1].startswith(prompts[0] + "ANSWER")


# Files and options.


def test_a_file_and_options(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("ttft_s: 0.2\nslots: 4\ncache: slot\n")
    made = load(path, {"slots": 8}, {})
    assert (made.ttft_s, made.slots, made.cache) == (0.2, 8, "slot")
    path.write_text("")
    assert load(path, {}, {}) == Simulation()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ttft_s: 0.2\nitl: 1\n", r"recipe.yaml:2: unknown key 'itl'"),
        ("ttft_s: -1\n", r"recipe.yaml:1: ttft_s: should be greater than or equal to 0, not -1"),
        ("itl_s: .nan\n", r"recipe.yaml:1: itl_s"),
        ("[1, 2]\n", "not a mapping"),
        ("burst_s: 1\nburst_bytes: 9\n", "choose one"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=reason):
        load(path, {}, {})


def test_a_bad_option_is_called_what_was_typed() -> None:
    with pytest.raises(SpecError, match="--ttft: should be"):
        load(None, {"ttft_s": "long"}, {"ttft_s": "--ttft"})
