"""Building the site: the same bytes each time, only what changed, and all or nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tokrig.errors import CheckFailed, InputError, RecordError, SpecError, StoreError
from tokrig.site import build as building
from tokrig.site.build import MANIFEST, STAGE, build, open_site

CONTENT = Path(__file__).parents[2] / "content"
RIG = "geforce-rtx-5070-12gb"
RUN = "seed-gemma-4-e2b-it-q4_k_m"
RECORD = f"benchmarks/runs/{RIG}/{RUN}.yaml"
OTHER_RECORD = f"benchmarks/runs/{RIG}/seed-lfm2-1.2b-q4_k_m.yaml"


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """Two of the repository's records, and what belongs to them."""
    there = tmp_path / "content"
    for name in (RECORD, OTHER_RECORD, "models/gemma-4.yaml", f"rigs/{RIG}.md"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CONTENT / name, there / name)
    return there


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "site"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }


def change(content: Path, old: str, new: str) -> None:
    path = content / RECORD
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_two_builds_are_the_same_byte_for_byte(content: Path, out: Path, tmp_path: Path) -> None:
    build(content, out)
    # Elsewhere, from a copy with other times, without anything kept from before.
    copy = tmp_path / "copy"
    shutil.copytree(content, copy, copy_function=shutil.copy)
    build(copy, tmp_path / "again", cache=tmp_path / "other-cache")
    assert contents(out) == contents(tmp_path / "again")


def test_nothing_is_made_again_without_a_reason(content: Path, out: Path) -> None:
    first = build(content, out)
    second = build(content, out)
    assert (second.written, second.removed) == ([], [])
    assert second.kept == len(first.written)


def test_only_the_pages_that_show_a_run_change_with_it(content: Path, out: Path) -> None:
    build(content, out)
    change(content, "median: 206.5", "median: 206.4")
    written = build(content, out).written
    assert {
        "index.html",
        "assets/rows.js",
        f"runs/{RUN}.html",
        "models/gemma-4-e2b-it.html",
    } <= set(written)
    assert "models/lfm2-1.2b.html" not in written
    assert "assets/page.css" not in written
    assert "206.4" in (out / "index.html").read_text(encoding="utf-8")


CAMPAIGN = f"""\
title: More
rig: {RIG}
entries:
  - name: other
    title: Another quant
    matrix: {{model: gemma-4-e2b-it, backend: llamacpp, api: vulkan}}
"""


@pytest.fixture
def campaigns(tmp_path: Path) -> Path:
    """One campaign, beside the content."""
    there = tmp_path / "campaigns"
    there.mkdir()
    (there / "more.yaml").write_text(CAMPAIGN, encoding="utf-8")
    return there


def test_what_is_coming_is_on_the_first_page_and_on_the_map(
    content: Path, out: Path, campaigns: Path
) -> None:
    build(content, out)
    first = (out / "index.html").read_text(encoding="utf-8")
    assert "Another quant" in first
    assert "tokrig campaign run campaigns/more.yaml --only other" in first
    assert "1 queued" in (out / "gaps.html").read_text(encoding="utf-8")


def test_only_the_pages_that_show_campaigns_change_with_one(
    content: Path, out: Path, campaigns: Path
) -> None:
    build(content, out)
    changed = CAMPAIGN.replace("Another quant", "An API")
    (campaigns / "more.yaml").write_text(f"# why\n{CAMPAIGN}", encoding="utf-8")
    assert build(content, out).written == []
    (campaigns / "more.yaml").write_text(changed, encoding="utf-8")
    assert sorted(build(content, out).written) == [
        "assets/gaps-data.js",
        "gaps.html",
        "index.html",
    ]
    assert "An API" in (out / "index.html").read_text(encoding="utf-8")
    (campaigns / "more.yaml").unlink()
    assert sorted(build(content, out).written) == [
        "assets/gaps-data.js",
        "gaps.html",
        "index.html",
    ]
    assert "Nothing is queued" in (out / "index.html").read_text(encoding="utf-8")


def test_a_run_that_answers_an_entry_takes_it_off_the_queue(
    content: Path, out: Path, campaigns: Path
) -> None:
    key = open_site(content).plan.runs[0].run.key
    change(content, "provenance:\n", f"provenance:\n  planned: {key}\n")
    build(content, out)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "--only other" not in page
    done = page.partition("Recently done")[2]
    assert "Another quant" in done
    assert f"runs/{RUN}.html" in done


def test_a_broken_campaign_leaves_the_site_as_it_was(
    content: Path, out: Path, campaigns: Path
) -> None:
    build(content, out)
    before = contents(out)
    (campaigns / "more.yaml").write_text(CAMPAIGN.replace("llamacpp", "lamacpp"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"more\.yaml:6: "):
        build(content, out)
    assert contents(out) == before


def test_campaigns_may_lie_elsewhere_and_must_be_there(
    content: Path, out: Path, campaigns: Path, tmp_path: Path
) -> None:
    elsewhere = campaigns.rename(tmp_path / "elsewhere")
    assert open_site(content).queue == []
    [entry] = open_site(content, campaigns=elsewhere).queue
    assert entry.title == "Another quant"
    with pytest.raises(InputError, match="no such folder"):
        build(content, out, campaigns=tmp_path / "nowhere")


def test_pages_of_removed_runs_go(content: Path, out: Path) -> None:
    build(content, out)
    (content / RECORD).unlink()
    assert f"runs/{RUN}.html" in build(content, out).removed
    assert not (out / f"runs/{RUN}.html").exists()


def test_a_page_that_was_changed_or_lost_is_made_again(content: Path, out: Path) -> None:
    build(content, out)
    before = contents(out)
    (out / "index.html").write_text("mine", encoding="utf-8")
    (out / "assets/page.css").unlink()
    assert build(content, out).written == ["assets/page.css", "index.html"]
    assert contents(out) == before


def test_files_of_others_stay(content: Path, out: Path) -> None:
    out.mkdir()
    (out / "CNAME").write_text("example.org")
    build(content, out)
    build(content, out)
    assert (out / "CNAME").read_text() == "example.org"


def test_a_file_of_others_in_the_way_stops_the_build(content: Path, out: Path) -> None:
    out.mkdir()
    (out / "index.html").write_text("mine")
    with pytest.raises(StoreError, match=r"index\.html: is in the way"):
        build(content, out)
    assert contents(out) == {"index.html": b"mine"}


def test_a_broken_record_leaves_the_site_as_it_was(content: Path, out: Path) -> None:
    build(content, out)
    before = contents(out)
    change(content, "concurrency: 1", "concurrency: one")
    with pytest.raises(RecordError, match=rf"{RUN}\.yaml:\d+: "):
        build(content, out)
    assert contents(out) == before
    assert not (out / STAGE).exists()


def test_keep_going_leaves_it_out_and_says_so(content: Path, out: Path) -> None:
    change(content, "concurrency: 1", "concurrency: one")
    report = build(content, out, keep_going=True)
    assert [problem.path for problem in report.problems] == [f"{RIG}/{RUN}.yaml"]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "1 file could not be read" in page
    page = page.replace("<wbr>", "")
    assert re.search(rf"<code>{RIG}/{RUN}\.yaml</code>:\d+: ", page)
    assert str(content) not in page
    assert not (out / f"runs/{RUN}.html").exists()


def full(*_: object) -> None:
    """What a disk without room does. Other processes must know it by its name."""
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["render", "commit"])
def test_a_full_disk_leaves_the_site_as_it_was(
    content: Path, out: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    build(content, out)
    before = contents(out)
    change(content, "median: 206.5", "median: 206.4")
    with monkeypatch.context() as broken:
        target = "_render_one" if step == "render" else "_write_manifest"
        broken.setattr(building, target, full)
        with pytest.raises(StoreError, match="No space left"):
            build(content, out)
    assert contents(out) == before
    assert build(content, out).written


def test_a_build_that_died_while_moving_files_in_is_made_good(
    content: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(content, out)
    change(content, "median: 206.5", "median: 206.4")
    moved: list[str] = []
    real = os.replace

    def dying(source: Path, target: Path) -> None:
        if len(moved) == 3:
            raise KeyboardInterrupt
        moved.append(str(target))
        real(source, target)

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            build(content, out)
    build(content, out)
    build(content, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_what_a_killed_build_left_is_swept(content: Path, out: Path) -> None:
    (out / STAGE).mkdir(parents=True)
    (out / STAGE / "index.html").write_text("half")
    build(content, out)
    assert not (out / STAGE).exists()


def test_a_published_address_may_not_disappear(content: Path, out: Path) -> None:
    (content / "urls.txt").write_text("models/gemma-4-e2b-it.html\nmodels/gone.html\n")
    with pytest.raises(CheckFailed, match=r"models/gone\.html") as refused:
        build(content, out)
    assert "redirects.yaml" in refused.value.hint
    assert not out.exists()
    (content / "redirects.yaml").write_text("models/gone.html: models/gemma-4-e2b-it.html\n")
    report = build(content, out)
    assert "models/gone.html" in report.written
    assert "models/gemma-4-e2b-it.html" not in report.unguarded


def test_no_content_is_said(tmp_path: Path, out: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        build(tmp_path / "nothing", out)


def test_an_empty_content_folder_makes_a_page_that_says_what_to_do(
    tmp_path: Path, out: Path
) -> None:
    (tmp_path / "content").mkdir()
    build(tmp_path / "content", out)
    assert "tokrig run" in (out / "index.html").read_text(encoding="utf-8")


def test_the_manifest_owns_every_file(content: Path, out: Path) -> None:
    build(content, out)
    listed = json.loads((out / MANIFEST).read_text())["files"]
    assert set(listed) == set(contents(out))


def test_a_record_that_contradicts_itself_is_shown_as_invalid(content: Path, out: Path) -> None:
    """Check calls it broken; the page is built, and says which file and line."""
    change(content, "status: complete", "status: complete\nfailure: {code: x, message: it died}")
    report = build(content, out)
    [told] = report.marked
    assert f"{RECORD.rpartition('/')[2]}:7: failure.code" in told.message
    page = (out / "runs" / f"{RUN}.html").read_text(encoding="utf-8")
    assert "contradictory" in page
    shown = build(content, out).index.read_text(encoding="utf-8")
    assert "211.9" not in shown


def test_a_slip_is_told_and_never_first(content: Path, out: Path) -> None:
    before = build(content, out)
    assert before.marked == ()
    change(content, "median: 211.9", "median: 9211.9")
    [told] = build(content, out).marked
    assert "42.5 times as fast as its nearest kin" in told.message
    assert "9211" not in (out / "index.html").read_text(encoding="utf-8")
    assert "implausible" in (out / "runs" / f"{RUN}.html").read_text(encoding="utf-8")
