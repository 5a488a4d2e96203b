"""What an entry of ``METRICS`` is, and the forms that entries take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from tokrig.record import formulas
from tokrig.record.formulas import Formula, Measured

if TYPE_CHECKING:
    from tokrig.record.block import Summary


T = TypeVar("T")
Compute = Callable[[Measured], T]
Place = Literal["table", "list", "compare", "chart", "show", "run"]
Plain = Literal["number", "amount", "share", "count", "text", "flag"]
Kind = Plain | Literal["summary", "percentiles", "counts", "sums", "block"]
NOWHERE: frozenset[Place] = frozenset()
RUN: frozenset[Place] = frozenset({"run"})
SHOW: frozenset[Place] = RUN | {"show"}
COMPARE: frozenset[Place] = SHOW | {"compare", "chart"}
TABLE: frozenset[Place] = COMPARE | {"table"}
EVERYWHERE: frozenset[Place] = TABLE | {"list"}


@dataclass(frozen=True)
class Metric(Generic[T]):
    """One figure of a result.

    ``kind`` is its form in the record: the ``summary`` of a figure over requests, ``percentiles``,
    a ``number`` (an ``amount`` is one that is never negative, a ``share`` of one is shown in
    percent), a ``count``, a ``text`` (one of ``values`` if there are any), a ``flag``, ``counts``
    or ``sums`` by name, or a ``block`` (the model's class) of ``parts``, whose names are dotted.
    ``name`` is that of the record's field, with the unit in it; ``definition`` has the words of
    docs/methodology.md, in Markdown; ``column`` is the name in flat files, of a block what its
    parts' names begin with there. ``compute`` makes it of the requests; without it, it is observed
    beside them. ``compute_v1`` is how methodology 1 did, where that was otherwise. What came when
    there were records already is ``later``: those that lack it are no worse for it.
    """

    kind: Kind
    label: str
    definition: str
    unit: str = ""
    name: str = ""
    compute: Compute[T] | None = None
    compute_v1: Compute[T] | None = None
    higher_is_better: bool | None = None
    shown: frozenset[Place] = RUN
    column: str = ""
    later: bool = False
    values: tuple[str, ...] = ()
    block: str = ""
    parts: tuple[Metric[Any], ...] = ()

    def of(self, result: Any) -> T | None:
        """The metric's value in a result; None where it is not known."""
        block, _, field = self.name.partition(".")
        found: Any = getattr(result, block)
        return getattr(found, field) if field and found is not None else found  # type: ignore[no-any-return]

    def named(self, name: str) -> Metric[T]:
        """The same under its name, its parts with it."""
        parts = tuple(
            replace(
                part, name=f"{name}.{part.name}", column=self.column + (part.column or part.name)
            )
            for part in self.parts
        )
        return replace(self, name=name, column=self.column or name, parts=parts)

    if TYPE_CHECKING:  # a result has the value where the table has the metric

        def __get__(self, instance: object, owner: object = None) -> T: ...


def each(
    label: str,
    unit: str,
    definition: str,
    value: Formula | None = None,
    *,
    better: bool | None = None,
    shown: frozenset[Place] = RUN,
    **more: Any,
) -> Metric[Summary | None]:
    """A figure of each request, summed up; one that is compared keeps the medians of starts."""
    if (formula := value) is not None:
        more["compute"] = lambda of: of.summary(formula, compared="compare" in shown)
    return Metric("summary", label, definition, unit, higher_is_better=better, shown=shown, **more)


def tokens(label: str, definition: str, channel: str) -> Metric[float | None]:
    """The median of a count of tokens."""
    return Metric(
        "number",
        label,
        definition,
        "tokens",
        compute=lambda of: formulas.median(getattr(s, channel) for s in of.good),
    )


def part(
    name: str,
    kind: Kind,
    label: str,
    definition: str,
    unit: str = "",
    *,
    column: str = "",
    better: bool | None = None,
    shown: frozenset[Place] = RUN,
) -> Metric[Any]:
    """One figure of a block."""
    return Metric(kind, label, definition, unit, name, None, None, better, shown, column)
