"""Processor energy from RAPL counters (Linux powercap), scope ``package``.

Source: kernel documentation, "Power Capping Framework". A counter counts microjoules and
starts again at zero after ``max_energy_range_uj``.
"""

from __future__ import annotations

from pathlib import Path

from tokrig.probes import Availability, Facts, Reading, _sysfs

GRANT = (
    "grant it until the next boot: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
    " (fine-grained energy readings can leak secrets of other users: not on a shared machine)"
)


class RaplProbe:
    """Energy of all processor packages together."""

    name = "rapl"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._last_uj: dict[Path, int] = {}
        self._total_uj: dict[Path, int] = {}

    def _packages(self) -> list[Path]:
        """The package zones. Their sub-zones (core, dram…) are part of them or a scope of
        their own, and the zones of ``intel-rapl-mmio`` count the same packages again."""
        zones = _sysfs.listing(self._root / "sys/class/powercap", "intel-rapl:*")
        return [z for z in zones if (_sysfs.read_text(z / "name") or "").startswith("package-")]

    def availability(self) -> Availability:
        packages = self._packages()
        if not packages:
            return Availability(
                False,
                "no RAPL energy counters (/sys/class/powercap has no intel-rapl packages)",
                "normal in virtual machines and on processors without RAPL; on real x86 hardware"
                " load the module intel_rapl_msr",
            )
        for package in packages:
            try:
                (package / "energy_uj").read_bytes()
            except PermissionError:
                return Availability(False, "RAPL energy counters are readable by root only", GRANT)
            except OSError as error:
                return Availability(
                    False,
                    f"the RAPL energy counter cannot be read: {error.strerror}",
                    "see `sudo dmesg`; records then lack the energy of the processor",
                )
            if not _sysfs.read_int(package / "max_energy_range_uj"):
                return Availability(
                    False,
                    f"{package.name} does not tell its counter's range",
                    "update the kernel; records then have the energy of the processor",
                )
        return Availability(True, f"{len(packages)} processor package(s) with an energy counter")

    def facts(self) -> Facts:
        return Facts()

    def read(self) -> Reading:
        """Joules since the first reading, over all packages.

        No energy when any package cannot be read, for a part would pass as the whole. Right as
        long as no counter wraps twice between two readings (minutes, at full load).
        """
        totals = [self._total(package) for package in self._packages()]
        known = [total for total in totals if total is not None]
        if not known or len(known) != len(totals):
            return Reading()
        return Reading(package_j=sum(known) * 1e-6)

    def _total(self, package: Path) -> int | None:
        """Microjoules since the first reading; None when the counter cannot be read."""
        now = _sysfs.read_int(package / "energy_uj")
        span = _sysfs.read_int(package / "max_energy_range_uj")
        if now is None or not span:
            return None
        growth = now - self._last_uj.get(package, now)
        if growth < 0:
            # The counter runs through 0 … span, so a full turn is span + 1 steps.
            growth += span + 1
        self._total_uj[package] = self._total_uj.get(package, 0) + growth
        self._last_uj[package] = now
        return self._total_uj[package]


PROBE = RaplProbe()
