"""llama.cpp's own ``llama-server``, a binary the user has."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from tokrig.backends import Ask, Availability, Command, Launch, _llama_help, _llama_http, _starting
from tokrig.backends import _llama_log as llama_log
from tokrig.backends._llama_help import Help
from tokrig.backends._llama_wishes import GPU_LAYERS
from tokrig.backends._openai_http import kv_flags, option_flags
from tokrig.errors import InputError
from tokrig.spec.run import SpeculativeType

_OWN = frozenset(
    {"model", "m", "host", "port", "ctx-size", "c", "parallel", "np", "threads", "t"}
    | {"device", "dev", "model-draft", "spec-draft-model", "spec-default", "reasoning"}
    | {"log-disable", "log-file", "log-jsonl"}
)
_HINT = "give its path with --server-bin, or put llama-server on the PATH"
_BASIC = ("model", "host", "port", "ctx-size", "parallel", "threads")

# Words of --spec-type, newest first.
_TYPES: Mapping[SpeculativeType, tuple[str, ...]] = {
    "ngram": ("ngram-simple",),
    "draft": ("draft-simple", "draft"),
    "mtp": ("draft-mtp", "mtp"),
    "eagle": ("draft-eagle3", "eagle3"),
}


class LlamaCpp(_llama_http.LlamaServer):
    """Managed. Options are ``llama-server``'s long flags without dashes (``n-gpu-layers: 99``,
    ``flash-attn: on``), checked against the binary's own ``--help``."""

    name = "llamacpp"
    title = "llama.cpp llama-server"
    starts = True
    precedence = 30
    ports: tuple[int, ...] = (8080,)
    options: Mapping[str, str] = {"<any long flag>": "as llama-server --help lists it"}

    def availability(self) -> Availability:
        found = shutil.which("llama-server")
        if found:
            return Availability(True, "llama-server is on the PATH")
        return Availability(False, "no llama-server on the PATH", _HINT)

    def questions(self, launch: Launch) -> tuple[tuple[str, ...], ...]:
        """At verbosity 4 the list of devices also tells which APIs were looked for."""
        binary = _binary(launch)
        return (
            (binary, "--version"),
            (binary, "--verbosity", "4", "--list-devices"),
            (binary, "--help"),
        )

    def vet(self, launch: Launch) -> None:
        known = _help(launch)
        if not all(name in known.flags for name in _BASIC):
            said = launch.answers[-1] if launch.answers else ""
            _starting.require_able(known.binary, said)
            reason = llama_log.failure(said) or next(iter(said.strip().splitlines()), "")
            raise InputError(
                f"{known.binary} is no llama-server: its --help says {reason[:200]!r}", hint=_HINT
            )
        for name in launch.options:
            known.check(known.long(_flag_name(name)))
        listing = _listing(launch)
        llama_log.require_api(listing, launch.api, launch.devices, known.binary, "--server-bin")

    def command(self, launch: Launch) -> Command:
        known = _help(launch)
        own = {
            "model": str(launch.model),
            "host": "127.0.0.1",
            "port": str(launch.port),
            "ctx-size": str(launch.context_per_slot * launch.slots),
            "parallel": str(launch.slots),
            **({"threads": str(launch.threads)} if launch.threads is not None else {}),
            **_devices(launch, known),
            **_speculation(launch, known),
            **_reasoning(launch, known),
            **_kv_types(launch, known),
            **_unaided(known),
        }
        chosen = {known.long(_flag_name(name)): value for name, value in launch.options.items()}
        argv = [_binary(launch)]
        for name, value in own.items():
            if name in _OWN or not any(known.same(name, option) for option in chosen):
                argv += [f"--{name}", value] if value else [f"--{name}"]
        refused = _OWN if launch.speculation else _OWN | {"spec-type"}
        argv += option_flags({n: _word(known, n, v) for n, v in chosen.items()}, refused)
        return Command(tuple(argv))

    def recognises(self, ask: Ask) -> bool:
        return _llama_http.is_llama_server(ask)


def _binary(launch: Launch) -> str:
    return _starting.program(launch.binary or "llama-server", "llama-server", _HINT)


def _help(launch: Launch) -> Help:
    binary = Path(launch.binary or "llama-server").name
    return _llama_help.read(binary, launch.answers[-1] if launch.answers else "")


def _flag_name(option: str) -> str:
    return option.lstrip("-").replace("_", "-")


def _word(known: Help, name: str, value: str | int | float | bool) -> str | int | float | bool:
    """YAML turns ``on`` and ``off`` into booleans; flags that take the words get them back."""
    flag = known.find(name)
    if isinstance(value, bool) and flag is not None and {"on", "off"} <= {*flag.choices}:
        return "on" if value else "off"
    return value


def _unaided(known: Help) -> dict[str, str]:
    """What keeps the engine to what was asked, as far as this build has it: nothing fitted to
    free memory behind our back, nothing kept of earlier prompts; and a log that can be read."""
    wanted = (
        (("metrics",), ""),
        (("no-ui", "no-webui"), ""),
        (("fit",), "off"),
        (("no-cache-prompt",), ""),
        (("cache-ram",), "0"),
        (("ctx-checkpoints", "swa-checkpoints"), "0"),
    )
    found = {flag: value for names, value in wanted if (flag := known.spelling(*names))}
    verbosity = known.find("verbosity")
    # Where 4 is no level of its own it means "debug": a line for every token.
    if verbosity is not None and "4: trace" in verbosity.about:
        found["verbosity"] = "4"
    return found


def _devices(launch: Launch, known: Help) -> dict[str, str]:
    """Which devices the model and its draft may use, and all layers on them."""
    names = llama_log.devices_for(_listing(launch), launch.api, launch.devices)
    found: dict[str, str] = {}
    if names:
        found[known.require("device")] = ",".join(names)
        draft = known.spelling("spec-draft-device", "device-draft")
        if draft and launch.speculation and launch.speculation.draft_model:
            found[draft] = ",".join(names)
    if launch.devices or launch.api not in (None, "cpu"):
        layers = known.require(*GPU_LAYERS)
        flag = known.find(layers)
        found[layers] = "all" if flag and "'all'" in flag.about else "999"
    return found


def _listing(launch: Launch) -> str:
    """What the binary said of its version and devices."""
    return "\n".join(launch.answers[:-1])


def _speculation(launch: Launch, known: Help) -> dict[str, str]:
    asked = launch.speculation
    if asked is None:
        return {}
    found: dict[str, str] = {}
    kind = _speculation_kind(launch, known, asked.type)
    if kind is not None:
        found["spec-type"] = kind
    if asked.draft_model is not None:
        found[known.require("spec-draft-model", "model-draft")] = str(asked.draft_model)
    if asked.draft_tokens is not None:
        names = (f"spec-{kind}-size-m", f"spec-{kind}-n-max")
        if asked.type == "ngram":
            flag = known.require(*names, "spec-ngram-size-m", "draft-max")
        else:
            flag = known.require("spec-draft-n-max", "draft-max")
        found[flag] = str(asked.draft_tokens)
    return found


def _speculation_kind(launch: Launch, known: Help, asked: SpeculativeType) -> str | None:
    """The word for --spec-type; None for builds that draft as soon as they have a draft model."""
    for name, value in launch.options.items():
        if _flag_name(name) == "spec-type":
            return str(value)
    flag = known.find("spec-type")
    words = flag.choices if flag else ()
    kind = next((word for word in _TYPES[asked] if word in words), None)
    if kind is None and asked != "draft":
        raise InputError(
            f"this {known.binary} is too old for --spec-type {_TYPES[asked][0]}",
            hint=f"it knows: {', '.join(words) or 'no --spec-type'}",
        )
    return kind


def _reasoning(launch: Launch, known: Help) -> dict[str, str]:
    """Older builds know only a budget, of which 0 switches the template's thinking off. Newer
    ones mean by it an end forced on a template that goes on thinking."""
    switch = launch.reasoning
    if switch is None or not switch.engine_flag:
        return {}
    if known.spelling("reasoning"):
        return {"reasoning": switch.asked}
    if switch.asked == "off":
        return {known.require("reasoning-budget"): "0"}
    return {}


def _kv_types(launch: Launch, known: Help) -> dict[str, str]:
    """Keys and values alike, of a type that the flag's description lists as allowed."""
    if launch.kv_type is None:
        return {}
    names = [known.require(name) for name in ("cache-type-k", "cache-type-v")]
    listed = re.search(r"allowed values: ([\w, ]+)", known.flags[names[0]].about)
    return kv_flags(launch, *names, known=re.findall(r"\w+", listed.group(1)) if listed else ())


BACKEND = LlamaCpp()
