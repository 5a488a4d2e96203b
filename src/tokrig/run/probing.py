"""Short requests before the measurement: does the server speak our dialect, does the model reason,
is a switch for that honoured, and how long does a first answer take?"""

from __future__ import annotations

from dataclasses import dataclass

from tokrig.backends import Request
from tokrig.record.model import ColdStart
from tokrig.record.samples import Kind, Sample
from tokrig.run.dialect import REFUSALS
from tokrig.run.progress import Cell, Listener, Note
from tokrig.run.session import Session

PROBE = Cell("probe", 1)
PROBE_TOKENS = 16


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
    sample = _first(session, listen)
    if sample.error is not None:
        raise session.failed(sample)
    switched = _reasons(sample)
    if cold is None:
        first_s = round(sample.chunks[0].t_ns / 1e9, 4) if sample.chunks else None
        load_s = None if session.load_s is None else round(session.load_s, 4)
        cold = ColdStart(load_s=load_s, first_ttft_s=first_s)
    return Probed(_of_the_model(session, switched), switched, cold)


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
    refusal = sample
    while sample.error in ("http_400", "http_422"):
        note = dialect.guess(session.body(_question(session)))
        if note is None:
            dialect.kept = None
            return refusal
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
    messages = [{"role": "user", "content": f"{unique} How are you today?"}]
    return session.request(messages, PROBE_TOKENS, unique, switched=switched)


def _reasons(sample: Sample) -> bool:
    return any(chunk.kind is Kind.REASONING for chunk in sample.chunks)
