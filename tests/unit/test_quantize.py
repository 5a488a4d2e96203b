"""Quants made here: found tools, refused sources, and that no half file or process stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.unit import quantize_tool
from tests.unit.test_gguf import TensorSpec, gguf
from tokrig.errors import EngineError, InputError, ModelError, StoreError, TokrigError
from tokrig.models import identity, shelf
from tokrig.run import quantize

META = {
    "general.architecture": "llama",
    "general.basename": "Tiny",
    "general.size_label": "1M",
    "general.quantized_by": "Somebody",
}
F16: TensorSpec = ("output.weight", (256, 4), 1, 2048)
Q8_0: TensorSpec = ("output.weight", (256, 4), 8, 1088)
Q4_0: TensorSpec = ("output.weight", (256, 4), 2, 576)
SOURCES = {"F16": (1, F16), "Q8_0": (7, Q8_0), "Q4_0": (2, Q4_0), "F32": (0, F16)}


@dataclass
class Place:
    """A cache of its own, a source, and the stand-in as the only tool on the PATH."""

    folder: Path
    told: list[tuple[str, float | None]] = field(default_factory=list)

    def source(self, quant: str = "F16", *more: TensorSpec) -> Path:
        number, tensor = SOURCES[quant]
        path = self.folder / f"Tiny-1M-{quant}.gguf"
        path.write_bytes(gguf({**META, "general.file_type": number}, (tensor, *more)))
        return path

    def tell(self, text: str, share: float | None) -> None:
        self.told.append((text, share))

    def made(
        self, quant: str = "Q8_0", source: Path | None = None, server: Path | None = None
    ) -> Path:
        return quantize.made(
            source or self.source(),
            quant,
            server_bin=str(server) if server else None,
            tell=self.tell,
        )

    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def files(self) -> list[str]:
        """All that lies among the files made here."""
        made = self.folder / "cache" / "tokrig" / "models" / "made"
        return sorted(path.name for path in made.rglob("*") if path.is_file())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    quantize_tool.put(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("QUANTIZE_CALLS", str(tmp_path / "calls"))
    monkeypatch.delenv(quantize.VARIABLE, raising=False)
    return Place(tmp_path)


def ended(pid: int, within_s: float = 60) -> bool:
    deadline = time.monotonic() + within_s
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not psutil.pid_exists(pid)


def pid_of_the_tool(place: Place) -> int:
    path = place.folder / "pid"
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, "the tool was not started"
        time.sleep(0.02)
    return int(path.read_text())


# Made


def test_a_quant_is_made_told_and_marked(place: Place) -> None:
    path = place.made()
    assert path.name == "Tiny-1M-Q8_0-b11434.gguf"
    model = identity.identify(path)
    assert (model.family, model.variant, model.quant) == ("Tiny", "1M", "Q8_0")
    assert model.quant_creator == "made here", "not whoever made the source"
    source = identity.identify(place.source())
    assert (source.quant_creator, source.quantized_from) == ("Somebody", None)
    assert model.quantized_from is not None
    assert model.quantized_from.model_dump() == {
        "file": "Tiny-1M-F16.gguf",
        "sha256": source.sha256,
        "quant": "F16",
        "tool": "llama-quantize b11434",
    }
    assert {text for text, _ in place.told} == {"making Q8_0 of Tiny-1M-F16.gguf"}
    shares = [share for _, share in place.told if share is not None]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert 0 < shares[0] < 0.01
    assert not [name for name in place.files() if name.endswith(".part")]


def test_it_is_made_once(place: Place) -> None:
    assert place.made() == place.made("q8_0")
    assert len(place.calls()) == 1


def test_another_build_makes_its_own_beside_it(place: Place) -> None:
    server = place.folder / "b9000" / "llama-server"
    quantize_tool.put(server.parent, "9000")
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    first, second = place.made(), place.made(server=server)
    assert [path.name for path in (first, second)] == [
        "Tiny-1M-Q8_0-b11434.gguf",
        "Tiny-1M-Q8_0-b9000.gguf",
    ]
    assert place.made() == first
    assert len(place.calls()) == 2
    made = identity.identify(second).quantized_from
    assert made is not None
    assert made.tool == "llama-quantize b9000"


def test_an_alias_makes_the_quant_it_stands_for(place: Place) -> None:
    assert place.made("q4_k").name == "Tiny-1M-Q4_K_M-b11434.gguf"


def test_from_q8_0_the_record_tells(place: Place) -> None:
    made = identity.identify(place.made("Q4_0", place.source("Q8_0"))).quantized_from
    assert made is not None
    assert made.tool == "llama-quantize b11434 --allow-requantize"
    assert place.calls()[0][0] == "--allow-requantize"


def test_the_source_stays_on_the_shelf_meanwhile(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that was made here too, and would be evicted first for room."""
    source = place.made("F16", place.source("F32", ("more.weight", (256, 64), 0, 65536)))
    held: list[bool] = []

    def tell(text: str, share: float | None) -> None:
        held.extend(entry.in_use for entry in shelf.entries() if entry.path == source)

    quantize.made(source, "Q8_0", server_bin=None, tell=tell)
    assert held
    assert all(held)


# Tools


def test_the_users_own_choice_comes_first_then_the_servers_build(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = place.folder / "b9000" / "llama-server"
    beside = quantize_tool.put(server.parent, "9000")
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    assert quantize.how(place.source(), "Q8_0", str(server)).tool.binary == str(beside)
    chosen = quantize_tool.put(place.folder / "chosen", "9001")
    monkeypatch.setenv(quantize.VARIABLE, str(chosen))
    making = quantize.how(place.source(), "Q8_0", str(server))
    assert (making.tool.binary, making.tool.build) == (str(chosen), "b9001")


def test_without_a_tool_it_is_told_how_to_get_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(place.folder))
    with pytest.raises(InputError, match="no runnable llama-quantize beside") as caught:
        place.made()
    assert "TOKRIG_LLAMA_QUANTIZE" in caught.value.hint
    monkeypatch.setenv(quantize.VARIABLE, "nowhere/quantize")
    with pytest.raises(InputError, match="at 'nowhere/quantize', which TOKRIG_LLAMA_QUANTIZE"):
        place.made()


def test_another_program_is_told_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(quantize.VARIABLE, "/bin/true")
    with pytest.raises(InputError, match="is no llama-quantize"):
        place.made()


@pytest.mark.parametrize("said", ["main: build = 4567 (deadbeef)", "version: 4567 (x)", ""])
def test_builds_are_read_as_older_ones_print_them(
    place: Place, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    program = place.folder / "older"
    program.write_text(f"#!/bin/sh\necho '{said}'\necho '   7  or  Q8_0    :  7.96G'\n")
    program.chmod(0o755)
    monkeypatch.setenv(quantize.VARIABLE, str(program))
    making = quantize.how(place.source(), "Q8_0", None)
    known = "build" in said
    assert making.tool.build == ("b4567" if known else None)
    assert making.quantized_from.tool == "llama-quantize" + (" b4567" if known else "")


# Refused


@pytest.mark.parametrize("quant", ["Q4_KM", "Q9_0", "COPY", ""])
def test_an_unknown_quant_names_the_known_ones(place: Place, quant: str) -> None:
    with pytest.raises(InputError, match=f"cannot make {quant!r}") as caught:
        place.made(quant)
    assert "Q5_K_M" in caught.value.hint
    assert ("did you mean 'Q4_K_M'?" in caught.value.hint) == (quant == "Q4_KM")


@pytest.mark.parametrize(
    ("source", "quant", "says"),
    [
        ("Q4_0", "Q8_0", "holds Q4_0, not enough precision to make a Q8_0"),
        ("Q4_0", "Q2_K", "holds Q4_0, not enough precision"),
        ("F16", "F32", "holds no more than F32"),
        ("F16", "BF16", "holds no more than BF16"),
        ("Q8_0", "Q8_0", "holds no more than Q8_0"),
        ("Q8_0", "F16", "holds no more than F16"),
    ],
)
def test_a_source_must_hold_more_than_the_quant(
    place: Place, source: str, quant: str, says: str
) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        place.made(quant, place.source(source))
    assert caught.value.hint
    assert place.calls() == []


def test_one_tensor_of_less_is_enough_to_refuse(place: Place) -> None:
    source = place.source("F16", ("token_embd.weight", (256, 4), 2, 576))
    with pytest.raises(ModelError, match="holds Q4_0"):
        place.made("Q4_0", source)


def test_a_folder_of_safetensors_is_no_source(place: Place) -> None:
    with pytest.raises(ModelError, match="quants are made from GGUF files") as caught:
        place.made(source=place.folder)
    assert "convert_hf_to_gguf.py" in caught.value.hint


# Failures


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("imatrix", "could not make Q8_0 of Tiny-1M-F16.gguf: this quantization requires an"),
        ("another", "did not make Q8_0 of Tiny-1M-F16.gguf but Q4_1"),
        ("half", "did not make Q8_0"),
    ],
)
def test_a_tool_that_fails_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, fault: str, says: str
) -> None:
    monkeypatch.setenv("QUANTIZE_FAULT", fault)
    with pytest.raises(EngineError, match=says) as caught:
        place.made()
    assert caught.value.code == "quantize_failed"
    assert caught.value.hint
    assert fault != "imatrix" or "requires an imatrix" in caught.value.log_tail.splitlines()[-1]
    assert place.files() == []
    monkeypatch.delenv("QUANTIZE_FAULT")
    assert place.made().exists()


def test_a_tool_that_failed_on_a_full_disk(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool itself says only that its stream failed."""
    monkeypatch.setenv("QUANTIZE_FAULT", "imatrix")
    monkeypatch.setattr(quantize, "LEAST_FREE_BYTES", 1 << 62)
    with pytest.raises(StoreError, match="no space left to make Q8_0") as caught:
        place.made()
    assert caught.value.code == "disk_full"
    assert place.files() == []


def test_no_room_is_told_before_the_tool_is_started(place: Place) -> None:
    with pytest.raises(StoreError) as caught:
        quantize.made(place.source(), "Q8_0", server_bin=None, budget_bytes=100)
    assert caught.value.code == "disk_full"
    assert place.calls() == []


def test_an_interruption_ends_the_tool(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTIZE_FAULT", "slow")

    def interrupted(text: str, share: float | None) -> None:
        if share == 1.0:
            pid_of_the_tool(place)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize.made(place.source(), "Q8_0", server_bin=None, tell=interrupted)
    assert ended(pid_of_the_tool(place))
    assert place.files() == []


def test_kill_9_ends_the_tool_and_the_next_one_sweeps_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys; from pathlib import Path; from tokrig.run import quantize;"
        "quantize.made(Path(sys.argv[1]), 'Q8_0', server_bin=None)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(place.source())],
        env={**os.environ, "QUANTIZE_FAULT": "slow"},
    )
    tool = pid_of_the_tool(place)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ended(tool)
    [left] = place.files()
    assert left.startswith(".Tiny-1M-Q8_0-b11434.gguf.")
    path = place.made()
    assert sorted(place.files()) == [path.name, f"{path.name}.tokrig.json"]


def test_a_cache_that_cannot_be_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = place.folder / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with pytest.raises(TokrigError) as caught:
        place.made()
    assert caught.value.hint
    assert place.calls() == []
