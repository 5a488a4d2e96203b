"""An engine's own benchmark program, run as it is: llama.cpp's two, by name in ``TOOLS``.

A tool describes a command line and reads the output; ``run`` starts it. Its figures involve no
server, no chat template and no client: they stand in a class of their own (``record.raw``), beside
the served ones and never among them.

What the programs themselves say has computed is the *build's* backend. A Vulkan build of llama.cpp
that found no device, or was told to offload no layer, computes on the CPU and still prints
"Vulkan"; only the buffers in the log tell. And with the weights in main memory a device that is
visible still computes long prompts: then nothing is confirmed.
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
from tokrig.backends._reading import flag_name
from tokrig.errors import InputError, RequestError, did_you_mean
from tokrig.record.block import Summary
from tokrig.record.model import Raw, Resolved
from tokrig.spec.settings import Api
from tokrig.units import significant

ENGINE = "llama.cpp"
_DIGITS = 6
_LAYERS = ("ngl", "n-gpu-layers", "gpu-layers")
# Set by tokrig in both programs, or asking for something other than a benchmark.
_OWN = frozenset(
    {"m", "model", "t", "threads", "dev", "device", "list-devices", "v", "verbose", "h", "help"}
    | {"version", "hf", "hfr", "hf-repo", "hff", "hf-file", "hft", "hf-token"}
)


@dataclass(frozen=True)
class BenchLaunch:
    """What to run. Lengths in tokens; ``depth_tokens`` are those in the cache before a test, none
    where the program has no such switch; ``concurrency`` is parallel sequences; ``repetitions`` of
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
    depth_tokens: Sequence[int] = ()

    @property
    def help(self) -> str:
        return self.answers[0] if self.answers else ""

    @property
    def flags(self) -> frozenset[str]:
        """All flags in the output of ``--help``."""
        return frozenset(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", self.help))


@dataclass(frozen=True)
class BenchFound:
    """What the program measured and what its log shows: ``api`` is what computed, confirmed where
    nothing else took part. ``spilled``: fewer layers on the GPU than asked; None where the log
    does not tell."""

    raw: tuple[Raw, ...] = ()
    build: str | None = None
    api: str | None = None
    api_confirmed: bool | None = None
    spilled: bool | None = None
    resolved: Resolved = field(default_factory=Resolved)


class BenchTool(ABC):
    """A benchmark program; a subclass says how it is asked and what it prints.

    ``needed`` are flags without which tokrig cannot use it, ``own`` those it sets itself,
    ``separator`` stands between the names of devices that share a model, ``listing`` makes it tell
    its devices and for which APIs it looked, ``settings`` are those in a line of its output, by
    their names in the record.
    """

    name: str
    needed: tuple[str, ...]
    own: frozenset[str]
    separator = ","
    listing: tuple[str, ...] = ("--list-devices",)
    settings: tuple[tuple[str, str], ...]

    def questions(self, launch: BenchLaunch) -> tuple[tuple[str, ...], ...]:
        """Command lines that make the binary tell what it is; each ends by itself in seconds."""
        asked = (("--help",), ("--version",), self.listing)
        return tuple((launch.binary, *words) for words in asked)

    def vet(self, launch: BenchLaunch) -> None:
        """Refuse what ``launch.answers`` show to be impossible: another program, one too old for
        a flag (which), built without the API, without the device. Raises InputError."""
        self._require(launch, *self.needed)
        listing = "\n".join(launch.answers)
        llama_log.require_api(listing, launch.api, launch.devices, self.name, "--bin")

    def command(self, launch: BenchLaunch) -> tuple[str, ...]:
        """The command line. Raises InputError for an option the program does not know."""
        argv = [launch.binary, "-m", str(launch.model), *self._tests(launch)]
        if launch.threads is not None:
            argv += ["-t", str(launch.threads)]
        devices = llama_log.devices_for("\n".join(launch.answers), launch.api, launch.devices)
        if devices:
            self._require(launch, "-dev")
            argv += ["-dev", self.separator.join(devices)]
        return (*argv, *self._output(launch), *self._options(launch))

    @abstractmethod
    def _tests(self, launch: BenchLaunch) -> Sequence[str]:
        """The flags that say what is measured."""

    @abstractmethod
    def _output(self, launch: BenchLaunch) -> Sequence[str]:
        """The flags that say what is printed."""

    @abstractmethod
    def progress(self, line: str) -> str | None:
        """How far it is, where a line of its output tells."""

    def failure(self, log: str) -> str | None:
        """The log's own reason for a failure, in one line."""
        return llama_log.failure(log)

    @abstractmethod
    def figures(self, row: Mapping[str, Any]) -> Iterator[Raw]:
        """The figures in one line of its output."""

    def read(self, stdout: str, log: str, launch: BenchLaunch) -> BenchFound:
        """Its figures. Raises RequestError when the output is not the program's."""
        rows = list(_rows(stdout))
        if not rows:
            raise RequestError(
                f"{self.name} printed no figures", hint="read its log for what it did instead"
            )
        logged, (api, confirmed) = llama_log.settings(log), llama_log.api_of(log)
        try:
            raw = tuple(figure for row in rows for figure in self.figures(row))
            printed = {name: rows[0][key] for name, key in self.settings}
            resolved = Resolved.model_validate(self._resolved(logged.model_dump(), printed))
        except (KeyError, TypeError, ValueError, ValidationError) as problem:
            raise RequestError(
                f"{self.name} printed something other than its figures: {problem!r}"[:300],
                hint="is this the right program, in a version that prints JSON lines?",
            ) from None
        if api == "cpu":
            resolved = resolved.model_copy(update={"devices": []})
        number = rows[0].get("build_number")
        printed_build = f"b{number}" if isinstance(number, int) and number > 0 else None
        return BenchFound(
            raw=raw,
            build=printed_build or llama_log.build_of("\n".join(launch.answers[1:])),
            api=api,
            api_confirmed=confirmed,
            spilled=_spilled(api, log, launch),
            resolved=resolved,
        )

    def _resolved(self, logged: dict[str, Any], printed: dict[str, Any]) -> dict[str, Any]:
        return logged | printed

    def _require(self, launch: BenchLaunch, *flags: str) -> None:
        for flag in flags:
            if flag not in launch.flags:
                raise InputError(
                    f"{Path(launch.binary).name} is not {self.name}, or is too old for {flag}:"
                    " its --help does not list it",
                    hint=f"give the path of a newer {self.name} with --bin",
                )

    def _options(self, launch: BenchLaunch) -> list[str]:
        """``{"ngl": 0}`` → ``-ngl 0``; ``true`` is the bare flag, ``false`` leaves it out."""
        argv: list[str] = []
        for option, value in launch.options.items():
            name = flag_name(option)
            if name in _OWN | self.own:
                raise InputError(
                    f"option {option!r} is set by tokrig itself",
                    hint="use --model, --prompt, --output, --depth, --concurrency, --repetitions,"
                    " --threads, --api or --device",
                )
            flag = next((f for f in (f"-{name}", f"--{name}") if f in launch.flags), None)
            if flag is None:
                raise InputError(
                    f"this {self.name} has no option {option!r}: its --help does not list it",
                    hint=did_you_mean(name, {word.lstrip("-") for word in launch.flags}),
                )
            if value is not False:
                argv += [flag] if value is True else [flag, str(value)]
        return argv


class LlamaBench(BenchTool):
    """Prompt processing, generation, both after each other, each at a depth.

    Options are its flags without dashes (``ngl: 99``, ``fa: on``, ``pg: 512,128``).
    It warms up before each test; its own average is a mean, so the median is taken of its
    repetitions."""

    name = "llama-bench"
    needed = ("--n-prompt", "--n-gen", "--repetitions", "--output", "--verbose")
    own = frozenset(
        {"p", "n-prompt", "n", "n-gen", "r", "repetitions", "progress", "d", "n-depth"}
        | {"o", "output", "oe", "output-err"}
    )
    separator = "/"
    settings = (
        ("threads", "n_threads"),
        ("threads_batch", "n_threads"),
        ("batch", "n_batch"),
        ("ubatch", "n_ubatch"),
        ("cache_type_k", "type_k"),
        ("cache_type_v", "type_v"),
        ("flash_attention", "flash_attn"),
    )
    _progress = re.compile(r"llama-bench: benchmark (\d+/\d+): (.+)")
    # A list or a range of anything else measures several configurations, which one record cannot
    # hold.
    _sweeps = re.compile(r",|^\d+-\d")
    _no_sweeps = frozenset({"pg", "ts", "tensor-split", "ot", "override-tensor"})

    def vet(self, launch: BenchLaunch) -> None:
        super().vet(launch)
        if "jsonl" not in launch.help:
            raise InputError(
                "this llama-bench is too old for '-o jsonl': its --help does not list it",
                hint="give the path of a newer llama-bench with --bin",
            )
        if tuple(launch.concurrency) != (1,):
            raise InputError(
                "llama-bench runs one sequence at a time",
                hint="for several use --tool llama-batched-bench",
            )
        for option, value in launch.options.items():
            if option.lstrip("-") not in self._no_sweeps and self._sweeps.search(str(value)):
                raise InputError(
                    f"option {option!r} has several values, and a record holds one configuration",
                    hint="run it once for each value",
                )

    def _tests(self, launch: BenchLaunch) -> list[str]:
        argv = ["-p", _listed(launch.prompt_tokens), "-n", _listed(launch.output_tokens)]
        if launch.depth_tokens:
            self._require(launch, "-d")
            argv += ["-d", _listed(launch.depth_tokens)]
        return argv if launch.repetitions is None else [*argv, "-r", str(launch.repetitions)]

    def _output(self, launch: BenchLaunch) -> list[str]:
        return ["-o", "jsonl", "-v", *(["--progress"] if "--progress" in launch.help else [])]

    def progress(self, line: str) -> str | None:
        match = self._progress.match(line)
        return f"test {match[1]}: {match[2].strip()}" if match else None

    def figures(self, row: Mapping[str, Any]) -> Iterator[Raw]:
        prompt, output, depth = (int(row[key]) for key in ("n_prompt", "n_gen", "n_depth"))
        yield _figure(prompt, output, depth, 1, [float(rate) for rate in row["samples_ts"]])

    def _resolved(self, logged: dict[str, Any], printed: dict[str, Any]) -> dict[str, Any]:
        flash = {1: "on", 0: "off"}.get(int(printed["flash_attention"]))
        return logged | printed | {"flash_attention": logged["flash_attention"] or flash}


class LlamaBatchedBench(BenchTool):
    """Several sequences at once, prompts first, then generation.

    Options are its flags without dashes. Each test is measured once after a short warm-up, and
    each rate is that of all sequences together."""

    name = "llama-batched-bench"
    # At its usual verbosity it keeps to itself for which APIs it looked.
    listing = ("-lv", "4", "--list-devices")
    needed = ("-npp", "-ntg", "-npl", "--output-format", "-c")
    own = frozenset(
        {"c", "ctx-size", "npp", "ntg", "npl", "output-format", "lv", "verbosity", "fit"}
        | {"log-verbosity", "log-verbose", "log-disable", "log-file", "log-prefix"}
    )
    settings = (
        ("threads", "n_threads"),
        ("threads_batch", "n_threads_batch"),
        ("batch", "n_batch"),
        ("ubatch", "n_ubatch"),
    )

    def vet(self, launch: BenchLaunch) -> None:
        super().vet(launch)
        if launch.depth_tokens:
            raise InputError(
                "llama-batched-bench has no depth: it generates behind each of its prompts",
                hint="say the depth as --prompt; llama-bench has --depth",
            )
        if launch.repetitions is not None:
            raise InputError(
                "llama-batched-bench measures each test once",
                hint="leave --repetitions out; llama-bench repeats its tests",
            )
        if not launch.prompt_tokens or not launch.output_tokens:
            raise InputError(
                "llama-batched-bench needs a prompt and an output of at least one token",
                hint="for one without the other use --tool llama-bench",
            )

    def _tests(self, launch: BenchLaunch) -> list[str]:
        # A test that does not fit is left out without a word.
        longest = max(launch.prompt_tokens) + max(launch.output_tokens)
        return [
            *("-c", str(longest * max(launch.concurrency))),
            *("-npp", _listed(launch.prompt_tokens)),
            *("-ntg", _listed(launch.output_tokens)),
            *("-npl", _listed(launch.concurrency)),
        ]

    def _output(self, launch: BenchLaunch) -> list[str]:
        argv = ["--output-format", "jsonl"]
        if "4: trace" in launch.help:
            argv += ["-lv", "4"]  # tells where the weights are; older builds do so by default
        if "--fit " in launch.help:
            argv += ["--fit", "off"]  # nothing fitted to free memory behind our back
        return argv

    def progress(self, line: str) -> str | None:
        try:
            row = json.loads(line) if line.startswith("{") else {}
            return f"{_test(row['pp'], row['tg'])} × {row['pl']}: measured"
        except (ValueError, KeyError, TypeError):
            return None

    def figures(self, row: Mapping[str, Any]) -> Iterator[Raw]:
        prompt, output, at_once = (int(row[key]) for key in ("pp", "tg", "pl"))
        yield _figure(prompt, 0, 0, at_once, [float(row["speed_pp"])])
        # Generation goes on behind the prompt, so at its depth.
        yield _figure(0, output, prompt, at_once, [float(row["speed_tg"])])
        yield _figure(prompt, output, 0, at_once, [float(row["speed"])])


TOOLS: dict[str, BenchTool] = {tool.name: tool for tool in (LlamaBench(), LlamaBatchedBench())}


def _figure(prompt: int, output: int, depth: int, at_once: int, rates: Sequence[float]) -> Raw:
    """The median and range of repetitions, tok/s. Raises ValueError for what is no rate."""
    if not rates or any(not math.isfinite(rate) or rate <= 0 for rate in rates):
        raise ValueError(f"impossible rates: {list(rates)}")
    median, least, most = (significant(of(rates), _DIGITS) for of in (statistics.median, min, max))
    return Raw(
        test=_test(prompt, output, depth),
        prompt_tokens=prompt,
        output_tokens=output,
        depth_tokens=depth,
        concurrency=at_once,
        tok_per_s=Summary(median=median, min=least, max=most, n=len(rates)),
    )


def _test(prompt: int, output: int, depth: int = 0) -> str:
    """``pp512``, ``tg128 @ d1024``, ``pp512+tg128``, as llama-bench's table names its tests."""
    parts = [f"pp{prompt}" if prompt else "", f"tg{output}" if output else ""]
    return "+".join(filter(None, parts)) + (f" @ d{depth}" if depth else "")


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers)) or "0"


def _rows(stdout: str) -> Iterator[Mapping[str, Any]]:
    for line in stdout.splitlines():
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                raise RequestError(f"a line of the output is not JSON: {line[:80]!r}") from None


def _spilled(api: str | None, log: str, launch: BenchLaunch) -> bool | None:
    """Whether fewer layers are on the GPU than asked for; without a word about it, all are."""
    if api in (None, "cpu"):
        return None if api is None else False
    found, layers = llama_log.settings(log).gpu_layers, llama_log.all_layers(log)
    if found is None or layers is None:
        return None
    asked = [value for name, value in launch.options.items() if flag_name(name) in _LAYERS]
    return found < min([layers, *(n for n in asked if isinstance(n, int) and n >= 0)])
