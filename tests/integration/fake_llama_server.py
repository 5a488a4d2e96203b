#!/usr/bin/env python3
"""Speaks llama-server's recorded protocol, and fails on demand: ``--fault NAME[=N]``.

For faults no real engine commits to order. Serves on loopback until it is stopped. The answers
have the form of the recordings under tests/data/recordings.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

TOKEN_S = 0.002
TEMPLATE_TOKENS = 12


PREFILL_TOKENS_PER_S = 4000.0
LONG = 1000


def count(messages: list[dict[str, str]]) -> int:
    template = 600 if Handler.fault == "long-template" else TEMPLATE_TOKENS
    return template + sum(-(-len(m["content"]) // 4) for m in heard(messages))


def heard(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """What the chat template lets through."""
    if Handler.fault != "drops-system":
        return messages
    return [m for m in messages if m["role"] != "system"]


def alike(one: str, other: str) -> int:
    """How many characters two prompts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fault = ""
    number = 0
    context = 8192
    slots = 4
    chats = 0
    in_use = 0
    served = threading.Semaphore(1)
    seen: ClassVar[list[str]] = []
    weights = b""

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def answer(self, body: Any, status: int = 200, **headers: str) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(payload)

    def do_GET(self) -> None:
        if self.path == "/health":
            ready = self.fault != "never-ready"
            self.answer({"status": "ok" if ready else "loading"}, 200 if ready else 503)
        elif self.path == "/props":
            settings = {"n_ctx": self.context}
            self.answer(
                {
                    "default_generation_settings": settings,
                    "total_slots": self.slots,
                    "build_info": "b9999-fake",
                    "chat_template": "{{ '<|im_start|>' }}",
                }
            )
        elif self.path == "/v1/models":
            names = ["fake", "other"] if self.fault == "two-models" else ["fake"]
            self.answer({"data": [{"id": name, "owned_by": "llamacpp"} for name in names]})
        else:
            self.answer({"error": {"message": "not found"}}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refused = any(m["role"] == "system" for m in body.get("messages", ()))
        if self.fault == "no-system-mute" and refused:
            # As SGLang did: the template's exception stays in its log (sgl-project/sglang#892).
            self.answer("Internal Server Error", 500)
        elif self.fault == "no-system" and refused:
            # As llama.cpp says it for a template that raises; vLLM says the same with 400.
            words = "Error: Jinja Exception: System role not supported"
            self.answer({"error": {"code": 500, "message": words, "type": "server_error"}}, 500)
        elif self.path == "/v1/chat/completions":
            self.chat(body)
        elif self.fault == "no-tokenizer":
            self.answer({"error": {"message": "not found"}}, 404)
        elif self.path == "/v1/chat/completions/input_tokens":
            self.answer({"input_tokens": count(body["messages"])})
        elif self.path == "/tokenize":
            self.answer({"tokens": list(range(-(-len(body["content"]) // 4)))})
        else:
            self.answer({"error": {"message": "not found"}}, 404)

    def chat(self, body: dict[str, Any]) -> None:
        type(self).chats += 1
        fault = self.fault if self.chats >= self.number else ""
        if fault.startswith("http-"):
            status = int(fault.removeprefix("http-"))
            message = {"error": {"code": status, "message": f"made to answer {status}"}}
            self.answer(message, status, Retry_After="1")
        elif fault == "strict" and "ignore_eos" in body:
            self.answer({"error": {"message": "unknown field: ignore_eos"}}, 400)
        elif fault == "hang" or (fault == "long-hangs" and count(body["messages"]) > LONG):
            time.sleep(600)
        elif fault == "long-fails" and count(body["messages"]) > LONG:
            self.answer({"error": {"message": "made to fail long prompts"}}, 500)
        elif fault == "one-at-a-time":
            with self.served:
                self.stream(body, fault)
        elif fault == "unified":
            self.in_the_shared_context(body)
        elif fault in ("cache", "drops-system"):
            self.prefill(body)
            self.stream(body, fault)
        else:
            self.stream(body, fault)

    def in_the_shared_context(self, body: dict[str, Any]) -> None:
        """Slots that each tell the whole context and share it (ggml-org/llama.cpp#23652)."""
        needs = count(body["messages"]) + body["max_tokens"]
        type(self).in_use += needs
        try:
            time.sleep(0.1)  # until the others are there too
            self.stream(body, "full" if self.in_use > self.context else "")
        finally:
            type(self).in_use -= needs

    def prefill(self, body: dict[str, Any]) -> None:
        """Takes time for what no earlier prompt began with."""
        text = "".join(m["content"] for m in heard(body["messages"]))
        known = max((alike(text, old) for old in self.seen), default=0)
        self.seen.append(text)
        time.sleep(0.005 + (len(text) - known) / 4 / PREFILL_TOKENS_PER_S)

    def stream(self, body: dict[str, Any], fault: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]})
        tokens = 0 if fault == "no-tokens" else body["max_tokens"]
        tokens = tokens // 2 if fault == "short-answer" else tokens
        first = time.perf_counter()
        for index in range(tokens):
            if index:
                time.sleep(TOKEN_S)
            if index == tokens // 2 and self.trip(fault):
                return
            self.event({"choices": [{"index": 0, "delta": {"content": " word"}}]})
        elapsed_ms = (time.perf_counter() - first) * 1e3
        stop = "stop" if fault == "short-answer" else "length"
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": stop}]})
        if fault != "no-tokenizer":
            self.event(self.summary(body, tokens, elapsed_ms, fault))
        self.data("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def trip(self, fault: str) -> bool:
        """Do what the fault says in the middle of a stream; True when the stream is over."""
        if fault == "die":
            self.wfile.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "cut":
            self.close_connection = True
            return True
        if fault == "stall":
            time.sleep(600)
        if fault == "full":
            words = "Context size has been exceeded."
            self.event({"error": {"code": 500, "message": words, "type": "server_error"}})
            self.wfile.write(b"0\r\n\r\n")
            return True
        if fault == "invalid-json":
            self.data('{"choices": [{"delta":')
        if fault == "error-event":
            self.event({"error": {"code": 500, "message": "slot was lost"}})
            self.wfile.write(b"0\r\n\r\n")
            return True
        return False

    def summary(
        self, body: dict[str, Any], tokens: int, elapsed_ms: float, fault: str
    ) -> dict[str, Any]:
        prompt = count(body["messages"])
        cached = 7 if fault == "cached" else 0
        usage_tokens = round(tokens * 1.1) if fault == "lying-usage" else tokens
        clock = {"slow-clock": 1.2, "negative-clock": -1.0, "no-clock": 0.0}.get(fault, 1.0)
        found: dict[str, Any] = {
            "choices": [],
            # The first two requests, a probe and a warm-up, are answered by the first model.
            "model": "another" if fault == "other-model" and self.chats > 2 else "served",
            "usage": {
                "completion_tokens": usage_tokens,
                "prompt_tokens": prompt,
                "prompt_tokens_details": {"cached_tokens": cached},
            },
            "timings": {
                "cache_n": cached,
                "prompt_n": prompt - cached,
                "prompt_ms": 0.1,  # less than its client sees: it reads no prompt
                "predicted_n": tokens,
                "predicted_ms": elapsed_ms * clock,
            },
        }
        if fault in ("cache", "drops-system"):  # and says nothing of it
            del found["timings"], found["usage"]["prompt_tokens_details"]
        return found

    def event(self, data: dict[str, Any]) -> None:
        self.data(json.dumps(data))

    def data(self, text: str) -> None:
        line = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))


def main() -> int:
    parser = argparse.ArgumentParser()
    for flag in ("--model", "--host", "--port", "--ctx-size", "--parallel", "--threads"):
        parser.add_argument(flag)
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--no-webui", action="store_true")
    parser.add_argument("--device")
    parser.add_argument("--fault", default="")
    arguments = parser.parse_args()
    Handler.fault, _, number = arguments.fault.partition("=")
    Handler.number = int(number or 0)
    Handler.slots = int(arguments.parallel)
    Handler.context = int(arguments.ctx_size) // Handler.slots
    if Handler.fault == "small-context":
        Handler.context //= 2
    if Handler.fault == "exit-at-start":
        print("llama_model_load: error loading model: made to fail", file=sys.stderr)
        return 1
    # Real engines hold the weights; one that reads them from the disk meanwhile is found out.
    if arguments.model and Handler.fault != "not-resident":
        with open(arguments.model, "rb") as model:
            Handler.weights = model.read()
    print("load_tensors:   CPU_Mapped model buffer size =   100.00 MiB", flush=True)
    server = ThreadingHTTPServer((arguments.host, int(arguments.port)), Handler)
    server.daemon_threads = True
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
