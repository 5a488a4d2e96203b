"""A prepared run, from engine start to record: repeats × cells, one after the other.

A *repeat* is one server start, warm-up and a fixed request set; a *cell* is one workload at one
concurrency. Every finished cell goes to the journal at once, so that whatever happens later,
what was measured is kept.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tokrig.backends import Request
from tokrig.errors import EngineError, InputError, RequestError, StartError
from tokrig.record.formulas import usual_gap_s
from tokrig.record.ladder import end_of, step
from tokrig.record.model import ColdStart, Mode, Model, Record, Rig, Skipped
from tokrig.record.quality import Reference
from tokrig.record.quality_file import to_parquet
from tokrig.record.samples import Cell, Sample
from tokrig.run import assemble, http, memory, open_loop, preflight, quality, traces
from tokrig.run.ceiling import measured_here
from tokrig.run.client import Loop
from tokrig.run.journal import CellRecord, Journal
from tokrig.run.lasting import Lasting
from tokrig.run.load_nodes import LOST
from tokrig.run.monitor import Idle, grown, remarks
from tokrig.run.opening import identified, opened
from tokrig.run.prepare import Prepared
from tokrig.run.progress import (
    CellBegan,
    CellDone,
    CellSkipped,
    CellTick,
    EngineReady,
    LadderEnded,
    Listener,
    Note,
    RunBegan,
    Step,
)
from tokrig.run.reads import reads_of
from tokrig.run.requests import Requests
from tokrig.run.room import LEAST_TURNS, need, turn_need
from tokrig.run.session import By, Session, salt
from tokrig.spec import arrivals
from tokrig.workloads import Workload

Find = Callable[[Model, Mode], Reference | None]
"""Finds the run whose answers those of a model are held against."""
ENDING = "ending early: what is in flight may end, and what was measured is kept"


@dataclass(frozen=True)
class Outcome:
    """What came of a run. ``error`` is set when it failed; the record then holds what was
    measured before, and why it stopped. ``answers`` is the file of the model's answers."""

    record: Record
    samples: list[Sample]
    error: EngineError | None = None
    answers: bytes | None = None


def execute(
    prepared: Prepared,
    rig: Rig,
    journal: Journal,
    listen: Listener,
    find: Find = lambda model, mode: None,
) -> Outcome:
    """Measure what the journal does not hold yet, and make the record of everything. ``find``
    finds what the model's answers are held against.

    Engine failures become a failed record; KeyboardInterrupt, StoreError and InputError pass
    through with the journal intact. A running server that cannot be measured from the start is bad
    input: nothing was learned that a record could tell. One that could not load its model is not.
    """
    run = _Run(prepared, rig, journal, listen, find)
    error: EngineError | None = None
    try:
        run.all_repeats()
    except EngineError as caught:
        attaching = prepared.launch is None and not run.greeted
        if attaching and not isinstance(caught, StartError):
            raise InputError(caught.message, hint=caught.hint, code=caught.code) from None
        error = caught
    file = journal.answers()
    if file is not None and run.reference is None:
        run.reference = find(run.state.model, run.state.mode)
    record = assemble.record(run.gathered, error, answers=file, reference=run.reference)
    return Outcome(record, [s for cell in run.cells for s in cell.samples], error, file)


class _Run:
    """What is known so far; begins with what the journal holds."""

    def __init__(
        self, prepared: Prepared, rig: Rig, journal: Journal, listen: Listener, find: Find
    ) -> None:
        self.prepared, self.rig, self.journal, self.listen = prepared, rig, journal, listen
        self.find = find
        self.reference: Reference | None = None
        self.cells: list[CellRecord] = journal.cells()
        self.skipped = [Skipped.model_validate(facts) for facts in journal.skipped()]
        facts = journal.engine_facts()
        self.resumed, self.greeted = bool(facts), False
        self.state = (
            preflight.EngineState.from_json(facts)
            if facts
            else preflight.EngineState(
                model=prepared.model,
                backend=assemble.backend_facts(prepared, None),
                mode=prepared.mode,
            )
        )
        self.requests = Requests(prepared, self.state, journal.folder)
        self.ladders: dict[str, LadderEnded] = {}
        self.idle: Idle | None = None
        self.remarked: set[str] = set()
        self.ceiling = measured_here(rig.cpu.model)
        self.gathered = assemble.Gathered(
            prepared, rig, self.state, self.cells, self.skipped, assemble.source_commit()
        )

    def note_state(self) -> None:
        self.journal.note_engine(self.state.model_dump(mode="json"))

    def is_skipped(self, cell: Cell) -> bool:
        return any(s.cell == cell for s in self.skipped)

    def leaves_out(self, cell: Cell) -> bool:
        """Whether a cell was skipped, or stands above the end of its ladder."""
        return self.is_skipped(cell) or any(end.above(cell) for end in self.ladders.values())

    def climb(self, workload: str) -> bool:
        """Look whether the ladder of a workload has ended, by its first repeat."""
        cells = [c for c in self.prepared.cells if c.workload == workload]
        if self.prepared.spec.ladder is None or workload in self.ladders:
            return False
        slots = self.state.backend.resolved.slots
        done = [c for c in self.cells if c.cell in cells and c.repeat == 0]
        steps = [step(c.cell.concurrency, c.samples, slots) for c in done]
        failed = any(s.cell in cells for s in self.skipped)
        if end_of(steps, cells[-1].concurrency, slots, failed=failed) is None:
            return False
        results = [assemble.result(self.gathered, c.cell) for c in done]
        found = assemble.ladder(self.gathered, workload, results)
        highest = steps[-1].concurrency if steps else 0
        self.ladders[workload] = LadderEnded(workload, highest, found)
        return True

    def all_repeats(self) -> None:
        prepared, level, launch = self.prepared, self.prepared.level, self.prepared.launch
        for workload in prepared.workloads:
            self.climb(workload)
        done = {(c.cell, c.repeat) for c in self.cells}
        ends = self.ladders.values()
        self.listen(
            RunBegan(
                prepared.run_id,
                self.state.model,
                self.rig,
                tuple(c for c in prepared.cells if not any(e.above(c) for e in ends)),
                level.repeats,
                len(done),
                prepared.spec.ladder is not None,
            )
        )
        for remark in prepared.remarks:
            self.listen(Note(remark))
        for repeat in range(level.repeats):
            asks = repeat == level.repeats - 1 and self.wants_answers()
            if next(self.todo(repeat), None) is None and not asks:
                continue
            # A server that was already running cannot be started without its speculation.
            if launch and launch.speculation is not None and self.state.greedy_texts is None:
                self.answer_without_speculation()
            verb = "starting" if launch else "attaching to"
            self.listen(Step(f"{verb} {prepared.backend.title}", phase="start"))
            with opened(prepared, self.journal.log_path, self.idle, self.listen) as session:
                self.idle = session.monitor.idle
                session.system_role = self.state.backend.prompting.system_role is not False
                self.greet(session)
                self.learn_prompting(session)
                self.greeted = True
                self.compare_greedy(session)
                for cell in prepared.cells:
                    if not self.leaves_out(cell) and (message := self.too_small(session, cell)):
                        self.skip(cell, http.CONTEXT, message)
                for cell in self.todo(repeat):
                    self.one_cell(session, cell, repeat)
                    if self.climb(cell.workload):
                        self.listen(self.ladders[cell.workload])
                if asks and self.cells:
                    self.look_at_answers(session)
                if launch:
                    self.listen(Step("stopping the engine", phase="stop"))
        if not self.cells:
            first = self.skipped[0]
            raise RequestError(
                f"nothing could be measured: {first.workload}: {first.message}",
                hint=http.HINTS.get(first.code, "read the engine's log"),
                code=first.code,
            )

    def wants_answers(self) -> bool:
        return self.prepared.spec.looks_at_answers and self.journal.answers() is None

    def look_at_answers(self, session: Session) -> None:
        """Whether the model is still right, once a run, when all that is timed is measured: an
        engine that dies of it takes nothing along."""
        try:
            self.reference = self.find(self.state.model, self.state.mode)
            found = quality.answers(session, self.reference, self.listen)
        except EngineError as why:
            self.listen(Note(f"the model's answers were not looked at: {why.message}"))
            return
        self.journal.note_answers(to_parquet(found))

    def todo(self, repeat: int) -> Iterator[Cell]:
        """The cells that are left of a repeat, one after the other: what comes next may depend on
        what the last one gave."""
        for cell in self.wanted(repeat):
            done = any((c.cell, c.repeat) == (cell, repeat) for c in self.cells)
            if not done and not self.leaves_out(cell):
                yield cell

    def wanted(self, repeat: int) -> Iterator[Cell]:
        """All cells of a repeat."""
        if not self.prepared.spec.find_rate:
            yield from self.prepared.cells
            return
        for load in self.prepared.cells:
            if any(s.cell == load and s.code == http.CONTEXT for s in self.skipped):
                continue  # at no rate will it fit
            answer_tokens = self.prepared.workloads[load.workload].answer_tokens
            lasts_s = arrivals.duration_s(self.prepared.spec)
            highest = arrivals.highest_rate(lasts_s, answer_tokens)
            yield from open_loop.probes(load, repeat, partial(self.met, load), highest)

    def met(self, load: Cell) -> dict[float, bool]:
        """Which rates of a load met its SLO so far."""
        results = [assemble.result(self.gathered, cell) for cell in self.gathered.measured]
        return open_loop.met_by(load, results, [s.cell for s in self.skipped])

    def answer_without_speculation(self) -> None:
        """One answer of each shape from the same engine without speculation, and without the
        options that belong to it."""
        self.listen(Step("starting without speculation, to compare greedy answers", phase="greedy"))
        launch, belong = self.prepared.launch, self.prepared.backend.speculation_options
        assert launch is not None
        kept = {k: v for k, v in launch.options.items() if not k.lstrip("-").startswith(belong)}
        plain = replace(self.prepared, launch=replace(launch, speculation=None, options=kept))
        with opened(plain, self.journal.log_path, self.idle, self.listen) as session:
            self.idle = session.monitor.idle
            preflight.settle(session, self.listen)
            self.learn_prompting(session)
            self.state.greedy_texts = dict(self.greedy_answers(session))

    def greedy_answers(self, session: Session) -> Iterator[tuple[str, str]]:
        """The answer to each shape's first prompt, always of the same salt."""
        for name, workload in self.prepared.workloads.items():
            if workload.sessions:
                continue
            cell = Cell(name, 1)
            if self.too_small(session, cell) or self.is_skipped(cell):
                continue
            self.listen(Step("comparing greedy answers", cell, "greedy"))
            try:
                prompt = self.requests.prompt(session, cell, 0)
            except RequestError:
                continue  # the cell will tell
            request = self.requests.request(session, workload, prompt, salt(0))
            sample = session.send([request], cell, "warmup", 0)[0][0]
            if sample.error is None:
                yield name, sample.stream.text

    def compare_greedy(self, session: Session) -> None:
        """Where the answers with speculation leave those without, once a run."""
        before = self.state.greedy_texts
        if not before or self.state.greedy:
            return
        self.state.greedy = {
            name: preflight.compare_greedy(before[name], text, session.count_text)
            for name, text in self.greedy_answers(session)
            if name in before
        }
        self.note_state()

    def greet(self, session: Session) -> None:
        """Note what the server is, refuse to mix two engines in one record, probe it, see whether
        the model is in memory."""
        state, engine = self.state, session.engine
        facts = assemble.backend_facts(self.prepared, engine, session.bypass)
        for key in ("engine", "build", "api"):
            was, now = getattr(state.backend, key), getattr(facts, key)
            if self.resumed and was != now:
                raise InputError(
                    f"the engine changed during the run: its {key} was {was!r}, now {now!r}",
                    hint="discard the run and start over: tokrig run --discard "
                    + self.prepared.run_id,
                )
        preflight.require(self.prepared, engine, facts)
        state.backend = facts.model_copy(update={"prompting": state.backend.prompting})
        state.model = assemble.name_endpoint(identified(state.model, session), session.served_model)
        state.mode = preflight.found_mode(self.prepared.mode, engine)
        self.listen(EngineReady(state.backend, session.load_s))
        if state.mode.speculative and engine.speculation is False:
            reason = session.backend.failure(session.log()) or "its log may tell why"
            self.listen(Note(f"the engine does not speculate: {reason}"))
        first, by_itself = preflight.probe(session, self.listen)
        # Some load the model only now, and a card is seen in use when it is there.
        cards = session.monitor.cards_in_use(engine.api)
        state.backend = assemble.with_devices(state.backend, self.prepared, cards)
        state.load_memory = self.require_fit(session).memory
        state.reads = reads_of(session, state.model, state.backend, state.mode)
        state.model = state.model.model_copy(update={"reasoning": by_itself})
        observed = {"reasoning_observed": preflight.reasons(first)}
        state.mode = state.mode.model_copy(update=observed)
        if state.cold is None:  # what an earlier start of the run saw stays
            first_s = round(first.chunks[0].t_ns / 1e9, 4) if first.chunks else None
            load_s = None if session.load_s is None else round(session.load_s, 4)
            state.cold = ColdStart(load_s=load_s, first_ttft_s=first_s)
        # A server that was already running is not started anew by being attached to again.
        state.server_starts += session.server is not None
        self.resumed = True
        self.note_state()

    def require_fit(self, session: Session) -> memory.Fit:
        """Refuse to go on with a model that is not where it should be.

        Raises StartError with the code ``cpu_spill``: every figure would be another machine's.
        """
        model = self.state.model
        found = memory.fit_of(session, model, self.prepared.spec.api not in (None, "cpu"))
        if found.memory.spilled:
            raise StartError(
                memory.spill_message(found, model),
                hint=memory.spill_hint(found, model, self.prepared.launch),
                code="cpu_spill",
            )
        if found.memory.doubt:
            self.listen(Note(f"where the model lies is not confirmed: {found.memory.doubt}"))
        return found

    def learn_prompting(self, session: Session) -> None:
        """What becomes of our prompts on their way to the model, once a run."""
        backend = self.state.backend
        if backend.prompting.system_role is None:
            prompting = preflight.learn(session, self.listen)
            self.state.backend = backend = backend.model_copy(update={"prompting": prompting})
            self.note_state()
            # A shape of another length is compared with others of that length only.
            for workload in self.prepared.workloads.values():
                target, own = self.requests.target(workload), workload.prompt_tokens
                if target != own:
                    because = f"the chat template alone has {prompting.template_tokens} tokens"
                    instead = f"prompts of {target} tokens instead of {own}"
                    self.listen(Note(f"{workload.name}: {because}, so {instead}"))
            deep = any(cell.depth_tokens for cell in self.prepared.cells)
            if deep and session.engine.resolved.context_per_slot is None:
                self.listen(
                    Note(
                        "the server does not tell its context: what it cannot hold shows on trying"
                    )
                )
        session.system_role = backend.prompting.system_role is not False

    def too_small(self, session: Session, cell: Cell) -> str | None:
        """Why a cell does not fit into a slot's context."""
        context = session.engine.resolved.context_per_slot
        workload = self.prepared.workloads[cell.workload]
        if workload.sessions:
            return self.too_few_turns(session, workload, context)
        wanted = need(workload, self.requests.target(workload) + cell.depth_tokens)
        if context is None or wanted <= context:
            return None
        if self.prepared.trace:
            return traces.too_long(self.prepared.trace, context)
        return f"{cell.shape} needs {wanted} tokens of context, a slot has {context}"

    def too_few_turns(
        self, session: Session, workload: Workload, context: int | None
    ) -> str | None:
        """Why no session can be measured: not even two of its turns fit. Else how many do, and how
        long they are, is noted, once a run."""
        state, whole = self.state, len(workload.turns)
        if state.turns is None:
            state.turns, state.turn_prompts = preflight.count_turns(session, workload, context)
            self.note_state()
            if LEAST_TURNS <= state.turns < whole:
                fit = f"{state.turns} of {whole} turns fit into a context of {context} tokens"
                self.listen(Note(f"{workload.name}: {fit}"))
        if state.turns >= LEAST_TURNS:
            return None
        wanted = turn_need(workload.turns[LEAST_TURNS - 1])
        return (
            f"{workload.name}: its first {LEAST_TURNS} turns need about {wanted} tokens of context,"
            f" a slot has {context}"
        )

    def one_cell(self, session: Session, cell: Cell, repeat: int) -> None:
        """Measure a cell and journal it. It fails alone: it is tried once more, and then skipped
        with the server's own words, or kept with its failed requests where earlier repeats of it
        are there."""
        began = time.monotonic()
        last = False
        while True:
            try:
                finished = self.measured(session, cell, repeat, last=last)
                break
            except RequestError as why:
                if why.code == "model_changed":
                    raise
                if why.code == LOST:
                    # Neither cell nor engine is at fault, and there are only so many nodes.
                    self.listen(Note(f"{cell.label}: {why.message}; measuring it anew"))
                    continue
                # Not the cell may be at fault: the engine has ended, or hangs.
                session.require_answering()
                if why.code == "timeout" and not preflight.answers(session):
                    raise RequestError(
                        f"the engine hangs: {why.message}, and a short request is not answered"
                        " either",
                        hint="raise --request-timeout if the engine is only slow",
                        code="timeout",
                    ) from None
                if last:
                    self.skip(cell, http.code_of(why), why.message)
                    return
                self.listen(Note(f"{cell.label}: {why.message}; trying once more"))
                time.sleep(http.wait_s(why) or 0)
                last = True
        self.journal.add(finished)
        self.cells.append(finished)
        result = assemble.result(self.gathered, cell)
        self.listen(CellDone(cell, repeat, result, time.monotonic() - began))

    def measured(self, session: Session, cell: Cell, repeat: int, *, last: bool) -> CellRecord:
        """Fit, warm up, measure.

        Raises RequestError when the server refuses the cell. Where it has been measured in an
        earlier repeat, the ``last`` try counts whatever comes of it: a result that left its
        failures out would be better than the engine is.
        """
        must = last and bool(self.gathered.of(cell))
        self.listen(Step("fitting prompts", cell, "fit"))
        prompts = self.requests.fitted(session, cell)
        asked_tokens = min((prompt.tokens for prompt in prompts if prompt.tokens), default=None)
        self.listen(Step("warming up", cell, "warm_up"))
        first = self.requests.warm_up(session, cell, prompts)
        warmup, _ = session.send(first, cell, "warmup", repeat)
        if not must and (why := http.refused(warmup, asked_tokens)):
            raise why
        known = self.gathered.planned
        self.listen(CellBegan(cell, repeat, known.index(cell) if cell in known else 0, len(known)))
        requests, by = self.requests.work(session, cell, prompts, repeat)
        sums = session.counters()
        samples, loop = self.sent(session, cell, repeat, requests, by)
        tried = open_loop.answered(samples) if cell.is_open else samples
        if not must and (why := http.refused(tried, asked_tokens)):
            raise why
        observed = session.monitor.observed(
            loop.wall_s,
            loop.client_cpu_share,
            session.engine.api,
            session.engine.resolved.devices,
            client=self.client_of(loop, samples),
            load_nodes=loop.load_nodes,
            counters=grown(sums, session.counters()),
        )
        if isinstance(by, Lasting):
            seconds, engine = by.seconds, session.engine
            seen = session.monitor.over_time(
                loop.start_ns, seconds, engine.api, engine.resolved.devices
            )
            observed = observed.model_copy(update={"sustained_s": seconds, "over_time": seen})
        for text in set(remarks(observed, self.rig)) - self.remarked:
            self.remarked.add(text)
            self.listen(Note(text))
        every = [*warmup, *samples]
        return CellRecord(cell, repeat, every, observed)

    def sent(
        self,
        session: Session,
        cell: Cell,
        repeat: int,
        requests: Iterable[Request],
        by: By | None,
    ) -> tuple[list[Sample], Loop]:
        """Send the requests of a measured phase, and tell how far it is."""
        lasting = by if isinstance(by, Lasting) else None
        arrive = by if isinstance(by, open_loop.Arrive) else None
        number = len(requests) if isinstance(requests, Sequence) else 0

        def tick(ended: int, reads: int, elapsed_s: float) -> None:
            if lasting and lasting.ends and ENDING not in self.remarked:
                self.remarked.add(ENDING)
                self.listen(Note(ENDING))
            of_s = lasting.seconds if lasting else None
            in_flight = arrive.in_flight(ended, elapsed_s) if arrive else None
            self.listen(CellTick(cell, ended, number, reads, elapsed_s, of_s, in_flight))

        # A campaign that is interrupted is to end, and to measure this run again; and several
        # clients have been given what they send.
        alone = self.prepared.spec.planned is None and self.prepared.nodes is None
        with lasting.going_on(may_end=alone) if lasting else contextlib.nullcontext():
            samples, loop = session.send(requests, cell, "measured", repeat, tick, by=by)
        if arrive is not None and isinstance(requests, Sequence):
            samples = arrive.observed(samples, requests)
        return samples, loop

    def client_of(self, loop: Loop, samples: Sequence[Sample]) -> dict[str, float | None]:
        """How exact the client of a loop was: the share of its long rounds, and the rate up to
        which it is true, where that was measured here. What was sent from other machines was
        stamped there: nobody here waited for it, and of their clients nothing is assumed."""
        late = {"client_late_share": loop.late_share(usual_gap_s(samples))}
        if loop.load_nodes is not None:
            return {**late, "client_wait_share": loop.client_wait_share}
        if self.ceiling is None:
            return late
        return {
            **late,
            "client_ceiling_tok_per_s": self.ceiling.tok_per_s * max(len(loop.parts), 1),
        }

    def skip(self, cell: Cell, code: str, message: str) -> None:
        """Leave a cell out for the rest of the run, and tell why."""
        skipped = Skipped(**vars(cell), code=code, message=assemble.scrub(message))
        self.skipped.append(skipped)
        self.journal.note_skipped(skipped.model_dump(mode="json"))
        self.listen(CellSkipped(cell, message))
