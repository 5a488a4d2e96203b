"""Power caps in this process: what is refused before anything changes, and what is put back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fixtures import made_cards
from tests.fixtures.made_cards import MadeCards
from tokrig.errors import InputError, PutOff, StoreError
from tokrig.probes import Cap
from tokrig.probes.amd import AmdProbe
from tokrig.run import power


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeCards]:
    """A machine with made cards, and none of the processes that put caps back when it is left."""
    yield made_cards.make(tmp_path, monkeypatch)
    assert psutil.Process().children() == []


def test_set_kept_and_put_back(made: MadeCards) -> None:
    made.add_amd(0)
    second = made.add_amd(1)
    second.write_text("250000000\n")
    with power.capped(200) as caps:
        assert [(cap.gpu, cap.limit_w) for cap in caps] == [("AMD GPU 0x744c", 200)] * 2
        assert (made.amd_w(0), made.amd_w(1)) == (200, 200)
        kept = json.loads(made.kept.read_text())
        assert [card["limit_w"] for card in kept["cards"]] == [300, 250]
    assert (made.amd_w(0), made.amd_w(1)) == (300, 250)
    assert not made.kept.exists()
    # The next run finds nothing of it.
    with power.capped(220):
        assert made.amd_w(1) == 220
    assert made.amd_w(1) == 250


def test_kept_and_guarded_before_the_first_change(
    made: MadeCards, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.add_amd()
    set_cap, seen = AmdProbe.set_cap, []

    def look(probe: AmdProbe, index: int, watts: float) -> None:
        seen.append((watts, made.kept.exists(), len(psutil.Process().children())))
        set_cap(probe, index, watts)

    monkeypatch.setattr(AmdProbe, "set_cap", look)
    with power.capped(200):
        # First the driver is asked whether it may be set, with what is set already.
        assert seen == [(300, False, 0), (200, True, 1)]


def test_without_a_cap_nothing_is_set_or_started(made: MadeCards) -> None:
    made.add_amd()
    with power.capped(None) as caps:
        assert caps == ()
        assert made.amd_w() == 300
        assert psutil.Process().children() == []
    assert not made.state.exists()


@pytest.mark.parametrize("watts", [149, 356, 0.5])
def test_a_cap_out_of_range_names_the_range(made: MadeCards, watts: float) -> None:
    made.add_amd()
    says = re.escape(f"AMD GPU 0x744c cannot be capped at {watts:g} W: it allows at least 150 W")
    with pytest.raises(InputError, match=f"{says}, at most 355 W"):
        power.capped(watts).__enter__()
    assert made.amd_w() == 300
    assert not made.state.exists()


def test_one_card_out_of_range_and_no_card_is_touched(made: MadeCards) -> None:
    first, second = made.add_amd(0), made.add_amd(1)
    second.with_name("power1_cap_max").write_text("220000000\n")
    before = first.stat().st_mtime_ns
    with pytest.raises(InputError, match="at most 220 W"):
        power.capped(230).__enter__()
    assert first.stat().st_mtime_ns == before


@pytest.mark.parametrize(("least", "most", "fits"), [(None, 355, 1), (150, None, 999)])
def test_a_bound_that_is_not_told_does_not_refuse(
    least: float | None, most: float | None, fits: float
) -> None:
    power.require_range(Cap("card", 0, 300, None, least, most, settable=True), fits)


def test_no_card_with_a_cap(made: MadeCards) -> None:
    with pytest.raises(InputError, match="no graphics card here has one") as caught:
        power.capped(200).__enter__()
    assert "power_cap_w" in caught.value.hint


def test_no_permission(made: MadeCards, monkeypatch: pytest.MonkeyPatch) -> None:
    file = made.add_amd()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PutOff, match="power cap of AMD GPU 0x744c cannot be set") as caught:
        power.capped(200).__enter__()
    assert f"sudo chmod a+w {file}" in caught.value.hint
    assert made.amd_w() == 300
    assert not made.state.exists()


def test_no_room_to_keep_the_caps(made: MadeCards) -> None:
    made.add_amd()
    made.state.write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot be kept in") as caught:
        power.capped(200).__enter__()
    assert "TOKRIG_STATE" in caught.value.hint
    assert made.amd_w() == 300


def test_no_cap_without_a_guard(made: MadeCards, monkeypatch: pytest.MonkeyPatch) -> None:
    made.add_amd()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(PutOff, match="did not start"):
        power.capped(200).__enter__()
    assert made.amd_w() == 300
    assert not made.kept.exists()


def test_a_driver_that_sets_something_else(
    made: MadeCards, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = made.add_amd()
    write = Path.write_text

    def clamp(path: Path, text: str) -> int:
        return write(path, "210000000" if path == file and text == "200000000" else text)

    monkeypatch.setattr(Path, "write_text", clamp)
    with pytest.raises(PutOff, match="asked for a power cap of 200 W, its driver holds it at 210"):
        power.capped(200).__enter__()
    assert made.amd_w() == 300
    assert not made.kept.exists()


def test_a_cap_that_cannot_be_put_back_is_told_and_tried_again(
    made: MadeCards, capfd: pytest.CaptureFixture[str]
) -> None:
    file = made.add_amd()
    away = file.with_name("away")
    with pytest.raises(PutOff, match="A POWER CAP IS STILL SET") as caught, power.capped(200):
        file.rename(away)
    assert "AMD GPU 0x744c had 300 W" in caught.value.message
    assert str(made.kept) in caught.value.hint
    assert "A POWER CAP IS STILL SET" in capfd.readouterr().err
    with pytest.raises(PutOff, match="has disappeared"):
        power.capped(None).__enter__()
    away.rename(file)
    assert made.amd_w() == 200
    with power.capped(None):
        assert made.amd_w() == 300
    assert not made.kept.exists()


def left_over(made: MadeCards, boot: str | None = None) -> None:
    """What processes leave that were killed under a cap of 200 W."""
    made.add_amd().write_text("200000000\n")
    made.state.mkdir()
    card = {"probe": "amd", "index": 0, "gpu": "AMD GPU 0x744c", "limit_w": 300.0}
    boot = power.BOOT_ID.read_text().strip() if boot is None else boot
    made.kept.write_text(json.dumps({"boot": boot, "cards": [card]}))


def test_the_next_run_puts_back_what_was_left(made: MadeCards) -> None:
    left_over(made)
    with power.capped(None):
        assert made.amd_w() == 300
        assert not made.kept.exists()


def test_the_next_cap_is_put_back_to_what_was_before_the_one_left(made: MadeCards) -> None:
    left_over(made)
    with power.capped(180):
        assert made.amd_w() == 180
    assert made.amd_w() == 300


def test_after_a_restart_of_the_machine_nothing_is_set(made: MadeCards) -> None:
    left_over(made, boot="another")
    with power.capped(None):
        assert made.amd_w() == 200
    assert not made.kept.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cards": [{"gpu": 1}], "boot": ""}', "{}"])
def test_what_was_left_cannot_be_read(made: MadeCards, text: str) -> None:
    left_over(made)
    made.kept.write_text(text)
    with pytest.raises(PutOff, match="cannot be read") as caught:
        power.capped(None).__enter__()
    assert "remove the file" in caught.value.hint
    assert made.kept.read_text() == text


def test_another_process_caps_the_cards(made: MadeCards, monkeypatch: pytest.MonkeyPatch) -> None:
    made.add_amd()
    monkeypatch.setattr(power, "LOCK_S", 0.1)
    with power.capped(200):
        with pytest.raises(PutOff, match="another process of tokrig has capped"):
            power.restore_left_over()
        assert made.amd_w() == 200


def test_the_guard_loads_little(made: MadeCards) -> None:
    """It waits beside the engine: no array library, no data frames, nothing of the network."""
    program = "import sys, tokrig.run.power; print(*{m.partition('.')[0] for m in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"numpy", "pyarrow", "rich", "click", "httptools"} & set(run.stdout.split())
