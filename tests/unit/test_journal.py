"""What was measured survives: torn lines, dead processes, full disks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.samples import sample
from tokrig.errors import InputError, StoreError
from tokrig.record.samples import Cell
from tokrig.run import journal
from tokrig.run.journal import CellRecord, Observed

CHAT = Cell("chat", 1, depth_tokens=4096, load="poisson", rate_per_s=0.5)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKRIG_STATE", str(tmp_path))
    return tmp_path


def cell(repeat: int = 0) -> CellRecord:
    seen = Observed(wall_s=1.5, client_cpu_share=0.01, energy_j={"gpu": 3.0})
    return CellRecord(CHAT, repeat, [sample(repeat=repeat), sample(error="x")], seen)


def test_what_goes_in_comes_out() -> None:
    with journal.begin("run-a") as book:
        book.describe({"spec": {}})
        book.add(cell(0))
        book.add(cell(1))
        assert book.cells() == [cell(0), cell(1)]


def test_a_torn_last_line_costs_only_its_own_cell(own_state: Path) -> None:
    with journal.begin("run-a") as book:
        book.describe({})
        book.add(cell(0))
        book.add(cell(1))
    path = own_state / "runs" / "run-a" / "cells.jsonl"
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for cut in (second, second + 1, len(whole) - 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with journal.reopen("run-a") as book:
            assert book.cells() == [cell(0)]
            book.add(cell(2))
            assert book.cells() == [cell(0), cell(2)]


def test_a_run_in_progress_is_not_unfinished_and_cannot_be_reopened() -> None:
    with journal.begin("run-a") as book:
        book.describe({})
        assert journal.unfinished() == []
    assert journal.unfinished() == ["run-a"]
    with pytest.raises(InputError, match="no unfinished run 'run-b'"), journal.reopen("run-b"):
        pass


def test_a_killed_process_leaves_its_run_to_be_resumed(own_state: Path) -> None:
    code = (
        "import sys, time; from tokrig.run import journal\n"
        "with journal.begin('run-k') as book:\n"
        "    book.describe({'a': 1}); print('ready', flush=True); time.sleep(600)\n"
    )
    env = {**os.environ, "TOKRIG_STATE": str(own_state)}
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"ready\n"
        assert journal.unfinished() == []
        child.kill()
        child.wait()
    assert journal.unfinished() == ["run-k"]
    with journal.reopen("run-k") as book:
        assert book.facts() == {"a": 1}
        book.discard()
    assert journal.unfinished() == []


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    """A real limit: the process may write no file larger than 4 KiB."""
    code = (
        "import resource, signal; from tokrig.run import journal\n"
        "from tests.unit.test_journal import cell\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with journal.begin('run-f') as book:\n"
        "    book.describe({}); book.add(cell(0))\n"
        "    size = (book.folder/'cells.jsonl').stat().st_size\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, size + 10))\n"
        "    try: book.add(cell(1))\n"
        "    except Exception as e: print(type(e).__name__, e.message, '|', e.hint)\n"
        "    assert book.cells() == [cell(0)]\n"
        "    book.mend(); print(book.cells() == [cell(0)])\n"
    )
    env = {**os.environ, "TOKRIG_STATE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("StoreError cannot write")
    assert "TOKRIG_STATE" in first
    assert second == "True"


def test_a_state_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    monkeypatch.setenv("TOKRIG_STATE", str(blocker / "below"))
    with pytest.raises(StoreError, match="cannot write"), journal.begin("run-a"):
        pass


def test_a_folder_that_never_said_what_it_is_vanishes(own_state: Path) -> None:
    with journal.begin("run-nameless"):
        pass
    folder = own_state / "runs" / "run-nameless"
    with journal.begin("run-b") as book:
        book.discard()
    assert folder.exists(), "it may belong to a process that is just starting"
    os.utime(folder, (0, 0))
    with journal.begin("run-a") as book:
        book.describe({})
    assert journal.unfinished() == ["run-a"]
    assert not folder.exists()
