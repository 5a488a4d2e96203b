"""What happens to a server with a store of its own: loaded, put out of memory, started anew."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.contract.loopback import answer, serving
from tests.unit.test_gguf import gguf, put
from tokrig.backends import Ask, Backend, Engine, Launch, Loading
from tokrig.errors import EngineDied, RequestError
from tokrig.record.model import Model
from tokrig.run.answer import Answer
from tokrig.run.http import Endpoint
from tokrig.run.monitor import Monitor
from tokrig.run.opening import identified, load_model
from tokrig.run.preflight import PROBE
from tokrig.run.prepare import prepare
from tokrig.run.progress import Note
from tokrig.run.server import Server
from tokrig.run.session import Session
from tokrig.spec.run import RunSpec


class Store(Backend):
    """A wrapper that has room for one model."""

    title = "Store"
    own_models = True

    def __init__(self) -> None:
        self.now_s = 0.0
        self.memory = ["theirs"]
        self.lives: list[str | None] = ["process 1"]
        self.sums: list[Mapping[str, float] | None] = [None]

    def load(self, ask: Ask, launch: Launch | None, served_model: str | None) -> Iterator[Loading]:
        yield Loading("downloading", fetching=True)
        self.now_s += 60
        yield Loading("downloading", 0.5, fetching=True)
        yield Loading("loading")
        self.now_s += 0.25
        self.memory = [str(served_model)]

    def resident(self, ask: Ask) -> tuple[str, ...]:
        return tuple(self.memory)

    def life(self, ask: Ask, served_model: str | None) -> str | None:
        return self.lives.pop(0) if len(self.lives) > 1 else self.lives[0]

    def counters(self, ask: Ask) -> Mapping[str, float] | None:
        return self.sums.pop(0)


HERE = Endpoint("127.0.0.1", 1)


def opened(endpoint: Endpoint = HERE) -> tuple[Session, Store]:
    store = Store()
    url = f"http://{endpoint.host_header}"
    prepared = prepare(RunSpec(url=url, backend="openai", served_model="ours"), datetime.now(UTC))
    prepared = replace(prepared, backend=store)
    session = Session(prepared, endpoint, None, Monitor([], list))
    session.served_model = "ours"
    return session, store


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokrig.run.opening.LOAD_POLL_S", 0.0)


def test_a_model_of_the_users_is_not_put_out_of_memory_without_a_word(tmp_path: Path) -> None:
    """lemonade and LM Studio make room for what is asked for, and tell nobody."""
    session, _ = opened()
    told: list[Any] = []
    load_model(session, tmp_path / "log", told.append)
    notes = [event.text for event in told if isinstance(event, Note)]
    assert notes == ["Store may unload theirs to load another model"]
    assert session.evicted == ("theirs",)


def test_nobody_is_warned_of_a_model_that_is_loaded_already(tmp_path: Path) -> None:
    session, store = opened()
    store.memory = ["theirs", "ours"]
    told: list[Any] = []
    load_model(session, tmp_path / "log", told.append)
    assert not [event for event in told if isinstance(event, Note)]


def test_loading_ends_when_the_model_answers_and_fetching_is_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, store = opened()
    monkeypatch.setattr("tokrig.run.opening.time.monotonic", lambda: store.now_s)
    session.server = Server.__new__(Server)
    session.server.load_s = 1.0
    session.server.require_alive = lambda: None  # type: ignore[method-assign]
    load_model(session, tmp_path / "log", lambda _: None)
    assert session.load_s == 1.25


def test_an_engine_that_was_started_anew_ends_the_run() -> None:
    with serving(lambda talk: talk.send(answer("a", "b"))) as server:
        session, store = opened(server.endpoint)
        store.lives = ["process 1", None, "process 1", "process 2"]
        request = session.request([{"role": "user", "content": "Hi"}], 2)
        for _ in range(3):  # a wrapper that does not tell once is no restart
            session.send([request], PROBE, "warmup", 0)
        with pytest.raises(EngineDied, match="process 1 before, process 2 now") as raised:
            session.send([request], PROBE, "warmup", 0)
        assert raised.value.code == "engine_restarted"


def test_a_model_may_have_an_alias_but_may_not_change() -> None:
    session, _ = opened()
    for name in ("served.gguf", None, "served.gguf"):
        answer = Answer(model=name)
        session.require_same_model(answer)
        assert answer.error is None
    other = Answer(model="another.gguf")
    session.require_same_model(other)
    assert other.error == "model_changed"
    assert "'another.gguf'" in (other.error_detail or "")


def test_counters_that_fall_are_a_new_start() -> None:
    session, store = opened()
    store.sums = [{"requests": 5.0}, None, {"requests": 6.0, "drafts": 0.0}, {"requests": 0.0}]
    assert session.counters() == {"requests": 5.0}
    assert session.counters() is None
    assert session.counters() == {"requests": 6.0, "drafts": 0.0}
    with pytest.raises(EngineDied, match="its counter of requests fell"):
        session.counters()


# The file behind a name.

ENDPOINT = Model(family="ours", identity_from="endpoint")


def file_told(session: Session, path: object) -> Model:
    session.engine = Engine("llama.cpp", model_file=str(path))
    return identified(ENDPOINT, session)


def test_a_file_on_this_machine_says_what_it_is(tmp_path: Path) -> None:
    session, _ = opened()
    path = put(tmp_path, "Tiny-Q8_0.gguf", gguf())
    found = file_told(session, path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.file == "Tiny-Q8_0.gguf"
    assert str(tmp_path) not in found.model_dump_json()


def test_a_blob_is_named_by_its_checksum(tmp_path: Path) -> None:
    session, _ = opened()
    digest = "ab" * 32
    path = put(tmp_path, f"sha256-{digest}", gguf())
    found = file_told(session, path)
    assert (found.sha256, found.file) == (digest, None)
    assert found.bytes == path.stat().st_size
    unreadable = file_told(session, f"/root-of-others/sha256-{digest}")
    assert (unreadable.sha256, unreadable.family) == (digest, "ours")


@pytest.mark.parametrize("path", ["models/m.gguf", "/nowhere/m.gguf", "/", "/dev/null", "nul\0"])
def test_what_is_no_file_here_says_nothing(path: str) -> None:
    session, _ = opened()
    assert file_told(session, path) == ENDPOINT


def test_a_path_of_another_machine_is_not_looked_at(tmp_path: Path) -> None:
    session, _ = opened(Endpoint("192.0.2.1", 1))
    assert file_told(session, put(tmp_path, "m.gguf", gguf())) == ENDPOINT


# The engine behind a wrapper.


def test_an_engine_behind_is_asked_on_this_machine_only() -> None:
    with serving(lambda talk: talk.send(answer("a"))) as server:
        there = f"http://{server.endpoint.host_header}/props"
        session, _ = opened()
        assert "data:" in session.ask(there, text=True, body={})
        assert b"Authorization" not in server.talks[0].head
        for mine, theirs in (("192.0.2.1", there), ("127.0.0.1", "http://192.0.2.1:1/props")):
            other, _ = opened(Endpoint(mine, 1))
            with pytest.raises(RequestError, match="another machine"):
                other.ask(theirs)
