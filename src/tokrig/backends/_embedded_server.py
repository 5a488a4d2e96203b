"""The process of the embedded engine: ``python -m tokrig.backends._embedded_server JSON``.

Runs xllamacpp's llama.cpp server on loopback until it is stopped. It is no part of the measuring
process and imports nothing else of tokrig.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from typing import Any

SPECULATION = {
    "ngram": "ngram-simple",
    "draft": "draft-simple",
    "mtp": "draft-mtp",
    "eagle": "draft-eagle3",
}
# Options by llama.cpp's own names: the length that must match, and that of the draft.
NGRAM_MAP = {"ngram_size_n": "size_n", "ngram_size_m": "size_m", "ngram_min_hits": "min_hits"}
NGRAM_MOD = {"ngram_size_n": "n_match", "ngram_size_m": "n_max"}


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
    """llama.cpp's parameter block. Everything that could reuse a prompt is off, and nothing is
    fitted to free memory behind our back: what was asked is what is resolved, or it fails."""
    p = xllamacpp.CommonParams()
    p.model.path = settings["model"]
    p.model_alias = {"served"}
    p.hostnames = ["127.0.0.1"]
    p.port = settings["port"]
    p.n_ctx = settings["context"]
    p.n_parallel = settings["slots"]
    p.fit_params = False
    p.cache_prompt = False
    p.cache_ram_mib = 0
    p.n_ctx_checkpoints = 0
    p.ui = False
    p.endpoint_metrics = True
    # 4 makes the engine log buffers, batch sizes and KV types, which are read back.
    p.verbosity = 4
    place(p, settings)
    speculate(xllamacpp, p, settings)
    if "reasoning" in settings:
        p.enable_reasoning = int(settings["reasoning"] == "on")
    if settings.get("threads"):
        p.cpuparams.n_threads = settings["threads"]
        p.cpuparams_batch.n_threads = settings["threads"]
    if "threads_batch" in settings:
        p.cpuparams_batch.n_threads = int(settings["threads_batch"])
    if "batch" in settings:
        p.n_batch = int(settings["batch"])
    if "ubatch" in settings:
        p.n_ubatch = int(settings["ubatch"])
    for key in ("cache_type_k", "cache_type_v"):
        if key in settings:
            setattr(p, key, cache_type(xllamacpp, key, settings[key]))
    if "flash_attention" in settings:
        p.flash_attn_type = flash_attention(xllamacpp, settings["flash_attention"])
    if "chat_template" in settings:
        p.chat_template = settings["chat_template"]
        p.use_jinja = True
    return p


def place(p: Any, settings: dict[str, Any]) -> None:
    """Where it computes. For the CPU alone nothing may go to a GPU, large prompts neither."""
    if settings.get("api") == "cpu":
        p.n_gpu_layers = 0
        p.no_kv_offload = True
        p.no_op_offload = True
    elif "n_gpu_layers" in settings:
        p.n_gpu_layers = int(settings["n_gpu_layers"])


def speculate(xllamacpp: Any, p: Any, settings: dict[str, Any]) -> None:
    """Speculative decoding. ``draft_tokens`` is the longest draft, however drafts are made."""
    asked = settings.get("speculative")
    if asked is None:
        return
    kind = str(settings.get("spec_type", SPECULATION[asked]))
    p.speculative.types = [speculative_type(xllamacpp, kind)]
    if settings.get("draft_model"):
        p.speculative.draft.mparams.path = settings["draft_model"]
    longest = settings.get("draft_tokens")
    if asked != "ngram":
        if longest is not None:
            p.speculative.draft.n_max = longest
        return
    ngram = getattr(p.speculative, kind.replace("-", "_"))
    names = NGRAM_MOD if kind == "ngram-mod" else NGRAM_MAP
    for option, value in {"ngram_size_m": longest, **settings}.items():
        if option in names and value is not None:
            setattr(ngram, names[option], int(value))


def speculative_type(xllamacpp: Any, name: str) -> Any:
    """llama.cpp's type called ``name``. Raises ValueError naming the known ones."""
    prefix = "COMMON_SPECULATIVE_TYPE_"
    kinds = xllamacpp.common_speculative_type
    known = {t.removeprefix(prefix).lower().replace("_", "-"): t for t in dir(kinds)}
    if name not in known:
        words = ", ".join(sorted(k for k in known if k.startswith(("ngram", "draft"))))
        raise ValueError(f"invalid argument: spec_type {name!r}; known: {words}")
    return getattr(kinds, known[name])


def cache_type(xllamacpp: Any, key: str, name: str) -> Any:
    """The ggml type called ``name``. Raises ValueError naming the known ones."""
    known = {
        t.removeprefix("GGML_TYPE_").lower(): t
        for t in dir(xllamacpp.ggml_type)
        if t.startswith("GGML_TYPE_")
    }
    if str(name).lower() not in known:
        raise ValueError(f"invalid argument: {key} {name!r}; known: {', '.join(sorted(known))}")
    return getattr(xllamacpp.ggml_type, known[str(name).lower()])


def flash_attention(xllamacpp: Any, value: str | bool) -> Any:
    """``on``, ``off`` or ``auto`` (YAML turns the first two into booleans)."""
    kinds = xllamacpp.llama_flash_attn_type
    known = {
        "on": kinds.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "true": kinds.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "off": kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED,
        "false": kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED,
        "auto": kinds.LLAMA_FLASH_ATTN_TYPE_AUTO,
    }
    word = str(value).lower()
    if word not in known:
        raise ValueError(f"invalid argument: flash_attention {value!r}; use on, off or auto")
    return known[word]


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
