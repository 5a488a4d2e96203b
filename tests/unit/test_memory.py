"""Is the model where it should be? Figures of GPUs that nobody needs to have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_gguf import gguf
from tokrig.backends import Engine, Launch
from tokrig.probes import Card
from tokrig.record.conditions import not_resident
from tokrig.record.model import BackendFacts, Gpu, Model, Resolved
from tokrig.run import memory
from tokrig.run.interference import Look
from tokrig.run.memory import Memory, judge, looked_up_bytes, seen
from tokrig.units import GIB, MIB

MODEL = Model(family="m", file="m-Q4_K_M.gguf", format="gguf", bytes=4 * GIB)
CUDA = Engine("llama.cpp", api="cuda", api_confirmed=True)
BEFORE = Memory(gpu_bytes=1 * GIB, gpu_total_bytes=12 * GIB)


def gpu_engine(there: int | None, asked: int | None, layers: int | None = 33) -> Engine:
    resolved = Resolved(gpu_layers=there, layers=layers)
    return Engine(
        "llama.cpp", api="cuda", api_confirmed=True, resolved=resolved, asked_gpu_layers=asked
    )


# seen


def test_all_cards_and_the_engines_own_processes() -> None:
    card = Gpu(name="a", vendor="nvidia", vram_bytes=12 * GIB)
    other = Gpu(name="b", vendor="amd", vram_bytes=24 * GIB, unified_memory=False)
    cards = {
        "a": Card("a", memory_used_bytes=5, compute_bytes={7: 3, 1: 2}, graphics_bytes={7: 2}),
        "b": Card("b", memory_used_bytes=7, compute_bytes={7: 4}),
    }
    look = Look(0.0, cards, frozenset({7}), engine_rss_bytes=MIB)
    assert seen([card, other], look) == Memory(12, 36 * GIB, 7, MIB)
    # The sum of some would pass as that of all.
    silent = Look(0.0, {**cards, "c": Card("c")})
    assert seen([card, other], silent).gpu_bytes is None


def test_nothing_to_look_with() -> None:
    assert seen([], Look(0.0)) == Memory()
    # In a container the driver lists other numbers: that is not 0 bytes.
    foreign = Look(0.0, {"a": Card("a", compute_bytes={1: 5})}, frozenset({7}))
    assert seen([], foreign).engine_gpu_bytes is None
    apu = Gpu(name="a", vendor="amd", vram_bytes=GIB, unified_memory=True)
    assert seen([apu], Look(0.0)).gpu_total_bytes is None


@pytest.mark.parametrize(
    ("gpu", "shared"),
    [
        (Gpu(name="RTX 4090", vendor="nvidia", vram_bytes=24 * GIB), False),
        # GB10: its driver gives no figures of memory.
        (Gpu(name="GB10", vendor="nvidia"), True),
        (Gpu(name="RX 7900", vendor="amd", vram_bytes=24 * GIB, unified_memory=False), False),
        (Gpu(name="Strix Halo", vendor="amd", vram_bytes=GIB, unified_memory=True), True),
        # An older kernel: half a GiB set aside, and no word of what is borrowed.
        (Gpu(name="Strix Halo", vendor="amd", vram_bytes=GIB // 2), True),
    ],
)
def test_a_card_that_may_live_in_main_memory_is_not_judged_by_bytes(gpu: Gpu, shared: bool) -> None:
    before = after = seen([gpu], Look(0.0, {"a": Card("a", memory_used_bytes=100 * MIB)}))
    assert (after.shared, after.gpu_total_bytes) == (shared, None if shared else 24 * GIB)
    silent = Engine("x", api="rocm", api_confirmed=True)
    fit = judge(before, after, MODEL, silent, asked_gpu=True)
    assert (fit.memory.spilled, fit.memory.doubt is None) == (None, shared)
    listed = judge(before, after, MODEL, listing({"ROCm0": 4 * GIB}, api="rocm"), asked_gpu=True)
    assert (listed.memory.spilled, listed.memory.doubt) == (False, None)
    if shared:
        hint = memory.spill_hint(fit, MODEL, Launch(Path("m"), 0, 8192, 4))
        assert hint == "use a smaller context, KV cache type or quant, or fewer requests in flight"


@pytest.mark.parametrize(("tied", "expected"), [(True, 68), (False, 68 + 136)])
def test_tables_are_found_in_the_file(tmp_path: Path, tied: bool, expected: int) -> None:
    tensors = [
        ("token_embd.weight", (32, 4), 8, 136),
        ("per_layer_token_embd.weight", (32, 2), 8, 68),
        ("blk.0.attn_q.weight", (32, 2), 8, 68),
    ]
    tensors += [] if tied else [("output.weight", (32, 4), 8, 136)]
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(tensors=tensors))
    assert looked_up_bytes(path) == expected
    assert looked_up_bytes(tmp_path) is None


# judge


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (BEFORE, Memory(gpu_bytes=5 * GIB), "there"),
        (BEFORE, Memory(gpu_bytes=5 * GIB - 1), "doubt"),
        (BEFORE, Memory(gpu_bytes=0), "doubt"),
        # The engine's own share counts where it is told, whatever others do meanwhile.
        (BEFORE, Memory(gpu_bytes=1 * GIB, engine_gpu_bytes=4 * GIB), "there"),
        (BEFORE, Memory(gpu_bytes=9 * GIB, engine_gpu_bytes=3 * GIB), "doubt"),
        (None, Memory(gpu_bytes=9 * GIB, engine_gpu_bytes=4 * GIB), "there"),
        (None, Memory(gpu_bytes=9 * GIB), "not seen"),
        (BEFORE, Memory(), "not seen"),
    ],
)
def test_bytes_of_an_engine_that_says_nothing(
    before: Memory | None, after: Memory, found: str
) -> None:
    """They may raise a doubt, and never end a run: drivers count in ways of their own."""
    fit = judge(before, after, MODEL, CUDA, asked_gpu=True)
    assert fit.memory.spilled is (False if found == "there" else None)
    assert (fit.memory.doubt is not None) is (found == "doubt")


def test_what_is_looked_up_row_by_row_stays_in_main_memory_and_the_cache_does_not() -> None:
    after = Memory(gpu_bytes=4 * GIB)
    assert judge(BEFORE, after, MODEL, CUDA, True).memory.doubt
    assert judge(BEFORE, after, MODEL, CUDA, True, GIB).memory.spilled is False
    fit = judge(BEFORE, after, MODEL, CUDA, True, GIB, GIB)
    assert (
        fit.memory.doubt
        == "GPU memory grew by 3.00 GiB while loading, weights and cache take 4.00 GiB"
    )


def listing(weights: dict[str, int], **facts: Any) -> Engine:
    """An engine that logged its buffers, and a cache of half a GiB on the first device."""
    first = next(iter(weights))
    told = {**weights, first: weights[first] + GIB // 2}
    api = facts.pop("api", "cuda")
    return Engine(
        "llama.cpp", api=api, api_confirmed=True, weight_bytes=weights, device_bytes=told, **facts
    )


@pytest.mark.parametrize(
    "engine",
    [
        listing({"CUDA0": 4 * GIB, "CPU": 200 * MIB}),
        listing({"CUDA0": 2 * GIB, "CUDA1": 2 * GIB}),
        listing({"MTL0": 4 * GIB}, api="metal"),
        # Layers for drafting, which the engine leaves aside.
        listing({"CUDA0": 3 * GIB}, unused_bytes=GIB),
        # The rest is on another machine, by the user's wish.
        listing({"CUDA0": 1 * GIB, "RPC0": 3 * GIB}),
        listing({"CUDA0": 1 * GIB, "CPU": 3 * GIB}, offload="n-cpu-moe 4"),
    ],
)
def test_the_engines_own_list_decides_whatever_memory_seems_to_do(engine: Engine) -> None:
    """ggml-org/llama.cpp#15077 (experts kept off on purpose); managed memory and GTT of an
    integrated GPU, which no counter shows (ggml-org/llama.cpp#15018)."""
    fit = judge(BEFORE, Memory(gpu_bytes=BEFORE.gpu_bytes), MODEL, engine, asked_gpu=True)
    assert (fit.memory.spilled, fit.memory.doubt) == (False, None)


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        # A tensor type that the device cannot multiply stays in main memory.
        (listing({"CUDA0": 3 * GIB, "CPU": GIB}), "lists 3.00 GiB of weights on its devices"),
        # Managed memory: the driver takes what does not fit from main memory.
        (listing({"CUDA0": 13 * GIB}), "which have 12.00 GiB"),
    ],
)
def test_what_speaks_against_the_list_is_a_doubt(engine: Engine, says: str) -> None:
    fit = judge(BEFORE, Memory(gpu_bytes=13 * GIB), MODEL, engine, asked_gpu=True)
    assert fit.memory.spilled is None
    assert says in str(fit.memory.doubt)


@pytest.mark.parametrize(
    ("engine", "spilled"),
    [
        (gpu_engine(20, 33), True),
        (gpu_engine(33, 33), False),
        (gpu_engine(34, 33), False),
        (gpu_engine(None, 33), False),
        (gpu_engine(33, None), False),
    ],
)
def test_layers_on_the_gpu(engine: Engine, spilled: bool) -> None:
    fit = judge(BEFORE, Memory(gpu_bytes=6 * GIB), MODEL, engine, asked_gpu=False)
    assert fit.memory.spilled is spilled
    assert bool(fit.reason) is spilled


def test_layers_that_were_never_asked_for_are_no_spill() -> None:
    little = Memory(gpu_bytes=2 * GIB)
    assert judge(BEFORE, little, MODEL, gpu_engine(10, 10), True).memory.spilled is False
    assert judge(BEFORE, little, MODEL, gpu_engine(9, 10), True).memory.spilled is True
    assert judge(BEFORE, little, MODEL, gpu_engine(33, 33), True).memory.doubt


def test_the_engines_own_words_come_first() -> None:
    engine = Engine("ollama", spilled="2 of 6 GiB are in main memory")
    fit = judge(None, Memory(), MODEL, engine, asked_gpu=False)
    assert (fit.memory.spilled, fit.reason) == (True, "2 of 6 GiB are in main memory")


def test_runs_that_use_no_gpu() -> None:
    cpu = Engine("llama.cpp", api="cpu", api_confirmed=True)
    after = Memory(gpu_bytes=1 * GIB)
    assert judge(BEFORE, after, MODEL, cpu, asked_gpu=False).memory.spilled is False
    assert judge(BEFORE, after, MODEL, cpu, asked_gpu=True).memory.doubt
    assert judge(None, Memory(), MODEL, cpu, asked_gpu=True).memory.spilled is None


@pytest.mark.parametrize(
    "engine",
    [
        Engine("x"),
        Engine("x", api="cuda"),
        Engine("x", api="metal", api_confirmed=True),
        Engine("x", api="sycl", api_confirmed=True),
        Engine(
            "x",
            api="vulkan",
            api_confirmed=True,
            resolved=Resolved(devices=["Vulkan0: llvmpipe (LLVM 15.0.6, 256 bits)"]),
        ),
    ],
    ids=["no api", "not confirmed", "metal", "sycl", "software vulkan"],
)
def test_what_nobody_could_look_at(engine: Engine) -> None:
    assert judge(BEFORE, Memory(gpu_bytes=GIB), MODEL, engine, False).memory.spilled is None


def test_a_model_of_unknown_size() -> None:
    fit = judge(BEFORE, Memory(gpu_bytes=GIB), Model(family="m"), CUDA, asked_gpu=True)
    assert fit.memory.spilled is None


def test_weights_that_are_narrowed_while_loading() -> None:
    wide = MODEL.model_copy(update={"bits_per_weight": 32.0})
    engine = Engine("vLLM", api="cuda", api_confirmed=True, resolved=Resolved(dtype="bfloat16"))
    assert judge(BEFORE, Memory(gpu_bytes=3 * GIB), wide, engine, True).memory.spilled is False
    narrow = MODEL.model_copy(update={"bits_per_weight": 4.5})
    assert judge(BEFORE, Memory(gpu_bytes=3 * GIB), narrow, engine, True).memory.doubt


def test_the_record_keeps_what_was_seen() -> None:
    after = Memory(gpu_bytes=6 * GIB, engine_gpu_bytes=5 * GIB, engine_rss_bytes=GIB)
    fit = judge(BEFORE, after, MODEL, CUDA, asked_gpu=True)
    assert fit.memory.model_dump() == {
        "gpu_before_bytes": GIB,
        "gpu_after_bytes": 6 * GIB,
        "engine_vram_bytes": 5 * GIB,
        "engine_rss_bytes": GIB,
        "looked_up_bytes": None,
        "spilled": False,
        "doubt": None,
    }
    assert fit.free_bytes == 11 * GIB


# not_resident

ON_CPU = BackendFacts(name="llamacpp", engine="llama.cpp", api="cpu")


@pytest.mark.parametrize(
    ("rss", "looked_up", "missing"),
    [
        (4 * GIB, None, False),
        (int(3.7 * GIB), None, False),
        (int(3.5 * GIB), None, True),
        (int(3.5 * GIB), GIB, False),
        (int(3.7 * GIB), 0, True),
        (None, None, False),
    ],
)
def test_resident_memory(rss: int | None, looked_up: int | None, missing: bool) -> None:
    assert not_resident(MODEL, ON_CPU, rss, looked_up) is missing


@pytest.mark.parametrize(
    ("offload", "on_gpu", "rss", "missing"),
    [
        ("n-cpu-moe 4", 1 * GIB, 3 * GIB, False),
        ("n-cpu-moe 4", 1 * GIB, 2 * GIB, True),
        # The cache is kept back, the weights are not.
        ("no-kv-offload", 4 * GIB, MIB, False),
        ("cpu-offload-gb 4", 0, MIB, False),
        (None, 1 * GIB, MIB, False),
    ],
)
def test_what_is_kept_in_main_memory_must_be_there(
    offload: str | None, on_gpu: int, rss: int, missing: bool
) -> None:
    listed = {"CUDA0": on_gpu, "CPU": 3 * GIB} if on_gpu else {}
    resolved = Resolved(device_bytes=listed)
    gpu = BackendFacts(name="llamacpp", engine="llama.cpp", api="cuda", resolved=resolved)
    assert not_resident(MODEL, gpu, rss, 0, offload) is missing


def test_resident_memory_is_of_cpu_runs_and_active_experts() -> None:
    gpu = BackendFacts(name="llamacpp", engine="llama.cpp", api="cuda")
    assert not not_resident(MODEL, gpu, MIB)
    assert not not_resident(Model(family="m"), ON_CPU, MIB)
    mixture = MODEL.model_copy(update={"parameters": 8, "active_parameters": 2})
    assert not not_resident(mixture, ON_CPU, GIB)
    assert not_resident(mixture, ON_CPU, GIB // 2)


# spill_message, spill_hint


def test_the_message_has_figures_and_the_hint_what_fits(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"no model")
    launch = Launch(path, 0, 8192, 4)
    model = MODEL.model_copy(
        update={"bytes": 12 * GIB, "parameters": 14_000_000_000, "bits_per_weight": 7.4}
    )
    fit = judge(BEFORE, Memory(gpu_bytes=2 * GIB), model, gpu_engine(20, 33), asked_gpu=True)
    message = memory.spill_message(fit, model)
    assert "m-Q4_K_M.gguf (12.00 GiB)" in message
    assert "20 of 33 layers" in message
    hint = memory.spill_hint(fit, model, launch)
    assert "11.00 GiB of GPU memory were free" in hint
    assert "bits per weight" in hint
    assert "why it did not use them" in memory.spill_hint(fit, MODEL, launch)
    assert "smaller context" in memory.spill_hint(fit, model, None)


@pytest.mark.parametrize("used", [12 * GIB, 11 * GIB + 512 * MIB, 13 * GIB])
def test_a_full_card_gets_no_hint_of_a_model_of_no_bytes(tmp_path: Path, used: int) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"no model")
    full = Memory(gpu_bytes=used, gpu_total_bytes=12 * GIB)
    fit = judge(full, full, MODEL, gpu_engine(20, 33), asked_gpu=True)
    hint = memory.spill_hint(fit, MODEL, Launch(path, 0, 8192, 4))
    assert "stop what else holds this memory" in hint
    assert "0 B are free" not in hint
