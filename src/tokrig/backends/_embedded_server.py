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


def main(settings: dict[str, Any]) -> int:
    """Serve until SIGTERM. Exit code 1 when the model cannot be loaded."""
    import xllamacpp  # type: ignore[import-not-found,import-untyped,unused-ignore]

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        server = xllamacpp.Server(parameters(xllamacpp, settings))
    except (RuntimeError, ValueError, OSError) as error:
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
