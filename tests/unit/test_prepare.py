"""What is refused before anything is started, and what a mode is called."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tokrig.errors import InputError
from tokrig.record.model import BackendFacts, ColdStart, Greedy, LoadMemory, Mode, Model
from tokrig.run.prepare import Prepared, mode_of, prepare
from tokrig.run.told import Told, told_from_json, told_to_json
from tokrig.spec.reasoning import Switch
from tokrig.spec.run import RunSpec

NOW = datetime(2026, 11, 22, tzinfo=UTC)
URL = "http://127.0.0.1:9"


def prepared(**wanted: Any) -> Prepared:
    return prepare(RunSpec(workloads=["chat"], **wanted), NOW)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"backend": "openai"}, "needs its address"),
        ({"backend": "embedded", "url": URL}, "takes no --url"),
        ({"backend": "vllm", "api": "metal"}, "never computes with 'metal'"),
        ({"backend": "transformers", "speculative": "ngram"}, "knows no 'ngram' speculation"),
        ({"backend": "openai", "url": URL, "devices": ["CUDA0"]}, "already running"),
        ({"backend": "openai", "url": URL, "options": {"a": 1}}, "already running"),
        (
            {"backend": "openai", "url": URL, "speculative": "draft", "draft_model": "x"},
            "already running",
        ),
        (
            {"model": "smollm2-135m", "speculative": "draft", "draft_model": "gemma-3-270m"},
            "cannot draft for",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_a_hint(wanted: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        prepared(**wanted)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ({}, "baseline"),
        ({"speculative": "ngram"}, "ngram"),
        ({"reasoning": "off"}, "reasoning-off"),
        ({"speculative": "mtp", "reasoning": "on"}, "mtp+reasoning-on"),
    ],
)
def test_a_mode_is_called_by_what_is_switched_on(wanted: dict[str, Any], name: str) -> None:
    switch = Switch("off", template={"enable_thinking": False}) if "reasoning" in wanted else None
    mode = mode_of(RunSpec(**wanted), switch, None)
    assert mode.name == name
    assert mode.reasoning_observed is None, "that is for the engine to show"


def test_a_mode_stands_in_the_run_id_and_the_baseline_does_not() -> None:
    assert "-embedded-ngram-" in prepared(model="smollm2-135m", speculative="ngram").run_id
    assert "baseline" not in prepared(model="smollm2-135m").run_id


def test_patience_is_the_engines_own_unless_it_is_given() -> None:
    own = prepared(backend="vllm", url=URL).patience_s
    assert own > prepared(backend="openai", url=URL).patience_s
    assert prepared(backend="vllm", url=URL, patience_s=7).patience_s == 7


TOLD = Told(
    model=Model(family="m"),
    backend=BackendFacts(name="llamacpp", engine="llama.cpp"),
    mode=Mode(name="ngram", speculative="ngram"),
    cold=ColdStart(load_s=1.5),
    server_starts=2,
    load_memory=LoadMemory(engine_rss_bytes=9),
    spilled=False,
    looked_up_bytes=7,
    greedy_texts={"chat": "one"},
    greedy={"chat": Greedy(compared_characters=3, same=True)},
)


@pytest.mark.parametrize("told", [TOLD, Told(TOLD.model, TOLD.backend, TOLD.mode)])
def test_what_a_run_learned_survives_the_journal(told: Told) -> None:
    assert told_from_json(told_to_json(told)) == told


def test_a_journal_of_another_version_is_told_so() -> None:
    data = told_to_json(TOLD)
    del data["mode"]
    with pytest.raises(InputError, match="another version"):
        told_from_json(data)
