"""What runs on a machine: estimates against a known truth, places, the command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner

from bench.many.market import machines
from bench.many.records import make_record
from tokrig.cli.main import main
from tokrig.fit.estimate import ERRORS_NEEDED, Errors, Estimator
from tokrig.fit.evidence import Candidate, Point, candidates, overheads, points
from tokrig.fit.place import Machine, Overhead, Row, overhead, rows
from tokrig.quants import OVERHEAD_BYTES, cache_cells
from tokrig.record.model import LoadMemory, Record, Resolved
from tokrig.record.reads import CacheRead, Reads
from tokrig.store import Store
from tokrig.units import GIB, MIB, bytes_of

GB = 10**9


class World:
    """Machines and models whose true rates are known: bytes / (bandwidth × what the machine
    reaches) + layers × the time to launch one, each record 3 % off."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.machines = {
            f"M{n}": (
                self.chance.uniform(100, 1800) * GB,
                self.chance.lognormvariate(-0.35, 0.12),
                self.chance.uniform(3e-6, 15e-6),
            )
            for n in range(14)
        }
        self.models = {
            (f"f{n}", str(size), "q"): (
                self.chance.uniform(0.8, 40) * GB,
                self.chance.randint(16, 80),
                self.chance.lognormvariate(0, 0.05),
            )
            for n in range(16)
            for size in range(self.chance.randint(1, 3))
        }

    def ideal(self, machine: str, model: tuple[str, str, str]) -> float:
        return self.machines[machine][0] / self.models[model][0]

    def measured(self, machine: str, model: tuple[str, str, str]) -> float:
        width, reached, launch = self.machines[machine]
        size, layers, own = self.models[model]
        seconds = size / (width * reached * own) + layers * launch
        return self.chance.lognormvariate(0, 0.03) / seconds

    def store(self) -> tuple[list[Point], list[tuple[str, tuple[str, str, str]]]]:
        """Points of some pairs, and the pairs that nobody has measured."""
        found, left = [], []
        for machine in self.machines:
            for model in self.models:
                if self.chance.random() > 0.35:
                    left.append((machine, model))
                    continue
                for number in range(self.chance.randint(1, 3)):
                    rate = self.measured(machine, model)
                    name = f"{machine}-{model}-{number}"
                    found.append(
                        Point(name, model, machine, "gpu", rate, self.ideal(machine, model))
                    )
        return found, left


def test_intervals_hold_nine_of_ten_of_what_is_measured_afterwards() -> None:
    held: dict[str, list[bool]] = {"elsewhere": [], "like": [], "here": []}
    widths = []
    for seed in range(12):
        world = World(seed)
        found, left = world.store()
        estimator = Estimator(found, "decode")
        here = [(point.hardware, point.model) for point in found[::5]]
        for machine, model in [*left, *here]:
            expected = estimator.estimate(model, machine, "gpu", world.ideal(machine, model))
            assert expected is not None and expected.low is not None and expected.high is not None
            rate = world.measured(machine, model)
            held[expected.kind].append(expected.low <= rate <= expected.high)
            widths.append(expected.high / expected.low)
    for kind, hits in held.items():
        # The share of these hits, three standard errors below; pairs of one world are alike.
        assert len(hits) > 100 or kind == "like", kind
        if hits:
            least = 0.9 - 3 * math.sqrt(0.09 / (len(hits) / 8))
            assert sum(hits) / len(hits) > least, (kind, sum(hits), len(hits))
    assert sorted(widths)[len(widths) // 2] < 2


def test_a_family_that_nobody_has_measured_is_judged_by_like_models() -> None:
    hits = []
    for seed in range(20):
        world = World(seed)
        found, _ = world.store()
        for family in ("f0", "f5", "f11"):
            estimator = Estimator([p for p in found if p.model[0] != family], "decode")
            for model in (model for model in world.models if model[0] == family):
                for machine in list(world.machines)[::3]:
                    top = world.ideal(machine, model)
                    expected = estimator.estimate(model, machine, "gpu", top)
                    assert expected is not None and expected.kind == "like"
                    assert expected.low is not None and expected.high is not None
                    hits.append(expected.low <= world.measured(machine, model) <= expected.high)
    assert 0.82 < sum(hits) / len(hits) <= 1


def test_an_estimate_never_rests_on_what_it_is_judged_by() -> None:
    """One wrong record moves its own error, and no error where it is the one left out."""
    world = World(3)
    found, _ = world.store()
    group = [p for p in found if p.model == found[0].model and p.hardware == found[0].hardware]
    wrong = [replace(p, tok_per_s=p.tok_per_s * 1000) if p in group else p for p in found]
    before, after = (Estimator(some, "decode").errors("like").errors for some in (found, wrong))
    assert max(map(abs, before)) < 1 < math.log(500) < max(map(abs, after))


def test_with_too_little_data_nothing_is_expected() -> None:
    world = World(1)
    found, left = world.store()
    few = [p for p in found if p.model[0] != left[0][1][0]][:5]
    machine, model = left[0]
    assert Estimator(few, "decode").estimate(model, machine, "gpu", 50.0) is None
    assert Estimator([], "decode").estimate(model, machine, "gpu", 50.0) is None
    assert Estimator(found, "decode").estimate(model, machine, "cpu", 50.0) is None
    for scale in (None, 0.0, math.inf, math.nan):
        assert Estimator(found, "decode").estimate(("x", "", ""), "M0", "gpu", scale) is None
    assert Errors("like", (0.1,) * (ERRORS_NEEDED - 1)).bound is None
    assert Errors("like", (0.1,) * ERRORS_NEEDED).bound == 0.1
    assert Errors("like", tuple(n / 100 for n in range(1, 20))).bound == 0.18


def test_one_record_of_the_model_here_is_told_without_an_interval() -> None:
    point = Point("r", ("a", "b", "q"), "M", "gpu", 80.0, 100.0)
    found = Estimator([point], "decode").estimate(point.model, "M", "gpu", 100.0)
    assert found is not None and found[:5] == (80.0, None, None, "here", ("r",))


def test_prefill_is_taken_from_the_same_hardware_alone() -> None:
    made = [
        Point(f"r{n}", (f"f{n}", "", "q"), "M", "gpu", 9.0, None, 4e12 / size, size)
        for n, size in enumerate(1e9 * factor for factor in range(1, 13))
    ]
    estimator = Estimator(made, "prefill")
    found = estimator.estimate(("new", "", "q"), "M", "gpu", 20e9)
    assert found is not None and found.tok_per_s == pytest.approx(200)
    assert estimator.estimate(("new", "", "q"), "N", "gpu", 20e9) is None


# Records


@pytest.fixture(scope="module")
def many() -> list[Record]:
    """Records of machines whose bandwidth is known, INVALID and speculative ones among them."""
    widths = {machine.rig.id: machine.bandwidth for machine in machines()}
    found = []
    for number in range(250):
        record = make_record(5, number)
        name = record.rig.id
        stated = {"bandwidth_bytes_per_s": widths[name], "bandwidth_from": "stated"}
        gpus = [gpu.model_copy(update=stated) for gpu in record.rig.gpus]
        memory = record.rig.memory if gpus else record.rig.memory.model_copy(update=stated)
        rig = record.rig.model_copy(update={"gpus": gpus, "memory": memory})
        found.append(record.model_copy(update={"rig": rig}))
    return found


def test_what_is_left_out_is_predicted_within_its_interval(many: list[Record]) -> None:
    learnt = points(many, {})
    assert 100 < len(learnt) < len(many)
    assert {point.place for point in learnt} == {"cpu", "gpu"} or all(
        record.rig.gpus for record in many
    )
    hits = []
    for number, point in enumerate(learnt):
        if number % 6 or point.ideal is None:
            continue
        others = [p for p in learnt if p.model[0] != point.model[0]]
        found = Estimator(others, "decode").estimate(
            point.model, point.hardware, point.place, point.ideal
        )
        if found is not None and found.low is not None and found.high is not None:
            hits.append(found.low <= point.tok_per_s <= found.high)
    assert len(hits) > 15
    assert sum(hits) / len(hits) > 0.75


def test_records_tell_models_once_with_the_best_that_is_known(many: list[Record]) -> None:
    found = candidates(many)
    assert len({one.model for one in found}) == len(found) > 20
    record = many[0]
    reads = Reads(
        weight_bytes={"gpu": 100, "cpu": 50},
        cache=[
            CacheRead(place="gpu", bytes_per_token=6, window_tokens=512),
            CacheRead(place="cpu", bytes_per_token=4, window_tokens=512),
            CacheRead(place="gpu", bytes_per_token=3),
        ],
    )
    told = record.model_copy(update={"reads": reads})
    one = next(c for c in candidates([*many, told]) if c.source == record.id)
    assert one.read_bytes == 150 and one.cache == ((10, 512), (3, None))
    assert one.cache_bytes(4096) == 10 * cache_cells(4096, window=512) + 3 * 4096
    assert one.step_bytes(2000) == 150 + 10 * 512 + 3 * 2000


def test_the_overhead_is_what_is_beside_weights_and_cache(many: list[Record]) -> None:
    record = next(r for r in many if r.rig.gpus and r.model.bytes and not r.mode.speculative)
    reads = Reads(weight_bytes={"gpu": 1}, cache=[CacheRead(place="gpu", bytes_per_token=1000)])
    resolved = Resolved(slots=2, context_per_slot=1024)
    backend = record.backend.model_copy(update={"resolved": resolved, "api": "cuda"})
    bytes_ = record.model.bytes or 0
    held = bytes_ + 1000 * 2048 + 400 * MIB
    made = record.model_copy(
        update={
            "reads": reads,
            "backend": backend,
            "load_memory": LoadMemory(engine_vram_bytes=held),
        }
    )
    assert overheads([made])["gpu"] == [400 * MIB]
    assert overheads([record]) == {"cpu": [], "gpu": []}
    assert overhead([]) == Overhead(OVERHEAD_BYTES, 0)
    assert overhead([*range(1, 11)]) == Overhead(9, 10)


# Places

NOBODY = Estimator([], "decode")
NONE = {"cpu": Overhead(0, 0), "gpu": Overhead(0, 0)}


def placed(machine: Machine, one: Candidate, context: int = 1024) -> Row:
    (row,) = rows([one], machine, NONE, NOBODY, NOBODY, context=context, least=1)  # type: ignore[arg-type]
    return row


def test_a_model_goes_where_weights_cache_and_engine_fit() -> None:
    one = Candidate("m", ("m", "", ""), 8 * GIB, 8 * GIB, ((MIB, None),), context_train=8192)
    card = Machine(vram_bytes=12 * GIB, ram_bytes=16 * GIB, gpu_bytes_per_s=GIB * 86.0)
    row = placed(card, one)
    assert (row.where, row.context, row.needs_bytes) == ("VRAM", 4096, 9 * GIB)
    assert row.ceiling == pytest.approx(86 / 8.5)
    assert placed(card, one, 6144).where == "offload"
    assert placed(replace(card, shared=True), one, 6144).where == "no"
    assert placed(replace(card, ram_bytes=None), one, 6144).where == "no"
    assert placed(Machine(ram_bytes=10 * GIB), one).where == "RAM"
    assert placed(Machine(ram_bytes=8 * GIB), one).where == "no"
    assert placed(Machine(), one).where == "unknown"
    assert placed(card, replace(one, bytes=None)).where == "unknown"
    assert placed(card, replace(one, cache=None)).context is None


def test_times_of_two_memories_add_up() -> None:
    one = Candidate("m", ("m", "", ""), 20 * GIB, 20 * GIB, ())
    both = Machine(10 * GIB, 64 * GIB, gpu_bytes_per_s=100.0 * GIB, cpu_bytes_per_s=10.0 * GIB)
    row = placed(both, one)
    assert row.where == "offload"
    assert row.ceiling == pytest.approx(1 / (10 / 100 + 10 / 10), rel=0.01)


# The command


def told(*words: str, content: Path) -> Any:
    return CliRunner().invoke(main, ["fit", *words, "--content", str(content)])


@pytest.fixture(scope="module")
def content(many: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("fit"))
    for record in many[:120]:
        store.save(record, [])
    return store.content


def test_a_described_machine_in_eighty_columns(
    content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = told("--vram", "12GiB", "--bandwidth", "672", content=content)
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.startswith("12.00 GiB of VRAM at 672 GB/s")
    asked = ("--vram", "12GiB", "--bandwidth", "672", "--json")
    data = json.loads(told(*asked, content=content).stdout)
    fast = [one for one in data["models"] if one["fast_enough"]]
    sizes = [one["bytes"] for one in fast]
    assert fast and sizes == sorted(sizes, reverse=True)
    assert data["models"][: len(fast)] == fast
    for one in fast:
        assert one["where"] == "VRAM" and one["decode"]["low"] < one["decode"]["high"]
        assert one["decode"]["records"] and one["needs_bytes"] <= 12 * GIB


def test_a_rig_by_its_card_and_errors(content: Path, many: list[Record]) -> None:
    name = next(r.rig.gpus[0].name for r in many[:120] if r.rig.gpus)
    done = told("--gpu", name, "--json", content=content)
    assert done.exit_code == 0, done.output
    kinds = {one["decode"]["kind"] for one in json.loads(done.stdout)["models"] if one["decode"]}
    assert "here" in kinds
    errors = json.loads(told("--errors", "--json", content=content).stdout)["errors"]
    like = next(e for e in errors if (e["figure"], e["kind"]) == ("decode", "like"))
    assert like["n"] >= ERRORS_NEEDED and like["error_90"] >= like["median_error"] > 0
    assert "leave" not in told("--errors", content=content).stderr


def test_a_file_is_read_by_its_header(content: Path) -> None:
    """SmolLM2: 30 layers × 3 heads × 64 numbers × (K and V) × 2 bytes a token."""
    asked = ("--vram", "800MiB", "--bandwidth", "100", "-m", "smollm2-135m", "--json")
    (one,) = json.loads(told(*asked, content=content).stdout)["models"]
    left = 800 * MIB - one["bytes"] - OVERHEAD_BYTES
    assert one["where"] == "VRAM" and one["context"] == left // 23040 // 256 * 256
    assert one["needs_bytes"] == one["bytes"] + OVERHEAD_BYTES + 4096 * 23040
    assert one["ceiling_tok_per_s"] == pytest.approx(1e11 / (one["bytes"] + 512 * 23040), rel=0.03)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vram", "12"], "a size with its unit"),
        (["--vram", "12Gb"], "a size with its unit"),
        (["--vram", "-3GiB"], "a size with its unit"),
        (["--vram", "0GiB"], "above 0"),
        (["--vram", "99999999TiB"], "above 0"),
        (["--bandwidth", "672"], "--bandwidth of what?"),
        (["--vram", "1GiB", "--bandwidth", "fast"], "a number of GB/s"),
        (["--vram", "1GiB", "--bandwidth", "-1"], "a number of GB/s"),
        (["--vram", "1GiB", "--bandwidth", "nan"], "a number of GB/s"),
        (["--vram", "1GiB", "--bandwidth", "1e99"], "a number of GB/s"),
        (["--vram", "1GiB", "--gpu", "3060"], "name two machines"),
        (["--rig", "x", "--gpu", "y"], "name two machines"),
        (["--gpu", "no such card"], "no record is of"),
        (["--rig", ""], ""),
        (["--context", "0"], "above 0"),
        (["--context", "lots"], "a number of tokens"),
        (["--fast", "-1"], "--fast"),
        (["--model", "nothing-like-it"], "unknown model"),
        (["--model", "hf:"], ""),
    ],
)
def test_bad_input_is_told_in_one_line(words: list[str], message: str, content: Path) -> None:
    done = told(*words, content=content)
    assert "Traceback" not in done.output
    if message:
        assert done.exit_code == 2, done.output
        assert message in done.stderr.splitlines()[0]
        assert done.stderr.splitlines()[1].startswith("hint: ")


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    done = told("--vram", "12GiB", content=tmp_path)
    assert done.exit_code == 2
    assert "no model is known" in done.stderr and "hint: name one with --model" in done.stderr
    assert told("--errors", content=tmp_path).exit_code == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [("12GiB", 12 * GIB), ("24GB", 24 * GB), ("8G", 8 * GIB), ("1.5 TiB", 1536 * GIB)],
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size
