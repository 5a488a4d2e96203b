"""Servers in front of an engine, through the whole command: found, loaded, measured, put back."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.cli import Home
from tokrig.run.http import Endpoint, get_status
from tokrig.run.server import free_port

FOLDER = Path(__file__).parent
# What lemonade started, and gave up on: it is started again at a port of its own.
ENGINE = (
    f"{sys.executable} {FOLDER / 'fake_llama_server.py'}"
    " --host 127.0.0.1 --port 1 --ctx-size 4096 --parallel 1"
)


@contextmanager
def serving(program: str, ready: str, *words: str) -> Iterator[str]:
    """A fake server that was running before tokrig came; its address."""
    port = free_port()
    argv = [sys.executable, str(FOLDER / program), "--port", str(port), *words]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while get_status(Endpoint("127.0.0.1", port), ready, 1) is None:
            assert time.monotonic() < deadline, "the fake server did not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    assert home.no_engines_left(), "an engine outlived its run"


def test_lemonade_is_recognised_pulled_from_and_loaded(home: Home) -> None:
    with serving("fake_lemonade.py", "/live", "--download-polls", "2") as url:
        done = home.in_process(
            *("run", "--url", url, "--served-model", "SmolLM2-135M-Q8_0", "--workload", "chat")
        )
    assert done.code == 0, done.err
    [record] = home.records()
    backend = record["backend"]
    assert (backend["name"], backend["engine"]) == ("lemonade", "llama.cpp")
    assert backend["wrapper"].startswith("lemonade")
    assert backend.get("bypass") is None
    assert home.in_process("check").code == 0


def test_lemonade_that_gives_up_is_helped_once_and_the_record_says_so(home: Home) -> None:
    with serving("fake_lemonade.py", "/live", "--give-up", "1", "--launch-command", ENGINE) as url:
        done = home.in_process(
            *("run", "--url", url, "--served-model", "SmolLM2-135M-Q8_0", "--workload", "chat")
        )
    assert done.code == 0, done.err
    [record] = home.records()
    assert "gave up on the first load" in record["backend"]["bypass"]


def test_lemonade_that_gives_up_for_good_is_a_failed_record(home: Home) -> None:
    with serving("fake_lemonade.py", "/live", "--give-up", "9", "--launch-command", ENGINE) as url:
        done = home.in_process(
            *("run", "--url", url, "--served-model", "SmolLM2-135M-Q8_0", "--workload", "chat")
        )
    assert done.code == 3, done.err
    [record] = home.records()
    assert record["failure"]["code"] == "load_gave_up"


def test_ollama_is_recognised_and_measured_by_its_own_clock(home: Home) -> None:
    with serving("fake_ollama.py", "/api/version") as url:
        done = home.in_process("run", "--url", url, "--workload", "chat")
    assert done.code == 0, done.err
    [record] = home.records()
    assert record["backend"]["name"] == "ollama"
    [result] = record["results"]
    assert abs(result["server"]["difference"]) <= 0.03
    assert "api" in result["validity"]["unchecked"]
    assert home.in_process("check").code == 0


def test_how_much_a_running_ollama_has_on_the_gpu_is_a_mode(home: Home) -> None:
    with serving("fake_ollama.py", "/api/version", "--vram-share", "0.5") as url:
        done = home.in_process("run", "--url", url, "--workload", "chat")
    assert done.code == 0, done.err
    [record] = home.records()
    assert record["mode"]["offload"] == "50 % on the GPU"
    assert record["mode"]["name"] == "50 % on the GPU"


def test_an_unknown_model_is_answered_with_the_nearest(home: Home) -> None:
    with serving("fake_lemonade.py", "/live") as url:
        done = home.in_process(
            "run", "--url", url, "--served-model", "SmolLM-135M", "--workload", "chat"
        )
    assert done.code == 2, done.err
    assert "SmolLM2-135M-Q8_0" in done.err
    assert home.files() == []


def test_heartbeats_do_not_keep_a_dead_engine_alive(home: Home) -> None:
    """lemonade pings for as long as the client listens, whatever the engine does."""
    with serving("fake_lemonade.py", "/live", "--stops-after", "2") as url:
        began = time.monotonic()
        done = home.in_process(
            *("run", "--url", url, "--served-model", "SmolLM2-135M-Q8_0", "--workload", "chat"),
            *("--request-timeout", "2"),
        )
    assert time.monotonic() - began < 200
    assert done.code == 3, done.err
    [record] = home.records()
    assert (record["status"], record["failure"]["code"]) == ("failed", "timeout")


def test_an_engine_started_anew_behind_its_wrapper_ends_the_run(home: Home) -> None:
    with serving("fake_lemonade.py", "/live", "--restarts-after", "2") as url:
        done = home.in_process(
            *("run", "--url", url, "--served-model", "SmolLM2-135M-Q8_0", "--workload", "chat")
        )
    assert done.code == 3, done.err
    [record] = home.records()
    assert record["failure"]["code"] == "engine_restarted"
    assert "process 675 before, process 676 now" in record["failure"]["message"]


def test_a_model_in_memory_is_named_before_and_after_it_is_put_out(home: Home) -> None:
    with serving("fake_lemonade.py", "/live", "--holds", "Qwen3-8B") as url:
        done = home.in_process(
            *("run", "--url", url, "--served-model", "SmolLM2-135M-Q8_0", "--workload", "chat")
        )
    assert done.code == 0, done.err
    said = done.out + done.err
    assert "lemonade may unload Qwen3-8B" in said
    assert "lemonade unloaded Qwen3-8B and does not load it again" in said


def test_loading_ends_when_the_model_answers(home: Home) -> None:
    """Not when the wrapper has opened its port."""
    program = FOLDER / "fake_lemonade.py"
    lemond = home.root / "lemond"
    lemond.write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$@" --load-s 2.5\n')
    lemond.chmod(0o755)
    done = home.in_process(
        *("run", "--backend", "lemonade", "--server-bin", str(lemond)),
        *("--model", "SmolLM2-135M-Q8_0", "--workload", "chat"),
    )
    assert done.code == 0, done.err
    [record] = home.records()
    assert 2.5 <= record["cold_start"]["load_s"] < 30
