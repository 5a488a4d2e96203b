"""``tokrig review``: what a pull request of records brings, in a real git repository."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.compared import measured
from tests.unit.test_reproduced import there, written
from tests.unit.test_submit import MINE, OTHER, author, git, save
from tokrig.cli.main import main
from tokrig.documents import dump, parse
from tokrig.errors import RecordError
from tokrig.store import Store

__all__ = ["author"]  # a fixture that every test here uses
WORKFLOW = Path(__file__).parents[2] / "docs" / "workflows" / "review-records.yml"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The page's repository with a record; a contribution is checked out."""
    root = tmp_path / "page"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    save(root / "content", OTHER)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "the first record")
    git(root, "checkout", "--quiet", "-b", "contribution")
    return root


def review(page: Path, *words: str) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(
        main, ["review", *(words or ("main",)), "--content", str(page / "content")]
    )


def files(page: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    done = review(page, "main", "--json")
    return done.exit_code, {Path(f["path"]).name: f for f in json.loads(done.stdout)["files"]}


def commit(page: Path) -> None:
    git(page, "add", "--all")
    git(page, "commit", "--quiet", "--message", "a contribution")


@pytest.mark.parametrize("committed", [True, False])
def test_a_sound_record_has_its_rank_and_its_nearest(page: Path, committed: bool) -> None:
    save(page / "content", MINE)
    if committed:
        commit(page)
    code, found = files(page)
    mine = found[f"{MINE}.yaml"]
    assert (code, mine["wrong"], mine["change"]) == (0, [], "added")
    assert any("of 2" in rank for rank in mine["ranks"])
    assert any(OTHER in text for text in (*mine["notes"], *mine["look"]))
    done = review(page)
    assert "nothing to mend" in done.stdout
    assert f"added benchmarks/samples/{MINE}.parquet" in done.stdout


@pytest.mark.parametrize(("times", "told"), [(1.01, "notes"), (0.7, "look")])
def test_what_another_machine_measured_is_told(page: Path, times: float, told: str) -> None:
    written(page / "content", [measured()])
    commit(page)
    git(page, "checkout", "--quiet", "-b", "other-contribution")
    written(page / "content", [there(times)])
    done = review(page, "contribution", "--json")
    (one,) = json.loads(done.stdout)["files"]
    assert any(text.startswith(("reproduced on 1", "contradicted")) for text in one[told]), one


def test_nothing_was_contributed(page: Path) -> None:
    done = review(page)
    assert (done.exit_code, done.stdout) == (0, "0 records; nothing to mend\n")


def test_a_record_that_does_not_follow_from_its_samples(page: Path) -> None:
    path = save(page / "content", MINE)
    path.write_text(path.read_text("utf-8").replace("median: ", "median: 1", 1), "utf-8")
    code, found = files(page)
    assert code == 1
    assert found[f"{MINE}.yaml"]["wrong"]


def test_what_looks_private_is_to_be_mended(page: Path) -> None:
    save(page / "content", MINE, notes="on /home/ada/models")
    code, found = files(page)
    assert code == 1
    assert "looks private: notes: 'on /home/ada/models'" in found[f"{MINE}.yaml"]["wrong"]


def test_published_records_are_not_edited_and_not_removed(page: Path) -> None:
    path = Store(page / "content").find(OTHER)
    data = parse(path.read_text("utf-8"), str(path), RecordError)
    path.write_text(dump(data | {"notes": "better now"}), "utf-8")
    commit(page)
    code, found = files(page)
    assert code == 1
    assert any("was edited" in text for text in found[f"{OTHER}.yaml"]["wrong"])
    path.unlink()
    commit(page)
    code, found = files(page)
    assert code == 1
    assert found[f"{OTHER}.yaml"]["wrong"] == ["a published record was removed"]


def test_a_record_of_nothing_that_can_be_read(page: Path) -> None:
    path = save(page / "content", MINE)
    path.write_text("id: [\n", "utf-8")
    done = review(page)
    assert done.exit_code == 1
    assert "broken" in done.stdout


def test_other_files_want_a_look(page: Path) -> None:
    save(page / "content", MINE)
    (page / "script.sh").write_text("echo", "utf-8")
    (page / "content" / "benchmarks" / "samples" / "stray.parquet").write_bytes(b"PAR1")
    (page / "content" / "rigs").mkdir()
    (page / "content" / "rigs" / "mine.md").write_text("A desktop.", "utf-8")
    code, found = files(page)
    assert code == 1
    assert found[".."]["look"] == ["1 file outside the content folder: ../script.sh …"]
    assert found["stray.parquet"]["wrong"] == ["samples without a new record"]
    assert (found["mine.md"]["look"], found["mine.md"]["wrong"]) == ([], [])


def test_ten_lines_for_a_comment_in_which_names_do_nothing(page: Path) -> None:
    for number in range(14):
        run_id = f"20261123-1200{number:02}-tiny-cccc"
        record = Store(page / "content").read(save(page / "content", run_id))
        hostile = record.model.model_copy(update={"family": "@all <img src=x>\n# ``` |"})
        Store(page / "content").save(
            record.model_copy(update={"model": hostile}),
            Store(page / "content").read_samples(run_id),
            overwrite=True,
        )
    text = review(page, "main", "--markdown").stdout
    summary, _, details = text.partition("<details>")
    lines = [line for line in summary.splitlines() if line]
    assert len(lines) == 10
    assert lines[0].startswith("**14 records")
    assert lines[-1] == "- … and 6 more below"
    assert not [part for part in ("@all", "<img", "\n#") if part in summary]
    assert details.count("```") == 2


def test_a_base_that_nobody_has(page: Path, tmp_path: Path) -> None:
    done = review(page, "nowhere")
    assert done.exit_code == 2
    assert "no commit 'nowhere'" in done.stderr
    done = CliRunner().invoke(main, ["review", "main", "--content", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "no git repository" in done.stderr


def test_a_link_is_no_contribution(page: Path) -> None:
    path = save(page / "content", MINE)
    path.unlink()
    path.symlink_to("/etc/hostname")
    code, found = files(page)
    assert code == 1
    assert found[f"{MINE}.yaml"]["wrong"] == ["a link: a contribution is of files"]


def test_the_workflow_runs_what_there_is(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines of tokrig, on a contribution; the rest is GitHub's."""
    text = WORKFLOW.read_text("utf-8")
    steps = parse(text, str(WORKFLOW), RecordError)["jobs"]["review"]["steps"]
    scripts = "\n".join(step.get("run", "") for step in steps)
    save(page / "content", MINE)
    git(page, "branch", "tokrig-base", "main")
    monkeypatch.chdir(page.parent)
    lines = [line.strip() for line in scripts.splitlines() if line.strip().startswith("tokrig ")]
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])[1:]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.stderr
    assert (page.parent / "site" / "index.html").exists()
