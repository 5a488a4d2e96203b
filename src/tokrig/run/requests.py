"""What a run sends: prompts fitted once a run, and requests made of them, each with its salt."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from tokrig.backends import Request
from tokrig.record.samples import Cell
from tokrig.run import fitting, open_loop, traces
from tokrig.run.client import Queues
from tokrig.run.fitting import Prompt
from tokrig.run.lasting import Lasting
from tokrig.run.preflight import EngineState
from tokrig.run.prepare import Prepared
from tokrig.run.session import By, Session
from tokrig.workloads import Workload


class Requests:
    """Makes the requests of a prepared run. ``state`` is what is known of its engine, ``folder``
    where a load that lasts keeps what it received."""

    def __init__(self, prepared: Prepared, state: EngineState, folder: Path) -> None:
        self.prepared, self.state, self.folder = prepared, state, folder
        # By workload, tokens of context, and variant.
        self.prompts: dict[tuple[str, int, int], Prompt] = {}
        self.context_characters: float | None = None

    def fitted(self, session: Session, cell: Cell) -> list[Prompt]:
        """The prompts of a cell: one of each variant, of a trace one of each length."""
        workload = self.prepared.workloads[cell.workload]
        if cell.load == "trace":
            return self.trace_prompts(session, workload)
        return [self.prompt(session, cell, variant) for variant in range(len(workload.variants))]

    def warm_up(self, session: Session, cell: Cell, prompts: list[Prompt]) -> list[Request]:
        """What a cell sends before it is measured."""
        return self.sets(session, cell, prompts, self.prepared.level.warmups)

    def target(self, workload: Workload) -> int:
        """The prompt length that a shape is measured at."""
        return fitting.target_of(workload, self.state.backend.prompting.template_tokens)

    def work(
        self, session: Session, cell: Cell, prompts: list[Prompt], repeat: int
    ) -> tuple[Iterable[Request], By | None]:
        """What a cell's measured phase sends, and by which source where that is no closed loop."""
        workload = self.prepared.workloads[cell.workload]
        if (seconds := self.prepared.spec.sustain_s) is not None:
            endless = (
                self.request(session, workload, prompt, session.salt())
                for prompt in itertools.cycle(prompts)
            )
            return endless, Lasting(cell.concurrency, seconds, self.folder)
        if cell.is_open:
            arrive = open_loop.Arrive.of(self.prepared, cell, repeat)
            if arrive.lengths:
                by_length = dict(zip(self.trace_lengths(), prompts, strict=True))
                lengths = [(self.at_least(prompt), answer) for prompt, answer in arrive.lengths]
                return [
                    session.request(
                        by_length[prompt].render(unique, system_role=session.system_role),
                        answer,
                        unique,
                    )
                    for prompt, answer in lengths
                    for unique in (session.salt(),)
                ], replace(arrive, lengths=lengths)
            return self.numbered(session, cell, prompts, len(arrive.due_s)), arrive
        if not workload.sessions:
            return self.sets(session, cell, prompts, self.prepared.level.iterations), None
        # Each worker walks a session of its own: its next turn follows the answer to the last one.
        requests, many = self.turns(session, cell, self.state.turns or 0), cell.concurrency
        return requests, lambda bodies: Queues(
            [list(enumerate(bodies))[worker::many] for worker in range(many)]
        )

    def prompt(self, session: Session, cell: Cell, index: int) -> Prompt:
        """The prompt of a variant at a cell's depth, fitted once per run."""
        key, workload = (cell.workload, cell.depth_tokens, index), self.prepared.workloads
        if key in self.prompts:
            return self.prompts[key]
        shape, depth = workload[cell.workload], cell.depth_tokens
        count = partial(session.count_prompt, answer_tokens=shape.answer_tokens)
        target, way = self.target(shape), session.system_role
        if depth:
            own = self.prompt(session, replace(cell, depth_tokens=0), index)
            found, self.context_characters = fitting.behind(
                own, depth, target + depth, index, count, self.context_characters, system_role=way
            )
        else:
            found = fitting.fit(shape, shape.variants[index], count, target, system_role=way)
        self.prompts[key] = found
        return found

    def at_least(self, tokens: int) -> int:
        """The length of a prompt of a trace: no shorter than the chat template leaves room for."""
        template = self.state.backend.prompting.template_tokens or 0
        return max(tokens, template + fitting.LEAST_OWN_TOKENS)

    def trace_lengths(self) -> list[int]:
        """The prompt lengths of a trace, shortest first."""
        assert self.prepared.trace is not None
        return sorted({self.at_least(n) for n in traces.steps(self.prepared.trace.arrivals)})

    def trace_prompts(self, session: Session, workload: Workload) -> list[Prompt]:
        """A prompt of each length of a trace, fitted once a run."""
        lengths, way = self.trace_lengths(), session.system_role
        count = partial(session.count_prompt, answer_tokens=workload.answer_tokens)
        for length in lengths:
            if ("trace", 0, length) not in self.prompts:
                own, self.context_characters = fitting.of_length(
                    workload, length, count, self.context_characters, system_role=way
                )
                self.prompts["trace", 0, length] = own
        return [self.prompts["trace", 0, length] for length in lengths]

    def sets(self, session: Session, cell: Cell, prompts: list[Prompt], sets: int) -> list[Request]:
        """``sets`` × concurrency requests that walk through the variants, each with its salt. Of
        sessions the first turns."""
        if self.prepared.workloads[cell.workload].sessions:
            return self.turns(session, cell, 1)
        return self.numbered(session, cell, prompts, sets * cell.concurrency)

    def numbered(
        self, session: Session, cell: Cell, prompts: list[Prompt], count: int
    ) -> list[Request]:
        """So many of them."""
        workload = self.prepared.workloads[cell.workload]
        return [
            self.request(session, workload, prompts[number % len(prompts)], session.salt())
            for number in range(count)
        ]

    def turns(self, session: Session, cell: Cell, number: int) -> list[Request]:
        """The first turns of sessions side by side, turn after turn; each session has its salt."""
        workload = self.prepared.workloads[cell.workload]
        salts = [session.salt() for _ in range(cell.concurrency)]
        walks = [
            workload.prompts(worker, unique, system_role=session.system_role)
            for worker, unique in enumerate(salts)
        ]
        return [
            session.request(walks[worker][place], turn.answer_tokens, unique, keeps_prompt=True)
            for place, turn in enumerate(workload.turns[:number])
            for worker, unique in enumerate(salts)
        ]

    def request(self, session: Session, workload: Workload, prompt: Prompt, unique: str) -> Request:
        """A request of a shape."""
        messages = prompt.render(unique, system_role=session.system_role)
        return session.request(messages, workload.answer_tokens, unique)
