"""How far each quant of a model is from its F16, by its answers, and whether a wrong chat template
and a broken file show: llama.cpp itself, on files made here.

    python -m bench.quality --programs DIR > quality.md

DIR holds ``llama-server`` and ``llama-quantize``. The models are the catalog's, which are quants
themselves: F16 is what they hold, so this is what a further quantization costs them. About five
minutes on two cores. ``cpu s`` is the processor time of the engine for the answers alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gguf
import psutil

from tokrig.models import catalog
from tokrig.record.quality import Answers, Interval, Quality, Reference, quality
from tokrig.record.quality_file import from_parquet, to_parquet
from tokrig.run.opening import opened
from tokrig.run.prepare import prepare
from tokrig.run.quality import answers, questions
from tokrig.spec.run import RunSpec

MODELS = ("smollm2-135m", "gemma-3-270m")
QUANTS = ("F16", "Q8_0", "Q5_K_M", "Q4_0", "Q2_K")
# A template of another family than the model's own.
TEMPLATES = {"smollm2-135m": "gemma", "gemma-3-270m": "chatml"}


@dataclass(frozen=True)
class Tried:
    """What came of one file."""

    found: Answers
    block: Quality
    cpu_s: float


def quantized(source: Path, quant: str, folder: Path, programs: Path) -> Path:
    """A quant of a file, made by llama.cpp's own tool."""
    path = folder / f"{source.stem}-{quant}.gguf"
    command = (programs / "llama-quantize", "--allow-requantize", source, path, quant)
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return path


def zeroed(tensor: Any) -> None:
    """A tensor that a broken conversion left empty."""
    tensor.data[...] = 0


def rolled(tensor: Any) -> None:
    """One whose blocks are read a byte too late."""
    flat = tensor.data.reshape(-1).view("u1")
    flat[1:] = flat[:-1].copy()


def broken(source: Path, folder: Path, name: str, harm: Callable[[Any], None]) -> Path:
    """A copy of a file whose tensor of that name is harmed; its header is as it was."""
    path = folder / f"{source.stem}-{harm.__name__}.gguf"
    shutil.copyfile(source, path)
    reader = gguf.GGUFReader(path, mode="r+")
    harm(next(one for one in reader.tensors if one.name == name))
    reader.data.flush()
    return path


def tried(
    model: Path,
    programs: Path,
    reference: Reference | None,
    options: Mapping[str, str] | None = None,
    prompts: int = 24,
) -> Tried:
    """The answers of a file to so many of the prompts, held against a reference."""
    spec = RunSpec(
        model=str(model),
        backend="llamacpp",
        server_bin=str(programs / "llama-server"),
        workloads=["chat"],
        options=dict(options or {}),
    )
    prepared = prepare(spec, datetime.now(UTC))
    with (
        tempfile.TemporaryDirectory() as folder,
        opened(prepared, Path(folder) / "engine.log") as session,
    ):
        assert session.server is not None
        engine = [psutil.Process(one.pid) for one in session.server.processes()]
        before = sum(sum(one.cpu_times()[:2]) for one in engine)
        found = answers(session, reference, lambda _: None, questions()[:: 24 // prompts])
        cpu_s = sum(sum(one.cpu_times()[:2]) for one in engine) - before
    found = from_parquet(to_parquet(found), str(model))
    return Tried(found, quality(found, reference), cpu_s)


def as_reference(found: Answers, quant: str) -> Reference:
    """Answers that others are held against."""
    return Reference("reference", quant, "0" * 64, found)


def line(name: str, one: Tried) -> str:
    """A row of the table."""

    def shown(figure: Interval | None, form: str) -> str:
        if figure is None:
            return "–"
        low, high = figure.ci95 or (figure.value, figure.value)
        return f"{figure.value:{form}} ({low:{form}}–{high:{form}})"

    block = one.block
    faults = ", ".join(f"{code} {count}" for code, count in block.faults.items()) or "–"
    cells = (
        name,
        shown(block.top1_agreement, ".3f"),
        shown(block.kl_nats, ".4f"),
        str(block.other_prompts or 0),
        faults,
        f"{one.cpu_s:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table of each model as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--programs", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", choices=MODELS, action="append")
    given = parser.parse_args()
    programs: Path = given.programs
    # Threads that spin while they wait would count as work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for name in given.model or MODELS:
        print(f"\n{name}\n", flush=True)
        print("| file | same top token | KL, nats | other prompts | faults | cpu s |")
        print("|---|---|---|---|---|---|", flush=True)
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            source = quantized(catalog.resolve(name), "F16", folder, programs)
            first = tried(source, programs, None)
            reference = as_reference(first.found, "F16")
            print(line("F16, the reference", first), flush=True)
            paths = {"F16 again": source}
            for quant in QUANTS[1:]:
                paths[quant] = quantized(source, quant, folder, programs)
            down = "blk.4.ffn_down.weight"
            for harm in (zeroed, rolled):
                paths[f"Q8_0, {down} {harm.__name__}"] = broken(paths["Q8_0"], folder, down, harm)
            for label, path in paths.items():
                print(line(label, tried(path, programs, reference)), flush=True)
            wrong = {"chat-template": TEMPLATES[name]}
            label = f"F16, template of {TEMPLATES[name]}"
            print(line(label, tried(source, programs, reference, wrong)), flush=True)


if __name__ == "__main__":
    main()
