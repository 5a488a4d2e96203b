"""What the names of a campaign mean: models, draft models, modes, rigs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tokrig.errors import SpecError, did_you_mean
from tokrig.plan.model import RigMemory, Weights
from tokrig.spec.campaign import CampaignFile, Entry, Speculative

_HUB = "hf:"


@dataclass(frozen=True)
class Names:
    """Whose names count beside those that a campaign declares. ``here`` is the rig of campaigns
    that name none; ``catalog`` None takes any model."""

    here: str | None
    catalog: Collection[str] | None
    own_models: Collection[str]
    rigs: Mapping[str, RigMemory]


@dataclass(frozen=True)
class Naming:
    """The names of one entry."""

    file: CampaignFile
    entry: Entry
    names: Names

    def error(self, place: str, message: str, hint: str) -> SpecError:
        """About a place in the entry, with its line."""
        where = self.file.where(self.entry.name, place)
        return SpecError(f"{where}: entry {self.entry.name!r}: {message}", hint=hint)

    def default_rig(self) -> str:
        """The rig of an entry that names none."""
        rig = self.file.campaign.rig or self.names.here
        if rig is None:
            hint = "name the rig: tokrig rig tells this machine's id"
            raise self.error("", "no rig is named, by the entry or by the campaign", hint)
        return rig

    def require_rig(self, rig: str, place: str) -> None:
        """Raises SpecError for a rig that nobody has heard of."""
        declared = self.file.campaign.rigs
        if rig not in declared and rig not in self.names.rigs and rig != self.names.here:
            known = {*declared, *self.names.rigs} | ({self.names.here} - {None})
            hint = f"{did_you_mean(rig, filter(None, known))}; or declare it under rigs"
            raise self.error(place, f"unknown rig {rig!r}", hint)

    def weights(
        self, model: str, quant: str | None, creator: str | None, backend: str, place: str
    ) -> Weights:
        """The files of a model. Raises SpecError for a name that means nothing."""
        source = self.file.campaign.models.get(model)
        if source is None:
            if backend in self.names.own_models or "url" in self.entry.set:
                return Weights(model, local=model)
            return self._undeclared(model, model, place)

        def filled(text: str) -> str:
            return text.replace("{quant}", quant or "").replace("{creator}", creator or "")

        file = filled(source.file) if source.file else None
        if source.repo is None:
            found = self._undeclared(model, file or "", place)
            return Weights(model, local=found.local, quantize=quant if source.quantize else None)
        return Weights(model, filled(source.repo), filled(source.revision), file)

    def _undeclared(self, name: str, reference: str, place: str) -> Weights:
        """A path, a reference to a hub, or a name of the catalog."""
        if reference.startswith(_HUB):
            return self._of_hub(name, reference, place)
        catalog = self.names.catalog
        path = "/" in reference or "\\" in reference or reference.lower().endswith(".gguf")
        if path or catalog is None:
            return Weights(name, local=reference)
        if (word := reference.strip().lower()) in catalog:
            return Weights(name, local=word)
        hint = did_you_mean(reference, {*self.file.campaign.models, *catalog})
        hint += f"; or a path, or {_HUB}owner/name/file"
        raise self.error(place, f"unknown model {reference!r}", hint)

    def _of_hub(self, name: str, reference: str, place: str) -> Weights:
        owner, _, rest = reference.removeprefix(_HUB).partition("/")
        repo, _, file = rest.partition("/")
        repo, _, revision = repo.partition("@")
        if not owner or not repo:
            hint = f"write {_HUB}owner/name, {_HUB}owner/name@revision or {_HUB}owner/name/file"
            raise self.error(place, f"{reference!r} names no repository", hint)
        return Weights(name, f"{owner}/{repo}", revision or "main", file or None)

    def mode(self, mode: Speculative | None, backend: str, place: str) -> dict[str, Any]:
        """The settings of a mode, its draft model as a reference."""
        found = {} if mode is None else mode.model_dump(exclude_none=True)
        if mode is None or mode.draft_model is None:
            return found
        source = self.file.campaign.models.get(mode.draft_model)
        if source and source.needs:
            message = f"the draft model {mode.draft_model!r} is more than one file"
            hint = "declare a model without placeholders and without quantize for it"
            raise self.error(place, message, hint)
        draft = self.weights(mode.draft_model, None, None, backend, place)
        return {**found, "draft_model": draft.reference}
