"""In which state a run is: by the records of it, by journals, by its entry, by what fits.

In this order, the first that holds: a complete valid record (*done*); a complete invalid one
(*invalid*: measured, and not to be measured again unasked); results in a journal (*unfinished*);
its entry is *blocked*; a *failed* record; it *does_not_fit*; else it is *todo*. So work begun goes
on before anything is judged again, and a failure is not hidden by an estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tokrig.plan.fit import Fits
from tokrig.plan.model import Past, Run, State
from tokrig.spec.campaign import CampaignFile


class Judgement(NamedTuple):
    """A state, with what there is to say about it."""

    state: State
    why: str = ""
    until: str = ""
    record: str | None = None


class Judge:
    """Judges the runs of these campaigns."""

    def __init__(
        self,
        files: Sequence[CampaignFile],
        past: Iterable[Past],
        unfinished: frozenset[str],
        fits: Fits,
    ) -> None:
        self.entries = {(f.name, entry.name): entry for f in files for entry in f.campaign.entries}
        self.best: dict[str, Past] = {}
        for record in past:
            if record.planned is not None:
                before = self.best.get(record.planned)
                if before is None or _rank(record) > _rank(before):
                    self.best[record.planned] = record
        self.unfinished, self.fits = unfinished, fits

    def state(self, run: Run) -> Judgement:
        """The state of a run."""
        record = self.best.get(run.key)
        if record and record.status == "complete":
            if record.verdict != "invalid":
                return Judgement("done", record=record.id)
            return Judgement("invalid", "its figures did not pass every check", record=record.id)
        if run.key in self.unfinished:
            return Judgement("unfinished")
        entry = self.entries[run.campaign, run.entry]
        if entry.blocked:
            return Judgement("blocked", entry.blocked.why, entry.blocked.until)
        if record:
            return Judgement("failed", record.failure or f"it was {record.status}", "", record.id)
        unknown = ""
        for condition in entry.when:
            fit = self.fits.of(run, condition)
            if fit.fits is False:
                return Judgement("does_not_fit", fit.why)
            unknown = unknown or fit.why
        return Judgement("todo", f"not known whether it fits: {unknown}" if unknown else "")


def _rank(record: Past) -> tuple[bool, bool, str, str]:
    """What stands for a run: a complete record before a failed one, a valid one before an invalid
    one, then the newest."""
    complete = record.status == "complete"
    return complete, complete and record.verdict != "invalid", record.started_at or "", record.id
