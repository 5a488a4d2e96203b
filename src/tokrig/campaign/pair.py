"""Two specs measured interleaved, start by start: A B C C B A and so on, where C is A once more.

What drifts while they are measured, heat or a neighbour, falls on all arms alike, and C says by how
much two arms of the same differ on this machine today. The number of starts is fixed beforehand.
Records in the store are the progress: the same command goes on with a comparison that is not
complete, and begins a new one after one that is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

from tokrig.compare import pool
from tokrig.compare.judge import Judgement, Limits, differing, judge
from tokrig.compare.variables import differences
from tokrig.errors import EngineError, InputError, Interrupted
from tokrig.measure import Ways, forget_stored, measure_spec, switches
from tokrig.models.shelf import quiet
from tokrig.plan.expand import KEY_DIGITS
from tokrig.record import METHODOLOGY_VERSION
from tokrig.record.model import Record
from tokrig.run.prepare import prepare
from tokrig.spec.run import RunSpec, merge
from tokrig.store import Row, Store
from tokrig.units import slug
from tokrig.workloads import texts

ARMS = {True: "ABCCBA", False: "ABBA"}
# More would be more than a day; nobody begins so many complete comparisons of the same.
MOST_ROUNDS = 1000
# (t) Where more of the starts are invalid than this, another try changes nothing.
MOST_AGAIN = 1 / 4
# What a person may change without wanting another measurement.
_REMARKS = ("notes", "api_key_env", "campaign", "planned", "level")

Note = Callable[[str], None]


@dataclass(frozen=True)
class Start:
    """One start of an engine: which arm it is of, its place in the sequence from 1, its spec."""

    arm: str
    position: int
    spec: RunSpec

    @property
    def key(self) -> str:
        """What its record answers to."""
        assert self.spec.planned is not None
        return self.spec.planned


@dataclass(frozen=True)
class Measured:
    """The records of the arms, and the judgements: B against A, and A against itself (None where
    that was not measured)."""

    arms: dict[str, list[Record]]
    judgement: Judgement
    control: Judgement | None


def sequence(a: RunSpec, b: RunSpec, starts: int, *, control: bool, turn: int) -> list[Start]:
    """All starts in the order in which they are measured; ``turn`` counts comparisons of the same.

    Every record is of one start, whatever the specs' levels: starts are what is interleaved.
    """
    arms = ARMS[control]
    kinds = len(set(arms))
    found = []
    common = [_asked(a), _asked(b), starts, control, turn, texts(), METHODOLOGY_VERSION]
    for position in range(starts * kinds):
        arm = arms[position % len(arms)]
        text = json.dumps([arm, position, *common], sort_keys=True)
        told = {
            "level": "quick",
            "campaign": f"compare-{slug(Path(a.model).name)}/{arm.lower()}",
            "planned": hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS],
        }
        found.append(Start(arm, position + 1, merge(b if arm == "B" else a, told)))
    return found


def _asked(spec: RunSpec) -> dict[str, Any]:
    """What is measured by a spec, the engine's binary as it is now."""
    asked = {k: v for k, v in spec.model_dump(mode="json").items() if k not in _REMARKS}
    return {**asked, "binary": _digest_of(spec.server_bin)}


def _digest_of(binary: str | None) -> str | None:
    """A rebuilt engine under the same name is another one."""
    path = Path(binary).expanduser() if binary else None
    if path is None or not path.is_file():
        return binary
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse(specs: Sequence[tuple[str, RunSpec]]) -> None:
    """Raises InputError for specs that cannot be interleaved start by start."""
    for name, spec in specs:
        if spec.url is not None:
            raise InputError(
                f"{name}: a server that is already running is one start, however often it is asked",
                hint="name a backend and server_bin, so that tokrig starts the engine itself",
            )


def begun(a: RunSpec, b: RunSpec, starts: int, content: Path, *, control: bool) -> list[Start]:
    """The starts of the comparison that is not complete yet, else of a new one."""
    done = _done(content)
    for turn in range(MOST_ROUNDS):
        found = sequence(a, b, starts, control=control, turn=turn)
        if any(one.key not in done for one in found):
            return found
    raise InputError(
        f"{MOST_ROUNDS} comparisons of these are complete", hint="use another --content folder"
    )


def _done(content: Path) -> dict[str, Row]:
    """Complete records by the key that they answer to; of several one that is not invalid."""
    found: dict[str, Row] = {}
    for row in Store(content).listing().rows:
        if row.planned is not None and row.status == "complete":
            before = found.get(row.planned)
            if before is None or (before.verdict == "invalid" and row.verdict != "invalid"):
                found[row.planned] = row
    return found


def measure(
    starts: Sequence[Start], content: Path, note: Note, **ways: Unpack[Ways]
) -> dict[str, list[Record]]:
    """Measure what of ``starts`` has no record yet, one after the other; the records of each arm.
    Where a few come out invalid, a neighbour's load perhaps, those are measured once more.

    Raises EngineError where a start fails (what was measured stays), Interrupted, and what
    ``measure_spec`` raises.
    """
    forget_stored(content)
    left = [one for one in starts if one.key not in _done(content)]
    if len(left) < len(starts):
        note(f"{len(starts) - len(left)} of {len(starts)} starts are measured already")
    else:
        # Found before minutes of measuring the other.
        for arm in dict.fromkeys(one.arm for one in left):
            first = next(one for one in left if one.arm == arm)
            prepare(first.spec, datetime.now(UTC), switches(content), ways.get("tell", quiet))
    for number, start in enumerate(left, len(starts) - len(left) + 1):
        note(f"start {number} of {len(starts)}: {_name(start.arm)}")
        _measure(start, number - 1, len(starts), content, **ways)
    done = _done(content)
    again = [one for one in starts if done[one.key].verdict == "invalid"]
    if left and len(again) <= MOST_AGAIN * len(starts):
        for start in again:
            note(f"once more, since it was invalid: start {start.position}, {_name(start.arm)}")
            _measure(start, len(starts), len(starts), content, **ways)
    found: dict[str, list[Record]] = {}
    store, done = Store(content), _done(content)
    for one in starts:
        found.setdefault(one.arm, []).append(store.read(store.runs / done[one.key].path))
    return found


def _measure(one: Start, done: int, of: int, content: Path, **ways: Unpack[Ways]) -> None:
    try:
        ended = measure_spec(one.spec, content, **ways)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(
            f"interrupted: {done} of {of} starts have their records",
            hint="go on with the same command",
        ) from None
    if (error := ended.error) is not None:
        hint = f"{error.hint}; {done} of {of} starts are measured: the same command goes on"
        raise EngineError(
            f"{_name(one.arm)} failed: {error.message}",
            hint=hint.removeprefix("; "),
            code=error.code,
            log_tail=error.log_tail,
        )


def _name(arm: str) -> str:
    return {"A": "A", "B": "B", "C": "A once more, the control"}[arm]


def judged(arms: dict[str, list[Record]], limits: Limits) -> Measured:
    """B against A, the noise being what A is off from itself. Raises InputError for an arm that is
    not one configuration."""
    groups = {arm: _one(arm, records) for arm, records in arms.items()}
    control = None
    if "C" in groups:
        control = judge([(groups["A"], groups["C"])], limits)
    noise = differing(control) if control else None
    found = judge([(groups["A"], groups["B"])], limits, control=noise)
    return Measured(arms, found, control)


def _one(arm: str, records: Sequence[Record]) -> pool.Group:
    found = pool.groups(records)
    if len(found) > 1:
        changed = differences(found[0].subject.keys, found[1].subject.keys).changed
        raise InputError(
            f"{_name(arm)} is not one configuration: {', '.join(changed) or 'something'} changed"
            " while it was measured",
            hint="start over in another --content folder, and leave engine and machine as they are",
        )
    return found[0]
