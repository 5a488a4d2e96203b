"""The client on real sockets against a server that keeps and breaks every rule."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import select
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.loopback import (
    AUTHORITY,
    DONE,
    END,
    FINISH,
    OLD_SSE_HEAD,
    PATIENT_S,
    SSE_HEAD,
    Script,
    Talk,
    answer,
    chunk,
    chunks,
    closed_port,
    delta,
    plain,
    serving,
)
from tokrig.errors import InputError
from tokrig.run import client
from tokrig.run.answer import read_answer
from tokrig.run.client import Loop, Response, closed_loop, resolve
from tokrig.run.http import Endpoint
from tokrig.run.wire import Wire, bears_token
from tokrig.stamps import KernelStamps, now_ns, read_stamped

WHOLE = answer("a", "b")
BODY = b"".join([delta("a"), delta("b"), FINISH, DONE])


PATH = "/v1/chat/completions"


def load_of(endpoint: Endpoint, count: int = 1, concurrency: int = 1, body: bytes = b"{}") -> Loop:
    return closed_loop(endpoint, PATH, [body] * count, concurrency, silence_s=PATIENT_S)


def one(script: Script, **options: bool) -> Response:
    """The response to one request answered by ``script``."""
    with serving(script, **options) as server:  # type: ignore[arg-type]
        return load_of(server.endpoint).responses[0]


def text(response: Response) -> bytes:
    return b"".join(data for _, data in response.pieces)


def sends(*parts: bytes, gap_s: float = 0.0) -> Script:
    return lambda talk: talk.send(*parts, gap_s=gap_s)


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Every test leaves as many open files as it found, and the collector as it was."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert gc.isenabled()
    deadline = time.monotonic() + PATIENT_S
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TICK_NS", 20_000_000)


# What a server may send, and in which pieces.


def test_chunked() -> None:
    response = one(sends(WHOLE))
    assert (response.status, response.failure, text(response)) == (200, None, BODY)
    assert response.headers["content-type"] == "text/event-stream"


def test_content_length() -> None:
    response = one(sends(plain(b"200 OK", BODY)))
    assert (response.failure, text(response)) == (None, BODY)


def test_http_1_0_until_close() -> None:
    response = one(sends(OLD_SSE_HEAD, BODY))
    assert (response.failure, text(response)) == (None, BODY)


def test_chunk_extensions_and_trailers() -> None:
    parts = [SSE_HEAD, b"3;x=1\r\nabc\r\n", b"0\r\nChecksum: 1\r\n\r\n"]
    response = one(sends(*parts))
    assert (response.failure, text(response)) == (None, b"abc")


def test_informational_answers_come_before_the_real_one() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n"
    response = one(sends(early, WHOLE))
    assert (response.status, response.failure, text(response)) == (200, None, BODY)
    assert "content-length" not in response.headers


def test_what_follows_the_end_is_ignored() -> None:
    response = one(sends(WHOLE + b"garbage"))
    assert (response.failure, text(response)) == (None, BODY)


def test_the_connection_may_stay_open_after_the_end() -> None:
    hold = threading.Event()

    def script(talk: Talk) -> None:
        talk.send(WHOLE)
        hold.wait(PATIENT_S)

    with serving(script) as server:
        response = load_of(server.endpoint).responses[0]
        hold.set()
    assert (response.failure, text(response)) == (None, BODY)


@pytest.mark.parametrize("place", range(1, len(WHOLE), 7))
def test_split_anywhere(place: int) -> None:
    def script(talk: Talk) -> None:
        talk.send(WHOLE[:place])
        time.sleep(0.002)
        talk.send(WHOLE[place:])

    response = one(script)
    assert (response.failure, text(response)) == (None, BODY)


@settings(max_examples=8)
@given(st.lists(st.integers(1, len(WHOLE) - 1), max_size=12, unique=True))
def test_split_at_random(places: list[int]) -> None:
    borders = [0, *sorted(places), len(WHOLE)]
    parts = [WHOLE[a:b] for a, b in itertools.pairwise(borders)]
    response = one(sends(*parts, gap_s=0.0005))
    assert (response.failure, text(response)) == (None, BODY)


def test_headers_that_trickle() -> None:
    response = one(sends(*(WHOLE[i : i + 1] for i in range(60)), WHOLE[60:], gap_s=0.001))
    assert (response.failure, text(response)) == (None, BODY)


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
def test_refusals_keep_their_reason(status: int) -> None:
    body = b'{"error": {"message": "not today"}}'
    response = one(sends(plain(b"%d No" % status, body, b"Retry-After: 7\r\n")))
    assert (response.status, response.failure, text(response)) == (status, None, body)
    said = read_answer(response, lambda _: None)
    assert said.error == f"http_{status}"
    assert said.error_detail == "not today (retry after 7 s)"


# How it may fail.


@pytest.mark.parametrize(
    ("sent", "failure", "code"),
    [
        (b"", "closed the connection without an answer", "no_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-", "in the middle of its answer", "no_answer"),
        (SSE_HEAD, "in the middle of its answer", "no_answer"),
        (SSE_HEAD + chunk(delta("a")), "in the middle of its answer", "stream_cut"),
        (plain(b"200 OK", BODY)[:-1], "in the middle of its answer", "stream_cut"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not HTTP", "no_answer"),
        (SSE_HEAD + b"zz\r\n", "not HTTP", "no_answer"),
        (SSE_HEAD + chunk(delta("a")) + b"zz\r\n", "not HTTP", "stream_cut"),
    ],
)
def test_broken_answers(sent: bytes, failure: str, code: str) -> None:
    response = one(sends(sent))
    assert response.failure is not None
    assert failure in response.failure
    assert read_answer(response, lambda _: None).error == code


def test_a_reset_keeps_what_arrived() -> None:
    def script(talk: Talk) -> None:
        talk.send(SSE_HEAD + chunk(delta("a")))
        time.sleep(0.05)
        talk.reset()

    response = one(script)
    assert response.failure is not None
    assert "the connection broke" in response.failure
    assert text(response) == delta("a")


def test_nobody_listens() -> None:
    phase = load_of(closed_port(), 3, 2)
    assert len(phase.responses) == 3
    for response in phase.responses:
        assert response.failure == "cannot connect to the server: Connection refused"
        assert response.status is None
        assert read_answer(response, lambda _: None).error == "no_answer"


def test_an_address_that_cannot_be_reached_at_all() -> None:
    # Broadcast is refused by connect() itself, before epoll could report it.
    response = load_of(Endpoint("255.255.255.255", 9)).responses[0]
    assert response.failure is not None
    assert response.failure.startswith("cannot connect to the server")


def test_an_unknown_name_is_told_at_once() -> None:
    with pytest.raises(socket.gaierror):
        load_of(Endpoint("no-such-host.invalid", 9))


@pytest.mark.parametrize("callback", ["on_header", "on_body", "on_message_complete"])
def test_ctrl_c_inside_the_parser_is_no_broken_answer(
    monkeypatch: pytest.MonkeyPatch, callback: str
) -> None:
    """The parser wraps whatever its callbacks raise into an error of its own."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Wire, callback, interrupted)
    with pytest.raises(KeyboardInterrupt):
        one(sends(WHOLE))


def test_silence_ends_a_stream(quick_ticks: None) -> None:
    hold = threading.Event()

    def script(talk: Talk) -> None:
        talk.send(SSE_HEAD + chunk(delta("a")))
        hold.wait(PATIENT_S)

    with serving(script) as server:
        phase = closed_loop(server.endpoint, PATH, [b"{}"] * 2, 1, silence_s=0.5)
        hold.set()
    assert [r.timed_out for r in phase.responses] == [True, True]
    assert phase.responses[0].failure == "the server was silent for 0.5 s"
    assert text(phase.responses[0]) == delta("a")
    assert 1 <= phase.wall_s < PATIENT_S
    said = read_answer(phase.responses[0], lambda _: None)
    assert (said.error, [c.text for c in said.chunks]) == ("timeout", ["a"])


def test_a_slow_stream_is_not_silent(quick_ticks: None) -> None:
    script = sends(SSE_HEAD, *(chunk(delta("a")) for _ in range(8)), END, gap_s=0.2)
    with serving(script) as server:
        phase = closed_loop(server.endpoint, PATH, [b"{}"] * 1, 1, silence_s=1.5)
    assert phase.responses[0].failure is None
    assert phase.wall_s > 1.6


@pytest.mark.alone
def test_a_slow_upload_is_not_silent(quick_ticks: None) -> None:
    body = b"x" * (24 << 20)

    def script(talk: Talk) -> None:
        read = 0
        while read < len(body):
            time.sleep(0.15)
            read += len(talk.sock.recv(2 << 20))
        talk.send(WHOLE)

    with serving(script, reads_requests=False) as server:
        phase = closed_loop(server.endpoint, PATH, [body], 1, silence_s=1.5)
    assert phase.responses[0].failure is None
    assert phase.wall_s > 1.6


def test_large_requests_are_sent_in_parts() -> None:
    body = bytes(range(256)) * (48 << 10)  # 12 MiB: more than any socket buffer takes at once
    with serving(sends(WHOLE)) as server:
        response = load_of(server.endpoint, body=body).responses[0]
        assert server.talks[0].body == body
    assert (response.failure, text(response)) == (None, BODY)


def test_a_refusal_before_the_request_was_read_keeps_its_reason() -> None:
    def script(talk: Talk) -> None:
        talk.sock.recv(1000)
        talk.send(plain(b"413 Too Large", b"too large"))
        talk.sock.shutdown(socket.SHUT_RDWR)
        talk.sock.close()

    with serving(script, reads_requests=False) as server:
        response = load_of(server.endpoint, body=b"x" * (12 << 20)).responses[0]
    assert (response.status, text(response)) == (413, b"too large")


# The closed loop.


def test_all_orders_are_answered_once_and_come_back_in_order() -> None:
    with serving(sends(WHOLE)) as server:
        bodies = [b'{"n":%d}' % i for i in range(20)]
        phase = closed_loop(server.endpoint, PATH, bodies, 4, silence_s=PATIENT_S)
        assert sorted(talk.body for talk in server.talks) == sorted(bodies)
    assert [r.index for r in phase.responses] == list(range(20))
    assert all(text(r) == BODY and r.failure is None for r in phase.responses)


@pytest.mark.parametrize(("count", "concurrency"), [(12, 4), (3, 8), (5, 1)])
def test_concurrency_is_kept_and_never_passed(count: int, concurrency: int) -> None:
    together = min(count, concurrency)
    full = threading.Barrier(together)
    lock = threading.Lock()
    held: set[int] = set()
    most = 0

    def script(talk: Talk) -> None:
        nonlocal most
        with lock:
            held.add(talk.number)
            most = max(most, len(held))
        # The first ones answer only once all of them are in flight.
        if talk.number < together:
            full.wait(PATIENT_S)
        with lock:
            held.remove(talk.number)
        talk.send(WHOLE)

    with serving(script) as server:
        phase = load_of(server.endpoint, count, concurrency)
    assert len(phase.responses) == count
    assert most == together
    # Seen from the client: the highest number of overlapping requests is the concurrency.
    edges = sorted(
        [(r.sent_ns, 1) for r in phase.responses] + [(r.ended_ns, -1) for r in phase.responses]
    )
    running = peak = 0
    for _, step in edges:
        running += step
        peak = max(peak, running)
    assert peak == together


def test_a_freed_worker_takes_the_next_order() -> None:
    slow = threading.Event()
    answered: list[bytes] = []

    def script(talk: Talk) -> None:
        if talk.body == b"0":
            slow.wait(PATIENT_S)
        answered.append(talk.body)
        if talk.body == b"4":
            slow.set()
        talk.send(WHOLE)

    asked = [b"%d" % i for i in range(6)]
    with serving(script) as server:
        phase = closed_loop(server.endpoint, PATH, asked, 2, silence_s=PATIENT_S)
    # Worker 0 is held by order 0; worker 1 works through the others in their order.
    assert answered[:4] == [b"1", b"2", b"3", b"4"]
    assert [r.worker for r in phase.responses[:5]] == [0, 1, 1, 1, 1]
    freed = [r for r in phase.responses if r.worker == 1]
    for before, after in itertools.pairwise(freed):
        assert before.ended_ns <= after.sent_ns


def test_no_orders_no_load() -> None:
    phase = load_of(closed_port(), 0, 4)
    assert (phase.responses, phase.client_cpu_share >= 0) == ([], True)


def test_ticks_count_and_may_stop_everything(quick_ticks: None) -> None:
    hold = threading.Event()
    seen: list[tuple[int, int]] = []

    def script(talk: Talk) -> None:
        talk.send(WHOLE if talk.number < 2 else SSE_HEAD)
        if talk.number >= 2:
            hold.wait(PATIENT_S)

    def tick(ended: int, reads: int) -> None:
        seen.append((ended, reads))
        # On a busy machine many ticks pass before the first answer.
        if ended == 2 and reads > 4 and len(seen) >= 3:
            raise RuntimeError("enough")

    open_before = len(os.listdir("/proc/self/fd"))
    with serving(script) as server:
        with pytest.raises(RuntimeError, match="enough"):
            closed_loop(server.endpoint, PATH, [b"{}"] * 8, 4, silence_s=PATIENT_S, tick=tick)
        assert gc.isenabled()
        hold.set()
        for talk in server.talks:
            # Closed on our side, so the server reads the end of the stream or a reset.
            with contextlib.suppress(OSError):
                assert talk.sock.recv(1) == b""
    assert seen == sorted(seen)
    assert len(os.listdir("/proc/self/fd")) <= open_before


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_off_while_measuring_and_restored(was_on: bool) -> None:
    during: list[bool] = []

    def look(sock: socket.socket, ready_ns: int) -> tuple[int, bytes]:
        during.append(gc.isenabled())
        return ready_ns, sock.recv(1 << 16)

    if not was_on:
        gc.disable()
    try:
        with serving(sends(WHOLE)) as server:
            closed_loop(server.endpoint, PATH, [b"{}"] * 1, 1, silence_s=PATIENT_S, reader=look)
        assert gc.isenabled() is was_on
    finally:
        gc.enable()
    assert during
    assert not any(during)


def test_files_do_not_add_up_over_many_requests() -> None:
    most = 0

    def tick_reader(sock: socket.socket, ready_ns: int) -> tuple[int, bytes]:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")))
        return ready_ns, sock.recv(1 << 16)

    with serving(sends(WHOLE)) as server:
        before = len(os.listdir("/proc/self/fd"))
        closed_loop(
            server.endpoint, PATH, [b"{}"] * 150, 3, silence_s=PATIENT_S, reader=tick_reader
        )
    # Three of ours, epoll, and the server's ends of ours and of those closed a while ago.
    assert most - before < 100


# The clock.


def test_the_sent_stamp_leaves_out_the_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[int] = []
    plain = select.epoll

    class SlowAtFirst:
        def __enter__(self) -> SlowAtFirst:
            self.epoll = plain()
            return self

        def __exit__(self, *_: object) -> None:
            self.epoll.close()

        def poll(self, timeout: float) -> list[tuple[int, int]]:
            if not connected:
                time.sleep(0.05)
                connected.append(now_ns())
            return self.epoll.poll(timeout)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.epoll, name)

    monkeypatch.setattr(select, "epoll", SlowAtFirst)
    with serving(sends(WHOLE)) as server:
        phase = load_of(server.endpoint)
    assert phase.start_ns + phase.responses[0].sent_ns >= connected[0]
    assert phase.responses[0].sent_ns >= 50_000_000
    assert phase.responses[0].sent_ns >= (phase.responses[0].connect_ns or 0) >= 50_000_000


def test_stamps_count_from_the_request() -> None:
    script = sends(SSE_HEAD, chunk(delta("a")), chunk(FINISH), END, gap_s=0.03)
    before = now_ns()
    response = one(script)
    after = now_ns()
    first, last = response.pieces[0][0], response.pieces[-1][0]
    assert first / 1e9 > 0.055
    assert (last - first) / 1e9 > 0.025
    assert response.ended_ns <= after - before
    assert last <= response.ended_ns - response.sent_ns


def test_a_piece_has_the_stamp_of_its_report() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"token")
        assert read_stamped(ours, 123) == (123, b"token")


@pytest.fixture
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection; what ours receives is stamped by the kernel."""
    with contextlib.ExitStack() as open_:
        listener = open_.enter_context(socket.create_server(("127.0.0.1", 0)))
        ours = open_.enter_context(socket.create_connection(listener.getsockname()))
        theirs = open_.enter_context(listener.accept()[0])
        assert KernelStamps.ask(ours)
        deadline = time.monotonic() + PATIENT_S
        while time.monotonic() < deadline:  # the first packets of all may have none
            theirs.sendall(b"hello")
            if ours.recvmsg(99, KernelStamps.ROOM)[1]:
                break
            time.sleep(0.01)
        yield ours, theirs


Ends = tuple[socket.socket, socket.socket]


def test_a_stamp_is_of_the_arrival_not_of_the_read(connected: Ends) -> None:
    ours, theirs = connected
    read = KernelStamps()
    before = now_ns()
    theirs.sendall(b"token")
    after = now_ns()
    time.sleep(0.3)
    stamp, data = read(ours, now_ns())
    assert (data, read.untold) == (b"token", 0)
    # Two clocks are compared: to a few microseconds, and as far as this process is let run.
    assert before - 5_000_000 < stamp < after + 200_000_000


@pytest.mark.parametrize("set_by_ns", [-3_600_000_000_000, 3_600_000_000_000])
def test_a_clock_that_was_set_meanwhile_stamps_nothing(connected: Ends, set_by_ns: int) -> None:
    ours, theirs = connected
    read = KernelStamps()
    read.since_ns = now_ns()
    read.ahead_ns += set_by_ns
    theirs.sendall(b"token")
    assert read(ours, 77) == (77, b"token")
    assert read.untold == 1
    read.look()
    theirs.sendall(b"token")
    assert read(ours, 77)[0] > read.since_ns


def held_up() -> tuple[Loop, int]:
    """A client that, after a stream's beginning, is busy until 300 ms after the stream's end; with
    what it stamped last, in ns after that end."""
    busy, ended_ns = threading.Event(), 0
    all_sent = threading.Event()

    def script(talk: Talk) -> None:
        nonlocal ended_ns
        talk.send(SSE_HEAD, chunk(delta("a")))
        busy.wait(PATIENT_S)
        talk.send(chunk(FINISH), END)
        ended_ns = now_ns()
        all_sent.set()

    def tick(ended: int, reads: int) -> None:
        if reads >= 2 and not busy.is_set():
            busy.set()
            all_sent.wait(PATIENT_S)
            time.sleep(0.3)

    with pytest.MonkeyPatch.context() as patched, serving(script) as server:
        patched.setattr(client, "TICK_NS", 1_000_000)
        loop = closed_loop(server.endpoint, PATH, [b"{}"], 1, silence_s=PATIENT_S, tick=tick)
    [response] = loop.responses
    return loop, loop.start_ns + response.sent_ns + response.pieces[-1][0] - ended_ns


def test_a_loop_that_is_held_up_stamps_no_later(connected: Ends) -> None:
    """``connected`` has the kernel stamp from the first packet on."""
    loop, after_the_end_ns = held_up()
    assert after_the_end_ns < 200_000_000
    assert loop.late_round == client.LATE_ROUND_STAMPED
    assert (loop.late_share(0.03) or 0) > 0.5


def test_without_the_kernels_stamps_those_of_the_report_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(KernelStamps, "OPTION", None)
    loop, after_the_end_ns = held_up()
    assert after_the_end_ns >= 290_000_000
    assert loop.late_round == client.LATE_ROUND


def test_a_stamp_does_not_wait_for_other_streams() -> None:
    """Streams that become ready together get the same stamp, however long the reads take."""
    go, arrived = threading.Barrier(4), threading.Barrier(5)

    def script(talk: Talk) -> None:
        go.wait(PATIENT_S)
        talk.send(SSE_HEAD + chunk(delta("a")) + END)
        arrived.wait(PATIENT_S)

    first = iter([True])

    def slow(sock: socket.socket, ready_ns: int) -> tuple[int, bytes]:
        if next(first, False):
            arrived.wait(PATIENT_S)  # for all the others
        time.sleep(0.01)
        return ready_ns, sock.recv(1 << 16)

    with serving(script) as server:
        phase = closed_loop(server.endpoint, PATH, [b"{}"] * 4, 4, silence_s=PATIENT_S, reader=slow)
    moments = sorted({r.sent_ns + r.pieces[0][0] for r in phase.responses})
    # At most two rounds: the first stream, then all others at one moment.
    assert len(moments) <= 2
    assert min(moments) >= max(r.sent_ns for r in phase.responses)


# Addresses.


def test_ipv6() -> None:
    with serving(sends(WHOLE), host="::1") as server:
        endpoint = Endpoint.from_url(f"http://[::1]:{server.endpoint.port}/v1")
        response = load_of(endpoint).responses[0]
        assert f"Host: [::1]:{endpoint.port}".encode() in server.talks[0].head
    assert (response.failure, text(response)) == (None, BODY)


def test_a_name_with_two_addresses_takes_the_one_that_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(sends(WHOLE)) as server:
        port = server.endpoint.port
        both = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        assert resolve(Endpoint("localhost", port)) == (socket.AF_INET, ("127.0.0.1", port))
        response = load_of(Endpoint("localhost", port)).responses[0]
    assert (response.failure, text(response)) == (None, BODY)


def test_where_no_address_answers_the_first_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port().port
    both = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    response = load_of(Endpoint("localhost", port)).responses[0]
    assert response.failure == "cannot connect to the server: Connection refused"


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "prefix"),
    [
        ("http://127.0.0.1:8080/v1", "127.0.0.1", 8080, False, ""),
        ("localhost:8080", "localhost", 8080, False, ""),
        ("https://api.example.org/v1/", "api.example.org", 443, True, ""),
        ("http://[::1]/", "::1", 80, False, ""),
        ("http://host:1/openai/v1", "host", 1, False, "/openai"),
        ("http://host:1/openai/v1/chat/completions/", "host", 1, False, "/openai"),
        ("https://bücher.example/v1/models", "xn--bcher-kva.example", 443, True, ""),
    ],
)
def test_urls(url: str, host: str, port: int, tls: bool, prefix: str) -> None:
    assert Endpoint.from_url(url) == Endpoint(host, port, tls, prefix, {})


@pytest.mark.parametrize(
    ("url", "chat", "props"),
    [
        ("http://h", "/v1/chat/completions", "/props"),
        ("http://h/v3", "/v3/chat/completions", "/props"),
        ("http://h/api/paas/v4/", "/api/paas/v4/chat/completions", "/api/paas/props"),
        ("http://h/v1/openai", "/v1/openai/chat/completions", "/props"),
        ("http://h/openai/v1", "/openai/v1/chat/completions", "/openai/props"),
        ("http://h/api/v1/chat/completions", "/api/v1/chat/completions", "/api/props"),
        ("http://h/inference", "/inference/chat/completions", "/inference/props"),
        (
            "http://h/openai/d/x?api-version=1",
            "/openai/d/x/chat/completions?api-version=1",
            "/openai/d/x/props?api-version=1",
        ),
    ],
)
def test_a_base_address_is_used_as_it_is(url: str, chat: str, props: str) -> None:
    endpoint = Endpoint.from_url(url)
    assert (endpoint.at("/v1/chat/completions"), endpoint.at("/props")) == (chat, props)


@pytest.mark.parametrize(
    ("url", "chats"),
    [
        ("http://h/", ["/v1", ""]),
        ("http://h/v1", ["/v1", "/v1/v1"]),
        ("http://h/x", ["/x", "/x/v1"]),
        ("http://h/api/v1", ["/api/v1", "/api/v1/v1", "/v1"]),
    ],
)
def test_v1_is_only_what_an_address_is_tried_with(url: str, chats: list[str]) -> None:
    found = [c.at("/v1/x").removesuffix("/x") for c in Endpoint.from_url(url).candidates()]
    assert list(dict.fromkeys(found)) == chats


def test_a_user_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(InputError, match="user name or password") as raised:
        Endpoint.from_url("http://me:secret@h/v1")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://x:99999", "http://[::1"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InputError):
        Endpoint.from_url(url)


@pytest.mark.parametrize("key", ["line\nbreak", "carriage\r", "nul\0", "snow\N{SNOWMAN}"])
def test_headers_that_cannot_be_sent(key: str) -> None:
    with pytest.raises(InputError, match="Authorization"):
        Endpoint.from_url("http://x", {"Authorization": key})


@pytest.mark.parametrize("url", ["http://x/a b/v1", "http://x/é", "http://x/\x7f"])
def test_paths_that_cannot_be_sent(url: str) -> None:
    with pytest.raises(InputError):
        Endpoint.from_url(url)


def test_the_request_as_bytes() -> None:
    endpoint = Endpoint("h", 1, prefix="/p", headers={"Authorization": "Bearer k"})
    head, _, body = endpoint.payload("/v1/x", b"{}").partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /p/v1/x HTTP/1.1"
    assert b"Accept-Encoding: identity" in lines
    assert {b"Host: h:1", b"Content-Length: 2", b"Authorization: Bearer k"} <= set(lines)
    assert body == b"{}"


# TLS.


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(authority))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))


def test_https(trusted: None) -> None:
    def script(talk: Talk) -> None:
        for start in range(0, len(WHOLE), 11):
            talk.send(WHOLE[start : start + 11])

    with serving(script, tls=True) as server:
        phase = load_of(server.endpoint, 6, 3)
    for response in phase.responses:
        assert (response.failure, text(response)) == (None, BODY)


def test_https_answers_larger_than_a_record(trusted: None) -> None:
    big = b"x" * 300_000
    with serving(sends(SSE_HEAD + chunks([big])), tls=True) as server:
        response = load_of(server.endpoint, body=b"y" * 3_000_000).responses[0]
        assert len(server.talks[0].body) == 3_000_000
    assert (response.failure, text(response)) == (None, big)


def test_https_leaves_no_decrypted_bytes_behind(trusted: None) -> None:
    hold = threading.Event()

    def script(talk: Talk) -> None:
        talk.send(SSE_HEAD + chunks([b"x" * 16_000]))  # one full record, then silence
        hold.wait(PATIENT_S)

    with serving(script, tls=True) as server:
        phase = closed_loop(server.endpoint, PATH, [b"{}"] * 1, 1, silence_s=PATIENT_S)
        hold.set()
    assert phase.responses[0].failure is None
    assert len(text(phase.responses[0])) == 16_000


def test_https_cut_without_goodbye(trusted: None) -> None:
    def script(talk: Talk) -> None:
        talk.send(SSE_HEAD + chunk(delta("a")))

    with serving(script, tls=True) as server:
        response = load_of(server.endpoint).responses[0]
    assert response.failure is not None
    assert text(response) == delta("a")


def test_https_wants_a_trusted_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with serving(sends(WHOLE), tls=True) as server:
        response = load_of(server.endpoint).responses[0]
    assert response.failure is not None
    assert "cannot connect to the server" in response.failure
    assert "CERTIFICATE_VERIFY_FAILED" in response.failure.upper()


def test_https_against_a_plain_server(trusted: None) -> None:
    with serving(sends(WHOLE), reads_requests=False) as server:
        endpoint = Endpoint("127.0.0.1", server.endpoint.port, tls=True)
        response = load_of(endpoint).responses[0]
    assert response.failure is not None
    assert response.failure.startswith("cannot connect to the server")


def test_certificates_are_read_once_a_load(trusted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = ssl.create_default_context

    def counting() -> ssl.SSLContext:
        made.append(1)
        return make()

    monkeypatch.setattr(ssl, "create_default_context", counting)
    with serving(sends(WHOLE), tls=True) as server:
        phase = load_of(server.endpoint, 5, 2)
    assert [r.failure for r in phase.responses] == [None] * 5
    assert len(made) == 1


def test_the_clock_is_monotonic_time() -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert before <= now_ns() <= time.clock_gettime_ns(time.CLOCK_MONOTONIC)


# An answer that came compressed all the same.


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_stream_is_read_with_its_own_stamps(coding: str) -> None:
    packer = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
    parts = [packer.compress(d) + packer.flush(zlib.Z_SYNC_FLUSH) for d in (delta("a"), delta("b"))]
    parts.append(packer.compress(FINISH + DONE) + packer.flush())
    head = SSE_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: %s\r\n\r\n" % coding.encode())
    read = threading.Event()

    def script(talk: Talk) -> None:
        for part in (head, *map(chunk, parts), END):
            read.clear()
            talk.send(part)
            read.wait(PATIENT_S)
            time.sleep(0.01)

    def reader(sock: socket.socket, ready_ns: int) -> tuple[int, bytes]:
        data = sock.recv(1 << 16)
        read.set()
        return ready_ns, data

    with serving(script) as server:
        loop = closed_loop(server.endpoint, PATH, [b"{}"], 1, silence_s=PATIENT_S, reader=reader)
    [response] = loop.responses
    assert (response.failure, text(response)) == (None, BODY)
    said = read_answer(response, lambda _: None)
    assert [c.text for c in said.chunks] == ["a", "b"]
    assert said.chunks[1].t_ns - said.chunks[0].t_ns > 5_000_000


@pytest.mark.parametrize(
    ("coding", "body", "why"), [("br", b"\x0b\x02", "compressed (br)"), ("gzip", BODY, "is not")]
)
def test_what_cannot_be_unpacked_is_told(coding: str, body: bytes, why: str) -> None:
    response = one(sends(plain(b"200 OK", body, b"Content-Encoding: %s\r\n" % coding.encode())))
    assert response.failure is not None
    assert why in response.failure
    assert text(response) == b""


# Silence is a stream without tokens.

PING = b": ping\n\n"
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null}}]}\n\n'


@pytest.mark.parametrize(
    "heartbeat",
    [
        PING,  # lemonade, once a second
        b": keepalive 3/10\n\n",  # mlx_lm.server
        b'event: ping\ndata: {"type": "ping"}\n\n',
        b'data: {"choices":[{"delta":{"content":""},"finish_reason":null}]}\n\n',
        b'data: {"choices":[],"prompt_progress":{"total":900,"processed":12}}\n\n',
        b'{"message":{"role":"assistant","content":""},"done":false}\n',
        ROLE,
        b"\n",
    ],
)
def test_heartbeats_are_no_life(heartbeat: bytes, quick_ticks: None) -> None:
    assert not bears_token(heartbeat)

    def script(talk: Talk) -> None:  # until the client leaves
        talk.send(SSE_HEAD, chunk(delta("a")), gap_s=0.02)
        while True:
            talk.send(chunk(heartbeat), gap_s=0.02)

    with serving(script) as server:
        phase = closed_loop(server.endpoint, PATH, [b"{}"], 1, silence_s=0.4)
    assert phase.responses[0].timed_out
    assert phase.responses[0].failure == (
        "no token came for 0.4 s, only heartbeats or empty chunks"
    )


@pytest.mark.parametrize(
    "token",
    [
        delta("a"),
        PING + delta("a"),
        delta("a") + PING,
        b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":[{"type":"thinking","thinking":"hm"}]}}]}\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{"}}]}}]}\n\n',
        b'data: {"choices":[{"text":"a"}]}\n\n',
        b'{"message":{"role":"assistant","content":"a"},"done":false}\n',
        b'data: {"error":{"message":"out of memory"}}\n\n',
        delta("cut")[:30],
        delta("cut")[30:],
        DONE,
    ],
)
def test_tokens_and_what_cannot_be_read_are_life(token: bytes) -> None:
    assert bears_token(token)


def test_a_slow_prefill_behind_heartbeats_is_waited_for(quick_ticks: None) -> None:
    script = sends(SSE_HEAD, *[chunk(PING)] * 12, chunk(delta("a")), chunk(FINISH), END, gap_s=0.03)
    with serving(script) as server:
        phase = closed_loop(server.endpoint, PATH, [b"{}"] * 1, 1, silence_s=PATIENT_S)
    assert phase.responses[0].failure is None
