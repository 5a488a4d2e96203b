"""An Atom feed of runs, the newest first, with addresses that hold on any host."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from datetime import UTC, datetime

from tokrig import naming
from tokrig.site import Output, formats, table
from tokrig.site.context import Site, key_of
from tokrig.store.load import Run

MOST_ENTRIES = 50
# An Atom feed must have a date; one without entries has never been updated.
NEVER = "1970-01-01T00:00:00Z"
# XML 1.0 cannot hold these, not even escaped.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Entry:
    """A run in the feed. ``published`` is when it began, ``updated`` that or its newest erratum;
    both as RFC 3339 says."""

    run_id: str
    title: str
    summary: str
    published: str | None
    updated: str


def outputs(site: Site) -> Iterable[Output]:
    """``feed.xml``."""
    dated = [(moment, run.id, run) for run in site.runs if (moment := _updated(run))]
    dated.sort(key=lambda one: one[:2], reverse=True)
    entries = [_entry(run, moment) for moment, _, run in dated[:MOST_ENTRIES]]
    yield Output(
        "feed.xml",
        key_of([astuple(entry) for entry in entries]),
        lambda: site.page(
            "feed.xml",
            "feed.xml",
            title="tokrig: new runs",
            entries=entries,
            updated=entries[0].updated if entries else NEVER,
        ),
    )


def _updated(run: Run) -> str | None:
    """When the run was measured or last corrected, whichever is later; None without a date."""
    dates = (run.record.provenance.started_at, *(erratum.date for erratum in run.record.errata))
    return max(filter(None, map(_moment, dates)), default=None)


def _entry(run: Run, updated: str) -> Entry:
    record = run.record
    what = " ".join(filter(None, (naming.model_name(record.model), record.model.quant)))
    return Entry(
        run.id,
        _xml(f"{what} on {naming.hardware_name(record.rig)}"),
        _xml(_summary(run)),
        _moment(record.provenance.started_at),
        updated,
    )


def _summary(run: Run) -> str:
    """``llama.cpp b9174 (cuda): 206.5–216.7 tok/s at concurrency 1 (chat, rag); transcribed.``"""
    record = run.record
    speeds = []
    for concurrency in sorted({result.concurrency for result in record.plain}):
        for line in table.lines([run], concurrency):
            shapes = ", ".join(result.workload.name for result in line.results)
            span = formats.span(line.low, line.high)
            speeds.append(f"{span} tok/s at concurrency {concurrency} ({shapes})")
    told = [
        *(speeds or ["no valid result"]),
        *(mark.label for mark in formats.marks(record, record.validity)),
    ]
    return f"{formats.backend(record.backend)}: {'; '.join(told)}."


def _moment(text: str | None) -> str | None:
    """A date or time as ``2026-11-22T18:31:11Z``; None for what is neither."""
    try:
        moment = datetime.fromisoformat(text or "")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        utc = moment.astimezone(UTC).replace(microsecond=0, tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return f"{utc.isoformat()}Z"


def _xml(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)


PAGE = outputs
