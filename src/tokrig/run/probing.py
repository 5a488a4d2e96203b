"""Short requests before the measurement: does the server speak our dialect, does the model reason,
is a switch for that honoured, and how long does a first answer take?"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tokrig.backends import Request
from tokrig.record.model import ColdStart
from tokrig.record.samples import Kind, Sample
from tokrig.run import refusal
from tokrig.run.dialect import REFUSALS
from tokrig.run.progress import Cell, Listener, Note
from tokrig.run.session import Session
from tokrig.workloads import Variant

PROBE = Cell("probe", 1)
PROBE_TOKENS = 16
QUESTION = Variant((("user", "{material}{ending}"),), ("How are you today?",))


@dataclass(frozen=True)
class Probed:
    """``model``: whether the model reasons when nobody switches that, None where it cannot be
    asked without; ``switched``: whether it did as the run asks for it."""

    model: bool | None
    switched: bool
    cold: ColdStart


def probe(session: Session, listen: Listener, cold: ColdStart | None) -> Probed:
    """Ask once, and once more without the reasoning switch where there is one. ``cold`` is what
    an earlier start of the run saw; it stays.

    Raises RequestError when the server fails the request.
    """
    sample = settle(session, listen)
    switched = _reasons(sample)
    if cold is None:
        first_s = round(sample.chunks[0].t_ns / 1e9, 4) if sample.chunks else None
        load_s = None if session.load_s is None else round(session.load_s, 4)
        cold = ColdStart(load_s=load_s, first_ttft_s=first_s)
    return Probed(_of_the_model(session, switched), switched, cold)


def settle(session: Session, listen: Listener) -> Sample:
    """A first short answer, in the dialect and with the roles that this server takes. Sets the
    session to them; a server that is too busy is waited for, as long as it asks.

    Raises RequestError when the server fails the request whatever is tried.
    """
    sample = _first(session, listen)
    if (seconds := refusal.wait_s(sample)) is not None:
        listen(Note(f"the server asks to wait for {seconds:.0f} s"))
        time.sleep(seconds)
        sample = _first(session, listen)
    if session.system_role and sample.error in REFUSALS:
        # Not every server says that it is the role: a template's exception may be a bare 500.
        session.system_role = False
        retried = _first(session, listen)
        if retried.error is None:
            listen(
                Note(
                    "the chat template refuses system messages: the user message carries the"
                    " salt, and a shape with a system prompt is skipped"
                )
            )
            sample = retried
    if sample.error is not None:
        raise session.failed(sample)
    session.tells_cached = sample.cached_tokens is not None
    return sample


def answers(session: Session) -> bool:
    """Whether the server still answers a short request: not where it hangs."""
    return _ask(session).error != "timeout"


def _first(session: Session, listen: Listener) -> Sample:
    """Endpoints that refuse a field get requests without it. Where a guess at what they mind does
    not help, it is taken back, and the refusal stands."""
    sample, dialect = _ask(session), session.dialect
    while sample.error in REFUSALS:
        note = dialect.learn(session.body(_question(session)), sample.error_detail or "")
        if note is None:
            break
        listen(Note(note))
        sample = _ask(session)
    stands = sample
    while sample.error in ("http_400", "http_422"):
        note = dialect.guess(session.body(_question(session)))
        if note is None:
            dialect.kept = None
            return stands
        sample = _ask(session)
        if sample.error is None:
            listen(Note(note))
    return sample


def _of_the_model(session: Session, switched: bool) -> bool | None:
    """Whether the model reasons by itself."""
    switch = session.prepared.reasoning
    if switch is None:
        return switched
    if switched and switch.asked == "off":
        return True
    by_start = session.backend.capabilities.reasoning_switch == "start"
    if by_start and switch.engine_flag and session.server is not None:
        # What the engine was started with cannot be taken out of one request.
        return None
    sample = _ask(session, switched=False)
    return None if sample.error is not None else _reasons(sample)


def _ask(session: Session, *, switched: bool = True) -> Sample:
    return session.send([_question(session, switched)], PROBE, "warmup", 0)[0][0]


def _question(session: Session, switched: bool = True) -> Request:
    unique = session.salt()
    messages = QUESTION.render(1, 0, unique, system_role=session.system_role)
    return session.request(messages, PROBE_TOKENS, unique, switched=switched)


def _reasons(sample: Sample) -> bool:
    return any(chunk.kind is Kind.REASONING for chunk in sample.chunks)
