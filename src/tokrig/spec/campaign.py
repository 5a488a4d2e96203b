"""The campaign file: a matrix of runs that are wanted, what blocks them, and on which rig.

A file under ``campaigns/``; its name without ``.yaml`` is the campaign's name. Names of models,
builds and rigs may be declared in the file. What one value cannot tell by itself is checked in
``campaign_checks``; models and rigs that other files or machines know are left to the plan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tokrig import registry
from tokrig.documents import parse, validate
from tokrig.errors import SpecError, did_you_mean
from tokrig.spec import campaign_checks
from tokrig.spec.matrix import AXES, Axis, Id, Matrix, Part, Speculative, Watts
from tokrig.spec.run import LevelName, Text, Whole, read_text
from tokrig.units import slug

__all__ = [
    "AXES",
    "Axis",
    "Blocked",
    "Campaign",
    "CampaignFile",
    "Condition",
    "Entry",
    "Matrix",
    "ModelSource",
    "RigFacts",
    "Speculative",
    "load_campaign",
]

Bytes = Annotated[int, Field(ge=1, lt=2**63, strict=True)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Condition = Literal["fits_vram", "fits_memory"]
PLACEHOLDERS = ("quant", "creator")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class ModelSource(Part):
    """A model by name: in a repository, or a local file or folder.

    ``repo``, ``revision`` and ``file`` may hold ``{quant}`` and ``{creator}``. ``repo`` without
    ``file`` is a folder of safetensors. ``file`` without ``repo`` is a local path or a name of
    the catalog; with ``quantize`` the quants are made on the rig from that file by the engine's
    own tool. ``bytes`` by quant, ``parameters`` and ``kv_bytes_per_token`` (of an f16 cache) let a
    plan tell what fits before anything is downloaded; ``active_parameters`` are those that one
    token uses, ``context`` the longest in tokens that the model was made for.
    """

    repo: Annotated[Text, Field(pattern=r"^[^/@\s]+/[^/@\s]+$")] | None = None
    revision: Annotated[Text, Field(pattern=r"^[^/@\s]+$")] = "main"
    file: Text | None = None
    quantize: bool = False
    bytes: dict[Text, Bytes] = Field(default_factory=dict)
    parameters: Amount | None = None
    active_parameters: Amount | None = None
    kv_bytes_per_token: Bytes | None = None
    context: Whole | None = None

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.repo is None and self.file is None:
            raise ValueError("name a repo, a file, or a file in a repo")
        if self.repo is None and "revision" in self.model_fields_set:
            raise ValueError("a revision belongs to a repo: leave it out for a local file")
        for name in _PLACEHOLDER.findall(" ".join(self._texts)):
            if name not in PLACEHOLDERS:
                hint = did_you_mean(name, PLACEHOLDERS)
                raise ValueError(f"unknown placeholder {{{name}}}: {hint}")
        if self.quantize and self.repo is not None:
            raise ValueError("quants are made of a local file: name the file alone, without a repo")
        if self.quantize and "{quant}" in (self.file or ""):
            raise ValueError("quantize makes all quants of one file: leave {quant} out of its name")
        return self

    @property
    def _texts(self) -> list[str]:
        return [text for text in (self.repo, self.revision, self.file) if text]

    @property
    def needs(self) -> frozenset[str]:
        """The axes that must say something before this names one file."""
        found = frozenset(_PLACEHOLDER.findall(" ".join(self._texts)))
        return found | {"quant"} if self.quantize else found


class RigFacts(Part):
    """What is known of a rig before it has measured anything. ``power_w`` is the lowest and the
    highest power cap that its card takes, in watts."""

    title: Text | None = None
    vram_gib: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None
    memory_gib: Amount | None = None
    memory_bandwidth_gb_per_s: Amount | None = None
    power_w: tuple[Watts, Watts] | None = None

    @model_validator(mode="after")
    def _low_to_high(self) -> Self:
        if self.power_w and self.power_w[0] > self.power_w[1]:
            raise ValueError("power_w: the lowest cap comes first, then the highest")
        return self


class Blocked(Part):
    """Why an entry cannot run yet, and what would unblock it."""

    why: Text
    until: Text


class Entry(Part):
    """One line of the queue: a matrix, with what is added, left out, and waited for.

    ``include`` are more combinations: the matrix with the named axes replaced. ``exclude`` leaves
    out runs, of the matrix and of what is included, that match all of its axes. ``repeats`` is how
    many records of each run are wanted. ``ab`` names an axis of two values that are measured
    interleaved (A B B A), ``repeats`` times each. ``set`` holds keys of a run's spec that are no
    axis (threads, options, patience_s …).
    """

    name: Id
    title: Text
    about: Text | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000, strict=True)] = 0
    level: LevelName | None = None
    repeats: Annotated[Whole, Field(le=100)] = 1
    ab: Axis | None = None
    blocked: Blocked | None = None
    when: list[Condition] = Field(default_factory=list)
    matrix: Matrix
    include: list[Matrix] = Field(default_factory=list)
    exclude: list[Matrix] = Field(default_factory=list)
    set: dict[Text, Any] = Field(default_factory=dict)

    def matrices(self) -> dict[str, Matrix]:
        """The matrix and what each include makes of it, by their place in the entry."""
        base = self.matrix.named()
        more = {
            f"include[{number}]": Matrix.model_construct(**{**base, **include.named()})
            for number, include in enumerate(self.include)
        }
        return {"matrix": self.matrix, **more}


class Campaign(Part):
    """The whole file. ``rig`` and ``level`` are what entries take that name none;
    ``disk_budget_gb`` (10⁹ bytes) bounds what is kept of downloads; ``builds`` are programs or
    paths of an engine's server by name."""

    title: Text
    about: Text | None = None
    rig: Id | None = None
    level: LevelName = "standard"
    disk_budget_gb: Amount | None = None
    models: dict[Text, ModelSource] = Field(default_factory=dict)
    builds: dict[Text, Text] = Field(default_factory=dict)
    rigs: dict[Id, RigFacts] = Field(default_factory=dict)
    entries: Annotated[list[Entry], Field(min_length=1)]


@dataclass(frozen=True)
class CampaignFile:
    """A campaign as it was read. ``lines`` are the line of each entry by its name, and of what is
    in it by a path such as ``entry.matrix.quant[1]``; ``texts`` are the versions of the texts that
    it measures with, by workload."""

    name: str
    path: str
    campaign: Campaign
    lines: Mapping[str, int]
    texts: Mapping[str, str] = field(default_factory=dict)

    def where(self, entry: str, place: str = "") -> str:
        """``file:line`` of a place in an entry, or of the nearest thing around it."""
        path = f"{entry}.{place}" if place else entry
        while path not in self.lines and path != entry:
            path = path[: max(path.rfind("."), path.rfind("["))]
        return f"{self.path}:{self.lines.get(path, 1)}"


def load_campaign(path: Path) -> CampaignFile:
    """The campaign in the YAML file ``path``. Raises SpecError with file and line."""
    if slug(path.stem) != path.stem:
        raise SpecError(
            f"{path}: the file's name is the campaign's, and has only a-z, 0-9, '.', '_', '-'",
            hint=f"rename it to {slug(path.stem)}.yaml",
        )
    text = read_text(path, hint="give the path of a campaign file, such as campaigns/NAME.yaml")
    data = parse(text, str(path))
    campaign = validate(Campaign, {} if data is None else data, text, str(path))
    lines = campaign_checks.entry_lines(text, str(path))
    file = CampaignFile(path.stem, str(path), campaign, lines, _texts())
    campaign_checks.check(file)
    return file


@cache
def _texts() -> Mapping[str, str]:
    names = registry.names("workloads")
    return {name: registry.load("workloads", name, "WORKLOAD").content_hash for name in names}
