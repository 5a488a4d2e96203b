"""Hugging Face's ``transformers serve``.

Checked against transformers 5.19.0: it refuses fields that it does not know, ends a stream
without ``[DONE]``, says nothing of its device, and has no speculative decoding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokrig.backends import Ask, Capabilities, Engine, Launch, Request, Value
from tokrig.backends import _reading as read
from tokrig.backends._python import PythonServer
from tokrig.spec.settings import Api


class Transformers(PythonServer):
    """Options are its long flags (``dtype: bfloat16``, ``continuous-batching: true``). Without the
    latter it answers one request at a time."""

    name = "transformers"
    title = "transformers serve"
    program = "transformers"
    precedence = 60
    ports = (8000,)
    patience_s = 300.0
    # Its list of models is what lies in the download cache.
    ready_path = "/health"
    options: Mapping[str, str] = {"<any long flag>": "as transformers serve --help lists it"}
    capabilities = Capabilities(
        apis=("cpu", "cuda", "rocm", "metal", "sycl"),
        reasoning_switch="request",
        fixed_length=True,
    )
    takes: Mapping[str, tuple[str, ...]] = {"devices": (), "threads": ()}
    serve = ("serve", "{0.model}")
    own = frozenset({"device", "force-model", "reasoning"})
    listed = "model-timeout"
    help_words = ("serve", "--help")
    # PyTorch's names. AMD's devices are called "cuda" too.
    devices: Mapping[Api, str] = {
        "cpu": "cpu",
        "cuda": "cuda",
        "rocm": "cuda",
        "metal": "mps",
        "sycl": "xpu",
    }

    def questions(self, launch: Launch) -> tuple[tuple[str, ...], ...]:
        return (*super().questions(launch), (self.binary(launch), "version"))

    def more_flags(self, launch: Launch, help_text: str) -> Mapping[str, Value | None]:
        listed = read.lists(help_text, "reasoning")
        return {"reasoning": launch.engine_switch if listed else None}

    def recognises(self, ask: Ask) -> bool:
        """By two routes that no other server has together."""
        paths = read.mapping(read.answer(ask, "/openapi.json").get("paths"))
        return {"/load_model", "/v1/responses"} <= paths.keys()

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """The version is the program's own word; over HTTP it tells nothing. No models: without
        a name a request is answered by the one the server was started with."""
        said = launch.answer(1) if launch else ""
        return Engine(engine="transformers", build=read.word(said, r"(?m)^(\d+\.\d+[\w.]*)$"))

    def body(self, request: Request) -> dict[str, Any]:
        """Full length by a generation config of the request's own, which replaces the model's."""
        length = {"min_new_tokens": request.answer_tokens, "max_new_tokens": request.answer_tokens}
        config = json.dumps({**length, "do_sample": False})
        return {**super().body(request), "generation_config": config}


BACKEND = Transformers()
