"""What the site costs with many runs: to build, to load, and every control of every page.

    python bench/site.py [--runs 1000] [--keep DIR] [--before PYTHON]
    python bench/site.py --controls SITE [PAGE...]

Makes the records (bench/make_content.py) and builds the site in a temporary folder with a cache
of its own, or in DIR, which stays. Each build is a process of its own; its time is the whole
process's, start included, beside it the processor time of all it started. ``--before`` is the
Python of another checkout's environment: it builds the same content, before each of the builds
here and with a cache of its own, and the ratios are printed. Leave the code alone meanwhile:
changed code draws all pages anew.

Then Chromium opens the pages from the disk and operates every control that they have, by
bench/controls.js: an operation lasts from before its event is dispatched until the last change of
the document that it brings is laid out. The paint that follows is not in it. ``--controls`` does
that alone, with a site that is there, on all pages or on those whose names begin so. What takes
longer than the target in the middle is marked; then the exit status is 1. TOKRIG_CHROMIUM names
the browser.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from playwright.sync_api import Page, sync_playwright

GENERATOR = Path(__file__).with_name("make_content.py")
DATA = "assets/rows.js"
ASSET = re.compile(r'<(?:link|script)\b[^>]*?\b(?:href|src)="(assets/[^"]+\.(?:css|js))"')

# Refused history entries (Chromium allows 200 in 30 s) would not be what a reader meets.
BROWSER_ARGS = ["--no-sandbox", "--disable-ipc-flooding-protection"]
CONTROLS = Path(__file__).with_name("controls.js")
TARGET_MS = 50
TARGET_GZIP_KIB = 200
TARGET_ROWS_MS = 1000
# Two cards and histories of builds are asked for by name: those with most rows, the first there is.
CARDS = """
  tokrig.cards.cards
    .map((card) => [tokrig.cards.rowsOf({ ...card, rig: null }).length, card.address])
    .sort(([a], [b]) => b - a).slice(0, 2).map(([, address]) => address)
"""
HISTORY = "document.querySelector('#overview a')?.search ?? ''"
VIEWS = ("depth", "load", "session", "sustained", "quality", "cost")
# When the first rows of the table have been painted; a task after a frame is after its paint.
PAINTED = """
  window.painted = new Promise((done) => {
    const look = () => document.querySelector("#results tbody tr")
      ? requestAnimationFrame(() => setTimeout(() => done(performance.now())))
      : setTimeout(look, 1);
    look();
  });
"""


@dataclass(frozen=True)
class InBrowser:
    """Milliseconds until the first page's first rows were painted and until it was loaded, and
    of the operations by page and control."""

    rows_ms: float
    load_ms: float
    controls: dict[tuple[str, str], list[float]]


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


def in_browser(site: Path, wanted: Sequence[str] = ()) -> InBrowser:
    """Open the pages and operate their controls: all, or those whose names begin so."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("TOKRIG_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise SystemExit("no Chromium found: install one, or name it in TOKRIG_CHROMIUM")
    controls: dict[tuple[str, str], list[float]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=BROWSER_ARGS)

        def opened(address: str) -> Page:
            page = browser.new_page()
            page.goto(f"{site.resolve().as_uri()}/{address}")
            page.wait_for_load_state("networkidle")
            return page

        first = browser.new_page()
        first.add_init_script(PAINTED)
        first.goto((site / "index.html").resolve().as_uri())
        rows_ms: float = first.evaluate("window.painted")
        load_ms: float = first.evaluate(
            "performance.getEntriesByType('navigation')[0].loadEventStart"
        )
        first.close()
        cards: list[str] = opened("versus.html").evaluate(CARDS)
        a, b, *_ = [*cards, "", ""]
        pages = [
            "index.html",
            "index.html?machine=12gb",
            "latency.html",
            "gpus.html",
            f"versus.html?a={a}&b={b}",
            f"builds.html{opened('builds.html').evaluate(HISTORY)}",
            *(f"curves.html?view={view}" for view in VIEWS),
            "gaps.html",
            "compare.html",
        ]
        for address in pages:
            if wanted and not address.startswith(tuple(wanted)):
                continue
            page = opened(address)
            for control, times in page.evaluate(CONTROLS.read_text(encoding="utf-8")):
                controls[address.partition("&")[0], control] = times
            page.close()
        browser.close()
    return InBrowser(rows_ms, load_ms, controls)


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


def report_browser(site: Path, measured: InBrowser) -> bool:
    """The controls in one table, and what the first page takes. Whether all targets are met."""
    print(f"\n{'page':<28}{'control':<36}{'times':>5}{'median':>9}{'p95':>9}  ms")
    slow = 0
    for (page, control), times in measured.controls.items():
        middle, high = statistics.median(times), sorted(times)[int(0.95 * len(times))]
        slow += middle > TARGET_MS
        mark = f"  above {TARGET_MS}" if middle > TARGET_MS else ""
        print(f"{page[:27]:<28}{control:<36}{len(times):>5}{middle:>9.1f}{high:>9.1f}{mark}")
    every = [one for times in measured.controls.values() for one in times]
    print()
    if every:
        slowest = f"{slow} of {len(measured.controls)} controls above {TARGET_MS} ms in the middle"
        line(f"median of {len(every)} operations", f"{statistics.median(every):.1f} ms", slowest)
    size = gzipped(*shell_files(site)) / 1024
    rows = f"at most {TARGET_ROWS_MS} ms wanted; all loaded after {measured.load_ms:.0f} ms"
    line("first rows painted", f"{measured.rows_ms:.0f} ms", rows)
    line("index HTML + CSS + JS, gzip", f"{size:.1f} KiB", f"at most {TARGET_GZIP_KIB} KiB wanted")
    line("data, gzip", f"{gzipped(site / DATA) / 1024:.1f} KiB")
    return not slow and size <= TARGET_GZIP_KIB and measured.rows_ms <= TARGET_ROWS_MS


def main() -> None:
    """Make, build, open, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this folder, and keep it")
    parser.add_argument("--before", metavar="PYTHON", help="another checkout's, to build with, too")
    parser.add_argument(
        "--controls",
        nargs="+",
        metavar=("SITE", "PAGE"),
        help="operate the controls of this site, or of some of its pages, and do nothing else",
    )
    given = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    if given.controls:
        site, *pages = given.controls
        sys.exit(not report_browser(Path(site), in_browser(Path(site), pages)))
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
        line(f"make {given.runs} records", str(made))
        parse_s = parse_all(content)
        build()
        build()
        run(*make, "1", "--first", str(given.runs))
        build()
        report_builds(parse_s, took["site"], took["before"])
        sys.exit(not report_browser(site, in_browser(site)))


if __name__ == "__main__":
    main()
