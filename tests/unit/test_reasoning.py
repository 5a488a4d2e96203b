"""The reasoning table: which family a model belongs to and what is sent to switch it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokrig.errors import SpecError
from tokrig.spec.reasoning import Switch, switch_for, table

OWN = """\
families:
  - family: House model
    match: 'qwen3-house'
    disable: {user_suffix: ' be brief', complete: false}
    enable: {system: think}
    source: https://example.org/card
"""


def off(*names: str) -> Switch:
    return switch_for("off", names, table())


@pytest.mark.parametrize(
    ("name", "family", "template"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Qwen3 and later", {"enable_thinking": False}),
        ("Qwen/Qwen3.5-4B", "Qwen3 and later", {"enable_thinking": False}),
        ("qwen35moe", "Qwen3 and later", {"enable_thinking": False}),
        ("DeepSeek-V3.1-Terminus", "DeepSeek-V3.1 and later", {"thinking": False}),
        ("granite-3.3", "Granite 3.2 and 3.3", {"thinking": False}),
        ("gemma4", "Gemma 4", {"enable_thinking": False}),
        ("Gemma-4", "Gemma 4", {"enable_thinking": False}),
        ("NVIDIA-Nemotron-3-Nano", "Nemotron 3", {"enable_thinking": False}),
        ("GLM-4.6", "GLM 4.5 and later", {"enable_thinking": False}),
        ("glm4_moe", "GLM 4.5 and later", {"enable_thinking": False}),
        ("Kimi-K2.5", "Kimi K2.5 and later", {"thinking": False}),
        ("Seed-OSS-36B-Instruct", "Seed-OSS", {"thinking_budget": 0}),
        ("EXAONE-4.0-1.2B", "EXAONE 4.0", {"enable_thinking": False}),
        ("Hunyuan-A13B-Instruct", "Hunyuan A13B", {"enable_thinking": False}),
        ("tencent/Hy3", "Hy3", {"reasoning_effort": "no_think"}),
    ],
)
def test_families_with_a_template_argument(
    name: str, family: str, template: dict[str, Any]
) -> None:
    switch = off(name)
    assert (switch.family, switch.template) == (family, template)
    assert switch.complete and switch.engine_flag
    assert switch.source is not None and switch.source.startswith("https://")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("NVIDIA-Nemotron-Nano-9B-v2-Q4_K_M.gguf", "/no_think"),
        ("Llama-3_3-Nemotron-Super-49B-v1_5", "/no_think"),
        ("Llama-3.3-Nemotron-Super-49B-v1", "detailed thinking off"),
        ("SmolLM3-3B", "/no_think"),
    ],
)
def test_families_with_a_system_line(name: str, line: str) -> None:
    switch = off(name)
    assert (switch.system, switch.template) == (line, {})


@pytest.mark.parametrize(
    "name",
    [
        "DeepSeek-R1-Distill-Llama-8B",
        "Qwen3-30B-A3B-Thinking-2507",
        "QwQ-32B",
        "Kimi-K2-Thinking",
        "LFM2.5-1.2B-Thinking",
        "MiniMax-M2",
    ],
)
def test_families_that_always_think_are_left_to_the_engine(name: str) -> None:
    switch = off(name)
    assert switch.family is not None
    assert not switch.complete
    assert switch.describe() == "the engine's own switch"


def test_gpt_oss_thinks_less_and_is_not_cut_short() -> None:
    switch = off("gpt-oss-20b-mxfp4.gguf")
    assert (switch.effort, switch.complete, switch.engine_flag) == ("low", False, False)
    assert switch.describe() == "reasoning_effort=low"
    assert switch_for("on", ["gpt-oss"], table()).complete


def test_a_distilled_model_is_of_the_family_that_taught_it() -> None:
    switch = off("MyMix", "qwen3", "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "mymix.gguf")
    assert switch.family == "DeepSeek-R1"


@pytest.mark.parametrize(
    "name", ["SmolLM2", "Gemma-3", "gemma3n", "granite-4.0", "Qwen2.5", "Qwen-7B", "chatglm-6b"]
)
def test_an_unknown_family_is_left_to_the_engine(name: str) -> None:
    assert off(name, "") == Switch("off", family=None, engine_flag=True)


def test_on_is_the_other_position() -> None:
    switch = switch_for("on", ["Gemma-4"], table())
    assert (switch.asked, switch.template) == ("on", {"enable_thinking": True})
    assert switch.describe() == "enable_thinking=true, the engine's own switch"


def test_packaged_families_are_named_once_and_have_a_source() -> None:
    entries = table()
    families = [entry.family for entry in entries]
    assert len(set(families)) == len(families)
    for entry in entries:
        assert entry.source.startswith("https://")


def test_a_file_of_the_same_form_wins(tmp_path: Path) -> None:
    path = tmp_path / "reasoning.yaml"
    path.write_text(OWN)
    switch = switch_for("off", ["Qwen3-House-8B.gguf"], table(path))
    assert (switch.family, switch.user_suffix) == ("House model", " be brief")
    assert not switch.complete
    assert switch_for("off", ["Qwen3-8B"], table(path)).family == "Qwen3 and later"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OWN.replace("disable:", "disble:"), "own.yaml:4: unknown key 'disble'"),
        (OWN.replace("'qwen3-house'", "'('"), "own.yaml:3: families[0].match: not a regular"),
        (OWN.replace("'qwen3-house'", "'.*'"), "matches every model"),
        (OWN.replace("complete: false", "complete: perhaps"), "own.yaml:4: families[0].disable.c"),
        ("- a list", "should be a mapping"),
        ("families: [", "own.yaml:2:"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        table(path)
    assert message in caught.value.message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"gone\.yaml: cannot be read") as caught:
        table(tmp_path / "gone.yaml")
    assert caught.value.hint
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(SpecError, match="not UTF-8"):
        table(tmp_path / "binary.yaml")
