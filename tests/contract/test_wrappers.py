"""lemonade (recorded), Ollama and LM Studio (made from their documented protocols)."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.loopback import PATIENT_S
from tests.contract.recordings import FOLDER, Server, Turns, recording
from tokrig.backends import Ask, Backend, Launch, Loading, Request, Speculation
from tokrig.backends.lemonade import BACKEND as LEMONADE
from tokrig.backends.lmstudio import BACKEND as LMSTUDIO
from tokrig.backends.ollama import BACKEND as OLLAMA
from tokrig.errors import EngineDied, InputError, RequestError, StartError
from tokrig.record.samples import EngineTimings, Kind
from tokrig.run import http
from tokrig.run.answer import Answer, read_answer
from tokrig.run.client import Response, closed_loop
from tokrig.run.http import Endpoint
from tokrig.run.server import free_port
from tokrig.spec.reasoning import Switch

INTEGRATION = Path(__file__).parent.parent / "integration"
LEMONADE_SAID = json.loads((FOLDER / "about/lemonade.json").read_text("utf-8"))
OLLAMA_SAID = json.loads((FOLDER / "documented/ollama.json").read_text("utf-8"))
LMSTUDIO_SAID = json.loads((FOLDER / "documented/lmstudio.json").read_text("utf-8"))
SMOLLM = "SmolLM2-135M-Q8_0"
MESSAGES = [{"role": "user", "content": "Tell me of the sea."}]


def launch(model: str, **changes: Any) -> Launch:
    plain = Launch(model=Path(model), port=4711, context_per_slot=2048, slots=2)
    return replace(plain, **changes)


def request(**changes: Any) -> Request:
    return replace(Request(messages=MESSAGES, answer_tokens=9, seed=1, served_model="m"), **changes)


def switch(asked: Any, **changes: Any) -> Switch:
    return replace(Switch(asked=asked), **changes)


# lemonade: the recorded session.

LEMONADE_MODEL = {**LEMONADE_SAID["answers"]["/v1/models"]["data"][0]}


def lemonade(**changes: Any) -> Server:
    return Server(
        LEMONADE_SAID["answers"],
        {
            f"/v1/models/{SMOLLM}": LEMONADE_MODEL,
            "/v1/load": LEMONADE_SAID["posted"]["/v1/load"],
            "/v1/chat/completions": {"system_fingerprint": "b11434-unknown"},
        },
        {path.replace("health", "/v1/health"): value for path, value in changes.items()},
    )


def not_loaded() -> Server:
    return lemonade(health=LEMONADE_SAID["before_load"]["/v1/health"])


def test_lemonade_is_told_before_ollama() -> None:
    ask = Server(LEMONADE_SAID["answers"])
    assert LEMONADE.recognises(ask)
    assert not OLLAMA.recognises(ask)
    assert not LMSTUDIO.recognises(ask)
    assert LEMONADE.precedence < OLLAMA.precedence < LMSTUDIO.precedence


def test_lemonade_about_itself() -> None:
    engine = LEMONADE.inspect(lemonade(), "")
    assert (engine.engine, engine.wrapper) == ("llama.cpp", "lemonade 11.7.0")
    assert (engine.build, engine.served_models) == ("b11434", (SMOLLM,))


def test_lemonade_says_gpu_where_there_is_none() -> None:
    """``device`` was "gpu" on a machine without one: it is never believed."""
    ask = lemonade()
    assert ask("/v1/health")["all_models_loaded"][0]["device"] == "gpu"
    engine = LEMONADE.inspect(ask, "")
    assert (engine.api, engine.api_confirmed) == (None, None)


BUNDLED = "/home/me/.cache/lemonade/bin/llamacpp/vulkan/llama-server"


def lemonade_chose(backend: str, program: str = BUNDLED, **changes: Any) -> Any:
    health = json.loads(json.dumps(LEMONADE_SAID["answers"]["/v1/health"]))
    entry = health["all_models_loaded"][0]
    entry["recipe_options"]["llamacpp_backend"] = backend
    entry["launch_command"][0] = program
    entry.update(changes)
    return health


def test_lemonade_choice_is_no_confirmation() -> None:
    engine = LEMONADE.inspect(lemonade(health=lemonade_chose("vulkan")), "")
    assert (engine.api, engine.api_confirmed) == ("vulkan", None)


@pytest.mark.parametrize("program", ["/opt/mine/llama-server", "llama-server"])
def test_lemonade_does_not_know_what_a_program_of_the_users_computes_with(program: str) -> None:
    """LEMONADE_LLAMACPP_VULKAN_BIN may be any build (lemonade-sdk/lemonade#651, #2089)."""
    engine = LEMONADE.inspect(lemonade(health=lemonade_chose("vulkan", program)), "")
    assert (engine.api, engine.api_confirmed) == (None, None)


def test_lemonade_confirmed_by_the_engines_log() -> None:
    """Of the last load; what an earlier one logged is past."""
    log = (
        "[LlamaCpp] Loading model: other\n"
        "load_tensors:      Vulkan0 model buffer size =   100.00 MiB\n"
        f"[LlamaCpp] Loading model: {SMOLLM}\n"
        "load_tensors: offloaded 0/31 layers to GPU\n"
        "load_tensors:   CPU_Mapped model buffer size =   136.73 MiB\n"
    )
    engine = LEMONADE.inspect(lemonade(health=lemonade_chose("vulkan")), log)
    assert (engine.api, engine.api_confirmed) == ("cpu", True)
    assert engine.resolved.gpu_layers == 0


def test_lemonade_spill() -> None:
    log = (
        f"Loading model: {SMOLLM}\n"
        "load_tensors: offloaded 12/31 layers to GPU\n"
        "load_tensors:      Vulkan0 model buffer size =   50.00 MiB\n"
    )
    engine = LEMONADE.inspect(lemonade(), log, launch(SMOLLM, api="vulkan"))
    assert (engine.api, engine.api_confirmed) == ("vulkan", True)
    assert engine.spilled == "12 of 31 layers on the GPU"


def test_lemonade_slots() -> None:
    slots = [{"id": 0, "n_ctx": 1024, "speculative": False}, {"id": 1, "n_ctx": 1024}]
    ask = Server(lemonade().answers, {"/v1/slots": slots})
    engine = LEMONADE.inspect(ask, "")
    assert (engine.resolved.context_per_slot, engine.resolved.slots) == (1024, 2)
    assert engine.speculation is False


@pytest.mark.parametrize(
    ("each", "asked", "found"),
    [
        (2048, 2048, (512, True)),  # four slots share 2048 (lemonade-sdk/lemonade#3276)
        (512, 2048, (512, None)),
        (768, 2048, (768, None)),  # rounded up
        (4096, None, (4096, None)),  # nothing to tell by
    ],
)
def test_lemonade_slots_that_share_one_cache(
    each: int, asked: int | None, found: tuple[int, bool | None]
) -> None:
    health = lemonade_chose("vulkan")
    health["all_models_loaded"][0]["recipe_options"]["ctx_size"] = asked
    slots = [{"id": i, "n_ctx": each} for i in range(4)]
    ask = Server(lemonade(health=health).answers, {"/v1/slots": slots})
    resolved = LEMONADE.inspect(ask, "").resolved
    assert (resolved.context_per_slot, resolved.kv_unified, resolved.slots) == (*found, 4)


ENGINE = "http://127.0.0.1:8001"
GGUF = LEMONADE_MODEL["checkpoint"]


def behind(model_path: str = GGUF, **changes: Any) -> dict[str, Any]:
    """What the llama-server behind lemonade says at the address that health gives."""
    return {
        f"{ENGINE}/props": {"model_path": model_path, "build_info": "b9999-abc", **changes},
        f"{ENGINE}/v1/chat/completions/input_tokens": {"input_tokens": 21},
    }


def test_lemonade_build_is_the_engines_word_alone() -> None:
    """Never the release that is installed or would be: a program of the user's may be served."""
    recipes = {"llamacpp": {"backends": {"vulkan": {"state": "installed", "version": "b10375"}}}}
    silent = {"/v1/chat/completions": {}, "/v1/system-info": {"recipes": recipes}}
    chosen = lemonade(health=lemonade_chose("vulkan")).answers
    assert LEMONADE.inspect(Server(chosen, silent), "").build is None
    assert LEMONADE.inspect(Server(chosen, silent, behind()), "").build == "b9999"
    # A lemonade in a container gives an address at which another server answers here.
    other = behind("/models/other.gguf")
    assert LEMONADE.inspect(Server(chosen, silent, other), "").build is None
    assert LEMONADE.inspect(Server(chosen, other), "").build == "b11434"


def test_lemonade_prompts_are_counted_by_the_engine_itself() -> None:
    usage = {"/v1/chat/completions": {"usage": {"prompt_tokens": 38}}}
    direct = Server(lemonade().answers, usage, behind())
    assert LEMONADE.count_prompt(direct, request(served_model=SMOLLM)) == 21
    assert all(path.startswith(ENGINE) for path, _ in direct.posted), "a prefill was spent"
    other = Server(lemonade().answers, usage, behind("/models/other.gguf"))
    assert LEMONADE.count_prompt(other, request(served_model=SMOLLM)) == 38


def test_lemonade_tells_the_file_and_who_is_in_memory() -> None:
    assert LEMONADE.inspect(lemonade(), "").model_file == GGUF
    files = [{"role": "mmproj", "path": "/hub/p.gguf", "exists": True}]
    files.append({"role": "main", "path": "/hub/m.gguf", "exists": True})
    listed = {f"/v1/models/{SMOLLM}/files?include_paths=true": {"files": files}}
    assert LEMONADE.inspect(Server(lemonade().answers, listed), "").model_file == "/hub/m.gguf"
    assert LEMONADE.resident(lemonade()) == (SMOLLM,)
    assert LEMONADE.resident(Server()) == ()


def test_lemonade_lives_as_long_as_its_engines_process() -> None:
    assert LEMONADE.life(lemonade(), SMOLLM) == "process 675"
    anew = lemonade(health=lemonade_chose("vulkan", pid=702))
    assert LEMONADE.life(anew, SMOLLM) == "process 702"
    assert LEMONADE.life(not_loaded(), SMOLLM) is None
    assert LEMONADE.life(Server(), SMOLLM) is None


@pytest.mark.parametrize(
    "health",
    [
        {},
        {"status": "ok", "version": "11.7.0"},
        {"all_models_loaded": None, "model_loaded": SMOLLM},
        {"all_models_loaded": ["nonsense", 7]},
        {"all_models_loaded": [{"type": "embedding", "model_name": "e"}]},
        ["no object"],
    ],
)
def test_lemonade_health_without_the_model(health: Any) -> None:
    engine = LEMONADE.inspect(lemonade(health=health), "")
    assert (engine.engine, engine.api, engine.build) == ("unknown", None, None)
    assert engine.served_models == (SMOLLM,)


def test_lemonade_counters() -> None:
    """The recorded two requests: ``prompt_tokens`` leaves the 37 cached ones out."""
    assert LEMONADE.counters(Server(LEMONADE_SAID["answers"])) == {
        "requests": 2,
        "prompt_tokens": 39,
        "cached_tokens": 37,
        "output_tokens": 96,
        "prefill_s": 0.063006,
        "decode_s": 0.737119,
        "drafts": 0,
        "drafted_tokens": 0,
        "accepted_tokens": 0,
    }
    assert LEMONADE.counters(Server()) is None
    assert LEMONADE.counters(Server({"/metrics": "lemonade_server_up 1\n"})) is None


def test_lemonade_loads_nothing_twice() -> None:
    attached = lemonade()
    assert list(LEMONADE.load(attached, None, SMOLLM)) == []
    assert attached.posted == []
    assert list(LEMONADE.load(attached, None, None)) == []


def test_lemonade_load_with_settings() -> None:
    ask = not_loaded()
    wanted = launch(
        SMOLLM,
        api="vulkan",
        devices=("Vulkan0",),
        settings={"threads": 2},
        speculation=Speculation("mtp", draft_tokens=3),
        reasoning=switch("off"),
        options={"llamacpp_args": "--no-mmap"},
    )
    assert list(LEMONADE.load(ask, wanted, None)) == [Loading(f"loading {SMOLLM}")]
    assert ask.posted == [
        (
            "/v1/load",
            {
                "model_name": SMOLLM,
                "ctx_size": 4096,
                "llamacpp_args": "--parallel 2 --verbosity 4 --threads 2 --spec-type draft-mtp"
                " --spec-draft-n-max 3 --reasoning off --no-mmap",
                "llamacpp_device": "Vulkan0",
                "llamacpp_backend": "vulkan",
            },
        )
    ]


def test_lemonade_load_changes_settings() -> None:
    """Loaded, but not as asked: the load is asked for; as asked: it is not."""
    ask = lemonade()
    assert len(list(LEMONADE.load(ask, launch(SMOLLM), None))) == 1
    health = lemonade_chose("system")
    health["all_models_loaded"][0]["recipe_options"] |= ask.posted[0][1]
    again = lemonade(health=health)
    assert list(LEMONADE.load(again, launch(SMOLLM), None)) == []
    health["all_models_loaded"][0]["backend_alive"] = False
    assert len(list(LEMONADE.load(again, launch(SMOLLM), None))) == 1


def test_lemonade_vllm_without_prefix_cache() -> None:
    model = {**LEMONADE_MODEL, "recipe": "vllm"}
    ask = Server(not_loaded().answers, {f"/v1/models/{SMOLLM}": model})
    list(LEMONADE.load(ask, launch(SMOLLM, api="rocm"), None))
    assert ask.posted[0][1] == {
        "model_name": SMOLLM,
        "ctx_size": 2048,
        "vllm_args": "--max-num-seqs 2 --no-enable-prefix-caching",
        "vllm_backend": "rocm",
    }
    with pytest.raises(InputError, match="no speculation"):
        list(LEMONADE.load(ask, launch(SMOLLM, speculation=Speculation("ngram")), None))


def test_lemonade_unknown_model() -> None:
    known = {"/v1/models?show_all=true": LEMONADE_SAID["answers"]["/v1/models"]}
    ask = Server(not_loaded().answers, known)
    with pytest.raises(InputError, match="has no model 'SmolLM2-135M'") as caught:
        list(LEMONADE.load(ask, None, "SmolLM2-135M"))
    assert caught.value.hint.startswith(f"did you mean '{SMOLLM}'?")


def job(status: str, done: int, **more: Any) -> list[dict[str, Any]]:
    """``percent`` is of the file at hand, and not believed."""
    figures = {"overall_bytes_downloaded": done, "total_download_size": 800, "percent": 100}
    return [{"model_name": SMOLLM, "status": status, **figures, **more}]


def test_lemonade_pull_is_waited_for() -> None:
    """The job may be gone or "completed" before the model is there."""
    away, there = {**LEMONADE_MODEL, "downloaded": False}, LEMONADE_MODEL
    said = {
        f"/v1/models/{SMOLLM}": Turns([away, away, away, away, there]),
        "/v1/pull": job("downloading", 0)[0],
        "/v1/downloads": Turns([job("downloading", 200), job("completed", 800), []]),
    }
    ask = Server(not_loaded().answers, said)
    states = list(LEMONADE.load(ask, None, SMOLLM))
    assert [state.share for state in states] == [0.0, 0.25, 1.0, None, None]
    assert [path for path, _ in ask.posted] == ["/v1/pull", "/v1/load"]
    assert ask.posted[0][1] == {"model_name": SMOLLM, "stream": True, "subscribe": False}


@pytest.mark.parametrize(
    "jobs", [job("error", 100, error="disk is full"), job("cancelled", 0), job("paused", 0)]
)
def test_lemonade_pull_that_fails(jobs: Any) -> None:
    away = {**LEMONADE_MODEL, "downloaded": False}
    said = {f"/v1/models/{SMOLLM}": away, "/v1/pull": jobs[0], "/v1/downloads": jobs}
    with pytest.raises(StartError, match="could not fetch") as caught:
        list(LEMONADE.load(Server(not_loaded().answers, said), None, SMOLLM))
    assert caught.value.code == "model_not_fetched"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (
            RequestError(
                f"/v1/load answered 500: Failed to load model '{SMOLLM}':"
                " llama-server failed to start",
                code="http_500",
            ),
            "load_gave_up",
        ),
        (
            RequestError("… vllm-server failed to start within timeout", code="http_500"),
            "load_gave_up",
        ),
        (RequestError("GGUF file not found for checkpoint", code="http_500"), "model_not_loaded"),
        (RequestError("/v1/load: no answer within 600 s", code="timeout"), "model_not_loaded"),
    ],
)
def test_lemonade_gives_up(error: RequestError, code: str) -> None:
    ask = Server(not_loaded().answers, {"/v1/load": error})
    with pytest.raises(StartError) as caught:
        list(LEMONADE.load(ask, None, SMOLLM))
    assert caught.value.code == code
    assert error.message in caught.value.message


def test_lemonade_bypass_by_what_it_lists() -> None:
    command = LEMONADE.bypass(lemonade(), None, 9999)
    assert command is not None
    line = "llama-server -m lmn/models/SmolLM2-135M-Q8_0.gguf --ctx-size 2048 --port 9999"
    assert " ".join(command.argv) == f"{line} --jinja --metrics --threads 2"
    assert LEMONADE.bypass(not_loaded(), None, 9999) is None


def test_lemonade_bypass_by_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What gave up is listed no longer: the engine is found where lemonade put it."""
    binary = tmp_path / "bin/llamacpp/rocm-stable/build/llama-server"
    runtime = tmp_path / "bin/therock/gfx1151-7.14/lib"
    runtime.mkdir(parents=True)
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("LEMONADE_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    files = [{"role": "main", "path": "models/m.gguf", "exists": True}]
    said = {
        f"/v1/models/{SMOLLM}/files?include_paths=true": {"files": files},
        f"/v1/models/{SMOLLM}/options": {"effective": {"llamacpp_backend": "rocm"}},
    }
    ask = Server(not_loaded().answers, said)
    command = LEMONADE.bypass(ask, launch(SMOLLM), 9999)
    assert command is not None
    assert command.argv[:7] == (
        *(str(binary), "-m", "models/m.gguf"),
        *("--ctx-size", "4096", "--port", "9999"),
    )
    libraries = command.env["LD_LIBRARY_PATH"].split(":")
    assert libraries == [str(runtime), str(runtime / "llvm/lib"), str(binary.parent)]
    assert LEMONADE.bypass(ask, launch(SMOLLM, api="cuda"), 9999) is None


@pytest.mark.parametrize("by", ["environment", "configuration"])
def test_lemonade_bypass_by_a_program_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """As lemonade's own search does it: the environment first, then its configuration, of which
    "builtin" and a version name no program."""
    binary = tmp_path / "mine/llama-server"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("LEMONADE_CACHE_DIR", str(tmp_path / "empty"))
    files = [{"role": "main", "path": "models/m.gguf", "exists": True}]
    said: dict[str, Any] = {
        f"/v1/models/{SMOLLM}/files?include_paths=true": {"files": files},
        f"/v1/models/{SMOLLM}/options": {"effective": {"llamacpp_backend": "rocm"}},
        "/internal/config": {"llamacpp": {"rocm_bin": "builtin", "vulkan_bin": "b9000"}},
    }
    if by == "environment":
        monkeypatch.setenv("LEMONADE_LLAMACPP_ROCM_BIN", str(binary))
    else:
        said["/internal/config"]["llamacpp"]["rocm_bin"] = str(binary)
    ask = Server(not_loaded().answers, said)
    command = LEMONADE.bypass(ask, launch(SMOLLM), 9999)
    assert command is not None
    assert command.argv[0] == str(binary)
    assert LEMONADE.bypass(ask, launch(SMOLLM, api="vulkan"), 9999) is None


def test_lemonade_command(tmp_path: Path) -> None:
    program = tmp_path / "lemond"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    wanted = launch(SMOLLM, binary=str(program))
    assert LEMONADE.command(wanted).argv == (
        *(str(program), "--host", "127.0.0.1", "--port", "4711", "--no-broadcast"),
    )
    with pytest.raises(InputError, match="has no option 'llamacpp_arg'") as caught:
        LEMONADE.command(replace(wanted, options={"llamacpp_arg": "x"}))
    assert "did you mean 'llamacpp_args'" in caught.value.hint
    with pytest.raises(InputError, match="no runnable lemond"):
        LEMONADE.command(launch(SMOLLM, binary=str(tmp_path / "nothing")))


def test_lemonade_body_and_counts() -> None:
    body = LEMONADE.body(request(reasoning=switch("off", template={"enable_thinking": False})))
    assert (body["ignore_eos"], body["cache_prompt"]) == (True, False)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "enable_thinking" not in body  # lemonade would write /no_think into the prompt
    ask = Server({"/v1/chat/completions": {"usage": {"prompt_tokens": 38}}})
    assert LEMONADE.count_prompt(ask, request()) == 38
    assert ask.posted[0][1]["max_tokens"] == 1
    assert LEMONADE.count_text(Server({"/v1/tokenize": {"tokens": [1, 2]}}), "ab") == 2
    assert LEMONADE.count_text(Server(), "ab") is None


def test_lemonade_failure() -> None:
    timed_out = "[ERROR] (WrappedServer) llama-server failed to start within timeout\n"
    assert LEMONADE.failure(timed_out) == "llama-server failed to start within timeout"
    dead = "[ERROR] (Router) Backend load failed: Unsupported GPU\n"
    assert LEMONADE.failure(dead) == "Unsupported GPU"
    assert LEMONADE.failure("all is well\n") is None


def test_lemonade_devices_that_are_not_there_are_no_reason() -> None:
    search = "[Warning] (SystemInfo) error: No NVIDIA discrete GPU found\n"
    search += "[Warning] (SystemInfo) error: No NPU device found\n"
    load = "[Info] (LlamaCpp) Loading model: m\n"
    assert LEMONADE.failure(search) is None
    assert LEMONADE.failure(search + load + search) is None
    own = "[ERROR] (Router) Backend load failed: unknown model architecture: 'new'\n"
    assert LEMONADE.failure(search + load + search + own) == "unknown model architecture: 'new'"


# Ollama: its documented protocol.


def ollama_answer(lines: list[tuple[float, bytes]] | None = None) -> Answer:
    found = recording("documented/ollama-chat")
    pieces = [(int(t * 1e9), line) for t, line in lines or found.lines]
    response = Response(0, 0, 0, pieces[-1][0], 200, found.headers, pieces)
    return read_answer(response, OLLAMA.timings, OLLAMA.event)


def test_ollama_stream() -> None:
    answer = ollama_answer()
    said = {
        kind: "".join(chunk.text for chunk in answer.chunks if chunk.kind is kind) for kind in Kind
    }
    assert said[Kind.REASONING] == "The sea is wide."
    assert said[Kind.CONTENT] == "It is blue."
    assert answer.chunks[0].t_ns == 50_000_000
    assert (answer.prompt_tokens, answer.output_tokens) == (26, 9)
    assert (answer.finish_reason, answer.error, answer.cached_tokens) == ("length", None, None)
    assert answer.timings == EngineTimings(26, 47.0, 9, 80.2, counts_first=True)
    assert answer.model == "smollm2-think:135m"


def with_last(**changes: Any) -> Answer:
    """The stream with another last object; None takes a field out."""
    *lines, (t, line) = recording("documented/ollama-chat").lines
    last = {k: v for k, v in {**json.loads(line), **changes}.items() if v is not None}
    return ollama_answer([*lines, (t, json.dumps(last).encode() + b"\n")])


def test_ollama_leaves_zeros_out() -> None:
    """What is missing is not known: neither a time nor a prompt is ever 0."""
    assert with_last(prompt_eval_duration=None).timings == EngineTimings(0, 0.0, 9, 80.2)
    assert with_last(eval_duration=None).timings is None
    assert with_last(eval_duration=0).timings is None
    # ollama/ollama#2068: a prompt that was wholly cached is not counted at all.
    cached = with_last(prompt_eval_count=None, prompt_eval_duration=None)
    assert (cached.prompt_tokens, cached.timings) == (None, EngineTimings(0, 0.0, 9, 80.2))
    assert with_last(prompt_eval_count=0).prompt_tokens is None
    nothing = with_last(eval_count=None, eval_duration=None, prompt_eval_count=None)
    assert (nothing.timings, nothing.output_tokens, nothing.prompt_tokens) == (None, None, None)
    assert (nothing.error, len(nothing.chunks)) == (None, 9)


def test_ollama_tells_cached_tokens() -> None:
    """ollama/ollama#16916; what was cached took no time."""
    some = with_last(prompt_eval_cached_count=20)
    assert (some.prompt_tokens, some.cached_tokens) == (26, 20)
    assert some.timings == EngineTimings(6, 47.0, 9, 80.2)
    whole = with_last(prompt_eval_cached_count=26)
    assert (whole.cached_tokens, whole.timings) == (26, EngineTimings(0, 0.0, 9, 80.2))
    assert with_last(prompt_eval_cached_count=-1).cached_tokens is None


def test_ollama_tells_the_blob_and_who_is_in_memory() -> None:
    blob = f"/usr/share/ollama/.ollama/models/blobs/sha256-{'ab' * 32}"
    shown = {"/api/show": {"modelfile": f'# Modelfile\nFROM {blob}\nTEMPLATE """x"""\n'}}
    assert OLLAMA.inspect(Server(ollama().answers, shown), "").model_file == blob
    assert OLLAMA.inspect(ollama(), "").model_file is None
    assert OLLAMA.resident(ollama()) == ("smollm2:135m",)
    assert OLLAMA.life(ollama(), "smollm2:135m") == "loaded"
    gone = Server(OLLAMA_SAID["answers"], {"/api/ps": {"models": []}})
    assert OLLAMA.life(gone, "smollm2:135m") == "not loaded"


def test_ollama_nonsense_is_kept_for_the_checks() -> None:
    """Negative times are found out later; what is no time is dropped."""
    assert with_last(eval_duration=-80200000).timings == EngineTimings(26, 47.0, 9, -80.2)
    assert with_last(eval_duration="soon").timings is None
    assert with_last(eval_duration=10**30).timings is None
    assert with_last(eval_count="nine").timings is None


def test_ollama_cut_and_error() -> None:
    lines = list(recording("documented/ollama-chat").lines)
    assert ollama_answer(lines[:-1]).error == "stream_cut"
    failed = ollama_answer([*lines[:3], (0.1, b'{"error":"llama-server died"}\n')])
    assert (failed.error, failed.error_detail) == ("error_event", "llama-server died")
    odd = ollama_answer([(0.1, b'{"message":7,"done":false}\n'), *lines])
    assert (odd.error, len(odd.chunks)) == (None, 9)


def test_ollama_tool_call() -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Bergen"}}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    line = json.dumps({"message": message, "done": False}).encode() + b"\n"
    answer = ollama_answer([(0.1, line), recording("documented/ollama-chat").lines[-1]])
    assert [(c.kind, c.text) for c in answer.chunks] == [
        (Kind.TOOL_CALL, 'weather{"city": "Bergen"}')
    ]


def ollama(**running: Any) -> Server:
    entry = {**OLLAMA_SAID["answers"]["/api/ps"]["models"][0], **running}
    return Server(OLLAMA_SAID["answers"], {"/api/ps": {"models": [entry]}})


def test_ollama_about_itself() -> None:
    ask = ollama()
    assert OLLAMA.recognises(ask)
    assert not LEMONADE.recognises(ask)
    assert not LMSTUDIO.recognises(ask)
    engine = OLLAMA.inspect(ask, "")
    assert (engine.engine, engine.build) == ("ollama", "0.33.0")
    assert engine.served_models == ("smollm2:135m",)
    assert (engine.resolved.context_per_slot, engine.resolved.quantization) == (4096, "F16")
    # Nothing on a GPU, and none asked for: told, but no spill.
    assert (engine.api, engine.api_confirmed, engine.spilled) == (None, None, None)
    assert engine.device_bytes == {"GPU": 0, "CPU": 411238400}


@pytest.mark.parametrize(
    ("size", "vram", "api", "spilled"),
    [
        (400, 200, None, "Ollama keeps 200 of the model's 400 bytes on the GPU"),
        (400, 0, "cuda", "Ollama keeps 0 of the model's 400 bytes on the GPU"),
        (400, 0, "cpu", None),
        (400, 400, "cuda", None),
        (400, 500, "cuda", None),
        (400, -5, None, None),
        (None, None, None, None),
    ],
)
def test_ollama_spill(size: Any, vram: Any, api: Any, spilled: str | None) -> None:
    ask = ollama(size=size, size_vram=vram)
    assert OLLAMA.inspect(ask, "", launch("smollm2:135m", api=api)).spilled == spilled


@pytest.mark.parametrize(("vram", "offload"), [(200, "50 % on the GPU"), (400, None), (0, None)])
def test_what_a_running_ollama_chose_itself_is_no_spill(vram: int, offload: str | None) -> None:
    engine = OLLAMA.inspect(ollama(size=400, size_vram=vram), "")
    assert (engine.spilled, engine.offload) == (None, offload)


def test_ollama_log_confirms() -> None:
    log = "\n".join(OLLAMA_SAID["log"])
    engine = OLLAMA.inspect(ollama(size=400, size_vram=200), log)
    assert (engine.api, engine.api_confirmed, engine.resolved.gpu_layers) == ("cuda", True, 20)
    # A GPU that was found is not yet one that computes.
    found_only = OLLAMA_SAID["log"][0]
    assert OLLAMA.inspect(ollama(), found_only).api is None


@pytest.mark.parametrize("ps", [{}, {"models": None}, {"models": ["x"]}, [], {"models": [{}]}])
def test_ollama_ps_without_the_model(ps: Any) -> None:
    engine = OLLAMA.inspect(Server(ollama().answers, {"/api/ps": ps}), "")
    assert engine.served_models == ("smollm2:135m", "smollm2-think:135m")
    assert (engine.spilled, engine.resolved.context_per_slot) == (None, None)


def test_ollama_body() -> None:
    body = OLLAMA.body(request())
    assert body == {
        "model": "m",
        "messages": MESSAGES,
        "stream": True,
        "truncate": False,
        "shift": False,
        "options": {"num_predict": 9, "temperature": 0, "seed": 1},
    }
    assert OLLAMA.body(request(reasoning=switch("off")))["think"] is False
    assert OLLAMA.body(request(reasoning=switch("on")))["think"] is True
    assert OLLAMA.body(request(reasoning=switch("off", effort="low")))["think"] == "low"
    assert "think" not in OLLAMA.body(request(reasoning=switch("off", engine_flag=False)))


def test_ollama_counts_by_a_request() -> None:
    ask = Server({"/api/chat": {"prompt_eval_count": 26, "done": True}})
    assert OLLAMA.count_prompt(ask, request()) == 26
    sent = ask.posted[0][1]
    assert (sent["stream"], sent["options"]["num_predict"]) == (False, 1)
    assert OLLAMA.count_prompt(Server({"/api/chat": {"done": True}}), request()) is None


def test_ollama_load() -> None:
    ask = ollama()
    assert list(OLLAMA.load(ask, None, "smollm2:135m")) == []
    assert list(OLLAMA.load(ask, None, None)) == []
    assert list(OLLAMA.load(ask, None, "smollm2-think:135m")) == [
        Loading("loading smollm2-think:135m")
    ]
    assert ask.posted == [("/api/generate", {"model": "smollm2-think:135m", "stream": False})]
    with pytest.raises(InputError, match="no model 'smollm2'") as caught:
        list(OLLAMA.load(ask, launch("smollm2"), None))
    assert "did you mean 'smollm2:135m'" in caught.value.hint
    assert "ollama pull smollm2" in caught.value.hint


def test_ollama_pull_goes_on_after_a_time_out() -> None:
    slow = RequestError("/api/pull: no answer within 120 s", code="timeout")
    said = {"/api/pull": Turns([slow, slow, {"status": "success"}]), "/api/ps": {"models": []}}
    ask = Server(ollama().answers, said)
    wanted = launch("new:1b", options={"pull": True})
    assert [state.doing for state in OLLAMA.load(ask, wanted, None)] == [
        *("fetching new:1b",) * 3,
        "loading new:1b",
    ]
    refused = Server(ask.answers, {"/api/pull": RequestError("pull model manifest: 404")})
    with pytest.raises(StartError, match="could not fetch new:1b") as caught:
        list(OLLAMA.load(refused, wanted, None))
    assert caught.value.code == "model_not_fetched"


def test_ollama_command(tmp_path: Path) -> None:
    program = tmp_path / "ollama"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    options = {"flash_attention": True, "kv_cache_type": "q8_0", "pull": True}
    wanted = launch("m:1b", binary=str(program), options=options)
    command = OLLAMA.command(wanted)
    assert command.argv == (str(program), "serve")
    assert command.env == {
        "OLLAMA_HOST": "127.0.0.1:4711",
        "OLLAMA_NUM_PARALLEL": "2",
        "OLLAMA_CONTEXT_LENGTH": "2048",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_FLASH_ATTENTION": "1",
        "OLLAMA_KV_CACHE_TYPE": "q8_0",
    }
    cpu = OLLAMA.command(replace(wanted, api="cpu")).env
    assert {cpu[f"{name}_VISIBLE_DEVICES"] for name in ("CUDA", "ROCR", "GGML_VK")} == {"-1"}
    cuda = OLLAMA.command(replace(wanted, api="cuda", devices=("0", "1"))).env
    assert (cuda["CUDA_VISIBLE_DEVICES"], cuda["ROCR_VISIBLE_DEVICES"]) == ("0,1", "-1")
    for wrong in ({"settings": {"threads": 4}}, {"devices": ("0",)}, {"options": {"flash": True}}):
        with pytest.raises(InputError):
            OLLAMA.command(replace(wanted, **wrong))


# LM Studio: its documented protocol.


def lmstudio(*layers: Mapping[str, Any]) -> Server:
    return Server(LMSTUDIO_SAID["answers"], *layers)


def test_lmstudio_about_itself() -> None:
    ask = lmstudio()
    assert LMSTUDIO.recognises(ask)
    assert not LEMONADE.recognises(ask)
    assert not OLLAMA.recognises(ask)
    engine = LMSTUDIO.inspect(ask, "")
    assert (engine.engine, engine.build, engine.wrapper) == ("llama.cpp", "1.3.0", "LM Studio")
    assert (engine.api, engine.api_confirmed) == ("metal", None)
    assert engine.served_models == ("smollm2-135m-instruct",)
    found = engine.resolved
    assert (found.context_per_slot, found.slots, found.batch) == (4096, 4, 512)
    assert (found.quantization, found.flash_attention) == ("Q8_0", "enabled")


def test_lmstudio_without_v1() -> None:
    """Before 0.4; an unknown address is answered with 200 and an error."""
    ask = lmstudio({"/api/v1/models": LMSTUDIO_SAID["unknown_address"]})
    assert LMSTUDIO.recognises(ask)
    engine = LMSTUDIO.inspect(ask, "")
    assert engine.served_models == ("smollm2-135m-instruct",)
    assert (engine.resolved.quantization, engine.resolved.context_per_slot) == ("Q8_0", None)


@pytest.mark.parametrize("answer", [{}, [], {"models": "x"}, {"models": [{"key": "k"}]}])
def test_lmstudio_is_not_any_server(answer: Any) -> None:
    assert not LMSTUDIO.recognises(Server({"/api/v1/models": answer}))


def test_lmstudio_runtime_unknown() -> None:
    nothing = {"/api/v0/chat/completions": LMSTUDIO_SAID["unknown_address"]}
    engine = LMSTUDIO.inspect(lmstudio(nothing), "")
    assert (engine.engine, engine.build, engine.api) == ("unknown", None, None)


def test_lmstudio_load() -> None:
    ask = lmstudio()
    assert list(LMSTUDIO.load(ask, None, "smollm2-135m-instruct")) == []
    assert list(LMSTUDIO.load(ask, None, None)) == []
    assert list(LMSTUDIO.load(ask, None, "google/gemma-3-270m")) == [
        Loading("loading google/gemma-3-270m")
    ]
    assert ask.posted == [("/api/v1/models/load", {"model": "google/gemma-3-270m"})]
    with pytest.raises(InputError, match="no model 'gemma-3-270m'") as caught:
        list(LMSTUDIO.load(ask, None, "gemma-3-270m"))
    assert "did you mean 'google/gemma-3-270m'" in caught.value.hint
    for refusal in (LMSTUDIO_SAID["unknown_address"], RequestError("not enough memory")):
        with pytest.raises(StartError, match="could not load") as failed:
            list(
                LMSTUDIO.load(
                    lmstudio({"/api/v1/models/load": refusal}), None, "google/gemma-3-270m"
                )
            )
        assert "lms load google/gemma-3-270m" in failed.value.hint


def test_lmstudio_stream() -> None:
    found = recording("documented/lmstudio-chat")
    pieces = [(int(t * 1e9), line) for t, line in found.events]
    response = Response(0, 0, 0, pieces[-1][0], 200, found.headers, pieces)
    answer = read_answer(response, LMSTUDIO.timings, LMSTUDIO.event)
    assert (answer.prompt_tokens, answer.output_tokens, answer.timings) == (31, 4, None)
    assert "".join(chunk.text for chunk in answer.chunks) == "The sea is blue"
    assert (answer.done, answer.finish_reason, answer.error) == (True, "length", None)


# All three.


@pytest.mark.parametrize("backend", [LEMONADE, OLLAMA, LMSTUDIO])
def test_unload_raises_nothing(backend: Backend) -> None:
    silent = Server()
    backend.unload(silent, None)
    assert silent.posted == []
    backend.unload(silent, "m")
    assert len(silent.posted) == 1

    def gone(path: str, body: Any = None, *, text: bool = False) -> Any:
        raise EngineDied("nobody answers")

    backend.unload(gone, "m")


@pytest.mark.parametrize("name", ["ollama-chat", "lmstudio-chat", "sglang-chat"])
def test_documented_recordings_say_so(name: str) -> None:
    head = (FOLDER / "documented" / f"{name}.jsonl").read_text("utf-8").splitlines()[0]
    assert json.loads(head)["made_from"] == "documentation"
    assert OLLAMA_SAID["made_from"] == LMSTUDIO_SAID["made_from"] == "documentation"
    assert LEMONADE_SAID["made_from"] == "recording"


# The fakes speak the same protocols, over real sockets.


@contextlib.contextmanager
def fake(program: str, *arguments: str) -> Iterator[Endpoint]:
    endpoint = Endpoint("127.0.0.1", free_port())
    argv = [sys.executable, str(INTEGRATION / program), "--port", str(endpoint.port), *arguments]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENT_S
        while http.get_status(endpoint, "/", timeout_s=1) is None:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        yield endpoint
    finally:
        process.terminate()
        process.wait()


def asking(endpoint: Endpoint) -> Ask:
    def ask(path: str, body: Any = None, *, text: bool = False) -> Any:
        return http.ask(endpoint, path, body, text=text, timeout_s=10)

    return ask


def answered(backend: Backend, endpoint: Endpoint, served: str) -> Answer:
    body = json.dumps(backend.body(request(served_model=served))).encode()
    loop = closed_loop(endpoint, backend.chat_path, [body], 1, silence_s=10)
    return read_answer(loop.responses[0], backend.timings, backend.event)


def test_fake_lemonade() -> None:
    direct = f"{sys.executable} fake_llama_server.py --parallel 1 --port 1"
    arguments = ("--give-up", "1", "--download-polls", "3", "--launch-command", direct)
    with fake("fake_lemonade.py", *arguments) as endpoint:
        ask = asking(endpoint)
        assert LEMONADE.recognises(ask)
        assert not OLLAMA.recognises(ask)
        with pytest.raises(InputError):
            list(LEMONADE.load(ask, launch("SmolLM2"), None))
        with pytest.raises(StartError) as caught:
            list(LEMONADE.load(ask, launch(SMOLLM), None))
        assert caught.value.code == "load_gave_up"
        bypass = LEMONADE.bypass(ask, launch(SMOLLM), 9999)
        assert bypass is not None and bypass.argv[-1] == "9999"
        assert len(list(LEMONADE.load(ask, launch(SMOLLM), None))) == 1
        assert list(LEMONADE.load(ask, launch(SMOLLM), None)) == []
        engine = LEMONADE.inspect(ask, "")
        assert (engine.build, engine.wrapper) == ("b11434", "lemonade 11.7.0")
        assert (engine.resolved.context_per_slot, engine.resolved.slots) == (2048, 2)
        answer = answered(LEMONADE, endpoint, SMOLLM)
        assert (answer.error, answer.output_tokens) == (None, 9)
        assert answer.prompt_tokens == LEMONADE.count_prompt(ask, request(served_model=SMOLLM))
        assert answer.timings is not None and answer.timings.decode_tokens == 9
        LEMONADE.unload(ask, SMOLLM)
        assert ask("/v1/health")["model_loaded"] is None


def test_fake_ollama() -> None:
    arguments = ("--vram-share", "0.5", "--thinking", "3", "--missing")
    with fake("fake_ollama.py", *arguments) as endpoint:
        ask = asking(endpoint)
        name = "smollm2:135m"
        assert OLLAMA.recognises(ask)
        with pytest.raises(InputError, match="has no model"):
            list(OLLAMA.load(ask, None, name))
        wanted = launch(name, options={"pull": True})
        doing = [state.doing for state in OLLAMA.load(ask, wanted, None)]
        assert doing == [f"fetching {name}", f"loading {name}"]
        engine = OLLAMA.inspect(ask, "", wanted)
        assert engine.served_models == (name,)
        assert engine.spilled == "Ollama keeps 135500000 of the model's 271000000 bytes on the GPU"
        answer = answered(OLLAMA, endpoint, name)
        assert (answer.error, answer.output_tokens, len(answer.chunks)) == (None, 9, 9)
        assert sum(chunk.kind is Kind.REASONING for chunk in answer.chunks) == 3
        assert answer.prompt_tokens == OLLAMA.count_prompt(ask, request(served_model=name))
        assert answer.timings is not None
        client_ms = (answer.chunks[-1].t_ns - answer.chunks[0].t_ns) / 1e6
        assert 0.2 < answer.timings.decode_ms / client_ms < 5
        OLLAMA.unload(ask, name)
        assert ask("/api/ps") == {"models": []}
