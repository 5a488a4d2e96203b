"""Hugging Face's ``transformers serve``.

Checked against transformers 5.19.0: it refuses fields that it does not know, ends a stream
without ``[DONE]``, and says nothing of its device.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tokrig.backends import (
    Ask,
    Availability,
    Capabilities,
    Command,
    Engine,
    Launch,
    Request,
    _python_server,
)
from tokrig.backends._openai_http import (
    OpenAIServer,
    chat_body,
    count_by_usage,
    option_flags,
    template_switch,
)
from tokrig.errors import InputError, RequestError
from tokrig.spec.run import Api

_OWN = frozenset({"host", "port", "device", "force-model", "reasoning"})
_HINT = "give its path with --server-bin, or put transformers on the PATH"

# PyTorch's names. AMD's devices are called "cuda" too.
_DEVICES: Mapping[Api, str] = {
    "cpu": "cpu",
    "cuda": "cuda",
    "rocm": "cuda",
    "metal": "mps",
    "sycl": "xpu",
}


class Transformers(OpenAIServer):
    """Managed. Options are its long flags without dashes (``dtype: bfloat16``,
    ``continuous-batching: true``). Without the latter it answers one request at a time."""

    name = "transformers"
    title = "transformers serve"
    starts = True
    precedence = 60
    ports: tuple[int, ...] = (8000,)
    patience_s = 300.0
    # Its list of models is what lies in the download cache.
    ready_path = "/health"
    options: Mapping[str, str] = {"<any long flag>": "as transformers serve --help lists it"}
    capabilities = Capabilities(
        apis=("cpu", "cuda", "rocm", "metal", "sycl"),
        reasoning_switch="request",
        fixed_length=True,
    )

    def availability(self) -> Availability:
        return _python_server.available("transformers", _HINT)

    def questions(self, launch: Launch) -> tuple[tuple[str, ...], ...]:
        program = _python_server.binary(launch, "transformers", _HINT)
        return ((program, "version"), (program, "serve", "--help"))

    def vet(self, launch: Launch) -> None:
        known = _python_server.answer(launch, 1)
        _python_server.vet_help(launch, known, "transformers", "model-timeout", hint=_HINT)

    def command(self, launch: Launch) -> Command:
        if launch.speculation is not None:
            raise InputError(
                "transformers serve has no speculative decoding",
                hint="leave --speculative out, or take another backend",
            )
        known = _python_server.answer(launch, 1)
        argv = [
            _python_server.binary(launch, "transformers", _HINT),
            *("serve", str(launch.model)),
            *("--host", "127.0.0.1"),
            *("--port", str(launch.port)),
        ]
        if launch.api is not None:
            argv += ["--device", _device(launch.api)]
        switch = launch.reasoning
        if switch and switch.engine_flag and _python_server.knows(known, "reasoning"):
            argv += ["--reasoning", switch.asked]
        argv += option_flags(launch.options, _OWN)
        environment = {
            **_python_server.ENVIRONMENT,
            **_python_server.threads(launch),
            **_python_server.visible_devices(launch),
        }
        return Command(tuple(argv), environment)

    def recognises(self, ask: Ask) -> bool:
        """By two routes that no other server has together."""
        try:
            return {"/load_model", "/v1/responses"} <= set(ask("/openapi.json")["paths"])
        except (RequestError, KeyError, TypeError):
            return False

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """The version is the program's own word; over HTTP it tells nothing. No models: without
        a name a request is answered by the one the server was started with."""
        said = _python_server.answer(launch, 0) if launch else ""
        found = re.search(r"^(\d+\.\d+[\w.]*)$", said, re.MULTILINE)
        return Engine(engine="transformers", build=found.group(1) if found else None)

    def body(self, request: Request) -> dict[str, Any]:
        """Full length by a generation config of the request's own, which replaces the model's."""
        body = {**chat_body(request), **template_switch(request)}
        length = {"min_new_tokens": request.answer_tokens, "max_new_tokens": request.answer_tokens}
        return {**body, "generation_config": json.dumps({**length, "do_sample": False})}

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """By the usage of one token, without the generation config that asks for more."""
        body = {**chat_body(request), **template_switch(request)}
        return count_by_usage(ask, self.chat_path, body)

    def failure(self, log: str) -> str | None:
        return _python_server.failure(log)


def _device(api: Api) -> str:
    if api not in _DEVICES:
        raise InputError(
            f"transformers computes on no {api}", hint=f"it knows {', '.join(sorted(_DEVICES))}"
        )
    return _DEVICES[api]


BACKEND = Transformers()
