"""Engines on this machine: which server answers at an address, which ones run, what is installed.

Asked are an address that was given, or the engines' usual ports on 127.0.0.1: nothing else on any
network, ever. Whoever does not answer in time is passed over.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tokrig import registry
from tokrig.backends import Ask, Backend, Engine, Json
from tokrig.backends import _llama as llama
from tokrig.backends._reading import mapping
from tokrig.errors import EngineDied, EngineError, InputError, RequestError
from tokrig.run import guard, http
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
    looks = [_Look(root, limit_s) for root in _roots(settled(endpoint, limit_s=limit_s))]
    for look in looks:
        _look_all([look], attaching(), inspect=False)
        if look.died is not None:
            raise look.died
        if look.backend is not None:
            return look.backend
    if any(look.locked for look in looks):
        raise locked(endpoint)
    return None


def locked(endpoint: Endpoint) -> RequestError:
    """What is to be said of a server that wants a key, or another one."""
    does, hint = "wants a key", "name the environment variable that holds it: --api-key-env NAME"
    if "Authorization" in endpoint.headers:
        does, hint = "refuses this key", "is the right variable named with --api-key-env?"
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
        hint = "is the server running, and is the address right?"
        raise InputError(died.message, hint=hint, code=died.code) from None
    except RequestError:
        pass  # it answered


@dataclass(frozen=True)
class Found:
    """A running server. ``engine`` is what it says about itself, None where it did not in time;
    ``backend`` is None for one that shows nothing without a key."""

    backend: Backend | None
    url: str
    engine: Engine | None = None
    locked: bool = False


def running(ports: Iterable[int] | None = None, limit_s: float = PORTS_S) -> list[Found]:
    """The servers at ``ports`` of 127.0.0.1, by default the usual ones of all engines."""
    backends = attaching()
    if ports is None:
        ports = {port for backend in backends for port in backend.ports}
    looks = [_Look(Endpoint("127.0.0.1", port), limit_s) for port in sorted(ports)]
    _look_all(looks, backends, inspect=True)
    return [
        Found(look.backend, f"http://{look.endpoint.host_header}", look.engine, look.locked)
        for look in looks
        if look.backend is not None or look.locked
    ]


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


@dataclass
class _Look:
    """One server being looked at, and what is known of it so far."""

    endpoint: Endpoint
    limit_s: float
    backend: Backend | None = None
    engine: Engine | None = None
    died: EngineDied | None = None
    locked: bool = False

    def run(self, backends: Sequence[Backend], inspect: bool) -> None:
        # An address that was given is going to be measured; a port found is a stranger's.
        ask = Questions(self.endpoint, self.limit_s, may_post=not inspect)
        try:
            self.backend = next((b for b in backends if b.recognises(ask)), None)
            if inspect and self.backend is not None:
                self.engine = self.backend.inspect(ask, "")
        except EngineDied as died:
            self.died = died
        except EngineError:
            pass  # recognised, but it does not tell about itself
        self.locked = ask.locked


def _look_all(looks: Sequence[_Look], backends: Sequence[Backend], *, inspect: bool) -> None:
    """All looks at the same time. Each has a thread that is left behind when time is up: a server
    may trickle its answer byte by byte."""
    threads = [
        threading.Thread(target=look.run, args=(backends, inspect), daemon=True) for look in looks
    ]
    for thread in threads:
        thread.start()
    until = time.monotonic() + max((look.limit_s for look in looks), default=0.0)
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


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
    """The engines' programs on the PATH, asked at the same time."""
    found = [(name, path) for name in names if (path := shutil.which(name))]
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
    devices = llama.devices_of(listing)
    apis = dict.fromkeys(filter(None, map(llama.api_of_device, devices)))
    return replace(program, devices=devices, apis=("cpu", *apis))


def version_of(name: str, said: str) -> str | None:
    """The version in a program's words: ``b9174`` of llama.cpp's, else the first ``1.2.3``."""
    build = llama.build_of(said) if name.startswith("llama-") else None
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
