"""Records as tables: views for SQL (``query.ask``), and typed rows for Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from tokrig.store.index import Problem

if TYPE_CHECKING:
    from tokrig.query.row import Row


@dataclass(frozen=True)
class Rows(Sequence["Row"]):
    """One row a result, newest runs first, with the columns of the page's data files.
    ``problems`` are files that could not be read."""

    rows: tuple[Row, ...]
    problems: tuple[Problem, ...] = ()

    def arrow(self) -> Any:
        """The same as an Arrow table, which pandas, Polars and DuckDB read."""
        from tokrig.store import table

        return table.arrow(self.rows)

    def frame(self) -> Any:
        """The same as a pandas DataFrame: whole numbers and flags may be missing (<NA>).

        Raises ModuleNotFoundError without pandas.
        """
        import importlib

        pandas: Any = importlib.import_module("pandas")
        types = {
            "int64": pandas.Int64Dtype(),
            "bool": pandas.BooleanDtype(),
        }
        return self.arrow().to_pandas(types_mapper=lambda kind: types.get(str(kind)))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Rows: ...
    def __getitem__(self, at: int | slice) -> Row | Rows:
        return Rows(self.rows[at], self.problems) if isinstance(at, slice) else self.rows[at]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __repr__(self) -> str:
        runs = len({row.run_id for row in self.rows})
        return f"<{len(self.rows):,} results of {runs:,} runs>"


def load(
    content: str | Path = "content",
    *,
    model: str | None = None,
    rig: str | None = None,
    backend: str | None = None,
    mode: str | None = None,
    status: str | None = None,
    keep_going: bool = False,
) -> Rows:
    """All results of a content folder, or of the runs meant: each of ``model``, ``rig``,
    ``backend`` and ``mode`` is words of its name, ``status`` a run's status or verdict, as
    ``tokrig list`` has them. Verdicts are those of the page.

    Raises InputError without such a folder, and RecordError for files that cannot be read, unless
    ``keep_going``: they are in ``problems`` then.
    """
    from tokrig.compare.marked import load_marked
    from tokrig.errors import InputError
    from tokrig.query.row import Row
    from tokrig.store import Store
    from tokrig.store.filters import Filters
    from tokrig.store.table import flat_rows

    folder = Path(content)
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}", hint="name the folder with benchmarks/runs")
    store = Store(folder)
    loaded = load_marked(store, keep_going=keep_going)
    filters = Filters(model=model, rig=rig, backend=backend, mode=mode, status=status)
    meant = {row.id for row in filters.of(store.listing().rows)}
    runs = [run for run in loaded.runs if run.id in meant]
    return Rows(tuple(map(Row._make, flat_rows(runs))), loaded.problems)
