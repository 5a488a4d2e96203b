"""What runs on a machine: ``assets/fit.js`` for the first page's question, and its answers as pages
by memory and use, for readers and search engines without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from tokrig.site import Output, answer, finder, formats, sharing, table
from tokrig.site.context import Site, key_of, script
from tokrig.units import human_seconds

COMFORTABLE = finder.FAST["comfortable"]
TITLES = {
    "fast": f"At {COMFORTABLE} tok/s or more",
    "slower": "Run, but slower",
    "unrated": "Fit, and nobody can say how fast",
    "no": "Do not fit",
    "unknown": "Of unknown size",
}
MOST_FAST, MOST = 200, 40
"""Models shown in a section: of those that are fast enough, of the others."""
MOST_OTHERS = 8
TOKENS = 1000


@dataclass(frozen=True)
class Entry:
    """One line as texts; ``cells`` are class, text and small texts under it."""

    model: str
    address: str
    parameters: str
    others: str
    marks: Sequence[tuple[str, str]]
    run: str | None
    cells: Sequence[tuple[str, str, Sequence[str]]]


@dataclass(frozen=True)
class Section:
    """Models of one kind."""

    name: str
    title: str
    lines: Sequence[Entry]
    left_out: int


def outputs(site: Site) -> Iterable[Output]:
    """``assets/fit.js`` and ``fits/<machine>-<use>.html``."""
    key = key_of(
        [run.digest for run in site.runs], [str(facts) for facts in (site.families, site.rigs)]
    )
    yield Output("assets/fit.js", key, lambda: script("fit", _finder(site).fit))
    pages = finder.questions(finder.machines_of(site))
    for page in pages:
        yield Output(page.path, key, partial(_page, site, page, pages))


@lru_cache(maxsize=1)
def _finder(site: Site) -> finder.Finder:
    """Each process that draws such pages makes it once."""
    return finder.Finder(site, table.columns(site.runs, site.families, site.reproduced))


def _page(site: Site, page: finder.Question, pages: Sequence[finder.Question]) -> bytes:
    of = _finder(site)
    use = finder.USES.index(page.use)
    found = answer.answer(of.data, of.fit, page.number, use, COMFORTABLE)
    sections = [_section(of, page, name, models) for name, models in found.items() if models]
    if not found["fast"]:
        nothing = f"No model is known to reach {COMFORTABLE} tok/s here"
        sections.insert(0, Section("fast", nothing, [], 0))
    return site.page(
        page.path,
        "fits.html",
        title=page.title,
        card=sharing.Card(_description(page, len(found["fast"])), "pictures/index.png"),
        page=page,
        uses=[other for other in pages if other.machine is page.machine],
        sizes=[other for other in pages if other.use == page.use],
        sections=sections,
    )


def _description(page: finder.Question, fast: int) -> str:
    machines = formats.count(len(page.machine.rigs), "such machine")
    where = "without a GPU" if page.machine.kind == "none" else f"on {page.machine.label} GPUs"
    return (
        f"{formats.count(fast, 'open-weight model')} {'reaches' if fast == 1 else 'reach'} "
        f"{COMFORTABLE} tok/s {where} for {page.use.label.lower()}, the largest first: measured on "
        f"{machines}, or expected from records of others. "
        f"{page.use.context // 1024}k tokens of context have to fit."
    )


def _section(of: finder.Finder, page: finder.Question, name: str, models: list[Any]) -> Section:
    most = MOST_FAST if name == "fast" else MOST
    lines = [_entry(of, page, lines) for lines in models[:most]]
    title = f"{TITLES[name]}: {formats.count(len(models), 'model')}"
    return Section(name, title, lines, max(0, len(models) - most))


def _entry(of: finder.Finder, page: finder.Question, lines: list[answer.Line]) -> Entry:
    first, rest = lines[0], lines[1:]
    data, models, rows = of.data, of.fit["models"], of.data["rows"]
    model = data["models"][models["model"][first["of"]]]
    row = first["row"]
    ttft = None if row is None else rows["ttft_s"][row]
    about = "≈ " if row is None else ""
    whole = formats.NULL
    if first["rate"]:
        whole = about + _roughly((ttft or 0) + TOKENS / first["rate"])
    memory = formats.NULL
    if first["memory"] is not None:
        cache = models["cache"][finder.USES.index(page.use)][first["of"]]
        mark = "" if first["seen"] else "≥ " if cache is None else "≈ "
        memory = mark + formats.gigabytes(first["memory"])
    how, source = _basis(of, page, first)
    cells = [
        ("quant", data["quants"][models["quant"][first["of"]]][0], ()),
        ("num file", formats.gigabytes(models["bytes"][first["of"]]), ()),
        ("num memory", memory, ()),
        _speed(of, first),
        ("num ttft", human_seconds(ttft), ()),
        ("num whole", whole, ()),
        ("num same", _quality(of, first), ()),
        ("engine", "" if row is None else data["backends"][_of_run(data, "backend", row)][0], ()),
        (f"how {first['how']}", how, [source] if source else ()),
    ]
    return Entry(
        model=model[3],
        address=model[2],
        parameters=_size(model),
        others=_others(of, rest),
        marks=() if row is None else _marks(data, row),
        run=None if row is None else data["runs"]["id"][rows["run"][row]],
        cells=cells,
    )


def _size(model: Sequence[Any]) -> str:
    """``7.6 B``, ``≈ 8 B`` where only its name tells it."""
    about = "≈ " if len(model) > 6 else ""
    return "" if model[4] is None else about + formats.parameters(model[4])


def _roughly(seconds: float) -> str:
    """``7.5 s``, ``29 s``, ``2 min 05 s``: as long as one waits, no finer."""
    if seconds >= 60:
        return human_seconds(seconds)
    return f"{formats.fixed(seconds, 1 if seconds < 10 else 0)} s"


def _of_run(data: dict[str, Any], column: str, row: int) -> Any:
    return data["runs"][column][data["rows"]["run"][row]]


def _others(of: finder.Finder, rest: Sequence[answer.Line]) -> str:
    """``also Q8_0 (41.2 tok/s); too large: F16``."""
    runs: list[str] = []
    by_word: dict[str, list[str]] = {"too large": [], "size not known": []}
    for line in rest[:MOST_OTHERS]:
        quant = of.data["quants"][of.fit["models"]["quant"][line["of"]]][0]
        about = "≈ " if line["row"] is None else ""
        if line["how"] in ("no", "unknown"):
            by_word["too large" if line["how"] == "no" else "size not known"].append(quant)
        else:
            rate = "" if line["rate"] is None else f" ({about}{formats.rate(line['rate'])} tok/s)"
            runs.append(quant + rate)
    told = [f"also {', '.join(runs)}"] if runs else []
    told += [f"{word}: {', '.join(quants)}" for word, quants in by_word.items() if quants]
    if len(rest) > MOST_OTHERS:
        told.append(f"{len(rest) - MOST_OTHERS} more")
    return "; ".join(told)


def _marks(data: dict[str, Any], row: int) -> list[tuple[str, str]]:
    """Classes and words."""
    kind, level, _ = data["kinds"][_of_run(data, "kind", row)]
    mode = data["modes"][_of_run(data, "mode", row)]
    measured = kind == "measured"
    found = (
        (mode[1] != "baseline", "badge", mode[0]),
        (data["rows"]["valid"][row] != answer.VALID, "mark unchecked", "unverified"),
        (_of_run(data, "errata", row), "mark erratum", "erratum"),
        (not measured, "mark transcribed", kind),
        (measured and level == "quick", "mark quick", "quick"),
    )
    return [(kind_of, label) for holds, kind_of, label in found if holds]


def _speed(of: finder.Finder, line: answer.Line) -> tuple[str, str, Sequence[str]]:
    rows, row = of.data["rows"], line["row"]
    if line["rate"] is None:
        return "num gen", formats.NULL, ()
    if row is None:
        within = formats.NULL if line["low"] is None else formats.span(line["low"], line["high"])
        small = [] if line["low"] is None else [f"9 of 10 in {within}"]
        return "num gen", f"≈ {formats.rate(line['rate'])}", small
    small = []
    if rows["spread"][row]:
        kind = "95 %" if rows["spread"][row] == 2 else "range"
        small.append(f"{formats.span(line['low'], line['high'])} {kind}")
    if line["others"]:
        low, high, number = line["others"]
        small.append(f"{formats.span(low, high)} in {formats.count(number, 'result')}")
    return "num gen", formats.rate(line["rate"]), small


def _basis(of: finder.Finder, page: finder.Question, line: answer.Line) -> tuple[str, str]:
    """How it is known, and where from."""
    if line["how"] == "expected":
        on_gpu = page.machine.place == "gpu"
        machines = of.fit["shares"]["gpu" if on_gpu else "cpu"][1][line["of"]]
        return "expected", {
            "here": "from its other uses here",
            "elsewhere": f"from {formats.count(machines, 'other machine')}",
            "like": "from models like it",
        }[line["basis"]]
    if line["row"] is None:
        return {
            "no": ("does not fit", f"{formats.gigabytes(line['missing'] or 0)} too much"),
            "unknown": ("size not known", ""),
            "fits": ("fits", "speed not known"),
        }[line["how"]]
    label, _, badges, *_ = of.data["rigs"][_of_run(of.data, "rig", line["row"])]
    limits = [badge for badge in badges if not badge.startswith("driver")]
    without = page.machine.kind == "none"
    where = "measured without a card" if without else "measured on this size"
    return where, ", ".join([label, *limits])


def _quality(of: finder.Finder, line: answer.Line) -> str:
    """The share of tokens that are the reference's: of this run, else of the model's newest."""
    told = of.data["quality"]
    run = None if line["row"] is None else of.data["rows"]["run"][line["row"]]
    found = told.get(run) or next(
        (value for one, value in told.items() if of.fit["of"][one] == line["of"]), None
    )
    if not found or found[0] is None:
        return formats.NULL
    return f"{formats.fixed(100 * found[0], 1)} %"


PAGE = outputs
