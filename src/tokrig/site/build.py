"""Building the site: what has changed is made anew, what is gone is removed, or nothing happens.

Pages are first made in a folder beside their places; only when all of them are there are they
moved in. A list of all files and what they were made from stays in the site's folder
(``.tokrig-site.json``): it tells the next build what it may keep, replace and remove. Files
that a build did not make are never touched.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import tokrig
from tokrig import parallel, registry
from tokrig.compare.kin import mark
from tokrig.errors import CheckFailed, InputError, StoreError
from tokrig.files import atomic_write
from tokrig.plan.queue import public_plan
from tokrig.site import Output
from tokrig.site.context import Site, methodology
from tokrig.site.pages.redirects import refuse_dangling
from tokrig.site.table import in_order
from tokrig.spec.campaign import load_campaign
from tokrig.store import Store
from tokrig.store.facts import (
    Published,
    load_families,
    load_published,
    load_redirects,
    load_rigs,
    load_site,
)
from tokrig.store.index import Problem
from tokrig.store.load import load, refuted
from tokrig.workloads import texts

MANIFEST = ".tokrig-site.json"
STAGE = ".tokrig-stage"
URLS_HEADER = """\
# Addresses of pages that were published; tokrig site build --record-urls adds new ones. Each
# stays: a build without one of them is refused, until redirects.yaml says where it leads now.
"""
_DRAWN_BY = ("jinja2", "markdown-it-py", "pyarrow")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Report:
    """What a build did: paths relative to ``out``, in order. ``problems`` are records left out,
    ``marked`` what is wrong with records that are shown with a mark for it, ``unguarded``
    addresses of pages that content/urls.txt does not know yet. ``not_recomputed`` counts records
    whose figures were held against each other, but not against their samples."""

    out: Path
    written: list[str]
    kept: int
    removed: list[str]
    problems: tuple[Problem, ...]
    unguarded: list[str]
    marked: tuple[Problem, ...] = ()
    not_recomputed: int = 0

    @property
    def index(self) -> Path:
        """The page to open."""
        return self.out / "index.html"


@dataclass(frozen=True)
class _Entry:
    """A file of the last build: its key, and its stat by which a change by others shows."""

    key: str
    size: int = -1
    mtime_ns: int = -1


def build(
    content: Path,
    out: Path,
    *,
    keep_going: bool = False,
    campaigns: Path | None = None,
    cache: Path | None = None,
    url: str | None = None,
    pictures: bool = False,
    progress: Progress = lambda what, done, of: None,
) -> Report:
    """Bring the site in ``out`` up to date with ``content``, and with the campaign files in
    ``campaigns`` (see ``campaigns_folder``). ``url`` is where the site is published; None takes
    the one in content/site.yaml; ``pictures`` makes one for every run.

    Raises RecordError, SpecError (file and line) for what cannot be read, CheckFailed when a
    published address would disappear, StoreError when the disk refuses or a foreign file is in
    the way; the site is then what it was.
    """
    gc.unfreeze()
    gc.disable()
    try:
        site = open_site(content, keep_going, campaigns, cache, url, pictures, progress)
        outputs = _outputs(site)
    finally:
        gc.freeze()  # no page changes the records: going through them again and again is in vain
        gc.enable()
    refuse_dangling(content, site.redirects, {output.path for output in outputs})
    unguarded = _guard(outputs, load_published(content))
    known = _read_manifest(out)
    # Pages tell crawlers where they are, and where their pictures.
    code = f"{_code_digest()} {site.url} {site.pictures_of_runs}"
    wanted = {o.path: hashlib.sha256(f"{code} {o.key}".encode()).hexdigest() for o in outputs}
    fresh = [o for o in outputs if not _is_current(out, o.path, wanted[o.path], known)]
    gone = sorted(known.keys() - wanted.keys())
    _refuse_foreign(out, fresh, known)
    try:
        if fresh or gone:
            with _stage(out) as stage:
                _render(fresh, stage, progress)
                _commit(out, stage, [o.path for o in fresh], gone, known, wanted)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise StoreError(
            f"{problem.filename or out}: cannot be written: {reason}",
            hint="see to room and permissions, then build again; the next build picks up from here",
        ) from None
    return Report(
        out=out,
        written=[o.path for o in fresh],
        kept=len(outputs) - len(fresh),
        removed=gone,
        problems=site.problems,
        unguarded=unguarded,
        marked=site.marked,
        not_recomputed=sum(run.samples_digest is not None for run in site.runs),
    )


def open_site(
    content: Path,
    keep_going: bool = False,
    campaigns: Path | None = None,
    cache: Path | None = None,
    url: str | None = None,
    pictures: bool = False,
    progress: Progress = lambda what, done, of: None,
) -> Site:
    """All that pages are made from. Raises as ``build`` does."""
    if not content.is_dir():
        raise InputError(
            f"no such folder: {content}", hint="--content names the folder with benchmarks/runs"
        )
    store = Store(content)
    loaded = load(
        store,
        keep_going=keep_going,
        cache=cache,
        progress=lambda done, of: progress("records", done, of),
    )
    rigs, written = load_rigs(content), load_site(content)
    runs, doubted = mark([in_order(run) for run in loaded.runs], rigs)
    folder = campaigns_folder(content, campaigns)
    files = [load_campaign(path) for path in sorted(folder.glob("*.yaml"))] if folder else []
    site = Site(
        store,
        runs,
        families=load_families(content),
        rigs=rigs,
        redirects=load_redirects(content),
        problems=loaded.problems,
        marked=(*refuted(loaded, store), *doubted),
        plan=public_plan(files, runs, rigs, texts()),
    )
    site.published = Published(
        url=url or written.url, pictures_of_runs=pictures or written.pictures_of_runs
    )
    return site


def campaigns_folder(content: Path, campaigns: Path | None) -> Path | None:
    """Where campaign files lie: in ``campaigns``, else in the folder of that name beside
    ``content``, which need not be there. Raises InputError when the named one is not."""
    folder = campaigns or content.parent / "campaigns"
    if folder.is_dir():
        return folder
    if campaigns is None:
        return None
    raise InputError(f"no such folder: {campaigns}", hint="--campaigns names the campaign files")


def _outputs(site: Site) -> list[Output]:
    """All files of the site. Two that would be one file on some disk are an error."""
    outputs: dict[str, Output] = {}
    for name in registry.names("site.pages"):
        for output in registry.load("site.pages", name, "PAGE")(site):
            if ".." in output.path or output.path.startswith("/"):
                raise InputError(f"a page cannot be written outside the site: {output.path!r}")
            other = outputs.setdefault(output.path.lower(), output)
            if other is not output:
                raise InputError(
                    f"two pages would have the address {output.path}",
                    hint="rename one of the two runs, models or redirects",
                )
    return list(outputs.values())


def _guard(outputs: list[Output], published: list[str]) -> list[str]:
    """Addresses not guarded yet. Raises CheckFailed when a published one would disappear."""
    there = {output.path for output in outputs}
    lost = sorted(set(published) - there)
    if lost:
        raise CheckFailed(
            "published addresses would disappear:\n" + "\n".join(f"  {path}" for path in lost),
            hint=f"say where they lead now in content/redirects.yaml: {lost[0]}: models/….html",
        )
    return sorted(path for path in there - set(published) if path.endswith(".html"))


def record_addresses(content: Path, new: Iterable[str]) -> None:
    """Add addresses to ``urls.txt``: sorted, one a line, written whole or not at all.

    Raises InputError for a list that cannot be read, StoreError when the disk refuses.
    """
    known = load_published(content)
    wanted = sorted({*known, *new})
    if wanted == known:
        return
    path = content / "urls.txt"
    try:
        atomic_write(path, URLS_HEADER + "".join(f"{url}\n" for url in wanted))
    except OSError as problem:
        raise StoreError(
            f"{path}: cannot be written: {problem.strerror or problem}",
            hint="see to room and permissions, then build again with --record-urls",
        ) from None


def _render(outputs: list[Output], stage: Path, progress: Progress) -> None:
    """Make the files, many of them by all processors: forked ones know the outputs."""
    global _STAGED  # noqa: PLW0603 (what a forked process inherits need not be pickled)
    _STAGED = (outputs, stage)
    for folder in {(stage / output.path).parent for output in outputs}:
        folder.mkdir(parents=True, exist_ok=True)
    rendered = parallel.map_forked(
        _render_one,
        range(len(outputs)),
        worth_it=8,
        chunk=4 if len(outputs) > 1000 else 1,
    )
    for done, _ in enumerate(rendered):
        progress("pages", done + 1, len(outputs))


_STAGED: tuple[list[Output], Path] = ([], Path())


def _render_one(number: int) -> None:
    outputs, stage = _STAGED
    output = outputs[number]
    (stage / output.path).write_bytes(output.render())


@contextlib.contextmanager
def _stage(out: Path) -> Iterator[Path]:
    """A folder for unfinished pages, on the disk of the finished ones; gone afterwards."""
    stage = out / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _commit(
    out: Path,
    stage: Path,
    written: list[str],
    gone: list[str],
    known: dict[str, _Entry],
    wanted: dict[str, str],
) -> None:
    """Move the finished files in.

    The list is written before, with nothing known of the files about to change, and after: a
    build that dies between leaves a list that owns every file and trusts no doubtful one.
    """
    doubtful = {path: _Entry("") for path in (*written, *gone)}
    _write_manifest(out, known | doubtful)
    for path in written:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(stage / path, out / path)
    for path in gone:
        (out / path).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: still needed
            (out / path).parent.rmdir()
    _write_manifest(out, {path: _entry(out, path, key) for path, key in wanted.items()})


def _entry(out: Path, path: str, key: str) -> _Entry:
    stat = os.stat(f"{out}/{path}")  # there are tens of thousands: a Path for each takes longer
    return _Entry(key, stat.st_size, stat.st_mtime_ns)


def _is_current(out: Path, path: str, key: str, known: dict[str, _Entry]) -> bool:
    old = known.get(path)
    if old is None or old.key != key:
        return False
    try:
        return _entry(out, path, key) == old
    except OSError:
        return False


def _refuse_foreign(out: Path, fresh: list[Output], known: dict[str, _Entry]) -> None:
    """Raises StoreError where a file that no build made would be overwritten."""
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out}: is a file", hint="--out names a folder")
    for output in fresh:
        if output.path not in known and (out / output.path).exists():
            raise StoreError(
                f"{out / output.path}: is in the way and was not made by tokrig",
                hint="choose another folder with --out, or move that file away",
            )


def _read_manifest(out: Path) -> dict[str, _Entry]:
    """The list of the last build; nothing at all when there is none that can be read."""
    try:
        data = json.loads((out / MANIFEST).read_bytes())
        return {path: _Entry(*entry) for path, entry in data["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write_manifest(out: Path, files: dict[str, _Entry]) -> None:
    listed = {path: [e.key, e.size, e.mtime_ns] for path, e in sorted(files.items())}
    atomic_write(out / MANIFEST, json.dumps({"files": listed}, indent=0) + "\n", sync=False)


@cache
def _code_digest() -> str:
    """Changes with every change of what draws pages: tokrig's own files, and the libraries."""
    together = hashlib.sha256()
    root = Path(tokrig.__file__).parent
    for file in sorted(root.rglob("*")):
        if file.is_file() and file.suffix not in (".pyc", ".pyo"):
            together.update(f"{file.relative_to(root).as_posix()}\0".encode())
            together.update(file.read_bytes())
    together.update(methodology().encode())
    for name in _DRAWN_BY:
        together.update(f"{name} {version(name)}\n".encode())
    return together.hexdigest()
