"""Power caps survive nobody: real processes, really killed, and the caps are back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.fixtures import made_cards
from tests.fixtures.made_cards import MadeCards
from tests.fixtures.nvml import compile_stub

RUN = Path(__file__).with_name("capped_run.py")
WITHIN_S = 120


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_stub(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(params=["amd", "nvidia"])
def made(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: Path
) -> MadeCards:
    """Two cards: of AMD both of 300 W, of NVIDIA of 200 and 130 W."""
    if request.param == "nvidia":
        return made_cards.make(tmp_path, monkeypatch, stub)
    made = made_cards.make(tmp_path, monkeypatch)
    made.add_amd(0)
    made.add_amd(1)
    return made


def watts(made: MadeCards) -> list[float]:
    """The caps as the cards have them now."""
    if (made.root / "sys").exists():
        return [made.amd_w(0), made.amd_w(1)]
    return made.nvidia_w()


def asked(made: MadeCards) -> float:
    """A cap that both cards allow, and that neither has."""
    return 160 if (made.root / "sys").exists() else 110


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A run in a session of its own, as a terminal gives it; killed when this is left."""
    process = subprocess.Popen(
        [sys.executable, str(RUN), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            assert said(process) == "begin"
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def capped(process: subprocess.Popen[str], made: MadeCards) -> psutil.Process:
    """The run's guard, once both cards are capped."""
    assert said(process) == f"{asked(made):g} {asked(made):g}"
    assert watts(made) == [asked(made)] * 2
    assert made.kept.exists()
    (guard,) = psutil.Process(process.pid).children()
    return guard


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def all_as_before(made: MadeCards, before: list[float]) -> bool:
    # The file goes last: as long as it is there, a cap may just be written.
    return not made.kept.exists() and watts(made) == before


def ended(guard: psutil.Process) -> bool:
    """Whoever inherits it need not have taken note of its end yet."""
    try:
        return not guard.is_running() or guard.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def end(process: subprocess.Popen[str], line: str = "") -> tuple[int, str]:
    """Exit code and stderr of a run that is told to end."""
    _, stderr = process.communicate(line, timeout=WITHIN_S)
    return process.returncode, stderr


def test_put_back_in_order(made: MadeCards) -> None:
    before = watts(made)
    with running(str(asked(made))) as process:
        guard = capped(process, made)
        assert end(process) == (0, "")
        assert all_as_before(made, before)
        assert ended(guard)


def test_put_back_after_an_exception(made: MadeCards) -> None:
    before = watts(made)
    with running(str(asked(made))) as process:
        capped(process, made)
        code, stderr = end(process, "fail\n")
        assert code == 1
        assert "RuntimeError: made to fail" in stderr
        assert all_as_before(made, before)


def test_put_back_after_sigterm(made: MadeCards) -> None:
    before = watts(made)
    with running(str(asked(made))) as process:
        capped(process, made)
        process.terminate()
        assert process.wait(WITHIN_S) == 130
        assert all_as_before(made, before)


def test_put_back_after_ctrl_c_of_the_whole_terminal(made: MadeCards) -> None:
    before = watts(made)
    with running(str(asked(made))) as process:
        guard = capped(process, made)
        assert os.getsid(guard.pid) != os.getsid(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(WITHIN_S) == 130
        assert all_as_before(made, before)


def test_put_back_after_kill_9(made: MadeCards) -> None:
    before = watts(made)
    with running(str(asked(made))) as process:
        guard = capped(process, made)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(WITHIN_S)
        until(lambda: all_as_before(made, before))
        until(lambda: ended(guard))


def test_the_guard_stays_when_all_are_told_to_end(made: MadeCards) -> None:
    before = watts(made)
    with running(str(asked(made))) as process:
        guard = capped(process, made)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            guard.send_signal(number)
        process.kill()
        process.wait(WITHIN_S)
        until(lambda: all_as_before(made, before))


def test_put_back_without_a_guard(made: MadeCards) -> None:
    before = watts(made)
    with running(str(asked(made))) as process:
        capped(process, made).kill()
        assert end(process) == (0, "")
        assert all_as_before(made, before)


def test_the_next_run_puts_back_when_both_are_killed(made: MadeCards) -> None:
    before = watts(made)
    with running(str(asked(made))) as process:
        capped(process, made).kill()
        process.kill()
        process.wait(WITHIN_S)
    assert watts(made) == [asked(made)] * 2
    assert made.kept.exists()
    with running() as following:
        assert said(following) == ""
        assert all_as_before(made, before)
        assert end(following) == (0, "")


@contextlib.contextmanager
def suspended(guard: psutil.Process) -> Iterator[None]:
    guard.suspend()
    try:
        yield
    finally:
        guard.resume()


def test_the_next_run_waits_for_a_guard_that_is_still_at_it(made: MadeCards) -> None:
    """Else it would take the cap of the killed run for the card's own."""
    before = watts(made)
    with running(str(asked(made))) as process, contextlib.ExitStack() as at_it:
        at_it.enter_context(suspended(capped(process, made)))
        process.kill()
        process.wait(WITHIN_S)
        with running(str(asked(made))) as following:
            # Long enough for it to come to the lock; too short would test less, never fail.
            time.sleep(0.5)
            assert watts(made) == [asked(made)] * 2
            at_it.close()
            capped(following, made)
            assert end(following) == (0, "")
            assert all_as_before(made, before)


@pytest.mark.parametrize("after_s", [0.1, 0.35, 0.6])
def test_killed_at_any_moment(made: MadeCards, after_s: float) -> None:
    """Before, while and after the caps are kept, the guard is started and the caps are set."""
    before = watts(made)
    with running(str(asked(made))) as process:
        time.sleep(after_s)
        process.kill()
        process.wait(WITHIN_S)
    with running() as following:
        assert said(following) == ""
        assert all_as_before(made, before)
        assert end(following) == (0, "")


def nvidia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: Path) -> MadeCards:
    return made_cards.make(tmp_path, monkeypatch, stub)


def test_a_driver_that_clamps_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: Path
) -> None:
    made = nvidia(tmp_path, monkeypatch, stub)
    monkeypatch.setenv("NVML_STUB_FLOOR", "120000")
    with running("110") as process:
        code, stderr = end(process)
    assert code == 3
    assert "asked for a power cap of 110 W, its driver holds it at 120 W" in stderr
    assert all_as_before(made, [200, 130])


def test_a_driver_that_does_not_permit_it_is_asked_before_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: Path
) -> None:
    """A root whose capabilities promise more than the driver keeps."""
    made = nvidia(tmp_path, monkeypatch, stub)
    monkeypatch.setenv("NVML_STUB_DENY", "4")
    with running("110") as process:
        code, stderr = end(process)
    assert code == 3
    assert "sudo nvidia-smi -i 0 -pl" in stderr
    assert made.nvidia_w() == [200, 130]
    assert not made.state.exists()


def test_the_second_card_out_of_range_and_the_first_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: Path
) -> None:
    made = nvidia(tmp_path, monkeypatch, stub)
    with running("150") as process:
        code, stderr = end(process)
    assert code == 2
    assert "RTX 4000 Ada Generation cannot be capped at 150 W" in stderr
    assert "at least 100 W, at most 130 W" in stderr
    assert made.nvidia_w() == [200, 130]
    assert not made.state.exists()
