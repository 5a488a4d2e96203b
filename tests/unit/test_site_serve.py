"""The site on this machine: a real server, real changes of files, nothing left behind."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from tokrig.errors import InputError
from tokrig.site.build import MANIFEST, build
from tokrig.site.serve import Event, serve

CONTENT = Path(__file__).parents[2] / "content"
RIG = "benchmarks/runs/geforce-rtx-5070-12gb"
RUN = "seed-lfm2.5-350m-q4_k_m"
AT_MOST_S = 300


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A change that is never noticed ends the test instead of keeping it."""

    def too_long(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"nothing happened for {AT_MOST_S} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(AT_MOST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """One record alone: small, and built in a moment."""
    there = tmp_path / "content"
    (there / RIG).mkdir(parents=True)
    shutil.copy(CONTENT / RIG / f"{RUN}.yaml", there / RIG)
    return there


@pytest.fixture
def out(content: Path, tmp_path: Path) -> Path:
    build(content, tmp_path / "site")
    return tmp_path / "site"


@contextlib.contextmanager
def serving(content: Path, out: Path) -> Iterator[tuple[Iterator[Event], int]]:
    events = serve(content, out, port=0)
    with contextlib.closing(events):
        first = next(events)
        assert first.kind == "serving"
        assert first.text.startswith("http://127.0.0.1:")
        yield events, int(first.text.rstrip("/").rpartition(":")[2])
    assert "site" not in {thread.name for thread in threading.enumerate()}


def get(port: int, path: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path)
        with connection.getresponse() as answer:
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, headers, answer.read().decode("utf-8", "replace")


def change(content: Path, old: str, new: str) -> None:
    path = content / RIG / f"{RUN}.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_pages_are_served_and_nothing_else(content: Path, out: Path) -> None:
    (out / ".git").mkdir()
    (out / ".git" / "config").write_text("secret", encoding="utf-8")
    with serving(content, out) as (_, port):
        status, headers, page = get(port, "/")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert headers["cache-control"] == "no-store"
        assert "LFM2.5-350M" in page
        types = {
            path: get(port, path)[1]["content-type"].partition(";")[0]
            for path in (
                "/assets/page.js",
                "/feed.xml",
                f"/data/runs/{RIG.rpartition('/')[2]}/{RUN}.yaml",
            )
        }
        assert list(types.values()) == ["text/javascript", "application/atom+xml", "text/plain"]
        hidden = (f"/{MANIFEST}", "/%2etokrig-site.json", "/.git/config", "/x/../.git/config")
        lists = ("/assets/", "/runs/")
        outside = ("/../content/urls.txt", "/%2e%2e/content/benchmarks", "//etc/passwd", "/no.html")
        for path in (*hidden, *lists, *outside):
            assert get(port, path)[0] == 404, path


def test_only_this_machine_is_served(content: Path, out: Path) -> None:
    with serving(content, out) as (_, port):
        other = socket.socket()
        with contextlib.closing(other):
            other.settimeout(60)
            # All of 127/8 is this machine; the server answers at 127.0.0.1 alone.
            with pytest.raises(ConnectionRefusedError):
                other.connect(("127.0.0.2", port))


def test_a_change_is_built_and_seen(content: Path, out: Path) -> None:
    with serving(content, out) as (events, port):
        change(content, "761.9", "700.1")
        event = next(events)
        assert event.kind == "rebuilt"
        assert "700.1" in get(port, f"/runs/{RUN}.html")[2]


def test_a_broken_record_is_told_and_the_site_stays(content: Path, out: Path) -> None:
    with serving(content, out) as (events, port):
        before = get(port, "/")[2]
        change(content, "status: complete", "status: [broken")
        event = next(events)
        assert event.kind == "problem"
        assert f"{RUN}.yaml:" in event.text
        assert get(port, "/")[2] == before
        change(content, "status: [broken", "status: complete")
        assert next(events) == Event("rebuilt", "0 files made, 0 removed")


def test_a_campaign_counts_as_a_change(content: Path, out: Path) -> None:
    campaigns = content.parent / "campaigns"
    campaigns.mkdir()
    with serving(content, out) as (events, port):
        text = (
            f"title: More\nrig: {RIG.rpartition('/')[2]}\nentries:\n"
            "  - {name: one, title: First, matrix: {model: lfm2.5-350m, backend: llamacpp}}\n"
        )
        (campaigns / "more.yaml").write_text(text, encoding="utf-8")
        assert next(events) == Event("rebuilt", "3 files made, 0 removed")
        assert "First" in get(port, "/")[2]


def test_redirects_and_prose_count_as_changes(content: Path, out: Path) -> None:
    with serving(content, out) as (events, port):
        (content / "redirects.yaml").write_text("old.html: index.html\n", encoding="utf-8")
        assert next(events).kind == "rebuilt"
        assert 'href="index.html"' in get(port, "/old.html")[2]


def test_a_taken_port_is_an_error_with_a_way_out(content: Path, out: Path) -> None:
    with serving(content, out) as (_, port):
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 is unavailable") as caught:
            next(serve(content, out, port=port))
        assert "--port 0" in caught.value.hint


@pytest.mark.parametrize("as_json", [False, True], ids=["people", "machines"])
def test_ctrl_c_ends_it_cleanly(content: Path, tmp_path: Path, as_json: bool) -> None:
    words = ["--content", str(content), "--out", str(tmp_path / "site"), "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "tokrig", "site", "serve", *words, *(["--json"] if as_json else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            assert process.stdout
            found = (re.search(r"http://127\.0\.0\.1:(\d+)/", line) for line in process.stdout)
            port = int(next(filter(None, found))[1])
            assert get(port, "/")[0] == 200
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "stopped" in (rest if as_json else errors)
    with pytest.raises(ConnectionRefusedError):
        get(port, "/")
