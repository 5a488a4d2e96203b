"""Reading engines: what they answer over HTTP, what their logs and their ``--help`` say, and why a
program does not run here. Something else in the place of a fact is no fact, and raises nothing."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tokrig import engines
from tokrig.errors import InputError, RequestError

if TYPE_CHECKING:
    from tokrig.backends import Ask

# Libraries by the beginnings of their names, and what brings them.
_LIBRARIES = {
    "libcuda.so": "the NVIDIA driver is not here; in a container start it with --gpus all",
    "libcudart|libcublas|libnvrtc|libcudnn|libnccl": (
        "install the CUDA libraries of the version it was built for"
    ),
    "libamdhip|libhip|librocblas|libhsa|librocm": "install ROCm of the version it was built for",
    "libvulkan": "install the Vulkan loader (Debian and Ubuntu: libvulkan1)",
    "libsycl|libze_loader|libpi_|libur_|libmkl": "load oneAPI first: source setvars.sh",
    "libgomp|libomp|libiomp": "install the OpenMP runtime (Debian and Ubuntu: libgomp1)",
    "libllama|libggml|libmtmd": (
        "keep it beside the libraries it came with, or name their folder in LD_LIBRARY_PATH"
    ),
    "": "install the library, or name its folder in LD_LIBRARY_PATH",
}
_MISSING = (
    r"error while loading shared libraries: (?:\S*/)?(?:{0})\S*?: .+"
    r"|Library not loaded: (?:\S*/)?(?:{0})\S*"
    r"|(?:ImportError|OSError): (?=lib)(?:{0})\S*?: cannot open shared object file.*"
)
# What a program says that cannot run here, the words for it where its own are too few, and what to
# do; the first found counts. Those of a missing device are vLLM's, SGLang's and PyTorch's.
_CANNOT_RUN = (
    *((_MISSING.format(names), "", hint) for names, hint in _LIBRARIES.items()),
    (
        r"version [`']?(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+'? not found.*",
        "",
        "it was built for a newer system: take another build",
    ),
    (
        r"Failed to infer device type.*|Device string must not be empty.*"
        r"|Could not find CUDA lib directory.*|Found no NVIDIA driver on your system.*"
        r"|No CUDA GPUs are available.*|No CUDA runtime is found.*|No HIP GPUs are available.*"
        r"|Torch not compiled with CUDA enabled.*|CUDA_HOME environment variable is not set.*"
        r"|no (?:CUDA|ROCm)-capable device is detected.*",
        "",
        "it found no device that it was built for: install the driver, or the build for this"
        " machine's processor alone (for vLLM a version that ends in +cpu)",
    ),
    (
        r"(?m)^ended by SIGILL$|\bIllegal instruction\b",
        "it ended by an illegal instruction (SIGILL)",
        "it was built for another processor: take a build for this one",
    ),
    (r"(?m)^ended by SIG\w+$", "", "run it by hand to see why"),
)


# What a server answers.


def answer(ask: Ask, path: str, body: Any = None) -> dict[str, Any]:
    """The object a server answers; empty where it refuses, or answers something else."""
    try:
        return mapping(ask(path, body))
    except RequestError:
        return {}


def answers(ask: Ask, path: str, *keys: str) -> list[dict[str, Any]]:
    """The list of objects a server answers, below ``keys``; empty where it has none."""
    try:
        return mappings(ask(path), *keys)
    except RequestError:
        return []


def page(ask: Ask, path: str) -> str:
    """A text a server answers; empty where it refuses."""
    try:
        return str(ask(path, text=True))
    except RequestError:
        return ""


def one_token(model: Any = None) -> dict[str, Any]:
    """A chat request as short as can be, for servers that tell more of themselves in answers."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    return {"model": model, **body} if model is not None else body


def models(ask: Ask) -> list[dict[str, Any]]:
    """``/v1/models``; empty where the server has no such list."""
    return answers(ask, "/v1/models", "data")


def served_models(ask: Ask) -> tuple[str, ...]:
    """The models' ids."""
    return tuple(name for model in models(ask) if (name := text(model, "id")))


def owner(ask: Ask) -> str | None:
    """``owned_by`` of the first model: "vllm", "llamacpp", … where the server says so."""
    return next((text(model, "owned_by") for model in models(ask)), None)


def metric(page: str, name: str) -> float | None:
    """The sum of all samples of the Prometheus counter ``name``; None without any, and where one
    is no number."""
    lines = (line for line in page.splitlines() if line.startswith((name + " ", name + "{")))
    words = [line.rsplit(" ", 1)[-1] for line in lines]
    try:
        total = sum(map(float, words)) if words else None
    except ValueError:
        return None
    return total if total is not None and math.isfinite(total) else None


def at(value: Any, *keys: str) -> Any:
    """What stands below these keys; None where it is not there."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def mapping(value: Any, *keys: str) -> dict[str, Any]:
    """An object, below these keys as all that follow; empty where there is none."""
    value = at(value, *keys)
    return value if isinstance(value, dict) else {}


def mappings(value: Any, *keys: str) -> list[dict[str, Any]]:
    """The objects of a list."""
    value = at(value, *keys)
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def count(value: Any, *keys: str) -> int | None:
    """A whole number above 0, also where it is sent as text or as 4096.0. Where 0 or less is
    impossible it is what a server says that does not know."""
    value = at(value, *keys)
    if isinstance(value, str):
        value = value.strip()
        value = int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 63
    return value if usable else None


def number(value: Any, *keys: str) -> float | None:
    """A number of any kind, a negative one too: that it cannot be, the checks tell."""
    value = at(value, *keys)
    return value if isinstance(value, int | float) else None


def text(value: Any, *keys: str) -> str | None:
    """Text with something in it."""
    value = at(value, *keys)
    return value.strip() or None if isinstance(value, str) else None


def chat_text(told: Any) -> str:
    """All that an answer to a chat says, thoughts included."""
    choice = next(iter(mappings(told, "choices")), told)
    names = ("reasoning_content", "reasoning", "thinking", "content")
    parts = [at(choice, "message", name) for name in names]
    return "".join(part for part in parts if isinstance(part, str))


# What a program prints.


def word(log: str, pattern: str) -> str | None:
    """The first group of the first match; None where there is none or it is Python's None."""
    found = re.search(pattern, log)
    return found.group(1) if found and found.group(1) != "None" else None


def logged(log: str, patterns: Mapping[str, str]) -> dict[str, Any]:
    r"""Facts by the patterns that find them in a log; those of ``(\d+)`` are numbers above 0."""
    found = {name: word(log, pattern) for name, pattern in patterns.items()}
    return {n: count(said) if r"(\d+)" in patterns[n] else said for n, said in found.items()}


def find(wanted: str, usual: str, hint: str) -> str:
    """The path of an engine's program. Raises InputError that says what is there instead."""
    found = engines.program(wanted)
    if found is not None:
        return found
    path = Path(wanted)
    if path.is_dir():
        near = path / usual
        named = f"give the program in it: {near}" if near.is_file() else hint
        raise InputError(f"{wanted!r} is a folder, not the program {usual}", hint=named)
    if path.is_file() and not os.access(path, os.X_OK):
        raise InputError(f"{wanted!r} is not executable", hint=f"chmod +x {wanted}")
    raise InputError(f"no runnable {usual} at {wanted!r}", hint=hint)


def refuse(name: str, usual: str, said: str, reason: str | None, hint: str) -> NoReturn:
    """Refuse a program called ``name`` whose help, ``said``, is not that of the ``usual`` one: it
    cannot run here, or is another. ``reason`` is what it names itself.

    Raises InputError.
    """
    require_able(name, said)
    first = next((line for line in said.splitlines() if line.strip()), "nothing")
    words = (reason or first).strip()[:200]
    raise InputError(f"{name} is not {usual}: it says {words!r}", hint=hint)


def require_able(name: str, said: str) -> None:
    """Raises InputError where what a program ``said`` shows why it cannot run here: one that lacks
    a device or a library is no other program."""
    for pattern, words, hint in _CANNOT_RUN:
        if found := re.search(pattern, said):
            reason = words or found.group()[:200]
            raise InputError(f"{name} is there, but cannot run here: {reason}", hint=hint)


# Flags.


def flag_name(option: str) -> str:
    """An option as people write it, by its flag's name: ``--n_gpu_layers`` → ``n-gpu-layers``."""
    return option.lstrip("-").replace("_", "-")


def long_flags(flags: Mapping[str, Any]) -> list[str]:
    """``{"max-num-seqs": 4}`` → ``--max-num-seqs 4``; ``True`` is the bare flag, ``False`` and
    ``None`` leave it out."""
    argv: list[str] = []
    for name, value in flags.items():
        if value is not False and value is not None:
            argv += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return argv


def require_free(options: Iterable[str], own: Collection[str]) -> None:
    """Raises InputError for an option that is a flag tokrig sets itself."""
    for name in options:
        if flag_name(name) in own:
            raise InputError(
                f"option {name!r} is set by tokrig itself",
                hint="use --model, --context, --threads, --concurrency, --api, --device or"
                " --speculative",
            )


def lists(help_text: str, flag: str) -> bool:
    """Whether a ``--help`` lists ``flag``, given without dashes."""
    return re.search(rf"(?<![\w-])--{re.escape(flag)}(?![\w-])", help_text) is not None


def choices(help_text: str, flag: str) -> tuple[str, ...]:
    """The words that a ``--help`` of argparse's lists for ``flag``; empty where it lists none."""
    found = re.search(rf"(?<![\w-])--{re.escape(flag)}\s+\{{([^}}]+)\}}", help_text)
    return tuple(word.strip() for word in found.group(1).split(",")) if found else ()
