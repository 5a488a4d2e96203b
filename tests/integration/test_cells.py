"""A cell fails alone, and a shape is what its name says: prompts of its length that share nothing,
as many at once as asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli import Home, faulty, is_sound


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    assert home.no_engines_left()


def measured(home: Home, fault: str, *words: str) -> dict[str, Any]:
    done = home.in_process(*faulty(fault, *words))
    assert done.code == 0, done.err
    assert home.checks()
    [record] = home.records()
    assert record["status"] == "complete"
    return record


def names(record: dict[str, Any]) -> list[str]:
    return [f"{r['workload']['name']} × {r['concurrency']}" for r in record["results"]]


@pytest.mark.parametrize(
    ("fault", "code", "says", "words"),
    [
        ("long-fails", "http_500", "made to fail long prompts", ()),
        ("long-hangs", "timeout", "", ("--request-timeout", "1")),
        ("no-system", "role_refused", "System role not supported", ()),
    ],
)
def test_a_shape_that_is_refused_is_skipped_with_the_reason_and_the_others_measured(
    home: Home, fault: str, code: str, says: str, words: tuple[str, ...]
) -> None:
    """vllm-project/guidellm#67: one shape's refusal was the end of everything."""
    record = measured(home, fault, "--workload", "agent", *words)
    assert names(record) == ["chat × 1"]
    assert is_sound(record["validity"])
    assert [s["concurrency"] for s in record["skipped"]] == [1, 4]
    for skipped in record["skipped"]:
        assert (skipped["workload"], skipped["code"]) == ("agent", code)
        assert says in skipped["message"]


@pytest.mark.parametrize("fault", ["no-system", "no-system-mute"])
def test_a_template_without_a_system_role_gets_its_salt_in_the_user_message(
    home: Home, fault: str
) -> None:
    record = measured(home, fault)
    assert record["backend"]["prompting"]["system_role"] is False
    assert is_sound(record["validity"])


def test_slots_that_share_a_context_cannot_all_be_full(home: Home) -> None:
    record = measured(home, "unified", "--workload", "agent", "--context", "2048")
    assert names(record) == ["chat × 1", "agent × 1"]
    [skipped] = record["skipped"]
    assert (skipped["concurrency"], skipped["code"]) == (4, "context_too_small")
    assert "Context size has been exceeded" in skipped["message"]


def test_a_template_longer_than_the_shape_makes_it_longer(home: Home) -> None:
    record = measured(home, "long-template", "--context", "1024")
    assert record["backend"]["prompting"]["template_tokens"] == 600
    shape = record["results"][0]["workload"]
    assert (shape["prompt_tokens"], shape["target_prompt_tokens"]) == (64, 632)
    assert record["results"][0]["prompt_tokens"]["median"] == pytest.approx(632, abs=6)
    assert is_sound(record["validity"])


def test_a_server_that_serves_one_at_a_time_has_no_concurrency(home: Home) -> None:
    record = measured(home, "one-at-a-time", "--concurrency", "1,4")
    one, four = record["results"]
    assert is_sound(one["validity"])
    assert "concurrency_mean" not in one
    assert four["concurrency_mean"] < 1.5
    assert "concurrency_not_reached" in four["validity"]["reasons"]


def test_a_server_with_enough_slots_has_it(home: Home) -> None:
    record = measured(home, "", "--concurrency", "4", "--workload", "agent")
    assert all(r["concurrency_mean"] >= 3.6 for r in record["results"])
    assert is_sound(record["validity"])


@pytest.mark.parametrize("fault", ["cache", "drops-system"])
def test_a_cache_that_nobody_tells_of_is_looked_for_by_the_clock(home: Home, fault: str) -> None:
    """The salt keeps prompts apart, also behind a template that lets no system message through."""
    record = measured(home, fault)
    prompting = record["backend"]["prompting"]
    assert prompting["system_role"] is (fault == "cache")
    assert prompting["kept_apart"] is True
    assert "cache" not in record["validity"].get("unchecked", [])


def test_a_shape_is_measured_behind_so_many_tokens_of_context(home: Home) -> None:
    record = measured(home, "", "--depth", "4k,0", "--concurrency", "1,2")
    cells = [(r.get("depth_tokens", 0), r["concurrency"]) for r in record["results"]]
    assert cells == [(0, 1), (0, 2), (4096, 1), (4096, 2)]
    plain, deep = record["results"][0], record["results"][2]
    assert "target_prompt_tokens" not in plain["workload"]
    assert deep["workload"]["target_prompt_tokens"] == 64 + 4096
    assert deep["workload"]["content_hash"] != plain["workload"]["content_hash"]
    assert deep["prompt_tokens"]["median"] == pytest.approx(64 + 4096, rel=0.01)
    assert all(is_sound(r["validity"]) for r in record["results"])
    shown = home.in_process("show", record["id"]).out
    assert "tok/s at depth 0" in shown
    assert "chat at depth 4k × 2" in shown


def test_a_depth_that_the_server_has_no_room_for_is_skipped_before_any_is_measured(
    home: Home,
) -> None:
    """What a build gives is not what was asked for: half of the context."""
    record = measured(home, "small-context", "--depth", "0,4k")
    assert [r.get("depth_tokens", 0) for r in record["results"]] == [0]
    [skipped] = record["skipped"]
    assert (skipped["depth_tokens"], skipped["code"]) == (4096, "context_too_small")
    assert "chat at depth 4k needs 4330 tokens of context, a slot has" in skipped["message"]
