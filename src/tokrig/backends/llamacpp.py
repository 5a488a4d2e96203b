"""llama.cpp's own ``llama-server``, a binary the user has.

llama.cpp renames its flags, takes some away and goes on listing those it removed. So each flag is
looked up in the binary's own ``--help`` under all the names it ever had, and the one this build
has is used.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tokrig.backends import Command, Launch, Value
from tokrig.backends import _llama as llama
from tokrig.backends import _llama_log as llama_log
from tokrig.backends import _reading as read
from tokrig.errors import InputError
from tokrig.spec.settings import SpeculativeType

# What tokrig alone sets: always, …
_FLAGS = {
    "model": "{0.model}",
    "host": "127.0.0.1",
    "port": "{0.port}",
    "ctx-size": "{0.context}",
    "parallel": "{0.slots}",
}
_BASIC = (*_FLAGS, "threads")
_OWN = frozenset(
    {*_BASIC, "m", "c", "np", "t", "device", "dev", "model-draft", "spec-draft-model"}
    | {"spec-default", "reasoning", "log-disable", "log-file", "log-jsonl"}
)
# … and what keeps the engine to what was asked, as far as this build has it and no option says
# otherwise: nothing fitted to free memory behind our back, nothing kept of earlier prompts
# but for sessions.
_UNAIDED: Mapping[tuple[str, ...], Value] = {
    ("metrics",): True,
    ("no-ui", "no-webui"): True,
    ("fit",): "off",
}
_CACHE_OFF: Mapping[tuple[str, ...], Value] = {
    ("no-cache-prompt",): True,
    ("cache-ram",): "0",
    ("ctx-checkpoints", "swa-checkpoints"): "0",
}
# Words of --spec-type, newest first.
_TYPES: Mapping[SpeculativeType, tuple[str, ...]] = {
    "ngram": ("ngram-simple",),
    "draft": ("draft-simple", "draft"),
    "mtp": ("draft-mtp", "mtp"),
    "eagle": ("draft-eagle3", "eagle3"),
}

# A flag begins at the left; what follows further right belongs to its description.
_HEAD = re.compile(r"^ {0,8}(-{1,2}[A-Za-z].*)$")


@dataclass(frozen=True)
class Flag:
    """``--gpu-layers`` under all its names, with the words it takes, of ``[on|off|auto]`` or
    ``none,draft-simple``, and the description."""

    names: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True)
class Help:
    """What a build can be told, and what it no longer can, by long names without dashes.
    ``binary`` is its name, for messages."""

    binary: str
    flags: dict[str, Flag] = field(default_factory=dict)
    removed: dict[str, Flag] = field(default_factory=dict)

    @classmethod
    def of(cls, launch: Launch) -> Help:
        """The flags in what the binary of ``launch`` said last."""
        heads: list[list[str]] = []
        for line in (launch.answers[-1] if launch.answers else "").splitlines():
            if match := _HEAD.match(line):
                # Two spaces part names from the text, but also short names from long ones.
                heads.append(re.split(r"(?<![,\s])\s{2,}", match.group(1), maxsplit=1))
            elif heads:
                heads[-1].append(line.strip())
        found = cls(Path(launch.binary or "llama-server").name)
        for head, *about in heads:
            names = tuple(re.findall(r"(?<!\S)--?[A-Za-z][\w-]*", head))
            value = head.split()[-1]
            words = [] if value in names else re.split(r"[|,]", value.strip("[]{}"))
            flag = Flag(names, tuple(words) if len(words) > 1 else (), " ".join(about))
            gone = flag.about.startswith("the argument has been removed")
            long_names = {name[2:]: flag for name in names if name.startswith("--")}
            (found.removed if gone else found.flags).update(long_names)
        return found

    def spelling(self, *names: str) -> str | None:
        """The first of these names that this build knows."""
        return next((name for name in names if name in self.flags), None)

    def require(self, *names: str) -> str:
        """``spelling``. Raises InputError naming the flag that is missing."""
        found = self.spelling(*names)
        if found is None:
            raise InputError(
                f"this {self.binary} is too old for --{names[0]}: its --help does not list it",
                hint="take a newer llama-server, or leave out what needs the flag",
            )
        return found

    def long(self, option: str) -> str:
        """The long name of an option, however it is written (``ngl``)."""
        name = read.flag_name(option)
        if name in self.flags:
            return name
        of_it = (long for long, flag in self.flags.items() if f"-{name}" in flag.names)
        return next(of_it, name)

    def same(self, name: str, other: str) -> bool:
        """Whether two names are one flag."""
        return name == other or (name in self.flags and self.flags[name] is self.flags.get(other))

    def check(self, name: str) -> None:
        """Raises InputError for an option this build does not know."""
        if name in self.removed:
            raise InputError(
                f"this {self.binary} no longer takes --{name}", hint=self.removed[name].about
            )
        if name not in self.flags:
            near = difflib.get_close_matches(name, self.flags, n=1)
            meant = f"did you mean --{near[0]}?" if near else None
            raise InputError(
                f"this {self.binary} has no --{name}: its --help does not list it",
                hint=meant or "it may be too old, or too new, for it",
            )


class LlamaCpp(llama.LlamaServer):
    """Managed. Options are ``llama-server``'s long flags without dashes (``n-gpu-layers: 99``,
    ``flash-attn: on``), checked against the binary's own ``--help``."""

    name = "llamacpp"
    title = "llama.cpp llama-server"
    starts = True
    program = "llama-server"
    get_it = (
        "tokrig engine add llamacpp --api vulkan (or cuda, rocm, cpu), or give its path with"
        " --server-bin"
    )
    precedence = 30
    ports = (8080,)
    # Others imitate its ``/props``, but name themselves as the owner of their models.
    owned_by = "llamacpp"
    tells: Mapping[str, frozenset[str]] = {
        "/props": frozenset({"total_slots", "default_generation_settings"})
    }
    takes: Mapping[str, tuple[str, ...]] = {
        "devices": (),
        "threads": ("threads",),
        "kv_type": ("cache-type-k", "cache-type-v"),
        "batch": ("batch-size",),
        "ubatch": ("ubatch-size",),
        "gpu_layers": ("n-gpu-layers",),
    }
    options: Mapping[str, str] = {"<any long flag>": "as llama-server --help lists it"}

    def questions(self, launch: Launch) -> tuple[tuple[str, ...], ...]:
        """At verbosity 4 the list of devices also tells which APIs were looked for."""
        asked = (("--version",), ("--verbosity", "4", "--list-devices"), ("--help",))
        return tuple((self.binary(launch), *words) for words in asked)

    def vet(self, launch: Launch) -> None:
        known = Help.of(launch)
        if not all(name in known.flags for name in _BASIC):
            said = launch.answers[-1] if launch.answers else ""
            read.refuse(known.binary, self.program, said, llama_log.failure(said), self.hint)
        for name in launch.options:
            known.check(known.long(name))
        llama_log.require_api(
            _listing(launch), launch.api, launch.devices, known.binary, "--server-bin"
        )

    def command(self, launch: Launch) -> Command:
        known = Help.of(launch)
        chosen = {known.long(name): value for name, value in launch.options.items()}
        read.require_free(chosen, _OWN if launch.speculation else _OWN | {"spec-type"})
        given = {n for option in chosen for n in (option, *known.flags) if known.same(n, option)}
        unaided = _UNAIDED if launch.keeps_prompts else {**_UNAIDED, **_CACHE_OFF}
        own: dict[str, Value | None] = {
            **{flag: form.format(launch) for flag, form in _FLAGS.items()},
            **dict(_devices(launch, known)),
            **dict(_speculation(launch, known, chosen.get("spec-type"))),
            **dict(_reasoning(launch, known)),
            **{known.require(flag): v for flag, v in self.setting_flags(launch, given).items()},
            **{f: value for names, value in unaided.items() if (f := known.spelling(*names))},
        }
        # Its log can be read at level 4, but where that is no level of its own it means "debug":
        # a line for every token.
        if "4: trace" in known.flags.get("verbosity", Flag()).about:
            own["verbosity"] = "4"
        own = {name: value for name, value in own.items() if name in _OWN or name not in given}
        for name, value in chosen.items():
            # YAML turns ``on`` and ``off`` into booleans; flags that take the words get them back.
            words = known.flags.get(name, Flag()).choices
            if isinstance(value, bool) and "on" in words and "off" in words:
                chosen[name] = "on" if value else "off"
        return Command((self.binary(launch), *read.long_flags(own), *read.long_flags(chosen)))

    def values(self, launch: Launch, flag: str) -> list[str]:
        """As the flag's description lists them."""
        about = Help.of(launch).flags.get(flag, Flag()).about
        listed = re.search(r"allowed values: ([\w, ]+)", about)
        return re.findall(r"\w+", listed.group(1)) if listed else []


def _listing(launch: Launch) -> str:
    return "\n".join(launch.answers[:-1])


def _devices(launch: Launch, known: Help) -> Iterator[tuple[str, str]]:
    """Which devices the model and its draft may use, and all layers on them."""
    names = llama_log.devices_for(_listing(launch), launch.api, launch.devices)
    if names:
        yield known.require("device"), ",".join(names)
        draft = known.spelling("spec-draft-device", "device-draft")
        if draft and launch.speculation and launch.speculation.draft_model:
            yield draft, ",".join(names)
    if launch.devices or launch.api not in (None, "cpu"):
        layers = known.require(*llama.GPU_LAYERS)
        yield layers, "all" if "'all'" in known.flags[layers].about else "999"


def _speculation(
    launch: Launch, known: Help, given: Value | None
) -> Iterator[tuple[str, str | None]]:
    """``given`` is the option --spec-type. Builds that have no such flag draft as soon as they
    have a draft model."""
    asked = launch.speculation
    if asked is None:
        return
    words = known.flags.get("spec-type", Flag()).choices
    kind = next((word for word in _TYPES[asked.type] if word in words), None)
    if given is not None:
        kind = str(given)
    elif kind is None and asked.type != "draft":
        raise InputError(
            f"this {known.binary} is too old for --spec-type {_TYPES[asked.type][0]}",
            hint=f"it knows: {', '.join(words) or 'no --spec-type'}",
        )
    yield "spec-type", kind
    if asked.draft_model is not None:
        yield known.require("spec-draft-model", "model-draft"), str(asked.draft_model)
    if asked.draft_tokens is not None:
        names = ["spec-draft-n-max", "draft-max"]
        if asked.type == "ngram":
            names = [f"spec-{kind}-size-m", f"spec-{kind}-n-max", "spec-ngram-size-m", "draft-max"]
        yield known.require(*names), str(asked.draft_tokens)


def _reasoning(launch: Launch, known: Help) -> Iterator[tuple[str, str]]:
    """Older builds know only a budget, of which 0 switches the template's thinking off. Newer
    ones mean by it an end forced on a template that goes on thinking."""
    asked = launch.engine_switch
    if asked and known.spelling("reasoning"):
        yield "reasoning", asked
    elif asked == "off":
        yield known.require("reasoning-budget"), "0"


BACKEND = LlamaCpp()
