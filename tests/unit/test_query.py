"""``tokrig query``: what SQL finds is what the records say, and it can do nothing but ask."""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import os
import random
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.cli.main import main
from tokrig.compare.marked import load_marked
from tokrig.errors import InputError
from tokrig.query import tables, views
from tokrig.query.ask import asked
from tokrig.record.samples_file import arrow_schema
from tokrig.store import Store, table

ROOT = Path(__file__).parents[2]
CONTENT = ROOT / "content"
MEASURED = "20261128-010707-gemma-3-270m-q4_k_m-embedded-eca1"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def ask(sql: str, cache: Path, content: Path = CONTENT, timeout_s: float = 60) -> list[Any]:
    with asked(Store(content), sql, timeout_s=timeout_s, cache=cache) as answer:
        return list(answer.rows())


def tokrig(*words: str, cache: Path, content: Path = CONTENT, columns: int | None = None) -> Result:
    env = {"TOKRIG_CONTENT": str(content), "XDG_CACHE_HOME": str(cache)}
    env |= {"COLUMNS": str(columns)} if columns else {}
    return CliRunner(env=env).invoke(main, ["query", *words])


# Views


def test_rows_are_those_of_the_page(cache: Path) -> None:
    assert ask("FROM rows", cache) == list(table.flat_rows(load_marked(Store(CONTENT)).runs))


@pytest.mark.parametrize("view", [v for v in views.VIEWS.values() if v.name != "samples"])
def test_every_column_of_a_view_is_described_with_its_kind(view: views.View, cache: Path) -> None:
    kinds = {"text": "VARCHAR", "integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN"}
    found = [(name, kind) for name, kind, *_ in ask(f"DESCRIBE {view.name}", cache)]
    assert found == [(column.name, kinds[column.kind]) for column in view.columns]
    assert all(column.text for column in view.columns)


def test_every_column_of_samples_is_described_with_its_kind() -> None:
    kinds = {
        "string": "text",
        "int64": "integer",
        "int8": "integer",
        "double": "number",
        "bool": "boolean",
    }
    described = {c.name: (c.kind, c.text.startswith("list: ")) for c in views.SAMPLES.columns[1:]}
    found = {}
    for field in arrow_schema():
        is_list = str(field.type).startswith("list")
        kind = str(field.type.value_type if is_list else field.type)
        found[field.name] = (kinds[kind], is_list)
    assert described == found


def test_runs_without_results_and_what_is_only_written_about_are_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "content")
    failed = {"status": "failed", "results": []}
    store.save(record_of([sample()]).model_copy(update=failed), [])
    (store.content / "rigs").mkdir()
    (store.content / "rigs" / "test-rig.md").write_text("---\nname: Mine\n---\nwords\n")
    (store.content / "rigs" / "other.md").write_text("words\n")
    cache = tmp_path / "cache"
    assert ask("SELECT status, results FROM runs", cache, store.content) == [("failed", 0)]
    assert ask("SELECT count(*) FROM rows", cache, store.content) == [(0,)]
    found = ask("SELECT rig, name, runs FROM rigs", cache, store.content)
    assert found == [("test-rig", "Mine", 1), ("other", None, 0)]


def test_models_count_their_runs(cache: Path) -> None:
    runs = load_marked(Store(CONTENT)).runs
    ours = [run for run in runs if run.record.model.variant == "270M"]
    found = ask("SELECT runs, rigs, released FROM models WHERE variant = '270M'", cache)
    assert found == [(len(ours), len({run.record.rig.id for run in ours}), "2025-03")]


def test_samples_are_the_requests(cache: Path) -> None:
    samples = Store(CONTENT).read_samples(MEASURED)
    sql = (
        f"SELECT workload, sent_ns, chunk_t_ns, chunk_text FROM samples WHERE run_id = '{MEASURED}'"
    )
    expected = [
        (s.workload, s.sent_ns, s.stream.stamps_ns.tolist(), s.stream.texts()) for s in samples
    ]
    assert sorted(ask(sql, cache)) == sorted(expected)


def test_only_the_samples_asked_for_are_opened(tmp_path: Path) -> None:
    """A file of another run may be broken: it is not looked at."""
    store = Store(tmp_path / "content")
    for letter in "ab":
        store.save(record_of([sample()], f"20261122-120000-tiny-{letter}"), [sample()])
    store.samples_path("20261122-120000-tiny-b").write_bytes(b"PAR1 no more than that")
    where = "FROM samples WHERE run_id = '20261122-120000-tiny-a'"
    assert ask(f"SELECT count(*) {where}", tmp_path, store.content) == [(1,)]
    with pytest.raises(InputError, match="samples cannot be read") as told:
        ask("SELECT count(*) FROM samples", tmp_path, store.content)
    assert "tokrig check" in told.value.hint


def test_samples_of_older_layouts_are_there_with_nulls(cache: Path) -> None:
    old = "20261122-183111-gemma-3-270m-q4_k_m-embedded-55a3"
    assert ask(f"SELECT DISTINCT load FROM samples WHERE run_id = '{old}'", cache) == [(None,)]
    assert ask("SELECT count(DISTINCT run_id) FROM samples", cache)[0][0] >= 7


# Kept tables


def names(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()}


def aged(folder: Path) -> None:
    """Older than the tick of a file's clock: younger files are trusted by nobody."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 60, time.time() - 60))


def test_a_new_record_is_found_and_so_is_what_is_written_about_a_rig(tmp_path: Path) -> None:
    store = Store(tmp_path / "content")
    store.save(record_of([sample()], "20261122-120000-tiny-a"), [sample()])
    aged(store.content)
    assert ask("SELECT count(*) FROM runs", tmp_path, store.content) == [(1,)]
    assert ".duckdb" in names(tmp_path)
    store.save(record_of([sample()], "20261122-120000-tiny-b"), [sample()])
    assert ask("SELECT count(*) FROM runs", tmp_path, store.content) == [(2,)]
    aged(store.content)
    assert ask("SELECT name FROM rigs", tmp_path, store.content) == [(None,)]
    (store.content / "rigs").mkdir()
    (store.content / "rigs" / "test-rig.md").write_text("---\nname: Mine\n---\n")
    assert ask("SELECT name FROM rigs", tmp_path, store.content) == [("Mine",)]


def test_broken_tables_cost_time_only(tmp_path: Path) -> None:
    store = Store(tmp_path / "content")
    for letter in "abc":
        store.save(record_of([sample()], f"20261122-120000-tiny-{letter}"), [sample()])
    aged(store.content)
    chance = random.Random(13)
    expected = ask("FROM rows", tmp_path, store.content)
    (path,) = tmp_path.glob("*.duckdb")
    for number in range(12):
        data = bytearray(path.read_bytes())
        if number % 3 == 0:
            data = data[: chance.randrange(len(data))]
        else:
            for _ in range(1 if number % 3 == 1 else 200):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        assert ask("FROM rows", tmp_path, store.content) == expected
    path.unlink()
    path.mkdir()
    assert ask("FROM rows", tmp_path, store.content) == expected


def test_without_a_place_to_keep_tables_they_are_made_each_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert ask("SELECT count(*) > 40 FROM rows", tmp_path / "file") == [(True,)]


def test_records_that_cannot_be_read_are_told_every_time(tmp_path: Path) -> None:
    store = Store(tmp_path / "content")
    store.save(record_of([sample()]), [sample()])
    (store.runs / "test-rig" / "broken.yaml").write_text("id: [\n")
    aged(store.content)
    for _ in range(2):
        done = tokrig(
            "SELECT count(*) AS n FROM runs", "--csv", cache=tmp_path, content=store.content
        )
        assert (done.exit_code, done.stdout) == (0, "n\n1\n")
        assert "unreadable" in done.stderr and "broken.yaml:2" in done.stderr


# Nothing but questions

WRITES = """
INSERT INTO rows SELECT * FROM rows
WITH a AS (INSERT INTO rows SELECT * FROM rows RETURNING *) SELECT * FROM a
WITH a AS (DELETE FROM runs RETURNING *) SELECT count(*) FROM a
WITH a AS (UPDATE runs SET run_id = 'x' RETURNING *) SELECT count(*) FROM a
WITH a AS (COPY rows TO 'out.csv') SELECT * FROM a
EXPLAIN ANALYZE DELETE FROM runs
UPDATE rows SET verdict = 'valid'
DELETE FROM rows
TRUNCATE rows
DROP TABLE rows
CREATE TABLE x (i INT)
CREATE TEMP TABLE x (i INT)
CREATE VIEW x AS SELECT 1
CREATE MACRO x(a) AS a
ALTER TABLE rows RENAME TO x
COMMENT ON TABLE rows IS 'x'
COPY rows TO 'out.csv'
COPY (SELECT 1) TO 'out.parquet'
COPY rows FROM 'README.md'
EXPORT DATABASE 'out'
IMPORT DATABASE 'out'
ATTACH 'out.db'
ATTACH ':memory:' AS m
DETACH memory
USE memory
INSTALL httpfs
LOAD httpfs
UPDATE EXTENSIONS
PRAGMA enable_profiling
PRAGMA database_list
SET memory_limit = '100GB'
SET enable_external_access = true
RESET lock_configuration
SET VARIABLE a = 1
CALL pragma_version()
CHECKPOINT
VACUUM
BEGIN
PREPARE p AS SELECT 1
CREATE SECRET (TYPE s3)
SELECT 1; DROP TABLE rows
SELECT * FROM query('DROP TABLE rows')
SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM read_text('/etc/passwd')
SELECT * FROM read_blob('README.md')
SELECT * FROM read_json('README.md')
SELECT * FROM read_parquet('x.parquet')
SELECT * FROM sniff_csv('README.md')
SELECT * FROM glob('/etc/*')
SELECT * FROM parquet_metadata('x.parquet')
SELECT * FROM 'README.md'
SELECT * FROM 'x.csv'
SELECT * FROM 'https://example.com/x.csv'
FROM '/etc/passwd'
SELECT (SELECT content FROM read_text('/etc/passwd'))
SELECT * FROM about.nothing
SELECT getenv('HOME')
""".strip().splitlines()


def digest(folder: Path) -> dict[str, str]:
    """All files under a folder; a database's log of a moment would show, too."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """A content folder and its kept tables, in a folder in which nothing may change."""
    store = Store(tmp_path / "content")
    store.save(record_of([sample()]), [sample()])
    aged(store.content)
    ask("SELECT 1", tmp_path / "cache", store.content)
    monkeypatch.chdir(tmp_path)
    before = digest(tmp_path)
    assert any(name.endswith(".duckdb") for name in before)
    yield store.content, tmp_path / "cache"
    assert digest(tmp_path) == before


@pytest.mark.parametrize("sql", WRITES)
def test_what_does_more_than_ask_is_refused(sql: str, little: tuple[Path, Path]) -> None:
    content, cache = little
    with pytest.raises(InputError) as told:
        ask(sql, cache, content)
    assert told.value.hint and "Traceback" not in told.value.message


def mangled(sql: str, chance: random.Random) -> str:
    """The same in another guise, or broken: case, comments, white space, wrapping, a lost or a
    doubled piece."""
    words = sql.split(" ")
    match chance.randrange(8):
        case 0:
            return sql.swapcase()
        case 1:
            return "/* harmless */ " + "\n--\n".join(words)
        case 2:
            return f"EXPLAIN ANALYZE {sql}"
        case 3:
            return f"SELECT * FROM ({sql})"
        case 4:
            return f"WITH a AS ({sql}) SELECT * FROM a"
        case 5:
            return f";;{sql};{chance.choice(WRITES)}"
        case 6:
            at = chance.randrange(len(sql))
            return sql[:at] + sql[at + chance.randrange(1, 6) :]
        case _:
            at = chance.randrange(len(words))
            return " ".join([*words[:at], *chance.choices(words, k=2), *words[at:]])


def test_no_guise_of_them_changes_anything(little: tuple[Path, Path]) -> None:
    content, cache = little
    chance = random.Random(2026)
    refused = 0
    for _ in range(60):
        sql = mangled(chance.choice(WRITES), chance)
        try:
            found = ask(sql, cache, content)
        except InputError as told:
            refused += 1
            assert told.message and told.hint, sql
        else:
            assert "root:" not in str(found), sql
    assert refused > 40


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT nothing FROM rows", "nothing"),
        ("SELECT * FROM rowz", 'Did you mean "rows"'),
        ("SELCT 1", "syntax error"),
        ("SELECT 'abc", "unterminated"),
        ("", "no statement"),
        ("-- nothing", "no statement"),
        ("SELECT ?", "parameters"),
        ("SELECT 'x'::INT", "Could not convert"),
        ("SELECT " + "(" * 5000 + "1" + ")" * 5000, ""),
        ("SELECT '" + "x" * 200_000 + "'", "longer than 100,000 characters"),
    ],
)
def test_a_wrong_question_gets_a_clear_answer(sql: str, told: str, cache: Path) -> None:
    with pytest.raises(InputError) as found:
        ask(sql, cache)
    assert told in found.value.message and found.value.hint


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(100000000) a, range(100000000) b",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        "SELECT sum(i) FROM generate_series(1, 1000000000000) t(i)",
        "SELECT sum(i) FROM (SELECT unnest(range(100000000)) AS i)",
        "SELECT length(repeat('x', 4000000000))",
        "SELECT list_sort(range(300000000))",
    ],
)
def test_what_runs_for_ever_or_takes_all_memory_is_stopped(sql: str, cache: Path) -> None:
    ask("SELECT 1", cache)
    began = time.monotonic()
    with pytest.raises(InputError, match=r"took longer than 1 s|more memory than") as told:
        ask(sql, cache, timeout_s=1)
    assert told.value.hint
    assert time.monotonic() - began < 120


def test_an_answer_that_is_not_read_to_its_end_ends(cache: Path) -> None:
    with asked(Store(CONTENT), "FROM range(100000000)", timeout_s=60, cache=cache) as answer:
        assert next(answer.rows()) == (0,)


# The command


def test_every_example_of_the_document_has_an_answer(tmp_path: Path, cache: Path) -> None:
    text = (ROOT / "docs" / "query.md").read_text(encoding="utf-8")
    lines = re.findall(r"^tokrig (query\b.*)$", text, re.MULTILINE)
    assert len(lines) >= 8
    for line in lines:
        words = [
            str(tmp_path / word) if word == "valid.parquet" else word
            for word in shlex.split(line, comments=True)
        ]
        done = tokrig(*words[1:], cache=cache)
        assert done.exit_code == 0, f"{line}\n{done.stderr}"
        assert len(done.stdout.splitlines()) > 1 or (tmp_path / "valid.parquet").exists()


def test_views_are_listed_with_every_column(cache: Path) -> None:
    told = tokrig(cache=cache).stdout
    for view in views.VIEWS.values():
        assert f"{view.name}: {view.text}" in told
    for column in (*table.RUN_COLUMNS, *views.SAMPLES.columns, *views.RIGS.columns):
        assert re.search(rf"^  {column.name} ", told, re.MULTILINE)
    assert re.search(r"^  ttft_s_… .*_median, _min, _max", told, re.MULTILINE)
    described = json.loads(tokrig("--describe", "rigs", "--json", cache=cache).stdout)
    assert [c["name"] for c in described["rigs"]["columns"]] == [c.name for c in views.RIGS.columns]


SQL = (
    "SELECT run_id, workload, concurrency, ttft_s_median, reasoning, '=1+1' AS f"
    " FROM rows ORDER BY ALL"
)


def test_every_output_has_the_same_rows(tmp_path: Path, cache: Path) -> None:
    found = ask(SQL, cache)
    names = ["run_id", "workload", "concurrency", "ttft_s_median", "reasoning", "f"]
    assert [
        tuple(row.values()) for row in json.loads(tokrig(SQL, "--json", cache=cache).stdout)
    ] == found
    for ending in ("csv", "json", "parquet"):
        done = tokrig(SQL, "-o", str(tmp_path / f"out.{ending}"), cache=cache)
        assert done.exit_code == 0, done.stderr
    read = importlib.import_module("pyarrow.parquet").read_table(tmp_path / "out.parquet")
    assert [tuple(row.values()) for row in read.to_pylist()] == found
    assert read.column_names == names
    rows = list(csv.reader(io.StringIO((tmp_path / "out.csv").read_text(), newline="")))
    assert rows[0] == names
    assert [(r[0], r[5]) for r in rows[1:]] == [(run_id, "'=1+1") for run_id, *_ in found]
    assert [float(r[3]) for r in rows[1:] if r[3]] == [r[3] for r in found if r[3] is not None]
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(
        tokrig(SQL, "--json", cache=cache).stdout
    )


def test_two_columns_of_one_name_are_both_there(tmp_path: Path, cache: Path) -> None:
    (row,) = json.loads(tokrig("SELECT 1 AS a, 2 AS a", "--json", cache=cache).stdout)
    assert row == {"a": 1, "a_2": 2}
    done = tokrig("SELECT 1 AS a, 2 AS a", "--parquet", str(tmp_path / "x"), cache=cache)
    assert done.exit_code == 0, done.stderr


def test_a_query_that_fails_leaves_no_file(tmp_path: Path, cache: Path) -> None:
    sql = "SELECT CASE WHEN range > 50000 THEN error('stop') ELSE 'x' END FROM range(100000)"
    for name in ("a.csv", "a.json", "a.parquet"):
        done = tokrig(sql, "-o", str(tmp_path / name), cache=cache)
        assert done.exit_code == 2 and "stop" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_table_fits_the_terminal_or_is_a_block_a_row(columns: int, cache: Path) -> None:
    narrow = "SELECT workload, count(*) AS n, NULL AS nothing FROM rows GROUP BY ALL"
    done = tokrig(narrow, cache=cache, columns=columns)
    assert max(map(len, done.stdout.splitlines())) <= columns
    assert done.stdout.splitlines()[2].endswith("–")
    done = tokrig("FROM rows LIMIT 2", cache=cache, columns=columns)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(table.COLUMNS) + 1
    assert lines[0].split() == ["run_id", ask("FROM rows LIMIT 1", cache)[0][0]]


def test_a_long_table_says_that_there_is_more(cache: Path) -> None:
    done = tokrig("FROM range(500)", cache=cache)
    assert "the first 200 rows" in done.stderr
    assert len(done.stdout.splitlines()) == 202
    assert len(tokrig("FROM range(500)", "--csv", cache=cache).stdout.splitlines()) == 501
    assert len(tokrig("FROM range(500)", "--limit", "3", cache=cache).stdout.splitlines()) == 5


def test_odd_values_are_printed(cache: Path) -> None:
    sql = "SELECT * FROM test_all_types()"
    for words in ([], ["--csv"], ["--json"]):
        done = tokrig(sql, *words, cache=cache)
        assert done.exit_code == 0, done.stderr
    json.loads(done.stdout, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["SELECT 1", "--csv", "--json"], "one output at a time"),
        (["SELECT 1", "-o", "x.xls"], "should end with"),
        (["SELECT 1", "--timeout", "soon"], "should be a time"),
        (["SELECT 1", "--timeout", "0"], "more than nothing"),
        (["SELECT 1", "--describe", "rows"], "takes no SQL"),
        (["--describe", "tables"], "--describe"),
        (["SELECT 1", "--content", "no-such-folder"], "no such folder"),
    ],
)
def test_bad_input_is_told(words: list[str], told: str, cache: Path) -> None:
    done = tokrig(*words, cache=cache)
    assert done.exit_code == 2
    assert told in done.stderr and "hint:" in done.stderr


def test_without_duckdb_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    done = tokrig("SELECT 1", cache=cache)
    assert done.exit_code == 2
    assert "needs the package 'duckdb'" in done.stderr and "query" in done.stderr


def test_ctrl_c_ends_it_with_all_that_it_started(cache: Path) -> None:
    words = [sys.executable, "-m", "tokrig", "query", "--timeout", "50s"]
    env = os.environ | {"TOKRIG_CONTENT": str(CONTENT), "XDG_CACHE_HOME": str(cache)}
    sql = "SELECT count(*) FROM range(100000000) a, range(100000000) b"
    with subprocess.Popen([*words, sql], env=env, stderr=subprocess.PIPE, text=True) as running:
        children: list[int] = []
        give_up = time.monotonic() + 120
        psutil = importlib.import_module("psutil")
        while not children and time.monotonic() < give_up:
            found = psutil.Process(running.pid).children()
            children = [one.pid for one in found if one.cpu_times().user > 1]
            time.sleep(0.1)
        assert children
        running.send_signal(2)
        _, told = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "stopped: interrupted" in told and "Traceback" not in told
    assert not any(psutil.pid_exists(pid) for pid in children)


def test_a_change_of_code_makes_new_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "content")
    store.save(record_of([sample()]), [sample()])
    aged(store.content)
    ask("SELECT 1", tmp_path, store.content)
    (key,) = tmp_path.glob("*.key")
    before = key.read_text()
    monkeypatch.setattr(tables, "reader_digest", lambda: "another")
    ask("SELECT 1", tmp_path, store.content)
    assert key.read_text() != before
