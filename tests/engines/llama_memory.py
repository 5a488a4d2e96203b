"""What llama.cpp allots for a header, without any weights: its own library, driven by ctypes.

``python -m tests.engines.llama_memory FOLDER HEADER SETTINGS`` prints the lines that the library in
FOLDER logs while it makes a context for the model that HEADER tells of, with ``no_alloc``: the mode
in which its own ``--fit`` reckons. In a process of its own, for a header that the engine does not
take ends it. Structures as in ``llama.h`` and ``gguf.h`` of the version that the tests build.
"""

from __future__ import annotations

import ctypes as c
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

Fields = list[tuple[str, Any]]


def _fields(kind: Any, names: str) -> Fields:
    return [(name, kind) for name in names.split()]


class ModelParams(c.Structure):
    """``struct llama_model_params``."""

    _fields_: ClassVar = [
        *_fields(c.c_void_p, "devices overrides"),
        *_fields(c.c_int32, "n_gpu_layers split_mode load_mode lazy_mode main_gpu"),
        *_fields(c.c_void_p, "tensor_split progress progress_data kv_overrides"),
        *_fields(c.c_bool, "vocab_only check_tensors use_extra_bufts no_host no_alloc load_mtp"),
    ]


class ContextParams(c.Structure):
    """``struct llama_context_params``."""

    _fields_: ClassVar = [
        *_fields(c.c_uint32, "n_ctx n_batch n_ubatch n_seq_max n_rs_seq outputs outputs_seq"),
        *_fields(c.c_int32, "threads threads_batch ctx_type rope pooling attention flash_attn"),
        *_fields(c.c_float, "base scale ext attn fast slow"),
        *_fields(c.c_uint32, "orig_ctx"),
        *_fields(c.c_float, "defrag"),
        *_fields(c.c_void_p, "eval eval_data"),
        *_fields(c.c_int32, "type_k type_v"),
        *_fields(c.c_void_p, "abort abort_data"),
        *_fields(c.c_bool, "embeddings offload_kqv no_perf op_offload swa_full kv_unified"),
        *_fields(c.c_void_p, "samplers"),
        *_fields(c.c_size_t, "n_samplers"),
        *_fields(c.c_void_p, "other"),
    ]


class GgufParams(c.Structure):
    """``struct gguf_init_params``."""

    _fields_: ClassVar = [("no_alloc", c.c_bool), ("ctx", c.c_void_p)]


LOG = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)
SET_DATA = c.CFUNCTYPE(None, c.c_void_p, c.c_void_p)


def logged(build: Path, header: Path, settings: dict[str, int]) -> list[str]:
    """The lines that llama.cpp logs for a header; ``settings`` are fields of its
    ``llama_context_params``. Raises RuntimeError with the last lines where it does not take it."""
    command = [sys.executable, "-m", "tests.engines.llama_memory", str(build), str(header)]
    run = subprocess.run(
        [*command, json.dumps(settings)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},  # no debugger for a refused header
    )
    # Graphs come after the memory: some refuse widths of chance.
    if "sched_reserve: reserving" not in run.stdout:
        raise RuntimeError(f"{header.name}: {(run.stdout + run.stderr)[-1500:]}")
    return run.stdout.splitlines()


def main() -> int:
    """Exit code 1 for a header that the engine does not take."""
    folder, header, settings = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    base, _, llama = (
        c.CDLL(str(folder / f"lib{name}.so"), c.RTLD_GLOBAL)
        for name in ("ggml-base", "ggml", "llama")
    )
    ggml = c.CDLL(str(folder / "libggml.so"), c.RTLD_GLOBAL)
    ggml.ggml_backend_load_all_from_path(str(folder).encode())
    log = LOG(lambda level, text, data: print(text.decode(errors="replace"), end="", flush=True))
    llama.llama_log_set(log, None)
    base.gguf_init_from_file.restype = c.c_void_p
    llama.llama_model_default_params.restype = ModelParams
    llama.llama_context_default_params.restype = ContextParams
    llama.llama_model_init_from_user.restype = c.c_void_p
    llama.llama_model_init_from_user.argtypes = [c.c_void_p, SET_DATA, c.c_void_p, ModelParams]
    llama.llama_init_from_model.restype = c.c_void_p
    llama.llama_init_from_model.argtypes = [c.c_void_p, ContextParams]
    model_params = llama.llama_model_default_params()
    model_params.no_alloc, model_params.load_mtp = True, True
    metadata = base.gguf_init_from_file(header.encode(), GgufParams(True, None))
    nothing = SET_DATA(lambda tensor, data: None)
    model = llama.llama_model_init_from_user(metadata, nothing, None, model_params)
    if not model:
        return 1
    params = llama.llama_context_default_params()
    for name, value in settings.items():
        setattr(params, name, value)
    made = llama.llama_init_from_model(model, params)
    sys.stdout.flush()
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main())
