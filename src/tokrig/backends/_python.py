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
from tokrig.backends import _reading as read
from tokrig.errors import InputError
from tokrig.record.model import Resolved
from tokrig.spec.settings import Api
from tokrig.units import GIB

# Most specific first. Of several matches the first counts: what follows is its consequence. At last
# any exception but those that only pass on that a part of the engine failed.
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
    r"^(?!.*(?:Engine core|WorkerProc) initialization failed)\s*"
    r"(?:\([^)]*\) )?(?:\w+ [\d: -]+\[[^]]*\] )?([\w.]*(?:Error|Exception): .+)$",
)

# Options of vLLM and SGLang that keep weights in main memory; newer builds group layers.
_OFFLOADS = ("cpu-offload-gb", "offload-group-size")

# Their options that choose a setting which they tell, by its name in a record.
_CHOSEN = {
    "dtype": "dtype",
    "quantization": "quantization",
    "tp-size": "tensor_parallel",
    "tensor-parallel-size": "tensor_parallel",
    "kv-cache-dtype": "cache_type_k",
}

# The variable that leaves an engine only some devices.
_VISIBLE = {"rocm": "HIP_VISIBLE_DEVICES", "sycl": "ZE_AFFINITY_MASK"}


class PythonServer(Backend):
    """Managed, a program with long flags and a ``--help`` that lists them. Options are these flags
    without dashes, and the engine itself judges them.

    ``serve`` are the words before its flags, ``flags`` those it is always given beside its address,
    ``if_listed`` those it is given where its help lists them and no option says otherwise;
    ``{0.slots}`` stands for a field of the launch. Of both ``cache_off`` switch its prompt cache
    off. ``own`` are more flags that tokrig alone sets, ``listed`` one that every build has;
    ``help_words`` make it list them, its first answer. ``devices`` are its words for APIs,
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
    cache_off: tuple[str, ...] = ()
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
        help_text = launch.answer(0)
        if launch.answers and not read.lists(help_text, self.listed):
            name = Path(launch.binary or self.program).name
            read.refuse(name, self.program, help_text, failure(help_text), self.hint)

    def command(self, launch: Launch) -> Command:
        help_text = launch.answer(0)
        always = {**self.flags, "host": "127.0.0.1", "port": "{0.port}"}
        read.require_free(launch.options, {*always, *self.own})
        listed = {flag: v for flag, v in self.if_listed.items() if read.lists(help_text, flag)}
        tables = {
            flag: v.format(launch) or True
            for flag, v in {**always, **listed}.items()
            if not (launch.keeps_prompts and flag in self.cache_off)
        }
        flags: dict[str, Value | None] = {
            **tables,
            "device": self.devices.get(launch.api) if launch.api else None,
            **self.more_flags(launch, help_text),
            **self.setting_flags(launch),
        }
        own = {flag: value for flag, value in flags.items() if flag not in launch.flags}
        serve = (word.format(launch) for word in self.serve)
        argv = (self.binary(launch), *serve, *read.long_flags(own), *read.long_flags(launch.flags))
        return Command(argv, dict(self.variables(launch)))

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
        return read.choices(launch.answer(0), flag)

    def body(self, request: Request) -> dict[str, Any]:
        return {**super().body(request), **request.template()}

    def failure(self, log: str) -> str | None:
        return failure(log)


class BatchingServer(PythonServer):
    """What vLLM and SGLang share. ``drafts`` is where a chunk tells of drafts: the way there, and
    the names of drafted and accepted tokens."""

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

    def life(self, ask: Ask, served_model: str | None) -> str | None:
        """When the process was started, as Prometheus' own collectors tell it."""
        found = read.metric(read.page(ask, "/metrics"), "process_start_time_seconds")
        return None if found is None else f"started at {found:.2f}"

    def engine(
        self,
        ask: Ask,
        launch: Launch | None,
        told: dict[str, Any],
        *,
        api: str | None,
        gib: float,
        **more: Any,
    ) -> Engine:
        """What both say of themselves; ``told`` are the settings this one tells, ``gib`` what it
        has on its devices."""
        lengths = (read.count(model, "max_model_len") for model in read.models(ask))
        told["context_per_slot"] = told["context_per_slot"] or next(lengths, None)
        given = launch.flags if launch else {}
        # What leaves the choice to the engine asks for nothing.
        chosen = {key: given[flag] for flag, key in _CHOSEN.items() if flag in given}
        kept = [
            f"{flag} {value:g}"
            for flag in _OFFLOADS
            if isinstance(value := given.get(flag), int | float) and value > 0
        ]
        return Engine(
            engine=self.title,
            api=api,
            api_confirmed=None if api is None else True,
            served_models=read.served_models(ask),
            resolved=Resolved(**told, cache_type_v=told["cache_type_k"]),
            offload=", ".join(kept) or None if api != "cpu" else None,
            device_bytes={api: round(gib * GIB)} if gib and api not in (None, "cpu") else {},
            asked={k: v for k, v in chosen.items() if v not in ("auto", True, False)},
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
        found = read.mapping(data, *way)
        if not found:
            return data
        told = {"draft_n": found.get(drafted), "draft_n_accepted": found.get(accepted)}
        return {**data, "timings": told}

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """The server's own count after its chat template."""
        question = {"messages": request.messages, **request.template(effort=True)}
        return read.count(read.answer(ask, "/tokenize", question).get("count"))

    def count_text(self, ask: Ask, text: str) -> int | None:
        question = {"prompt": text, "add_special_tokens": False}
        return read.count(read.answer(ask, "/tokenize", question).get("count"))


def method(asked: Speculation, methods: Mapping[str, str]) -> tuple[str, str | None]:
    """An engine's word for a way to draft, and the draft model's path. The two generations of EAGLE
    heads are told apart by their names, as vLLM itself and SGLang's users do.

    Raises InputError where the type needs a model and has none.
    """
    if asked.draft_model is None and asked.type in ("draft", "eagle"):
        raise InputError(
            f"speculative {asked.type!r} needs a draft model",
            hint="name its folder with --draft-model",
        )
    model = str(asked.draft_model) if asked.draft_model else None
    third = asked.type == "eagle" and "eagle3" in str(model).lower()
    return methods["eagle3" if third else asked.type], model


def failure(log: str) -> str | None:
    """The log's own reason in one line."""
    found = (re.search(pattern, log, re.MULTILINE) for pattern in _REASONS)
    return next((match.group(1).strip()[:300] for match in found if match), None)


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
