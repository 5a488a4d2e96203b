"""Campaigns through the real command line: what ends them, and that the next one goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.cli import FAKE, Done, Home, is_sound
from tests.integration.test_faults import full_disk, not_writable
from tokrig.plan import PlanInputs
from tokrig.plan.expand import expand, key_before
from tokrig.spec.campaign import load_campaign

SHORT: dict[str, Any] = {"model": "smollm2-135m", "backend": "llamacpp", "build": "fake",
                         "workloads": "chat", "concurrency": 1}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    assert home.no_engines_left(), "an engine outlived its campaign"


def write(home: Home, *entries: dict[str, Any], **keys: Any) -> Path:
    """A campaign of the fake server's, quick as can be."""
    path = home.root / "small.yaml"
    made = [
        {"name": f"entry-{number}", "title": f"Entry {number}", **entry}
        for number, entry in enumerate(entries, 1)
    ]
    campaign = {"title": "Small", "level": "quick", "builds": {"fake": str(FAKE)}, **keys}
    path.write_text(yaml.safe_dump({**campaign, "entries": made}, sort_keys=False))
    return path


def contexts(*sizes: int, **more: Any) -> dict[str, Any]:
    """An entry that asks for a run at each of these context sizes."""
    return {"matrix": {**SHORT, "context": list(sizes)}, **more}


def campaign(home: Home, *words: str) -> Done:
    return home.in_process("campaign", *words)


def run(home: Home, path: Path, *words: str) -> Done:
    return campaign(home, "run", str(path), "--even-if-busy", *words)


def planned(home: Home, path: Path, *words: str) -> Any:
    done = campaign(home, "plan", str(path), "--all", "--json", *words)
    assert done.code == 0, done.err
    return done.json


def measured(home: Home, path: Path) -> int:
    """How many runs have their answer. Beside other tests one may be invalid for their load."""
    counts = planned(home, path)["counts"]
    return int(counts["done"] + counts["invalid"])


def forget_the_load(home: Home) -> None:
    """Lets records stand that only the tests beside this one made invalid."""
    for path in home.record_paths():
        record = yaml.safe_load(path.read_text())
        for judged in (record, *record["results"]):
            if is_sound(judged["validity"]):
                judged["validity"] |= {"verdict": "valid", "reasons": []}
        path.write_text(yaml.safe_dump(record, sort_keys=False))


def require_exactly_the_planned(home: Home, path: Path) -> None:
    keys = [one["key"] for one in planned(home, path)["runs"]]
    found = Counter(record["provenance"]["planned"] for record in home.records())
    assert found == dict.fromkeys(keys, 1)
    assert {record["status"] for record in home.records()} == {"complete"}
    assert home.unfinished() == []
    assert not [name for name in home.files() if name.endswith(".tmp")]
    assert home.checks()


def test_a_campaign_runs_to_its_end(home: Home) -> None:
    path = write(home, contexts(2048), contexts(8192, repeats=2))
    before = planned(home, path)
    assert before["counts"]["todo"] == 3
    done = run(home, path)
    assert done.code == 0, done.err
    assert "3 done" in done.out
    require_exactly_the_planned(home, path)
    asked = {record["provenance"]["campaign"] for record in home.records()}
    assert asked == {"small/entry-1", "small/entry-2"}
    assert measured(home, path) == 3
    for words in ([], ["--dry-run"]):
        again = run(home, path, *words)
        assert (again.code, again.out) == (0, "")
        assert "nothing is left to do" in again.err
    assert len(home.records()) == 3


def test_the_same_input_gives_the_same_plan(home: Home) -> None:
    path = write(home, contexts(2048, 4096, 8192))
    first, second = (campaign(home, "plan", str(path), "--json").out for _ in range(2))
    assert first == second


def test_a_failed_run_is_a_failed_record_and_the_rest_goes_on(home: Home) -> None:
    path = write(
        home,
        contexts(2048, set={"options": {"fault": "exit-at-start"}}, priority=5),
        contexts(4096),
    )
    done = run(home, path)
    assert done.code == 3
    by_entry = {record["provenance"]["campaign"]: record for record in home.records()}
    failed, fine = by_entry["small/entry-1"], by_entry["small/entry-2"]
    assert fine["status"] == "complete"
    assert failed["status"] == "failed"
    assert failed["failure"]["log_tail"]
    assert "--retry failed" in done.err
    assert (planned(home, path)["counts"]["failed"], measured(home, path)) == (1, 1)
    assert run(home, path).code == 0, "a failed run is not tried again by itself"
    assert len(home.records()) == 2
    assert run(home, path, "--retry", "failed").code == 3
    assert len(home.records()) == 3


def test_a_model_that_is_not_there_fails_its_run_alone(home: Home) -> None:
    missing = {**SHORT, "model": str(home.root / "missing.gguf")}
    path = write(home, {"matrix": missing, "priority": 5}, contexts(2048))
    done = run(home, path)
    assert done.code == 3
    states = {record["provenance"]["campaign"]: record["status"] for record in home.records()}
    assert states == {"small/entry-1": "failed", "small/entry-2": "complete"}
    [record] = [r for r in home.records() if r["status"] == "failed"]
    assert "missing.gguf" in record["failure"]["message"]
    assert str(home.root) not in json.dumps(record), "a path left the machine"


def test_ctrl_c_keeps_what_was_measured(home: Home) -> None:
    path = write(home, contexts(2048, 4096, matrix={**SHORT, "workloads": ["chat", "codegen"]}))
    process = home.start("campaign", "run", str(path), "--even-if-busy")
    home.wait_for_cells(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command" in err
    kept = home.unfinished()
    assert planned(home, path)["counts"]["unfinished"] == len(kept)
    assert run(home, path).code == 0
    require_exactly_the_planned(home, path)


def test_kill_9_at_any_moment_loses_nothing_and_repeats_nothing(home: Home) -> None:
    path = write(home, contexts(2048, 3072, 4096, 6144, matrix={**SHORT, "context": [2048, 3072]}))
    chance = random.Random()
    seconds = [round(chance.uniform(0.3, 4.0), 2) for _ in range(5)]
    print(f"killed after {seconds} s")
    for wait_s in seconds:
        process = home.start("campaign", "run", str(path), "--even-if-busy")
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        assert home.no_engines_left()
    done = run(home, path)
    assert done.code == 0, done.err
    require_exactly_the_planned(home, path)


def test_killed_between_record_and_journal_it_is_done(home: Home) -> None:
    path = write(home, contexts(2048), contexts(4096))
    process = home.start("campaign", "run", str(path), "--even-if-busy")
    home.wait_for_cells(1)
    [journal] = (home.state / "runs").iterdir()
    kept = home.root / "kept"
    shutil.copytree(journal, kept)
    process.communicate(timeout=60)
    stored = [record["id"] for record in home.records()]
    shutil.copytree(kept, home.state / "runs" / journal.name)
    assert journal.name in stored
    home.record_paths()[-1].unlink()  # so that something is left to do
    (home.content / "benchmarks" / "samples" / f"{stored[-1]}.parquet").unlink()
    assert run(home, path).code == 0
    require_exactly_the_planned(home, path)


def test_what_an_older_version_began_goes_on_or_is_said_to_begin_anew(home: Home) -> None:
    path = write(home, {"matrix": {**SHORT, "concurrency": [1, 2]}})
    process = home.start("campaign", "run", str(path), "--even-if-busy")
    home.wait_for_cells(1)
    process.kill()
    process.communicate()
    assert home.no_engines_left()
    [journal] = (home.state / "runs").iterdir()
    kept = shutil.copytree(journal, home.root / "kept")
    begun = json.loads((kept / "run.json").read_text())
    known = PlanInputs(here=planned(home, path)["runs"][0]["rig"])
    [wanted] = expand(load_campaign(path), known)

    begun["spec"]["planned"] = key_before(wanted)
    (journal / "run.json").write_text(json.dumps(begun))
    assert planned(home, path)["counts"]["unfinished"] == 1
    assert run(home, path).code == 0
    require_exactly_the_planned(home, path)
    [record] = home.records()
    assert record["id"] == journal.name

    for file in home.content.rglob(f"{journal.name}.*"):
        file.unlink()
    shutil.copytree(kept, journal)
    (journal / "run.json").write_text(json.dumps({**begun, "methodology": 0}))
    done = home.tokrig("campaign", "run", str(path), "--even-if-busy")
    assert done.code == 0, done.err
    assert "the methodology changed since it was begun; it is measured from the start" in done.err
    require_exactly_the_planned(home, path)
    assert home.records()[0]["id"] != journal.name


def test_a_full_disk_ends_it_and_room_lets_it_go_on(home: Home) -> None:
    path = write(home, contexts(2048, 4096))
    home.content.mkdir()
    broken = full_disk if os.geteuid() == 0 else not_writable
    with broken(home.content) as mend:
        done = run(home, path)
        assert done.code == 2, done.err
        assert "the same command" in done.err
        assert home.records() == []
        mend()
        assert run(home, path).code == 0
        require_exactly_the_planned(home, path)


def test_one_campaign_at_a_time(home: Home) -> None:
    # Long enough to go on while the others are refused, however long that takes.
    path = write(home, contexts(*range(2048, 2048 + 256 * 40, 256)))
    process = home.start("campaign", "run", str(path), "--even-if-busy")
    home.wait_for_cells(1)
    for words in (("campaign", "run", str(path), "--even-if-busy"), ("run", "--workload", "chat")):
        second = home.tokrig(*words)
        assert second.code == 2, second.err
        assert "measuring already" in second.err
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_runs_of_another_rig_are_left_to_it_and_json_sums_up(home: Home) -> None:
    path = write(
        home,
        contexts(2048),
        {"matrix": {**SHORT, "rig": "far-away"}},
        rigs={"far-away": {"title": "Far away", "vram_gib": 0, "memory_gib": 64}},
    )
    done = run(home, path, "--json")
    assert done.code == 0, done.err
    assert "runs of other rigs are left: far-away (1)" in done.err
    summary = done.json
    assert [one["entry"] for one in summary["done"]] == ["small/entry-1"]
    assert (summary["failed"], summary["put_off"], summary["left"]) == ([], [], 0)
    assert summary["spent_s"]["measure"] > 0
    assert 0 < summary["overhead"] < 1
    assert len(home.records()) == 1
    assert planned(home, path)["counts"]["todo"] == 1


def test_a_driver_that_is_not_installed_holds_up_its_sequence(home: Home) -> None:
    entry = {"matrix": {**SHORT, "driver": ["1.0", "2.0"]}, "ab": "driver", "repeats": 2}
    path = write(home, entry)
    done = run(home, path, "--json")
    assert done.code == 3
    why = [one["code"] for one in done.json["put_off"]]
    assert why == ["other_driver", "put_off", "put_off", "put_off"]
    assert home.records() == []


def test_two_arms_are_measured_interleaved_and_judged(home: Home) -> None:
    entry = {"matrix": {**SHORT, "context": [2048, 4096]}, "ab": "context", "repeats": 2}
    path = write(home, entry)
    assert run(home, path).code == 0
    records = sorted(home.records(), key=lambda record: record["provenance"]["started_at"])
    order = [record["backend"]["resolved"]["context_per_slot"] for record in records]
    assert order == [2048, 4096, 4096, 2048]
    forget_the_load(home)
    status = campaign(home, "status", str(path), "--json")
    assert status.code == 0, status.err
    told = campaign(home, "status", str(path))
    assert "6 are needed on each side" in told.out, "two starts can show nothing, and that is said"


def test_only_and_limit_and_dry_run(home: Home) -> None:
    path = write(home, contexts(2048, 3072), contexts(4096))
    shown = run(home, path, "--only", "entry-1", "--dry-run", "--json")
    assert len(shown.json["runs"]) == 2
    assert home.records() == []
    assert run(home, path, "--only", "entry-2").code == 0
    assert [r["provenance"]["campaign"] for r in home.records()] == ["small/entry-2"]
    assert run(home, path, "--limit", "1").code == 0
    assert len(home.records()) == 2
    wrong = run(home, path, "--only", "entry-3")
    assert wrong.code == 2
    assert "did you mean" in wrong.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "lamacpp"}, "llamacpp"),
        ({"model": "smollm3"}, "smollm3"),
        ({"workloads": "chatt"}, "chat"),
        ({"rig": "nowhere"}, "nowhere"),
        (
            {
                "context": list(range(1, 700)),
                "power_cap_w": list(range(150, 300)),
                "quant": [f"Q{n}" for n in range(3)],
            },
            "",
        ),
        ({"power_cap_w": 100}, ""),
    ],
    ids=["backend", "model", "workload", "rig", "explosion", "cap"],
)
def test_a_wrong_campaign_is_one_message_with_its_line(
    home: Home, change: dict[str, Any], message: str
) -> None:
    rigs = {"mine": {"title": "Mine", "vram_gib": 8, "memory_gib": 8, "power_w": [150, 300]}}
    matrix = {**SHORT, "rig": "mine", **change}
    path = write(home, {"matrix": matrix}, rigs=rigs)
    done = run(home, path)
    assert done.code == 2, done.err
    assert "small.yaml:" in done.err
    assert message in done.err
    assert home.records() == []


def test_two_entries_that_mean_the_same_run(home: Home) -> None:
    path = write(home, contexts(2048), contexts(2048))
    done = campaign(home, "plan", str(path))
    assert done.code == 2
    assert done.err.count("small.yaml:") >= 2
    assert "same run" in done.err


def test_the_public_queue_is_written_and_checked(home: Home) -> None:
    path = write(home, contexts(2048), rig="mine", rigs={"mine": {"title": "Mine"}})
    out = home.root / "queue.md"
    words = ("docs", str(path), "--out", str(out))
    assert campaign(home, *words, "--check").code == 1
    assert campaign(home, *words).code == 0
    assert "tokrig campaign run campaigns/small.yaml --only entry-1" in out.read_text()
    assert campaign(home, *words, "--check").code == 0
