"""Many records that look like real ones, to see how lists and the site bear their number.

    python bench/make_content.py --runs 10000 --out build/many [--seed 1] [--first 0]

Writes ``OUT/content``: records of four shapes each, the families of their models, a line on each
rig. Models, rigs, quants and engines are those people use (the tables in bench/many); the
figures follow from them:

    decode, s/token = (active weights + KV cache) / (bandwidth × efficiency) + layers × launch
    prefill, s      = start + max(2 × active parameters × prompt / compute, weights / bandwidth)

with log-normal noise between runs, repeats and requests. What does not fit a rig's memory is not
made. A third of the runs also has a speed by depth, a ladder, sessions or a load that lasts, as
many have a quality: bench/many/curves.py has their formulas. A run depends on the seed and its
number alone, so ``--first 10000 --runs 1`` adds one run, the newest, to ten thousand. None of these
figures was measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path


def main() -> None:
    """Write the records with all processors; say how many, how large and how long."""
    # A script finds what is beside it; the modules of bench are found from the folder above.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from bench.many.records import write_facts, write_run
    from tokrig.store import Store

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    given = parser.parse_args()

    began = time.perf_counter()
    content = given.out / "content"
    write_facts(content)
    write = partial(write_run, Store(content), given.seed)
    with ProcessPoolExecutor() as pool:
        numbers = range(given.first, given.first + given.runs)
        sizes = list(pool.map(write, numbers, chunksize=16))
    print(
        f"{len(sizes)} records of {min(sizes) / 1e3:.1f} to {max(sizes) / 1e3:.1f} kB, "
        f"{sum(sizes) / 1e6:.1f} MB in all, in {time.perf_counter() - began:.1f} s: {content}"
    )


if __name__ == "__main__":
    main()
