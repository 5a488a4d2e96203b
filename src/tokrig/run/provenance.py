"""Which source of tokrig measured: the commit, where it runs from a checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import tokrig

TIMEOUT_S = 5


def source_commit() -> str | None:
    """The short commit of the checkout tokrig runs from, ``-dirty`` when files differ from it.

    None for an installed package, or without git.
    """
    root = Path(tokrig.__file__).parents[2]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "src")
    return f"{commit}-dirty" if commit and changed else commit


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
