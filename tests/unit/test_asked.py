"""What was asked for against what the engine read back."""

from __future__ import annotations

from typing import Any

import pytest

from tokrig.record.conditions import ignored, untold
from tokrig.record.model import BackendFacts, Resolved


def facts(asked: dict[str, Any], **resolved: Any) -> BackendFacts:
    return BackendFacts(name="x", engine="x", asked=asked, resolved=Resolved(**resolved))


@pytest.mark.parametrize(
    ("asked", "resolved"),
    [
        ({"threads": 4}, {"threads": 4}),
        # llama.cpp makes a context a multiple of 256.
        ({"context_per_slot": 5000}, {"context_per_slot": 5120}),
        ({"cache_type_k": "q8_0"}, {"cache_type_k": "q8_0"}),
        ({"cache_type_k": "fp8"}, {"cache_type_k": "fp8_e4m3"}),
        ({"flash_attention": "enabled"}, {"flash_attention": "enabled"}),
        # No batch is longer than the context, and no part of it longer than the batch.
        ({"batch": 4096}, {"batch": 1024, "context_total": 1024}),
        ({"ubatch": 4096}, {"ubatch": 1024, "batch": 1024}),
        # People write 99 for all layers.
        ({"gpu_layers": 99}, {"gpu_layers": 33, "layers": 33}),
        ({"gpu_layers": 0}, {"gpu_layers": 0, "layers": 33}),
        ({"dtype": "half"}, {"dtype": "float16"}),
        ({"dtype": "bfloat16"}, {"dtype": "torch.bfloat16"}),
        ({"quantization": "awq"}, {"quantization": "awq_marlin"}),
        ({"devices": "CUDA1,CUDA0"}, {"devices": ["CUDA0", "CUDA1"]}),
        ({"tensor_parallel": "2"}, {"tensor_parallel": 2}),
        ({}, {"threads": 2}),
    ],
)
def test_what_was_done_as_asked(asked: dict[str, Any], resolved: dict[str, Any]) -> None:
    assert ignored(facts(asked, **resolved)) == {}
    assert untold(facts(asked, **resolved)) == []


@pytest.mark.parametrize(
    ("asked", "resolved", "says"),
    [
        ({"threads": 1}, {"threads": 2}, "1 asked, 2 used"),
        ({"context_per_slot": 5000}, {"context_per_slot": 4864}, "5000 asked, 4864 used"),
        ({"context_per_slot": 4096}, {"context_per_slot": 16384}, "4096 asked, 16384 used"),
        ({"cache_type_k": "q8_0"}, {"cache_type_k": "f16"}, "q8_0 asked, f16 used"),
        ({"cache_type_k": "q4_0"}, {"cache_type_k": "q4_1"}, "q4_0 asked, q4_1 used"),
        (
            {"flash_attention": "enabled"},
            {"flash_attention": "disabled"},
            "enabled asked, disabled used",
        ),
        ({"batch": 4096}, {"batch": 512, "context_total": 1024}, "4096 asked, 512 used"),
        ({"gpu_layers": 99}, {"gpu_layers": 30, "layers": 33}, "99 asked, 30 used"),
        ({"devices": "CUDA1"}, {"devices": ["CUDA0"]}, "CUDA1 asked, CUDA0 used"),
        ({"dtype": "float16"}, {"dtype": "torch.bfloat16"}, "float16 asked, torch.bfloat16 used"),
    ],
)
def test_a_wish_that_was_ignored_is_named(
    asked: dict[str, Any], resolved: dict[str, Any], says: str
) -> None:
    assert ignored(facts(asked, **resolved)) == {next(iter(asked)): says}


def test_what_an_engine_does_not_read_back_is_not_taken_for_done() -> None:
    given = {"threads": 4, "devices": "CUDA0", "cache_type_k": "q8_0"}
    assert untold(facts(given)) == ["threads", "devices", "cache_type_k"]
    assert ignored(facts(given)) == {}
