"""llama.cpp's own ``llama-quantize``: what it makes is what it is asked for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.engines.conftest import PATIENT
from tokrig.errors import EngineError
from tokrig.models import identity, shelf
from tokrig.run import quantize

# SmolLM2's rows have 576 elements, which blocks of 256 do not fill: of these quants, made of
# blocks of 32, all but the embedding are what the label says.
WHOLE = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
MIXED = ("Q6_K", "Q4_K_M")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu_build: Path, smollm2: Path) -> Path:
    """An F16 of the catalog's model, and a shelf of its own."""
    for name, value in PATIENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(quantize.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "SmolLM2-135M-Instruct-F16.gguf"
    tool = str(cpu_build / quantize.PROGRAM)
    command = (tool, "--allow-requantize", str(smollm2), str(path), "F16")
    subprocess.run(command, check=True, capture_output=True)
    return path


def test_every_quant_is_labelled_as_it_was_asked_for(source: Path, cpu_build: Path) -> None:
    sizes = []
    for quant in (*WHOLE, *MIXED):
        shares: list[float] = []
        path = quantize.made(
            source,
            quant,
            server_bin=str(cpu_build / "llama-server"),
            tell=lambda text, share: shares.append(share or 0.0),  # noqa: B023
        )
        model = identity.identify(path)
        assert (model.quant, model.quant_creator) == (quant, identity.MADE_HERE)
        assert (model.family, model.variant) == ("SmolLM2", "135M-Instruct")
        assert model.quantized_from is not None
        assert model.quantized_from.tool == "llama-quantize b11434"
        assert shares[-1] == 1.0
        assert len(shares) > 200, "a step a tensor"
        if quant in WHOLE:
            assert (model.tensor_types or {})[quant] >= 210
            sizes.append(model.bytes or 0)
    assert sizes == sorted(sizes, reverse=True)
    assert len(shelf.entries()) == len(WHOLE) + len(MIXED)


def test_what_needs_an_importance_matrix_says_so(source: Path, cpu_build: Path) -> None:
    with pytest.raises(EngineError, match="requires an imatrix") as caught:
        quantize.made(source, "IQ2_XS", server_bin=str(cpu_build / "llama-server"))
    assert caught.value.code == "quantize_failed"
    assert shelf.entries() == []
