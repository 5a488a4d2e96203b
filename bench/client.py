"""What a client adds to the times it measures: tokrig's own beside aiohttp and httpx.

    python bench/client.py [--rounds 3]

The same known server (see ``tokrig instrument``) sends tokens that carry their send time; each
client receives them line by line and stamps the lines. The error is stamp − send time, the CPU
time is the client process's while it receives. Lines are decoded afterwards, for none of them
inside the measurement; the garbage collector is off for all. *By epoll* is tokrig's own without
the kernel's receive stamps. Rounds are interleaved, and of each
figure the best round counts: other programs can only make it worse.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import aiohttp
import httpx
import numpy as np

from tokrig import __version__
from tokrig.run.answer import parse
from tokrig.run.client import closed_loop
from tokrig.run.http import Endpoint
from tokrig.simulate.process import simulated
from tokrig.simulate.simulation import Simulation
from tokrig.stamps import Reader, read_stamped

PATH = "/v1/chat/completions"
BODY = b'{"messages":[{"role":"user","content":"count"}],"stream":true}'
LOADS = [(64, 1000, 0.001), (16, 200, 0.010), (1, 200, 0.013)]
TOKEN = re.compile(rb'"content":"(\d{19}) \d{12} "')

Lines = list[tuple[int, bytes]]
Client = Callable[[Endpoint, int], tuple[Lines, float]]


@dataclass(frozen=True)
class Figures:
    """Errors in ms, CPU time in µs."""

    p50_ms: float
    p99_ms: float
    cpu_us: float


def tokrig_lines(
    endpoint: Endpoint, streams: int, reader: Reader | None = None
) -> tuple[Lines, float]:
    """The measuring client itself."""
    phase = closed_loop(endpoint, PATH, [BODY] * streams, streams, silence_s=10, reader=reader)
    lines = [
        (phase.start_ns + response.sent_ns + event.t_ns, event.data.encode())
        for response in phase.responses
        for event in parse(response.pieces)
    ]
    return lines, phase.client_cpu_s


def aiohttp_lines(endpoint: Endpoint, streams: int) -> tuple[Lines, float]:
    lines: Lines = []

    async def one(session: aiohttp.ClientSession) -> None:
        async with session.post(url(endpoint), data=BODY) as response:
            async for line in response.content:
                lines.append((time.monotonic_ns(), line))

    async def everything() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*(one(session) for _ in range(streams)))

    return lines, cpu_seconds(lambda: asyncio.run(everything()))


def httpx_lines(endpoint: Endpoint, streams: int) -> tuple[Lines, float]:
    lines: Lines = []

    async def one(client: httpx.AsyncClient) -> None:
        async with client.stream("POST", url(endpoint), content=BODY) as response:
            async for line in response.aiter_lines():
                lines.append((time.monotonic_ns(), line.encode()))

    async def everything() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=None, limits=limits) as client:
            await asyncio.gather(*(one(client) for _ in range(streams)))

    return lines, cpu_seconds(lambda: asyncio.run(everything()))


CLIENTS: dict[str, Client] = {
    "tokrig": tokrig_lines,
    "by epoll": lambda endpoint, streams: tokrig_lines(endpoint, streams, read_stamped),
    "aiohttp": aiohttp_lines,
    "httpx": httpx_lines,
}


def url(endpoint: Endpoint) -> str:
    return f"http://{endpoint.host_header}{PATH}"


def cpu_seconds(work: Callable[[], None]) -> float:
    """The process's CPU time in ``work``, without the collector."""
    gc.collect()
    gc.disable()
    try:
        began = time.process_time()
        work()
        return time.process_time() - began
    finally:
        gc.enable()


def measured(client: Client, streams: int, tokens: int, interval_s: float) -> Figures:
    """One round of one client."""
    made = Simulation(ttft_s=0.05, itl_s=interval_s, tokens=tokens, stamps=True)
    with simulated(made) as server:
        lines, cpu_s = client(Endpoint(server.host, server.port), streams)
    found = ((stamp, TOKEN.search(line)) for stamp, line in lines)
    errors = np.array([stamp - int(match[1]) for stamp, match in found if match]) / 1e6
    count = streams * tokens
    if errors.size != count:
        raise SystemExit(f"only {errors.size} of {count} tokens arrived")
    p50, p99 = np.percentile(errors, [50, 99])
    return Figures(float(p50), float(p99), cpu_s / count * 1e6)


def best(rounds: list[Figures]) -> Figures:
    return Figures(
        min(f.p50_ms for f in rounds), min(f.p99_ms for f in rounds), min(f.cpu_us for f in rounds)
    )


def table(streams: int, interval_s: float, found: dict[str, Figures]) -> None:
    print(f"\n{streams} streams, one token every {interval_s * 1e3:g} ms")
    print(f"{'client':10}{'error p50':>14}{'error p99':>14}{'CPU a token':>16}   against tokrig")
    own = found["tokrig"]
    for name, figures in found.items():
        ratios = (
            f"{figures.p50_ms / own.p50_ms:.1f}×, {figures.p99_ms / own.p99_ms:.1f}×, "
            f"{figures.cpu_us / own.cpu_us:.1f}×"
        )
        print(
            f"{name:10}{figures.p50_ms:>11.3f} ms{figures.p99_ms:>11.3f} ms"
            f"{figures.cpu_us:>13.1f} µs   {ratios}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, tokrig {__version__}, "
        f"aiohttp {version('aiohttp')}, httpx {version('httpx')}; best of {rounds}"
    )
    for streams, tokens, interval_s in LOADS:
        runs: dict[str, list[Figures]] = {name: [] for name in CLIENTS}
        for _ in range(rounds):
            for name, client in CLIENTS.items():
                runs[name].append(measured(client, streams, tokens, interval_s))
        table(streams, interval_s, {name: best(found) for name, found in runs.items()})


if __name__ == "__main__":
    main()
