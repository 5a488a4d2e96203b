"""The files that a run serves: fetched, quantized and checked before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokrig.backends import Speculation
from tokrig.errors import ModelError
from tokrig.models import draft, identity, shelf
from tokrig.models.shelf import Tell
from tokrig.record.model import Model
from tokrig.run import quantize
from tokrig.spec.run import RunSpec


@dataclass(frozen=True)
class Weights:
    """The model's file or folder and what it is; the same of a draft model, where there is one.
    For an engine with a store of its own ``path`` is the name it knows the model by."""

    path: Path
    model: Model
    speculation: Speculation | None = None
    draft_model: Model | None = None


def weights(
    spec: RunSpec, *, own_models: bool, tell: Tell, budget_bytes: int | None = None
) -> Weights:
    """What ``spec`` serves, made ready. ``tell`` hears how far fetching and quantizing are,
    ``budget_bytes`` is how much of the disk the shelf of models may take.

    Raises ModelError for a file that cannot be used or a draft model that cannot draft for this
    one: engines would go on without it and say nothing. Raises what ``shelf.resolve`` and
    ``quantize.made`` raise.
    """

    def here(reference: str) -> Path:
        return shelf.resolve(reference, tell, budget_bytes=budget_bytes).path

    if own_models:
        path = Path(spec.model)
        model = Model(family=spec.model, identity_from="endpoint")
    else:
        path = here(spec.model)
        if spec.quantize is not None:
            path = quantize.made(
                path,
                spec.quantize,
                server_bin=spec.server_bin,
                tell=tell,
                budget_bytes=budget_bytes,
            )
        model = identity.identify(path)
    # Room for a draft model is not made by removing the model it drafts for.
    with shelf.using(path):
        return Weights(path, model, *_speculation(spec, path, here))


def _speculation(
    spec: RunSpec, model: Path, here: Callable[[str], Path]
) -> tuple[Speculation | None, Model | None]:
    if spec.speculative is None:
        return None, None
    if spec.draft_model is None:
        return Speculation(spec.speculative, None, spec.draft_tokens), None
    path = here(spec.draft_model)
    if spec.speculative == "draft" and (reason := draft.mismatch(model, path)):
        raise ModelError(
            f"{path.name} cannot draft for {model.name}: {reason}",
            hint="a draft model needs the vocabulary of the model it drafts for: take a smaller"
            " one of the same family",
            code="draft_mismatch",
        )
    return Speculation(spec.speculative, path, spec.draft_tokens), identity.identify(path)
