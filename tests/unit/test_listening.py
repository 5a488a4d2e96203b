"""Where a running server is: on this machine, in a container of it, or elsewhere."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from tokrig.run import detect
from tokrig.run.detect import Whereabouts, whereabouts
from tokrig.run.http import Endpoint

# Listens at the port it prints until its input ends; "child" starts another process first.
SERVER = """
import socket, subprocess, sys
server = socket.create_server(("127.0.0.1", 0))
if "child" in sys.argv:
    subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=0)
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""
HEADER = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid timeout\n"
)
ROW = (
    "   0: {local}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 0"
    "  1000 0 {inode} 1\n"
)


@contextlib.contextmanager
def serving(program: str = sys.executable, *words: str) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a server in a process of its own, and that process."""
    with subprocess.Popen(
        [program, "-c", SERVER, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
        finally:
            process.stdin.close()


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("::", True),
        ("192.0.2.7", False),
        ("::ffff:192.0.2.7", False),
        ("fe80::1%eth0", False),
        ("10.0.0.1", False),
    ],
)
def test_which_addresses_are_of_this_machine(host: str, here: bool) -> None:
    assert detect.is_loopback(host) is here


def test_the_listening_process_and_what_it_starts_is_the_server() -> None:
    with serving(sys.executable, "child") as (url, process):
        found = whereabouts(Endpoint.from_url(url))
        assert found == Whereabouts(True, (process,))
        assert {p.pid for p in found.processes()} == {process.pid, process.children()[0].pid}
    assert found.processes() == []


def test_a_name_is_looked_up() -> None:
    with serving() as (url, process):
        by_name = url.replace("127.0.0.1", "localhost")
        assert whereabouts(Endpoint.from_url(by_name)).listening == (process,)
    assert not whereabouts(Endpoint.from_url("http://192.0.2.1:8080")).here
    assert not whereabouts(Endpoint.from_url("http://nobody.invalid:8080")).here


@pytest.mark.parametrize("program", ["ssh", "kubectl", "docker-proxy", "nginx"])
def test_what_listens_for_a_server_elsewhere(tmp_path: Path, program: str) -> None:
    """Python under the name of a program that passes on what it hears."""
    disguised = tmp_path / program
    disguised.symlink_to(Path(sys.executable).resolve())
    with serving(str(disguised)) as (url, _):
        found = whereabouts(Endpoint.from_url(url))
    assert (found.here, found.listening) == (False, ())
    assert found.why.startswith(program)


def test_a_port_that_nothing_on_this_system_listens_at(tmp_path: Path) -> None:
    """As in WSL with mirrored networking, or behind the address translation of containers: the
    port answers, and the table of sockets, made up here, does not have it."""
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/tcp").write_text(HEADER)
    with serving() as (url, _):
        found = whereabouts(Endpoint.from_url(url), tmp_path)
        assert (found.here, found.listening) == (False, ())
        # Android hides the table: then nobody can tell.
        (tmp_path / "proc/net/tcp").unlink()
        assert whereabouts(Endpoint.from_url(url), tmp_path).here
    # Nobody answers at all: what comes of that is for the attaching to say.
    assert whereabouts(Endpoint.from_url(url)).here


def row(local: str, port: int, inode: int, state: str = "0A") -> str:
    return ROW.format(local=local, port=port, inode=inode, state=state)


LOOPBACK, ANY, OTHER = "0100007F", "00000000", "070200C0"
ANY6, LOOPBACK6 = "0" * 32, "000000000000000000000000" + "01000000"
MAPPED = "0000000000000000FFFF0000" + LOOPBACK


@pytest.mark.parametrize(
    ("tcp", "tcp6", "host", "inodes"),
    [
        (row(LOOPBACK, 80, 5), "", "127.0.0.1", ["5"]),
        (row(LOOPBACK, 81, 5), "", "127.0.0.1", []),
        (row(LOOPBACK, 80, 5, "01"), "", "127.0.0.1", []),  # a connection
        (row(ANY, 80, 6) + row(OTHER, 80, 7), "", "127.0.0.1", ["6"]),
        ("", row(ANY6, 80, 8), "127.0.0.1", ["8"]),
        ("", row(LOOPBACK6, 80, 9), "::1", ["9"]),
        ("", row(LOOPBACK6, 80, 9), "127.0.0.1", []),
        ("", row(MAPPED, 80, 10), "127.0.0.1", ["10"]),
        ("nonsense\n", "1 2 3\n", "127.0.0.1", []),
    ],
)
def test_the_kernels_table_of_sockets(
    tmp_path: Path, tcp: str, tcp6: str, host: str, inodes: list[str]
) -> None:
    (tmp_path / "tcp").write_text(HEADER + tcp)
    (tmp_path / "tcp6").write_text(HEADER + tcp6)
    assert [inode for _, inode in detect._sockets(tmp_path, host, 80)] == inodes


@pytest.mark.parametrize(
    ("word", "mentions"),
    [
        ("8000", True),
        ("-L8000:localhost:80", True),
        ("127.0.0.1:8000:gpu:80", True),
        ("8000:80", True),
        ("TCP-LISTEN:8000,fork", True),
        ("80:8000:8000", True),
        ("9000:gpu:8000", False),
        ("18000", False),
        ("gpu", False),
    ],
)
def test_a_tunnels_command_line_tells_its_port(word: str, mentions: bool) -> None:
    assert detect._mentions(word, 8000) is mentions


def test_the_server_in_a_container_is_found(tmp_path: Path) -> None:
    """Docker's proxy names the container's address; the network that has it is looked up among
    those of all processes, made up here around this very process."""
    me = os.getpid()
    folder = tmp_path / f"proc/{me}"
    (folder / "net").mkdir(parents=True)
    (folder / "ns").mkdir()
    (folder / "fd").mkdir()
    (folder / "ns/net").symlink_to("net:[4026532008]")
    (folder / "fd/7").symlink_to("socket:[4711]")
    (folder / "net/fib_trie").write_text("Local:\n  |-- 172.17.0.2\n     /32 host LOCAL\n")
    (folder / "net/tcp").write_text(HEADER + row(ANY, 8000, 4711))
    proxy = tmp_path / "docker-proxy"
    proxy.symlink_to(Path(sys.executable).resolve())
    words = ["-host-port", "9000", "-container-ip", "172.17.0.2", "-container-port", "8000"]
    with serving(str(proxy), *words) as (_, process):
        assert detect._in_container(tmp_path, process) == [psutil.Process(me)]
        (folder / "net/fib_trie").write_text("Local:\n  |-- 172.17.0.3\n     /32 host LOCAL\n")
        assert detect._in_container(tmp_path, process) == []


def test_tokrig_itself_is_never_the_server() -> None:
    """A program that serves a model and starts tokrig has it among its children."""
    me = psutil.Process()
    parent = me.parent()
    assert parent is not None
    found = Whereabouts(True, (parent,)).processes()
    assert parent in found
    assert me not in found


def test_a_file_of_the_servers_is_looked_for_where_the_server_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process of its own mount namespace, as in a container, means another file by a path."""
    path = Path("/models/tiny.gguf")
    assert Whereabouts(False).found(path) is None
    assert Whereabouts(True).found(path) == path
    assert Whereabouts(True, (psutil.Process(),)).found(path) == path
    container = "/proc/77/ns/mnt"
    links = {container: "mnt:[2]", "/proc/self/ns/mnt": "mnt:[1]"}
    monkeypatch.setattr("tokrig.run.detect.os.readlink", links.__getitem__)
    process = SimpleNamespace(pid=77)
    found = Whereabouts(True, cast("Any", (process,))).found(path)
    assert found == Path("/proc/77/root/models/tiny.gguf")
