"""Style sheets, scripts and the icon, as they are, those of others (``vendor/``) with their
licences; the definitions of terms and the order of shapes as a script."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokrig.naming import SHAPES
from tokrig.record.checks import HINTS
from tokrig.site import Output, plain
from tokrig.site.context import Site, definitions, key_of, script

STATIC = Path(__file__).parents[1] / "static"


def outputs(site: Site) -> Iterable[Output]:
    """``assets/``: what pages share."""
    for file in sorted(STATIC.rglob("*")):
        if file.is_file():
            path = f"assets/{file.relative_to(STATIC).as_posix()}"
            yield Output(path, key_of(file.read_bytes().hex()), file.read_bytes)
    terms = {term.key: term.tip for term in definitions().values()}
    terms |= {
        f"code.{code}": plain.exactly(text, HINTS[code]) for code, text in plain.CODES.items()
    }
    terms |= {f"mark.{word}": text for word, text in plain.MARKS.items()}
    words = {"definitions": terms, "shapes": SHAPES}
    yield Output(
        "assets/definitions.js",
        key_of(words),
        lambda: b"".join(script(name, value) for name, value in words.items()),
    )


PAGE = outputs
