"""The axes of a campaign's matrix: what may vary between runs, and which values each axis takes.

Every axis takes one value or a list of them. Where an axis may be left to the engine, ``null`` as
a value means *not asked for*, so that ``kv_type: [null, q8_0]`` compares a default with a choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model

from tokrig.errors import did_you_mean
from tokrig.spec import settings
from tokrig.spec.run import MAX_CONCURRENCY, Text, Whole
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
    """Values by axis, the axes of settings among them. ``workloads`` and ``concurrency`` are
    measured inside each run, every other axis makes runs. ``mode`` is ``baseline``, a type of
    speculation, or a mapping of it; ``build`` a name under the campaign's ``builds``."""

    rig: Values[Id] = None
    model: Values[Text] = None
    quant: Maybe[Text] = None
    creator: Maybe[Text] = None
    backend: Values[Text] = None
    build: Maybe[Text] = None
    driver: Maybe[Text] = None
    workloads: Values[Text] = None
    concurrency: Values[Annotated[Whole, Field(le=MAX_CONCURRENCY)]] = None

    def values(self, axis: str) -> tuple[Any, ...]:
        """What the axis takes; one None where the matrix does not name it."""
        return getattr(self, axis) or (None,)

    def named(self) -> dict[str, Any]:
        """Only the axes that are named, with their values."""
        return {name: getattr(self, name) for name in sorted(self.model_fields_set)}
