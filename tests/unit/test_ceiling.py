"""The decode ceiling: bytes over bandwidth, from the record's own blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.engines.headers import MODELS, write_header
from tests.unit.records import record_of
from tests.unit.samples import sample
from tests.unit.test_gguf import TensorSpec
from tests.unit.test_needs import f32, made
from tokrig import bandwidth
from tokrig.cli.main import main
from tokrig.record.block import Summary
from tokrig.record.ceiling import (
    CACHED_BYTES,
    ceiling,
    ceiling_of,
    fields,
    matrix_share,
    with_stated,
)
from tokrig.record.checks import Seen, judge
from tokrig.record.consistency import broken_ties, contradictions
from tokrig.record.model import (
    BackendFacts,
    Cpu,
    Gpu,
    Memory,
    Mode,
    Model,
    Record,
    Resolved,
    Rig,
    Speculative,
)
from tokrig.record.reads import CacheRead, Reads
from tokrig.record.samples import Cell
from tokrig.run.reads import reads, split_of

GB = 10**9
CARD = Gpu(name="Card", vendor="nvidia", bandwidth_bytes_per_s=500e9, bandwidth_from="driver")
RIG = Rig(
    id="rig",
    cpu=Cpu(cache_bytes=32 * 2**20),
    memory=Memory(bandwidth_bytes_per_s=50e9, bandwidth_from="measured"),
    gpus=[CARD],
)
WHOLE = Reads(weight_bytes={"gpu": 10 * GB})
CHAT = Cell("chat", 1)


def backend(api: str = "cuda", **resolved: Any) -> BackendFacts:
    return BackendFacts(name="b", engine="e", api=api, resolved=Resolved(**resolved))


def limit(
    told: Reads | None = WHOLE,
    rig: Rig = RIG,
    cell: Cell = CHAT,
    engine: BackendFacts | None = None,
    mode: Mode | None = None,
    **figures: Any,
) -> Any:
    of = {
        name: Summary(median=value) if isinstance(value, int | float) else value
        for name, value in figures.items()
    }
    return ceiling(rig, engine or backend(), mode or Mode(), told, cell, of)


def test_bytes_over_bandwidth() -> None:
    assert limit() == (50.0, "driver")
    on_cpu = Reads(weight_bytes={"cpu": 10 * GB})
    assert limit(on_cpu) == (5.0, "measured")
    # Experts in main memory: one after the other, 5 GB / 500 GB/s + 5 GB / 50 GB/s = 0.11 s.
    both = Reads(weight_bytes={"gpu": 5 * GB, "cpu": 5 * GB})
    assert limit(both) == (pytest.approx(1 / 0.11, rel=1e-5), "driver+measured")


def test_the_cache_counts_up_to_the_middle_of_the_answer_and_within_its_window() -> None:
    grows = CacheRead(place="gpu", bytes_per_token=10**6)
    window = CacheRead(place="gpu", bytes_per_token=10**6, window_tokens=1000)
    told = Reads(weight_bytes={"gpu": 10 * GB}, cache=[grows, window])
    # 4096 + 128 / 2 tokens, and 1000 of them.
    found = limit(told, prompt_tokens=4096, output_tokens=128)
    assert found[0] == pytest.approx(500e9 / (10e9 + 4160e6 + 1000e6), rel=1e-5)
    assert limit(told, prompt_tokens=10, output_tokens=2)[0] == pytest.approx(
        500e9 / (10e9 + 22e6), rel=1e-5
    )


def test_requests_at_once_share_the_weights_and_have_a_cache_each() -> None:
    told = Reads(
        weight_bytes={"gpu": 10 * GB}, cache=[CacheRead(place="gpu", bytes_per_token=10**6)]
    )
    four = Cell("chat", 4)
    times: dict[str, Any] = {"prompt_tokens": 950, "output_tokens": 101, "tpot_s": 0.02}
    # 2 s of decoding, and as long until the first token: two of four decode at a time.
    half = limit(told, cell=four, ttft_s=2.0, **times)
    assert half[0] == pytest.approx(500e9 / (10e9 + 2 * 1000.5e6), rel=1e-5)
    # One is there in any case.
    assert limit(told, cell=four, ttft_s=1e6, **times) == limit(told, **times)


def test_speculation_counts_steps() -> None:
    drafts = Speculative(drafted_tokens=9, accepted_tokens=6, acceptance_length=3.0)
    ngram = Mode(speculative="ngram")
    assert limit(mode=ngram, speculative=drafts) == (150.0, "driver")
    assert limit(mode=ngram) is None
    uncounted = drafts.model_copy(update={"acceptance_length": None})
    assert limit(mode=ngram, speculative=uncounted) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"told": None},
        {
            "rig": RIG.model_copy(
                update={"gpus": [CARD.model_copy(update={"bandwidth_bytes_per_s": None})]}
            )
        },
        {"rig": RIG.model_copy(update={"gpus": []})},  # measured on the processor, not by the card
        {"cell": Cell("chat", 4, 0, "poisson", 2.0)},
        {"told": Reads(weight_bytes={"gpu": CACHED_BYTES - 1})},
        {"told": Reads(weight_bytes={"cpu": 2 * 32 * 2**20 - 1})},
        {"told": Reads(weight_bytes={"gpu": GB}, routed=True), "cell": Cell("chat", 2)},
    ],
)
def test_where_it_is_not_known_there_is_none(changes: dict[str, Any]) -> None:
    assert limit(**changes) is None


def test_a_part_that_may_lie_in_caches_costs_no_time() -> None:
    mostly = Reads(weight_bytes={"gpu": 10 * GB, "cpu": 10 * 2**20})
    assert limit(mostly) == (50.0, "driver")


@pytest.mark.parametrize(
    ("resolved", "cards"),
    [
        ({"tensor_parallel": 2}, 2),
        ({"split_mode": "layer", "device_bytes": {"CUDA0": 5, "CUDA1": 5}}, 1),
        ({"split_mode": "row", "device_bytes": {"CUDA0": 5, "CUDA1": 5, "CPU": 1}}, 2),
        ({"split_mode": "tensor", "device_bytes": {"CUDA0+CUDA1": 5}}, 2),
        ({"device_bytes": {"CUDA0": 5, "CPU": 1}}, 1),
        ({"devices": ["0", "1"]}, 2),
        ({}, 2),  # nobody tells: both may have been read
    ],
)
def test_cards_that_share_every_layer_read_together(resolved: dict[str, Any], cards: int) -> None:
    two = RIG.model_copy(update={"gpus": [CARD, CARD]})
    assert limit(rig=two, engine=backend(**resolved)) == (50.0 * cards, "driver")


def test_what_is_stated_fills_what_nobody_measured() -> None:
    bare = Rig(id="r", gpus=[Gpu(name="Card", vendor="nvidia")])
    assert limit(rig=with_stated(bare, 250e9)) == (25.0, "stated")
    assert with_stated(RIG, 250e9) == RIG
    chip = with_stated(Rig(id="mac"), 400e9)
    assert limit(rig=chip, engine=backend("metal")) == (40.0, "stated")
    assert with_stated(chip, None) == chip


# --- in the record ------------------------------------------------------------------------------


def told(bandwidth: float) -> tuple[Record, list[Any]]:
    """A record of 100 tok/s on a processor that reads 0.2 GB a step, and its samples."""
    samples = [sample(iteration=n, sent_ns=n * 10**9, gap_s=0.01) for n in range(3)]
    record = record_of(samples)
    memory = Memory(bandwidth_bytes_per_s=bandwidth, bandwidth_from="measured")
    rig = record.rig.model_copy(update={"memory": memory, "cpu": Cpu(cache_bytes=2**20)})
    update = {"rig": rig, "reads": Reads(weight_bytes={"cpu": 200 * 10**6})}
    record = record.model_copy(update=update)
    [result] = record.results
    found = fields(ceiling_of(record, result), dict(result))
    seen = Seen(
        workload=result.workload,
        cell=result.cell,
        backend=record.backend,
        interference=result.interference,  # type: ignore[arg-type]
        load_memory=record.load_memory,  # type: ignore[arg-type]
        ceiling_share=found["ceiling_share"],
    )
    validity = judge(samples, seen)
    result = result.model_copy(update={**found, "validity": validity})
    return record.model_copy(update={"results": [result], "validity": validity}), samples


def test_a_share_stands_in_the_record_and_is_made_again() -> None:
    record, samples = told(40e9)
    [result] = record.results
    assert result.ceiling_tok_per_s == 200
    assert result.ceiling_share == pytest.approx(0.5, rel=1e-3)
    assert result.validity.word == "valid"
    assert contradictions(record, samples) == []


def test_above_the_ceiling_is_unverified() -> None:
    record, samples = told(18e9)
    assert record.results[0].ceiling_share == pytest.approx(1.111, rel=1e-3)
    assert record.results[0].validity.unverified == ["above_ceiling"]
    assert contradictions(record, samples) == []
    assert told(19.5e9)[0].results[0].validity.unverified == []


@pytest.mark.parametrize(
    ("block", "change"),
    [
        ("result", {"ceiling_tok_per_s": 300.0}),
        ("result", {"ceiling_share": 0.9}),
        ("result", {"ceiling_share": -0.1}),
        ("result", {"ceiling_kind": "driver"}),
        ("record", {"reads": Reads(weight_bytes={"cpu": 300 * 10**6})}),
        ("record", {"reads": None}),
        ("rig", {"memory": Memory(bandwidth_bytes_per_s=80e9, bandwidth_from="measured")}),
        ("rig", {"memory": Memory()}),
        ("rig", {"cpu": Cpu(cache_bytes=10**9)}),
    ],
)
def test_a_slip_in_any_part_of_it_is_found(block: str, change: dict[str, Any]) -> None:
    record, _ = told(40e9)
    if block == "record":
        record = record.model_copy(update=change)
    elif block == "rig":
        record = record.model_copy(update={"rig": record.rig.model_copy(update=change)})
    else:
        [result] = record.results
        record = record.model_copy(update={"results": [result.model_copy(update=change)]})
    assert {found.rule for found in broken_ties(record)} == {"ceiling"}


# --- from the model's file ----------------------------------------------------------------------

# 4 layers of 100 numbers in attention and 10 in each expert of 4, two of which a token uses; the
# output has a tensor of its own, so the embedding is looked up.
TENSORS: list[TensorSpec] = [
    f32("token_embd.weight", 5000),
    f32("output.weight", 1000),
    *(f32(f"blk.{n}.attn_q.weight", 100) for n in range(4)),
    *(f32(f"blk.{n}.ffn_up_exps.weight", 40) for n in range(4)),
]
EXPERTS: dict[str, Any] = {"expert_count": 4, "expert_used_count": 2}
MIXED = {"gpu_layers": 5, "layers": 5}


@pytest.mark.parametrize(
    ("offload", "resolved", "gpu", "cpu"),
    [
        (None, MIXED, 1480, 0),
        ("cpu-moe", MIXED, 1400, 80),
        ("n-cpu-moe 1", MIXED, 1460, 20),
        # llama.cpp moves the output first, then layers from the last one on.
        ("1 of 5 layers", {"gpu_layers": 1, "layers": 5}, 1000, 480),
        ("3 of 5 layers", {"gpu_layers": 3, "layers": 5}, 1240, 240),
        ("3 of 5 layers, cpu-moe", {"gpu_layers": 3, "layers": 5}, 1200, 280),
        (r"override-tensor blk\.[01]\.attn=CPU,output=CPU", MIXED, 280, 1200),
        ("50 % on the GPU", {}, 740, 740),
        ("no-kv-offload", MIXED, 1480, 0),
    ],
)
def test_weights_are_read_where_they_were_put(
    tmp_path: Path, offload: str | None, resolved: dict[str, Any], gpu: int, cpu: int
) -> None:
    path = made(tmp_path / "m.gguf", EXPERTS, TENSORS)
    found = reads(path, Model(family="Toy"), backend(**resolved), Mode(offload=offload))
    assert found is not None
    assert found.routed
    told = {place: size for place, size in found.weight_bytes.items() if size}
    assert told == {place: 4 * n for place, n in (("gpu", gpu), ("cpu", cpu)) if n}
    per_token = 4 * 2 * 64 * 2 * 2
    assert sum(one.bytes_per_token for one in found.cache) == pytest.approx(per_token, abs=1)
    if offload == "no-kv-offload":
        assert [one.place for one in found.cache] == ["cpu"]


def test_what_the_processor_computes_it_reads(tmp_path: Path) -> None:
    path = made(tmp_path / "m.gguf", EXPERTS, TENSORS)
    found = reads(path, Model(family="Toy"), backend("cpu", cache_type_k="q8_0"), Mode())
    assert found is not None
    assert found.weight_bytes == {"cpu": 4 * 1480}
    assert [one.place for one in found.cache] == ["cpu"]
    assert found.cache[0].bytes_per_token == 4 * 2 * 64 * (2 + 34 / 32)


@pytest.mark.parametrize(
    "offload", ["fit", "cpu-offload-gb 4", "override-tensor [=CPU", "n-cpu-moe x"]
)
def test_what_nobody_can_place_gives_no_ceiling(offload: str) -> None:
    assert split_of(Resolved(layers=5, gpu_layers=5), offload) is None


def test_windows_and_states_are_read_as_the_architecture_has_them(tmp_path: Path) -> None:
    """Gemma 3's layers with and without a window; LFM2's states lie with the weights."""
    path = write_header(tmp_path / "m.gguf", *MODELS["Gemma 3 4B"])
    found = reads(path, Model(family="Gemma 3"), backend(), Mode())
    assert found is not None and [(c.bytes_per_token, c.window_tokens) for c in found.cache] == [
        (5 * 2 * 4 * 256 * 2, None),
        (29 * 2 * 4 * 256 * 2, 1024),
    ]
    path = write_header(tmp_path / "m.gguf", *MODELS["LFM2 1.2B"])
    found = reads(path, Model(family="LFM2"), backend("cpu"), Mode())
    assert found is not None and found.weight_bytes == {"cpu": 10 * 2048 * 2 * 4}


def test_what_is_quantized_while_loading_gives_no_ceiling(tmp_path: Path) -> None:
    path = made(tmp_path / "m.gguf", EXPERTS, TENSORS)
    whole = Model(family="Toy", bits_per_weight=16.0)
    assert reads(path, whole, backend(quantization="fp8"), Mode()) is None
    assert reads(path, whole, backend(), Mode()) is not None


# --- prefill ------------------------------------------------------------------------------------


def test_parameters_of_layers_are_what_a_prompt_is_multiplied_with(tmp_path: Path) -> None:
    two: list[TensorSpec] = [
        ("token_embd.weight", (32, 64), 0, 4 * 32 * 64),
        ("blk.0.attn_norm.weight", (32,), 0, 4 * 32),
        ("blk.0.attn_q.weight", (32, 32), 0, 4 * 32 * 32),
        ("blk.1.ffn_up_exps.weight", (32, 16, 4), 0, 4 * 32 * 16 * 4),
    ]
    path = made(tmp_path / "m.gguf", EXPERTS, two)
    found = reads(path, Model(family="Toy"), backend("cpu"), Mode())
    assert found is not None
    assert found.multiplied == 32 * 32 + 32 * 16 * 2


def test_prefill_is_held_against_products_of_matrices() -> None:
    rig = RIG.model_copy(update={"cpu": Cpu(matrix_flop_per_s=4e11, matrix_type="float32")})
    told = Reads(weight_bytes={"cpu": GB}, multiplied=10**8)
    of = {"prefill_tok_per_s": Summary(median=1000.0)}
    assert matrix_share(rig, backend("cpu"), Mode(), told, of) == {"prefill_matrix_share": 0.5}
    assert matrix_share(rig, backend("cuda"), Mode(), told, of) == {}
    assert matrix_share(rig, backend("cuda"), Mode(offload="cpu-moe"), told, of) == {}
    assert matrix_share(rig, backend("cpu"), Mode(), told, {}) == {}
    packed = told.model_copy(update={"multiplied": None})
    assert matrix_share(rig, backend("cpu"), Mode(), packed, of) == {}
    card = CARD.model_copy(update={"matrix_flop_per_s": 1e12})
    two = RIG.model_copy(update={"gpus": [card, card]})
    engine = backend(tensor_parallel=2)
    assert matrix_share(two, engine, Mode(), told, of) == {"prefill_matrix_share": 0.1}


def test_a_product_of_matrices_counts_its_operations() -> None:
    ticks = iter([0, 9, 10, 14, 20, 29, 30, 39, 40, 49])  # the best took 4 ns
    found = bandwidth.measure_matrix_flop_per_s(10, lambda: next(ticks))
    assert found == pytest.approx(2 * 10**3 / 4 * 1e9)
    assert 1e8 < bandwidth.measure_matrix_flop_per_s(256) < 1e15


# --- the bandwidth that is kept -----------------------------------------------------------------


def test_a_bandwidth_is_of_the_machine_that_it_was_measured_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKRIG_STATE", str(tmp_path))
    found = bandwidth.Bandwidth(48.31, bandwidth.METHOD, 2**30, 8, 5, 2**25, False, 0.0)
    here = Rig(id="r", cpu=Cpu(model="Fast 9", cores=8), memory=Memory(total_bytes=33 * 10**9))
    assert bandwidth.with_measured(here) == here
    bandwidth.keep(found, 4e11, here)
    cpu = bandwidth.with_measured(here).cpu
    assert (cpu.matrix_flop_per_s, cpu.matrix_type) == (4e11, "float32")
    memory = bandwidth.with_measured(here).memory
    assert (memory.bandwidth_bytes_per_s, memory.bandwidth_from) == (48.31e9, "measured")
    more = {"memory": Memory(total_bytes=66 * 10**9)}
    for change in ({"cpu": Cpu(model="Slow 3", cores=8)}, more):
        other = here.model_copy(update=change)
        assert bandwidth.with_measured(other) == other


def test_what_was_measured_of_a_card_is_of_cards_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKRIG_STATE", str(tmp_path))
    found = bandwidth.Bandwidth(48.31, bandwidth.METHOD, 2**30, 8, 5, 2**25, False, 0.0)
    cut = CARD.model_copy(update={"mig_profile": "1g.10gb"})
    other = CARD.model_copy(update={"name": "Other"})
    rig = RIG.model_copy(update={"gpus": [CARD, cut, other]})
    cards = [bandwidth.Card("Card", 450e9, 60e12), bandwidth.Card("Card MIG 1g.10gb", 50e9, 8e12)]
    bandwidth.keep(found, 4e11, rig, cards)
    whole, piece, left = bandwidth.with_measured(rig).gpus
    assert (whole.bandwidth_bytes_per_s, whole.bandwidth_from) == (450e9, "measured")
    assert (whole.matrix_flop_per_s, whole.matrix_type) == (60e12, "float16")
    assert piece.bandwidth_bytes_per_s == 50e9
    assert left == other  # by the driver's figures still
    bandwidth.keep(found, 4e11, rig, [bandwidth.Card("Card", -1.0, 60e12)])
    assert bandwidth.with_measured(rig).gpus == rig.gpus


def test_a_card_reads_as_fast_as_by_the_best_of_several_ways() -> None:
    class Device(bandwidth.TorchCard):
        """Whose work moves the clock: 9 and 3 ms for reading, 2 ms for a product."""

        name = "Card"

        def __init__(self) -> None:
            self.now_ns = 0
            self.asked: list[int] = []

        def free_bytes(self) -> int:
            return 64 * 2**20

        def wait(self) -> None: ...

        def takes(self, ms: int) -> Any:
            def work() -> None:
                self.now_ns += ms * 10**6

            return work

        def reading(self, items: int) -> list[Any]:
            self.asked.append(items)
            return [self.takes(9), self.takes(3)]

        def product(self, size: int) -> Any:
            return self.takes(2)

    device = Device()
    found = bandwidth.measure_card(device, matrix=100, clock_ns=lambda: device.now_ns)
    assert device.asked == [4 * 2**20]  # a quarter of what is free, in numbers of 4 bytes
    assert found.bytes_per_s == pytest.approx(16 * 2**20 / 3e-3)
    assert found.matrix_flop_per_s == pytest.approx(2 * 100**3 / 2e-3)


@pytest.mark.parametrize(
    "kept", ["", "[]", "{}", "nonsense", '{"machine": 1}', "null", "\x00", '{"bytes_per_s": NaN}']
)
def test_a_broken_file_of_it_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    monkeypatch.setenv("TOKRIG_STATE", str(tmp_path))
    here = Rig(id="r")
    (tmp_path / "bandwidth.json").write_text(kept)
    assert bandwidth.with_measured(here) == here
    bandwidth.keep(
        bandwidth.Bandwidth(48.31, bandwidth.METHOD, 2**30, 8, 5, 2**25, False, 0.0), 4e11, here
    )
    whole = (tmp_path / "bandwidth.json").read_text()
    assert bandwidth.with_measured(here) != here
    for value in ("-1", "0", "Infinity", '"fast"', "null", "[]"):
        told = json.loads(whole) | {"bytes_per_s": json.loads(value)}
        (tmp_path / "bandwidth.json").write_text(json.dumps(told))
        assert bandwidth.with_measured(here) == here


@pytest.mark.parametrize(
    ("cache_bound", "others", "word"),
    [(False, 0.01, ""), (True, 0.0, "cache"), (False, 0.3, "30%")],
)
def test_what_is_in_doubt_is_told(cache_bound: bool, others: float, word: str) -> None:
    found = bandwidth.Bandwidth(48.31, bandwidth.METHOD, 2**30, 8, 5, 2**25, cache_bound, others)
    assert word in found.doubtful
    assert bool(word) == bool(found.doubtful)


def test_rig_keeps_a_bandwidth_unless_the_machine_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKRIG_STATE", str(tmp_path))
    found = bandwidth.Bandwidth(48.31, bandwidth.METHOD, 2**30, 8, 5, 2**25, False, 0.9)
    monkeypatch.setattr(bandwidth, "measure_memory_bandwidth", lambda: found)
    monkeypatch.setattr(bandwidth, "measure_matrix_flop_per_s", lambda: 4e11)

    def rig(*words: str) -> Any:
        return CliRunner().invoke(main, ["rig", *words])

    assert "not kept, unless --even-if-busy" in " ".join(rig("--bandwidth").output.split())
    assert json.loads(rig("--json").stdout)["rig"]["memory"]["bandwidth_bytes_per_s"] is None
    assert json.loads(rig("--bandwidth", "--even-if-busy", "--json").stdout)["memory_bandwidth"][
        "kept"
    ]
    assert json.loads(rig("--json").stdout)["rig"]["memory"]["bandwidth_bytes_per_s"] == 48.31e9
    refused = rig("--even-if-busy")
    assert (refused.exit_code, "add --bandwidth" in refused.output) == (2, True)
