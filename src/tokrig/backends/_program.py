"""An engine's program: where it is, why it does not run here, and its flags.

An engine that is installed and lacks a device or a library is no other program: the reason and
the way out are told, not "no such engine".
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tokrig.errors import InputError

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
_MISSING = re.compile(
    r"error while loading shared libraries: (?P<a>\S+?): .+"
    r"|Library not loaded: (?P<b>\S+)"
    r"|(?:ImportError|OSError): (?P<c>lib\S+?): cannot open shared object file.*"
)
# What a program says that cannot run here, the words for it where its own are too few, and what to
# do; the first found counts. Those of a missing device are vLLM's, SGLang's and PyTorch's.
_REASONS = (
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


def find(wanted: str, usual: str, hint: str) -> str:
    """The path of an engine's program. Raises InputError that says what is there instead."""
    found = shutil.which(wanted)
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
    lines = (line for line in said.splitlines() if line.strip())
    words = reason or next(lines, "nothing")
    raise InputError(f"{name} is no {usual}: it says {words.strip()[:200]!r}", hint=hint)


def require_able(name: str, said: str) -> None:
    """Raises InputError where what a program ``said`` shows why it cannot run here."""
    if found := unable(said):
        reason, hint = found
        raise InputError(f"{name} is there, but cannot run here: {reason}", hint=hint)


def unable(said: str) -> tuple[str, str] | None:
    """The reason in the program's own words, and what to do; None where it names none."""
    if missing := _MISSING.search(said):
        name = next(filter(None, missing.groups())).rpartition("/")[2]
        hint = next(hint for pattern, hint in _LIBRARIES.items() if re.match(pattern, name))
        return missing.group()[:200], hint
    for pattern, words, hint in _REASONS:
        if found := re.search(pattern, said):
            return words or found.group()[:200], hint
    return None


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


def knows(text: str, flag: str) -> bool:
    """Whether a ``--help`` lists ``flag``, given without dashes."""
    return re.search(rf"(?<![\w-])--{re.escape(flag)}(?![\w-])", text) is not None


def choices(text: str, flag: str) -> tuple[str, ...]:
    """The words that a ``--help`` of argparse's lists for ``flag``; empty where it lists none."""
    found = re.search(rf"(?<![\w-])--{re.escape(flag)}\s+\{{([^}}]+)\}}", text)
    return tuple(word.strip() for word in found.group(1).split(",")) if found else ()
