"""Engines on this machine: which server answers at an address and where that is, which ones run,
what is installed.

Asked are an address that was given, or the engines' usual ports on 127.0.0.1: nothing else on any
network, ever. Whoever does not answer in time is passed over.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tokrig import engines, registry
from tokrig.backends import Ask, Backend, Engine, Json
from tokrig.backends import _llama_log as llama_log
from tokrig.backends._reading import mapping
from tokrig.errors import EngineDied, EngineError, InputError, RequestError
from tokrig.run import guard, http
from tokrig.run.client import resolve
from tokrig.run.http import Endpoint

RECOGNITION_S = 10.0
PORTS_S = 1.0
PROGRAM_S = 5.0
MAX_OUTPUT_BYTES = 1 << 16
MODELS, CHAT = "/v1/models", "/v1/chat/completions"
# Where engines ask for their key; any other server may want one for anything.
LOCKED = (MODELS, "/props")
_NO_SUCH_PATH = ("http_404", "http_405", "http_501", "hung_up", "invalid_json", "redirected")
_WANTS_KEY = ("http_401", "http_403")
_SHORTEST = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}

# Programs of the engines, and the words that make them tell their version. mlx_lm.server has none.
PROGRAMS: dict[str, tuple[str, ...]] = {
    "llama-server": ("--version",),
    "llama-bench": ("--version",),
    "vllm": ("--version",),
    "ollama": ("--version",),
    "lemonade": ("--version",),
    "sglang": ("version",),
    "mlx_lm.server": (),
    "transformers": ("version",),
    "lms": ("version",),
}
_VERSION = re.compile(r"(?:\bversion\b\D{0,10}|\bv|^)(\d+\.[\w.+-]+)", re.IGNORECASE | re.MULTILINE)


def recognise(endpoint: Endpoint, limit_s: float = RECOGNITION_S) -> Backend | None:
    """The engine behind an address; None for one that tokrig knows only by the OpenAI API, and
    where recognising took longer than ``limit_s``.

    Raises EngineDied when nobody answers, RequestError with the code ``locked`` where a server
    that is not recognised wants a key.
    """
    found = [Found(root) for root in _roots(settled(endpoint, limit_s=limit_s))]
    for one in found:
        _look([one], attaching(), limit_s, inspect=False)
        if one.died is not None:
            raise one.died
        if one.backend is not None:
            return one.backend
    if any(one.locked for one in found):
        raise locked(endpoint)
    return None


def locked(endpoint: Endpoint) -> RequestError:
    """What is to be said of a server that wants a key, or another one."""
    does, hint = (
        "wants a key",
        "name the environment variable that holds the key: --api-key-env NAME",
    )
    if "Authorization" in endpoint.headers:
        does, hint = "refuses this key", "check that --api-key-env names the right variable"
    return RequestError(f"the server at {endpoint.host_header} {does}", hint=hint, code="locked")


def settled(
    endpoint: Endpoint, backend: Backend | None = None, *, limit_s: float = RECOGNITION_S
) -> Endpoint:
    """Of all that an address may mean the endpoint that answers: the first with a list of models,
    else the first that knows chats, else what was given. ``backend`` settles at which root the
    rest of its API lies.

    Raises EngineDied when nobody answers, RequestError where the server sends on to another
    address.
    """
    candidates = endpoint.candidates()
    if len(candidates) == 1:
        return endpoint
    places = list({c.at(MODELS): c for c in reversed(candidates)}.values())[::-1]
    asks = [Questions(place, limit_s / len(places), may_post=True) for place in places]
    found = next(
        (
            place
            for has in (_has_models, _has_chats)
            for place, ask in zip(places, asks, strict=True)
            if has(ask)
        ),
        None,
    )
    if found is None:
        found = candidates[0]
        try:
            asks[0](MODELS)
        except RequestError as error:
            if error.code == "redirected":
                raise
    if backend is None:
        return found
    roots = ((root, Questions(root, limit_s, may_post=True)) for root in _roots(found))
    return next((root for root, ask in roots if backend.recognises(ask)), found)


def _roots(endpoint: Endpoint) -> list[Endpoint]:
    """The same API below each root that its address may have."""
    same = [c for c in endpoint.candidates() if c.at(MODELS) == endpoint.at(MODELS)]
    return same or [endpoint]


def _has_models(ask: Ask) -> bool:
    """A list of models, or a server that shows none without a key."""
    try:
        models = mapping(ask(MODELS)).get("data")
    except RequestError as error:
        return error.code in _WANTS_KEY
    return isinstance(models, list) and all("id" in mapping(model) for model in models)


def _has_chats(ask: Ask) -> bool:
    """Whether a shortest chat is answered, or refused for another reason than its address."""
    try:
        return isinstance(mapping(ask(CHAT, _SHORTEST)).get("choices"), list)
    except RequestError as error:
        gone = error.code in _NO_SUCH_PATH
        # Many say with the same status that they have no such model.
        return not gone or (error.code == "http_404" and "model" in error.message.lower())


def require_answer(endpoint: Endpoint, limit_s: float = RECOGNITION_S) -> None:
    """Raises InputError where nobody answers at an address: told before anything is waited for."""
    try:
        http.ask(endpoint, MODELS, timeout_s=limit_s)
    except EngineDied as died:
        hint = "check that the server is running and that the address is right"
        raise InputError(died.message, hint=hint, code=died.code) from None
    except RequestError:
        pass  # it answered


@dataclass
class Found:
    """A server, and what is known of it so far. ``engine`` is what it says about itself, None
    where it did not in time; ``backend`` is None for a stranger, and for one that shows nothing
    without a key."""

    endpoint: Endpoint
    backend: Backend | None = None
    engine: Engine | None = None
    locked: bool = False
    died: EngineDied | None = None


def running(ports: Iterable[int] | None = None, limit_s: float = PORTS_S) -> list[Found]:
    """The servers at ``ports`` of 127.0.0.1, by default the usual ones of all engines."""
    backends = attaching()
    if ports is None:
        ports = {port for backend in backends for port in backend.ports}
    found = [Found(Endpoint("127.0.0.1", port)) for port in sorted(ports)]
    _look(found, backends, limit_s, inspect=True)
    return [one for one in found if one.backend is not None or one.locked]


def _look(
    servers: Sequence[Found], backends: Sequence[Backend], limit_s: float, *, inspect: bool
) -> None:
    """Recognise all at the same time, and with ``inspect`` ask what they are. Each has a thread
    that is left behind when time is up: a server may trickle its answer byte by byte."""

    def look(found: Found) -> None:
        # An address that was given is going to be measured; a port found is a stranger's.
        ask = Questions(found.endpoint, limit_s, may_post=not inspect)
        try:
            found.backend = next((b for b in backends if b.recognises(ask)), None)
            if inspect and found.backend is not None:
                found.engine = found.backend.inspect(ask, "")
        except EngineDied as died:
            found.died = died
        except EngineError:
            pass  # recognised, but it does not tell about itself
        found.locked = ask.locked

    threads = [threading.Thread(target=look, args=(one,), daemon=True) for one in servers]
    for thread in threads:
        thread.start()
    until = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


def attaching() -> list[Backend]:
    """All backends that can be measured by URL, in the order in which they are asked."""
    backends: list[Backend] = [
        registry.load("backends", name, "BACKEND") for name in registry.names("backends")
    ]
    return sorted((b for b in backends if b.attaches), key=lambda b: (b.precedence, b.name))


class Questions:
    """``ask`` for one server: each question is put once, and none when the time is up. Unless
    ``may_post`` nothing is sent that could set the server to work."""

    def __init__(self, endpoint: Endpoint, limit_s: float, *, may_post: bool) -> None:
        self._endpoint = endpoint
        self._may_post = may_post
        self._until = time.monotonic() + limit_s
        # One path that hangs leaves time for the others.
        self._longest_s = limit_s / 2
        self._alive = False
        self.locked = False
        self._told: dict[tuple[str, str, bool], Json] = {}

    def __call__(self, path: str, body: Json = None, *, text: bool = False) -> Json:
        question = (path, json.dumps(body), text)
        if question not in self._told:
            self._told[question] = self._put(path, body, text)
        told = self._told[question]
        if isinstance(told, EngineError):
            raise told
        return told

    def _put(self, path: str, body: Json, text: bool) -> Json:
        """The answer, or the error to raise for it."""
        if body is not None and not self._may_post:
            return RequestError(f"{path}: not asked while only looking around")
        left = min(self._until - time.monotonic(), self._longest_s)
        if left <= 0:
            return RequestError(f"{path}: no time left to ask", code="timeout")
        try:
            told = http.ask(self._endpoint, path, body, text=text, timeout_s=left)
        except EngineDied as error:
            # Who has answered before is not dead: it hangs up on paths that it does not know.
            return RequestError(error.message, code=error.code) if self._alive else error
        except RequestError as error:
            self._alive = self._alive or error.code not in ("timeout", "hung_up")
            self.locked = self.locked or (path in LOCKED and error.code in _WANTS_KEY)
            return error
        self._alive = True
        return told


@dataclass(frozen=True)
class Program:
    """An installed program. ``version`` is None where it did not tell; ``in_time`` whether it
    ended; ``devices`` and their ``apis`` are those of a llama.cpp build, None where not told."""

    name: str
    path: str
    version: str | None = None
    in_time: bool = True
    devices: tuple[str, ...] = ()
    apis: tuple[str, ...] | None = None


def installed(names: Iterable[str] = tuple(PROGRAMS)) -> list[Program]:
    """The engines' programs, added or on the PATH, asked at the same time."""
    found = [(name, path) for name in names if (path := engines.program(name))]
    with ThreadPoolExecutor(max_workers=len(PROGRAMS)) as pool:
        return list(pool.map(lambda one: _program(*one), found))


def _program(name: str, path: str) -> Program:
    version, in_time = _packaged_version(name, path), True
    if version is None and PROGRAMS[name]:
        told, in_time = _said(path, *PROGRAMS[name])
        version = version_of(name, told)
    program = Program(name, path, version, in_time)
    if name != "llama-server":
        return program
    # What this build finds to compute with. Older ones do not know the question.
    listing, _ = _said(path, "--list-devices")
    if "Available devices" not in listing:
        return program
    devices = llama_log.devices_of(listing)
    apis = dict.fromkeys(filter(None, map(llama_log.api_of_device, devices)))
    return replace(program, devices=devices, apis=("cpu", *apis))


def version_of(name: str, said: str) -> str | None:
    """The version in a program's words: ``b9174`` of llama.cpp's, else the first ``1.2.3``."""
    build = llama_log.build_of(said) if name.startswith("llama-") else None
    match = _VERSION.search(said)
    return build or (match.group(1) if match else None)


def _packaged_version(name: str, path: str) -> str | None:
    """The version of the Python package a script belongs to, by the metadata that is installed
    beside it: the scripts themselves import half the world before they tell."""
    package = name.partition(".")[0].replace("-", "_")
    environment = Path(path).resolve().parent.parent
    for folder in sorted(environment.glob(f"lib/python3*/site-packages/{package}-*.dist-info")):
        return folder.name.removesuffix(".dist-info").rpartition("-")[2]
    return None


def _said(*argv: str) -> tuple[str, bool]:
    """What a program says, and whether it ended in time."""
    try:
        told, code = guard.said(argv, PROGRAM_S, max_bytes=MAX_OUTPUT_BYTES)
    except OSError:
        return "", True
    return told, code is not None


# Where a running server is. An address that is not of the loopback network is another machine's.
# Behind one that is may stand a tunnel or a proxy, so the process that listens is looked up: on
# Linux by the kernel's table of sockets (/proc/net/tcp) and the open files of processes, which a
# user sees of his own only.

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
        return Whereabouts(False, why=f"the host name of {name} cannot be resolved")
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
