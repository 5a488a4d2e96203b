"""A server to send to, whether tokrig started it or found it running.

Knows how to ask it, how to send a set of requests through the closed loop, and how to tell a
dead engine from a bad answer.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokrig.backends import Backend, Counters, Engine, Request
from tokrig.errors import EngineDied, EngineError, InputError, RequestError, did_you_mean
from tokrig.record.samples import Phase, Sample
from tokrig.run import http, refusal
from tokrig.run.address import Endpoint
from tokrig.run.dialect import Dialect
from tokrig.run.fit import salt
from tokrig.run.load import Order, Ticker, closed_loop
from tokrig.run.load import Phase as LoadPhase
from tokrig.run.memory import Memory
from tokrig.run.monitor import Monitor
from tokrig.run.observe import Place, SameModel, observe
from tokrig.run.prepare import Prepared
from tokrig.run.progress import Cell
from tokrig.run.server import Server
from tokrig.spec.reasoning import Switch
from tokrig.workloads import Messages

DEATH_SHOWS_WITHIN_S = 3.0
STILL_THERE_S = 10.0
MODELS_SHOWN = 8

HINTS = {
    refusal.CONTEXT: "give the slots more room with --context, or choose other workloads",
    refusal.ROLE: "serve the model with another chat template, or choose other workloads",
    "http_401": "the endpoint wants a key: name its variable with --api-key-env",
    "http_403": "the endpoint refuses this key",
    "http_404": "is this an OpenAI-compatible address, and is --model right?",
    "http_429": "the endpoint limits its rate: lower --concurrency or try later",
    "timeout": "raise --request-timeout if the engine is only slow: a long prefill counts as well",
    "no_tokens": "does the engine know this model's chat template?",
    "http_301": "the server sends on to another address: give that one",
    "http_302": "the server sends on to another address: give that one",
    "http_307": "the server sends on to another address: give that one",
    "http_308": "the server sends on to another address: give that one",
    "no_answer": "is the server running, and is the address right?",
}


@dataclass
class Session:
    """An open server: ``engine`` is what it said about itself, ``dialect`` which request fields it
    takes, ``system_role`` whether its chat template takes a system message, ``tells_cached``
    whether its answers tell cached prompt tokens."""

    backend: Backend
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
    same_model: SameModel = field(default_factory=SameModel)
    before: Memory | None = None
    # Salts count up from a random number: unique in this session, unlikely in any other.
    next_salt: int = field(default_factory=lambda: secrets.randbelow(100_000_000))

    @property
    def load_s(self) -> float | None:
        """Start to ready; None for a server that was already running."""
        return self.server.load_s if self.server else None

    def ask(self, path: str, body: Any = None, *, text: bool = False) -> Any:
        """A question outside the measurement; a chat is asked in the endpoint's dialect."""
        if path == self.backend.chat_path and isinstance(body, dict):
            body = self.dialect.applied(body)
        return http.ask(self.endpoint, path, body, text=text)

    def ask_patiently(self, path: str, body: Any = None, *, text: bool = False) -> Any:
        """The same for a wrapper's "load", which may take as long as the engine may."""
        limit_s = self.prepared.patience_s
        return http.ask(self.endpoint, path, body, text=text, timeout_s=limit_s)

    def log(self) -> str:
        """What the engine printed so far; nothing where tokrig did not start it."""
        return self.server.log() if self.server else ""

    def inspect(self) -> None:
        """Read back what the server is, and settle which of its models is meant.

        Raises InputError when that is not clear: a guess would measure some other model.
        """
        self.engine = self.backend.inspect(self.ask, self.log(), self.prepared.launch)
        known, wanted = self.engine.served_models, self.wanted_model()
        if wanted is not None and known and wanted not in known:
            raise InputError(
                f"the server knows no model {wanted!r}", hint=did_you_mean(wanted, known)
            )
        if wanted is None and len(known) > 1:
            raise InputError(
                f"the server serves {len(known)} models: {', '.join(known[:MODELS_SHOWN])}",
                hint="say which one with --model",
            )
        self.served_model = wanted or next(iter(known), None)

    def wanted_model(self) -> str | None:
        """The name of the model at the server, where the request or the store gives one."""
        spec = self.prepared.spec
        by_store = self.prepared.launch is not None and self.backend.own_models
        return spec.served_model or (spec.model if by_store else None)

    def model_name(self) -> str | None:
        """The same, or the one that the server turned out to serve."""
        return self.served_model or self.wanted_model()

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
    ) -> Request:
        """A request of this session's model, seed and dialect, with reasoning as asked for unless
        ``switched`` is false."""
        switch = self.prepared.reasoning if switched else None
        return Request(
            messages=with_switch(messages, switch, unique),
            answer_tokens=answer_tokens,
            seed=self.prepared.spec.seed,
            served_model=self.served_model,
            salt=unique,
            reasoning=switch,
        )

    def body(self, request: Request) -> dict[str, Any]:
        """The body of a request, in the endpoint's dialect."""
        return self.dialect.applied(self.backend.body(request))

    def count_prompt(self, messages: Messages, answer_tokens: int) -> int | None:
        """Tokens of a prompt as the server counts them after its template."""
        return self.backend.count_prompt(self.ask, self.request(messages, answer_tokens))

    def send(
        self,
        requests: Sequence[Request],
        cell: Cell,
        phase: Phase,
        repeat: int,
        tick: Callable[[Ticker, float], None] = lambda ticker, elapsed_s: None,
    ) -> tuple[list[Sample], LoadPhase]:
        """One closed loop at the cell's concurrency; its samples in the order of the requests.
        While it is measured the machine is watched.

        Raises EngineDied when the engine ends meanwhile, or nobody can be reached at all.
        """
        orders = [
            Order(i, self.backend.chat_path, json.dumps(self.body(r)).encode())
            for i, r in enumerate(requests)
        ]
        began = time.monotonic()

        def on_tick(ticker: Ticker) -> None:
            self.require_alive()
            tick(ticker, time.monotonic() - began)

        # What comes after the last token (counting, decoding) is no part of what is watched.
        watching = self.monitor.watching() if phase == "measured" else contextlib.nullcontext()
        silence_s = self.prepared.spec.request_timeout_s
        try:
            with watching:
                loop = closed_loop(
                    self.endpoint, orders, cell.concurrency, silence_s=silence_s, tick=on_tick
                )
        except OSError as error:
            raise EngineDied(
                f"no connection to {self.endpoint.host_header}: {error}",
                hint=HINTS["no_answer"],
                code="no_answer",
            ) from None
        if any(r.failure for r in loop.responses):
            self.await_death()
        self.require_same_life()
        workload = self.prepared.workloads.get(cell.workload)
        variants = len(workload.variants) if workload else 1
        samples = []
        for response in loop.responses:
            index = response.order.index
            place = Place(
                workload=cell.workload,
                concurrency=cell.concurrency,
                repeat=repeat,
                iteration=index // cell.concurrency,
                phase=phase,
                variant=index % variants,
                salt=requests[index].salt,
                answer_tokens=requests[index].answer_tokens,
            )
            samples.append(observe(response, place, self.backend, self.count_text, self.same_model))
        self.require_same_model(samples)
        return samples, loop

    def require_same_model(self, samples: Sequence[Sample]) -> None:
        """Raises RequestError when another model has begun to answer: nothing measured from here
        on would belong to this run."""
        changed = next((s for s in samples if s.error == "model_changed"), None)
        if changed is not None:
            raise RequestError(
                f"the server changed its model during the run: {changed.error_detail}",
                hint="is somebody else using this server? Measure one that serves one model",
                code="model_changed",
                log_tail=self.server.log_tail() if self.server else "",
            )

    def count_text(self, text: str) -> int | None:
        """Tokens of plain text by the server's tokenizer."""
        return self.backend.count_text(self.ask, text)

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
        """A broken stream may be the first sign of a dead engine; its exit shows a bit later."""
        deadline = time.monotonic() + DEATH_SHOWS_WITHIN_S
        while self.server is not None and time.monotonic() < deadline:
            self.require_alive()
            time.sleep(0.05)

    def failed(self, sample: Sample) -> RequestError:
        """The error of a request without which the run cannot go on."""
        return RequestError(
            f"{sample.workload}: the engine failed the request ({sample.error}): "
            f"{sample.error_detail}",
            hint=HINTS.get(sample.error or "", "read the engine's log"),
            code=sample.error or "",
            log_tail=self.server.log_tail() if self.server else "",
        )


def _started_anew(how: str) -> EngineDied:
    return EngineDied(
        f"the engine was started anew during the run: {how}",
        hint="did it crash, or did somebody else load a model? Its log may tell",
        code="engine_restarted",
    )


def with_switch(messages: Messages, switch: Switch | None, unique: str) -> Messages:
    """The messages with what of a reasoning switch stands in them. A system message of its own
    begins with the salt, as every prompt must."""
    if switch is None or not (switch.system or switch.user_suffix):
        return messages
    found = [dict(m) for m in messages]
    if switch.system:
        if found[0]["role"] == "system":
            found[0]["content"] += f"\n\n{switch.system}"
        else:
            found.insert(0, {"role": "system", "content": f"{unique} {switch.system}".strip()})
    if switch.user_suffix:
        last = next(m for m in reversed(found) if m["role"] == "user")
        last["content"] += f" {switch.user_suffix}"
    return found
