"""Many items by all processors: the same outcomes, in order, and errors as they were raised."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

import pytest

from tokrig import parallel

# Beside other tests this process has threads, and is not forked.
pytestmark = pytest.mark.alone


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def fail(number: int) -> int:
    raise ValueError(f"no {number}")


def test_few_items_stay_in_this_process() -> None:
    assert list(parallel.map_forked(square, [1, 2, 3])) == [(n * n, os.getpid()) for n in (1, 2, 3)]


def test_many_items_go_to_other_processes_and_come_back_in_order() -> None:
    outcomes = list(parallel.map_forked(square, range(500)))
    assert [value for value, _ in outcomes] == [n * n for n in range(500)]
    assert os.getpid() not in {pid for _, pid in outcomes}


def test_a_process_with_threads_is_not_forked() -> None:
    wait = threading.Event()
    thread = threading.Thread(target=wait.wait)
    thread.start()
    try:
        outcomes = list(parallel.map_forked(square, range(500)))
    finally:
        wait.set()
        thread.join()
    assert {pid for _, pid in outcomes} == {os.getpid()}


@pytest.mark.parametrize("count", [3, 500])
def test_an_error_comes_through(count: int) -> None:
    with pytest.raises(ValueError, match="no 0"):
        list(parallel.map_forked(fail, range(count)))


def sleep_after_the_first(number: int) -> int:
    time.sleep(600 if number else 0)
    return number


def test_whoever_stops_listening_waits_for_nobody() -> None:
    outcomes = parallel.map_forked(sleep_after_the_first, range(500), chunk=1)
    assert next(outcomes) == 0
    began = time.monotonic()
    outcomes.close()
    assert time.monotonic() - began < 120  # each of the others would take ten minutes
    assert multiprocessing.active_children() == []
