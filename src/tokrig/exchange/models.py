"""The model that a file names, by that name alone."""

from __future__ import annotations

import re

from tokrig.models.identity import named
from tokrig.record.model import Model

# ``gemma3 270M Q4_K - Medium``: architecture, size, and what llama.cpp calls the quant.
DESCRIBED = re.compile(r"(?P<arch>\S+) (?P<size>\S+) (?P<quant>\S.*)")
SIZES = {"Small": "_S", "Medium": "_M", "Large": "_L"}


def model_of(
    name: str | None,
    *,
    quant: str | None = None,
    parameters: int | None = None,
) -> Model | None:
    """A model by its name, a repository's or a file's, and what else a file says of it; None
    without a name."""
    if name is None:
        return None
    quant = _quant(quant) if quant else None
    found = named(name)
    # What the name calls it is said beside what the file calls it, where that is another.
    stated = found.quant if quant and found.quant != quant else None
    return found.model_copy(
        update={
            "quant": quant or found.quant,
            "quant_stated": stated,
            "parameters": parameters or None,
        }
    )


def llama_model(
    described: str | None, file: str | None, *, size: int | None, parameters: int | None
) -> Model | None:
    """The same by llama.cpp's description of a model, and its file's name where that is told.
    ``size`` are the bytes of its tensors, fewer than the file's: they give bits per weight."""
    match = DESCRIBED.fullmatch(described or "")
    if match is None:
        return model_of(file or described, parameters=parameters)
    quant = _quant(match["quant"])
    found = model_of(file, quant=quant, parameters=parameters)
    if found is None:
        known = None if match["size"].startswith("?") else match["size"]
        found = Model(
            family=match["arch"],
            variant=known,
            quant=quant,
            format="gguf",
            parameters=parameters or None,
            identity_from="endpoint",
        )
    bits = round(8 * size / parameters, 4) if size and parameters else None
    return found.model_copy(update={"architecture": match["arch"], "bits_per_weight": bits})


def _quant(text: str) -> str:
    """``Q4_K_M`` for ``Q4_K - Medium``, ``IQ4_XS`` for ``IQ4_XS - 4.25 bpw``."""
    base, _, more = text.removeprefix("(guessed) ").removeprefix("all ").partition(" - ")
    return base.strip() + SIZES.get(more, "")
