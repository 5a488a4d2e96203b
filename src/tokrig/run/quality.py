"""What a model answers to the fixed prompts of ``workloads/texts/quality.txt``, once a run, when
all else is measured.

One request at a time, on an engine that does nothing else: none of it is among the samples. Where
the server tells tokens and their probabilities they are kept, and where the answer has left the
reference's it is asked on after the reference's own tokens. Others are asked for answers alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache, partial

from tokrig.backends import Ask, Greedy, Request
from tokrig.errors import RequestError
from tokrig.record.quality import TOP_K, Answer, Answers, Reference
from tokrig.run.progress import Listener, Step
from tokrig.run.session import Session
from tokrig.workloads import blocks

ANSWER_TOKENS = 48
# Whatever a server sends instead of so many tokens.
MAX_CHARACTERS = 4096


@dataclass(frozen=True)
class Question:
    """One prompt: its ``kind`` is language, code, arithmetic or tool."""

    name: str
    kind: str
    language: str
    text: str


@cache
def questions() -> tuple[Question, ...]:
    """All prompts, in their order."""
    found = []
    for head, *lines in blocks("quality.txt"):
        name, kind, language = head.split()
        found.append(Question(name, kind, language, "\n".join(lines)))
    return tuple(found)


@cache
def version(asked: tuple[Question, ...] = questions()) -> str:
    """First 12 hex digits of the SHA-256 over all prompts and the answers' length."""
    text = json.dumps([ANSWER_TOKENS, TOP_K, [vars(one) for one in asked]])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def answers(
    session: Session,
    reference: Reference | None,
    listen: Listener,
    asked: tuple[Question, ...] = questions(),
) -> Answers:
    """The answers of the session's model, ``reference`` being what they will be held against.

    Raises EngineDied when the engine ends meanwhile. What the server refuses is told in
    ``Answers.failure``.
    """
    found: list[Answer] = []
    other = reference.answers if reference and reference.answers.version == version(asked) else None
    ask = partial(session.ask, timeout_s=session.prepared.spec.request_timeout_s)
    tells, why = True, None
    for number, question in enumerate(asked):
        listen(Step(f"checking answers, {number + 1} of {len(asked)}", phase="quality"))
        request = session.request([{"role": "user", "content": question.text}], ANSWER_TOKENS)
        try:
            answer = _answer(session, ask, question, request, tells=tells)
            tells = bool(answer.positions)
            if tells and other and other.answers[number].text_ids == answer.text_ids:
                answer = _forced(session, ask, request, answer, other.answers[number])
        except RequestError:
            why = "failed"
            break
        found.append(answer)
    if why is None and not tells:
        why = "no_logprobs"
    return Answers(version(asked), tuple(found), reference.id if reference and other else None, why)


def _answer(
    session: Session, ask: Ask, question: Question, request: Request, *, tells: bool
) -> Answer:
    """One answer with all that is told of it, or, where the server does not do that, its text."""
    backend = session.backend
    answer = Answer(question.name, question.kind, question.language, "")
    prompt = backend.prompt_ids(ask, request) if tells else None
    greedy: Greedy | None = None
    if prompt is not None:
        answer = replace(
            answer,
            prompt_ids=prompt,
            text_ids=backend.text_ids(ask, question.text) or (),
        )
        greedy = backend.greedy(ask, request, prompt, TOP_K)
    if greedy is None:
        return replace(answer, text=backend.answer(session.ask, request)[:MAX_CHARACTERS])
    return replace(
        answer, text=greedy.text[:MAX_CHARACTERS], ids=greedy.ids, positions=greedy.positions
    )


def _forced(
    session: Session, ask: Ask, request: Request, answer: Answer, reference: Answer
) -> Answer:
    """With what it holds for likely after the reference's tokens, where its own are others."""
    parted = answer.parted(reference)
    found = session.backend.likeliest(ask, request, answer.prompt_ids, reference.ids, parted, TOP_K)
    return replace(answer, forced_from=parted, forced=found)
