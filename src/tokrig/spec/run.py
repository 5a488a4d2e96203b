"""The spec of one run: what a YAML file or the command line asks for.

Names of backends, workloads and rigs are only names here; whoever resolves them refuses the
unknown ones. Engine options are opaque: the backend that owns them checks them.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from tokrig.documents import parse, read_text, validate
from tokrig.errors import SpecError, did_you_mean
from tokrig.spec import settings
from tokrig.spec.arrivals import Arrival, Duration, Rate, Slo, Window, is_open
from tokrig.units import duration, seconds_of, slug, tokens_of

LevelName = Literal["quick", "standard", "publish"]
# Strict, so that "true" is not taken for 1.
Whole = Annotated[int, Field(ge=1, strict=True)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]

_LISTS = tuple(setting.name for setting in settings.askable() if setting.kind == "texts")
MAX_CONCURRENCY = 1024
LEAST_DEPTH, MAX_DEPTH = 256, 1024 * 1024
SESSION = "session"
"""The workload that is measured only where it is named, and in a run of its own where tokrig starts
the engine: with the prompt cache on, while all others have it off."""
MAX_SEED = 2**31 - 1
LADDER = "ladder"
# (t) The highest step of a ladder that names none.
LADDER_MOST = 64
# What a ladder and a sustained run measure where no shape is named: it takes the fewest tokens of
# context, so that the most requests fit, and people ask for it most.
ONE_SHAPE = "chat"
MAX_SUSTAIN_S = 24 * 3600.0
# Keys as providers make them, and any long run of letters and digits. HF_TOKEN is a name.
_LOOKS_LIKE_KEY = re.compile(
    r"^(?:sk|pk|rk|hf|gh[opsu]|gsk|xai|nvapi|r8)[-_][A-Za-z0-9_-]{12,}|^AIza|^eyJ"
    r"|(?=[A-Za-z]*[0-9])[A-Za-z0-9]{20,}"
)


def _depth(given: Any) -> Any:
    """``4k`` as a number. A few tokens of context change nothing, nor can they be met exactly."""
    found = tokens_of(given) if isinstance(given, str) else given
    if isinstance(found, int) and not (found == 0 or LEAST_DEPTH <= found <= MAX_DEPTH):
        raise ValueError(
            f"a depth is 0, or from {LEAST_DEPTH} to {MAX_DEPTH // 1024}k tokens, not {given}"
        )
    return found


Depth = Annotated[int, Field(strict=True), BeforeValidator(_depth)]


@dataclass(frozen=True)
class Level:
    """How often a run measures: server starts, warm-ups after each, and request sets in each."""

    repeats: int
    warmups: int
    iterations: int


LEVELS: Mapping[str, Level] = MappingProxyType(
    {
        "quick": Level(repeats=1, warmups=1, iterations=3),
        "standard": Level(repeats=6, warmups=1, iterations=3),
        "publish": Level(repeats=10, warmups=1, iterations=3),
    }
)


def _listed(given: Any) -> Any:
    """One value may stand alone."""
    return given if isinstance(given, list | tuple) or given is None else [given]


if TYPE_CHECKING:

    class _Settings(BaseModel):
        def __getattr__(self, name: str) -> Any: ...

else:
    _Settings = create_model("_Settings", **settings.fields())


def climbing(given: Any) -> Any:
    """A mapping in which ``concurrency: ladder`` or ``ladder:32`` became ``ladder: 64`` or 32, the
    highest step; what is no such word stays where it is."""
    word = given.get("concurrency") if isinstance(given, Mapping) else None
    only = word[0] if isinstance(word, list | tuple) and len(word) == 1 else word
    found = re.fullmatch(rf"{LADDER}(?::([1-9]\d*))?", only) if isinstance(only, str) else None
    most = int(found[1] or LADDER_MOST) if found else 0
    if not 0 < most <= MAX_CONCURRENCY:
        return given
    return {**{key: value for key, value in given.items() if key != "concurrency"}, LADDER: most}


def no_ladder(given: Any) -> Any:
    """Numbers of requests in flight. Raises ValueError for a word among them."""
    words = given if isinstance(given, list | tuple) else [given]
    for word in (word for word in words if isinstance(word, str)):
        if len(words) > 1 and word.startswith(LADDER):
            raise ValueError(f"{word!r} stands alone: a ladder finds its steps itself")
        raise ValueError(
            f"{word!r} is no number of requests: give 1, 4 …, {LADDER}, or {LADDER}:32 for one"
            f" whose highest step is 32, of at most {MAX_CONCURRENCY}"
        )
    return given


def one_shape(sustain: str | None, info: ValidationInfo) -> str | None:
    """Raises ValueError where what is sustained is more than one shape at one concurrency."""
    if sustain is None:
        return None
    if info.data.get(LADDER):
        raise ValueError("one number of requests in flight is kept up, such as 4, and no ladder")
    _refuse_arrivals(info)
    for name in ("workloads", "concurrency", "depth"):
        if len(values := info.data.get(name) or ()) > 1:
            listed = ", ".join(map(str, values))
            raise ValueError(
                f"one shape is kept going at one concurrency and depth: choose between {listed}"
            )
    return sustain


def no_numbers(ladder: int | None, info: ValidationInfo) -> int | None:
    """Raises ValueError for a ladder beside numbers of requests in flight."""
    if ladder and info.data.get("concurrency"):
        raise ValueError("it stands beside numbers of requests in flight: give one of both")
    if ladder and any(info.data.get("depth") or ()):
        raise ValueError("it is climbed at depth 0: give a number of requests in flight, such as 4")
    if ladder:
        _refuse_arrivals(info)
    return ladder


def _refuse_arrivals(info: ValidationInfo) -> None:
    """Raises ValueError where requests are to arrive by themselves."""
    if given := [name for name in ("rate", "find_rate", "trace") if info.data.get(name)]:
        raise ValueError(
            f"requests follow each other here, and with {given[0]} they arrive by"
            " themselves: give one of both"
        )


def sustained(given: Any) -> Any:
    """A time from one second to a day, in its shortest form. Raises ValueError for another."""
    seconds = seconds_of(str(given))
    if not 1 <= seconds <= MAX_SUSTAIN_S:
        raise ValueError(f"{given!r} is out of range: from 1s to {duration(MAX_SUSTAIN_S)}")
    return duration(seconds)


Rung = Annotated[Whole, Field(le=MAX_CONCURRENCY)]
Sustain = Annotated[str, BeforeValidator(sustained)]


class RunSpec(_Settings):
    """One run: all of ``SETTINGS`` that can be asked for, and what is measured how. None means:
    whatever the workload, the backend or the machine says.

    ``workloads``, ``concurrency`` and ``depth`` (tokens of context before the measured turn) say
    which cells are measured, and are no settings: the engine is the same for all of them.
    ``concurrency: ladder`` doubles the requests in flight while that pays, up to ``ladder`` of
    them; ``sustain`` (``10m``) keeps one shape going for so long.

    With ``rate``, ``find_rate`` or ``trace`` requests arrive by themselves, as ``arrival`` says,
    for ``duration_s``; those of the first ``warm_up_window_s`` are not measured. ``burstiness`` is
    the shape of gamma intervals, ``slo`` the limits (in seconds) that a request has to meet,
    ``find_rate`` looks for the highest rate that meets them, beginning at ``rate``.

    ``patience_s`` is how long an engine may take to become ready; ``request_timeout_s`` is the
    longest wait for a token; ``served_model`` is the name an endpoint knows the model by;
    ``clients`` is how many processes of this machine send the requests together;
    ``load_from`` is the address of a Ray cluster, of whose nodes ``load_nodes`` send the requests;
    ``api_key_env`` names the environment variable with the key. ``campaign`` and ``planned`` go
    into the record's provenance. ``quality`` says whether the model's answers are looked at, too;
    None: as the level has it.
    """

    if TYPE_CHECKING:

        def __init__(self, **values: Any) -> None: ...

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Text = "gemma-3-270m"
    backend: Text = "embedded"
    url: str | None = None
    load_from: Text | None = None
    load_nodes: Whole | None = None
    clients: Whole | None = None
    server_bin: Text | None = None
    served_model: Text | None = None
    workloads: list[Text] | None = None
    concurrency: list[Rung] | None = None
    depth: list[Depth] | None = None
    rate: Annotated[list[Rate], BeforeValidator(_listed)] | None = None
    arrival: Arrival | None = None
    burstiness: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = None
    duration_s: Duration | None = None
    warm_up_window_s: Window | None = None
    trace: Text | None = None
    slo: Slo | None = None
    find_rate: bool = False
    ladder: Rung | None = None
    sustain: Sustain | None = None
    level: LevelName = "quick"
    quality: bool | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED, strict=True)] = 1
    patience_s: Seconds | None = None
    request_timeout_s: Seconds = 600.0
    rig: str | None = None
    notes: str | None = None
    api_key_env: str | None = None
    campaign: Text | None = None
    planned: Text | None = None

    _climb = model_validator(mode="before")(climbing)
    _numbers = field_validator("concurrency", mode="before")(no_ladder)
    _no_numbers = field_validator("ladder")(no_numbers)
    _one_shape = field_validator("sustain")(one_shape)

    @field_validator("workloads", "concurrency", "depth", "rate", *_LISTS)
    @classmethod
    def _once_each(cls, values: Sequence[Hashable] | None) -> Sequence[Hashable] | None:
        if values is None:
            return None
        if not values:
            raise ValueError("the list is empty: leave the key out to take all there are")
        twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is named twice")
        return values

    @model_validator(mode="after")
    def _session_alone(self) -> Self:
        walked = SESSION in (self.workloads or ())
        for name in ("ladder", "sustain", "depth", "rate", "find_rate", "arrival", "trace"):
            if walked and getattr(self, name, None):
                raise ValueError(f"{SESSION} is walked turn by turn, as it is: leave {name} out")
        if problem := beside_session(self.workloads, starts=self.url is None):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _draft_of_a_type(self) -> Self:
        """A draft model belongs to the types that need one; a length to any of them."""
        if self.speculative is None and (self.draft_model or self.draft_tokens):
            given = "draft_model" if self.draft_model else "draft_tokens"
            raise ValueError(f"{given} needs speculative: how to draft, such as 'draft' or 'mtp'")
        if self.speculative == "draft" and self.draft_model is None:
            raise ValueError("speculative 'draft' needs a draft_model")
        if self.speculative == "ngram" and self.draft_model is not None:
            raise ValueError("speculative 'ngram' drafts from the text: leave draft_model out")
        return self

    @field_validator("load_nodes")
    @classmethod
    def _nodes_of_a_cluster(cls, nodes: int | None, info: ValidationInfo) -> int | None:
        if nodes and not info.data.get("load_from"):
            raise ValueError("the Ray cluster that they belong to is not named")
        return nodes

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("should be an address like http://127.0.0.1:8080")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                "the address carries a user, a password or a query: "
                "leave them out and name the key's environment variable in api_key_env"
            )
        return url.rstrip("/")

    @field_validator("rig")
    @classmethod
    def _slug(cls, rig: str | None) -> str | None:
        if rig is not None and slug(rig) != rig:
            raise ValueError(f"a rig's id has only a-z, 0-9, '.', '_', '-': try {slug(rig)!r}")
        return rig

    @field_validator("api_key_env")
    @classmethod
    def _name_not_key(cls, name: str | None) -> str | None:
        """A key in a spec ends up in git, so it is refused, and never repeated in the message."""
        if name is None:
            return None
        if _LOOKS_LIKE_KEY.search(name) or len(name) > 64:
            raise ValueError(
                "this looks like a key itself. Give the NAME of an environment variable that "
                "holds it (MY_API_KEY), and replace the key if this file was ever shared"
            )
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("should be the NAME of an environment variable, such as MY_API_KEY")
        return name

    @property
    def sustain_s(self) -> float | None:
        """How long one shape is kept going."""
        return None if self.sustain is None else seconds_of(self.sustain)

    @property
    def looks_at_answers(self) -> bool:
        """Whether the model's answers are looked at beside its speed."""
        return self.level != "quick" if self.quality is None else self.quality

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that are asked for, by name."""
        values = {one.name: getattr(self, one.name) for one in settings.askable()}
        return {name: value for name, value in values.items() if value not in (None, {})}


def shapes_of(given: Any) -> list[str] | None:
    """The shapes that a spec or a matrix asks for, or the one that its load takes; None for all."""
    alone = given.ladder or given.sustain or given.depth or is_open(given)
    return list(given.workloads or ([ONE_SHAPE] if alone else ())) or None


def ladder_steps(most: int) -> list[int]:
    """1, 2, 4 … up to ``most``."""
    return [2**n for n in range(most.bit_length())]


def beside_session(workloads: Sequence[str] | None, *, starts: bool) -> str | None:
    """What is wrong with these workloads in one run; ``starts`` says that tokrig starts the
    engine."""
    others = [name for name in workloads or () if name != SESSION]
    if not starts or not others or len(others) == len(workloads or ()):
        return None
    return (
        f"{SESSION} needs the engine's prompt cache, and {', '.join(others)} must be measured"
        f" without it: give {SESSION} a run of its own"
    )


def default_shapes(names: Iterable[str]) -> list[str]:
    """Of all workloads those that are measured where none is named."""
    return [name for name in names if name != SESSION]


def load_spec(path: Path) -> RunSpec:
    """The spec in the YAML file ``path``; an empty file means all defaults.

    Raises SpecError with file and line.
    """
    hint = "give the path of a YAML file, or leave it out and use options"
    text = read_text(path, SpecError, hint=hint)
    name = str(path)
    data = parse(text, name)
    return validate(RunSpec, {} if data is None else data, text, name)


def merge(spec: RunSpec, overrides: Mapping[str, Any]) -> RunSpec:
    """``spec`` with command-line options on top. None means *not given*; ``options`` are added
    to the spec's own, key by key.

    Raises SpecError for a name or value the spec does not take, naming the option.
    """
    known = RunSpec.model_fields
    data = spec.model_dump()
    if overrides.get("concurrency"):
        data[LADDER] = None
    for name, value in overrides.items():
        if name not in known:
            raise SpecError(f"unknown option {name!r}", hint=did_you_mean(name, known))
        if name == "options" and isinstance(value, Mapping):
            value = {**spec.options, **value}
        if value is not None:
            data[name] = list(value) if isinstance(value, tuple) else value
    return validate(RunSpec, data, "", "", names={name: option_of(name) for name in known})


_SHORT = {
    "workloads": "workload",
    "ladder": "concurrency",
    "patience_s": "patience",
    "request_timeout_s": "request-timeout",
    "duration_s": "duration",
    "warm_up_window_s": "warm-up-window",
}


def option_of(key: str) -> str:
    """The option of ``tokrig run`` that says a key of the spec: ``--power-cap``."""
    if key in settings.SETTINGS:
        return settings.SETTINGS[key].option
    return f"--{_SHORT.get(key, key).replace('_', '-')}"
