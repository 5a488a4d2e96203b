"""A load that lasts until its time is over, or until somebody ends it early."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokrig.run.client import Closed, Indexed
from tokrig.run.spool import Spool

_SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]


class Lasting(Closed):
    """``workers`` requests in flight for ``seconds``; what is in flight then is let end. What comes
    back is kept in ``folder``, not in memory."""

    def __init__(self, workers: int, seconds: float, folder: Path) -> None:
        super().__init__((), workers, seconds)
        self.seconds, self.ends, self.spool = seconds, False, Spool(folder)

    def __call__(self, bodies: Iterable[bytes]) -> Lasting:
        """The source of these bodies."""
        self.bodies = enumerate(bodies)
        return self

    def next(self, worker: int, now_ns: int) -> Indexed | None:
        """The next request. Once it ``ends`` early, the load has lasted until now: from here on a
        worker rests."""
        if self.ends and now_ns < self.seconds * 1e9:
            self.seconds = round(now_ns / 1e9, 3)
            self.until_ns = now_ns
        return super().next(worker, now_ns)

    @contextlib.contextmanager
    def going_on(self, *, may_end: bool = True) -> Iterator[None]:
        """While it lasts Ctrl-C, and what else asks a process to end, ends the load where it
        ``may_end``, and keeps what was measured; a second one interrupts as ever. Signals that are
        ignored stay so. Afterwards what came back is gone from the disk."""
        before = {n: signal.getsignal(n) for n in _SIGNALS}
        heard = {n: how for n, how in before.items() if how not in (None, signal.SIG_IGN)}
        if not may_end or threading.current_thread() is not threading.main_thread():
            heard = {}

        def end(number: int, frame: object) -> None:
            self.ends = True
            for one, handler in heard.items():
                signal.signal(one, handler)

        for number in heard:
            signal.signal(number, end)
        try:
            yield
        finally:
            self.spool.close()
            for number, handler in heard.items():
                signal.signal(number, handler)
