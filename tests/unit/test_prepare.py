"""What is refused before anything is started, and what a mode is called."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit import quantize_tool
from tests.unit.test_gguf import Meta, gguf
from tokrig.backends.embedded import BACKEND as EMBEDDED
from tokrig.errors import InputError, SpecError
from tokrig.models import catalog, shelf
from tokrig.models.shelf import Tell
from tokrig.record.model import BackendFacts, ColdStart, Greedy, LoadMemory, Mode, Model
from tokrig.run.detect import Whereabouts
from tokrig.run.preflight import EngineState
from tokrig.run.prepare import Prepared, located, mode_of, outline, prepare
from tokrig.spec.reasoning import Switch
from tokrig.spec.run import RunSpec

NOW = datetime(2026, 11, 22, tzinfo=UTC)
URL = "http://127.0.0.1:9"


def prepared(**wanted: Any) -> Prepared:
    return prepare(RunSpec(workloads=["chat"], **wanted), NOW)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"backend": "openai"}, "needs its address"),
        ({"backend": "embedded", "url": URL}, "takes no --url"),
        ({"backend": "vllm", "api": "metal"}, "never computes with 'metal'"),
        (
            {"backend": "transformers", "speculative": "ngram"},
            "does not support 'ngram' speculation",
        ),
        ({"backend": "openai", "url": URL, "devices": ["CUDA0"]}, "already running"),
        ({"backend": "openai", "url": URL, "options": {"a": 1}}, "already running"),
        (
            {"backend": "openai", "url": URL, "speculative": "draft", "draft_model": "x"},
            "already running",
        ),
        ({"backend": "openai", "url": URL, "server_bin": "x"}, "already running"),
        ({"backend": "openai", "url": URL, "quantize": "Q8_0"}, "already running"),
        ({"backend": "openai", "url": "http://rig:80", "power_cap_w": 9}, "may be on another"),
        ({"backend": "openai", "url": "http://192.0.2.1", "power_cap_w": 9}, "may be on another"),
        ({"backend": "transformers", "kv_type": "fp8"}, "no switch for --kv-type"),
        ({"backend": "ollama", "quantize": "Q8_0"}, "models of its own store"),
        ({"model": "smollm2-135m", "kv_type": "q8"}, "does not take 'q8' for --kv-type"),
        (
            {"model": "smollm2-135m", "kv_type": "q8_0", "options": {"cache_type_v": "f16"}},
            "set the same thing twice",
        ),
        (
            {"model": "smollm2-135m", "speculative": "draft", "draft_model": "gemma-3-270m"},
            "cannot draft for",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_a_hint(wanted: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        prepared(**wanted)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ({}, "baseline"),
        ({"speculative": "ngram"}, "ngram"),
        ({"reasoning": "off"}, "reasoning-off"),
        ({"speculative": "mtp", "reasoning": "on"}, "mtp+reasoning-on"),
        ({"power_cap_w": 250}, "cap-250w"),
        ({"speculative": "ngram", "power_cap_w": 87.5}, "ngram+cap-87.5w"),
    ],
)
def test_a_mode_is_called_by_what_is_switched_on(wanted: dict[str, Any], name: str) -> None:
    switch = Switch("off", template={"enable_thinking": False}) if "reasoning" in wanted else None
    mode = mode_of(RunSpec(**wanted), switch, None)
    assert mode.name == name
    assert mode.reasoning_observed is None, "that is for the engine to show"


def test_a_mode_stands_in_the_run_id_and_the_baseline_does_not() -> None:
    assert "-embedded-ngram-" in prepared(model="smollm2-135m", speculative="ngram").run_id
    assert "baseline" not in prepared(model="smollm2-135m").run_id


def test_a_power_cap_is_part_of_the_mode_and_allowed_for_a_server_on_this_machine() -> None:
    for url in ("http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9"):
        found = prepared(backend="openai", url=url, power_cap_w=250)
        assert found.mode.power_cap_w == 250
        assert "-cap-250w-" in found.run_id


def test_a_kv_type_goes_to_the_engine() -> None:
    launch = prepared(model="smollm2-135m", kv_type="q8_0").launch
    assert launch is not None
    assert launch.settings == {"kv_type": "q8_0"}
    assert '"cache_type_v": "q8_0"' in " ".join(EMBEDDED.command(launch).argv)


def test_a_model_of_a_hub_is_fetched_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models--HuggingFaceTB--SmolLM2" / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (folder / "SmolLM2.gguf").symlink_to(catalog.resolve("smollm2-135m"))
    asked: list[tuple[str, int | None]] = []

    def resolve(reference: str, tell: Tell, *, budget_bytes: int | None) -> Path:
        asked.append((reference, budget_bytes))
        tell("fetching", 0.5)
        return folder / "SmolLM2.gguf"

    monkeypatch.setattr(shelf, "resolve", resolve)
    told: list[str] = []
    spec = RunSpec(
        model="hf:HuggingFaceTB/SmolLM2/SmolLM2.gguf",
        speculative="draft",
        draft_model="hf:a/b/c.gguf",
    )
    found = prepare(spec, NOW, tell=lambda text, share: told.append(text), budget_bytes=7)
    assert asked == [(spec.model, 7), (spec.draft_model, 7)]
    assert told == ["fetching", "fetching"]
    assert (found.model.repo, found.model.revision) == ("HuggingFaceTB/SmolLM2", "0" * 40)
    assert (found.model.quant, found.model.quant_creator) == ("Q4_1", "HuggingFaceTB")
    assert found.mode.draft_model == "SmolLM2.gguf"


def test_a_quant_is_made_and_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("QUANTIZE_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("TOKRIG_LLAMA_QUANTIZE", str(quantize_tool.put(tmp_path)))
    meta: dict[str, Meta] = {"general.architecture": "llama", "general.name": "Tiny 1M"}
    meta["general.file_type"] = 1
    source = tmp_path / "tiny-f16.gguf"
    source.write_bytes(gguf(meta, (("output.weight", (32, 4), 1, 256),)))
    found = prepared(model=str(source), quantize="Q8_0")
    assert found.launch is not None
    assert found.launch.model.name == "Tiny-1M-Q8_0-b11434.gguf"
    assert (found.model.quant, found.model.quant_creator) == ("Q8_0", "made here")
    assert found.model.quantized_from is not None
    assert found.model.quantized_from.file == "tiny-f16.gguf"
    assert "-tiny-1m-q8_0-embedded-" in found.run_id


def test_an_outline_reads_no_model() -> None:
    found = outline(RunSpec(model="hf:no/such/file.gguf", workloads=["chat"]), NOW)
    assert [cell.workload for cell in found.cells] == ["chat"]
    assert found.launch is None
    with pytest.raises(InputError, match="does not support 'ngram'"):
        outline(RunSpec(model="x", backend="transformers", speculative="ngram"), NOW)


def test_patience_is_the_engines_own_unless_it_is_given() -> None:
    own = prepared(backend="vllm", url=URL).patience_s
    assert own > prepared(backend="openai", url=URL).patience_s
    assert prepared(backend="vllm", url=URL, patience_s=7).patience_s == 7


TOLD = EngineState(
    model=Model(family="m"),
    backend=BackendFacts(name="llamacpp", engine="llama.cpp"),
    mode=Mode(name="ngram", speculative="ngram"),
    cold=ColdStart(load_s=1.5),
    server_starts=2,
    load_memory=LoadMemory(engine_rss_bytes=9, looked_up_bytes=7, spilled=False),
    greedy_texts={"chat": "one"},
    greedy={"chat": Greedy(compared_characters=3, same=True)},
)


@pytest.mark.parametrize(
    "told", [TOLD, EngineState(model=TOLD.model, backend=TOLD.backend, mode=TOLD.mode)]
)
def test_what_a_run_learned_survives_the_journal(told: EngineState) -> None:
    assert EngineState.from_json(told.model_dump(mode="json")) == told


def test_a_journal_of_another_version_is_told_so() -> None:
    data = TOLD.model_dump(mode="json")
    del data["mode"]
    with pytest.raises(InputError, match="another version"):
        EngineState.from_json(data)


def test_a_server_elsewhere_is_located_and_takes_no_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of a tunnel is this machine's, the server behind it is not."""
    away = Whereabouts(False, why="ssh listens there")
    monkeypatch.setattr("tokrig.run.prepare.whereabouts", lambda endpoint: away)
    assert located(prepared(model="smollm2-135m")).where is None
    assert located(prepared(backend="openai", url="http://127.0.0.1:9")).where == away
    with pytest.raises(SpecError, match="ssh listens there"):
        located(prepared(backend="openai", url="http://127.0.0.1:9", power_cap_w=250))
