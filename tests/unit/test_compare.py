"""Comparisons: variables, classes, ratios, ties. Expected figures are worked out by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from tests.unit.compared import cell, measured, speculating, transcribed, with_value
from tokrig.compare import Comparison, comparison, rules, subject
from tokrig.compare.variables import KEYS, MAX_TEXT, VARIABLES, known_keys, value_text
from tokrig.record.block import Summary
from tokrig.record.model import LoadMemory, Record, Validity
from tokrig.site.pages.compare import run_script
from tokrig.site.sharing import short_address
from tokrig.store.load import Run

BLOCKS = ("provenance", "model", "rig", "backend", "mode")


def against(reference: Record, other: Record, **chosen: Any) -> Comparison:
    return comparison(subject(reference, **chosen), subject(other, **chosen))


def changed(path: str, value: Any) -> Comparison:
    """A measured run against itself with one field changed."""
    return against(measured(), with_value(measured(), path, value))


# Variables


def leaves(model: type[BaseModel], prefix: str) -> set[str]:
    found: set[str] = set()
    for name, field in model.model_fields.items():
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        block = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), None)
        found |= leaves(block, f"{prefix}.{name}") if block else {f"{prefix}.{name}"}
    return found


def test_every_field_of_a_configuration_belongs_to_one_variable() -> None:
    fields = {
        leaf
        for name in BLOCKS
        for leaf in leaves(Record.model_fields[name].annotation, name)  # type: ignore[arg-type]
    }
    # When it was measured is no part of what was measured, nor is what was seen meanwhile.
    times = {"provenance.started_at", "provenance.finished_at"}
    found = ("template_tokens", "system_role", "kept_apart")
    observed = {"backend.resolved.device_bytes", *(f"backend.prompting.{name}" for name in found)}
    assert set(KEYS) == (fields - times - observed) | {"concurrency"}
    assert len(KEYS) == len(set(KEYS))


def test_variables_follow_variables_that_exist() -> None:
    names = [variable.name for variable in VARIABLES]
    assert len(names) == len(set(names))
    assert {name for variable in VARIABLES for name in variable.follows} <= set(names)


def test_unknown_keys_are_absent_and_absence_that_is_a_fact_is_not() -> None:
    keys = known_keys(transcribed())
    assert "model.sha256" not in keys and "rig.gpus.arch" not in keys and "backend.env" not in keys
    assert keys["mode.speculative"] == "none"
    no_gpu = with_value(measured(), "rig.gpus", [])
    assert known_keys(no_gpu)["rig.gpus.name"] == "none"
    unread = with_value(no_gpu, "provenance.kind", "imported")
    assert "rig.gpus.name" not in known_keys(unread)
    assert known_keys(measured())["backend.env"] == "none"


def test_gpus_are_known_when_each_of_them_is() -> None:
    gpu = measured().rig.gpus[0]
    two = with_value(measured(), "rig.gpus", [gpu, gpu.model_copy(update={"driver": None})])
    assert known_keys(two)["rig.gpus.name"] == f"{gpu.name}, {gpu.name}"
    assert "rig.gpus.driver" not in known_keys(two)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (False, "no"),
        (250.0, "250"),
        (7.3581, "7.3581"),
        (["a", "b"], "a, b"),
        ({"b": 1, "a": 2}, "a=2, b=1"),
        ("x" * MAX_TEXT, "x" * MAX_TEXT),
    ],
)
def test_values_as_text(value: Any, text: str) -> None:
    assert value_text(value) == text


def test_texts_that_cannot_be_shown_stay_distinct() -> None:
    hostile = ["a\x1b[2J", "a\u202e[2J", "y" * 10_000, "y" * 10_001, "\ud800", "a\nb"]
    texts = [value_text(value) for value in hostile]
    assert len(set(texts)) == len(hostile)
    assert all(text.isprintable() and len(text) < MAX_TEXT + 40 for text in texts)


# Class A


def test_nothing_changed_is_a() -> None:
    found = against(measured(), measured())
    assert (found.grade, found.reason) == ("A", "same machine, nothing changed")
    assert not found.differences.differing


@pytest.mark.parametrize(
    ("path", "value", "variable"),
    [
        ("model.variant", "E4B-it", "model"),
        ("model.quant_creator", "somebody", "quant creator"),
        ("backend.build", "b9999", "build"),
        ("backend.api", "vulkan", "API"),
        ("backend.resolved.threads", 4, "threads"),
        ("backend.resolved.ubatch", 1024, "micro-batch"),
        ("backend.resolved.cache_type_k", "q8_0", "KV cache types"),
        ("backend.env", {"OMP_NUM_THREADS": "2"}, "environment"),
        ("rig.os", "another", "os"),
        ("rig.kernel", "7.1", "kernel"),
        ("rig.cpu.governor", "powersave", "CPU governor"),
        ("mode.name", "mtp", "mode"),
        ("mode.draft_tokens", 5, "mode"),
        ("mode.reasoning_asked", "off", "mode"),
        ("mode.reasoning_switch", "enable_thinking=false", "reasoning switch"),
        ("backend.wrapper", "lemonade 11.7.0", "wrapper"),
        ("mode.speculative", "ngram", "mode"),
        ("backend.resolved.context_per_slot", 8192, "context"),
        ("backend.resolved.batch", 512, "batch"),
    ],
)
def test_one_changed_variable_on_one_machine_is_a(path: str, value: Any, variable: str) -> None:
    found = changed(path, value)
    assert (found.grade, found.reason) == ("A", f"same machine, one changed variable: {variable}")
    assert path in [entry.key for entry in found.differences.differing]


def test_what_follows_a_changed_variable_does_not_count_but_is_listed() -> None:
    other = measured()
    for path, value in {
        "model.quant": "Q8_0",
        "model.file": "gemma-q8_0.gguf",
        "model.sha256": "b" * 64,
        "model.bytes": 9,
        "model.bits_per_weight": 8.5,
        "backend.argv": ["llama-server", "-m", "gemma-q8_0.gguf"],
    }.items():
        other = with_value(other, path, value)
    found = against(measured(), other)
    assert (found.grade, found.differences.changed) == ("A", ("quant",))
    keys = {entry.key for entry in found.differences.differing}
    assert {"model.quant", "model.sha256", "model.bytes", "model.bits_per_weight"} <= keys
    assert "backend.argv" not in keys  # the file's name is all that differs in it


def test_a_mode_with_all_that_belongs_to_it_is_one_changed_variable() -> None:
    other = speculating(
        *(40, 50, 60),
        name="draft+reasoning-off",
        speculative="draft",
        draft_model="tiny-q4_1.gguf",
        draft_sha256="d" * 64,
        draft_tokens=5,
        reasoning_asked="off",
        reasoning_switch="enable_thinking=false",
    )
    for pair in ((measured(), other), (other, measured())):
        found = against(*pair)
        assert (found.grade, found.differences.changed) == ("A", ("mode",))
        keys = {entry.key for entry in found.differences.differing}
        assert {"mode.name", "mode.draft_model", "mode.draft_sha256", "backend.argv"} <= keys
    assert found.a.place.endswith("draft-model speculation, reasoning off")
    longer = with_value(other, "mode.draft_tokens", 8)
    assert against(other, longer).differences.changed == ("mode",)
    assert against(other, other).grade == "A"
    remade = with_value(other, "mode.draft_sha256", "e" * 64)
    assert against(other, remade).differences.changed == ("draft model file",)


def test_a_mode_that_another_page_tells_half_is_not_known() -> None:
    half = with_value(transcribed(), "mode.name", "mtp")
    assert "mode.speculative" not in known_keys(half)
    assert against(half, half).reason == "same machine, but the mode is not known for both"


def test_how_reasoning_is_switched_makes_no_other_mode_on_other_engines() -> None:
    off = {"name": "reasoning-off", "speculative": None, "reasoning_asked": "off"}
    here = speculating(**off, reasoning_switch="enable_thinking=false")
    there = with_value(speculating(**off, reasoning_switch="think: false"), "rig.id", "other-rig")
    assert against(here, with_value(there, "backend.engine", "ollama")).grade == "C"


@pytest.mark.parametrize(
    ("path", "before", "after", "variable"),
    [
        ("split_mode", "layer", "row", "split mode"),
        ("dtype", "bfloat16", "float16", "dtype"),
        ("quantization", "awq", "fp8", "quantization"),
        ("tensor_parallel", 1, 2, "tensor parallel"),
        ("prefix_caching", False, True, "prefix caching"),
    ],
)
def test_a_setting_that_only_some_engines_have(
    path: str, before: Any, after: Any, variable: str
) -> None:
    full = f"backend.resolved.{path}"
    here, there = (with_value(measured(), full, value) for value in (before, after))
    assert against(here, there).differences.changed == (variable,)
    # One side that does not name it may have it; where neither does, there is nothing to say.
    assert against(here, measured()).differences.assumed == (variable,)
    assert against(measured(), measured()).differences.assumed == ()
    assert full not in {entry.key for entry in against(measured(), measured()).differences.unknown}


def test_tensors_on_two_cards_and_an_engines_own_quantization_count_once() -> None:
    changes = {"tensor_parallel": 2, "devices": ["0", "1"], "split_mode": "row"}
    two = measured()
    for name, value in changes.items():
        two = with_value(two, f"backend.resolved.{name}", value)
    one = with_value(measured(), "backend.resolved.tensor_parallel", 1)
    assert against(one, two).differences.changed == ("tensor parallel",)
    awq = with_value(measured(), "backend.resolved.quantization", "awq")
    fp8 = with_value(
        with_value(measured(), "backend.resolved.quantization", "fp8"), "model.quant", ""
    )
    assert against(awq, fp8).differences.changed == ("quant",)


def test_what_was_observed_is_no_variable() -> None:
    seen = with_value(measured(), "backend.resolved.device_bytes", {"CUDA0": 1})
    found = against(measured(), with_value(seen, "load_memory", LoadMemory(gpu_after_bytes=9)))
    assert found.reason == "same machine, nothing changed"
    assert not found.differences.differing
    asked = changed("backend.api_asked", "vulkan").differences
    assert (asked.changed, asked.assumed) == ((), ())


def test_an_api_that_is_not_the_one_asked_for_is_named() -> None:
    wrong = with_value(with_value(measured(), "backend.api", "cpu"), "backend.api_asked", "vulkan")
    assert "llama.cpp b9174 (cpu, vulkan asked)" in subject(wrong).place
    behind = with_value(measured(), "backend.wrapper", "lemonade 11.7.0")
    assert "llama.cpp b9174 (cuda) via lemonade 11.7.0" in subject(behind).place


def test_a_server_that_was_only_attached_to_may_have_a_wrapper() -> None:
    attached = with_value(measured(), "backend.managed", False)
    assert "backend.wrapper" not in known_keys(attached)
    assert known_keys(measured())["backend.wrapper"] == "none"


def test_another_file_under_the_same_names_is_a_changed_variable() -> None:
    found = changed("model.sha256", "b" * 64)
    assert found.differences.changed == ("model file",)


def test_a_flag_that_no_setting_shows_is_a_changed_variable() -> None:
    argv = [*(measured().backend.argv or []), "--no-mmap"]
    assert changed("backend.argv", argv).differences.changed == ("command line",)
    other = with_value(with_value(measured(), "backend.argv", argv), "model.quant", "Q8_0")
    assert against(measured(), other).differences.changed == ("quant", "command line")


def test_two_concurrencies_of_one_run_differ_in_that() -> None:
    record = with_value(measured(), "results", [cell("agent", 1), cell("agent", 4, 40.0)])
    found = comparison(subject(record, concurrency=1), subject(record, concurrency=4))
    assert found.reason == "same machine, one changed variable: concurrency"
    assert found.pairs[0].concurrency == (1, 4)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("provenance.tokrig_commit", "abc"),
        ("provenance.tokrig_version", "9"),
        ("provenance.level", "publish"),
        ("provenance.seed", 2),
        ("provenance.server_starts", 10),
        ("provenance.campaign", "a/b"),
        ("model.repo", "somebody/else"),
    ],
)
def test_how_a_record_came_about_is_no_variable(path: str, value: Any) -> None:
    found = changed(path, value)
    assert found.reason == "same machine, nothing changed"
    listed = found.differences.differing + found.differences.unknown
    assert path in [entry.key for entry in listed]


@pytest.mark.parametrize("path", ["id", "notes", "provenance.started_at", "provenance.finished_at"])
def test_when_and_with_what_words_is_not_even_listed(path: str) -> None:
    found = changed(path, "2026-11-22T00:00:00Z")
    assert found.reason == "same machine, nothing changed"
    listed = found.differences.differing + found.differences.unknown
    assert path not in [entry.key for entry in listed]


@pytest.mark.parametrize("path", ["model.variant", "model.quant", "backend.build", "backend.api"])
def test_what_is_essential_has_to_be_known(path: str) -> None:
    bare = with_value(with_value(measured(), "model.sha256", None), path, None)
    for pair in ((bare, bare), (bare, measured()), (measured(), bare)):
        found = against(*pair)
        assert found.grade == "D"
        assert found.reason.endswith("is not known for both")


def test_the_same_file_is_the_same_model_whatever_it_is_called() -> None:
    for path in ("model.quant", "model.variant", "model.quant_creator", "model.architecture"):
        assert changed(path, None).grade == "A"
    unnamed = with_value(measured(), "model.quant_creator", None)
    another = with_value(with_value(unnamed, "model.sha256", "b" * 64), "model.quant", "Q8_0")
    # Who made two files is no second thing once their quants differ.
    assert against(unnamed, another).differences.changed == ("quant",)
    other = with_value(unnamed, "model.sha256", "b" * 64)
    assert against(unnamed, other).differences.assumed == ("quant creator",)


SETTINGS = ("context_per_slot", "threads", "batch", "cache_type_k", "gpu_layers", "flash_attention")


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_one_side_does_not_tell_is_not_taken_for_equal(name: str) -> None:
    path = f"backend.resolved.{name}"
    untold = with_value(measured(), path, None)
    for pair in ((measured(), untold), (untold, measured())):
        found = against(*pair)
        assert found.grade == "C"
        assert found.reason.startswith("same model and quant; no A: not known for both: ")
        assert path in [entry.key for entry in found.differences.unknown]
    # With another model there is nothing left that is known to be equal.
    other = with_value(with_value(untold, "model.quant", "Q8_0"), "model.sha256", "b" * 64)
    assert against(measured(), other).grade == "D"


@pytest.mark.parametrize("name", SETTINGS)
def test_what_an_engine_started_with_the_same_words_does_not_tell_is_the_same(name: str) -> None:
    path = f"backend.resolved.{name}"
    untold = with_value(measured(), path, None)
    found = against(untold, untold)
    assert found.grade == "A"
    assert found.notes[0].startswith("read on neither side, decided by what is the same: ")
    # Not where somebody else started it, nor with other words, another build or environment.
    for path, value in (
        ("backend.managed", False),
        ("backend.argv", ["llama-server", "--no-mmap"]),
        ("backend.build", "b9999"),
        ("backend.env", {"GGML_X": "1"}),
    ):
        assert against(untold, with_value(untold, path, value)).grade in ("C", "D")


def test_an_attached_server_of_which_little_is_known_is_c() -> None:
    attached = measured()
    for path, value in (
        ("managed", False),
        ("argv", None),
        ("resolved.threads", None),
        ("resolved.cache_type_k", None),
    ):
        attached = with_value(attached, f"backend.{path}", value)
    found = against(attached, attached)
    assert found.grade == "C"
    assert found.reason == (
        "same model and quant; no A: not known for both: "
        "KV cache types, threads, environment, command line"
    )
    assert all(f.ratio.value == 1 for pair in found.pairs for f in pair.figures if f.a)


def test_what_no_probe_reads_on_one_machine_is_the_same_but_one_side_alone_is_not() -> None:
    unread = with_value(measured(), "rig.memory.speed_mt_per_s", None)
    assert against(unread, unread).grade == "A"
    assert against(measured(), unread).grade == "B"
    assert against(measured(), unread).differences.assumed == ("memory",)
    transcribed_both = with_value(unread, "provenance.kind", "transcribed")
    transcribed_both = with_value(transcribed_both, "provenance.methodology", None)
    transcribed_both = with_value(transcribed_both, "provenance.source", "a page")
    assert against(transcribed_both, transcribed_both).differences.assumed == ("memory",)


def test_a_machine_that_is_not_known_is_never_the_same() -> None:
    nameless = with_value(measured(), "rig.cpu.model", None)
    found = against(nameless, nameless)
    assert (found.grade, found.differences.state("machine")) == ("B", "unknown")
    on_cpu = with_value(nameless, "backend.api", "cpu")
    found = against(on_cpu, on_cpu)
    assert found.grade == "C"
    assert "hardware not known for both" in found.reason


# Classes B, C, D


def elsewhere(**also: Any) -> Record:
    other = with_value(with_value(measured(), "rig.id", "other-rig"), "rig.os", "other")
    for path, value in also.items():
        other = with_value(other, path.replace("__", "."), value)
    return other


def test_same_gpu_build_model_hash_and_shape_is_b() -> None:
    found = against(measured(), elsewhere())
    assert (found.grade, found.reason) == ("B", "same GPU model, build, model hash and shape")
    assert found.notes == ("changed: machine",)


@pytest.mark.parametrize("api", ["cuda", "cpu"])
def test_changed_variables_are_counted_the_same_on_every_device(api: str) -> None:
    here = with_value(measured(), "backend.api", api)
    other = with_value(with_value(here, "rig.kernel", "7.1"), "rig.os", "another")
    found = against(here, other)
    assert (found.grade, found.notes[0]) == ("B", "changed: os, kernel")
    other = with_value(other, "backend.build", "b9999")
    found = against(here, other)
    assert found.grade == "D"
    assert found.reason == "same machine, but 3 changed variables: build, os, kernel"


@pytest.mark.parametrize(
    ("path", "value"),
    [("resolved.threads", 4), ("resolved.cache_type_k", "q8_0"), ("resolved.context_per_slot", 99)],
)
def test_other_settings_are_no_b(path: str, value: Any) -> None:
    other = with_value(with_value(measured(), "rig.kernel", "7.1"), f"backend.{path}", value)
    assert against(measured(), other).grade == "D"
    other = with_value(other, "rig.id", "other-rig")
    if path != "resolved.threads":  # another machine has other threads
        assert "no B: other settings" in against(measured(), other).reason


def test_an_idle_card_is_no_variable_of_what_the_processor_did() -> None:
    on_cpu = with_value(measured(), "backend.api", "cpu")
    gpu = measured().rig.gpus[0]
    for update in ({"driver": "600"}, {"power_limit_w": 200.0}, {"name": "Another"}):
        other = with_value(on_cpu, "rig.gpus", [gpu.model_copy(update=update)])
        found = against(on_cpu, with_value(other, "rig.kernel", "7.1"))
        assert found.reason == "same machine, one changed variable: kernel"


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("model__sha256", None, "the model hash is not known for both"),
        ("model__sha256", "b" * 64, "the model hash differs"),
        ("backend__build", "b9999", "the build differs"),
        ("backend__build", None, "the build is not known for both"),
        ("backend__api", "vulkan", "the API differs"),
        ("backend__engine", "other", "the engine differs"),
    ],
)
def test_without_one_of_its_conditions_it_is_c(path: str, value: Any, why: str) -> None:
    found = against(measured(), elsewhere(**{path: value}))
    assert (found.grade, found.reason) == (
        "C",
        f"same model and quant, other hardware; no B: {why}",
    )


def test_another_card_under_the_same_rig_id_is_other_hardware() -> None:
    gpu = measured().rig.gpus[0].model_copy(update={"name": "NVIDIA GeForce RTX 3090"})
    found = changed("rig.gpus", [gpu])
    assert found.grade == "C"
    assert found.reason.endswith("no B: the GPU differs")


def test_another_processor_under_the_same_rig_id_is_other_hardware() -> None:
    assert changed("rig.cpu.model", "Another CPU").grade == "B"
    on_cpu = with_value(measured(), "backend.api", "cpu")
    found = against(on_cpu, with_value(on_cpu, "rig.cpu.model", "Another CPU"))
    assert (found.grade, found.reason.partition("no B: ")[2]) == ("C", "no GPU did the work")


def test_processors_alone_are_never_b() -> None:
    bare = {"rig__gpus": [], "backend__api": "cpu"}
    here = with_value(with_value(measured(), "rig.gpus", []), "backend.api", "cpu")
    assert against(here, elsewhere(**bare)).grade == "C"


@pytest.mark.parametrize(
    ("also", "why"),
    [
        ({"model__variant": "E4B-it", "model__sha256": None}, "the model differs"),
        ({"model__quant": "Q8_0", "model__sha256": "b" * 64}, "the quant differs"),
        ({"model__quant": None, "model__sha256": None}, "the quant is not known for both"),
        ({"mode__name": "mtp"}, "the mode differs"),
    ],
)
def test_other_work_on_other_hardware_is_d(also: dict[str, Any], why: str) -> None:
    found = against(measured(), elsewhere(**also))
    assert (found.grade, found.reason) == ("D", f"other hardware, and {why}")


@pytest.mark.parametrize("value", [1, None])
def test_two_methodologies_are_never_equals(value: int | None) -> None:
    words = "differs" if value else "is not known for both"
    for here in (measured(), elsewhere()):
        found = against(measured(), with_value(here, "provenance.methodology", value))
        assert (found.grade, found.reason) == ("D", f"the methodology {words}")


def test_class_d_shows_no_ratio_and_no_verdict() -> None:
    faster = with_value(measured(), "results", [cell(s, speed=200.0) for s in ("chat", "rag")])
    base = with_value(measured(), "results", [cell(s) for s in ("chat", "rag")])
    found = against(base, with_value(faster, "provenance.methodology", 1))
    assert found.grade == "D" and found.means == ()
    ratios = [figure["ratio"] for pair in found.as_dict()["pairs"] for figure in pair["figures"]]
    assert len(ratios) == 12
    for ratio in ratios:
        assert (ratio["value"], ratio["low"], ratio["high"]) == (None, None, None)
        assert (ratio["verdict"], ratio["settle"]) == ("none", "")


def test_concurrencies_of_different_machines_are_d() -> None:
    here, there = subject(measured(), concurrency=1), subject(elsewhere(), concurrency=1)
    assert comparison(here, there).grade == "B"
    there = subject(with_value(elsewhere(), "results", [cell("chat", 4)]), concurrency=4)
    assert comparison(here, there).reason == "other hardware, and the concurrency differs"


# Shapes and validity


def test_other_texts_under_one_name_are_another_shape() -> None:
    other = with_value(measured(), "results", [cell("chat", hash="ffff")])
    found = against(measured(), other)
    assert (found.grade, found.reason) == ("D", "other workload texts under the same shape name")
    assert found.pairs[0].comparable == "other_shape"
    assert {figure.ratio.value for figure in found.pairs[0].figures} == {None}


def test_no_shape_in_common_is_d() -> None:
    other = with_value(measured(), "results", [cell("codegen")])
    assert against(measured(), other).reason == "no shape in common"
    assert against(measured(), with_value(measured(), "results", [])).grade == "D"


def test_invalid_results_are_not_compared_and_that_is_said() -> None:
    results = [cell("chat"), cell("rag", valid=False), cell("agent")]
    found = against(measured(), with_value(measured(), "results", results))
    by_shape = {pair.shape: pair for pair in found.pairs}
    assert by_shape["rag"].comparable == "invalid"
    assert by_shape["rag"].figures[0].ratio.value is None
    assert by_shape["chat"].figures[0].ratio.value == 1
    assert found.grade == "A"
    assert found.notes == ("invalid results are not compared: rag × 1",)
    assert found.means == ()
    alone = with_value(measured(), "results", [cell("chat", valid=False)])
    assert against(measured(), alone).reason == "no shape with a valid result on both sides"


@pytest.mark.parametrize(
    ("here", "there", "same"),
    [(64, 64, True), (64, 68, True), (64, 69, False), (4096, 4170, True), (4096, 4190, False)],
)
def test_prompts_of_another_length_are_another_shape(here: int, there: int, same: bool) -> None:
    """A chat template of its own length makes the prompts of one model longer."""
    one, other = (
        with_value(measured(), "results", [cell("chat", prompt_tokens=n)]) for n in (here, there)
    )
    for pair in ((one, other), (other, one)):
        found = against(*pair)
        assert found.pairs[0].comparable == ("yes" if same else "other_length")
        assert found.pairs[0].same_shape == ("same" if same else "differs")
        if not same:
            assert found.reason == "prompts of another length under the same shape name"
            assert found.notes == ("prompts of another length are not compared: chat × 1",)


def test_unknown_prompts_are_never_ours() -> None:
    ours = with_value(transcribed(), "results", [cell("chat"), cell("rag")])
    found = against(transcribed(), ours)
    assert found.grade == "C"
    assert "the prompts are not known to be the same" in found.notes
    assert found.means == ()


def test_published_figures_are_compared_with_those_of_their_source_alone() -> None:
    other = with_value(transcribed(), "rig.id", "another")
    found = against(transcribed(), other)
    assert found.grade == "C"
    assert "an API label is not confirmed by its engine" in found.notes
    assert {m.verdict for m in found.means} <= {"valid", "unverified"}
    from_elsewhere = with_value(other, "provenance.source", "another page")
    assert against(transcribed(), from_elsewhere).reason == "the methodology is not known for both"
    assert against(transcribed(), measured()).grade == "D"
    # What its page does not tell of the settings is not taken for equal.
    model = with_value(transcribed(), "model.variant", "E4B-it")
    assert against(transcribed(), model).grade == "D"


def test_marks_travel_with_the_figures() -> None:
    doubted = cell("chat").model_copy(
        update={"validity": Validity(verdict="unverified", unverified=["no_rate"])}
    )
    results = [doubted, cell("rag")]
    found = against(
        with_value(measured(), "results", [cell("chat"), cell("rag")]),
        with_value(measured(), "results", results),
    )
    pair = found.as_dict()["pairs"][0]
    assert (pair["verdicts"], pair["codes"]) == (["valid", "unverified"], [[], ["no_rate"]])
    assert pair["figures"][0]["ratio"]["value"] == 1
    assert {mean.verdict for mean in found.means} == {"unverified"}
    broken = with_value(measured(), "results", [cell("chat", valid=False), cell("rag")])
    pair = against(measured(), broken).as_dict()["pairs"][0]
    assert (pair["verdicts"], pair["codes"]) == (["valid", "invalid"], [[], ["cached_tokens"]])


def test_prefill_rates_of_two_sources_have_no_ratio() -> None:
    derived = [cell("chat", prefill_source="ttft_derived")]
    found = against(measured(), with_value(measured(), "results", derived))
    by_metric = {figure.metric: figure for figure in found.pairs[0].figures}
    assert by_metric["prefill_tok_per_s"].ratio.value is None
    assert by_metric["output_tok_per_s"].ratio.value == 1


def test_means_need_the_same_shapes_all_valid() -> None:
    other = with_value(measured(), "results", [cell("chat", speed=200.0), cell("rag", speed=50.0)])
    found = against(with_value(measured(), "results", [cell("chat"), cell("rag")]), other)
    by_metric = {mean.metric: mean for mean in found.means}
    assert by_metric["output_tok_per_s"].value == pytest.approx(1)
    assert by_metric["output_tok_per_s"].shapes == 2
    assert against(measured(), other).means == ()  # three shapes against two


# As JSON


def test_as_dict_is_json() -> None:
    found = against(measured(), elsewhere()).as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["class"] == "B"
    assert found["pairs"][0]["figures"][0]["ratio"]["verdict"] == "not_distinguishable"
    assert json.loads(json.dumps(rules())) == json.loads(json.dumps(rules(), allow_nan=False))


@pytest.mark.parametrize("median", [-1.0, 0.0])
def test_figures_that_are_no_rates_are_left_out(median: float) -> None:
    odd = cell("chat").model_copy(update={"output_tok_per_s": Summary(median=median)})
    data = subject(with_value(measured(), "results", [odd])).as_dict()
    assert data["cells"][0]["figures"]["output_tok_per_s"] is None
    assert json.dumps(data, allow_nan=False)


def test_a_run_script_is_one_call_that_nothing_can_end() -> None:
    hostile = "</script><script>alert(1)//\u2028\u2029\u202e'\"\\"
    record = with_value(measured(), "model.family", hostile)
    text = run_script(Run(record, "a/b.yaml", "0")).decode("ascii")
    assert text.startswith("tokrig.run({") and text.endswith("});\n")
    assert "<" not in text and text.count("\n") == 1
    data = json.loads(text[len("tokrig.run(") : -len(");\n")])
    assert data.pop("lines").keys() == {"1~chat", "1~rag", "1~agent"}
    assert data.pop("link") == short_address(record.id)
    assert data.pop("title")
    assert data.pop("newest")["path"].endswith(f"/{record.rig.id}.svg")
    assert data == subject(record).as_dict()
