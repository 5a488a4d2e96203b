"""All records of a folder: read once, kept, and never trusted beyond what they are."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import pytest

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.errors import RecordError
from tokrig.record.model import Validity, parse_record, record_text
from tokrig.store import Store, index
from tokrig.store.load import load


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "content")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def add(store: Store, run_id: str, *, settled: bool = True) -> Path:
    samples = [sample(iteration=n) for n in range(3)]
    path = store.save(record_of(samples, run_id), samples)
    if settled:
        # As if it had lain there for an hour: the youngest files are not kept.
        hour_ago = time.time() - 3600
        os.utime(path, (hour_ago, hour_ago))
    return path


def count_parses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    parsed: list[str] = []

    def counting(text: str, name: str) -> object:
        parsed.append(Path(name).stem)
        return parse_record(text, name)

    monkeypatch.setattr("tokrig.store.load.parse_record", counting)
    return parsed


def test_runs_come_newest_first_with_digests(store: Store, cache: Path) -> None:
    for run_id in ("b", "a", "c"):
        add(store, run_id)
    runs = load(store, cache=cache).runs
    assert [run.id for run in runs] == ["a", "b", "c"]  # without dates: by id
    assert runs[0].path == "test-rig/a.yaml"
    assert len({run.digest for run in runs}) == 3
    assert runs[0].samples_digest


def test_what_was_read_is_not_parsed_again(
    store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, "a")
    first = load(store, cache=cache).runs
    parsed = count_parses(monkeypatch)
    add(store, "b")
    second = load(store, cache=cache).runs
    assert parsed == ["b"]
    assert second[0] == first[0]
    load(store, cache=cache)
    assert parsed == ["b"]


def test_a_changed_and_a_removed_file_are_noticed(
    store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, removed = add(store, "a"), add(store, "b")
    load(store, cache=cache)
    parsed = count_parses(monkeypatch)
    changed.write_text(changed.read_text().replace("Q4_K_M", "Q8_0"))
    removed.unlink()
    (run,) = load(store, cache=cache).runs
    assert parsed == ["a"]
    assert run.record.model.quant == "Q8_0"


def test_the_youngest_files_are_read_each_time(
    store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, "a", settled=False)
    load(store, cache=cache)
    parsed = count_parses(monkeypatch)
    load(store, cache=cache)
    assert parsed == ["a"]


def test_code_that_reads_otherwise_reads_anew(
    store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, "a")
    load(store, cache=cache)
    parsed = count_parses(monkeypatch)
    monkeypatch.setattr(index, "reader_digest", lambda: "another")
    load(store, cache=cache)
    assert parsed == ["a"]


def test_a_broken_record_is_named_with_its_line(store: Store, cache: Path) -> None:
    path = add(store, "a")
    add(store, "b")
    path.write_text(path.read_text().replace("concurrency: 1", "concurrency: one"))
    with pytest.raises(RecordError, match=r"a\.yaml:\d+: .*concurrency") as refused:
        load(store, cache=cache)
    assert "--keep-going" in refused.value.hint
    loaded = load(store, cache=cache, keep_going=True)
    assert [run.id for run in loaded.runs] == ["b"]
    assert [problem.path for problem in loaded.problems] == ["test-rig/a.yaml"]


def test_records_in_the_wrong_place_are_refused(store: Store, cache: Path) -> None:
    path = add(store, "a")
    other = store.runs / "other-rig" / "a.yaml"
    other.parent.mkdir()
    other.write_bytes(path.read_bytes())
    with pytest.raises(RecordError, match=r"other-rig/a\.yaml: .* belong to test-rig/a\.yaml"):
        load(store, cache=cache)


def test_two_runs_of_one_id_are_refused(store: Store, cache: Path) -> None:
    path = add(store, "a")
    record = store.read(path)
    twin = record.model_copy(update={"rig": record.rig.model_copy(update={"id": "z-rig"})})
    other = store.runs / "z-rig" / "a.yaml"
    other.parent.mkdir()
    other.write_text(record_text(twin))
    with pytest.raises(RecordError, match="has the same id"):
        load(store, cache=cache)


def test_progress_is_told_of_what_is_read(store: Store, cache: Path) -> None:
    for run_id in ("a", "b"):
        add(store, run_id)
    told: list[tuple[int, int]] = []
    load(store, cache=cache, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 2), (2, 2)]


def test_the_kept_records_hold_json(store: Store, cache: Path) -> None:
    add(store, "a")
    load(store, cache=cache)
    (database,) = cache.glob("*.sqlite")
    connection = sqlite3.connect(database)
    try:
        ((data,),) = connection.execute("SELECT data FROM records").fetchall()
    finally:
        connection.close()
    assert data.startswith('{"schema":2')


def test_transcribed_figures_of_version_1_are_unverified(store: Store, cache: Path) -> None:
    """They said "valid", with samples among what nobody had looked at."""
    path = add(store, "a")
    record = parse_record(path.read_text(encoding="utf-8"), "a")
    told = record.provenance.model_copy(update={"kind": "transcribed", "methodology": None})
    listed = Validity(verdict="valid", unchecked=["samples"])
    results = [record.results[0].model_copy(update={"validity": listed})]
    old = record.model_copy(update={"provenance": told, "validity": listed, "results": results})
    path.write_text(record_text(old), encoding="utf-8")
    [run] = load(store, cache=cache).runs
    for validity in (run.record.validity, run.record.results[0].validity):
        assert (validity.verdict, validity.unverified) == ("unverified", ["samples"])
    [row] = store.listing().rows
    assert row.verdict == "unverified"
