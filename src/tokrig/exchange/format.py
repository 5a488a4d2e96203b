"""What a format of another tool is: how its files are recognised, and which field is which figure.

A format is one file under ``formats`` that exposes one constant ``FORMAT``. It is data, so that
something else than Python can read files by it, too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tokrig.exchange.document import Document, Kind
from tokrig.exchange.fields import Fields
from tokrig.exchange.values import Value, value
from tokrig.naming import UNKNOWN_RIG
from tokrig.record.block import Percentiles, Summary
from tokrig.record.imported import judge_imported
from tokrig.record.metrics import METRICS
from tokrig.record.model import (
    BackendFacts,
    Mode,
    Model,
    Raw,
    Result,
    Rig,
    Validity,
    WorkloadFacts,
)
from tokrig.record.samples import Load
from tokrig.units import significant

DIGITS = 6
MS, NS = 1e-3, 1e-9
UNKNOWN_ENGINE = "unknown"


class Take(NamedTuple):
    """A field that is a figure: ``field`` is its path in the file, or a value (``values.py``);
    ``figure`` is where it belongs in a result (``ttft_s.median``; ``.mean`` where the file has no
    median, ``.values`` for those of all requests). It is ``scale`` times the field's, or one over
    that (``inverse``). ``codes`` are what is wrong with it. A figure with nothing at its middle is
    looked for among the fields of the next ``rank``: parts of two fields are never mixed. It is
    taken where ``when`` holds."""

    field: str | Value
    figure: str
    scale: float = 1.0
    codes: tuple[str, ...] = ()
    inverse: bool = False
    rank: int = 0
    when: Value = True


@dataclass
class Found:
    """One configuration in a file, with its figures: served ones (``results``) or those of an
    engine's own benchmark (``raw``), never both. ``version`` is the tool's, ``codes`` what is wrong
    with all of its figures; ``left_out`` tells what the file has that a record cannot hold."""

    model: Model | None
    backend: BackendFacts
    rig: Rig = field(default_factory=lambda: Rig(id=UNKNOWN_RIG, facts_from="nobody"))
    mode: Mode = field(default_factory=Mode)
    version: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    complete: bool = True
    results: list[Result] = field(default_factory=list)
    raw: list[Raw] = field(default_factory=list)
    codes: tuple[str, ...] = ()
    left_out: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """A format: a table that ``rows.py`` reads files by, and the page of one's own files, too.

    ``title`` is what its tool is called, ``files`` which files of it are read. ``signatures`` are
    sets of fields: an object of the file that has all of one set is of this tool; for ``text``,
    words that stand in it. ``names_model`` is false where no file says which model it is of.

    ``made_by`` names a step of ``rows.STEPS`` that makes objects of a file that has others. A row
    is each object, or what stands in its list ``rows``, the first of these that it has (``keyed``:
    an object with a row a key); taken where ``only`` holds, left out with a text where ``skip``
    has one. ``facts`` are what a record says of model, engine and machine: rows that say the same,
    and differ in no column but ``measured`` where that is given, are one record. ``result`` are
    the fields of a served result beside its figures, which are ``takes``, of each row, or of all
    together: then ``gathered`` are the lists that these are of. ``raw`` are figures of an engine's
    own benchmark. ``left_out`` are values: what the file has that a record cannot hold. ``units``
    are the only ones that fields may have, ``columns`` and ``ignored`` the only columns; ``codes``
    hold for all figures. A format that is none of this has a function ``read``."""

    name: str
    title: str
    files: str
    kinds: frozenset[Kind]
    signatures: tuple[frozenset[str], ...]
    read: Callable[[Document], Iterable[Found]] | None = None
    takes: tuple[Take, ...] = ()
    codes: tuple[str, ...] = ()
    names_model: bool = True
    made_by: str | None = None
    rows: tuple[str, ...] = ()
    keyed: bool = False
    only: Value = True
    skip: Value = None
    facts: Mapping[str, Value] = field(default_factory=dict)
    measured: frozenset[str] | None = None
    result: Mapping[str, Value] | None = None
    gathered: Mapping[str, Value] = field(default_factory=dict)
    raw: tuple[Mapping[str, Value], ...] = ()
    left_out: tuple[Value, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def matches(self, document: Document) -> bool:
        """Whether the file is of this tool, by the fields of its first object."""
        return self.likeness(document) == 1

    def likeness(self, document: Document) -> float:
        """The largest share of a set of fields that the file has; 0 for other kinds of files."""
        if document.kind not in self.kinds:
            return 0.0
        if document.kind == "text":
            has: Callable[[str], bool] = document.text.__contains__
        elif document.items:
            has = head(document).has
        else:
            return 0.0
        shares = (sum(map(has, one)) / len(one) for one in self.signatures)
        return max(shares, default=0.0)


def head(document: Document) -> Fields:
    """The first object of a file."""
    return next(objects(document))


def objects(document: Document) -> Iterator[Fields]:
    """The objects of a file in their order."""
    for item in document.items:
        is_table = document.kind != "json"
        around = document.text if document.kind == "markdown" else ""
        found = Fields(item.data, document.name, item.place, is_table, around=around)
        if not isinstance(item.data, dict):
            raise found.refuse("", "should be an object")
        yield found


# Figures


def figures_of(fields: Fields, takes: Sequence[Take]) -> tuple[dict[str, Any], list[str]]:
    """The figures that ``takes`` finds in an object, by the names of a result's fields, and the
    codes that come with them. A mean stands where there is no median, and is told."""
    codes: dict[str, None] = {}
    found = {}
    by_name: dict[str, dict[int, list[Take]]] = {}
    for take in takes:
        name = take.figure.partition(".")[0]
        by_name.setdefault(name, {}).setdefault(take.rank, []).append(take)
    for name, ranks in by_name.items():
        for _, mine in sorted(ranks.items()):
            told, with_it = _parts(fields, mine)
            figure = _figure(METRICS[name].kind, told)
            if figure is not None:
                found[name] = figure
                codes |= dict.fromkeys(with_it)
                break
    return found, list(codes)


def _parts(fields: Fields, takes: Sequence[Take]) -> tuple[dict[str, Any], list[str]]:
    """The parts of one figure, and the codes of the fields that they are from. Every field is
    looked at, so that a wrong one is found whether or not it is needed."""
    told: dict[str, Any] = {}
    codes: list[str] = []
    for take in takes:
        part = take.figure.partition(".")[2]
        found = _figure_at(fields, take, part) if value(take.when, fields) else None
        place = _turned(part) if take.inverse else part
        if found is not None and place not in told:
            told[place] = found
            codes += take.codes
    return told, codes


def _figure_at(fields: Fields, take: Take, part: str) -> Any:
    if part == "n" or (not part and METRICS[take.figure].kind == "count"):
        return fields.count(take.field)
    if not part and METRICS[take.figure].kind == "text":
        return fields.text(take.field)
    if part == "values":
        of = take.field if isinstance(take.field, list) else ["numbers", take.field]
        found = value(of, fields)
        return [_scaled(one, take) for one in found if one] or None if found else None
    found = value(take.field if isinstance(take.field, list) else ["positive", take.field], fields)
    return _scaled(found, take) if found else None


def _scaled(value: float, take: Take) -> float:
    scaled = value * take.scale
    return significant(1 / scaled if take.inverse else scaled, DIGITS)


def _turned(part: str) -> str:
    """The lowest time is the highest rate."""
    return {"min": "max", "max": "min"}.get(part, part)


def _figure(kind: str, told: dict[str, Any]) -> Any:
    if kind == "summary":
        return summary(**told)
    if kind == "percentiles":
        given = {name: value for name, value in told.items() if name in Percentiles.model_fields}
        return Percentiles(**given) if given.keys() - {"n"} else None
    return told.get("")


def summary(
    values: Sequence[float] = (),
    *,
    median: float | None = None,
    mean: float | None = None,
    min: float | None = None,
    max: float | None = None,
    n: int | None = None,
) -> Summary | None:
    """A figure over requests or repetitions, of all ``values`` or as it was published; None where
    neither median nor mean is there."""
    if values:
        ordered = sorted(values)
        of_values = significant(statistics.median(values), DIGITS)
        middle = of_values if median is None else median
        return Summary(median=middle, min=ordered[0], max=ordered[-1], n=len(values))
    given = mean if median is None else median
    if given is None:
        return None
    if min is None or max is None:  # known both or not at all
        min = max = None
    return Summary(median=given, min=min, max=max, n=n or None, is_mean=median is None)


def result_of(
    figures: dict[str, Any],
    codes: Iterable[str],
    *,
    workload: WorkloadFacts,
    concurrency: int,
    depth_tokens: int = 0,
    load: Load = "closed",
    rate_per_s: float | None = None,
) -> Result:
    """A served result of a file. ``prefill_source`` is the client's clock unless it is said."""
    if "prefill_tok_per_s" in figures:
        figures = {"prefill_source": "ttft_derived"} | figures
    unjudged = Result(
        workload=workload,
        concurrency=concurrency,
        validity=Validity(verdict="unverified"),
        depth_tokens=depth_tokens,
        load=load,
        rate_per_s=rate_per_s,
        **figures,
    )
    return unjudged.model_copy(update={"validity": judge_imported(unjudged, codes)})


def shape(tool: str, prompt: float | None, answer: float | None) -> WorkloadFacts:
    """The workload of a tool: called after it and its lengths, never like one of tokrig's."""
    lengths = [f"{count:g}" for count in (prompt, answer) if count]
    whole = len(lengths) == 2
    return WorkloadFacts(
        name="-".join([tool, *lengths]) if whole else tool,
        prompt_tokens=int(prompt) if whole and prompt else None,
        answer_tokens=int(answer) if whole and answer else None,
    )
