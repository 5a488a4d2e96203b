"""How often comparisons call simulated records faster or slower.

    python bench/verdicts.py [--pairs 1000] [--seed 1] [--script]

For each level, spread between starts and its shape: of pairs of records of the same machine, the
share with any of their twenty figures called faster or slower, and the share of all figures; of
pairs in which the second is 5 % faster, the share whose gen tok/s (of the first shape) is called
so. ``--script`` asks the compare page's script (node) beside Python, and counts where the two say
different things. tests/unit/simulated.py has the machines.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any, get_args

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.unit.simulated import Kind, Level, record  # noqa: E402
from tokrig.compare import Subject, comparison, rules, subject  # noqa: E402

SCRIPT = ROOT / "src" / "tokrig" / "site" / "static" / "compare.js"
ASK = """
const fs = require("fs");
const { rules, pairs } = JSON.parse(fs.readFileSync(process.argv[1]));
global.window = global;
global.document = { getElementById: () => ({ textContent: JSON.stringify(rules) }) };
require(process.argv[2]);
const verdicts = ([a, b]) =>
  tokrig.compare(a, b).pairs.map(({ figures }) => figures.map(({ ratio }) => ratio.verdict));
process.stdout.write(JSON.stringify(pairs.map(verdicts)));
"""
Verdicts = list[list[str]]  # by shape and figure


def by_python(pairs: list[tuple[Subject, Subject]]) -> list[Verdicts]:
    return [
        [[figure.ratio.verdict for figure in pair.figures] for pair in comparison(a, b).pairs]
        for a, b in pairs
    ]


def by_script(pairs: list[tuple[Subject, Subject]]) -> list[Verdicts]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"rules": rules(), "pairs": [[a.as_dict(), b.as_dict()] for a, b in pairs]}, file)
        file.flush()
        command = ["node", "-e", ASK, file.name, str(SCRIPT)]
        found: list[Verdicts] = json.loads(subprocess.check_output(command))
    return found


def pairs(args: Any, level: Level, spread: float, kind: Kind, faster: float) -> list[Any]:
    chance = Random(args.seed)
    return [
        (
            subject(record(chance, level, spread, kind=kind)),
            subject(record(chance, level, spread, kind=kind, faster=faster)),
        )
        for _ in range(args.pairs)
    ]


def called(verdicts: Verdicts) -> list[str]:
    return [one for shape in verdicts for one in shape if one in ("faster", "slower")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--script", action="store_true")
    args = parser.parse_args()
    print(
        "| level | spread | starts | any of 20 | a figure | true 5 % found |"
        + " apart |" * args.script
    )
    print("|---|---|---|---|---|---|" + "---|" * args.script)
    for level in get_args(Level):
        for spread in (0.01, 0.015, 0.02):
            for kind in get_args(Kind):
                same, faster = (pairs(args, level, spread, kind, by) for by in (1.0, 1.05))
                said, true = by_python(same), by_python(faster)
                cells = [
                    sum(bool(called(one)) for one in said) / args.pairs,
                    sum(len(called(one)) for one in said) / args.pairs / 20,
                    sum(one[0][0] == "faster" for one in true) / args.pairs,
                ]
                line = f"| {level} | {100 * spread:g} % | {kind} |"
                line += "".join(f" {100 * cell:.1f} % |" for cell in cells)
                if args.script:
                    again = by_script([*same, *faster])
                    apart = sum(a != b for a, b in zip([*said, *true], again, strict=True))
                    line += f" {apart} |"
                print(line, flush=True)


if __name__ == "__main__":
    main()
