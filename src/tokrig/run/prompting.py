"""What becomes of our prompts on their way to the model, found by trying, once a run: what the
chat template adds to them, whether it takes a system message, and whether the salt keeps them
apart for a server that does not tell what it had in its cache.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tokrig import registry
from tokrig.errors import RequestError
from tokrig.record.model import Prompting
from tokrig.record.samples import Sample
from tokrig.run.probing import PROBE, QUESTION
from tokrig.run.progress import Listener, Note, Step
from tokrig.run.session import Session
from tokrig.workloads import Messages, Variant, Workload

# A sentence that tokenizes alike however often it is repeated.
_SENTENCE = "We open at six every morning."
_COPIES = 9
# The cache is tried with prompts of some 500 tokens, each sent once under each of two salts.
_UNITS = 24
_ANSWER_TOKENS = 8
# A long prompt has to take at least this much longer than a short one, or nothing can be saved.
VISIBLE = 0.5
# Share of the prefill that a second salt saves: up to the first nothing is shared, from the second
# on the prompt is; between them chance decides.
APART, SHARED = 0.25, 0.5


def learn(session: Session, listen: Listener) -> Prompting:
    """Count and ask. Sets the session to what the template takes."""
    counts = _counts(session)
    if session.system_role and counts is not None and counts[1] <= counts[0]:
        listen(Note("the chat template drops system messages: the user message carries the salt"))
        session.system_role = False
        counts = _counts(session)
    return Prompting(
        template_tokens=None if counts is None else _template_tokens(*counts, session.system_role),
        system_role=session.system_role,
        kept_apart=_kept_apart(session, listen),
    )


def _counts(session: Session) -> tuple[int, int] | None:
    """Tokens of a prompt whose first message has the sentence once, and ``_COPIES`` times."""
    counted = []
    for copies in (1, _COPIES):
        messages: Messages = [{"role": "user", "content": _SENTENCE}]
        if session.system_role:
            messages.insert(0, {"role": "system", "content": _SENTENCE})
        messages[0]["content"] = " ".join([_SENTENCE] * copies)
        try:
            counted.append(session.count_prompt(messages, _ANSWER_TOKENS))
        except RequestError:
            return None
    once, often = counted
    return None if once is None or often is None else (once, often)


def _template_tokens(once: int, often: int, system_role: bool) -> int | None:
    """What is left of the shorter prompt without its sentences."""
    sentence = round((often - once) / (_COPIES - 1))
    left = once - sentence * (2 if system_role else 1)
    return left if sentence > 0 and left >= 0 else None


def _kept_apart(session: Session, listen: Listener) -> bool | None:
    """Whether a second salt costs the prefill again; None where the server tells cached tokens
    itself, and where times do not tell."""
    if session.tells_cached or "cached_tokens" in (session.counters() or {}):
        return None
    listen(Step("trying whether prompts are kept apart", phase="start"))
    rag: Workload = registry.load("workloads", "rag", "WORKLOAD")
    short, first, again = [], [], []
    for variant in rag.variants:
        short.append(_send(session, QUESTION, 1))
        first.append(_send(session, variant, _UNITS))
        again.append(_send(session, variant, _UNITS))
    if any(s.error is not None or not s.chunks for s in (*short, *first, *again)):
        return None
    return apart(*([s.chunks[0].t_ns / 1e9 for s in group] for group in (short, first, again)))


def apart(
    short_s: Sequence[float], first_s: Sequence[float], again_s: Sequence[float]
) -> bool | None:
    """From times to the first token: of a short prompt, of long ones never sent before, of the
    same ones under another salt."""
    short, first, again = map(statistics.median, (short_s, first_s, again_s))
    prefill = first - short
    if prefill < VISIBLE * short or min(first_s) <= max(short_s):
        return None
    saved = (first - again) / prefill
    return True if abs(saved) <= APART else False if saved >= SHARED else None


def _send(session: Session, variant: Variant, units: int) -> Sample:
    unique = session.salt()
    messages = variant.render(units, 0, unique, system_role=session.system_role)
    request = session.request(messages, _ANSWER_TOKENS, unique)
    return session.send([request], PROBE, "warmup", 0)[0][0]
