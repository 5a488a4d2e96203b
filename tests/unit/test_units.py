"""Numbers as people read them, and names as paths and URLs can hold them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokrig import units
from tokrig.units import GIB, MIB


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(123456.7, 123457), (0.0001234567, 0.000123457), (-9.999996, -10.0), (0.0, 0.0), (7, 7)],
)
def test_significant(value: float, rounded: float) -> None:
    assert units.significant(value, 6) == rounded


def test_significant_lets_through_what_cannot_be_rounded() -> None:
    assert units.significant(math.inf) == math.inf
    assert math.isnan(units.significant(math.nan))


@given(st.floats(min_value=1e-12, max_value=1e12), st.integers(2, 9))
def test_significant_stays_near(value: float, digits: int) -> None:
    assert units.significant(value, digits) == pytest.approx(value, rel=10 ** (1 - digits))


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "–"), (512, "512 B"), (253 * MIB, "253.0 MiB"), (11.94 * GIB, "11.94 GiB")],
)
def test_bytes(count: float | None, text: str) -> None:
    assert units.human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.00123, "1.23 ms"),
        (0.412, "412 ms"),
        (3.214, "3.21 s"),
        (245.4, "4 min 05 s"),
    ],
)
def test_seconds(seconds: float | None, text: str) -> None:
    assert units.human_seconds(seconds) == text


@given(st.text())
def test_a_slug_is_safe_as_a_path_and_in_a_url(text: str) -> None:
    slug = units.slug(text)
    assert slug
    assert not set(slug) - set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    assert not slug.startswith((".", "-"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("90s", 90), ("10m", 600), ("2 min", 120), ("1.5h", 5400), (".5s", 0.5)],
)
def test_a_time_with_its_unit(text: str, seconds: float) -> None:
    assert units.seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["10", "", "s", "-1s", "1 parsec", "1e3s", "10s 5ms"])
def test_a_time_without_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should be a time with its unit"):
        units.seconds_of(text)
