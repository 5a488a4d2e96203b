"""Addresses that were published: each is still there, and none can be lost unnoticed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tokrig.errors import CheckFailed
from tokrig.site.build import Report, build
from tokrig.store.facts import load_published

CONTENT = Path(__file__).parents[2] / "content"
RECORD = "benchmarks/runs/geforce-rtx-5070-12gb/seed-lfm2-1.2b-tool-q4_k_m.yaml"
OLD, NEW = "models/lfm2-1.2b-tool.html", "models/lfm2-1.2b-tools.html"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The site of this repository's records."""
    return build(CONTENT, tmp_path_factory.mktemp("site"))


def test_every_published_address_is_still_there(report: Report) -> None:
    published = load_published(CONTENT)
    assert len(published) > 20
    assert [url for url in published if not (report.out / url).is_file()] == []


def test_every_page_is_in_the_list(report: Report) -> None:
    """``tokrig site build --record-urls`` adds what is missing."""
    assert report.unguarded == []
    published = set(load_published(CONTENT))
    pages = {file.relative_to(report.out).as_posix() for file in report.out.rglob("*.html")}
    assert pages - published == set()


def test_a_model_cannot_be_renamed_without_a_redirect(tmp_path: Path) -> None:
    content = tmp_path / "content"
    shutil.copytree(CONTENT, content)
    text = (content / RECORD).read_text(encoding="utf-8")
    assert "variant: 1.2B-Tool" in text
    renamed = text.replace("variant: 1.2B-Tool", "variant: 1.2B-Tools")
    (content / RECORD).write_text(renamed, encoding="utf-8")
    with pytest.raises(CheckFailed) as caught:
        build(content, tmp_path / "site")
    assert OLD in caught.value.message
    assert f"content/redirects.yaml: {OLD}: " in caught.value.hint

    (content / "redirects.yaml").write_text(f"{OLD}: {NEW}\n", encoding="utf-8")
    build(content, tmp_path / "site")
    assert Path(NEW).name in (tmp_path / "site" / OLD).read_text(encoding="utf-8")
