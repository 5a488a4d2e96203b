"""How everything is measured: docs/methodology.md, with an anchor for each term."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from tokrig.site import Output
from tokrig.site.context import Site, definitions, key_of, methodology

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE)


@dataclass(frozen=True)
class Heading:
    """A heading: 1 is the document's title. ``anchor`` is its id on the page."""

    level: int
    anchor: str
    text: str


def outputs(site: Site) -> Iterable[Output]:
    """``methodology.html``."""
    text = methodology()
    yield Output("methodology.html", key_of(text, site.measured), lambda: _page(site, text))


def _page(site: Site, text: str) -> bytes:
    tokens = _MARKDOWN.parse(_COMMENT.sub("", text))
    headings = list(_anchor_headings(tokens))
    _head_rows(tokens)
    for token in tokens:
        if token.children:
            token.children = list(_without_outside_links(token.children))
    body = _MARKDOWN.renderer.render(list(_scrolling(tokens)), _MARKDOWN.options, {})
    return site.page(
        "methodology.html",
        "methodology.html",
        title=headings[0].text,
        headings=headings[1:],
        body=Markup(body),  # HTML in the document is text: "html" is off
    )


def _anchor_headings(tokens: list[Token]) -> Iterator[Heading]:
    """Give each heading an id, made as GitHub makes them; a term of that name goes before."""
    for token, inside in pairwise(tokens):
        if token.type == "heading_open":
            text = "".join(part.content for part in inside.children or [])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            anchor = f"about-{slug}" if slug in definitions() else slug
            token.attrSet("id", anchor)
            yield Heading(int(token.tag[1]), anchor, text)


def _head_rows(tokens: list[Token]) -> None:
    """Scopes for the headers of tables; the first cell of a row is its header, and a row of a
    term has the term's key for an id."""
    keys = {definition.label: key for key, definition in definitions().items()}
    table = ""
    for row, cell, inside, end in zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False):
        if cell.type == "th_open":
            cell.attrSet("scope", "col")
        if row.type == "tr_open" and cell.type == "th_open":
            table = inside.content
        elif row.type == "tr_open":
            cell.tag = end.tag = "th"
            cell.attrSet("scope", "row")
            if table == "term":
                row.attrSet("id", keys[inside.content])


def _without_outside_links(tokens: list[Token]) -> Iterator[Token]:
    """Links to other files of the repository are plain text here: the site has no such pages."""
    dropped = False
    for token in tokens:
        if token.type == "link_open":
            dropped = not re.match(r"https?:|#", str(token.attrGet("href")))
        if not (dropped and token.type in ("link_open", "link_close")):
            yield token


def _scrolling(tokens: list[Token]) -> Iterator[Token]:
    """Tables, in regions that scroll by themselves; without the title, which the page has."""
    heading = ""
    title = False
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            heading, title = tokens[place + 1].content, token.tag == "h1"
        if title:
            title = token.type != "heading_close"
            continue
        if token.type == "table_open":
            label = escape(f"{heading}, table")
            opening = (
                f'<div class="scroll terms" tabindex="0" role="region" aria-label="{label}">\n'
            )
            yield Token("html_block", "", 0, content=opening)
        yield token
        if token.type == "table_close":
            yield Token("html_block", "", 0, content="</div>\n")


PAGE = outputs
