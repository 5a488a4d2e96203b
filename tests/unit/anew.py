"""All of tokrig imported anew after a table was changed: what walks the table when it is loaded
has seen the change."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from click.testing import CliRunner, Result


class Tokrig:
    """The package with the change; attributes are its modules: ``tokrig.record__model``."""

    def __getattr__(self, name: str) -> Any:
        return importlib.import_module(f"tokrig.{name.replace('__', '.')}")

    def files(self, site: Any, *pages: str) -> dict[str, str]:
        """What these pages of a site make, by path."""
        made = (one for page in pages for one in getattr(self, f"site__pages__{page}").PAGE(site))
        return {one.path: one.render().decode(errors="replace") for one in made}

    def says(self, content: Path, *words: str) -> Result:
        """What a command says of a content folder."""
        environment = {"TOKRIG_CONTENT": str(content), "COLUMNS": "200", "NO_COLOR": "1"}
        done = CliRunner(env=environment).invoke(self.cli__main.main, words)
        assert done.exit_code == 0, done.output
        return done


@contextlib.contextmanager
def anew(table: str, change: Callable[[ModuleType], None]) -> Iterator[Tokrig]:
    """tokrig with ``change`` made to the module ``table`` before the others are loaded."""
    before = {name: module for name, module in sys.modules.items() if _is_loaded_anew(name)}
    for name in before:
        del sys.modules[name]
    try:
        change(importlib.import_module(table))
        yield Tokrig()
    finally:
        for name in [name for name in sys.modules if _is_loaded_anew(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def _is_loaded_anew(name: str) -> bool:
    """tokrig, and what makes records and samples of its classes for tests."""
    return name.partition(".")[0] == "tokrig" or name in (
        "tests.unit.records",
        "tests.unit.samples",
    )
