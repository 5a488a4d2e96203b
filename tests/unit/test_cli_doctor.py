"""``tokrig doctor`` over servers and programs that exist nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tokrig import registry
from tokrig.backends import Capabilities, Engine
from tokrig.cli import machine
from tokrig.cli.main import main
from tokrig.run import detect
from tokrig.run.detect import Found, Program
from tokrig.run.http import Endpoint


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = registry.load("backends", "llamacpp", "BACKEND")
    engine = Engine("llama.cpp", "b9174", "cuda", True, tuple("abcdef"))
    hostile = Engine("x\x1b[2J", served_models=("m\x07",))
    servers = [
        Found(Endpoint("127.0.0.1", 8080), backend, engine),
        Found(Endpoint("127.0.0.1", 8081), backend),
        Found(Endpoint("127.0.0.1", 8082), backend, hostile),
    ]
    programs = [
        Program("llama-server", "/bin/llama-server", "b9174", True, ("CUDA0",), ("cpu", "cuda")),
        Program("vllm", "/bin/vllm", None, in_time=False),
        Program("lms", "/bin/lms"),
    ]
    monkeypatch.setattr(detect, "running", lambda: servers)
    monkeypatch.setattr(detect, "installed", lambda: programs)


@pytest.mark.usefixtures("here")
def test_servers_and_programs(tmp_path: Path) -> None:
    words = ["doctor", "--content", str(tmp_path)]
    text = CliRunner().invoke(main, words).stdout
    assert "http://127.0.0.1:8080: llama.cpp b9174 (cuda), serves a, b, c, d and 2 more" in text
    assert "http://127.0.0.1:8081: llama.cpp llama-server" in text
    assert "b9174, computes with cpu, cuda (CUDA0), /bin/llama-server" in text
    assert "did not tell its version in time, /bin/vllm" in text
    assert "version unknown, /bin/lms" in text
    assert "\x1b[2J" not in text
    assert "\x07" not in text
    findings = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)["findings"]
    (server, *_) = [f for f in findings if f["group"] == "running servers"]
    assert server["facts"] == {
        "url": "http://127.0.0.1:8080",
        "engine": "llama.cpp",
        "build": "b9174",
        "api": "cuda",
        "served_models": list("abcdef"),
        "locked": False,
    }
    (program, *_) = [f for f in findings if f["group"] == "installed programs"]
    assert program["facts"]["devices"] == ["CUDA0"]
    assert {f["group"] for f in findings} == set(machine.GROUPS)


def test_nothing_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "running", list)
    monkeypatch.setattr(detect, "installed", list)
    text = CliRunner().invoke(main, ["doctor", "--content", str(tmp_path)]).stdout
    assert "none on the usual ports of 127.0.0.1" in text
    assert "none of the engines' programs is on the PATH" in text


def test_abilities_in_a_few_words() -> None:
    assert machine.abilities(Capabilities()) == "prompt cache bypassed by salt"
    can = Capabilities(("ngram",), ("cpu", "cuda"), "start", "request", timings="counters")
    assert machine.abilities(can) == (
        "cpu, cuda · speculation: ngram · prompt cache off at start · reasoning switched"
        " per request · engine counters"
    )
