"""What two runs can differ in: the record's keys, grouped into what people call one variable.

Pure. Changing the quant changes the file, its size and its hash as well; that is one changed
variable with several differing keys. ``follows`` names the variables whose change explains a
change of this one, so that it does not count by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from tokrig.naming import UNKNOWN_RIG, gpus_known
from tokrig.record.model import Record, _Resolved
from tokrig.spec.settings import SETTINGS, Setting

MAX_TEXT = 400

State = Literal["same", "differs", "unknown"]


@dataclass(frozen=True)
class Variable:
    """One thing that a person changes. ``counts`` is False for what is listed when it differs,
    but describes how the record came about rather than what was measured. ``rare`` is what only
    some engines have: where neither side names it, neither has it. A change of ``covers`` leaves
    nothing to ask about this one where a side does not tell it."""

    name: str
    keys: tuple[str, ...]
    follows: tuple[str, ...] = ()
    counts: bool = True
    rare: bool = False
    covers: tuple[str, ...] = ()


def _under(prefix: str, names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names.split())


# What engines read back has a variable each; other settings are part of one of those below.
_SETTINGS = [setting for setting in SETTINGS.values() if setting.asked]


def _of_setting(setting: Setting) -> Variable:
    # What records had before there was a table of settings, every engine tells.
    new = not set(setting.asked) & set(_Resolved.model_fields)
    return Variable(setting.label, setting.found, setting.follows, rare=new)


VARIABLES = (
    Variable("model", _under("model", "family variant")),
    Variable("quant", ("model.quant",)),
    Variable("quant creator", ("model.quant_creator",), covers=("quant",)),
    Variable(
        "model file",
        _under(
            "model",
            "sha256 file bytes format parameters active_parameters bits_per_weight tensor_types"
            " context_train architecture chat_template_sha256 license",
        ),
        follows=("model", "quant", "quant creator"),
    ),
    # What a file is called beside what is in it makes no other quant.
    Variable("quant stated", ("model.quant_stated",), counts=False, rare=True),
    # Another base makes another file; one file that does not name it is the same all the same.
    Variable("base model", ("model.base_model",), counts=False, rare=True),
    # Where a file came from makes no other file.
    Variable("repository", _under("model", "repo revision"), counts=False, rare=True),
    Variable(
        "quantized from",
        _under("model.quantized_from", "file sha256 quant tool"),
        follows=("model", "quant", "quant creator", "model file"),
        rare=True,
    ),
    Variable("engine", ("backend.engine",)),
    Variable("build", ("backend.build",), follows=("engine",)),
    Variable("wrapper", ("backend.wrapper",), rare=True),
    Variable("backend", ("backend.name",), follows=("engine", "build", "wrapper")),
    Variable("API", ("backend.api",)),
    # One choice with all that belongs to it: kind, draft model, length of drafts, reasoning.
    Variable(
        "mode", _under("mode", "name speculative draft_model draft_tokens reasoning_asked offload")
    ),
    Variable("draft model file", ("mode.draft_sha256",), follows=("mode",)),
    # Families and engines are switched in ways of their own: that makes no other mode.
    Variable("reasoning switch", ("mode.reasoning_switch",), follows=("model", "engine", "mode")),
    Variable(
        "reasoning", ("model.reasoning", "mode.reasoning_observed"), follows=("model", "mode")
    ),
    Variable("concurrency", ("concurrency",)),
    Variable("machine", ("rig.id", "rig.cpu.model", "rig.cpu.cores")),
    # What it is on, where its processor does not say that.
    Variable("board", ("rig.board", "rig.cpu.soc"), follows=("machine",), rare=True),
    Variable("GPU", ("rig.gpus.name", "rig.gpus.mig_profile"), follows=("machine",)),
    Variable("driver", ("rig.gpus.driver",), follows=("machine", "GPU")),
    Variable("power limit", ("rig.gpus.power_limit_w",), follows=("machine", "GPU")),
    # The limit says what there was; this, that the run itself had set it.
    Variable("power cap", ("mode.power_cap_w", "rig.gpus.power_min_w"), counts=False, rare=True),
    Variable(
        "GPU details",
        _under(
            "rig.gpus",
            "vendor arch vram_bytes unified_memory power_max_w power_default_w clock_max_mhz"
            " memory_clock_max_mhz pcie_generation pcie_width",
        ),
        follows=("machine", "GPU", "driver"),
    ),
    Variable("CPU governor", ("rig.cpu.governor",), follows=("machine",)),
    # A kernel decides how much memory and which features of the processor can be seen.
    Variable(
        "CPU details", _under("rig.cpu", "threads max_mhz features"), follows=("machine", "kernel")
    ),
    # Older records do not tell, and a machine without limits leaves all of it.
    Variable(
        "limits",
        ("rig.cpu.usable_cpus", "rig.memory.usable_bytes"),
        follows=("machine", "kernel"),
        rare=True,
    ),
    Variable(
        "memory",
        _under("rig.memory", "total_bytes speed_mt_per_s type"),
        follows=("machine", "kernel"),
    ),
    Variable("os", ("rig.os",), follows=("machine",)),
    Variable("kernel", ("rig.kernel",), follows=("machine",)),
    Variable("virtualization", ("rig.virtualization",), follows=("machine",)),
    *(_of_setting(setting) for setting in _SETTINGS),
    Variable("slots", ("backend.resolved.slots",)),
    Variable(
        "shared cache",
        _under("backend.resolved", "context_total kv_unified"),
        follows=("context", "slots"),
        rare=True,
    ),
    Variable("batch threads", ("backend.resolved.threads_batch",), follows=("machine", "threads")),
    Variable("flash attention", ("backend.resolved.flash_attention",), follows=("engine",)),
    Variable("layers", ("backend.resolved.layers",), follows=("model", "engine")),
    Variable(
        "quantization",
        ("backend.resolved.quantization",),
        follows=("model", "quant", "model file", "engine"),
        rare=True,
    ),
    Variable(
        "dtype",
        ("backend.resolved.dtype",),
        follows=("model", "quant", "model file", "quantization", "engine"),
        rare=True,
    ),
    Variable(
        "prefix caching", ("backend.resolved.prefix_caching",), follows=("engine",), rare=True
    ),
    Variable(
        "tensor parallel",
        ("backend.resolved.tensor_parallel",),
        follows=("machine", "GPU", "engine"),
        rare=True,
    ),
    Variable(
        "split mode",
        ("backend.resolved.split_mode",),
        follows=("machine", "GPU", "engine", "API", "devices"),
        rare=True,
    ),
    Variable(
        "compiled CPU features",
        ("backend.resolved.cpu_features",),
        follows=("machine", "engine", "build"),
    ),
    Variable(
        "chat template",
        ("backend.resolved.chat_template",),
        follows=("model", "quant creator", "engine"),
    ),
    Variable("environment", ("backend.env",), follows=("engine",)),
    # Whatever a setting above shows has changed the command line, too.
    Variable(
        "command line",
        ("backend.argv",),
        follows=(
            *("engine", "backend", "build", "wrapper", "API", "mode", "reasoning switch"),
            *("slots", "batch threads", "flash attention", "quantization", "dtype"),
            *("prefix caching", "tensor parallel", "split mode"),
            *(setting.label for setting in _SETTINGS),
        ),
    ),
    # Not a setting: figures of two methodologies are not compared at all (see classes.py).
    Variable("methodology", ("provenance.methodology",), counts=False),
    Variable(
        "provenance",
        (
            *_under("provenance", "kind source tokrig_version tokrig_commit server_starts"),
            *_under("provenance", "level seed source_url source_sha256 campaign planned"),
            *("model.identity_from", "backend.api_confirmed", "backend.managed"),
        ),
        counts=False,
    ),
    Variable("source of the machine's facts", ("rig.facts_from",), counts=False, rare=True),
    # What came of a wish stands among the settings.
    Variable("start", _under("backend", "api_asked asked bypass"), counts=False, rare=True),
)
KEYS = tuple(key for variable in VARIABLES for key in variable.keys)


def known_keys(record: Record) -> dict[str, str]:
    """The value of every known key as text; what is not known is absent."""
    found = {key: _value(record, key) for key in KEYS if key != "concurrency"}
    return {key: value_text(value) for key, value in found.items() if value is not None}


def _value(record: Record, key: str) -> Any:
    """A key's value, None where it is not known. An empty list is what nobody looked for,
    except where its absence is a fact."""
    if key.startswith("rig.gpus."):
        return _of_gpus(record, key.removeprefix("rig.gpus."))
    if key.startswith("model.quantized_from.") and record.model.quantized_from is None:
        return None
    if key == "provenance.methodology" and record.provenance.kind != "measured":
        return None  # it judged the figures; how they were measured is not known
    value = attrgetter(key)(record)
    if key == "rig.id" and value == UNKNOWN_RIG:
        return None  # two machines that nobody named
    if key == "mode.name":
        # A cap is told by the cards' limit; here it would make one change two.
        return "+".join(p for p in value.split("+") if not p.startswith("cap-")) or "baseline"
    if key == "backend.env" and record.backend.argv:
        return value or "none"
    if key == "backend.argv" and value and record.model.file:
        # Which file it is stands in model.file; here it would make one change two.
        return [word.replace(record.model.file, "<model file>") for word in value]
    if key in _ABSENT_UNLESS_ASKED and _tells_of_modes(record):
        return value or "none"
    if key == "mode.draft_sha256" and record.mode.draft_model is None and _tells_of_modes(record):
        return "none"
    if key == "backend.wrapper" and record.backend.managed:
        return value or "none"
    return None if value in ([], {}) else value


_ABSENT_UNLESS_ASKED = frozenset(
    _under("mode", "speculative draft_model draft_tokens reasoning_asked reasoning_switch offload")
)


def _tells_of_modes(record: Record) -> bool:
    """Whether what a mode does not name was not switched on, rather than not written down."""
    return record.mode.name == "baseline" or record.provenance.kind == "measured"


def _of_gpus(record: Record, name: str) -> Any:
    """One field of all GPUs; known only where it is known of each."""
    gpus = record.rig.gpus
    if not gpus:
        return "none" if record.provenance.kind == "measured" and gpus_known(record.rig) else None
    values = [getattr(gpu, name) for gpu in gpus]
    if name == "mig_profile":
        return [value or "whole" for value in values]
    return None if None in values else values


def value_text(value: Any) -> str:
    """A value as one line of printable text. What had to be left out of it is told apart by a
    piece of its digest: equal texts mean equal values."""
    if isinstance(value, Mapping):
        plain = ", ".join(f"{key}={value[key]}" for key in sorted(value))
    elif isinstance(value, Iterable) and not isinstance(value, str):
        plain = ", ".join(map(_scalar_text, value))
    else:
        plain = _scalar_text(value)
    shown = "".join(char if char.isprintable() else " " for char in plain)
    if shown == plain and len(plain) <= MAX_TEXT:
        return plain
    digest = hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{shown[:MAX_TEXT]}… (SHA-256 {digest})"


def _scalar_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Entry:
    """A key that differs, or that is not known on both sides (None = not known)."""

    key: str
    variable: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class Differences:
    """``changed`` are the variables that count as changed, ``assumed`` those that would count
    but are not known of both; ``unread`` are not told either, but what decides them is the same.
    ``differing`` and ``unknown`` are the keys of either kind."""

    changed: tuple[str, ...]
    assumed: tuple[str, ...]
    unread: tuple[str, ...]
    differing: tuple[Entry, ...]
    unknown: tuple[Entry, ...]
    states: Mapping[str, State]
    on_cpu: bool
    no_gpu: bool

    def state(self, name: str) -> State:
        """Of a variable or of one key: unknown is neither the same nor different."""
        return self.states[name]


def differences(a: Mapping[str, str], b: Mapping[str, str]) -> Differences:
    """What differs between the ``known_keys`` of two runs."""
    states: dict[str, State] = {}
    differing: list[Entry] = []
    unknown: list[Entry] = []
    untold: set[str] = set()
    for variable in VARIABLES:
        for key in variable.keys:
            entry = Entry(key, variable.name, a.get(key), b.get(key))
            states[key] = _state(entry, variable)
            if states[key] != "same":
                (differing if states[key] == "differs" else unknown).append(entry)
            if entry.a is None and entry.b is None:
                untold.add(key)
        of_keys = {states[key] for key in variable.keys}
        states[variable.name] = next(s for s in _GRAVEST if s in of_keys)
    on_cpu = a.get("backend.api") == b.get("backend.api") == "cpu"
    counted = [v for v in VARIABLES if v.counts and not (on_cpu and is_of_gpus(v))]
    changed = tuple(
        v.name for v in counted if states[v.name] == "differs" and not _explained(v.follows, states)
    )
    open_ = [
        v
        for v in counted
        if states[v.name] == "unknown" and not _explained((*v.follows, *v.covers), states)
    ]
    unread = [v for v in open_ if _is_decided(v, states, untold, changed)]
    return Differences(
        changed=changed,
        assumed=tuple(v.name for v in open_ if v not in unread),
        unread=tuple(v.name for v in unread),
        differing=tuple(differing),
        unknown=tuple(unknown),
        states=states,
        on_cpu=on_cpu,
        no_gpu="cpu" in (a.get("backend.api"), b.get("backend.api"))
        or a.get("rig.gpus.name") == "none",
    )


def is_of_gpus(variable: Variable) -> bool:
    """Whether a variable is of the graphics cards alone: idle ones change nothing of a CPU's."""
    return all(key.startswith("rig.gpus.") for key in variable.keys)


def _explained(by: Iterable[str], states: Mapping[str, State]) -> bool:
    return any(states[name] == "differs" for name in by)


# What decides everything that an engine was not asked for and does not tell.
STARTED_BY = ("engine", "build", "environment", "machine")


def _is_decided(
    variable: Variable, states: Mapping[str, State], untold: set[str], changed: Sequence[str]
) -> bool:
    """Whether what is not known is the same all the same, because what decides it is known.

    One file has one content. What neither of two measured records could read of a machine, nor of
    an engine that was started with the same words, was there to be read in neither.
    """
    if variable.name in OF_THE_FILE:
        return states["model.sha256"] == "same"
    if not all(key in untold or states[key] == "same" for key in variable.keys):
        return False
    if states["provenance.kind"] != "same" or states["provenance.methodology"] != "same":
        return False
    if all(key.startswith("rig.") for key in variable.keys):
        return variable.name not in ("machine", "GPU")
    return (
        states["backend.managed"] == "same"
        and states["backend.argv"] != "unknown"
        and "command line" not in changed
        and all(states[name] == "same" for name in STARTED_BY)
        and any(key.startswith(("backend.resolved.", "mode.", "model.")) for key in variable.keys)
    )


OF_THE_FILE = ("model", "quant", "quant creator", "model file", "quantized from")
_GRAVEST: tuple[State, ...] = ("differs", "unknown", "same")


def _state(entry: Entry, variable: Variable) -> State:
    if variable.rare and entry.a is None and entry.b is None:
        return "same"
    if entry.a is None or entry.b is None:
        return "unknown"
    return "same" if entry.a == entry.b else "differs"
