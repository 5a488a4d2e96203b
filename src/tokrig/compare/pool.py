"""Sides of a comparison: records of one configuration taken together, and which of them belong
beside each other. Pure.

Records of one configuration are as good as one record with the starts of all of them: the figure
of a cell is the median of all its starts, its spread that between them. Where two sides have
several configurations each, those are paired that differ in the fewest variables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from tokrig.compare import Cell, Subject, subject
from tokrig.compare.statistics import usable
from tokrig.compare.variables import configuration, differences
from tokrig.errors import InputError
from tokrig.record.block import Summary
from tokrig.record.model import Record

Noise = Mapping[str, Mapping[str, float]]

# (t) So many configurations a side are paired; more would take longer than anybody reads.
MOST_GROUPS = 100
# Configurations that differ in these are never about the same thing, unless that is the question.
TOGETHER = ("model", "quant", "mode")


@dataclass(frozen=True)
class Group:
    """Records of one configuration, the newest first, and the subject that they make."""

    records: tuple[Record, ...]
    subject: Subject

    @property
    def ids(self) -> tuple[str, ...]:
        """Their ids."""
        return tuple(record.id for record in self.records)


@dataclass(frozen=True)
class Matched:
    """Groups beside each other, A first, and those without a partner: the side and the group."""

    pairs: tuple[tuple[Group, Group], ...]
    alone: tuple[tuple[str, Group], ...]


def groups(
    records: Iterable[Record], *, concurrency: int | None = None, noise: Noise | None = None
) -> list[Group]:
    """The records by configuration. Two machines that nobody named are never taken for one."""
    found: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        found.setdefault(configuration(record), []).append(record)
    made = []
    for like in found.values():
        like.sort(key=lambda one: (one.provenance.started_at or "", one.id), reverse=True)
        each = [
            subject(one, concurrency=concurrency, noise=(noise or {}).get(one.rig.id))
            for one in like
        ]
        made.append(Group(tuple(like), pooled(each)))
    return made


def pooled(like: Sequence[Subject]) -> Subject:
    """Subjects of one configuration as one. Their cells are taken together where texts and lengths
    are those of the first; invalid results do not count beside others."""
    first = like[0]
    if len(like) == 1:
        return first
    cells: dict[tuple[str, int], list[Cell]] = {}
    for one in like:
        for cell in one.cells:
            cells.setdefault((cell.shape, cell.concurrency), []).append(cell)
    # All records of a server that somebody else started are of its one start.
    attached = first.keys.get("backend.managed") == "no"
    return replace(
        first,
        id=f"{first.id} and {len(like) - 1} more",
        cells=tuple(_together(every, attached) for every in cells.values()),
    )


def _together(cells: Sequence[Cell], attached: bool) -> Cell:
    valid = [cell for cell in cells if cell.verdict != "invalid"]
    if len(valid or cells) == 1 or not valid:
        return (valid or list(cells))[0]
    first = valid[0]
    alike = [cell for cell in valid if _is_one_shape(cell, first)]
    counts = [cell.starts for cell in alike]
    known = [count for count in counts if count is not None]
    return replace(
        first,
        verdict="valid" if all(cell.verdict == "valid" for cell in alike) else "unverified",
        codes=tuple(dict.fromkeys(code for cell in alike for code in cell.codes)),
        starts=1 if attached else sum(known) if len(known) == len(counts) else None,
        figures={name: _figure(name, alike) for name in first.figures},
    )


def _is_one_shape(cell: Cell, first: Cell) -> bool:
    same = (cell.hash, cell.prefill_source) == (first.hash, first.prefill_source)
    return same and cell.prompt_tokens == first.prompt_tokens


def _figure(name: str, cells: Sequence[Cell]) -> Summary | None:
    """Over all starts; those of a record that does not tell them one by one are not known."""
    found = [(cell, figure) for cell in cells if (figure := cell.figures[name])]
    if not found:
        return None
    starts = [value for cell, figure in found for value in each_start(cell, figure)]
    bounds = [b for _, one in found for b in (one.min, one.max) if b is not None]
    whole = all(each_start(cell, figure) for cell, figure in found)
    return Summary(
        median=median(starts if whole else [one.median for _, one in found]),
        min=min(bounds, default=None),
        max=max(bounds, default=None),
        n=sum(one.n or 0 for _, one in found) or None,
        starts=starts if whole else [],
    )


def each_start(cell: Cell, figure: Summary) -> list[float]:
    """The medians of a figure's starts; a record of one start has its own median."""
    if figure.starts or cell.starts != 1:
        return figure.starts
    return [figure.median] if usable(figure.median) else []


def matched(a: Sequence[Group], b: Sequence[Group], apart: Collection[str] = ()) -> Matched:
    """Each group of ``a`` with the one of ``b`` that differs from it in the fewest variables, each
    group once. ``apart`` are the variables that the sides are told apart by.

    Raises InputError for more groups than can be paired.
    """
    if len(a) == 1 and len(b) == 1:
        return Matched(((a[0], b[0]),), ())
    for side, found in (("A", a), ("B", b)):
        if len(found) > MOST_GROUPS:
            raise InputError(
                f"side {side} has {len(found):,} configurations; {MOST_GROUPS} can be paired",
                hint="narrow both sides, such as model=… or rig=…",
            )
    near = sorted(_nearness(a, b, apart))
    partner: dict[int, int] = {}
    for *_, mine, other in near:
        if mine not in partner and other not in partner.values():
            partner[mine] = other
    pairs = tuple((a[mine], b[partner[mine]]) for mine in range(len(a)) if mine in partner)
    alone = [("A", a[mine]) for mine in range(len(a)) if mine not in partner]
    taken = set(partner.values())
    alone += [("B", b[other]) for other in range(len(b)) if other not in taken]
    return Matched(pairs, tuple(alone))


def _nearness(
    a: Sequence[Group], b: Sequence[Group], apart: Collection[str]
) -> Iterator[tuple[int, int, int, int]]:
    """For all that may be paired: variables that changed, shapes that are missing, the places."""
    for mine, one in enumerate(a):
        for other, two in enumerate(b):
            found = differences(one.subject.keys, two.subject.keys)
            if any(found.state(name) == "differs" for name in TOGETHER if name not in apart):
                continue
            changed = [name for name in found.changed if name not in apart]
            shapes = {cell.shape for cell in one.subject.cells}
            missing = shapes ^ {cell.shape for cell in two.subject.cells}
            yield len(changed), len(missing), mine, other
