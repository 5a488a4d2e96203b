"""What a model's answers are worth, through the real command line and the real engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli import Home
from tokrig.store import Store

pytestmark = pytest.mark.engine
PATIENT = {"OMP_WAIT_POLICY": "passive"}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    assert home.no_engines_left(), "an engine outlived its run"


def test_a_second_run_is_held_against_the_first(home: Home, shallow: Path) -> None:
    words = ("--model", str(shallow), "--workload", "chat", "--quality", "--even-if-busy")
    for _ in range(2):
        done = home.tokrig("run", *words, env=PATIENT)
        assert done.code == 0, done.err
    assert "checking answers, 24 of 24" in done.err
    first, second = home.records()
    assert first["quality"]["not_compared"] == "no_reference"
    told = second["quality"]
    assert told["reference"]["id"] == first["id"]
    assert told["reference"]["quant"] == first["model"]["quant"]
    # The same file on the same build: the same but for rounding, which what is cached changes.
    assert told["top1_agreement"]["value"] >= 0.99
    assert told["kl_nats"]["value"] < 1e-3
    assert told["positions"] > 24 * 20
    assert home.checks()
    assert re.search(
        r"answers: 0\.\d % .* of tokens differ", home.in_process("show", second["id"]).out
    )
    compared = json.loads(home.in_process("compare", first["id"], second["id"], "--json").out)
    assert "B against A: 0." in json.dumps(compared, ensure_ascii=False)
    # Nothing of it is among the samples, and nothing of this machine in the file.
    samples = Store(home.content).read_samples(second["id"])
    assert {sample.workload for sample in samples} == {"chat"}
    file = Store(home.content).answers_path(second["id"]).read_bytes()
    assert str(Path.home()).encode() not in file

    path = home.record_paths()[1]
    honest = path.read_text()
    path.write_text(re.sub(r"(positions: )\d+", r"\g<1>7", honest))
    refused = home.in_process("check", str(path))
    assert refused.code == 1
    assert re.search(rf"{path.name}:\d+: quality.positions is 7, the answers give", refused.out)
    path.write_text(honest)
    Store(home.content).answers_path(second["id"]).unlink()
    refused = home.in_process("check", str(path))
    assert refused.code == 1
    assert "no answers of run" in refused.out
