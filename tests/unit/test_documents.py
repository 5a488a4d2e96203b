"""YAML: read with line numbers, refused where it is dangerous, written so it reads back."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from tokrig.documents import dump, parse, validate
from tokrig.errors import RecordError, SpecError

ODD_TEXTS = [
    *("no", "yes", "on", "off", "n", "y", "NO", "True", "null", "~", "", " ", "=", "<<", "-", "?"),
    *("1.0", "1e3", "1.e3", "1e-05", ".5", "1_000", "0x1F", "0o17", "017", "1:30", "12:30:45"),
    *("2026-11-22", "2026-11-22T10:00:00Z", ".inf", "-.nan", "+1", "0123e45", "580.65.06", "٣"),
    *("a: b", "a:", "a #b", "#a", "- a", "-a", "--flag", "---", "... x", "[x]", "{x}", "a, b"),
    *("&a", "*a", "!a", "%a", "@a", "`a", "'a'", '"a"', "it's", 'say "it\'s"', "C:\\x", "a|b"),
    *("übermäßig", "日本語", "🙂", "a\u200fb", "a\u200db", "a\u00a0b", "\ufeffa", "a\x85b"),
    *("a\x07b", "a\x1b[31mb", "\x00", "\x7f", "a\tb", "\ta", "a\r\nb", "\r", "\uffff", "a\u2028b"),
    *("a\nb", "a\nb\n", "a\n\n", "\n", "\na", " a\nb", "a\n b\n", "a\n  ", "\t\na", "  \na"),
    *("a\n---\nb", "a\n# b\n", "a\n\tb", "a \u202eb\nc", "\U0010ffff", ">", "0?", "a?"),
    *("x" * 5000, "word " * 2000, "line\n" * 300),
]

texts = st.text() | st.sampled_from(ODD_TEXTS) | st.text("ab:#-[]{},'\"\\ \n\t?!&*|>%@~=019.eE+_x")
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(texts, inner, max_size=6),
    max_leaves=30,
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of equal types all the way down (1, 1.0 and True are three things)."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=False)
        return len(one) == len(other) and all(a == c and same(b, d) for (a, b), (c, d) in pairs)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(texts, values, max_size=6))
@example(dict.fromkeys(ODD_TEXTS, 0))
@example({str(i): text for i, text in enumerate(ODD_TEXTS)})
@example({"list": ODD_TEXTS, "deep": [{"in": {"there": {"list": [ODD_TEXTS]}}}]})
@example({"maps": [{str(i): t} for i, t in enumerate(ODD_TEXTS)]})
@example({"a": {"b": {"c": {str(i): t for i, t in enumerate(ODD_TEXTS)}}}})
@example({"k" * 2000: {"k" * 2000: ["v"]}})
@example({"a": [[], {}, [[]], [{}], [[[1, "a\n"]]]]})
def test_what_is_written_reads_back(data: dict[str, Any]) -> None:
    text = dump(data)
    assert same(parse(text, "x"), data)
    assert same(yaml.load(text, Loader=yaml.SafeLoader), data)


@pytest.mark.parametrize("number", [1e-05, 1.5e-7, 1e-300, 1e22, 1e16, -0.0, 5e-324, 0.1, 1e15])
def test_floats_read_back_as_floats(number: float) -> None:
    text = dump({"x": number})
    found = parse(text, "x")["x"]
    assert isinstance(found, float)
    assert math.copysign(1, found) == math.copysign(1, number)
    assert found == number


def test_floats_are_short() -> None:
    data = {"a": 0.1, "b": 1e-05, "c": 1e22, "d": math.inf, "e": 2.0}
    assert dump(data) == "a: 0.1\nb: 0.00001\nc: 1.0e+22\nd: .inf\ne: 2.0\n"
    assert math.isnan(parse(dump({"x": math.nan}), "x")["x"])


def test_layout_for_people() -> None:
    data = {
        "schema": 1,
        "metric": {"median": 0.1234, "min": 0.12, "max": 0.13, "n": 3, "ci95": [0.1, 0.2]},
        "features": [f"feature{i:02}" for i in range(15)],
        "prose": "first line\n  second line\n",
        "rows": [{"name": "a", "deep": {"x": {"y": 1}}}, {"name": "b", "list": [{"z": 1}]}],
        "words": {"n": "no", "version": "1.0", "text": "it's, well", "path": "a/b"},
    }
    assert dump(data) == (
        "schema: 1\n"
        "metric: {median: 0.1234, min: 0.12, max: 0.13, n: 3, ci95: [0.1, 0.2]}\n"
        "\n"
        "features: [feature00, feature01, feature02, feature03, feature04, feature05, feature06,"
        " feature07,\n"
        "  feature08, feature09, feature10, feature11, feature12, feature13, feature14]\n"
        "\n"
        "prose: |\n"
        "  first line\n"
        "    second line\n"
        "\n"
        "rows:\n"
        "  - name: a\n"
        "    deep:\n"
        "      x: {y: 1}\n"
        "\n"
        "  - name: b\n"
        "    list:\n"
        "      - {z: 1}\n"
        "\n"
        'words: {n: "no", version: "1.0", text: "it\'s, well", path: a/b}\n'
    )


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1), st.floats(allow_nan=False) | st.integers()))
def test_small_maps_keep_to_the_width(data: dict[str, Any]) -> None:
    assert all(len(line) <= 100 for line in dump({"x": data, "y": [data]}).splitlines())


def test_same_object_twice_needs_no_anchor() -> None:
    shared = {"x": [1, 2]}
    text = dump({"a": shared, "b": shared})
    assert "&" not in text
    assert "*" not in text


def test_half_a_surrogate_pair_is_replaced() -> None:
    assert parse(dump({"a": "x\ud83d"}), "x") == {"a": "x\ufffd"}


@pytest.mark.parametrize("value", [{1, 2}, object(), b"x", {"a": set()}, [frozenset()]])
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be written as YAML"):
        dump({"x": value})


def test_keys_have_to_be_text() -> None:
    data: dict[Any, Any] = {1: "a"}
    for broken in (data, {"x": data}, {"x": [data]}):
        with pytest.raises(TypeError, match="must be text"):
            dump(broken)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "did not find expected ',' or ']'"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", 4, "duplicate key 'c'"),
        ("a: {x: 1, x: 1}\n", 1, "duplicate key 'x'"),
        ("a: 1\n\tb: 2\n", 2, "found a tab character"),
        ("a: &x [1]\nb: *x\n", 2, "alias '*x' is not allowed"),
        ("a: 1\n---\nb: 2\n", 2, "found another document"),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "could not determine a constructor"),
        ("a: 1\nb: x\x07y\n", 2, "control characters are not allowed"),
        ("[" * 200_000, 1, "nested more than 100 levels"),
        ("- " * 200_000, 1, "nested more than 100 levels"),
        ("{a: " * 200_000, 1, "nested more than 100 levels"),
    ],
)
def test_broken_yaml_names_file_and_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse(text, "f.yaml", RecordError)
    assert caught.value.message.startswith(f"f.yaml:{line}: ")
    assert reason in caught.value.message


def test_nesting_below_the_limit_of_the_stack_ends_in_a_plain_error() -> None:
    with pytest.raises(SpecError):
        validate(Outer, parse("[" * 2000 + "]" * 2000, "f"), "[" * 2000 + "]" * 2000, "f")


@pytest.mark.parametrize("value", ["!!int x", "!!bool x", "!!timestamp x", "9" * 5000])
def test_values_that_do_not_fit_their_tag(value: str) -> None:
    with pytest.raises(SpecError, match="does not fit its tag"):
        parse(f"a: {value}", "f")


def test_tabs_are_explained() -> None:
    with pytest.raises(SpecError) as caught:
        parse("a:\n\tb: 2\n", "f.yaml")
    assert caught.value.hint == "indent with spaces, not tabs"


def test_dates_stay_text() -> None:
    assert parse("a: 2026-11-22\nb: 2026-13-45", "f") == {"a": "2026-11-22", "b": "2026-13-45"}


def test_empty_documents_are_none() -> None:
    assert parse("", "f") is None
    assert parse("# only a comment\n", "f") is None


class Inner(BaseModel):
    """A nested block."""

    model_config = ConfigDict(extra="forbid")
    median: float
    label: str = ""


class Outer(BaseModel):
    """A document."""

    model_config = ConfigDict(extra="forbid")
    name: str
    workloads: list[str] | None = None
    inner: Inner | None = None
    rows: list[Inner] = []
    by_name: dict[str, Inner] = {}


def problems(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        validate(Outer, parse(text, "f.yaml"), text, "f.yaml")
    return caught.value


def test_unknown_key_has_its_line_and_the_nearest_key() -> None:
    error = problems("name: x\n\nworkload: [chat]\n")
    assert error.message == "f.yaml:3: unknown key 'workload'"
    assert error.hint.startswith("did you mean 'workloads'? Known: ")


@pytest.mark.parametrize(
    ("text", "message", "near"),
    [
        (
            "name: x\ninner:\n  median: 1\n  lable: y\n",
            "f.yaml:4: unknown key 'lable' in inner",
            "label",
        ),
        (
            "name: x\nrows:\n  - median: 1\n  - medain: 2\n    median: 1\n",
            "f.yaml:4: unknown key 'medain' in rows[1]",
            "median",
        ),
        (
            "name: x\nby_name:\n  k: {median: 1,\n    lable: y}\n",
            "f.yaml:4: unknown key 'lable' in by_name.k",
            "label",
        ),
    ],
)
def test_unknown_keys_deep_inside(text: str, message: str, near: str) -> None:
    error = problems(text)
    assert error.message == message
    assert f"did you mean '{near}'?" in error.hint


def test_all_errors_are_listed_in_the_order_of_the_file() -> None:
    error = problems("inner:\n  median: fast\nrows:\n  - {}\nname: 3\n")
    assert error.message.splitlines() == [
        "f.yaml:2: inner.median: should be a valid number, unable to parse string as a number, "
        "not 'fast'",
        "f.yaml:4: missing key 'median' in rows[0]",
        "f.yaml:5: name: should be a valid string, not 3",
    ]
    assert error.hint == "put the value in quotes to make it text"


def test_at_most_ten_errors_are_listed() -> None:
    error = problems("name: x\n" + "".join(f"x{i}: 1\n" for i in range(14)))
    assert len(error.message.splitlines()) == 11
    assert error.message.endswith("… and 4 more")


@pytest.mark.parametrize(
    ("text", "kind"), [("- 1\n", "a list"), ("", "empty"), ("word\n", "'word'")]
)
def test_a_document_has_to_be_a_mapping(text: str, kind: str) -> None:
    error = problems(text)
    assert "should be a mapping of keys" in error.message
    assert error.message.endswith(f"not {kind}")


def test_data_without_a_file_have_no_lines() -> None:
    with pytest.raises(RecordError) as caught:
        validate(Outer, {"name": 1}, "", "command line", RecordError)
    assert caught.value.message == "command line: name: should be a valid string, not 1"
