"""vLLM, mlx-lm and transformers serve as recorded, SGLang as documented: settings read back,
streams, clocks and counters, reasons of failures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.recordings import FOLDER, Recording, Server, about, recording
from tokrig.backends import Backend, Launch, Loading, Request
from tokrig.backends.mlx import BACKEND as MLX
from tokrig.backends.sglang import BACKEND as SGLANG
from tokrig.backends.transformers import BACKEND as TRANSFORMERS
from tokrig.backends.vllm import BACKEND as VLLM
from tokrig.errors import RequestError, StartError
from tokrig.record.samples import EngineTimings, Kind
from tokrig.run.answer import Answer, read_answer
from tokrig.run.client import Response
from tokrig.spec.reasoning import Switch

ALL: list[Backend] = [VLLM, SGLANG, MLX, TRANSFORMERS]
VLLM_LOG = (FOLDER / "python" / "vllm-log.txt").read_text("utf-8")
REQUEST = Request([{"role": "user", "content": "Hi"}], 64, 1, served_model="m")
LAUNCH = Launch(Path("SmolLM2"), 18181, 4096, 2)
OFF = Switch("off", template={"enable_thinking": False})


def answer_of(what: Recording, backend: Backend) -> Answer:
    pieces = [(round(t_s * 1e9), line) for t_s, line in what.lines]
    headers = {name.lower(): value for name, value in what.headers.items()}
    response = Response(0, 0, 0, pieces[-1][0], what.status, headers, pieces)
    return read_answer(response, backend.timings, backend.event)


# What a running server says of itself.


def test_vllm_settings_come_from_its_log() -> None:
    engine = VLLM.inspect(about("vllm"), VLLM_LOG)
    assert (engine.engine, engine.build) == ("vLLM", "0.32.0")
    assert (engine.api, engine.api_confirmed) == ("cpu", True)
    assert engine.speculation is True
    found = engine.resolved
    assert (found.context_per_slot, found.slots, found.prefix_caching) == (2048, 2, False)
    assert (found.dtype, found.quantization, found.tensor_parallel) == ("bfloat16", None, 1)


def test_vllm_without_a_log_tells_what_http_tells() -> None:
    ask = about("vllm")
    ask.answers["/metrics"] = 'vllm:cache_config_info{enable_prefix_caching="True",engine="0"} 1'
    engine = VLLM.inspect(ask, "")
    assert (engine.api, engine.api_confirmed, engine.speculation) == (None, None, None)
    assert (engine.resolved.context_per_slot, engine.resolved.prefix_caching) == (2048, True)


@pytest.mark.parametrize(
    ("line", "api"),
    [
        ("kv_cache_dtype=auto, device_config=cuda, x=1", "cuda"),
        ("Automatically detected platform rocm.\ndevice_config=cuda", "rocm"),
        ("█ version 0.30.0+rocm700\ndevice_config=cuda", "rocm"),
        ("device_config=cuda\nUsing ROCM_ATTN backend.", "rocm"),
        ("device_config=xpu", "sycl"),
        ("device_config=tpu", None),
        ("no device here", None),
    ],
)
def test_vllm_api(line: str, api: str | None) -> None:
    engine = VLLM.inspect(about("vllm"), line)
    assert (engine.api, engine.api_confirmed) == (api, None if api is None else True)


def test_vllm_quantization() -> None:
    log = re.sub(r"(?<= )quantization=None", "quantization=modelopt_fp4", VLLM_LOG)
    assert VLLM.inspect(about("vllm"), log).resolved.quantization == "modelopt_fp4"


def test_sglang_settings() -> None:
    engine = SGLANG.inspect(about("sglang"), "")
    assert (engine.engine, engine.build, engine.speculation) == ("SGLang", "0.5.6", False)
    # PyTorch's "cuda" may be AMD's: without kernels that tell, nobody knows.
    assert (engine.api, engine.api_confirmed) == (None, None)
    assert (engine.resolved.context_per_slot, engine.resolved.prefix_caching) == (40960, True)
    assert engine.resolved.tensor_parallel == 1


@pytest.mark.parametrize(
    ("said", "api"),
    [
        ({"device": "cuda", "attention_backend": "fa3"}, "cuda"),
        ({"device": "cuda", "decode_attention_backend": "flashinfer"}, "cuda"),
        ({"device": "cuda", "attention_backend": "aiter"}, "rocm"),
        ({"device": "cuda", "attention_backend": "triton"}, None),
        ({"device": "cpu", "attention_backend": "fa3"}, "cpu"),
        ({"device": "xpu"}, "sycl"),
    ],
)
def test_sglang_api(said: dict[str, Any], api: str | None) -> None:
    ask = about("sglang")
    ask.answers["/server_info"] = said
    assert SGLANG.inspect(ask, "").api == api


def test_an_older_sglang_says_it_elsewhere() -> None:
    ask = about("sglang")
    del ask.answers["/server_info"]
    assert SGLANG.recognises(ask)
    assert SGLANG.inspect(ask, "").build == "0.5.6"


@pytest.mark.parametrize(
    ("device", "api"),
    [("x86_64", "cpu"), ("applegpu_g16s", "metal"), ("sm_90", "cuda"), ("", None)],
)
def test_mlx_device(device: str, api: str | None) -> None:
    ask = about("mlx")
    said = {"system_fingerprint": f"0.32.2-0.32.4-macOS-26.1-arm64-arm-64bit-{device}"}
    ask.answers["/v1/chat/completions"] = said
    engine = MLX.inspect(ask, "")
    assert (engine.build, engine.api) == ("0.32.2", api)
    assert engine.api_confirmed is (None if api is None else True)
    # Its list is of the download cache: none of these is what it serves.
    assert engine.served_models == ()


def test_mlx_is_asked_for_a_token_last() -> None:
    """A server of another kind does no work to be told apart."""
    for path in ("/props", "/openapi.json"):
        ask = about("mlx")
        ask.answers[path] = {}
        assert not MLX.recognises(ask)
        assert ask.posted == []


def test_mlx_goes_on_serving_without_its_model() -> None:
    ask = about("mlx")
    assert list(MLX.load(ask, LAUNCH, None)) == [Loading("loading the model")]
    assert list(MLX.load(ask, None, None)) == []
    ask.answers["/v1/chat/completions"] = RequestError("answered 404: generation thread died")
    with pytest.raises(StartError, match="generation thread died"):
        list(MLX.load(ask, LAUNCH, None))


def test_transformers_build_is_the_programs_word() -> None:
    ask = about("transformers")
    assert TRANSFORMERS.inspect(ask, "").build is None
    said = replace(LAUNCH, answers=("", "Hint: a new version (5.23.0) is there\n5.19.0\n"))
    assert TRANSFORMERS.inspect(ask, "", said).build == "5.19.0"


# Requests.


@pytest.mark.parametrize("backend", [VLLM, SGLANG], ids=lambda backend: backend.name)
def test_length_and_usage_are_asked_for(backend: Backend) -> None:
    body = backend.body(replace(REQUEST, reasoning=OFF))
    assert (body["ignore_eos"], body["min_tokens"], body["max_tokens"]) == (True, 64, 64)
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


def test_transformers_takes_its_length_from_a_generation_config() -> None:
    """Fields it does not know it refuses."""
    body = TRANSFORMERS.body(REQUEST)
    config = json.loads(body["generation_config"])
    assert config == {"min_new_tokens": 64, "max_new_tokens": 64, "do_sample": False}
    assert not {"ignore_eos", "min_tokens", "cache_prompt"} & set(body)
    ask = Server({"/v1/chat/completions": {"usage": {"prompt_tokens": 33}}})
    assert TRANSFORMERS.count_prompt(ask, REQUEST) == 33
    [(_, counted)] = ask.posted
    assert "generation_config" not in counted
    assert counted["max_tokens"] == 1


@pytest.mark.parametrize("backend", [VLLM, SGLANG], ids=lambda backend: backend.name)
def test_prompts_are_counted_by_the_tokenizer(backend: Backend) -> None:
    ask = Server({"/tokenize": {"count": 38, "tokens": []}})
    assert backend.count_prompt(ask, replace(REQUEST, reasoning=OFF)) == 38
    assert backend.count_text(ask, "hello") == 38
    (_, prompt), (_, text) = ask.posted
    assert prompt["chat_template_kwargs"] == {"enable_thinking": False}
    assert text == {"prompt": "hello", "add_special_tokens": False}


def test_vllm_counts_an_effort_by_a_real_request() -> None:
    ask = Server({"/v1/chat/completions": {"usage": {"prompt_tokens": 40}}})
    asked = replace(REQUEST, reasoning=Switch("off", effort="low"))
    assert VLLM.count_prompt(ask, asked) == 40
    assert ask.posted[0][1]["reasoning_effort"] == "low"


# Streams.


def first_tokens(answer: Answer) -> int | None:
    """What the running counts say had come with the first chunk."""
    return dict(answer.running["usage"]).get(answer.chunks[0].t_ns)


def test_vllm_with_ngrams() -> None:
    """Four accepted drafts and the token that was sure come in one chunk."""
    answer = answer_of(recording("python/vllm-ngram"), VLLM)
    assert (answer.error, answer.finish_reason, answer.done) == (None, "length", True)
    assert (len(answer.chunks), answer.output_tokens, first_tokens(answer)) == (12, 48, 1)
    assert (answer.prompt_tokens, answer.cached_tokens) == (56, 0)
    assert (answer.drafted_tokens, answer.accepted_tokens) == (36, 36)
    assert answer.timings is not None
    assert (answer.timings.prompt_tokens, answer.timings.decode_tokens) == (56, 48)
    # From first to last token: the client's figure is the engine's.
    seconds = (answer.chunks[-1].t_ns - answer.chunks[0].t_ns) / 1e9
    assert 47 / seconds == pytest.approx(47 / answer.timings.decode_ms * 1e3, rel=0.03)


def test_vllm_that_thinks() -> None:
    """Its first token is empty text, so the first chunk that counts carries two; of the streamed
    reasoning its usage tells none."""
    answer = answer_of(recording("python/vllm-thinking"), VLLM)
    kinds = [chunk.kind for chunk in answer.chunks]
    assert kinds == [Kind.REASONING] * 10 + [Kind.CONTENT] * 19
    assert (answer.output_tokens, first_tokens(answer)) == (32, 2)
    assert answer.reasoning_tokens == 0
    assert (answer.drafted_tokens, answer.accepted_tokens) == (None, None)


def test_vllm_clock_leaves_cached_tokens_out() -> None:
    event = {
        "usage": {
            "prompt_tokens": 50,
            "completion_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 32},
        },
        "metrics": {"time_to_first_token_ms": 20.0, "generation_time_ms": 80.0},
    }
    assert VLLM.timings(event) == EngineTimings(18, 20.0, 9, 80.0, counts_first=True)
    assert VLLM.timings({**event, "metrics": None}) is None


def test_sglang_stream() -> None:
    answer = answer_of(recording("documented/sglang-chat"), SGLANG)
    assert (answer.error, answer.finish_reason, answer.done) == (None, "length", True)
    assert [chunk.kind for chunk in answer.chunks] == [Kind.REASONING] * 2 + [Kind.CONTENT] * 2
    assert (answer.output_tokens, first_tokens(answer)) == (6, 2)
    assert (answer.drafted_tokens, answer.accepted_tokens) == (6, 3)
    assert answer.cached_tokens == 0


# Counters.


def test_vllm_counters() -> None:
    text = (FOLDER / "vllm-metrics.txt").read_text("utf-8")
    said = VLLM.counters(Server({"/metrics": text}))
    assert said is not None
    assert (said["requests"], said["output_tokens"], said["prompt_tokens"]) == (2, 88, 118)
    assert (said["drafts"], said["drafted_tokens"]) == (17, 68)
    assert said["prefill_s"] > 0
    assert said["decode_s"] > 0


def test_sglang_counters() -> None:
    """Both kinds of requests are counted; time in the queue is no prefill time."""
    text = (FOLDER / "documented" / "sglang-metrics.txt").read_text("utf-8")
    assert SGLANG.counters(Server({"/metrics": text})) == {
        "requests": 2,
        "prompt_tokens": 76,
        "cached_tokens": 0,
        "output_tokens": 12,
        "decode_s": 0.4,
        "drafts": 6,
    }


# Reasons, as the engines' logs gave them.

VLLM_PREFIX = "(EngineCore pid=21728) ERROR 11-22 23:50:12 [core.py:1510]"
FAILURES = {
    "vllm: error: unrecognized arguments: --max-num-seq 3": (
        "unrecognized arguments: --max-num-seq 3"
    ),
    "\N{BOX DRAWINGS LIGHT VERTICAL} No such option '--typo'.": "No such option '--typo'.",
    f"{VLLM_PREFIX} ValueError: To serve at least one request with the model's max seq len (2048)"
    ", (0.04 GiB KV cache is needed)\nRuntimeError: Engine core initialization failed.": (
        "To serve at least one request with the model's max seq len (2048), (0.04 GiB KV cache is"
        " needed)"
    ),
    "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
    "  Value error, Unknown quantization method: nonsense. [type=value_error, input_value=…]\n": (
        "Unknown quantization method: nonsense."
    ),
    "ERROR: The checkpoint you are trying to load has model type `nosuch` but Transformers does not"
    " recognize this architecture.\n": (
        "The checkpoint you are trying to load has model type `nosuch` but Transformers does not"
        " recognize this architecture."
    ),
    "ModuleNotFoundError: No module named 'mlx_lm.models.nosuch'\n"
    "ValueError: Model type nosuch not supported.": "Model type nosuch not supported.",
    "ModuleNotFoundError: No module named 'flashinfer'\nRuntimeError: gone": (
        "ModuleNotFoundError: No module named 'flashinfer'"
    ),
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.\n": (
        "CUDA out of memory. Tried to allocate 20.00 MiB."
    ),
    "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.": (
        "Not enough memory. Please try to increase --mem-fraction-static."
    ),
    "(VllmWorker-0 pid=1) ERROR 11-22 23:51:21 [multiproc_executor.py:953] ValueError: Available"
    " memory on node 0\nRuntimeError: Engine core initialization failed. See root cause above.": (
        "ValueError: Available memory on node 0"
    ),
    "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find a snapshot folder": (
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find a snapshot folder"
    ),
    "INFO: everything is well\nWARNING: this might cause fd limit errors like `OSError: [Errno 24]"
    " Too many open files`": None,
}


@pytest.mark.parametrize("backend", ALL, ids=lambda backend: backend.name)
@pytest.mark.parametrize("log", FAILURES)
def test_the_log_tells_the_reason(backend: Backend, log: str) -> None:
    assert backend.failure(f"INFO starting\n{log}\nINFO ended\n") == FAILURES[log]
