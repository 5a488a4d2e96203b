"""A stand-in for llama.cpp's ``llama-quantize``: its recorded words, and what it does with a file.

``python quantize_tool.py BUILD …`` does to a GGUF what the tool would, as far as tokrig looks: the
result states the quant asked for. ``QUANTIZE_FAULT`` makes it fail; ``QUANTIZE_CALLS`` names a file
that gets a line for each quant made.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from pathlib import Path

RECORDINGS = Path(__file__).parent.parent / "data" / "recordings"
HELP = (RECORDINGS / "llama-quantize-help.txt").read_text("utf-8")
SAID = (RECORDINGS / "llama-quantize-q8_0.txt").read_text("utf-8").splitlines()
FILE_TYPE = b"general.file_type"


def put(folder: Path, build: str = "11434") -> Path:
    """The stand-in as a program in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "llama-quantize"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {build} "$@"\n')
    program.chmod(0o755)
    return program


def main(build: str, words: list[str]) -> int:
    if "--help" in words:
        print(HELP)
        return 1
    source, target, quant = words[-3:]
    said = [line.replace("11434", build) for line in SAID]
    print("\n".join(said[:4]), file=sys.stderr)
    if source == os.devnull:
        return failed(f"llama_model_loader: failed to load model from {source}")
    with open(os.environ["QUANTIZE_CALLS"], "a", encoding="utf-8") as calls:
        print(*words, file=calls)
    fault = os.environ.get("QUANTIZE_FAULT", "")
    content = restated(Path(source).read_bytes(), "Q4_1" if fault == "another" else quant)
    Path(target).write_bytes(content[: len(content) // 2])
    print("\n".join(line for line in said if line.startswith("[ ")), file=sys.stderr, flush=True)
    if fault == "slow":
        Path(os.environ["QUANTIZE_CALLS"]).with_name("pid").write_text(str(os.getpid()))
        time.sleep(600)
    if fault == "imatrix":
        return failed("this quantization requires an imatrix!")
    if fault != "half":
        Path(target).write_bytes(content)
    print("\n".join(said[-5:]), file=sys.stderr)
    return 0


def failed(why: str) -> int:
    print(f"llama_model_quantize: failed to quantize: {why}", file=sys.stderr)
    return 1


def restated(content: bytes, quant: str) -> bytes:
    """The file with another ``general.file_type``, by the number that the tool's help gives it."""
    number = next(int(w[0]) for w in map(str.split, HELP.splitlines()) if w[1:3] == ["or", quant])
    begin = content.index(FILE_TYPE) + len(FILE_TYPE) + 4
    return content[:begin] + struct.pack("<Q", number) + content[begin + 8 :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
