"""The columns of the flat table: names, kinds, meanings, and where in a record they stand. Pure.

Names and meanings are a promise to whoever reads the files: columns may be added, none is
renamed. Null means *not known*. A metric has six columns: ``<metric>_median``, ``_min``, ``_max``,
``_n``, ``_ci95_low``, ``_ci95_high``. What has keys of its own (the engine's counters, its memory
by device, tensor types) stays in the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "integer", "number", "boolean"]


@dataclass(frozen=True)
class Column:
    """One column. ``text`` says what it holds, and in which unit; ``source`` where in the record
    or the result it stands, "" for what is put together."""

    name: str
    kind: Kind
    text: str
    source: str = ""


def _text(name: str, text: str, source: str = "") -> Column:
    return Column(name, "text", text, source)


def _integer(name: str, text: str, source: str = "") -> Column:
    return Column(name, "integer", text, source)


def _number(name: str, text: str, source: str = "") -> Column:
    return Column(name, "number", text, source)


def _boolean(name: str, text: str, source: str = "") -> Column:
    return Column(name, "boolean", text, source)


ADDRESSES = (
    _text("run_id", "the run, one YAML file"),
    _text("page", "page of the run, relative to the site"),
    _text("yaml", "the run's record, relative to the site"),
    _text("samples", "what it was computed from, relative to the site; null without samples"),
    _integer("errata", "number of corrections in the record"),
)
OF_RUN = (
    _text("status", "complete, failed or interrupted", "status"),
    _text("run_verdict", "valid, unverified or invalid: the run as a whole", "validity.word"),
    _text("provenance", "measured, transcribed or imported", "provenance.kind"),
    _text("source", "where figures come from that tokrig did not measure", "provenance.source"),
    _text("level", "quick, standard or publish", "provenance.level"),
    _text("started_at", "begin of the run, UTC", "provenance.started_at"),
    _text("tokrig_version", "version that measured", "provenance.tokrig_version"),
    _integer("methodology", "version of the methodology", "provenance.methodology"),
    _integer("server_starts", "starts of the engine", "provenance.server_starts"),
    _text("family", "family of the model", "model.family"),
    _text("variant", "member of the family", "model.variant"),
    _text("quant", "quantization", "model.quant"),
    _text("quant_creator", "who made the quantized file", "model.quant_creator"),
    _text("model_format", "format of the weights", "model.format"),
    _text("model_file", "name of the file", "model.file"),
    _text("model_sha256", "SHA-256 of the file", "model.sha256"),
    _integer("model_bytes", "size of the file, bytes", "model.bytes"),
    _integer("parameters", "parameters", "model.parameters"),
    _integer("active_parameters", "parameters used per token", "model.active_parameters"),
    _number("bits_per_weight", "bits per weight", "model.bits_per_weight"),
    _text("architecture", "architecture, as the file names it", "model.architecture"),
    _text("base_model", "model that this one was made from", "model.base_model"),
    _boolean("reasoning", "whether the model was seen to reason", "model.reasoning"),
    _text("rig", "id of the machine", "rig.id"),
    _text("cpu", "processor", "rig.cpu.model"),
    _integer("cpu_cores", "physical cores", "rig.cpu.cores"),
    _number("usable_cpus", "logical CPUs that the engine may use", "rig.cpu.usable_cpus"),
    _integer("memory_bytes", "main memory, bytes", "rig.memory.total_bytes"),
    _integer("usable_memory_bytes", "what of it a limit leaves", "rig.memory.usable_bytes"),
    _text("os", "operating system", "rig.os"),
    _text("kernel", "kernel", "rig.kernel"),
    _text("virtualization", "virtual machine or container", "rig.virtualization"),
    _text("backend", "how tokrig drove the engine", "backend.name"),
    _text("engine", "engine", "backend.engine"),
    _text("build", "build of the engine", "backend.build"),
    _text("api", "accelerator API that computed", "backend.api"),
    _boolean("api_confirmed", "whether the engine itself named the API", "backend.api_confirmed"),
    _text("api_asked", "accelerator API, as asked for", "backend.api_asked"),
    _text("wrapper", "program in front of the engine, with its version", "backend.wrapper"),
    _text("bypass", "why the engine was once started without its wrapper", "backend.bypass"),
    _integer("context", "context per slot, tokens", "backend.resolved.context_per_slot"),
    _integer("slots", "requests the engine serves at once", "backend.resolved.slots"),
    _integer("context_total", "context of all slots together", "backend.resolved.context_total"),
    _boolean("kv_unified", "whether slots share one KV cache", "backend.resolved.kv_unified"),
    _integer("threads", "threads of the engine", "backend.resolved.threads"),
    _text("cache_type_k", "type of the K cache", "backend.resolved.cache_type_k"),
    _text("cache_type_v", "type of the V cache", "backend.resolved.cache_type_v"),
    _text("flash_attention", "flash attention", "backend.resolved.flash_attention"),
    _integer("gpu_layers", "layers on the GPU", "backend.resolved.gpu_layers"),
    _text("split_mode", "how several GPUs share the model", "backend.resolved.split_mode"),
    _text("dtype", "type that the engine computes in", "backend.resolved.dtype"),
    _text("quantization", "quantization, as the engine names it", "backend.resolved.quantization"),
    _integer("tensor_parallel", "GPUs that share each layer", "backend.resolved.tensor_parallel"),
    _boolean("prefix_caching", "the engine's prefix cache", "backend.resolved.prefix_caching"),
    _text("mode", "what was switched on; baseline is nothing", "mode.name"),
    _text("offload", "what was asked to stay off the GPU", "mode.offload"),
    _text("speculative", "kind of speculative decoding", "mode.speculative"),
    _text("draft_model", "file of the draft model", "mode.draft_model"),
    _text("draft_sha256", "SHA-256 of that file", "mode.draft_sha256"),
    _integer("draft_tokens", "longest draft; null is the engine's default", "mode.draft_tokens"),
    _text("reasoning_asked", "reasoning, as asked for: on or off", "mode.reasoning_asked"),
    _number(
        "power_cap_w", "cap that was set on each graphics card for this run", "mode.power_cap_w"
    ),
    _text("reasoning_switch", "how that was asked for", "mode.reasoning_switch"),
    _boolean("reasoning_observed", "reasoning, as observed", "mode.reasoning_observed"),
)
# Of a block that a run need not have. All GPUs and all processes, where not said otherwise.
OF_LOAD = (
    _integer("load_gpu_before_bytes", "GPU memory before", "load_memory.gpu_before_bytes"),
    _integer("load_gpu_after_bytes", "GPU memory after", "load_memory.gpu_after_bytes"),
    _integer("load_vram_bytes", "the engine's own GPU memory", "load_memory.engine_vram_bytes"),
    _integer("load_rss_bytes", "the engine's own main memory", "load_memory.engine_rss_bytes"),
)
OF_GPUS = (
    _integer("gpus", "number of GPUs"),
    _text("gpu", "first GPU, without its vendor's name"),
    _text("gpu_vendor", "its vendor"),
    _integer("gpu_vram_bytes", "its memory, bytes"),
    _text("gpu_driver", "its driver"),
    _number("gpu_power_limit_w", "its power limit while measured, W"),
    _number("gpu_power_max_w", "the highest limit it can be given, W"),
)
OF_RESULT = (
    _text("workload", "shape", "workload.name"),
    _text("workload_hash", "hash of the shape's texts and lengths", "workload.content_hash"),
    _integer("prompt_tokens_target", "prompt length of the shape", "workload.prompt_tokens"),
    _integer("answer_tokens_target", "answer length of the shape", "workload.answer_tokens"),
    _integer("concurrency", "requests in flight", "concurrency"),
    _text("verdict", "valid, unverified or invalid: invalid is no headline", "validity.word"),
    _integer("repeats", "repeats", "repeats"),
    _integer("requests", "measured requests", "requests"),
    _integer("request_errors", "measured requests that failed", "request_errors"),
    _text("prefill_source", "server, or ttft_derived", "prefill_source"),
    _text("token_count_source", "where token counts come from", "token_count_source"),
    _number("reasoning_tokens_median", "reasoning tokens", "reasoning_tokens_median"),
    _number("content_tokens_median", "tokens of the answer proper", "content_tokens_median"),
    _number("tool_call_tokens_median", "tokens of tool calls", "tool_call_tokens_median"),
    _number("hidden_tokens_median", "tokens counted but not shown", "hidden_tokens_median"),
    _number("answered_share", "share of requests that answered, 0 to 1", "answered_share"),
    _integer("cached_tokens", "prompt tokens that the engine reused", "cached_tokens"),
    _number("ceiling_share", "share of the decode ceiling, 1 = all of it", "ceiling_share"),
    _number("client_cpu_share", "client's share of a core, 0 to 1", "client_cpu_share"),
)
CODES = (
    _text("invalid_because", "reason codes, with spaces between"),
    _text("unverified", "codes of what could not be confirmed, likewise"),
    _text("unchecked", "codes of what nobody could look at, likewise"),
)
METRICS = (
    *("output_tok_per_s", "prefill_tok_per_s", "ttft_s", "ttfa_s", "tpot_s"),
    *("end_to_end_tok_per_s", "useful_tok_per_s", "system_tok_per_s"),
    *("prompt_tokens", "output_tokens"),
)
SPREAD = (
    _number("median", "median of the repeats' medians"),
    _number("min", "lowest value"),
    _number("max", "highest value"),
    _integer("n", "number of values"),
    _number("ci95_low", "lower end of the 95 % interval; null below 6 repeats"),
    _number("ci95_high", "upper end of that interval"),
)
# Of blocks that a result need not have.
OPTIONAL = (
    _number("icl_s_p50", "inter-chunk latency, median, s", "icl_s.p50"),
    _number("icl_s_p90", "its 90th percentile, s", "icl_s.p90"),
    _number("icl_s_p95", "its 95th percentile, s", "icl_s.p95"),
    _number("icl_s_p99", "its 99th percentile, s", "icl_s.p99"),
    _number("icl_s_max", "the longest gap between chunks, s", "icl_s.max"),
    _integer("icl_s_n", "number of gaps between chunks", "icl_s.n"),
    _number("server_difference", "client's decode rate / server's − 1", "server.difference"),
    _number("server_difference_largest", "that of a single request", "server.difference_largest"),
    _text("server_source", "request, or counters: the server's sums alone", "server.source"),
    _integer("drafted_tokens", "tokens drafted", "speculative.drafted_tokens"),
    _integer("accepted_tokens", "drafted tokens accepted", "speculative.accepted_tokens"),
    _number("acceptance_rate", "accepted / drafted tokens", "speculative.acceptance_rate"),
    _integer(
        "draft_steps", "steps of decoding; by methodology 1 with a draft", "speculative.steps"
    ),
    _number("acceptance_length", "output tokens a step", "speculative.acceptance_length"),
    _boolean("greedy_same", "same greedy answer with and without speculation", "greedy.same"),
    _integer("greedy_compared_characters", "length compared", "greedy.compared_characters"),
    _integer(
        "greedy_first_divergence_characters",
        "characters that both begin with; null where they are the same",
        "greedy.first_divergence_characters",
    ),
    _integer(
        "greedy_first_divergence_tokens",
        "that, in tokens",
        "greedy.first_divergence_tokens",
    ),
    _integer("engine_rss_bytes", "peak of the engine's memory, bytes", "memory.engine_rss_bytes"),
    _integer("engine_vram_bytes", "peak of its GPU memory, bytes", "memory.engine_vram_bytes"),
    _text("energy_scope", "gpu, package or wall", "energy.scope"),
    _number("energy_j", "energy of the measured phase, J", "energy.total_j"),
    _number("j_per_output_token", "that, per output token, J", "energy.j_per_output_token"),
)
COLUMNS = (
    *(*ADDRESSES, *OF_RUN, *OF_LOAD, *OF_GPUS, *OF_RESULT, *CODES),
    *(
        Column(f"{metric}_{part.name}", part.kind, part.text)
        for metric in METRICS
        for part in SPREAD
    ),
    *OPTIONAL,
)
