"""What a question in SQL costs over many runs: cold, warm, after one more run; beside a list.

    python bench/query.py [--runs 10000] [--keep DIR] [--repeats 7]

Makes the records (bench/make_content.py) in a temporary folder, or in DIR, which stays and is used
again. Every time is of a whole process, start and output included, with a cache of its own: wall
seconds, and processor seconds of all it started. Warm ones are medians, asked in turns with
``tokrig list``, so that both meet the same machine; their ratio holds on a busy machine too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

GENERATOR = Path(__file__).with_name("make_content.py")
QUESTIONS = {
    "count": "SELECT count(*) FROM rows",
    "group": "SELECT rig, family, quant, median(output_tok_per_s_median) AS m FROM rows"
    " WHERE verdict <> 'invalid' AND concurrency = 1 GROUP BY ALL ORDER BY m DESC LIMIT 20",
    "join": "SELECT models.released, max(prefill_tok_per_s_median) FROM rows JOIN models"
    " USING (family, variant, quant) GROUP BY ALL ORDER BY ALL LIMIT 20",
}


@contextlib.contextmanager
def folder(keep: Path | None) -> Iterator[Path]:
    """The folder to work in."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def run(*words: str, cache: Path) -> tuple[float, float]:
    """Wall and processor seconds of a Python process. Ends where it failed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def told(what: str, took: tuple[float, float], more: str = "") -> None:
    """One line of the report."""
    print(
        f"{what:<34}{took[0]:8.2f} s by the clock{took[1]:8.2f} s of processors{more}", flush=True
    )


def main() -> None:
    """Make the records where they are not, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--keep", type=Path, default=None)
    given = parser.parse_args()
    print(f"{given.runs:,} runs, {os.cpu_count()} cores, Python {platform.python_version()}")
    with folder(given.keep) as here, tempfile.TemporaryDirectory() as caches:
        content, cache = here / "content", Path(caches)
        if not content.exists():
            run(str(GENERATOR), "--runs", str(given.runs), "--out", str(here), cache=cache)
            time.sleep(2.1)  # younger files are not trusted
        tokrig = ("-m", "tokrig")
        at = ("--content", str(content))
        told("tokrig list, cold", run(*tokrig, "list", *at, cache=cache))
        first = QUESTIONS["count"]
        told(
            "tokrig query, cold", run(*tokrig, "query", first, *at, "--timeout", "1h", cache=cache)
        )
        warm: dict[str, list[tuple[float, float]]] = {name: [] for name in ("list", *QUESTIONS)}
        for _ in range(given.repeats):
            warm["list"].append(run(*tokrig, "list", "--limit", "20", *at, cache=cache))
            for name, sql in QUESTIONS.items():
                warm[name].append(run(*tokrig, "query", sql, *at, cache=cache))
        listed = [statistics.median(parts) for parts in zip(*warm.pop("list"), strict=True)]
        told("tokrig list --limit 20, warm", (listed[0], listed[1]))
        for name, times in warm.items():
            wall, cpu = (statistics.median(parts) for parts in zip(*times, strict=True))
            ratio = f"   {wall / listed[0]:.2f} × and {cpu / listed[1]:.2f} × the list's"
            told(f"tokrig query ({name}), warm", (wall, cpu), ratio)
        one_more = ("--first", str(given.runs), "--runs", "1", "--out", str(here))
        run(str(GENERATOR), *one_more, cache=cache)
        time.sleep(2.1)
        told("tokrig query after one more run", run(*tokrig, "query", first, *at, cache=cache))


if __name__ == "__main__":
    main()
