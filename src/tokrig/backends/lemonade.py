"""lemonade: a wrapper that fetches models and runs llama.cpp, vLLM and others for them.

Checked against the sources and a recorded session of 11.7. What it says of itself is not all
true: ``device`` was "gpu" on a machine without one, ``time_to_first_token`` of its statistics is
the engine's prompt time, ``input_tokens`` leaves cached ones out, ``/v1/system-info`` names the
build that it would download, and ``/api/version`` answers like Ollama's. So it is recognised
before Ollama, and what is told of the engine is what the engine says: in its log, in its answers,
and at the address that health gives, where that is of this machine. Its request field
``enable_thinking`` writes a line into the prompt and is not used; llama.cpp's own fields pass
through.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tokrig.backends import Ask, Backend, Command, Engine, Launch, Loading, Request
from tokrig.backends import _llama as llama
from tokrig.backends import _llama_log as llama_log
from tokrig.backends import _reading as read
from tokrig.errors import EngineError, InputError, RequestError, StartError
from tokrig.record.model import Resolved

_DEVICE_SEARCH = re.compile(
    r"^.*\bNo (?:NVIDIA|AMD|Intel|NPU|GPU)\b.*\bfound\b.*$", re.MULTILINE | re.IGNORECASE
)
_ENGINES = {"llamacpp": "llama.cpp", "vllm": "vllm", "flm": "FastFlowLM", "ryzenai-llm": "RyzenAI"}
# As the llama-server builds spell them that lemonade 11 brings: the type, the draft's length.
_SPECULATION = {
    "ngram": ("ngram-simple", "--spec-ngram-simple-size-m"),
    "mtp": ("draft-mtp", "--spec-draft-n-max"),
}


class Lemonade(llama.LlamaServer):
    """Started (``lemond``) or attached to. Models are named as ``lemonade list`` shows them."""

    name = "lemonade"
    title = "lemonade"
    starts = True
    own_models = True
    program = "lemond"
    get_it = (
        "install lemonade 10.1 or newer (lemonade-server.ai), or give its path with --server-bin"
    )
    precedence = 10
    ports = (13305,)
    # It gives an engine 600 s, once more after that, and should be heard giving up.
    patience_s = 1300.0
    ready_path = "/live"
    tokenize_path = "/v1/tokenize"
    takes: Mapping[str, tuple[str, ...]] = {"devices": (), "threads": ("--threads",)}
    options: Mapping[str, str] = {
        "llamacpp_args": "more flags for llama-server, as one text",
        "vllm_args": "more flags for vLLM, as one text",
        "merge_args": "false leaves out the flags lemonade adds by itself",
    }
    capabilities = replace(
        llama.LlamaServer.capabilities,
        speculation=("ngram", "mtp"),
        apis=("cpu", "cuda", "vulkan", "rocm", "metal"),
    )
    unloads = ("/v1/unload", "model_name", {})
    # What lemonade hands on of llama.cpp's; prompt tokens are uncached ones.
    prometheus: Mapping[str, str] = {
        "requests": "lemonade_requests_total",
        **{
            ours: f"lemonade_{theirs.replace(':', '_')}"
            for ours, theirs in llama.LlamaServer.prometheus.items()
        },
    }

    def command(self, launch: Launch) -> Command:
        self.require_options(launch)
        self.require_settings(launch.settings)
        where = ("--host", "127.0.0.1", "--port", str(launch.port))
        return Command((self.binary(launch), *where, "--no-broadcast"))

    def load(self, ask: Ask, launch: Launch | None, served_model: str | None) -> Iterator[Loading]:
        """Nothing where the model is loaded with the settings asked for; an attached server's
        own settings stay as they are."""
        name = served_model or (str(launch.model) if launch else None)
        if name is None:
            return
        model = _model(ask, name)
        wanted = _settings(str(model.get("recipe")), launch)
        entry = _entry(ask("/v1/health"), name)
        options = read.mapping(entry, "recipe_options")
        alive = entry.get("model_name") == name and entry.get("backend_alive") is not False
        if alive and all(options.get(key) == value for key, value in wanted.items()):
            return
        if model.get("downloaded") is not True:
            yield from _pull(ask, name)
        yield Loading(f"loading {name}")
        try:
            ask("/v1/load", {"model_name": name, **wanted})
        except RequestError as error:
            # It has the same words for an engine that died and one that needed too long: both
            # count as given up, for a direct start of the engine shows which it was.
            gave_up = "server failed to start" in error.message
            more = (
                "a slow first load needs a longer global_timeout in its configuration"
                if gave_up
                else "give it more time with --patience if it is only slow"
            )
            raise StartError(
                f"lemonade could not load {name}: {error.message}",
                hint=f"read its log; {more}",
                code="load_gave_up" if gave_up else "model_not_loaded",
            ) from None

    def bypass(self, ask: Ask, launch: Launch | None, port: int) -> Command | None:
        """The command line lemonade itself used, as far as it tells. It forgets an engine it gave
        up on: then the one it has installed, with the model's own files."""
        listed = (
            entry.get("launch_command")
            for entry in read.answers(ask, "/v1/health", "all_models_loaded")
            if launch is None or entry.get("model_name") == str(launch.model)
        )
        line = next((line for line in listed if isinstance(line, list)), None)
        argv = [str(word) for word in line or _installed(ask, launch)]
        if "--port" not in argv[:-1]:
            return None
        argv[argv.index("--port") + 1] = str(port)
        return Command(tuple(argv), _environment(Path(argv[0])))

    def resident(self, ask: Ask) -> tuple[str, ...]:
        entries = _language_models(read.answer(ask, "/v1/health"))
        return tuple(str(entry.get("model_name")) for entry in entries)

    def life(self, ask: Ask, served_model: str | None) -> str | None:
        """The engine's process: lemonade starts one that died anew and says nothing."""
        entries = _language_models(read.answer(ask, "/v1/health"))
        named = [entry for entry in entries if entry.get("model_name") == served_model] or entries
        pid = read.count(named[0].get("pid")) if len(named) == 1 else None
        return f"process {pid}" if pid else None

    def recognises(self, ask: Ask) -> bool:
        """Its API lies below /v1 and /api/v1; where it imitates Ollama is its root."""
        try:
            health = read.mapping(ask("/v1/health"))
            ask("/api/version")
        except RequestError:
            return False
        return bool({"all_models_loaded", "model_loaded"} & health.keys())

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """The wrapped engine. Its API is confirmed by its own log alone, which only a server
        started here shows; else it is the one lemonade says it chose, unconfirmed."""
        health = read.mapping(ask("/v1/health"))
        entry = _entry(health, str(launch.model) if launch else health.get("model_loaded"))
        name, recipe = entry.get("model_name"), str(entry.get("recipe") or "unknown")
        last_load = log.rpartition("Loading model: ")[2]
        # The wrapped llama-server's own; none where another engine is wrapped.
        slots = read.answers(ask, "/v1/slots")
        found = llama_log.settings(last_load)
        placed = llama.placement(launch, last_load, found, {})
        chosen = str(read.at(entry, "recipe_options", f"{recipe}_backend") or "")
        if placed["api"] is None and chosen in self.capabilities.apis and _is_bundled(entry):
            placed["api"] = chosen
        return Engine(
            engine=_ENGINES.get(recipe, recipe),
            build=_build(ask, entry) if entry else None,
            served_models=(str(name),) if name else read.served_models(ask),
            resolved=found.model_copy(update=_context(slots, entry, found)),
            speculation=llama_log.speculates(last_load, slots),
            wrapper=f"lemonade {health.get('version') or ''}".strip(),
            model_file=_model_file(ask, name) if recipe == "llamacpp" else None,
            **placed,
        )

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """By the engine itself where it can be asked, else by a one-token request, which costs a
        prefill: of llama.cpp's own counters lemonade hands on only the one of plain text."""
        direct = _direct(ask, _entry(read.answer(ask, "/v1/health"), request.served_model))
        counted = super().count_prompt(direct, request) if direct else None
        return Backend.count_prompt(self, ask, request) if counted is None else counted

    def failure(self, log: str) -> str | None:
        """The time-out first: what the engine wrote before it explains nothing. Devices that were
        looked for and not found are no reason: lemonade looks for all there are."""
        log = _DEVICE_SEARCH.sub("", log.rpartition("Loading model: ")[2])
        timed_out = re.search(r"[\w-]+ failed to start within timeout", log)
        if timed_out:
            return timed_out.group()
        last = re.findall(r"(?:Backend load failed|Failed to load model): (.+)", log)
        return llama_log.failure(log) or (last[-1].strip()[:300] if last else None)


# A model: fetched and loaded.


def _model(ask: Ask, name: str) -> dict[str, Any]:
    """What lemonade says of a model of its list, downloaded or not.

    Raises InputError for a name that is not in it.
    """
    try:
        return read.mapping(ask(f"/v1/models/{quote(name)}"))
    except RequestError as error:
        if error.code != "http_404":
            raise
    ids = [str(model.get("id")) for model in read.answers(ask, "/v1/models?show_all=true", "data")]
    near = difflib.get_close_matches(name, ids, 3, 0.5)
    meant = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise InputError(f"lemonade has no model {name!r}", hint=f"{meant}lemonade list shows them all")


def _pull(ask: Ask, name: str) -> Iterator[Loading]:
    """Let lemonade fetch the model in the background, and wait until it is really there. The share
    is of all files together; the figure ``percent`` is of one file."""
    yield Loading(f"downloading {name}", 0.0, fetching=True)
    try:
        ask("/v1/pull", {"model_name": name, "stream": True, "subscribe": False})
        while read.mapping(ask(f"/v1/models/{quote(name)}")).get("downloaded") is not True:
            jobs = [j for j in read.mappings(ask("/v1/downloads")) if j.get("model_name") == name]
            job: dict[str, Any] = jobs[-1] if jobs else {}
            if job.get("status") in ("error", "cancelled", "paused"):
                raise RequestError(str(job.get("error") or job["status"]))
            done = read.number(job, "overall_bytes_downloaded")
            total = read.count(job, "total_download_size")
            share = None if done is None or not total else min(max(done / total, 0.0), 1.0)
            yield Loading(f"downloading {name}", share, fetching=True)
    except RequestError as error:
        raise StartError(
            f"lemonade could not fetch {name}: {error.message}",
            hint="try it by hand: lemonade pull",
            code="model_not_fetched",
        ) from None


def _settings(recipe: str, launch: Launch | None) -> dict[str, Any]:
    """Fields of a load request for a model of this recipe; none for an attached server.

    Raises InputError for what that recipe cannot be told.
    """
    if launch is None:
        return {}
    if launch.speculation is not None and recipe != "llamacpp":
        raise InputError(
            f"lemonade's {recipe} takes no speculation from tokrig",
            hint="leave --speculative out, or take a model that llama.cpp serves",
        )
    found: dict[str, Any] = {"ctx_size": launch.context_per_slot}
    if recipe == "llamacpp":
        found = {"ctx_size": launch.context, "llamacpp_device": ",".join(launch.devices) or None}
        flags = list(_llama_flags(launch))
    elif recipe == "vllm":
        flags = ["--max-num-seqs", str(launch.slots)]
        if not launch.keeps_prompts:
            # lemonade switches vLLM's prefix cache on; the later flag wins.
            flags.append("--no-enable-prefix-caching")
    else:
        return found
    flags.append(str(launch.options.get(f"{recipe}_args", "")))
    found[f"{recipe}_args"] = " ".join(filter(None, flags))
    found[f"{recipe}_backend"] = launch.api
    found["merge_args"] = launch.options.get("merge_args")
    return {name: value for name, value in found.items() if value is not None}


def _llama_flags(launch: Launch) -> Iterator[str]:
    """Verbosity 4 makes llama-server log the buffers that show what computes."""
    yield from ("--parallel", str(launch.slots), "--verbosity", "4")
    for flag, value in BACKEND.setting_flags(launch).items():
        yield from (flag, str(value))
    if launch.speculation is not None:
        kind, length = _SPECULATION[launch.speculation.type]
        yield from ("--spec-type", kind)
        if launch.speculation.draft_tokens is not None:
            yield from (length, str(launch.speculation.draft_tokens))
    if launch.engine_switch:
        yield from ("--reasoning", launch.engine_switch)


# The engine inside: what it says, where its program and its files are.


def _direct(ask: Ask, entry: Mapping[str, Any]) -> Ask | None:
    """``ask`` for the llama-server that health lists, at its own address. None where it does not
    answer there, or another one does: a lemonade in a container has a loopback of its own."""
    base = str(entry.get("backend_url") or "").rstrip("/").removesuffix("/v1")
    if entry.get("recipe") != "llamacpp" or not base:
        return None

    def direct(path: str, body: Any = None, *, text: bool = False) -> Any:
        return ask(base + path, body, text=text)

    try:
        there = read.at(direct("/props"), "model_path")
    except EngineError:
        return None
    return direct if there and there in entry.get("launch_command", ()) else None


def _is_bundled(entry: Mapping[str, Any]) -> bool:
    """Whether the engine is one that lemonade brought: of a program of the user's, or one found on
    the PATH, it does not know what it computes with."""
    line = entry.get("launch_command")
    return not (isinstance(line, list) and line) or "/bin/llamacpp/" in str(line[0])


def _build(ask: Ask, entry: Mapping[str, Any]) -> str | None:
    """What the engine says, itself or by the fingerprint of an answer; never what lemonade has
    installed or would install: a program of the user's may be served instead."""
    direct = _direct(ask, entry)
    found = llama_log.build_of(str(read.at(direct("/props"), "build_info"))) if direct else None
    if found is None:
        told = read.answer(ask, Lemonade.chat_path, read.one_token(entry.get("model_name")))
        found = llama_log.build_of(str(told.get("system_fingerprint")))
    return found


def _context(
    slots: list[dict[str, Any]], entry: Mapping[str, Any], found: Resolved
) -> dict[str, int | bool]:
    """What each slot has while all are full. Slots that share one cache each tell all of it, which
    shows by the context that lemonade asked for."""
    contexts = [n for slot in slots if (n := read.count(slot, "n_ctx"))]
    if not contexts:
        return {}
    each, several = min(contexts), len(slots)
    asked = read.count(entry, "recipe_options", "ctx_size")
    if found.kv_unified or (several > 1 and asked and each >= asked):
        return {"context_per_slot": each // several, "slots": several, "kv_unified": True}
    return {"context_per_slot": each, "slots": several}


def _language_models(health: Any) -> list[dict[str, Any]]:
    """Health's entries of those that are loaded."""
    entries = read.mappings(health, "all_models_loaded")
    return [entry for entry in entries if entry.get("type", "llm") == "llm"]


def _entry(health: Any, name: Any) -> dict[str, Any]:
    """The entry of the language model ``name``, else of the first one there is."""
    entries = _language_models(health)
    named = [entry for entry in entries if entry.get("model_name") == name]
    return next(iter(named or entries), {})


def _installed(ask: Ask, launch: Launch | None) -> list[str]:
    """llama-server as lemonade starts it, with the model's files and the settings asked for; empty
    where one is not there."""
    if launch is None:
        return []
    main = _model_file(ask, str(launch.model))
    options = read.answer(ask, f"/v1/models/{quote(str(launch.model))}/options")
    binary = _program(
        ask, launch.api or str(read.at(options, "effective", "llamacpp_backend") or "")
    )
    if binary is None or main is None:
        return []
    wanted = _settings("llamacpp", launch)
    context = ("--ctx-size", str(wanted["ctx_size"]))
    flags = shlex.split(str(wanted["llamacpp_args"]))
    return [binary, "-m", main, *context, "--port", "0", "--jinja", *flags]


def _model_file(ask: Ask, name: Any) -> str | None:
    """Where lemonade has the file of a model, if it is there. Of one from a folder of the user's
    the list itself gives the path."""
    if not name:
        return None
    files = read.answers(ask, f"/v1/models/{quote(str(name))}/files?include_paths=true", "files")
    for file in files:
        if file.get("role") == "main" and file.get("exists") is True and file.get("path"):
            return str(file["path"])
    paths = [str(model.get("checkpoint")) for model in read.models(ask) if model.get("id") == name]
    return next((path for path in paths if path.endswith(".gguf")), None)


def _program(ask: Ask, api: str) -> str | None:
    """llama-server for an API: the one on the PATH for "system", else one of the user's that
    lemonade was told to take, by the environment that both have or by its configuration, which may
    name a version or "builtin" instead, else the one it fetched:
    ``…/bin/llamacpp/<api>[-channel]/…``; ROCm's has a channel in its name."""
    if api in ("", "system"):
        return shutil.which("llama-server") if api else None
    told = os.environ.get(f"LEMONADE_LLAMACPP_{api.upper()}_BIN")
    own = str(told or read.at(read.answer(ask, "/internal/config"), "llamacpp", f"{api}_bin"))
    folders = [_cache() / "bin/llamacpp" / api, *sorted(_cache().glob(f"bin/llamacpp/{api}-*"))]
    fetched = [str(path) for folder in folders for path in sorted(folder.rglob("llama-server"))]
    found = [own, *fetched] if "/" in own else fetched
    return next((path for path in found if os.access(path, os.X_OK)), None)


def _environment(binary: Path) -> dict[str, str]:
    """Libraries beside the engine and lemonade's own ROCm runtime, as lemonade sets them."""
    if not binary.is_absolute():
        return {}
    listings = sorted(_cache().glob("bin/therock-wheels/*/runtime_paths.txt"))
    lines = (line for listing in listings for line in listing.read_text("utf-8").splitlines())
    bases = [*map(Path, filter(None, lines)), *sorted(_cache().glob("bin/therock/*/lib"))]
    runtimes = [str(folder) for base in bases for folder in (base, base / "llvm/lib")]
    inherited = filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    return {"LD_LIBRARY_PATH": ":".join([*runtimes, str(binary.parent), *inherited])}


def _cache() -> Path:
    """Where lemonade keeps what it downloaded, on Linux, for the user who runs tokrig."""
    own = os.environ.get("LEMONADE_CACHE_DIR")
    shared = os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "lemonade"


BACKEND = Lemonade()
