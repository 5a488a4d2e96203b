"""All settings that change what is measured: one entry each.

The run's spec, the command line, a campaign's axes, the keys of planned runs, what a record says
was asked for and was found, variables of comparisons and the words for runs walk this table. A
new setting is one entry here and the backends that can do it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Api = Literal["cpu", "cuda", "vulkan", "rocm", "metal", "sycl"]
SpeculativeType = Literal["ngram", "draft", "mtp", "eagle"]
Kind = Literal["word", "text", "texts", "whole", "amount", "options"]

RESOLVED = "backend.resolved."
MODE = "mode"
"""The axis whose values say several settings at once: a kind of speculation, its draft model."""


@dataclass(frozen=True)
class Setting:
    """One setting.

    ``kind``: a *word* of ``choices``, a *text*, a list of *texts*, a *whole* number (at least
    ``least``), an *amount* above 0 (at most ``most``), or *options* by name. ``label`` is what
    people and comparisons call it; ``word`` and ``words`` say a value of it in a few words,
    ``part`` in the name of a mode. ``help`` is the option's of the command line; without it the
    setting cannot be asked for, and only what was found counts. ``flag`` spells the option,
    ``offered`` are values that a shell completes (``*models`` for files and names of models).
    ``axis`` is the campaign's axis. ``found`` are the places in a record that tell what was used;
    what stands there in ``backend.resolved`` is asked for under the same name in
    ``backend.asked``. ``variables`` are what a comparison may show as changed with it (its label
    where empty), ``follows`` the variables whose change explains a change of this one.
    """

    name: str
    kind: Kind
    label: str
    help: str = ""
    metavar: str | None = None
    flag: str = ""
    choices: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()
    least: int = 1
    most: float | None = None
    axis: str | None = None
    found: tuple[str, ...] = ()
    word: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    part: str = ""
    variables: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()

    @property
    def can_be_asked(self) -> bool:
        """Whether a run's spec has it."""
        return bool(self.help)

    @property
    def option(self) -> str:
        """As the command line spells it: ``--kv-type``."""
        return self.flag or f"--{self.name.replace('_', '-')}"

    @property
    def asked(self) -> tuple[str, ...]:
        """Its names in ``backend.asked`` and ``backend.resolved``."""
        return tuple(path.removeprefix(RESOLVED) for path in self.found if RESOLVED in path)

    @property
    def may_change(self) -> tuple[str, ...]:
        """The variables that a comparison may show as changed when this was."""
        return self.variables or (self.label,)

    def say(self, value: Any) -> str:
        """A value in a few words: ``KV q8_0``, ``n-gram speculation``."""
        if isinstance(value, str) and value in self.words:
            return self.words[value]
        if isinstance(value, Mapping):
            return ", ".join(f"{key}={one}" for key, one in value.items())
        if isinstance(value, list | tuple):
            value = ",".join(map(str, value))
        return (self.word or f"{self.label} {{}}").format(value)


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting(
            "api",
            "word",
            "API",
            "The API that must compute. A result that cannot confirm it is invalid.",
            choices=get_args(Api),
            axis="api",
            found=("backend.api",),
            word="{}",
        ),
        Setting(
            "devices",
            "texts",
            "devices",
            "A device, as the engine names it (Vulkan0, CUDA1). Repeat it or use commas.",
            metavar="NAME",
            flag="--device",
            found=("backend.resolved.devices",),
            follows=("machine", "GPU", "engine", "API", "tensor parallel"),
        ),
        Setting(
            "speculative",
            "word",
            "speculation",
            "Speculative decoding; greedy answers are compared with those without it.",
            choices=get_args(SpeculativeType),
            axis=MODE,
            found=("mode.speculative",),
            words={
                "ngram": "n-gram speculation",
                "draft": "draft-model speculation",
                "mtp": "MTP",
                "eagle": "EAGLE",
            },
            part="{}",
            variables=("mode",),
        ),
        Setting(
            "draft_model",
            "text",
            "draft model",
            "The small model that drafts (draft, eagle, mtp).",
            metavar="NAME|FILE|hf:…",
            offered=("*models",),
            found=("mode.draft_model",),
            word="drafts by {}",
            variables=("mode",),
        ),
        Setting(
            "draft_tokens",
            "whole",
            "draft length",
            "The longest draft, in tokens.",
            metavar="N",
            found=("mode.draft_tokens",),
            word="{} tokens a draft",
            variables=("mode",),
        ),
        Setting(
            "reasoning",
            "word",
            "reasoning",
            "Switch reasoning on or off; what the model then does is observed.",
            choices=("on", "off"),
            axis="reasoning",
            found=("mode.reasoning_asked",),
            part="reasoning-{}",
            variables=("mode", "reasoning"),
        ),
        # A campaign says it by the quants of a model that is quantized on the rig.
        Setting(
            "quantize",
            "text",
            "quant",
            "Quantize the model with llama-quantize, unless that was done before, and measure the"
            " result.",
            metavar="QUANT",
            found=("model.quant",),
            word="{}",
            offered=(
                *("Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_0"),
                *("IQ4_XS", "Q3_K_M"),
            ),
            variables=("quant", "model file"),
        ),
        Setting(
            "kv_type",
            "text",
            "KV cache types",
            "Type of the KV cache, in the engine's words: q8_0, fp8.  [default: the engine's own]",
            metavar="TYPE",
            axis="kv_type",
            word="KV {}",
            offered=(
                *("f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"),
                *("fp8", "fp8_e4m3", "fp8_e5m2"),
            ),
            found=("backend.resolved.cache_type_k", "backend.resolved.cache_type_v"),
        ),
        Setting(
            "context",
            "whole",
            "context",
            "Context of each slot, in tokens.",
            metavar="N",
            axis="context",
            found=("backend.resolved.context_per_slot",),
            word="context {:,}",
        ),
        Setting(
            "threads",
            "whole",
            "threads",
            "Threads the engine may use.",
            metavar="N",
            found=("backend.resolved.threads",),
            word="{} threads",
            follows=("machine",),
        ),
        Setting(
            "batch",
            "whole",
            "batch",
            "The most prompt tokens that the engine takes in at once.",
            metavar="N",
            axis="batch",
            found=("backend.resolved.batch",),
            follows=("engine",),
        ),
        Setting(
            "ubatch",
            "whole",
            "micro-batch",
            "Tokens of a batch that are computed at once.",
            metavar="N",
            axis="ubatch",
            found=("backend.resolved.ubatch",),
            follows=("engine",),
        ),
        Setting(
            "gpu_layers",
            "whole",
            "GPU layers",
            "Layers of the model on the GPU; the others are computed in main memory.",
            metavar="N",
            least=0,
            axis="gpu_layers",
            found=("backend.resolved.gpu_layers",),
            word="{} layers on the GPU",
            variables=("GPU layers", "mode"),
            follows=("model", "API"),
        ),
        Setting(
            "offload", "text", "offload", found=("mode.offload",), word="{}", variables=("mode",)
        ),
        Setting(
            "power_cap_w",
            "amount",
            "power cap",
            "Cap every graphics card during this run and restore it afterwards. Needs privileges.",
            metavar="WATTS",
            flag="--power-cap",
            most=100_000,
            axis="power_cap_w",
            found=("mode.power_cap_w",),
            word="cap {:g} W",
            part="cap-{:g}w",
            variables=("power limit",),
        ),
        Setting(
            "options",
            "options",
            "options",
            "An option of the engine's own. Repeatable.",
            metavar="KEY=VALUE",
            flag="--option",
        ),
    )
}
"""By name, in the order in which they are told."""


def askable() -> Iterator[Setting]:
    """The settings that a run's spec has."""
    return (setting for setting in SETTINGS.values() if setting.can_be_asked)


def said(values: Mapping[str, Any]) -> list[str]:
    """Settings in a few words each, those that are set, in the order of the table."""
    return [
        setting.say(values[name])
        for name, setting in SETTINGS.items()
        if values.get(name) not in (None, [], {}, ())
    ]


def said_asked(asked: Mapping[str, Any]) -> list[str]:
    """The settings in a record's ``backend.asked`` in a few words each: ``KV q8_0``."""
    return said({s.name: asked.get(s.asked[0]) for s in askable() if s.asked}) if asked else []


def asked_values(values: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """What was asked of settings that engines read back, as ``backend.asked`` has it."""
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else value
        for setting in askable()
        for name in setting.asked
        if (value := values.get(setting.name)) is not None
    }


def option_of(asked: str) -> str:
    """The option that asks for a name of ``backend.asked``; the name where none does."""
    return next((s.option for s in askable() if asked in s.asked), asked)


def annotation(setting: Setting) -> Any:
    """A setting's type in a model that is read from YAML, without its absence."""
    from typing import Annotated

    from pydantic import BeforeValidator, Field

    text: Any = Annotated[str, Field(min_length=1)]
    match setting.kind:
        case "word":
            return Annotated[Literal[setting.choices], BeforeValidator(_no_switch)]
        case "text":
            return text
        case "texts":
            return list[text]
        case "whole":  # strict, so that "true" is not taken for 1
            return Annotated[int, Field(ge=setting.least, strict=True)]
        case "amount":
            return Annotated[float, Field(gt=0, le=setting.most, allow_inf_nan=False, strict=True)]
        case "options":
            return dict[text, str | int | float | bool]


def fields() -> dict[str, Any]:
    """The fields of a run's spec, absent where nothing is said."""
    return {
        s.name: (annotation(s), {}) if s.kind == "options" else (annotation(s) | None, None)
        for s in askable()
    }


def fields_found(known: Iterable[str]) -> dict[str, Any]:
    """The fields of ``backend.resolved`` beside those it has anyway."""
    return {
        name: (annotation(setting) | None, None)
        for setting in SETTINGS.values()
        for name in setting.asked
        if name not in known
    }


def _no_switch(given: Any) -> Any:
    if isinstance(given, bool):
        raise ValueError('put it in quotes, "on" or "off": YAML takes the bare word for a boolean')
    return given
