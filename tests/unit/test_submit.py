"""``tokrig submit``: a branch of records in a real git repository, beside what is checked out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.cli.main import main
from tokrig.store import Store
from tokrig.submission import looks_private

MINE, OTHER = "20261122-120000-tiny-aaaa", "20261121-120000-tiny-bbbb"


@pytest.fixture(autouse=True)
def author(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A Contributor")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "contributor@example.org")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def save(content: Path, run_id: str, **changes: Any) -> Path:
    samples = [replace(sample(), iteration=n, sent_ns=n * 10**9) for n in range(3)]
    record = record_of(samples, run_id).model_copy(update=changes)
    return Store(content).save(record, samples)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A clone of the page's repository with one record; somebody works in it."""
    root = tmp_path / "page"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    save(root / "content", OTHER)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "the first record")
    git(root, "checkout", "--quiet", "-b", "work")
    (root / "draft").write_text("unfinished", "utf-8")
    return root


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """Where this machine's records are: no repository."""
    save(tmp_path / "own" / "content", MINE)
    return tmp_path / "own" / "content"


def submit(content: Path, *words: str) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(
        main, ["submit", *words, "--content", str(content)]
    )


def branches(root: Path) -> list[str]:
    return git(root, "branch", "--format", "%(refname:short)").splitlines()


def test_a_branch_is_made_beside_what_is_checked_out(content: Path, page: Path) -> None:
    before = (git(page, "status", "--short"), git(page, "rev-parse", "HEAD"))
    done = submit(content, MINE, "--to", str(page / "content"))
    assert done.exit_code == 0, done.stderr
    branch = f"add-{MINE}"
    assert branches(page) == [branch, "main", "work"]
    assert (git(page, "status", "--short"), git(page, "rev-parse", "HEAD")) == before
    changed = git(page, "diff", "--name-status", "work", branch).splitlines()
    rig = next(Store(content).runs.iterdir()).name
    assert changed == [
        f"A\tcontent/benchmarks/runs/{rig}/{MINE}.yaml",
        f"A\tcontent/benchmarks/samples/{MINE}.parquet",
    ]
    made = subprocess.run(
        ["git", "-C", str(page), "show", f"{branch}:content/benchmarks/runs/{rig}/{MINE}.yaml"],
        check=True,
        capture_output=True,
    ).stdout
    assert made == (Store(content).runs / rig / f"{MINE}.yaml").read_bytes()
    message = git(page, "log", "-1", "--format=%B", branch)
    assert "| model | engine | gen tok/s |" in message
    assert f"nearest is {OTHER}" in message
    assert f"push -u origin {branch}" in done.stderr
    assert str(page) not in message


def test_a_dry_run_makes_nothing(content: Path, page: Path) -> None:
    words = (MINE, "--to", str(page / "content"), "--dry-run")
    done = submit(content, *words, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["branch"] == f"add-{MINE}"
    assert told["nearest"][MINE]["id"] == OTHER
    assert told["private"] == {}
    assert all(place.startswith("content/benchmarks/") for place in told["files"])
    assert branches(page) == ["main", "work"]
    assert "nothing was made" in submit(content, *words).stderr


def test_it_branches_off_the_main_branch_of_the_remote(
    content: Path, page: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    git(page, "checkout", "--quiet", "main")
    git(tmp_path, "clone", "--quiet", str(page), str(clone))
    git(clone, "checkout", "--quiet", "-b", "other")
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "not published")
    assert submit(content, MINE, "--to", str(clone / "content")).exit_code == 0
    parent = git(clone, "rev-parse", f"add-{MINE}^")
    assert parent == git(clone, "rev-parse", "origin/main")


def test_the_content_folder_may_be_the_repository(content: Path) -> None:
    git(content, "init", "--quiet", "--initial-branch", "main")
    git(content, "commit", "--quiet", "--allow-empty", "--message", "begun")
    assert submit(content, MINE).exit_code == 0
    files = git(content, "ls-tree", "-r", "--name-only", f"add-{MINE}").splitlines()
    assert {Path(name).parts[:2] for name in files} == {
        ("benchmarks", "runs"),
        ("benchmarks", "samples"),
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("measured at /home/ada/models/x.gguf", True),
        ("server at 192.168.1.7", True),
        ("key sk-abcdefghijklmnop", True),
        ("capped at 250 W; and/or 5 %", False),
    ],
)
def test_what_looks_private_is_shown_and_not_sent(
    tmp_path: Path, page: Path, text: str, found: bool
) -> None:
    content = tmp_path / "mine" / "content"
    save(content, MINE, notes=text)
    done = submit(content, MINE, "--to", str(page / "content"))
    assert (done.exit_code == 1) == found
    assert ("looks private: notes" in done.stdout) == found
    assert (f"add-{MINE}" in branches(page)) == (not found)
    if found:
        done = submit(content, MINE, "--to", str(page / "content"), "--not-private")
        assert done.exit_code == 0


def test_the_records_of_this_repository_hold_nothing_private() -> None:
    store = Store(Path(__file__).parents[2] / "content")
    found = [text for path in store.iter_paths() for text in looks_private(store.read(path))]
    assert found == []


def refused(content: Path, words: Sequence[str], says: str, code: int = 2) -> None:
    done = submit(content, *words)
    assert done.exit_code == code
    assert says in done.stderr, done.stderr


def test_what_cannot_be_submitted_says_why(content: Path, page: Path, tmp_path: Path) -> None:
    to = ("--to", str(page / "content"))
    refused(content, [MINE], "lies in no git repository")
    refused(content, [MINE, "--to", str(tmp_path / "no" / "such")], "lies in no git repository")
    refused(content, ["nothing", *to], "no record 'nothing'")
    refused(content, [MINE, *to, "--base", "nowhere"], "has no commit 'nowhere'")
    refused(page / "content", [OTHER], "is published already")
    assert submit(content, MINE, *to).exit_code == 0
    refused(content, [MINE, *to], f"the branch add-{MINE} is there already")
    path = Store(content).find(MINE)
    path.write_text(path.read_text("utf-8").replace("median: ", "median: 1"), "utf-8")
    refused(content, [MINE, *to], "broken", 1)


def test_without_a_name_git_says_what_to_do(
    content: Path, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "")
    done = submit(content, MINE, "--to", str(page / "content"))
    assert done.exit_code == 2
    assert "git commit-tree failed" in done.stderr
    assert branches(page) == ["main", "work"]


def test_without_git(content: Path, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    refused(content, [MINE, "--to", str(page / "content")], "install git")
