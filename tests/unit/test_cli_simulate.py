"""``tokrig simulate`` on the command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from click.testing import CliRunner

from tokrig.cli.main import main
from tokrig.cli.simulate import NAMES

PROGRAM = (sys.executable, "-P", "-m", "tokrig", "simulate", "--port", "0")


def asked(url: str) -> Any:
    """An answer in one piece."""
    connection = HTTPConnection("127.0.0.1", urlsplit(url).port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", b'{"messages":[{"content":"x"}]}')
        return json.loads(connection.getresponse().read())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_a_summary(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log.jsonl"
    words = ["--ttft", "0.001", "--itl", "0.001", "--tokens", "5", "--log", str(log), "--json"]
    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert asked(told["url"])["usage"]["completion_tokens"] == 5
        process.send_signal(number)
        report = json.loads(process.stdout.read())["report"]
        assert process.wait(60) == 0
    assert told["simulation"]["tokens"] == 5
    assert report["outcomes"] == {"answered": 1}
    assert report["late_s"]["p50"] > 0
    assert len(json.loads(log.read_text())["sent_ns"]) == 5


def test_people_are_told_in_words() -> None:
    words = [*PROGRAM, "--tokens", "3", "--ttft", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        asked(it.stdout.readline().strip())
        it.send_signal(signal.SIGINT)
        told, noted = it.communicate(timeout=60)
    assert "1: 1 answered" in told
    assert "Sent late by" in told
    assert "Ctrl-C" in noted


def test_every_field_is_an_option() -> None:
    shown = CliRunner().invoke(main, ["simulate", "--help"]).stdout
    assert all(f"{name} " in shown for name in NAMES.values())
    assert {"--ttft", "--itl", "--prefill-tok-per-s", "--cache"} <= set(NAMES.values())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--ttft", "-1"], "--ttft: should be greater than or equal to 0"),
        (["--slots", "0"], "--slots: should be greater than or equal to 1"),
        (["--cache", "slott"], "'slott' is unknown"),
        (["--itl", "soon"], "--itl: should be a valid number"),
        (["--burst", "1", "--burst-bytes", "9"], "choose one"),
        (["--log", "/nowhere/at/all"], "the log cannot be written"),
        (["--host", "192.0.2.1"], "is unavailable"),
        (["nothing.yaml"], "nothing.yaml: cannot be read"),
    ],
)
def test_bad_options(words: list[str], reason: str) -> None:
    done = CliRunner().invoke(main, ["simulate", "--port", "0", *words])
    assert done.exit_code == 2
    assert reason in done.stderr


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = CliRunner().invoke(main, ["simulate", "--port", str(taken.getsockname()[1])])
    assert done.exit_code == 2
    assert "is unavailable: Address already in use" in done.stderr
    assert "--port 0" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_instrument_that_is_ended_leaves_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    load = ("--streams", "1", "--interval", "0.01", "--tokens", "6000")
    words = (sys.executable, "-P", "-m", "tokrig", "instrument", *load)
    env = {**os.environ, "TOKRIG_STATE": str(tmp_path)}
    with subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "1 streams" in process.stderr.readline()
        until = time.monotonic() + 60
        while not (servers := psutil.Process(process.pid).children()):
            assert time.monotonic() < until
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == (130 if number == signal.SIGINT else -number)
    _, left = psutil.wait_procs(servers, timeout=60)
    assert left == []
