"""A response becomes a sample: whose counts are believed, and how the channels share tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokrig.backends import Backend
from tokrig.record.samples import Kind, Phase, Sample
from tokrig.run.answer import Answer, read_answer
from tokrig.run.load import Response

CountText = Callable[[str], int | None]


@dataclass(frozen=True)
class Place:
    """Where a request stood in the run."""

    workload: str
    concurrency: int
    repeat: int
    iteration: int
    phase: Phase
    variant: int
    salt: str


@dataclass
class SameModel:
    """Watches that one model answers all requests. Its name may differ from the one asked for
    (an alias, a file's name); it may not change."""

    first: str | None = None

    def check(self, answer: Answer) -> None:
        """Fail an answer of another model than the first one's."""
        if answer.model is None:
            return
        self.first = self.first or answer.model
        if answer.model != self.first:
            answer.fail("model_changed", f"{answer.model!r} answered, before it was {self.first!r}")


def observe(
    response: Response,
    place: Place,
    backend: Backend,
    count_text: CountText,
    same_model: SameModel | None = None,
) -> Sample:
    """The sample of one request. Asks the server's tokenizer only where its usage is silent, and
    never about a request that failed: the server may be gone, and its counts serve no figure."""
    answer = read_answer(response, backend.timings, backend.event)
    if same_model is not None:
        same_model.check(answer)
    if answer.error is not None:
        count_text = _ask_nobody
    tokens, source = _output_tokens(answer, count_text)
    reasoning = _reasoning_tokens(answer, tokens, count_text)
    first, assumed = _first_chunk(answer, tokens, count_text)
    return Sample(
        workload=place.workload,
        concurrency=place.concurrency,
        repeat=place.repeat,
        iteration=place.iteration,
        worker=response.worker,
        phase=place.phase,
        variant=place.variant,
        salt=place.salt,
        sent_ns=response.sent_ns,
        chunks=tuple(answer.chunks),
        prompt_tokens=_prompt_tokens(answer),
        output_tokens=tokens,
        cached_tokens=answer.cached_tokens,
        reasoning_tokens=reasoning,
        content_tokens=None if tokens is None or reasoning is None else max(tokens - reasoning, 0),
        first_chunk_tokens=first,
        first_chunk_assumed=assumed,
        count_source=source,
        count_disagreement=_disagreement(answer),
        finish_reason=answer.finish_reason,
        timings=answer.timings,
        drafted_tokens=answer.drafted_tokens,
        accepted_tokens=answer.accepted_tokens,
        error=answer.error,
        error_detail=answer.error_detail,
    )


def _ask_nobody(text: str) -> int | None:
    return None


def _prompt_tokens(answer: Answer) -> int | None:
    """Usage, else the engine's timings: these count uncached tokens only."""
    if answer.prompt_tokens is not None or answer.timings is None:
        return answer.prompt_tokens
    return answer.timings.prompt_tokens + (answer.cached_tokens or 0)


def _output_tokens(answer: Answer, count_text: CountText) -> tuple[int | None, str | None]:
    """METHODOLOGY's order: the server's usage or timings, then a tokenizer. Never chunks. A server
    that reports 0 although it streamed text is not believed."""
    streamed = bool(answer.chunks)
    if answer.output_tokens is not None and (answer.output_tokens or not streamed):
        return answer.output_tokens, "usage"
    if answer.timings is not None and (answer.timings.decode_tokens or not streamed):
        return answer.timings.decode_tokens, "timings"
    counted = count_text("".join(c.text for c in answer.chunks)) if streamed else None
    return counted, "tokenizer" if counted is not None else None


def _reasoning_tokens(answer: Answer, tokens: int | None, count_text: CountText) -> int | None:
    """All tokens where nothing but reasoning arrived, else the server's count where it can be
    true; servers that report 0 although they streamed reasoning, or everything although an answer
    followed, are not believed: the text itself is counted."""
    text = "".join(c.text for c in answer.chunks if c.kind is Kind.REASONING)
    if not text:
        return answer.reasoning_tokens or 0
    if all(c.kind is Kind.REASONING for c in answer.chunks):
        return tokens
    told = answer.reasoning_tokens
    if told and (tokens is None or told < tokens):
        return told
    return count_text(text)


def _first_chunk(
    answer: Answer, tokens: int | None, count_text: CountText
) -> tuple[int | None, bool]:
    """Tokens in the first chunk, and whether that is only assumed.

    Every chunk carries at least one token: as many chunks as tokens means one each.
    """
    if not answer.chunks or tokens is None:
        return None, False
    if answer.first_chunk_tokens is not None:
        return answer.first_chunk_tokens, False
    if len(answer.chunks) == tokens:
        return 1, False
    counted = count_text(answer.chunks[0].text)
    return (min(counted, tokens), False) if counted else (1, True)


def _disagreement(answer: Answer) -> float | None:
    """Relative difference between the two counts a server may give."""
    if answer.output_tokens is None or answer.timings is None:
        return None
    larger = max(answer.output_tokens, answer.timings.decode_tokens, 1)
    return abs(answer.output_tokens - answer.timings.decode_tokens) / larger
