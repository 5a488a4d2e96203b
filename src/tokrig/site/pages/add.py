"""How a machine gets onto the page: commands, the recipe of models by size, a record's pull request
made in the browser."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from tokrig.compare import COMPARED, contribution, variables
from tokrig.documents import dump
from tokrig.exchange import scripts
from tokrig.naming import for_scripts
from tokrig.plan import recipe
from tokrig.plan.recipe import Wanted
from tokrig.record import METHODOLOGY_VERSION, SCHEMA_VERSION, privacy, samples_file
from tokrig.record.metrics import shown_in
from tokrig.record.model import Record
from tokrig.site import Output, table
from tokrig.site.context import Site, key_of, script
from tokrig.spec.settings import askable
from tokrig.store import ID, MAX_ID

APIS = (
    ("vulkan", "AMD, Intel, NVIDIA: Vulkan"),
    ("cuda", "NVIDIA: CUDA"),
    ("rocm", "AMD: ROCm"),
    ("cpu", "no card"),
)
"""What an engine may compute with, as ``tokrig engine add --api`` takes it, by card."""


@dataclass(frozen=True)
class Recipe:
    """What to measure on machines of one size; ``path`` is the campaign file of it."""

    size: int
    wanted: list[Wanted]

    @property
    def path(self) -> str:
        """``recipes/12gb.yaml``; a machine without a card has ``recipes/no-gpu.yaml``."""
        return f"recipes/{f'{self.size}gb' if self.size else 'no-gpu'}.yaml"

    @property
    def title(self) -> str:
        """``12 GB of VRAM``."""
        return f"{self.size} GB of VRAM" if self.size else "No graphics card"


def outputs(site: Site) -> Iterable[Output]:
    """``add.html``, the recipes, and what scripts need to read a record."""
    known = handed_over()
    yield Output("assets/record-rules.js", key_of(known), lambda: script("recordRules", known))
    others = scripts.handed_over()
    yield Output("assets/import-rules.js", key_of(others), lambda: script("importRules", others))

    @cache
    def recipes() -> list[Recipe]:
        found = recipe.recipes([run.record for run in site.runs])
        return [Recipe(size, wanted) for size, wanted in found.items() if wanted]

    key = key_of([run.digest for run in site.runs])
    yield Output("add.html", key, lambda: _page(site, recipes()))
    for one in recipes():
        text = dump(recipe.campaign(one.wanted, one.size))
        yield Output(one.path, key_of(text), text.encode)


def _page(site: Site, recipes: list[Recipe]) -> bytes:
    return site.page("add.html", "add.html", title="Add your machine", recipes=recipes, apis=APIS)


def handed_over() -> dict[str, Any]:
    """What a script needs to read a record, call it what Python does, and compare it."""
    return {
        "schema": _bare(Record.model_json_schema(by_alias=True)),
        "version": SCHEMA_VERSION,
        "methodology": METHODOLOGY_VERSION,
        "ids": {"pattern": ID.pattern, "longest": MAX_ID},
        "names": for_scripts(),
        "texts": contribution.TEXTS,
        "private": [
            [pattern.pattern, instead.replace("\\", "$")] for pattern, instead in privacy.PRIVATE
        ],
        "public": privacy.PUBLIC,
        "samples": samples_file.for_scripts(),
        "compared": [*COMPARED],
        "keys": variables.KEYS,
        "columns": [m.name for m in shown_in("table") if m.name != "output_tok_per_s"],
        "asked": [[s.asked[0], s.word or f"{s.label} {{}}", s.words] for s in askable() if s.asked],
        "as_it_came": table.AS_IT_CAME,
    }


def _bare(schema: Any, *, names: bool = False) -> Any:
    """A schema without its prose. Below ``properties`` keys are names of fields."""
    if isinstance(schema, list):
        return [_bare(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _bare(value, names=not names and key in ("properties", "$defs"))
        for key, value in schema.items()
        if names or key not in ("title", "description")
    }


PAGE = outputs
