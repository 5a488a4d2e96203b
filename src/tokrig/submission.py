"""A contribution of records: what it would publish, where it stands among what is there, and the
branch with a pull request's text. Nothing leaves the machine.

The branch is made beside the working tree (git's plumbing with an index of its own): neither the
files nor the branch that someone works on change, and an interruption leaves nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokrig.compare import Comparison, comparison, contribution, subject
from tokrig.errors import InputError, StoreError, TokrigError
from tokrig.record import privacy
from tokrig.record.model import Record
from tokrig.run.assemble import scrub
from tokrig.store import Row, Store

GIT_S = 60.0
# Of the records of the same model so many are compared with a new one.
MOST_COMPARED = 24
_CHANGES = {"A": "added", "D": "removed"}
_ADD = ("update-index", "--add", "--cacheinfo")


@dataclass(frozen=True)
class Entry:
    """A record that is contributed: its files by their place in the content folder, what looks
    private in it, and the comparison with the nearest record that is published."""

    record: Record
    files: Mapping[str, bytes]
    private: tuple[str, ...] = ()
    nearest: Comparison | None = None


@dataclass(frozen=True)
class Submission:
    """What goes into a pull request. ``root`` is the repository's folder, ``content`` where its
    content folder lies below it."""

    root: Path
    content: str
    base: str
    branch: str
    entries: tuple[Entry, ...] = field(default_factory=tuple)

    @property
    def title(self) -> str:
        """``Gemma-3 270M Q4_K_M on GeForce RTX 5070``, or how many records of which machine."""
        return contribution.title([entry.record for entry in self.entries])


# What it would publish


def gathered(runs: Sequence[Path], store: Store, target: Path, base: str | None) -> Submission:
    """The records at ``runs``, as a contribution to the repository that holds ``target``, a content
    folder, branching off ``base`` (default: the remote's main branch, else what is checked out).

    Raises InputError where that is no repository, a record is there already, or was made by nobody
    who could submit it; RecordError for one that cannot be read.
    """
    root, content = _repository(target)
    start = base or _default_base(root)
    published = _published(root, start)
    there = Store(target)
    entries = []
    for path in dict.fromkeys(runs):
        record = store.read(path)
        files = {
            place: data
            for place, data in _files(record, path, store)
            if published(f"{content}/{place}".removeprefix("./")) != data
        }
        if not any(place.endswith(".yaml") for place in files):
            raise InputError(
                f"{record.id} is published already", hint="leave it out: tokrig list shows others"
            )
        entries.append(Entry(record, files, tuple(looks_private(record)), nearest(record, there)))
    if not entries:
        raise InputError("no record was given", hint="name runs: tokrig list shows them")
    branch = contribution.branch([entry.record.id for entry in entries])
    return Submission(root, content, start, branch, tuple(entries))


def _files(record: Record, path: Path, store: Store) -> Iterator[tuple[str, bytes]]:
    yield contribution.place(record), path.read_bytes()
    samples = store.samples_path(record.id)
    if samples.exists():
        yield f"benchmarks/samples/{samples.name}", samples.read_bytes()
    answers = store.answers_path(record.id)
    if record.quality is not None and answers.exists():
        yield f"benchmarks/quality/{answers.name}", answers.read_bytes()
    prose = store.content / "rigs" / f"{record.rig.id}.md"
    if prose.exists():
        yield f"rigs/{prose.name}", prose.read_bytes()


def looks_private(record: Record) -> Iterator[str]:
    """Fields that hold what reads like a path, a key, an address or this user's or machine's
    name: ``notes: 'on /home/ada/models'``."""
    for place, text in privacy.texts(record.model_dump(mode="json", exclude_none=True)):
        if scrub(text) != text:
            yield f"{place}: {text!r}"


def nearest(record: Record, store: Store, without: Collection[str] = ()) -> Comparison | None:
    """The published record that this one is most comparable with, ``without`` some: by class, then
    by how little differs. None where nobody measured the model."""

    def likeness(row: Row) -> tuple[bool, ...]:
        model, rig = record.model, record.rig.id
        return (row.variant == model.variant, row.quant == model.quant, row.rig == rig)

    others = {record.id, *without}
    rows = [r for r in store.rows() if r.family == record.model.family and r.id not in others]
    rows.sort(key=likeness, reverse=True)
    found: list[Comparison] = []
    for row in rows[:MOST_COMPARED]:
        try:
            other = store.read(store.runs / row.path)
        except TokrigError:  # tokrig check names what cannot be read
            continue
        found.append(comparison(subject(other), subject(record)))
    return min(
        found, key=lambda one: (one.grade, len(one.differences.differing), one.a.id), default=None
    )


def changed_since(content: Path, base: str) -> list[tuple[str, str]]:
    """Files of a content folder that were ``added``, ``changed`` or ``removed`` since its branch
    left ``base``, uncommitted ones included, by their place in it; those outside of it begin with
    ``../``.

    Raises InputError where it lies in no repository, or that has no such commit.
    """
    root, inside = _repository(content)
    fork = _git(root, "merge-base", base, "HEAD", fails=True)
    if not fork:
        raise InputError(f"{root} has no commit {base!r}", hint="name a branch: origin/main")
    listed = _git(root, "diff", "--name-status", "--no-renames", "-z", fork).split("\0")
    pairs = [*zip(listed[::2], listed[1::2], strict=False)]
    new = _git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    pairs += [("A", path) for path in new if path]
    below = "" if inside == "." else f"{inside}/"
    return [(_CHANGES.get(letter[:1], "changed"), _inside(path, below)) for letter, path in pairs]


def _inside(path: str, below: str) -> str:
    return path.removeprefix(below) if path.startswith(below) else f"../{path}"


def text_of(found: Submission) -> str:
    """The text of the pull request, in Markdown: what was measured, on what, how it stands."""
    return contribution.text(
        (entry.record, entry.nearest, [*entry.files]) for entry in found.entries
    )


# The branch


def committed(found: Submission) -> str:
    """Make the branch; its commit. The working tree stays as it is.

    Raises InputError where a branch of this name is there, StoreError where git refuses.
    """
    root = found.root
    if _git(root, "rev-parse", "--verify", "--quiet", f"refs/heads/{found.branch}", fails=True):
        raise InputError(
            f"the branch {found.branch} is there already",
            hint=f"send it, or remove it: git -C {root} branch -D {found.branch}",
        )
    with tempfile.TemporaryDirectory(prefix="tokrig-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        _git(root, "read-tree", found.base, env=index)
        for entry in found.entries:
            for place, data in entry.files.items():
                file = Path(folder, "file")
                file.write_bytes(data)
                blob = _git(root, "hash-object", "-w", str(file))
                where = f"{found.content}/{place}".removeprefix("./")
                _git(root, *_ADD, f"100644,{blob},{where}", env=index)
        tree = _git(root, "write-tree", env=index)
        message = Path(folder, "message")
        message.write_text(f"{found.title}\n\n{text_of(found)}\n", "utf-8")
        commit = _git(root, "commit-tree", tree, "-p", found.base, "-F", str(message))
    _git(root, "branch", "--no-track", found.branch, commit)
    return commit


def _repository(target: Path) -> tuple[Path, str]:
    there = target if target.is_dir() else target.parent
    top = _git(there, "rev-parse", "--show-toplevel", fails=True) if there.is_dir() else ""
    if not top:
        raise InputError(
            f"{target} lies in no git repository",
            hint="clone the repository of the page, and name its content folder with --to",
        )
    return Path(top), target.resolve().relative_to(Path(top).resolve()).as_posix()


def _default_base(root: Path) -> str:
    remote = _git(root, "rev-parse", "--abbrev-ref", "origin/HEAD", fails=True)
    return remote if remote and remote != "origin/HEAD" else "HEAD"


def _published(root: Path, base: str) -> Any:
    """Reads a file as the base has it; None where it has none."""
    if not _git(root, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}", fails=True):
        raise InputError(f"{root} has no commit {base!r}", hint="name another with --base")

    def read(place: str) -> bytes | None:
        blob = _git(root, "rev-parse", "--verify", "--quiet", f"{base}:{place}", fails=True)
        path = root / place
        same = blob and path.is_file() and _git(root, "hash-object", str(path)) == blob
        return path.read_bytes() if same else None

    return read


def _git(root: Path, *words: str, env: Mapping[str, str] | None = None, fails: bool = False) -> str:
    """What git says. Where it ``fails`` that is "", else a StoreError with its words."""
    git = shutil.which("git")
    if git is None:
        raise InputError("a contribution is made with git, which is not here", hint="install git")
    command = (git, "-C", str(root), *words)
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            timeout=GIT_S,
            env={**os.environ, **(env or {})},
        )
    except subprocess.TimeoutExpired:
        raise StoreError(f"git {words[0]} did not end within {GIT_S:g} s") from None
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "replace").strip()
    if fails:
        return ""
    why = " ".join(done.stderr.decode("utf-8", "replace").split())[:300] or "no answer"
    raise StoreError(f"git {words[0]} failed: {why}", hint=f"see what git -C {root} status says")
