"""Power caps: set for a run that asks for one, and put back whatever ends it.

Before anything is changed, the caps as they are go to ``power.json`` in the state folder, and a
guard waits at a pipe whose other end dies with this process: this module run as a program, in a
session of its own and deaf to what ends tokrig in order. When the pipe closes the guard puts the
caps back and removes the file. Should the guard be killed, this process does it; should both be,
the next run does. As long as one of the two lives, ``power.lock`` is locked: it is one open file
of both. That the guard has the drivers open before a cap is set also keeps NVIDIA's from being
unloaded under it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tokrig import registry
from tokrig.errors import InputError, PutOff, StoreError, TokrigError
from tokrig.files import Locked, atomic_write, locked, state_dir
from tokrig.probes import Cap, PowerProbe

# Drivers round to whole watts.
TOLERANCE_W = 1.0
READY_S = 60.0
DONE_S = 20.0
LOCK_S = 20.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Card:
    """A graphics card as ``power.json`` keeps it: its place among the cards of a probe, its name,
    and the cap in watts that it had."""

    probe: str
    index: int
    gpu: str
    limit_w: float

    def now(self) -> Cap:
        """Its cap at this moment."""
        for cap in _caps_of(self.probe):
            if (cap.index, cap.gpu) == (self.index, self.gpu):
                return cap
        raise PutOff(f"{self.gpu} has disappeared", hint="see `tokrig rig`")

    def set(self, watts: float) -> Cap:
        """Cap it and read that back. Raises PutOff when its driver holds it elsewhere."""
        probe: PowerProbe = registry.load("probes", self.probe, "PROBE")
        probe.set_cap(self.now().index, watts)
        now = self.now()
        if now.limit_w is not None and abs(now.limit_w - watts) <= TOLERANCE_W:
            return now
        held = "does not tell its cap" if now.limit_w is None else f"holds it at {now.limit_w:g} W"
        raise PutOff(
            f"{self.gpu}: asked for a power cap of {watts:g} W, its driver {held}",
            hint="choose a cap that the card takes; something else may set it as well",
        )


def caps() -> list[tuple[str, Cap]]:
    """The probe's name and the cap of every graphics card that has one."""
    return [(name, cap) for name in registry.names("probes") for cap in _caps_of(name)]


def _caps_of(name: str) -> tuple[Cap, ...]:
    probe = registry.load("probes", name, "PROBE")
    return probe.caps() if isinstance(probe, PowerProbe) else ()


@contextlib.contextmanager
def capped(watts: float | None) -> Iterator[tuple[Cap, ...]]:
    """Cap every graphics card at ``watts`` as long as this lasts; yields the caps as their
    drivers then tell them. None sets none. Caps that a killed run left are put back first.

    Raises, with nothing changed, InputError when there is no card to cap or a card does not allow
    so many watts, and PutOff when a cap may not be set. Raises PutOff at the end when a cap could
    not be put back.
    """
    restore_left_over()
    if watts is None:
        yield ()
        return
    cards = cards_for(watts)
    with _lock() as lock:
        kept = [dataclasses.asdict(card) for card in cards]
        try:
            # Whole and on the disk before anything is changed.
            atomic_write(_path(), json.dumps({"boot": _boot(), "cards": kept}, indent=1))
        except OSError as problem:
            raise _unwritable(problem) from None
        try:
            with _guard(lock):
                yield tuple([card.set(watts) for card in cards])
        finally:
            put_back()


def cards_for(watts: float) -> list[Card]:
    """The cards to cap, each of which allows ``watts`` and to be set by this process.

    Raises InputError and PutOff as ``capped`` does.
    """
    found = caps()
    if not found:
        raise InputError(
            "a power cap is asked for, but no graphics card here has one that can be set",
            hint="leave power_cap_w out on this machine; `tokrig rig` shows what it has",
        )
    for _, cap in found:
        require_range(cap, watts)
    cards = []
    for probe, cap in found:
        if not cap.settable or cap.limit_w is None:
            raise PutOff(f"the power cap of {cap.gpu} cannot be set", hint=cap.why)
        cards.append(Card(probe, cap.index, cap.gpu, cap.limit_w))
    for card in cards:
        # Only the driver itself knows for sure: it is asked with the cap that is set already.
        card.set(card.limit_w)
    return cards


def require_range(cap: Cap, watts: float) -> None:
    """Raises InputError when the card does not allow ``watts``."""
    too_little = cap.min_w is not None and watts < cap.min_w
    too_much = cap.max_w is not None and watts > cap.max_w
    if too_little or too_much:
        bounds = (("at least", cap.min_w), ("at most", cap.max_w))
        allowed = ", ".join(f"{word} {bound:g} W" for word, bound in bounds if bound is not None)
        raise InputError(
            f"{cap.gpu} cannot be capped at {watts:g} W: it allows {allowed}",
            hint="choose a cap that every graphics card of the machine allows",
        )


def restore_left_over() -> None:
    """Put back the caps that killed processes left, where there are any.

    Raises PutOff when that fails, or when another process still caps the cards.
    """
    if _path().exists():
        with _lock():
            put_back()


def put_back() -> None:
    """Set the caps that ``power.json`` holds, see that they hold, remove it; nothing without it.

    Raises PutOff when a cap does not hold; the file then stays for the next try.
    """
    failed = []
    for card in _kept():
        try:
            card.set(card.limit_w)
        except (InputError, PutOff) as problem:
            failed.append(f"{card.gpu} had {card.limit_w:g} W ({problem.message})")
    if failed:
        raise PutOff(
            f"A POWER CAP IS STILL SET and could not be put back: {'; '.join(failed)}",
            hint="set it by hand (docs/power.md says how) or restart the machine; the next run"
            f" tries again, as long as {_path()} is there",
        )
    _path().unlink(missing_ok=True)


def _path() -> Path:
    return state_dir() / "power.json"


def _boot() -> str:
    """Changes with every start of the machine, which gives the cards their own caps again."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _kept() -> list[Card]:
    """The cards of ``power.json``, unless the machine was restarted since it was written."""
    try:
        data = json.loads(_path().read_text(encoding="utf-8"))
        cards, boot = [Card(**card) for card in data["cards"]], data["boot"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise PutOff(
            f"{_path()} holds the power caps to be put back and cannot be read: {problem}",
            hint="set the caps of your graphics cards as you want them, then remove the file",
        ) from None
    return cards if boot == _boot() else []


@contextlib.contextmanager
def _lock() -> Iterator[BinaryIO]:
    """The right to set caps. A guard that is putting back has it for a moment still."""
    with contextlib.ExitStack() as held:
        try:
            file = held.enter_context(locked(state_dir() / "power.lock", timeout_s=LOCK_S))
        except Locked:
            raise PutOff(
                "another process of tokrig has capped the power of this machine",
                hint="wait for its run to end",
            ) from None
        except OSError as problem:
            raise _unwritable(problem) from None
        yield file


def _unwritable(problem: OSError) -> StoreError:
    return StoreError(
        f"the power caps to be put back cannot be kept in {state_dir()}:"
        f" {problem.strerror or problem}",
        hint="nothing was changed; choose another folder with TOKRIG_STATE",
    )


@contextlib.contextmanager
def _guard(lock: BinaryIO) -> Iterator[None]:
    """A guard that is ready before this begins and has put the caps back when it is over."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "tokrig.run.power"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[lock.fileno()],
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        readable, _, _ = select.select([process.stdout], [], [], READY_S)
        if not readable or process.stdout.readline() != b"ready\n":
            raise PutOff(
                "the process that would put the power caps back did not start",
                hint="what it said is above; without it no cap is set",
            )
        yield
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(DONE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> int:
    """The guard: wait for the end of standard input, then put the caps back; 1 when that failed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    caps()  # opens the drivers, and loads what is still to be loaded
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while os.read(0, 1):
        pass
    try:
        put_back()
    except TokrigError as problem:
        sys.stderr.write(f"tokrig: {problem.message}\n{problem.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
