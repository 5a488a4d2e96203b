"""Results far below their ceiling, and what in the records is likely to have held them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.unit.compared import cell, measured, with_value
from tokrig.cli.main import main
from tokrig.compare.causes import MOST, Shares
from tokrig.record.model import Interference, LoadMemory, Record
from tokrig.record.reads import Reads
from tokrig.site.context import Site
from tokrig.site.pages.run import PAGE
from tokrig.store import Store
from tokrig.store.load import Run

WIDTH = 672e9


def run(run_id: str, share: float, *, ceiling: float = 140.0, **changes: Any) -> Record:
    """A run of chat that reaches this share of its ceiling, on the card of all tests."""
    told = {"ceiling_share": share, "ceiling_tok_per_s": ceiling, "ceiling_kind": "driver"}
    seen = changes.pop("seen", None)
    result = cell("chat", speed=share * ceiling).model_copy(update=told)
    if seen is not None:
        result = result.model_copy(update={"interference": Interference(**seen)})
    record = with_value(with_value(measured(), "id", run_id), "results", [result])
    for path, value in changes.items():
        record = with_value(record, path.replace("__", "."), value)
    width = {"bandwidth_bytes_per_s": WIDTH, "bandwidth_from": "driver"}
    gpus = [one.model_copy(update=width) for one in record.rig.gpus]
    reads = Reads(weight_bytes={"gpu": round(WIDTH / ceiling)})
    return with_value(with_value(record, "rig.gpus", gpus), "reads", reads)


OTHERS = [run(f"o{n}", share) for n, share in enumerate((0.70, 0.72, 0.74))]


def told(record: Record, *others: Record) -> list[str]:
    return [str(one) for one in Shares([record, *others]).shortfalls(record)]


def gpu(**changes: Any) -> list[Any]:
    return [measured().rig.gpus[0].model_copy(update=changes)]


def test_a_capped_card() -> None:
    capped = run("a", 0.31, rig__gpus=gpu(power_limit_w=100.0, power_default_w=300.0))
    assert told(capped, *OTHERS) == [
        "0.31 of the ceiling; 3 others on this card reach 0.72: the card was capped at 100 of 300 W"
    ]
    assert told(OTHERS[0], *OTHERS) == []


def test_alone_it_is_held_against_the_ceiling_itself() -> None:
    assert told(run("a", 0.2)) == ["0.20 of the ceiling: nothing in the record says why"]
    assert told(run("a", 0.5)) == []


@pytest.mark.parametrize(("deep", "words"), [(0.15, True), (0.3, False)])
def test_a_depth_is_held_against_the_same_run_without_it(deep: float, words: bool) -> None:
    record = run("a", 0.31)
    shallow = record.results[0]
    at_depth = shallow.model_copy(update={"depth_tokens": 7168, "ceiling_share": deep})
    found = told(with_value(record, "results", [shallow, at_depth]), run("b", 0.31))
    assert found == (
        [
            "0.15 of the ceiling: attention over 7,168 tokens takes computing beside reading;"
            " without them the same run reaches 0.31"
        ]
        if words
        else []
    )


def test_kin_are_of_the_same_hardware_and_of_about_that_size() -> None:
    low = run("a", 0.45)
    assert told(low, *OTHERS) != []
    assert told(low, *[run(f"s{n}", 0.9, ceiling=2000.0) for n in range(3)]) == []
    elsewhere = [run(f"e{n}", 0.9, rig__gpus=gpu(name="Other")) for n in range(3)]
    assert told(low, *elsewhere) == []
    many = [with_value(one, "results", [cell("chat", 4, speed=90)]) for one in OTHERS]
    assert told(low, *many) == []


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"backend__api": "vulkan"}, "vulkan computed, theirs cuda"),
        ({"mode__offload": "n-cpu-moe 4"}, "kept off the card: n-cpu-moe 4"),
        (
            {"rig__gpus": gpu(pcie_generation=3, pcie_width=4)},
            "PCIe 3.0 x4, theirs PCIe 5.0 x16",
        ),
        (
            {"seen": {"power_limited_share": 0.9}},
            "its power limit held the card down for 90% of the time",
        ),
        (
            {"seen": {"throttled_share": 0.2, "throttle_reasons": ["hw_thermal_slowdown"]}},
            "the card was held down: hw_thermal_slowdown",
        ),
        ({"seen": {"other_cores_mean": 1.24}}, "other programs used 1.2 cores"),
        ({"rig__cpu__governor": "powersave"}, "the processor's governor was powersave"),
        ({"load_memory": LoadMemory(doubt="GPU memory grew by 1 GiB")}, "GPU memory grew by 1 GiB"),
        ({"backend__resolved__devices": ["llvmpipe (LLVM 15)"], "rig__gpus": []}, "llvmpipe"),
    ],
)
def test_what_is_named(changes: dict[str, Any], cause: str) -> None:
    [found] = Shares(OTHERS).shortfalls(run("a", 0.3, **changes))
    assert cause in str(found)


def on_cpu(run_id: str, share: float, **changes: Any) -> Record:
    return run(run_id, share, **{"backend__api": "cpu", "rig__gpus": [], **changes})


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"backend__resolved__threads": 2}, "2 threads where 12 cores could be used"),
        ({"backend__resolved__threads": 48}, "48 threads on 24 processors"),
        ({"rig__memory__speed_mt_per_s": 2133}, "memory at 2133 MT/s, theirs at 6000"),
        ({"rig__memory__bandwidth_bytes_per_s": 20e9}, "memory of 20 GB/s, theirs of 50"),
    ],
)
def test_what_is_named_of_a_processor(changes: dict[str, Any], cause: str) -> None:
    wide = {"rig__memory__bandwidth_bytes_per_s": 50e9, "backend__resolved__threads": 12}
    others = [on_cpu(f"o{n}", 0.8, **wide) for n in range(2)]
    [found] = Shares(others).shortfalls(on_cpu("a", 0.3, **{**wide, **changes}))
    assert cause in found.causes
    assert "2 others on this processor reach 0.80" in str(found)


def test_a_thousand_kin_are_no_more_work_than_a_hundred() -> None:
    many = Shares([run(f"o{n}", 0.7) for n in range(300)])
    low = run("a", 0.3)
    assert len(many.kin(low, low.results[0])) == MOST


def test_records_without_a_ceiling_are_told_nothing() -> None:
    record = with_value(measured(), "results", [cell("chat")])
    assert Shares([record, *OTHERS]).shortfalls(record) == []


def test_show_and_the_page_of_a_run_tell_it(tmp_path: Path) -> None:
    low = run("20261122-120000-low-aaaa", 0.31, rig__gpus=gpu(power_limit_w=100.0))
    others = [run(f"20261122-13000{n}-high-aaaa", 0.72) for n in range(3)]
    store = Store(tmp_path)
    for record in (low, *others):
        store.save(record, [])
    why = "3 others on this card reach 0.72: the card was capped at 100 of 250 W"
    shown = CliRunner(env={"TOKRIG_CONTENT": str(tmp_path)}).invoke(main, ["show", low.id])
    assert why in shown.output
    runs = tuple(Run(record, f"r/{record.id}.yaml", "d") for record in (low, *others))
    site = Site(store, runs, families={}, rigs={}, redirects={})
    pages = {output.path: output for output in PAGE(site)}
    assert why in pages[f"runs/{low.id}.html"].render().decode()
    assert "Far below" not in pages[f"runs/{others[0].id}.html"].render().decode()
    # What others reach is part of the page.
    [alone] = PAGE(Site(store, runs[:1], families={}, rigs={}, redirects={}))
    assert alone.key != pages[f"runs/{low.id}.html"].key
