"""Published addresses: the list of them, redirects, and what leads nowhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tokrig.errors import InputError, StoreError
from tokrig.site import Output
from tokrig.site.build import record_addresses
from tokrig.site.context import Site
from tokrig.site.pages.redirects import PAGE, follow, refuse_dangling
from tokrig.store import Store
from tokrig.store.facts import load_published, load_redirects

OLD, NEW = "models/gemma-4-e2b.html", "models/gemma-4-e2b-it.html"


def redirect(content: Path, text: str) -> dict[str, str]:
    (content / "redirects.yaml").write_text(text, encoding="utf-8")
    return load_redirects(content)


# urls.txt


def test_new_addresses_are_added_in_order(tmp_path: Path) -> None:
    record_addresses(tmp_path, ["runs/b.html", "index.html"])
    record_addresses(tmp_path, ["data.html"])
    assert load_published(tmp_path) == ["data.html", "index.html", "runs/b.html"]
    lines = (tmp_path / "urls.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert [line for line in lines if not line.startswith("#")] == load_published(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["urls.txt"]


def test_nothing_new_leaves_the_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "urls.txt"
    file.write_text("a.html\nb.html  # of 2026\n", encoding="utf-8")
    record_addresses(tmp_path, ["a.html"])
    record_addresses(tmp_path, [])
    assert file.read_text(encoding="utf-8") == "a.html\nb.html  # of 2026\n"


def test_a_list_that_cannot_be_written_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_addresses(tmp_path, ["a.html"])

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match=r"urls\.txt: cannot be written: No space"):
        record_addresses(tmp_path, ["b.html"])
    assert load_published(tmp_path) == ["a.html"]
    assert [file.name for file in tmp_path.iterdir()] == ["urls.txt"]


# Redirects


def pages_of(redirects: dict[str, str]) -> dict[str, Output]:
    site = Site(Store(Path("nowhere")), (), families={}, rigs={}, redirects=redirects)
    return {output.path: output for output in PAGE(site)}


def test_a_redirect_leads_on_with_and_without_a_script() -> None:
    page = pages_of({OLD: NEW})[OLD].render().decode()
    target = "gemma-4-e2b-it.html"
    assert f'<meta http-equiv="refresh" content="0; url={target}">' in page
    assert f'<link rel="canonical" href="{target}">' in page
    assert f'<a href="{target}">' in page
    assert f'location.replace("{target}" + location.search + location.hash)' in page


def test_a_redirect_leads_into_other_folders() -> None:
    page = pages_of({"speed.html": "index.html", "rigs/a.html": "rigs-of/b/a.html"})
    assert 'href="index.html"' in page["speed.html"].render().decode()
    assert 'href="../rigs-of/b/a.html"' in page["rigs/a.html"].render().decode()


def test_redirects_in_a_row_lead_to_the_last_place() -> None:
    assert follow({"a.html": "b.html", "b.html": "c.html"}) == {
        "a.html": "c.html",
        "b.html": "c.html",
    }


def test_a_redirect_has_another_key_when_it_leads_elsewhere() -> None:
    assert pages_of({OLD: NEW})[OLD].key != pages_of({OLD: "index.html"})[OLD].key


def test_a_redirect_that_leads_nowhere_is_refused_with_its_line(tmp_path: Path) -> None:
    known = redirect(tmp_path, f"a.html: index.html\n\n'{OLD}': models/gemma-4-e2b-itt.html\n")
    with pytest.raises(InputError) as caught:
        refuse_dangling(tmp_path, known, {"index.html", NEW, "a.html", OLD})
    where = re.escape(str(tmp_path / "redirects.yaml"))
    assert re.match(rf"{where}:3: {OLD} would lead to .*itt\.html", caught.value.message)
    assert caught.value.hint == f"did you mean {NEW}?"


def test_only_pages_can_lead_on(tmp_path: Path) -> None:
    known = redirect(tmp_path, "data/old.csv: data/results.csv\n")
    with pytest.raises(InputError, match=r"redirects\.yaml:1: data/old\.csv is no page"):
        refuse_dangling(tmp_path, known, {"data/results.csv", "data/old.csv"})


def test_good_redirects_pass(tmp_path: Path) -> None:
    known = redirect(tmp_path, "a.html: b.html\nb.html: index.html\n")
    refuse_dangling(tmp_path, known, {"a.html", "b.html", "index.html"})
    refuse_dangling(tmp_path / "nowhere", {}, set())
