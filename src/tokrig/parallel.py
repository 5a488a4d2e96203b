"""One function over many items by all processors, where that pays for starting them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def map_forked(
    function: Callable[[Item], Outcome],
    items: Sequence[Item],
    *,
    worth_it: int = 200,
    chunk: int = 32,
) -> Generator[Outcome, None, None]:
    """``function`` of each item, in order. From ``worth_it`` items on by forked processes, which
    get ``chunk`` of them at a time and end at once when the caller stops listening.

    Only a process without threads may be forked; others, and systems without fork, take longer.
    Forked processes know all that this one knew, so ``function`` needs no pickling as long as
    it is a module's own.
    """
    done = 0
    may_fork = threading.active_count() == 1 and hasattr(os, "fork")
    if may_fork and len(items) >= worth_it:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import active_children, get_context

        # Ctrl-C is for the parent alone: it ends the others.
        others = active_children()
        with contextlib.suppress(OSError):
            pool = ProcessPoolExecutor(
                mp_context=get_context("fork"),
                initializer=signal.signal,
                initargs=(signal.SIGINT, signal.SIG_IGN),
            )
            try:
                for outcome in pool.map(function, items, chunksize=chunk):
                    yield outcome
                    done += 1
            except BaseException:
                for child in active_children():
                    if child not in others:
                        child.terminate()
                raise
            finally:
                pool.shutdown(cancel_futures=True)
    yield from map(function, items[done:])
