"""Style sheet, scripts and the icon, as they are; the definitions of terms as a script."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokrig.site import Output
from tokrig.site.context import Site, key_of, script
from tokrig.site.definitions import definitions

STATIC = Path(__file__).parents[1] / "static"


class Assets:
    """``assets/``: what pages share."""

    name = "assets"

    def outputs(self, site: Site) -> Iterable[Output]:
        """Every file of ``static/``, and the definitions."""
        for file in sorted(STATIC.iterdir()):
            yield Output(f"assets/{file.name}", key_of(file.read_bytes().hex()), file.read_bytes)
        terms = {
            term.key: term.text + (f" Unit: {term.unit}." if term.unit else "")
            for term in definitions().values()
        }
        yield Output("assets/definitions.js", key_of(terms), lambda: script("definitions", terms))


PAGE = Assets()
