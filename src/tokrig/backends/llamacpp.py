"""llama.cpp's own ``llama-server``, a binary the user has."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from tokrig.backends import Ask, Availability, Command, Engine, Launch, Request, _llama_http
from tokrig.errors import InputError
from tokrig.record.samples import EngineTimings

_OWN = {"model", "m", "host", "port", "ctx-size", "c", "parallel", "np", "threads", "t"}
_HINT = "give its path with --server-bin, or put llama-server on the PATH"


class LlamaCpp:
    """Managed. Options are ``llama-server``'s long flags without dashes (``n-gpu-layers: 99``,
    ``flash-attn: on``); the engine itself judges them."""

    name = "llamacpp"
    title = "llama.cpp llama-server"
    managed = True
    options: Mapping[str, str] = {"<any long flag>": "as llama-server --help lists it"}
    chat_path = _llama_http.CHAT_PATH
    ready_path = _llama_http.READY_PATH

    def availability(self) -> Availability:
        found = shutil.which("llama-server")
        if found:
            return Availability(True, "llama-server is on the PATH")
        return Availability(False, "no llama-server on the PATH", _HINT)

    def command(self, launch: Launch) -> Command:
        binary = launch.binary or "llama-server"
        found = shutil.which(binary)
        if found is None:
            raise InputError(f"no runnable llama-server at {binary!r}", hint=_HINT)
        argv = [
            found,
            *("--model", str(launch.model)),
            *("--host", "127.0.0.1"),
            *("--port", str(launch.port)),
            *("--ctx-size", str(launch.context_per_slot * launch.slots)),
            *("--parallel", str(launch.slots)),
            *("--threads", str(launch.threads)) * (launch.threads is not None),
            "--metrics",
            "--no-webui",
        ]
        for name, value in launch.options.items():
            argv += _flag(name, value)
        return Command(tuple(argv))

    def inspect(self, ask: Ask, log: str) -> Engine:
        return _llama_http.inspect(ask, log)

    def body(self, request: Request) -> dict[str, Any]:
        return _llama_http.body(request)

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        return _llama_http.count_prompt(ask, request)

    def count_text(self, ask: Ask, text: str) -> int | None:
        return _llama_http.count_text(ask, text)

    def timings(self, event: Mapping[str, Any]) -> EngineTimings | None:
        return _llama_http.timings(event)

    def failure(self, log: str) -> str | None:
        return _llama_http.failure(log)


def _flag(name: str, value: str | int | float | bool) -> list[str]:
    """``{"no-mmap": true}`` → ``--no-mmap``; ``false`` leaves the flag out."""
    flag = name.lstrip("-").replace("_", "-")
    if flag in _OWN:
        raise InputError(
            f"option {name!r} is set by tokrig itself",
            hint="use --model, --context, --threads or --concurrency",
        )
    if isinstance(value, bool):
        return [f"--{flag}"] if value else []
    return [f"--{flag}", str(value)]


BACKEND = LlamaCpp()
