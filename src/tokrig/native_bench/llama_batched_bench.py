"""``llama-batched-bench``: several sequences at once, prompts first, then generation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tokrig.errors import InputError
from tokrig.native_bench import BenchLaunch, BenchTool, listed, metric, named
from tokrig.record.model import Raw, Resolved


class LlamaBatchedBench(BenchTool):
    """Options are its flags without dashes. Each test is measured once after a short warm-up, and
    each rate is that of all sequences together."""

    name = "llama-batched-bench"
    title = "llama.cpp llama-batched-bench"
    binary = "llama-batched-bench"
    # At its usual verbosity it keeps to itself for which APIs it looked.
    listing = ("-lv", "4", "--list-devices")
    needed = ("-npp", "-ntg", "-npl", "--output-format", "-c")
    own = frozenset(
        {"c", "ctx-size", "npp", "ntg", "npl", "output-format", "lv", "verbosity", "fit"}
        | {"log-verbosity", "log-verbose", "log-disable", "log-file", "log-prefix"}
    )

    def vet(self, launch: BenchLaunch) -> None:
        super().vet(launch)
        if launch.repetitions is not None:
            raise InputError(
                "llama-batched-bench measures each test once",
                hint="leave out --repetitions; llama-bench repeats its tests",
            )
        if not launch.prompt_tokens or not launch.output_tokens:
            raise InputError(
                "llama-batched-bench needs a prompt and an output of at least one token",
                hint="for one without the other use --tool llama-bench",
            )

    def command(self, launch: BenchLaunch) -> tuple[str, ...]:
        # A test that does not fit is left out without a word.
        longest = max(launch.prompt_tokens) + max(launch.output_tokens)
        argv = [
            launch.binary,
            *("-m", str(launch.model)),
            *("-c", str(longest * max(launch.concurrency))),
            *("-npp", listed(launch.prompt_tokens)),
            *("-ntg", listed(launch.output_tokens)),
            *("-npl", listed(launch.concurrency)),
            *self.shared_flags(launch),
            *("--output-format", "jsonl"),
        ]
        if "4: trace" in launch.answers[0]:
            argv += ["-lv", "4"]  # tells where the weights are; older builds do so by default
        if "--fit " in launch.answers[0]:
            argv += ["--fit", "off"]  # nothing fitted to free memory behind our back
        return (*argv, *self.option_flags(launch))

    def progress(self, line: str) -> str | None:
        try:
            row = json.loads(line) if line.startswith("{") else {}
            return f"{named(row['pp'], row['tg'])} × {row['pl']}: measured"
        except (ValueError, KeyError, TypeError):
            return None

    def figures(self, row: Mapping[str, Any]) -> Iterator[Raw]:
        prompt, output, at_once = (int(row[key]) for key in ("pp", "tg", "pl"))
        # Generation goes on behind the prompt, so at its depth.
        for key, prompt_n, output_n, depth in (
            ("speed_pp", prompt, 0, 0),
            ("speed_tg", 0, output, prompt),
            ("speed", prompt, output, 0),
        ):
            yield Raw(
                test=named(prompt_n, output_n, depth),
                prompt_tokens=prompt_n,
                output_tokens=output_n,
                depth_tokens=depth,
                concurrency=at_once,
                tok_per_s=metric([float(row[key])]),
            )

    def resolved(self, row: Mapping[str, Any], logged: Resolved) -> dict[str, Any]:
        return {
            "threads": row["n_threads"],
            "threads_batch": row["n_threads_batch"],
            "batch": row["n_batch"],
            "ubatch": row["n_ubatch"],
        }


NATIVE_BENCH = LlamaBatchedBench()
