"""What pages are made from: the records, the facts beside them, templates, addresses."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from tokrig import naming, units
from tokrig.compare.reproduced import Beside, Reproduced
from tokrig.plan import Plan
from tokrig.plan.queue import QueueEntry, queue
from tokrig.record import METHODOLOGY_VERSION
from tokrig.record.checks import HINTS
from tokrig.record.metrics import leaves
from tokrig.site import formats, sharing
from tokrig.site.cards import Card, cards
from tokrig.site.charts import svg
from tokrig.site.plain import TERMS as PLAIN
from tokrig.store import Store
from tokrig.store.facts import Family, Published, RigFacts
from tokrig.store.index import Problem
from tokrig.store.load import Run

NOTHING_PLANNED = Plan((), ())
NAVIGATION = (
    ("Speed", "index.html"),
    ("Latency", "latency.html"),
    ("GPUs", "gpus.html"),
    ("Curves", "curves.html"),
    ("Compare", "compare.html"),
    ("Gaps", "gaps.html"),
    ("Methodology", "methodology.html"),
    ("Data", "data.html"),
    ("Add your machine", "add.html"),
)
"""What stands at the top of every page: words, and the page that they lead to."""
TEMPLATES = Path(__file__).with_name("templates")
# No raw HTML in prose: what a contributor writes is text. No pictures: they would be fetched.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


_TERMS = re.compile(r"^\| term \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Definition:
    """One term. ``text`` is plain; ``unit`` is empty for what has none; ``plain`` says to
    newcomers what it means and what is good, empty where the definition does."""

    key: str
    label: str
    text: str
    unit: str
    plain: str = ""

    @property
    def tip(self) -> str:
        """What is shown beside its label: the plain words, then the definition."""
        if not self.plain:
            return self.text + (f" Unit: {self.unit}." if self.unit else "")
        return f"{self.plain}\nExactly: {self.text}" + (f" Unit: {self.unit}." if self.unit else "")


@cache
def methodology() -> str:
    """The document, in Markdown: beside this file in a package, under docs/ in the repository."""
    packaged = Path(__file__).with_name("methodology.md")
    in_repository = Path(__file__).parents[3] / "docs" / "methodology.md"
    return (packaged if packaged.exists() else in_repository).read_text(encoding="utf-8")


@cache
def definitions() -> dict[str, Definition]:
    """All terms by key: the methodology's, and the metrics of the table."""
    found = {m.name: Definition(m.name, m.label, _plain(m.definition), m.unit) for m in leaves()}
    for table in _TERMS.finditer(methodology()):
        for line in table[1].splitlines():
            label, field, text, *unit = (cell.strip() for cell in line.strip("|").split(" | "))
            key = _CODE.findall(field)[0]
            found[key] = Definition(key, label, _plain(text), unit[0] if unit else "")
    return {
        key: replace(one, plain=_plain(PLAIN[key])) if key in PLAIN else one
        for key, one in found.items()
    }


def _plain(markdown: str) -> str:
    """Prose without the marks for emphasis and code."""
    text = re.sub(r"[*`]", "", markdown)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


class Site:
    """The records of a content folder, newest first, what campaigns plan beyond them, and the
    means to make pages of both. ``published`` tells where the site will be; nothing, unless whoever
    opens it knows."""

    published = Published()

    def __init__(
        self,
        store: Store,
        runs: tuple[Run, ...],
        *,
        families: Mapping[str, Family],
        rigs: Mapping[str, RigFacts],
        redirects: Mapping[str, str],
        problems: tuple[Problem, ...] = (),
        marked: tuple[Problem, ...] = (),
        plan: Plan = NOTHING_PLANNED,
    ) -> None:
        self.store = store
        self.runs = runs
        self.families = families
        self.rigs = rigs
        self.redirects = redirects
        self.problems = problems
        self.marked = marked
        self.plan = plan

    @property
    def url(self) -> str | None:
        """Where the site is published, with a slash at the end; None where nobody said so."""
        return self.published.url

    @property
    def pictures_of_runs(self) -> bool:
        """Whether every run has a picture of its own."""
        return self.published.pictures_of_runs and self.url is not None

    @cached_property
    def queue(self) -> list[QueueEntry]:
        """The entries of all campaigns, those that wait before those that are done."""
        return queue(self.plan, self.runs)

    @property
    def declared(self) -> list[tuple[str, str]]:
        """The campaigns as texts, for the keys of what shows them."""
        return [(file.name, str(file.campaign)) for file in self.plan.campaigns]

    @cached_property
    def by_model(self) -> dict[str, list[Run]]:
        """Runs by the address of their model's page, addresses in order."""
        return _grouped(self.runs, lambda run: naming.model_address(run.record.model))

    @cached_property
    def by_rig(self) -> dict[str, list[Run]]:
        """Runs by rig id, ids in order."""
        return _grouped(self.runs, lambda run: run.record.rig.id)

    @cached_property
    def measured(self) -> str:
        """How much there is, in a line."""
        return sharing.measured(self)

    @cached_property
    def reproduced(self) -> dict[str, Reproduced]:
        """What other machines say of the runs, by id; runs that are alone are left out."""
        beside = Beside(run.record for run in self.runs)
        found = {run.id: beside.of(run.record) for run in self.runs}
        return {run_id: one for run_id, one in found.items() if one.others}

    @cached_property
    def cards(self) -> list[Card]:
        """The hardware: rigs with the same card together."""
        return cards(self.by_rig, self.rigs)

    def page(self, path: str, template: str, *, title: str, **values: Any) -> bytes:
        """An HTML page at ``path``. Templates extend ``base.html``; everything is escaped."""
        url = partial(relative, path)
        return (
            self._templates.get_template(template)
            .render(title=title, path=path, url=url, site_url=self.url, **values)
            .encode("utf-8", "replace")
        )

    @cached_property
    def _templates(self) -> jinja2.Environment:
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= formats.FILTERS | {"markdown": markdown, "svg": _inline_svg}
        environment.globals |= {
            "definitions": definitions(),
            "hints": HINTS,
            "navigation": NAVIGATION,
            "methodology_version": METHODOLOGY_VERSION,
            "names": naming,
            "units": units,
            "formats": formats,
            "card_about": partial(sharing.about, self),
        }
        return environment


def _grouped(runs: tuple[Run, ...], key: Any) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return dict(sorted(groups.items()))


def relative(page: str, target: str) -> str:
    """The link from the page at ``page`` to ``target``, both relative to the site's folder."""
    return _link(posixpath.dirname(page) or ".", target)


@lru_cache(maxsize=100_000)
def _link(folder: str, target: str) -> str:
    place, mark, rest = target.partition("#") if "#" in target else target.partition("?")
    return posixpath.relpath(place, folder) + mark + rest


def markdown(text: str) -> Markup:
    """Prose as HTML."""
    return Markup(_MARKDOWN.render(text))


def _inline_svg(figure: Any) -> Markup:
    return Markup(svg(figure))


def key_of(*parts: Any) -> str:
    """A digest of JSON-like values: the ``key`` of an ``Output``."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def script(name: str, value: Any) -> bytes:
    """A script that sets ``tokrig.<name>``: pages opened from a disk may not fetch data."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Nothing in a string may end the script or its line.
    for character in "<\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"(window.tokrig=window.tokrig||{{}}).{name}={text};\n".encode("utf-8", "surrogatepass")
