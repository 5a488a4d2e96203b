"""What the words after ``tokrig compare`` mean: two records or lists of them, two folders, or
filters one of whose keys has two values."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokrig.compare.variables import KEYS, VARIABLES, known_keys
from tokrig.errors import InputError, RecordError, did_you_mean
from tokrig.store.filters import holds
from tokrig.units import slug

if TYPE_CHECKING:
    from tokrig.record.model import Record
    from tokrig.store import Row, Store

# So many records are read for one comparison; a list of more says nothing that anybody reads.
MOST_RECORDS = 500
FORMS = "give two records, two folders, or filters such as: build=b9174 build=b9300 rig=my-rig"

# Keys that a line of the list has; all others take the record.
COLUMNS: dict[str, Callable[[Row], str | None]] = {
    "id": lambda row: row.id,
    "rig": lambda row: row.rig,
    "model": lambda row: row.model,
    "family": lambda row: row.family,
    "variant": lambda row: row.variant,
    "quant": lambda row: row.quant,
    "creator": lambda row: row.quant_creator,
    "backend": lambda row: row.backend,
    "engine": lambda row: row.engine,
    "build": lambda row: row.build,
    "api": lambda row: row.api,
    "mode": lambda row: row.choices or row.mode,
    "level": lambda row: row.level,
    "kind": lambda row: row.kind,
    "campaign": lambda row: row.campaign,
    "date": lambda row: row.started_at and row.started_at[:10],
}
# What those are called among the variables of a comparison.
VARIABLE_OF = {
    "rig": "machine",
    "creator": "quant creator",
    "api": "API",
    "backend": "engine",
    "family": "model",
    "variant": "model",
}
_NAMED = {slug(variable.name): variable for variable in VARIABLES}


@dataclass(frozen=True)
class Sides:
    """Records of A and of B. ``apart`` are the variables that tell them apart, where filters named
    them; ``notes`` are for people."""

    a: Sequence[Record]
    b: Sequence[Record]
    apart: frozenset[str] = frozenset()
    notes: Sequence[str] = ()


@dataclass
class _Listed:
    """A record of the store, read when a filter asks for more than the list has."""

    row: Row
    store: Store = field(repr=False)

    @cached_property
    def record(self) -> Record:
        return self.store.read(self.store.runs / self.row.path)

    @cached_property
    def _keys(self) -> Mapping[str, str]:
        return known_keys(self.record)

    def value(self, key: str) -> str:
        """What the record has for a key; "" where it is not known."""
        if key in COLUMNS:
            return COLUMNS[key](self.row) or ""
        variable = _NAMED.get(key)
        keys = variable.keys if variable else (key,)
        return ", ".join(self._keys[one] for one in keys if one in self._keys)


def sides_of(words: Sequence[str], store: Store) -> Sides:
    """The two sides that are meant. Raises InputError, saying what is nearest."""
    filters = [word for word in words if "=" in word and not Path(word).exists()]
    if filters:
        if other := [word for word in words if word not in filters]:
            raise InputError(f"{other[0]!r} stands among filters, and is none", hint=FORMS)
        return _filtered(pairs_of(filters), store)
    if len(words) != 2:
        missing = "AB"[len(words)] if len(words) < 2 else ""
        told = f"Missing argument {missing!r}" if missing else f"{len(words)} records, not two"
        hint = f"{FORMS}; several records of one side: ID,ID; tokrig compare --help explains"
        raise InputError(told, hint=hint)
    a, b = ([*_named(word, store)] for word in words)
    for side in (a, b):
        _refuse_twins(side)
    return _apart(a, b, folders=all(Path(word).is_dir() for word in words))


def _apart(a: Sequence[_File], b: Sequence[_File], *, folders: bool) -> Sides:
    """Sides that share no record. Of two folders the one that came later may hold the other's."""
    mine = {one.record.id: one for one in a}
    both = [one for one in b if one.record.id in mine]
    for one in both:
        twin = mine[one.record.id]
        if twin.record != one.record:
            raise InputError(
                f"two records of one id: {twin.path} and {one.path} differ",
                hint="an id is of one record: see which of the files is the right one",
            )
    if both and (not folders or len(both) == len(b)):
        raise InputError(
            f"{both[0].record.id} is on both sides" + (": both folders hold the same" * folders),
            hint="a record does not differ from itself: name another one",
        )
    rest = [one.record for one in b if one not in both]
    notes = [f"{len(both)} records are in both folders: they count as those of A"] * bool(both)
    return Sides([one.record for one in a], rest, notes=notes)


@dataclass(frozen=True)
class _File:
    path: Path
    record: Record


def _refuse_twins(found: Sequence[_File]) -> None:
    seen: dict[str, Path] = {}
    for one in found:
        if (before := seen.setdefault(one.record.id, one.path)) is not one.path:
            raise InputError(
                f"two records of one id on one side: {before} and {one.path}",
                hint="name each record once; an id is of one record",
            )


def _named(word: str, store: Store) -> Iterable[_File]:
    """The records that a word names: a folder, a record, or several with commas between them."""
    if (folder := Path(word)).is_dir():
        return _of_folder(folder)
    named = [word] if Path(word).is_file() else [one for one in word.split(",") if one]
    return [_File(path, store.read(path)) for path in map(store.find, named or [word])]


def _of_folder(folder: Path) -> list[_File]:
    """All records of a content folder, or of a folder with their files somewhere in it."""
    from tokrig.store import Store

    there = Store(folder)
    paths = [*there.iter_paths()] if there.runs.is_dir() else sorted(folder.rglob("*.yaml"))
    if len(paths) > MOST_RECORDS:
        raise InputError(
            f"{folder} holds {len(paths):,} files; {MOST_RECORDS:,} records can be compared",
            hint="name a folder in it, or filters",
        )
    found, wrong = [], []
    for path in paths:
        try:
            found.append(_File(path, there.read(path)))
        except RecordError as problem:
            wrong.append(problem)
    if wrong and there.runs.is_dir():
        raise wrong[0]  # everything there should be a record
    if not found:
        why = f": {wrong[0].message}" if wrong else ""
        raise InputError(
            f"no record in {folder}{why}",
            hint="a folder of records, or one that has benchmarks/runs in it",
        )
    usable = [one for one in found if one.record.results]
    if not usable:
        raise InputError(
            f"no record in {folder} has results", hint=f"tokrig list --content {folder} shows them"
        )
    return usable


# Filters


def keys() -> list[str]:
    """The keys that filters may have: columns of the list, variables, fields of a record."""
    return [*COLUMNS, *(name for name in _NAMED if name not in COLUMNS), *KEYS]


def pairs_of(words: Iterable[str]) -> list[tuple[str, str]]:
    """Filters as keys and values; one word may hold several: ``"build=b1 build=b2 rig=x"``.

    Raises InputError for a key that nothing has.
    """
    found: list[tuple[str, str]] = []
    for word in words:
        try:
            parts = shlex.split(word) if word.count("=") > 1 else [word]
        except ValueError as problem:
            raise InputError(f"{word!r} cannot be read: {problem}", hint=FORMS) from None
        for part in parts:
            key, equals, value = part.partition("=")
            if not equals and found:
                found[-1] = (found[-1][0], f"{found[-1][1]} {part}")
                continue
            named = key.strip() if key.strip() in KEYS else slug(key)
            if named not in COLUMNS and named not in _NAMED and named not in KEYS:
                raise InputError(
                    f"no key {key!r} to filter by", hint=did_you_mean(key, [*COLUMNS, *_NAMED])
                )
            if not value.strip():
                raise InputError(f"{key}= has no value", hint=FORMS)
            found.append((named, value.strip()))
    return found


def _filtered(filters: Sequence[tuple[str, str]], store: Store) -> Sides:
    values: dict[str, list[str]] = {}
    for key, value in filters:
        values.setdefault(key, []).append(value)
    for key, given in values.items():
        if len(given) > 2:
            raise InputError(f"{key} has {len(given)} values; two name two sides", hint=FORMS)
    told = {key: given for key, given in values.items() if len({*given}) == 2}
    rows = [_Listed(row, store) for row in store.rows() if row.results]
    if not rows:
        raise InputError(
            f"no records with results in {store.content}", hint="make one with: tokrig run"
        )
    if not told:
        two = next(filter(None, (_two_of(rows, key) for key in (*values, "build", "rig"))), FORMS)
        raise InputError("no key has two values, so there is one side only", hint=two)
    for key, given in values.items():
        if key not in told:
            rows = _matching(rows, key, given[0])
    a, b = rows, rows
    for key, (first, second) in told.items():
        a, b = _matching(a, key, first), _matching(b, key, second)
    both = {one.row.id for one in a} & {one.row.id for one in b}
    if both:
        raise InputError(
            f"{sorted(both)[0]} matches both sides",
            hint="give the values in full: " + ", ".join(f"{key}={v}" for key, v in filters),
        )
    for side, found in (("A", a), ("B", b)):
        if len(found) > MOST_RECORDS:
            raise InputError(
                f"{len(found):,} records match side {side}; {MOST_RECORDS} can be compared",
                hint="narrow them, such as rig=… model=… quant=…",
            )
    apart = frozenset(
        VARIABLE_OF.get(key) or (_NAMED[key].name if key in _NAMED else _variable_of(key))
        for key in told
    )
    return Sides([one.record for one in a], [one.record for one in b], apart)


def _variable_of(key: str) -> str:
    return next((one.name for one in VARIABLES if key in one.keys), key)


def _matching(rows: Sequence[_Listed], key: str, wanted: str) -> list[_Listed]:
    """Those whose value is the one wanted, else those that contain it. Raises InputError with what
    is nearest where there are none."""
    if key not in COLUMNS and len(rows) > MOST_RECORDS:
        raise InputError(
            f"{key} would be looked up in {len(rows):,} records; {MOST_RECORDS:,} at most",
            hint=f"narrow them first: {', '.join(COLUMNS)}",
        )
    told = [(one, one.value(key)) for one in rows]
    found = [one for one, value in told if value.casefold() == wanted.casefold()]
    found = found or [one for one, value in told if value and holds(wanted, value)]
    if found:
        return found
    there = sorted({value for _, value in told if value})
    near = difflib.get_close_matches(wanted, there, n=5, cutoff=0.4) or there[:10]
    hint = f"there are: {', '.join(sorted(near))}" if near else f"no record here tells its {key}"
    raise InputError(f"nothing matches {key}={wanted}", hint=hint)


def _two_of(rows: Sequence[_Listed], key: str) -> str:
    """How a key would be given twice, where there are two values of it."""
    if key not in COLUMNS:
        return ""
    there = sorted({one.value(key) for one in rows if one.value(key)})
    return f"such as {key}={there[0]} {key}={there[1]}" if len(there) > 1 else ""


def complete_side(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[click.shell_completion.CompletionItem]:
    """Ids, keys of filters, and the values of a key; else files, as --measure takes them."""
    from tokrig.cli.options import complete_run_id, completing, content_of
    from tokrig.store import Store

    key, equals, _ = incomplete.partition("=")
    if equals:

        def values(ctx: click.Context) -> list[str]:
            rows = Store(content_of(ctx)).rows()
            if key not in COLUMNS:
                return []
            return sorted({f"{key}={value}" for row in rows if (value := COLUMNS[key](row))})

        return completing(values)(ctx, param, incomplete)
    ids = complete_run_id(ctx, param, incomplete)
    names = [f"{name}=" for name in COLUMNS if name.startswith(incomplete)]
    item = click.shell_completion.CompletionItem
    if ctx.params.get("measure") or not (ids or names):
        return [item(incomplete, type="file")]
    return [*ids, *map(item, names if incomplete else ())]
