"""An engine's own benchmark program, run as it is.

One file a program exposing ``NATIVE_BENCH``. It describes a command line and reads the output;
``run`` starts it. Its figures know no server, no chat template and no client: they stand in a
class of their own (``record.raw``), beside the served ones and never among them.

The programs' own word for what computed is the *build's* backend. A Vulkan build of llama.cpp that
found no device, or was told to offload no layer, computes on the CPU and still prints "Vulkan";
only the buffers in the log tell. And with the weights in main memory a device that is visible
still computes long prompts: then nothing is confirmed.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tokrig.backends import _llama_log as llama_log
from tokrig.backends._program import flag_name
from tokrig.errors import InputError, RequestError, did_you_mean
from tokrig.record.model import Raw, Resolved, Summary
from tokrig.spec.settings import Api
from tokrig.units import significant

DIGITS = 6
_LAYERS = ("ngl", "n-gpu-layers", "gpu-layers")
# Set by tokrig in both programs, or asking for something else than a benchmark.
_OWN = frozenset(
    {"m", "model", "t", "threads", "dev", "device", "list-devices", "v", "verbose", "h", "help"}
    | {"version", "hf", "hfr", "hf-repo", "hff", "hf-file", "hft", "hf-token"}
)


@dataclass(frozen=True)
class BenchLaunch:
    """What to run. Lengths in tokens; ``concurrency`` is parallel sequences; ``repetitions`` of
    each test, None for the program's own number. ``answers`` are what the binary said to
    ``questions``, in their order."""

    binary: str
    model: Path
    prompt_tokens: Sequence[int] = (512,)
    output_tokens: Sequence[int] = (128,)
    concurrency: Sequence[int] = (1,)
    repetitions: int | None = None
    threads: int | None = None
    api: Api | None = None
    devices: tuple[str, ...] = ()
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    answers: tuple[str, ...] = ()

    @property
    def flags(self) -> frozenset[str]:
        """All flags in the output of ``--help``."""
        said = self.answers[0] if self.answers else ""
        return frozenset(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", said))


@dataclass(frozen=True)
class BenchFound:
    """What the program measured and what its log shows: ``api`` is what computed, confirmed where
    nothing else took part. ``spilled``: fewer layers on the GPU than asked; None where the log
    does not tell."""

    raw: tuple[Raw, ...]
    engine: str
    build: str | None
    api: str | None
    api_confirmed: bool | None
    spilled: bool | None = None
    resolved: Resolved = field(default_factory=Resolved)


class BenchTool(ABC):
    """A benchmark program of llama.cpp's; a subclass says how it is asked and what it prints.

    ``binary`` is its usual name on the PATH, ``engine`` what it benchmarks. ``needed`` are flags
    without which tokrig cannot use it, ``own`` those it sets itself, ``separator`` stands between
    the names of devices that share a model; ``listing`` makes it tell its devices, and for which
    APIs it looked.
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
        """Command lines that make the binary tell what it is; each ends by itself in seconds."""
        asked = (("--help",), ("--version",), self.listing)
        return tuple((launch.binary, *words) for words in asked)

    def vet(self, launch: BenchLaunch) -> None:
        """Refuse what ``launch.answers`` show to be impossible: another program, one too old for
        a flag (which), built without the API, without the device. Raises InputError."""
        self.require(launch, *self.needed)
        listing = "\n".join(launch.answers)
        llama_log.require_api(listing, launch.api, launch.devices, self.binary, "--bin")

    @abstractmethod
    def command(self, launch: BenchLaunch) -> tuple[str, ...]:
        """The command line. Raises InputError for an option the program does not know."""

    @abstractmethod
    def progress(self, line: str) -> str | None:
        """How far it is, where a line of its output tells."""

    @abstractmethod
    def figures(self, row: Mapping[str, Any]) -> Iterator[Raw]:
        """The figures in one line of its output."""

    @abstractmethod
    def resolved(self, row: Mapping[str, Any], logged: Resolved) -> dict[str, Any]:
        """The settings that a line tells, beside those in the log."""

    def build(self, row: Mapping[str, Any], launch: BenchLaunch) -> str | None:
        """Which llama.cpp it is."""
        return llama_log.build_of("\n".join(launch.answers[1:]))

    def failure(self, log: str) -> str | None:
        """The log's own reason for a failure, in one line."""
        return llama_log.failure(log)

    def read(self, stdout: str, log: str, launch: BenchLaunch) -> BenchFound:
        """Its figures. Raises RequestError when the output is not the program's."""
        rows = list(_rows(stdout))
        if not rows:
            raise RequestError(
                f"{self.binary} printed no figures", hint="read its log for what it did instead"
            )
        try:
            raw = tuple(figure for row in rows for figure in self.figures(row))
            logged = llama_log.settings(log)
            told = {**logged.model_dump(), **self.resolved(rows[0], logged)}
            resolved = Resolved.model_validate(told)
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

    def require(self, launch: BenchLaunch, *flags: str) -> None:
        """Raises InputError naming a flag that this program does not have."""
        for flag in flags:
            if flag not in launch.flags:
                raise InputError(
                    f"{Path(launch.binary).name} is no {self.binary}, or is too old for {flag}:"
                    " its --help does not list it",
                    hint=f"give the path of a newer {self.binary} with --bin",
                )

    def shared_flags(self, launch: BenchLaunch) -> list[str]:
        """Threads, and which devices it may use: see ``llama_log.devices_for``."""
        names = llama_log.devices_for("\n".join(launch.answers), launch.api, launch.devices)
        argv = ["-t", str(launch.threads)] if launch.threads is not None else []
        if names:
            self.require(launch, "-dev")
            argv += ["-dev", self.separator.join(names)]
        return argv

    def option_flags(self, launch: BenchLaunch) -> list[str]:
        """``{"ngl": 0}`` → ``-ngl 0``; ``true`` is the bare flag, ``false`` leaves it out.

        Raises InputError for a flag that tokrig sets itself or the program does not have.
        """
        argv: list[str] = []
        for option, value in launch.options.items():
            name = flag_name(option)
            if name in _OWN | self.own:
                raise InputError(
                    f"option {option!r} is set by tokrig itself",
                    hint="use --model, --prompt, --output, --concurrency, --repetitions, --threads,"
                    " --api or --device",
                )
            flag = next((f for f in (f"-{name}", f"--{name}") if f in launch.flags), None)
            if flag is None:
                raise InputError(
                    f"this {self.binary} knows no option {option!r}: its --help does not list it",
                    hint=did_you_mean(name, {word.lstrip("-") for word in launch.flags}),
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


def _spilled(api: str | None, log: str, launch: BenchLaunch) -> bool | None:
    """Whether fewer layers are on the GPU than asked for; without a word about it, all are."""
    if api in (None, "cpu"):
        return None if api is None else False
    found, layers = llama_log.settings(log).gpu_layers, llama_log.all_layers(log)
    if found is None or layers is None:
        return None
    asked = [value for name, value in launch.options.items() if flag_name(name) in _LAYERS]
    return found < min([layers, *(n for n in asked if isinstance(n, int) and n >= 0)])
