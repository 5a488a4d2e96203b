"""Refusals that need the engine's answer, and the mode that offload is."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tokrig import registry
from tokrig.backends import Engine, Launch
from tokrig.errors import InputError, StartError
from tokrig.record import conditions
from tokrig.record.model import Mode, Resolved
from tokrig.run import preflight
from tokrig.run.assemble import backend_facts, with_devices
from tokrig.run.prepare import Prepared, prepare
from tokrig.spec.run import RunSpec
from tokrig.spec.settings import Api

URL = "http://127.0.0.1:1/v1"


def attached(**wanted: Any) -> Prepared:
    spec = RunSpec(backend="openai", url=URL, workloads=["chat"], **wanted)
    return prepare(spec, datetime(2026, 11, 27, tzinfo=UTC))


def managed(**wanted: Any) -> Prepared:
    """As if the engine were started here."""
    spec = RunSpec(backend="llamacpp", workloads=["chat"], **wanted)
    return replace(attached(), spec=spec, launch=Launch(Path("m.gguf"), 0, 512, 1))


def require(prepared: Prepared, engine: Engine) -> None:
    facts = backend_facts(attached(**_wishes(prepared)), engine)
    preflight.require(prepared, engine, facts)


def _wishes(prepared: Prepared) -> dict[str, Any]:
    spec = prepared.spec
    names = ("threads", "context", "kv_type", "api", "speculative")
    return {name: getattr(spec, name) for name in names if getattr(spec, name) is not None}


HAS = Resolved(threads=2, context_per_slot=8192, cache_type_k="f16", cache_type_v="f16")


@pytest.mark.parametrize(
    "wanted",
    [{}, {"threads": 2}, {"context": 8192}, {"context": 8000}, {"kv_type": "f16"}, {"api": "cuda"}],
)
def test_a_wish_that_a_running_server_has_is_fine(wanted: dict[str, Any]) -> None:
    engine = Engine("x", api="cuda", api_confirmed=True, resolved=HAS)
    require(attached(**wanted), engine)


@pytest.mark.parametrize(
    ("wanted", "engine", "says"),
    [
        ({"threads": 1}, Engine("x", resolved=HAS), "--threads 1 asked, 2 used"),
        ({"context": 5000}, Engine("x", resolved=HAS), "--context 5000 asked, 8192 used"),
        (
            {"kv_type": "q8_0"},
            Engine("x", resolved=HAS),
            "settings: --kv-type q8_0 asked, f16 used",
        ),
        ({"threads": 1}, Engine("x"), "--threads: the server does not tell"),
        ({"context": 5000}, Engine("x"), "--context: the server does not tell"),
        ({"kv_type": "q8_0"}, Engine("x"), "--kv-type: the server does not tell"),
        ({"speculative": "mtp"}, Engine("x", speculation=False), "the server does not speculate"),
        (
            {"speculative": "ngram"},
            Engine("x", speculation=True, speculates_by="mtp"),
            "speculates by mtp",
        ),
        ({"api": "cuda"}, Engine("x"), "does not tell what computes"),
        ({"api": "cuda"}, Engine("x", api="cuda"), "does not confirm what computes"),
        ({"api": "cuda"}, Engine("x", api="cpu", api_confirmed=True), "computes with cpu"),
    ],
)
def test_a_wish_that_a_running_server_ignores_is_refused(
    wanted: dict[str, Any], engine: Engine, says: str
) -> None:
    with pytest.raises(InputError) as caught:
        require(attached(**wanted), engine)
    assert says in caught.value.message
    assert "leave" in caught.value.hint


def test_an_engine_started_here_that_computes_with_another_api_is_stopped() -> None:
    """The trap of a Vulkan build that finds no device: its backend is not what computes."""
    engine = Engine(
        "llama.cpp", api="cpu", api_confirmed=True, no_device="ggml_vulkan: No devices found"
    )
    with pytest.raises(StartError) as caught:
        require(managed(api="vulkan"), engine)
    assert caught.value.code == "other_api"
    assert "computes with cpu, not with vulkan: ggml_vulkan: No devices" in caught.value.message
    assert "--server-bin" in caught.value.hint
    require(managed(api="cpu"), engine)
    require(managed(), engine)
    require(managed(api="vulkan"), replace(engine, api=None))


@pytest.mark.parametrize(
    ("name", "offload", "named"),
    [
        ("baseline", None, "baseline"),
        ("baseline", "n-cpu-moe 4", "n-cpu-moe 4"),
        ("ngram+reasoning-off", "20 of 33 layers", "ngram+reasoning-off+20 of 33 layers"),
        ("baseline", r"override-tensor blk\.\d+\.=CPU", "override-tensor 8235"),
    ],
)
def test_offload_is_part_of_a_modes_name(name: str, offload: str | None, named: str) -> None:
    mode = preflight.found_mode(Mode(name=name), Engine("x", offload=offload))
    assert (mode.name, mode.offload) == (named, offload)


def test_two_patterns_never_look_alike() -> None:
    one, other = (
        preflight.found_mode(Mode(), Engine("x", offload=f"override-tensor {pattern}")).name
        for pattern in (r"blk\.1\.=CPU", r"blk.1.=CPU")
    )
    assert one != other


@pytest.mark.parametrize(
    ("asked", "engine", "named", "speculative"),
    [
        (Mode(), Engine("x", speculation=True, speculates_by="mtp"), "mtp", "mtp"),
        (Mode(), Engine("x", speculation=True), "speculation", "speculation"),
        (Mode(), Engine("x", speculation=False), "baseline", None),
        (Mode(name="ngram", speculative="ngram"), Engine("x", speculation=True), "ngram", "ngram"),
        (
            Mode(name="reasoning-off"),
            Engine("x", speculation=True, speculates_by="mtp", offload="cpu-moe"),
            "mtp+reasoning-off+cpu-moe",
            "mtp",
        ),
    ],
)
def test_a_running_server_that_speculates_unasked_is_no_baseline(
    asked: Mode, engine: Engine, named: str, speculative: str | None
) -> None:
    mode = preflight.found_mode(asked, engine)
    assert (mode.name, mode.speculative) == (named, speculative)


@pytest.mark.parametrize(
    ("engine", "devices", "told", "cards", "found"),
    [
        # Left one card, it computes on that one: by its own word, or seen in use.
        ("vllm", ("1",), {"api": "cuda"}, 0, True),
        ("vllm", ("1",), {}, 1, True),
        ("vllm", ("1",), {}, 0, False),
        ("vllm", ("1",), {"api": "cpu"}, 0, False),
        # Left two, it may use one of them.
        ("vllm", ("0", "1"), {"api": "cuda"}, 0, False),
        ("vllm", ("0", "1"), {"api": "cuda"}, 1, False),
        ("vllm", ("0", "1"), {"api": "cuda"}, 2, True),
        ("sglang", ("0", "1"), {"resolved": Resolved(tensor_parallel=2)}, 0, True),
        ("transformers", ("cuda:1",), {}, 1, True),
        # It names what it was left by new numbers.
        ("ollama", ("1",), {"resolved": Resolved(devices=["CUDA0"])}, 1, True),
    ],
)
def test_devices_are_found_where_the_engine_was_left_no_others(
    engine: str, devices: tuple[str, ...], told: dict[str, Any], cards: int, found: bool
) -> None:
    backend = registry.load("backends", engine, "BACKEND")
    api: Api = "cpu" if told.get("api") == "cpu" else "cuda"
    launch = Launch(Path("m"), 0, 512, 1, api=api, devices=devices, binary=sys.executable)
    spec = RunSpec(backend=engine, devices=list(devices))
    prepared = replace(attached(), spec=spec, backend=backend)
    facts = backend_facts(prepared, Engine("x", **told))
    seen = with_devices(facts, replace(prepared, launch=launch), cards)
    assert (conditions.untold(seen) == [], conditions.ignored(seen)) == (found, {})


def test_devices_that_an_engine_names_itself_are_its_own_word() -> None:
    """llama.cpp takes them by name: what it tells is what it uses."""
    told = backend_facts(attached(), Engine("x", resolved=Resolved(devices=["CUDA0"])))
    launched = replace(
        managed(devices=["CUDA1"]), backend=registry.load("backends", "vllm", "BACKEND")
    )
    assert with_devices(told, launched, 1) == told
