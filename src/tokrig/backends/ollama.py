"""Ollama, by its native API: its streams carry the engine's own clock.

Checked against the sources of 0.33 (which runs llama.cpp's server inside) and of 0.18 (its own
runner). Both clocks start decoding at the first token but count it. ``prompt_eval_count`` counts
cached prompt tokens while ``prompt_eval_duration`` does not, and the prompt cache cannot be
switched off; newer ones tell ``prompt_eval_cached_count`` beside it. Zero fields are left out, and
older ones leave ``prompt_eval_count`` out of a prompt that was wholly cached (ollama/ollama#2068):
what is missing is not known. A model with MTP layers speculates unless told otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tokrig.backends import Ask, Backend, Capabilities, Command, Engine, Launch, Loading, Request
from tokrig.backends import _llama_log as llama_log
from tokrig.backends import _reading as read
from tokrig.errors import InputError, RequestError, StartError, did_you_mean
from tokrig.record.samples import EngineTimings

_NS_PER_MS = 1e6
_BLOB = re.compile(r"^FROM (/.+/sha256-[0-9a-f]{64})$", re.MULTILINE)
_VISIBLE = {
    "cuda": "CUDA_VISIBLE_DEVICES",
    "rocm": "ROCR_VISIBLE_DEVICES",
    "vulkan": "GGML_VK_VISIBLE_DEVICES",
}


class Ollama(Backend):
    """Started (``ollama serve``) or attached to. Models are named as ``ollama list`` shows them;
    the user's models folder is used as it is.

    The context is the server's default in every request, so that none makes it load again; a
    model whose own file sets ``num_ctx`` keeps that.
    """

    name = "ollama"
    title = "Ollama"
    starts = True
    own_models = True
    program = "ollama"
    get_it = "install it from ollama.com, or give its path with --server-bin"
    precedence = 20
    ports = (11434,)
    patience_s = 600.0
    chat_path = "/api/chat"
    ready_path = "/api/version"
    takes: Mapping[str, tuple[str, ...]] = {"devices": ()}
    unloads = ("/api/generate", "model", {"keep_alive": 0, "stream": False})
    options: Mapping[str, str] = {
        "flash_attention": "true or false; left out, Ollama decides",
        "kv_cache_type": "type of the KV cache: f16, q8_0, q4_0",
        "gpu_overhead": "bytes of each GPU's memory to leave free",
        "sched_spread": "true spreads the model over all GPUs",
        "pull": "true fetches a model that is not there",
    }
    capabilities = Capabilities(
        apis=("cpu", "cuda", "rocm", "vulkan", "metal"),
        reasoning_switch="request",
        timings="request",
        counts_prompts=True,
    )

    def command(self, launch: Launch) -> Command:
        binary = self.binary(launch)
        self.require_options(launch)
        self.require_settings(launch.settings)
        env = {
            "OLLAMA_HOST": f"127.0.0.1:{launch.port}",
            "OLLAMA_NUM_PARALLEL": str(launch.slots),
            "OLLAMA_CONTEXT_LENGTH": str(launch.context_per_slot),
            "OLLAMA_MAX_LOADED_MODELS": "1",
            "OLLAMA_KEEP_ALIVE": "-1",
            **_devices(launch),
        }
        for option, value in launch.options.items():
            if option != "pull":
                text = str(int(value)) if isinstance(value, bool) else str(value)
                env[f"OLLAMA_{option.upper()}"] = text
        return Command((binary, "serve"), env)

    def load(self, ask: Ask, launch: Launch | None, served_model: str | None) -> Iterator[Loading]:
        name = served_model or (str(launch.model) if launch else None)
        if name is None:
            return
        present = _names(ask("/api/tags"))
        if name not in present:
            if launch is None or launch.options.get("pull") is not True:
                hint = f"{did_you_mean(name, present)}; fetch it with: ollama pull {name}"
                raise InputError(f"Ollama has no model {name!r}", hint=hint)
            yield from _pull(ask, name)
        if name in self.resident(ask):
            return
        yield Loading(f"loading {name}")
        try:
            ask("/api/generate", {"model": name, "stream": False})
        except RequestError as error:
            raise StartError(
                f"Ollama could not load {name}: {error.message}",
                hint="read its log: ollama serve prints it",
                code="model_not_loaded",
            ) from None

    def resident(self, ask: Ask) -> tuple[str, ...]:
        return _names(ask("/api/ps"))

    def life(self, ask: Ask, served_model: str | None) -> str | None:
        """A model that is put out of memory meanwhile comes back in another runner."""
        there = served_model is None or served_model in self.resident(ask)
        return "loaded" if there else "not loaded"

    def recognises(self, ask: Ask) -> bool:
        """By its greeting: others imitate ``/api/version`` and ``/api/tags``."""
        try:
            return str(ask("/", text=True)).strip() == "Ollama is running"
        except RequestError:
            return False

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """``/api/ps`` and, of a server started here, the wrapped engine's log."""
        version = read.at(ask("/api/version"), "version")
        running = ask("/api/ps")
        # The model launched, else the one used last, which Ollama lists first.
        models = read.mappings(running, "models")
        named = [model for model in models if launch and model.get("name") == str(launch.model)]
        entry: dict[str, Any] = next(iter(named or models), {})
        last_load = log.rpartition("starting llama-server")[2]
        api, confirmed = llama_log.api_of(last_load)
        quantization = read.at(entry, "details", "quantization_level")
        told = {
            "context_per_slot": read.count(entry, "context_length"),
            "quantization": str(quantization) if quantization else None,
        }
        size, vram = read.count(entry, "size") or 0, read.count(entry, "size_vram") or 0
        memory = {"GPU": vram, "CPU": size - vram} if vram <= size > 0 else {}
        spilled = offload = None
        # Without a GPU asked for, none is what was asked for.
        if vram < size and (vram or (launch and launch.api not in (None, "cpu"))):
            if launch is not None:
                spilled = f"Ollama keeps {vram} of the model's {size} bytes on the GPU"
            else:  # a running server's own choice, that nobody asked for here
                offload = f"{100 * vram / size:.0f} % on the GPU"
        return Engine(
            engine="ollama",
            build=str(version) if version else None,
            api=api,
            api_confirmed=confirmed,
            served_models=_names(running) or _names(ask("/api/tags")),
            resolved=llama_log.settings(last_load).model_copy(update=told),
            spilled=spilled,
            offload=offload,
            device_bytes=llama_log.device_bytes(last_load) or memory,
            speculation=llama_log.speculates(last_load),
            model_file=_file(ask, entry.get("name")),
        )

    def body(self, request: Request) -> dict[str, Any]:
        """A native chat request. A prompt that does not fit is refused, not cut short."""
        length = {"num_predict": request.answer_tokens}
        body: dict[str, Any] = {
            "messages": request.messages,
            "stream": True,
            "truncate": False,
            "shift": False,
            "options": {**length, "temperature": 0, "seed": request.seed},
        }
        if request.served_model is not None:
            body["model"] = request.served_model
        switch = request.reasoning
        if switch is not None and (switch.effort or switch.engine_flag):
            body["think"] = switch.effort or switch.asked == "on"
        return body

    def event(self, data: dict[str, Any]) -> dict[str, Any]:
        """``{"message": …, "done": …}`` as an OpenAI chunk; the durations stay beside it."""
        message = read.mapping(data, "message")
        delta: dict[str, Any] = {
            "content": message.get("content"),
            "reasoning": message.get("thinking"),
            "tool_calls": [_call(call) for call in read.mappings(message, "tool_calls")],
        }
        chunk = {
            **{key: value for key, value in data.items() if key != "message"},
            "choices": [{"delta": delta, "finish_reason": data.get("done_reason")}],
        }
        if data.get("done") is True:
            chunk["usage"] = {
                "prompt_tokens": read.count(data, "prompt_eval_count"),
                "completion_tokens": data.get("eval_count"),
                "prompt_tokens_details": {"cached_tokens": data.get("prompt_eval_cached_count")},
            }
        return chunk

    def count_prompt(self, ask: Ask, request: Request) -> int | None:
        """By a one-token request; costs a whole prefill."""
        body = self.body(request)
        once = {**body, "stream": False, "options": {**body["options"], "num_predict": 1}}
        return read.count(ask(self.chat_path, once), "prompt_eval_count")

    def timings(self, event: Mapping[str, Any]) -> EngineTimings | None:
        """Durations of the last event, in ns. Without a decode time there is no clock; a prompt of
        which the tokens or the time are not told counts as none."""
        decoded, decode_ns = (
            read.count(event, "eval_count"),
            read.number(event, "eval_duration"),
        )
        prompt_ns = read.number(event.get("prompt_eval_duration") or 0)
        if event.get("done") is not True or not decoded or not decode_ns or prompt_ns is None:
            return None
        prompt = read.count(event, "prompt_eval_count") or 0
        prompt -= min(read.count(event, "prompt_eval_cached_count") or 0, prompt)
        if not prompt or not prompt_ns:
            prompt, prompt_ns = 0, 0
        return EngineTimings(
            prompt_tokens=prompt,
            prompt_ms=prompt_ns / _NS_PER_MS,
            decode_tokens=decoded,
            decode_ms=decode_ns / _NS_PER_MS,
        )

    def failure(self, log: str) -> str | None:
        return llama_log.failure(log)


def _devices(launch: Launch) -> dict[str, str]:
    """Ollama has no switch for an API; a device number that does not exist hides the others'.

    Raises InputError for devices without an API: each has a variable of its own.
    """
    if launch.devices and launch.api not in _VISIBLE:
        raise InputError(
            "Ollama numbers devices separately for each API",
            hint=f"name the API with --api: {', '.join(_VISIBLE)}",
        )
    if launch.api is None:
        return {}
    hidden = {variable: "-1" for api, variable in _VISIBLE.items() if api != launch.api}
    shown = {_VISIBLE[launch.api]: ",".join(launch.devices)} if launch.devices else {}
    return {**hidden, **shown}


def _pull(ask: Ask, name: str) -> Iterator[Loading]:
    """Fetch the model; a question that ends too early is asked again, and goes on from there."""
    while True:
        yield Loading(f"fetching {name}", fetching=True)
        try:
            ask("/api/pull", {"model": name, "stream": False})
            return
        except RequestError as error:
            if error.code != "timeout":
                raise StartError(
                    f"Ollama could not fetch {name}: {error.message}",
                    hint=f"try it by hand: ollama pull {name}",
                    code="model_not_fetched",
                ) from None


def _file(ask: Ask, name: Any) -> str | None:
    """The blob that its model file names in ``FROM``."""
    told = read.answer(ask, "/api/show", {"model": name}) if name else {}
    found = _BLOB.search(str(told.get("modelfile") or ""))
    return found.group(1) if found else None


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments are an object here and a text at OpenAI."""
    function = read.mapping(call, "function")
    text = json.dumps(function.get("arguments"))
    return {"function": {"name": function.get("name"), "arguments": text}}


def _names(told: Any) -> tuple[str, ...]:
    return tuple(str(m["name"]) for m in read.mappings(told, "models") if m.get("name"))


BACKEND = Ollama()
