"""A prepared run, from engine start to record: repeats × cells, one after the other.

A *repeat* is one server start, warm-up and a fixed request set; a *cell* is one workload at one
concurrency. Every finished cell goes to the journal at once, so that whatever happens later,
what was measured is kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tokrig.backends import Request
from tokrig.errors import EngineError, InputError, RequestError, StartError
from tokrig.record.metrics import usual_gap_s
from tokrig.record.model import Record, Rig, Skipped
from tokrig.record.samples import Sample
from tokrig.run import assemble, memory, refusal, state
from tokrig.run.assemble import scrub, source_commit
from tokrig.run.journal import CellRecord, Journal
from tokrig.run.monitor import Idle, grown, remarks
from tokrig.run.prepare import Prepared, need
from tokrig.run.progress import (
    Cell,
    CellBegan,
    CellDone,
    CellSkipped,
    CellTick,
    EngineReady,
    Listener,
    Note,
    RunBegan,
    Step,
)
from tokrig.run.prompting import (
    SALT,
    PromptSize,
    answers,
    compare,
    fit,
    learn,
    probe,
    settle,
    target_of,
    text_of,
    without_speculation,
)
from tokrig.run.session import HINTS, Session, identified, opened, salt
from tokrig.run.state import EngineState, told_from_json, told_to_json
from tokrig.workloads import Workload


@dataclass(frozen=True)
class Outcome:
    """What came of a run. ``error`` is set when it failed; the record then holds what was
    measured before, and why it stopped."""

    record: Record
    samples: list[Sample]
    error: EngineError | None = None


def execute(prepared: Prepared, rig: Rig, journal: Journal, listen: Listener) -> Outcome:
    """Measure what the journal does not hold yet, and make the record of everything.

    Engine failures become a failed record; KeyboardInterrupt, StoreError and InputError pass
    through with the journal intact. A running server that cannot be measured from the start is bad
    input: nothing was learned that a record could tell. One that could not load its model is not.
    """
    run = _Run(prepared, rig, journal, listen)
    error: EngineError | None = None
    try:
        run.all_repeats()
    except EngineError as caught:
        attaching = prepared.launch is None and not run.greeted
        if attaching and not isinstance(caught, StartError):
            raise InputError(caught.message, hint=caught.hint, code=caught.code) from None
        error = caught
    record = assemble.record(run.gathered(), error)
    return Outcome(record, [s for cell in run.cells for s in cell.samples], error)


class _Run:
    """What is known so far; begins with what the journal holds."""

    def __init__(self, prepared: Prepared, rig: Rig, journal: Journal, listen: Listener) -> None:
        self.prepared, self.rig, self.journal, self.listen = prepared, rig, journal, listen
        self.cells: list[CellRecord] = journal.cells()
        self.skipped: dict[Cell, Skipped] = {}
        for facts in journal.skipped():
            skipped = Skipped.model_validate(facts)
            self.skipped[Cell(skipped.workload, skipped.concurrency)] = skipped
        self.fits: dict[tuple[str, int], PromptSize] = {}
        self.told = EngineState(
            model=prepared.model,
            backend=assemble.backend_facts(prepared, None),
            mode=prepared.mode,
        )
        self.known = self.greeted = False
        self.idle: Idle | None = None
        self.commit = source_commit()
        self.remarked: set[str] = set()
        if facts := journal.engine_facts():
            self.told = told_from_json(facts)
            self.known = True

    def gathered(self) -> assemble.Gathered:
        return assemble.Gathered(
            prepared=self.prepared,
            rig=self.rig,
            told=self.told,
            cells=self.cells,
            skipped=list(self.skipped.values()),
            tokrig_commit=self.commit,
        )

    def all_repeats(self) -> None:
        prepared, level = self.prepared, self.prepared.level
        done = {(c.workload, c.concurrency, c.repeat) for c in self.cells}
        requests = {c: level.iterations * c.concurrency for c in prepared.cells}
        self.listen(
            RunBegan(
                prepared.run_id,
                self.told.model,
                self.rig,
                prepared.cells,
                level.repeats,
                requests,
                len(done),
            )
        )
        for repeat in range(level.repeats):
            todo = [c for c in prepared.cells if (c.workload, c.concurrency, repeat) not in done]
            if all(c in self.skipped for c in todo):
                continue
            if self.wants_greedy():
                self.answer_without_speculation()
            verb = "starting" if prepared.launch else "attaching to"
            self.listen(Step(f"{verb} {prepared.backend.title}", phase="start"))
            with opened(prepared, self.journal.log_path, self.idle, self.listen) as session:
                self.idle = session.monitor.idle
                session.system_role = self.told.backend.prompting.system_role is not False
                self.greet(session)
                self.learn_prompting(session)
                self.greeted = True
                self.compare_greedy(session)
                for cell in todo:
                    if cell not in self.skipped:
                        self.one_cell(session, cell, repeat)
                if prepared.launch:
                    self.listen(Step("stopping the engine", phase="stop"))
        if not self.cells:
            first = next(iter(self.skipped.values()))
            raise RequestError(
                f"nothing could be measured: {first.workload}: {first.message}",
                hint=HINTS.get(first.code, "read the engine's log"),
                code=first.code,
            )

    def wants_greedy(self) -> bool:
        """Whether the answers without speculation are still to be had. A server that was already
        running cannot be started without it."""
        launch = self.prepared.launch
        speculates = launch is not None and launch.speculation is not None
        return speculates and self.told.greedy_texts is None

    def answer_without_speculation(self) -> None:
        """One answer of each shape from the same engine without speculation."""
        self.listen(Step("starting without speculation, to compare greedy answers", phase="greedy"))
        plain = without_speculation(self.prepared)
        with opened(plain, self.journal.log_path, self.idle, self.listen) as session:
            self.idle = session.monitor.idle
            settle(session, self.listen)
            self.learn_prompting(session)
            texts = dict(self.greedy_answers(session))
        self.told = replace(self.told, greedy_texts=texts)

    def greedy_answers(self, session: Session) -> Iterator[tuple[str, str]]:
        """The answer to each shape's first prompt, always of the same salt."""
        for name, workload in self.prepared.workloads.items():
            if self.too_small(session, name) or Cell(name, 1) in self.skipped:
                continue
            cell, unique = Cell(name, 1), salt(SALT)
            self.listen(Step("comparing greedy answers", cell, "greedy"))
            try:
                chosen = self.fit(session, name, 0)
            except RequestError:
                continue  # the cell will tell
            request = self.request(session, workload, 0, chosen, unique)
            sample = session.send([request], cell, "warmup", 0)[0][0]
            if sample.error is None:
                yield name, text_of(sample)

    def compare_greedy(self, session: Session) -> None:
        """Where the answers with speculation leave those without, once a run."""
        before = self.told.greedy_texts
        if not before or self.told.greedy:
            return
        found = {
            name: compare(before[name], text, session.count_text)
            for name, text in self.greedy_answers(session)
            if name in before
        }
        self.told = replace(self.told, greedy=found)
        self.journal.note_engine(told_to_json(self.told))

    def greet(self, session: Session) -> None:
        """Note what the server is, refuse to mix two engines in one record, probe it, see whether
        the model is in memory."""
        before = self.told.backend
        facts = assemble.backend_facts(self.prepared, session.engine, session.bypass)
        facts = facts.model_copy(update={"prompting": before.prompting})
        for key in ("engine", "build", "api"):
            was, now = getattr(before, key), getattr(facts, key)
            if self.known and was != now:
                raise InputError(
                    f"the engine changed during the run: its {key} was {was!r}, now {now!r}",
                    hint=f"discard the run and begin anew: tokrig run --discard "
                    f"{self.prepared.run_id}",
                )
        log_tail = session.server.log_tail() if session.server else ""
        state.require(self.prepared, session.engine, facts, log_tail)
        model = assemble.name_endpoint(identified(self.told.model, session), session.served_model)
        mode = state.found_mode(self.prepared.mode, session.engine)
        self.told = replace(self.told, backend=facts, model=model, mode=mode)
        self.listen(EngineReady(facts, session.load_s))
        if self.told.mode.speculative and session.engine.speculation is False:
            reason = session.backend.failure(session.log()) or "its log may tell why"
            self.listen(Note(f"the engine does not speculate: {reason}"))
        observed = probe(session, self.listen, cold=self.told.cold)
        fit = self.require_fit(session)
        # A server that was already running is not started anew by being attached to again.
        starts = self.told.server_starts + (session.server is not None)
        mode = self.told.mode.model_copy(update={"reasoning_observed": observed.switched})
        self.told = replace(
            self.told,
            model=self.told.model.model_copy(update={"reasoning": observed.model}),
            mode=mode,
            cold=observed.cold,
            server_starts=starts,
            load_memory=fit.memory,
        )
        self.known = True
        self.journal.note_engine(told_to_json(self.told))

    def require_fit(self, session: Session) -> memory.Fit:
        """Refuse to go on with a model that is not where it should be.

        Raises StartError with the code ``cpu_spill``: every figure would be another machine's.
        """
        gpu_asked = self.prepared.spec.api not in (None, "cpu")
        fit = memory.fit_of(session, self.told.model, gpu_asked)
        if fit.spilled:
            raise StartError(
                memory.spill_message(fit, self.told.model),
                hint=memory.spill_hint(fit, self.told.model, self.prepared.launch),
                code="cpu_spill",
                log_tail=session.server.log_tail() if session.server else "",
            )
        if fit.doubt:
            self.listen(Note(f"where the model lies is not confirmed: {fit.doubt}"))
        return fit

    def learn_prompting(self, session: Session) -> None:
        """What becomes of our prompts on their way to the model, once a run."""
        backend = self.told.backend
        if backend.prompting.system_role is None:
            backend = backend.model_copy(update={"prompting": learn(session, self.listen)})
            self.told = replace(self.told, backend=backend)
            self.journal.note_engine(told_to_json(self.told))
            self.tell_longer_shapes()
        session.system_role = backend.prompting.system_role is not False

    def tell_longer_shapes(self) -> None:
        """A shape of another length is compared with others of that length only."""
        template = self.told.backend.prompting.template_tokens
        for workload in self.prepared.workloads.values():
            target = self.target(workload)
            if target != workload.prompt_tokens:
                because = f"the chat template alone has {template} tokens"
                instead = f"prompts of {target} tokens instead of {workload.prompt_tokens}"
                self.listen(Note(f"{workload.name}: {because}, so {instead}"))

    def target(self, workload: Workload) -> int:
        """The prompt length that a shape is measured at."""
        return target_of(workload, self.told.backend.prompting.template_tokens)

    def too_small(self, session: Session, name: str) -> str | None:
        """Why a shape does not fit into a slot's context."""
        context, workload = session.engine.resolved.context_per_slot, self.prepared.workloads[name]
        wanted = need(workload, self.target(workload))
        if context is None or wanted <= context:
            return None
        return f"{name} needs {wanted} tokens of context, a slot has {context}"

    def one_cell(self, session: Session, cell: Cell, repeat: int) -> None:
        """Measure a cell and journal it. It fails alone: it is tried once more, and then skipped
        with the server's own words, or kept with its failed requests where earlier repeats of it
        are there."""
        if message := self.too_small(session, cell.workload):
            self.skip(cell, refusal.CONTEXT, message)
            return
        began = time.monotonic()
        for last in (False, True):
            try:
                finished = self.measured(session, cell, repeat, last=last)
                break
            except RequestError as why:
                if why.code == "model_changed":
                    raise
                self.require_answers(session, why)
                if last:
                    self.skip(cell, refusal.code_of(why), why.message)
                    return
                self.listen(Note(f"{cell.label}: {why.message}; trying once more"))
                time.sleep(refusal.wait_s(why) or 0)
        self.journal.add(finished)
        self.cells.append(finished)
        result = assemble.result(self.gathered(), cell)
        self.listen(CellDone(cell, repeat, result, time.monotonic() - began))

    def require_answers(self, session: Session, why: RequestError) -> None:
        """Raises EngineDied or RequestError when not the cell is at fault, but the engine has ended
        or hangs."""
        session.require_answering()
        if why.code == "timeout" and not answers(session):
            raise RequestError(
                f"the engine hangs: {why.message}, and a short request is not answered either",
                hint="raise --request-timeout if the engine is only slow",
                code="timeout",
                log_tail=session.server.log_tail() if session.server else "",
            )

    def measured(self, session: Session, cell: Cell, repeat: int, *, last: bool) -> CellRecord:
        """PromptSize, warm up, measure.

        Raises RequestError when the server refuses the cell. Where it has been measured in an
        earlier repeat, the ``last`` try counts whatever comes of it: a result that left its
        failures out would be better than the engine is.
        """
        workload, level = self.prepared.workloads[cell.workload], self.prepared.level
        must = last and any(
            (c.workload, c.concurrency) == (cell.workload, cell.concurrency) for c in self.cells
        )
        self.listen(Step("fitting prompts", cell, "fit"))
        fits = [self.fit(session, cell.workload, v) for v in range(len(workload.variants))]
        asked_tokens = min((fit.tokens for fit in fits if fit.tokens), default=None)
        self.listen(Step("warming up", cell, "warm_up"))
        requests = self.requests(session, cell, fits, level.warmups)
        warmup, _ = session.send(requests, cell, "warmup", repeat)
        if not must and (why := refusal.refused(warmup, asked_tokens)):
            raise why
        index = self.prepared.cells.index(cell)
        self.listen(CellBegan(cell, repeat, index, len(self.prepared.cells)))
        requests = self.requests(session, cell, fits, level.iterations)
        sums = session.counters()
        samples, phase = session.send(
            requests,
            cell,
            "measured",
            repeat,
            lambda ticker, elapsed_s: self.listen(
                CellTick(cell, ticker.ended, len(requests), ticker.reads, elapsed_s)
            ),
        )
        if not must and (why := refusal.refused(samples, asked_tokens)):
            raise why
        engine = session.engine
        observed = session.monitor.observed(
            phase.wall_s,
            phase.client_cpu_share,
            engine.api,
            engine.resolved.devices,
            client_late_share=phase.late_share(usual_gap_s(samples)),
            counters=grown(sums, session.counters()),
        )
        for text in set(remarks(observed, self.rig)) - self.remarked:
            self.remarked.add(text)
            self.listen(Note(text))
        every = [*warmup, *samples]
        return CellRecord(cell.workload, cell.concurrency, repeat, every, observed)

    def fit(self, session: Session, name: str, index: int) -> PromptSize:
        """The prompt of a variant, fitted once per run."""
        key = (name, index)
        if key not in self.fits:
            workload = self.prepared.workloads[name]
            self.fits[key] = fit(
                workload,
                workload.variants[index],
                lambda messages: session.count_prompt(messages, workload.answer_tokens),
                self.target(workload),
                system_role=session.system_role,
            )
        return self.fits[key]

    def requests(
        self, session: Session, cell: Cell, fits: list[PromptSize], sets: int
    ) -> list[Request]:
        """``sets`` × concurrency requests that walk through the variants, each with its salt."""
        workload = self.prepared.workloads[cell.workload]
        return [
            self.request(session, workload, number, fits[number % len(fits)], session.salt())
            for number in range(sets * cell.concurrency)
        ]

    def request(
        self, session: Session, workload: Workload, number: int, chosen: PromptSize, unique: str
    ) -> Request:
        """The ``number``-th request of a shape."""
        messages = workload.variant(number).render(
            chosen.units, chosen.ending, unique, system_role=session.system_role
        )
        return session.request(messages, workload.answer_tokens, unique)

    def skip(self, cell: Cell, code: str, message: str) -> None:
        """Leave a cell out for the rest of the run, and tell why."""
        self.skipped[cell] = Skipped(
            workload=cell.workload,
            concurrency=cell.concurrency,
            code=code,
            message=scrub(message),
        )
        self.journal.note_skipped(self.skipped[cell].model_dump(mode="json"))
        self.listen(CellSkipped(cell, message))
