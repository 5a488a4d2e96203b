"""Questions outside the measurement: who answers, who hangs up, who is somewhere else."""

from __future__ import annotations

import gc
import gzip
import socket
import warnings
from pathlib import Path

import pytest

from tests.contract import loopback
from tests.contract.loopback import AUTHORITY, Talk, closed_port, plain, serving
from tokrig.errors import EngineDied, EngineError, RequestError
from tokrig.run import detect, http
from tokrig.run.http import Endpoint


@pytest.fixture(autouse=True)
def requests_without_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loopback server wants a length with every request."""

    def read(talk: Talk) -> None:
        while b"\r\n\r\n" not in talk.head:
            talk.head += talk.sock.recv(1 << 16) or b"\r\n\r\n"

    monkeypatch.setattr(loopback, "read_request", read)


def error_of(script: loopback.Script, headers: dict[str, str] | None = None) -> EngineError:
    with serving(script) as server:
        address = f"http://{server.endpoint.host_header}/v1"
        with pytest.raises((RequestError, EngineDied)) as raised:
            http.ask(Endpoint.from_url(address, headers), "/v1/models", timeout_s=5)
    error = raised.value
    assert isinstance(error, EngineError)
    return error


@pytest.mark.parametrize("sent", [b"", b"220 mail.example ESMTP\r\n"])
def test_who_hangs_up_is_not_dead(sent: bytes) -> None:
    error = error_of(lambda talk: talk.send(sent))
    assert (type(error), error.code) == (RequestError, "hung_up")


def test_who_does_not_listen_is() -> None:
    with pytest.raises(EngineDied, match="nobody answers"):
        http.ask(closed_port(), "/v1/models")


def test_who_hangs_up_for_good_is() -> None:
    def leaves(talk: Talk) -> None:
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()

    with serving(leaves) as server, pytest.raises(EngineDied, match="nobody answers"):
        http.ask(server.endpoint, "/v1/models")


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 X", b"308 X"])
def test_a_redirect_is_told_and_not_followed(status: bytes) -> None:
    """The key would go along, and every request would be timed twice."""

    def script(talk: Talk) -> None:
        talk.send(plain(status, b"", b"Location: https://elsewhere.example/v1\r\n"))

    error = error_of(script)
    assert error.code == "redirected"
    assert "https://elsewhere.example/v1" in error.message
    with serving(script) as server:
        url = f"http://{server.endpoint.host_header}/v1"
        with pytest.raises(RequestError, match="somewhere else"):
            detect.settled(Endpoint.from_url(url))


@pytest.mark.parametrize(
    "words",
    [
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"<html><center>The plain HTTP request was sent to HTTPS port</center></html>",
    ],
    ids=["Go", "nginx"],
)
def test_plain_http_to_a_tls_port(words: bytes) -> None:
    assert "https://" in error_of(lambda talk: talk.send(plain(b"400 Bad Request", words))).hint


def test_tls_to_a_plain_port_and_an_unknown_authority(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def answers_at_once(talk: Talk) -> None:
        talk.sock.recv(1 << 16)
        talk.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with serving(answers_at_once, reads_requests=False) as server:
        endpoint = Endpoint("127.0.0.1", server.endpoint.port, tls=True)
        with pytest.raises(EngineDied, match="no TLS") as plain_port:
            http.ask(endpoint, "/v1/models")
    assert "http://" in plain_port.value.hint
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with serving(lambda talk: talk.send(plain(b"200 OK", b"{}")), tls=True) as server:
        with pytest.raises(EngineDied, match="not trusted") as unknown:
            http.ask(server.endpoint, "/v1/models")
        assert (unknown.value.code, "SSL_CERT_FILE" in unknown.value.hint) == ("no_tls", True)
        authority = tmp_path / "authority.pem"
        AUTHORITY.cert_pem.write_to_path(str(authority))
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert http.ask(server.endpoint, "/v1/models") == {}


def test_a_key_that_is_missing_and_one_that_is_wrong() -> None:
    def script(talk: Talk) -> None:
        talk.send(plain(b"401 Unauthorized", b'{"error":{"message":"no"}}'))

    assert "--api-key-env" in error_of(script).hint
    assert "refuses this key" in error_of(script, {"Authorization": "Bearer x"}).hint


def test_an_answer_that_comes_compressed_is_read() -> None:
    packed = gzip.compress(b'{"data": []}')
    with serving(
        lambda talk: talk.send(plain(b"200 OK", packed, b"Content-Encoding: gzip\r\n"))
    ) as server:
        assert http.ask(server.endpoint, "/v1/models") == {"data": []}
        assert b"accept-encoding: identity" in server.talks[0].head.lower()


def test_an_answer_that_stops_half_way_leaves_no_socket_open() -> None:
    """An answer without a length owns its socket; errors that are kept keep its frames alive."""

    def script(talk: Talk) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\n\r\n {")
        talk.sock.recv(1)

    gc.collect()
    with serving(script) as server, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        questions = detect.Questions(server.endpoint, 0.4, may_post=False)
        with pytest.raises(RequestError, match="no answer within"):
            questions("/v1/models")
        del questions
        gc.collect()
    assert [str(one.message) for one in told if one.category is ResourceWarning] == []
