"""Whatever a page explains begins with a sentence for somebody who sees it for the first time."""

from __future__ import annotations

from typing import get_args

from tokrig.record.checks import HINTS
from tokrig.record.model import Provenance, Record
from tokrig.site import plain
from tokrig.site.context import definitions

SENTENCES = {
    **{f"term {key}": text for key, text in plain.TERMS.items()},
    **{f"code {key}": text for key, text in plain.CODES.items()},
    **{f"mark {key}": text for key, text in plain.MARKS.items()},
}
JARGON = ("median", "decode", "KV", "prefill", "null", "bootstrap", "in flight", "`", "tokrig ")


def test_every_term_has_a_sentence() -> None:
    assert {key for key, one in definitions().items() if not one.plain} == set()
    assert plain.TERMS.keys() - definitions().keys() == set()


def test_every_code_has_a_sentence() -> None:
    assert plain.CODES.keys() == HINTS.keys()


def test_every_mark_has_a_sentence() -> None:
    statuses = {*get_args(Record.model_fields["status"].annotation)} - {"complete"}
    kinds = {*get_args(Provenance.model_fields["kind"].annotation)} - {"measured"}
    assert statuses | kinds | {"invalid", "erratum", "quick", "unverified"} <= plain.MARKS.keys()


def test_sentences_are_plain() -> None:
    for name, text in SENTENCES.items():
        assert text[0].isupper() or text[0].isdigit(), name
        assert not text.endswith("."), name
        assert len(text) <= 140, name
        assert [word for word in JARGON if word in text] == [], name


def test_what_binds_comes_second() -> None:
    for one in definitions().values():
        assert one.tip.startswith(one.plain)
        assert f"\nExactly: {one.text}" in one.tip
