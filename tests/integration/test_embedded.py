"""The real engine with real weights, through the real command line: whole models where what they
say or how long they take is the matter, two layers of one where it is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli import LOAD, Home, is_sound
from tokrig.models import catalog
from tokrig.record.samples import Cell
from tokrig.run.fitting import fit
from tokrig.run.opening import opened
from tokrig.run.prepare import prepare
from tokrig.spec.run import RunSpec
from tokrig.store import Store
from tokrig.workloads import tolerance

pytestmark = pytest.mark.engine

# Test machines have few cores and do other things: engine threads that spin while they wait for
# each other would make a test of seconds one of minutes. Real runs keep the engine's default.
PATIENT = {"OMP_WAIT_POLICY": "passive"}
# Two layers answer in half a second, of which a hiccup is more than two clocks may differ.
LOAD_ON_SHALLOW = LOAD | {"clock_mismatch"}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    assert home.no_engines_left(), "an engine outlived its run"


def rows(home: Home) -> dict[tuple[str, int], dict[str, Any]]:
    [record] = home.records()
    return {(r["workload"]["name"], r["concurrency"]): r for r in record["results"]}


def require_sound(home: Home) -> dict[str, Any]:
    """What holds for every quick chat run. Returns the record."""
    [record] = home.records()
    assert record["status"] == "complete"
    assert record["model"]["identity_from"] in ("metadata", "file_name")
    assert record["backend"]["api"] == "cpu"
    resolved = record["backend"]["resolved"]
    assert resolved["threads"] >= 1
    assert resolved["batch"] > 0
    assert resolved["cache_type_k"] == "f16"
    assert "avx2" in resolved["cpu_features"] or os.uname().machine != "x86_64"
    assert record["model"]["reasoning"] is False
    for (_, concurrency), result in rows(home).items():
        assert is_sound(result["validity"]), result["validity"]
        assert result["requests"] == 3 * concurrency
        assert result["cached_tokens"] == 0
        assert result["output_tokens"]["median"] == 128
        # Gemma has no template of its own: ChatML alone takes so many of its tokens.
        target = result["workload"].get("target_prompt_tokens", 64)
        assert abs(result["prompt_tokens"]["median"] - target) <= 2
        assert abs(result["server"]["difference"]) <= 0.03
        assert result["finish_reasons"] == {"length": 3 * concurrency}
        assert 0 < result["client_cpu_share"] < 0.8
    assert home.checks()
    text = home.record_paths()[0].read_text()
    assert str(Path.home()) not in text
    assert str(home.root) not in text
    # No prompt is sent twice, every one begins with its salt, and nothing is left of the run.
    salts = [s.salt for s in Store(home.content).read_samples(record["id"])]
    assert len(set(salts)) == len(salts) == sum(4 * concurrency for _, concurrency in rows(home))
    assert home.unfinished() == []
    return record


@pytest.mark.alone
def test_a_quick_run_with_a_shape_too_long_for_the_context(home: Home) -> None:
    done = home.tokrig(
        *("run", "--model", "gemma-3-270m", "--workload", "chat,rag", "--context", "1024"),
        env=PATIENT,
    )
    assert done.code == 0, done.err
    record = require_sound(home)
    assert list(rows(home)) == [("chat", 1)]
    assert record["backend"]["resolved"]["slots"] == 1
    assert record["skipped"][0]["code"] == "context_too_small"
    samples = Store(home.content).read_samples(record["id"])
    assert {s.variant for s in samples if s.phase == "measured"} == {0, 1, 2}


@pytest.mark.alone
def test_four_requests_in_flight(home: Home) -> None:
    words = ("--model", "smollm2-135m", "--workload", "chat", "--concurrency", "1,4")
    done = home.tokrig("run", *words, env=PATIENT)
    assert done.code == 0, done.err
    record = require_sound(home)
    found = rows(home)
    assert list(found) == [("chat", 1), ("chat", 4)]
    one, four = found.values()
    assert four["system_tok_per_s"]["median"] > one["output_tok_per_s"]["median"] / 4
    assert one["workload"]["content_hash"] == four["workload"]["content_hash"]
    samples = Store(home.content).read_samples(record["id"])
    measured = [s for s in samples if s.concurrency == 4 and s.phase == "measured"]
    assert {s.worker for s in measured} == {0, 1, 2, 3}


@pytest.mark.alone
def test_busy_loops_beside_it_do_not_pass(home: Home) -> None:
    """One a core, which halves the rate of a whole model: the engine's threads wait, and that is
    measured."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in os.sched_getaffinity(0)
    ]
    try:
        done = home.tokrig("run", "--workload", "chat", "--even-if-busy", env=PATIENT)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert done.code == 0, done.err
    result = rows(home)["chat", 1]
    assert "foreign_cpu_load" in result["validity"]["reasons"], result["interference"]
    assert result["interference"]["foreign_wait_share"] > 0.2
    assert home.checks()


@pytest.mark.parametrize("model", ["smollm2-135m", "gemma-3-270m"])
def test_every_prompt_meets_its_length_after_the_real_template(tmp_path: Path, model: str) -> None:
    """All shapes and variants against the engine's own tokenizer, and its usage agrees."""
    prepared = prepare(RunSpec(model=model), datetime.now(UTC))
    with opened(prepared, tmp_path / "engine.log") as session:
        for workload in prepared.workloads.values():
            for variant in workload.variants:
                found = fit(workload, variant, lambda m: session.count_prompt(m, 1))
                assert found.tokens is not None
                assert abs(found.tokens - workload.prompt_tokens) <= tolerance(
                    workload.prompt_tokens
                )
        chat = prepared.workloads["chat"]
        messages = chat.variants[0].render(3, 0, session.salt())
        request = session.request(messages, 1, session.salt())
        [sample] = session.send([request], Cell("chat", 1), "warmup", 0)[0]
        assert sample.prompt_tokens == session.count_prompt(messages, 1)


def test_killing_the_real_engine_in_mid_stream(home: Home, shallow: Path) -> None:
    words = ("--model", str(shallow), "--workload", "chat,codegen")
    process = home.start("run", *words, env=PATIENT)
    home.wait_for_cells(1)
    time.sleep(1.5)
    # By its command line's child: the guard above it must notice, not be noticed.
    [engine] = [p for p in home.engines() if "guard.py" not in " ".join(p.cmdline())]
    engine.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 3, err
    assert "killed by SIGKILL" in err
    [record] = home.records()
    assert record["status"] == "failed"
    assert [r["workload"]["name"] for r in record["results"]] == ["chat"]
    assert home.checks()


def test_broken_model_files(home: Home) -> None:
    real = catalog.resolve("smollm2-135m")
    truncated, foreign = home.root / "cut.gguf", home.root / "page.gguf"
    truncated.write_bytes(real.read_bytes()[:20_000_000])
    foreign.write_text("<!doctype html><title>Not a model</title>")
    for path, says in (
        (truncated, "missing"),
        (foreign, "web page"),
        (home.root / "none.gguf", "none.gguf"),
    ):
        done = home.tokrig("run", "--model", str(path), "--workload", "chat")
        assert done.code == 2, done.err
        assert says in done.err
        assert "hint:" in done.err
    assert home.files() == []
    assert home.unfinished() == []


# ChatML that opens the thinking itself, as families do that reason by template. From how it shows
# earlier thoughts llama.cpp learns how to take them apart.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['reasoning_content'] %}<think>\n"
    "{{ m['reasoning_content'] }}\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)


@pytest.mark.alone
@pytest.mark.parametrize(
    "how",
    [
        ("--speculative", "ngram", "--option", "ngram_size_n=3"),
        ("--speculative", "draft", "--draft-tokens", "4"),
    ],
    ids=["ngram", "draft"],
)
def test_speculation_is_counted_and_compared(
    home: Home, shallow: Path, how: tuple[str, ...]
) -> None:
    """A model drafts for itself here: nearly all is accepted."""
    model = str(shallow)
    draft = ("--draft-model", model) if "draft" in how else ()
    done = home.tokrig("run", "--model", model, "--workload", "chat", *how, *draft, env=PATIENT)
    assert done.code == 0, done.err
    [record] = home.records()
    result = rows(home)["chat", 1]
    found = result["speculative"]
    assert record["mode"]["speculative"] == how[1]
    assert found["drafted_tokens"] >= found["accepted_tokens"] >= 0
    assert result["greedy"]["compared_characters"] > 0
    assert is_sound(result["validity"]), result["validity"]
    assert home.checks()


@pytest.mark.parametrize("asked", ["on", "off"])
def test_reasoning_is_observed_not_believed(home: Home, shallow: Path, asked: str) -> None:
    done = home.tokrig(
        *("run", "--model", str(shallow), "--workload", "chat", "--reasoning", asked),
        *("--option", f"chat_template={THINKING}"),
        env=PATIENT,
    )
    assert done.code == 0, done.err
    [record] = home.records()
    result = rows(home)["chat", 1]
    mode = record["mode"]
    assert mode["name"] == f"reasoning-{asked}"
    assert mode["reasoning_observed"] is (asked == "on")
    assert (result["reasoning_tokens_median"] > 0) is (asked == "on")
    assert set(result["validity"].get("reasons", [])) <= LOAD_ON_SHALLOW


def test_reasoning_that_goes_on_although_it_is_off_is_told(home: Home, shallow: Path) -> None:
    """A template that thinks whatever it is told."""
    stubborn = THINKING.replace("enable_thinking is defined and not enable_thinking", "false")
    done = home.tokrig(
        *("run", "--model", str(shallow), "--workload", "chat", "--reasoning", "off"),
        *("--option", f"chat_template={stubborn}"),
        env=PATIENT,
    )
    assert done.code == 0, done.err
    [record] = home.records()
    assert record["mode"]["reasoning_observed"] is True
    assert "reasoning_off_not_honoured" in record["validity"]["reasons"]
