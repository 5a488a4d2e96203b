"""The comparability class of two runs, and its reason in words. Pure.

The rules are the methodology's; docs/decisions/0007 says where they are read more strictly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tokrig.query.pairs import Pair, Subject
from tokrig.query.variables import Differences, State

CLASSES = {
    "A": "same machine, at most one changed variable",
    "B": "same GPU model, build, model hash and shape",
    "C": "same model and quant, other hardware",
    "D": "not comparable",
}
# What has to be known and equal before anything else may be called the one changed variable.
ESSENTIAL = ("model", "quant", "engine", "build", "API", "mode")
# What makes it another measurement, whatever the hardware.
OTHER_WORK = ("mode", "concurrency", "methodology")
HASH = "model.sha256"

Grade = Literal["A", "B", "C", "D"]


def classify(a: Subject, found: Differences, pairs: Sequence[Pair]) -> tuple[Grade, str]:
    """The comparability class and its reason in words. ``a`` is the reference."""
    compared = [pair for pair in pairs if pair.comparable == "yes"]
    if not compared:
        return "D", _nothing(pairs)
    other_hardware = "differs" in (found.state("machine"), found.state("GPU"))
    not_a = None if other_hardware else _not_a(found, compared)
    if not other_hardware and not_a is None:
        what = f"one changed variable: {found.changed[0]}" if found.changed else "nothing changed"
        return "A", f"same machine, {what}"
    not_b = _not_b(a, found, compared)
    if not_b is None:
        return "B", CLASSES["B"]
    if not other_hardware:
        return "D", f"same machine, but {not_a}"
    not_c = _not_c(found)
    if not_c is None:
        return "C", f"{CLASSES['C']}; no B: {not_b}"
    return "D", f"other hardware, and {not_c}"


def _nothing(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return "no shape in common"
    if any(pair.comparable == "other_shape" for pair in pairs):
        return "other workload texts under the same shape name"
    return "no shape with a valid result on both sides"


def _not_a(found: Differences, compared: Sequence[Pair]) -> str | None:
    """Why there may be more than one changed variable; None where there is not."""
    if len(found.changed) > 1:
        return f"{len(found.changed)} changed variables: {', '.join(found.changed)}"
    for name in ESSENTIAL:
        if _known(found, name) == "unknown":
            return _lacks("unknown", name)
    return _unsure_shape(compared)


def _not_b(a: Subject, found: Differences, compared: Sequence[Pair]) -> str | None:
    for name, words in (
        ("GPU", "GPU"),
        ("engine", "engine"),
        ("build", "build"),
        ("API", "API"),
        (HASH, "model hash"),
    ):
        if found.state(name) != "same":
            return _lacks(found.state(name), words)
    if a.keys["rig.gpus.name"] == "none" or a.keys["backend.api"] == "cpu":
        return "no GPU did the work"
    return _other_work(found) or _unsure_shape(compared)


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
    """What was measured is not the same. Not knowing the methodology does not say that."""
    return next(
        (_lacks("differs", name) for name in OTHER_WORK if found.state(name) == "differs"), None
    )


def _unsure_shape(compared: Sequence[Pair]) -> str | None:
    unsure = any(pair.same_shape == "unknown" for pair in compared)
    return "the prompts are not known to be the same" if unsure else None


def notes(
    a: Subject, b: Subject, verdict: tuple[Grade, str], found: Differences, pairs: Sequence[Pair]
) -> tuple[str, ...]:
    """What a reader of the class has to know, too."""
    grade, reason = verdict
    said = []
    if grade in ("B", "C") and found.changed:
        said.append(f"changed: {', '.join(found.changed)}")
    unsure = _unsure_shape([pair for pair in pairs if pair.comparable == "yes"])
    if unsure and unsure not in reason:
        said.append(unsure)
    if grade == "A" and found.assumed:
        said.append(f"not known of both, taken as unchanged: {', '.join(found.assumed)}")
    if "no" in (side.keys.get("backend.api_confirmed") for side in (a, b)):
        said.append("an API label is not confirmed by its engine")
    for comparable, words in (
        ("invalid", "invalid results are not compared"),
        ("other_shape", "other workload texts under the same name are not compared"),
    ):
        left_out = [_label(pair) for pair in pairs if pair.comparable == comparable]
        if left_out:
            said.append(f"{words}: {', '.join(left_out)}")
    return tuple(said)


def _label(pair: Pair) -> str:
    levels = dict.fromkeys(map(str, pair.concurrency))
    return f"{pair.shape} × {' / '.join(levels)}"
