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

import contextlib
import difflib
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tokrig.backends import Ask, Backend, Capabilities, Command, Engine, Launch, Loading, Request
from tokrig.backends import _llama as llama
from tokrig.backends._reading import answer, at, count, mapping, mappings, one_token
from tokrig.errors import EngineError, InputError, RequestError, StartError
from tokrig.record.model import Resolved

_GAVE_UP = re.compile(r"server failed to start")
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
    takes: Mapping[str, tuple[str, ...]] = {"devices": (), "threads": ("--threads",)}
    options: Mapping[str, str] = {
        "llamacpp_args": "more flags for llama-server, as one text",
        "vllm_args": "more flags for vLLM, as one text",
        "merge_args": "false leaves out the flags lemonade adds by itself",
    }
    capabilities = Capabilities(
        speculation=("ngram", "mtp"),
        apis=("cpu", "cuda", "vulkan", "rocm", "metal"),
        cache_switch="request",
        reasoning_switch="start",
        fixed_length=True,
        timings="request",
        counts_prompts=True,
    )
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
        model = _known(ask, name)
        wanted = _settings(str(model.get("recipe")), launch)
        entry = _entry(mapping(ask("/v1/health")), name)
        options = mapping(entry.get("recipe_options"))
        alive = entry.get("model_name") == name and entry.get("backend_alive") is not False
        if alive and all(options.get(key) == value for key, value in wanted.items()):
            return
        if model.get("downloaded") is not True:
            yield from _pull(ask, name)
        yield Loading(f"loading {name}")
        try:
            ask("/v1/load", {"model_name": name, **wanted})
        except RequestError as error:
            raise _load_failure(name, error) from None

    def bypass(self, ask: Ask, launch: Launch | None, port: int) -> Command | None:
        """The command line lemonade itself used, as far as it tells. It forgets an engine it gave
        up on: then the one it has installed, with the model's own files."""
        try:
            argv = _listed(ask, launch) or _installed(ask, launch)
        except RequestError:
            return None
        if argv is None or "--port" not in argv[:-1]:
            return None
        argv[argv.index("--port") + 1] = str(port)
        return Command(tuple(argv), _environment(Path(argv[0])))

    def resident(self, ask: Ask) -> tuple[str, ...]:
        models = _language_models(answer(ask, "/v1/health"))
        return tuple(str(entry.get("model_name")) for entry in models)

    def life(self, ask: Ask, served_model: str | None) -> str | None:
        """The engine's process: lemonade starts one that died anew and says nothing."""
        models = _language_models(answer(ask, "/v1/health"))
        named = [entry for entry in models if entry.get("model_name") == served_model] or models
        pid = count(named[0].get("pid")) if len(named) == 1 else None
        return f"process {pid}" if pid else None

    def unload(self, ask: Ask, served_model: str | None) -> None:
        if served_model is not None:
            with contextlib.suppress(EngineError):
                ask("/v1/unload", {"model_name": served_model})

    def recognises(self, ask: Ask) -> bool:
        """Its API lies below /v1 and /api/v1; where it imitates Ollama is its root."""
        try:
            health = mapping(ask("/v1/health"))
            ask("/api/version")
        except RequestError:
            return False
        return bool({"all_models_loaded", "model_loaded"} & health.keys())

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """The wrapped engine. Its API is confirmed by its own log alone, which only a server
        started here shows; else it is the one lemonade says it chose, unconfirmed."""
        health = mapping(ask("/v1/health"))
        entry = _entry(health, str(launch.model) if launch else health.get("model_loaded"))
        name, recipe = entry.get("model_name"), str(entry.get("recipe") or "unknown")
        last_load = log.rpartition("Loading model: ")[2]
        slots, direct = _slots(ask), _direct(ask, entry)
        found = llama.settings(last_load)
        placed = llama.placement(launch, last_load, found, {})
        chosen = str(at(entry, "recipe_options", f"{recipe}_backend") or "")
        if placed["api"] is None and chosen in self.capabilities.apis and _is_bundled(entry):
            placed["api"] = chosen
        return Engine(
            engine=_ENGINES.get(recipe, recipe),
            build=_build(ask, direct, name) if entry else None,
            served_models=(str(name),) if name else tuple(_ids(ask("/v1/models"))),
            resolved=found.model_copy(update=_context(slots, entry, found)),
            speculation=llama.speculates(last_load, slots),
            wrapper=f"lemonade {health.get('version') or ''}".strip(),
            model_file=_model_file(ask, name) if recipe == "llamacpp" else None,
            **placed,
        )

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """By the engine itself where it can be asked, else by a one-token request, which costs a
        prefill: of llama.cpp's own counters lemonade hands on only the one of plain text."""
        direct = _direct(ask, _entry(answer(ask, "/v1/health"), request.served_model))
        counted = llama.count_prompt(direct, request) if direct else None
        return Backend.count_prompt(self, ask, request) if counted is None else counted

    def count_text(self, ask: Ask, text: str) -> int | None:
        return llama.count_tokens(ask, "/v1/tokenize", text)

    def failure(self, log: str) -> str | None:
        """The time-out first: what the engine wrote before it explains nothing. Devices that were
        looked for and not found are no reason: lemonade looks for all there are."""
        log = _DEVICE_SEARCH.sub("", log.rpartition("Loading model: ")[2])
        timed_out = re.search(r"[\w-]+ failed to start within timeout", log)
        if timed_out:
            return timed_out.group()
        last = re.findall(r"(?:Backend load failed|Failed to load model): (.+)", log)
        return llama.failure(log) or (last[-1].strip()[:300] if last else None)


# A model: fetched and loaded.


def _known(ask: Ask, name: str) -> dict[str, Any]:
    """What lemonade knows of a model of its list, downloaded or not.

    Raises InputError for a name that is not in it.
    """
    try:
        return mapping(ask(f"/v1/models/{quote(name)}"))
    except RequestError as error:
        if error.code != "http_404":
            raise
    near = difflib.get_close_matches(name, _ids(ask("/v1/models?show_all=true")), 3, 0.5)
    meant = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise InputError(
        f"lemonade knows no model {name!r}", hint=f"{meant}lemonade list shows them all"
    )


def _pull(ask: Ask, name: str) -> Iterator[Loading]:
    """Let lemonade fetch the model in the background, and wait until it is really there."""
    yield Loading(f"downloading {name}", 0.0, fetching=True)
    reason = None
    try:
        ask("/v1/pull", {"model_name": name, "stream": True, "subscribe": False})
        while mapping(ask(f"/v1/models/{quote(name)}")).get("downloaded") is not True:
            jobs = [job for job in mappings(ask("/v1/downloads")) if job.get("model_name") == name]
            job: dict[str, Any] = jobs[-1] if jobs else {}
            if job.get("status") in ("error", "cancelled", "paused"):
                reason = job.get("error") or job["status"]
                break
            yield Loading(f"downloading {name}", _share(job), fetching=True)
    except RequestError as error:
        reason = error.message
    if reason is not None:
        raise StartError(
            f"lemonade did not get {name}: {reason}",
            hint="try it by hand: lemonade pull",
            code="model_not_fetched",
        )


def _share(job: Mapping[str, Any]) -> float | None:
    """Of all files together; the figure ``percent`` is of one file."""
    done, total = job.get("overall_bytes_downloaded"), job.get("total_download_size")
    if not isinstance(done, int | float) or not isinstance(total, int | float) or total <= 0:
        return None
    return min(max(done / total, 0.0), 1.0)


def _load_failure(name: str, error: RequestError) -> StartError:
    """lemonade has the same words for an engine that died and one that needed too long: both
    count as given up, for a direct start of the engine shows which it was."""
    gave_up = _GAVE_UP.search(error.message) is not None
    return StartError(
        f"lemonade could not load {name}: {error.message}",
        hint="read its log; a slow first load needs a longer global_timeout in its configuration"
        if gave_up
        else "read its log; give it more time with --patience if it is only slow",
        code="load_gave_up" if gave_up else "model_not_loaded",
    )


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
    if recipe not in ("llamacpp", "vllm"):
        return {"ctx_size": launch.context_per_slot}
    if recipe == "llamacpp":
        found: dict[str, Any] = {"ctx_size": launch.context}
        flags = list(_llama_flags(launch))
        if launch.devices:
            found["llamacpp_device"] = ",".join(launch.devices)
    else:
        # lemonade switches vLLM's prefix cache on; the later flag wins.
        found = {"ctx_size": launch.context_per_slot}
        flags = ["--max-num-seqs", str(launch.slots), "--no-enable-prefix-caching"]
    more = launch.options.get(f"{recipe}_args")
    found[f"{recipe}_args"] = " ".join([*flags, *([str(more)] if more is not None else [])])
    if launch.api is not None:
        found[f"{recipe}_backend"] = launch.api
    if "merge_args" in launch.options:
        found["merge_args"] = launch.options["merge_args"]
    return found


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
        there = at(direct("/props"), "model_path")
    except EngineError:
        return None
    return direct if there and there in entry.get("launch_command", ()) else None


def _is_bundled(entry: Mapping[str, Any]) -> bool:
    """Whether the engine is one that lemonade brought: of a program of the user's, or one found on
    the PATH, it does not know what it computes with."""
    line = entry.get("launch_command")
    return not (isinstance(line, list) and line) or "/bin/llamacpp/" in str(line[0])


def _build(ask: Ask, direct: Ask | None, model: Any) -> str | None:
    """What the engine says, itself or by the fingerprint of an answer; never what lemonade has
    installed or would install: a program of the user's may be served instead."""
    said = at(direct("/props"), "build_info") if direct else None
    found = llama.build_of(str(said or ""))
    if found is None:
        told = answer(ask, Lemonade.chat_path, one_token(model))
        found = llama.build_of(str(told.get("system_fingerprint") or ""))
    return found


def _slots(ask: Ask) -> list[dict[str, Any]]:
    """The wrapped llama-server's own slots; none where another engine is wrapped."""
    try:
        return mappings(ask("/v1/slots"))
    except RequestError:
        return []


def _context(
    slots: list[dict[str, Any]], entry: Mapping[str, Any], found: Resolved
) -> dict[str, int | bool]:
    """What each slot has while all are full. Slots that share one cache each tell all of it, which
    shows by the context that lemonade asked for."""
    contexts = [n for slot in slots if (n := count(slot.get("n_ctx")))]
    if not contexts:
        return {}
    each, many = min(contexts), len(slots)
    asked = count(at(entry, "recipe_options", "ctx_size"))
    shared = found.kv_unified or (many > 1 and asked is not None and each >= asked > 0)
    if not shared:
        return {"context_per_slot": each, "slots": many}
    return {"context_per_slot": each // many, "slots": many, "kv_unified": True}


def _entry(health: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """Health's entry of the language model ``name``, else of the first one there is."""
    models = _language_models(health)
    named = [model for model in models if model.get("model_name") == name]
    return next(iter(named or models), {})


def _language_models(health: Mapping[str, Any]) -> list[dict[str, Any]]:
    models = mappings(health.get("all_models_loaded"))
    return [model for model in models if model.get("type", "llm") == "llm"]


def _ids(told: Any) -> list[str]:
    return [str(model["id"]) for model in mappings(at(told, "data")) if "id" in model]


def _listed(ask: Ask, launch: Launch | None) -> list[str] | None:
    """The command line of an engine that lemonade still lists."""
    for model in mappings(at(ask("/v1/health"), "all_models_loaded")):
        line = model.get("launch_command")
        named = launch is None or model.get("model_name") == str(launch.model)
        if isinstance(line, list) and named:
            return [str(word) for word in line]
    return None


def _installed(ask: Ask, launch: Launch | None) -> list[str] | None:
    """llama-server as lemonade starts it, with the model's files and the settings asked for."""
    if launch is None:
        return None
    main = _model_file(ask, str(launch.model))
    options = mapping(ask(f"/v1/models/{quote(str(launch.model))}/options"))
    api = launch.api or str(at(options, "effective", "llamacpp_backend") or "")
    system = shutil.which("llama-server") if api == "system" else None
    binary = system if api == "system" else _external(ask, api) or _binary(api)
    if binary is None or main is None:
        return None
    wanted = _settings("llamacpp", launch)
    context = ("--ctx-size", str(wanted["ctx_size"]))
    flags = shlex.split(str(wanted["llamacpp_args"]))
    return [binary, "-m", main, *context, "--port", "0", "--jinja", *flags]


def _model_file(ask: Ask, name: Any) -> str | None:
    """Where lemonade has the file of a model, if it is there. Of one from a folder of the user's
    the list itself gives the path."""
    if not name:
        return None
    told = answer(ask, f"/v1/models/{quote(str(name))}/files?include_paths=true")
    for file in mappings(told.get("files")):
        if file.get("role") == "main" and file.get("exists") is True and file.get("path"):
            return str(file["path"])
    listed = mappings(answer(ask, "/v1/models").get("data"))
    paths = [str(model.get("checkpoint") or "") for model in listed if model.get("id") == name]
    return next((path for path in paths if path.endswith(".gguf")), None)


def _external(ask: Ask, api: str) -> str | None:
    """A llama-server of the user's that lemonade was told to take for an API, by the environment
    that both have or by its configuration: both may name a version or "builtin" instead."""
    if not api:
        return None
    told = os.environ.get(f"LEMONADE_LLAMACPP_{api.upper()}_BIN")
    path = str(told or at(answer(ask, "/internal/config"), "llamacpp", f"{api}_bin") or "")
    return path if "/" in path and os.access(path, os.X_OK) else None


def _binary(api: str) -> str | None:
    """``…/bin/llamacpp/<api>[-channel]/…/llama-server``; ROCm's has a channel in its name."""
    folders = [_cache() / "bin/llamacpp" / api, *sorted(_cache().glob(f"bin/llamacpp/{api}-*"))]
    found = [path for folder in folders for path in sorted(folder.rglob("llama-server"))]
    return next((str(path) for path in found if os.access(path, os.X_OK)), None) if api else None


def _environment(binary: Path) -> dict[str, str]:
    """Libraries beside the engine and lemonade's own ROCm runtime, as lemonade sets them."""
    if not binary.is_absolute():
        return {}
    wheels = [
        Path(line)
        for listing in sorted(_cache().glob("bin/therock-wheels/*/runtime_paths.txt"))
        for line in listing.read_text("utf-8").splitlines()
        if line
    ]
    tarballs = sorted(_cache().glob("bin/therock/*/lib"))
    runtimes = [folder for base in wheels + tarballs for folder in (base, base / "llvm/lib")]
    inherited = filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    return {"LD_LIBRARY_PATH": ":".join([*map(str, runtimes), str(binary.parent), *inherited])}


def _cache() -> Path:
    """Where lemonade keeps what it downloaded, on Linux, for the user who runs tokrig."""
    own = os.environ.get("LEMONADE_CACHE_DIR")
    shared = os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "lemonade"


BACKEND = Lemonade()
