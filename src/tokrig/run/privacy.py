"""What leaves the machine in a record carries no user, host, path, key or address."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Sequence
from functools import cache

# Environment variables that change how an engine computes; nothing else is recorded.
ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HSA_OVERRIDE_GFX_VERSION",
    "GGML_VK_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "GGML_CUDA_FORCE_MMQ",
    "GGML_CUDA_ENABLE_UNIFIED_MEMORY",
    "LLAMA_ARG_CPU_MOE",
    "LLAMA_ARG_KV_OFFLOAD",
    "LLAMA_ARG_NO_KV_OFFLOAD",
    "LLAMA_ARG_N_CPU_FFN",
    "LLAMA_ARG_N_CPU_MOE",
    "LLAMA_ARG_N_GPU_LAYERS",
    "LLAMA_ARG_N_GPU_LAYERS_DRAFT",
    "LLAMA_ARG_OVERRIDE_TENSOR",
    "LLAMA_ARG_SPEC_DRAFT_CPU_MOE",
    "LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE",
    "VLLM_CPU_OMP_THREADS_BIND",
    "VLLM_CPU_KVCACHE_SPACE",
)

# Quoted paths may hold blanks; others end at the first one.
_QUOTED = re.compile(
    r"(?P<quote>['\"])(?:~|[A-Za-z]:)?[\\/][^'\"\n]*?(?P<name>[^'\"\n\\/]*)(?P=quote)"
)
_PATH = re.compile(
    r"(?<![\w.])(?:~|[A-Za-z]:)?[\\/](?=\S)(?:[^\s\"'\\/,:;<>|]+[\\/])*([^\s\"'\\/,:;<>|]*)"
)
_ADDRESS = re.compile(r"\b(?!127\.)\d{1,3}(?:\.\d{1,3}){3}\b")
_KEY = re.compile(r"\b(?:sk|hf|gsk|xai|key|ghp)[-_][A-Za-z0-9_-]{12,}|(?<=Bearer )\S+")
_NOT_PRIVATE = {"root", "user", "localhost", "host", ""}


def scrub(text: str) -> str:
    """Paths become file names; addresses, keys, the user's and the machine's name vanish."""
    text = _KEY.sub("[key]", text)
    text = _QUOTED.sub(r"\g<quote>\g<name>\g<quote>", text)
    text = _PATH.sub(lambda match: match.group(1), text)
    text = _ADDRESS.sub("[address]", text)
    for name in _names():
        text = re.sub(rf"\b{re.escape(name)}\b", "[private]", text)
    return text


def scrub_argv(argv: Sequence[str]) -> list[str]:
    """A command line without places or keys."""
    words: list[str] = []
    for word in argv:
        secret = bool(words) and words[-1].lstrip("-") in {"api-key", "hf-token", "api_key"}
        words.append("[key]" if secret else scrub(word))
    return words


@cache
def _names() -> tuple[str, ...]:
    found = []
    for ask in (getpass.getuser, socket.gethostname):
        try:
            found.append(ask())
        except (OSError, KeyError, ImportError):
            continue
    return tuple(name for name in found if name.lower() not in _NOT_PRIVATE and len(name) > 2)
