"""Files written whole or not at all, locks, and where tokrig keeps what is its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import filelock
import platformdirs
import pytest

from tokrig import files
from tokrig.errors import StoreError

DEAD_PID = 2**22 + 1  # beyond the highest that Linux gives


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "note.txt"
    files.atomic_write(path, "one")
    files.atomic_write(path, b"two", sync=False)
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["note.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    files.atomic_write(path, "old")
    with pytest.raises(UnicodeEncodeError), files.replacing(path) as temporary:
        temporary.write_text("half \ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["note.txt"]


def test_files_written_together_get_their_names_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str] = []
    monkeypatch.setattr(os, "replace", lambda _, path: named.append(path.name))
    files.write_together({tmp_path / "first": b"1", tmp_path / "second": b"2"})
    assert named == ["first", "second"]


def test_files_written_together_stay_away_together(tmp_path: Path) -> None:
    (tmp_path / "is-file").touch()
    with pytest.raises(OSError, match="is-file"):
        files.write_together({tmp_path / "first": b"1", tmp_path / "is-file" / "second": b"2"})
    assert os.listdir(tmp_path) == ["is-file"]


def test_what_killed_processes_left_is_swept_up(tmp_path: Path) -> None:
    (tmp_path / f".note.txt.{DEAD_PID}.0.tmp").touch()
    (tmp_path / f".other.{os.getppid()}.0.tmp").touch()
    (tmp_path / ".mine.tmp").touch()
    files.atomic_write(tmp_path / "note.txt", "text")
    assert sorted(os.listdir(tmp_path)) == [".mine.tmp", f".other.{os.getppid()}.0.tmp", "note.txt"]


def test_one_lock_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "state" / "lock"
    with files.locked(path) as file:
        file.write(b"held")
        file.flush()
        for shared in (False, True):
            with pytest.raises(files.Locked), files.locked(path, shared=shared, timeout_s=0.06):
                pass
    with files.locked(path) as file:
        file.seek(0)
        assert file.read() == b"held"


def test_a_shared_lock_has_many_holders(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(FileNotFoundError), files.locked(path, create=False):
        pass
    path.touch()
    with (
        files.locked(path, shared=True, create=False),
        files.locked(path, shared=True),
        pytest.raises(files.Locked),
        files.locked(path),
    ):
        pass


def test_a_lock_file_that_was_removed_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    tried: list[int] = []

    def remove_once(descriptor: int, *, blocking: bool) -> bool:
        if not tried:
            path.unlink()
        tried.append(descriptor)
        return True

    monkeypatch.setattr(filelock, "lock_descriptor", remove_once)
    with files.locked(path) as file:
        assert os.path.samestat(os.fstat(file.fileno()), path.stat())


@pytest.mark.parametrize(
    ("variables", "cache", "state"),
    [
        ({}, "home/.cache/tokrig", "home/.local/state/tokrig"),
        ({"XDG_CACHE_HOME": "c", "XDG_STATE_HOME": "s"}, "c/tokrig", "s/tokrig"),
        ({"TOKRIG_STATE": "mine", "XDG_STATE_HOME": "s"}, "home/.cache/tokrig", "mine"),
    ],
)
def test_where_caches_and_states_lie(
    variables: dict[str, str], cache: str, state: str, tmp_path: Path, clean: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        clean.setenv(name, str(tmp_path / value))
    assert files.cache_dir() == tmp_path / cache
    assert files.state_dir() == tmp_path / state


def test_folders_of_earlier_versions_are_found(tmp_path: Path, clean: pytest.MonkeyPatch) -> None:
    clean.setattr(
        platformdirs, "user_cache_path", lambda name, **_: tmp_path / "Library" / "Caches" / name
    )
    assert files.cache_dir() == tmp_path / "Library" / "Caches" / "tokrig"
    (tmp_path / "home" / ".cache" / "tokrig").mkdir(parents=True)
    assert files.cache_dir() == tmp_path / "home" / ".cache" / "tokrig"
    clean.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert files.cache_dir() == tmp_path / "Library" / "Caches" / "tokrig"


def test_a_user_without_a_home(clean: pytest.MonkeyPatch) -> None:
    clean.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(StoreError, match="no home") as caught:
        files.cache_dir()
    assert "XDG_CACHE_HOME" in caught.value.hint
    with pytest.raises(StoreError) as caught:
        files.state_dir()
    assert "TOKRIG_STATE" in caught.value.hint


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A home of one's own, and nothing else said about folders."""
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "TOKRIG_STATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert sys.platform != "win32"
    return monkeypatch
