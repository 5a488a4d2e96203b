#!/usr/bin/env python3
"""Speaks lemonade's recorded protocol over llama-server streams, and gives up on demand.

``--give-up N`` answers the first N loads with lemonade's own words for an engine that was not
ready in time; ``--launch-command`` is what health then lists for the engine that did not start;
``--download-polls N`` makes the model arrive after N questions for it; ``--load-s S`` is how long
a load takes. ``--stops-after N``: from then on the engine answers no more, and only lemonade's own
heartbeats come (``: ping``, as streaming_proxy.cpp of 11.9 sends them); ``--restarts-after N``:
its process is another one from then on. ``--holds NAME`` is a model in memory before. Serves on
loopback until it is stopped; it also imitates Ollama, as the real one does.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.integration.fake_llama_server import Handler as LlamaHandler

VERSION = "11.7.0"
FINGERPRINT = "b11434-unknown"
MODEL = "SmolLM2-135M-Q8_0"
TOTAL_BYTES = 1_000_000


class Handler(LlamaHandler):
    """lemonade's addresses; chat streams are the fake llama-server's."""

    give_up = 0
    polls_left = 0
    pulling = False
    loads = 0
    loaded: dict[str, Any] | None = None
    launch_command: ClassVar[list[str]] = []
    load_s = 0.0
    stops_after = restarts_after = 1 << 30
    holds: str | None = None

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/live":
            self.answer({"status": "ok"})
        elif path == "/v1/health":
            self.answer(self.health())
        elif path == "/v1/models":
            everything = "show_all=true" in self.path
            models = [self.model()] if everything or self.polls_left == 0 else []
            self.answer({"object": "list", "data": models})
        elif path == f"/v1/models/{MODEL}":
            self.answer(self.model())
        elif path == "/v1/downloads":
            self.answer([self.job()] if self.pulling else [])
        elif path == "/v1/slots":
            self.answer([{"id": i, "n_ctx": self.context} for i in range(self.slots)])
        elif path == "/v1/system-info":
            self.answer({"recipes": {}})
        elif path == "/api/version":
            self.answer({"version": "0.16.1"})
        elif path == "/api/tags":
            self.answer({"models": [{"name": f"{MODEL}:latest", "model": f"{MODEL}:latest"}]})
        elif path == "/metrics":
            self.plain_text(f'lemonade_server_info{{version="{VERSION}"}} 1\n')
        else:
            self.unknown(path.rpartition("/")[2])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if self.path == "/v1/load":
            self.load(body)
        elif self.path == "/v1/unload":
            type(self).loaded = None
            self.answer({"status": "success", "message": "Model unloaded successfully"})
        elif self.path == "/v1/pull":
            type(self).pulling = True
            self.answer(self.job())
        elif self.path == "/v1/tokenize":
            self.answer({"tokens": list(range(-(-len(body["content"]) // 4)))})
        elif self.path == "/v1/chat/completions" and body.get("stream"):
            self.chat(body)
        elif self.path == "/v1/chat/completions":
            self.whole(body)
        else:
            self.unknown(self.path)

    def load(self, body: dict[str, Any]) -> None:
        name = body["model_name"]
        if name != MODEL:
            self.unknown(name)
            return
        type(self).loads += 1
        time.sleep(self.load_s)
        if self.loads <= self.give_up:
            self.refuse(
                500,
                f"Failed to load model '{name}': llama-server failed to start",
                "model_load_error",
                name,
            )
            return
        arguments = shlex.split(body.get("llamacpp_args", ""))
        slots = 4
        if "--parallel" in arguments:
            slots = int(arguments[arguments.index("--parallel") + 1])
        type(self).slots, type(self).holds = slots, None
        type(self).context = int(body.get("ctx_size", 8192)) // slots
        type(self).loaded = {k: v for k, v in body.items() if k != "model_name"}
        print(f"[LlamaCpp] Loading model: {name}", flush=True)
        print("load_tensors:   CPU_Mapped model buffer size =   100.00 MiB", flush=True)
        self.answer(
            {"status": "success", "model_name": name, "recipe": "llamacpp", "checkpoint": "m.gguf"}
        )

    def health(self) -> dict[str, Any]:
        gave_up = 0 < self.loads <= self.give_up and bool(self.launch_command)
        listed = self.loaded is not None or gave_up
        entry = {
            "backend_alive": self.loaded is not None,
            "backend_health": "ready" if self.loaded is not None else "exited",
            "device": "gpu",
            "launch_command": self.launch_command or ["llama-server", "--port", "8001"],
            "loaded": True,
            "model_name": MODEL,
            "pid": 675 + (self.chats > self.restarts_after),
            "recipe": "llamacpp",
            "recipe_options": {"llamacpp_backend": "system", **(self.loaded or {})},
            "type": "llm",
        }
        return {
            "status": "ok",
            "version": VERSION,
            "model_loaded": MODEL if self.loaded is not None else None,
            "all_models_loaded": [
                *([entry] if listed else []),
                *([{**entry, "model_name": self.holds, "pid": 7}] if self.holds else []),
            ],
        }

    def stream(self, body: dict[str, Any], fault: str) -> None:
        if self.chats <= self.stops_after:
            super().stream(body, fault)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(600):
            self.wfile.write(b"8\r\n: ping\n\n\r\n")
            time.sleep(0.2)

    def model(self) -> dict[str, Any]:
        """Asked for while it is fetched, it comes nearer."""
        if self.pulling and self.polls_left:
            type(self).polls_left -= 1
        return {
            "id": MODEL,
            "object": "model",
            "owned_by": "lemonade",
            "recipe": "llamacpp",
            "downloaded": self.polls_left == 0,
        }

    def job(self) -> dict[str, Any]:
        done = TOTAL_BYTES // (1 + self.polls_left)
        return {
            "id": f"model:{MODEL}",
            "model_name": MODEL,
            "status": "downloading" if self.polls_left else "completed",
            "overall_bytes_downloaded": done,
            "total_download_size": TOTAL_BYTES,
            "percent": 100,
        }

    def whole(self, body: dict[str, Any]) -> None:
        """An answer that is not streamed; the real one carries the engine's fingerprint."""
        usage = self.summary(body, int(body["max_tokens"]), 1.0, "")["usage"]
        message = {"role": "assistant", "content": " word"}
        self.answer(
            {
                "model": body["model"],
                "system_fingerprint": FINGERPRINT,
                "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
                "usage": usage,
            }
        )

    def unknown(self, name: str) -> None:
        self.refuse(404, f"Model '{name}' was not found.", "model_not_found", name)

    def refuse(self, status: int, message: str, code: str, name: str) -> None:
        error = {"message": message, "type": code, "code": code, "requested_model": name}
        self.answer({"error": error}, status)

    def plain_text(self, text: str) -> None:
        payload = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--no-broadcast", action="store_true")
    parser.add_argument("--give-up", type=int, default=0)
    parser.add_argument("--download-polls", type=int, default=0)
    parser.add_argument("--launch-command", type=shlex.split, default=[])
    parser.add_argument("--load-s", type=float, default=0.0)
    parser.add_argument("--stops-after", type=int, default=1 << 30)
    parser.add_argument("--restarts-after", type=int, default=1 << 30)
    parser.add_argument("--holds")
    arguments = parser.parse_args()
    Handler.load_s, Handler.holds = arguments.load_s, arguments.holds
    Handler.stops_after, Handler.restarts_after = arguments.stops_after, arguments.restarts_after
    Handler.give_up = arguments.give_up
    Handler.polls_left = arguments.download_polls
    Handler.launch_command = arguments.launch_command
    server = ThreadingHTTPServer((arguments.host, arguments.port), Handler)
    server.daemon_threads = True
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
