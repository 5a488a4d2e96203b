"""The public queue: what campaigns want, how far it is, what blocks it, what fills it. Pure.

An entry whose runs are all done leaves the queue by itself and stands with its results instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tokrig import naming
from tokrig.plan import TO_DO, Plan, Planned, State, command
from tokrig.store.load import Run
from tokrig.units import human_bytes

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
    by_entry: dict[tuple[str, str], list[Planned]] = {}
    downloads: dict[tuple[str, str], int | None] = {}
    for planned in plan.runs:
        by_entry.setdefault((planned.run.campaign, planned.run.entry), []).append(planned)
        if planned.state in TO_DO:  # a plan counts a file of several runs on the first of them
            downloads.setdefault(_file(planned), planned.download_bytes)
    records = {run.id: (place, run) for place, run in enumerate(runs)}
    there = machines(plan, runs)
    found = []
    for file in plan.campaigns:
        for entry in file.campaign.entries:
            of_entry = by_entry.get((file.name, entry.name), [])
            done = {p.record for p in of_entry if p.state == "done" and p.record}
            results = sorted((records[one] for one in done if one in records), key=lambda r: r[0])
            times = [p.time_s for p in of_entry if p.time_s is not None and p.state != "done"]
            if of_entry:
                queued = QueueEntry(
                    campaign=file.name,
                    name=entry.name,
                    title=entry.title,
                    about=entry.about,
                    priority=entry.priority,
                    machines=tuple(there[rig] for rig in sorted({p.run.rig for p in of_entry})),
                    counts=Counter(planned.state for planned in of_entry),
                    reasons=_reasons(of_entry),
                    command=command(of_entry[0].run),
                    time_s=sum(times) if times else None,
                    download_bytes=_download(of_entry, downloads),
                    results=tuple(run for _, run in results),
                )
                found.append(queued)
    # Sorting is stable: entries alike keep the order of the files.
    found.sort(key=lambda entry: -entry.priority)
    waiting = [entry for entry in found if not entry.is_done]
    over = [entry for entry in found if entry.is_done]
    return waiting + sorted(over, key=_newest, reverse=True)


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


def _reasons(of_entry: Iterable[Planned]) -> tuple[Reason, ...]:
    """What keeps runs from being done, each reason once, the most frequent first."""
    counted = Counter((p.state, p.why, p.until) for p in of_entry if p.state in _WORDS and p.why)
    return tuple(Reason(*key, runs) for key, runs in counted.most_common())


def _download(
    of_entry: Iterable[Planned], downloads: Mapping[tuple[str, str], int | None]
) -> int | None:
    """Bytes of all files that runs still to be done need; None where one is not known."""
    files = {_file(planned) for planned in of_entry if planned.state not in _SETTLED}
    sizes = [downloads.get(file) for file in files]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _file(planned: Planned) -> tuple[str, str]:
    return planned.run.rig, planned.run.weights.reference


def _newest(entry: QueueEntry) -> str:
    dates = (run.record.provenance.started_at for run in entry.results)
    return max(filter(None, dates), default="")
