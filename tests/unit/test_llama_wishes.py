"""What a llama.cpp server was asked to keep off the GPU, in all the ways it can be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokrig.backends import Launch
from tokrig.backends import _llama as llama
from tokrig.backends import _llama_log as llama_log
from tokrig.spec.settings import Api

# As koboldcpp#2030 and llama.cpp#15077 show such logs.
LOG = """print_info: n_layer               = 48
load_tensors: offloading output layer to GPU
load_tensors: offloading {0} repeating layers to GPU
load_tensors: offloaded {1}/49 layers to GPU
load_tensors:          CPU model buffer size =   809.29 MiB
load_tensors:        CUDA0 model buffer size = 31014.14 MiB
"""
ON_CPU = """print_info: n_layer               = 48
load_tensors:   CPU_Mapped model buffer size = 14965.61 MiB
"""


def launch(api: Api | None = "cuda", **options: Any) -> Launch:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return Launch(Path("m.gguf"), 0, 4096, 1, api=api, options=named)


def placed(
    wanted: Launch | None, log: str, environment: dict[str, str] | None = None
) -> dict[str, Any]:
    return llama.placement(wanted, log, llama_log.settings(log), environment or {})


def kept(wanted: Launch, environment: dict[str, str] | None = None, layers: int = 49) -> str | None:
    offload: str | None = placed(wanted, LOG.format(layers - 1, layers), environment)["offload"]
    return offload


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, None),
        ({"cpu_moe": True}, "cpu-moe"),
        ({"cmoe": True}, "cpu-moe"),
        ({"cpu_moe": False}, None),
        ({"n_cpu_moe": 4}, "n-cpu-moe 4"),
        ({"ncmoe": 4}, "n-cpu-moe 4"),
        ({"n_cpu_moe": 0}, None),
        ({"n_cpu_ffn": 8}, "n-cpu-ffn 8"),
        ({"override_tensor": "exps=CPU"}, "override-tensor exps=CPU"),
        ({"ot": "exps=CPU,attn=CUDA1"}, "override-tensor exps=CPU"),
        ({"ot": "exps=CUDA_Host"}, "override-tensor exps=CUDA_Host"),
        # From one device to another nothing is kept back.
        ({"ot": r"blk\.[0-9]\.=CUDA1"}, None),
        ({"no_kv_offload": True}, "no-kv-offload"),
        ({"nkvo": True}, "no-kv-offload"),
        ({"spec_draft_cpu_moe": True}, "draft cpu-moe"),
        ({"n_cpu_moe_draft": 3}, "draft n-cpu-moe 3"),
        ({"override_tensor_draft": "exps=CPU"}, "draft override-tensor exps=CPU"),
        ({"gpu_layers_draft": 0}, "draft gpu-layers 0"),
        ({"gpu_layers_draft": 999}, None),
        ({"n_cpu_moe": 4, "nkvo": True}, "n-cpu-moe 4, no-kv-offload"),
        ({"llamacpp_args": "--n-cpu-moe 4 --no-mmap -nkvo"}, "n-cpu-moe 4, no-kv-offload"),
        ({"llamacpp_args": "--override-tensor 'exps=CPU'"}, "override-tensor exps=CPU"),
    ],
)
def test_flags_under_all_their_names(options: dict[str, Any], words: str | None) -> None:
    assert kept(launch(**options)) == words


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("LLAMA_ARG_CPU_MOE", "1", "cpu-moe"),
        ("LLAMA_ARG_CPU_MOE", "0", None),
        ("LLAMA_ARG_N_CPU_MOE", "4", "n-cpu-moe 4"),
        ("LLAMA_ARG_NO_KV_OFFLOAD", "1", "no-kv-offload"),
        ("LLAMA_ARG_KV_OFFLOAD", "0", "no-kv-offload"),
        ("LLAMA_ARG_KV_OFFLOAD", "1", None),
        ("LLAMA_ARG_OVERRIDE_TENSOR", "exps=CPU", "override-tensor exps=CPU"),
        # tokrig asks for all layers itself where an API is named.
        ("LLAMA_ARG_N_GPU_LAYERS", "20", None),
    ],
)
def test_variables_hold_where_no_flag_does(variable: str, value: str, words: str | None) -> None:
    assert kept(launch(), {variable: value}) == words


def test_a_flag_overrules_its_variable() -> None:
    assert kept(launch(n_cpu_moe=2), {"LLAMA_ARG_N_CPU_MOE": "4"}) == "n-cpu-moe 2"


@pytest.mark.parametrize("name", ["n_gpu_layers", "gpu_layers", "ngl"])
def test_layers(name: str) -> None:
    options: dict[str, Any] = {name: 20}
    wanted = launch(**options)
    log = LOG.format(19, 20)
    assert placed(wanted, log)["asked_gpu_layers"] == 20
    assert kept(wanted, layers=20) == "20 of 49 layers"
    # Fewer than asked are a spill, told elsewhere; the mode is what was asked.
    assert kept(wanted, layers=10) == "20 of 49 layers"
    options = {name: 99}
    assert kept(launch(**options)) is None


def test_where_nobody_asked_the_engines_own_choice_is_told() -> None:
    assert kept(launch(api=None), layers=44) == "44 of 49 layers"
    assert kept(launch(api=None)) is None
    named = {"LLAMA_ARG_N_GPU_LAYERS": "44"}
    assert placed(launch(api=None), LOG.format(43, 44), named)["asked_gpu_layers"] == 44


def test_an_engine_told_to_fit_the_model_to_the_free_memory() -> None:
    """It may move single experts: all layers then count as offloaded."""
    assert kept(launch(fit="on")) == "fit"
    assert kept(launch(fit=True)) == "fit"
    assert kept(launch(fit="off")) is None
    log = LOG.format(48, 49)
    log += "common_params_fit_impl: will leave 4096 >= 1024 MiB of free device memory, no changes"
    assert placed(launch(fit="on"), log + " needed\n")["offload"] is None


def test_where_all_computes_on_the_cpu_nothing_is_kept_back() -> None:
    assert placed(launch(api="cpu", cpu_moe=True), ON_CPU)["offload"] is None
    assert placed(launch(api=None, cpu_moe=True), ON_CPU)["offload"] is None
    # ROCm/legacy-rocm-build#5104: all weights in main memory, the GPU takes long prompts.
    helped = ON_CPU + "llama_context:      ROCm0 compute buffer size =  1094.99 MiB\n"
    helped += "load_tensors: offloaded 0/49 layers to GPU\n"
    assert placed(launch(api=None), helped)["offload"] == "0 of 49 layers"
    assert placed(None, helped)["offload"] is None


def test_settings_that_the_engine_logs() -> None:
    wanted = launch(batch_size=4096, flash_attn=True, cache_type_k="q8_0", no_mmap=True)
    expected = {"batch": 4096, "flash_attention": "enabled", "cache_type_k": "q8_0"}
    assert llama.asked_settings(wanted) == expected
    assert llama.asked_settings(launch(flash_attn="auto")) == {}
    pinned = Launch(Path("m"), 0, 1, 1, devices=("CUDA1", "CUDA0"))
    assert llama.asked_settings(pinned) == {"devices": "CUDA1,CUDA0"}
    assert llama.asked_settings(None) == {}
