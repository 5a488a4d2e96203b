"""From campaign files to runs: what they mean, what is done, what fits, what it costs, in which
order. Pure: no file is read, no clock, no randomness; the same input gives the same plan.

Here is what a plan is made of: a run that is wanted, what is known beforehand, what is said of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from tokrig.errors import InputError, did_you_mean
from tokrig.naming import Reference
from tokrig.quants import Size
from tokrig.spec.campaign import CampaignFile, Speculative
from tokrig.spec.run import RunSpec
from tokrig.spec.settings import MODE, askable

State = Literal["done", "invalid", "failed", "unfinished", "todo", "does_not_fit", "blocked"]
STATES: tuple[State, ...] = get_args(State)
CONTEXT = "context"
"""Among the texts: what stands before a turn at a depth."""
TO_DO: tuple[State, ...] = ("unfinished", "todo")
"""The states of runs that are measured next, without being asked to retry anything."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a run's model comes from, with ``{quant}`` and ``{creator}`` filled in.

    ``name`` is the campaign's word for it. Of ``repo`` (with ``revision`` and ``file``; without a
    file a folder of safetensors) and ``local`` (a path, a name of the catalog or of an engine's
    own store) one is set. ``quantize`` is the quant to make of it on the rig, None where it is
    served as it is.
    """

    name: str
    repo: str | None = None
    revision: str = "main"
    file: str | None = None
    local: str | None = None
    quantize: str | None = None

    @property
    def reference(self) -> str:
        """As ``tokrig run --model`` takes it: ``hf:owner/name@revision/file``, a path, a name."""
        if self.repo is None:
            return self.local or self.name
        return str(Reference(self.repo, self.revision, self.file))


@dataclass(frozen=True, slots=True)
class Run:
    """One wanted record.

    ``key`` (16 hex digits) is a digest of everything below it that changes what is measured; the
    record of this run carries it as ``provenance.planned``. ``settings`` are those that are set,
    by name, as a run's spec takes them; ``others`` further keys of the spec that the entry sets.
    ``repeat`` counts records of the same request from 1; ``arm`` is "A" or "B" in an entry that
    compares two values, and ``position`` the place in its sequence A B B A, from 1 (0 in other
    entries); ``sequence`` tells the sequences of an entry apart.
    """

    key: str
    campaign: str
    entry: str
    priority: int
    rig: str
    weights: Weights
    quant: str | None
    creator: str | None
    backend: str
    build: str | None
    server_bin: str | None
    driver: str | None
    workloads: tuple[str, ...] | None
    concurrency: tuple[int, ...] | None
    level: str
    ladder: int | None = None
    sustain: str | None = None
    depth: tuple[int, ...] | None = None
    rate: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)
    repeat: int = 1
    arm: str | None = None
    position: int = 0
    sequence: str | None = None

    def setting(self, name: str) -> Any:
        """The value of a setting, None where nobody asks for it."""
        return self.settings.get(name)

    @property
    def place(self) -> str:
        """``campaign/entry``."""
        return f"{self.campaign}/{self.entry}"


@dataclass(frozen=True, slots=True)
class Past:
    """What a plan needs of a record in the store. ``planned`` is the key of the run it is the
    record of, where a campaign made it; ``duration_s`` from its start to its end; ``results`` how
    many there are, 0 where some are not plain, which take other times; ``backend`` the
    name of tokrig's part."""

    id: str
    planned: str | None
    status: str
    verdict: str
    failure: str | None
    rig: str
    backend: str | None
    level: str | None
    results: int
    started_at: str | None
    duration_s: float | None
    model_bytes: int | None


@dataclass(frozen=True, slots=True)
class RigMemory:
    """Bytes of a rig, None where unknown. ``vram_bytes`` is 0 without a graphics card;
    ``power_w`` the lowest and highest cap its card takes; ``driver`` the one installed now."""

    vram_bytes: int | None = None
    memory_bytes: int | None = None
    bandwidth_bytes_per_s: float | None = None
    power_w: tuple[float, float] | None = None
    driver: str | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """A workload's lengths in tokens, and the concurrencies it has where a run names none."""

    prompt_tokens: int
    answer_tokens: int
    concurrencies: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class PlanInputs:
    """All that a plan depends on beside the files.

    ``here`` is this machine's rig: that of campaigns that name none (None refuses those), and the
    one whose files ``sizes`` calls here. ``catalog`` are names of models that need no declaration,
    None takes any; ``own_models`` the backends that know models by names of their own. By
    workload: ``texts`` are the versions (``CONTEXT`` is that of what stands before a turn at a
    depth), ``needs`` the tokens of context that one request takes,
    ``shapes`` the lengths (without them nothing is estimated from bytes alone). ``sizes`` are by
    ``Weights.reference`` (of a run with ``quantize``: of the source), ``traces_s`` by the key of a
    run how long the requests of its trace arrive, ``made`` the ``(reference,
    quant)`` that are made already, ``unfinished`` the keys of runs with results in a journal.
    """

    here: str | None = None
    catalog: Collection[str] | None = None
    own_models: Collection[str] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    needs: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    rigs: Mapping[str, RigMemory] = field(default_factory=dict)
    past: Sequence[Past] = ()
    sizes: Mapping[str, Size] = field(default_factory=dict)
    traces_s: Mapping[str, float] = field(default_factory=dict)
    made: frozenset[tuple[str, str]] = frozenset()
    unfinished: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Planned:
    """A run and what is to be said of it. ``why`` is a sentence for failed, does_not_fit and
    blocked, and for runs of which nobody knows whether they fit; ``until`` what would unblock
    one; ``record`` the id of the record that made it done, invalid or failed; ``download_bytes``
    0 where nothing is to be fetched, None where unknown; ``time_s`` an estimate, None where there
    is none and for runs that are not to be done; ``cells`` are workloads × concurrencies ×
    depths."""

    run: Run
    state: State
    why: str = ""
    until: str = ""
    record: str | None = None
    download_bytes: int | None = None
    time_s: float | None = None
    cells: int = 0


@dataclass(frozen=True)
class Plan:
    """All runs of the campaigns in the order in which they are best done."""

    campaigns: Sequence[CampaignFile]
    runs: Sequence[Planned]

    def of(self, *states: State) -> list[Planned]:
        """The runs in these states, in order."""
        return [run for run in self.runs if run.state in states]

    def only(self, entries: Sequence[str]) -> Plan:
        """The runs of these entries (``NAME`` or ``CAMPAIGN/NAME``) alone, all of them where none
        is named. Raises InputError for an entry that no campaign has."""
        names = {
            f"{file.name}/{one.name}" for file in self.campaigns for one in file.campaign.entries
        }
        names |= {name.partition("/")[2] for name in names}
        for name in entries:
            if name not in names:
                raise InputError(f"unknown entry {name!r}", hint=did_you_mean(name, names))
        wanted = [p for p in self.runs if not entries or {p.run.entry, p.run.place} & {*entries}]
        return replace(self, runs=wanted)

    @property
    def counts(self) -> dict[State, int]:
        """How many runs are in each state; every state is named."""
        found = Counter(planned.state for planned in self.runs)
        return {state: found[state] for state in STATES}

    @property
    def time_s(self) -> float:
        """Seconds of all runs that have an estimate."""
        return sum(planned.time_s or 0.0 for planned in self.runs)

    @property
    def without_time(self) -> int:
        """How many runs are to be done of which nobody knows how long they take."""
        return sum(planned.time_s is None for planned in self.of(*TO_DO))

    @property
    def download_bytes(self) -> int:
        """Bytes to be fetched, as far as they are known."""
        return sum(planned.download_bytes or 0 for planned in self.runs)

    def as_json(self) -> dict[str, Any]:
        """The plan as plain data, for ``--json``."""
        return {
            "campaigns": [file.name for file in self.campaigns],
            "counts": self.counts,
            "time_s": self.time_s,
            "without_time": self.without_time,
            "download_bytes": self.download_bytes,
            "runs": [_plain(planned) for planned in self.runs],
        }


def _plain(planned: Planned) -> dict[str, Any]:
    run = planned.run
    hidden = ("weights", "others", "run")
    facts = {name: getattr(run, name) for name in Run.__slots__ if name not in hidden}
    facts["model"], facts["quantize"] = run.weights.name, run.weights.quantize
    facts["reference"] = run.weights.reference
    facts |= {one.axis: run.setting(one.name) for one in askable() if one.axis}
    facts[MODE] = {name: run.setting(name) for name in Speculative.model_fields}
    set_by_entry = {n: v for n, v in run.settings.items() if n not in {*facts, *facts[MODE]}}
    facts["settings"] = {**set_by_entry, **run.others}
    return facts | {n: getattr(planned, n) for n in Planned.__slots__ if n not in hidden}


def run_spec(run: Run) -> RunSpec:
    """The spec whose record answers ``run``."""
    return RunSpec(
        model=run.weights.reference,
        quantize=run.weights.quantize,
        backend=run.backend,
        server_bin=run.server_bin,
        workloads=None if run.workloads is None else list(run.workloads),
        concurrency=None if run.concurrency is None else list(run.concurrency),
        ladder=run.ladder,
        sustain=run.sustain,
        depth=None if run.depth is None else list(run.depth),
        rate=None if run.rate is None else list(run.rate),
        level=run.level,
        rig=run.rig,
        campaign=run.place,
        planned=run.key,
        **run.settings,
        **run.others,
    )


def command(run: Run) -> str:
    """The line to copy that does the entry of ``run``, from the folder above ``campaigns/``."""
    return f"tokrig campaign run campaigns/{run.campaign}.yaml --only {run.entry}"
