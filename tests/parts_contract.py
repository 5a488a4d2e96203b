"""An import contract for folders of parts: no part is imported by its siblings.

A part is a module of the package whose name has no leading underscore. Underscore modules are
shared code that every part may import. Used by ``lint-imports`` (pyproject.toml).
"""

from __future__ import annotations

from collections.abc import Iterable

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class PartsContract(Contract):
    """Option ``packages``: the folders of parts."""

    type_name = "parts"

    packages = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        packages: Iterable[str] = self.packages  # type: ignore[assignment]
        wrong = [pair for package in packages for pair in _sibling_imports(graph, package)]
        return ContractCheck(kept=not wrong, metadata={"wrong": wrong})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for importer, imported in check.metadata["wrong"]:
            output.print_error(f"{importer} imports its sibling {imported}")
        output.new_line()


def _sibling_imports(graph: ImportGraph, package: str) -> list[tuple[str, str]]:
    parts = [m for m in graph.find_children(package) if not m.rsplit(".", 1)[1].startswith("_")]
    inside = graph.find_descendants(package)
    return sorted(
        (importer, imported)
        for part in parts
        for imported in {part, *graph.find_descendants(part)}
        for importer in graph.find_modules_that_directly_import(imported) & inside
        if importer != part and not importer.startswith(f"{part}.")
    )
