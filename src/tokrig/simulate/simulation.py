"""What a simulated server is asked to do: options, or the same names in a YAML file."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tokrig.documents import parse, read_text, validate
from tokrig.errors import SpecError
from tokrig.simulate.streams import Noise, Recipe

Seconds = Annotated[float, Field(ge=0, le=3600)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Whole = Annotated[int, Field(ge=1, le=2**31 - 1)]

NS = 1_000_000_000
TOKENS = 128  # of an answer, where neither side says


class Simulation(BaseModel):
    """One simulated server. Each field is an option of ``tokrig simulate`` too."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seed: Count = Field(0, description="Same seed and same order of requests: same truth.")
    model: str = Field("simulated", min_length=1, description="Name of the model served.")
    ttft_s: Seconds = Field(0.1, description="From when a request is served to its first token.")
    itl_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        0.01, description="From one token to the next."
    )
    jitter: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0, description="Standard deviation of the time of a token, as a share of it."
    )
    noise: Noise = Field("normal", description="Its distribution.")
    ramp: Annotated[float, Field(ge=0, le=100)] = Field(
        0.0, description="By what share the last token takes longer than the first."
    )
    tokens: Whole | None = Field(
        None, description="Length of an answer; where a request allows fewer tokens, it ends there."
    )
    tokens_per_chunk: Whole = Field(1, description="Tokens a chunk, after the first one.")
    drafts: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="Most draft tokens that a step accepts: speculative decoding."
    )
    reasoning: Share = Field(0.0, description="Share of an answer that is reasoning.")
    stall_s: Seconds = Field(0.0, description="How much longer a stall makes a gap.")
    stall_every: Whole = Field(50, description="Every how many gaps there is a stall.")
    burst_s: Seconds = Field(0.0, description="Deliver on a timer of this period, as a proxy does.")
    burst_bytes: Count = Field(0, description="Deliver when so many bytes have gathered.")
    prefill_tok_per_s: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Rate at which the uncached tokens of a prompt lengthen the TTFT."
    )
    cache: Literal["off", "slot", "all"] = Field(
        "off", description="Prefix cache: none, one in each slot, or one over all requests."
    )
    slots: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="Requests served at once; others wait, first come, first served."
    )
    context: Whole | None = Field(
        None, description="Most tokens of prompt and answer together; more are refused."
    )
    error_share: Share = Field(0.0, description="Share of the requests that fail, at random.")
    error_every: Count = Field(0, description="Every so many-th request fails.")
    error_status: Annotated[int, Field(ge=400, le=599)] = Field(
        500, description="HTTP status of a failure."
    )
    cut_share: Share = Field(0.0, description="Share of the answers cut in the middle, at random.")
    cut_every: Count = Field(0, description="Every so many-th answer is cut.")
    usage: Literal["asked", "end", "each", "none"] = Field(
        "asked", description="Token counts: as the request asks, at the end, on each chunk, never."
    )
    timings: bool = Field(False, description="Tell the engine's own clock, as llama.cpp does.")
    stamps: bool = Field(
        False,
        description="The text of a token is when it was sent and how late, in ns of"
        " CLOCK_MONOTONIC; the header X-Received-Ns when the request was there.",
    )

    @model_validator(mode="after")
    def _one_transport(self) -> Simulation:
        if self.burst_s and self.burst_bytes:
            raise ValueError("burst_s and burst_bytes are two ways to deliver: choose one")
        return self


def load(path: Path | None, options: Mapping[str, Any], names: Mapping[str, str]) -> Simulation:
    """A simulation from a YAML file and options, which win; ``names`` are the options' own.

    Raises SpecError with file and line, or with the option, of what is wrong.
    """
    if path is None:
        return validate(Simulation, dict(options), "", "", names=names)
    text = read_text(path, SpecError)
    data = parse(text, str(path))
    if data is not None and not isinstance(data, dict):
        raise SpecError(f"{path}: not a mapping of keys", hint="such as `ttft_s: 0.2`")
    validate(Simulation, data or {}, text, str(path))
    return validate(Simulation, {**(data or {}), **options}, "", "", names=names)


@dataclass(frozen=True)
class Asked:
    """What of a request matters to the engine: the prompt as the template makes it, how many
    tokens are allowed (None: any number), what is streamed and told."""

    prompt: str
    model: str
    most_tokens: int | None = None
    streams: bool = False
    usage: str = "none"
    may_use_cache: bool = True


def draw(made: Simulation, asked: Asked, number: int, prompt: int, cached: int) -> Recipe:
    """The stream of the ``number``-th request, whose prompt has ``prompt`` tokens, ``cached`` of
    them in the cache."""
    tokens = min(made.tokens or asked.most_tokens or TOKENS, asked.most_tokens or 2**31)
    prefill_s = (prompt - cached) / made.prefill_tok_per_s if made.prefill_tok_per_s else 0.0
    usage = asked.usage if made.usage == "asked" else made.usage
    return Recipe(
        seed=2 * (made.seed * 1_000_003 + number) + 1,  # odd: one event a step of speculation
        tokens=tokens,
        token_ns=round(made.itl_s * NS),
        ttft_ns=max(round((made.ttft_s + prefill_s) * NS), 1),
        jitter=made.jitter,
        noise=made.noise,
        ramp=made.ramp,
        stall_ns=round(made.stall_s * NS),
        stall_every=made.stall_every,
        accepted=made.drafts,
        tells_drafts=made.timings,
        reasoning=round(made.reasoning * tokens),
        grouping="several" if made.tokens_per_chunk > 1 else "token",
        several=made.tokens_per_chunk,
        transport="timer" if made.burst_s else "size" if made.burst_bytes else "direct",
        period_ns=round(made.burst_s * NS),
        size_bytes=made.burst_bytes,
        usage="each" if usage == "each" else "none" if usage == "none" else "end",
        timings=made.timings,
        prompt_tokens=prompt,
        cached_tokens=cached,
        finish="length" if tokens == asked.most_tokens else "stop",
    )


def mishap(made: Simulation, number: int) -> tuple[bool, float | None]:
    """Whether the ``number``-th request, counted from 1, fails; and after what share of its tokens
    its answer is cut, None where it is not."""
    r = random.Random(f"{made.seed}/{number}")
    fails = _hits(r, number, made.error_share, made.error_every)
    return fails, r.random() if _hits(r, number, made.cut_share, made.cut_every) else None


def _hits(r: random.Random, number: int, share: float, every: int) -> bool:
    by_chance = r.random() < share
    return by_chance or (every > 0 and number % every == 0)
