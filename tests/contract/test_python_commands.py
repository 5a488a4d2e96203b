"""Command lines of the engines written in Python, and what is refused before one is run."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tokrig.backends import Backend, Launch, Speculation
from tokrig.backends._python import PythonServer
from tokrig.backends.mlx import BACKEND as MLX
from tokrig.backends.sglang import BACKEND as SGLANG
from tokrig.backends.transformers import BACKEND as TRANSFORMERS
from tokrig.backends.vllm import BACKEND as VLLM
from tokrig.errors import InputError
from tokrig.run.prepare import outline
from tokrig.spec.reasoning import Switch
from tokrig.spec.run import RunSpec

ALL: list[Backend] = [VLLM, SGLANG, MLX, TRANSFORMERS]
OFF = Switch("off", template={"enable_thinking": False})

VLLM_HELP = """usage: vllm serve [model_tag] [options]
  --max-num-seqs MAX_NUM_SEQS
  --speculative-config SPECULATIVE_CONFIG, -sc SPECULATIVE_CONFIG
  --enable-per-request-metrics, --no-enable-per-request-metrics
  --enable-prompt-tokens-details, --no-enable-prompt-tokens-details
  --per-request-spec-decode-metrics {detailed,none,summary}
"""


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """A model's folder and a program that is never run."""
    binary, model = tmp_path / "engine", tmp_path / "SmolLM2"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    model.mkdir()
    return Launch(model, 18181, 4096, 2, settings={"threads": 3}, binary=str(binary))


def flags(backend: Backend, launch: Launch) -> dict[str, str | None]:
    """The long flags of a command line with their values."""
    argv = [*backend.command(launch).argv, "--"]
    return {
        word[2:]: None if following.startswith("--") else following
        for word, following in pairwise(argv)
        if word.startswith("--") and word != "--"
    }


# Command lines.


@pytest.mark.parametrize("backend", ALL, ids=lambda backend: backend.name)
def test_nothing_is_fetched_and_nothing_told(backend: Backend, launch: Launch) -> None:
    launch = replace(launch, settings={})
    env = backend.command(launch).env
    assert (env["HF_HUB_OFFLINE"], env["DO_NOT_TRACK"]) == ("1", "1")
    assert flags(backend, launch)["host"] == "127.0.0.1"


def test_vllm_flags(launch: Launch) -> None:
    given = flags(VLLM, replace(launch, options={"quantization": "fp8", "tensor_parallel_size": 2}))
    assert given == {
        "served-model-name": "SmolLM2",
        "host": "127.0.0.1",
        "port": "18181",
        "max-model-len": "4096",
        "max-num-seqs": "2",
        "no-enable-prefix-caching": None,
        "quantization": "fp8",
        "tensor-parallel-size": "2",
    }
    command = VLLM.command(launch)
    assert command.argv[1:3] == ("serve", str(launch.model))
    assert command.env["VLLM_NO_USAGE_STATS"] == "1"
    assert command.env["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("asked", "config"),
    [
        (
            Speculation("ngram"),
            {
                "method": "ngram",
                "prompt_lookup_min": 2,
                "prompt_lookup_max": 4,
                "num_speculative_tokens": 4,
            },
        ),
        (
            Speculation("draft", Path("d"), 7),
            {"method": "draft_model", "model": "d", "num_speculative_tokens": 7},
        ),
        (Speculation("mtp"), {"method": "mtp"}),
        (Speculation("mtp", None, 2), {"method": "mtp", "num_speculative_tokens": 2}),
        (Speculation("eagle", Path("x-EAGLE3")), {"method": "eagle3", "model": "x-EAGLE3"}),
        (Speculation("eagle", Path("EAGLE-x")), {"method": "eagle", "model": "EAGLE-x"}),
    ],
)
def test_vllm_speculation(launch: Launch, asked: Speculation, config: dict[str, Any]) -> None:
    given = flags(VLLM, replace(launch, speculation=asked))
    assert json.loads(given["speculative-config"] or "") == config


def test_vllm_tells_what_its_build_can_tell(launch: Launch) -> None:
    """It refuses to tell of drafts where it makes none."""
    known = replace(launch, answers=(VLLM_HELP,))
    telling = {"enable-prompt-tokens-details", "enable-per-request-metrics"}
    drafts = "per-request-spec-decode-metrics"
    assert set(flags(VLLM, known)) - set(flags(VLLM, launch)) == telling
    given = flags(VLLM, replace(known, speculation=Speculation("ngram")))
    assert telling | {drafts} <= set(given)
    assert given[drafts] == "summary"
    chosen = replace(known, options={"enable_per_request_metrics": False})
    assert "enable-per-request-metrics" not in flags(VLLM, chosen)


@pytest.mark.parametrize(
    ("backend", "asked", "given"),
    [
        (VLLM, {"devices": ("0", "CUDA2")}, {"CUDA_VISIBLE_DEVICES": "0,2"}),
        (VLLM, {"devices": ("cuda:1",), "api": "cuda"}, {"CUDA_VISIBLE_DEVICES": "1"}),
        (SGLANG, {"devices": ("GPU-8f2a",)}, {"CUDA_VISIBLE_DEVICES": "GPU-8f2a"}),
        (TRANSFORMERS, {"devices": ("ROCm1",), "api": "rocm"}, {"HIP_VISIBLE_DEVICES": "1"}),
        (TRANSFORMERS, {"devices": ("1",), "api": "cpu"}, {}),
    ],
)
def test_only_the_devices_asked_for_are_seen(
    launch: Launch, backend: Backend, asked: dict[str, Any], given: dict[str, str]
) -> None:
    env = backend.command(replace(launch, **asked)).env
    assert {name: env[name] for name in env if "VISIBLE" in name} == given


def test_sglang_flags(launch: Launch) -> None:
    given = flags(SGLANG, replace(launch, api="rocm", options={"quantization": "modelopt_fp4"}))
    assert given == {
        "model-path": str(launch.model),
        "served-model-name": "SmolLM2",
        "host": "127.0.0.1",
        "port": "18181",
        "context-length": "4096",
        "max-running-requests": "2",
        "disable-radix-cache": None,
        "enable-metrics": None,
        "enable-cache-report": None,
        "device": "cuda",
        "quantization": "modelopt_fp4",
    }


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (Speculation("ngram"), {"algorithm": "NGRAM"}),
        (Speculation("ngram", None, 7), {"algorithm": "NGRAM", "num-draft-tokens": "8"}),
        (Speculation("mtp"), {"algorithm": "NEXTN"}),
        (
            Speculation("draft", Path("d"), 3),
            {
                "algorithm": "STANDALONE",
                "draft-model-path": "d",
                "num-draft-tokens": "4",
                "num-steps": "3",
                "eagle-topk": "1",
            },
        ),
        (Speculation("eagle", Path("E3")), {"algorithm": "EAGLE", "draft-model-path": "E3"}),
        (
            Speculation("eagle", Path("q-eagle3")),
            {"algorithm": "EAGLE3", "draft-model-path": "q-eagle3"},
        ),
    ],
)
def test_sglang_speculation(launch: Launch, asked: Speculation, given: dict[str, str]) -> None:
    found = flags(SGLANG, replace(launch, speculation=asked))
    prefix = "speculative-"
    assert {n.removeprefix(prefix): v for n, v in found.items() if n.startswith(prefix)} == given


def test_mlx_flags(launch: Launch) -> None:
    """Its prompt cache is off and its batch as large as the slots, where the build can."""
    launch = replace(launch, settings={})
    assert set(flags(MLX, launch)) == {"model", "host", "port"}
    known = replace(launch, answers=("--prompt-cache-size N --decode-concurrency N",))
    given = flags(MLX, known)
    assert (given["prompt-cache-size"], given["decode-concurrency"]) == ("0", "2")
    assert "prompt-concurrency" not in given
    assert Path(MLX.command(launch).env["HF_HUB_CACHE"]).is_dir()


def test_transformers_flags(launch: Launch) -> None:
    known = replace(launch, answers=("--reasoning [on|off|auto]", "5.19.0"))
    assert flags(TRANSFORMERS, replace(launch, api="metal"))["device"] == "mps"
    assert flags(TRANSFORMERS, replace(known, reasoning=OFF))["reasoning"] == "off"
    assert "reasoning" not in flags(TRANSFORMERS, replace(launch, reasoning=OFF))
    own = replace(OFF, engine_flag=False)
    assert "reasoning" not in flags(TRANSFORMERS, replace(known, reasoning=own))


@pytest.mark.parametrize("backend", [MLX, TRANSFORMERS], ids=lambda backend: backend.name)
def test_speculation_that_nobody_could_confirm_is_refused(backend: Backend) -> None:
    asked = RunSpec(backend=backend.name, model="m", speculative="ngram")
    with pytest.raises(InputError, match="does not support 'ngram' speculation"):
        outline(asked, datetime.now(UTC))


@pytest.mark.parametrize("backend", [SGLANG, TRANSFORMERS], ids=lambda backend: backend.name)
def test_every_api_has_a_word(backend: PythonServer) -> None:
    assert set(backend.devices) == set(backend.capabilities.apis)


@pytest.mark.parametrize("backend", [VLLM, SGLANG], ids=lambda backend: backend.name)
@pytest.mark.parametrize("kind", ["draft", "eagle"])
def test_a_draft_without_a_model_is_refused(backend: Backend, kind: Any, launch: Launch) -> None:
    with pytest.raises(InputError, match="needs a draft model"):
        backend.command(replace(launch, speculation=Speculation(kind)))


# What a binary says of itself.


def test_vllm_is_asked_for_its_build_only_where_it_matters(launch: Launch) -> None:
    asked = [question[1:] for question in VLLM.questions(launch)]
    assert asked == [("serve", "--help=all")]
    asked = [question[1:] for question in VLLM.questions(replace(launch, api="cuda"))]
    assert asked == [("serve", "--help=all"), ("--version",)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answers": (VLLM_HELP,)}, None),
        ({"answers": (VLLM_HELP, "Disabling Triton.\n0.32.0+cpu\n"), "api": "cpu"}, None),
        ({"answers": (VLLM_HELP, "0.32.0"), "api": "cuda"}, None),
        (
            {"answers": (VLLM_HELP, "0.32.0+cpu\nDisabling Triton."), "api": "cuda"},
            r"\(0.32.0\+cpu\) is built for the CPU, not for cuda",
        ),
        (
            {"answers": ("--max-num-seqs N",), "speculation": Speculation("ngram")},
            "too old for --speculative-config",
        ),
        ({"answers": ("usage: cat [FILE]",)}, "is not vllm: it says 'usage: cat"),
        ({"answers": ("",)}, "it says 'nothing'"),
        (
            {"answers": ("Traceback\nModuleNotFoundError: No module named 'torch'",)},
            "No module named 'torch'",
        ),
    ],
)
def test_vllm_is_vetted(launch: Launch, changes: dict[str, Any], reason: str | None) -> None:
    asked = replace(launch, **changes)
    if reason is None:
        VLLM.vet(asked)
        return
    with pytest.raises(InputError, match=reason) as caught:
        VLLM.vet(asked)
    assert caught.value.hint


@pytest.mark.parametrize("backend", [SGLANG, MLX, TRANSFORMERS], ids=lambda backend: backend.name)
def test_another_program_is_refused(backend: Backend, launch: Launch) -> None:
    said = ("usage: cat [FILE]",) * len(backend.questions(launch))
    with pytest.raises(InputError, match="it says 'usage: cat"):
        backend.vet(replace(launch, answers=said))


@pytest.mark.parametrize("backend", ALL, ids=lambda backend: backend.name)
def test_a_missing_program_is_told(backend: Backend, launch: Launch) -> None:
    with pytest.raises(InputError, match=r"no runnable .+ at 'no-such-engine'") as caught:
        backend.questions(replace(launch, binary="no-such-engine"))
    assert "--server-bin" in caught.value.hint
