"""Run-queue waits and the use of processors, from made ``/proc`` trees and from real threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tokrig.run import interference
from tokrig.run.interference import Fields, Look, Processor, Times
from tokrig.run.monitor import Reader, usable

TICK = os.sysconf("SC_CLK_TCK")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def look(at_s: float, **changes: object) -> Look:
    empty = Look(
        at_s,
        pids=frozenset({7}),
        threads={(7, 7): Times(0, 0)},
        loop=Times(0, 0),
        processors={0: Processor(0, 0)},
    )
    return replace(empty, **changes)  # type: ignore[arg-type]


def summed(looks: list[Look], cpus: Iterable[int] = (), own: Iterable[int] = ()) -> Fields:
    return interference.of_processors(looks, frozenset(cpus), frozenset(own))


def test_files_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    write(tmp_path / "proc/7/task/7/schedstat", "83704 809871 2\n")
    write(tmp_path / "proc/7/task/9/schedstat", "5 6 1\n")
    write(tmp_path / "proc/8/task/8/schedstat", "")
    stat = f"cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 {TICK} {TICK} 0 5 5 77 77 {TICK} 0 0\ncpu1 0 0 0 0 0 0"
    write(tmp_path / "proc/stat", f"{stat} 0 0\nintr 1\n")
    reader = Reader(tmp_path)
    assert reader.threads([7, 8, 9]) == {(7, 7): Times(83704, 809871, 2), (7, 9): Times(5, 6, 1)}
    assert reader.thread(7, 9) == Times(5, 6, 1)
    assert reader.thread(7, 10) is None
    # Interrupts are nobody's, stolen time is counted by itself.
    assert reader.processors() == {0: Processor(2.0, 1.0), 1: Processor(0.0, 0.0)}


def test_what_cannot_be_read_is_not_zero(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    assert (reader.threads([7]), reader.thread(7, 7), reader.processors()) == (None, None, None)
    # A kernel without these sums.
    write(tmp_path / "proc/7/task/7/schedstat", "0 0 0\n")
    assert reader.threads([7]) is None


def test_a_containers_own_view_of_the_processors_tells_nothing_of_others(tmp_path: Path) -> None:
    write(tmp_path / "proc/stat", "cpu0 1 0 0 0 0 0 0 0 0 0\n")
    write(tmp_path / "proc/self/mounts", "lxcfs /proc/stat fuse.lxcfs rw,nosuid 0 0\n")
    assert Reader(tmp_path).processors() is None


def test_one_busy_loop_beside_two_threads_on_two_processors() -> None:
    before = look(0, threads={(7, 7): Times(0, 0), (7, 8): Times(0, 0)}, processors=cpus(0, 0))
    after = look(
        10,
        threads={(7, 7): Times(5 * 10**9, 5 * 10**9), (7, 8): Times(9 * 10**9, 0)},
        processors=cpus(10, 9.1),
        engine_cpu_s=14.0,
        client_cpu_s=0.1,
        loop=Times(10**8, 5 * 10**7),
    )
    found = summed([before, after], {0, 1}, {0, 1})
    assert found == {
        "engine_wait_share": 0.5,
        "foreign_wait_share": 0.5,
        "thread_wait_share": 0.5,
        "engine_cpus": 2,
        "other_cores_mean": 0.5,
        "other_cpu_share_max": 0.5,
        "steal_share": 0.0,
        "client_wait_share": 0.005,
    }


def cpus(*busy_s: float, stolen_s: float = 0.0) -> dict[int, Processor]:
    return {number: Processor(s, stolen_s) for number, s in enumerate(busy_s)}


def test_waiting_for_itself_is_not_waiting_for_others() -> None:
    # Four threads on two processors with nobody beside them.
    before = look(0, threads={(7, n): Times(0, 0) for n in range(4)}, processors=cpus(0, 0))
    waited = {(7, n): Times(5 * 10**9, 5 * 10**9) for n in range(4)}
    after = look(10, threads=waited, processors=cpus(10, 10), engine_cpu_s=20.0)
    found = summed([before, after])
    assert (found["engine_wait_share"], found["foreign_wait_share"]) == (2.0, 0.0)


def test_others_on_processors_that_the_engine_may_not_use_do_not_matter() -> None:
    before, after = look(0, processors=cpus(0, 0, 0)), look(10, processors=cpus(0, 0.1, 9))
    found = summed([before, after], {0, 1}, {2})
    assert (found["engine_cpus"], found["other_cores_mean"]) == (2, 0.01)


def test_waking_up_is_not_waiting() -> None:
    """Eight threads that sleep and wake 4,000 times a second on an idle machine, others at rest."""
    before = look(0, threads={(7, n): Times(0, 0) for n in range(8)}, processors=cpus(*[0] * 16))
    woken = {(7, n): Times(5 * 10**9, 40_000 * 15_000, 40_000) for n in range(8)}
    woken[7, 8] = Times(10**9, 10**9 + 20 * 10**6, 1_000)
    busy = cpus(*[2.6] * 16)
    after = look(10, threads=woken, processors=busy, engine_cpu_s=41.0)
    found = summed([before, after])
    assert (found["engine_wait_share"], found["thread_wait_share"]) == (0.1, 0.06)


def test_what_the_hypervisor_took() -> None:
    before, after = look(0, processors=cpus(0, 0)), look(10, processors=cpus(5, 5, stolen_s=0.4))
    assert summed([before, after])["steal_share"] == 0.04


def test_threads_come_and_go() -> None:
    a = look(0, threads={(7, 7): Times(10**9, 0)})
    b = look(5, threads={(7, 7): Times(2 * 10**9, 0), (7, 8): Times(10**9, 10**9)}, engine_cpu_s=2)
    # Thread 8 has ended, and its number is another thread's.
    c = look(10, threads={(7, 7): Times(3 * 10**9, 0), (7, 8): Times(5, 5)}, engine_cpu_s=3)
    assert summed([a, b, c])["engine_wait_share"] == 0.1
    # Most of what ran was never seen: threads that live shorter than from look to look.
    c = replace(c, engine_cpu_s=30)
    assert "engine_wait_share" not in summed([a, b, c])


@pytest.mark.parametrize("known", [False, True])
def test_an_engine_that_cannot_be_told_from_others(known: bool) -> None:
    looks = [
        look(0, pids=frozenset({7} if known else ())),
        look(10, pids=frozenset({7} if known else ()), loop=Times(0, 10**8)),
    ]
    found = summed(looks)
    assert ("other_cores_mean" not in found, found["client_wait_share"]) == (not known, 0.01)


def test_a_window_without_looks_tells_nothing() -> None:
    assert summed([]) == {}
    assert summed([look(1), look(1)]) == {}


def test_real_threads_that_share_a_processor_wait_for_each_other() -> None:
    """Two loops pinned to one processor: each runs about half of the time and waits the other."""
    cpu = min(os.sched_getaffinity(0))
    loop = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\nprint(flush=True)\nwhile True: pass"
    with (
        subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE) as first,
        subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE) as second,
    ):
        try:
            for process in (first, second):
                assert process.stdout is not None
                process.stdout.readline()
            reader, pids = Reader(), [first.pid, second.pid]
            before, began = reader.threads(pids), time.monotonic()
            time.sleep(0.6)
            after, wall_s = reader.threads(pids), time.monotonic() - began
            allowed = usable(after or ())
        finally:
            first.kill()
            second.kill()
    assert before is not None
    assert after is not None
    waited = [(after[t].wait_ns - before[t].wait_ns) / 1e9 / wall_s for t in before]
    assert len(waited) == 2
    assert sum(waited) > 0.8  # one of the two always waits, whatever else runs here
    assert allowed == {cpu}


def test_looking_at_many_threads_is_cheap() -> None:
    """A look may cost a few milliseconds: it competes with the engine on small machines."""
    ended = threading.Event()
    threads = [threading.Thread(target=ended.wait) for _ in range(200)]
    for thread in threads:
        thread.start()
    try:
        began = time.thread_time()
        for _ in range(5):
            found = Reader().threads([os.getpid()])
        spent_s = (time.thread_time() - began) / 5
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert found is not None
    assert len(found) > 200
    assert spent_s < 0.1
