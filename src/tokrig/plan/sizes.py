"""How large models are, as they are served: known, declared in the campaign, or estimated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tokrig.plan.model import Known, Run, Size, Weights
from tokrig.quants import bits_per_weight
from tokrig.spec.campaign import CampaignFile, ModelSource

_UNKNOWN = Size()


class Sizes:
    """Sizes of the models of these campaigns. ``here`` is the rig whose disk ``known`` tells of."""

    def __init__(self, files: Sequence[CampaignFile], known: Known, here: str | None) -> None:
        self.known, self.here = known, here
        self.models: Mapping[str, Mapping[str, ModelSource]] = {
            file.name: file.campaign.models for file in files
        }
        self._single = {
            (campaign, Weights(name, s.repo, s.revision, s.file, s.file).reference): s
            for campaign, models in self.models.items()
            for name, s in models.items()
            if not s.needs
        }
        self._served: dict[tuple[str, Weights, str | None], Size] = {}

    def source(self, run: Run) -> ModelSource | None:
        """What the campaign declares of a run's model."""
        return self.models[run.campaign].get(run.weights.name)

    def served(self, run: Run) -> Size:
        """Bytes of the weights that are loaded, and of the cache for each token.

        In this order: the file's own size, what the campaign declares for the quant, parameters ×
        bits per weight of the quant.
        """
        name = (run.campaign, run.weights, run.quant)
        if name not in self._served:
            self._served[name] = self._size(run)
        return self._served[name]

    def _size(self, run: Run) -> Size:
        known = self.known.sizes.get(run.weights.reference, _UNKNOWN)
        source = self.source(run)
        if source is None:
            return known
        cache = known.kv_bytes_per_token or source.kv_bytes_per_token
        if known.bytes is not None and run.weights.quantize is None:
            return replace(known, kv_bytes_per_token=cache)
        count, origin = _told(source, run.quant)
        return Size(count, cache, known.here, origin)

    def read_share(self, run: Run) -> float:
        """The share of the weights that one token reads: all, or a mixture's active experts."""
        source = self.source(run)
        if source and source.parameters and source.active_parameters:
            return min(1.0, source.active_parameters / source.parameters)
        return 1.0

    def draft(self, run: Run) -> Size | None:
        """The draft model; None for a run without one."""
        reference = run.setting("draft_model")
        if reference is None:
            return None
        known = self.known.sizes.get(reference, _UNKNOWN)
        if known.bytes is None and (source := self._single.get((run.campaign, reference))):
            count, origin = _told(source, None)
            return Size(count, known.kv_bytes_per_token, known.here, origin)
        return known

    def downloads(self, run: Run) -> dict[str, int | None]:
        """What of a hub a run needs that is not on its rig's disk: bytes by reference, None where
        unknown. What lies on the disks of other rigs than ``here`` is not known, and counts."""
        found: dict[str, int | None] = {}
        for reference, size in (
            (run.weights.reference, self.served(run)),
            (run.setting("draft_model"), self.draft(run)),
        ):
            if reference and size and reference.startswith("hf:"):
                if not (size.here and run.rig == self.here):
                    found[reference] = size.bytes
        return found


def _told(source: ModelSource, quant: str | None) -> tuple[int | None, str]:
    """Bytes that the campaign declares or lets estimate, and which of the two."""
    declared = source.bytes.get(quant) if quant else None
    if quant is None and len(source.bytes) == 1:
        declared = next(iter(source.bytes.values()))
    if declared is not None:
        return declared, "declared"
    bits = bits_per_weight(quant) if quant else None
    estimate = round(source.parameters * bits / 8) if source.parameters and bits else None
    return estimate, "estimated"
