"""What computes: graphics cards, or processors without one, each with the rigs that have it. Pure.

A card is told by name and memory, so that a 3080 of 10 GB and one of 12 GB are two; two cards in
one machine are another thing than one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from tokrig import naming
from tokrig.record.model import Result, Rig
from tokrig.site import formats
from tokrig.site.cells import Key, ranked_cells
from tokrig.store.facts import RigFacts
from tokrig.store.load import Run

ORIGINS = ("measured", "from its driver", "stated", "in theory")
_MEMORY = re.compile(r"(.*) · ([\d.,]+ [GT]B[^·]*)")
_FROM = {"measured": 0, "driver": 1, "stated": 2, None: 2}


class Capacity(NamedTuple):
    """A bandwidth in bytes/s, and where it is from, one of ``ORIGINS``."""

    bytes_per_s: float
    origin: str


@dataclass(frozen=True)
class Card:
    """One kind of card, its rigs by id, and their runs, newest first."""

    name: str
    memory: str
    gb: int | None
    kind: str
    rigs: Mapping[str, Sequence[Run]]
    facts: Mapping[str, RigFacts]

    @property
    def label(self) -> str:
        """``GeForce RTX 3080 · 10 GB``, ``2 × GeForce RTX 3090 · 24 GB each``."""
        return " · ".join(filter(None, (self.name, self.memory)))

    @property
    def address(self) -> str:
        """``geforce-rtx-3080-10gb``."""
        return naming.address(_plain(f"{self.name} {self.memory}".replace(" GB", "gb")))

    @property
    def aliases(self) -> list[str]:
        """What else it may be called in an address: without its memory, without its make."""
        words = _plain(self.name).split()
        memory = _plain(self.memory.replace(" GB", "gb"))
        names = [" ".join(words)] + ([" ".join(words[1:])] if len(words) > 1 else [])
        names = names[: 1 if words[0].isdigit() else 2]
        full = [f"{name} {memory}" for name in names]
        return list(dict.fromkeys(map(naming.filter_word, (*full, *names))))

    @cached_property
    def runs(self) -> list[Run]:
        """All runs on it, newest first."""
        found = [run for runs in self.rigs.values() for run in runs]
        return sorted(found, key=lambda run: run.record.provenance.started_at or "", reverse=True)

    @property
    def size(self) -> str:
        """Its memory as text, also where its name tells it already."""
        return self.memory or (f"{self.gb} GB" if self.gb else "")

    @property
    def models(self) -> int:
        """How many models ran on it."""
        return len({naming.model_name(run.record.model) for run in self.runs})

    @property
    def results(self) -> int:
        """How many results can stand beside others."""
        valid = (r for run in self.runs for r in run.record.plain if r.validity.stands)
        return sum(1 for _ in valid)

    @property
    def largest(self) -> Run | None:
        """A run of the model with most parameters; where nobody knows them, a byte counts as
        one."""
        known = [run for run in self.runs if any(r.validity.stands for r in run.record.results)]

        def size(run: Run) -> float:
            return formats.size_of(run.record.model)[0] or run.record.model.bytes or 0

        return max(known, key=size, default=None)

    @property
    def newest(self) -> str:
        """The day of its newest run, ``2026-11-22``; empty where not known."""
        return max((run.record.provenance.started_at or "")[:10] for run in self.runs)

    @property
    def apis(self) -> list[str]:
        """APIs seen."""
        return sorted({api for run in self.runs if (api := run.record.backend.api)})

    @property
    def engines(self) -> list[str]:
        """Engines seen."""
        return sorted({run.record.backend.engine for run in self.runs})

    @property
    def vram_bytes(self) -> int | None:
        """Memory of all its cards, the least that a driver told; None without a card."""
        known = [
            sum(gpu.vram_bytes or 0 for gpu in run.record.rig.gpus)
            for run in self.runs
            if run.record.rig.gpus and all(gpu.vram_bytes for gpu in run.record.rig.gpus)
        ]
        return min(known, default=None)

    @cached_property
    def bandwidth(self) -> Capacity | None:
        """The best known bandwidth of one card, or of main memory: measured before told."""
        found: list[tuple[int, float]] = []
        for rig_id, runs in self.rigs.items():
            rate = (facts := self.facts.get(rig_id)) and facts.memory_bandwidth_bytes_per_s
            if rate and rate.measured:
                found.append((0, rate.measured))
            for run in runs:
                rig = run.record.rig
                part = rig.gpus[0] if rig.gpus else rig.memory
                if part.bandwidth_bytes_per_s:
                    found.append((_FROM[part.bandwidth_from], part.bandwidth_bytes_per_s))
            if rate and rate.theoretical:
                found.append((3, rate.theoretical))
        best = min(found, key=lambda one: (one[0], -one[1]), default=None)
        return best and Capacity(best[1], ORIGINS[best[0]])

    @cached_property
    def power(self) -> tuple[list[float], float | None]:
        """The limits that its runs had, W, lowest first, and the highest that it can have."""
        gpus = [gpu for run in self.runs for gpu in run.record.rig.gpus[:1]]
        limits = sorted({gpu.power_limit_w for gpu in gpus if gpu.power_limit_w})
        return limits, max((gpu.power_max_w for gpu in gpus if gpu.power_max_w), default=None)

    @property
    def power_text(self) -> str:
        """``250 of 300 W``, ``210–300 of 300 W``; empty where not known."""
        limits, most = self.power
        if not limits:
            return f"{most:.0f} W at most" if most else ""
        told = "–".join(dict.fromkeys(f"{one:.0f}" for one in (limits[0], limits[-1])))
        return f"{told} of {most:.0f} W" if most else f"{told} W"

    @cached_property
    def cells(self) -> dict[Key, Result]:
        """Of each cell the result that stands for the card; those of texts nobody knows are left
        out, as nobody can say that another's are the same."""
        ranked = ranked_cells(self.runs)
        return {key: found[0][1] for key, found in ranked.items() if key[-1] is not None}


def _plain(text: str) -> str:
    return " ".join(text.replace("×", "x").replace("·", " ").split())


def cards(by_rig: Mapping[str, Sequence[Run]], facts: Mapping[str, RigFacts]) -> list[Card]:
    """All cards by name; machines of which nobody knows what they are come last."""
    groups: dict[tuple[str, str, int | None, str], dict[str, Sequence[Run]]] = {}
    for rig_id, runs in by_rig.items():
        groups.setdefault(_identity(runs[0].record.rig), {})[rig_id] = runs
    found = [
        Card(*named, rigs, {one: facts[one] for one in rigs if one in facts})
        for named, rigs in groups.items()
    ]
    return sorted(found, key=lambda card: (card.kind == "unknown", card.label.casefold()))


def _identity(rig: Rig) -> tuple[str, str, int | None, str]:
    """Name, memory as text and in GB, and what it is: a vendor, ``cpu``, ``unknown``."""
    if rig.id == naming.UNKNOWN_RIG or not naming.gpus_known(rig):
        return naming.hardware_name(rig), "", None, "unknown"
    if not rig.gpus:
        cores = formats.count(rig.cpu.cores, "core") if rig.cpu.cores else ""
        cpus = naming.limited_cpus(rig.cpu)
        limit = f"limited to {cpus:g}" if cpus else ""
        name = " · ".join(filter(None, (naming.cpu_name(rig), cores, limit)))
        total = naming.limited_bytes(rig.memory) or rig.memory.total_bytes
        told = f"{naming.memory_text(total)} RAM" if total else ""
        return name, told, naming.memory_gb(total) if total else None, "cpu"
    # A limit of its processors is the machine's, not the card's.
    whole = rig.model_copy(update={"cpu": rig.cpu.model_copy(update={"usable_cpus": None})})
    label = naming.hardware_name(whole)
    found = None if " + " in label else _MEMORY.fullmatch(label)
    name, memory = found.groups() if found else (label, "")
    return name, memory, naming.vram_gb(rig), rig.gpus[0].vendor
