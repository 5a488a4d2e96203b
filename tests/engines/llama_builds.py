"""Builds of llama.cpp's own programs, from source, for the tests of real engines.

``python -m tests.engines.llama_builds --folder DIR`` leaves in DIR, unless they are there already:

    llama-cpp-VERSION/vulkan/   llama-server, llama-bench, llama-batched-bench, llama-quantize
    llama-cpp-VERSION/cpu/      the same without the Vulkan module: a build that lacks that API

as ``tokrig engine add`` builds them, but in one compilation: llama.cpp loads its accelerator
modules from the program's own folder. Mesa's software device makes Vulkan real without a GPU.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tokrig import builds as build
from tokrig.errors import EngineError, TokrigError

MODULE = "libggml-vulkan.so"
# The oldest processors this runs on have AVX2; "native" would not run on the next machine.
FLAGS = (
    *("-DGGML_BACKEND_DL=ON", "-DGGML_NATIVE=OFF"),
    *("-DGGML_AVX2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON", "-DGGML_BMI2=ON"),
)


def builds(folder: Path) -> tuple[Path, Path]:
    """The folders of the CPU and of the Vulkan build."""
    root = folder / f"llama-cpp-{build.VERSION}"
    return root / "cpu", root / "vulkan"


def main() -> int:
    """Make what is missing. Exit code 1 when the machine lacks a tool, or a step fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    folder: Path = parser.parse_args().folder
    cpu, vulkan = builds(folder)
    if all((place / name).exists() for place in (cpu, vulkan) for name in build.PROGRAMS):
        print(f"llama.cpp {build.VERSION} is built")
        return 0
    if missing := build.APIS["vulkan"].missing():
        print(f"cannot build llama.cpp: {', '.join(missing)} missing", file=sys.stderr)
        return 1
    try:
        with build.workplace(folder) as work:
            source = build.source(build.VERSION, work, tell)
            flags = (*build.flags("vulkan", build.VERSION), *FLAGS)
            programs = build.compiled(source, work / "build", flags, None, tell)
            build.install(programs, vulkan)
            build.install(programs, cpu, without=MODULE)
    except TokrigError as problem:
        last = problem.log_tail if isinstance(problem, EngineError) else ""
        print(problem.message, last, sep="\n", file=sys.stderr)
        return 1
    return 0


def tell(step: str, share: float | None) -> None:
    """Each step, as it goes on."""
    print(step if share is None else f"{step}: {share:.0%}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
