"""What the engines written in Python share: how they are found and started, the questions that
vLLM and SGLang answer alike, and how their logs tell why they failed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokrig.backends import (
    Ask,
    Availability,
    Counters,
    Launch,
    Speculation,
    _starting,
    count,
    mapping,
    mappings,
)
from tokrig.backends._openai_http import metric
from tokrig.errors import InputError, RequestError

# A model given as a file or folder is complete: nothing is looked up elsewhere, and no engine
# tells its makers that it was used.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}

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


def available(program: str, hint: str, package: str = "") -> Availability:
    """Whether ``program`` is on the PATH, and which build of its ``package`` it belongs to, as the
    metadata beside it say. Whether it finds a device only its start tells: that takes it half a
    minute."""
    found = shutil.which(program)
    if found is None:
        return Availability(False, f"no {program} on the PATH", hint)
    if not package:
        return Availability(True, f"{program} is on the PATH")
    builds = _builds(Path(found), package)
    if builds is None or package in builds:
        version = f" {builds[package]}" if builds else ""
        return Availability(True, f"{program}{version} is on the PATH")
    others = ", ".join(f"{name} {version}" for name, version in sorted(builds.items()))
    return Availability(
        True,
        f"{program} is on the PATH, without metadata named {package}"
        f" ({others or 'nothing of that name is installed beside it'}): it may end with"
        " 'Failed to infer device type'",
        f"install it anew, or as {package}",
    )


def _builds(program: Path, package: str) -> dict[str, str] | None:
    """Versions of the packages called ``package`` or ``package_…`` in the environment that a
    console script belongs to; None where it is no such script."""
    try:
        with program.open("rb") as file:
            first = file.readline(512).decode("utf-8", "replace")
    except OSError:
        return None
    python = re.match(r"#!\s*(\S*/bin/\S*python[\d.]*)\s*$", first)
    if python is None:
        return None
    prefix = Path(python.group(1)).parent.parent
    folders = prefix.glob(f"lib/python3*/site-packages/{package}*.dist-info")
    named = (folder.name.removesuffix(".dist-info").partition("-") for folder in folders)
    return {
        name: version
        for name, _, version in named
        if name == package or name.startswith(f"{package}_")
    }


def binary(launch: Launch, usual: str, hint: str) -> str:
    """The engine's program, found. Raises InputError where there is none."""
    return _starting.program(launch.binary or usual, usual, hint)


def answer(launch: Launch, number: int) -> str:
    """What the binary said to a question; empty where it was not asked."""
    return launch.answers[number] if number < len(launch.answers) else ""


def knows(text: str, flag: str) -> bool:
    """Whether a ``--help`` lists ``flag``, given without dashes."""
    return re.search(rf"(?<![\w-])--{re.escape(flag)}(?![\w-])", text) is not None


def choices(text: str, flag: str) -> tuple[str, ...]:
    """The words that a ``--help`` lists for ``flag``; empty where it lists none."""
    found = re.search(rf"(?<![\w-])--{re.escape(flag)}\s+\{{([^}}]+)\}}", text)
    return tuple(word.strip() for word in found.group(1).split(",")) if found else ()


def vet_help(launch: Launch, text: str, program: str, *flags: str, hint: str) -> None:
    """Refuse a binary whose ``--help`` lacks one of ``flags``, which every build has.

    Raises InputError with what the binary said instead.
    """
    if launch.answers and not all(knows(text, flag) for flag in flags):
        _starting.require_able(Path(launch.binary or program).name, text)
        said = failure(text) or next(
            (line for line in text.splitlines() if line.strip()), "nothing"
        )
        raise InputError(
            f"{launch.binary or program} is no {program}: it says {said[:200]!r}", hint=hint
        )


def visible_devices(launch: Launch) -> dict[str, str]:
    """The variable that leaves an engine only the devices asked for: their numbers, also where
    they are given as llama.cpp and PyTorch name them (``CUDA0``, ``cuda:0``)."""
    if not launch.devices or launch.api == "cpu":
        return {}
    variables = {"rocm": "HIP_VISIBLE_DEVICES", "sycl": "ZE_AFFINITY_MASK"}
    variable = variables.get(launch.api or "", "CUDA_VISIBLE_DEVICES")
    numbers = [re.sub(r"(?i)^(?:cuda|rocm|hip):?(?=\d+$)", "", name) for name in launch.devices]
    return {variable: ",".join(numbers)}


def threads(launch: Launch) -> dict[str, str]:
    """PyTorch takes its number of threads from OpenMP's variable."""
    return {} if launch.threads is None else {"OMP_NUM_THREADS": str(launch.threads)}


def option(launch: Launch | None, name: str) -> str | int | float | bool | None:
    """An option's value, however its name is written; None where it is not given."""
    for given, value in (launch.options if launch else {}).items():
        if given.lstrip("-").replace("_", "-") == name:
            return value
    return None


def chosen(launch: Launch | None, names: Mapping[str, str]) -> dict[str, str | int | float | bool]:
    """What options asked of settings that an engine reads back: option → setting. What leaves the
    choice to the engine asks for nothing."""
    given = {setting: option(launch, name) for name, setting in names.items()}
    return {k: v for k, v in given.items() if v is not None and v not in ("auto", True, False)}


# Layers grouped for offloading by newer builds of vLLM and SGLang alike.
_OFFLOADS = ("cpu-offload-gb", "offload-group-size")


def offload(launch: Launch | None) -> str | None:
    """Weights that an option keeps in main memory: ``cpu-offload-gb 4``. None where none are."""
    given = {name: option(launch, name) for name in _OFFLOADS}
    words = [f"{n} {v:g}" for n, v in given.items() if isinstance(v, int | float) and v > 0]
    return ", ".join(words) or None


def draft(speculation: Speculation) -> str:
    """The draft model's path. Raises InputError where the type needs one and has none."""
    if speculation.draft_model is None:
        raise InputError(
            f"speculative {speculation.type!r} needs a draft model",
            hint="name its folder with --draft-model",
        )
    return str(speculation.draft_model)


def tokens(ask: Ask, question: Mapping[str, Any]) -> int | None:
    """How many tokens ``/tokenize`` makes of a ``prompt`` or of ``messages``."""
    try:
        return count(mapping(ask("/tokenize", question)).get("count"))
    except RequestError:
        return None


def context(ask: Ask) -> int | None:
    """The longest sequence the server takes, in tokens, as its list of models tells."""
    try:
        models = mappings(mapping(ask("/v1/models")).get("data"))
    except RequestError:
        return None
    return count(models[0].get("max_model_len")) if models else None


def sums(ask: Ask, names: Mapping[str, str]) -> Counters | None:
    """Prometheus counters under tokrig's names; None where the server keeps none of them."""
    try:
        text = str(ask("/metrics", text=True))
    except RequestError:
        return None
    found = {ours: metric(text, theirs) for ours, theirs in names.items()}
    return {name: value for name, value in found.items() if value is not None} or None


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


def word(log: str, pattern: str) -> str | None:
    """The first group of the first match; None where there is none or it is Python's None."""
    found = re.search(pattern, log)
    return found.group(1) if found and found.group(1) != "None" else None


def number(log: str, pattern: str) -> int | None:
    """The same as a whole number above 0."""
    return count(word(log, pattern))
