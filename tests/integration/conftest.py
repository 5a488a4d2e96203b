"""What integration tests share: a small model for a real engine, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.shallow import write_shallow


@pytest.fixture(scope="session")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file that computes fast and answers nonsense: see :mod:`tests.integration.shallow`."""
    path = tmp_path_factory.mktemp("models") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    write_shallow(path)
    return path
