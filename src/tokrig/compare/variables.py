"""What two runs can differ in: the record's keys, grouped into what people call one variable.

Pure. Changing the quant changes the file, its size and its hash as well; that is one changed
variable with several differing keys. ``follows`` names the variables whose change explains a
change of this one, so that it does not count by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from tokrig.naming import UNKNOWN_RIG, gpus_known
from tokrig.record.model import ReadBack, Record
from tokrig.spec.settings import SETTINGS

MAX_TEXT = 400

State = Literal["same", "differs", "unknown"]
GRAVEST: tuple[State, ...] = ("differs", "unknown", "same")


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


def _of(
    name: str,
    keys: str,
    follows: str = "",
    *,
    counts: bool = True,
    rare: bool = False,
    covers: tuple[str, ...] = (),
) -> Variable:
    """A line of the table below: keys one after the other, a word that ends in a dot being the
    block of those after it; the names of variables with commas between them."""
    found, block = [], ""
    for word in keys.split():
        if word.endswith("."):
            block = word
        else:
            found.append(block + word)
    return Variable(
        name, tuple(found), tuple(filter(None, follows.split(", "))), counts, rare, covers
    )


# What engines read back has a variable each; other settings are part of one of those below.
_SETTINGS = [setting for setting in SETTINGS.values() if setting.asked]

VARIABLES = (
    _of("model", "model. family variant"),
    _of("quant", "model. quant"),
    _of("quant creator", "model. quant_creator", covers=("quant",)),
    _of(
        "model file",
        "model. sha256 file bytes format parameters active_parameters bits_per_weight tensor_types"
        " context_train architecture chat_template_sha256 license",
        "model, quant, quant creator",
    ),
    # What a file is called beside what is in it makes no other quant.
    _of("quant stated", "model. quant_stated", counts=False, rare=True),
    # Another base makes another file; one file that does not name it is the same all the same.
    _of("base model", "model. base_model", counts=False, rare=True),
    # Where a file came from makes no other file.
    _of("repository", "model. repo revision", counts=False, rare=True),
    _of(
        "quantized from",
        "model.quantized_from. file sha256 quant tool",
        "model, quant, quant creator, model file",
        rare=True,
    ),
    _of("engine", "backend. engine"),
    _of("build", "backend. build", "engine"),
    _of("wrapper", "backend. wrapper", rare=True),
    _of("backend", "backend. name", "engine, build, wrapper"),
    _of("API", "backend. api"),
    # One choice with all that belongs to it: kind, draft model, length of drafts, reasoning.
    _of("mode", "mode. name speculative draft_model draft_tokens reasoning_asked offload"),
    _of("draft model file", "mode. draft_sha256", "mode"),
    # Families and engines are switched in ways of their own: that makes no other mode.
    _of("reasoning switch", "mode. reasoning_switch", "model, engine, mode"),
    _of("reasoning", "model. reasoning mode. reasoning_observed", "model, mode"),
    _of("concurrency", "concurrency"),
    _of("machine", "rig. id cpu.model cpu.cores"),
    # What it is on, where its processor does not say that.
    _of("board", "rig. board cpu.soc", "machine", rare=True),
    _of("GPU", "rig.gpus. name mig_profile", "machine"),
    _of("driver", "rig.gpus. driver", "machine, GPU"),
    _of("power limit", "rig.gpus. power_limit_w", "machine, GPU"),
    # The limit says what there was; this, that the run itself had set it.
    _of("power cap", "mode. power_cap_w rig.gpus. power_min_w", counts=False, rare=True),
    _of(
        "GPU details",
        "rig.gpus. vendor arch vram_bytes unified_memory power_max_w power_default_w clock_max_mhz"
        " memory_clock_max_mhz pcie_generation pcie_width",
        "machine, GPU, driver",
    ),
    _of("CPU governor", "rig.cpu. governor", "machine"),
    # A kernel decides how much memory and which features of the processor can be seen.
    _of("CPU details", "rig.cpu. threads max_mhz features", "machine, kernel"),
    # Older records do not tell, and a machine without limits leaves all of it.
    _of("limits", "rig. cpu.usable_cpus memory.usable_bytes", "machine, kernel", rare=True),
    _of("memory", "rig.memory. total_bytes speed_mt_per_s type", "machine, kernel"),
    # What a figure is held against, not what made it.
    _of(
        "bandwidth",
        "rig. cpu.cache_bytes cpu.matrix_flop_per_s cpu.matrix_type rig.memory."
        " bandwidth_bytes_per_s bandwidth_from rig.gpus. bandwidth_bytes_per_s bandwidth_from"
        " matrix_flop_per_s matrix_type",
        counts=False,
        rare=True,
    ),
    _of("os", "rig. os", "machine"),
    _of("kernel", "rig. kernel", "machine"),
    _of("virtualization", "rig. virtualization", "machine"),
    # What records had before there was a table of settings, every engine tells.
    *(
        Variable(s.label, s.found, s.follows, rare=not {*s.asked} & {*ReadBack.model_fields})
        for s in _SETTINGS
    ),
    _of("slots", "backend.resolved. slots"),
    _of("shared cache", "backend.resolved. context_total kv_unified", "context, slots", rare=True),
    _of("batch threads", "backend.resolved. threads_batch", "machine, threads"),
    _of("flash attention", "backend.resolved. flash_attention", "engine"),
    _of("layers", "backend.resolved. layers", "model, engine"),
    _of(
        "quantization",
        "backend.resolved. quantization",
        "model, quant, model file, engine",
        rare=True,
    ),
    _of(
        "dtype",
        "backend.resolved. dtype",
        "model, quant, model file, quantization, engine",
        rare=True,
    ),
    _of("prefix caching", "backend.resolved. prefix_caching", "engine", rare=True),
    _of("tensor parallel", "backend.resolved. tensor_parallel", "machine, GPU, engine", rare=True),
    _of(
        "split mode",
        "backend.resolved. split_mode",
        "machine, GPU, engine, API, devices",
        rare=True,
    ),
    _of("compiled CPU features", "backend.resolved. cpu_features", "machine, engine, build"),
    _of("chat template", "backend.resolved. chat_template", "model, quant creator, engine"),
    _of("environment", "backend. env", "engine"),
    # Whatever a setting above shows has changed the command line, too.
    _of(
        "command line",
        "backend. argv",
        "engine, backend, build, wrapper, API, mode, reasoning switch, slots, batch threads,"
        " flash attention, quantization, dtype, prefix caching, tensor parallel, split mode, "
        + ", ".join(setting.label for setting in _SETTINGS),
    ),
    # Not a setting: figures of two methodologies are not compared at all.
    _of("methodology", "provenance. methodology", counts=False),
    _of(
        "provenance",
        "provenance. kind source tokrig_version tokrig_commit server_starts level seed source_url"
        " source_sha256 stated campaign planned model. identity_from backend. api_confirmed"
        " managed",
        counts=False,
    ),
    _of("source of the machine's facts", "rig. facts_from", counts=False, rare=True),
    # What came of a wish stands among the settings.
    _of("start", "backend. api_asked asked bypass", counts=False, rare=True),
)
KEYS = tuple(key for variable in VARIABLES for key in variable.keys)
# What a mode does not name was not switched on, where a record tells of modes at all.
_ABSENT_UNLESS_ASKED = {
    *("mode.speculative", "mode.draft_model", "mode.draft_tokens", "mode.reasoning_asked"),
    *("mode.reasoning_switch", "mode.offload"),
}
OF_THE_FILE = ("model", "quant", "quant creator", "model file", "quantized from")
# What decides everything that an engine was not asked for and does not tell.
STARTED_BY = ("engine", "build", "environment", "machine")


def known_keys(record: Record) -> dict[str, str]:
    """The value of every known key as text; what is not known is absent."""
    found = {key: _value(record, key) for key in KEYS if key != "concurrency"}
    return {key: value_text(value) for key, value in found.items() if value is not None}


# What makes two records of one configuration. What neither tells of an engine that tokrig started
# on the same rig with the same words is the same here.
_COUNTED = tuple(key for v in VARIABLES if v.counts and v.name != "concurrency" for key in v.keys)


def configuration(record: Record) -> tuple[object, ...]:
    """What is the same for records of one configuration. Nobody knows that of two machines which
    nobody named."""
    keys = known_keys(record)
    named = "" if "rig.id" in keys else record.id
    return (record.provenance.methodology, named, *(keys.get(key) for key in _COUNTED))


def _value(record: Record, key: str) -> Any:
    """A key's value, None where it is not known. An empty list is what nobody looked for,
    except where its absence is a fact."""
    backend, mode, measured = record.backend, record.mode, record.provenance.kind == "measured"
    if key.startswith("rig.gpus."):
        return _of_gpus(record, key.removeprefix("rig.gpus."))
    if key.startswith("model.quantized_from.") and record.model.quantized_from is None:
        return None
    if key == "provenance.methodology" and not measured:
        return None  # it judged the figures; how they were measured is not known
    value = attrgetter(key)(record)
    if key == "rig.id" and value == UNKNOWN_RIG:
        return None  # two machines that nobody named
    if key == "mode.name":
        # A cap is told by the cards' limit; here it would make one change two.
        return "+".join(p for p in value.split("+") if not p.startswith("cap-")) or "baseline"
    if key == "backend.argv" and value and record.model.file:
        # Which file it is stands in model.file; here it would make one change two.
        return [word.replace(record.model.file, "<model file>") for word in value]
    tells_of_modes = measured or mode.name == "baseline"
    if (
        (key in _ABSENT_UNLESS_ASKED and tells_of_modes)
        or (key == "mode.draft_sha256" and mode.draft_model is None and tells_of_modes)
        or (key == "backend.env" and backend.argv)
        or (key == "backend.wrapper" and backend.managed)
    ):
        return value or "none"
    return None if value in ([], {}) else value


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
    but are not known for both; ``unread`` are not told either, but what decides them is the same.
    ``differing`` and ``unknown`` are the keys of either kind, ``states`` those of all of them and
    of the variables."""

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
    entries: dict[State, list[Entry]] = {"same": [], "differs": [], "unknown": []}
    for variable in VARIABLES:
        for key in variable.keys:
            entry = Entry(key, variable.name, a.get(key), b.get(key))
            states[key] = _state(entry.a, entry.b, variable)
            entries[states[key]].append(entry)
        of_keys = {states[key] for key in variable.keys}
        states[variable.name] = next(state for state in GRAVEST if state in of_keys)

    def explained(by: Iterable[str]) -> bool:
        return any(states[name] == "differs" for name in by)

    on_cpu = a.get("backend.api") == b.get("backend.api") == "cpu"
    counted = [v for v in VARIABLES if v.counts]
    if on_cpu:  # idle graphics cards change nothing
        counted = [v for v in counted if not all(key.startswith("rig.gpus.") for key in v.keys)]
    changed = tuple(
        v.name for v in counted if states[v.name] == "differs" and not explained(v.follows)
    )
    untold = {*KEYS} - a.keys() - b.keys()
    decided = {
        v.name: _is_decided(v, states, untold, changed)
        for v in counted
        if states[v.name] == "unknown" and not explained((*v.follows, *v.covers))
    }
    return Differences(
        changed=changed,
        assumed=tuple(name for name, is_decided in decided.items() if not is_decided),
        unread=tuple(name for name, is_decided in decided.items() if is_decided),
        differing=tuple(entries["differs"]),
        unknown=tuple(entries["unknown"]),
        states=states,
        on_cpu=on_cpu,
        no_gpu="cpu" in (a.get("backend.api"), b.get("backend.api"))
        or a.get("rig.gpus.name") == "none",
    )


def _state(a: str | None, b: str | None, variable: Variable) -> State:
    if variable.rare and a is None and b is None:
        return "same"
    if a is None or b is None:
        return "unknown"
    return "same" if a == b else "differs"


def _is_decided(
    variable: Variable,
    states: Mapping[str, State],
    untold: Collection[str],
    changed: Sequence[str],
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
