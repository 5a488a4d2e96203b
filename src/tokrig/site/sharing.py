"""What a run, a model or a machine is called elsewhere: in previews of links, pictures, badges,
lines for a forum, and addresses short enough to write down.

Pure. All of it says what stands on the page: the same figure with its interval and its verdict. A
run without a figure that may stand alone is called INVALID, never quoted.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokrig import naming
from tokrig.exchange.exports.markdown import quoted
from tokrig.record.block import Summary
from tokrig.record.model import Raw, Record, Result
from tokrig.site import formats, table
from tokrig.site.charts import short
from tokrig.site.picture import HEIGHT, WIDTH
from tokrig.store.load import Run

if TYPE_CHECKING:
    from tokrig.site.context import Site

# A run's picture is half as large as others: there are thousands of them.
RUN_SCALE = 0.5
TITLE_LENGTH, TEXT_LENGTH = 100, 300
SHORT_LENGTH = 8


@dataclass(frozen=True)
class Headline:
    """The figure that stands for a run: of the fewest requests in flight, chat before other
    shapes; of an engine's own benchmark, the rate of its longest answer.

    ``figure`` is empty where none may stand alone; ``verdict`` says why. ``what`` is the cell.
    ``value`` is in tok/s.
    """

    figure: str
    spread: str
    verdict: str
    what: str
    value: float | None = None


@dataclass(frozen=True)
class Card:
    """The preview of a page: a sentence, and the picture: its address inside the site, its size in
    pixels."""

    text: str
    picture: str
    width: int = WIDTH
    height: int = HEIGHT


def of_run(site: Site, run: Run) -> Card:
    """A run's preview; its picture is its model's where runs have none of their own."""
    text = sentence(run.record)
    if not site.pictures_of_runs:
        return Card(text, f"pictures/models/{naming.model_address(run.record.model)}.png")
    size = (int(side * RUN_SCALE) for side in (WIDTH, HEIGHT))
    return Card(text, f"pictures/runs/{run.id}.png", *size)


def of_many(runs: Sequence[Run], subject: str, picture: str) -> Card:
    """The preview of a model or a machine, whose name ``subject`` is: its fastest figure that
    stands, and how many runs there are."""
    fastest, count = best(runs), formats.count(len(runs), "run")
    if fastest is None:
        return Card(fitted(f"{subject}: {count}, no valid figure yet."), picture)
    return Card(fitted(f"{subject}, {count}. Fastest: {sentence(fastest.record)}"), picture)


def of_all(site: Site) -> Card:
    """The preview of the first page."""
    text = f"{site.measured}. Speed by quant, engine and hardware, each figure with its record."
    return Card(fitted(text), "pictures/index.png")


def about(site: Site, text: str) -> Card:
    """The preview of a page of its own kind: what it is for, and how much was measured."""
    return Card(fitted(f"{text} {site.measured}."), "pictures/index.png")


def measured(site: Site) -> str:
    """``80 open-weight models on 60 machines: 2,000 runs, 1,874 valid``."""
    valid = sum(headline(run.record).verdict == "valid" for run in site.runs)
    models = formats.count(len(site.by_model), "open-weight model")
    machines = formats.count(len(site.by_rig), "machine")
    return f"{models} on {machines}: {formats.count(len(site.runs), 'run')}, {valid:,} valid"


def name(record: Record) -> str:
    """A run as a title."""
    where = naming.hardware_name(record.rig)
    return fitted(f"{naming.model_label(record.model)} on {where}", TITLE_LENGTH)


def headline(record: Record) -> Headline:
    """What to quote of a run."""
    best_one = foremost(record)
    if best_one:
        rate = best_one.output_tok_per_s
        return _headline(rate, best_one.validity.word, best_one.cell.label)
    if record.validity.stands and record.raw:
        longest = max(record.raw, key=_answer)
        what = f"{longest.test}, raw engine figure"
        return _headline(longest.tok_per_s, record.validity.word, what)
    measured = bool(record.results or record.raw)
    return Headline("", "", "INVALID" if measured else record.status, "")


def foremost(record: Record) -> Result | None:
    """The result that stands for a run, None where none does."""
    standing = [one for one in record.plain if table.is_headline(one)]
    standing = standing or [one for one in record.results if table.is_headline(one)]
    return min(standing, key=_rank, default=None)


def _headline(rate: Summary | None, verdict: str, what: str) -> Headline:
    median = rate.median if rate else None
    return Headline(f"{formats.rate(median)} tok/s", formats.spread(rate), verdict, what, median)


def _rank(result: Result) -> tuple[int, int, str]:
    place, _ = naming.shape_order(result.workload.name)
    return (result.concurrency, place, result.cell.label)


def _answer(raw: Raw) -> tuple[int, int]:
    return (raw.output_tokens - raw.depth_tokens, -raw.concurrency)


def sentence(record: Record) -> str:
    """``103.4 tok/s (95 % interval 101–105), valid: Gemma-3 270m · Q4_K_M on GeForce RTX 5070 ·
    12 GB with llama.cpp b9174 (cuda), chat × 1.``"""
    found = headline(record)
    what = naming.model_label(record.model)
    where = naming.hardware_name(record.rig)
    ending = ", ".join(filter(None, (naming.mode_label(record.mode.name), found.what)))
    about = f"{what} on {where} with {naming.backend_label(record.backend)}"
    return fitted(f"{_told(found)}: {about}{f', {ending}' if ending else ''}.")


def _told(found: Headline) -> str:
    if not found.figure:
        return {"INVALID": "INVALID, kept with its reasons"}.get(
            found.verdict, f"{found.verdict}, no figure"
        )
    return f"{found.figure}{f' ({found.spread})' if found.spread else ''}, {found.verdict}"


def best(runs: Iterable[Run]) -> Run | None:
    """The run whose headline is the fastest, valid ones before unverified ones; raw figures of
    engines' own benchmarks stand for no model."""
    standing = [(run, headline(run.record)) for run in runs if foremost(run.record)]
    order = sorted(standing, key=lambda each: (each[1].verdict != "valid", -(each[1].value or 0)))
    return order[0][0] if order else None


def newest(runs: Iterable[Run]) -> Run | None:
    """The first of runs in their order, newest first, that is valid; else that may be quoted."""
    standing = [(run, headline(run.record)) for run in runs if foremost(run.record)]
    valid = [run for run, one in standing if one.verdict == "valid"]
    return next(iter(valid or [run for run, _ in standing]), None)


def lines(record: Record) -> dict[str, str]:
    """By ``concurrency~shape`` as picks have it, a line of Markdown for a forum. Its link is
    relative to the site's folder: the script puts the site's address in front."""
    return {
        f"{one.concurrency}~{one.cell.shape}": quoted(record, one, short_address(record.id))
        for one in record.results
    }


@dataclass(frozen=True)
class Shared:
    """What a page's menu offers. ``link`` is the address to give away, ``badge`` the page whose
    badge there is, ``text`` its name, ``picture`` an address or "", ``lines`` Markdown."""

    link: str
    lines: tuple[str, ...] = ()
    badge: str = ""
    text: str = ""
    picture: str = ""

    def on(self, site: Site) -> Shared:
        """The same with the picture of that page, where the site has pictures."""
        picture = f"pictures/{self.link.removesuffix('.html')}.png" if site.url else ""
        return dataclasses.replace(self, picture=picture)

    @property
    def as_json(self) -> str:
        """For share.js."""
        path = f"badges/{self.badge.removesuffix('.html')}.svg"
        badge = {"path": path, "text": f"tokrig: {self.text}"} if self.badge else None
        shared = {"link": self.link, "lines": self.lines, "badge": badge, "picture": self.picture}
        return json.dumps(shared, ensure_ascii=False)


def shared_run(site: Site, run: Run) -> Shared:
    """What the page of a run offers: first the line of the result that stands for it."""
    every = dict.fromkeys((headline_line(run.record), *lines(run.record).values()))
    picture = of_run(site, run).picture if site.url else ""
    badge = f"runs/{run.id}.html"
    return Shared(short_address(run.id), tuple(every), badge, name(run.record), picture)


def headline_line(record: Record) -> str:
    """The line of the result that stands for the run, or of the run where none does."""
    return quoted(record, foremost(record), short_address(record.id))


def short_address(run_id: str) -> str:
    """``r/k3v7q2ma.html``: 40 bits of the digest of the run's id, so the same for ever.

    A digest in lower case of base 32: no two of them are one file on any disk.
    """
    digest = hashlib.sha256(run_id.encode("utf-8")).digest()
    return f"r/{base64.b32encode(digest)[:SHORT_LENGTH].decode('ascii').lower()}.html"


def fitted(text: str, length: int = TEXT_LENGTH) -> str:
    """A text on one line, without characters that turn its direction, cut at ``length``."""
    return short(text, length)
