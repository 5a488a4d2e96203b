"""``llama-bench``: prompt processing, generation, both after each other, each at a depth."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tokrig.errors import InputError
from tokrig.native_bench import BenchLaunch, BenchTool, listed, metric, named
from tokrig.record.model import Raw, Resolved

_PROGRESS = re.compile(r"llama-bench: benchmark (\d+/\d+): (.+)")
# A list or a range of anything else measures several configurations, which one record cannot hold.
_SWEEPS = re.compile(r",|^\d+-\d")
_NO_SWEEPS = frozenset({"pg", "d", "n-depth", "ts", "tensor-split", "ot", "override-tensor"})
_FLASH = {1: "on", 0: "off"}


class LlamaBench(BenchTool):
    """Options are its flags without dashes (``ngl: 99``, ``fa: on``, ``d: 4096``, ``pg:
    512,128``). It warms up before each test; its own average is a mean, so the median is taken
    of its repetitions."""

    name = "llama-bench"
    title = "llama.cpp llama-bench"
    binary = "llama-bench"
    needed = ("--n-prompt", "--n-gen", "--repetitions", "--output", "--verbose")
    own = frozenset(
        {"p", "n-prompt", "n", "n-gen", "r", "repetitions", "progress"}
        | {"o", "output", "oe", "output-err"}
    )
    separator = "/"

    def vet(self, launch: BenchLaunch) -> None:
        super().vet(launch)
        if "jsonl" not in launch.answers[0]:
            raise InputError(
                "this llama-bench is too old for '-o jsonl': its --help does not list it",
                hint="give the path of a newer llama-bench with --bin",
            )
        if tuple(launch.concurrency) != (1,):
            raise InputError(
                "llama-bench runs one sequence at a time",
                hint="for several use --tool llama-batched-bench",
            )

    def command(self, launch: BenchLaunch) -> tuple[str, ...]:
        for option, value in launch.options.items():
            if option.lstrip("-") not in _NO_SWEEPS and _SWEEPS.search(str(value)):
                raise InputError(
                    f"option {option!r} has several values, and a record holds one configuration",
                    hint="run it once for each value",
                )
        repetitions = launch.repetitions
        argv = [
            launch.binary,
            *("-m", str(launch.model)),
            *("-p", listed(launch.prompt_tokens) or "0"),
            *("-n", listed(launch.output_tokens) or "0"),
            *(("-r", str(repetitions)) if repetitions is not None else ()),
            *self.shared_flags(launch),
            *("-o", "jsonl", "-v"),
        ]
        if "--progress" in launch.answers[0]:
            argv.append("--progress")
        return (*argv, *self.option_flags(launch))

    def progress(self, line: str) -> str | None:
        match = _PROGRESS.match(line)
        return f"test {match.group(1)}: {match.group(2).strip()}" if match else None

    def figures(self, row: Mapping[str, Any]) -> Iterator[Raw]:
        prompt, output, depth = (int(row[key]) for key in ("n_prompt", "n_gen", "n_depth"))
        yield Raw(
            test=named(prompt, output, depth),
            prompt_tokens=prompt,
            output_tokens=output,
            depth_tokens=depth,
            tok_per_s=metric([float(rate) for rate in row["samples_ts"]]),
        )

    def resolved(self, row: Mapping[str, Any], logged: Resolved) -> dict[str, Any]:
        return {
            "threads": row["n_threads"],
            "threads_batch": row["n_threads"],
            "batch": row["n_batch"],
            "ubatch": row["n_ubatch"],
            "cache_type_k": row["type_k"],
            "cache_type_v": row["type_v"],
            "flash_attention": logged.flash_attention or _FLASH.get(int(row["flash_attn"])),
        }

    def build(self, row: Mapping[str, Any], launch: BenchLaunch) -> str | None:
        number = row.get("build_number")
        return f"b{number}" if isinstance(number, int) and number > 0 else None


NATIVE_BENCH = LlamaBench()
