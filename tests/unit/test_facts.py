"""Facts that people wrote down: read, and refused with file and line where they are wrong."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from tokrig.errors import InputError, TokrigError
from tokrig.naming import address
from tokrig.store import facts
from tokrig.store.facts import load_families, load_published, load_redirects, load_rigs

LOADERS = (load_families, load_rigs, load_redirects, load_published)


def put(content: Path, name: str, text: str | bytes) -> Path:
    path = content / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(load: Any, content: Path) -> TokrigError:
    with pytest.raises(TokrigError) as caught:
        load(content)
    return caught.value


@pytest.mark.parametrize("load", LOADERS)
def test_nothing_written_down_is_nothing_wrong(load: Any, tmp_path: Path) -> None:
    assert not load(tmp_path)
    assert not load(tmp_path / "nowhere")


# Families

WHOLE = """\
family: Gemma-4
released: 2026-04
summary: Models for *small* machines.
variants:
  E2B-it:
    summary: The small one.
    context: 131072
    capabilities: [text, images]
    checkpoint: google/gemma-4-e2b-it
    commit: 0a1b2c3
  E4B-it: {}
"""


def test_a_family(tmp_path: Path) -> None:
    put(tmp_path, "models/gemma-4.yaml", WHOLE)
    put(tmp_path, "models/lfm2.5-350m.yaml", "family: LFM2.5-350M\n")
    put(tmp_path, "models/.draft.yaml", "no: family\n")
    families = load_families(tmp_path)
    assert list(families) == ["Gemma-4", "LFM2.5-350M"]
    gemma = families["Gemma-4"]
    assert (gemma.released, gemma.summary) == ("2026-04", "Models for *small* machines.")
    assert gemma.variants["E2B-it"].context == 131072
    assert gemma.variants["E2B-it"].capabilities == ["text", "images"]
    assert gemma.variants["E4B-it"].checkpoint is None
    assert families["LFM2.5-350M"].released is None


@pytest.mark.parametrize(
    ("text", "line", "says", "hint"),
    [
        (WHOLE.replace("released", "relased"), 2, "unknown key 'relased'", "mean 'released'"),
        (WHOLE.replace("    commit", "    comit"), 10, "unknown key 'comit'", "mean 'commit'"),
        (WHOLE.replace("2026-04", "April 2026"), 2, "'April 2026' is no month", ""),
        (WHOLE.replace("2026-04", "2026-13"), 2, "'2026-13' is no month", ""),
        (WHOLE.replace("2026-04", "2026"), 2, "released: should be a valid string", "quotes"),
        (WHOLE.replace("131072", "-1"), 7, "greater than or equal to 0", ""),
        (WHOLE.replace("[text, images]", "text"), 8, "capabilities: should be a valid list", ""),
        (WHOLE.replace("  E4B-it: {}", "  E2B-it: {}"), 11, "duplicate key 'E2B-it'", ""),
        (WHOLE.replace("family: Gemma-4\n", ""), 1, "missing key 'family'", ""),
        ("- family: Gemma-4\n", 1, "should be a mapping of keys, not a list", ""),
        ("", None, "should be a mapping of keys, not empty", ""),
        ("family: [\n", 2, "did not find expected node", ""),
        ("a: &a [x]\nb: *a\n", 2, "alias", ""),
        ("[" * 50_000, 1, "nested more than", ""),
        ("family: !!python/object:os.system x\n", 1, "could not determine a constructor", ""),
        ("family: a\x07b\n", 1, "control characters are not allowed", "escapes"),
    ],
)
def test_a_family_that_is_wrong(
    tmp_path: Path, text: str, line: int | None, says: str, hint: str
) -> None:
    path = put(tmp_path, "models/gemma-4.yaml", text)
    problem = refusal(load_families, tmp_path)
    where = f"{path}:{line}: " if line else f"{path}: "
    assert isinstance(problem, InputError)
    assert problem.message.startswith(where)
    assert says in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize("name", ["Gemma-4", "Ä <script>", "../../etc", "x" * 10_000, "a\u202eb"])
def test_a_family_lies_in_the_file_of_its_address(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, "models/other.yaml", f'family: "{name}"\n')
    problem = refusal(load_families, tmp_path)
    assert "not the file of the family" in problem.message
    assert f"rename it to {address(name)}.yaml" in problem.hint
    assert "\u202e" not in problem.message
    assert len(problem.message) < 500
    path.rename(path.with_name(f"{address(name)}.yaml"))
    assert list(load_families(tmp_path)) == [name]


# Rigs

FRONT = """\
---
name: The desk
memory_bandwidth_bytes_per_s:
  measured: 29300000000
  theoretical: 3.2e+10
  source: tokrig rig --bandwidth
matrix_flop_per_s: {theoretical: 61.7e12, source: data sheet}
---

Under the desk.

---

Loud.
"""


def test_a_rig_with_figures(tmp_path: Path) -> None:
    put(tmp_path, "rigs/desk-24gb.md", FRONT)
    (rig,) = load_rigs(tmp_path).values()
    assert rig.name == "The desk"
    assert rig.memory_bandwidth_bytes_per_s is not None
    assert rig.memory_bandwidth_bytes_per_s.measured == 29.3e9
    assert rig.memory_bandwidth_bytes_per_s.theoretical == 32e9
    assert rig.matrix_flop_per_s is not None
    assert rig.matrix_flop_per_s.measured is None
    assert rig.prose == "Under the desk.\n\n---\n\nLoud."


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("Only prose.\n", "Only prose."),
        ("---\n---\nEmpty front matter.", "Empty front matter."),
        ("\ufeff---\r\nname: x\r\n---\r\nWindows.\r\n", "Windows."),
        ("<script>alert(1)</script> \u202e", "<script>alert(1)</script> \u202e"),
        ("", ""),
    ],
)
def test_a_rig_of_prose(tmp_path: Path, text: str, prose: str) -> None:
    put(tmp_path, "rigs/desk.md", text)
    assert load_rigs(tmp_path)["desk"].prose == prose


@pytest.mark.parametrize(
    ("text", "line", "says", "hint"),
    [
        (FRONT.replace("source: tokrig", "sauce: tokrig"), 6, "unknown key 'sauce'", "'source'"),
        (FRONT.replace("29300000000", "0"), 4, "greater than 0", ""),
        (FRONT.replace("29300000000", ".inf"), 4, "finite number", ""),
        (FRONT.replace("29300000000", "29 GB/s"), 4, "should be a valid number", ""),
        (FRONT.replace("name: The", "prose: The"), 2, "unknown key 'prose'", ""),
        (FRONT.replace("name: The desk", "name: [The desk"), 3, "did not find expected", ""),
        ("---\nname: The desk\n", 1, "the front matter does not end", "close it with"),
    ],
)
def test_a_rig_that_is_wrong(tmp_path: Path, text: str, line: int, says: str, hint: str) -> None:
    path = put(tmp_path, "rigs/desk.md", text)
    problem = refusal(load_rigs, tmp_path)
    assert problem.message.startswith(f"{path}:{line}: ")
    assert says in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize("name", ["README.md", "my desk.md", "désk.md", "-desk.md"])
def test_a_rig_is_named_by_its_id(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"rigs/{name}", "Prose.")
    problem = refusal(load_rigs, tmp_path)
    assert "cannot be the id of a rig" in problem.message
    assert "tokrig rig" in problem.hint


# Addresses


def test_redirects(tmp_path: Path) -> None:
    text = "models/old.html: models/new.html\nmodels/older.html: models/old.html\n"
    put(tmp_path, "redirects.yaml", text)
    assert load_redirects(tmp_path) == {
        "models/old.html": "models/new.html",
        "models/older.html": "models/old.html",
    }


BAD_ADDRESSES = [
    *("/models/x.html", "../x.html", "models/../../x.html", "models//x.html", "models/", "."),
    *("https://x.example/", "javascript:alert(1)", "//x.example/a", "a\\\\b.html", "a b.html"),
    *("a.html?q=1", "Models/X.html", "ä.html", "a\\u202eb.html", ".git/config", "x" * 201, ""),
    *("<script>", "%2e%2e/x.html"),
]


@pytest.mark.parametrize("bad", BAD_ADDRESSES)
@pytest.mark.parametrize("line", ['"{}": models/x.html', 'models/x.html: "{}"'])
def test_a_redirect_stays_inside_the_site(tmp_path: Path, bad: str, line: str) -> None:
    path = put(tmp_path, "redirects.yaml", f"a.html: b.html\n{line.format(bad)}\n")
    problem = refusal(load_redirects, tmp_path)
    assert problem.message.startswith(f"{path}:2: ")
    assert "is no address inside the site" in problem.message


@pytest.mark.parametrize(
    "text", ["a.html: a.html\n", "x: a\na: b\nb: c\nc: a\n", "c: d\nd: e\ne: d\n"]
)
def test_redirects_in_a_circle(tmp_path: Path, text: str) -> None:
    put(tmp_path, "redirects.yaml", text)
    problem = refusal(load_redirects, tmp_path)
    assert "is redirected back to itself" in problem.message
    assert problem.hint


def test_a_long_way_of_redirects_takes_no_square_of_time(tmp_path: Path) -> None:
    put(tmp_path, "redirects.yaml", "".join(f"p{n}: p{n + 1}\n" for n in range(9_000)))
    before = time.process_time()
    assert len(load_redirects(tmp_path)) == 9_000
    assert time.process_time() - before < 2  # 0.3 s; with a square in it 3 s


def test_published_addresses(tmp_path: Path) -> None:
    put(tmp_path, "urls.txt", "# all of them\nindex.html\n\nmodels/x.html  # since 0.1\r\n")
    assert load_published(tmp_path) == ["index.html", "models/x.html"]


@pytest.mark.parametrize("bad", ["/index.html", "../x", "https://x.example/", "a b", "x" * 201])
def test_a_published_address_stays_inside_the_site(tmp_path: Path, bad: str) -> None:
    path = put(tmp_path, "urls.txt", f"index.html\n{bad}\n")
    problem = refusal(load_published, tmp_path)
    assert problem.message.startswith(f"{path}:2: ")
    assert "is no address inside the site" in problem.message


# Files

FILES = ("models/a.yaml", "rigs/a.md", "redirects.yaml", "urls.txt")
each_file = pytest.mark.parametrize(("load", "name"), list(zip(LOADERS, FILES, strict=True)))


@each_file
def test_a_huge_file_is_not_read(load: Any, name: str, tmp_path: Path) -> None:
    most = facts.MAX_URLS_CHARACTERS if name == "urls.txt" else facts.MAX_CHARACTERS
    path = put(tmp_path, name, "#" * (most + 1))
    problem = refusal(load, tmp_path)
    assert problem.message == f"{path}: longer than {most:,} characters"
    assert problem.hint


@each_file
def test_a_file_that_is_no_text(load: Any, name: str, tmp_path: Path) -> None:
    put(tmp_path, name, b"a: \xff\xfe\n")
    assert "not UTF-8 text" in refusal(load, tmp_path).message


@each_file
def test_a_folder_in_the_place_of_a_file(load: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir(parents=True)
    problem = refusal(load, tmp_path)
    assert isinstance(problem, InputError)
    assert "cannot be read" in problem.message


# What docs/content.md says

DOCS = (Path(__file__).parents[2] / "docs" / "content.md").read_text(encoding="utf-8")


def test_the_documented_examples_are_read(tmp_path: Path) -> None:
    family, redirects = re.findall(r"^```yaml\n(.*?)^```", DOCS, re.DOTALL | re.MULTILINE)
    (rig,) = re.findall(r"^```markdown\n(.*?)^```", DOCS, re.DOTALL | re.MULTILINE)
    put(tmp_path, "models/gemma-4.yaml", family)
    put(tmp_path, "rigs/desk.md", rig)
    put(tmp_path, "redirects.yaml", redirects)
    assert load_families(tmp_path)["Gemma-4"].variants["E2B-it"].commit == "0a1b2c3"
    figures = load_rigs(tmp_path)["desk"]
    assert figures.matrix_flop_per_s is not None
    assert figures.matrix_flop_per_s.theoretical == 61.7e12
    assert len(load_redirects(tmp_path)) == 1


def test_every_key_is_documented() -> None:
    models = (facts.Family, facts.Variant, facts.Rate, facts.RigFigures)
    keys = {key for model in models for key in model.model_fields}
    assert [key for key in keys if not re.search(rf"[`.]{key}`", DOCS)] == []


def test_what_is_stated_of_a_machine_elsewhere(tmp_path: Path) -> None:
    text = "---\nhardware: {cpu: {cores: 12}, gpus: [{name: RTX 5070, vendor: nvidia}]}\n---\n"
    put(tmp_path, "rigs/cellar.md", text)
    hardware = load_rigs(tmp_path)["cellar"].hardware
    assert hardware is not None
    assert (hardware.cpu.cores, [gpu.name for gpu in hardware.gpus]) == (12, ["RTX 5070"])
    put(tmp_path, "rigs/cellar.md", "---\nhardware:\n  gpu: RTX\n---\n")
    assert "gpu" in refusal(load_rigs, tmp_path).message
