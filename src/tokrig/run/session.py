"""A server to send to, whether tokrig starts it or finds it running: asked, and sent to.

Knows how to send a set of requests through the closed loop, and how to tell a dead engine from a
bad answer.
"""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
import string
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tokrig.backends import Backend, Counters, Engine, Request
from tokrig.errors import (
    EngineDied,
    EngineError,
    InputError,
    RequestError,
    did_you_mean,
)
from tokrig.record.checks import reasoned
from tokrig.record.samples import Cell, Kind, Phase, Sample
from tokrig.run import http
from tokrig.run.answer import Answer
from tokrig.run.client import Closed, Loop, Source, send
from tokrig.run.counting import observe
from tokrig.run.http import HINTS, Dialect, Endpoint
from tokrig.run.lasting import Lasting
from tokrig.run.monitor import Monitor
from tokrig.run.prepare import Prepared
from tokrig.run.server import Server
from tokrig.spec.reasoning import Switch
from tokrig.workloads import Messages

By = Callable[[Iterable[bytes]], Source]
"""Makes the source of requests out of their bodies."""
DEATH_SHOWS_WITHIN_S = 3.0
STILL_THERE_S = 10.0
# A token of context may take so long to read (a large model on a few slow cores): no time-out may
# cut off an honest prefill, and none may be endless.
SLOWEST_PREFILL_S = 0.1
COUNT_S = 120.0
MODELS_SHOWN = 8


@dataclass
class Session:
    """An open server: ``engine`` is what it said about itself, ``dialect`` which request fields it
    takes, ``system_role`` whether its chat template takes a system message, ``tells_cached``
    whether its answers tell cached prompt tokens, ``answering`` the name of the model in its first
    answer."""

    prepared: Prepared
    endpoint: Endpoint
    server: Server | None
    monitor: Monitor
    engine: Engine = field(default_factory=lambda: Engine("unknown"))
    served_model: str | None = None
    dialect: Dialect = field(default_factory=Dialect)
    system_role: bool = True
    tells_cached: bool = False
    bypass: str | None = None
    loaded: bool = False
    evicted: tuple[str, ...] = ()
    life: str | None = None
    sums: Counters | None = None
    answering: str | None = None
    # Salts count up from a random number: unique in this session, unlikely in any other.
    next_salt: int = field(default_factory=lambda: secrets.randbelow(100_000_000))

    @property
    def backend(self) -> Backend:
        return self.prepared.backend

    @property
    def load_s(self) -> float | None:
        """Start to ready; None for a server that was already running."""
        return self.server.load_s if self.server else None

    def ask(
        self, path: str, body: Any = None, *, text: bool = False, timeout_s: float = 120
    ) -> Any:
        """A question outside the measurement; a chat is asked in the endpoint's dialect."""
        if path == self.backend.chat_path and isinstance(body, dict):
            body = self.dialect.applied(body)
        return http.ask(self.endpoint, path, body, text=text, timeout_s=timeout_s)

    def log(self) -> str:
        """What the engine printed so far; nothing where tokrig did not start it."""
        return self.server.log() if self.server else ""

    def inspect(self) -> None:
        """Read back what the server is, and settle which of its models is meant.

        Raises InputError when that is not clear: a guess would measure some other model.
        """
        self.engine = self.backend.inspect(self.ask, self.log(), self.prepared.launch)
        served, wanted = self.engine.served_models, self.wanted_model()
        if wanted is not None and served and wanted not in served:
            raise InputError(
                f"the server has no model {wanted!r}", hint=did_you_mean(wanted, served)
            )
        if wanted is None and len(served) > 1:
            raise InputError(
                f"the server serves {len(served)} models: {', '.join(served[:MODELS_SHOWN])}",
                hint="choose one with --model",
            )
        self.served_model = wanted or next(iter(served), None)

    def wanted_model(self) -> str | None:
        """The name of the model at the server: the one it turned out to serve, else the one that
        the request or the store gives."""
        spec = self.prepared.spec
        by_store = self.prepared.launch is not None and self.backend.own_models
        return self.served_model or spec.served_model or (spec.model if by_store else None)

    def counters(self) -> Counters | None:
        """The engine's own sums at this moment.

        Raises EngineDied where they fell: they begin at zero when an engine starts.
        """
        try:
            before, self.sums = self.sums, self.backend.counters(self.ask)
        except RequestError:
            return None
        now = self.sums or {}
        for name, was in (before or {}).items():
            if now.get(name, was) < was:
                raise _started_anew(f"its counter of {name} fell")
        return self.sums

    def residents(self) -> tuple[str, ...]:
        """The models that the server has in memory, where it tells."""
        try:
            return self.backend.resident(self.ask)
        except EngineError:
            return ()

    def require_same_life(self) -> None:
        """Raises EngineDied when the engine was started anew since this was asked first: behind a
        wrapper nothing else shows it, and what is measured from here on is another start's."""
        try:
            now = self.backend.life(self.ask, self.served_model)
        except RequestError:
            return
        before, self.life = self.life, now or self.life
        if before is not None and now is not None and now != before:
            raise _started_anew(f"{before} before, {now} now")

    def require_same_model(self, answer: Answer) -> None:
        """Fail an answer of another model than the first one's. Its name may differ from the one
        asked for (an alias, a file's name); it may not change."""
        self.answering = self.answering or answer.model
        if answer.model not in (None, self.answering):
            now, before = repr(answer.model), repr(self.answering)
            answer.fail("model_changed", f"{now} answered, before it was {before}")

    def salt(self) -> str:
        """The next unique beginning of a prompt."""
        self.next_salt += 1
        return salt(self.next_salt)

    def request(
        self,
        messages: Messages,
        answer_tokens: int,
        unique: str = "",
        *,
        switched: bool = True,
        keeps_prompt: bool = False,
    ) -> Request:
        """A request of this session's model and seed, with reasoning as asked for unless
        ``switched`` is false."""
        switch = self.prepared.reasoning if switched else None
        return Request(
            messages=with_switch(messages, switch, unique),
            answer_tokens=answer_tokens,
            seed=self.prepared.spec.seed,
            served_model=self.served_model,
            salt=unique,
            reasoning=switch,
            keeps_prompt=keeps_prompt,
        )

    def body(self, request: Request) -> dict[str, Any]:
        """The body of a request, in the endpoint's dialect."""
        return self.dialect.applied(self.backend.body(request))

    def count_prompt(self, messages: Messages, answer_tokens: int) -> int | None:
        """Tokens of a prompt as the server counts them after its template, for which it may read
        all of it."""
        # No token of a context is shorter than this.
        tokens = sum(len(message["content"]) for message in messages) // 2
        ask = functools.partial(self.ask, timeout_s=COUNT_S + tokens * SLOWEST_PREFILL_S)
        request = self.request(messages, answer_tokens)
        try:
            return self.backend.count_prompt(ask, request)
        except RequestError as why:
            # Fitting takes a dozen of these: one that fails on its own must not end it.
            if http.code_of(why) not in http.PASSING:
                raise
            return self.backend.count_prompt(ask, request)

    def count_text(self, text: str) -> int | None:
        """Tokens of plain text by the server's tokenizer."""
        return self.backend.count_text(self.ask, text)

    def send(
        self,
        requests: Iterable[Request],
        cell: Cell,
        phase: Phase,
        repeat: int,
        tick: Callable[[int, int, float], None] = lambda ended, reads, elapsed_s: None,
        *,
        by: By | None = None,
    ) -> tuple[list[Sample], Loop]:
        """Requests in a closed loop at the cell's concurrency, or ``by`` another source made of
        their bodies; samples in the order of the requests. While it is measured the machine is
        watched. Requests that are no sequence are made as they are sent, and of what they and their
        answers said nothing is kept but its shape: such a load may last for hours.

        Raises EngineDied when the engine ends meanwhile, or nobody can be reached at all;
        RequestError when another model begins to answer.
        """
        lasts = not isinstance(requests, Sequence)
        sent: list[Request] = []

        def made() -> Iterator[bytes]:
            for request in requests:
                sent.append(replace(request, messages=[]) if lasts else request)
                yield json.dumps(self.body(request)).encode()

        bodies: Iterable[bytes] = made() if lasts else list(made())
        source = by(bodies) if by else Closed(bodies, cell.concurrency)
        # Several clients send what they have in one piece.
        here = self.prepared.nodes is None
        spooled = {"spool": source.spool} if isinstance(source, Lasting) and here else {}
        began = time.monotonic()

        def on_tick(ended: int, reads: int) -> None:
            self.require_alive()
            tick(ended, reads, time.monotonic() - began)

        # What comes after the last token (counting, decoding) is no part of what is watched.
        watching = self.monitor.watching() if phase == "measured" else contextlib.nullcontext()
        try:
            with watching:
                nodes = self.prepared.nodes
                loop = (nodes.send if nodes else send)(
                    self.endpoint,
                    self.backend.chat_path,
                    source,
                    silence_s=silence_s(self.prepared.spec.request_timeout_s, cell),
                    tick=on_tick,
                    **spooled,
                )
        except OSError as error:
            raise EngineDied(
                f"no connection to {self.endpoint.host_header}: {error}",
                hint=HINTS["no_answer"],
                code="no_answer",
            ) from None
        if any(r.failure and not r.timed_out for r in loop.each()):
            self.await_death()
        self.require_same_life()
        workload = self.prepared.workloads.get(cell.workload)
        samples = []
        for response in loop.taken():
            request = sent[response.index]
            place = Sample(
                **vars(cell),
                repeat=repeat,
                iteration=response.index // (1 if cell.is_open else cell.concurrency),
                worker=response.worker,
                phase=phase,
                variant=workload.variant_number(response.index, cell.concurrency)
                if workload
                else 0,
                salt=request.salt,
                sent_ns=response.sent_ns,
                due_ns=response.due_ns,
            )
            sample = observe(
                response,
                place,
                self.backend,
                self.count_text,
                asked=request.answer_tokens,
                vet=self.require_same_model,
            )
            if sample.error == "model_changed":
                # Nothing measured from here on would belong to this run.
                raise RequestError(
                    f"the server changed its model during the run: {sample.error_detail}",
                    hint="is somebody else using this server? Measure one that serves one model",
                    code="model_changed",
                )
            # Whether a thought is only markers, its text alone tells.
            if lasts and (reasoned(sample) or Kind.REASONING not in sample.stream.kinds):
                sample = replace(sample, chunks=sample.stream.without_text(), text_kept=False)
            samples.append(sample)
        if lasts:
            samples.sort(key=lambda sample: sample.sent_ns)
        return samples, loop

    def require_alive(self) -> None:
        """Raises EngineDied when the managed engine has ended."""
        if self.server is not None:
            self.server.require_alive()

    def require_answering(self) -> None:
        """Raises EngineDied when the engine has ended, or nobody takes a connection any more."""
        self.require_alive()
        with contextlib.suppress(RequestError):  # it says no, or nothing yet: it is there
            http.ask(self.endpoint, self.backend.ready_path, text=True, timeout_s=STILL_THERE_S)

    def await_death(self) -> None:
        """A broken stream may be the first sign of a dead engine; its exit shows a bit later.
        A silent one is none: ticks have looked at the engine meanwhile."""
        deadline = time.monotonic() + DEATH_SHOWS_WITHIN_S
        while self.server is not None and time.monotonic() < deadline:
            self.require_alive()
            time.sleep(0.05)


def silence_s(request_timeout_s: float, cell: Cell) -> float:
    """The longest wait for a token: the user's, and what the slowest prefill of the contexts of
    all requests together takes beside it."""
    return request_timeout_s + SLOWEST_PREFILL_S * cell.depth_tokens * cell.concurrency


def salt(number: int) -> str:
    """The unique beginning of a prompt: one letter and six digits, so always as many tokens.

    Read from the left, numbers that follow each other differ in the letter and in the first digit:
    nothing of two prompts is the same, not even the first token.
    """
    letters = string.ascii_uppercase
    return letters[number % len(letters)] + f"{number % 1_000_000:06d}"[::-1]


def with_switch(messages: Messages, switch: Switch | None, unique: str) -> Messages:
    """The messages with what of a reasoning switch stands in them. A system message of its own
    begins with the salt, as every prompt must."""
    if switch is None:
        return messages
    found = [dict(m) for m in messages]
    if switch.system and found[0]["role"] == "system":
        found[0]["content"] += f"\n\n{switch.system}"
    elif switch.system:
        found.insert(0, {"role": "system", "content": f"{unique} {switch.system}".strip()})
    if switch.user_suffix:
        last = next(m for m in reversed(found) if m["role"] == "user")
        last["content"] += f" {switch.user_suffix}"
    return found


def _started_anew(how: str) -> EngineDied:
    return EngineDied(
        f"the engine was restarted during the run: {how}",
        hint="did it crash, or did somebody else load a model? Its log may tell",
        code="engine_restarted",
    )
