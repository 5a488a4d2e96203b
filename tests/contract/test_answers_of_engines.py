"""What engines answer with zeros, text, nulls and other things in the place of facts: nothing of
it becomes a fact, and nothing of it a traceback."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.recordings import FOLDER, Server, about
from tokrig.backends import Backend, Engine, Launch
from tokrig.backends._reading import count, text
from tokrig.backends.llamacpp import BACKEND as LLAMACPP
from tokrig.backends.mlx import BACKEND as MLX
from tokrig.backends.sglang import BACKEND as SGLANG
from tokrig.backends.transformers import BACKEND as TRANSFORMERS
from tokrig.backends.vllm import BACKEND as VLLM

LOGS = {
    "llamacpp": (FOLDER.parent / "logs" / "llamacpp-vulkan.txt").read_text("utf-8"),
    "vllm": (FOLDER / "python" / "vllm-log.txt").read_text("utf-8"),
}
LAUNCH = Launch(Path("SmolLM2"), 18181, 4096, 2)
JUNK: tuple[Any, ...] = (
    0,
    -1,
    -1.5,
    1e300,
    math.nan,
    True,
    None,
    "",
    "  ",
    "n/a",
    [],
    {},
    [None],
    {"a": 1},
    1 << 70,
)
ALL: list[Backend] = [LLAMACPP, VLLM, SGLANG, MLX, TRANSFORMERS]
# 0 is a fact of these: no layer on the GPU.
MAY_BE_ZERO = {"gpu_layers"}


def inspected(backend: Backend, answers: dict[str, Any], log: str) -> Engine:
    return backend.inspect(Server(answers), log, LAUNCH)


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value stands that holds no other, and every object and list on the way."""
    if path:
        yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree[:2]):
            yield from leaves(value, (*path, index))


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(tree)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


def require_no_false_fact(engine: Engine) -> None:
    for name, value in engine.resolved.model_dump().items():
        if isinstance(value, int) and not isinstance(value, bool) and name not in MAY_BE_ZERO:
            assert value > 0, name
        assert value not in ("", "None", "nan"), name
    assert "None" not in engine.served_models
    assert all(name.strip() for name in engine.served_models)
    assert all(size > 0 for size in engine.device_bytes.values())


# What only its prompt template or its samplers tell is no business of inspect.
_UNREAD = ("params", "chat_template", "chat_template_caps", "modalities")


@pytest.mark.parametrize("backend", ALL, ids=lambda backend: backend.name)
def test_junk_in_the_place_of_every_answer(backend: Backend) -> None:
    answers = about(backend.name).answers
    log = LOGS.get(backend.name, "")
    tried = 0
    for path in leaves(answers):
        if any(part in _UNREAD for part in path[1:]):
            continue
        for junk in JUNK:
            require_no_false_fact(inspected(backend, replaced(answers, path, junk), log))
            tried += 1
    assert tried > 50


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (("default_generation_settings", "n_ctx"), "context_per_slot"),
        (("total_slots",), "slots"),
    ],
)
def test_llama_servers_zero_context_and_slots(path: tuple[str, ...], key: str) -> None:
    """A router answers ``n_ctx: 0`` before it has loaded a model."""
    props = about("llamacpp").answers["/props"]
    for value, expected in ((0, None), ("4096", 4096), (4096.0, 4096), (-1, None)):
        answers = {"/props": replaced(props, path, value), "/v1/models": {"data": []}}
        assert getattr(inspected(LLAMACPP, answers, "").resolved, key) == expected


def test_an_empty_list_of_models_names_none() -> None:
    lists: list[Any] = [[], None, [{}], [{"id": None}], [{"id": ""}], "models", [["m"]]]
    for data in lists:
        engine = inspected(VLLM, {"/v1/models": {"data": data}, "/version": {"version": None}}, "")
        assert (engine.served_models, engine.build) == ((), None)
        assert engine.resolved.context_per_slot is None
    two = inspected(VLLM, {"/v1/models": {"data": [{"id": None}, {"id": "m"}]}}, "")
    assert two.served_models == ("m",)


@pytest.mark.parametrize(
    "page", ["x_total abc\n", "x_total NaN\n", "x_total +Inf\n", "x_total\n", ""]
)
def test_counters_that_are_no_numbers(page: str) -> None:
    told = page.replace("x_total", "vllm:prompt_tokens_total")
    assert VLLM.counters(Server({"/metrics": told})) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1), ("4096", 4096), (" 4096 ", 4096), (4096.0, 4096), ((1 << 63) - 1, (1 << 63) - 1)],
)
def test_counts(value: Any, expected: int) -> None:
    assert count(value) == expected


@pytest.mark.parametrize(
    "value", [*JUNK, 0.5, "0", "-1", "4k", "٤", False, 1 << 63, math.inf, "9" * 40]
)
def test_what_is_no_count(value: Any) -> None:
    assert count(value) is None


def test_texts() -> None:
    given: list[Any] = ["a", " a ", "", "  ", None, 1, []]
    assert [text(value) for value in given] == ["a", "a", *[None] * 5]


# vLLM and SGLang of where the model lies, and of threads.

OMP = """OpenMP thread binding info:
\tVLLM_CPU_OMP_THREADS_BIND={mask!r}, auto_setup={auto}, skip_setup={skip}
\tlocal_world_size=1, reserve_cpu_num=1
{cores}\treserved_cpus=[1]
"""


@pytest.mark.parametrize(
    ("log", "threads"),
    [
        (OMP.format(mask="auto", auto=True, skip=False, cores="\tlocal_rank=0, core ids=[0]\n"), 1),
        (
            OMP.format(
                mask="0-2", auto=False, skip=False, cores="\tlocal_rank=0, core ids=[0, 1, 2]\n"
            ),
            3,
        ),
        (OMP.format(mask="nobind", auto=False, skip=True, cores=""), 4),
        # vllm#17930
        (
            "[cpu_worker.py:51] OMP tid: 1186205, core 12\n"
            "[cpu_worker.py:51] OMP tid: 1186674, core 13",
            2,
        ),
        ("", None),
    ],
)
def test_vllms_threads_are_those_that_it_binds(log: str, threads: int | None) -> None:
    """It sets OMP_NUM_THREADS itself (vllm/utils/ompmultiprocessing.py of 0.32.0)."""
    launch = Launch(Path("m"), 1, 1, 1, settings={"threads": 4})
    assert VLLM.inspect(about("vllm"), log, launch).resolved.threads == threads


def test_vllm_is_told_to_bind_no_threads_where_a_number_is_asked_for(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    env = VLLM.command(Launch(tmp_path, 1, 1, 1, settings={"threads": 4}, binary=str(program))).env
    assert (env["OMP_NUM_THREADS"], env["VLLM_CPU_OMP_THREADS_BIND"]) == ("4", "nobind")
    assert (
        "VLLM_CPU_OMP_THREADS_BIND"
        not in VLLM.command(Launch(tmp_path, 1, 1, 1, binary=str(program))).env
    )


@pytest.mark.parametrize(
    ("log", "gib"),
    [
        ("device_config=cuda\nModel loading took 14.99 GiB memory and 3.1 seconds", 14.99),
        ("device_config=cuda\nModel loading took 14.99 GB and 3.1 seconds", 14.99),
        ("device_config=cuda\nLoading model weights took 14.99 GB", 14.99),
        (
            "device_config=cuda\nModel loading took 5 GiB memory and 3 seconds\n"
            "Available KV cache memory: 2.5 GiB",
            7.5,
        ),
        # Two workers, of which one told.
        ("device_config=cuda, tensor_parallel_size=2\nModel loading took 5 GiB memory and", None),
        ("device_config=cpu\nModel loading took 5 GiB memory and 3 seconds", None),
    ],
)
def test_vllms_own_account_of_memory(log: str, gib: float | None) -> None:
    found = VLLM.inspect(about("vllm"), log).device_bytes
    assert found == ({} if gib is None else {"cuda": round(gib * (1 << 30))})


def test_sglangs_own_account_of_memory() -> None:
    info = {
        "device": "cuda",
        "attention_backend": "fa3",
        "internal_states": [{"memory_usage": {"weight": 15.0, "kvcache": 40, "cuda_graph": 1.0}}],
    }
    found = SGLANG.inspect(Server({"/server_info": info}), "")
    assert found.device_bytes == {"cuda": 56 << 30}
    info["internal_states"] = [{"memory_usage": {"weight": None}}]
    assert SGLANG.inspect(Server({"/server_info": info}), "").device_bytes == {}


@pytest.mark.parametrize("backend", [VLLM, SGLANG], ids=lambda backend: backend.name)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cpu-offload-gb": 4}, "cpu-offload-gb 4"),
        ({"cpu_offload_gb": 1.5}, "cpu-offload-gb 1.5"),
        ({"--offload-group-size": 8}, "offload-group-size 8"),
        ({"cpu-offload-gb": 0}, None),
        ({}, None),
    ],
)
def test_weights_kept_in_main_memory_on_purpose(
    backend: Backend, options: dict[str, Any], words: str | None
) -> None:
    launch = Launch(Path("m"), 1, 1, 1, options=options)
    assert backend.inspect(about(backend.name), "device_config=cuda", launch).offload == words


def test_settings_chosen_by_options() -> None:
    options: dict[str, Any] = {
        "dtype": "half",
        "tensor_parallel_size": 2,
        "quantization": "auto",
        "seed": 1,
    }
    launch = Launch(Path("m"), 1, 1, 1, options=options)
    assert VLLM.inspect(about("vllm"), "", launch).asked == {"dtype": "half", "tensor_parallel": 2}
