"""The store: records and samples come back exactly, and no fault leaves half a file."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.list_records import example_record, example_samples
from tokrig.errors import InputError, RecordError, StoreError
from tokrig.record import samples_file
from tokrig.record.model import (
    Failure,
    Record,
    Result,
    ServerTimings,
    Skipped,
    Validity,
    parse_record,
    record_text,
)
from tokrig.record.samples import Chunk, EngineTimings, Kind, Sample
from tokrig.record.samples_file import from_parquet, to_parquet
from tokrig.store import Store, index

RECORD = example_record(1)
SAMPLES = example_samples()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "content", cache=tmp_path / "cache")


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def on_rig(rig: str) -> Record:
    return RECORD.model_copy(update={"rig": RECORD.rig.model_copy(update={"id": rig})})


def aged(path: Path, seconds: float = 60) -> Path:
    """Make a file old enough for the index to trust its time."""
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


# --- the text of a record


def test_a_record_comes_back_from_its_text() -> None:
    text = record_text(RECORD)
    assert parse_record(text, "x") == RECORD
    assert yaml.safe_load(text)["schema"] == 2
    assert record_text(parse_record(text, "x")) == text


def test_the_text_says_who_measured() -> None:
    provenance = RECORD.provenance.model_copy(update={"kind": "transcribed"})
    others = RECORD.model_copy(update={"provenance": provenance})
    assert record_text(others).startswith("# One run as others published it")


def test_the_text_is_a_pleasure_to_read() -> None:
    text = record_text(RECORD)
    lines = text.splitlines()
    assert lines[0].startswith("# One run as tokrig measured it")
    assert "tokrig check" in lines[1]
    assert all(len(line) <= 100 for line in lines)
    assert len(lines) < 300
    assert "null" not in text
    assert "[]" not in text
    assert "{}" not in text
    assert (
        lines.count(
            "  - workload: {name: chat, content_hash: 4be1c0ffee12, "
            "prompt_tokens: 512, answer_tokens: 256}"
        )
        == 2
    )


def test_a_record_without_cards_mode_or_results_says_so() -> None:
    bare = RECORD.model_copy(
        update={
            "status": "failed",
            "results": [],
            "rig": RECORD.rig.model_copy(update={"gpus": []}),
            "failure": Failure(code="engine_died", message="it's over: 137", log_tail="a\n\x1b[0m"),
        }
    )
    text = record_text(bare)
    assert "\nresults: []\n" in text
    assert "  gpus: []\n" in text
    assert "mode: {name: baseline}\n" in text
    assert parse_record(text, "x") == bare


def test_an_empty_block_is_not_the_same_as_none() -> None:
    result = RECORD.results[0].model_copy(update={"server": ServerTimings(), "memory": None})
    record = RECORD.model_copy(update={"results": [result]})
    again = parse_record(record_text(record), "x").results[0]
    assert again.server == ServerTimings()
    assert again.memory is None


def test_errors_of_a_record_name_the_line() -> None:
    text = record_text(RECORD)
    line = text.splitlines().index("    repeats: 6") + 1
    with pytest.raises(RecordError) as caught:
        parse_record(text.replace("    repeats: 6", "    repeat: 6", 1), "r.yaml")
    assert caught.value.message == f"r.yaml:{line}: unknown key 'repeat' in results[0]"
    assert "did you mean 'repeats'?" in caught.value.hint
    with pytest.raises(RecordError, match=r"^r\.yaml: the record's schema 7 is newer"):
        parse_record(text.replace("schema: 2", "schema: 7"), "r.yaml")


# --- samples

int64 = st.integers(-(2**63), 2**63 - 1)
counts = st.none() | st.integers(0, 2**63 - 1)
numbers = st.floats(allow_nan=False)
words = st.none() | st.text()
all_samples = st.builds(
    Sample,
    workload=st.text(),
    concurrency=int64,
    repeat=int64,
    iteration=int64,
    worker=int64,
    phase=st.sampled_from(["warmup", "measured"]),
    variant=int64,
    salt=st.text(),
    sent_ns=int64,
    chunks=st.lists(st.builds(Chunk, int64, st.sampled_from(Kind), st.text())).map(tuple),
    prompt_tokens=counts,
    output_tokens=counts,
    cached_tokens=counts,
    reasoning_tokens=counts,
    content_tokens=counts,
    first_chunk_tokens=counts,
    first_chunk_assumed=st.booleans(),
    count_source=words,
    count_disagreement=st.none() | numbers,
    finish_reason=words,
    timings=st.none()
    | st.builds(EngineTimings, int64, numbers, int64, numbers, counts_first=st.booleans()),
    drafted_tokens=counts,
    accepted_tokens=counts,
    error=words,
    error_detail=words,
)


@settings(max_examples=50)
@given(st.lists(all_samples, max_size=8))
def test_samples_come_back_exactly(samples: list[Sample]) -> None:
    data = to_parquet(samples)
    assert from_parquet(data, "x") == samples
    assert to_parquet(samples) == data


def test_many_row_groups_are_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_file, "GROUP_CHUNKS", 1)
    data = to_parquet(SAMPLES * 5)
    assert pq.ParquetFile(io.BytesIO(data)).num_row_groups > 5
    assert from_parquet(data, "x") == SAMPLES * 5


def test_every_field_of_a_sample_is_kept() -> None:
    names = set(pq.read_schema(io.BytesIO(to_parquet([]))).names)
    expected = set(Sample.__dataclass_fields__) - {"chunks", "timings"}
    expected |= {"chunk_t_ns", "chunk_kind", "chunk_text"}
    expected |= {f"timings_{name}" for name in EngineTimings.__dataclass_fields__}
    assert names == expected


def test_half_a_surrogate_pair_costs_one_character_not_the_run() -> None:
    chunk = Chunk(1, Kind.CONTENT, "a\ud83d🙂")
    sample = SAMPLES[0].__class__(**{**fields_of(SAMPLES[0]), "chunks": (chunk,)})
    assert from_parquet(to_parquet([sample]), "x")[0].chunks[0].text == "a\ufffd🙂"


def fields_of(sample: Sample) -> dict[str, Any]:
    return {name: getattr(sample, name) for name in Sample.__dataclass_fields__}


def test_truncated_samples_are_refused() -> None:
    data = to_parquet(SAMPLES)
    for length in (0, 3, 4, 100, len(data) // 2, len(data) - 9, len(data) - 1):
        with pytest.raises(
            RecordError, match=r"^s\.parquet: not a readable samples file"
        ) as caught:
            from_parquet(data[:length], "s.parquet")
        assert "git" in caught.value.hint


def test_a_flipped_bit_is_never_read_as_another_value() -> None:
    data = to_parquet(SAMPLES)
    chance = random.Random(1)
    refused = 0
    for _ in range(300):
        broken = bytearray(data)
        broken[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            assert from_parquet(bytes(broken), "s") == SAMPLES
        except RecordError:
            refused += 1
    assert refused > 150


def test_foreign_and_newer_samples_are_refused() -> None:
    table = pq.read_table(io.BytesIO(to_parquet(SAMPLES)))

    def written(changed: Any) -> bytes:
        sink = io.BytesIO()
        pq.write_table(changed, sink)
        return sink.getvalue()

    with pytest.raises(RecordError, match="not written by tokrig"):
        from_parquet(written(table.replace_schema_metadata({})), "s")
    with pytest.raises(RecordError, match="layout 4 is newer than this tokrig reads"):
        from_parquet(written(table.replace_schema_metadata({"tokrig_samples": "4"})), "s")
    with pytest.raises(RecordError, match="its columns are not those of layout 3"):
        from_parquet(written(table.drop_columns(["salt"])), "s")
    older = table.replace_schema_metadata({"tokrig_samples": "1"})
    with pytest.raises(RecordError, match="its columns are not those of layout 1"):
        from_parquet(written(older), "s")
    phases = table.set_column(5, table.schema.field(5), [["warmup", "measured", "later"]])
    with pytest.raises(RecordError, match="unknown phase 'later'"):
        from_parquet(written(phases), "s")


def test_samples_of_older_layouts_have_the_defaults_of_what_they_lack() -> None:
    defaults: dict[str, Any] = {field.name: field.default for field in fields(Sample)}
    table = pq.read_table(io.BytesIO(to_parquet(SAMPLES)))
    lacking: list[str] = []
    for version, columns in (
        (
            "2",
            [
                "depth_tokens",
                "load",
                "rate_per_s",
                "due_ns",
                "connect_ns",
                "text_kept",
                "prompt_tokens_asked",
                "output_tokens_asked",
            ],
        ),
        ("1", ["tool_call_tokens", "hidden_tokens", "last_chunk_tokens", "counted_by"]),
    ):
        lacking += columns
        older = table.replace_schema_metadata({"tokrig_samples": version}).drop_columns(lacking)
        pq.write_table(older, sink := io.BytesIO())
        expected = [replace(s, **{name: defaults[name] for name in lacking}) for s in SAMPLES]
        assert from_parquet(sink.getvalue(), "s") == expected


def test_pyarrow_is_imported_only_for_samples() -> None:
    code = "import sys, tokrig.store; sys.exit('pyarrow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


# --- saving and reading


def environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}


def test_saved_and_read_again(store: Store) -> None:
    path = store.save(RECORD, SAMPLES)
    assert path == store.content / "benchmarks" / "runs" / RECORD.rig.id / f"{RECORD.id}.yaml"
    assert store.read(path) == RECORD
    assert store.read_samples(RECORD.id) == SAMPLES
    assert list(store.iter_paths()) == [path]
    assert len(files(store.content)) == 2


def test_an_id_is_never_taken_twice(store: Store) -> None:
    path = store.save(RECORD, SAMPLES)
    with pytest.raises(StoreError, match="exists already"):
        store.save(RECORD.model_copy(update={"notes": "other"}), [])
    assert store.read(path) == RECORD
    changed = RECORD.model_copy(update={"notes": "other"})
    store.save(changed, SAMPLES[:1], overwrite=True)
    assert store.read(path) == changed
    assert store.read_samples(RECORD.id) == SAMPLES[:1]
    with pytest.raises(StoreError, match="exists already"):
        store.save(on_rig("other"), [], overwrite=True)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc",
        "A",
        "a b",
        "a\n",
        ".a",
        "-a",
        "ä",
        "a\0",
        "a" * 121,
    ],
)
def test_ids_that_are_no_file_names(store: Store, name: str) -> None:
    with pytest.raises(RecordError, match="cannot be the id of a run"):
        store.samples_path(name)
    with pytest.raises(RecordError, match="cannot be the id of a run"):
        store.save(RECORD.model_copy(update={"id": name}), [])
    with pytest.raises(RecordError, match="cannot be the id of a rig"):
        store.save(
            RECORD.model_copy(update={"rig": RECORD.rig.model_copy(update={"id": name})}), []
        )
    assert not store.content.exists()


def test_the_longest_id_can_be_saved(store: Store) -> None:
    store.save(RECORD.model_copy(update={"id": "a" * 120}), [])
    assert store.read_samples("a" * 120) == []


def test_find(store: Store) -> None:
    paths = {}
    for run_id in ("2026-11-22-gemma", "2026-11-22-smol", "2026-11-23-smol"):
        paths[run_id] = store.save(RECORD.model_copy(update={"id": run_id}), [])
    assert store.find("2026-11-22-smol") == paths["2026-11-22-smol"]
    assert store.find("2026-11-23") == paths["2026-11-23-smol"]
    path = paths["2026-11-22-gemma"]
    assert store.find(str(path)) == path
    with pytest.raises(InputError, match="could be any of 2 records") as caught:
        store.find("2026-11-22")
    assert "2026-11-22-gemma, 2026-11-22-smol" in caught.value.hint
    with pytest.raises(InputError, match="no record '2026-11-22-gema'") as caught:
        store.find("2026-11-22-gema")
    assert "did you mean '2026-11-22-gemma'?" in caught.value.hint
    with pytest.raises(InputError, match="no record 'xyz'") as caught:
        store.find("xyz")
    assert "tokrig list" in caught.value.hint
    with pytest.raises(InputError):
        store.find("")
    with pytest.raises(InputError, match="no such file"):
        store.find("no/such.yaml")


def test_reading_what_is_not_there(store: Store) -> None:
    with pytest.raises(RecordError, match="cannot be read: No such file"):
        store.read(store.content / "x.yaml")
    with pytest.raises(RecordError, match="no samples of run 'x'"):
        store.read_samples("x")
    assert list(store.iter_paths()) == []
    assert store.rows() == []


def test_what_killed_processes_left_is_removed(store: Store) -> None:
    path = store.save(RECORD, SAMPLES)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    stray = path.with_name(f".x.yaml.{gone.pid}.0.tmp")
    living = path.with_name(f".x.yaml.{os.getppid()}.0.tmp")
    foreign = path.with_name(".notes.tmp")
    for file in (stray, living, foreign):
        file.write_text("half")
    assert list(store.iter_paths()) == [path]
    store.save(RECORD, SAMPLES, overwrite=True)
    assert not stray.exists()
    assert living.exists()
    assert foreign.exists()


# --- faults

SAVE = """
import os, resource, sys
from pathlib import Path
from bench.list_records import example_record, example_samples
from tokrig.errors import StoreError
from tokrig.store import Store

store = Store(Path(sys.argv[1]))
store.save(example_record(0), example_samples(), overwrite=True)
if sys.argv[2] == "small files":
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
else:
    for folder in (store.samples, store.record_path(example_record(0)).parent):
        folder.chmod(0o555)
    if os.geteuid() == 0:
        os.setuid(65534)
try:
    store.save(example_record(7), example_samples(), overwrite=True)
except StoreError as error:
    print(error.message, "|", error.hint)
"""


def save_in_child(content: Path, fault: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SAVE, str(content), fault],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A real disk of 64 KiB at ``folder``; yields False where mounting is not permitted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tokrig-test", str(folder)]
    mounted = (
        bool(shutil.which("mount"))
        and not subprocess.run(mount, check=False, capture_output=True).returncode
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as mounted:
        store = Store(tmp_path / "disk")
        store.save(RECORD, SAMPLES)
        before = files(store.content)
        if not mounted:  # the limit on file sizes is as real a refusal
            assert "cannot be saved: File too large" in save_in_child(store.content, "small files")
            return
        chunks = [Chunk(i, Kind.CONTENT, f"{random.random()}") for i in range(9000)]
        large = [SAMPLES[0].__class__(**{**fields_of(SAMPLES[0]), "chunks": chunks})]
        other = RECORD.model_copy(update={"id": "other"})
        with pytest.raises(StoreError, match="No space left on device") as caught:
            store.save(other, large)
        assert "free some space" in caught.value.hint
        assert files(store.content) == before
        with pytest.raises(StoreError, match="No space left on device"):
            store.save(RECORD, large, overwrite=True)
        assert store.read_samples(RECORD.id) == SAMPLES
        assert store.read(store.find(RECORD.id)) == RECORD
        assert files(store.content) == before


def test_a_disk_that_fills_up_between_samples_and_record(tmp_path: Path) -> None:
    """The samples fit, the record does not: neither is there afterwards."""
    answer = save_in_child(tmp_path, "small files")
    assert "cannot be saved: File too large | a limit on file sizes" in answer
    assert [Path(name).stem for name in files(tmp_path)] == [example_record(0).id] * 2


def test_a_folder_that_may_not_be_written() -> None:
    # Not under pytest's own folder, which only its owner may enter.
    with tempfile.TemporaryDirectory() as name:
        content = Path(name)
        content.chmod(0o755)
        answer = save_in_child(content, "read-only folders")
        assert "cannot be saved: Permission denied | you may not write there" in answer
        assert [Path(file).stem for file in files(content)] == [example_record(0).id] * 2


def test_the_samples_are_in_place_before_the_record(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed: list[str] = []
    replace = os.replace

    def once(source: Path, target: Path) -> None:
        if placed:
            raise OSError(errno.EIO, "the disk is gone")
        placed.append(target.suffix)
        replace(source, target)

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(StoreError, match="the disk is gone"):
        store.save(RECORD, SAMPLES)
    assert placed == [".parquet"]
    assert files(store.content) == [f"benchmarks/samples/{RECORD.id}.parquet"]


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "content").write_text("x")
    with pytest.raises(StoreError, match="cannot be saved") as caught:
        Store(tmp_path / "content").save(RECORD, SAMPLES)
    assert "a file stands where a folder should be" in caught.value.hint
    assert files(tmp_path) == ["content"]


LOOP = """
import os, random, signal, sys, time
from pathlib import Path
from bench.list_records import example_record, example_samples
from tokrig.store import Store

store, rounds = Store(Path(sys.argv[1])), int(sys.argv[2])
samples = [example_samples(requests=2), example_samples(requests=40, chunks=200)]
store.save(example_record(0), samples[0])  # what this loads is loaded once, before the forks
chance = random.Random()
for number in range(rounds):
    child = os.fork()
    if child == 0:
        turn = 0
        while True:
            record = example_record(turn % 3 + 3 * number)
            store.save(record, samples[turn % 2], overwrite=True)
            turn += 1
    while not store.record_path(example_record(3 * number)).exists():
        time.sleep(0.002)
    time.sleep(chance.random() * 0.25)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_killed_in_the_middle_there_is_never_half_a_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    command = [sys.executable, "-W", "ignore", "-c", LOOP, str(tmp_path), "20"]
    subprocess.run(command, env=environment(), check=True, capture_output=True, timeout=600)
    paths = list(store.iter_paths())
    assert len(paths) >= 20
    for path in paths:
        record = store.read(path)
        assert record.id == path.stem
        assert len(store.read_samples(record.id)) in (2, 40)
    for number in range(7):  # one record a rig: every folder is swept
        store.save(example_record(1000 + number), [])
    assert not list(tmp_path.rglob("*.tmp"))


# --- listing


def test_rows(store: Store) -> None:
    path = store.save(RECORD, SAMPLES)
    (row,) = store.rows()
    chat = [r for r in RECORD.results if r.concurrency == 1 and r.output_tok_per_s]
    medians = [r.output_tok_per_s.median for r in chat if r.output_tok_per_s]
    assert row.id == RECORD.id
    assert row.path == path.relative_to(store.runs).as_posix()
    assert (row.status, row.verdict, row.kind, row.level) == (
        *("complete", "valid", "measured", "standard"),
    )
    assert row.started_at == RECORD.provenance.started_at
    assert (row.rig, row.mode) == (RECORD.rig.id, "baseline")
    assert (row.model, row.quant, row.quant_creator) == (
        "SmolLM2 135M-Instruct",
        "Q4_1",
        "ggml-org",
    )
    assert row.backend == "llama.cpp b9174 (cuda)"
    assert row.workloads == ["chat", "rag", "codegen", "agent"]
    assert (row.results, row.concurrency) == (5, 1)
    assert row.figures == {"output_tok_per_s": [min(medians), max(medians)]}


def with_results(results: list[Result]) -> Record:
    return RECORD.model_copy(update={"results": results})


def test_invalid_results_are_no_headline(store: Store) -> None:
    invalid = Validity(verdict="invalid", reasons=["request_errors"])
    broken = [r.model_copy(update={"validity": invalid}) for r in RECORD.results[:4]]
    store.save(with_results(broken), [])
    (row,) = store.rows()
    assert (row.concurrency, row.figures) == (None, {})
    store.save(with_results([*broken, RECORD.results[4]]), [], overwrite=True)
    (row,) = store.rows()
    assert row.concurrency == 4
    low, high = row.figures["output_tok_per_s"]
    assert low == high


def test_the_newest_come_first(store: Store) -> None:
    for number in (3, 1, 2):
        store.save(example_record(number), [])
    assert [row.id for row in store.rows()] == [example_record(n).id for n in (3, 2, 1)]


def test_leaving_lines_out_does_not_change_a_summary(store: Store) -> None:
    """The short cut and the whole text give the same row, whatever the layout."""
    data = yaml.safe_load(record_text(RECORD))
    layouts = [
        record_text(RECORD),
        yaml.safe_dump(data),
        yaml.safe_dump(data, default_flow_style=True, width=60),
        yaml.safe_dump(data, default_flow_style=False, indent=6, sort_keys=False),
        json.dumps(data, indent=4),
    ]
    for text in layouts:
        whole = index._row(yaml.safe_load(text), f"x/{RECORD.id}.yaml")
        assert index.summarise(text, f"x/{RECORD.id}.yaml") == whole
    assert len(index._skimmed(layouts[0])) < len(layouts[0]) / 3


def test_a_range_over_shapes_names_what_is_not_in_it() -> None:
    chat = RECORD.results[0]

    def named(name: str, **changed: Any) -> Result:
        shape = chat.workload.model_copy(update={"name": name})
        return chat.model_copy(update={"workload": shape, **changed})

    invalid = Validity(verdict="invalid", reasons=["cached_tokens"])
    results = [
        chat,
        named("rag", validity=invalid),
        named("codegen", output_tok_per_s=None),
        named("agent", validity=invalid, concurrency=4),
    ]
    skipped = [
        Skipped(workload="agent", concurrency=1, code="context_too_small", message="too long"),
        Skipped(workload="rag", concurrency=4, code="context_too_small", message="too long"),
    ]
    record = RECORD.model_copy(update={"results": results, "skipped": skipped})
    row = index.summarise(record_text(record), f"x/{RECORD.id}.yaml")
    assert row.left_out == "rag INVALID, codegen without a rate, agent skipped"
    assert index.summarise(record_text(RECORD), f"x/{RECORD.id}.yaml").left_out == ""


def test_a_value_over_several_lines_is_not_torn(store: Store) -> None:
    text = record_text(RECORD).replace(
        "  license: gemma\n", "  license: gemma\n    terms\n\n    of use\n"
    )
    assert yaml.safe_load(text)["model"]["license"] == "gemma terms\nof use"
    row = index.summarise(text, f"x/{RECORD.id}.yaml")
    assert row.quant_creator == "ggml-org"
    swapped = text.replace("  quant_creator: ggml-org\n  format: gguf\n  file:", "  file:")
    swapped = swapped.replace(
        "    of use\n", "    of use\n  format: gguf\n  quant_creator: unsloth\n"
    )
    assert index.summarise(swapped, f"x/{RECORD.id}.yaml").quant_creator == "unsloth"


def test_a_broken_record_is_a_problem_and_stops_nothing(store: Store) -> None:
    path = store.save(RECORD, SAMPLES)
    text = path.read_text(encoding="utf-8")
    line = text.splitlines().index("mode: {name: baseline}") + 1
    broken: dict[str, tuple[str | bytes, str]] = {
        "half": (
            text.replace("mode: {name: baseline}", "mode: {name: baseline"),
            f"half.yaml:{line + 1}",
        ),
        "newer": (text.replace("schema: 2", "schema: 9"), "schema 9 is newer"),
        "missing": (text.replace("verdict: valid, ", ""), "'verdict'"),
        "typed": (text.replace("family: SmolLM2", "family: [1]"), "family is [1]"),
        "other": (text, "does not match the file name"),
        "empty": ("", "a record is a mapping"),
        "list": ("- 1\n", "a record is a mapping"),
        "binary": (b"\xff\xfe\x00", "cannot be read"),
    }
    for name, (content, _) in broken.items():
        data = content if isinstance(content, bytes) else content.encode()
        aged(path).with_name(f"{name}.yaml").write_bytes(data)
        aged(path.with_name(f"{name}.yaml"))
    for _ in ("without index", "with index"):
        listing = store.listing()
        assert [row.id for row in listing.rows] == [RECORD.id]
        found = {Path(problem.path).stem: problem.message for problem in listing.problems}
        assert found.keys() == broken.keys()
        for name, (_, reason) in broken.items():
            assert reason in found[name]
            assert f"{RECORD.rig.id}/{name}.yaml" in found[name]


def test_the_index_is_used_and_kept_up(store: Store, tmp_path: Path) -> None:
    path = aged(store.save(RECORD, SAMPLES))
    (before,) = store.rows()
    (file,) = (tmp_path / "cache").iterdir()

    def kept() -> str:
        with contextlib.closing(sqlite3.connect(file)) as database:
            return str(database.execute("SELECT data FROM rows").fetchall())

    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE rows SET data = replace(data, 'SmolLM2', 'Indexed')")
    assert store.rows()[0].family == "Indexed"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert store.rows() == [before]
    assert "Indexed" not in kept()
    store.save(example_record(2), [])
    assert len(store.rows()) == 2
    path.unlink()
    assert [row.id for row in store.rows()] == [example_record(2).id]
    assert RECORD.id not in kept()


def test_a_young_file_is_not_trusted_to_the_index(store: Store) -> None:
    """Two writes within one tick of the clock leave the same time and may leave the same size."""
    path = store.save(RECORD, SAMPLES)
    stat = path.stat()
    assert store.rows()[0].family == "SmolLM2"
    path.write_text(
        path.read_text(encoding="utf-8").replace("SmolLM2", "SmolLM3"), encoding="utf-8"
    )
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.rows()[0].family == "SmolLM3"


def test_each_content_folder_has_its_own_index(tmp_path: Path) -> None:
    one = Store(tmp_path / "one", cache=tmp_path / "cache")
    two = Store(tmp_path / "two", cache=tmp_path / "cache")
    aged(one.save(RECORD, SAMPLES))
    aged(two.save(example_record(2), SAMPLES))
    assert [row.id for row in one.rows()] == [RECORD.id]
    assert [row.id for row in two.rows()] == [example_record(2).id]
    assert len(list((tmp_path / "cache").iterdir())) == 2
