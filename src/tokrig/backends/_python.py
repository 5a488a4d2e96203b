"""What the engines written in Python share: how they are found, asked and started, how their logs
tell why they failed; and what vLLM and SGLang answer alike."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokrig.backends import (
    Ask,
    Availability,
    Backend,
    Capabilities,
    Command,
    Engine,
    Launch,
    Request,
    Speculation,
    Value,
)
from tokrig.backends import _reading as program
from tokrig.backends._reading import answer, at, count, metric, models, page, served_models
from tokrig.errors import InputError
from tokrig.record.model import Resolved
from tokrig.spec.settings import Api

# Most specific first. Of several matches the first counts: what follows is its consequence.
_REASONS = (
    r"error: ((?:unrecognized arguments|argument |the following arguments|ambiguous option).+)",
    r"(No such option.+)",
    r"(Failed to infer device type.*)",
    r"(CUDA out of memory\..+|HIP out of memory\..+)",
    r"((?:torch\.)?(?:cuda\.)?OutOfMemoryError: .+)",
    r"(To serve at least one request .+)",
    r"(No available memory for the cache blocks.+|Not enough memory\..+)",
    r"(Free memory on device .+ is less than desired .+)",
    r"(Model architectures? \[.+)",
    r"(The checkpoint you are trying to load has model type .+)",
    r"(Model type \S+ not supported\.?)",
    r"Value error, (.+?)(?: \[type=|$)",
    r"((?:ModuleNotFoundError|ImportError): .+)",
    r"(\[Errno \d+\] .*[Aa]ddress already in use.*)",
    r"(Address already in use)",
)
# The last line of a traceback, behind whatever a logger puts before it. What only passes on that
# a part of the engine failed is no reason.
_EXCEPTION = re.compile(
    r"^(?:\([^)]*\) )?(?:\w+ [\d: -]+\[[^]]*\] )?([\w.]*(?:Error|Exception): .+)$"
)
_PASSED_ON = ("Engine core initialization failed", "WorkerProc initialization failed")

# Options of vLLM and SGLang that keep weights in main memory; newer builds group layers.
_OFFLOADS = ("cpu-offload-gb", "offload-group-size")

# The variable that leaves an engine only some devices.
_VISIBLE = {"rocm": "HIP_VISIBLE_DEVICES", "sycl": "ZE_AFFINITY_MASK"}


class PythonServer(Backend):
    """Managed, a program with long flags and a ``--help`` that lists them. Options are these flags
    without dashes, and the engine itself judges them.

    ``serve`` are the words before its flags, ``flags`` those it is always given, ``if_listed``
    those it is given where its help lists them and no option says otherwise; ``{0.slots}`` stands
    for a field of the launch. ``own`` are more flags that tokrig alone sets, ``listed`` one that
    every build has; ``help_words`` make it list them. ``devices`` are its words for APIs,
    ``environment`` its variables. ``package`` names the Python package whose metadata tell the
    build.
    """

    starts = True
    package = ""
    serve: tuple[str, ...] = ()
    flags: Mapping[str, str] = {}
    if_listed: Mapping[str, str] = {}
    own: frozenset[str] = frozenset()
    listed = ""
    help_words: tuple[str, ...] = ("--help",)
    help_answer = 0
    devices: Mapping[Api, str] = {}
    environment: Mapping[str, str] = {}

    def availability(self) -> Availability:
        """Whether the engine finds a device only its start tells: that takes it half a minute."""
        found = shutil.which(self.program)
        builds = _builds(Path(found), self.package) if found and self.package else None
        if builds is None:
            return super().availability()
        if self.package in builds:
            return Availability(True, f"{self.program} {builds[self.package]} is on the PATH")
        others = ", ".join(f"{name} {version}" for name, version in sorted(builds.items()))
        return Availability(
            True,
            f"{self.program} is on the PATH, without metadata named {self.package}"
            f" ({others or 'nothing of that name is installed beside it'}): it may end with"
            " 'Failed to infer device type'",
            f"install it anew, or as {self.package}",
        )

    def questions(self, launch: Launch) -> tuple[tuple[str, ...], ...]:
        return ((self.binary(launch), *self.help_words),)

    def vet(self, launch: Launch) -> None:
        help_text = launch.answer(self.help_answer)
        if launch.answers and not program.lists(help_text, self.listed):
            name = Path(launch.binary or self.program).name
            program.refuse(name, self.program, help_text, failure(help_text), self.hint)

    def command(self, launch: Launch) -> Command:
        help_text = launch.answer(self.help_answer)
        program.require_free(launch.options, {*self.flags, *self.own})
        listed = [flag for flag in self.if_listed if program.lists(help_text, flag)]
        flags: dict[str, Value | None] = {
            **{flag: _word(form, launch) for flag, form in self.flags.items()},
            "device": self.devices.get(launch.api) if launch.api else None,
            **self.more_flags(launch, help_text),
            **{flag: _word(self.if_listed[flag], launch) for flag in listed},
            **self.setting_flags(launch),
        }
        for name in launch.flags.keys() & flags.keys():
            del flags[name]
        argv = [self.binary(launch), *(word.format(launch) for word in self.serve)]
        argv += program.long_flags(flags) + program.long_flags(launch.flags)
        return Command(tuple(argv), dict(self.variables(launch)))

    def more_flags(self, launch: Launch, help_text: str) -> Mapping[str, Value | None]:
        """Flags of this launch beside the tables."""
        return {}

    def variables(self, launch: Launch) -> Iterator[tuple[str, str]]:
        """A model given as a file or folder is complete: nothing is looked up elsewhere, and no
        engine tells its makers that it was used. PyTorch takes its number of threads from
        OpenMP's variable, and devices by their numbers, also where they are given as llama.cpp
        and PyTorch name them (``CUDA0``, ``cuda:0``)."""
        yield from {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}.items()
        yield "DO_NOT_TRACK", "1"
        for name, form in self.environment.items():
            yield name, form.format(launch)
        if launch.threads is not None:
            yield "OMP_NUM_THREADS", str(launch.threads)
        if launch.devices and launch.api != "cpu":
            names = (re.sub(r"(?i)^(?:cuda|rocm|hip):?(?=\d+$)", "", n) for n in launch.devices)
            yield _VISIBLE.get(launch.api or "", "CUDA_VISIBLE_DEVICES"), ",".join(names)

    def values(self, launch: Launch, flag: str) -> tuple[str, ...]:
        return program.choices(launch.answer(self.help_answer), flag)

    def body(self, request: Request) -> dict[str, Any]:
        return {**super().body(request), **request.template()}

    def failure(self, log: str) -> str | None:
        return failure(log)


class BatchingServer(PythonServer):
    """What vLLM and SGLang share. ``drafts`` is where a chunk tells of drafts: the way there, and
    the names of drafted and accepted tokens. ``chosen`` are options that choose a setting which
    the engine tells, by its name in a record."""

    precedence = 20
    patience_s = 900.0
    capabilities = Capabilities(
        speculation=("ngram", "draft", "mtp", "eagle"),
        apis=("cpu", "cuda", "rocm", "sycl"),
        cache_switch="start",
        reasoning_switch="request",
        fixed_length=True,
        timings="request",
        counts_prompts=True,
    )
    takes: Mapping[str, tuple[str, ...]] = {
        "devices": (),
        "threads": (),
        "kv_type": ("kv-cache-dtype",),
    }
    drafts: tuple[tuple[str, ...], str, str] = ((), "", "")
    chosen: Mapping[str, str] = {}

    def life(self, ask: Ask, served_model: str | None) -> str | None:
        """When the process was started, as Prometheus' own collectors tell it."""
        found = metric(page(ask, "/metrics"), "process_start_time_seconds")
        return None if found is None else f"started at {found:.2f}"

    def engine(
        self, ask: Ask, launch: Launch | None, api: str | None, told: dict[str, Any], **more: Any
    ) -> Engine:
        """What both say of themselves; ``told`` are the settings this one tells."""
        told["context_per_slot"] = told["context_per_slot"] or next(
            (count(model.get("max_model_len")) for model in models(ask)), None
        )
        return Engine(
            engine=self.title,
            api=api,
            api_confirmed=None if api is None else True,
            served_models=served_models(ask),
            resolved=Resolved(**told, cache_type_v=told["cache_type_k"]),
            offload=_offload(launch) if api != "cpu" else None,
            asked=_chosen(launch, self.chosen),
            **more,
        )

    def body(self, request: Request) -> dict[str, Any]:
        """Full length, and usage on every chunk: one may carry several tokens."""
        return {
            **super().body(request),
            "ignore_eos": True,
            "min_tokens": request.answer_tokens,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }

    def event(self, data: dict[str, Any]) -> dict[str, Any]:
        """Drafted and accepted tokens in the words of llama.cpp's ``timings``."""
        way, drafted, accepted = self.drafts
        found = at(data, *way)
        if not isinstance(found, dict):
            return data
        told = {"draft_n": found.get(drafted), "draft_n_accepted": found.get(accepted)}
        return {**data, "timings": told}

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """The server's own count after its chat template."""
        question = {"messages": request.messages, **request.template(effort=True)}
        return count(answer(ask, "/tokenize", question).get("count"))

    def count_text(self, ask: Ask, text: str) -> int | None:
        question = {"prompt": text, "add_special_tokens": False}
        return count(answer(ask, "/tokenize", question).get("count"))


def draft(speculation: Speculation) -> str:
    """The draft model's path. Raises InputError where the type needs one and has none."""
    if speculation.draft_model is None:
        raise InputError(
            f"speculative {speculation.type!r} needs a draft model",
            hint="name its folder with --draft-model",
        )
    return str(speculation.draft_model)


def failure(log: str) -> str | None:
    """The log's own reason, most specific first; else the first exception that says more than
    that a part failed."""
    for pattern in _REASONS:
        found = re.search(pattern, log, re.MULTILINE)
        if found:
            return found.group(1).strip()[:300]
    for line in log.splitlines():
        raised = _EXCEPTION.match(line.strip())
        if raised and not any(words in line for words in _PASSED_ON):
            return raised.group(1)[:300]
    return None


def _word(form: str, launch: Launch) -> Value:
    """A flag's value by its form; the bare flag where there is none."""
    return form.format(launch) or True


def _chosen(launch: Launch | None, names: Mapping[str, str]) -> dict[str, Value]:
    """What options asked of settings that an engine reads back. What leaves the choice to the
    engine asks for nothing."""
    given = launch.flags if launch else {}
    found = {setting: given.get(name) for name, setting in names.items() if name in given}
    return {k: v for k, v in found.items() if v is not None and v not in ("auto", True, False)}


def _offload(launch: Launch | None) -> str | None:
    """Weights that an option keeps in main memory: ``cpu-offload-gb 4``."""
    given = {n: (launch.flags if launch else {}).get(n) for n in _OFFLOADS}
    words = [f"{n} {v:g}" for n, v in given.items() if isinstance(v, int | float) and v > 0]
    return ", ".join(words) or None


def _builds(script: Path, package: str) -> dict[str, str] | None:
    """Versions of the packages called ``package`` or ``package_…`` in the environment that a
    console script belongs to; None where it is no such script."""
    try:
        with script.open("rb") as file:
            first = file.readline(512).decode("utf-8", "replace")
    except OSError:
        return None
    python = re.match(r"#!\s*(\S*/bin/\S*python[\d.]*)\s*$", first)
    if python is None:
        return None
    prefix = Path(python.group(1)).parent.parent
    folders = prefix.glob(f"lib/python3*/site-packages/{package}*.dist-info")
    named = (folder.name.removesuffix(".dist-info").partition("-") for folder in folders)
    return {n: v for n, _, v in named if n == package or n.startswith(f"{package}_")}
