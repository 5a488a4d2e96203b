"""What is wrong with a campaign that no single value shows: names that mean nothing, axes that a
model needs and does not get, a matrix that explodes. Each error names the line of its value.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from tokrig import registry
from tokrig.documents import validate
from tokrig.errors import SpecError, did_you_mean
from tokrig.spec.matrix import AXES, Matrix, Speculative
from tokrig.spec.run import RunSpec

if TYPE_CHECKING:
    from tokrig.spec.campaign import CampaignFile, Entry

MAX_CELLS = 250_000
"""Runs × workloads × concurrencies that one campaign may mean."""

# Said by an axis, by the entry, or by the plan.
_TAKEN = {*AXES, "workloads", "concurrency", "level", "campaign", "planned", "server_bin"}
_TAKEN |= {*Speculative.model_fields, "quantize"}
SETTABLE = tuple(name for name in RunSpec.model_fields if name not in _TAKEN)
"""Keys of a run's spec that an entry's ``set`` takes."""


def entry_lines(text: str, name: str) -> dict[str, int]:
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


def check(file: CampaignFile) -> None:
    """Raises SpecError for the first thing that is wrong."""
    for entry in file.campaign.entries:
        for place, matrix in entry.matrices().items():
            _Check(file, entry, place, matrix).all()
        _excludes(file, entry)
        _settings(file, entry)
    _size(file)


class _Check:
    """One matrix of one entry. Its values are told with the line they stand in."""

    def __init__(self, file: CampaignFile, entry: Entry, place: str, matrix: Matrix) -> None:
        self.file, self.entry, self.place, self.matrix = file, entry, place, matrix
        self.campaign = file.campaign

    def all(self) -> None:
        for axis in ("model", "backend"):
            if getattr(self.matrix, axis) is None:
                raise self.error(axis, "", f"the matrix names no {axis}", f"add {axis}: NAME")
        self.known("backend", registry.names("backends"))
        self.known("workloads", registry.names("workloads"))
        self.known("build", self.campaign.builds, "declare it under builds, as NAME: its server")
        self.modes()
        self.models()
        self.pair()
        self.caps()

    def error(self, axis: str, at: str, message: str, hint: str) -> SpecError:
        """About an axis where it is named: the include that replaces it, else the matrix."""
        include = self.place.removeprefix("include[").removesuffix("]")
        own = include.isdecimal() and axis in self.entry.include[int(include)].model_fields_set
        place = f"{self.place if own else 'matrix'}.{axis}{at}"
        where = self.file.where(self.entry.name, place)
        return SpecError(f"{where}: entry {self.entry.name!r}: {message}", hint=hint)

    def known(self, axis: str, names: Collection[str], hint: str = "") -> None:
        for number, name in enumerate(getattr(self.matrix, axis) or ()):
            if name is not None and name not in names:
                what = axis.removesuffix("s")
                hint = "; ".join(part for part in (did_you_mean(name, names), hint) if part)
                raise self.error(axis, f"[{number}]", f"unknown {what} {name!r}", hint)

    def modes(self) -> None:
        """A run's spec knows which type of speculation needs a draft model."""
        for number, mode in enumerate(self.matrix.mode or ()):
            if isinstance(mode, Speculative):
                where = self.file.where(self.entry.name, f"{self.place}.mode[{number}]")
                name = f"{where}: entry {self.entry.name!r}: mode"
                validate(RunSpec, mode.model_dump(), "", name)

    def models(self) -> None:
        for number, name in enumerate(self.matrix.model or ()):
            source = self.campaign.models.get(name)
            for axis in sorted(source.needs if source else ()):
                if None in self.matrix.values(axis):
                    verb = "is quantized" if source and source.quantize else f"holds {{{axis}}}"
                    message = f"the model {name!r} {verb}, but a run here has no {axis}"
                    hint = f"name it: {axis}: [VALUE, …]"
                    raise self.error("model", f"[{number}]", message, hint)

    def pair(self) -> None:
        axis, repeats = self.entry.ab, self.entry.repeats
        if axis is None:
            return
        values = self.matrix.values(axis)
        if axis == "rig":
            message = "ab interleaves runs on one machine, and two rigs are two"
            raise self.error(axis, "", message, "measure the same on both; pages compare them")
        if len(values) != 2:
            message = f"ab compares two values of {axis!r}, the matrix has {len(values)}"
            raise self.error(axis, "", message, f"name two: {axis}: [A, B]")
        if repeats % 2:
            where = self.file.where(self.entry.name, "repeats")
            raise SpecError(
                f"{where}: entry {self.entry.name!r}: {repeats} repeats do not make A B B A",
                hint="an A/B entry needs an even number: repeats: 2, 4, 6 …",
            )

    def caps(self) -> None:
        rigs = self.matrix.rig or ((self.campaign.rig,) if self.campaign.rig else ())
        for number, watts in enumerate(self.matrix.power_cap_w or ()):
            for rig in rigs:
                facts = self.campaign.rigs.get(rig)
                if watts is not None and facts and facts.power_w:
                    if reason := cap_out_of_range(watts, rig, facts.power_w):
                        hint = "take a cap in that range"
                        raise self.error("power_cap_w", f"[{number}]", reason, hint)


def cap_out_of_range(watts: float, rig: str, power_w: tuple[float, float]) -> str | None:
    """Why a card that takes caps of ``power_w`` (lowest, highest; watts) cannot be set to
    ``watts``; None when it can."""
    low, high = power_w
    if low <= watts <= high:
        return None
    return f"a cap of {watts:g} W is out of the range of {rig}: {low:g} to {high:g} W"


def _excludes(file: CampaignFile, entry: Entry) -> None:
    for number, exclude in enumerate(entry.exclude):
        for inside in ("workloads", "concurrency"):
            if getattr(exclude, inside) is not None:
                where = file.where(entry.name, f"exclude[{number}].{inside}")
                raise SpecError(
                    f"{where}: entry {entry.name!r}: exclude leaves out runs, and {inside}"
                    f"{' are' if inside == 'workloads' else ' is'} measured inside a run",
                    hint="measure other shapes in an entry of their own",
                )
        if not exclude.model_fields_set:
            where = file.where(entry.name, f"exclude[{number}]")
            raise SpecError(
                f"{where}: entry {entry.name!r}: an exclude without axes leaves out everything",
                hint="name the values that a run must have to be left out",
            )


def _settings(file: CampaignFile, entry: Entry) -> None:
    for key, value in entry.set.items():
        where = file.where(entry.name, f"set.{key}")
        name = f"{where}: entry {entry.name!r}: set"
        if key not in SETTABLE:
            hint = did_you_mean(key, SETTABLE)
            if key in RunSpec.model_fields:
                hint = "it is said by the matrix or the entry itself"
            raise SpecError(f"{name} takes no {key!r}", hint=hint)
        validate(RunSpec, {key: value}, "", name)


def _size(file: CampaignFile) -> None:
    """Multiplied, not expanded: a matrix too large for memory must not have to fit into it."""
    total = 0
    for entry in file.campaign.entries:
        for place, matrix in entry.matrices().items():
            sizes = _sizes(entry, matrix)
            total += math.prod(sizes.values())
            if total > MAX_CELLS:
                product = " × ".join(f"{size} {axis}" for axis, size in sizes.items() if size > 1)
                raise SpecError(
                    f"{file.where(entry.name, place)}: entry {entry.name!r}: with {product} the"
                    f" campaign has {total:,} cells, and {MAX_CELLS:,} are the limit",
                    hint="split it into campaigns, or measure fewer values of an axis",
                )


def _sizes(entry: Entry, matrix: Matrix) -> Mapping[str, int]:
    shapes: Sequence[str] = matrix.workloads or registry.names("workloads")
    return {
        **{axis: len(matrix.values(axis)) for axis in AXES},
        "workloads": len(shapes),
        "concurrency": len(matrix.concurrency or (1,)),
        "repeats": entry.repeats,
    }
