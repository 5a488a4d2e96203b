"""What is published of campaigns: the plan that records alone tell, and the public queue. Pure.

Nothing of this machine goes in, neither its disk nor its network: whoever plans from the same
content folder and the same campaigns gets the same plan. An entry whose runs are all done leaves
the queue by itself and stands with its results instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tokrig import naming
from tokrig.plan import (
    TO_DO,
    Past,
    Plan,
    PlanInputs,
    Planned,
    RigMemory,
    Shape,
    State,
    command,
)
from tokrig.plan.order import plan
from tokrig.record.model import Rig
from tokrig.spec.campaign import CampaignFile
from tokrig.store.facts import RigFacts, RigFigures
from tokrig.store.load import Run
from tokrig.units import human_bytes

# What a campaign's runs stand under where neither it nor its entries name a machine.
ANY_RIG = "any-rig"


def public_plan(
    files: Sequence[CampaignFile],
    runs: Sequence[Run],
    rigs: Mapping[str, RigFacts],
    texts: Mapping[str, str],
) -> Plan:
    """The plan of ``files`` as far as records and the campaigns themselves tell: of a machine
    what its newest record says, and its written bandwidth. ``runs`` come newest first; ``texts``
    are the versions of the workloads' texts.

    Names of models are taken as they are: which ones a catalog or an engine's own store knows is
    for the machine to say that runs them. Raises SpecError with file and line.
    """
    newest = {run.record.rig.id: run.record.rig for run in reversed(runs)}
    shapes = _shapes(runs)
    known = PlanInputs(
        here=ANY_RIG,
        texts=texts,
        needs={name: s.prompt_tokens + s.answer_tokens for name, s in shapes.items()},
        shapes=shapes,
        rigs={name: memory_of(rig, rigs.get(name)) for name, rig in newest.items()},
        past=[_past(run) for run in runs],
    )
    return plan(files, known)


def _past(run: Run) -> Past:
    record, provenance = run.record, run.record.provenance
    return Past(
        id=record.id,
        planned=provenance.planned,
        status=record.status,
        verdict=record.validity.verdict,
        failure=record.failure.message if record.failure else None,
        rig=record.rig.id,
        level=provenance.level,
        results=len(record.results) if len(record.plain) == len(record.results) else 0,
        started_at=provenance.started_at,
        duration_s=seconds_between(provenance.started_at, provenance.finished_at),
        model_bytes=record.model.bytes,
        backend=record.backend.name,
    )


def seconds_between(started_at: str | None, finished_at: str | None) -> float | None:
    """From one to the other; None for what are no two moments in order."""
    try:
        begin, end = (datetime.fromisoformat(one or "") for one in (started_at, finished_at))
        seconds = (end - begin).total_seconds()
    except (ValueError, TypeError):  # no date; one with and one without a time zone
        return None
    return seconds if seconds > 0 else None


def memory_of(rig: Rig, facts: RigFigures | None) -> RigMemory:
    """A machine as a plan knows it: from its record, and what is written about it. Its power caps
    are those that every card takes."""
    sizes = [gpu.vram_bytes for gpu in rig.gpus if gpu.vram_bytes is not None]
    width = facts.memory_bandwidth_bytes_per_s if facts else None
    least = [gpu.power_min_w for gpu in rig.gpus if gpu.power_min_w is not None]
    most = [gpu.power_max_w for gpu in rig.gpus if gpu.power_max_w is not None]
    told = rig.gpus and len(least) == len(most) == len(rig.gpus)
    return RigMemory(
        vram_bytes=sum(sizes) if len(sizes) == len(rig.gpus) and naming.gpus_known(rig) else None,
        memory_bytes=rig.memory.usable_bytes or rig.memory.total_bytes,
        bandwidth_bytes_per_s=(width.measured or width.theoretical) if width else None,
        power_w=(max(least), min(most)) if told else None,
        driver=next((gpu.driver for gpu in rig.gpus if gpu.driver), None),
    )


def _shapes(runs: Iterable[Run]) -> dict[str, Shape]:
    """Workloads as they were measured: their longest prompts and answers, all concurrencies."""
    found: dict[str, Shape] = {}
    for result in (result for run in runs for result in run.record.plain):
        shape, name = result.workload, result.workload.name
        if shape.prompt_tokens is not None and shape.answer_tokens is not None:
            old = found.get(name, Shape(0, 0, ()))
            found[name] = Shape(
                max(shape.prompt_tokens, old.prompt_tokens),
                max(shape.answer_tokens, old.answer_tokens),
                tuple(sorted({*old.concurrencies, result.concurrency})),
            )
    return found


# The queue

# States in the order in which they are told, and the words for them after a number of runs.
_WORDS: Mapping[State, str] = {
    "invalid": "invalid",
    "failed": "failed",
    "does_not_fit": "not fitting",
    "blocked": "blocked",
}
# Runs that need nobody any more.
_SETTLED: tuple[State, ...] = ("done", "does_not_fit")


@dataclass(frozen=True)
class Machine:
    """A rig by name. ``has_page`` where records of it are published."""

    id: str
    title: str
    has_page: bool


@dataclass(frozen=True)
class Reason:
    """Why ``runs`` runs of an entry are not done; ``until`` is what would unblock blocked ones."""

    state: State
    why: str
    until: str
    runs: int

    @property
    def word(self) -> str:
        """``blocked``, ``failed``, ``does not fit``, ``invalid``."""
        return self.state.replace("_", " ")

    @property
    def text(self) -> str:
        """``no driver; until it comes``."""
        return because(self.why, self.until)


@dataclass(frozen=True)
class QueueEntry:
    """One entry of a campaign. ``counts`` are its runs by state; ``time_s`` (seconds) and
    ``download_bytes`` are estimates for what is not done, None where nothing is known;
    ``results`` are the records of what is done, newest first."""

    campaign: str
    name: str
    title: str
    about: str | None
    priority: int
    machines: tuple[Machine, ...]
    counts: Mapping[State, int]
    reasons: tuple[Reason, ...]
    command: str
    time_s: float | None
    download_bytes: int | None
    results: tuple[Run, ...]

    @property
    def total(self) -> int:
        """All runs of the entry."""
        return sum(self.counts.values())

    @property
    def left(self) -> int:
        """Runs that can be done now."""
        return sum(self.counts.get(state, 0) for state in TO_DO)

    @property
    def is_done(self) -> bool:
        """Nothing is left to do, and something was measured."""
        settled = sum(self.counts.get(state, 0) for state in _SETTLED)
        return settled == self.total and self.counts.get("done", 0) > 0

    @property
    def progress(self) -> str:
        """``3 of 12 runs done, 2 failed, 7 left``."""
        runs = "run" if self.total == 1 else "runs"
        told = [f"{self.counts.get('done', 0):,} of {self.total:,} {runs} done"]
        told += [f"{n:,} {word}" for state, word in _WORDS.items() if (n := self.counts.get(state))]
        return ", ".join([*told, f"{self.left:,} left"] if self.left else told)

    @property
    def cost(self) -> str:
        """``about 6 h, 84.20 GiB to download``; nothing where neither is known."""
        told = [roughly(self.time_s)] if self.time_s else []
        if self.download_bytes:
            told.append(f"{human_bytes(self.download_bytes)} to download")
        return ", ".join(told)


def queue(plan: Plan, runs: Sequence[Run]) -> list[QueueEntry]:
    """The entries of all campaigns that mean any runs: those that are not done by priority, then
    those that are, newest result first. ``runs`` are all records, newest first."""
    by_entry: dict[str, list[Planned]] = {}
    downloads: dict[tuple[str, str], int | None] = {}
    for planned in plan.runs:
        by_entry.setdefault(planned.run.place, []).append(planned)
        if planned.state in TO_DO:  # a plan counts a file of several runs on the first of them
            downloads.setdefault(_file(planned), planned.download_bytes)
    there = machines(plan, runs)
    found = []
    for file in plan.campaigns:
        for entry in file.campaign.entries:
            if not (of_entry := by_entry.get(f"{file.name}/{entry.name}")):
                continue
            done = {p.record for p in of_entry if p.state == "done"}
            times = [p.time_s for p in of_entry if p.time_s is not None and p.state != "done"]
            files = {_file(p): None for p in of_entry if p.state not in _SETTLED}
            sizes = [downloads.get(name) for name in files]
            # What keeps runs from being done, each reason once.
            told = Counter((p.state, p.why, p.until) for p in of_entry if p.why)
            queued = QueueEntry(
                campaign=file.name,
                name=entry.name,
                title=entry.title,
                about=entry.about,
                priority=entry.priority,
                machines=tuple(there[rig] for rig in sorted({p.run.rig for p in of_entry})),
                counts=Counter(p.state for p in of_entry),
                reasons=tuple(Reason(*r, n) for r, n in told.most_common() if r[0] in _WORDS),
                command=command(of_entry[0].run),
                time_s=sum(times) if times else None,
                download_bytes=None if None in sizes else sum(filter(None, sizes)),
                results=tuple(run for run in runs if run.id in done),
            )
            found.append(queued)
    # Sorting is stable: entries alike keep the order of the files.
    found.sort(key=lambda entry: -entry.priority)
    over = sorted((entry for entry in found if entry.is_done), key=_newest, reverse=True)
    return [entry for entry in found if not entry.is_done] + over


def machines(plan: Plan, runs: Iterable[Run]) -> dict[str, Machine]:
    """All rigs that measured something or are to, by id: as their newest record calls them, else
    as a campaign does. Two that are called the same have their ids beside it."""
    titles: dict[str, str] = {}
    for run in runs:
        titles.setdefault(run.record.rig.id, naming.hardware_name(run.record.rig))
    measured = set(titles)
    for file in plan.campaigns:
        for rig, facts in file.campaign.rigs.items():
            titles.setdefault(rig, facts.title or rig)
    for planned in plan.runs:
        titles.setdefault(planned.run.rig, planned.run.rig)
    alike = Counter(titles.values())
    return {
        rig: Machine(rig, title if alike[title] == 1 else f"{title} ({rig})", rig in measured)
        for rig, title in titles.items()
    }


def because(why: str, until: str) -> str:
    """``no driver; until it comes``, one sentence of two that people wrote."""
    return "; until ".join(text.rstrip(". ") for text in (why, until) if text)


def roughly(seconds: float) -> str:
    """An estimate as people say it: ``about 40 min``, ``about 6 h``, ``about 3 days``."""
    minutes = seconds / 60
    if minutes < 90:
        return f"about {max(1, round(minutes))} min"
    hours = minutes / 60
    return f"about {round(hours)} h" if hours < 48 else f"about {round(hours / 24)} days"


def _file(planned: Planned) -> tuple[str, str]:
    return planned.run.rig, planned.run.weights.reference


def _newest(entry: QueueEntry) -> str:
    dates = (run.record.provenance.started_at for run in entry.results)
    return max(filter(None, dates), default="")
