"""What llama.cpp's benchmark programs share: flags, devices, and what their logs show.

Their own word for what computed is the *build's* backend. A Vulkan build that found no device, or
was told to offload no layer, computes on the CPU and still prints "Vulkan"; only the buffers in
the log tell. And with the weights in main memory a device that is visible still computes long
prompts: then nothing is confirmed.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tokrig.backends import _llama_log as llama_log
from tokrig.errors import InputError, RequestError, did_you_mean
from tokrig.native_bench import BenchFound, BenchLaunch
from tokrig.record.model import Raw, Resolved, Summary
from tokrig.units import significant

DIGITS = 6
_FLAG = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
_LAYERS = ("ngl", "n-gpu-layers", "gpu-layers")
# Set by tokrig in both programs, or asking for something else than a benchmark.
_OWN = frozenset(
    {"m", "model", "t", "threads", "dev", "device", "list-devices", "v", "verbose", "h", "help"}
    | {"version", "hf", "hfr", "hf-repo", "hff", "hf-file", "hft", "hf-token"}
)


class LlamaTool(ABC):
    """A benchmark program of llama.cpp; a subclass says how it is asked and what it prints.

    ``needed`` are flags without which tokrig cannot use it, ``own`` those it sets itself,
    ``separator`` stands between the names of devices that share a model; ``listing`` makes it
    tell its devices, and for which APIs it looked.
    """

    name = ""
    title = ""
    binary = ""
    engine = "llama.cpp"
    needed: tuple[str, ...] = ()
    own: frozenset[str] = frozenset()
    separator = ","
    listing: tuple[str, ...] = ("--list-devices",)

    def questions(self, launch: BenchLaunch) -> tuple[tuple[str, ...], ...]:
        asked = (("--help",), ("--version",), self.listing)
        return tuple((launch.binary, *words) for words in asked)

    def vet(self, launch: BenchLaunch) -> None:
        self.require(launch, *self.needed)
        listing = "\n".join(launch.answers)
        llama_log.require_api(listing, launch.api, launch.devices, self.binary, "--bin")

    def read(self, stdout: str, log: str, launch: BenchLaunch) -> BenchFound:
        rows = list(_rows(stdout))
        if not rows:
            raise RequestError(
                f"{self.binary} printed no figures", hint="read its log for what it did instead"
            )
        try:
            raw = tuple(figure for row in rows for figure in self.figures(row))
            resolved = self.resolved(rows[0], llama_log.settings(log))
        except (KeyError, TypeError, ValueError, ValidationError) as problem:
            raise RequestError(
                f"{self.binary} printed something else than its figures: {problem!r}"[:300],
                hint="is this the program of that name, and of a version with JSON lines?",
            ) from None
        api, confirmed = llama_log.api_of(log)
        if api == "cpu":
            resolved = resolved.model_copy(update={"devices": []})
        return BenchFound(
            raw=raw,
            engine=self.engine,
            build=self.build(rows[0], launch),
            api=api,
            api_confirmed=confirmed,
            spilled=_spilled(api, log, launch),
            resolved=resolved,
        )

    @abstractmethod
    def figures(self, row: Mapping[str, Any]) -> Iterator[Raw]:
        """The figures in one line of its output."""

    @abstractmethod
    def resolved(self, row: Mapping[str, Any], logged: Resolved) -> Resolved:
        """The settings of a line, beside those in the log."""

    def build(self, row: Mapping[str, Any], launch: BenchLaunch) -> str | None:
        """Which llama.cpp it is."""
        return llama_log.build_of("\n".join(launch.answers[1:]))

    def failure(self, log: str) -> str | None:
        return llama_log.failure(log)

    def require(self, launch: BenchLaunch, *flags: str) -> None:
        """Raises InputError naming a flag that this program does not have."""
        known = _flags(launch)
        for flag in flags:
            if flag not in known:
                raise InputError(
                    f"{Path(launch.binary).name} is no {self.binary}, or is too old for {flag}:"
                    " its --help does not list it",
                    hint=f"give the path of a newer {self.binary} with --bin",
                )

    def device_flags(self, launch: BenchLaunch) -> list[str]:
        """Which devices it may use; see ``llama_log.devices_for``."""
        listing = "\n".join(launch.answers)
        names = llama_log.devices_for(listing, launch.api, launch.devices)
        if names:
            self.require(launch, "-dev")
        return ["-dev", self.separator.join(names)] if names else []

    def option_flags(self, launch: BenchLaunch) -> list[str]:
        """``{"ngl": 0}`` → ``-ngl 0``; ``true`` is the bare flag, ``false`` leaves it out.

        Raises InputError for a flag that tokrig sets itself or the program does not have.
        """
        known, argv = _flags(launch), []
        for option, value in launch.options.items():
            name = option.lstrip("-").replace("_", "-")
            if name in _OWN | self.own:
                raise InputError(
                    f"option {option!r} is set by tokrig itself",
                    hint="use --model, --prompt, --output, --concurrency, --repetitions, --threads,"
                    " --api or --device",
                )
            flag = next((f for f in (f"-{name}", f"--{name}") if f in known), None)
            if flag is None:
                names = {word.lstrip("-") for word in known}
                raise InputError(
                    f"this {self.binary} knows no option {option!r}: its --help does not list it",
                    hint=did_you_mean(name, names),
                )
            if value is not False:
                argv += [flag] if value is True else [flag, str(value)]
        return argv


def metric(rates: Sequence[float]) -> Summary:
    """The median and range of repetitions, tok/s. Raises ValueError for what is no rate."""
    if not rates or any(not math.isfinite(rate) or rate <= 0 for rate in rates):
        raise ValueError(f"impossible rates: {list(rates)}")
    return Summary(
        median=significant(statistics.median(rates), DIGITS),
        min=significant(min(rates), DIGITS),
        max=significant(max(rates), DIGITS),
        n=len(rates),
    )


def named(prompt: int, output: int, depth: int = 0) -> str:
    """``pp512``, ``tg128 @ d1024``, ``pp512+tg128``, as llama-bench's table names its tests."""
    parts = [f"pp{prompt}" if prompt else "", f"tg{output}" if output else ""]
    return "+".join(filter(None, parts)) + (f" @ d{depth}" if depth else "")


def listed(numbers: Iterable[int]) -> str:
    """``512,1024``."""
    return ",".join(map(str, numbers))


def _rows(stdout: str) -> Iterator[Mapping[str, Any]]:
    """The lines that are JSON objects."""
    for line in stdout.splitlines():
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                raise RequestError(f"a line of the output is no JSON: {line[:80]!r}") from None


def _flags(launch: BenchLaunch) -> frozenset[str]:
    """All flags in the output of ``--help``."""
    return frozenset(_FLAG.findall(launch.answers[0] if launch.answers else ""))


def _spilled(api: str | None, log: str, launch: BenchLaunch) -> bool | None:
    """Whether fewer layers are on the GPU than asked for; without a word about it, all are."""
    if api in (None, "cpu"):
        return None if api is None else False
    found, layers = llama_log.settings(log).gpu_layers, llama_log.all_layers(log)
    if found is None or layers is None:
        return None
    asked = [v for k, v in launch.options.items() if k.lstrip("-").replace("_", "-") in _LAYERS]
    return found < min([layers, *(n for n in asked if isinstance(n, int) and n >= 0)])
