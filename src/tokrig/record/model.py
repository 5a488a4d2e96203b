"""The published record of one run: what a YAML under ``content/benchmarks/runs`` holds.

Field order is the order in the file. Units stand in names; ``None`` means *not known*, never
*zero*. What is not known is left out of the file, and so is an empty list where it says nothing.
``python -m tokrig.record.model [FILE]`` writes the JSON Schema, from the repository root to
``docs/record.schema.json``.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, create_model

from tokrig.documents import dump, parse, validate
from tokrig.errors import RecordError
from tokrig.record import SCHEMA_VERSION, upgrade
from tokrig.record.block import Block, Count, NonNegative, Percentiles, Summary
from tokrig.record.loads import Arrivals, Ladder, RateLimit
from tokrig.record.metric import Metric
from tokrig.record.metrics import METRICS, Figures
from tokrig.record.quality import Quality
from tokrig.record.reads import Reads
from tokrig.record.samples import Cell, Load
from tokrig.spec.settings import fields_found

Verdict = Literal["valid", "unverified", "invalid"]


class Validity(Block):
    """``reasons`` make a result invalid; ``unverified`` could not be confirmed and matters;
    ``unchecked`` could not be looked at on this machine. None of them counts as passed.

    Methodology 1 knew two verdicts: there a valid result may have unverified codes.
    """

    verdict: Verdict
    reasons: list[str] = []
    unverified: list[str] = []
    unchecked: list[str] = []

    @property
    def word(self) -> Verdict:
        """The verdict in the three words of today, whatever version gave it: figures that came
        without samples were never verified by anybody."""
        open_ = self.unverified or "samples" in self.unchecked
        return "unverified" if self.verdict == "valid" and open_ else self.verdict

    @property
    def stands(self) -> bool:
        """Whether the figures may stand beside others in lists and charts, with their marks."""
        return self.verdict != "invalid" and "implausible" not in self.unverified


class Provenance(Block):
    """Where the figures come from. ``campaign`` is ``campaign/entry``, ``planned`` the key of the
    planned run that this record answers. ``source_url`` is where the text is that transcribed or
    imported figures were taken from, an address or a path in the repository, ``source_sha256``
    its hash; ``methodology`` is then the version that judged them. ``stated`` is what a user said
    beside the file that figures were imported from."""

    kind: Literal["measured", "transcribed", "imported"]
    source: str | None = None
    source_url: str | None = None
    source_sha256: str | None = None
    stated: list[Literal["model", "rig"]] = []
    tokrig_version: str | None = None
    tokrig_commit: str | None = None
    methodology: int | None = None
    level: Literal["quick", "standard", "publish"] | None = None
    started_at: str | None = None
    finished_at: str | None = None
    server_starts: Count | None = None
    seed: int | None = None
    campaign: str | None = None
    planned: str | None = None


class QuantizedFrom(Block):
    """The file that a quant was made from on this rig, and the tool that made it."""

    file: str
    sha256: str
    quant: str | None = None
    tool: str


class Model(Block):
    """What was served. Names guessed from the file's name say so in ``identity_from``.

    ``quant`` is what the tensors have, ``quant_stated`` what the file's name or metadata call it
    where that is another. ``repo`` and ``revision`` (a commit) are where the file was fetched from;
    ``quantized_from`` says that the quant was made on this rig.
    """

    family: str
    variant: str | None = None
    quant: str | None = None
    quant_stated: str | None = None
    quant_creator: str | None = None
    format: str | None = None
    file: str | None = None
    sha256: str | None = None
    bytes: Count | None = None
    parameters: Count | None = None
    active_parameters: Count | None = None
    bits_per_weight: float | None = None
    tensor_types: dict[str, int] | None = None
    context_train: Count | None = None
    architecture: str | None = None
    chat_template_sha256: str | None = None
    base_model: str | None = None
    license: str | None = None
    repo: str | None = None
    revision: str | None = None
    quantized_from: QuantizedFrom | None = None
    reasoning: bool | None = None
    identity_from: Literal["metadata", "file_name", "endpoint", "transcribed"] | None = None


BandwidthFrom = Literal["measured", "driver", "stated"]
"""By reading memory, from the driver's clock and width, or as somebody wrote it down."""


class Cpu(Block):
    """The processor. ``cores`` are physical, ``threads`` logical ones; ``usable_cpus`` are the
    logical ones that the engine may use, by affinity and quota, which may be a fraction. ``soc``
    is the chip as the device tree names it: ``rockchip,rk3588``; ``cache_bytes`` are those of all
    last-level caches together, ``matrix_flop_per_s`` what products of matrices of numbers of
    ``matrix_type`` were measured to reach."""

    model: str | None = None
    soc: str | None = None
    cores: Count | None = None
    threads: Count | None = None
    usable_cpus: NonNegative | None = None
    governor: str | None = None
    max_mhz: float | None = None
    cache_bytes: Count | None = None
    matrix_flop_per_s: NonNegative | None = None
    matrix_type: str | None = None
    features: list[str] = []


class Memory(Block):
    """Main memory. ``usable_bytes`` is what the limits of the engine's control groups leave;
    ``bandwidth_bytes_per_s`` are bytes read."""

    total_bytes: Count | None = None
    usable_bytes: Count | None = None
    speed_mt_per_s: Count | None = None
    type: str | None = None
    bandwidth_bytes_per_s: NonNegative | None = None
    bandwidth_from: BandwidthFrom | None = None


class Gpu(Block):
    """One graphics processor, or the slice of one (``mig_profile``) that may be used: its memory
    and that memory's bandwidth are then the slice's, its power limit the whole card's."""

    name: str
    vendor: Literal["nvidia", "amd", "intel", "apple", "other"]
    arch: str | None = None
    mig_profile: str | None = None
    vram_bytes: Count | None = None
    unified_memory: bool | None = None
    driver: str | None = None
    power_limit_w: float | None = None
    power_min_w: float | None = None
    power_max_w: float | None = None
    power_default_w: float | None = None
    clock_max_mhz: float | None = None
    memory_clock_max_mhz: float | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    bandwidth_bytes_per_s: NonNegative | None = None
    bandwidth_from: BandwidthFrom | None = None
    matrix_flop_per_s: NonNegative | None = None
    matrix_type: str | None = None


class Rig(Block):
    """The machine. What cannot be read is null, never guessed.

    ``facts_from``: read by the *probes* of that machine, stated by a *user* or by the *file* that
    figures were imported from, or by *nobody*: a server elsewhere, of whose machine nothing is
    known. ``board`` names a machine that is no PC.
    """

    id: str
    facts_from: Literal["probes", "user", "file", "nobody"] | None = None
    board: str | None = None
    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    gpus: list[Gpu] = []
    os: str | None = None
    kernel: str | None = None
    virtualization: str | None = None


class ReadBack(Block):
    """Settings read back from the engine, not the ones asked for. ``context_per_slot`` is what each
    slot can hold while all are full. Where the slots share one cache (``kv_unified``) a slot alone
    can hold up to ``context_total``."""

    context_per_slot: Count | None = None
    context_total: Count | None = None
    kv_unified: bool | None = None
    slots: Count | None = None
    threads: Count | None = None
    threads_batch: Count | None = None
    batch: Count | None = None
    ubatch: Count | None = None
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    flash_attention: str | None = None
    gpu_layers: Count | None = None
    layers: Count | None = None
    devices: list[str] = []
    device_bytes: dict[str, Count] = {}
    split_mode: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    tensor_parallel: Count | None = None
    prefix_caching: bool | None = None
    cpu_features: list[str] = []
    chat_template: str | None = None


if TYPE_CHECKING:

    class Resolved(ReadBack):
        """Those, and what further settings are found to be."""

else:
    Resolved = create_model(
        "Resolved",
        __base__=ReadBack,
        __doc__=ReadBack.__doc__,
        __module__=__name__,
        **fields_found(ReadBack.model_fields),
    )


class Prompting(Block):
    """How prompts reach the model, as found by trying. ``template_tokens`` is what the chat
    template adds to a system and a user message; ``system_role`` whether it takes a system
    message; ``kept_apart`` whether a prompt with another salt costs its whole prefill again, tried
    where the server does not tell cached tokens."""

    template_tokens: Count | None = None
    system_role: bool | None = None
    kept_apart: bool | None = None


class BackendFacts(Block):
    """Engine, build and accelerator API, and how the server was run.

    ``api`` is what computed, ``api_asked`` what was asked for; ``asked`` are the settings that a
    user chose, by their names in ``resolved``. ``wrapper`` names the program in
    front of the engine, with its version; ``bypass`` says that the wrapper gave up on the first
    load and its bundled engine was started directly once.
    """

    name: str
    engine: str
    build: str | None = None
    api: str | None = None
    api_confirmed: bool | None = None
    api_asked: str | None = None
    wrapper: str | None = None
    bypass: str | None = None
    managed: bool | None = None
    argv: list[str] | None = None
    env: dict[str, str] = {}
    asked: dict[str, bool | int | float | str] = {}
    resolved: Resolved = Resolved()
    prompting: Prompting = Prompting()


class Mode(Block):
    """What is switched on beside the baseline.

    ``reasoning_asked`` is "on" or "off", ``reasoning_switch`` how that was asked for,
    ``reasoning_observed`` whether the model then reasoned in a probe request. ``offload`` is what
    of the model was kept off the GPU, because it was asked for or by the engine's own choice where
    nobody asked. ``power_cap_w`` is the cap that was set on every graphics card for this run, and
    taken back after it.
    """

    name: str = "baseline"
    speculative: str | None = None
    draft_model: str | None = None
    draft_sha256: str | None = None
    draft_tokens: Count | None = None
    reasoning_asked: str | None = None
    reasoning_switch: str | None = None
    reasoning_observed: bool | None = None
    offload: str | None = None
    power_cap_w: NonNegative | None = None


class ColdStart(Block):
    """The price of the first answer: start to ready, and the first request's TTFT."""

    load_s: NonNegative | None = None
    first_ttft_s: NonNegative | None = None


class WorkloadFacts(Block):
    """The shape and the version of its texts. ``target_prompt_tokens`` is the prompt length that
    was measured where the chat template leaves no room for the shape's own. Of sessions,
    ``turn_answer_tokens`` are the answers' lengths by turn, as many turns as fitted into the
    context, ``turn_prompt_tokens`` those of their prompts by session, as the engine counts them."""

    name: str
    content_hash: str | None = None
    prompt_tokens: Count | None = None
    target_prompt_tokens: Count | None = None
    answer_tokens: Count | None = None
    turn_answer_tokens: list[Count] = []
    turn_prompt_tokens: list[list[Count]] = []


class ServerTimings(Block):
    """The engine's own figures, definition-corrected, beside the client's.

    ``difference`` = client decode rate / corrected server rate − 1, median over requests. Where
    the engine keeps only sums (``source`` counters), both rates are those of all requests
    together. ``difference_largest`` is that of a single request, ``off_clock`` names the requests
    whose clocks disagree.
    """

    source: Literal["request", "counters"] = "request"
    output_tok_per_s: Summary | None = None
    prefill_tok_per_s: Summary | None = None
    difference: float | None = None
    difference_largest: float | None = None
    off_clock: list[str] = []


class Speculative(Block):
    """Drafted and accepted tokens over all measured requests. ``steps`` are all steps of
    decoding, those without a draft included; ``acceptance_length`` is output tokens a step.
    Methodology 1 knew only the steps with a draft, where the engine counts them."""

    drafted_tokens: Count
    accepted_tokens: Count
    acceptance_rate: float | None = None
    steps: Count | None = None
    acceptance_length: float | None = None


class Greedy(Block):
    """The greedy answer with speculation against the one without, at concurrency 1: how many
    characters (``…_tokens``: tokens) both begin with; null where the two are the same."""

    compared_characters: Count
    same: bool
    first_divergence_characters: Count | None = None
    first_divergence_tokens: Count | None = None


class PeakMemory(Block):
    """Highest values seen while this result was measured: the engine's own processes."""

    engine_rss_bytes: Count | None = None
    engine_vram_bytes: Count | None = None


class LoadMemory(Block):
    """Memory before the engine started and after it had loaded. ``gpu_*`` is of all cards and
    all processes, ``engine_*`` of the engine's own processes. ``looked_up_bytes`` of the model are
    read row by row and need not be there; ``spilled`` says whether parts of it lie elsewhere than
    was asked; ``doubt`` by which figures they may, though the engine does not say so."""

    gpu_before_bytes: Count | None = None
    gpu_after_bytes: Count | None = None
    engine_vram_bytes: Count | None = None
    engine_rss_bytes: Count | None = None
    looked_up_bytes: Count | None = None
    spilled: bool | None = None
    doubt: str | None = None


class Energy(Block):
    """Energy of the measured phase from a counter with a named scope."""

    scope: Literal["gpu", "package", "wall"]
    total_j: NonNegative
    j_per_output_token: NonNegative | None = None
    idle_subtracted_j_per_output_token: float | None = None


class Interference(Block):
    """What else happened on the machine while measuring, the worst of all repeats.

    Processors: ``engine_wait_share`` is the time that the engine's threads were ready but waited
    for a processor, summed over them, in seconds a second; ``foreign_wait_share`` the part for
    which others used a processor, ``thread_wait_share`` that of the thread that waited most.
    ``other_cores_mean`` and ``other_cpu_share_max`` are the cores that neither engine nor client
    used, of the ``engine_cpus`` that the engine may use, ``steal_share`` what the hypervisor took.
    ``client_wait_share`` is the share of the window in which the client's clock waited for a
    processor, ``client_late_share`` that in which it was too busy to see a chunk in time;
    ``client_ceiling_tok_per_s`` is up to which rate clients as these were measured to be true on
    this machine, null where nobody did.

    Graphics cards that hold the model: ``gpu_busy_before`` is the share of time in which they were
    used before the start, ``foreign_gpu_processes`` counts others that computed on them,
    ``graphics_processes`` those that only draw, ``graphics_busy_share`` what these used.
    ``throttled_share`` is the share of the window in which a fault (heat, slowdown, power brake)
    held a card down, ``power_limited_share`` that in which its power limit did;
    ``gpu_power_over_limit`` is mean power over the driver's limit, ``gpu_enforced_limit_w``.
    """

    load_average_max: float | None = None
    engine_wait_share: NonNegative | None = None
    foreign_wait_share: NonNegative | None = None
    thread_wait_share: NonNegative | None = None
    engine_cpus: Count | None = None
    other_cores_mean: NonNegative | None = None
    other_cpu_share_max: float | None = None
    steal_share: NonNegative | None = None
    client_wait_share: NonNegative | None = None
    client_late_share: NonNegative | None = None
    client_ceiling_tok_per_s: NonNegative | None = None
    throttle_reasons: list[str] | None = None
    throttled_share: NonNegative | None = None
    power_limited_share: NonNegative | None = None
    gpu_temperature_max_c: float | None = None
    gpu_power_mean_w: float | None = None
    gpu_enforced_limit_w: float | None = None
    gpu_power_over_limit: NonNegative | None = None
    gpu_busy_before: NonNegative | None = None
    foreign_gpu_processes: Count | None = None
    graphics_processes: Count | None = None
    graphics_busy_share: NonNegative | None = None


class _Cell(Block):
    workload: WorkloadFacts
    concurrency: Count
    depth_tokens: Count = 0
    load: Load = "closed"
    rate_per_s: NonNegative | None = None
    arrivals: Arrivals | None = None
    validity: Validity

    @property
    def cell(self) -> Cell:
        """What it is of."""
        where = (self.depth_tokens, self.load, self.rate_per_s)
        return Cell(self.workload.name, self.concurrency, *where)

    @property
    def plain(self) -> bool:
        """As the cell's, which takes longer to make than lists of all results can wait for."""
        return self.load == "closed" and not self.depth_tokens


_TYPES: dict[str, Any] = {
    "summary": Summary,
    "percentiles": Percentiles,
    "number": float,
    "amount": NonNegative,
    "share": float,
    "count": Count,
    "text": str,
    "flag": bool,
    "counts": dict[str, int],
    "sums": dict[str, float],
} | {one.__name__: one for one in Block.__subclasses__()}


def _field(metric: Metric[Any]) -> tuple[Any, Any]:
    """The type and the default of a metric, as pydantic takes them. A count by name that nobody
    made is empty; all else is then not known."""
    of = Literal[metric.values] if metric.values else _TYPES[metric.block or metric.kind]
    text = re.sub(r"[*`]", "", metric.definition) + (f", {metric.unit}" if metric.unit else "")
    if metric.kind == "counts":
        return of, Field({}, description=text)
    return of | None, Field(None, description=text)


if TYPE_CHECKING:

    class Result(_Cell, Figures):
        """A cell with its figures."""

        def __init__(
            self, *, workload: WorkloadFacts, concurrency: int, validity: Validity, **more: Any
        ) -> None: ...

else:
    Result = create_model(
        "Result",
        __base__=_Cell,
        __doc__="One cell: a workload under a load, after ``depth_tokens`` of context. Where"
        " requests arrive by themselves, ``rate_per_s`` a second, ``concurrency`` is how many slots"
        " the server was given.",
        __module__=__name__,
        **{name: _field(metric) for name, metric in METRICS.items()},
    )


class Raw(Block):
    """One figure of an engine's own benchmark: no server, no client, no chat template. ``test`` is
    the tool's name for it (``pp512``, ``tg128``); ``tok_per_s`` is over its repetitions, ``ttft_s``
    the time to the first token where the tool measures it."""

    test: str
    prompt_tokens: Count = 0
    output_tokens: Count = 0
    depth_tokens: Count = 0
    concurrency: Count = 1
    tok_per_s: Summary
    ttft_s: Summary | None = None


class Failure(Block):
    """Why a run did not finish."""

    code: str
    message: str
    log_tail: str = ""


class Skipped(Block):
    """A shape that could not be measured at all, and why."""

    workload: str
    concurrency: Count
    depth_tokens: Count = 0
    load: Load = "closed"
    rate_per_s: NonNegative | None = None
    code: str
    message: str

    @property
    def cell(self) -> Cell:
        """What it is of."""
        where = (self.depth_tokens, self.load, self.rate_per_s)
        return Cell(self.workload, self.concurrency, *where)


class Erratum(Block):
    """A correction, kept beside the number it corrects."""

    date: str
    field: str
    text: str


class Record(Block):
    """One run = one YAML."""

    schema_: int = Field(SCHEMA_VERSION, alias="schema")
    id: str
    status: Literal["complete", "failed", "interrupted"]
    validity: Validity
    provenance: Provenance
    model: Model
    rig: Rig
    backend: BackendFacts
    mode: Mode = Mode()
    cold_start: ColdStart | None = None
    load_memory: LoadMemory | None = None
    reads: Reads | None = None
    results: list[Result] = []
    ladders: list[Ladder] = []
    raw: list[Raw] = []
    rate_limits: list[RateLimit] = []
    quality: Quality | None = None
    skipped: list[Skipped] = []
    failure: Failure | None = None
    errata: list[Erratum] = []
    notes: str | None = None

    model_config = ConfigDict(populate_by_name=True)

    @property
    def plain(self) -> list[Result]:
        """The results that may stand beside those of other runs in lists, ranges and ranks."""
        return [result for result in self.results if result.plain]


# As YAML, and its JSON Schema

HEADER = """\
# One run {origin}: a served model, its results by workload and concurrency.
# Units stand in the names; a key that is absent was not known. Verify it: tokrig check FILE
"""
ORIGINS = {
    "measured": "as tokrig measured it",
    "transcribed": "as others published it",
    "imported": "as another tool measured it",
}
# Blocks and fields that stay although they are empty: absence could be read as *not looked at*.
_KEPT = {
    *(("Record", "schema_"), ("Record", "results"), ("Record", "mode")),
    *(("Mode", "name"), ("Rig", "gpus")),
}


def record_text(record: Record) -> str:
    """The YAML of a record, as a file under ``content/benchmarks/runs`` holds it."""
    header = HEADER.format(origin=ORIGINS[record.provenance.kind])
    return header + "\n" + dump(_plain(record))


def _plain(value: Any) -> Any:
    """Models as maps without the keys that equal their default; all else as it is."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    fields = getattr(type(value), "model_fields", None)
    if fields is None:
        return value
    plain = {}
    for name, field in fields.items():
        one = getattr(value, name)
        kept = (type(value).__name__, name) in _KEPT
        if kept or one != field.get_default(call_default_factory=True):
            plain[field.alias or name] = _plain(one)
    return plain


def parse_record(text: str, name: str) -> Record:
    """The record in a YAML text; ``name`` (a path) stands in front of every message.

    Raises RecordError with file and line; older schemas are lifted to the present one.
    """
    data = parse(text, name, RecordError)
    try:
        data = upgrade(data)
    except RecordError as problem:
        raise RecordError(f"{name}: {problem.message}", hint=problem.hint) from None
    return validate(Record, data, text, name, RecordError)


def schema_text() -> str:
    """The JSON Schema of a record, as the committed file holds it."""
    schema = Record.model_json_schema(by_alias=True)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> None:
    """Write the schema to the file named, or to ``docs/record.schema.json``."""
    path = Path(arguments[0] if arguments else "docs/record.schema.json")
    path.write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
