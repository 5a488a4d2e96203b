"""Specifications from Altair's drawings and the values they show: one view, or small multiples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

Values = Sequence[dict[str, Any]]
Drawing = alt.LayerChart | alt.FacetChart


def single(drawing: Drawing, values: Values) -> dict[str, Any]:
    """One drawing of ``values``."""
    return drawing.properties(data=_data(values)).to_dict()


def repeated(
    drawing: Drawing, facet: alt.Facet | alt.FacetMapping, values: Values, **settings: Any
) -> dict[str, Any]:
    """One drawing for each value of the facet's field.

    ``settings`` are Vega-Lite's for such views (``spacing``, ``columns``, ``resolve``).
    """
    return alt.FacetChart(data=_data(values), spec=drawing, facet=facet, **settings).to_dict()


def _data(values: Values) -> alt.InlineData:
    return alt.InlineData(values=list(values))
