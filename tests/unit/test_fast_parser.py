"""The faster parser sees what PyYAML sees, and nothing where PyYAML would refuse."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.list_records import example_record
from tokrig import documents
from tokrig.errors import SpecError
from tokrig.record.model import record_text

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted((ROOT / "content").glob("benchmarks/runs/*/*.yaml"))
ODD = [
    *("yes", "No", "~", "Null", "TRUE", "0x1F", "0o7", "017", "1_000", "1:30", "1e5", "1.5e10"),
    *("1.5e+10", ".5", "5.", ".inf", "-.inf", "nan", ".nan", "inf", "+1", "007", "-0", "1e400"),
    *("0.1.0", "2026-11-28", "2026-11-28T01:07:07Z", "12345e678", "9" * 40, "1,000", "a#b", "a #b"),
    *("a: b", "a:b", "'it''s'", r'"\x1B\u2028\U0001F600\n\"\\\0\t"', '"tab\\t"', "é", "=", "<<"),
    *("&x 1", "*x", "!!int 3", "|\n  a\n", "[]", "{}", "[a, b]", "{a: 1, b: [x, y]}"),
    "{a: 1, a: 2}",
    *("", "null", "true", "0b11", "\x85", "\xa0", "\u200b", "- 1", "-1", "--x", "%a", "@b", "`c"),
    *('"x" y', '"x"y', "[a", "[a,b]", "[a: 1]", "{a}", "[, a]", "[a, ]", "[1, 2,\n  3]", "? a"),
    *("a\n  b", '"a\n  b"', "a\n b: 1", "x\t", "\tx", "$HOME", "~/x", r"C:\x", '"C:\\x"'),
]


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small texts, too: otherwise loading the parser costs more than it saves."""
    monkeypatch.setattr(documents, "_WORTH_IT", 0)


def slowly(text: str) -> Any:
    documents._refuse_bombs(text)
    loader = documents._Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def same(text: str) -> bool:
    """Whether the faster parser took the text; then the data have to be equal, types as well."""
    found = documents._parse_simple(text)
    if found is not None:
        assert repr(found) == repr(slowly(text))
    return found is not None


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_record_of_the_repository(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert same(text)
    assert text.endswith("\n\n" + documents.dump(slowly(text))), "written as before, byte for byte"


def test_records_as_tokrig_writes_them() -> None:
    assert all(same(record_text(example_record(number))) for number in range(20))


@pytest.mark.parametrize(
    "layout", ["k: {}\n", "k: [x, {}]\n", "k: {{z: {}, y: 1}}\n", "- {}\n", "{}: 1\n"]
)
def test_odd_scalars(layout: str) -> None:
    for scalar in ODD:
        same(layout.format(scalar))


@pytest.mark.parametrize(
    "text",
    [
        *("k: 1\nk: 2\n", "a: {b: 1, b: 2}\n", "a: 1\n b: 2\n", "a: 1\n---\nb: 2\n", "---\na: 1\n"),
        *("a: &x 1\nb: *x\n", "a: b: c\n", "a: 'x' y\n", "\ta: 1\n", "a: [1\nb: 2\n", ""),
        *("# only\n", "- 1\na: 2\n", "a: 1\n- 2\n", "a:\n  b: 1\n c: 2\n"),
        *("- a: 1\n b: 2\n", "a: 1\nb\n"),
    ],
)
def test_what_is_refused_or_empty_is_left_to_pyyaml(text: str) -> None:
    assert documents._parse_simple(text) is None


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.sampled_from(ODD)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), values, min_size=1, max_size=6))
def test_whatever_is_written(data: dict[str, Any]) -> None:
    same(documents.dump(data))


PIECES = [
    *("a", "b", ": ", ":", "- ", "-", "\n", "\n  ", " ", "[", "]", "{", "}", ", ", ",", '"', "'"),
    *(": |\n  ", "#", " #", "1", "1.5", "yes", "~", "&a", "*a", "!", "|", ">", "?", "\\", "<<"),
    *("é", "\t"),
]


def test_any_text() -> None:
    """Whatever PyYAML refuses is refused, and whatever is taken is the same."""
    chance = random.Random(7)
    taken = 0
    for _ in range(20_000):
        text = "".join(chance.choices(PIECES, k=chance.randrange(1, 14))) + "\n"
        try:
            taken += same(text)
        except Exception as problem:
            raise AssertionError(repr(text)) from problem
    assert taken > 100


def test_a_text_that_is_not_taken_has_its_error_with_the_line() -> None:
    with pytest.raises(SpecError, match="f.yaml:2: duplicate key 'k'"):
        documents.parse("k: 1\nk: 2\n", "f.yaml")
