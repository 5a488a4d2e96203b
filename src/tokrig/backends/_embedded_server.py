"""The process of the embedded engine: ``python -m tokrig.backends._embedded_server JSON``.

Runs xllamacpp's llama.cpp server on loopback until it is stopped. It is no part of the measuring
process and imports nothing else of tokrig.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

_SPECULATION = {
    "ngram": "ngram-simple",
    "draft": "draft-simple",
    "mtp": "draft-mtp",
    "eagle": "draft-eagle3",
}
# Options by llama.cpp's own names: the length that must match, and that of the draft.
_NGRAM_MAP = {"ngram_size_n": "size_n", "ngram_size_m": "size_m", "ngram_min_hits": "min_hits"}
_NGRAM_MOD = {"ngram_size_n": "n_match", "ngram_size_m": "n_max"}
_FLASH = {"on": "ENABLED", "true": "ENABLED", "off": "DISABLED", "false": "DISABLED"}

# Everything that could reuse a prompt is off, and nothing is fitted to free memory behind our
# back: what was asked is what is resolved, or it fails. Verbosity 4 makes the engine log buffers,
# batch sizes and KV types, which are read back.
_ALWAYS = {
    "hostnames": ["127.0.0.1"],
    "model_alias": {"served"},
    "fit_params": False,
    "cache_prompt": False,
    "cache_ram_mib": 0,
    "n_ctx_checkpoints": 0,
    "ui": False,
    "endpoint_metrics": True,
    "verbosity": 4,
}
# Where a setting goes, and as what.
_GOES_TO: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "model": (("model.path",), str),
    "port": (("port",), int),
    "context": (("n_ctx",), int),
    "slots": (("n_parallel",), int),
    "threads": (("cpuparams.n_threads", "cpuparams_batch.n_threads"), int),
    "threads_batch": (("cpuparams_batch.n_threads",), int),
    "batch": (("n_batch",), int),
    "ubatch": (("n_ubatch",), int),
    "n_gpu_layers": (("n_gpu_layers",), int),
    "reasoning": (("enable_reasoning",), lambda asked: int(asked == "on")),
    "chat_template": (("chat_template",), str),
    "draft_model": (("speculative.draft.mparams.path",), str),
}


def main(settings: dict[str, Any]) -> int:
    """Serve until SIGTERM. Exit code 1 when the model cannot be loaded."""
    import xllamacpp  # type: ignore[import-not-found,import-untyped,unused-ignore]

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        server = xllamacpp.Server(parameters(xllamacpp, settings))
    except (RuntimeError, ValueError, OSError, AttributeError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    print(f"listening on {server.listening_address}", flush=True)
    stop.wait()
    return 0


def parameters(xllamacpp: Any, settings: dict[str, Any]) -> Any:
    """llama.cpp's parameter block. For the CPU alone nothing may go to a GPU, large prompts
    neither. Raises ValueError naming the words it knows for one it does not."""
    p = xllamacpp.CommonParams()
    for name, value in _ALWAYS.items():
        setattr(p, name, value)
    for name, (places, as_) in _GOES_TO.items():
        for place in places if name in settings else ():
            _set(p, place, as_(settings[name]))
    if settings.get("api") == "cpu":
        p.n_gpu_layers = 0
        p.no_kv_offload = True
        p.no_op_offload = True
    for key in ("cache_type_k", "cache_type_v"):
        if key in settings:
            word = str(settings[key]).lower()
            setattr(p, key, _named(xllamacpp.ggml_type, "GGML_TYPE_", key, word))
    if "flash_attention" in settings:
        word = str(settings["flash_attention"]).lower()
        if word not in (*_FLASH, "auto"):
            raise ValueError(f"invalid argument: flash_attention {word!r}; use on, off or auto")
        kinds = xllamacpp.llama_flash_attn_type
        p.flash_attn_type = getattr(kinds, f"LLAMA_FLASH_ATTN_TYPE_{_FLASH.get(word, 'AUTO')}")
    if "chat_template" in settings:
        p.use_jinja = True
    if "speculative" in settings:
        _speculate(xllamacpp, p, settings)
    return p


def _speculate(xllamacpp: Any, p: Any, settings: dict[str, Any]) -> None:
    """Speculative decoding. ``draft_tokens`` is the longest draft, however drafts are made."""
    kind = str(settings.get("spec_type", _SPECULATION[settings["speculative"]]))
    kinds = xllamacpp.common_speculative_type
    p.speculative.types = [_named(kinds, "COMMON_SPECULATIVE_TYPE_", "spec_type", kind, "-")]
    longest = settings.get("draft_tokens")
    if settings["speculative"] != "ngram":
        if longest is not None:
            p.speculative.draft.n_max = longest
        return
    ngram = getattr(p.speculative, kind.replace("-", "_"))
    names = _NGRAM_MOD if kind == "ngram-mod" else _NGRAM_MAP
    for option, value in {"ngram_size_m": longest, **settings}.items():
        if option in names and value is not None:
            setattr(ngram, names[option], int(value))


def _set(p: Any, place: str, value: Any) -> None:
    *way, last = place.split(".")
    for name in way:
        p = getattr(p, name)
    setattr(p, last, value)


def _named(kinds: Any, prefix: str, setting: str, word: str, joint: str = "_") -> Any:
    """The value of an enumeration that goes by this word."""
    known = {
        name.removeprefix(prefix).lower().replace("_", joint): name
        for name in dir(kinds)
        if name.startswith(prefix)
    }
    if word not in known:
        raise ValueError(f"invalid argument: {setting} {word!r}; known: {', '.join(sorted(known))}")
    return getattr(kinds, known[word])


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
