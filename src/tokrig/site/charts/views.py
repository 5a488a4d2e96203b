"""Specifications from Altair's drawings and the values they show: one view, or small multiples.

Altair copies and checks everything below a layer or a facet, and the values with it, again at
each level: nine tenths of the time it would take to write a chart. Here it writes each drawing
by itself, and the drawings are put together as Vega-Lite says; that they are sound is tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

Values = Sequence[dict[str, Any]]


def layered(drawings: Sequence[alt.Chart], **size: int | alt.Step) -> dict[str, Any]:
    """Drawings over each other, the hindmost first, ``width`` and ``height`` in points."""
    return {**_plain(size), "layer": [_alone(drawing) for drawing in drawings]}


def single(view: dict[str, Any], values: Values) -> dict[str, Any]:
    """One view of ``values``."""
    return {"$schema": alt.SCHEMA_URL, "data": {"values": list(values)}, **view}


def repeated(
    view: dict[str, Any], facet: alt.Facet | alt.FacetMapping, values: Values, **settings: Any
) -> dict[str, Any]:
    """One view for each value of the facet's field.

    ``settings`` are Vega-Lite's for such views (``spacing``, ``columns``, ``resolve``).
    """
    return single({"facet": _dict(facet), "spec": view, **settings}, values)


def _alone(drawing: alt.Chart) -> dict[str, Any]:
    """A drawing without what stands at the top of a specification: its data, and settings."""
    return drawing.to_dict(validate=False, ignore=["data"], context={"top_level": False})


def _dict(part: alt.SchemaBase) -> dict[str, Any]:
    return part.to_dict(validate=False)


def _plain(size: dict[str, int | alt.Step]) -> dict[str, Any]:
    return {k: _dict(v) if isinstance(v, alt.Step) else v for k, v in size.items()}
