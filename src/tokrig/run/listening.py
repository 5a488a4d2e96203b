"""Where a running server is: on this machine or on another one, and which processes it has.

An address that is not of the loopback network is another machine's. Behind one that is may stand
a tunnel or a proxy, so the process that listens is looked up: on Linux by the kernel's table of
sockets (``/proc/net/tcp``) and the open files of processes, which a user sees of his own only.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tokrig.run.client import resolve
from tokrig.run.http import Endpoint

CONNECT_S = 2.0
# Programs that listen for a server that runs somewhere else, on whatever machine.
FORWARDERS = frozenset(
    "ssh sshd sshd-session autossh dropbear kubectl socat nc ncat rinetd redir stunnel stunnel4"
    " cloudflared ngrok frpc frps chisel gost tailscaled haproxy nginx caddy traefik envoy apache2"
    " httpd litellm code docker-proxy rootlessport slirp4netns passt pasta pasta.avx2 gvproxy"
    " limactl colima vpnkit-bridge com.docker.backend wslrelay.exe systemd-socket-proxyd".split()
)
_LISTEN = "0A"
_Told = TypeVar("_Told")


@dataclass(frozen=True)
class Whereabouts:
    """``here``: on this machine, whose probes then tell of the server. ``listening`` are the
    processes that hold its socket, none where they cannot be seen; ``why`` says what is unknown,
    in words."""

    here: bool
    listening: tuple[psutil.Process, ...] = ()
    why: str = ""

    def processes(self) -> list[psutil.Process]:
        """The server's processes at this moment, with all that it started; never tokrig's own."""
        found: dict[int, psutil.Process] = {}
        for process in self.listening:
            with contextlib.suppress(psutil.Error):
                found |= {p.pid: p for p in (process, *process.children(recursive=True))}
        own = _own(frozenset(p.pid for p in self.listening)) if found else set()
        return [process for pid, process in found.items() if pid not in own]

    def found(self, path: Path) -> Path | None:
        """A file of the server's, as this process finds it: in a container the same path is
        another file. None where the server is elsewhere."""
        if not self.here:
            return None
        for process in self.listening:
            with contextlib.suppress(OSError):  # no Linux, or not allowed to look
                theirs = os.readlink(f"/proc/{process.pid}/ns/mnt")
                if theirs != os.readlink("/proc/self/ns/mnt"):
                    return Path(f"/proc/{process.pid}/root") / path.relative_to("/")
        return path


def whereabouts(endpoint: Endpoint, root: Path = Path("/")) -> Whereabouts:
    """Where the server behind an address is. ``root`` is where ``/proc`` is."""
    name = endpoint.host_header
    try:
        family, target = resolve(endpoint)
    except OSError:
        return Whereabouts(False, why=f"{name} is no machine that is known")
    host = str(target[0])
    if not is_loopback(host):
        return Whereabouts(False, why=f"{name} is no loopback address, so of another machine")
    if sys.platform.startswith("linux"):
        sockets = list(_sockets(root / "proc/net", host, endpoint.port))
        if not sockets and _readable(root / "proc/net/tcp") and _answers(family, target):
            # Address translation of containers, or a virtual machine that shares its host's
            # loopback.
            return Whereabouts(False, why=f"nothing on this system itself listens at {name}")
        owners = _owners(root, sockets) or _forwarders(endpoint.port, {uid for uid, _ in sockets})
    else:
        owners = [p for p in psutil.process_iter() if _listens(p, endpoint.port)]
    forwarder = next((p for p in owners if _name(p) in FORWARDERS), None)
    if forwarder is not None:
        owners = _in_container(root, forwarder)
        if not owners:
            why = f"{_name(forwarder)} listens at {name} and passes on to a server somewhere else"
            return Whereabouts(False, why=why)
    if not owners:
        return Whereabouts(True, why=f"the process that listens at {name} cannot be seen")
    return Whereabouts(True, tuple(owners))


def is_loopback(host: str) -> bool:
    """Whether a numeric address is of the loopback network. ``0.0.0.0`` leads there too."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def _in_container(root: Path, forwarder: psutil.Process) -> list[psutil.Process]:
    """The processes behind Docker's proxy, where this user may look into their network."""
    options = dict(pairwise(_told(forwarder.cmdline, list[str]())))
    host, port = options.get("-container-ip", ""), options.get("-container-port", "")
    if _name(forwarder) != "docker-proxy" or not host or not port.isdecimal():
        return []
    seen = set()
    for folder in (root / "proc").iterdir():
        try:
            network = os.readlink(folder / "ns/net")
            if network in seen:
                continue
            seen.add(network)
            there = host in (folder / "net/fib_trie").read_text(encoding="ascii").split()
        except OSError:
            continue
        if there and (sockets := list(_sockets(folder / "net", host, int(port)))):
            return _owners(root, sockets)
    return []


def _sockets(net: Path, host: str, port: int) -> Iterator[tuple[int, str]]:
    """User and inode of the sockets that listen at an address, or at any. ``net`` has the tables
    of a network namespace."""
    target = ipaddress.ip_address(host.partition("%")[0])
    wanted = {target, ipaddress.ip_address("::"), ipaddress.ip_address("0.0.0.0")}
    for table in ("tcp", "tcp6"):
        try:
            lines = (net / table).read_text(encoding="ascii").splitlines()[1:]
        except (OSError, ValueError):
            continue
        for fields in map(str.split, lines):
            if len(fields) < 10 or fields[3] != _LISTEN:
                continue
            local, _, its_port = fields[1].partition(":")
            # The kernel's way to write an address: words of 32 bits as they lie in memory.
            words = [int(local[at : at + 8], 16) for at in range(0, len(local), 8)]
            packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
            address = ipaddress.ip_address(packed)
            mapped = getattr(address, "ipv4_mapped", None)
            if int(its_port, 16) == port and (target.is_unspecified or {address, mapped} & wanted):
                yield int(fields[7]), fields[9]


def _readable(path: Path) -> bool:
    """Android hides the table of sockets from programs."""
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def _answers(family: int, target: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.settimeout(CONNECT_S)
        return trial.connect_ex(target) == 0


def _owners(root: Path, sockets: Iterable[tuple[int, str]]) -> list[psutil.Process]:
    """The processes that have one of these sockets open, as far as this user may look. The
    init process may hold it for a service; its children are everybody."""
    links = {f"socket:[{inode}]" for _, inode in sockets}
    found = []
    for folder in (root / "proc").iterdir() if links else ():
        if folder.name.isdecimal() and folder.name != "1" and _opens(folder / "fd", links):
            with contextlib.suppress(psutil.Error):
                found.append(psutil.Process(int(folder.name)))
    return found


def _opens(folder: Path, links: set[str]) -> bool:
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                if os.readlink(folder / name) in links:
                    return True
    return False


def _forwarders(port: int, uids: set[int]) -> list[psutil.Process]:
    """Other users' tunnels and container proxies for a port. What they have open cannot be seen,
    their command lines can."""
    return [
        process
        for process in (psutil.process_iter() if uids else ())
        if _name(process) in FORWARDERS
        and any(_mentions(word, port) for word in _told(process.cmdline, list[str]()))
        and (held := _told(process.uids, None))
        and held.real in uids
    ]


def _mentions(word: str, port: int) -> bool:
    """``8000``, ``-L8000:localhost:80``, ``8000:80``, ``TCP-LISTEN:8000,fork``: the port that is
    listened at stands first, or behind an address."""
    return str(port) in re.split(r"[:,=]", word.removeprefix("-L"))[:2]


def _listens(process: psutil.Process, port: int) -> bool:
    found = _told(lambda: process.net_connections(kind="tcp"), list[Any]())
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in found)


def _name(process: psutil.Process) -> str:
    return _told(process.name, "")


def _told(ask: Callable[[], _Told], otherwise: _Told) -> _Told:
    """What a process tells of itself, if it is there still and this user may know."""
    try:
        return ask()
    except psutil.Error:
        return otherwise


def _own(listening: frozenset[int]) -> set[int]:
    """Where the server's process started tokrig: tokrig, what is between, and what it started."""
    with contextlib.suppress(psutil.Error):
        me = psutil.Process()
        own = {me.pid, *(child.pid for child in me.children(recursive=True))}
        for parent in me.parents():
            if parent.pid in listening:
                return own
            own.add(parent.pid)
    return set()
