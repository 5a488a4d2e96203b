"""The shelf: what is made here is kept, what is in use stays, what is the user's is left alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.model_folder import model_folder
from tests.unit.test_gguf import gguf
from tokrig.errors import InputError, ModelError, StoreError
from tokrig.models import files, hub, shelf
from tokrig.models.hub import COMMIT, File, Listing
from tokrig.models.shelf import Manifest, manifest_of
from tokrig.naming import Reference
from tokrig.quants import Size
from tokrig.record.model import QuantizedFrom

SOURCE = "ab" * 32
MADE_OF = QuantizedFrom(file="Otter-F16.gguf", sha256=SOURCE, quant="F16", tool="a tool b1")
HOLD = """
import sys
from pathlib import Path
from tokrig.models import shelf
with shelf.using(Path(sys.argv[1])):
    print("using", flush=True)
    sys.stdin.read()
"""


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokrig" / "models"


def make(quant: str = "Q8_0", used: float | None = None, content: bytes = b"x" * 1000) -> Path:
    """A made file on the shelf, used at ``used`` seconds."""
    final = shelf.place_made(SOURCE, quant, f"Otter-{quant}.gguf")
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.1.part")
    temporary.write_bytes(content)
    shelf.keep_made(temporary, final, MADE_OF.model_copy(update={"quant": "F16"}))
    if used is not None:
        os.utime(manifest_of(final), (used, used))
    return final


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """So many bytes are free on the disk, beside the reserve."""
    usage = Usage(10**12, 0, count + shelf.RESERVE_BYTES)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


# --- what is made here --------------------------------------------------------------------------


def test_a_made_file_is_kept_with_what_it_was_made_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make()
    assert path.read_bytes() == b"x" * 1000
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "Otter-Q8_0.gguf",
        "Otter-Q8_0.gguf.tokrig.json",
    ]
    kept = shelf.read_manifest(path)
    assert kept and kept.quantized_from == MADE_OF
    assert (kept.repo, kept.commit) == (None, None)
    [entry] = shelf.entries()
    assert (entry.manifest.kind, entry.quant, entry.bytes, entry.whole) == (
        "made",
        "Q8_0",
        1000,
        True,
    )
    assert entry.name == path.relative_to(folder).as_posix()
    monkeypatch.setattr(files, "read_sha256", lambda _: pytest.fail("hashed again"))
    kept = json.loads(manifest_of(path).read_text())["files"][0]["sha256"]
    assert files.sha256_of([path]) == kept


def test_made_again_it_is_replaced(folder: Path) -> None:
    make()
    path = make(content=b"another build's")
    assert path.read_bytes() == b"another build's"
    assert [entry.bytes for entry in shelf.entries()] == [len(b"another build's")]


def test_a_file_of_the_users_is_never_replaced(folder: Path) -> None:
    final = shelf.place_made(SOURCE, "Q8_0", "Otter-Q8_0.gguf")
    final.parent.mkdir(parents=True)
    final.write_bytes(b"mine")
    with pytest.raises(StoreError, match="not tokrig"):
        make()
    assert final.read_bytes() == b"mine"


def test_one_that_is_in_use_is_not_replaced(folder: Path) -> None:
    path = make()
    with shelf.using(path), pytest.raises(StoreError, match="in use"):
        make(content=b"new")
    assert path.read_bytes() == b"x" * 1000


@pytest.mark.parametrize("name", ["../../evil.gguf", "/etc/evil.gguf"])
def test_a_made_files_place_is_on_the_shelf(folder: Path, name: str) -> None:
    path = shelf.place_made(SOURCE, "../Q8_0", name)
    assert path.parent.parent == folder / "made"
    assert ".." not in path.parts
    assert shelf.place_made(SOURCE, "Q4_0", "a.gguf") != shelf.place_made(SOURCE, "Q8_0", "a.gguf")
    assert shelf.place_made("cd" * 32, "Q8_0", "a.gguf") != shelf.place_made(
        SOURCE, "Q8_0", "a.gguf"
    )


# --- room ---------------------------------------------------------------------------------------


def test_what_was_used_least_recently_goes_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, older, new = make("Q4_0", 200), make("Q5_0", 100), make("Q8_0", 300)
    assert [entry.path for entry in shelf.entries()] == [older, old, new]
    free(monkeypatch, 500)
    shelf.make_room(500, None)
    assert older.exists(), "there was room"
    shelf.make_room(501, None)
    assert (older.exists(), old.exists(), new.exists()) == (False, True, True)
    assert not older.parent.exists()
    assert older.parent.parent == folder / "made"


def test_using_makes_it_the_last_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make("Q4_0", 100), make("Q8_0", 200)
    with shelf.using(first):
        assert [entry.path for entry in shelf.entries()] == [second, first]
        os.utime(manifest_of(first), (100, 100))
    shelf.make_room(1000, 2000)
    assert (first.exists(), second.exists()) == (True, False)


def test_what_is_in_use_stays_until_its_process_is_gone(folder: Path) -> None:
    path = make(used=100)
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "using\n"
        assert [entry.in_use for entry in shelf.entries()] == [True]
        with pytest.raises(StoreError, match="no room"):
            shelf.make_room(1000, 1000)
        with pytest.raises(StoreError, match="in use"):
            shelf.remove(shelf.entries()[0].name)
        assert path.exists()
        user.kill()
    shelf.make_room(1000, 1000)
    assert not path.exists()


def test_nothing_is_removed_when_that_would_not_be_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make()
    free(monkeypatch, 500)
    with pytest.raises(StoreError) as caught:
        shelf.make_room(1501, None)
    assert caught.value.code == "disk_full"
    assert "500 B are free" in caught.value.message
    assert "1000 B could be removed" in caught.value.message
    assert caught.value.hint.startswith("1001 B more are needed")
    assert path.exists()
    with pytest.raises(StoreError, match="disk budget is 800 B"):
        shelf.make_room(900, 800)
    assert path.exists()


def test_nothing_of_the_users_ever_goes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make()
    mine = [folder / "mine.gguf", folder / "made" / "mine.gguf", path.with_name("mine.gguf")]
    for file in mine:
        file.write_bytes(b"mine" * 1000)
    free(monkeypatch, 0)
    shelf.make_room(1000, None)
    assert not path.exists()
    assert all(file.exists() for file in mine)
    with pytest.raises(StoreError):
        shelf.make_room(1, None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"kind": "made"}',
        b'{"kind": "made", "files": [{"name": "x", "bytes": -1}]}',
        b'{"kind": "other", "files": []}',
    ],
)
def test_a_broken_manifest_is_none(folder: Path, content: bytes) -> None:
    file = folder / "made" / "x" / "a.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    manifest_of(file).write_bytes(content)
    assert shelf.entries() == []
    assert shelf.read_manifest(file) is None


def test_a_manifest_cannot_have_a_file_elsewhere_removed(folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.gguf"
    precious.write_bytes(b"x")
    lying = folder / "made" / "x" / "a.gguf"
    lying.parent.mkdir(parents=True)
    names = ("../../../../../precious.gguf", str(precious))
    manifest = Manifest(kind="made", files=tuple(File(name=name, bytes=1) for name in names))
    manifest_of(lying).write_text(manifest.model_dump_json())
    [entry] = shelf.entries()
    shelf.remove(entry.name)
    assert precious.exists()
    assert shelf.entries() == []


def test_using_any_other_path_changes_nothing(tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"x")
    with shelf.using(other), shelf.using(tmp_path / "missing.gguf"):
        assert list(tmp_path.glob("*.json")) == []
    gone = make()
    shelf.remove(shelf.entries()[0].name)
    with pytest.raises(StoreError, match="removed to make room"), shelf.using(gone):
        pass


def test_using_nests(folder: Path) -> None:
    path = make()
    with shelf.using(path):
        with shelf.using(path):
            pass
        assert [entry.in_use for entry in shelf.entries()] == [True]
    assert [entry.in_use for entry in shelf.entries()] == [False]


def test_waiting_ends_with_a_new_manifest_when_the_old_one_went(folder: Path) -> None:
    """Who waited for a model that was removed meanwhile must not believe to hold it."""
    path = make()
    before = shelf.read_manifest(path)
    assert before is not None
    calls: list[str] = []

    def removed_while_waiting() -> None:
        calls.append("waiting")
        manifest_of(path).unlink()
        holder.__exit__(None, None, None)

    holder = shelf.using(path)
    holder.__enter__()
    with shelf.owning(path, before, removed_while_waiting):
        assert calls == ["waiting"]
        assert manifest_of(path).exists()
        assert [entry.in_use for entry in shelf.entries()] == [True]
    assert [entry.in_use for entry in shelf.entries()] == [False]


def test_removing_an_unknown_model(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        shelf.remove("x")
    assert "none at all" in caught.value.hint
    make()
    with pytest.raises(InputError) as caught:
        shelf.remove("made/abababababababab-Q8_0/Otter-Q8.gguf")
    assert "did you mean" in caught.value.hint


def test_a_shelf_that_cannot_be_written(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"a file where the shelf belongs")
    with pytest.raises(StoreError, match="cannot be written to"):
        shelf.make_room(1, None)


# --- what is known ------------------------------------------------------------------------------


def test_the_size_of_what_is_here_needs_no_network(tmp_path: Path) -> None:
    meta: dict[str, int | float | bool | str | bytes | list[str] | list[int]] = {
        "general.architecture": "llama",
        "llama.block_count": 3,
        "llama.embedding_length": 64,
        "llama.attention.head_count": 2,
    }
    file = tmp_path / "a.gguf"
    file.write_bytes(gguf(meta))
    assert shelf.known_size(str(file)) == Size(
        len(gguf(meta)), kv_bytes_per_token=3 * 2 * (32 + 32) * 2, here=True, source="file"
    )
    found = model_folder(tmp_path / "folder")
    bytes_ = (found / "model.safetensors").stat().st_size
    assert shelf.known_size(str(found)) == Size(bytes_, here=True, source="file")


@pytest.mark.parametrize(
    "reference", ["no-such-model", "/nowhere/x.gguf", "hf:o/n/x.gguf", "hf:bad", "llama3:8b", ""]
)
def test_nothing_is_known_of_what_is_not_here(reference: str) -> None:
    assert shelf.known_size(reference) == Size()


def test_other_references_are_the_catalogs() -> None:
    assert shelf.resolve("smollm2-135m").name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    with pytest.raises(ModelError, match="unknown model"):
        shelf.resolve("smollm3")


# --- references ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("hf:o/n/x.gguf", Reference("o/n", "main", "x.gguf")),
        ("hf:o/n@v1.0/big/x.gguf", Reference("o/n", "v1.0", "big/x.gguf")),
        ("hf:o.x/n_1-B", Reference("o.x/n_1-B")),
        ("hf:o/n@main", Reference("o/n")),
    ],
)
def test_a_reference_has_its_parts(text: str, reference: Reference) -> None:
    assert Reference.parse(text) == reference
    assert Reference.parse(str(reference)) == reference


word = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.]{0,8}", fullmatch=True).filter(
    lambda text: ".." not in text
)


@given(word, word, word, word)
def test_any_reference_reads_back(owner: str, name: str, revision: str, file: str) -> None:
    reference = Reference(f"{owner}/{name}", revision, f"{file}.gguf")
    assert Reference.parse(str(reference)) == reference
    assert hub.repository_folder(reference.repo).parent == hub.shelf_folder() / "hub"


@given(st.text(max_size=60))
def test_no_text_leads_anywhere_else(text: str) -> None:
    try:
        found = Reference.parse(f"hf:{text}")
    except ModelError as problem:
        assert problem.hint
        return
    assert ".." not in found.repo
    assert found.repo.count("/") == 1
    assert found.file is None or not found.file.startswith("/")
    assert ".." not in (found.file or "").split("/")


def listing(*names: str) -> Listing:
    files = tuple(File(name=name, bytes=1) for name in names)
    return Listing(repo="o/n", revision="main", commit="0" * 40, files=files)


def names(reference: str, *there: str) -> list[str]:
    return [file.name for file in hub.wanted(Reference.parse(reference), listing(*there)).files]


def test_a_split_file_is_all_of_its_parts_and_none_may_be_missing() -> None:
    parts = [f"x-{n:05d}-of-00003.gguf" for n in (1, 2, 3)]
    assert names(f"hf:o/n/{parts[1]}", *reversed(parts), "y.gguf") == parts
    with pytest.raises(ModelError, match=r"no file 'x-00002-of-00003\.gguf'"):
        names(f"hf:o/n/{parts[0]}", parts[0], parts[2])
    with pytest.raises(ModelError) as caught:
        names("hf:o/n/x.gguf", *parts)
    assert parts[0] in caught.value.hint
    assert parts[1] not in caught.value.hint


def test_weights_that_lie_there_twice_come_once() -> None:
    both = ["model.safetensors", "consolidated.safetensors", "config.json"]
    assert names("hf:o/n", *both) == ["model.safetensors", "config.json"]
    alone = ["consolidated.safetensors", "params.json"]
    assert names("hf:o/n", *alone) == alone


def test_a_commit_is_forty_hex_digits() -> None:
    assert COMMIT.fullmatch("0123456789abcdef" * 2 + "01234567")
    assert not COMMIT.fullmatch("main")
