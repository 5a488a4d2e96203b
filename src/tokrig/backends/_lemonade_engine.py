"""The engine inside lemonade: the settings it is loaded with, and its own command line.

lemonade forgets an engine it gave up on, so the command line is put together again from what it
keeps: the installed engines below its cache folder and the files of the model.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tokrig.backends import Ask, Command, Launch, mapping, mappings
from tokrig.errors import InputError, RequestError

# As the llama-server builds spell them that lemonade 11 brings.
_SPECULATION = {"ngram": "ngram-simple", "mtp": "draft-mtp"}
_DRAFT_TOKENS = {"ngram": "--spec-ngram-simple-size-m", "mtp": "--spec-draft-n-max"}


def settings(recipe: str, launch: Launch | None) -> dict[str, Any]:
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
    if recipe == "llamacpp":
        found: dict[str, Any] = {
            "ctx_size": launch.context_per_slot * launch.slots,
            "llamacpp_args": " ".join(_llama_flags(launch)),
        }
        if launch.devices:
            found["llamacpp_device"] = ",".join(launch.devices)
    elif recipe == "vllm":
        found = {
            "ctx_size": launch.context_per_slot,
            "vllm_args": " ".join(_vllm_flags(launch)),
        }
    else:
        return {"ctx_size": launch.context_per_slot}
    if launch.api is not None:
        found[f"{recipe}_backend"] = launch.api
    if "merge_args" in launch.options:
        found["merge_args"] = launch.options["merge_args"]
    return found


def _llama_flags(launch: Launch) -> Iterator[str]:
    """Verbosity 4 makes llama-server log the buffers that show what computes."""
    yield from ("--parallel", str(launch.slots), "--verbosity", "4")
    if launch.threads is not None:
        yield from ("--threads", str(launch.threads))
    if launch.speculation is not None:
        yield from ("--spec-type", _SPECULATION[launch.speculation.type])
        if launch.speculation.draft_tokens is not None:
            yield from (
                _DRAFT_TOKENS[launch.speculation.type],
                str(launch.speculation.draft_tokens),
            )
    if launch.reasoning is not None and launch.reasoning.engine_flag:
        yield from ("--reasoning", launch.reasoning.asked)
    if "llamacpp_args" in launch.options:
        yield str(launch.options["llamacpp_args"])


def _vllm_flags(launch: Launch) -> Iterator[str]:
    """lemonade switches vLLM's prefix cache on; the later flag wins."""
    yield from ("--max-num-seqs", str(launch.slots), "--no-enable-prefix-caching")
    if "vllm_args" in launch.options:
        yield str(launch.options["vllm_args"])


def command(ask: Ask, launch: Launch | None, port: int) -> Command | None:
    """The engine's own command line on ``port``; None where it cannot be known."""
    try:
        argv = _listed(ask, launch) or _installed(ask, launch)
    except RequestError:
        return None
    if argv is None or "--port" not in argv[:-1]:
        return None
    at = argv.index("--port") + 1
    argv[at] = str(port)
    return Command(tuple(argv), _environment(Path(argv[0])))


def _listed(ask: Ask, launch: Launch | None) -> list[str] | None:
    """The command line of an engine that lemonade still lists."""
    for model in mappings(mapping(ask("/v1/health")).get("all_models_loaded")):
        line = model.get("launch_command")
        if isinstance(line, list) and (
            launch is None or model.get("model_name") == str(launch.model)
        ):
            return [str(word) for word in line]
    return None


def _installed(ask: Ask, launch: Launch | None) -> list[str] | None:
    """llama-server as lemonade starts it, with the model's files and the settings asked for."""
    if launch is None:
        return None
    name = quote(str(launch.model))
    main = model_file(ask, str(launch.model))
    effective = mapping(mapping(ask(f"/v1/models/{name}/options")).get("effective"))
    api = launch.api or str(effective.get("llamacpp_backend") or "")
    binary = (
        shutil.which("llama-server") if api == "system" else _external(ask, api) or _binary(api)
    )
    if binary is None or main is None:
        return None
    wanted = settings("llamacpp", launch)
    flags = shlex.split(str(wanted["llamacpp_args"]))
    context = ("--ctx-size", str(wanted["ctx_size"]))
    return [binary, "-m", main, *context, "--port", "0", "--jinja", *flags]


def model_file(ask: Ask, name: Any) -> str | None:
    """Where lemonade has the file of a model, if it is there."""
    if not name:
        return None
    try:
        answer = mapping(ask(f"/v1/models/{quote(str(name))}/files?include_paths=true"))
    except RequestError:
        answer = {}
    for file in mappings(answer.get("files")):
        if file.get("role") == "main" and file.get("exists") is True and file.get("path"):
            return str(file["path"])
    # Of a model from a folder of the user's the list itself gives the path.
    try:
        listed = mappings(mapping(ask("/v1/models")).get("data"))
    except RequestError:
        return None
    paths = [str(model.get("checkpoint") or "") for model in listed if model.get("id") == name]
    return next((path for path in paths if path.endswith(".gguf")), None)


def _external(ask: Ask, api: str) -> str | None:
    """A llama-server of the user's that lemonade was told to take for an API, by the environment
    that both have or by its configuration: both may name a version or "builtin" instead."""
    if not api:
        return None
    told = os.environ.get(f"LEMONADE_LLAMACPP_{api.upper()}_BIN")
    if not told:
        try:
            told = mapping(mapping(ask("/internal/config")).get("llamacpp")).get(f"{api}_bin")
        except RequestError:
            return None
    path = str(told or "")
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
    folders = [*map(str, runtimes), str(binary.parent)]
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": ":".join([*folders, *([inherited] if inherited else [])])}


def _cache() -> Path:
    """Where lemonade keeps what it downloaded, on Linux, for the user who runs tokrig."""
    own = os.environ.get("LEMONADE_CACHE_DIR")
    shared = os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "lemonade"
