"""From a campaign's matrices to runs: every combination of values, less what is excluded, with
what its names mean and the keys that records answer to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

from tokrig.errors import ModelError, SpecError, did_you_mean
from tokrig.plan.model import RigMemory, Run, Weights
from tokrig.record import METHODOLOGY_VERSION
from tokrig.references import SCHEME, of_hub, parse
from tokrig.spec.campaign import AXES, CampaignFile, Entry, Matrix, Speculative, cap_out_of_range
from tokrig.spec.settings import MODE, SETTINGS, askable

Values = tuple[Any, ...]
"""One value of each axis, in the order of ``AXES``."""

Request = tuple[Values, int, str | None, int, str | None]
"""A combination, which record of it this is (from 1), and in an A/B entry its arm, its position
and what tells its sequence from the others."""

KEY_DIGITS = 16
# A person may change these in an entry's ``set`` without wanting another measurement.
_REMARKS = ("notes", "api_key_env")
_encode = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode
_OF_AXES = tuple((s.name, s.axis) for s in askable() if s.axis and s.axis != MODE)


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
        return self.file.error(self.entry.name, place, message, hint)

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
        if of_hub(reference):
            try:
                found = parse(reference)
            except ModelError as error:
                raise self.error(place, error.message, error.hint) from None
            return Weights(name, found.repo, found.revision, found.file)
        catalog = self.names.catalog
        path = "/" in reference or "\\" in reference or reference.lower().endswith(".gguf")
        if path or catalog is None:
            return Weights(name, local=reference)
        if (word := reference.strip().lower()) in catalog:
            return Weights(name, local=word)
        hint = did_you_mean(reference, {*self.file.campaign.models, *catalog})
        hint += f"; or a path, or {SCHEME}owner/name/file"
        raise self.error(place, f"unknown model {reference!r}", hint)

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


def expand(file: CampaignFile, names: Names) -> Iterator[Run]:
    """The runs of a campaign in the order of its file.

    Raises SpecError for names that mean nothing, a cap that the rig's card does not take, and an
    exclude that leaves nothing out.
    """
    for entry in file.campaign.entries:
        naming = Naming(file, entry, names)
        excludes = _Excludes(entry)
        for place, matrix in entry.matrices().items():
            yield from _Expansion(naming, excludes, place, matrix).runs()
        for number, used in enumerate(excludes.used):
            if not used:
                hint = "it has to match values of the matrix or of an include: mend or remove it"
                raise naming.error(f"exclude[{number}]", "this exclude leaves out no run", hint)


class _Excludes:
    """What an entry leaves out, and which of its excludes did so."""

    def __init__(self, entry: Entry) -> None:
        self.rules = [
            [(AXES.index(axis), frozenset(values)) for axis, values in exclude.named().items()]
            for exclude in entry.exclude
        ]
        self.used = [False] * len(self.rules)

    def match(self, values: Values) -> bool:
        """Whether a combination is left out."""
        found = False
        for number, rule in enumerate(self.rules):
            if all(values[index] in wanted for index, wanted in rule):
                self.used[number] = found = True
        return found


class _Expansion:
    """One matrix of an entry. What a value means is looked up once."""

    def __init__(self, naming: Naming, excludes: _Excludes, place: str, matrix: Matrix) -> None:
        self.naming, self.excludes, self.place, self.matrix = naming, excludes, place, matrix
        self.file, self.entry = naming.file, naming.entry
        self.level = self.entry.level or self.file.campaign.level
        self.set = {n: v for n, v in sorted(self.entry.set.items()) if n in SETTINGS}
        self.others = {n: v for n, v in sorted(self.entry.set.items()) if n not in SETTINGS}
        shapes = matrix.workloads or tuple(sorted(self.file.texts))
        self.common = {
            **self.set,
            **{name: value for name, value in self.others.items() if name not in _REMARKS},
            "level": self.level,
            "workloads": matrix.workloads and sorted(matrix.workloads),
            "concurrency": matrix.concurrency and sorted(matrix.concurrency),
            "texts": {name: text for name in shapes if (text := self.file.texts.get(name))},
            "methodology": METHODOLOGY_VERSION,
        }
        self.pairs = tuple(_pair(name, value) for name, value in self.common.items())
        self.weights: dict[Values, tuple[Weights, str]] = {}
        self.modes: dict[Values, dict[str, Any]] = {}

    def runs(self) -> Iterator[Run]:
        """All runs of the matrix."""
        columns = [self.matrix.values(axis) for axis in AXES]
        columns[0] = self.matrix.rig or (self.naming.default_rig(),)
        for number, rig in enumerate(columns[0]):
            self.naming.require_rig(rig, f"{self.place}.rig[{number}]")
            self.require_caps(rig)
        for request in self.requests(columns):
            yield self.run(*request)

    def require_caps(self, rig: str) -> None:
        """The card that a rig has may take another range than the file declares, or be told of
        by its records alone."""
        known = self.naming.names.rigs.get(rig)
        for number, watts in enumerate(self.matrix.power_cap_w or ()):
            if watts is not None and known and known.power_w:
                if reason := cap_out_of_range(watts, rig, known.power_w):
                    place = f"{self.place}.power_cap_w[{number}]"
                    raise self.naming.error(place, reason, "take a cap in that range")

    def requests(self, columns: list[Values]) -> Iterator[Request]:
        """Combinations as often as they are wanted; those of an A/B entry in the order A B B A."""
        entry, left_out = self.entry, self.excludes.match
        if entry.ab is None:
            for values in product(*columns):
                if not left_out(values):
                    for repeat in range(1, entry.repeats + 1):
                        yield values, repeat, None, 0, None
            return
        axis = AXES.index(entry.ab)
        pair, columns[axis] = columns[axis], (None,)
        for number, values in enumerate(product(*columns)):
            before, after = values[:axis], values[axis + 1 :]
            arms = {arm: (*before, value, *after) for arm, value in zip("AB", pair, strict=True)}
            out = [left_out(arm) for arm in arms.values()]
            if all(out):
                continue
            if any(out):
                message = f"an exclude leaves out one of the two values of {entry.ab!r} alone"
                hint = "an A/B entry needs both: exclude the combination without that axis"
                raise self.naming.error("exclude", message, hint)
            for position in range(2 * entry.repeats):
                arm = "ABBA"[position % 4]
                sequence = f"{self.place}/{number}"
                yield arms[arm], position // 2 + 1, arm, position + 1, sequence

    def run(
        self,
        values: Values,
        repeat: int,
        arm: str | None,
        position: int,
        sequence: str | None,
    ) -> Run:
        """One run, with its key."""
        axes = dict(zip(AXES, values, strict=True))
        rig, quant, creator, backend = (axes[n] for n in ("rig", "quant", "creator", "backend"))
        weights, reference = self.weights_of(axes["model"], quant, creator, backend)
        asked = {name: axes[axis] for name, axis in _OF_AXES if axes[axis] is not None}
        if MODE in axes:
            asked = {**asked, **self.mode_of(axes[MODE], backend)}
        build, driver = axes["build"], axes["driver"]
        server_bin = self.file.campaign.builds[build] if build else None
        measured = {
            **asked,
            "rig": rig,
            "model": reference,
            "quantize": weights.quantize,
            "backend": backend,
            "build": build,
            "server_bin": server_bin,
            "driver": driver,
            "repeat": repeat,
        }
        return Run(
            key=digest([*self.pairs, *(_cached_pair(*pair) for pair in measured.items())]),
            campaign=self.file.name,
            entry=self.entry.name,
            priority=self.entry.priority,
            rig=rig,
            weights=weights,
            quant=quant,
            creator=creator,
            backend=backend,
            build=build,
            server_bin=server_bin,
            driver=driver,
            workloads=self.matrix.workloads,
            concurrency=self.matrix.concurrency,
            level=self.level,
            settings=self.set | asked,
            others=self.others,
            repeat=repeat,
            arm=arm,
            position=position,
            sequence=sequence,
        )

    def weights_of(
        self, model: str, quant: str | None, creator: str | None, backend: str
    ) -> tuple[Weights, str]:
        """A model's files and their reference."""
        values = (model, quant, creator, backend)
        if values not in self.weights:
            assert self.matrix.model is not None
            place = f"{self.place}.model[{self.matrix.model.index(model)}]"
            weights = self.naming.weights(model, quant, creator, backend, place)
            self.weights[values] = weights, weights.reference
        return self.weights[values]

    def mode_of(self, speculation: Any, backend: str) -> dict[str, Any]:
        """What is switched on, with its draft model as a reference."""
        values = (speculation, backend)
        if values not in self.modes:
            self.modes[values] = self.naming.mode(speculation, backend, f"{self.place}.mode")
        return self.modes[values]


def digest(pairs: Iterable[str]) -> str:
    """The key of a run: a digest of the named values that are set, of all that changes what is
    measured. Names that a campaign gives to things, priorities and remarks do not; shapes count
    without order. A setting that nobody asks for is not in it."""
    text = "{" + ",".join(sorted(filter(None, pairs))) + "}"
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def _pair(name: str, value: Any) -> str:
    return "" if value in (None, {}, []) else f"{_encode(name)}:{_encode(value)}"


# Typed: 200 tokens and 200.0 watts are equal, and not the same text.
_cached_pair = lru_cache(maxsize=10_000, typed=True)(_pair)


def key_before(run: Run) -> str:
    """The key of a run as it was made until keys became digests of named values: by the places of
    thirteen values. Records and journals of that time answer their plans for ever."""
    weights, asked = run.weights, run.setting
    shapes = [values and sorted(values) for values in (run.workloads, run.concurrency)]
    others = {name: value for name, value in run.others.items() if name not in _REMARKS}
    by_entry = {n: v for n in ("devices", "threads", "options") if (v := asked(n)) is not None}
    measured = (
        *(run.rig, weights.reference, weights.quantize, run.backend, run.build, run.server_bin),
        *(asked("api"), asked("speculative"), asked("draft_model"), asked("draft_tokens")),
        *(asked("reasoning"), asked("kv_type"), asked("context"), asked("power_cap_w")),
        *(run.driver, run.repeat, [*shapes, run.level, {**others, **by_entry}]),
    )
    return hashlib.sha256(_encode(measured).encode()).hexdigest()[:KEY_DIGITS]
