"""The engine that all tools measure: llama-server on a processor of its own, its log of every
request, and prompts of one length for it."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.agreement.definitions import Engine
from bench.processes import Failed

NAME = "bench"
STARTS_S = 60.0
ANSWERS_S = 300.0
MOST_COUNTS = 40
WORDS = (
    "river boat mill water stone bridge winter summer morning evening garden house road field"
    " letter window table paper market village mountain valley forest school doctor captain"
    " engine signal number picture history kitchen shoulder colour season harbour island"
).split()
# "task 12 | prompt eval time = 3002.53 ms / 192 tokens (…": llama.cpp b11434.
LOGGED = re.compile(
    r"task (\d+) \|\s+(prompt )?eval time =\s+([\d.]+) ms /\s+(\d+) tokens", re.ASCII
)


@dataclass(frozen=True)
class Load:
    """What every tool sends: ``requests`` of ``prompt`` tokens, ``concurrency`` at a time, answered
    by ``answer`` tokens each."""

    model: str
    title: str
    concurrency: int
    requests: int
    prompt: int = 320
    answer: int = 128

    @property
    def name(self) -> str:
        return f"{self.model}-{self.concurrency}"


@dataclass(frozen=True)
class Server:
    """A server that runs, and the log that it writes."""

    program: Path
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Its answer. Raises Failed where it gives none."""
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWERS_S)
        try:
            asked.request("POST" if body else "GET", path, json.dumps(body) if body else None)
            answer = asked.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise Failed(f"the server answered {path} with {answer.status}: {text[:200]!r}")
            return json.loads(text)
        except (OSError, ValueError, http.client.HTTPException) as why:
            raise Failed(f"the server did not answer {path}: {why}") from why
        finally:
            asked.close()

    def answered(self, since: int, load: Load, count: int) -> list[Engine]:
        """What its log says of the last ``count`` requests of a load after byte ``since``, those
        with the whole answer. Warm-ups and probes came before them. Raises Failed where there are
        fewer."""
        with self.log.open("rb") as file:
            file.seek(since)
            found = engine_times(file.read().decode("utf-8", "replace"))
        whole = [one for one in found if one.tokens == load.answer]
        if len(whole) < count:
            raise Failed(f"the server answered {len(whole)} of {count} requests whole")
        return whole[-count:]


def engine_times(log: str) -> list[Engine]:
    """Each request that the log tells of, in the order in which they ended."""
    prompts: dict[str, tuple[int, float]] = {}
    found = []
    for task, is_prompt, ms, tokens in LOGGED.findall(log):
        if is_prompt:
            prompts[task] = int(tokens), float(ms) / 1e3
        elif task in prompts and int(tokens) > 1:
            found.append(Engine(*prompts.pop(task), int(tokens), float(ms) / 1e3))
    return found


@contextmanager
def serving(program: Path, model: Path, load: Load, log: Path, core: int) -> Iterator[Server]:
    """The server with one slot a request in flight, without prompt cache, on ``core``."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    argv = [
        *(program, "-m", model, "--alias", NAME, "--host", "127.0.0.1", "--port", port),
        *("-t", 1, "-np", load.concurrency, "-c", 1024 * load.concurrency, "-fa", "on"),
        *("--no-cache-prompt", "--cache-ram", 0),
    ]
    server = Server(program, port, log)
    with (
        log.open("wb") as out,
        subprocess.Popen([*map(str, argv)], stdout=out, stderr=subprocess.STDOUT) as process,
    ):
        try:
            os.sched_setaffinity(process.pid, {core})
            ready(server, process)
            yield server
        finally:
            process.terminate()


def ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Wait until it answers. Raises Failed where it ends or does not begin to."""
    until = time.monotonic() + STARTS_S
    while time.monotonic() < until:
        with suppress(Failed):
            server.ask("/health")
            return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    lines = server.log.read_text("utf-8", "replace").splitlines() or ["no word"]
    raise Failed(f"llama-server did not start: {lines[-1][:200]}")


def prompts(server: Server, count: int, tokens: int, seed: str) -> list[str]:
    """Texts of ``tokens`` tokens after the chat template, each of other words than the others from
    its first one on. Raises Failed where none has that length."""
    chance = random.Random(seed)
    return [prompt(server, tokens, chance) for _ in range(count)]


def prompt(server: Server, tokens: int, chance: random.Random) -> str:
    words = [chance.choice(WORDS) for _ in range(tokens)]
    count = tokens * 3 // 4
    for _ in range(MOST_COUNTS):
        text = " ".join(words[:count])
        off = tokens - length(server, text)
        if not off:
            return text
        count = min(max(count + off, 1), len(words))
        if abs(off) == 1:  # another word may be a token longer or shorter
            words[chance.randrange(count)] = chance.choice(WORDS)
    raise Failed(f"no prompt of {tokens} tokens could be made")


def rendered(server: Server, text: str) -> str:
    """A prompt in the chat template."""
    asked = {"messages": [{"role": "user", "content": text}]}
    return str(server.ask("/apply-template", asked)["prompt"])


def length(server: Server, text: str) -> int:
    """Tokens of a prompt after the chat template."""
    special = {"content": rendered(server, text), "add_special": True, "parse_special": True}
    return len(server.ask("/tokenize", special)["tokens"])


def warm(server: Server, text: str, load: Load) -> None:
    """A whole answer that nobody measures, before each tool."""
    answer(server, text, load)


def streamed(server: Server, text: str, load: Load) -> None:
    """One answer, token by token, as every client asks for it: the server's log has its times."""
    asked = {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": load.answer,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
    }
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWERS_S)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(asked))
        if (answered := connection.getresponse()).status != 200:
            raise Failed(f"the server answered a stream with {answered.status}")
        answered.read()
    except (OSError, http.client.HTTPException) as why:
        raise Failed(f"the server broke off a stream: {why}") from why
    finally:
        connection.close()


def answer(server: Server, text: str, load: Load, **sampling: object) -> dict[str, float]:
    """The engine's own times of one answer that it sends as a whole, by these settings of its
    sampler."""
    asked = {
        "prompt": rendered(server, text),
        "n_predict": load.answer,
        "ignore_eos": True,
        "temperature": 0,
        "cache_prompt": False,
        **sampling,
    }
    found: dict[str, float] = server.ask("/completion", asked)["timings"]
    return found


@dataclass(frozen=True)
class Bare:
    """Rates of an engine that neither streams nor samples, by its own clock: its answer is sent as
    a whole, and of its samplers there is one, which takes the likeliest token. A server always
    chooses; this is the cheapest way it has. A choice in the graph of the model costs more on a
    processor (by callgrind 4 % of all instructions of SmolLM2-135M, the usual samplers 1 %)."""

    decode_per_s: float
    prefill_per_s: float


def bare(server: Server, text: str, load: Load) -> Bare:
    found = answer(server, text, load, samplers=["top_k"], top_k=1)
    return Bare(
        (found["predicted_n"] - 1) / found["predicted_ms"] * 1e3,
        found["prompt_n"] / found["prompt_ms"] * 1e3,
    )
