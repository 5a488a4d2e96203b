"""Draft models: which can draft for which, and why not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.unit.model_folder import model_folder
from tests.unit.test_gguf import Meta, gguf
from tokrig.models.catalog import resolve
from tokrig.models.needs import draft_mismatch

WORDS = [f"w{n}" for n in range(200)]


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("draft")))
        path = resolve("gemma-3-270m")
        yield path
        path.unlink()


def vocabulary(
    path: Path, words: Sequence[str] = WORDS, facts: dict[str, Meta] | None = None
) -> Path:
    keys: dict[str, Meta] = {"model": "gpt2", "tokens": [*words], **(facts or {})}
    path.write_bytes(gguf({f"tokenizer.ggml.{key}": value for key, value in keys.items()}))
    return path


def test_the_real_models_do_not_fit_each_other(gemma: Path) -> None:
    smollm2 = resolve("smollm2-135m")
    start = time.process_time()
    assert draft_mismatch(smollm2, gemma) == "its tokenizer is SPM, the model's BPE"
    assert draft_mismatch(gemma, smollm2) == "its tokenizer is BPE, the model's SPM"
    assert draft_mismatch(smollm2, smollm2) is None
    assert time.process_time() - start < 10  # 2 s on an idle machine


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (WORDS, None),
        (WORDS + [f"x{n}" for n in range(128)], None),
        (WORDS + [f"x{n}" for n in range(129)], "its vocabulary has 329 tokens, the model's 200"),
        (["a", "b", "c", "d", "e", *WORDS[5:]], None),
        ([*WORDS[:5], "five", *WORDS[6:]], "token 5 is 'five' there, 'w5' in the model"),
    ],
)
def test_sizes_and_tokens(tmp_path: Path, words: list[str], reason: str | None) -> None:
    model = vocabulary(tmp_path / "model.gguf")
    assert draft_mismatch(model, vocabulary(tmp_path / "draft.gguf", words)) == reason


@pytest.mark.parametrize(
    ("mine", "its", "reason"),
    [
        ({}, {"model": "gemma4", "bos_token_id": 2}, "begins texts with token 2"),
        ({"model": "gpt2"}, {"model": "whitespace"}, None),
        ({"model": "llama"}, {"model": "llama", "bos_token_id": 1}, None),
        ({"model": "llama"}, {"model": "llama", "bos_token_id": 3}, "begins texts with token 3"),
        ({"model": "llama"}, {"model": "llama", "bos_token_id": 900}, None),
        ({"add_bos_token": True}, {"add_bos_token": False}, "the model with token 11"),
        ({"pre": "llama-bpe"}, {"pre": "smollm"}, "begins texts with no special token"),
        ({"add_eos_token": True, "eos_token_id": 2}, {}, "ends texts with no special token"),
        # llama.cpp overrides what the first Gemma 4 files say.
        (
            {"model": "gemma4", "bos_token_id": 2, "add_bos_token": False},
            {"model": "gemma4", "bos_token_id": 2, "add_bos_token": True},
            None,
        ),
        ({"bos_token_id": 1}, {"bos_token_id": 2}, None),
    ],
)
def test_special_tokens(
    tmp_path: Path, mine: dict[str, Meta], its: dict[str, Meta], reason: str | None
) -> None:
    model = vocabulary(tmp_path / "model.gguf", facts=mine)
    found = draft_mismatch(model, vocabulary(tmp_path / "draft.gguf", facts=its))
    assert found is None if reason is None else reason in str(found)


def tokenizer(folder: Path, words: Sequence[str], size: int | None = None) -> Path:
    vocab = {word: number for number, word in enumerate(words[:-1])}
    added = [{"id": len(words) - 1, "content": words[-1]}]
    told = {"model": {"type": "BPE", "vocab": vocab}, "added_tokens": added}
    config = {"vocab_size": len(words) if size is None else size}
    return model_folder(folder, config=config, files={"tokenizer.json": json.dumps(told)})


def test_folders(tmp_path: Path) -> None:
    model = tokenizer(tmp_path / "model", WORDS)
    assert draft_mismatch(model, tokenizer(tmp_path / "same", WORDS)) is None
    shorter = tokenizer(tmp_path / "shorter", WORDS[:-1])
    assert draft_mismatch(model, shorter) == "its vocabulary has 199 tokens, the model's 200"
    padded = tokenizer(tmp_path / "padded", WORDS[:-1], size=200)
    assert draft_mismatch(model, padded) is None
    other = tokenizer(tmp_path / "other", ["other", *WORDS[1:-1], "end"])
    assert draft_mismatch(model, other) == "token 0 is 'other' there, 'w0' in the model"
    added = tokenizer(tmp_path / "added", [*WORDS[:-1], "end"])
    assert draft_mismatch(model, added) == "token 199 is 'end' there, 'w199' in the model"
    (other / "tokenizer.json").unlink()
    assert draft_mismatch(model, other) is None


def test_pieces_with_scores_are_a_vocabulary_too(tmp_path: Path) -> None:
    def unigram(name: str, words: Sequence[str]) -> Path:
        told = {"model": {"type": "Unigram", "vocab": [[word, -1.5] for word in words]}}
        files = {"tokenizer.json": json.dumps(told)}
        return model_folder(tmp_path / name, config={"vocab_size": 2}, files=files)

    model = unigram("model", ["a", "b"])
    assert draft_mismatch(model, unigram("same", ["a", "b"])) is None
    assert "token 1" in str(draft_mismatch(model, unigram("other", ["a", "c"])))
    bpe = tokenizer(tmp_path / "bpe", ["a", "b"])
    assert draft_mismatch(model, bpe) == "its tokenizer is BPE, the model's Unigram"


def test_a_file_does_not_draft_for_a_folder(tmp_path: Path) -> None:
    folder, file = model_folder(tmp_path / "m"), vocabulary(tmp_path / "m.gguf")
    assert "no engine loads both" in str(draft_mismatch(folder, file))
    assert "no engine loads both" in str(draft_mismatch(file, folder))
