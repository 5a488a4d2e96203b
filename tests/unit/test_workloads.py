"""The workload shapes keep their contract and can meet their prompt length."""

from __future__ import annotations

import json
import math
import re

import pytest

from tokrig import naming, registry
from tokrig.spec.run import default_shapes
from tokrig.workloads import ENDING, MATERIAL, Messages, Variant, Workload, tolerance
from tokrig.workloads.agent import WORKLOAD as AGENT
from tokrig.workloads.chat import WORKLOAD as CHAT
from tokrig.workloads.codegen import WORKLOAD as CODEGEN
from tokrig.workloads.rag import WORKLOAD as RAG

SALT = "K839201"
SHAPES = (CHAT, RAG, CODEGEN, AGENT)
VARIANTS = [
    pytest.param(shape, variant, id=f"{shape.name}-{index}")
    for shape in SHAPES
    for index, variant in enumerate(shape.variants)
]
# Characters per token and template overhead: from wasteful to thrifty.
TOKENIZERS = [(cpt, overhead) for cpt in (3.2, 4.0, 4.6, 5.2) for overhead in (5, 20, 45)]

each_variant = pytest.mark.parametrize(("shape", "variant"), VARIANTS)


def simulated_tokens(messages: Messages, chars_per_token: float, overhead: int) -> int:
    chars = sum(len(message["content"]) for message in messages)
    return overhead + math.ceil(chars / chars_per_token)


@pytest.mark.parametrize(
    ("shape", "name", "prompt", "answer", "concurrencies"),
    [
        (CHAT, "chat", 64, 128, (1,)),
        (RAG, "rag", 4096, 128, (1,)),
        (CODEGEN, "codegen", 96, 1024, (1,)),
        (AGENT, "agent", 1536, 256, (1, 4)),
    ],
)
def test_shape_has_its_numbers(
    shape: Workload, name: str, prompt: int, answer: int, concurrencies: tuple[int, ...]
) -> None:
    assert shape.name == name
    assert (shape.prompt_tokens, shape.answer_tokens) == (prompt, answer)
    assert shape.concurrencies == concurrencies
    assert len(shape.variants) == 3
    assert shape.summary.endswith(".")


@each_variant
def test_markers_stand_exactly_once(shape: Workload, variant: Variant) -> None:
    fixed = "".join(text for _, text in variant.messages)
    assert fixed.count(MATERIAL) == 1
    assert fixed.count(ENDING) == 1


@each_variant
def test_rendered_prompt_opens_with_salt_and_holds_no_marker(
    shape: Workload, variant: Variant
) -> None:
    for units in (0, 1, len(variant.material)):
        for ending in range(len(variant.endings)):
            messages = variant.render(units, ending, SALT)
            text = "".join(message["content"] for message in messages)
            assert messages[0]["role"] == "system"
            assert messages[0]["content"].startswith(SALT)
            # A template may move the system text to the last of several turns.
            several = sum(message["role"] == "user" for message in messages) > 1
            assert messages[1]["content"].startswith(SALT) is several
            assert text.count(SALT) == 1 + several
            assert MATERIAL not in text
            assert ENDING not in text


@each_variant
def test_without_a_system_role_the_first_user_message_carries_the_salt(
    shape: Workload, variant: Variant
) -> None:
    messages = variant.render(1, 0, SALT, system_role=False)
    assert [m["role"] for m in messages] == [role for role, _ in variant.messages]
    first = next(m for m in messages if m["role"] == "user")
    assert first["content"].startswith(f"{SALT} ")


@each_variant
def test_roles_alternate_and_user_speaks_last(shape: Workload, variant: Variant) -> None:
    roles = [role for role, _ in variant.messages]
    turns = roles[1:] if roles[0] == "system" else roles
    assert turns == [("user", "assistant")[i % 2] for i in range(len(turns))]
    assert turns[-1] == "user"


@each_variant
def test_prompts_read_cleanly_at_every_cut(shape: Workload, variant: Variant) -> None:
    for units in (0, 1, 2, len(variant.material)):
        for ending in (0, len(variant.endings) - 1):
            for message in variant.render(units, ending, SALT):
                assert "\n\n\n" not in message["content"]
                assert "  " not in message["content"]


@each_variant
def test_units_end_where_a_reader_can_stop(shape: Workload, variant: Variant) -> None:
    for unit in variant.material:
        assert unit.strip()
        if shape is AGENT:
            assert variant.joiner == "\n"
            assert len(unit.splitlines()) == 1
            assert unit == unit.strip()
        else:
            assert unit.rstrip().endswith((".", "?", "!"))
        if shape is CODEGEN:
            assert unit.startswith("\n- ")


@each_variant
def test_no_unit_is_repeated(shape: Workload, variant: Variant) -> None:
    stripped = [unit.strip() for unit in variant.material]
    assert len(set(stripped)) == len(stripped)


@each_variant
def test_endings_grow(shape: Workload, variant: Variant) -> None:
    assert variant.endings[0] == ""
    lengths = [len(ending) for ending in variant.endings]
    assert lengths == sorted(set(lengths))


@each_variant
@pytest.mark.parametrize(("chars_per_token", "overhead"), TOKENIZERS)
def test_target_can_be_reached(
    shape: Workload, variant: Variant, chars_per_token: float, overhead: int
) -> None:
    misses = (
        abs(
            simulated_tokens(variant.render(units, ending, SALT), chars_per_token, overhead)
            - shape.prompt_tokens
        )
        for units in range(len(variant.material) + 1)
        for ending in range(len(variant.endings))
    )
    assert any(miss <= tolerance(shape.prompt_tokens) for miss in misses)


@each_variant
def test_material_spans_the_target(shape: Workload, variant: Variant) -> None:
    empty = variant.render(0, 0, SALT)
    full = variant.render(len(variant.material), 0, SALT)
    assert simulated_tokens(empty, 3.2, 45) <= shape.prompt_tokens
    assert simulated_tokens(full, 5.2, 5) >= 1.15 * shape.prompt_tokens


@each_variant
def test_prompts_are_plain_text(shape: Workload, variant: Variant) -> None:
    text = json.dumps(variant.render(len(variant.material), 0, SALT), ensure_ascii=False)
    assert text.isascii()
    assert "\\t" not in text


def test_published_records_keep_their_shapes() -> None:
    """Another hash is another shape: figures of records that carry the old one compare no more."""
    assert {shape.name: shape.content_hash for shape in SHAPES} == {
        "chat": "8fca67307c0f",
        "rag": "bad6a0d5abb3",
        "codegen": "a187c59575d3",
        "agent": "d16afeb3da6e",
    }


def test_requests_walk_through_the_variants() -> None:
    for shape in SHAPES:
        assert [shape.variant(i) for i in range(4)] == [*shape.variants, shape.variants[0]]


def test_rag_variants_share_one_corpus_in_different_orders() -> None:
    corpora = [variant.material for variant in RAG.variants]
    assert len({tuple(sorted(corpus)) for corpus in corpora}) == 1
    assert len({corpus[0] for corpus in corpora}) == 3
    titles = re.findall(r"^## .+$", "".join(corpora[0]), flags=re.MULTILINE)
    assert len(titles) == len(set(titles)) == 36


@pytest.mark.parametrize(
    ("index", "titles"),
    [
        (0, ("## Brackwell Flight, standing instruction", "## Incident note: paddle stuck")),
        (1, ("## Ennisford Reservoir: rules", "## Minutes of the drought group")),
        (2, ("## Cawle flood gates", "## Report on the October flood")),
    ],
)
def test_rag_answers_stay_in_the_shortest_prompt(index: int, titles: tuple[str, ...]) -> None:
    variant = RAG.variants[index]
    units = max(
        n
        for n in range(len(variant.material))
        if simulated_tokens(variant.render(n, 0, SALT), 3.2, 45) <= RAG.prompt_tokens
    )
    # Half of it would do, so that no answer sits at the edge of the cut.
    text = variant.render(units // 2, 0, SALT)[1]["content"]
    assert all(title in text for title in titles)


def agent_tools() -> dict[str, dict[str, object]]:
    lines = AGENT.variants[0].messages[0][1].splitlines()
    schemas = [json.loads(line) for line in lines if line.startswith("{")]
    return {schema["name"]: schema["parameters"] for schema in schemas}


def test_agent_variants_share_system_prompt_and_tools() -> None:
    assert {variant.messages[0] for variant in AGENT.variants} == {AGENT.variants[0].messages[0]}
    tools = agent_tools()
    assert len(tools) == 6
    for parameters in tools.values():
        properties, required = parameters["properties"], parameters["required"]
        assert isinstance(properties, dict)
        assert isinstance(required, list)
        assert set(required) <= set(properties)


@pytest.mark.parametrize("variant", AGENT.variants)
def test_agent_calls_fit_the_schemas_and_are_answered(variant: Variant) -> None:
    tools = agent_tools()
    for (role, text), (_, answer) in zip(variant.messages, variant.messages[1:], strict=False):
        if role != "assistant":
            continue
        match = re.fullmatch(r"<tool_call>(.+)</tool_call>", text)
        assert match
        call = json.loads(match[1])
        properties, required = (tools[call["name"]][key] for key in ("properties", "required"))
        assert isinstance(properties, dict)
        assert isinstance(required, list)
        assert set(required) <= set(call["arguments"]) <= set(properties)
        assert answer.startswith("<tool_result>\n")
        assert answer.removesuffix(ENDING).endswith("\n</tool_result>")


def test_agent_fixed_part_is_small() -> None:
    for variant in AGENT.variants:
        assert sum(len(text) for _, text in variant.messages) <= 3600


def test_every_shape_has_its_place_in_lists() -> None:
    assert [*naming.SHAPES] == [shape.name for shape in SHAPES]
    assert {*naming.SHAPES} == {*default_shapes(registry.names("workloads"))}
    mixed = ["session", "rag", "agent", "context", "codegen", "chat"]
    assert sorted(mixed, key=naming.shape_order) == [*naming.SHAPES, "context", "session"]
