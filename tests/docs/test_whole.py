"""No file holds what a merge left undone."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNDONE = re.compile(r"^(?:<{7} |>{7} |={7}$)", re.MULTILINE)
"""The lines that git writes between two sides of a conflict."""


def test_no_file_holds_both_sides_of_a_conflict() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    assert UNDONE.search("a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> d\n")
    undone = [
        name
        for name in filter(None, listed.split("\0"))
        if (ROOT / name).is_file() and UNDONE.search((ROOT / name).read_text(errors="replace"))
    ]
    assert undone == []
