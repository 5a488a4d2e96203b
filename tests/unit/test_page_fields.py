"""Every field of a record that may be missing is listed with its unit once it is there."""

from __future__ import annotations

import pytest

from tests.unit.compared import measured, speculating, with_value
from tokrig.record.model import Greedy, LoadMemory, Record, ServerTimings, Speculative
from tokrig.site.pages.run import Field, blocks

GIB = 1024**3


def told() -> Record:
    """A record that has all there is to tell of an engine, its mode and its memory."""
    record = speculating(
        name="draft",
        speculative="draft",
        draft_model="tiny-q4_1.gguf",
        draft_tokens=5,
        reasoning_switch="enable_thinking=false",
    )
    record = with_value(record, "load_memory", LoadMemory(gpu_before_bytes=0, gpu_after_bytes=GIB))
    record = with_value(record, "model.base_model", "owner/base")
    record = with_value(record, "backend.wrapper", "lemonade 11.7.0")
    record = with_value(record, "backend.bypass", "gave up after 60 s")
    memory = {"CUDA0": 2 * GIB, "CPU": 512 * 1024**2}
    record = with_value(record, "backend.resolved.device_bytes", memory)
    record = with_value(record, "backend.resolved.prefix_caching", False)
    result = record.results[0].model_copy(
        update={
            "speculative": Speculative(
                drafted_tokens=100, accepted_tokens=52, steps=26, acceptance_length=3.0
            ),
            "greedy": Greedy(
                compared_characters=400,
                same=False,
                first_divergence_characters=120,
                first_divergence_tokens=31,
            ),
            "counters": {"output_tokens": 384.0, "decode_s": 2.25},
            "server": ServerTimings(source="counters"),
        }
    )
    return with_value(record, "results", [result])


def fields_of(record: Record) -> dict[str, Field]:
    return {
        f"{'result' if block.is_result else block.title}: {field.name}": field
        for block in blocks(record)
        for field in block.fields
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model: base_model", "owner/base"),
        ("backend: wrapper", "lemonade 11.7.0"),
        ("backend: bypass", "gave up after 60 s"),
        (
            "backend: resolved.device_bytes",
            "CUDA0: 2147483648 (2.1 GB), CPU: 536870912 (0.54 GB)",
        ),
        ("backend: resolved.prefix_caching", "no"),
        ("mode: draft_model", "tiny-q4_1.gguf"),
        ("mode: draft_tokens", "5"),
        ("mode: reasoning_switch", "enable_thinking=false"),
        ("load_memory: gpu_before_bytes", "0 (0 B)"),
        ("load_memory: gpu_after_bytes", "1073741824 (1.1 GB)"),
        ("load_memory: engine_rss_bytes", "not known"),
        ("result: speculative.steps", "26"),
        ("result: speculative.acceptance_length", "3.0"),
        ("result: greedy.same", "no"),
        ("result: greedy.first_divergence_tokens", "31"),
        ("result: counters", "output_tokens: 384.0, decode_s: 2.25"),
        ("result: server.source", "counters"),
    ],
)
def test_what_a_run_page_lists(name: str, text: str) -> None:
    assert fields_of(told())[name].text == text


def test_what_an_older_record_lacks_is_not_known() -> None:
    fields = fields_of(measured())
    for name in ("run: load_memory", "backend: api_asked", "mode: draft_tokens", "result: greedy"):
        assert (fields[name].text, fields[name].known) == ("not known", False)
    assert fields["backend: resolved.device_bytes"].text == "none"
