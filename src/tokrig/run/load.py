"""Send requests, get samples and figures: the measuring client without an engine's session.

For instruments and benches, which have a server and ask nothing of it::

    done = load(Endpoint.from_url("http://127.0.0.1:8080/v1"), [body] * 64, concurrency=64)
    done.figures["icl_s"].p99, done.samples[0].chunks[0].t_ns, done.loop.client_cpu_s

Who starts a process for it waits for the first request: what reads answers and makes figures takes
four times as long to import as what sends, so it is imported when all of them are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokrig.record.samples import Cell, Sample
from tokrig.run.client import Closed, Loop, Source, send
from tokrig.run.http import CHAT_PATH, Endpoint

if TYPE_CHECKING:
    from tokrig.backends import Backend

SILENCE_S = 60.0
Send = Callable[..., Loop]
"""As ``client.send``."""


@dataclass(frozen=True)
class Done:
    """What came of a load. ``figures`` are the values of METRICS by name."""

    samples: list[Sample]
    figures: dict[str, Any]
    loop: Loop


def load(
    endpoint: Endpoint,
    bodies: Iterable[bytes] | Source,
    concurrency: int = 1,
    *,
    asked: int | None = None,
    backend: Backend | None = None,
    silence_s: float = SILENCE_S,
    by: Send = send,
) -> Done:
    """POST ``bodies`` with ``concurrency`` in flight, or as a source says, to where ``backend``
    chats (any OpenAI-compatible server without one); ``asked`` is the length of the answers that
    they ask for. ``by`` sends: this process, or several (``tokrig.run.clients``). Raises as
    ``client.send``."""
    source = bodies if isinstance(bodies, Source) else Closed(bodies, concurrency)
    path = backend.chat_path if backend else CHAT_PATH
    loop = by(endpoint, path, source, silence_s=silence_s)
    from tokrig.record.metrics import figures

    cell = Cell("load", concurrency)
    samples = samples_of(loop, cell, backend, asked)
    return Done(samples, figures(samples), loop)


def samples_of(loop: Loop, cell: Cell, backend: Backend | None, asked: int | None) -> list[Sample]:
    """A sample for each response. Nobody is asked how many tokens a text has."""
    from tokrig.backends.openai import BACKEND
    from tokrig.run.counting import observe

    return [
        observe(
            response,
            Sample(
                **vars(cell),
                repeat=0,
                iteration=response.index // cell.concurrency,
                worker=response.worker,
                phase="measured",
                variant=0,
                salt="",
                sent_ns=response.sent_ns,
                due_ns=response.due_ns,
            ),
            backend or BACKEND,
            lambda text: None,
            asked=asked,
        )
        for response in loop.taken()
    ]
