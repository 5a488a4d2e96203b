"""The campaign file: a matrix of runs that are wanted, what blocks them, and on which rig.

A file under ``campaigns/``; its name without ``.yaml`` is the campaign's name. Names of models,
builds and rigs may be declared in the file. Every axis of a matrix takes one value or a list of
them. Where an axis may be left to the engine, ``null`` as a value means *not asked for*, so that
``kv_type: [null, q8_0]`` compares a default with a choice. Models and rigs that other files or
machines know are left to the plan.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    create_model,
    field_validator,
    model_validator,
)

from tokrig import registry
from tokrig.documents import parse, read_text, validate
from tokrig.errors import SpecError, did_you_mean
from tokrig.spec import settings
from tokrig.spec.arrivals import OF_OPEN_LOOPS, Rate, refusals
from tokrig.spec.run import (
    Depth,
    LevelName,
    Rung,
    RunSpec,
    Sustain,
    Text,
    Whole,
    beside_session,
    climbing,
    default_shapes,
    no_ladder,
    no_numbers,
    one_shape,
)
from tokrig.spec.settings import MODE, SpeculativeType
from tokrig.units import slug

_SETTINGS = tuple(setting for setting in settings.askable() if setting.axis)
AXES: tuple[str, ...] = (
    *("rig", "model", "quant", "creator", "backend", "build"),
    *(setting.axis or "" for setting in _SETTINGS),
    "driver",
)
"""What makes runs. ``driver`` is the version of the graphics driver a run waits for: tokrig
installs none, it orders runs so that a person changes it as rarely as possible."""
if TYPE_CHECKING:
    Axis = str
else:
    Axis = Literal[AXES]

BASELINE = "baseline"

MAX_CELLS = 250_000
"""Runs × workloads × concurrencies × depths that one campaign may mean."""

Bytes = Annotated[int, Field(ge=1, lt=2**63, strict=True)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Condition = Literal["fits_vram", "fits_memory"]
PLACEHOLDERS = ("quant", "creator")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class Part(BaseModel):
    """Base of all parts of a campaign: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Speculative(Part):
    """A mode that needs more than its name. ``draft_model`` is a model as the axis ``model``
    names them, ``draft_tokens`` the longest draft."""

    speculative: SpeculativeType
    draft_model: Text | None = None
    draft_tokens: Whole | None = None


T = TypeVar("T")


def _listed(given: Any) -> Any:
    if isinstance(given, list | tuple):
        if not given:
            raise ValueError("the list is empty: name a value, or leave the key out")
        return given
    return [given]


def _once_each(values: tuple[T, ...] | None) -> tuple[T, ...] | None:
    seen: set[T] = set()
    for value in values or ():
        if value in seen:
            name = value.speculative if isinstance(value, Speculative) else value
            raise ValueError(f"{name!r} is named twice")
        seen.add(value)
    return values


def _id(text: str) -> str:
    if slug(text) != text:
        raise ValueError(f"an id has only a-z, 0-9, '.', '_', '-': try {slug(text)!r}")
    return text


def _mode(given: Any) -> Any:
    """``baseline`` and the bare types of speculation in the form of the mapping."""
    if given is None or given == BASELINE:
        return None
    if isinstance(given, Mapping | Speculative):
        return given
    kinds = get_args(SpeculativeType)
    if given not in kinds:
        raise ValueError(f"unknown mode {given!r}: {did_you_mean(str(given), [BASELINE, *kinds])}")
    return {"speculative": given}


# A key that is there with null asks for nothing; a key that is not there names no axis.
Values = Annotated[tuple[T, ...] | None, BeforeValidator(_listed), AfterValidator(_once_each)]
Maybe = Values[T | None]

Id = Annotated[Text, AfterValidator(_id)]
Watts = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False, strict=True)]
Mode = Annotated[Speculative | None, BeforeValidator(_mode)]


if TYPE_CHECKING:

    class _Settings(Part):
        def __getattr__(self, name: str) -> Any: ...

else:
    _Settings = create_model(
        "_Settings",
        __base__=Part,
        **{
            one.axis: (Values[Mode] if one.axis == MODE else Maybe[settings.annotation(one)], None)
            for one in _SETTINGS
        },
    )


class Matrix(_Settings):
    """Values by axis, the axes of settings among them. ``workloads``, ``concurrency`` (numbers, or
    ``ladder``), ``depth`` and ``rate`` are measured inside each run, and so is ``sustain``; every
    other axis makes runs. ``mode`` is ``baseline``, a type of speculation, or a mapping of it;
    ``build`` a name under the campaign's ``builds``."""

    rig: Values[Id] = None
    model: Values[Text] = None
    quant: Maybe[Text] = None
    creator: Maybe[Text] = None
    backend: Values[Text] = None
    build: Maybe[Text] = None
    driver: Maybe[Text] = None
    workloads: Values[Text] = None
    concurrency: Values[Rung] = None
    depth: Values[Depth] = None
    rate: Values[Rate] = None
    ladder: Rung | None = None
    sustain: Sustain | None = None

    _climb = model_validator(mode="before")(climbing)
    _numbers = field_validator("concurrency", mode="before")(no_ladder)
    _no_numbers = field_validator("ladder")(no_numbers)
    _one_shape = field_validator("sustain")(one_shape)

    def values(self, axis: str) -> tuple[Any, ...]:
        """What the axis takes; one None where the matrix does not name it."""
        return getattr(self, axis) or (None,)

    def named(self) -> dict[str, Any]:
        """Only the axes that are named, with their values."""
        return {name: getattr(self, name) for name in sorted(self.model_fields_set)}


# Said by an axis, by the entry, or by the plan.
_INSIDE = ("workloads", "concurrency", "depth", "rate", "ladder", "sustain")
_TAKEN = {*AXES, *_INSIDE, "level", "campaign", "planned", "server_bin"}
_TAKEN |= {*Speculative.model_fields, "quantize"}
SETTABLE = tuple(name for name in RunSpec.model_fields if name not in _TAKEN)
"""Keys of a run's spec that an entry's ``set`` takes."""


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
            f"include[{number}]": Matrix.model_construct(**_over(base, include.named()))
            for number, include in enumerate(self.include)
        }
        return {"matrix": self.matrix, **more}


def _over(base: Mapping[str, Any], include: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a matrix with those of an include in their place."""
    replaced = {"concurrency": "ladder", "ladder": "concurrency"}
    gone = {replaced[key] for key in include if key in replaced} - include.keys()
    return {**{key: value for key, value in base.items() if key not in gone}, **include}


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
    in it by a path such as ``entry.matrix.quant[1]``."""

    name: str
    path: str
    campaign: Campaign
    lines: Mapping[str, int]

    def where(self, entry: str, place: str = "") -> str:
        """``file:line`` of a place in an entry, or of the nearest thing around it."""
        path = f"{entry}.{place}" if place else entry
        while path not in self.lines and path != entry:
            path = path[: max(path.rfind("."), path.rfind("["))]
        return f"{self.path}:{self.lines.get(path, 1)}"

    def error(self, entry: str, place: str, message: str, hint: str) -> SpecError:
        """About a place in an entry, with its line."""
        return SpecError(f"{self.where(entry, place)}: entry {entry!r}: {message}", hint=hint)


def load_campaign(path: Path) -> CampaignFile:
    """The campaign in the YAML file ``path``. Raises SpecError with file and line."""
    if slug(path.stem) != path.stem:
        raise SpecError(
            f"{path}: the file's name is the campaign's, and has only a-z, 0-9, '.', '_', '-'",
            hint=f"rename it to {slug(path.stem)}.yaml",
        )
    hint = "give the path of a campaign file, such as campaigns/NAME.yaml"
    text = read_text(path, SpecError, hint=hint)
    data = parse(text, str(path))
    campaign = validate(Campaign, {} if data is None else data, text, str(path))
    lines = _entry_lines(text, str(path))
    file = CampaignFile(path.stem, str(path), campaign, lines)
    _check(file)
    return file


def _entry_lines(text: str, name: str) -> dict[str, int]:
    """The line of each entry and of everything in it, by paths such as ``entry.matrix.quant[1]``.

    ``text`` is that of a campaign which has passed its model. Raises SpecError for two entries of
    one name.
    """
    lines: dict[str, int] = {}
    for node in _child(yaml.compose(text, Loader=yaml.SafeLoader), "entries").value:
        entry = _child(node, "name").value
        line = node.start_mark.line + 1
        if entry in lines:
            raise SpecError(
                f"{name}:{line}: the name {entry!r} is that of the entry in line {lines[entry]}",
                hint="give each entry a name of its own",
            )
        lines[entry] = line
        lines.update(_walk(node, entry))
    return lines


def _child(node: Any, key: str) -> Any:
    return next(value for name, value in node.value if name.value == key)


def _walk(node: yaml.Node, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield f"{path}.{key.value}", key.start_mark.line + 1
            yield from _walk(value, f"{path}.{key.value}")
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield f"{path}[{number}]", value.start_mark.line + 1
            yield from _walk(value, f"{path}[{number}]")


# What is wrong in an entry: the place, why, and what to do.
Wrong = Iterator[tuple[str, str, str]]


def _check(file: CampaignFile) -> None:
    """Raises SpecError for the first thing that is wrong."""
    for entry in file.campaign.entries:
        for place, matrix in entry.matrices().items():
            for at, message, hint in (
                *_in_matrix(file.campaign, matrix),
                *_in_pair(entry, matrix),
                *_in_caps(file.campaign, matrix),
            ):
                raise file.error(entry.name, _named_at(entry, place, at), message, hint)
            _modes(file, entry, place, matrix)
        for at, message, hint in _in_entry(entry):
            raise file.error(entry.name, at, message, hint)
        _settings(file, entry)
    _size(file)


def _named_at(entry: Entry, place: str, at: str) -> str:
    """Where an axis is named: in the include that replaces it, else in the matrix."""
    include = place.removeprefix("include[").removesuffix("]")
    axis = at.partition("[")[0]
    own = include.isdecimal() and axis in entry.include[int(include)].model_fields_set
    return f"{place if own else 'matrix'}.{at}"


def _in_matrix(campaign: Campaign, matrix: Matrix) -> Wrong:
    for axis in ("model", "backend"):
        if getattr(matrix, axis) is None:
            yield axis, f"the matrix names no {axis}", f"add {axis}: NAME"
    declare = "declare it under builds, as NAME: its server"
    for axis, names, more in (
        ("backend", registry.names("backends"), ""),
        ("workloads", registry.names("workloads"), ""),
        ("build", campaign.builds, declare),
    ):
        for number, name in enumerate(getattr(matrix, axis) or ()):
            if name is not None and name not in names:
                hint = "; ".join(filter(None, (did_you_mean(name, names), more)))
                yield f"{axis}[{number}]", f"unknown {axis.removesuffix('s')} {name!r}", hint
    for axis in ("workloads", "concurrency"):
        if matrix.sustain and len(getattr(matrix, axis, None) or ()) > 1:
            message = f"one shape is sustained at one concurrency, and {axis} names more"
            yield "sustain", message, "measure them in entries of their own"
    if problem := beside_session(matrix.workloads, starts=True):
        yield "workloads", problem, "write an entry of its own"
    for number, name in enumerate(matrix.model or ()):
        source = campaign.models.get(name)
        for axis in sorted(source.needs if source else ()):
            if None in matrix.values(axis):
                verb = "is quantized" if source and source.quantize else f"holds {{{axis}}}"
                message = f"the model {name!r} {verb}, but a run here has no {axis}"
                yield f"model[{number}]", message, f"name it: {axis}: [VALUE, …]"


def _in_pair(entry: Entry, matrix: Matrix) -> Wrong:
    values = matrix.values(entry.ab) if entry.ab else ()
    if entry.ab == "rig":
        message = "ab interleaves runs on one machine, and two rigs are two"
        yield "rig", message, "measure the same on both; pages compare them"
    elif entry.ab and len(values) != 2:
        message = f"ab compares two values of {entry.ab!r}, the matrix has {len(values)}"
        yield entry.ab, message, f"name two: {entry.ab}: [A, B]"


def _in_caps(campaign: Campaign, matrix: Matrix) -> Wrong:
    for number, watts in enumerate(matrix.power_cap_w or ()):
        for rig in matrix.rig or ((campaign.rig,) if campaign.rig else ()):
            facts = campaign.rigs.get(rig)
            if watts is not None and facts and facts.power_w:
                if reason := cap_out_of_range(watts, rig, facts.power_w):
                    yield f"power_cap_w[{number}]", reason, "take a cap in that range"


def _modes(file: CampaignFile, entry: Entry, place: str, matrix: Matrix) -> None:
    """A run's spec knows which type of speculation needs a draft model."""
    for number, mode in enumerate(matrix.mode or ()):
        if isinstance(mode, Speculative):
            where = file.where(entry.name, f"{place}.mode[{number}]")
            validate(RunSpec, mode.model_dump(), "", f"{where}: entry {entry.name!r}: mode")


def cap_out_of_range(watts: float, rig: str, power_w: tuple[float, float]) -> str | None:
    """Why a card that takes caps of ``power_w`` (lowest, highest; watts) cannot be set to
    ``watts``; None when it can."""
    low, high = power_w
    if low <= watts <= high:
        return None
    return f"a cap of {watts:g} W is out of the range of {rig}: {low:g} to {high:g} W"


def _in_entry(entry: Entry) -> Wrong:
    if entry.ab and entry.repeats % 2:
        hint = "an A/B entry needs an even number: repeats: 2, 4, 6 …"
        yield "repeats", f"{entry.repeats} repeats do not make A B B A", hint
    for number, exclude in enumerate(entry.exclude):
        for inside in _INSIDE:
            if getattr(exclude, inside) is not None:
                verb = "are" if inside == "workloads" else "is"
                message = f"exclude leaves out runs, and {inside} {verb} measured inside a run"
                hint = "measure other shapes in an entry of their own"
                yield f"exclude[{number}].{inside}", message, hint
        if not exclude.model_fields_set:
            message = "an exclude without axes leaves out everything"
            hint = "name the values that a run must have to be left out"
            yield f"exclude[{number}]", message, hint


def _settings(file: CampaignFile, entry: Entry) -> None:
    for key, value in entry.set.items():
        place = f"set.{key}"
        if key not in SETTABLE:
            hint = did_you_mean(key, SETTABLE)
            if key in RunSpec.model_fields:
                hint = "it is said by the matrix or the entry itself"
            raise file.error(entry.name, place, f"set takes no {key!r}", hint)
        name = f"{file.where(entry.name, place)}: entry {entry.name!r}: set"
        validate(RunSpec, {key: value}, "", name)
    for place, matrix in entry.matrices().items():
        inside = {name: getattr(matrix, name) for name in _INSIDE}
        asked = {name: entry.set[name] for name in OF_OPEN_LOOPS if name in entry.set}
        whole = {n: list(v) if isinstance(v, tuple) else v for n, v in {**inside, **asked}.items()}
        at = f"{file.where(entry.name, place)}: entry {entry.name!r}"
        for wrong, message, hint in refusals(validate(RunSpec, whole, "", at)):
            if wrong:
                raise file.error(entry.name, place, message, hint)


def _size(file: CampaignFile) -> None:
    """Multiplied, not expanded: a matrix too large for memory must not have to fit into it."""
    total = 0
    for entry in file.campaign.entries:
        for place, matrix in entry.matrices().items():
            sizes = {
                **{axis: len(matrix.values(axis)) for axis in AXES},
                "workloads": len(matrix.workloads or default_shapes(registry.names("workloads"))),
                "concurrency": len(matrix.concurrency or (1,)) * (matrix.ladder or 1).bit_length(),
                "depth": len(matrix.depth or (0,)),
                "rate": len(matrix.rate or (0,)),
                "repeats": entry.repeats,
            }
            total += math.prod(sizes.values())
            if total > MAX_CELLS:
                product = " × ".join(f"{size} {axis}" for axis, size in sizes.items() if size > 1)
                message = (
                    f"with {product} the campaign has {total:,} cells, and {MAX_CELLS:,} are the"
                    " limit"
                )
                hint = "split it into campaigns, or measure fewer values of an axis"
                raise file.error(entry.name, place, message, hint)
