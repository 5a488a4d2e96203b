"""The memory bandwidth measurement: arithmetic, bounds, and one real run."""

from __future__ import annotations

import itertools
import resource
from pathlib import Path

import psutil
import pytest

from tokrig import bandwidth
from tokrig.errors import InputError
from tokrig.probes import _sysfs
from tokrig.units import MIB


def test_the_figure_is_bytes_over_the_best_time() -> None:
    # Repeats take 5, 4, 3, 2 and 6 ms by this clock.
    times = [0, 5, 10, 14, 20, 23, 30, 32, 40, 46]
    ticks = iter([t * 1_000_000 for t in times])
    found = bandwidth.measure_memory_bandwidth(2, size_bytes=8 * MIB, clock_ns=lambda: next(ticks))
    assert found.bytes == 8 * MIB
    assert found.threads == 2
    assert found.gb_per_s == pytest.approx(8 * MIB * bandwidth.PASSES / 2_000_000)


def test_a_real_measurement_is_plausible_and_bounded() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = bandwidth.measure_memory_bandwidth(size_bytes=128 * MIB)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert 0.5 < found.gb_per_s < 5000
    assert found.bytes <= 128 * MIB
    assert grown < 160 * MIB
    assert found.method.startswith("read")


def test_memory_is_bounded_by_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    class Free:
        available = 80 * MIB

    monkeypatch.setattr(psutil, "virtual_memory", Free)
    found = bandwidth.measure_memory_bandwidth(1, clock_ns=itertools.count(0, 1000).__next__)
    assert found.bytes == 10 * MIB
    assert found.cache_bound is (found.bytes < 2 * found.cache_bytes)


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ((10.0, 100.0), (14.0, 102.0), 0.25),
        ((10.0, 100.0), (14.0, 99.9), 0.0),
        ((10.0, 100.0), (10.1, 101.0), 1.0),
        ((10.0, None), (14.0, None), None),
        ((10.0, 100.0), (10.0, 100.0), None),
    ],
)
def test_what_others_took_is_told(
    monkeypatch: pytest.MonkeyPatch,
    before: tuple[float, float | None],
    after: tuple[float, float | None],
    share: float | None,
) -> None:
    looks = iter([before, after])
    monkeypatch.setattr(bandwidth, "_other_cpu", lambda: next(looks))
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    assert bandwidth.measure_memory_bandwidth(1, size_bytes=MIB).other_cpu_share == share


@pytest.mark.parametrize(("threads", "size"), [(0, MIB), (-1, MIB), (1, 0), (4, 16)])
def test_nothing_to_measure(threads: int, size: int) -> None:
    with pytest.raises(InputError, match="cannot be measured"):
        bandwidth.measure_memory_bandwidth(threads, size_bytes=size)


def cache(root: Path, cpu: int, index: int, level: int, size: str, shared: str) -> None:
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
    folder.mkdir(parents=True)
    for name, text in (("level", str(level)), ("size", size), ("shared_cpu_list", shared)):
        (folder / name).write_text(f"{text}\n")


def test_last_level_caches_are_counted_once_each(tmp_path: Path) -> None:
    for cpu, shared in enumerate(("0-1", "0-1", "2-3", "2-3")):
        cache(tmp_path, cpu, 2, 2, "1024K", str(cpu))
        cache(tmp_path, cpu, 3, 3, "32768K", shared)
    assert _sysfs.last_level_cache_bytes(tmp_path) == 64 * MIB


def test_an_unreadable_cache_size_is_assumed(tmp_path: Path) -> None:
    assert _sysfs.last_level_cache_bytes(tmp_path) is None


def test_usable_cores() -> None:
    assert 1 <= bandwidth.usable_cores() <= (psutil.cpu_count() or 1)
