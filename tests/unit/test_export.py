"""Records in the formats of other tools: what is in a file is what the records say."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as Done

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.cli.main import main
from tokrig.compare.marked import load_marked
from tokrig.exchange import exports, imports
from tokrig.record.block import Summary
from tokrig.record.model import BackendFacts, Gpu, Model, Provenance, Raw, Record, Rig, Validity
from tokrig.record.samples import Sample
from tokrig.store import Store, table
from tokrig.store.load import Run

ROOT = Path(__file__).parents[2]
CONTENT = ROOT / "content"
HOSTILE = "a|b\n#1 @all <script>x</script> `c` [l](u)\u202e\x1b[31m\ud800 = *"


@cache
def real() -> tuple[Run, ...]:
    return load_marked(Store(CONTENT)).runs


def samples_of(run: Run) -> list[Sample]:
    return Store(CONTENT).read_samples(run.id) if run.samples_digest else []


def none_of(run: Run) -> list[Sample]:
    return []


def a_run(run_id: str = "20261122-120000-tiny-aaaa", **changes: Any) -> Run:
    record = record_of([sample()], run_id).model_copy(update=changes)
    return Run(record, f"{record.rig.id}/{record.id}.yaml", "digest")


def with_result(run: Run, **changes: Any) -> Run:
    (result,) = run.record.results
    results = [result.model_copy(update=changes)]
    return replace(run, record=run.record.model_copy(update={"results": results}))


def made(name: str, runs: Sequence[Run], samples: exports.Samples = none_of) -> str:
    return exports.named(name).make(runs, samples).data.decode()


# The data files of the site


@pytest.mark.parametrize("name", ["csv", "json", "parquet"])
def test_flat_files_are_those_of_the_site(name: str) -> None:
    made_by_site = getattr(table, f"to_{name}")(table.flat_rows(real()))
    assert exports.named(name).make(real(), none_of).data == made_by_site


def test_a_csv_file_read_back_is_the_table() -> None:
    read = list(csv.DictReader(io.StringIO(made("csv", real()), newline="")))
    rows = list(table.flat_rows(real()))
    assert len(read) == len(rows) > 40
    for cells, values in zip(read, rows, strict=True):
        for column, value in zip(table.COLUMNS, values, strict=True):
            if column.kind in ("integer", "number") and value is not None:
                assert float(cells[column.name]) == value


# Go's benchmark format


class GoFile:
    """A reading of https://go.dev/design/14313-benchmark-format as benchfmt/reader.go has it."""

    def __init__(self, text: str) -> None:
        self.units: dict[str, str] = {}
        self.results: list[tuple[dict[str, str], str, dict[str, float]]] = []
        config: dict[str, str] = {}
        for line in text.split("\n"):
            if line.startswith("Benchmark"):
                name, iterations, *pairs = line.removeprefix("Benchmark").split()
                assert int(iterations) > 0 and pairs and len(pairs) % 2 == 0
                values = dict(zip(pairs[1::2], map(float, pairs[::2]), strict=True))
                assert len(values) == len(pairs) / 2, "a unit stands twice"
                self.results.append((dict(config), name, values))
            elif line.startswith("Unit "):
                _, unit, better = line.split()
                assert unit not in self.units
                self.units[unit] = better
            elif found := re.match(r"([a-z][^\sA-Z:]*):(?:$|[ \t]+(.*))", line):
                if found[2]:
                    config[found[1]] = found[2]
                else:
                    config.pop(found[1], None)
            else:
                assert not line or line.startswith("# ")

    def of(self, name: str, unit: str) -> list[float]:
        return [values[unit] for _, n, values in self.results if n == name and unit in values]


def test_benchstat_has_a_line_for_every_start() -> None:
    starts = [10.5, 11.0, 10.0, 10.25, 10.75, 11.5]
    rate = Summary(median=10.625, min=9.0, max=12.0, n=18, starts=starts)
    run = with_result(a_run(), output_tok_per_s=rate, repeats=6, requests=18)
    found = GoFile(made("benchstat", [run]))
    assert found.of("Chat/concurrency=1", "output-tok/s") == starts
    assert found.of("Chat/concurrency=1", "ttft-sec") == [0.5]
    assert found.units["output-tok/s"] == "better=higher"
    assert found.units["ttft-sec"] == "better=lower"


def test_benchstat_lines_of_real_records_are_their_figures() -> None:
    for run in real():
        found = GoFile(made("benchstat", [run]))
        told = sorted(v for _, _, values in found.results for v in values.values())
        figures = [
            figure
            for result in run.record.results
            if result.validity.verdict != "invalid"
            for name in table.SUMMARIES
            if name not in ("prompt_tokens", "output_tokens", "tpot_s", "connect_s")
            if (summary := getattr(result, name)) is not None
            for figure in summary.starts or [summary.median]
        ]
        assert told == sorted(figures)
        # Rows of one name are repeats of one thing: a name stands for one cell.
        cells = {r.cell for r in run.record.results if r.validity.verdict != "invalid"}
        assert len({name for _, name, _ in found.results}) == len(cells)


def test_two_builds_in_two_files_compare_and_in_one_file_stay_apart() -> None:
    def built(build: str, run_id: str) -> Run:
        facts = BackendFacts(name="llamacpp", engine="llama.cpp", build=build, api="cpu")
        return a_run(run_id, backend=facts)

    old, new = built("b1", "20261122-120000-tiny-aaaa"), built("b2", "20261122-130000-tiny-bbbb")
    one, other = (GoFile(made("benchstat", [run])).results[0] for run in (old, new))
    assert one[:2] == other[:2]
    both = GoFile(made("benchstat", [old, new])).results
    assert [config["build"] for config, _, _ in both] == ["b1", "b2"]


def test_what_a_run_lacks_is_not_that_of_the_run_before() -> None:
    card = Rig(id="one", gpus=[Gpu(name="NVIDIA GeForce RTX 5070", vendor="nvidia")])
    runs = [a_run(rig=card), a_run("20261122-130000-tiny-bbbb", rig=Rig(id="two"))]
    first, second = GoFile(made("benchstat", runs)).results
    assert first[0]["gpu"] == "GeForce RTX 5070"
    assert "gpu" not in second[0]


def test_benchstat_leaves_out_what_is_invalid_and_says_so() -> None:
    invalid = Validity(verdict="invalid", reasons=["throttled"])
    run = with_result(a_run(), validity=invalid)
    exported = exports.named("benchstat").make([run], none_of)
    assert GoFile(exported.data.decode()).results == []
    assert "throttled" in exported.notes[0] and run.id in exported.notes[0]


def test_benchstat_names_say_the_load() -> None:
    run = with_result(a_run(), depth_tokens=16384, load="poisson", rate_per_s=2.0)
    ((_, name, _),) = GoFile(made("benchstat", [run])).results
    assert name == "Chat/depth=16384/load=poisson/rate=2.0/concurrency=1"


def test_an_engines_own_figures_have_names_and_units_of_their_own() -> None:
    raw = [
        Raw(test="pp512", tok_per_s=Summary(median=812.5)),
        Raw(test="tg128", tok_per_s=Summary(median=71.0)),
    ]
    found = GoFile(made("benchstat", [a_run(results=[], raw=raw)]))
    assert [(name, values) for _, name, values in found.results] == [
        ("RawPp512/concurrency=1", {"raw-tok/s": 812.5}),
        ("RawTg128/concurrency=1", {"raw-tok/s": 71.0}),
    ]


# vllm bench serve

# What the tool of that name writes: vllm/benchmarks/serve.py, ``main_async`` and ``benchmark``.
VLLM = set(
    "date endpoint_type backend label model_id tokenizer_id num_prompts request_rate burstiness"
    " max_concurrency duration completed failed total_input_tokens total_output_tokens"
    " request_throughput request_goodput output_throughput total_token_throughput input_lens"
    " output_lens ttfts itls start_times generated_texts errors max_output_tokens_per_s"
    " max_concurrent_requests".split()
)
VLLM |= {
    f"{part}_{name}_ms"
    for part in ("mean", "median", "std", "p90", "p95", "p99")
    for name in ("ttft", "tpot", "itl", "e2el")
}


def objects(runs: Sequence[Run], samples: exports.Samples = none_of) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    lines = made("vllm", runs, samples).splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_vllm_medians_are_those_of_the_requests() -> None:
    """By its own definitions, computed here from what its file says of each request."""
    compared = 0
    for run in (run for run in real() if run.samples_digest):
        for result, found in zip(run.record.results, objects([run], samples_of), strict=True):
            assert set(found) - VLLM <= {key for key in found if key.startswith("tokrig_")}
            good = [n for n, error in enumerate(found["errors"]) if not error and found["itls"][n]]
            assert found["completed"] == len(good)
            ttfts = [found["ttfts"][n] for n in good]
            ends = [found["ttfts"][n] + sum(found["itls"][n]) for n in good]
            itls = [gap for n in good for gap in found["itls"][n]]
            assert math.isclose(found["median_ttft_ms"], 1e3 * statistics.median(ttfts))
            assert math.isclose(found["median_itl_ms"], 1e3 * statistics.median(itls))
            assert math.isclose(found["median_e2el_ms"], 1e3 * statistics.median(ends))
            if "output_lens" in found:
                tpots = [
                    sum(found["itls"][n]) / (found["output_lens"][n] - 1)
                    for n in good
                    if found["output_lens"][n] > 1
                ]
                assert math.isclose(found["median_tpot_ms"], 1e3 * statistics.median(tpots))
                total = sum(found["output_lens"])
                assert math.isclose(found["output_throughput"], total / found["duration"])
            if result.repeats == 1 and result.load == "closed" and result.ttft_s:
                assert math.isclose(
                    found["median_ttft_ms"], 1e3 * result.ttft_s.median, rel_tol=1e-5
                )
                assert result.system_tok_per_s is not None
                rate = result.system_tok_per_s.median
                assert math.isclose(found["output_throughput"], rate, rel_tol=1e-4)
                compared += 1
    assert compared >= 10


def test_vllm_files_are_read_back_with_the_same_medians(tmp_path: Path) -> None:
    """By the reader of that tool's own files."""
    (run,) = [run for run in real() if run.id.startswith("20261128-010707")]
    file = tmp_path / "run.jsonl"
    file.write_text(made("vllm", [run], samples_of), encoding="utf-8")
    read = imports.read(file, imports.stated(None, None, None))
    results = [result for record in read.records for result in record.results]

    def medians(of: Sequence[Any]) -> list[tuple[int, float, float]]:
        return sorted((r.concurrency, r.ttft_s.median, r.tpot_s.median) for r in of)

    assert medians(results) == medians(run.record.results)
    assert {record.provenance.kind for record in read.records} == {"imported"}


def test_vllm_counts_failed_requests_as_failed() -> None:
    failed = replace(
        sample(), iteration=1, sent_ns=10**9, chunks=(), output_tokens=None, error="http_500"
    )
    samples = [sample(), failed]
    record = record_of(samples)
    run = Run(record, "r/x.yaml", "digest", "there")
    (found,) = objects([run], lambda run: samples)
    assert (found["completed"], found["failed"], found["num_prompts"]) == (1, 1, 2)
    assert found["errors"] == ["", "http_500"]
    assert found["output_lens"] == [21, 0]
    assert (found["ttfts"], len(found["itls"][0])) == ([0.5, 0.0], 20)


def test_a_run_without_samples_has_its_medians_and_says_so() -> None:
    (run,) = [run for run in real() if run.id == "seed-lfm2-1.2b-q4_k_m"]
    exported = exports.named("vllm").make([run], none_of)
    for result, line in zip(run.record.results, exported.data.splitlines(), strict=True):
        found = json.loads(line)
        assert not {"itls", "duration", "p99_ttft_ms"} & set(found)
        assert found["tokrig_provenance"] == "transcribed"
        assert found["backend"] is None
        assert found.get("median_ttft_ms") == (result.ttft_s and result.ttft_s.median * 1e3)
    assert run.id in exported.notes[0]


def test_answers_of_unknown_length_have_no_lengths_and_no_rates() -> None:
    samples = [replace(sample(), output_tokens=None)]
    run = Run(record_of([sample()]), "r/x.yaml", "digest", "there")
    (found,) = objects([run], lambda run: samples)
    assert not {"output_lens", "total_output_tokens", "output_throughput", "median_tpot_ms"} & set(
        found
    )
    assert found["median_ttft_ms"] == 500.0


# Markdown


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def tables(text: str) -> list[list[list[str]]]:
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[cells(line) for line in block.splitlines()] for block in blocks]


def test_a_markdown_table_has_every_result_with_its_verdict() -> None:
    for run in real():
        for found in tables(made("markdown", [run])):
            assert len({len(row) for row in found}) == 1
            assert len(found) - 2 in (len(run.record.results), len(run.record.raw))
        for result in run.record.results:
            assert f"| {result.cell.label} |" in made("markdown", [run])


def test_markdown_says_how_it_was_measured() -> None:
    (run,) = [run for run in real() if run.id.startswith("20261128-010707")]
    text = made("markdown", [run])
    assert "Measured with tokrig 0.1.0, methodology 2; medians of 1 start of the engine" in text
    assert "llama.cpp xllamacpp 2026.10.11549 (cpu)" in text
    (seed,) = [run for run in real() if run.id == "seed-lfm2-1.2b-q4_k_m"]
    assert "Not measured by tokrig: transcribed" in made("markdown", [seed])
    assert "**unverified**: " in made("markdown", [seed])


def test_markdown_marks_what_is_invalid() -> None:
    invalid = Validity(verdict="invalid", reasons=["foreign_cpu_load"])
    text = made("markdown", [with_result(a_run(), validity=invalid)])
    assert "**INVALID**: foreign cpu load" in text


def hostile() -> Record:
    facts: dict[str, Any] = {
        "model": Model(family=HOSTILE, variant=HOSTILE, quant=HOSTILE),
        "rig": Rig(id="r", gpus=[Gpu(name=HOSTILE, vendor="other")]),
        "backend": BackendFacts(name=HOSTILE, engine=HOSTILE, build=HOSTILE, api=HOSTILE),
        "provenance": Provenance(kind="imported", source=HOSTILE, started_at=HOSTILE),
    }
    run = a_run(**facts)
    (result,) = run.record.results
    workload = result.workload.model_copy(update={"name": HOSTILE})
    validity = Validity(verdict="unverified", unverified=[HOSTILE])
    return with_result(run, workload=workload, validity=validity).record


def test_names_of_strangers_do_nothing_in_any_format() -> None:
    run = Run(hostile(), "r/x.yaml", "digest")
    text = made("markdown", [run])
    ((head, rule, row),) = tables(text)
    assert len(head) == len(rule) == len(row)
    assert not re.search(r"@all|(?<!&)#\d|<script|`|\]\(|\u202e|\x1b", text)
    (line,) = GoFile(made("benchstat", [run])).results
    assert line[0]["engine"].startswith("a|b #1")
    (found,) = objects([run])
    assert found["tokrig_workload"].startswith("a|b\n#1")


# The command


def tokrig(*words: str, content: Path = CONTENT) -> Done:
    env = {"TOKRIG_CONTENT": str(content), "COLUMNS": "80"}
    return CliRunner(env=env).invoke(main, ["export", *words])


def test_every_format_is_told_in_the_help() -> None:
    told = tokrig("--help").stdout
    assert [name for name in exports.names() if name not in told] == []


def test_a_file_is_written_and_told(tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    done = tokrig("--model", "gemma-3-270m", "--rig", "amd", "-o", str(file), "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["format"], told["file"], told["bytes"]) == ("csv", str(file), file.stat().st_size)
    assert told["results"] == len(file.read_text().splitlines()) - 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_runs_come_in_the_order_they_are_named_in() -> None:
    names = ["seed-gemma-4-e4b-it-q4_k_m", "20261128-010707-gemma-3-270m-q4_k_m-embedded-eca1"]
    done = tokrig(*names, "--format", "csv")
    ids = [row["run_id"] for row in csv.DictReader(io.StringIO(done.stdout))]
    assert list(dict.fromkeys(ids)) == names


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "which records?"),
        (["--all", "--format", "cvs"], "did you mean 'csv'?"),
        (["--all", "-o", "x.doc"], "choose it with --format"),
        (["--model", "no-such"], "none of "),
        (["no-such-run"], "no record 'no-such-run'"),
        (["--all", "--json"], "name one with -o FILE"),
        (["--all", "--status", "vaild"], "did you mean 'valid'?"),
        (["--all", "--format", "csv", "-o", "README.md/x.csv"], "cannot be written"),
        ([str(ROOT / "tests/unit/test_export.py")], "lies in no"),
    ],
)
def test_bad_input_is_told_once_with_a_hint(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    done = tokrig(*words)
    assert done.exit_code == 2
    assert told in done.stderr
    assert done.stderr.count("error:") == 1 and "hint:" in done.stderr


def test_a_broken_record_is_left_out_unless_it_was_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(record_of([sample()]), [sample()])
    broken = store.runs / "test-rig" / "20261122-130000-tiny-bbbb.yaml"
    broken.write_text("id: [\n")
    done = tokrig("--all", "--format", "csv", content=tmp_path)
    assert done.exit_code == 0 and "unreadable" in done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert tokrig(broken.stem, "--format", "csv", content=tmp_path).exit_code == 2
