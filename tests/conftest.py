"""What all tests share: a clean environment, and hypothesis settings for a busy machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# No deadline: tests run beside a real engine on two cores, where any example may be slow.
# Forty examples of each: the next run here tries others.
hypothesis.settings.register_profile("local", deadline=None, print_blob=True, max_examples=40)
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("local"), derandomize=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


# A shell that starts the tests in the background has SIGINT ignored by them and by all that they
# start; what Ctrl-C does could not be tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What changes how tokrig prints or where it looks.
SETTINGS = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The pages first: they make the site that other files of tests wait for."""
    items.sort(key=lambda item: item.path.name != "test_pages.py")


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing of the user's settings, caches or unfinished runs reaches a test, nor a test them.

    One folder for the whole session, so that a model file is hashed once. Yields it.
    """
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("TOKRIG_") or name in SETTINGS:
                patch.delenv(name)
        # Other tests load the processors, and no run may wait for them to end.
        patch.setenv("TOKRIG_EVEN_IF_BUSY", "1")
        # Stand-ins are programs of this Python: what else is called so may be a script that takes
        # its time to find one.
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        yield home
