"""Recognising servers, finding running ones and installed programs."""

from __future__ import annotations

import json
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract import loopback
from tests.contract.loopback import PATIENT_S, Script, Talk, closed_port, plain, serving
from tests.contract.recordings import FOLDER
from tokrig.errors import EngineDied, RequestError
from tokrig.run import detect
from tokrig.run.http import Endpoint

JSON = b"Content-Type: application/json\r\n"


def path_of(talk: Talk) -> str:
    return talk.head.split(b" ", 2)[1].decode()


def answering(name: str, prefix: str = "") -> Script:
    """A server that says what the recorded one says about itself."""
    told = json.loads((FOLDER / "about" / f"{name}.json").read_text(encoding="utf-8"))["answers"]

    def script(talk: Talk) -> None:
        answer: Any = told.get(path_of(talk).removeprefix(prefix))
        if answer is None or not path_of(talk).startswith(prefix):
            talk.send(plain(b"404 Not Found", b"{}", JSON))
        else:
            text = answer if isinstance(answer, str) else json.dumps(answer)
            talk.send(plain(b"200 OK", text.encode(), JSON))

    return script


def no_http(talk: Talk) -> None:
    talk.send(b"220 mail.example ESMTP\r\n")


def hangs(talk: Talk) -> None:
    talk.sock.recv(1)


def trickles(talk: Talk) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:  # until the client leaves
        talk.send(b" ", gap_s=0.05)


@pytest.fixture(autouse=True)
def requests_without_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loopback server wants a length with every request."""

    def read(talk: Talk) -> None:
        seen = b""
        while b"\r\n\r\n" not in seen:
            data = talk.sock.recv(1 << 16)
            if not data:
                raise OSError("the client left")
            seen += data
        talk.head = seen.partition(b"\r\n\r\n")[0]

    monkeypatch.setattr(loopback, "read_request", read)


# recognise


@pytest.mark.parametrize("name", ["lemonade", "ollama", "lmstudio", "llamacpp", "vllm"])
def test_a_server_is_recognised_through_a_socket(name: str) -> None:
    with serving(answering(name)) as server:
        backend = detect.recognise(server.endpoint)
        assert backend is not None
        assert backend.name == name


def test_each_path_is_asked_once_and_nothing_is_posted() -> None:
    with serving(answering("llama-cpp-python")) as server:
        assert detect.recognise(server.endpoint) is None
    paths = [path_of(talk) for talk in server.talks]
    assert len(paths) == len(set(paths))
    assert {talk.head.split(b" ")[0] for talk in server.talks} == {b"GET"}


def test_a_base_path_is_kept() -> None:
    with serving(answering("llamacpp", "/proxy/one")) as server:
        url = f"http://{server.endpoint.host_header}/proxy/one/v1"
        backend = detect.recognise(Endpoint.from_url(url))
        assert backend is not None
        assert backend.name == "llamacpp"
        assert detect.recognise(server.endpoint) is None


def test_nobody_there() -> None:
    with pytest.raises(EngineDied, match="nobody answers"):
        detect.recognise(closed_port())


@pytest.mark.parametrize("script", [hangs, trickles])
def test_a_server_that_does_not_come_to_an_end_blocks_nobody(script: Script) -> None:
    with serving(script) as server:
        began = time.monotonic()
        assert detect.recognise(server.endpoint, limit_s=0.3) is None
        assert time.monotonic() - began < PATIENT_S / 2


def test_one_path_that_hangs_leaves_time_for_the_others() -> None:
    whole = answering("llamacpp")

    def script(talk: Talk) -> None:
        hangs(talk) if path_of(talk) == "/v1/health" else whole(talk)

    with serving(script) as server:
        backend = detect.recognise(server.endpoint, limit_s=3)
        assert backend is not None
        assert backend.name == "llamacpp"


def test_a_server_that_hangs_up_on_unknown_paths_is_not_dead() -> None:
    whole = answering("llamacpp")

    def script(talk: Talk) -> None:
        if path_of(talk) in ("/props", "/v1/models", "/v1/health"):
            whole(talk)

    with serving(script) as server:
        backend = detect.recognise(server.endpoint)
        assert backend is not None
        assert backend.name == "llamacpp"


def test_questions_that_would_set_a_server_to_work_are_not_put() -> None:
    with serving(answering("llamacpp")) as server:
        ask = detect.Questions(server.endpoint, 1, may_post=False)
        with pytest.raises(RequestError, match="not asked"):
            ask("/v1/chat/completions", {})
        assert ask("/health") == {"status": "ok"}
        assert ask("/health", text=True) == '{"status": "ok"}'
    assert [path_of(talk) for talk in server.talks] == ["/health", "/health"]


def generic(base: str, lists_models: bool = True, takes: str = "/chat/completions") -> Script:
    """An OpenAI-compatible server that has its API at ``base`` alone: OpenVINO's at /v3
    (openvinotoolkit/model_server#3555), Zhipu's at /api/paas/v4 (QuantumNous/new-api#853)."""

    def script(talk: Talk) -> None:
        path = path_of(talk)
        if path == f"{base}/models" and lists_models:
            models = {"object": "list", "data": [{"id": "m", "owned_by": "OVMS"}]}
            talk.send(plain(b"200 OK", json.dumps(models).encode(), JSON))
        elif path == base + takes:
            talk.send(plain(b"400 Bad Request", b'{"error":"messages is empty"}', JSON))
        else:
            talk.send(plain(b"404 Not Found", b'{"error":"no such path"}', JSON))

    return script


@pytest.mark.parametrize("lists_models", [True, False])
@pytest.mark.parametrize(
    ("base", "given"),
    [
        ("/v3", "/v3"),
        ("/api/paas/v4", "/api/paas/v4/"),
        ("/v1/openai", "/v1/openai"),
        ("/openai/v1", "/openai/v1/chat/completions"),
        ("/v1", ""),
        ("", ""),
        ("/v1", "/api/v1"),
        ("/x/v1", "/x"),
        ("/inference", "/inference"),
    ],
)
def test_an_address_is_settled_where_it_answers(base: str, given: str, lists_models: bool) -> None:
    with serving(generic(base, lists_models)) as server:
        url = f"http://{server.endpoint.host_header}{given}"
        found = detect.settled(Endpoint.from_url(url))
        assert found.at(detect.CHAT) == f"{base}/chat/completions"
        assert detect.recognise(Endpoint.from_url(url)) is None


def test_an_address_that_leads_nowhere_stays_as_it_was_given() -> None:
    with serving(generic("/nowhere")) as server:
        url = f"http://{server.endpoint.host_header}/v3"
        assert detect.settled(Endpoint.from_url(url)).at(detect.CHAT) == "/v3/chat/completions"


@pytest.mark.parametrize(
    ("name", "prefix", "given"),
    [("lemonade", "", "/api/v1"), ("lmstudio", "", "/api/v1"), ("llamacpp", "/api", "/api/v1")],
)
def test_the_root_of_a_recognised_server_is_found(name: str, prefix: str, given: str) -> None:
    whole = answering(name, prefix)

    def script(talk: Talk) -> None:
        # lemonade has its API below /api too, but /live at the root alone.
        if name == "lemonade" and path_of(talk).startswith("/api/v1/"):
            talk.head = talk.head.replace(b"/api/v1/", b"/v1/", 1)
        whole(talk)

    with serving(script) as server:
        url = f"http://{server.endpoint.host_header}{given}"
        backend = detect.recognise(Endpoint.from_url(url))
        assert backend is not None
        assert backend.name == name
        assert detect.settled(Endpoint.from_url(url), backend).prefix == prefix


def test_a_server_that_hangs_up_on_the_first_question_is_not_dead() -> None:
    whole = answering("vllm")

    def script(talk: Talk) -> None:
        if path_of(talk) in ("/version", "/v1/models"):
            whole(talk)

    with serving(script) as server:
        backend = detect.recognise(server.endpoint)
        assert backend is not None
        assert backend.name == "vllm"


def wants_key(*public: str) -> Script:
    """llama-server and vLLM with --api-key: some paths are public, the others answer 401."""
    whole = answering("llamacpp")

    def script(talk: Talk) -> None:
        if path_of(talk) in public or b"authorization: bearer right" in talk.head.lower():
            whole(talk)
        else:
            error = b'{"error":{"message":"Invalid API Key","type":"authentication_error"}}'
            talk.send(plain(b"401 Unauthorized", error, JSON))

    return script


@pytest.mark.parametrize("public", [(), ("/health", "/v1/models")])
def test_a_server_that_wants_a_key_is_not_none(public: tuple[str, ...]) -> None:
    with serving(wants_key(*public)) as server:
        with pytest.raises(RequestError, match="wants a key") as raised:
            detect.recognise(server.endpoint)
        assert (raised.value.code, "--api-key-env" in raised.value.hint) == ("locked", True)
        url = f"http://{server.endpoint.host_header}"
        wrong = Endpoint.from_url(url, {"Authorization": "Bearer wrong"})
        with pytest.raises(RequestError, match="refuses this key"):
            detect.recognise(wrong)
        right = Endpoint.from_url(url, {"Authorization": "Bearer right"})
        assert detect.recognise(right) is not None
        (found,) = detect.running([server.endpoint.port])
        assert (found.backend, found.locked) == (None, True)


def test_a_page_that_wants_a_login_is_no_engine() -> None:
    def script(talk: Talk) -> None:
        status = b"404 Not Found" if path_of(talk) in detect.LOCKED else b"403 Forbidden"
        talk.send(plain(status, b"<html>"))

    with serving(script) as server:
        assert detect.running([server.endpoint.port]) == []


# running


def test_running_servers_are_found_and_strangers_passed_over() -> None:
    with (
        serving(answering("llamacpp")) as llamacpp,
        serving(no_http, reads_requests=False) as mail,
        serving(lambda talk: talk.send(plain(b"200 OK", b"<html>"))) as web,
        serving(hangs) as hanging,
    ):
        servers = (llamacpp, mail, web, hanging)
        ports = [*(server.endpoint.port for server in servers), closed_port().port]
        began = time.monotonic()
        (found,) = detect.running(ports, limit_s=3)
        address = llamacpp.endpoint.host_header
        assert time.monotonic() - began < PATIENT_S / 2
        assert found.backend is not None
    assert found.backend.name == "llamacpp"
    assert found.endpoint.host_header == address
    assert found.engine is not None
    assert found.engine.engine == "llama.cpp"
    assert found.engine.served_models == ("m",)


def test_the_usual_ports_are_those_of_all_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Endpoint] = []

    def look(servers: list[detect.Found], *_: object, **__: object) -> None:
        asked.extend(server.endpoint for server in servers)

    monkeypatch.setattr(detect, "_look", look)
    assert detect.running() == []
    assert {endpoint.host for endpoint in asked} == {"127.0.0.1"}
    assert {1234, 8000, 8080, 11434, 13305} <= {endpoint.port for endpoint in asked}


def test_imitators_come_before_the_imitated() -> None:
    order = [backend.name for backend in detect.attaching()]
    assert order.index("lemonade") < order.index("ollama") < order.index("lmstudio")
    assert order[-1] == "openai"


# installed


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable}\nimport sys, time\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


LLAMA_SERVER = """
if sys.argv[1] == "--version":
    print("version: 9174 (abc123)", file=sys.stderr)
else:
    print("Available devices:\\n  CUDA0: NVIDIA X (12227 MiB, 11000 MiB free)")
"""


def test_programs_tell_their_version_and_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "llama-server", LLAMA_SERVER)
    program(tmp_path, "ollama", "print('Warning: client version is 0.12.6')")
    program(tmp_path, "lms", "sys.exit('no idea')")
    program(tmp_path, "vllm", "time.sleep(600)")
    (tmp_path / "lib/python3.12/site-packages/vllm-0.32.0+cpu.dist-info").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = {one.name: one for one in detect.installed()}
    assert set(found) == {"llama-server", "ollama", "lms", "vllm"}
    server = found["llama-server"]
    assert (server.version, server.devices, server.apis) == ("b9174", ("CUDA0",), ("cpu", "cuda"))
    assert found["ollama"].version == "0.12.6"
    assert (found["lms"].version, found["lms"].in_time) == (None, True)
    assert found["vllm"].version == "0.32.0+cpu"


@pytest.mark.parametrize(
    "script",
    ["time.sleep(600)", "sys.stdout.close()\nimport os\nos.close(1); os.close(2)\ntime.sleep(600)"],
    ids=["silent", "closes its output"],
)
def test_a_program_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(detect, "PROGRAM_S", 0.5)
    path = program(tmp_path, "ollama", script)
    began = time.monotonic()
    assert detect._said(str(path)) == ("", False)
    assert time.monotonic() - began < PATIENT_S / 2


def test_a_program_that_talks_on_is_ended(tmp_path: Path) -> None:
    path = program(tmp_path, "ollama", "print('version 1.2')\nwhile True: print('x' * 65536)")
    said, ended = detect._said(str(path))
    assert not ended
    assert len(said) <= 3 * detect.MAX_OUTPUT_BYTES
    assert detect.version_of("ollama", said) == "1.2"


def test_a_program_that_cannot_be_run(tmp_path: Path) -> None:
    path = tmp_path / "lms"
    path.write_bytes(b"\x7fELF nonsense")
    path.chmod(0o755)
    assert detect._said(str(path)) == ("", True)


@pytest.mark.parametrize(
    ("name", "said", "version"),
    [
        ("llama-server", "version: 0.6.0-dev (build 11434, commit unknown)\nbuilt with", "b11434"),
        ("llama-bench", "version: 9174 (b1a2c3d)", "b9174"),
        ("ollama", "ollama version is 0.12.6", "0.12.6"),
        ("lemonade", "lemonade version 11.9.0", "11.9.0"),
        ("sglang", "sglang version: 0.5.0\ngit revision: b123456", "0.5.0"),
        ("transformers", "[transformers] PyTorch was not found.\n5.23.0\n", "5.23.0"),
        ("lms", "lms - LM Studio CLI - v0.0.47", "0.0.47"),
        ("lms", "CLI commit: 6f7a21b", None),
    ],
)
def test_versions(name: str, said: str, version: str | None) -> None:
    assert detect.version_of(name, said) == version
