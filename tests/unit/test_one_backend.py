"""A backend is one file: a made-up engine in a folder of its own is started, asked and measured
by everything that lists, checks or drives backends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tokrig import registry
from tokrig.backends import Backend, Launch, Request
from tokrig.cli.main import main
from tokrig.errors import InputError, RequestError
from tokrig.run.detect import attaching
from tokrig.run.prepare import outline
from tokrig.spec.run import RunSpec

FILE = """
from tokrig.backends import Capabilities
from tokrig.backends._python import PythonServer


class Warp(PythonServer):
    name = "warp"
    title = "Warp"
    program = "warpd"
    get_it = "give its path with --server-bin"
    owned_by = "warp"
    tells = {"/warp": frozenset({"factor"})}
    ports = (9753,)
    capabilities = Capabilities(apis=("cpu", "cuda"), timings="counters")
    flags = {"model": "{0.model}", "slots": "{0.slots}"}
    listed = "slots"
    takes = {"threads": ("workers",), "kv_type": ("kv",)}
    prometheus = {"output_tokens": "warp_tokens_total"}


BACKEND = Warp()
"""


@pytest.fixture
def warp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    (tmp_path / "warp_backend.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("warp", "warp_backend:BACKEND", "tokrig.backends")
    monkeypatch.setattr(
        registry, "added", lambda package: {"warp": entry} if package == "backends" else {}
    )
    yield registry.load("backends", "warp", "BACKEND")
    sys.modules.pop("warp_backend", None)


def answers(told: dict[str, Any]) -> Any:
    def ask(path: str, body: Any = None, *, text: bool = False) -> Any:
        if path not in told:
            raise RequestError(f"{path} answered 404", code="http_404")
        return told[path]

    return ask


def test_it_is_listed_and_recognised(warp: Backend) -> None:
    assert warp in attaching()
    listed = {"data": [{"id": "m", "owned_by": "warp"}]}
    assert warp.recognises(answers({"/v1/models": listed, "/warp": {"factor": 9}}))
    assert not warp.recognises(answers({"/v1/models": listed}))
    result = CliRunner().invoke(main, ["run", "--backend", "warp", "--model", "m", "--dry-run"])
    assert "no warpd on the PATH" in result.output


def test_it_is_started_with_its_own_words(warp: Backend, tmp_path: Path) -> None:
    program = tmp_path / "warpd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    settings: dict[str, Any] = {"threads": 4, "kv_type": "q8"}
    launch = Launch(Path("m"), 5, 512, 2, binary=str(program), settings=settings)
    assert warp.command(launch).argv[1:] == (
        *("--model", "m", "--slots", "2", "--host", "127.0.0.1", "--port", "5"),
        *("--workers", "4", "--kv", "q8"),
    )
    strange = Launch(Path("m"), 5, 512, 2, binary=str(program), answers=("usage: cat",))
    with pytest.raises(InputError, match="is not warpd: it says 'usage: cat'"):
        warp.vet(strange)


def test_it_is_asked_and_read_as_any_openai_server(warp: Backend) -> None:
    body = warp.body(Request([{"role": "user", "content": "Hi"}], 8, 1, served_model="m"))
    assert (body["stream"], body["temperature"], body["max_tokens"]) == (True, 0, 8)
    ask = answers({"/metrics": "warp_tokens_total 7\n", warp.chat_path: {"usage": {}}})
    assert warp.counters(ask) == {"output_tokens": 7.0}


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"api": "metal"}, "never computes with 'metal'"),
        ({"speculative": "ngram"}, "does not support 'ngram' speculation"),
        ({"devices": ["0"]}, "no switch for --device"),
    ],
)
def test_what_it_does_not_declare_is_refused(
    warp: Backend, wanted: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        outline(RunSpec(backend="warp", model="m", **wanted), datetime.now(UTC))
