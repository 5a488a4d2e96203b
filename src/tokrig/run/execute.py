"""A prepared run, from engine start to record: repeats × cells, one after the other.

A *repeat* is one server start, warm-up and a fixed request set; a *cell* is one workload at one
concurrency. Every finished cell goes to the journal at once, so that whatever happens later,
what was measured is kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tokrig.backends import Request
from tokrig.errors import EngineError, InputError, RequestError
from tokrig.record.model import BackendFacts, ColdStart, Model, Record, Rig, Skipped
from tokrig.record.samples import Kind, Sample
from tokrig.run import assemble
from tokrig.run.fit import Fit, fit
from tokrig.run.journal import CellRecord, Journal
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
from tokrig.run.provenance import source_commit
from tokrig.run.session import Session, opened
from tokrig.workloads import Messages

PROBE = Cell("probe", 1)
PROBE_TOKENS = 16


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
    through with the journal intact.
    """
    run = _Run(prepared, rig, journal, listen)
    error: EngineError | None = None
    try:
        run.all_repeats()
    except EngineError as caught:
        error = caught
    record = assemble.record(run.gathered(), error)
    return Outcome(record, [s for cell in run.cells for s in cell.samples], error)


class _Run:
    """What is known so far; begins with what the journal holds."""

    def __init__(self, prepared: Prepared, rig: Rig, journal: Journal, listen: Listener) -> None:
        self.prepared, self.rig, self.journal, self.listen = prepared, rig, journal, listen
        self.cells: list[CellRecord] = journal.cells()
        self.skipped: dict[Cell, Skipped] = {}
        self.fits: dict[tuple[str, int], Fit] = {}
        self.model: Model = prepared.model
        self.backend: BackendFacts = assemble.backend_facts(prepared, None)
        self.cold: ColdStart | None = None
        self.starts = 0
        self.known = False
        self.idle_w: dict[str, float] | None = None
        self.commit = source_commit()
        self.recall(journal.engine_facts())

    def recall(self, facts: dict[str, object]) -> None:
        """What an earlier process of this run noted about the engine."""
        if not facts:
            return
        self.model = Model.model_validate(facts["model"])
        self.backend = BackendFacts.model_validate(facts["backend"])
        self.cold = ColdStart.model_validate(facts["cold_start"])
        self.starts = int(str(facts["server_starts"]))
        self.known = True

    def gathered(self) -> assemble.Gathered:
        return assemble.Gathered(
            prepared=self.prepared,
            rig=self.rig,
            model=self.model,
            backend=self.backend,
            cold_start=self.cold,
            server_starts=self.starts,
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
                self.model,
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
            verb = "starting" if prepared.backend.managed else "attaching to"
            self.listen(Step(f"{verb} {prepared.backend.title}"))
            with opened(prepared, self.journal.log_path, self.idle_w) as session:
                self.idle_w = session.monitor.idle_w
                self.greet(session)
                for cell in todo:
                    if cell not in self.skipped:
                        self.one_cell(session, cell, repeat)
        if not self.cells:
            first = next(iter(self.skipped.values()))
            raise RequestError(
                f"nothing could be measured: {first.message}",
                hint="give the slots more room with --context, or choose other workloads",
                code=first.code,
            )

    def greet(self, session: Session) -> None:
        """Note what the server is, refuse to mix two engines in one record, send the probe."""
        facts = assemble.backend_facts(self.prepared, session.engine)
        for key in ("engine", "build", "api"):
            before, now = getattr(self.backend, key), getattr(facts, key)
            if self.known and before != now:
                raise InputError(
                    f"the engine changed during the run: its {key} was {before!r}, now {now!r}",
                    hint=f"discard the run and begin anew: tokrig run --discard "
                    f"{self.prepared.run_id}",
                )
        self.backend = facts
        self.model = assemble.name_endpoint(self.model, session.served_model)
        self.listen(EngineReady(facts, session.load_s))
        self.probe(session)
        self.known = True
        # A server that was already running is not started anew by being attached to again.
        self.starts += session.server is not None
        self.journal.note_engine(
            {
                "model": self.model.model_dump(mode="json"),
                "backend": self.backend.model_dump(mode="json"),
                "cold_start": (self.cold or ColdStart()).model_dump(mode="json"),
                "server_starts": self.starts,
            }
        )

    def probe(self, session: Session) -> None:
        """One short request: is there a reasoning channel, are extra fields refused, how long
        does a first answer take?"""
        unique = session.salt()
        messages: Messages = [{"role": "user", "content": f"{unique} How are you today?"}]
        for session.plain in (False, True):
            request = session.request(messages, PROBE_TOKENS, unique)
            sample = session.send([request], PROBE, "warmup", 0)[0][0]
            if sample.error not in ("http_400", "http_422"):
                break
            if not session.plain:
                self.listen(Note("the endpoint refuses unknown fields: sending plain requests"))
        if sample.error is not None:
            raise session.failed(sample)
        observed = any(c.kind is Kind.REASONING for c in sample.chunks)
        self.model = self.model.model_copy(update={"reasoning": observed})
        if self.cold is None:
            first = sample.chunks[0].t_ns / 1e9 if sample.chunks else None
            self.cold = ColdStart(load_s=_rounded(session.load_s), first_ttft_s=_rounded(first))

    def one_cell(self, session: Session, cell: Cell, repeat: int) -> None:
        """Fit, warm up, measure, journal."""
        workload = self.prepared.workloads[cell.workload]
        context = session.engine.resolved.context_per_slot
        if context is not None and need(workload) > context:
            message = (
                f"{cell.workload} needs {need(workload)} tokens of context, a slot has {context}"
            )
            self.skip(cell, "context_too_small", message)
            return
        began = time.monotonic()
        level = self.prepared.level
        self.listen(Step("fitting prompts", cell))
        fits = [self.fit(session, cell.workload, v) for v in range(len(workload.variants))]
        self.listen(Step("warming up", cell))
        requests = self.requests(session, cell, fits, level.warmups)
        warmup, _ = session.send(requests, cell, "warmup", repeat)
        if all(s.error is not None for s in warmup):
            self.reject(session, cell, warmup[0])
            return
        index = self.prepared.cells.index(cell)
        self.listen(CellBegan(cell, repeat, index, len(self.prepared.cells)))
        requests = self.requests(session, cell, fits, level.iterations)
        with session.monitor.watching():
            samples, phase = session.send(
                requests,
                cell,
                "measured",
                repeat,
                lambda ticker, elapsed_s: self.listen(
                    CellTick(cell, ticker.ended, len(requests), ticker.reads, elapsed_s)
                ),
            )
        observed = session.monitor.observed(phase.wall_s, phase.client_cpu_share)
        finished = CellRecord(
            cell.workload, cell.concurrency, repeat, [*warmup, *samples], observed
        )
        self.journal.add(finished)
        self.cells.append(finished)
        result = assemble.result(self.gathered(), cell)
        self.listen(CellDone(cell, repeat, result, time.monotonic() - began))

    def fit(self, session: Session, name: str, index: int) -> Fit:
        """The prompt of a variant, fitted once per run."""
        key = (name, index)
        if key not in self.fits:
            workload = self.prepared.workloads[name]
            self.fits[key] = fit(
                workload,
                workload.variants[index],
                lambda messages: session.count_prompt(messages, workload.answer_tokens),
            )
        return self.fits[key]

    def requests(self, session: Session, cell: Cell, fits: list[Fit], sets: int) -> list[Request]:
        """``sets`` × concurrency requests that walk through the variants, each with its salt."""
        workload = self.prepared.workloads[cell.workload]
        made = []
        for number in range(sets * cell.concurrency):
            chosen, unique = fits[number % len(fits)], session.salt()
            messages = workload.variant(number).render(chosen.units, chosen.ending, unique)
            made.append(session.request(messages, workload.answer_tokens, unique))
        return made

    def reject(self, session: Session, cell: Cell, sample: Sample) -> None:
        """Every warm-up request of a cell failed: a full context is the shape's own fault, all
        else ends the run."""
        if sample.error == "http_400" and "context" in (sample.error_detail or "").lower():
            self.skip(cell, "context_too_small", sample.error_detail or "")
        else:
            raise session.failed(sample)

    def skip(self, cell: Cell, code: str, message: str) -> None:
        self.skipped[cell] = Skipped(
            workload=cell.workload, concurrency=cell.concurrency, code=code, message=message
        )
        self.listen(CellSkipped(cell, message))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
