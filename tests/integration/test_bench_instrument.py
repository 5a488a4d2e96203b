"""bench/instrument: the server's stamps are the truth, so they and what reads them are tried; the
C client and tokrig's own row run for real against it."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.instrument.__main__ import PEERS, Bench, main
from bench.instrument.loads import CEILING, LOADS, STALLS, Load, compiled, read_log, serving
from bench.instrument.peers import Job
from bench.instrument.series import Series
from bench.processes import Used, cores

SMALL = Load("small", "4 streams", 4, 60, 0.002, stall_every=20, stall_s=0.01)


@pytest.fixture(autouse=True)
def processors() -> Iterator[None]:
    """What may be used is as before afterwards."""
    allowed = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, allowed)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    for name in ("server", "client", "launch"):
        compiled(name, folder)
    return folder


def sent(programs: Path, name: str, load: Load, folder: Path) -> Job:
    folder.mkdir(exist_ok=True)
    core = min(os.sched_getaffinity(0))
    with serving(programs / "server", load, folder / "truth.bin", core) as port:
        job, peer = Job(load, port, folder, folder), PEERS[name]
        argv = [*peer.program(programs), *peer.arguments(job)]
        used = Used.of(programs / "launch", argv, peer.settings, folder, core)
    assert 0 < used.cpu_s < 60
    assert used.peak_bytes > 1 << 20
    return job


@pytest.mark.parametrize("name", ["c", "tokrig"])
def test_a_client_and_the_server_tell_of_the_same_tokens(
    name: str, programs: Path, tmp_path: Path
) -> None:
    job = sent(programs, name, SMALL, tmp_path)
    truth, reading = read_log(tmp_path / "truth.bin"), PEERS[name].read(job)
    assert truth.tokens == 4 * 60
    assert len(reading.ttft_s) == 4
    assert len(reading.gaps_s) == len(truth.gaps_s) == 4 * 59
    assert truth.ttft_s.min() >= 0.05
    assert truth.ttft_s.max() < 30
    # The same seconds, as far as other tests beside this one let them be.
    assert 1 / 3 < reading.gaps_s.sum() / truth.gaps_s.sum() < 3


def test_the_server_keeps_its_grid_and_its_stalls(programs: Path, tmp_path: Path) -> None:
    sent(programs, "c", SMALL, tmp_path)
    due = read_log(tmp_path / "truth.bin").due
    for stream in due:
        gaps = np.diff(stream)
        assert set(gaps.tolist()) == {2_000_000, 10_000_000}
        assert [i + 1 for i, gap in enumerate(gaps) if gap == 10_000_000] == [20, 40]
    # Each stream has its own place on the grid.
    assert len({int(stream[0]) % 2_000_000 for stream in due}) == 4


def test_as_fast_as_it_goes_ends_by_the_clock(programs: Path, tmp_path: Path) -> None:
    load = replace(LOADS[CEILING], streams=4, tokens=500_000, limit_s=0.2)
    sent(programs, "c", load, tmp_path)
    truth = read_log(tmp_path / "truth.bin")
    assert 4 < truth.tokens < 4 * load.tokens
    assert truth.closed.min() > 0
    assert 0 < truth.taken_per_s <= truth.tokens / 0.2


def test_a_tool_that_fails_is_named_and_leaves_no_process(programs: Path, tmp_path: Path) -> None:
    series, bench = Series(tmp_path / "runs"), Bench(programs, tmp_path, cores(), keep=False)
    broken = replace(PEERS["c"], name="broken")
    argv = ["sh", "-c", "sleep 77 & echo no luck; exit 3"]
    object.__setattr__(broken, "program", lambda cache: argv)
    found = bench.kept(broken, SMALL, 0, series)
    assert "no luck" in found["failed"]
    until = time.monotonic() + 60  # what was killed may still be on its way out
    while b"sleep\x0077\x00" in running() and time.monotonic() < until:
        time.sleep(0.05)
    assert b"sleep\x0077\x00" not in running()


def running() -> list[bytes]:
    """The commands of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return found


def test_the_whole_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two tools, one load, a page. What an interrupted series has is not measured again, what a
    finished one has is."""
    (tmp_path / "engines" / "models" / "smollm2-135m").mkdir(parents=True)
    page, runs = tmp_path / "page.md", tmp_path / "bench" / "runs"

    def run(*more: str) -> int:
        argv = ["bench", "--only", "tokrig,c", "--loads", STALLS, "--quick", "--even-if-busy"]
        argv += ["--cache", str(tmp_path / "bench"), "--out", str(page), *more]
        monkeypatch.setattr("sys.argv", argv)
        return main()

    assert run("--page") == 1  # nothing is there yet
    assert run() == 0
    first = page.read_text("utf-8")
    assert "| C client |" in first
    assert "nan" not in first
    kept = [runs / f"stalls-0-{tool}.json" for tool in ("c", "tokrig")]
    assert json.loads(kept[0].read_text("utf-8"))["figures"]["tokens"] == 64 * 200
    page.unlink()
    assert run("--page") == 0
    assert page.read_text("utf-8") == first
    capsys.readouterr()
    assert run("--page", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["tool"] for one in told["runs"]] == ["tokrig", "c"]

    about = json.loads((runs / "series.json").read_text("utf-8"))
    (runs / "series.json").write_text(json.dumps(about | {"finished": False}), "utf-8")
    kept[0].unlink()
    before = kept[1].stat().st_mtime_ns
    assert run() == 0
    assert kept[0].exists()
    assert kept[1].stat().st_mtime_ns == before
    assert run() == 0
    assert kept[1].stat().st_mtime_ns > before
