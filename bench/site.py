"""What the site costs with many runs: to build, to load, to sort and filter.

    python bench/site.py [--runs 1000] [--keep DIR] [--before PYTHON]

Makes the records (bench/make_content.py) and builds the site in a temporary folder with a cache
of its own, or in DIR, which stays. Each build is a process of its own; its time is the whole
process's, start included, beside it the processor time of all it started. ``--before`` is the
Python of another checkout's environment: it builds the same content, before each of the builds
here and with a cache of its own, and the ratios are printed. Leave the code alone meanwhile:
changed code draws all pages anew.

Then Chromium opens index.html from the disk. One operation is one click on a header's button
(each twice: both directions) or one choice in a filter (each there is, and back to the usual
one): from before the event is dispatched until its handlers have changed the document and a
forced layout is done. The paint that follows is not in it. TOKRIG_CHROMIUM names the browser.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import Page, sync_playwright

GENERATOR = Path(__file__).with_name("make_content.py")
DATA = "assets/rows.js"
ASSET = re.compile(r'<(?:link|script)\b[^>]*?\b(?:href|src)="(assets/[^"]+\.(?:css|js))"')

# Refused history entries (Chromium allows 200 in 30 s) would not be what a reader meets.
BROWSER_ARGS = ["--no-sandbox", "--disable-ipc-flooding-protection"]
OPERATIONS = """
() => {
  const table = document.getElementById("results");
  const layout = () => document.documentElement.getBoundingClientRect();
  const timed = (act) => {
    layout();
    const [before, began] = [table.tBodies[0], performance.now()];
    act();
    layout();
    const took = performance.now() - began;
    if (table.tBodies[0] === before) throw new Error("the table was not drawn anew in time");
    return took;
  };
  const sorts = [], filters = [];
  for (const button of document.querySelectorAll("#results thead [data-sort] button")) {
    for (const _ of ["one way", "the other"]) sorts.push(timed(() => button.click()));
  }
  for (const select of document.querySelectorAll("#filters select")) {
    const usual = select.value;
    const choose = (value) => filters.push(timed(() => {
      select.value = value;
      select.dispatchEvent(new Event("change", { bubbles: true }));
    }));
    for (const { value } of [...select.options].filter((option) => option.value !== usual)) {
      choose(value);
      choose(usual);
    }
  }
  return [sorts, filters];
}
"""


@dataclass(frozen=True)
class InBrowser:
    """Seconds to load, milliseconds per operation, rows of data."""

    load_s: float
    sorts_ms: list[float]
    filters_ms: list[float]
    rows: int


@contextmanager
def folder(keep: Path | None) -> Iterator[Path]:
    """The folder to work in; a temporary one is removed afterwards."""
    if keep is not None:
        if keep.exists() and any(keep.iterdir()):
            raise SystemExit(f"{keep} is not empty: cold figures need a fresh folder")
        yield keep
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


@dataclass(frozen=True)
class Took:
    """Seconds by the clock and of the processors."""

    wall_s: float
    cpu_s: float

    def __str__(self) -> str:
        return f"{self.wall_s:.2f} s"


def cpu_s() -> float:
    """Seconds that the processes which have ended kept processors busy."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(*arguments: str, cache: Path | None = None, python: str = sys.executable) -> Took:
    """What a Python process took. Ends with what it said where it failed."""
    environment = os.environ | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    began, busy = time.perf_counter(), cpu_s()
    done = subprocess.run(
        [python, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    took = Took(time.perf_counter() - began, cpu_s() - busy)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return took


def parse_all(content: Path) -> float:
    """Seconds to do no more than parse the records with PyYAML's C loader, in one process."""
    began = time.perf_counter()
    for path in content.glob("benchmarks/runs/*/*.yaml"):
        yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
    return time.perf_counter() - began


def gzipped(*files: Path) -> int:
    """Bytes, each file compressed on its own, as hosts do."""
    return sum(len(gzip.compress(file.read_bytes(), mtime=0)) for file in files)


def shell_files(site: Path) -> list[Path]:
    """The first page and the styles and scripts it asks for, without the data."""
    html = site / "index.html"
    assets = ASSET.findall(html.read_text(encoding="utf-8"))
    return [html, *(site / asset for asset in assets if asset != DATA)]


def in_browser(site: Path) -> InBrowser:
    """Open the first page and try everything that sorts or filters."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("TOKRIG_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise SystemExit("no Chromium found: install one, or name it in TOKRIG_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=BROWSER_ARGS)
        page: Page = browser.new_page()
        began = time.perf_counter()
        page.goto((site / "index.html").as_uri())
        load_s = time.perf_counter() - began
        rows: Any = page.evaluate("tokrig.data.rows.run.length")
        sorts, filters = page.evaluate(OPERATIONS)
        browser.close()
    return InBrowser(load_s, sorts, filters, rows)


def line(label: str, figure: str, beside: str = "") -> None:
    """One line of the report."""
    print(f"{label:<46}{figure:>12}  {beside}")


BUILDS = ("cold", "nothing changed", "one new run")


def report_builds(parse_s: float, here: list[Took], before: list[Took]) -> None:
    """Times of the builds, beside mere parsing, beside each other and beside the code before."""
    line("parse the YAMLs, nothing else (CSafeLoader)", f"{parse_s:.2f} s")
    for name, took in zip(BUILDS, here, strict=True):
        share = f"{took.wall_s / here[0].wall_s:.3f} of cold, {took.cpu_s:.1f} s of processors"
        line(f"build, {name}", str(took), share)
    for name, took, old in zip(BUILDS, here, before, strict=False):
        clock, busy = took.wall_s / old.wall_s, took.cpu_s / old.cpu_s
        line(
            f"before: build, {name}",
            str(old),
            f"now {clock:.2f} by the clock, {busy:.2f} of processors",
        )


def report_browser(measured: InBrowser) -> None:
    """Times of the operations."""
    line("index.html loaded (from disk)", f"{measured.load_s * 1e3:.0f} ms")
    for name, times in (("sort", measured.sorts_ms), ("filter", measured.filters_ms)):
        line(
            f"{name}, median of {len(times)}",
            f"{statistics.median(times):.1f} ms",
            f"slowest {max(times):.1f} ms",
        )


def main() -> None:
    """Make, build, open, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this folder, and keep it")
    parser.add_argument("--before", metavar="PYTHON", help="another checkout's, to build with, too")
    given = parser.parse_args()
    with folder(given.keep) as work:
        content, site = work / "content", work / "site"
        make = [str(GENERATOR), "--out", str(work), "--runs"]
        took: dict[str, list[Took]] = {"before": [], "site": []}

        def build() -> None:
            for name in ("before", "site") if given.before else ("site",):
                python = given.before if name == "before" else sys.executable
                command = ["site", "build", "--content", str(content), "--out", str(work / name)]
                cache = work / f"cache-{name}"
                took[name].append(run("-m", "tokrig", *command, cache=cache, python=python))

        made = run(*make, str(given.runs))
        print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
        line(f"make {given.runs} records", str(made))
        parse_s = parse_all(content)
        build()
        build()
        run(*make, "1", "--first", str(given.runs))
        build()
        report_builds(parse_s, took["site"], took["before"])
        measured = in_browser(site)
        data = gzipped(site / DATA)
        line("index HTML + CSS + JS, gzip", f"{gzipped(*shell_files(site)) / 1024:.1f} KiB")
        line("data, gzip", f"{data / measured.rows:.1f} B/row", f"{measured.rows} rows")
        report_browser(measured)


if __name__ == "__main__":
    main()
