"""The rapl probe over a made-up powercap folder."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tokrig.probes.rapl import RaplProbe

SPAN = 1_000_000


def zone(root: Path, entry: str, name: str, energy_uj: int, span: int | None = SPAN) -> Path:
    folder = root / "sys/class/powercap" / entry
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    if span is not None:
        (folder / "max_energy_range_uj").write_text(f"{span}\n")
    return folder


def joules(probe: RaplProbe) -> float:
    spent = probe.read().package_j
    assert spent is not None
    return spent


def test_packages_are_summed_without_their_parts(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 100)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 5000)
    part = zone(tmp_path, "intel-rapl:0:0", "core", 10)
    again = zone(tmp_path, "intel-rapl-mmio:0", "package-0", 100)
    probe = RaplProbe(tmp_path)
    assert probe.availability().ok
    assert "2 processor package(s)" in probe.availability().detail
    assert joules(probe) == 0
    (first / "energy_uj").write_text("300100")
    (second / "energy_uj").write_text("205000")
    for folder in (part, again):
        (folder / "energy_uj").write_text("900000")
    assert joules(probe) == pytest.approx(0.5)


def test_the_counter_wraps(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 999_000)
    probe = RaplProbe(tmp_path)
    seen = [joules(probe)]
    for value in (1_000_000, 0, 500, 400_000, 100):
        (folder / "energy_uj").write_text(str(value))
        seen.append(joules(probe))
    # 0 follows the range's last value: one microjoule.
    steps = [1000, 1, 500, 399_500, SPAN + 1 - 399_900]
    assert [b - a for a, b in itertools.pairwise(seen)] == pytest.approx([s * 1e-6 for s in steps])


def test_a_package_that_fails_voids_the_sum(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 100)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 100)
    probe = RaplProbe(tmp_path)
    assert probe.read().package_j is not None
    (second / "energy_uj").unlink()
    assert probe.read().package_j is None
    assert not probe.availability().ok


def test_a_counter_without_a_range_is_refused(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 100, span=None)
    probe = RaplProbe(tmp_path)
    assert not probe.availability().ok
    assert probe.read().package_j is None


def test_no_counters(tmp_path: Path) -> None:
    probe = RaplProbe(tmp_path)
    assert not probe.availability().ok
    assert probe.read().package_j is None
    assert probe.facts().gpus == ()


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root reads everything, so a test run as root becomes somebody else for a while."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_without_permission_the_hint_grants_it() -> None:
    # Another user may not enter pytest's own folders, hence one that is open to all.
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (zone(root, "intel-rapl:0", "package-0", 100) / "energy_uj").chmod(0)
        probe = RaplProbe(root)
        with ordinary_user():
            available = probe.availability()
            energy = probe.read().package_j
    assert not available.ok
    assert "root only" in available.detail
    assert "chmod a+r" in available.hint
    assert energy is None
