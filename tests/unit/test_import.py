"""Files of other tools become records: what they say, in tokrig's units, with what is wrong marked.

Of the files under tests/data/imports those of llama.cpp's tools, vLLM, GuideLLM 0.8, AIPerf and
llama-benchy were written by these tools (see the README there). Those of tools that need another
machine have the fields that their sources write, with made values: SGLang (python/sglang/
bench_serving.py), LocalScore (cjpais/LocalScore, src/pages/api/results.ts), llmfit (AlexsJones/
llmfit, llmfit-core/src/share.rs and bench.rs), Ollama (api/types.go), MLPerf Client (mlcommons/
mlperf_client, src/CIL/benchmark_logger.cpp), GuideLLM 0.2 (src/guidellm/benchmark/benchmark.py).
"""

from __future__ import annotations

import gzip
import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as Done

from tokrig import registry
from tokrig.cli.main import main
from tokrig.errors import ImportRefused, InputError
from tokrig.exchange import document, imports
from tokrig.exchange.imports import Stated
from tokrig.models.identity import named
from tokrig.record import checks, consistency
from tokrig.record.imported import MARKS
from tokrig.record.model import Record, Result, parse_record, record_text
from tokrig.site import formats
from tokrig.store import Store
from tokrig.store.load import load

FILES = Path(__file__).parents[1] / "data" / "imports"
# Raw material of other formats, which are not read: no figures of requests, or tables of means.
UNREAD = {"profile_export.jsonl", "both.csv", "smollm2.csv"}
READ = sorted(
    path
    for path in FILES.glob("*/*")
    if path.name not in UNREAD and (path.parent.name, path.suffix) != ("llama-benchy", ".md")
)
MODEL = Stated(model=named("gemma-3-270m-it-Q4_K_M.gguf"))
NAMELESS = {"llama-batched-bench", "verbose", "rate", "profile_export_aiperf.csv"}


def said(path: Path) -> Stated:
    """The model, for files that name none."""
    nameless = {path.parent.name, path.stem, path.name} & NAMELESS
    return MODEL if nameless else Stated()


def records(path: Path) -> tuple[Record, ...]:
    return imports.read(path, said(path)).records


def record(name: str) -> Record:
    [one] = records(FILES / name)
    return one


def result(name: str, number: int = 0) -> Result:
    return record(name).results[number]


def label(value: object) -> str:
    return str(value.relative_to(FILES)) if isinstance(value, Path) else str(value)


# Every file


@pytest.mark.parametrize("path", READ, ids=label)
def test_a_file_becomes_records_that_hold(path: Path) -> None:
    found = imports.read(path, said(path))
    assert found.format.name == path.parent.name
    assert found.records
    for one in found.records:
        assert one.provenance.kind == "imported"
        assert one.provenance.source_sha256 == found.sha256
        assert (one.provenance.source or "").startswith(found.format.title)
        assert consistency.own_contradictions(one) == []
        assert one.validity.word != "valid"
        assert bool(one.results) != bool(one.raw)
        again = parse_record(record_text(one), "again.yaml")
        assert again == one
        for each in one.results:
            assert "samples" in each.validity.unverified
            assert set(each.validity.unverified + each.validity.unchecked) <= set(checks.HINTS)


@pytest.mark.parametrize("path", READ, ids=label)
def test_a_file_is_recognised_as_one_format_and_no_other(path: Path) -> None:
    text = document.read(path)
    assert [f.name for f in imports.formats().values() if f.matches(text)] == [path.parent.name]


@pytest.mark.parametrize("path", READ, ids=label)
def test_records_hold_no_path_host_or_address(path: Path) -> None:
    for one in records(path):
        text = record_text(one)
        assert not re.search(r"https?://|127\.0\.0\.1|10\.1\.2\.3|someone|/srv|/data|/models", text)


@pytest.mark.parametrize("path", READ, ids=label)
def test_the_same_file_gives_the_same_records(path: Path) -> None:
    assert records(path) == records(path)


def test_every_format_has_a_file() -> None:
    assert {path.parent.name for path in READ} == set(imports.names())


def test_every_mark_is_explained() -> None:
    assert set(checks.HINTS) >= MARKS
    for one in imports.formats().values():
        codes = {*one.codes, *(code for take in one.takes for code in take.codes)}
        assert codes <= set(checks.HINTS)


# Each tool


def test_vllms_bench() -> None:
    told = json.loads((FILES / "vllm-bench/plain.json").read_text())
    one = result("vllm-bench/plain.json")
    assert one.ttft_s and one.tpot_s and one.output_tok_per_s and one.system_tok_per_s
    assert one.ttft_s.median == pytest.approx(told["median_ttft_ms"] / 1000, rel=1e-5)
    assert one.tpot_s.median == pytest.approx(told["median_tpot_ms"] / 1000, rel=1e-5)
    assert one.output_tok_per_s.median == pytest.approx(1000 / told["median_tpot_ms"], rel=1e-5)
    assert one.system_tok_per_s.median == pytest.approx(told["output_throughput"], rel=1e-5)
    assert (one.concurrency, one.load, one.requests) == (2, "closed", 4)
    assert {"chunks_at_once", "token_count_unverified"} <= {*one.validity.unverified}


def test_vllms_bench_with_its_requests() -> None:
    told = json.loads((FILES / "vllm-bench/detailed.json").read_text())
    one = result("vllm-bench/detailed.json")
    assert one.ttft_s and one.prompt_tokens
    assert one.ttft_s.min == pytest.approx(min(told["ttfts"]), rel=1e-5)
    assert one.ttft_s.max == pytest.approx(max(told["ttfts"]), rel=1e-5)
    assert one.ttft_s.n == len(told["ttfts"])
    assert one.prompt_tokens.median == statistics.median(told["input_lens"])
    assert (one.load, one.rate_per_s) == ("poisson", 4.0)
    assert "mean_not_median" not in one.validity.unverified


def test_runs_that_were_appended_to_one_file_are_results_of_one_record(tmp_path: Path) -> None:
    told = json.loads((FILES / "vllm-bench/plain.json").read_text())
    lines = [told | {"max_concurrency": number} for number in (1, 2, 4, 4, 4)]
    lines[-1] |= {"median_ttft_ms": told["median_ttft_ms"] + 1}
    path = tmp_path / "appended.json"
    path.write_text("\n".join(map(json.dumps, lines)))
    first, again = imports.read(path, Stated()).records
    assert [r.concurrency for r in first.results] == [1, 2, 4]
    assert [r.concurrency for r in again.results] == [4], (
        "measured twice is two records, twice there one"
    )
    assert first.id != again.id


def test_requests_that_failed_make_a_result_invalid(tmp_path: Path) -> None:
    told = json.loads((FILES / "vllm-bench/plain.json").read_text())
    path = tmp_path / "failed.json"
    path.write_text(json.dumps(told | {"completed": 3, "failed": 1}))
    [one] = imports.read(path, Stated()).records
    assert one.results[0].request_errors == 1
    assert one.results[0].validity.reasons == ["request_errors"]
    assert one.validity.word == "invalid"


def test_llama_bench_in_all_its_forms_says_the_same() -> None:
    """Runs of the same command; forms without repetitions have a mean, and it is marked."""
    shapes = [("pp64", 64, 0, 0), ("tg16", 0, 16, 0)]
    shapes += [("pp64 @ d128", 64, 0, 128), ("tg16 @ d128", 0, 16, 128)]
    for form in ("json", "jsonl", "csv", "sql", "md"):
        one = record(f"llama-bench/gemma.{form}")
        assert [
            (r.test, r.prompt_tokens, r.output_tokens, r.depth_tokens) for r in one.raw
        ] == shapes
        has_all = form in ("json", "jsonl")
        assert {r.tok_per_s.is_mean for r in one.raw} == {not has_all}
        assert ("mean_not_median" in one.validity.unverified) is not has_all
        assert (one.model.quant, one.backend.build) == ("Q4_K_M", "b11434")
        assert "pp64+tg16" in (one.notes or ""), "a rate over both is left out, and said so"
        assert one.backend.api is None, "the build's backend is not what computed"


def test_llama_bench_medians_are_of_its_repetitions() -> None:
    rows = json.loads((FILES / "llama-bench/gemma.json").read_text())
    one = record("llama-bench/gemma.json")
    first = one.raw[0].tok_per_s
    assert first.median == pytest.approx(statistics.median(rows[0]["samples_ts"]), rel=1e-5)
    assert first.n == len(rows[0]["samples_ts"])
    assert one.rig.cpu.model == rows[0]["cpu_info"]
    assert one.rig.facts_from == "file"
    assert one.provenance.started_at == min(row["test_time"] for row in rows)


def test_each_configuration_is_a_record() -> None:
    found = records(FILES / "llama-bench/threads-and-flash-attention.jsonl")
    told = [(one.backend.resolved.threads, one.backend.resolved.flash_attention) for one in found]
    assert sorted(told, key=str) == [(1, "off"), (1, "on"), (2, "off"), (2, "on")]
    assert {one.model.family for one in records(FILES / "llama-bench/two-models.md")} == {
        "llama",
        "gemma3",
    }


def test_batched_bench_rates_are_of_all_sequences_at_their_depth() -> None:
    text = (FILES / "llama-batched-bench/smollm2.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    one = record("llama-batched-bench/smollm2.jsonl")
    assert [(r.test, r.concurrency) for r in one.raw][:2] == [("pp64", 1), ("tg16 @ d64", 1)]
    assert one.raw[-1].concurrency == 4
    assert one.raw[-1].tok_per_s.median == pytest.approx(rows[-1]["speed_tg"], rel=1e-5)
    table = record("llama-batched-bench/smollm2.md")
    assert [r.test for r in table.raw] == [r.test for r in one.raw]
    assert one.provenance.stated == ["model"]


def test_sglangs_bench_tells_its_server() -> None:
    one = record("sglang-bench/concurrency.jsonl")
    assert (one.backend.engine, one.backend.build) == ("SGLang", "0.5.2")
    assert (one.model.family, one.model.variant) == ("Llama-3.1", "8B-Instruct")
    assert [r.workload.name for r in one.results] == ["sglang-bench-256-32"] * 2
    rate = record("sglang-bench/rate.jsonl")
    assert rate.backend.engine == "unknown", "a dialect is not the engine behind it"
    assert (rate.results[0].load, rate.results[0].rate_per_s) == ("poisson", 2.5)


def test_guidellm_medians_are_of_its_requests() -> None:
    told = json.loads((FILES / "guidellm/concurrency-2.json").read_text())
    requests = told["benchmarks"][0]["requests"]["successful"]
    one = result("guidellm/concurrency-2.json")
    assert one.tpot_s and one.ttft_s
    middle = statistics.median(r["inter_token_latency_ms"] for r in requests)
    assert one.tpot_s.median == pytest.approx(middle / 1000, rel=1e-5)
    assert (one.tpot_s.n, one.ttft_s.n, one.concurrency) == (3, 3, 2)


def test_guidellm_without_its_requests_is_weighted_by_tokens(tmp_path: Path) -> None:
    """Of 0.2: the server's address and the model's folder stay where they are."""
    one = record("guidellm/schema-0.2.json")
    assert (one.model.family, one.model.quant) == ("Qwen2.5", "AWQ")
    first = one.results[0]
    assert "weighted_by_tokens" in first.validity.unverified
    assert "tpot_with_ttft" not in first.validity.unverified
    assert first.output_tok_per_s
    assert first.output_tok_per_s.min == pytest.approx(1000 / 24.8, rel=1e-4)
    told = json.loads((FILES / "guidellm/schema-0.2.json").read_text())
    told["benchmarks"][0]["metrics"]["inter_token_latency_ms"]["successful"] = None
    path = tmp_path / "tpot.json"
    path.write_text(json.dumps(told))
    [other] = imports.read(path, Stated()).records
    assert "tpot_with_ttft" in other.results[0].validity.unverified
    assert other.results[0].tpot_s and other.results[0].tpot_s.median == pytest.approx(0.0234)


def test_aiperf() -> None:
    told = json.loads((FILES / "aiperf/profile_export_aiperf.json").read_text())
    one = result("aiperf/profile_export_aiperf.json")
    assert one.tpot_s and one.output_tok_per_s and one.icl_s and one.prefill_tok_per_s
    assert one.tpot_s.median == pytest.approx(told["inter_token_latency"]["p50"] / 1000, rel=1e-5)
    assert one.icl_s.p99 == pytest.approx(told["inter_chunk_latency"]["p99"] / 1000, rel=1e-5)
    assert (one.concurrency, one.requests, one.prefill_source) == (2, 4, "ttft_derived")
    assert "prefill_from_ttft" in one.validity.unverified
    table = result("aiperf/profile_export_aiperf.csv")
    assert table.tpot_s and table.tpot_s.median == pytest.approx(0.12938)


def test_llama_benchys_tokens_are_chunks() -> None:
    told = json.loads((FILES / "llama-benchy/smollm2.json").read_text())
    one = record("llama-benchy/smollm2.json")
    assert len(one.results) == len(told["benchmarks"])
    first = one.results[0]
    assert first.output_tok_per_s and "chunks_as_tokens" in first.validity.unverified
    values = told["benchmarks"][0]["tg_req_throughput"]["values"]
    assert first.output_tok_per_s.median == pytest.approx(statistics.median(values), rel=1e-5)
    assert {r.depth_tokens for r in one.results} == {0, 128}


def test_ollamas_rates_are_by_its_own_clock() -> None:
    one = result("ollama/verbose.txt")
    assert one.output_tok_per_s and one.requests == 2
    assert one.output_tok_per_s.max == pytest.approx(126.92, abs=0.01)
    assert one.output_tok_per_s.min == pytest.approx(120.60, abs=0.01)
    assert {"engine_clock", "cache_untold"} <= {*one.validity.unverified}
    chat = result("ollama/chat.ndjson")
    assert chat.output_tok_per_s
    assert chat.output_tok_per_s.median == pytest.approx(281 / 2.0943, rel=1e-5)


def test_localscore_and_mlperf_client_are_engines_own_benchmarks() -> None:
    one = record("localscore/results.json")
    assert (one.model.quant, one.rig.gpus[0].name) == ("Q4_K_M", "NVIDIA GeForce RTX 5070")
    assert [r.test for r in one.raw][:2] == ["pp1024", "tg16 @ d1024"]
    assert one.raw[0].ttft_s and one.raw[0].ttft_s.median == pytest.approx(0.2195)
    first, second = records(FILES / "mlperf-client/results.json")
    assert first.raw[0].test == "content-generation"
    assert first.raw[0].tok_per_s.is_mean and first.raw[0].tok_per_s.n == 3
    assert "Agentic" in (second.notes or "")
    for each in (one, first, second):
        assert not each.results and "mean_not_median" in each.validity.unverified


def test_llmfits_rate_is_what_its_provider_gives() -> None:
    whole, own = records(FILES / "llmfit/share.json")
    assert whole.results[0].output_tok_per_s is None
    assert (
        whole.results[0].end_to_end_tok_per_s and "no_rate" in whole.results[0].validity.unverified
    )
    assert "engine_clock" in own.results[0].validity.unverified
    assert own.results[0].ttft_s is None, "a prompt time is no time to a first token"
    runs = result("llmfit/bench.json")
    assert runs.output_tok_per_s and not runs.output_tok_per_s.is_mean
    assert runs.output_tok_per_s.median == 167.1


def test_a_table_of_ones_own() -> None:
    first, second = records(FILES / "csv/table.csv")
    assert [r.concurrency for r in first.results] == [1, 4]
    assert first.results[0].ttft_s and first.results[0].ttft_s.is_mean
    assert second.results[0].depth_tokens == 4096
    assert second.model.quant == "Q8_0"


# What a user adds


def test_what_a_user_says_is_marked() -> None:
    text = FILES / "llama-bench/gemma.md"
    [one] = imports.read(text, Stated(model=named("gemma-3-270m-it-Q4_K_M.gguf"))).records
    assert one.provenance.stated == ["model"]
    assert (one.model.family, one.model.file) == ("gemma-3", "gemma-3-270m-it-Q4_K_M.gguf")
    assert "the file calls the model gemma3 270M" in (one.notes or "")


def test_another_model_than_the_files_is_refused() -> None:
    with pytest.raises(ImportRefused, match="in Q4_K_M, --model in Q8_0"):
        imports.read(FILES / "llama-bench/gemma.md", Stated(model=named("gemma-Q8_0.gguf")))
    with pytest.raises(ImportRefused, match="several models"):
        imports.read(FILES / "llama-bench/two-models.md", MODEL)


# Files that are none


def refusal(tmp_path: Path, text: str | bytes, name: str = "x.json", **more: Any) -> str:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        imports.read(path, Stated(), **more)
    return f"{caught.value.message} | {caught.value.hint}"


def test_files_that_are_none_are_told_apart(tmp_path: Path) -> None:
    whole = (FILES / "vllm-bench/plain.json").read_text()
    assert "is empty" in refusal(tmp_path, "  \n")
    assert "ends too early" in refusal(tmp_path, whole[: len(whole) // 2])
    assert "not UTF-8" in refusal(tmp_path, b"\xc3\x28 {}")
    assert "no text file" in refusal(tmp_path, b"MZ\0\0{}")
    assert "nested too deeply" in refusal(tmp_path, "[" * 100_000)
    assert "of no tool" in refusal(tmp_path, '{"accuracy": 1}')
    assert "stands there twice" in refusal(tmp_path, '{"a": 1, "a": 2}')
    assert "x.json:2: not JSON" in refusal(tmp_path, '{"a": 1}\nand then')
    missing = json.loads(whole)
    del missing["duration"]
    assert "most like vllm bench serve" in refusal(tmp_path, json.dumps(missing))
    assert "digits" in refusal(tmp_path, '{"a": ' + "9" * 10_000 + "}")
    assert "does not end" in refusal(tmp_path, gzip.compress(whole.encode())[:-20])


def test_a_large_file_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document, "MAX_BYTES", 1000)
    assert "larger than" in refusal(tmp_path, "[" + "1," * 1000 + "1]")
    assert "larger than" in refusal(tmp_path, gzip.compress(b"[" + b"1," * 100_000 + b"1]"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_encodings_and_line_ends_read_the_same(tmp_path: Path, encoding: str) -> None:
    """A redirection in older Windows shells writes UTF-16."""
    for name in ("llama-bench/gemma.jsonl", "llama-bench/gemma.md", "csv/table.csv"):
        original = FILES / name
        other = tmp_path / original.name
        text = original.read_text(encoding="utf-8").replace("\n", "\r\n")
        other.write_bytes(text.encode(encoding))
        figures = [(r.results, r.raw) for r in records(original)]
        assert [(r.results, r.raw) for r in imports.read(other, Stated()).records] == figures


def test_a_gzip_file_reads_the_same(tmp_path: Path) -> None:
    original = FILES / "guidellm/concurrency-2.json"
    packed = tmp_path / "benchmarks.json.gz"
    packed.write_bytes(gzip.compress(original.read_bytes()))
    assert imports.read(packed, Stated()).records[0].results == records(original)[0].results


@pytest.mark.parametrize("number", ["212,4", "1.212,4", "1,212.4", "1 212", "٢١٢", "212.4 tok/s"])
def test_numbers_of_other_languages_are_not_guessed(tmp_path: Path, number: str) -> None:
    text = f"family;output_tok_per_s_median\nGemma;{number}\n"
    assert "should be a number" in refusal(tmp_path, text, "t.csv")


def test_a_column_that_nobody_knows_is_told_the_nearest(tmp_path: Path) -> None:
    text = "family,output_tok_per_s_median,ttft_s_medain\nGemma,1,2\n"
    told = refusal(tmp_path, text, "t.csv")
    assert "t.csv:1" in told and "did you mean 'ttft_s_median'" in told


def test_the_wrong_format_is_told_the_right_one(tmp_path: Path) -> None:
    text = (FILES / "llmfit/share.json").read_text()
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ImportRefused, match="not a file of GuideLLM; it looks like llmfit bench"):
        imports.read(path, Stated(), "guidellm")
    with pytest.raises(InputError, match="unknown"):
        imports.read(path, Stated(), "guidelm")


# A format is one file


def test_another_format_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed, recognised, read: nothing else has to know it."""
    part = tmp_path / "made_up.py"
    part.write_text(
        "from tokrig.exchange.format import *\n"
        "from tokrig.record.model import BackendFacts, Model\n"
        "TAKES = (Take('rate', 'output_tok_per_s.median'),)\n"
        "def _read(document):\n"
        "    for one in objects(document):\n"
        "        figures, codes = figures_of(one, TAKES)\n"
        "        made = result_of(figures, codes, workload=shape('made-up', 1, 2), concurrency=1)\n"
        "        backend = BackendFacts(name='m', engine='e')\n"
        "        yield Found(Model(family='M'), backend, results=[made])\n"
        "FORMAT = Format('made-up', 'Made up', 'x', frozenset({'json'}),\n"
        "    (frozenset({'made_up'}),), _read, TAKES)\n"
    )
    import tokrig.exchange.formats as package

    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    known = registry.names("exchange.formats")
    monkeypatch.setattr(registry, "names", lambda of: [*known, "made_up"])
    imports.formats.cache_clear()
    try:
        path = tmp_path / "x.json"
        path.write_text('{"made_up": 1, "rate": 12.5}')
        [one] = imports.read(path, Stated()).records
    finally:
        imports.formats.cache_clear()
    assert one.id.startswith("import-made-up-")
    assert one.results[0].output_tok_per_s and one.results[0].output_tok_per_s.median == 12.5


# The command


def tokrig(*words: str) -> Done:
    return CliRunner().invoke(main, words)


def test_files_are_imported_once(tmp_path: Path) -> None:
    words = ["import", str(FILES / "llmfit/share.json"), "--content", str(tmp_path)]
    done = tokrig(*words, "--dry-run")
    assert done.exit_code == 0 and "would be written" in done.stdout
    assert not (tmp_path / "benchmarks").exists()
    assert tokrig(*words).exit_code == 0
    found = sorted(tmp_path.rglob("*.yaml"))
    before = [path.read_bytes() for path in found]
    assert len(found) == 2 and not list(tmp_path.rglob("*.parquet"))
    again = tokrig(*words)
    assert again.exit_code == 0 and again.stdout.count("already there") == 2
    assert [path.read_bytes() for path in sorted(tmp_path.rglob("*.yaml"))] == before
    checked = tokrig("check", "--content", str(tmp_path))
    assert checked.exit_code == 0 and "2 unverified" in checked.stdout
    other = tokrig(*words, "--model", "Gemma", "--json")
    assert other.exit_code == 2 and "several models" in other.stderr
    loaded = load(Store(tmp_path), cache=tmp_path / "cache")
    assert {run.record.validity.word for run in loaded.runs} == {"unverified"}


def test_several_files_are_handled_each(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    files = [FILES / "csv/table.csv", broken, FILES / "llmfit/bench.json", FILES / "csv/table.csv"]
    done = tokrig("import", *map(str, files), "--content", str(tmp_path), "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert told["ok"] is False
    assert [bool(one["error"]) for one in told["files"]] == [False, True, False, True]
    assert "the same file as" in told["files"][3]["error"]["message"]
    assert len(list(tmp_path.rglob("import-*.yaml"))) == 3


def test_the_rig_is_one_that_is_described(tmp_path: Path) -> None:
    words = ["import", str(FILES / "llama-bench/gemma.json"), "--content", str(tmp_path)]
    done = tokrig(*words, "--rig", "my-rig")
    assert done.exit_code == 2 and "rigs/my-rig.md" in done.stderr
    page = tmp_path / "rigs" / "my-rig.md"
    page.parent.mkdir(parents=True)
    page.write_text("---\nhardware: {cpu: {model: AMD Ryzen 9 7900}}\n---\nMine.\n")
    assert tokrig(*words, "--rig", "my-rig").exit_code == 0
    [path] = tmp_path.rglob("import-*.yaml")
    one = Store(tmp_path).read(path)
    assert (one.rig.id, one.rig.facts_from, one.provenance.stated) == ("my-rig", "user", ["rig"])
    other = tokrig(*words)
    assert other.exit_code == 2 and "imported before" in other.stderr


def test_a_mean_is_told_wherever_its_number_stands(tmp_path: Path) -> None:
    words = [str(FILES / "localscore/results.json"), "--content", str(tmp_path)]
    assert tokrig("import", *words).exit_code == 0
    [path] = tmp_path.rglob("import-*.yaml")
    shown = tokrig("show", path.stem, "--content", str(tmp_path)).stdout
    assert "ø 4,8" in shown and "ø means of its repetitions" in shown and "medians" not in shown
    one = Store(tmp_path).read(path)
    assert formats.spread(one.raw[0].tok_per_s) == "a mean"
