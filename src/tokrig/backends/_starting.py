"""Why an engine's program does not run on this machine, from what it says instead of its help.

An engine that is installed and lacks a device or a library is no other program: the reason and
the way out are told, not "no such engine".
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from tokrig.errors import InputError

# Libraries by the beginnings of their names, and what brings them.
_LIBRARIES = (
    ("libcuda.so", "the NVIDIA driver is not here; in a container start it with --gpus all"),
    (
        "libcudart|libcublas|libnvrtc|libcudnn|libnccl",
        "install the CUDA libraries of the version it was built for",
    ),
    ("libamdhip|libhip|librocblas|libhsa|librocm", "install ROCm of the version it was built for"),
    ("libvulkan", "install the Vulkan loader (Debian and Ubuntu: libvulkan1)"),
    ("libsycl|libze_loader|libpi_|libur_|libmkl", "load oneAPI first: source setvars.sh"),
    ("libgomp|libomp|libiomp", "install the OpenMP runtime (Debian and Ubuntu: libgomp1)"),
    (
        "libllama|libggml|libmtmd",
        "keep it beside the libraries it came with, or name their folder in LD_LIBRARY_PATH",
    ),
)
_MISSING = re.compile(
    r"error while loading shared libraries: (?P<a>\S+?): .+"
    r"|Library not loaded: (?P<b>\S+)"
    r"|(?:ImportError|OSError): (?P<c>lib\S+?): cannot open shared object file.*"
)
_TOO_NEW = re.compile(r"version [`']?((?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)'? not found.*")
_SIGNAL = re.compile(r"^ended by (SIG\w+)$|^.*\b(Illegal instruction)\b.*$", re.MULTILINE)
# Words of vLLM, SGLang and PyTorch for a machine without a device they were built for.
_NO_DEVICE = re.compile(
    r"(Failed to infer device type.*|Device string must not be empty.*"
    r"|Could not find CUDA lib directory.*|Found no NVIDIA driver on your system.*"
    r"|No CUDA GPUs are available.*|No CUDA runtime is found.*|No HIP GPUs are available.*"
    r"|Torch not compiled with CUDA enabled.*|CUDA_HOME environment variable is not set.*"
    r"|no (?:CUDA|ROCm)-capable device is detected.*)"
)


def program(wanted: str, usual: str, hint: str) -> str:
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


def require_able(name: str, said: str) -> None:
    """Raises InputError where what a program ``said`` shows why it cannot run here."""
    found = unable(said)
    if found is not None:
        reason, hint = found
        raise InputError(f"{name} is there, but cannot run here: {reason}", hint=hint)


def unable(said: str) -> tuple[str, str] | None:
    """The reason in the program's own words, and what to do; None where it names none."""
    if missing := _MISSING.search(said):
        library = next(filter(None, missing.groups()))
        return missing.group()[:200], _library_hint(library)
    if newer := _TOO_NEW.search(said):
        return newer.group()[:200], "it was built for a newer system: take another build"
    if device := _NO_DEVICE.search(said):
        return device.group(1)[:200], (
            "it found no device that it was built for: install the driver, or the build for this"
            " machine's processor alone (for vLLM a version that ends in +cpu)"
        )
    if signal := _SIGNAL.search(said):
        word = signal.group(1) or "SIGILL"
        if word == "SIGILL":
            return (
                "it ended by an illegal instruction (SIGILL)",
                "it was built for another processor: take a build for this one",
            )
        return f"it ended by {word}", "run it by hand to see why"
    return None


def _library_hint(library: str) -> str:
    name = library.rpartition("/")[2]
    return next(
        (hint for pattern, hint in _LIBRARIES if re.match(pattern, name)),
        "install the library, or name its folder in LD_LIBRARY_PATH",
    )
