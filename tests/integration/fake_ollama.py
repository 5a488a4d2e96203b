#!/usr/bin/env python3
"""Speaks Ollama's documented native protocol: NDJSON, durations in ns, zero fields left out.

``--vram-share S`` is the part of the model on the GPU, ``--thinking N`` the tokens of thinking
before each answer, ``--missing`` a server whose model must be pulled first. Run as the program
``ollama`` (``serve``) it takes its address from OLLAMA_HOST. Serves on loopback until stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN_S = 0.002
TEMPLATE_TOKENS = 12
VERSION = "0.33.0"
MODEL = "smollm2:135m"
SIZE = 271_000_000


def count(messages: list[dict[str, str]]) -> int:
    return TEMPLATE_TOKENS + sum(-(-len(m["content"]) // 4) for m in messages)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    vram_share = 0.0
    thinking = 0
    there = True
    loaded = False
    context = 4096

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def answer(self, body: Any, status: int = 200) -> None:
        self.payload(json.dumps(body).encode(), "application/json; charset=utf-8", status)

    def payload(self, data: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.path == "/":
            self.payload(b"Ollama is running", "text/plain; charset=utf-8")
        elif self.path == "/api/version":
            self.answer({"version": VERSION})
        elif self.path == "/api/tags":
            self.answer({"models": [self.model()] if self.there else []})
        elif self.path == "/api/ps":
            self.answer({"models": [self.running()] if self.loaded else []})
        elif self.path == "/v1/models":
            self.answer({"object": "list", "data": [{"id": MODEL, "owned_by": "library"}]})
        else:
            self.payload(b"404 page not found", "text/plain", 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/pull":
            type(self).there = True
            self.answer({"status": "success"})
        elif body.get("model") != MODEL or not self.there:
            self.answer({"error": f"model '{body.get('model')}' not found"}, 404)
        elif self.path == "/api/show":
            self.answer({"details": self.model()["details"], "model_info": {}})
        elif self.path == "/api/generate":
            type(self).loaded = body.get("keep_alive") != 0
            reason = "load" if self.loaded else "unload"
            self.answer({"model": MODEL, "response": "", "done": True, "done_reason": reason})
        elif self.path == "/api/chat":
            self.chat(body)
        else:
            self.payload(b"404 page not found", "text/plain", 404)

    def model(self) -> dict[str, Any]:
        details = {
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "134.52M",
            "quantization_level": "F16",
        }
        return {"name": MODEL, "model": MODEL, "size": SIZE, "digest": "9" * 64, "details": details}

    def running(self) -> dict[str, Any]:
        vram = int(SIZE * self.vram_share)
        return {**self.model(), "size_vram": vram, "context_length": self.context}

    def chat(self, body: dict[str, Any]) -> None:
        type(self).loaded = True
        prompt, tokens = count(body["messages"]), int(body["options"]["num_predict"])
        if prompt + tokens > self.context and body.get("truncate") is False:
            message = "the input length exceeds the context length"
            self.answer({"error": message}, 400)
        elif body.get("stream", True) is False:
            last = self.last(prompt, tokens, 0.001)
            self.answer({**last, "message": {"role": "assistant", "content": " word" * tokens}})
        else:
            self.stream(prompt, tokens, body.get("think"))

    def stream(self, prompt: int, tokens: int, think: bool | str | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        thinking = 0 if think is False else min(self.thinking, tokens)
        first = time.perf_counter()
        for index in range(tokens):
            if index:
                time.sleep(TOKEN_S)
            said = {"thinking": " hm", "content": ""} if index < thinking else {"content": " word"}
            self.line({"message": {"role": "assistant", **said}, "done": False})
        self.line(self.last(prompt, tokens, time.perf_counter() - first))
        self.wfile.write(b"0\r\n\r\n")

    def last(self, prompt: int, tokens: int, decode_s: float) -> dict[str, Any]:
        """The last object; what is zero is left out, as Go's ``omitempty`` does."""
        figures = {
            "total_duration": int(decode_s * 1e9) + 1_000_000,
            "prompt_eval_count": prompt,
            "prompt_eval_duration": 1_000_000,
            "eval_count": tokens,
            "eval_duration": int(decode_s * 1e9),
        }
        said = {"role": "assistant", "content": ""}
        told = {name: value for name, value in figures.items() if value}
        return {"message": said, "done": True, "done_reason": "length", **told}

    def line(self, data: dict[str, Any]) -> None:
        stamped = {"model": MODEL, "created_at": "2026-01-01T00:00:00Z", **data}
        text = json.dumps(stamped).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", nargs="?", choices=["serve"])
    parser.add_argument("--port", type=int)
    parser.add_argument("--vram-share", type=float, default=0.0)
    parser.add_argument("--thinking", type=int, default=0)
    parser.add_argument("--missing", action="store_true")
    arguments = parser.parse_args()
    port = arguments.port or int(os.environ["OLLAMA_HOST"].rpartition(":")[2])
    Handler.vram_share, Handler.thinking = arguments.vram_share, arguments.thinking
    Handler.there = not arguments.missing
    Handler.context = int(os.environ.get("OLLAMA_CONTEXT_LENGTH", Handler.context))
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
