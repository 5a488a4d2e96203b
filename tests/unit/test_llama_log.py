"""What llama.cpp prints, read from logs of real builds (tests/data/logs) and from forms of theirs
that no machine here can produce."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokrig.backends import _llama_log as llama_log
from tokrig.record.model import Resolved

LOGS = Path(__file__).parent.parent / "data" / "logs"
MIB = 1 << 20


def log(name: str) -> str:
    return (LOGS / f"llamacpp-{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "api", "gpu_layers", "devices"),
    [
        ("vulkan", "vulkan", 31, ["Vulkan0"]),
        ("vulkan-10-layers", "vulkan", 10, ["Vulkan0"]),
        ("vulkan-0-layers", "cpu", 0, ["Vulkan0"]),
        ("vulkan-no-device", "cpu", None, []),
        ("vulkan-device-none", "cpu", 0, []),
        ("cpu-repack", "cpu", None, []),
    ],
)
def test_what_computes_is_what_holds_the_weights(
    name: str, api: str, gpu_layers: int | None, devices: list[str]
) -> None:
    found = llama_log.settings(log(name))
    # Without a layer on it the device still holds a compute buffer, for long prompts.
    assert llama_log.api_of(log(name)) == (api, name != "vulkan-0-layers")
    assert found.gpu_layers == gpu_layers
    assert found.devices == devices


def test_a_log_that_counts_offloaded_layers_without_a_device_is_not_believed() -> None:
    text = log("vulkan-device-none")
    assert "offloaded 31/31 layers to GPU" in text
    assert llama_log.settings(text).gpu_layers == 0


def test_without_the_lines_nothing_is_known() -> None:
    quiet = "0.00.339.275 I srv  llama_server: model loaded\n"
    assert llama_log.api_of(quiet) == (None, None)
    assert llama_log.device_bytes(quiet) == {}
    assert llama_log.settings(quiet).gpu_layers is None
    assert llama_log.all_layers(quiet) is None
    assert llama_log.speculates(quiet) is None
    assert llama_log.failure(quiet) is None


def weights(*buffers: tuple[str, float]) -> str:
    return "".join(
        f"load_tensors: {name:>12} model buffer size = {mib:8.2f} MiB\n" for name, mib in buffers
    )


@pytest.mark.parametrize(
    ("buffers", "api", "split"),
    [
        ([("CPU_Mapped", 300.0), ("CUDA0", 4000.0)], "cuda", None),
        ([("CUDA_Host", 300.0), ("CUDA0", 4000.0), ("CUDA1", 4000.0)], "cuda", "layer"),
        ([("CUDA_Split", 4000.0), ("CUDA0", 12.0), ("CUDA1", 11.0)], "cuda", "row"),
        ([("ROCm0", 4000.0), ("ROCm_Host", 300.0)], "rocm", None),
        ([("MTL0_Mapped", 4000.0), ("CPU_Mapped", 300.0)], "metal", None),
        ([("Metal_Mapped", 4000.0)], "metal", None),
        ([("SYCL0", 4000.0)], "sycl", None),
        ([("CUDA0", 4000.0), ("Vulkan1", 400.0)], "cuda+vulkan", "layer"),
        ([("CANN0", 4000.0)], "cann", None),
        ([("Vulkan_Host", 300.0), ("Vulkan0", 0.0), ("CPU_REPACK", 9.0)], "cpu", None),
        ([("AMX", 90.0), ("CPU", 9.0)], "cpu", None),
    ],
)
def test_the_names_of_buffers(
    buffers: list[tuple[str, float]], api: str, split: str | None
) -> None:
    assert llama_log.api_of(weights(*buffers)) == (api, True)
    assert llama_log.settings(weights(*buffers)).split_mode == split


def test_early_builds_write_weights_without_the_word_model() -> None:
    early = "llm_load_tensors:      CUDA0 buffer size =  3847.55 MiB\n"
    assert llama_log.api_of(early) == ("cuda", True)
    assert llama_log.device_bytes(early) == {"CUDA0": round(3847.55 * MIB)}


def test_bytes_by_device() -> None:
    found = llama_log.device_bytes(log("vulkan"))
    assert found["Vulkan0"] == pytest.approx((92.10 + 22.50 + 14.51) * MIB, abs=9)
    assert found["CPU"] == pytest.approx((28.69 + 0.19 + 5.52) * MIB, abs=9)
    assert set(found) == {"Vulkan0", "CPU"}


def test_bytes_of_two_caches_add_up_and_compute_buffers_are_replaced() -> None:
    found = llama_log.device_bytes(log("cpu-repack"))
    assert found == {"CPU": pytest.approx((235.16 + 12.66 + 1.0 + 3.0 + 15.0 + 20.28) * MIB, abs=9)}
    again = "sched_reserve:        CPU compute buffer size =    20.28 MiB\n"
    assert llama_log.device_bytes(log("cpu-repack") + again) == found


def test_a_draft_adds_its_bytes_but_not_its_settings() -> None:
    both, alone = log("draft-mismatch"), log("draft-mismatch").split("loading draft model")[0]
    assert llama_log.device_bytes(both)["CPU"] > 2 * llama_log.device_bytes(alone)["CPU"]
    assert llama_log.settings(both).layers == 30
    assert llama_log.settings(both).slots == 1


def test_settings() -> None:
    found = llama_log.settings(log("vulkan"))
    assert (found.context_per_slot, found.slots) == (1024, 1)
    assert (found.threads, found.threads_batch) == (2, 2)
    assert (found.batch, found.ubatch) == (1024, 512)
    assert (found.cache_type_k, found.cache_type_v) == ("f16", "f16")
    assert found.flash_attention == "enabled"
    assert found.layers == 30
    assert "avx2" in found.cpu_features


@pytest.mark.parametrize(
    ("name", "speculates"),
    [("draft", True), ("draft-mismatch", False), ("vulkan", False)],
)
def test_whether_it_speculates(name: str, speculates: bool) -> None:
    assert llama_log.speculates(log(name)) is speculates


@pytest.mark.parametrize(
    ("text", "build"),
    [
        ("b11434-unknown", "b11434"),
        ("version: 0.6.0-dev (build 11434, commit unknown)\nbuilt with GNU 12.2.0", "b11434"),
        ("version: 6795 (4926419c)\nbuilt with cc for x86_64-linux-gnu", "b6795"),
        ("version: 0.6.0-dev (build 0, commit unknown)", None),
        ("b0-unknown", None),
        ("", None),
    ],
)
def test_builds(text: str, build: str | None) -> None:
    assert llama_log.build_of(text) == build


def test_devices() -> None:
    listing = """ggml_cuda_init: found 1 CUDA devices (Total VRAM: 24135 MiB):
  Device 0: NVIDIA GeForce RTX 3090, compute capability 8.6, VMM: yes, VRAM: 24135 MiB
Available devices:
  CUDA0: NVIDIA GeForce RTX 3090 (24135 MiB, 23867 MiB free)
  Vulkan0: llvmpipe (LLVM 15.0.6, 256 bits) (2048 MiB, 2048 MiB free)
"""
    assert llama_log.devices_of(listing) == ("CUDA0", "Vulkan0")
    assert llama_log.devices_of("Available devices:\n  (none)\n") == ()


@pytest.mark.parametrize(
    ("text", "apis"),
    [
        ("0.00.030.314 I ggml_vulkan: No devices found.\n", {"vulkan"}),
        ("load_backend: loaded Vulkan backend from libggml-vulkan.so\n", {"vulkan"}),
        ("load_backend: loaded ROCm backend from libggml-hip.so\n", {"rocm"}),
        ("load_backend: loaded CPU backend from libggml-cpu.so\n", set()),
        ("ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device\n", {"cuda"}),
        ("ggml_cuda_init: failed to initialize ROCm: no ROCm-capable device\n", {"rocm"}),
        ("Available devices:\n  Vulkan0: llvmpipe (2048 MiB, 2048 MiB free)\n", {"vulkan"}),
        ("Available devices:\n  (none)\n", set()),
    ],
)
def test_what_a_build_has_whether_it_found_a_device_or_not(text: str, apis: set[str]) -> None:
    assert llama_log.built_with(text) == apis


WARNING = "0.00.008.620 W srv  llama_server: security: no API key is set\n"
LAST = "0.00.027.718 E srv  llama_server: exiting due to model loading error\n"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            "0.00.027.243 E llama_model_load: error loading model: tensor 'token_embd.weight' data"
            " is not within the file bounds, model is corrupted or incomplete\n"
            "0.00.027.291 E llama_model_load_from_file_impl: failed to load model\n",
            "tensor 'token_embd.weight' data is not within the file bounds, model is corrupted or"
            " incomplete",
        ),
        (
            "0.00.083.265 E llama_model_load: error loading model: unknown model architecture: 'x'"
            "\n0.00.083.332 E cmn  common_init_: failed to load model 'arch.gguf'\n",
            "unknown model architecture: 'x'",
        ),
        (
            "0.00.013.110 E gguf_init_from_reader: invalid magic characters: 'hell', expected "
            "'GGUF'\n0.00.013.231 E llama_model_load: error loading model: llama_model_loader: "
            "failed to load model from model.gguf\n",
            "invalid magic characters: 'hell', expected 'GGUF'",
        ),
        (
            "0.00.205.976 E llama_init_from_model: quantized V cache requires flash_attn to be "
            "enabled\n0.00.240.955 E cmn  common_init_: failed to create context with model 'm'\n",
            "llama_init_from_model: quantized V cache requires flash_attn to be enabled",
        ),
        (
            "0.00.008.711 E srv         start: couldn't bind HTTP server socket, hostname: "
            "127.0.0.1, port: 18333\n",
            "couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18333",
        ),
        (
            "error: the supplied chat template is not supported: {% for x in %}\n\n"
            "0.00.001.249 E common_chat_templates_init: error: Unexpected token: %} of type 9\n",
            "common_chat_templates_init: error: Unexpected token: %} of type 9",
        ),
        (
            "0.00.165.418 E ggml_aligned_malloc: insufficient memory (attempted to allocate "
            "8791.88 MB)\n0.00.165.449 E ggml_backend_cpu_buffer_type_alloc_buffer: failed to "
            "allocate buffer of size 9218949120\n",
            "ggml_aligned_malloc: insufficient memory (attempted to allocate 8791.88 MB)",
        ),
        (
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9000.00 MiB on device 0: "
            "cudaMalloc failed: out of memory\n"
            "llama_model_load: error loading model: unable to allocate CUDA0 buffer\n",
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9000.00 MiB on device 0: "
            "cudaMalloc failed: out of memory",
        ),
        (
            "ggml-backend.cpp:1081: pre-allocated tensor (cache_k_l0) in a buffer (Vulkan0) that "
            "cannot run the operation (NONE)\n[New LWP 9786]\n",
            "pre-allocated tensor (cache_k_l0) in a buffer (Vulkan0) that cannot run the operation"
            " (NONE)",
        ),
        ("error: invalid argument: --no-such-flag\n", "invalid argument: --no-such-flag"),
        (
            'error while handling argument "--cache-type-k": Unsupported cache type: q17\n\n'
            "usage:\n-ctk,  --cache-type-k TYPE\n",
            'error while handling argument "--cache-type-k": Unsupported cache type: q17',
        ),
        (
            "0.00.313.424 W llama_init_from_model: context type MTP requested but model doesn't "
            "contain MTP layers\n"
            "0.00.313.424 E common_speculative_init_result: failed to create MTP context\n",
            "context type MTP requested but model doesn't contain MTP layers",
        ),
    ],
)
def test_the_cause_of_a_failure_not_its_consequences(lines: str, reason: str) -> None:
    assert llama_log.failure(WARNING + lines + LAST) == reason


def test_why_a_draft_model_was_left_out() -> None:
    assert llama_log.failure(log("draft-mismatch")) == (
        "draft model vocab type must match target model to use speculation"
    )


def test_a_sound_log_has_no_failure() -> None:
    for name in ("vulkan", "draft", "cpu-repack", "vulkan-no-device"):
        assert llama_log.failure(log(name)) is None


@pytest.mark.parametrize(
    ("buffers", "api", "owned"),
    [
        ([("GPUOpenCL", 90.0), ("OpenCL", 8.0)], "opencl", {"GPUOpenCL": 90, "OpenCL": 8}),
        ([("HTP0", 90.0), ("CPU_REPACK", 9.0)], "hexagon", {"HTP0": 90, "CPU": 9}),
        ([("MUSA0", 90.0)], "musa", {"MUSA0": 90}),
        ([("WebGPU", 90.0)], "webgpu", {"WebGPU": 90}),
        ([("OPENVINO0_HOST", 9.0), ("CUDA0", 90.0)], "cuda", {"CPU": 9, "CUDA0": 90}),
        ([("CPU_AARCH64", 90.0), ("CPU_HBM", 9.0)], "cpu", {"CPU": 99}),
        ([("CPU_KLEIDIAI", 90.0)], "cpu", {"CPU": 90}),
        # Of another machine, by an address that no record may carry.
        ([("RPC[10.0.0.2:50052]", 90.0), ("CUDA0", 9.0)], "cuda+rpc", {"RPC": 90, "CUDA0": 9}),
        ([("RPC0[10.0.0.2:50052]", 90.0)], "rpc", {"RPC0": 90}),
        # Every tensor on both, with split-mode tensor.
        ([("Meta(CUDA0,CUDA1)", 90.0)], "cuda", {"CUDA0+CUDA1": 90}),
    ],
)
def test_buffers_of_rarer_devices(
    buffers: list[tuple[str, float]], api: str, owned: dict[str, int]
) -> None:
    """Names as ggml's backends give them in b11434, and llama.cpp#11397 for RPC's older one."""
    found = llama_log.weight_bytes(weights(*buffers))
    assert found == {name: mib * MIB for name, mib in owned.items()}
    assert llama_log.api_of(weights(*buffers)) == (api, True)
    assert llama_log.device_bytes(weights(*buffers)) == found


def test_tensors_that_the_engine_leaves_aside() -> None:
    text = (
        "model has unused tensor blk.46.nextn.eh_proj.weight (size = 35651584 bytes) -- ignoring\n"
        "model has unused tensor blk.46.attn_q.weight (size = 1048576 bytes) -- ignoring\n"
    )
    assert llama_log.unused_bytes(text) == 35 * MIB
    assert llama_log.unused_bytes("") == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0.00.030.314 I ggml_vulkan: No devices found.\n", "ggml_vulkan: No devices found"),
        (
            "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected\n",
            "failed to initialize CUDA: no CUDA-capable device is detected",
        ),
        (
            "warning: no usable GPU found, --gpu-layers option will be ignored\n",
            "no usable GPU found, --gpu-layers option will be ignored",
        ),
        (
            # llama.cpp#8710
            "warning: not compiled with GPU offload support, --gpu-layers option will be ignored\n",
            "not compiled with GPU offload support, --gpu-layers option will be ignored",
        ),
        ("load_tensors: offloaded 31/31 layers to GPU\n", None),
    ],
)
def test_its_own_words_for_having_no_device(text: str, words: str | None) -> None:
    assert llama_log.no_device(text) == words


def test_slots_that_share_one_cache_have_what_is_left_when_all_are_full() -> None:
    """llama.cpp#23652: each slot tells the whole context."""
    text = (
        "llama_context: n_ctx                 = 6144\n"
        "srv    load_model: initializing, n_slots = 4, n_ctx_slot = 6144, kv_unified = 'true'\n"
    )
    found = llama_log.settings(text)
    assert (found.context_per_slot, found.context_total, found.kv_unified) == (1536, 6144, True)
    apart = llama_log.settings(log("vulkan"))
    assert (apart.context_per_slot, apart.context_total, apart.kv_unified) == (1024, 1024, False)
    capped = text.replace("n_ctx_slot = 6144", "n_ctx_slot = 1000")
    assert llama_log.settings(capped).context_per_slot == 1000


def test_zero_where_it_is_impossible_is_no_fact() -> None:
    found = llama_log.settings("n_threads = 0 n_ctx_slot = 0 n_slots = 0 n_batch = 0 n_layer = 0\n")
    assert found == Resolved(gpu_layers=found.gpu_layers)
    assert llama_log.all_layers("offloaded 0/0 layers to GPU") is None


@pytest.mark.parametrize(
    ("line", "found"), [("flash_attn = 1", "enabled"), ("flash_attn    = off", "disabled")]
)
def test_older_words_for_flash_attention(line: str, found: str) -> None:
    assert llama_log.settings(f"llama_context: {line}\n").flash_attention == found
