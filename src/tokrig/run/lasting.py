"""A load that lasts until its time is over, or until somebody ends it early."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator

from tokrig.run.client import Closed, Indexed

_SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]


class Lasting(Closed):
    """``workers`` requests in flight for ``seconds``; what is in flight then is let end."""

    def __init__(self, workers: int, seconds: float) -> None:
        super().__init__((), workers, seconds)
        self.seconds, self.ends = seconds, False

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
    def ended_by_signals(self) -> Iterator[None]:
        """Ctrl-C, and what else asks a process to end, ends the load and keeps what was measured;
        a second one interrupts as ever. Signals that are ignored stay so."""
        before = {n: signal.getsignal(n) for n in _SIGNALS}
        heard = {n: how for n, how in before.items() if how not in (None, signal.SIG_IGN)}
        if threading.current_thread() is not threading.main_thread():
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
            for number, handler in heard.items():
                signal.signal(number, handler)
