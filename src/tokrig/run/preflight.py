"""What a run finds out about its server before it measures, and what it refuses to go on with.

What the server takes and understands, what becomes of our prompts on their way to the model,
whether speculation changes what is answered: all of it found by trying, once a run. And what was
asked of the engine, beside what it turned out to be.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tokrig import registry
from tokrig.backends import Engine, Request
from tokrig.errors import InputError, RequestError, StartError
from tokrig.record.conditions import ignored, untold
from tokrig.record.model import BackendFacts, ColdStart, Greedy, LoadMemory, Mode, Model, Prompting
from tokrig.record.reads import Reads
from tokrig.record.samples import Cell, Kind, Sample
from tokrig.run.http import HINTS, PASSING, REFUSALS, code_of, wait_s
from tokrig.run.load_nodes import LOST
from tokrig.run.prepare import Prepared
from tokrig.run.progress import Listener, Note, Step
from tokrig.run.session import Session, salt
from tokrig.spec.settings import option_of
from tokrig.workloads import Messages, Variant, Workload

# Short requests before the measurement.

PROBE = Cell("probe", 1)
PROBE_TOKENS = 16
QUESTION = Variant((("user", "{material}{ending}"),), ("How are you today?",))


def probe(session: Session, listen: Listener) -> tuple[Sample, bool | None]:
    """A first short answer, as the run asks for it; and whether the model reasons when nobody
    switches that, None where it cannot be asked without.

    Raises RequestError when the server fails the request.
    """
    first, switch = settle(session, listen), session.prepared.reasoning
    if switch is None:
        return first, reasons(first)
    if switch.asked == "off" and reasons(first):
        return first, True
    by_start = session.backend.capabilities.reasoning_switch == "start"
    if by_start and switch.engine_flag and session.server is not None:
        # What the engine was started with cannot be taken out of one request.
        return first, None
    plain = _ask(session, switched=False)
    return first, None if plain.error is not None else reasons(plain)


def settle(session: Session, listen: Listener) -> Sample:
    """A first short answer, in the dialect and with the roles that this server takes. Sets the
    session to them; a server that is too busy is waited for, as long as it asks.

    Raises RequestError when the server fails the request whatever is tried.
    """
    sample = _first(session, listen)
    if (seconds := wait_s(sample)) is not None:
        listen(Note(f"the server asks to wait for {seconds:.0f} s"))
        time.sleep(seconds)
        sample = _first(session, listen)
    elif code_of(sample) in PASSING:
        # Nothing is learned of a server by one request that fails on its own.
        why, sample = f"{sample.error}: {sample.error_detail}", _first(session, listen)
        if sample.error is None:
            listen(Note(f"the first request failed ({why}); tried once more, it was answered"))
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
        raise RequestError(
            f"{sample.workload}: the engine failed the request ({sample.error}): "
            f"{sample.error_detail}",
            hint=HINTS.get(sample.error, "read the engine's log"),
            code=sample.error,
        )
    session.tells_cached = sample.cached_tokens is not None
    return sample


def answers(session: Session) -> bool:
    """Whether the server still answers a short request: not where it hangs."""
    return _ask(session).error != "timeout"


def _first(session: Session, listen: Listener) -> Sample:
    """Endpoints that refuse a field get requests without it. Where a guess at what they mind does
    not help, it is taken back, and the refusal stands."""

    def body() -> dict[str, Any]:
        return session.body(_request(session, QUESTION, 1, PROBE_TOKENS))

    sample, dialect = _ask(session), session.dialect
    while sample.error in REFUSALS:
        note = dialect.learn(body(), sample.error_detail or "")
        if note is None:
            break
        listen(Note(note))
        sample = _ask(session)
    stands = sample
    while sample.error in ("http_400", "http_422"):
        note = dialect.guess(body())
        if note is None:
            dialect.kept = None
            return stands
        sample = _ask(session)
        if sample.error is None:
            listen(Note(note))
    return sample


def _ask(session: Session, *, switched: bool = True) -> Sample:
    return _sent(session, _request(session, QUESTION, 1, PROBE_TOKENS, switched=switched))


def _request(
    session: Session, asked: Variant, units: int, answer_tokens: int, *, switched: bool = True
) -> Request:
    unique = session.salt()
    messages = asked.render(units, 0, unique, system_role=session.system_role)
    return session.request(messages, answer_tokens, unique, switched=switched)


def _sent(session: Session, request: Request) -> Sample:
    """Whoever sends it: where that one is lost, another does."""
    while True:
        try:
            return session.send([request], PROBE, "warmup", 0)[0][0]
        except RequestError as why:
            if why.code != LOST or (nodes := session.prepared.nodes) is None:
                raise
            nodes.note(f"{why.message}; sending it anew")


def reasons(sample: Sample) -> bool:
    """Whether the model reasoned before it answered."""
    return Kind.REASONING in sample.stream.kinds


# What the chat template does, and whether the salt keeps prompts apart.

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
    """What the chat template adds to prompts, whether it takes a system message, and whether the
    salt keeps them apart. Sets the session to what the template takes."""
    once, often = _counts(session)
    if session.system_role and often and often <= once:
        listen(Note("the chat template drops system messages: the user message carries the salt"))
        session.system_role = False
        once, often = _counts(session)
    return Prompting(
        template_tokens=template_tokens(once, often, session.system_role),
        system_role=session.system_role,
        kept_apart=_kept_apart(session, listen),
    )


def _counts(session: Session) -> tuple[int, int]:
    """Tokens of a prompt whose first message has the sentence once, and ``_COPIES`` times; zeros
    where the server does not count."""
    counted = []
    for copies in (1, _COPIES):
        messages: Messages = [{"role": "user", "content": _SENTENCE}]
        if session.system_role:
            messages.insert(0, {"role": "system", "content": _SENTENCE})
        messages[0]["content"] = " ".join([_SENTENCE] * copies)
        try:
            counted.append(session.count_prompt(messages, _ANSWER_TOKENS) or 0)
        except RequestError:
            return 0, 0
    return counted[0], counted[1]


def template_tokens(once: int, often: int, system_role: bool) -> int | None:
    """What is left of the shorter prompt without its sentences; None where that cannot be."""
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
    tries: tuple[list[Sample], ...] = ([], [], [])
    for variant in rag.variants:
        for group, (asked, units) in zip(
            tries, ((QUESTION, 1), (variant, _UNITS), (variant, _UNITS)), strict=True
        ):
            group.append(_sent(session, _request(session, asked, units, _ANSWER_TOKENS)))
    if any(s.error is not None or not s.chunks for group in tries for s in group):
        return None
    return apart(*([s.chunks[0].t_ns / 1e9 for s in group] for group in tries))


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


def count_turns(
    session: Session, workload: Workload, context: int | None
) -> tuple[int, list[list[int]]]:
    """How many turns of each session fit into a slot, and how long their prompts are. All of them
    where nobody counts, or the context is not known."""
    if not session.backend.capabilities.counts_prompts:
        return len(workload.turns), []
    room = context or 1 << 62
    counted: list[list[int]] = []
    for number in range(len(workload.sessions)):
        fitting: list[int] = []
        prompts = workload.prompts(number, salt(0), system_role=session.system_role)
        for messages, turn in zip(prompts, workload.turns, strict=True):
            tokens = session.count_prompt(messages, turn.answer_tokens)
            if tokens is None:
                return len(workload.turns), []
            if tokens + turn.answer_tokens > room:
                break
            fitting.append(tokens)
        counted.append(fitting)
    turns = min(map(len, counted))
    return turns, [fitting[:turns] for fitting in counted]


def compare_greedy(before: str, after: str, count_text: Callable[[str], int | None]) -> Greedy:
    """``before`` was answered without speculation, ``after`` with it, to the same prompt of the
    same engine. Speculation promises the same answer; numerics differ a little between batch
    sizes, so a difference is no fault: where it begins is recorded."""
    pairs, same = zip(before, after, strict=False), before == after
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return Greedy(
        compared_characters=min(len(before), len(after)),
        same=same,
        first_divergence_characters=None if same else common,
        first_divergence_tokens=None if same else count_text(before[:common]),
    )


# What was asked for, and what the engine is.


class EngineState(BaseModel):
    """What a run has learned of its engine and model so far, kept in the journal in case it is
    resumed. ``greedy_texts`` are the answers without speculation, by workload, None before they
    were asked for. ``turns`` is how many turns of a session fit, None before that was looked at;
    ``turn_prompts`` are the lengths of their prompts by session, empty where nobody counts."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: Model
    backend: BackendFacts
    mode: Mode
    cold: ColdStart | None = None
    server_starts: int = 0
    load_memory: LoadMemory | None = None
    reads: Reads | None = None
    greedy_texts: dict[str, str] | None = None
    greedy: dict[str, Greedy] = {}
    turns: int | None = None
    turn_prompts: list[list[int]] = []

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EngineState:
        """What ``model_dump(mode="json")`` gave. Raises InputError for what another version of
        tokrig wrote."""
        try:
            return cls.model_validate(data)
        except ValidationError as problem:
            first = problem.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(
                "the unfinished run was begun by another version of tokrig: "
                f"{where}: {first['msg']}",
                hint="discard it with: tokrig run --discard ID",
            ) from None


def require(prepared: Prepared, engine: Engine, facts: BackendFacts) -> None:
    """Refuse to measure something else than was asked for.

    Raises StartError (``other_api``) where an engine started here computes with another API;
    InputError where a running server does, or where it has another setting or tells none: it is
    measured as it is, and a wish must be what it has already.
    """
    wanted, api = prepared.spec.api, engine.api
    if prepared.launch is not None:
        if wanted is None or api in (None, wanted):
            return
        other = "--backend llamacpp and " if prepared.backend.name == "embedded" else ""
        raise StartError(
            f"{engine.engine} computes with {api}, not with {wanted}"
            + (f": {engine.no_device}" if engine.no_device else ""),
            hint="leave --api out to measure with the device that it uses"
            if wanted == "cpu"
            else f"tokrig doctor shows programs and their devices; give a build for {wanted} with "
            f"{other}--server-bin, look at its driver, or leave --api out to measure what computes",
            code="other_api",
        )
    if wanted is not None and (api != wanted or not facts.api_confirmed):
        told = "does not tell what computes" if api is None else f"computes with {api}"
        told = "does not confirm what computes" if api == wanted else told
        raise InputError(
            f"--api {wanted}: the server {told}",
            hint=f"leave --api out, or start a server that computes with {wanted}",
        )
    kind, found = prepared.spec.speculative, engine.speculates_by
    if kind is not None and (engine.speculation is False or found not in (None, kind)):
        does = f"speculates by {found}" if engine.speculation else "does not speculate"
        raise InputError(
            f"--speculative {kind}: the server {does}",
            hint="start the server with it, or leave the option out",
        )
    if differing := ignored(facts):
        words = dict.fromkeys(f"{option_of(name)} {said}" for name, said in differing.items())
        raise InputError(
            f"the server runs with other settings: {'; '.join(words)}",
            hint="start the server with them, or leave the options out to measure it as it is",
        )
    if unknown := untold(facts):
        flags = ", ".join(dict.fromkeys(option_of(name) for name in unknown))
        raise InputError(
            f"{flags}: the server does not tell this setting, and a running one is not changed",
            hint="start the server with it, and leave the option out",
        )


def found_mode(mode: Mode, engine: Engine) -> Mode:
    """The mode that was asked for with what the engine does beside it, in its name too: two runs
    never look alike. A running server may speculate though nobody asked it to here."""
    parts = [part for part in mode.name.split("+") if part != "baseline"]
    if engine.speculation and mode.speculative is None:
        kind = engine.speculates_by or "speculation"
        parts.insert(0, kind)
        mode = mode.model_copy(update={"speculative": kind})
    if engine.offload is not None:
        parts.append(_short(engine.offload))
        mode = mode.model_copy(update={"offload": engine.offload})
    return mode.model_copy(update={"name": "+".join(parts) or "baseline"})


def _short(offload: str) -> str:
    """``+`` parts a mode's words, and patterns would be a line long: a piece of their digest tells
    them apart."""
    words = []
    for word in offload.split(", "):
        kind, tensors, pattern = word.partition("override-tensor ")
        digest = hashlib.sha256(pattern.encode()).hexdigest()[:4] if pattern else ""
        words.append((kind + tensors + digest).replace("+", " "))
    return ", ".join(words)
