"""What follows from where a model lies, by the record's own facts. Pure."""

from __future__ import annotations

from tokrig.record.model import BackendFacts, Model, Resolved

# The share of a model that input embeddings may take where nobody can tell: tokrig's own figure.
# Untied ones are 2 to 8 % of models of 7 to 70 billion parameters.
LOOKED_UP_SHARE = 0.10
_LOADED_BITS = {"float16": 16, "half": 16, "bfloat16": 16, "float32": 32, "float": 32}


def loaded_bytes(model: Model, resolved: Resolved) -> int:
    """Bytes of the weights as loaded: fewer than on disk where an engine narrows their type."""
    assert model.bytes is not None
    bits = _LOADED_BITS.get((resolved.dtype or "").removeprefix("torch."))
    if bits is None or model.bits_per_weight is None or model.bits_per_weight <= bits:
        return model.bytes
    return int(model.bytes * bits / model.bits_per_weight)


def not_resident(
    model: Model,
    backend: BackendFacts,
    rss_bytes: int | None,
    looked_up: int | None = None,
    offload: str | None = None,
) -> bool:
    """Whether less of the model was in main memory than a run on the CPU needs, or one that keeps
    a part of the model there (``offload``): ``rss_bytes`` is the most its processes held while
    measuring. False also where that could not be looked at.

    Experts that no token chose may stay on disk: only the active ones are expected.
    """
    if model.bytes is None or rss_bytes is None:
        return False
    expected = loaded_bytes(model, backend.resolved)
    expected -= int(model.bytes * LOOKED_UP_SHARE) if looked_up is None else looked_up
    if backend.api != "cpu":
        listed = backend.resolved.device_bytes
        if offload is None or not listed:
            return False
        expected -= sum(size for name, size in listed.items() if name != "CPU")
    if model.active_parameters and model.parameters:
        expected = int(expected * min(1.0, model.active_parameters / model.parameters))
    return rss_bytes < expected
