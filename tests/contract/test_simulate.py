"""The simulated server over real sockets: what it sent is what was asked for, and its stamps say
when. Counts and order only: how late it is depends on the machine."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, RemoteDisconnected
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.contract.loopback import PATIENT_S
from tokrig.errors import EngineDied, InputError
from tokrig.run.answer import Answer, read_answer
from tokrig.run.client import Loop, closed_loop
from tokrig.run.http import Endpoint
from tokrig.simulate import process
from tokrig.simulate.process import simulated
from tokrig.simulate.report import Report
from tokrig.simulate.server import Server
from tokrig.simulate.simulation import Simulation

CHAT = "/v1/chat/completions"
FAST: dict[str, Any] = {"ttft_s": 0.002, "itl_s": 0.0005}


class Running:
    """A server in a thread."""

    def __init__(self, made: Simulation, log: Path | None = None) -> None:
        self.server = Server(made, log=log)
        self.endpoint = Endpoint("127.0.0.1", self.server.address[1])
        self.report: Report | None = None

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.endpoint.port, timeout=PATIENT_S)
        try:
            return self.on(connection, path, body)
        finally:
            connection.close()

    def on(self, connection: HTTPConnection, path: str, body: Any = None) -> tuple[int, Any]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data)
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    def load(self, bodies: list[bytes], concurrency: int) -> tuple[Loop, list[Answer]]:
        loop = closed_loop(self.endpoint, CHAT, bodies, concurrency, silence_s=PATIENT_S)
        return loop, [read_answer(response, lambda _: None) for response in loop.responses]


@contextmanager
def running(log: Path | None = None, **asked: Any) -> Iterator[Running]:
    found = Running(Simulation(**{**FAST, **asked}), log)
    read, write = os.pipe()

    def serve() -> None:
        found.report = found.server.serve(read)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield found
    finally:
        os.close(write)
        thread.join(PATIENT_S)
        os.close(read)
    assert not thread.is_alive()


def chat(text: str = "hello", tokens: int | None = None, **more: Any) -> dict[str, Any]:
    limit = {} if tokens is None else {"max_tokens": tokens}
    return {"messages": [{"role": "user", "content": text}], **limit, **more}


def streamed(text: str = "hello", tokens: int = 20, **more: Any) -> bytes:
    options = {"stream_options": {"include_usage": True}, "stream": True}
    return json.dumps(chat(text, tokens, **{**options, **more})).encode()


def test_what_a_client_asks_before_a_chat() -> None:
    with running(model="tiny", context=900) as server:
        assert server.ask("/health") == (200, {"status": "ok"})
        status, models = server.ask("/v1/models")
        assert (status, models["data"][0]["id"]) == (200, "tiny")
        assert models["data"][0]["max_model_len"] == 900
        status, found = server.ask("/nowhere")
        assert (status, found["error"]["code"]) == (404, "not_found")
        assert server.ask("/simulation")[1]["simulation"]["ttft_s"] == 0.002


def test_an_answer_in_one_piece_on_a_kept_connection() -> None:
    with running(reasoning=0.5) as server:
        connection = HTTPConnection("127.0.0.1", server.endpoint.port, timeout=PATIENT_S)
        for _ in range(2):
            status, found = server.on(connection, CHAT, chat("x" * 100, 8))
            message = found["choices"][0]["message"]
            assert status == 200
            assert message["content"].startswith(" ")
            assert message["reasoning_content"].startswith(" ")
            assert found["choices"][0]["finish_reason"] == "length"
            assert found["usage"]["completion_tokens"] == 8
            assert found["usage"]["prompt_tokens"] == 31
        connection.close()


def test_streams_are_what_was_asked_for_and_in_order() -> None:
    with running(tokens_per_chunk=3) as server:
        _, answers = server.load([streamed(tokens=30)] * 6, 3)
        assert [answer.error for answer in answers] == [None] * 6
        assert {len(answer.chunks) for answer in answers} == {11}
        assert {answer.output_tokens for answer in answers} == {30}
        assert {answer.finish_reason for answer in answers} == {"length"}
    assert server.report is not None
    assert server.report.outcomes == {"answered": 6}
    assert server.report.tokens == 180
    assert server.report.held_up == 0


def test_the_same_seed_gives_the_same_answers() -> None:
    def texts(seed: int) -> list[str]:
        with running(seed=seed, jitter=0.1) as server:
            _, answers = server.load([streamed()] * 3, 1)
        return ["".join(chunk.text for chunk in answer.chunks) for answer in answers]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_stamps_in_the_text_and_in_the_log_are_the_same(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with running(log, stamps=True) as server:
        _, answers = server.load([streamed(tokens=15)] * 4, 2)
    lines = sorted(map(json.loads, log.read_text().splitlines()), key=lambda line: line["request"])
    assert [line["outcome"] for line in lines] == ["answered"] * 4
    told = [[int(chunk.text.split()[0]) for chunk in answer.chunks] for answer in answers]
    assert sorted(told) == sorted(line["sent_ns"] for line in lines)
    for line in lines:
        assert all(a < b for a, b in pairwise(line["sent_ns"]))
        # Nothing is sent before it is due, and what is due is what was asked for.
        assert all(s >= d for s, d in zip(line["sent_ns"], line["due_ns"], strict=True))
        assert {b - a for a, b in pairwise(line["due_ns"])} == {500_000}
        assert line["due_ns"][0] - line["slot_ns"] == 2_000_000


def test_requests_beyond_the_slots_wait_in_their_order(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with running(log, slots=2) as server:
        server.load([streamed()] * 8, 8)
    lines = sorted(map(json.loads, log.read_text().splitlines()), key=lambda line: line["request"])
    assert [line["slot_ns"] for line in lines] == sorted(line["slot_ns"] for line in lines)
    ends = sorted(line["sent_ns"][-1] for line in lines)
    for line, end in zip(lines[2:], ends, strict=False):
        assert line["slot_ns"] > end


def test_a_session_meets_its_own_cache() -> None:
    with running(cache="slot", slots=1) as server:
        messages = [{"role": "user", "content": "x" * 400}]
        cached = []
        for _ in range(3):
            _, found = server.ask(CHAT, {"messages": messages, "max_tokens": 10})
            cached.append(found["usage"]["prompt_tokens_details"]["cached_tokens"])
            messages += [found["choices"][0]["message"], {"role": "user", "content": "go on"}]
            before = found["usage"]
        assert cached[0] == 0
        assert cached[1] > 100
        assert cached[1] < cached[2] < before["prompt_tokens"]
        _, found = server.ask(CHAT, {"messages": messages, "max_tokens": 9, "cache_prompt": False})
        assert found["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_counts_and_clock_are_told_as_asked() -> None:
    with running(timings=True) as server:
        connection = HTTPConnection("127.0.0.1", server.endpoint.port, timeout=PATIENT_S)
        each = {"include_usage": True, "continuous_usage_stats": True}
        connection.request("POST", CHAT, streamed(tokens=5, stream_options=each))
        lines = connection.getresponse().read().decode().split("\n\n")
        connection.close()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    counts = [event["usage"]["completion_tokens"] for event in events if "usage" in event]
    assert counts == [1, 2, 3, 4, 5, 5]
    timings = events[-1]["timings"]
    assert (timings["predicted_n"], timings["predicted_ms"]) == (5, 2.0)
    with running(usage="none") as server:
        _, answers = server.load([streamed()], 1)
    assert answers[0].output_tokens is None


def test_errors_and_cuts() -> None:
    with running(error_every=3, error_status=503, cut_every=2) as server:
        _, answers = server.load([streamed()] * 6, 1)
        assert [answer.error for answer in answers] == [
            None, "stream_cut", "http_503", "stream_cut", None, "http_503",
        ]  # fmt: skip
        assert all(len(answers[i].chunks) < 20 for i in (1, 3))
        assert server.ask(CHAT, chat(tokens=9))[0] == 200
        with pytest.raises(RemoteDisconnected):
            server.ask(CHAT, chat(tokens=9))
    assert server.report is not None
    assert server.report.outcomes == {"answered": 3, "cut": 3, "failed": 2}


def test_bad_requests_are_refused_in_words() -> None:
    with running(context=50) as server:
        status, found = server.ask(CHAT, chat("x" * 400, 5))
        assert (status, found["error"]["code"]) == (400, "context_length_exceeded")
        status, found = server.ask(CHAT, b"{")
        assert (status, found["error"]["message"]) == (400, "the body is not JSON")
        with socket.create_connection(("127.0.0.1", server.endpoint.port), PATIENT_S) as raw:
            raw.sendall(b"hello\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 400")
        assert server.ask("/health")[0] == 200


def test_a_slow_reader_loses_nothing_and_is_no_lateness() -> None:
    """It stops reading until the kernel's buffers are full; another stream goes on meanwhile."""
    tokens = 250_000
    with running(itl_s=1e-6, tokens_per_chunk=256, stamps=True) as server:
        with socket.socket() as slow:
            slow.settimeout(PATIENT_S)
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            until = time.monotonic() + PATIENT_S
            slow.connect(("127.0.0.1", server.endpoint.port))
            body = streamed(tokens=tokens)
            slow.sendall(b"POST %s HTTP/1.1\r\nConnection: close\r\n" % CHAT.encode())
            slow.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            while not any(one.unsent for one in list(server.server.connections.values())):
                assert time.monotonic() < until
                time.sleep(0.01)
            assert server.load([streamed()] * 2, 1)[1][1].output_tokens == 20
            data = b""
            while more := slow.recv(1 << 20):
                data += more
        assert data.endswith(b"0\r\n\r\n")
        assert b'"completion_tokens":%d' % tokens in data
    assert server.report is not None
    assert server.report.tokens == tokens + 40
    assert server.report.held_up > 0


def test_who_hangs_up_frees_the_slot() -> None:
    with running(slots=1, itl_s=0.05) as server:
        with socket.create_connection(("127.0.0.1", server.endpoint.port), PATIENT_S) as gone:
            body = streamed(tokens=2000)
            gone.sendall(b"POST %s HTTP/1.1\r\n" % CHAT.encode())
            gone.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            assert gone.recv(100)
        _, answers = server.load([streamed(tokens=2)], 1)
        assert answers[0].output_tokens == 2
    assert server.report is not None
    assert server.report.outcomes == {"gone": 1, "answered": 1}


def test_a_port_that_is_taken() -> None:
    with running() as server, pytest.raises(InputError, match="is unavailable") as refused:
        Server(Simulation(), port=server.endpoint.port)
    assert "--port 0" in refused.value.hint


def test_a_process_of_its_own_and_its_report() -> None:
    with simulated(Simulation(**FAST)) as server:
        endpoint = Endpoint(server.host, server.port)
        loop = closed_loop(endpoint, CHAT, [streamed(tokens=6)] * 2, 2, silence_s=PATIENT_S)
        assert len(loop.responses) == 2
    assert server.report["outcomes"] == {"answered": 2}
    assert server.report["tokens"] == 12
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port), timeout=5)


def test_a_process_that_dies_is_told() -> None:
    def die() -> None:
        for child in psutil.Process().children():
            if "tokrig.simulate" in child.cmdline():
                child.kill()
                child.wait(PATIENT_S)

    with pytest.raises(EngineDied, match="ended on its own"), simulated(Simulation(**FAST)):
        die()


def test_a_process_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PROGRAM", (process.PROGRAM[0], "-c", ""))
    with pytest.raises(EngineDied, match="did not start"), simulated(Simulation()):
        pass
