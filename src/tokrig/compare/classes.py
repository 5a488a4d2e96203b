"""The comparability class of two runs, and its reason in words. Pure.

The rules are the methodology's; docs/decisions/0007 says where they are read more strictly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from tokrig.compare.variables import Differences, State

if TYPE_CHECKING:
    from tokrig.compare import Pair, Subject

CLASSES = {
    "A": "same machine, at most one changed variable",
    "B": "same GPU model, build, model hash and shape",
    "C": "same model and quant, other hardware or not all known",
    "D": "not comparable",
}
# What has to be known and equal before anything else may be called the one changed variable.
ESSENTIAL = ("model", "quant", "engine", "build", "API", "mode")
# What makes it another measurement, whatever the hardware.
OTHER_WORK = ("mode", "concurrency")
# What of a machine may differ in class B; anything else is a setting.
OF_THE_MACHINE = (
    *("machine", "driver", "power limit", "GPU details", "CPU governor", "CPU details", "limits"),
    *("memory", "os", "kernel", "virtualization"),
)
WHERE = {"differs": "other hardware", "unknown": "hardware not known of both"}
HASH = "model.sha256"

Grade = Literal["A", "B", "C", "D"]


def classify(found: Differences, together: Sequence[Pair]) -> tuple[Grade, str]:
    """The comparability class and its reason in words. It rests on what is known of both."""
    compared = [pair for pair in together if pair.comparable == "yes"]
    if not compared:
        return "D", _nothing(together)
    methodology = _methodology(found)
    if methodology:
        return "D", methodology
    hardware = _hardware(found)
    not_a = _not_a(found, compared) if hardware == "same" else _lacks(hardware, "machine")
    if not_a is None:
        what = f"one changed variable: {found.changed[0]}" if found.changed else "nothing changed"
        return "A", f"same machine, {what}"
    not_b = _not_b(found, compared)
    if not_b is None:
        return "B", _class_b(found)
    if hardware == "same" and (len(found.changed) > 1 or _essential(found)):
        return "D", f"same machine, but {not_a}"
    not_c = _not_c(found)
    if hardware == "same":
        if not_c is not None:
            return "D", f"same machine, but {not_a}"
        return "C", f"same model and quant; no A: {not_a}"
    if not_c is not None:
        return "D", f"{WHERE[hardware]}, and {not_c}"
    return "C", f"same model and quant, {WHERE[hardware]}; no B: {not_b}"


def _hardware(found: Differences) -> State:
    """Whether it is one machine. Where both ran on the processor, idle cards say nothing."""
    states = {found.state("machine")} | (set() if found.on_cpu else {found.state("GPU")})
    return next(state for state in ("differs", "unknown", "same") if state in states)


def _class_b(found: Differences) -> str:
    return "same machine, build, model hash and shape" if found.on_cpu else CLASSES["B"]


def _nothing(together: Sequence[Pair]) -> str:
    if not together:
        return "no shape in common"
    reasons = {pair.comparable for pair in together}
    if "other_shape" in reasons:
        return "other workload texts under the same shape name"
    if "other_length" in reasons:
        return "prompts of another length under the same shape name"
    return "no shape with a valid result on both sides"


def _methodology(found: Differences) -> str | None:
    """Figures of two methodologies are never equals. What others published has none: it is
    compared only with what the same source published."""
    state = found.state("methodology")
    if state == "unknown" and found.state("provenance.source") == "same":
        return None
    return None if state == "same" else _lacks(state, "methodology")


def _essential(found: Differences) -> str | None:
    name = next((name for name in ESSENTIAL if _known(found, name) == "unknown"), None)
    return _lacks("unknown", name) if name else None


def _not_a(found: Differences, compared: Sequence[Pair]) -> str | None:
    """Why there may be more than one changed variable; None where there is not."""
    if len(found.changed) > 1:
        return f"{len(found.changed)} changed variables: {', '.join(found.changed)}"
    missing = _essential(found)
    if missing:
        return missing
    if found.assumed:
        return f"not known of both: {', '.join(found.assumed)}"
    return _unsure_shape(compared)


def _not_b(found: Differences, compared: Sequence[Pair]) -> str | None:
    """Two graphics cards of one model are alike; two machines of one processor are not."""
    hardware = ("machine", "machine") if found.on_cpu else ("GPU", "GPU")
    for name, words in (
        hardware,
        ("engine", "engine"),
        ("build", "build"),
        ("API", "API"),
        (HASH, "model hash"),
    ):
        if found.state(name) != "same":
            if name == "machine":
                return "no GPU did the work"
            return _lacks(found.state(name), words)
    if not found.on_cpu and found.no_gpu:
        return "no GPU did the work"
    settings = [name for name in found.changed if name not in OF_THE_MACHINE]
    if settings:
        return _other_work(found) or f"other settings: {', '.join(settings)}"
    unknown = [name for name in found.assumed if name not in OF_THE_MACHINE]
    if unknown:
        return f"not known of both: {', '.join(unknown)}"
    return _unsure_shape(compared)


def _not_c(found: Differences) -> str | None:
    for name in ("model", "quant"):
        if _known(found, name) != "same":
            return _lacks(_known(found, name), name)
    return _other_work(found)


def _known(found: Differences, name: str) -> State:
    """A variable's state; the same file is the same model and quant whatever they are called."""
    if name in ("model", "quant") and found.state(HASH) == "same":
        return "same"
    return found.state(name)


def _lacks(state: State, what: str) -> str:
    return f"the {what} {'differs' if state == 'differs' else 'is not known of both'}"


def _other_work(found: Differences) -> str | None:
    """What was measured is not the same."""
    return next(
        (_lacks("differs", name) for name in OTHER_WORK if found.state(name) == "differs"), None
    )


def _unsure_shape(compared: Sequence[Pair]) -> str | None:
    unsure = any(pair.same_shape == "unknown" for pair in compared)
    return "the prompts are not known to be the same" if unsure else None


def notes(
    a: Subject,
    b: Subject,
    verdict: tuple[Grade, str],
    found: Differences,
    together: Sequence[Pair],
) -> tuple[str, ...]:
    """What a reader of the class has to know, too."""
    grade, reason = verdict
    said = []
    if grade in ("B", "C") and found.changed:
        said.append(f"changed: {', '.join(found.changed)}")
    unsure = _unsure_shape([pair for pair in together if pair.comparable == "yes"])
    if unsure and unsure not in reason:
        said.append(unsure)
    if grade in ("A", "B") and found.unread:
        said.append(f"read on neither side, decided by what is the same: {', '.join(found.unread)}")
    if "no" in (side.keys.get("backend.api_confirmed") for side in (a, b)):
        said.append("an API label is not confirmed by its engine")
    for comparable, words in LEFT_OUT.items():
        left_out = [_label(pair) for pair in together if pair.comparable == comparable]
        if left_out:
            said.append(f"{words}: {', '.join(left_out)}")
    return tuple(said)


LEFT_OUT = {
    "invalid": "invalid results are not compared",
    "other_shape": "other workload texts under the same name are not compared",
    "other_length": "prompts of another length are not compared",
}


def _label(pair: Pair) -> str:
    return f"{pair.shape} × {' / '.join(dict.fromkeys(map(str, pair.concurrency)))}"
