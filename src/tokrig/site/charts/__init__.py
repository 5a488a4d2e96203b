"""Charts: figures of records as Vega-Lite, with words and a table beside them.

One file a subject. A function takes records or samples and returns a ``Figure``, or None where
there is nothing to draw. Pure: ``draw`` alone turns figures into SVG and PNG.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One chart.

    ``slug`` is unique on its page. ``text`` tells in a sentence or two what can be seen, for
    those who cannot see it. ``columns`` and ``rows`` are the drawn data as a table of texts,
    numbers formatted, units in the column names. ``spec`` is a Vega-Lite specification without
    a title and without colours of its own: ``draw`` gives it tokrig's.
    """

    slug: str
    title: str
    text: str
    spec: dict[str, Any]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
