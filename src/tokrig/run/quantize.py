"""Quants that a repository does not have, made here by llama.cpp's own ``llama-quantize``.

Only from what holds more than the quant asked for, so that a quant made here is the one its name
promises: from full precision, or from Q8_0, which the record then tells. Made once, it lies on
the shelf for every later run.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import psutil

from tokrig import engines
from tokrig.errors import EngineError, InputError, ModelError, StoreError
from tokrig.models import identity, shelf
from tokrig.models.files import files_of
from tokrig.models.shelf import Tell, quiet
from tokrig.record.model import Model, QuantizedFrom
from tokrig.run import guard
from tokrig.run.server import LOG_TAIL_LINES, asked
from tokrig.units import human_bytes

PROGRAM = "llama-quantize"
VARIABLE = "TOKRIG_LLAMA_QUANTIZE"
# A tool that failed with less than this left failed for want of room; it does not say so itself.
LEAST_FREE_BYTES = 1 << 20
# Nothing is lost in quantizing from these; from Q8_0 little, which the tool wants to be told.
_FULL = frozenset({"F64", "F32", "F16", "BF16"})
_NEARLY = "Q8_0"
_HINT = (
    f"put {PROGRAM} beside the llama-server you name, put it on the PATH, or give its path in"
    f" {VARIABLE}; llama.cpp's builds carry it"
)
_TYPE = re.compile(r"^\s*\d+\s+or\s+(\w+)\s*:\s*(?:alias for (\w+))?", re.MULTILINE)
# "(build 11434, commit …)"; builds before it print "build = 4567 (…)".
_BUILD = re.compile(r"\bbuild (?:= )?([1-9]\d*)\b")
_STEP = re.compile(r"^\[ *(\d+)/ *(\d+)\]")
_REASON = re.compile(r"failed to quantize: (.+)")


@dataclass(frozen=True)
class Tool:
    """A ``llama-quantize``. ``types`` are the words it takes, and the quant each of them makes."""

    binary: str
    build: str | None
    types: Mapping[str, str]

    def quant(self, word: str) -> str:
        """The quant as files state it: ``q4_k`` is Q4_K_M."""
        found = self.types.get(word.upper())
        if found is None:
            near = get_close_matches(word.upper(), self.types, n=1)
            words = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(
                f"this {PROGRAM} cannot make {word!r}",
                hint=f"{words}It makes: {', '.join(self.types)}",
            )
        return found


@dataclass(frozen=True)
class Making:
    """How a quant is made, found out before anything is. ``source`` is the file of higher
    precision (the first part of a split one), ``final`` where the result lies, ``bytes_needed``
    an upper estimate of it."""

    tool: Tool
    source: Path
    quant: str
    quantized_from: QuantizedFrom
    requantize: bool
    final: Path
    bytes_needed: int

    @property
    def done(self) -> bool:
        """Whether the same build has made it of the same source before."""
        origin = shelf.read_manifest(self.final) if self.final.exists() else None
        before, now = origin.quantized_from if origin else None, self.quantized_from
        return before is not None and (before.sha256, before.tool) == (now.sha256, now.tool)

    @property
    def what(self) -> str:
        """In words."""
        return f"{self.quant} of {self.source.name}"


def made(
    source: Path,
    quant: str,
    *,
    server_bin: str | None,
    tell: Tell = quiet,
    budget_bytes: int | None = None,
) -> Path:
    """The file of ``quant`` on the shelf, made of ``source`` unless it is there already.
    ``server_bin`` is a llama-server whose build's tool is to be used.

    Raises what ``how`` raises; EngineError (``quantize_failed``) when the tool fails or makes
    something else, StoreError when there is no room. Whatever happens, no half file is left.
    """
    making = how(source, quant, server_bin)
    if making.done:
        return making.final
    # What is fetched to be quantized must not be evicted to make room for the result.
    with shelf.using(making.source):
        shelf.make_room(making.bytes_needed, budget_bytes)
        with _temporary(making.final) as half:
            _quantize(making, half, tell)
            _require_quant(making, half)
            shelf.keep_made(half, making.final, making.quantized_from)
    return making.final


def how(source: Path, quant: str, server_bin: str | None) -> Making:
    """How ``quant`` would be made of ``source``, without making it.

    Raises InputError without a usable tool, or for a quant that it does not know; ModelError for
    a source that is no GGUF model or holds too little.
    """
    tool = _tool(server_bin)
    label = tool.quant(quant)
    if source.is_dir():
        raise ModelError(
            f"{source.name}: is a folder, and quants are made from GGUF files",
            hint="convert it to an F16 or BF16 GGUF first, with llama.cpp's convert_hf_to_gguf.py",
        )
    requantize = _require_more(identity.identify(source, sha256=False), label)
    model = identity.identify(source)
    assert model.file is not None
    assert model.sha256 is not None
    # Builds differ in what they make, and two that are compared must not replace each other's.
    name = "-".join(filter(None, (model.family, model.variant, label, tool.build)))
    words = filter(None, (PROGRAM, tool.build, "--allow-requantize" if requantize else None))
    return Making(
        tool=tool,
        source=files_of(source)[0],
        quant=label,
        quantized_from=QuantizedFrom(
            file=model.file, sha256=model.sha256, quant=model.quant, tool=" ".join(words)
        ),
        requantize=requantize,
        final=shelf.place_made(model.sha256, label, f"{name}.gguf"),
        # Scales come on top of the bits in its name, and a quant keeps in larger types what
        # matters most or has rows that its blocks do not fill.
        bytes_needed=round((model.parameters or 0) * (_bits(label) + 2) / 8),
    )


def _tool(server_bin: str | None) -> Tool:
    """The user's own choice, else the one of the server's build, else that on the PATH."""
    if chosen := os.environ.get(VARIABLE):
        binary = shutil.which(chosen)
        where = f"at {chosen!r}, which {VARIABLE} names"
    else:
        server = shutil.which(server_bin) if server_bin else None
        beside = shutil.which(str(Path(server).with_name(PROGRAM))) if server else None
        binary, where = beside or engines.program(PROGRAM), "beside the server or on the PATH"
    if binary is None:
        raise InputError(f"no runnable {PROGRAM} {where}", hint=_HINT)
    # It tells its version only at work: here on a model that is none.
    nothing = (binary, os.devnull, os.devnull, "F16")
    known, version = asked(((binary, "--help"), nothing))
    types = {word: alias or word for word, alias in _TYPE.findall(known)}
    if not types:
        said = next((line for line in known.splitlines() if line.strip()), "nothing")
        raise InputError(f"{binary} is no {PROGRAM}: its --help says {said[:200]!r}", hint=_HINT)
    build = _BUILD.search(version)
    return Tool(binary, f"b{build[1]}" if build else None, types)


def _require_more(model: Model, quant: str) -> bool:
    """Refuse a source that holds no more than the quant asked for; whether the tool must be told
    that some of it has been quantized before."""
    lossy = sorted(set(model.tensor_types or {}) - _FULL)
    if set(lossy) - {_NEARLY}:
        raise ModelError(
            f"{model.file}: holds {', '.join(lossy)}, not enough precision to make a {quant}",
            hint="take the model's F32, F16, BF16 or Q8_0 file as the source",
        )
    if _bits(quant) > 0.9 * (model.bits_per_weight or 0):
        raise ModelError(
            f"{model.file}: holds no more than {quant} does, so no {quant} can be made of it",
            hint="serve it as it is, or take a file of higher precision",
        )
    return bool(lossy)


def _bits(quant: str) -> int:
    """Bits of most weights, as the name says: 4 of IQ4_XS, 16 of BF16."""
    found = re.search(r"\d+", quant)
    return int(found.group()) if found else 32


@contextlib.contextmanager
def _temporary(final: Path) -> Iterator[Path]:
    """A path beside ``final`` for what is not whole yet; what killed processes left goes too."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        for left in final.parent.glob(f".{final.name}.*.part"):
            number = left.name.rsplit(".", 2)[1]
            if not (number.isdecimal() and psutil.pid_exists(int(number))):
                left.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{final.name}: cannot be made: {error.strerror}",
            hint="make tokrig's cache folder writable, or set XDG_CACHE_HOME to one that is",
        ) from None
    half = final.with_name(f".{final.name}.{os.getpid()}.part")
    try:
        yield half
    finally:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)


def _quantize(making: Making, half: Path, tell: Tell) -> None:
    """Run the tool behind the guard to its end. Its last lines go into the error."""
    flags = ("--allow-requantize",) if making.requantize else ()
    command = (making.tool.binary, *flags, str(making.source), str(half), making.quant)
    last: deque[str] = deque(maxlen=LOG_TAIL_LINES)
    tell(f"making {making.what}", None)
    with guard.guarded(command) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            last.append(line)
            if step := _STEP.match(line):
                tell(f"making {making.what}", min(1.0, int(step[1]) / max(1, int(step[2]))))
        code = process.wait()
    if code == 0:
        return
    with contextlib.suppress(OSError):
        if shutil.disk_usage(half.parent).free < LEAST_FREE_BYTES:
            raise StoreError(
                f"no space left to make {making.what}",
                hint=f"it needs about {human_bytes(making.bytes_needed)} in the cache folder: free"
                " some, or set XDG_CACHE_HOME to a folder on a larger disk",
                code="disk_full",
            )
    log = "\n".join(last)
    reasons = _REASON.findall(log) or [guard.describe_exit(code)]
    raise EngineError(
        f"{PROGRAM} could not make {making.what}: {reasons[-1]}",
        hint="its last lines tell more; quants of very few bits need an importance matrix, so"
        " take a file that somebody made with one",
        code="quantize_failed",
        log_tail=log,
    )


def _require_quant(making: Making, half: Path) -> None:
    """Raises EngineError unless the result is whole and states the quant asked for."""
    try:
        found = identity.stated_quant(half)
    except ModelError as error:
        found = error.message
    if found != making.quant:
        raise EngineError(
            f"{PROGRAM} did not make {making.what} but {found}",
            hint="use a newer llama.cpp, or download this quant",
            code="quantize_failed",
        )
