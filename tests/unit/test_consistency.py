"""Fields of one record that contradict each other are found, without its samples."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.edited import edited, with_field
from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.record import ties
from tokrig.record.consistency import RECORD_RULES, broken_ties, own_contradictions
from tokrig.record.loads import SessionFigures
from tokrig.record.metrics import METRICS
from tokrig.record.model import (
    Cpu,
    Energy,
    Gpu,
    LoadMemory,
    Memory,
    PeakMemory,
    Provenance,
    QuantizedFrom,
    Record,
    Result,
    Speculative,
)
from tokrig.record.quality import Interval, Quality, QualityReference
from tokrig.record.samples import Sample
from tokrig.spec.run import LEVELS
from tokrig.store import Store

CONTENT = Path(__file__).parents[2] / "content"
TTFTS, GAPS = (0.25, 0.26, 0.27), (0.010, 0.011, 0.0105)


def samples(repeats: int = 6, concurrency: int = 1) -> list[Sample]:
    """Repeats of three rounds, whose requests follow one another as a client sends them."""
    found, sent_ns = [], 0
    for repeat in range(repeats):
        for iteration in range(3):
            ttft_s, gap_s = TTFTS[iteration], GAPS[(iteration + repeat) % 3]
            one = sample(ttft_s=ttft_s, gap_s=gap_s, repeat=repeat, iteration=iteration)
            took_ns = round((ttft_s + 20 * gap_s) * 1e9)
            for worker in range(concurrency):
                found.append(replace(one, worker=worker, sent_ns=sent_ns, concurrency=concurrency))
            sent_ns += took_ns + 10_000_000
    return found


def honest(concurrency: int = 1, **changes: Any) -> Record:
    """A record of level standard in which everything is known that rules look at."""
    record = record_of(samples(concurrency=concurrency))
    result = record.results[0]
    tokens = 21 * (result.requests or 0)
    result = result.model_copy(
        update={
            "energy": Energy(
                scope="gpu",
                total_j=2.0 * tokens,
                j_per_output_token=2.0,
                idle_subtracted_j_per_output_token=1.5,
            ),
            "memory": PeakMemory(engine_rss_bytes=10**9, engine_vram_bytes=2 * 10**9),
            "speculative": Speculative(
                drafted_tokens=60,
                accepted_tokens=30,
                acceptance_rate=0.5,
                steps=20,
                acceptance_length=2.5,
            ),
            "ceiling_share": 0.7,
            "client_cpu_share": 0.02,
        }
    )
    rig = record.rig.model_copy(
        update={
            "cpu": Cpu(cores=8, threads=16),
            "memory": Memory(total_bytes=32 * 10**9),
            "gpus": [
                Gpu(
                    name="Card",
                    vendor="nvidia",
                    vram_bytes=12 * 10**9,
                    power_limit_w=250.0,
                    power_min_w=100.0,
                    power_max_w=300.0,
                )
            ],
        }
    )
    model = record.model.model_copy(
        update={
            "bytes": 810 * 10**6,
            "parameters": 10**9,
            "active_parameters": 4 * 10**8,
            "bits_per_weight": 6.4,
            "sha256": "a" * 64,
            "quantized_from": QuantizedFrom(file="f", sha256="b" * 64, tool="t"),
        }
    )
    told = Provenance(
        kind="measured",
        level="standard",
        methodology=2,
        started_at="2026-11-22T12:00:00Z",
        finished_at="2026-11-22T12:10:00Z",
        server_starts=6,
    )
    backend = record.backend.model_copy(update={"api": "cuda"})
    quality = Quality(
        version="1",
        prompts=24,
        faults={"loop": 2},
        reference=QualityReference(id="20261121-120000-tiny-f16", quant="F16", sha256="c" * 64),
        positions=1000,
        other_prompts=0,
        top1_agreement=Interval(value=0.95, ci95=(0.93, 0.97)),
        kl_nats=Interval(value=0.02, ci95=(0.01, 0.03)),
    )
    blocks = {"results": [result], "rig": rig, "model": model, "provenance": told}
    blocks |= {"backend": backend, "quality": quality}
    return record.model_copy(update={**blocks, **changes})


def cell(name: str, *path: str | int) -> tuple[str | int, ...]:
    return ("results", 0, name, *path)


def committed() -> Record:
    """The record measured on a real engine that lies in the repository."""
    return Store(CONTENT).read(next(CONTENT.glob("benchmarks/runs/intel-*/*.yaml")))


@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_honest_record_contradicts_nothing(concurrency: int) -> None:
    assert broken_ties(honest(concurrency)) == []
    assert own_contradictions(committed()) == []


BROKEN: list[tuple[str, tuple[str | int, ...], Any, str]] = [
    ("metric order", cell("ttft_s", "median"), 0.4, "below the median"),
    ("metric order", cell("output_tok_per_s", "min"), 99.9, "above the median"),
    ("metric order", cell("output_tok_per_s", "ci95"), (97.0, 95.0), "no interval"),
    ("metric order", cell("output_tok_per_s", "ci95"), (90.0, 190.0), "outside"),
    ("metric order", cell("output_tok_per_s", "starts"), [91.0, 95.0], "median of its starts"),
    ("metric order", cell("output_tok_per_s", "n"), 0, "no values"),
    ("metric order", cell("repeats"), 5, "an interval from 5"),
    ("percentiles", cell("icl_s", "p90"), 0.001, "below p50"),
    ("gaps", cell("icl_s", "p99"), 10.0, "on average"),
    ("gaps", cell("icl_s", "n"), 36000, "gaps between"),
    ("rate and tpot", cell("tpot_s", "min"), 0.009, "the lowest tpot_s"),
    ("rate and tpot", cell("output_tok_per_s", "max"), 9211.9, "not 1 /"),
    ("counts", cell("request_errors"), 19, "19 of 18 requests"),
    ("counts", cell("finish_reasons"), {"length": 17}, "for 18 answers"),
    ("counts", cell("prompt_tokens", "n"), 20, "20 values from 18"),
    ("answers", cell("ttft_s", "n"), 17, "nothing says why"),
    ("answers", cell("tpot_s", "n"), 17, "tpot_s has 17"),
    ("answers", cell("answered_share"), 0.5, "with 18 of 18 answered"),
    ("answers", cell("concurrency"), 5, "5 at a time"),
    ("load nodes", cell("load_nodes"), {"nodes": 0}, "0 for 1 requests"),
    ("load nodes", cell("load_nodes"), {"nodes": 3}, "3 for 1 requests"),
    ("load nodes", cell("load_nodes"), {"nodes": 1}, "that tokrig started"),
    ("level", ("provenance", "level"), "publish", "6 of the 10 of level publish"),
    ("level", ("provenance", "level"), "quick", "where level quick has 1"),
    ("level", ("provenance", "server_starts"), 1, "server_starts 1"),
    ("tokens", cell("reasoning_tokens_median"), 22.0, "of at most 21"),
    ("tokens", cell("reasoning_tokens_median"), 6.0, "with reasoning 27 of 21"),
    ("tokens", cell("cached_tokens"), 5000, "of at most"),
    ("end to end", cell("end_to_end_tok_per_s", "max"), 90.0, "took"),
    ("end to end", cell("end_to_end_tok_per_s", "min"), 10.0, "at most"),
    ("useful", cell("useful_tok_per_s", "max"), 60.0, "above end_to_end"),
    ("useful", cell("content_tokens_median"), 3.0, "where useful_tok_per_s makes"),
    ("first answer", cell("ttfa_s", "min"), 0.1, "before the first token"),
    ("first answer", cell("ttfa_s", "max"), 0.9, "after the last token"),
    ("system", cell("system_tok_per_s", "max"), 90.0, "above 1 ×"),
    ("system", cell("system_tok_per_s", "min"), 5.0, "where single requests had"),
    ("session", cell("session"), SessionFigures(turns=1, sessions=1), "under the load closed"),
    ("prefill", cell("prefill_source"), None, "from nowhere"),
    ("prefill", cell("prefill_tok_per_s", "min"), 200.0, "came before a first one"),
    ("prefill", cell("ttft_s", "min"), 0.1, "at no more than"),
    ("server", cell("server", "prefill_tok_per_s", "max"), 300.0, "the server's own is 300"),
    ("server", cell("server", "output_tok_per_s", "max"), 130.0, "where the client saw"),
    ("server", cell("server", "difference"), -0.5, "apart"),
    ("speculative", cell("speculative", "accepted_tokens"), 70, "70 of 60 drafted"),
    ("speculative", cell("speculative", "acceptance_rate"), 0.6, "with 30 of 60"),
    ("speculative", cell("speculative", "acceptance_length"), 0.5, "every step gives"),
    ("speculative", ("mode", "draft_tokens"), 1, "with drafts of 1"),
    ("ceiling", cell("ceiling_share"), 1.2, "no above_ceiling"),
    ("quality", ("quality", "faults"), {"loop": 25}, "25, of 24 answers"),
    ("quality", ("quality", "faults"), {"dull": 1}, "1, of 24 answers"),
    ("quality", ("quality", "not_compared"), "tired", "unknown code 'tired'"),
    ("quality", ("quality", "not_compared"), "no_reference", "it was compared"),
    ("quality", ("quality", "kl_nats"), None, "or it says why not"),
    ("quality", ("quality", "reference"), None, "what was it compared with"),
    ("quality", ("quality", "reference", "sha256"), "c", "no SHA-256"),
    ("quality", ("quality", "other_prompts"), 25, "25 of 24"),
    ("quality", ("quality", "top1_agreement", "value"), 1.1, "1.1 (0.93 to 0.97) cannot be"),
    ("quality", ("quality", "kl_nats", "ci95"), (0.03, 0.01), "(0.03 to 0.01) cannot be"),
    ("matrices", cell("prefill_matrix_share"), 0.4, "the record gives"),
    ("shares", cell("client_cpu_share"), -0.1, "no share"),
    ("energy", cell("energy", "total_j"), 9000.0, "J a token make"),
    ("energy", cell("energy", "idle_subtracted_j_per_output_token"), 2.5, "more than with idle"),
    ("energy", ("rig", "gpus", 0, "power_limit_w"), 30.0, "limited to 30 W"),
    ("memory", cell("memory", "engine_rss_bytes"), 33 * 10**9, "of 32000000000"),
    ("memory", cell("memory", "engine_vram_bytes"), 13 * 10**9, "on cards of"),
    ("memory", ("backend", "api"), "cpu", ""),
    ("codes", cell("workload", "answer_tokens"), 22, "output_length, which the figures give"),
    ("codes", cell("workload", "prompt_tokens"), 128, "prompt_length, which the figures give"),
    ("model", ("model", "active_parameters"), 2 * 10**9, "of 1000000000 parameters"),
    ("model", ("model", "bits_per_weight"), 4.6, "model.bytes is"),
    ("hashes", ("model", "sha256"), "abc", "no SHA-256"),
    ("hashes", ("model", "quantized_from", "sha256"), "Z" * 64, "no SHA-256"),
    ("rig", ("rig", "cpu", "cores"), 32, "32 cores with 16 threads"),
    ("rig", ("rig", "gpus", 0, "power_limit_w"), 350.0, "outside 100 to 300 W"),
    ("rig", ("mode", "power_cap_w"), 50.0, "outside the card's"),
    ("times", ("provenance", "finished_at"), "2026-11-22T11:00:00Z", "before the start"),
    ("times", ("provenance", "finished_at"), "2026-11-22T12:00:01Z", "the answers alone took"),
    ("times", ("provenance", "started_at"), "yesterday", "is no time"),
    ("status", ("failure",), {"code": "x", "message": "y"}, "has no failure"),
    ("status", ("status",), "failed", "no failure says why"),
    ("status", ("results",), [], "nothing measured"),
    ("cells", cell("concurrency"), 0, "no measurement"),
    ("ladders", ("ladders",), [{"workload": "chat", "steps": [1, 2], "most": 4}], "are others"),
    (
        "rate limits",
        ("rate_limits",),
        [{"workload": "chat", "concurrency": 1, "load": "poisson", "rates": 2}],
        "the results give none",
    ),
    ("provenance", ("provenance", "methodology"), 99, "update it"),
    ("provenance", ("provenance", "kind"), "transcribed", "names what it is from"),
    ("provenance", ("backend", "managed"), False, "did not manage"),
    ("verdicts", ("validity", "verdict"), "invalid", "with nothing against it: valid"),
    ("verdicts", cell("validity", "unverified"), ["no_rate"], "no_rate against it: unverified"),
    ("verdicts", cell("validity", "unchecked"), ["made_up"], "unknown code 'made_up'"),
]


@pytest.mark.parametrize(
    ("rule", "place", "value", "words"),
    BROKEN,
    ids=[f"{rule}-{'.'.join(map(str, place))}" for rule, place, _, _ in BROKEN],
)
def test_a_broken_tie_is_named(
    rule: str, place: tuple[str | int, ...], value: Any, words: str
) -> None:
    record = honest()
    if rule == "memory" and value == "cpu":  # fewer bytes held than the model has
        record = with_field(record, cell("memory", "engine_rss_bytes"), 10**8)
        words = "no not_resident among the reasons"
    found = broken_ties(with_field(record, place, value))
    told = [str(one) for one in found if one.rule == rule]
    assert any(words in text for text in told), [(one.rule, str(one)) for one in found]


def test_every_rule_has_a_record_that_breaks_it() -> None:
    rules = {*RECORD_RULES, *ties.RESULT_RULES, *ties.MEASURED_RULES}
    assert {rule for rule, *_ in BROKEN} == rules


def test_a_cell_may_not_stand_there_twice() -> None:
    record = honest()
    twice = record.model_copy(update={"results": record.results * 2})
    assert "chat × 1 stands there twice" in {str(c).partition(": ")[2] for c in broken_ties(twice)}


def test_what_was_looked_up_need_not_be_resident() -> None:
    record = with_field(honest(), ("backend", "api"), "cpu")
    held = with_field(record, cell("memory", "engine_rss_bytes"), 200 * 10**6)
    assert any(one.rule == "memory" for one in broken_ties(held))
    told = held.model_copy(update={"load_memory": LoadMemory(looked_up_bytes=400 * 10**6)})
    assert not any(one.rule == "memory" for one in broken_ties(told))


def test_what_others_measured_need_not_share_our_definitions() -> None:
    """TPOT of other tools includes TTFT, and their end-to-end rate may be of another clock."""
    foreign = Provenance(
        kind="imported", source="s", source_url="https://a/b", source_sha256="c" * 64, methodology=2
    )
    record = honest(provenance=foreign)
    other = with_field(record, cell("tpot_s", "median"), 0.0109)
    assert [one.rule for one in broken_ties(other)] == []


def test_a_derived_prefill_rate_is_the_prompt_by_its_ttft() -> None:
    derived = with_field(honest(), cell("prefill_source"), "ttft_derived")
    assert broken_ties(derived) == []
    [one] = broken_ties(with_field(derived, cell("prefill_tok_per_s", "max"), 300.0))
    assert "at most 64 tokens in 0.25 s" in str(one)


def test_levels_repeat_as_often_as_runs_of_them() -> None:
    assert {name: level.repeats for name, level in LEVELS.items()} == ties.REPEATS


def test_most_slips_of_the_hand_are_caught() -> None:
    """Figures, not circumstances: a load average has nothing to be held against."""
    shares: dict[str, Counter[bool]] = {"all": Counter(), "median": Counter()}
    for record in (committed(), honest(), honest(4)):
        for place, _, changed in edited(record):
            if place[2] in ("interference", "memory"):
                continue
            caught = bool(broken_ties(changed))
            shares["all"][caught] += 1
            if place[2] in METRICS and place[-1] == "median":
                shares["median"][caught] += 1
    found = {name: share[True] / share.total() for name, share in shares.items()}
    assert found["all"] > 0.85, found
    assert found["median"] > 0.95, found


def test_the_slip_that_made_a_record_first() -> None:
    result: Result = honest().results[0]
    assert result.output_tok_per_s is not None
    wrong = result.output_tok_per_s.median + 9000
    assert broken_ties(with_field(honest(), cell("output_tok_per_s", "median"), wrong))
