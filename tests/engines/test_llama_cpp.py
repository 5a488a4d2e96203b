"""llama.cpp's own programs: what computes is read back, never taken from the request."""

from __future__ import annotations

import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import PATIENT, SOFTWARE_GPU, shared
from tests.integration.cli import Done, Home, is_sound
from tokrig.models import identity
from tokrig.record.samples import Cell
from tokrig.run.opening import opened
from tokrig.run.prepare import prepare
from tokrig.spec.run import RunSpec

CYCLES = 20


def run(home: Home, server: Path, *words: str, env: dict[str, str] | None = None) -> Done:
    """A quick run of the chat shape on a build's server."""
    return home.tokrig(
        *("run", "--backend", "llamacpp", "--server-bin", str(server / "llama-server")),
        *("--model", "smollm2-135m", "--workload", "chat", *words),
        env=env or PATIENT,
    )


def only(home: Home) -> dict[str, Any]:
    [record] = home.records()
    return record


def test_the_cpu_build(home: Home, cpu_build: Path) -> None:
    done = run(home, cpu_build, "--api", "cpu", "--concurrency", "1,4")
    assert done.code == 0, done.err
    record = only(home)
    backend = record["backend"]
    assert (backend["api"], backend["api_confirmed"], backend["build"]) == ("cpu", True, "b11434")
    for result in record["results"]:
        assert is_sound(result["validity"]), result["validity"]
        assert abs(result["server"]["difference"]) <= 0.03
        assert result["cached_tokens"] == 0
    assert home.tokrig("check").code == 0


def test_vulkan_on_a_device_is_confirmed(
    home: Home, vulkan_build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The software device takes half a second a token: one short answer."""
    for name, value in SOFTWARE_GPU.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TOKRIG_STATE", str(home.state))
    spec = RunSpec(
        model="smollm2-135m",
        backend="llamacpp",
        server_bin=str(vulkan_build / "llama-server"),
        api="vulkan",
        workloads=["chat"],
        context=512,
    )
    prepared = prepare(spec, datetime.now(UTC))
    with opened(prepared, home.root / "engine.log") as session:
        engine = session.engine
        assert (engine.api, engine.api_confirmed) == ("vulkan", True)
        assert engine.resolved.gpu_layers == engine.asked_gpu_layers
        assert any(name.startswith("Vulkan0") for name in engine.device_bytes)
        request = session.request([{"role": "user", "content": "Count to three."}], 4)
        [sample] = session.send([request], Cell("chat", 1), "warmup", 0)[0]
        assert sample.error is None
        assert sample.output_tokens == 4


@pytest.mark.parametrize(
    ("env", "options"),
    [(PATIENT, []), (SOFTWARE_GPU, ["--option", "n-gpu-layers=0"])],
    ids=["no device", "no layer"],
)
def test_a_vulkan_build_that_computes_on_the_cpu_is_stopped_before_it_is_measured(
    home: Home, vulkan_build: Path, env: dict[str, str], options: list[str]
) -> None:
    done = run(home, vulkan_build, "--api", "vulkan", *options, env=env)
    assert done.code == 3, done.err
    assert "computes with cpu, not with vulkan" in done.err
    record = only(home)
    assert (record["backend"]["api_asked"], record["results"]) == ("vulkan", [])
    assert record["failure"]["code"] == "other_api"


def test_a_build_without_the_api_is_refused(home: Home, cpu_build: Path) -> None:
    done = run(home, cpu_build, "--api", "vulkan")
    assert done.code == 2, done.err
    assert "vulkan" in done.err.lower()
    assert home.files() == []


def test_no_llama_server(home: Home) -> None:
    done = run(home, Path("/bin"), "--server-bin", "/bin/cat")
    assert done.code == 2, done.err
    assert "llama-server" in done.err


def test_an_unknown_flag_is_named(home: Home, cpu_build: Path) -> None:
    done = run(home, cpu_build, "--option", "warp-drive=9")
    assert done.code == 2, done.err
    assert "--warp-drive" in done.err


def test_a_model_the_engine_cannot_load(home: Home, cpu_build: Path, smollm2: Path) -> None:
    """The engine's own reason is shown, and stands in the failed record."""
    strange = home.root / "strange.gguf"
    data = smollm2.read_bytes()
    # Another architecture's name of the same length, in the value and in every key.
    head, rest = data[:20_000], data[20_000:]
    assert b"llama." in head
    swapped = head.replace(b"llama.", b"llamq.").replace(
        (5).to_bytes(8, "little") + b"llama", (5).to_bytes(8, "little") + b"llamq"
    )
    strange.write_bytes(swapped + rest)
    done = run(home, cpu_build, "--model", str(strange))
    assert done.code == 3, done.err
    assert "architecture" in done.err
    record = only(home)
    assert record["status"] == "failed"
    assert "architecture" in record["failure"]["message"]
    assert record["failure"]["log_tail"]


def test_a_draft_of_another_vocabulary_is_refused(home: Home, cpu_build: Path) -> None:
    done = run(home, cpu_build, "--speculative", "draft", "--draft-model", "gemma-3-270m")
    assert done.code == 2, done.err
    assert "vocabulary" in done.err
    assert home.files() == []


def test_speculation_is_counted_and_compared(home: Home, cpu_build: Path) -> None:
    done = run(home, cpu_build, "--speculative", "draft", "--draft-model", "smollm2-135m")
    assert done.code == 0, done.err
    record = only(home)
    [result] = record["results"]
    assert record["mode"]["name"] == "draft"
    assert result["speculative"]["drafted_tokens"] >= result["speculative"]["accepted_tokens"] > 0
    assert result["speculative"]["acceptance_length"] > 1
    assert result["greedy"]["compared_characters"] > 0
    assert is_sound(result["validity"]), result["validity"]
    assert home.tokrig("check").code == 0


def test_a_quant_made_by_the_engines_own_tool(home: Home, cpu_build: Path, smollm2: Path) -> None:
    made = home.root / "SmolLM2-135M-Instruct-Q8_0.gguf"
    subprocess.run(
        [cpu_build / "llama-quantize", "--allow-requantize", smollm2, made, "Q8_0"],
        check=True,
        capture_output=True,
    )
    model = identity.identify(made)
    assert (model.quant, model.family) == ("Q8_0", "SmolLM2")
    assert model.bits_per_weight is not None
    assert 8 < model.bits_per_weight < 9
    raw = home.tokrig(
        *("raw", "--bin", str(cpu_build / "llama-bench"), "--model", str(made)),
        *("--prompt", "32", "--output", "8", "--repetitions", "2"),
        env=PATIENT,
    )
    assert raw.code == 0, raw.err
    record = only(home)
    assert {figure["test"] for figure in record["raw"]} >= {"pp32", "tg8"}
    assert record["backend"]["api"] == "cpu"
    assert record["results"] == []
    assert home.tokrig("check").code == 0


@pytest.mark.parametrize("tool", ["llama-bench", "llama-batched-bench"])
def test_raw_figures_of_a_vulkan_build_without_a_device(
    home: Home, vulkan_build: Path, tool: str
) -> None:
    """llama-bench itself would print "Vulkan" here."""
    done = home.tokrig(
        *("raw", "--tool", tool, "--bin", str(vulkan_build / tool), "--model", "smollm2-135m"),
        *("--prompt", "32", "--output", "8", "--api", "vulkan"),
        env=PATIENT,
    )
    assert done.code == 0, done.err
    record = only(home)
    assert record["backend"]["api"] == "cpu"
    assert "api_not_confirmed" in record["validity"]["reasons"]


def test_twenty_lives_leave_nothing(
    home: Home, cpu_build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start, ask, stop, over and over, in one process: its own threads and files do not grow."""
    for name, value in PATIENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TOKRIG_STATE", str(home.state))
    before = shared()
    for backend, binary in (("llamacpp", str(cpu_build / "llama-server")), ("embedded", None)):
        spec = RunSpec(
            model="smollm2-135m",
            backend=backend,
            server_bin=binary,
            workloads=["chat"],
            context=512,
        )
        for _ in range(CYCLES):
            prepared = prepare(spec, datetime.now(UTC))
            with opened(prepared, home.root / "engine.log") as session:
                request = session.request([{"role": "user", "content": "Hello"}], 8)
                [sample] = session.send([request], Cell("chat", 1), "warmup", 0)[0]
                assert sample.error is None
        deadline = time.monotonic() + 60
        while shared() - before and time.monotonic() < deadline:
            time.sleep(0.1)
        assert shared() <= before


def test_an_engine_that_was_added_is_taken(home: Home, cpu_build: Path) -> None:
    server = cpu_build / "llama-server"
    done = home.tokrig("engine", "add", "llamacpp", "--api", "cpu", "--bin", str(server))
    assert done.code == 0, done.err
    assert str(server) in done.out
    done = home.tokrig("run", "--model", "smollm2-135m", "--workload", "chat", env=PATIENT)
    assert done.code == 0, done.err
    backend = only(home)["backend"]
    assert (backend["name"], backend["api"], backend["build"]) == ("llamacpp", "cpu", "b11434")
    assert home.tokrig("engine", "remove").code == 0
