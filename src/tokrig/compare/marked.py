"""All records of a content folder with the verdicts that pages show."""

from __future__ import annotations

from pathlib import Path

from tokrig.compare.kin import mark
from tokrig.store import Store
from tokrig.store.facts import load_rigs
from tokrig.store.index import Progress
from tokrig.store.load import Loaded, load


def load_marked(
    store: Store,
    *,
    keep_going: bool = False,
    cache: Path | None = None,
    progress: Progress = lambda done, of: None,
) -> Loaded:
    """Every record, newest first; what other records make implausible is unverified.

    Raises as ``store.load.load`` does, and InputError for facts about rigs that cannot be read.
    """
    loaded = load(store, keep_going=keep_going, cache=cache, progress=progress)
    runs, _ = mark(loaded.runs, load_rigs(store.content))
    return Loaded(runs, loaded.problems)
