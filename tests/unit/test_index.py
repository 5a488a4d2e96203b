"""Whatever is wrong with the index: the same answer, later, and one line that says so."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.store import Store, index
from tokrig.store.load import load


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    index._say.cache_clear()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "content", cache=tmp_path / "cache")
    for run_id in ("a", "b"):
        add(store, run_id)
    return store


def add(store: Store, run_id: str) -> None:
    path = store.save(record_of([sample()], run_id), [sample()])
    an_hour_ago = time.time() - 3600  # the youngest files are not kept
    os.utime(path, (an_hour_ago, an_hour_ago))


def answers(store: Store, cache: Path | None = None) -> tuple[list[str], list[str]]:
    """Ids, as a list shows them and as pages do."""
    loaded = load(store, cache=cache or store.content.parent / "cache")
    return [row.id for row in store.rows()], [run.id for run in loaded.runs]


BOTH = (["a", "b"], ["a", "b"])


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def the_index(store: Store) -> Path:
    (file,) = (store.content.parent / "cache").glob("*.sqlite")
    return file


def change(file: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        for statement in statements:
            database.execute(statement)


def read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are parsed from now on."""
    parsed: list[str] = []
    for module, name in (("index", "summarise"), ("load", "parse_record")):
        real: Callable[[str, str], object] = getattr(
            __import__(f"tokrig.store.{module}", fromlist=[name]), name
        )

        def counting(text: str, path: str, real: Callable[[str, str], object] = real) -> object:
            parsed.append(Path(path).stem)
            return real(text, path)

        monkeypatch.setattr(f"tokrig.store.{module}.{name}", counting)
    return parsed


def test_one_file_serves_lists_and_pages(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert answers(store) == BOTH
    assert the_index(store).exists()
    parsed = read_again(store, monkeypatch)
    assert answers(store) == BOTH
    assert (parsed, said(caplog)) == ([], [])
    add(store, "c")
    answers(store)
    assert parsed == ["c", "c"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b"not a database at all" * 99),
        lambda file: file.write_bytes(file.read_bytes()[:5000]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:2048] + b"x" * 9000),
        lambda file: change(file, "DROP TABLE rows", "CREATE TABLE rows (other)"),
        lambda file: change(file, "DROP TABLE records", "DROP TABLE reader"),
        lambda file: change(file, "UPDATE rows SET data = '{'", "UPDATE records SET data = '{}'"),
        lambda file: change(file, "UPDATE rows SET data = '{\"id\": 7}'"),
        lambda file: change(file, "UPDATE reader SET digest = 'of other code'"),
    ],
    ids=[
        *("foreign", "half-written", "empty", "torn", "other-tables", "fewer-tables"),
        *("broken-entries", "wrong-entries", "stale"),
    ],
)
def test_an_index_that_is_no_good_is_made_anew(
    store: Store,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert answers(store) == BOTH
    damage(the_index(store))
    assert answers(store) == BOTH
    assert len(said(caplog)) <= 1
    parsed = read_again(store, monkeypatch)
    assert answers(store) == BOTH
    assert parsed == []


def test_an_index_that_another_command_holds(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "BUSY_S", 0.01)
    answers(store)
    with contextlib.closing(sqlite3.connect(the_index(store))) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert answers(store) == BOTH
        (line,) = said(caplog)
        assert "locked" in line
    parsed = read_again(store, monkeypatch)
    assert answers(store) == BOTH
    assert parsed == []


def test_an_index_that_may_only_be_read(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(store)
    connect = sqlite3.connect

    def read_only(name: str, timeout: float) -> sqlite3.Connection:
        if name == ":memory:":
            return connect(name)
        return connect(f"file:{name}?mode=ro", uri=True, timeout=timeout)

    monkeypatch.setattr(sqlite3, "connect", read_only)  # root may write what is read-only
    parsed = read_again(store, monkeypatch)
    assert answers(store) == BOTH
    assert (parsed, said(caplog)) == ([], [])  # what is there can be read
    add(store, "c")
    assert answers(store) == (["a", "b", "c"], ["a", "b", "c"])
    (line,) = said(caplog)
    assert "readonly" in line


def test_a_home_that_cannot_be_written(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    store = Store(store.content)
    assert ([row.id for row in store.rows()], [run.id for run in load(store).runs]) == BOTH
    (line,) = said(caplog)
    assert "no index of records" in line
    assert "Not a directory" in line


def test_no_home_at_all(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert [row.id for row in Store(store.content).rows()] == ["a", "b"]
    (line,) = said(caplog)
    assert "no home" in line


def test_two_at_once_on_one_store(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    found: list[tuple[list[str], list[str]]] = []
    both = [threading.Thread(target=lambda: found.append(answers(store))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert found == [BOTH, BOTH]
    assert len(said(caplog)) <= 1
    assert answers(store) == BOTH


def test_the_users_cache_folder(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    Store(store.content).rows()
    assert len(list((tmp_path / "home" / "tokrig").glob("records-*.sqlite"))) == 1
