"""From a campaign's matrices to runs: every combination of values, less what is excluded, with
what its names mean and the keys that records answer to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product
from typing import Any

from tokrig import naming
from tokrig.errors import ModelError, SpecError, did_you_mean
from tokrig.plan import CONTEXT, PlanInputs, RigMemory, Run, Weights
from tokrig.record import METHODOLOGY_VERSION
from tokrig.spec.campaign import (
    AXES,
    CampaignFile,
    Entry,
    Matrix,
    Speculative,
    cap_out_of_range,
)
from tokrig.spec.run import default_shapes, shapes_of
from tokrig.spec.settings import MODE, SETTINGS, askable

Values = tuple[Any, ...]
"""One value of each axis, in the order of ``AXES``."""

KEY_DIGITS = 16
# A person may change these in an entry's ``set`` without wanting another measurement.
_REMARKS = ("notes", "api_key_env", "quality")
# The axes that are settings.
_CHOSEN = slice(AXES.index("build") + 1, AXES.index("driver"))
_OF_AXES = tuple((s.name, s.axis) for s in askable() if s.axis and s.axis != MODE)
_encode = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


def expand(file: CampaignFile, known: PlanInputs) -> Iterator[Run]:
    """The runs of a campaign in the order of its file.

    Raises SpecError for names that mean nothing, a cap that the rig's card does not take, and an
    exclude that leaves nothing out.
    """
    for entry in file.campaign.entries:
        yield from _Expansion(file, entry, known).runs()


class _Expansion:
    """One entry. What a value means is looked up once."""

    def __init__(self, file: CampaignFile, entry: Entry, known: PlanInputs) -> None:
        self.file, self.entry, self.known = file, entry, known
        self.level = entry.level or file.campaign.level
        self.set = {name: value for name, value in entry.set.items() if name in SETTINGS}
        self.others = {name: value for name, value in entry.set.items() if name not in SETTINGS}
        self.excludes = [
            [(AXES.index(axis), frozenset(values)) for axis, values in exclude.named().items()]
            for exclude in entry.exclude
        ]
        self.used = [False] * len(self.excludes)
        self.asked: dict[Values, tuple[dict[str, Any], tuple[str, ...]]] = {}
        self.weights: dict[Values, tuple[Weights, str]] = {}

    def runs(self) -> Iterator[Run]:
        for place, matrix in self.entry.matrices().items():
            columns = [matrix.values(axis) for axis in AXES]
            columns[0] = matrix.rig or (self._default_rig(),)
            for number, rig in enumerate(columns[0]):
                self._require_rig(rig, place, matrix, f"{place}.rig[{number}]")
            common = self._common(matrix)
            for values, which in self._requests(columns, place):
                yield self._run(place, matrix, common, values, which)
        for number, used in enumerate(self.used):
            if not used:
                hint = "it has to match values of the matrix or of an include: change or remove it"
                raise self._error(f"exclude[{number}]", "this exclude leaves out no run", hint)

    def _error(self, place: str, message: str, hint: str) -> SpecError:
        return self.file.error(self.entry.name, place, message, hint)

    def _default_rig(self) -> str:
        rig = self.file.campaign.rig or self.known.here
        if rig is None:
            hint = "name the rig: tokrig rig tells this machine's id"
            raise self._error("", "no rig is named, by the entry or by the campaign", hint)
        return rig

    def _require_rig(self, rig: str, place: str, matrix: Matrix, at: str) -> None:
        """A rig of the campaign or a known one; its card may take another range of caps than the
        file declares, or be told of by its records alone."""
        rigs = {*self.file.campaign.rigs, *self.known.rigs} | ({self.known.here} - {None})
        if rig not in rigs:
            hint = f"{did_you_mean(rig, filter(None, rigs))}; or declare it under rigs"
            raise self._error(at, f"unknown rig {rig!r}", hint)
        power_w = self.known.rigs.get(rig, RigMemory()).power_w
        for number, watts in enumerate(matrix.power_cap_w or ()):
            if watts and power_w and (reason := cap_out_of_range(watts, rig, power_w)):
                at = f"{place}.power_cap_w[{number}]"
                raise self._error(at, reason, "take a cap in that range")

    def _left_out(self, values: Values) -> bool:
        """Whether a combination is excluded; notes which excludes did so."""
        found = False
        for number, rule in enumerate(self.excludes):
            if all(values[index] in wanted for index, wanted in rule):
                self.used[number] = found = True
        return found

    def _requests(
        self, columns: list[Values], place: str
    ) -> Iterator[tuple[Values, dict[str, Any]]]:
        """Combinations as often as they are wanted, those of an A/B entry in the order A B B A;
        with each which record of it this is, and its place in a sequence."""
        entry = self.entry
        if entry.ab is None:
            for values in product(*columns):
                if not self._left_out(values):
                    for repeat in range(1, entry.repeats + 1):
                        yield values, {"repeat": repeat}
            return
        axis = AXES.index(entry.ab)
        pair, columns[axis] = columns[axis], (None,)
        for number, values in enumerate(product(*columns)):
            arms = [(*values[:axis], value, *values[axis + 1 :]) for value in pair]
            out = [self._left_out(arm) for arm in arms]
            if all(out):
                continue
            if any(out):
                message = f"an exclude leaves out one of the two values of {entry.ab!r} alone"
                hint = "an A/B entry needs both: exclude the combination without that axis"
                raise self._error("exclude", message, hint)
            for position in range(2 * entry.repeats):
                arm = "ABBA"[position % 4]
                yield (
                    arms["AB".index(arm)],
                    {
                        "repeat": position // 2 + 1,
                        "arm": arm,
                        "position": position + 1,
                        "sequence": f"{place}/{number}",
                    },
                )

    def _common(self, matrix: Matrix) -> tuple[str, ...]:
        """What all runs of a matrix have in their keys."""
        texts = self.known.texts
        workloads = shapes_of(matrix)
        shapes = workloads or sorted({*default_shapes(texts)} - {CONTEXT})
        shapes = [*shapes, CONTEXT] if any(matrix.depth or ()) else shapes
        common = {
            **self.set,
            **{name: value for name, value in self.others.items() if name not in _REMARKS},
            "level": self.level,
            "workloads": workloads and sorted(workloads),
            "concurrency": matrix.concurrency and sorted(matrix.concurrency),
            "ladder": matrix.ladder,
            "sustain": matrix.sustain,
            "depth": matrix.depth and sorted(matrix.depth),
            "rate": matrix.rate and sorted(matrix.rate),
            "texts": {name: texts[name] for name in shapes if name in texts},
            "methodology": METHODOLOGY_VERSION,
        }
        return tuple(_pair(name, value) for name, value in common.items())

    def _run(
        self,
        place: str,
        matrix: Matrix,
        common: tuple[str, ...],
        values: Values,
        which: dict[str, Any],
    ) -> Run:
        axes = dict(zip(AXES, values, strict=True))
        backend, build = axes["backend"], axes["build"]
        model, quant, creator = axes["model"], axes["quant"], axes["creator"]
        if (named := (model, quant, creator, backend)) not in self.weights:
            at = f"{place}.model[{(matrix.model or ()).index(model)}]"
            weights = self._weights(model, quant, creator, backend, at)
            self.weights[named] = weights, weights.reference
        weights, reference = self.weights[named]
        if (chosen := (*values[_CHOSEN], backend)) not in self.asked:
            asked = {name: axes[axis] for name, axis in _OF_AXES if axes[axis] is not None}
            asked |= self._mode(axes[MODE], backend, f"{place}.{MODE}")
            self.asked[chosen] = self.set | asked, tuple(_pair(*one) for one in asked.items())
        settings, pairs = self.asked[chosen]
        same = {name: axes[name] for name in ("rig", "backend", "build", "driver")}
        same["server_bin"] = self.file.campaign.builds[build] if build else None
        measured = {
            **same,
            "model": reference,
            "quantize": weights.quantize,
            "repeat": which["repeat"],
        }
        return Run(
            key=_digest([*common, *pairs, *map(_cached_pair, measured, measured.values())]),
            campaign=self.file.name,
            entry=self.entry.name,
            priority=self.entry.priority,
            weights=weights,
            quant=quant,
            creator=creator,
            workloads=tuple(shapes) if (shapes := shapes_of(matrix)) else None,
            concurrency=matrix.concurrency,
            ladder=matrix.ladder,
            sustain=matrix.sustain,
            depth=matrix.depth,
            rate=matrix.rate,
            level=self.level,
            settings=settings,
            others=self.others,
            **same,
            **which,
        )

    def _weights(
        self, model: str, quant: str | None, creator: str | None, backend: str, place: str
    ) -> Weights:
        """The files of a model. Raises SpecError for a name that means nothing."""
        source = self.file.campaign.models.get(model)
        if source is None:
            if backend in self.known.own_models or "url" in self.entry.set:
                return Weights(model, local=model)
            return self._undeclared(model, model, place)
        repo, revision, file = (
            text and text.replace("{quant}", quant or "").replace("{creator}", creator or "")
            for text in (source.repo, source.revision, source.file)
        )
        if repo:
            return Weights(model, repo, revision or "main", file)
        found = self._undeclared(model, file or "", place)
        return Weights(model, local=found.local, quantize=quant if source.quantize else None)

    def _undeclared(self, name: str, reference: str, place: str) -> Weights:
        """A path, a reference to a hub, or a name of the catalog."""
        if naming.of_hub(reference):
            try:
                found = naming.Reference.parse(reference)
            except ModelError as problem:
                raise self._error(place, problem.message, problem.hint) from None
            return Weights(name, found.repo, found.revision, found.file)
        catalog = self.known.catalog
        path = "/" in reference or "\\" in reference or reference.lower().endswith(".gguf")
        if path or catalog is None:
            return Weights(name, local=reference)
        if (word := reference.strip().lower()) in catalog:
            return Weights(name, local=word)
        hint = did_you_mean(reference, {*self.file.campaign.models, *catalog})
        hint += f"; or a path, or {naming.SCHEME}owner/name/file"
        raise self._error(place, f"unknown model {reference!r}", hint)

    def _mode(self, mode: Speculative | None, backend: str, place: str) -> dict[str, Any]:
        """The settings of a mode, its draft model as a reference."""
        found = {} if mode is None else mode.model_dump(exclude_none=True)
        if mode is None or mode.draft_model is None:
            return found
        source = self.file.campaign.models.get(mode.draft_model)
        if source and source.needs:
            message = f"the draft model {mode.draft_model!r} is more than one file"
            hint = "declare a model without placeholders and without quantize for it"
            raise self._error(place, message, hint)
        draft = self._weights(mode.draft_model, None, None, backend, place)
        return {**found, "draft_model": draft.reference}


# Keys


def _digest(pairs: Iterable[str]) -> str:
    """The key of a run: a digest of the named values that are set, of all that changes what is
    measured. Names that a campaign gives to things, priorities and remarks do not; shapes count
    without order. A setting that nobody asks for is not in it."""
    text = "{" + ",".join(sorted(filter(None, pairs))) + "}"
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def _pair(name: str, value: Any) -> str:
    return "" if value in (None, {}, []) else f"{_encode(name)}:{_encode(value)}"


# Typed: 200 tokens and 200.0 watts are equal, and not the same text.
_cached_pair = lru_cache(maxsize=10_000, typed=True)(_pair)


_SETTINGS_BEFORE = frozenset(
    "api devices speculative draft_model draft_tokens reasoning kv_type context threads"
    " power_cap_w options".split()
)


def key_before(run: Run) -> str:
    """The key of a run as it was made until keys became digests of named values: by the places of
    thirteen values. Records and journals of that time answer their plans for ever. "" for a run
    with settings, or under a load, that there were not."""
    weights, asked = run.weights, run.setting
    if run.settings.keys() - _SETTINGS_BEFORE or any(
        (run.depth, run.ladder, run.sustain, run.rate)
    ):
        return ""
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
