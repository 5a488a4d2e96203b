"""Streams that really ran at the same time, on engines made here: with too few slots and enough,
with prompts read one after the other, with a way to the server that takes longer than the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from tests.unit.samples import sample
from tokrig.record.samples import Chunk, Kind, Sample, concurrency_mean

ENOUGH = 0.9
CHAT, RAG, AGENT = (64, 128), (4096, 128), (1536, 256)


@dataclass
class Job:
    """One request inside a simulated engine."""

    worker: int
    sent_s: float
    left: int
    began_s: float | None = None
    stamps: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Engine:
    """Continuous batching as llama.cpp, vLLM and others do it: each step decodes one token of
    every running request and fills the rest of its budget with prompts, first come first served.
    A step costs time by its tokens. ``slots`` is how many requests may run."""

    slots: int
    budget: int = 2048
    step_s: float = 0.005
    token_s: float = 0.0002
    way_s: float = 0.0
    tells_prompt_ms: bool = True

    def phase(self, shape: tuple[int, int], concurrency: int, iterations: int = 3) -> list[Sample]:
        """A closed loop of ``iterations`` × ``concurrency`` requests."""
        prompt, answer = shape
        unsent = concurrency * iterations
        jobs: list[Job] = []
        done: list[Job] = []
        clock = 0.0

        def send(worker: int, at_s: float) -> None:
            nonlocal unsent
            if unsent:
                unsent -= 1
                jobs.append(Job(worker, at_s, prompt))

        for worker in range(concurrency):
            send(worker, 0.0)
        while jobs:
            there = [j for j in jobs if j.sent_s + self.way_s <= clock][: self.slots]
            if not there:
                clock = min(j.sent_s for j in jobs) + self.way_s
                continue
            room, tokens, emitting = self.budget, 0, []
            for job in there:
                if job.left == 0:
                    emitting.append(job)
                    tokens, room = tokens + 1, room - 1
            for job in there:
                taken = min(job.left, room)
                if taken:
                    job.began_s = clock if job.began_s is None else job.began_s
                    job.left, room, tokens = job.left - taken, room - taken, tokens + taken
                    if job.left == 0:
                        emitting.append(job)
            clock += self.step_s + tokens * self.token_s
            for job in emitting:
                job.stamps.append(clock + self.way_s)
                if len(job.stamps) == answer:
                    jobs.remove(job)
                    done.append(job)
                    send(job.worker, clock + self.way_s)
        return [self.sample(job, concurrency) for job in done]

    def sample(self, job: Job, concurrency: int) -> Sample:
        made = sample()
        began_s = job.sent_s if job.began_s is None else job.began_s
        timings = made.timings
        assert timings is not None
        prompt_ms = (job.stamps[0] - self.way_s - began_s) * 1e3
        return replace(
            made,
            concurrency=concurrency,
            worker=job.worker,
            sent_ns=round(job.sent_s * 1e9),
            chunks=tuple(
                Chunk(round((t - job.sent_s) * 1e9), Kind.CONTENT, "x") for t in job.stamps
            ),
            timings=replace(timings, prompt_ms=prompt_ms) if self.tells_prompt_ms else None,
        )


def share(engine: Engine, shape: tuple[int, int], concurrency: int) -> float:
    mean = concurrency_mean(engine.phase(shape, concurrency))
    assert mean is not None
    return mean / concurrency


@pytest.mark.parametrize(
    ("way_s", "tells"), [(0.0, True), (0.4, False)], ids=["here, timings", "far away, none"]
)
@pytest.mark.parametrize("budget", [512, 4096])
@pytest.mark.parametrize("token_s", [2e-5, 1e-3], ids=["gpu", "cpu"])
@pytest.mark.parametrize("concurrency", [2, 8])
@pytest.mark.parametrize("shape", [CHAT, RAG, AGENT], ids=["chat", "rag", "agent"])
def test_enough_slots_are_reached_and_too_few_are_not(
    shape: tuple[int, int], concurrency: int, token_s: float, budget: int, way_s: float, tells: bool
) -> None:
    def engine(slots: int) -> Engine:
        return Engine(slots, budget, token_s=token_s, way_s=way_s, tells_prompt_ms=tells)

    assert share(engine(concurrency), shape, concurrency) >= ENOUGH
    assert share(engine(concurrency // 2), shape, concurrency) < ENOUGH - 0.1
    assert share(engine(1), shape, concurrency) < 1.3 / concurrency


def test_one_slot_too_few_of_eight() -> None:
    assert share(Engine(7), AGENT, 8) < ENOUGH


def test_each_repeat_is_a_phase_of_its_own() -> None:
    phase = Engine(4).phase(CHAT, 4)
    again = [replace(s, repeat=1) for s in phase]
    assert concurrency_mean([*phase, *again]) == concurrency_mean(phase)


def test_nothing_streamed_tells_nothing() -> None:
    assert concurrency_mean([]) is None
    assert concurrency_mean([sample(tokens=0)]) is None


@pytest.mark.parametrize(
    ("took_s", "at_once"), [((1.0, 1.0, 1.0, 1.0), 2), ((1.0, 2.0, 2.0, 2.0), 1)]
)
def test_answers_in_one_piece_are_told_by_what_waits_for_them(
    took_s: Sequence[float], at_once: int
) -> None:
    """A proxy that keeps answers back: one chunk each, at its end. Two workers; where one answer
    waits for the other all but the first take twice as long."""
    sent_s = (0.0, 0.001, took_s[0] + 0.002, 0.001 + took_s[1] + 0.002)
    samples = [
        sample(
            concurrency=2,
            chunks=(Chunk(round(took * 1e9), Kind.CONTENT, "x"),),
            sent_ns=round(sent * 1e9),
            timings=None,
        )
        for sent, took in zip(sent_s, took_s, strict=True)
    ]
    assert concurrency_mean(samples) == pytest.approx(at_once, rel=0.2)
