"""The spec of a run: defaults, limits, and messages that name the line."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tokrig.errors import SpecError
from tokrig.spec.run import LEVELS, Level, RunSpec, load_spec, merge, option_of
from tokrig.units import seconds_of


def spec_file(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        load_spec(spec_file(folder, text))
    return caught.value


def test_an_empty_file_means_all_defaults(tmp_path: Path) -> None:
    assert load_spec(spec_file(tmp_path, "# nothing\n")) == RunSpec()
    assert RunSpec().model_dump() == {
        "model": "gemma-3-270m",
        "backend": "embedded",
        "url": None,
        "load_from": None,
        "load_nodes": None,
        "server_bin": None,
        "served_model": None,
        "workloads": None,
        "concurrency": None,
        "ladder": None,
        "sustain": None,
        "depth": None,
        "rate": None,
        "arrival": None,
        "burstiness": None,
        "duration_s": None,
        "warm_up_window_s": None,
        "trace": None,
        "slo": None,
        "find_rate": False,
        "clients": None,
        "level": "quick",
        "quality": None,
        "api": None,
        "devices": None,
        "speculative": None,
        "draft_model": None,
        "draft_tokens": None,
        "reasoning": None,
        "quantize": None,
        "kv_type": None,
        "batch": None,
        "ubatch": None,
        "gpu_layers": None,
        "power_cap_w": None,
        "options": {},
        "threads": None,
        "context": None,
        "seed": 1,
        "patience_s": None,
        "request_timeout_s": 600.0,
        "rig": None,
        "notes": None,
        "api_key_env": None,
        "campaign": None,
        "planned": None,
    }


OTHER_LOADS = {"ladder", "sustain"}


def test_every_key_can_be_given(tmp_path: Path) -> None:
    text = """\
model: smollm2.gguf
backend: llamaserver
url: http://127.0.0.1:8080/
load_from: 10.0.0.1:6379
load_nodes: 3
clients: 2
server_bin: llama-server
served_model: smol
workloads: [chat, rag]
concurrency: [1, 4, 1024]
depth: [0, 4k, 16384]
rate: [1/s, 30/min]
arrival: gamma
burstiness: 0.5
duration_s: 2m
warm_up_window_s: 10
trace: trace.csv
slo: {ttft: 500ms, tpot: 50ms}
find_rate: true
level: publish
quality: false
api: vulkan
devices: [Vulkan0]
speculative: draft
draft_model: smaller.gguf
draft_tokens: 8
reasoning: "off"
options: {flash-attn: on, ubatch: 512, scale: 0.5, cache-type-k: q8_0}
threads: 4
context: 8192
seed: 0
patience_s: 30
request_timeout_s: 12.5
rig: desktop-3060
notes: |
  idle
api_key_env: HF_TOKEN
quantize: Q6_K
kv_type: q8_0
batch: 2048
ubatch: 512
gpu_layers: 0
power_cap_w: 250
campaign: quants/sweep
planned: 0123456789abcdef
"""
    spec = load_spec(spec_file(tmp_path, text))
    assert spec.url == "http://127.0.0.1:8080"
    assert spec.options == {"flash-attn": True, "ubatch": 512, "scale": 0.5, "cache-type-k": "q8_0"}
    assert [type(v) for v in spec.options.values()] == [bool, int, float, str]
    assert spec.concurrency == [1, 4, 1024]
    assert spec.depth == [0, 4096, 16384]
    assert (spec.patience_s, spec.request_timeout_s, spec.seed) == (30.0, 12.5, 0)
    assert set(spec.model_fields_set) == set(RunSpec.model_fields) - OTHER_LOADS


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("concurrency: ladder", 64),
        ("concurrency: ladder:32", 32),
        ("concurrency: [ladder]", 64),
        ("ladder: 8", 8),
    ],
)
def test_a_ladder_has_a_highest_step(tmp_path: Path, text: str, most: int) -> None:
    spec = load_spec(spec_file(tmp_path, text))
    assert (spec.ladder, spec.concurrency) == (most, None)
    assert merge(spec, {}) == spec
    assert merge(spec, {"concurrency": [1, 4]}).ladder is None
    assert merge(RunSpec(concurrency=[1, 4]), {"concurrency": ["ladder:16"]}).ladder == 16


@pytest.mark.parametrize(("text", "told"), [("600s", "10m"), ("90s", "90s"), ("1.5h", "90m")])
def test_a_time_has_one_spelling(text: str, told: str) -> None:
    spec = RunSpec(sustain=text)
    assert (spec.sustain, spec.sustain_s) == (told, seconds_of(told))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("workload: [chat]", "unknown key 'workload'"),
        ("concurrency: [0]", "concurrency[0]: should be greater than or equal to 1, not 0"),
        ("concurrency: [1025]", "should be less than or equal to 1024, not 1025"),
        ("concurrency: [4, 4]", "concurrency: 4 is named twice"),
        ("concurrency: []", "the list is empty"),
        ("concurrency: 4", "concurrency: should be a valid list, not 4"),
        ("concurrency: [ladder, 4]", "concurrency: 'ladder' stands alone"),
        ("concurrency: laddr", "concurrency: 'laddr' is no number of requests"),
        ("concurrency: ladder:0", "concurrency: 'ladder:0' is no number of requests"),
        ("concurrency: ladder:2000", "of at most 1024"),
        ("load_nodes: 3", "load_nodes: the Ray cluster that they belong to"),
        ("sustain: 0s", "sustain: '0s' is out of range: from 1s to 24h"),
        ("sustain: 10", "sustain: should be a time with its unit, such as"),
        ("sustain: 2m\nladder: 4", "sustain: one number of requests in flight is kept up"),
        ("sustain: 2m\nconcurrency: [1, 4]", "sustain: one shape is kept going"),
        ("sustain: 2m\nworkloads: [chat, rag]", "choose between chat, rag"),
        ("sustain: [10m]", "sustain: should be a time with its unit"),
        ("sustain: 10m\nrate: 2/s", "with rate they arrive by themselves"),
        ("ladder: 4\nconcurrency: [1]", "ladder: it stands beside numbers"),
        ("concurrency: [true]", "should be a valid integer, not True"),
        ("workloads: []", "the list is empty"),
        ("workloads: [chat, chat]", "'chat' is named twice"),
        ("workloads: ['']", "workloads[0]: "),
        ("level: fast", "should be 'quick', 'standard' or 'publish', not 'fast'"),
        ("threads: 0", "threads: should be greater than or equal to 1"),
        ("power_cap_w: 0", "power_cap_w: should be greater than 0"),
        ("power_cap_w: .nan", "power_cap_w: should be a finite number"),
        ("quantize: ''", "quantize: "),
        ("kv_type: 8", "kv_type: should be a valid string, not 8"),
        ("threads: true", "threads: should be a valid integer, not True"),
        ("context: 4k", "context: should be a valid integer, not '4k'"),
        ("seed: -1", "seed: should be greater than or equal to 0"),
        ("patience_s: 0", "patience_s: should be greater than 0"),
        ("patience_s: .inf", "patience_s: should be a finite number"),
        ("options: {a: [1]}", "options.a"),
        ("model: ''", "model: "),
        ("model: 3", "model: should be a valid string, not 3"),
        ("rig: My Rig", "try 'my-rig'"),
        ("url: localhost:8080", "should be an address like http://"),
        ("url: http://", "should be an address like http://"),
        ("url: http://host:99999", "should be an address like http://"),
        ("url: file:///etc/passwd", "should be an address like http://"),
        ("url: http://me:secret@host/v1", "leave them out"),
        ("url: http://host/v1?key=secret", "leave them out"),
        ("api_key_env: my-key", "should be the NAME of an environment variable"),
    ],
)
def test_wrong_values_name_the_line(tmp_path: Path, line: str, reason: str) -> None:
    error = refused(tmp_path, f"# a spec\nnotes: x\n{line}\n")
    assert f"{tmp_path / 'spec.yaml'}:3: " in error.message
    assert reason in error.message


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcdef0123456789",
        "sk_live_abcdefghijklmnop",
        "hf_AbCdEfGhIjKlMnOpQr",
        "gsk_abcdefgh12345678",
        "AIzaSyA1234567890abcdef",
        "eyJhbGciOiJIUzI1NiJ9",
        "0123456789ABCDEF0123456789ABCDEF",
        "a" * 65,
    ],
)
def test_a_key_is_refused_and_not_repeated(tmp_path: Path, key: str) -> None:
    error = refused(tmp_path, f"api_key_env: {key}\n")
    assert "looks like a key itself" in error.message
    assert key not in error.message + error.hint
    with pytest.raises(SpecError) as caught:
        merge(RunSpec(), {"api_key_env": key})
    assert key not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "HF_TOKEN", "hf_token", "_K", "SK_PROD_KEY_2"])
def test_names_of_variables_are_accepted(name: str) -> None:
    assert RunSpec(api_key_env=name).api_key_env == name


def test_secrets_in_an_address_are_not_repeated(tmp_path: Path) -> None:
    assert "hunter2" not in refused(tmp_path, "url: http://me:hunter2@host/v1\n").message


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml: cannot be read: No such file"):
        load_spec(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        load_spec(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"model: \xff\xfe")
    with pytest.raises(SpecError, match="not UTF-8 text"):
        load_spec(tmp_path / "binary.yaml")


def test_a_byte_order_mark_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfseed: 7\n")
    assert load_spec(tmp_path / "bom.yaml").seed == 7


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunSpec().seed = 2  # type: ignore[misc]


def test_merge_takes_what_is_given() -> None:
    spec = RunSpec(seed=5, options={"a": 1, "b": 2})
    given: dict[str, Any] = {
        "seed": None,
        "workloads": ("chat",),
        "options": {"b": 3, "c": "x"},
        "level": "standard",
    }
    merged = merge(spec, given)
    assert merged.seed == 5
    assert merged.workloads == ["chat"]
    assert merged.options == {"a": 1, "b": 3, "c": "x"}
    assert merged.level == "standard"
    assert spec.options == {"a": 1, "b": 2}
    assert merge(spec, {}) == spec


def test_merge_refuses_what_the_file_would_not_take() -> None:
    with pytest.raises(SpecError) as caught:
        merge(RunSpec(), {"concurency": [1]})
    assert caught.value.message == "unknown option 'concurency'"
    assert "did you mean 'concurrency'?" in caught.value.hint
    with pytest.raises(SpecError, match=r"^--concurrency: should be greater"):
        merge(RunSpec(), {"concurrency": (0,)})
    with pytest.raises(SpecError, match=r"^--speculative 'draft' needs a --draft-model$"):
        merge(RunSpec(), {"speculative": "draft"})


def test_every_key_has_the_option_that_says_it() -> None:
    command = importlib.import_module("tokrig.cli.run").command
    options = {param.name: param.opts for param in command.params}
    for key in RunSpec.model_fields.keys() - {"campaign", "planned"}:
        # A ladder is a word of --concurrency.
        assert option_of(key) in options["concurrency" if key == "ladder" else key]


def test_levels() -> None:
    assert dict(LEVELS) == {
        "quick": Level(repeats=1, warmups=1, iterations=3),
        "standard": Level(repeats=6, warmups=1, iterations=3),
        "publish": Level(repeats=10, warmups=1, iterations=3),
    }
