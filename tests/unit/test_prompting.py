"""What times to the first token tell of a cache that nobody tells of."""

from __future__ import annotations

import pytest

from tokrig.run.preflight import apart, template_tokens


@pytest.mark.parametrize(
    ("short_s", "first_s", "again_s", "found"),
    [
        # A second salt costs the prefill again, or saves it.
        ((0.02, 0.02, 0.02), (0.20, 0.21, 0.22), (0.20, 0.20, 0.23), True),
        ((0.02, 0.02, 0.02), (0.20, 0.21, 0.22), (0.02, 0.03, 0.02), False),
        # One slow first request (kernels that are compiled) decides nothing.
        ((0.02, 0.02, 0.02), (2.00, 0.20, 0.20), (0.20, 0.20, 0.20), True),
        # Between saved and not saved: chance.
        ((0.02, 0.02, 0.02), (0.20, 0.20, 0.20), (0.13, 0.13, 0.13), None),
        ((0.02, 0.02, 0.02), (0.20, 0.20, 0.20), (0.30, 0.30, 0.30), None),
        # A prefill that is lost in the way to the server, or in its noise, shows nothing.
        ((0.40, 0.40, 0.40), (0.42, 0.43, 0.42), (0.40, 0.41, 0.40), None),
        ((0.02, 0.02, 0.50), (0.20, 0.20, 0.20), (0.20, 0.20, 0.20), None),
    ],
)
def test_a_second_salt(
    short_s: tuple[float, ...],
    first_s: tuple[float, ...],
    again_s: tuple[float, ...],
    found: bool | None,
) -> None:
    assert apart(short_s, first_s, again_s) is found


@pytest.mark.parametrize(
    ("once", "often", "system_role", "tokens"),
    [(26, 82, True, 12), (612, 668, False, 605), (20, 20, False, None), (10, 500, True, None)],
)
def test_what_the_template_adds_is_what_the_sentences_leave(
    once: int, often: int, system_role: bool, tokens: int | None
) -> None:
    assert template_tokens(once, often, system_role) == tokens
