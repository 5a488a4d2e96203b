"""What the engines written in Python share: how they are found and started, the questions that
vLLM and SGLang answer alike, and how their logs tell why they failed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from typing import Any

from tokrig.backends import Ask, Availability, Counters, Launch, Speculation
from tokrig.backends._openai_http import metric
from tokrig.errors import InputError, RequestError

# A model given as a file or folder is complete: nothing is looked up elsewhere, and no engine
# tells its makers that it was used.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}

# Most specific first. Of several matches the first counts: what follows is its consequence.
_REASONS = (
    r"error: ((?:unrecognized arguments|argument |the following arguments|ambiguous option).+)",
    r"(No such option.+)",
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


def available(program: str, hint: str) -> Availability:
    """Whether ``program`` is on the PATH."""
    if shutil.which(program):
        return Availability(True, f"{program} is on the PATH")
    return Availability(False, f"no {program} on the PATH", hint)


def binary(launch: Launch, usual: str, hint: str) -> str:
    """The engine's program, found. Raises InputError where there is none."""
    wanted = launch.binary or usual
    found = shutil.which(wanted)
    if found is None:
        raise InputError(f"no runnable {usual} at {wanted!r}", hint=hint)
    return found


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
    variable = "HIP_VISIBLE_DEVICES" if launch.api == "rocm" else "CUDA_VISIBLE_DEVICES"
    numbers = [re.sub(r"(?i)^(?:cuda|rocm|hip):?(?=\d+$)", "", name) for name in launch.devices]
    return {variable: ",".join(numbers)}


def threads(launch: Launch) -> dict[str, str]:
    """PyTorch takes its number of threads from OpenMP's variable."""
    return {} if launch.threads is None else {"OMP_NUM_THREADS": str(launch.threads)}


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
        return int(ask("/tokenize", question)["count"])
    except (RequestError, KeyError, TypeError, ValueError):
        return None


def context(ask: Ask) -> int | None:
    """The longest sequence the server takes, in tokens, as its list of models tells."""
    try:
        return int(ask("/v1/models")["data"][0]["max_model_len"])
    except (RequestError, LookupError, TypeError, ValueError):
        return None


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
    """The same as a whole number."""
    found = word(log, pattern)
    return int(found) if found is not None else None
