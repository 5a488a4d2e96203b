"""Main memory bandwidth, measured: the ceiling of decoding on the processor.

Decoding reads every weight once a token and writes next to nothing, so reading is what counts. A
copy moves every byte twice, and what is published as its bandwidth often counts it once: such
figures are no measure of reading. What was measured is kept, and is of the machine that it was
measured on: another processor or other memory has none.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from tokrig.errors import InputError, StoreError
from tokrig.files import atomic_write, state_dir
from tokrig.probes import _sysfs
from tokrig.probes.linux import PROBE
from tokrig.record.model import Gpu, Rig
from tokrig.units import GIB, significant

METHOD = "read: maximum over int64 arrays, one a thread"
REPEATS = 5
# Passes a repeat: enough that starting the threads (tens of µs each) does not count.
PASSES = 3
CACHE_MULTIPLE = 4
SMALLEST_BYTES = 1024**3
LARGEST_BYTES = 8 * 1024**3
LARGEST_SHARE_OF_FREE = 1 / 8
OTHERS_SHARE = 0.05
MATRIX_SIZE = 2048
CARD_MATRIX_SIZE = 8192
LARGEST_CARD_BYTES = 4 * 1024**3
# Where the cache's size cannot be read: above what common desktop processors have.
ASSUMED_CACHE_BYTES = 64 * 1024**2

Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bandwidth:
    """``gb_per_s`` is 10⁹ bytes read a second, the best of ``repeats`` readings of ``bytes``.

    ``cache_bound`` says that the arrays were not at least twice the last-level cache (memory
    was short), so that the figure may be the cache's. ``other_cpu_share`` is the share of all
    processor time that other programs took meanwhile: above a few percent the figure is low.
    Either is ``doubtful``.
    """

    gb_per_s: float
    method: str
    bytes: int
    threads: int
    repeats: int
    cache_bytes: int
    cache_bound: bool
    other_cpu_share: float | None

    @property
    def doubtful(self) -> str:
        """Why it may not be the memory's; empty where nothing speaks against it."""
        if self.cache_bound:
            return "may be the cache's: too little memory was free"
        if self.other_cpu_share is not None and self.other_cpu_share > OTHERS_SHARE:
            return f"low: other programs took {self.other_cpu_share:.0%} of the processor"
        return ""


def measure_memory_bandwidth(
    threads: int | None = None,
    *,
    size_bytes: int | None = None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Bandwidth:
    """Reads arrays together four times the last-level cache, all threads at once.

    bytes read / time until the last thread is done, best of five repeats. ``threads`` defaults
    to the physical cores this process may use; ``size_bytes`` overrides the size. Takes at
    most an eighth of the free memory. InputError when there is nothing to measure with what
    was asked.
    """
    cache = _sysfs.last_level_cache_bytes(Path("/")) or ASSUMED_CACHE_BYTES
    size = size_bytes if size_bytes is not None else max(SMALLEST_BYTES, CACHE_MULTIPLE * cache)
    memory = PROBE.facts().memory
    limit = memory.usable_bytes if memory else None
    free = min(filter(None, (psutil.virtual_memory().available, limit)))
    size = min(size, int(free * LARGEST_SHARE_OF_FREE), LARGEST_BYTES)
    workers = threads if threads is not None else usable_cores()
    items = size // 8 // workers if workers > 0 else 0
    if items <= 0:
        raise InputError(
            f"memory bandwidth cannot be measured with {workers} threads over {size} bytes",
            hint="give at least one thread and 8 bytes a thread",
        )
    total = items * 8 * workers
    before = _other_cpu()
    best_ns = _best_ns(items, workers, clock_ns)
    return Bandwidth(
        gb_per_s=total * PASSES / best_ns,
        method=METHOD,
        bytes=total,
        threads=workers,
        repeats=REPEATS,
        cache_bytes=cache,
        cache_bound=total < 2 * cache,
        other_cpu_share=_share(before, _other_cpu()),
    )


def measure_matrix_flop_per_s(
    size: int = MATRIX_SIZE, clock_ns: Callable[[], int] = time.perf_counter_ns
) -> float:
    """Operations a second of the product of two square matrices of float32, by numpy's own
    library on all cores: the best of five. Engines that multiply integers may be faster."""
    one, other = (np.ones((size, size), np.float32) for _ in range(2))
    result = one @ other
    best_ns = 0
    for _ in range(REPEATS):
        began = clock_ns()
        np.matmul(one, other, out=result)
        took_ns = clock_ns() - began
        best_ns = min(best_ns or took_ns, took_ns)
    return 2 * size**3 / best_ns * 1e9


@dataclass(frozen=True)
class Card:
    """What was measured of one kind of graphics card, by the name that its library has for it."""

    name: str
    bytes_per_s: float
    matrix_flop_per_s: float
    matrix_type: str = "float16"


def measure_cards() -> list[Card]:
    """Of each graphics card that torch can use here, else cupy; empty where neither is installed
    or can: tokrig asks for none of them."""
    with contextlib.suppress(ImportError):
        torch: Any = importlib.import_module("torch")
        devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
        return list(_measured(partial(TorchCard, torch, f"cuda:{number}") for number in devices))
    with contextlib.suppress(ImportError):
        cupy: Any = importlib.import_module("cupy")
        with contextlib.suppress(RuntimeError):  # no driver, no card
            devices = range(cupy.cuda.runtime.getDeviceCount())
            return list(_measured(partial(CupyCard, cupy, number) for number in devices))
    return []


def _measured(cards: Iterable[Callable[[], TorchCard | CupyCard]]) -> Iterator[Card]:
    """Those that can be measured: one may be full, or too old for its library."""
    for card in cards:
        with contextlib.suppress(RuntimeError):
            yield measure_card(card())


def measure_card(
    on: TorchCard | CupyCard,
    *,
    matrix: int = CARD_MATRIX_SIZE,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Card:
    """The best of several ways to read an array far larger than any cache, and of products of two
    square matrices of float16. Takes at most a quarter of the free memory."""

    def best_ns(work: Callable[[], object]) -> int:
        work()  # the first one loads its kernel
        on.wait()
        taken = []
        for _ in range(REPEATS):
            began = clock_ns()
            work()
            on.wait()
            taken.append(clock_ns() - began)
        return max(1, min(taken))

    items = max(1, min(on.free_bytes() // 4, LARGEST_CARD_BYTES) // 4)
    reads_ns = min(best_ns(read) for read in on.reading(items))
    product_ns = best_ns(on.product(matrix))
    flop_per_s = 2 * matrix**3 / product_ns * 1e9
    return Card(on.name, items * 4 / reads_ns * 1e9, flop_per_s)


class TorchCard:
    """A device as torch uses it."""

    def __init__(self, torch: Any, device: str) -> None:
        self._torch, self._device, self._real = torch, device, device.startswith("cuda")
        self.name = str(torch.cuda.get_device_name(device)) if self._real else device

    def free_bytes(self) -> int:
        """Bytes of its memory that are free."""
        if not self._real:
            return int(psutil.virtual_memory().available)
        return int(self._torch.cuda.mem_get_info(self._device)[0])

    def wait(self) -> None:
        """Until all work is done."""
        if self._real:
            self._torch.cuda.synchronize(self._device)

    def reading(self, items: int) -> list[Callable[[], object]]:
        """Ways to read an array of so many float32."""
        array = self._torch.ones(items, dtype=self._torch.float32, device=self._device)
        return [array.sum, array.max, lambda: self._torch.dot(array, array)]

    def product(self, size: int) -> Callable[[], object]:
        """The product of two square matrices of float16."""
        one = self._torch.ones((size, size), dtype=self._torch.float16, device=self._device)
        return lambda: one @ one


class CupyCard:
    """The same as cupy uses it."""

    def __init__(self, cupy: Any, number: int) -> None:
        self._cupy, self._device = cupy, cupy.cuda.Device(number)
        told = cupy.cuda.runtime.getDeviceProperties(number)["name"]
        self.name = told.decode() if isinstance(told, bytes) else str(told)

    def free_bytes(self) -> int:
        """Bytes of its memory that are free."""
        return int(self._device.mem_info[0])

    def wait(self) -> None:
        """Until all work is done."""
        self._device.synchronize()

    def reading(self, items: int) -> list[Callable[[], object]]:
        """Ways to read an array of so many float32."""
        with self._device:
            array = self._cupy.ones(items, dtype=self._cupy.float32)
        return [self._here(array.sum), self._here(array.max)]

    def product(self, size: int) -> Callable[[], object]:
        """The product of two square matrices of float16."""
        with self._device:
            one = self._cupy.ones((size, size), dtype=self._cupy.float16)
        return self._here(lambda: one @ one)

    def _here(self, work: Callable[[], object]) -> Callable[[], object]:
        def done() -> object:
            with self._device:
                return work()

        return done


def keep(found: Bandwidth, flop_per_s: float, rig: Rig, cards: Sequence[Card] = ()) -> None:
    """Write what was found where runs on this machine look for it. Raises StoreError."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {
        "bytes_per_s": found.gb_per_s * 1e9,
        "matrix_flop_per_s": flop_per_s,
        "cards": [vars(card) for card in cards],
        "machine": _machine(rig),
        "measured_at": now,
    }
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(told, indent=1) + "\n")
    except OSError as problem:
        raise StoreError(
            f"{path}: cannot be written: {problem.strerror or problem}",
            hint="TOKRIG_STATE names a folder that can",
        ) from None


def with_measured(rig: Rig) -> Rig:
    """The rig with the bandwidth of its memory and the matrix throughput of its processor, and
    those of its cards, where they were measured on this machine."""
    found, cards = list[float](), dict[str, Card]()
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, StoreError):
        kept = json.loads(_path().read_text(encoding="utf-8"))
        if kept["machine"] == _machine(rig):
            found = [float(kept[name]) for name in ("bytes_per_s", "matrix_flop_per_s")]
            cards = {card.name: card for card in (Card(**told) for told in kept["cards"])}
    if not found or not all(0 < one < inf for one in found):
        return rig
    width, flops = map(significant, found)
    memory = {"bandwidth_bytes_per_s": width, "bandwidth_from": "measured"}
    cpu = {"matrix_flop_per_s": flops, "matrix_type": "float32"}
    changed = {
        "memory": rig.memory.model_copy(update=memory),
        "cpu": rig.cpu.model_copy(update=cpu),
        "gpus": [_of_card(gpu, cards) for gpu in rig.gpus],
    }
    return rig.model_copy(update=changed)


def _of_card(gpu: Gpu, cards: Mapping[str, Card]) -> Gpu:
    """A card with what was measured of it; of a slice that is named by its profile."""
    card = cards.get(f"{gpu.name} MIG {gpu.mig_profile}" if gpu.mig_profile else gpu.name)
    if card is None or not all(0 < one < inf for one in (card.bytes_per_s, card.matrix_flop_per_s)):
        return gpu
    told = {
        "bandwidth_bytes_per_s": significant(card.bytes_per_s),
        "bandwidth_from": "measured",
        "matrix_flop_per_s": significant(card.matrix_flop_per_s),
        "matrix_type": card.matrix_type,
    }
    return gpu.model_copy(update=told)


def _machine(rig: Rig) -> dict[str, object]:
    """What a bandwidth is of. Kernels differ in how much of the memory they keep."""
    cpu, memory = rig.cpu, rig.memory
    return {
        "cpu": cpu.model,
        "cores": cpu.cores,
        "usable_cpus": cpu.usable_cpus,
        "memory_gib": round((memory.total_bytes or 0) / GIB),
        "memory": [memory.type, memory.speed_mt_per_s],
        "method": METHOD,
    }


def _path() -> Path:
    return state_dir() / "bandwidth.json"


def _other_cpu() -> tuple[float, float | None]:
    """Seconds by the wall clock, and processor seconds that other programs have taken."""
    busy = PROBE.read().busy_cpu_s
    return time.monotonic(), None if busy is None else busy - time.process_time()


def _share(before: tuple[float, float | None], after: tuple[float, float | None]) -> float | None:
    """Other programs' share of the processor time between two looks, from 0 to 1."""
    wall_s = after[0] - before[0]
    if before[1] is None or after[1] is None or wall_s <= 0:
        return None
    # The machine counts in ticks of 10 ms, this process exactly: hence the bounds.
    return min(1.0, max(0.0, (after[1] - before[1]) / (wall_s * (psutil.cpu_count() or 1))))


def _fill(items: int) -> Array:
    # Written, for untouched pages would all be the one page of zeros.
    array = np.full(items, 1, np.int64)
    array.max()
    return array


def _read(array: Array) -> None:
    for _ in range(PASSES):
        array.max()


def _best_ns(items: int, workers: int, clock_ns: Callable[[], int]) -> int:
    """The shortest time (ns) in which every thread read its array ``PASSES`` times.

    One pool a thread: each array is written and read by the same thread, so that its pages lie
    near that thread's processor. numpy gives up the interpreter lock while it reads.
    """
    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(workers)]
        arrays = [f.result() for f in [pool.submit(_fill, items) for pool in pools]]
        durations = []
        for _ in range(REPEATS):
            began = clock_ns()
            running = [pool.submit(_read, a) for pool, a in zip(pools, arrays, strict=True)]
            for future in running:
                future.result()
            durations.append(clock_ns() - began)
    return min(durations)


def usable_cores() -> int:
    """Physical cores, at most as many as this process may run on, by affinity and quota."""
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    cpu = PROBE.facts().cpu
    usable = cpu.usable_cpus if cpu else None
    return max(1, min(physical, int(usable or physical)))
