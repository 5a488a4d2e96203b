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
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from tokrig.backends import (
    Ask,
    Availability,
    Capabilities,
    Command,
    Counters,
    Engine,
    Launch,
    Loading,
    Request,
    _lemonade_engine,
    _llama_http,
    mapping,
    mappings,
    whole,
)
from tokrig.backends import _llama_log as llama_log
from tokrig.backends._llama_http import LlamaServer
from tokrig.backends._llama_wishes import asked_gpu_layers, offload
from tokrig.backends._openai_http import count_by_usage, metric
from tokrig.errors import EngineError, InputError, RequestError, StartError, did_you_mean
from tokrig.record.model import Resolved

_HINT = "install lemonade 10.1 or newer (lemonade-server.ai), or give its path with --server-bin"
_GAVE_UP = re.compile(r"server failed to start")
_DEVICE_SEARCH = re.compile(
    r"^.*\bNo (?:NVIDIA|AMD|Intel|NPU|GPU)\b.*\bfound\b.*$", re.MULTILINE | re.IGNORECASE
)
_ENGINES = {"llamacpp": "llama.cpp", "vllm": "vllm", "flm": "FastFlowLM", "ryzenai-llm": "RyzenAI"}
_COUNTERS = {
    "requests": "lemonade_requests_total",
    "prompt_tokens": "lemonade_llamacpp_prompt_tokens_total",
    "cached_tokens": "lemonade_llamacpp_prompt_tokens_cached_total",
    "output_tokens": "lemonade_llamacpp_tokens_predicted_total",
    "prefill_s": "lemonade_llamacpp_prompt_seconds_total",
    "decode_s": "lemonade_llamacpp_tokens_predicted_seconds_total",
    "drafts": "lemonade_llamacpp_spec_decode_num_drafts_total",
    "drafted_tokens": "lemonade_llamacpp_spec_decode_num_draft_tokens_total",
    "accepted_tokens": "lemonade_llamacpp_spec_decode_num_accepted_tokens_total",
}


class Lemonade(LlamaServer):
    """Started (``lemond``) or attached to. Models are named as ``lemonade list`` shows them."""

    name = "lemonade"
    title = "lemonade"
    starts = True
    own_models = True
    precedence = 10
    ports: tuple[int, ...] = (13305,)
    # It gives an engine 600 s, once more after that, and should be heard giving up.
    patience_s = 1300.0
    ready_path = "/live"
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

    def availability(self) -> Availability:
        if shutil.which("lemond"):
            return Availability(True, "lemond is on the PATH")
        return Availability(False, "no lemond on the PATH", _HINT)

    def command(self, launch: Launch) -> Command:
        for option in launch.options:
            if option not in self.options:
                raise InputError(
                    f"lemonade takes no option {option!r}", hint=did_you_mean(option, self.options)
                )
        binary = launch.binary or "lemond"
        found = shutil.which(binary)
        if found is None:
            raise InputError(f"no runnable lemond at {binary!r}", hint=_HINT)
        port = str(launch.port)
        return Command((found, "--host", "127.0.0.1", "--port", port, "--no-broadcast"))

    def load(self, ask: Ask, launch: Launch | None, served_model: str | None) -> Iterator[Loading]:
        """Nothing where the model is loaded with the settings asked for; an attached server's
        own settings stay as they are."""
        name = served_model or (str(launch.model) if launch else None)
        if name is None:
            return
        model = _known(ask, name)
        wanted = _lemonade_engine.settings(str(model.get("recipe")), launch)
        entry = _loaded(ask, name)
        options = mapping(entry.get("recipe_options"))
        if entry and all(options.get(key) == value for key, value in wanted.items()):
            return
        if model.get("downloaded") is not True:
            yield from _pull(ask, name)
        yield Loading(f"loading {name}")
        try:
            ask("/v1/load", {"model_name": name, **wanted})
        except RequestError as error:
            raise _load_failure(name, error) from None

    def bypass(self, ask: Ask, launch: Launch | None, port: int) -> Command | None:
        """The command line lemonade itself used, as far as it tells, else the engine it has
        installed with the model's own files."""
        return _lemonade_engine.command(ask, launch, port)

    def resident(self, ask: Ask) -> tuple[str, ...]:
        return tuple(str(entry.get("model_name")) for entry in _language_models(_health(ask)))

    def life(self, ask: Ask, served_model: str | None) -> str | None:
        """The engine's process: lemonade starts one that died anew and says nothing."""
        models = _language_models(_health(ask))
        named = [entry for entry in models if entry.get("model_name") == served_model] or models
        pid = whole(named[0].get("pid")) if len(named) == 1 else None
        return f"process {pid}" if pid else None

    def unload(self, ask: Ask, served_model: str | None) -> None:
        if served_model is not None:
            with contextlib.suppress(EngineError):
                ask("/v1/unload", {"model_name": served_model})

    def recognises(self, ask: Ask) -> bool:
        """Its API lies below /v1 and /api/v1; where it imitates Ollama is its root."""
        try:
            health = ask("/v1/health")
            ask("/api/version")
        except RequestError:
            return False
        return isinstance(health, dict) and bool(
            {"all_models_loaded", "model_loaded"} & health.keys()
        )

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """The wrapped engine. Its API is confirmed by its own log alone, which only a server
        started here shows; else it is the one lemonade says it chose, unconfirmed."""
        health = mapping(ask("/v1/health"))
        entry = _entry(health, str(launch.model) if launch else health.get("model_loaded"))
        name, recipe = entry.get("model_name"), str(entry.get("recipe") or "unknown")
        chosen = str(mapping(entry.get("recipe_options")).get(f"{recipe}_backend") or "")
        last_load = log.rpartition("Loading model: ")[2]
        api, confirmed = llama_log.api_of(last_load)
        if api is None and chosen in self.capabilities.apis and _is_bundled(entry):
            api = chosen
        slots, direct = _slots(ask), _direct(ask, entry)
        found = llama_log.settings(last_load)
        asked = asked_gpu_layers(launch, last_load)
        spilled = asked is not None and found.gpu_layers is not None and found.gpu_layers < asked
        drafting = [bool(slot["speculative"]) for slot in slots if "speculative" in slot]
        return Engine(
            engine=_ENGINES.get(recipe, recipe),
            build=_build(ask, direct, name) if entry else None,
            api=api,
            api_confirmed=confirmed,
            served_models=(str(name),) if name else tuple(_ids(ask("/v1/models"))),
            resolved=found.model_copy(update=_context(slots, entry, found)),
            asked_gpu_layers=asked,
            spilled=f"{found.gpu_layers} of {asked} layers on the GPU" if spilled else None,
            offload=offload(launch, last_load, found),
            device_bytes=llama_log.device_bytes(last_load),
            speculation=any(drafting) if drafting else llama_log.speculates(last_load),
            wrapper=f"lemonade {health.get('version') or ''}".strip(),
            model_file=_lemonade_engine.model_file(ask, name) if recipe == "llamacpp" else None,
        )

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """By the engine itself where it can be asked, else by a one-token request, which costs a
        prefill: of llama.cpp's own counters lemonade hands on only the one of plain text."""
        direct = _direct(ask, _entry(_health(ask), request.served_model))
        counted = _llama_http.count_prompt(direct, request) if direct else None
        if counted is not None:
            return counted
        return count_by_usage(ask, self.chat_path, self.body(request))

    def count_text(self, ask: Ask, text: str) -> int | None:
        try:
            return len(ask("/v1/tokenize", {"content": text, "add_special": False})["tokens"])
        except (RequestError, KeyError, TypeError):
            return None

    def counters(self, ask: Ask) -> Counters | None:
        """What lemonade hands on of llama.cpp's ``/metrics``; prompt tokens are uncached ones."""
        try:
            text = str(ask("/metrics", text=True))
        except RequestError:
            return None
        found = {ours: metric(text, theirs) for ours, theirs in _COUNTERS.items()}
        return {name: value for name, value in found.items() if value is not None} or None

    def failure(self, log: str) -> str | None:
        """The time-out first: what the engine wrote before it explains nothing. Devices that were
        looked for and not found are no reason: lemonade looks for all there are."""
        log = _DEVICE_SEARCH.sub("", log.rpartition("Loading model: ")[2])
        timed_out = re.search(r"[\w-]+ failed to start within timeout", log)
        if timed_out:
            return timed_out.group()
        last = re.findall(r"(?:Backend load failed|Failed to load model): (.+)", log)
        return llama_log.failure(log) or (last[-1].strip()[:300] if last else None)


def _loaded(ask: Ask, name: str) -> dict[str, Any]:
    """Health's entry of the model ``name`` where its engine lives; empty otherwise."""
    entry = _entry(mapping(ask("/v1/health")), name)
    ready = entry.get("model_name") == name and entry.get("backend_alive") is not False
    return entry if ready else {}


def _known(ask: Ask, name: str) -> dict[str, Any]:
    """What lemonade knows of a model of its list, downloaded or not.

    Raises InputError for a name that is not in it.
    """
    try:
        return mapping(ask(f"/v1/models/{quote(name)}"))
    except RequestError as error:
        if error.code != "http_404":
            raise
    known = _ids(ask("/v1/models?show_all=true"))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise InputError(
        f"lemonade knows no model {name!r}", hint=f"{meant}lemonade list shows them all"
    )


def _pull(ask: Ask, name: str) -> Iterator[Loading]:
    """Let lemonade fetch the model in the background, and wait until it is really there."""
    yield Loading(f"downloading {name}", 0.0, fetching=True)
    try:
        ask("/v1/pull", {"model_name": name, "stream": True, "subscribe": False})
        while mapping(ask(f"/v1/models/{quote(name)}")).get("downloaded") is not True:
            jobs = [job for job in mappings(ask("/v1/downloads")) if job.get("model_name") == name]
            job = jobs[-1] if jobs else {}
            if job.get("status") in ("error", "cancelled", "paused"):
                raise StartError(
                    f"lemonade did not get {name}: {job.get('error') or job['status']}",
                    hint="try it by hand: lemonade pull",
                    code="model_not_fetched",
                )
            yield Loading(f"downloading {name}", _share(job), fetching=True)
    except RequestError as error:
        raise StartError(
            f"lemonade did not get {name}: {error.message}",
            hint="try it by hand: lemonade pull",
            code="model_not_fetched",
        ) from None


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


def _health(ask: Ask) -> dict[str, Any]:
    try:
        return mapping(ask("/v1/health"))
    except RequestError:
        return {}


def _direct(ask: Ask, entry: Mapping[str, Any]) -> Ask | None:
    """``ask`` for the llama-server that health lists, at its own address. None where it does not
    answer there, or another one does: a lemonade in a container has a loopback of its own."""
    base = str(entry.get("backend_url") or "").rstrip("/").removesuffix("/v1")
    if entry.get("recipe") != "llamacpp" or not base:
        return None

    def direct(path: str, body: Any = None, *, text: bool = False) -> Any:
        return ask(base + path, body, text=text)

    try:
        there = mapping(direct("/props")).get("model_path")
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
    if direct is not None:
        found = llama_log.build_of(str(mapping(direct("/props")).get("build_info") or ""))
        if found:
            return found
    once = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    try:
        answer = mapping(ask(Lemonade.chat_path, once))
    except RequestError:
        return None
    return llama_log.build_of(str(answer.get("system_fingerprint") or ""))


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
    contexts = [n for slot in slots if (n := whole(slot.get("n_ctx")))]
    if not contexts:
        return {}
    each, count = min(contexts), len(slots)
    asked = whole(mapping(entry.get("recipe_options")).get("ctx_size"))
    shared = found.kv_unified or (count > 1 and asked is not None and each >= asked > 0)
    if not shared:
        return {"context_per_slot": each, "slots": count}
    return {"context_per_slot": each // count, "slots": count, "kv_unified": True}


def _entry(health: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """Health's entry of the language model ``name``, else of the first one there is."""
    models = _language_models(health)
    named = [model for model in models if model.get("model_name") == name]
    return next(iter(named or models), {})


def _language_models(health: Any) -> list[dict[str, Any]]:
    models = mappings(mapping(health).get("all_models_loaded"))
    return [model for model in models if model.get("type", "llm") == "llm"]


def _ids(answer: Any) -> list[str]:
    return [str(model["id"]) for model in mappings(mapping(answer).get("data")) if "id" in model]


BACKEND = Lemonade()
