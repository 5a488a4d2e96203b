"""Why a result stays far below its ceiling: what others on the same hardware reach, and what in
the records is likely to have held it back. Pure.

Words, no verdict: what is named was so, and may not have been the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from tokrig.record.conditions import computed_on, throttled
from tokrig.record.model import Gpu, Interference, Record, Result

# (t) Far below: under this many times what others on the same hardware reach, or, where there are
# none, under this share of the ceiling.
FAR = 0.7
LOW = 0.4
# (t) A limit that held a card down for longer than this share of the time.
LIMITED_SHARE = 0.5
# (t) Cores that other programs used.
OTHER_CORES = 0.25
SLOW_GOVERNORS = frozenset({"powersave", "conservative"})
# Others that are looked at, the newest where records come so: a median of more says no more.
MOST = 100


@dataclass(frozen=True)
class Shortfall:
    """A result far below its kin: its share of the ceiling, the median of what ``others`` records
    on this ``hardware`` reach (None without any), and likely causes."""

    result: Result
    share: float
    reached: float | None
    others: int
    hardware: str
    causes: tuple[str, ...]

    def __str__(self) -> str:
        """``0.31 of the ceiling; 3 others on this card reach 0.72: the card was capped at 100 of
        300 W``."""
        told = f"{self.share:.2f} of the ceiling"
        if self.reached is not None:
            verb = "others" if self.others > 1 else "other"
            reach = "reach" if self.others > 1 else "reaches"
            told += f"; {self.others} {verb} on this {self.hardware} {reach} {self.reached:.2f}"
        return f"{told}: {'; '.join(self.causes) or 'nothing in the record says why'}"


class Shares:
    """The shares of the ceiling that records reach, by what computed, how many requests at once,
    and how fast a model of that size can be: a step of a small one costs more than what it
    reads, so only those of about that size are kin."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._by: dict[tuple[object, ...], dict[str, tuple[float, Record]]] = {}
        for record in records:
            hardware = _hardware(record)
            for result in record.results:
                if (share := result.ceiling_share) is None or not result.validity.stands:
                    continue
                if (size := _size(result)) is None or not result.plain:
                    continue
                kin = self._by.setdefault((hardware, result.concurrency, size), {})
                if record.id in kin or len(kin) < MOST:
                    best = max(share, kin.get(record.id, (0.0, record))[0])
                    kin[record.id] = (best, record)

    def kin(self, record: Record, result: Result) -> Mapping[str, tuple[float, Record]]:
        """Others by id, each with its best share: models whose ceiling is within a factor of two
        to four (t) of that of this result."""
        found: dict[str, tuple[float, Record]] = {}
        size = _size(result) or 0
        for near in (size - 1, size + 1, size):
            found |= self._by.get((_hardware(record), result.concurrency, near), {})
        found.pop(record.id, None)
        return found

    def shortfalls(self, record: Record) -> list[Shortfall]:
        """The results of a record that stay far below their ceiling, each with likely causes."""
        found = []
        for result in record.results:
            share = result.ceiling_share
            if share is None:
                continue
            hardware = "card" if _on_card(record) else "processor"
            if not result.plain:
                if told := _deep(record, result, share):
                    found.append(Shortfall(result, share, None, 0, hardware, (told,)))
                continue
            kin = self.kin(record, result)
            reached = median(other for other, _ in kin.values()) if kin else None
            if share >= (LOW if reached is None else FAR * reached):
                continue
            best = max(kin.values(), key=lambda one: one[0])[1] if kin else None
            why = tuple(dict.fromkeys(_causes(record, result, best)))
            found.append(Shortfall(result, share, reached, len(kin), hardware, why))
        return found


def _deep(record: Record, result: Result, share: float) -> str | None:
    """What a context costs beyond what it reads, by the same run's result without one."""
    depth, load = result.cell.depth_tokens, result.cell.load
    if not depth or load != "closed":
        return None
    for other in record.plain:
        same = (other.workload.name, other.concurrency) == (
            result.workload.name,
            result.concurrency,
        )
        if same and other.ceiling_share is not None and share < FAR * other.ceiling_share:
            return (
                f"attention over {depth:,} tokens takes computing beside reading; without them the"
                f" same run reaches {other.ceiling_share:.2f}"
            )
    return None


def _size(result: Result) -> int | None:
    """Ceilings of about the same height."""
    ceiling = result.ceiling_tok_per_s
    return math.floor(math.log2(ceiling)) if ceiling else None


def _on_card(record: Record) -> bool:
    return "gpu" in computed_on(record.backend, record.mode)


def _hardware(record: Record) -> tuple[object, ...]:
    """What computed: the cards, else the processor."""
    rig = record.rig
    if _on_card(record) and rig.gpus:
        return tuple((gpu.name, gpu.mig_profile, gpu.vram_bytes) for gpu in rig.gpus)
    return (rig.cpu.model, rig.cpu.cores)


Cause = Callable[[Record, Result, Record | None], str | None]


def _causes(record: Record, result: Result, best: Record | None) -> Iterator[str]:
    for cause in CAUSES:
        if told := cause(record, result, best):
            yield told


def _first_gpu(record: Record | None) -> Gpu | None:
    return record.rig.gpus[0] if record and record.rig.gpus and _on_card(record) else None


def _capped(record: Record, result: Result, best: Record | None) -> str | None:
    gpu, theirs = _first_gpu(record), _first_gpu(best)
    if gpu is None or gpu.power_limit_w is None:
        return None
    usual = gpu.power_default_w or gpu.power_max_w
    if theirs is not None and theirs.power_limit_w is not None:
        usual = max(usual or 0.0, theirs.power_limit_w)
    if usual is None or gpu.power_limit_w >= 0.95 * usual:
        return None
    return f"the card was capped at {gpu.power_limit_w:g} of {usual:g} W"


def _limited(record: Record, result: Result, best: Record | None) -> str | None:
    seen = result.interference or Interference()
    if (seen.power_limited_share or 0.0) > LIMITED_SHARE:
        return f"its power limit held the card down for {seen.power_limited_share:.0%} of the time"
    if throttled(seen):
        return f"the card was held down: {', '.join(seen.throttle_reasons or ['a fault'])}"
    return None


def _threads(record: Record, result: Result, best: Record | None) -> str | None:
    threads, cpu = record.backend.resolved.threads, record.rig.cpu
    if threads is None or "cpu" not in computed_on(record.backend, record.mode):
        return None
    usable = min((n for n in (cpu.cores, cpu.usable_cpus) if n), default=None)
    if usable is not None and threads < usable:
        word = "thread" if threads == 1 else "threads"
        return f"{threads} {word} where {usable:g} cores could be used"
    most = cpu.usable_cpus or cpu.threads
    if most is not None and threads > most:
        return f"{threads} threads on {most:g} processors"
    return None


def _link(record: Record, result: Result, best: Record | None) -> str | None:
    gpu, theirs = _first_gpu(record), _first_gpu(best)
    if gpu is None or gpu.pcie_width is None:
        return None
    mine = (gpu.pcie_generation or 0, gpu.pcie_width)
    if theirs is not None and theirs.pcie_width is not None:
        other = (theirs.pcie_generation or 0, theirs.pcie_width)
        if _lanes(mine) < _lanes(other):
            return f"{_link_words(mine)}, theirs {_link_words(other)}"
    if gpu.pcie_width < 8 and (record.mode.offload or len(record.rig.gpus) > 1):
        return f"{_link_words(mine)} between the card and the rest of the model"
    return None


def _lanes(link: tuple[int, int]) -> float:
    return 2.0 ** link[0] * link[1]


def _link_words(link: tuple[int, int]) -> str:
    return f"PCIe {link[0]}.0 x{link[1]}" if link[0] else f"PCIe x{link[1]}"


def _api(record: Record, result: Result, best: Record | None) -> str | None:
    backend = record.backend
    if "api_not_confirmed" in result.validity.reasons:
        return f"{backend.api or 'another API'} computed, {backend.api_asked} was asked for"
    if any("llvmpipe" in device.lower() for device in backend.resolved.devices):
        return f"the processor computed for {backend.api} (llvmpipe)"
    if best is not None and best.backend.api != backend.api and backend.api:
        return f"{backend.api} computed, theirs {best.backend.api}"
    return None


def _offload(record: Record, result: Result, best: Record | None) -> str | None:
    return f"kept off the card: {record.mode.offload}" if record.mode.offload else None


def _spill(record: Record, result: Result, best: Record | None) -> str | None:
    load, codes = record.load_memory, result.validity
    if "cpu_spill" in codes.reasons:
        return "parts of the model spilled into main memory"
    if "not_resident" in codes.reasons:
        return "parts of the model were read from the disk"
    return load.doubt if load is not None else None


def _others(record: Record, result: Result, best: Record | None) -> str | None:
    seen, codes = result.interference or Interference(), result.validity
    if "foreign_gpu_load" in codes.reasons or "gpu_was_busy" in codes.unverified:
        return "other programs used the card"
    if "foreign_cpu_load" in codes.reasons or (seen.other_cores_mean or 0.0) > OTHER_CORES:
        cores = seen.other_cores_mean
        return f"other programs used {cores:.1f} cores" if cores else "other programs ran beside it"
    return None


def _governor(record: Record, result: Result, best: Record | None) -> str | None:
    mine, theirs = record.rig.cpu.governor, best.rig.cpu.governor if best else None
    if mine not in SLOW_GOVERNORS or mine == theirs:
        return None
    return f"the processor's governor was {mine}"


def _memory(record: Record, result: Result, best: Record | None) -> str | None:
    if "cpu" not in computed_on(record.backend, record.mode) or best is None:
        return None
    mine, theirs = record.rig.memory, best.rig.memory
    if (mine.speed_mt_per_s or 0) < (theirs.speed_mt_per_s or 0) and mine.speed_mt_per_s:
        return f"memory at {mine.speed_mt_per_s} MT/s, theirs at {theirs.speed_mt_per_s}"
    one, other = mine.bandwidth_bytes_per_s or 0.0, theirs.bandwidth_bytes_per_s or 0.0
    if one and one < 0.8 * other:
        return f"memory of {one / 1e9:.3g} GB/s, theirs of {other / 1e9:.3g}"
    return None


CAUSES: tuple[Cause, ...] = (
    *(_spill, _offload, _api, _capped, _limited, _others),
    *(_threads, _governor, _memory, _link),
)
"""The gravest first."""
