"""The tools: how each is told to send the load, and what of its own file is published."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.agreement import definitions
from bench.agreement.definitions import Definition, Request, Told
from bench.agreement.engine import NAME, Load, Server
from bench.instrument.peers import SETTINGS, Peer, aiperf, guidellm, llama_benchy, vllm_bench
from bench.instrument.peers.llama_benchy import BOOK, TEXT
from bench.processes import Failed
from tokrig import __version__
from tokrig.documents import parse
from tokrig.record.samples import Sample
from tokrig.record.samples_file import from_parquet


@dataclass(frozen=True)
class Job:
    """One load to send to a server; results belong into ``folder``. ``texts`` are prompts enough,
    one of them for a warm-up; ``model`` is the file that is served."""

    load: Load
    server: Server
    folder: Path
    texts: Sequence[str]
    model: Path
    tokenizer: Path

    def lines(self, name: str, *, text: str, **rest: Any) -> str:
        """A file of one object a prompt, which is called ``text`` there."""
        path = self.folder / name
        path.write_text(
            "".join(json.dumps({text: each, **rest}) + "\n" for each in self.texts), "utf-8"
        )
        return str(path)


@dataclass(frozen=True)
class Reading:
    """What a tool published, by its own names, rates in tok/s and times in seconds; ``told`` is
    what a definition needs beside it. Only tokrig's requests are read."""

    published: Mapping[str, float]
    told: Told = field(default_factory=dict)
    requests: Sequence[Request] = ()
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Tool:
    """A tool; ``peer`` is how bench.instrument installs it. ``native``: no client, it runs in the
    engine's place."""

    name: str
    title: str
    definitions: tuple[Definition, ...]
    peer: Peer | None = None
    native: bool = False

    def settings(self) -> Mapping[str, str]:
        return {**SETTINGS, **(self.peer.settings if self.peer else {})}

    def version(self) -> str:
        assert self.peer is not None
        return self.peer.version()

    def sends(self, load: Load) -> int:
        """How many requests it measures."""
        return load.requests

    def can(self, load: Load) -> bool:
        return not (self.native and load.concurrency > 1)

    def program(self, cache: Path) -> list[str]:
        assert self.peer is not None
        return self.peer.program(cache)

    def arguments(self, job: Job) -> list[str]:
        raise NotImplementedError

    def read(self, job: Job) -> Reading:
        """Raises Failed, OSError, LookupError, TypeError or ValueError where its file is not what
        it was."""
        raise NotImplementedError


class Tokrig(Tool):
    """In the environment that this runs in: a whole run on a server that is already there."""

    def version(self) -> str:
        return __version__

    def program(self, cache: Path) -> list[str]:
        return [sys.executable, "-P", "-m", "tokrig"]

    def settings(self) -> Mapping[str, str]:
        return {}

    def sends(self, load: Load) -> int:
        return 3 * load.concurrency  # of the level "quick"

    def arguments(self, job: Job) -> list[str]:
        # A chat behind 256 tokens of context: prompts long enough to be timed.
        return [
            *("run", "--url", job.server.url, "--workload", "chat"),
            *("--depth", str(job.load.prompt - 64), "--concurrency", str(job.load.concurrency)),
            *("--level", "quick", "--even-if-busy", "--quiet"),
            *("--content", str(job.folder / "content")),
        ]

    def read(self, job: Job) -> Reading:
        runs = job.folder / "content" / "benchmarks"
        (path,) = runs.glob("runs/*/*.yaml")
        (result,) = parse(path.read_text("utf-8"), path.name)["results"]
        (samples,) = runs.glob("samples/*.parquet")
        measured = from_parquet(samples.read_bytes(), samples.name)
        requests = [request(sample) for sample in measured if sample.phase == "measured"]
        return Reading(
            {name: result[name]["median"] for name in OWN_NAMES},
            requests=requests,
            remarks=result["validity"].get("reasons", []),
        )


OWN_NAMES = [definition.name for definition in definitions.OWN.values()]


def request(sample: Sample) -> Request:
    """A sample of tokrig in the terms of all tools."""
    if sample.error or not sample.chunks or not sample.timings or not sample.output_tokens:
        raise Failed(f"a request of tokrig failed: {sample.error or 'no timings'}")
    stamps = sample.stream.stamps_ns
    return Request(
        sample.timings.prompt_tokens,
        sample.output_tokens,
        stamps[0] / 1e9,
        (stamps[-1] - stamps[0]) / 1e9,
        sample.timings.prompt_ms / 1e3,
    )


class VllmBench(Tool):
    """A file as of ShareGPT: its plain list of prompts needs a library that the environment of the
    tests does not have. Tokens are counted by the server."""

    def arguments(self, job: Job) -> list[str]:
        load, path = job.load, job.folder / "prompts.json"
        turns = [[{"value": text}, {"value": "A fine day."}] for text in job.texts]
        path.write_text(json.dumps([{"conversations": each} for each in turns]), "utf-8")
        return [
            *("--backend", "openai-chat", "--base-url", job.server.url),
            *("--endpoint", "/v1/chat/completions", "--model", NAME),
            *("--tokenizer", str(job.tokenizer), "--dataset-name", "sharegpt"),
            *("--dataset-path", str(path), "--disable-shuffle", "--no-oversample"),
            *("--sharegpt-output-len", str(load.answer), "--num-prompts", str(load.requests)),
            *("--max-concurrency", str(load.concurrency)),
            *("--num-warmups", str(load.concurrency), "--ignore-eos", "--temperature", "0"),
            *("--request-rate", "inf", "--ready-check-timeout-sec", "0", "--disable-tqdm"),
            *("--save-result", "--save-detailed", "--result-dir", str(job.folder)),
            *("--result-filename", "out.json"),
        ]

    def read(self, job: Job) -> Reading:
        return read_vllm(job.folder / "out.json", job.load)


def read_vllm(path: Path, load: Load) -> Reading:
    found = json.loads(path.read_text("utf-8"))
    if found["failed"] or found["completed"] != load.requests:
        raise Failed(f"{found['completed']} of its {load.requests} requests were answered")
    return Reading(
        {
            "mean_tpot_ms": 1e3 / found["mean_tpot_ms"],
            "mean_itl_ms": 1e3 / found["mean_itl_ms"],
            "output_throughput": found["output_throughput"],
            "mean_ttft_ms": found["mean_ttft_ms"] / 1e3,
        }
    )


class Guidellm(Tool):
    """A file of prompts, one worker process. Its own warm-up leaves out other requests than the
    first ones where there are few; the engine has had one before."""

    def arguments(self, job: Job) -> list[str]:
        load = job.load
        file = job.lines("prompts.jsonl", text="prompt", output_tokens_count=load.answer)
        spec = {
            "backend": {
                "kind": "openai_http",
                "target": job.server.url,
                "model": NAME,
                "extras": {"body": {"temperature": 0}},
            },
            "profile": {"kind": "concurrent", "streams": [load.concurrency]},
            "constraints": [{"kind": "max_requests", "count": load.requests}],
            "tokenizer": {"kind": "huggingface_auto", "model": str(job.tokenizer)},
            "data": [{"kind": "json_file", "path": file}],
            "outputs": [{"kind": "json", "path": str(job.folder / "out.json")}],
        }
        scenario = job.folder / "scenario.json"
        scenario.write_text(json.dumps({"spec": spec}), "utf-8")
        return ["run", "--config", str(scenario), "--disable-console"]

    def read(self, job: Job) -> Reading:
        return read_guidellm(job.folder / "out.json", job.load)


def read_guidellm(path: Path, load: Load) -> Reading:
    (found,) = json.loads(path.read_text("utf-8"))["benchmarks"]
    metrics = found["metrics"]
    good = metrics["time_to_first_token_ms"]["successful"]
    if good["count"] != load.requests:
        raise Failed(f"{good['count']} of its {load.requests} requests were answered")
    return Reading(
        {
            name: 1e3 / metrics[name]["successful"]["median"]
            for name in ("inter_token_latency_ms", "time_per_output_token_ms")
        }
        | {"time_to_first_token_ms": good["median"] / 1e3}
    )


class Aiperf(Tool):
    """One worker and one record processor, a file of prompts."""

    def arguments(self, job: Job) -> list[str]:
        load = job.load
        file = job.lines("prompts.jsonl", text="text", output_length=load.answer)
        return [
            *("profile", "--model", NAME, "--url", job.server.url, "--endpoint-type", "chat"),
            *("--streaming", "--tokenizer", str(job.tokenizer), "--use-server-token-count"),
            *("--input-file", file, "--custom-dataset-type", "single_turn"),
            *("--dataset-sampling-strategy", "sequential"),
            *("--concurrency", str(load.concurrency), "--request-count", str(load.requests)),
            *("--warmup-request-count", str(load.concurrency)),
            *("--extra-inputs", json.dumps({"ignore_eos": True, "temperature": 0})),
            *("--workers-max", "1", "--record-processors", "1", "--ui", "none"),
            *("--no-gpu-telemetry", "--no-server-metrics", "--export-level", "records"),
            *("--output-artifact-dir", str(job.folder / "out")),
        ]

    def read(self, job: Job) -> Reading:
        return read_aiperf(job.folder / "out" / "profile_export_aiperf.json", job.load)


def read_aiperf(path: Path, load: Load) -> Reading:
    found = json.loads(path.read_text("utf-8"))
    if (count := found["time_to_first_token"]["count"]) != load.requests:
        raise Failed(f"{count} of its {load.requests} requests were answered")
    names = (
        "output_token_throughput_per_user",
        "e2e_output_token_throughput",
        "prefill_throughput_per_user",
    )
    return Reading(
        {name: found[name]["avg"] for name in names}
        | {
            "time_to_first_token": found["time_to_first_token"]["avg"]
            * aiperf.TO_SECONDS[found["time_to_first_token"]["unit"]]
        }
    )


class LlamaBenchy(Tool):
    """Cuts its prompts from a book with a tokenizer of its own, found under the home folder."""

    def arguments(self, job: Job) -> list[str]:
        load = job.load
        book = job.folder / ".cache" / "llama-benchy"
        book.mkdir(parents=True)
        name = hashlib.md5(BOOK.encode(), usedforsecurity=False).hexdigest()
        (book / f"{name}.txt").write_text(TEXT, "utf-8")
        return [
            *("--base-url", f"{job.server.url}/v1", "--model", NAME),
            *("--tokenizer", str(job.tokenizer), "--book-url", BOOK, "--pp", str(load.prompt)),
            *("--tg", str(load.answer), "--runs", str(load.requests // load.concurrency)),
            *("--concurrency", str(load.concurrency), "--exact-tg", "--no-cache"),
            *("--extra-body", "temperature=0", "--skip-coherence", "--latency-mode", "api"),
            *("--exit-on-first-fail", "--format", "json"),
            *("--save-result", str(job.folder / "out.json")),
        ]

    def read(self, job: Job) -> Reading:
        return read_llama_benchy(job.folder / "out.json", job.load)


def read_llama_benchy(path: Path, load: Load) -> Reading:
    report = json.loads(path.read_text("utf-8"))
    (found,) = report["benchmarks"]
    if (count := len(found["e2e_ttft"]["values"])) != load.requests:
        raise Failed(f"{count} of its {load.requests} requests were answered")
    return Reading(
        {name: found[name]["mean"] for name in ("tg_req_throughput", "pp_req_throughput")}
        | {"e2e_ttft": found["e2e_ttft"]["mean"] / 1e3},
        {"latency_s": report["latency_ms"] / 1e3},
    )


class LlamaBench(Tool):
    """Beside the server, which is idle meanwhile: the prompt, then the answer at its depth, once;
    a pass like this is made several times, with answers of the server between."""

    def version(self) -> str:
        return "of the same build"

    def settings(self) -> Mapping[str, str]:
        return {}

    def program(self, cache: Path) -> list[str]:
        return ["/bin/sh", "-c"]

    def arguments(self, job: Job) -> list[str]:
        load = job.load
        program = str(self.binary(job))
        same = [program, "-m", str(job.model), "-t", "1", "-fa", "1", "-o", "jsonl"]
        same += ["-r", "1"]
        prompt = [*same, "-p", str(load.prompt), "-n", "0"]
        answer = [*same, "-p", "0", "-n", str(load.answer), "-d", str(load.prompt)]
        return [f"{shlex.join(prompt)} && {shlex.join(answer)}"]

    def binary(self, job: Job) -> Path:
        return job.server.program.parent / "llama-bench"

    def read(self, job: Job) -> Reading:
        return read_llama_bench(job.folder / "output.txt")


def read_llama_bench(path: Path) -> Reading:
    lines = path.read_text("utf-8", "replace").splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    return Reading({"tg" if row["n_gen"] else "pp": row["avg_ts"] for row in rows})


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tokrig("tokrig", "tokrig", tuple(definitions.OWN.values())),
        LlamaBench("llama-bench", "llama-bench", definitions.LLAMA_BENCH, native=True),
        VllmBench("vllm", "vllm bench serve", definitions.VLLM, vllm_bench.PEER),
        Guidellm("guidellm", "GuideLLM", definitions.GUIDELLM, guidellm.PEER),
        Aiperf("aiperf", "AIPerf", definitions.AIPERF, aiperf.PEER),
        LlamaBenchy("llama-benchy", "llama-benchy", definitions.LLAMA_BENCHY, llama_benchy.PEER),
    )
}
