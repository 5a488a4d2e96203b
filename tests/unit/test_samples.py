"""What a sample belongs to."""

from __future__ import annotations

import pytest

from tests.unit.samples import sample
from tokrig.record.samples import Cell


@pytest.mark.parametrize(
    ("cell", "label", "plain"),
    [
        (Cell("agent", 4), "agent × 4", True),
        (Cell("chat", 1, 16384), "chat at depth 16k × 1", False),
        (Cell("chat", 1, 1500), "chat at depth 1500 × 1", False),
        (Cell("session", 2, load="session"), "session × 2", False),
        (Cell("chat", 4, load="sustained"), "chat, sustained × 4", False),
        (Cell("chat", 8, load="poisson", rate_per_s=2.5), "chat, poisson 2.5/s", False),
        (Cell("chat", 8, load="trace"), "chat, trace", False),
    ],
)
def test_a_cell_is_called_by_what_sets_it_apart(cell: Cell, label: str, plain: bool) -> None:
    assert (cell.label, cell.plain) == (label, plain)
    assert sample(**vars(cell)).cell == cell
