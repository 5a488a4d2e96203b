"""Figures and marks as the short texts that pages show."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from markupsafe import Markup

from tokrig import naming, units
from tokrig.record import checks
from tokrig.record.block import Summary
from tokrig.record.model import Model, Record, Result, Rig, Validity
from tokrig.site import plain

if TYPE_CHECKING:
    from tokrig.compare.reproduced import Reproduced
    from tokrig.site.table import Line
    from tokrig.store.load import Run

NULL = "–"
# What other machines say, where it decides something, and the kind of its mark.
REPRODUCED = {"reproduced": "valid", "contradicted": "unchecked"}
rate = units.human_rate
backend = naming.backend_label


def span(low: float, high: float) -> str:
    """``206.5–216.7``, or one value where both read the same."""
    first, last = rate(low), rate(high)
    return first if first == last else f"{first}–{last}"


def fixed(value: float, digits: int) -> str:
    """With so many decimals; halves are rounded up, as a browser's ``toFixed`` does."""
    return str(Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def gigabytes(count: int | None) -> str:
    """``4.4 GB``, ``91 MB``: of a thousand each, as files are named by people."""
    if count is None:
        return NULL
    size = count / 1e9
    if count < 10_000:
        return f"{count:.0f} B"
    if size < 0.095:
        return f"{fixed(1000 * size, 0 if size >= 0.01 else 2)} MB"
    return f"{fixed(size, 0 if size >= 100 else 1 if size >= 1 else 2)} GB"


def parameters(number: float) -> str:
    """``7.6 B``, ``270 M``."""
    for size, word in ((1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{float(f'{number / size:.3g}'):g} {word}"
    return f"{number:,.0f}"


_NAMED = re.compile(
    r"(?<![\w.])(?:(\d{1,3})x)?E?(\d{1,4}(?:\.\d{1,3})?)([BM])(?![\w.])", re.IGNORECASE
)


def size_of(model: Model) -> tuple[int | None, bool]:
    """The parameters of a model, and whether only its name tells them: 8e9 of ``LFM2 8B-A1B``,
    56e9 of ``8x7B``; None where not even that does."""
    if model.parameters is not None:
        return model.parameters, False
    found = _NAMED.search(naming.model_name(model))
    if found is None:
        return None, False
    unit = 10**9 if found[3] in "Bb" else 10**6
    size = round(int(found[1] or 1) * Decimal(found[2]) * unit)
    return size or None, bool(size)


def bounds(metric: Summary | None) -> tuple[float, float] | None:
    """The 95 % interval where there is one, else the range, else None: not known, or a single
    value, which has no range."""
    if metric is None:
        return None
    if metric.ci95:
        return metric.ci95
    if metric.min is None or metric.max is None or (metric.n or 0) < 2:
        return None
    return metric.min, metric.max


def spread(metric: Summary | None) -> str:
    """``95 % interval 148.1–152.0``, ``range 148.1–152.0``, or nothing where it is not known; of a
    mean that it is one."""
    found = bounds(metric)
    if metric is None or found is None:
        return mean(metric)
    kind = "95 % interval" if metric.ci95 else "range"
    return ", ".join(filter(None, (mean(metric), f"{kind} {span(*found)}")))


def interval(metric: Summary | None) -> str:
    """``12.1–12.9 ms 95 %``: of a time, s, what it covers, short; nothing where nobody knows."""
    found = bounds(metric)
    if metric is None or found is None:
        return ""
    low, high = map(units.human_seconds, found)
    unit = low[low.rfind(" ") :]
    short = low.removesuffix(unit) if high.endswith(unit) else low
    kind = "95 %" if metric.ci95 else "range"
    return f"{low if low == high else f'{short}–{high}'} {kind}"


def mean(metric: Summary | None) -> str:
    """``a mean`` where others published one instead of a median."""
    return "a mean" if metric is not None and metric.is_mean else ""


def count(number: int, thing: str) -> str:
    """``1 result``, ``8 results``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Mark:
    """A small badge. ``kind`` is its class in the style sheet, ``text`` tells what it means."""

    kind: str
    label: str
    text: str


def marks(record: Record, validity: Validity) -> list[Mark]:
    """What a reader must know before trusting a figure, gravest first."""
    found = []
    if validity.verdict == "invalid":
        found.append(_mark("invalid", "invalid", *map(plain.of_code, validity.reasons)))
    if record.status != "complete":
        found.append(_mark("invalid", record.status))
    if record.errata:
        found.append(_mark("erratum", "erratum", *(e.text for e in record.errata)))
    if record.provenance.kind != "measured":
        source = record.provenance.source
        found.append(_mark("transcribed", record.provenance.kind, *([source] if source else ())))
    elif record.provenance.level == "quick":
        found.append(_mark("quick", "quick"))
    if validity.word == "unverified":
        codes = validity.unverified or ["samples"]
        found.append(_mark("unchecked", "unverified", *map(plain.of_code, codes)))
    return found


def _mark(kind: str, label: str, *details: str) -> Mark:
    """What a mark means, then what it is about here, a line each."""
    return Mark(kind, label, "\n".join((plain.MARKS[label], *details)))


def reproduced_marks(found: Reproduced | None) -> list[Mark]:
    """Whether another machine has measured the same: told where it decides something."""
    if found is None or found.word not in REPRODUCED:
        return []
    return [_mark(REPRODUCED[found.word], found.word, str(found))]


def line_marks(line: Line) -> list[Mark]:
    """The marks of a line of the main table. No invalid result stands there, whatever the
    verdict on the run as a whole."""
    return marks(line.run.record, checks.judge_run(line.results, complete=True))


def mode(record: Record, results: Iterable[Result] = ()) -> str:
    """``n-gram speculation``, with ``results`` also what share of the drafts they accepted;
    nothing for the baseline."""
    return naming.mode_accepted(record.mode.name, results)


def configuration(record: Record, subject: str, apart: str = "") -> str:
    """What a run is, in one line; it begins with its ``model`` or its ``rig``, whichever the page
    around it does not tell, and ends with what tells it ``apart`` from others of its name."""
    model, rig = naming.model_name(record.model), naming.hardware_name(record.rig)
    first = [model, record.model.quant] if subject == "model" else [record.model.quant, rig]
    return " · ".join(filter(None, (*first, backend(record.backend), mode(record), apart)))


def backends(runs: Iterable[Run]) -> list[str]:
    """The backends of some runs, each once, by name."""
    return sorted({backend(run.record.backend) for run in runs})


def models_of(lines: Iterable[Line]) -> list[tuple[str, str]]:
    """Addresses and names of the models of some lines, each once, by name."""
    models = (line.run.record.model for line in lines)
    return sorted(
        {(naming.model_address(m), naming.model_name(m)) for m in models}, key=lambda one: one[1]
    )


def breakable(text: str) -> Markup:
    """A path or the name of a field, which may go on in the next line behind its marks: words that
    have no space break nowhere else."""
    parts = re.split(r"(?<=[._/=&?])(?=\w)", text)
    return Markup("<wbr>").join(parts)


def badges(rig: Rig) -> list[str]:
    """What can be switched on that machine's first card, where it is not at its highest."""
    found = []
    for gpu in rig.gpus[:1]:
        share = naming.power_share(gpu)
        if share is not None and share < 0.995:
            found.append(f"{gpu.power_limit_w:.0f} of {gpu.power_max_w:.0f} W")
        if gpu.driver:
            found.append(f"driver {gpu.driver}")
    return found


FILTERS = {
    "rate": rate,
    "seconds": units.human_seconds,
    "bytes": gigabytes,
    "spread": spread,
    "interval": interval,
    "breakable": breakable,
}
