"""vLLM's ``vllm serve``.

Checked against vLLM 0.32.0 (its command line, its log, its metrics and a running server): per
request clock ``metrics`` on the usage chunk, the same sums in ``/metrics``, ``/tokenize``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tokrig.backends import Ask, Backend, Engine, Greedy, Launch, Request, Value
from tokrig.backends import _likely as likely
from tokrig.backends import _reading as read
from tokrig.backends._python import BatchingServer, method
from tokrig.errors import InputError
from tokrig.record.quality import Position
from tokrig.record.samples import EngineTimings

A_DAY_S = 86_400

_METHODS = {"draft": "draft_model"} | {way: way for way in ("ngram", "mtp", "eagle", "eagle3")}
# vLLM has no draft length of its own for n-grams and draft models; MTP layers and EAGLE heads
# bring theirs.
_LENGTHS: Mapping[str, dict[str, int]] = {
    "ngram": {"prompt_lookup_min": 2, "prompt_lookup_max": 4, "num_speculative_tokens": 4},
    "draft": {"num_speculative_tokens": 4},
}

# It logs all of its configuration but the number of sequences, which stands among the arguments
# as its server read them.
_LOGGED = {
    "context_per_slot": r"(?<!\w)max_seq_len=(\d+)",
    "slots": r"'max_num_seqs': (\d+)",
    "cache_type_k": r"(?<!\w)kv_cache_dtype=([\w.]+)",
    "dtype": r"(?<!\w)dtype=(?:torch\.)?(\w+)",
    "quantization": r"(?<!\w)quantization=([\w-]+)",
    "tensor_parallel": r"(?<!\w)tensor_parallel_size=(\d+)",
}


class VLLM(BatchingServer):
    """Options are ``vllm serve``'s long flags (``quantization: fp8``, ``tensor-parallel-size: 2``,
    ``reasoning-parser: qwen3``).

    Its prompt cache is switched off when it starts. Warm-up, compilation and tuning of kernels
    come before it is ready: hence its patience.
    """

    name = "vllm"
    title = "vLLM"
    program = package = "vllm"
    owned_by = "vllm"
    tells: Mapping[str, frozenset[str]] = {"/version": frozenset({"version"})}
    ports = (8000,)
    ready_path = "/health"
    options: Mapping[str, str] = {"<any long flag>": "as vllm serve --help=all lists it"}
    serve = ("serve", "{0.model}")
    flags: Mapping[str, str] = {
        "served-model-name": "{0.model.name}",
        "max-model-len": "{0.context_per_slot}",
        "max-num-seqs": "{0.slots}",
        "no-enable-prefix-caching": "",
    }
    cache_off = ("no-enable-prefix-caching",)
    # What makes it tell more about each request, in builds that have it.
    if_listed: Mapping[str, str] = {
        "enable-prompt-tokens-details": "",
        "enable-per-request-metrics": "",
    }
    own = frozenset(
        {"model", "enable-prefix-caching", "disable-log-stats", "device-ids"}
        | {"speculative-config", "spec-method", "spec-model", "spec-tokens"}
    )
    listed = "max-num-seqs"
    help_words = ("serve", "--help=all")
    environment: Mapping[str, str] = {
        "VLLM_NO_USAGE_STATS": "1",
        # A first load may tune its kernels for an hour: how long it may take, tokrig decides.
        "VLLM_ENGINE_READY_TIMEOUT_S": str(A_DAY_S),
    }
    drafts = (
        ("metrics", "speculative_decoding"),
        "num_draft_tokens",
        "num_accepted_draft_tokens",
    )
    # Its decode clock runs from a request's first token to its last and so covers all but the
    # first.
    prometheus: Mapping[str, str] = {
        "requests": "vllm:request_success_total",
        "prompt_tokens": "vllm:prompt_tokens_total",
        "cached_tokens": "vllm:prefix_cache_hits_total",
        "output_tokens": "vllm:generation_tokens_total",
        "prefill_s": "vllm:request_prefill_time_seconds_sum",
        "decode_s": "vllm:request_decode_time_seconds_sum",
        "drafts": "vllm:spec_decode_num_drafts_total",
        "drafted_tokens": "vllm:spec_decode_num_draft_tokens_total",
        "accepted_tokens": "vllm:spec_decode_num_accepted_tokens_total",
    }

    def questions(self, launch: Launch) -> tuple[tuple[str, ...], ...]:
        """Each takes it some ten seconds, so the second is asked only where it matters."""
        version = () if launch.api in (None, "cpu") else ((self.binary(launch), "--version"),)
        return (*super().questions(launch), *version)

    def vet(self, launch: Launch) -> None:
        super().vet(launch)
        too_old = launch.answers and not read.lists(launch.answers[0], "speculative-config")
        if launch.speculation and too_old:
            raise InputError(
                "this vLLM is too old for --speculative-config",
                hint="upgrade it, or leave --speculative out",
            )
        built = read.word(launch.answer(1), r"(?m)^(\d+\.\S*\+cpu\S*)")
        if built and launch.api not in (None, "cpu"):
            raise InputError(
                f"this vLLM ({built}) is built for the CPU, not for {launch.api}",
                hint=f"install the build for {launch.api}, or leave --api out",
            )

    def more_flags(self, launch: Launch, help_text: str) -> Mapping[str, Value | None]:
        asked = launch.speculation
        kept: dict[str, Value | None] = (
            {"enable-prefix-caching": True} if launch.keeps_prompts else {}
        )
        if asked is None:
            return kept
        way, model = method(asked, _METHODS)
        config: dict[str, Any] = {"method": way, **_LENGTHS.get(asked.type, {})}
        if model is not None:
            config["model"] = model
        if asked.draft_tokens is not None:
            config["num_speculative_tokens"] = asked.draft_tokens
        # Only where it speculates it can tell of drafts.
        tells = read.lists(help_text, "per-request-spec-decode-metrics")
        return {
            **kept,
            "speculative-config": json.dumps(config),
            "per-request-spec-decode-metrics": "summary" if tells else None,
        }

    def variables(self, launch: Launch) -> Iterator[tuple[str, str]]:
        """On the CPU it binds a thread to each core but one, and sets OpenMP's variable over ours,
        unless it is told to bind none."""
        yield from super().variables(launch)
        if launch.threads is not None:
            yield "VLLM_CPU_OMP_THREADS_BIND", "nobind"

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """The version and the model's context over HTTP, all else from the line in which the
        engine logs its configuration. A server that runs already shows no log."""
        told = read.logged(log, _LOGGED)
        caching = read.word(log, r"(?<!\w)enable_prefix_caching=(\w+)") or read.word(
            read.page(ask, "/metrics"), r'enable_prefix_caching="(\w+)"'
        )
        told["prefix_caching"] = None if caching is None else caching == "True"
        told["threads"] = _threads(log, launch)
        speculative = re.search(r"(?<!\w)speculative_config=(\w+)", log)
        # Each worker logs what it has; nothing is known where not all did.
        weights = re.findall(r"[Mm]odel (?:loading|weights) took ([\d.]+) Gi?B", log)
        caches = re.findall(r"Available KV cache memory: ([\d.]+) Gi?B", log)
        complete = len(weights) == (told["tensor_parallel"] or 1)
        return self.engine(
            ask,
            launch,
            told,
            api=_api(log),
            gib=sum(map(float, (*weights, *caches))) if complete else 0,
            build=read.text(read.answer(ask, "/version").get("version")),
            speculation=None if speculative is None else speculative.group(1) != "None",
        )

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """Where an effort is asked for only a real request gets it into the template."""
        if request.reasoning is not None and request.reasoning.effort:
            return Backend.count_prompt(self, ask, request)
        return super().count_prompt(ask, request)

    def prompt_ids(self, ask: Ask, request: Request) -> likely.Ids | None:
        asked = {"messages": request.messages, **request.template(effort=True)}
        return likely.ids(read.answer(ask, "/tokenize", asked))

    def text_ids(self, ask: Ask, text: str) -> likely.Ids | None:
        asked = {"prompt": text, "add_special_tokens": False}
        return likely.ids(read.answer(ask, "/tokenize", asked))

    def greedy(self, ask: Ask, request: Request, prompt: likely.Ids, top: int) -> Greedy:
        return likely.vllm_greedy(ask, request, prompt, top)

    def likeliest(
        self,
        ask: Ask,
        request: Request,
        prompt: likely.Ids,
        answer: likely.Ids,
        first: int,
        top: int,
    ) -> tuple[Position, ...]:
        return likely.vllm_likeliest(ask, request, prompt, answer, first, top)

    def timings(self, event: Mapping[str, Any]) -> EngineTimings | None:
        """``metrics`` of the usage chunk. Prefill is from the first scheduling to the first
        token, decode from the first token to the last."""
        usage, clock = read.mapping(event, "usage"), read.mapping(event, "metrics")
        prompt, tokens = (
            read.count(usage, "prompt_tokens"),
            read.count(usage, "completion_tokens"),
        )
        prompt_ms = read.number(clock, "time_to_first_token_ms")
        decode_ms = read.number(clock, "generation_time_ms")
        if prompt is None or tokens is None or prompt_ms is None or decode_ms is None:
            return None
        cached = read.count(usage, "prompt_tokens_details", "cached_tokens") or 0
        return EngineTimings(
            prompt_tokens=max(prompt - cached, 0),
            prompt_ms=float(prompt_ms),
            decode_tokens=tokens,
            decode_ms=float(decode_ms),
        )


def _threads(log: str, launch: Launch | None) -> int | None:
    """Of one worker: the cores it bound, else what OpenMP was told, where the log says that it
    left that alone. Builds before that line list the threads themselves."""
    bound = re.search(r"local_rank=0, core ids=\[([\d, ]+)\]", log)
    if bound is not None:
        return len(bound.group(1).split(","))
    if re.search(r"\bskip_setup=True\b", log):
        return launch.threads if launch else None
    return len(set(re.findall(r"OMP tid: (\d+), core \d+", log))) or None


def _api(log: str) -> str | None:
    """What computes. PyTorch calls AMD's devices "cuda" too: there the build's name and the
    kernels it chose tell."""
    device = read.word(log, r"(?<!\w)device_config=(\w+)")
    if device == "cuda" and read.word(
        log, r"(platform rocm|version \S+\+rocm|\bROCM_(?:ATTN|AITER))"
    ):
        return "rocm"
    return {"cuda": "cuda", "cpu": "cpu", "xpu": "sycl"}.get(device or "")


BACKEND = VLLM()
