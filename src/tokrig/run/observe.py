"""A response becomes a sample: whose counts are believed, and how the channels share tokens."""

from __future__ import annotations

from dataclasses import dataclass

from tokrig.backends import Backend
from tokrig.record.samples import Kind, Phase, Sample
from tokrig.run.answer import Answer, read_answer
from tokrig.run.counting import Counted, CountText, count, text_of
from tokrig.run.load import Response


@dataclass(frozen=True)
class Place:
    """Where a request stood in the run, and how long an answer it asked for."""

    workload: str
    concurrency: int
    repeat: int
    iteration: int
    phase: Phase
    variant: int
    salt: str
    answer_tokens: int | None = None


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
    """The sample of one request. Asks the server's tokenizer only where the stream does not tell,
    and never about a request that failed: the server may be gone, and its counts serve no figure.
    """
    answer = read_answer(response, backend.timings, backend.event)
    if same_model is not None:
        same_model.check(answer)
    if answer.error is not None:
        count_text = _ask_nobody
    counted = count(answer, place.answer_tokens, count_text)
    tokens = counted.output_tokens
    channels = _channels(answer, counted, count_text)
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
        reasoning_tokens=channels[Kind.REASONING],
        content_tokens=channels[Kind.CONTENT],
        tool_call_tokens=channels[Kind.TOOL_CALL],
        first_chunk_tokens=counted.first_chunk_tokens,
        first_chunk_assumed=counted.first_chunk_assumed,
        last_chunk_tokens=counted.last_chunk_tokens,
        hidden_tokens=counted.hidden_tokens,
        counted_by=counted.counted_by,
        count_source=counted.source,
        count_disagreement=_disagreement(answer, counted),
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
    return answer.timings.prompt_tokens + (answer.cached_tokens or 0) or None


def _channels(answer: Answer, counted: Counted, count_text: CountText) -> dict[Kind, int | None]:
    """The tokens of each channel; all of them where there is but one.

    Reasoning by the server's count where it can be true: servers that report 0 although they
    streamed reasoning, or everything although an answer followed, are not believed. Else by
    chunks of one token each, else the channel's text is counted. What is left is content.
    """
    tokens, told = counted.output_tokens, answer.reasoning_tokens
    streamed = {chunk.kind for chunk in answer.chunks}
    found: dict[Kind, int | None] = dict.fromkeys(Kind, 0)
    if len(streamed) == 1 and not (told and streamed != {Kind.REASONING}):
        return found | {next(iter(streamed)): tokens}
    for kind in (Kind.REASONING, Kind.TOOL_CALL):
        if kind is Kind.REASONING and told and (tokens is None or told < tokens):
            found[kind] = told
        elif kind in streamed and counted.counted_by == "one_a_chunk" and not told:
            found[kind] = sum(chunk.kind is kind for chunk in answer.chunks)
        elif kind in streamed:
            found[kind] = count_text(text_of(answer.chunks, kind))
    others = [found[Kind.REASONING], found[Kind.TOOL_CALL]]
    known = [n for n in others if n is not None]
    unknown = tokens is None or len(known) < len(others)
    if not unknown and streamed == {Kind.TOOL_CALL}:
        return found | {Kind.CONTENT: 0, Kind.TOOL_CALL: max((tokens or 0) - known[0], 0)}
    return found | {Kind.CONTENT: None if unknown else max((tokens or 0) - sum(known), 0)}


def _disagreement(answer: Answer, counted: Counted) -> float | None:
    """The larger of two: how far the two counts differ that a server may give, and how far its
    count is from what the text can hold."""
    found = [] if counted.disagreement is None else [counted.disagreement]
    if answer.output_tokens is not None and answer.timings is not None:
        larger = max(answer.output_tokens, answer.timings.decode_tokens, 1)
        found.append(abs(answer.output_tokens - answer.timings.decode_tokens) / larger)
    return max(found, default=None)
