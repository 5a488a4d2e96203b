"""Several measuring clients on this machine, for loads that one core cannot receive in time.

Each is a process of its own with a share of the source (``tokrig.run.shares``); all begin at one
moment of CLOCK_MONOTONIC, which Linux keeps the same for all processes, and what they saw merges
into one loop. They are started before the first load, behind a guard like every program, and stay:
starting one in the middle of a run would be a load of its own.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil

from tokrig.errors import EngineError, RequestError
from tokrig.run import client, guard
from tokrig.run.client import Closed, Loop, Source, Tick
from tokrig.run.http import Endpoint
from tokrig.run.load_nodes import LOST, RAN_DRY, Client
from tokrig.run.shares import merge, split
from tokrig.stamps import now_ns

START_S = 60.0
POLL_S = 0.2
LEAD_NS = 50_000_000
PROGRAM = (sys.executable, "-P", "-m", "tokrig.run.clients")


class Clients:
    """``many`` processes that send together. To be closed."""

    def __init__(self, many: int) -> None:
        self.many = many
        self.note: Callable[[str], None] = lambda text: None
        self.held = contextlib.ExitStack()
        self.running: list[Connection[Any, Any]] = []
        self.open()

    def open(self) -> None:
        """Start them. Raises EngineError when one does not start."""
        with contextlib.ExitStack() as held:
            folder = held.enter_context(tempfile.TemporaryDirectory(prefix="tokrig-"))
            door = held.enter_context(socket.socket(socket.AF_UNIX))
            door.bind(path := str(Path(folder) / "door"))
            door.listen(self.many)
            door.settimeout(POLL_S)
            argv, nowhere = [*PROGRAM, path], subprocess.DEVNULL
            guards = [
                held.enter_context(guard.guarded(argv, stdout=nowhere, stderr=nowhere))
                for _ in range(self.many)
            ]
            until = time.monotonic() + START_S
            while len(self.running) < self.many:
                with contextlib.suppress(TimeoutError):
                    self.running.append(held.enter_context(Connection(door.accept()[0].detach())))
                if time.monotonic() > until or any(one.poll() is not None for one in guards):
                    self.running.clear()
                    raise EngineError(
                        "a measuring client did not start",
                        hint="is there memory for so many? Try fewer with --clients",
                    )
            self.pids = [one.recv() for one in self.running]
            self.held = held.pop_all()

    def told(self) -> str:
        """Who sends."""
        return f"sent from {self.many} clients on this machine"

    def close(self) -> None:
        """End them."""
        self.running.clear()
        self.held.close()

    def here(self) -> list[psutil.Process]:
        """The processes: what they use of this machine is the client's own."""
        found = []
        for pid in self.pids:
            with contextlib.suppress(psutil.Error):
                found.append(psutil.Process(pid))
        return found

    def send(
        self,
        endpoint: Endpoint,
        path: str,
        source: Source,
        *,
        silence_s: float,
        tick: Tick = lambda ended, reads: None,
    ) -> Loop:
        """As ``client.send``, from all processes; what has but one worker is sent from this one.

        Raises RequestError (``load_node_lost``) when a process ends under way: what the others
        sent was of another load. They are started anew before the next.
        """
        if isinstance(source, Closed) and source.workers < 2:
            return client.send(endpoint, path, source, silence_s=silence_s, tick=tick)
        if not self.running:
            self.open()
        try:
            return self._sent(endpoint, path, source, silence_s, tick)
        except BaseException as problem:
            # Those that still send must not meet the next load.
            self.close()
            if isinstance(problem, EOFError | ConnectionError):
                raise RequestError(
                    "a measuring client on this machine ended in the middle, and what was sent"
                    " meanwhile does not count",
                    hint="is there memory for so many? Try fewer with --clients",
                    code=LOST,
                ) from None
            raise

    def _sent(
        self, endpoint: Endpoint, path: str, source: Source, silence_s: float, tick: Tick
    ) -> Loop:
        used = list(zip(self.running, split(source, self.many), strict=False))
        for one, share in used:
            one.send((share, endpoint, path, silence_s))
        for one, _ in used:
            one.recv()  # it has all of it
        begin_ns = now_ns() + LEAD_NS
        for one, _ in used:
            one.send(begin_ns)
        more = source.bodies if isinstance(source, Closed) else iter(())
        found: dict[int, Loop] = {}
        seen = {one.fileno(): (0, 0) for one, _ in used}
        while len(found) < len(used):
            waiting = [one for one, _ in used if one.fileno() not in found]
            ready = wait(waiting, POLL_S)
            for one in (one for one in waiting if one in ready):
                said = one.recv()
                if said == RAN_DRY:
                    raise RequestError(
                        f"a client had {said}", hint="see what else loads the machine"
                    )
                if isinstance(said, str):
                    raise OSError(said)
                if isinstance(said, Loop):
                    found[one.fileno()] = said
                    continue
                ended, reads, room = said
                seen[one.fileno()] = ended, reads
                if handed := list(islice(more, max(room, 0))):
                    one.send(handed)
            tick(*(sum(of) for of in zip(*seen.values(), strict=True)))
        loops = [found[one.fileno()] for one, _ in used]
        return merge(loops, [share.first_worker for _, share in used])


@contextlib.contextmanager
def several(many: int) -> Iterator[Clients]:
    """So many clients, gone afterwards whatever happens."""
    clients = Clients(many)
    try:
        yield clients
    finally:
        clients.close()


# In a process of its own.


class _Connected(Client):
    """Tells how far it is, and takes what is handed to it, twice a second."""

    def __init__(self, parent: Connection[Any, Any]) -> None:
        super().__init__()
        self.parent = parent

    def _tick(self, ended: int, reads: int) -> None:
        super()._tick(ended, reads)
        self.parent.send(self.progress())
        while self.parent.poll():
            self.hand(self.parent.recv())


def serve(path: str) -> None:
    """Send shares for the process that listens there, until it ends."""
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(path)
        parent: Connection[Any, Any] = Connection(door.detach())
    with parent, contextlib.suppress(EOFError, ConnectionError):
        here = _Connected(parent)
        parent.send(here.about()[1])
        while True:
            asked = parent.recv()
            if isinstance(asked, tuple):  # else more to send, for a load that has ended meanwhile
                share, endpoint, path, silence_s = asked
                here.take(share)
                parent.send(True)
                parent.send(here.send(endpoint, path, silence_s, at_ns=parent.recv()))


if __name__ == "__main__":
    serve(sys.argv[1])
