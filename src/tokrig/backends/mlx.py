"""mlx-lm's ``mlx_lm.server``.

Checked against mlx-lm 0.32.2: HTTP/1.0, SSE comments while a prompt is read, and a
``system_fingerprint`` that names its versions and its device. It has no switch for a fixed
length and no clock of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tokrig.backends import (
    Ask,
    Availability,
    Capabilities,
    Command,
    Engine,
    Launch,
    Loading,
    Request,
    _python_server,
)
from tokrig.backends._openai_http import OpenAIServer, chat_body, option_flags, template_switch
from tokrig.errors import InputError, RequestError, StartError

_OWN = frozenset(
    {"model", "host", "port", "draft-model", "num-draft-tokens", "prompt-cache-size"}
    | {"decode-concurrency", "prompt-concurrency"}
)
_HINT = "give its path with --server-bin, or put mlx_lm.server on the PATH"

# mlx-lm's version, MLX's version, the platform, the device's architecture.
_FINGERPRINT = re.compile(r"(\d+\.\d+[\w.]*)-\d+\.\d+[\w.+]*-(?:macOS|Linux|Windows)\b.*-(\w*)$")

_ONE_TOKEN = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}


class MLX(OpenAIServer):
    """Managed. Options are ``mlx_lm.server``'s long flags without dashes (``kv-bits: 8``)."""

    name = "mlx"
    title = "mlx-lm"
    starts = True
    precedence = 60
    ports: tuple[int, ...] = (8080,)
    patience_s = 300.0
    # ``/health`` answers 503 for good once a model could not be loaded; see ``load``.
    ready_path = "/v1/models"
    options: Mapping[str, str] = {"<any long flag>": "as mlx_lm.server --help lists it"}
    capabilities = Capabilities(
        apis=("cpu", "cuda", "metal"),
        cache_switch="start",
        reasoning_switch="request",
    )

    def availability(self) -> Availability:
        return _python_server.available("mlx_lm.server", _HINT)

    def questions(self, launch: Launch) -> tuple[tuple[str, ...], ...]:
        return ((_python_server.binary(launch, "mlx_lm.server", _HINT), "--help"),)

    def vet(self, launch: Launch) -> None:
        known = _python_server.answer(launch, 0)
        _python_server.vet_help(launch, known, "mlx_lm.server", "adapter-path", hint=_HINT)

    def command(self, launch: Launch) -> Command:
        if launch.speculation is not None:
            raise InputError(
                "mlx-lm does not tell what it drafted, so nobody could tell whether it speculated",
                hint="leave --speculative out, or take another backend",
            )
        argv = [
            _python_server.binary(launch, "mlx_lm.server", _HINT),
            *("--model", str(launch.model)),
            *("--host", "127.0.0.1"),
            *("--port", str(launch.port)),
        ]
        known = _python_server.answer(launch, 0)
        # Builds without these flags keep one prompt, or answer one request at a time.
        for flag, value in (
            ("prompt-cache-size", 0),
            ("decode-concurrency", launch.slots),
            ("prompt-concurrency", launch.slots),
        ):
            if _python_server.knows(known, flag):
                argv += [f"--{flag}", str(value)]
        argv += option_flags(launch.options, _OWN)
        # Its list of models reads the download cache and breaks where there is none.
        cache = {"HF_HUB_CACHE": str(launch.model.parent)}
        return Command(tuple(argv), {**_python_server.ENVIRONMENT, **cache})

    def load(self, ask: Ask, launch: Launch | None, served_model: str | None) -> Iterator[Loading]:
        """It answers before it has loaded, and goes on answering when it cannot: a first token
        tells."""
        if launch is None:
            return
        yield Loading("loading the model")
        try:
            ask(self.chat_path, _ONE_TOKEN)
        except RequestError as error:
            raise StartError(
                f"mlx-lm could not load the model: {error.message}",
                hint="its log tells the reason",
            ) from None

    def recognises(self, ask: Ask) -> bool:
        """By the fingerprint of one token, asked only of a server that speaks neither llama.cpp's
        nor FastAPI's dialect."""
        try:
            if ask("/health") != {"status": "ok"}:
                return False
        except RequestError:
            return False
        for path in ("/props", "/openapi.json"):
            try:
                ask(path)
            except RequestError:
                continue
            return False
        return _fingerprint(ask) is not None

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """Build and device as the fingerprint tells them. No models: without a name a request is
        answered by the one the server was started with."""
        found = _fingerprint(ask)
        build, device = found.groups() if found else (None, "")
        api = _api(device)
        return Engine(
            engine="mlx-lm",
            build=build,
            api=api,
            api_confirmed=None if api is None else True,
        )

    def body(self, request: Request) -> dict[str, Any]:
        return {**chat_body(request), **template_switch(request)}

    def failure(self, log: str) -> str | None:
        return _python_server.failure(log)


def _fingerprint(ask: Ask) -> re.Match[str] | None:
    try:
        answer = ask("/v1/chat/completions", _ONE_TOKEN)
        return _FINGERPRINT.match(str(answer["system_fingerprint"]))
    except (RequestError, KeyError, TypeError):
        return None


def _api(device: str) -> str | None:
    """MLX names an Apple GPU, a CUDA compute capability, or the processor's architecture."""
    if device.startswith("applegpu"):
        return "metal"
    if device.startswith("sm_"):
        return "cuda"
    return "cpu" if device in ("x86_64", "arm64", "aarch64", "AMD64") else None


BACKEND = MLX()
