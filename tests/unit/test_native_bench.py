"""Raw engine figures: recorded outputs of the real programs, their command lines, a whole run."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result

from tokrig.cli import raw as cli
from tokrig.cli.main import main
from tokrig.errors import InputError, RequestError
from tokrig.native_bench import TOOLS, BenchFound, BenchLaunch, BenchTool
from tokrig.record import checks, consistency
from tokrig.record.checks import judge_raw
from tokrig.record.model import BackendFacts, Model, Record, Rig
from tokrig.run.native_bench import RawRun, execute_raw, find_binary
from tokrig.run.progress import Progress, Step
from tokrig.store import Store

DATA = Path(__file__).parents[1] / "data" / "raw"
NONE, VULKAN = "llama-bench-devices-none", "llama-bench-devices-vulkan"


def text(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


def tool_of(name: str) -> BenchTool:
    """The tool whose output this is."""
    return TOOLS["llama-batched-bench" if name.startswith("llama-batched") else "llama-bench"]


def launch_of(tool: BenchTool, listing: str = NONE, **given: Any) -> BenchLaunch:
    answers = (
        text(f"{tool.name}-help.txt"),
        text("llama-bench-version.txt"),
        text(f"{listing}.txt"),
    )
    return BenchLaunch(tool.name, Path("model.gguf"), answers=answers, **given)


def read(name: str, **given: Any) -> BenchFound:
    tool = tool_of(name)
    return tool.read(text(f"{name}.jsonl"), text(f"{name}.log"), launch_of(tool, **given))


# What the programs printed


@pytest.mark.parametrize(
    ("name", "api", "confirmed", "devices"),
    [
        ("llama-bench-cpu", "cpu", True, []),
        ("llama-bench-vulkan", "vulkan", True, ["Vulkan0"]),
        ("llama-bench-vulkan-no-device", "cpu", True, []),
        ("llama-bench-vulkan-ngl-0", "cpu", False, []),
        ("llama-batched-bench-cpu", "cpu", True, []),
        ("llama-batched-bench-vulkan", "vulkan", True, ["Vulkan0"]),
    ],
)
def test_the_api_is_what_computed(name: str, api: str, confirmed: bool, devices: list[str]) -> None:
    if name.startswith("llama-bench"):
        assert '"backends": "Vulkan"' in text(f"{name}.jsonl")  # whatever computed
    found = read(name)
    assert (found.api, found.api_confirmed, found.resolved.devices) == (api, confirmed, devices)
    assert found.build == "b11434"
    assert found.spilled is False


def test_without_a_log_no_api_is_claimed() -> None:
    tool = tool_of("llama-bench")
    found = tool.read(text("llama-bench-cpu.jsonl"), "", launch_of(tool))
    assert (found.api, found.api_confirmed, found.spilled) == (None, None, None)


def test_the_figure_is_the_median_of_the_repetitions_not_their_mean() -> None:
    prompt, output, both = read("llama-bench-vulkan-no-device").raw
    assert prompt.test == "pp64"
    assert (prompt.tok_per_s.median, prompt.tok_per_s.n) == (171.614, 3)
    assert (prompt.tok_per_s.min, prompt.tok_per_s.max) == (153.574, 241.984)
    assert '"avg_ts": 189.057566' in text("llama-bench-vulkan-no-device.jsonl")
    assert (output.test, output.output_tokens, output.prompt_tokens) == ("tg16", 16, 0)
    assert (both.test, both.prompt_tokens, both.output_tokens) == ("pp16+tg4", 16, 4)


def test_a_depth_is_part_of_the_test() -> None:
    found = read("llama-bench-depth")
    tests = ["pp64", "tg8", "pp64 @ d512", "tg8 @ d512"]
    assert [one.test for one in found.raw] == tests
    assert [one.depth_tokens for one in found.raw] == [0, 0, 512, 512]
    assert found.raw[2].tok_per_s.median == pytest.approx((10.7191 + 9.55551) / 2)
    assert (found.api, found.api_confirmed) == ("cpu", True)
    line = "llama-bench: benchmark 3/4: depth run 1/2"
    assert tool_of("llama-bench").progress(line) == "test 3/4: depth run 1/2"
    assert line in text("llama-bench-depth.log")


def test_sequences_at_once_have_their_rates_together() -> None:
    found = {(one.test, one.concurrency): one for one in read("llama-batched-bench-cpu").raw}
    assert len(found) == 6
    assert found["pp32", 4].tok_per_s.median == 120.122
    generation = found["tg8 @ d32", 4]
    assert (generation.depth_tokens, generation.tok_per_s.n) == (32, 1)
    assert generation.tok_per_s.min == generation.tok_per_s.max == generation.tok_per_s.median
    assert found["pp32+tg8", 1].tok_per_s.median == 92.3078


def test_settings_are_those_of_the_run() -> None:
    found = read("llama-bench-vulkan").resolved
    assert (found.threads, found.batch, found.ubatch, found.cache_type_k) == (2, 2048, 512, "f16")
    assert (found.flash_attention, found.gpu_layers) == ("enabled", 31)


def test_fewer_layers_than_asked_are_a_spill() -> None:
    tool = tool_of("llama-bench")
    log = text("llama-bench-vulkan.log").replace("offloaded 31/31", "offloaded 20/31")
    stdout = text("llama-bench-vulkan.jsonl")
    assert tool.read(stdout, log, launch_of(tool)).spilled is True
    assert tool.read(stdout, log, launch_of(tool, options={"ngl": 99})).spilled is True
    assert tool.read(stdout, log, launch_of(tool, options={"n_gpu_layers": 20})).spilled is False


GOOD = json.loads(text("llama-bench-cpu.jsonl").splitlines()[0])


@pytest.mark.parametrize(
    "stdout",
    [
        "",
        "no figures at all\n",
        "{broken\n",
        "{}\n",
        json.dumps(GOOD | {"samples_ts": []}),
        json.dumps(GOOD | {"samples_ts": [-3.0]}),
        json.dumps(GOOD | {"samples_ts": [0.0]}),
        json.dumps(GOOD | {"samples_ts": [float("inf")]}),
        json.dumps(GOOD | {"samples_ts": "fast"}),
        json.dumps(GOOD | {"n_prompt": -1}),
        json.dumps(GOOD | {"n_batch": -1}),
        json.dumps(GOOD | {"type_k": 7}),
    ],
)
def test_nonsense_is_no_figure(stdout: str) -> None:
    tool = tool_of("llama-bench")
    with pytest.raises(RequestError):
        tool.read(stdout, "", launch_of(tool))


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        ("llama-bench", "llama-bench: benchmark 1/2: prompt run 2/5", "test 1/2: prompt run 2/5"),
        ("llama-bench", "sched_reserve: CPU compute buffer size = 12.74 MiB", None),
        ("llama-batched-bench", '{"pp": 32, "tg": 8, "pl": 4}', "pp32+tg8 × 4: measured"),
        ("llama-batched-bench", "{half a li", None),
        ("llama-batched-bench", "0.00.1 I load_tensors", None),
    ],
)
def test_progress(name: str, line: str, told: str | None) -> None:
    assert tool_of(name).progress(line) == told


# How they are asked


def test_the_command_line_of_llama_bench() -> None:
    tool = tool_of("llama-bench")
    launch = launch_of(
        tool,
        VULKAN,
        prompt_tokens=(512, 2048),
        output_tokens=(),
        repetitions=3,
        threads=8,
        api="vulkan",
        options={"ngl": 20, "flash_attn": "on", "pg": "512,128", "no-warmup": True},
        depth_tokens=(0, 4096),
    )
    tool.vet(launch)
    line = " ".join(tool.command(launch))
    assert line == (
        "llama-bench -m model.gguf -p 512,2048 -n 0 -d 0,4096 -r 3 -t 8 -dev Vulkan0 -o jsonl -v"
        " --progress -ngl 20 --flash-attn on -pg 512,128 --no-warmup"
    )


def test_the_command_line_of_llama_batched_bench() -> None:
    tool = tool_of("llama-batched-bench")
    launch = launch_of(
        tool, prompt_tokens=(512,), output_tokens=(32, 128), concurrency=(1, 4), api="cpu"
    )
    tool.vet(launch)
    line = " ".join(tool.command(launch))
    assert line == (
        "llama-batched-bench -m model.gguf -c 2560 -npp 512 -ntg 32,128 -npl 1,4 -dev none"
        " --output-format jsonl -lv 4 --fit off"
    )


def test_an_api_without_a_device_runs_and_is_flagged_later() -> None:
    tool = tool_of("llama-bench")
    launch = launch_of(tool, NONE, api="vulkan")
    tool.vet(launch)
    assert "-dev" not in tool.command(launch)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("llama-bench", {"api": "cuda"}, "built without cuda"),
        ("llama-bench", {"devices": ("CUDA0",)}, "no device 'CUDA0'"),
        ("llama-bench", {"devices": ("Vulkan0",), "api": "cpu"}, "is not a cpu device"),
        ("llama-bench", {"concurrency": (1, 4)}, "one sequence at a time"),
        ("llama-bench", {"options": {"ngl": "0,99"}}, "several values"),
        ("llama-bench", {"options": {"t": 4}}, "set by tokrig itself"),
        ("llama-bench", {"options": {"--n-gen": 4}}, "set by tokrig itself"),
        ("llama-bench", {"options": {"nglx": 4}}, "has no option 'nglx'"),
        ("llama-batched-bench", {"repetitions": 5}, "measures each test once"),
        ("llama-batched-bench", {"depth_tokens": (0, 4096)}, "it generates behind each of its"),
        ("llama-bench", {"options": {"d": 4096}}, "is set by tokrig itself"),
        ("llama-batched-bench", {"output_tokens": ()}, "at least one token"),
        ("llama-batched-bench", {"options": {"ctx_size": 64}}, "set by tokrig itself"),
    ],
)
def test_what_cannot_be_is_refused(name: str, given: dict[str, Any], said: str) -> None:
    tool = tool_of(name)
    launch = launch_of(tool, VULKAN, **given)

    def vet() -> None:
        tool.vet(launch)
        tool.command(launch)

    with pytest.raises(InputError, match=said) as refusal:
        vet()
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("change", "said"),
    [("jsonl", "too old for '-o jsonl'"), ("--n-gen", "too old for --n-gen")],
)
def test_a_program_too_old_is_told_by_the_flag(change: str, said: str) -> None:
    tool = tool_of("llama-bench")
    launch = launch_of(tool)
    old = launch.answers[0].replace(change, "xxx")
    with pytest.raises(InputError, match=said):
        tool.vet(replace(launch, answers=(old, *launch.answers[1:])))


# The verdict

CPU = BackendFacts(name="llama-bench", engine="llama.cpp", api="cpu", api_confirmed=True)
FINE = dict.fromkeys(checks.UNLOOKED, False)


def test_a_finished_run_with_figures_is_valid() -> None:
    found = judge_raw(2, CPU, FINE, complete=True)
    assert (found.verdict, found.reasons, found.unverified, found.unchecked) == (
        "valid",
        [],
        [],
        [],
    )


@pytest.mark.parametrize(
    ("backend", "seen", "complete", "reason"),
    [
        (CPU.model_copy(update={"api_asked": "vulkan"}), FINE, True, "api_not_confirmed"),
        (CPU, FINE | {"throttled": True}, True, "throttled"),
        (CPU, FINE | {"foreign_gpu_load": True}, True, "foreign_gpu_load"),
        (CPU, FINE | {"foreign_cpu_load": True}, True, "foreign_cpu_load"),
        (CPU, FINE | {"cpu_spill": True}, True, "cpu_spill"),
        (CPU, FINE, False, "incomplete"),
    ],
)
def test_what_speaks_against_it(
    backend: BackendFacts, seen: dict[str, bool | None], complete: bool, reason: str
) -> None:
    found = judge_raw(2, backend, seen, complete=complete)
    assert (found.verdict, found.reasons) == ("invalid", [reason])


def test_what_could_not_be_looked_at() -> None:
    mixed = CPU.model_copy(update={"api_confirmed": False})
    found = judge_raw(2, mixed, dict.fromkeys(checks.UNLOOKED), complete=True)
    assert found.verdict == "unverified"
    assert found.unverified == ["api_unverified"]
    assert found.unchecked == ["scheduling", "throttle", "gpu_processes", "vram_fit"]


# A whole run, of a program that prints what the real one printed

FAKE = """#!{python}
import pathlib, sys, time
data, end = pathlib.Path({data!r}), {end!r}
words = " ".join(sys.argv[1:])
for asked, name in (("--help", "llama-bench-help.txt"), ("--version", "llama-bench-version.txt"),
                    ("--list-devices", "llama-bench-devices-none.txt")):
    if words == asked:
        print((data / name).read_text())
        sys.exit()
lines = (data / "{name}.jsonl").read_text().splitlines()
sys.stderr.write((data / "{name}.log").read_text())
sys.stderr.flush()
for line in lines[: 1 if end else None]:
    print(line, flush=True)
if end == "hang":
    time.sleep(600)
if end == "fail":
    sys.exit("error: failed to allocate 9 GiB in /home/somebody/llama")
"""


def fake(folder: Path, name: str = "llama-bench-vulkan-no-device", end: str = "") -> Path:
    path = folder / "llama-bench"
    path.write_text(FAKE.format(python=sys.executable, data=str(DATA), name=name, end=end))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def run_of(binary: Path, limit_s: float = 30.0, **given: Any) -> RawRun:
    tool = tool_of("llama-bench")
    launch = replace(launch_of(tool, **given), binary=str(binary))
    return RawRun(
        run_id="20261122-120000-tiny-llama-bench-aaaa",
        tool=tool,
        launch=launch,
        model=Model(family="Tiny"),
        rig=Rig(id="test-rig"),
        started=datetime(2026, 11, 22, 12, tzinfo=UTC),
        limit_s=limit_s,
    )


def test_a_run_becomes_a_record_that_holds_itself(tmp_path: Path) -> None:
    heard: list[Progress] = []
    outcome = execute_raw(run_of(fake(tmp_path)), heard.append)
    record = outcome.record
    assert outcome.error is None
    assert (record.status, record.validity.verdict, record.results) == ("complete", "valid", [])
    assert [one.test for one in record.raw] == ["pp64", "tg16", "pp16+tg4"]
    assert (record.backend.name, record.backend.api) == ("llama-bench", "cpu")
    assert record.backend.argv is not None
    assert not any("/" in word for word in record.backend.argv)
    assert Step("test 1/3: prompt run 2/3") in heard
    assert consistency.contradictions(record, []) == []


def test_the_trap_is_seen(tmp_path: Path) -> None:
    record = execute_raw(run_of(fake(tmp_path), api="vulkan"), lambda event: None).record
    assert (record.backend.api, record.backend.api_asked) == ("cpu", "vulkan")
    assert record.validity.reasons == ["api_not_confirmed"]
    assert consistency.contradictions(record, []) == []


def test_a_verdict_that_does_not_follow_is_found(tmp_path: Path) -> None:
    record = execute_raw(run_of(fake(tmp_path), api="vulkan"), lambda event: None).record
    whitewashed = record.validity.model_copy(update={"verdict": "valid", "reasons": []})
    assert consistency.contradictions(record.model_copy(update={"validity": whitewashed}), [])


def test_a_failure_keeps_what_was_measured_and_the_reason(tmp_path: Path) -> None:
    outcome = execute_raw(run_of(fake(tmp_path, end="fail")), lambda event: None)
    record = outcome.record
    assert outcome.error is not None
    assert outcome.error.exit_code == 3
    assert (record.status, record.validity.reasons) == ("failed", ["incomplete"])
    assert [one.test for one in record.raw] == ["pp64"]
    assert record.failure is not None
    assert "failed to allocate 9 GiB" in record.failure.message
    assert "somebody" not in record.failure.message + record.failure.log_tail
    assert consistency.contradictions(record, []) == []


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    outcome = execute_raw(run_of(fake(tmp_path, end="hang"), 1.0), lambda event: None)
    assert time.monotonic() - began < 120
    assert outcome.record.failure is not None
    assert outcome.record.failure.code == "timeout"
    assert psutil.Process().children(recursive=True) == []


def test_no_figures_are_a_failure(tmp_path: Path) -> None:
    path = fake(tmp_path)
    path.write_text(f"#!{sys.executable}\nprint('hello')\n")
    outcome = execute_raw(run_of(path), lambda event: None)
    assert outcome.record.status == "failed"
    assert outcome.record.failure is not None
    assert "printed no figures" in outcome.record.failure.message
    assert consistency.contradictions(outcome.record, []) == []


def test_an_interrupted_program_is_stopped(tmp_path: Path) -> None:
    def interrupt(event: Progress) -> None:
        if event == Step("test 1/3: starting"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute_raw(run_of(fake(tmp_path, end="hang")), interrupt)
    assert psutil.Process().children(recursive=True) == []


def test_the_program_is_found_beside_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, program = tool_of("llama-bench"), fake(tmp_path)
    server = tmp_path / "llama-server"
    server.write_text("")
    for given in (program, server, tmp_path):
        assert find_binary(tool, str(given)) == str(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary(tool, None) == str(program)
    assert find_binary(tool, "llama-bench") == str(program)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    for missing in (None, str(tmp_path / "empty" / "llama-server")):
        with pytest.raises(InputError, match="no runnable llama-bench"):
            find_binary(tool, missing)


# The command


def tokrig(tmp_path: Path, *words: str) -> Result:
    env = {"TOKRIG_CONTENT": str(tmp_path / "content"), "TOKRIG_STATE": str(tmp_path / "state")}
    return CliRunner(env=env | {"COLUMNS": "120"}).invoke(main, words)


def asked(tmp_path: Path, *words: str) -> Result:
    return tokrig(tmp_path, "raw", "--model", "smollm2-135m", "--bin", str(tmp_path), *words)


def test_the_command_stores_shows_checks_and_lists(tmp_path: Path) -> None:
    fake(tmp_path)
    done = asked(tmp_path, "--rig", "my-rig")
    assert done.exit_code == 0
    assert "171.6" in done.stdout
    assert "153.6–242.0" in done.stdout or "154–242" in done.stdout
    assert "test 1/3: prompt run 3/3" in done.stderr
    (path,) = Store(tmp_path / "content").iter_paths()
    assert path.parent.name == "my-rig"
    shown = tokrig(tmp_path, "show", path.stem)
    assert "171.6" in shown.stdout
    assert "no server, no client" in shown.stdout
    assert tokrig(tmp_path, "check").exit_code == 0
    assert path.stem in tokrig(tmp_path, "list", "--json").stdout


def test_json_is_the_record(tmp_path: Path) -> None:
    fake(tmp_path)
    done = asked(tmp_path, "--json", "-q")
    told = json.loads(done.stdout)
    record = Record.model_validate(told["record"])
    assert len(record.raw) == 3
    assert done.stderr == ""


def test_a_dry_run_measures_nothing(tmp_path: Path) -> None:
    fake(tmp_path, end="fail")
    done = asked(tmp_path, "--prompt", "64,128", "--output", "0", "--dry-run")
    assert done.exit_code == 0
    assert "-p 64,128 -n 0 " in done.stdout
    assert not (tmp_path / "content").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prompt", "0", "--output", "0"), "no test to run"),
        (("--prompt", "-5"), "cannot be negative"),
        (("--concurrency", "4"), "one sequence at a time"),
        (("--tool", "llama-bensh"), "unknown"),
        (("--api", "vulcan"), "unknown"),
    ],
)
def test_bad_input_is_told(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    fake(tmp_path)
    done = asked(tmp_path, *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "content").exists()


def test_a_failed_program_leaves_a_record_and_its_log(tmp_path: Path) -> None:
    fake(tmp_path, end="fail")
    done = asked(tmp_path)
    assert done.exit_code == 3
    assert "failed to allocate" in done.stderr
    log = tmp_path / "state" / "failed-engine.log"
    assert str(log) in done.stderr
    assert "failed to allocate" in log.read_text()
    (path,) = Store(tmp_path / "content").iter_paths()
    assert Store(tmp_path / "content").read(path).status == "failed"
    assert tokrig(tmp_path, "check").exit_code == 0


def test_an_interrupt_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hear(event: Progress) -> None:
        os.kill(os.getpid(), 15)
        time.sleep(5)

    fake(tmp_path, end="hang")
    monkeypatch.setattr(cli, "_hear", hear)
    done = asked(tmp_path)
    assert done.exit_code == 130
    assert list(Store(tmp_path / "content").iter_paths()) == []
    assert psutil.Process().children(recursive=True) == []
