"""The public queue, from files to a file: what ``tokrig campaign docs`` writes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tokrig.campaign.docs import text
from tokrig.errors import CheckFailed, StoreError
from tokrig.plan.published import public_plan
from tokrig.plan.queue import queue
from tokrig.spec.campaign import CampaignFile
from tokrig.store import Store
from tokrig.store.facts import load_rigs
from tokrig.store.load import load


def publish(files: Sequence[CampaignFile], content: Path, out: Path, *, check: bool) -> bool:
    """Write the page to ``out`` unless it says the same already; whether it had to be written.

    Raises RecordError or SpecError for a file that cannot be read, StoreError when the page cannot
    be written, CheckFailed with ``check`` when it is out of date.
    """
    runs = load(Store(content)).runs
    page = text(queue(public_plan(files, runs, load_rigs(content)), runs))
    try:
        if out.is_file() and out.read_text(encoding="utf-8") == page:
            return False
        if check:
            raise CheckFailed(f"{out} is out of date", hint="write it with: tokrig campaign docs")
        _write(out, page)
    except OSError as problem:
        raise StoreError(
            f"{out}: cannot be written: {problem.strerror or problem}",
            hint="choose another file with --out",
        ) from None
    return True


def _write(out: Path, page: str) -> None:
    """The whole page or none of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
