"""Options that several commands share, and what the shell completes them with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from tokrig.errors import did_you_mean
from tokrig.spec.settings import askable
from tokrig.units import tokens_of

F = TypeVar("F", bound=Callable[..., Any])
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
Words = Callable[[click.Context], Sequence[str]]

CONTENT_DEFAULT = Path("content")


even_if_busy = click.option(
    "--even-if-busy",
    is_flag=True,
    envvar="TOKRIG_EVEN_IF_BUSY",
    help="Measure even if something else loads this machine; that load is measured too.",
)


def content_and_json(command: F) -> F:
    """``--content DIR`` and ``--json``, which every command takes."""
    content = click.option(
        "--content",
        type=click.Path(path_type=Path),
        default=CONTENT_DEFAULT,
        show_default=True,
        envvar="TOKRIG_CONTENT",
        show_envvar=True,
        metavar="DIR",
        help="Folder of records and samples.",
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
    return content(as_json(command))


def example(*lines: str) -> str:
    """The end of a command's help: examples, each on a line of its own."""
    shown = [f"  {line}" for line in lines]
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *shown])


class UnknownWord(click.BadParameter):
    """A word that is none of the known ones, and the nearest of them."""

    def __init__(self, word: str, known: list[str], *place: Any) -> None:
        self.hint = did_you_mean(word, known)
        super().__init__(f"{word!r} is unknown", *place)


class Word(click.Choice[str]):
    """One of a few words; a wrong one is told the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        known = [str(choice) for choice in self.choices]
        if value not in known:
            raise UnknownWord(str(value), known, ctx, param)
        return str(value)


def completing(words: Words) -> Complete:
    """Completion must never fail: a broken folder completes to nothing."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        # Behind a comma the next name of a list begins.
        before, comma, last = incomplete.rpartition(",")
        try:
            found = [word for word in words(ctx) if word.startswith(last)]
        except Exception:  # noqa: BLE001
            return []
        return [CompletionItem(f"{before}{comma}{word}") for word in found]

    return complete


def _parts(package: str, ctx: click.Context) -> list[str]:
    from tokrig import registry

    return registry.names(package)


def _models(ctx: click.Context) -> list[str]:
    from tokrig.models.catalog import CATALOG

    return sorted(CATALOG)


def _unfinished(ctx: click.Context) -> list[str]:
    from tokrig.run import journal

    return journal.unfinished()


def _records(ctx: click.Context) -> list[Path]:
    """The stored records, by their file names alone."""
    from tokrig.store import Store

    return [*Store(content_of(ctx)).iter_paths()]


def content_of(ctx: click.Context) -> Path:
    """The content folder, as far as it was typed."""
    return Path(ctx.params.get("content") or ctx.lookup_default("content") or CONTENT_DEFAULT)


complete_backend = completing(partial(_parts, "backends"))
complete_workload = completing(partial(_parts, "workloads"))
complete_run_id = completing(lambda ctx: [path.stem for path in _records(ctx)])
complete_unfinished = completing(_unfinished)
complete_rig = completing(lambda ctx: sorted({path.parent.name for path in _records(ctx)}))


def complete_model(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of the catalog, or files."""
    names = completing(_models)(ctx, param, incomplete)
    return names or [CompletionItem(incomplete, type="file")]


# The statuses and verdicts of ``store.filters``, which takes a while to load.
STATUSES = ("complete", "failed", "interrupted", "valid", "unverified", "invalid")


def record_filters(command: F) -> F:
    """Options that choose records: the fields of ``store.filters.Filters``."""
    options = (
        click.option(
            *("--model", "-m"),
            metavar="TEXT",
            shell_complete=complete_model,
            help="Name contains TEXT.",
        ),
        click.option(
            "--rig", metavar="TEXT", shell_complete=complete_rig, help="Rig contains TEXT."
        ),
        click.option(
            "--backend",
            metavar="TEXT",
            shell_complete=complete_backend,
            help="Engine contains TEXT.",
        ),
        click.option(
            "--mode", metavar="TEXT", help="Mode contains TEXT: baseline, n-gram, reasoning off."
        ),
        click.option(
            "--status", type=Word(STATUSES), help="Only records of this status or verdict."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def word_list(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> Any:
    """A repeatable, comma separated option as a list; None where it was not given."""
    found = [word.strip() for text in given for word in text.split(",") if word.strip()]
    return found or None


def number_list(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> Any:
    """The same as whole numbers."""
    words = word_list(ctx, param, given)
    try:
        numbers = words and [int(word) for word in words]
    except ValueError:
        raise click.BadParameter("give whole numbers, such as 1,4") from None
    if numbers and min(numbers) < 0:
        raise click.BadParameter("a number cannot be negative")
    return numbers


def token_list(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> Any:
    """The same as numbers of tokens, ``4k`` among them."""
    words = word_list(ctx, param, given)
    try:
        return words and [*map(tokens_of, words)]
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


def in_flight(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> Any:
    """Numbers, or the word for a ladder, whose place the spec knows."""
    from tokrig.spec.run import LADDER

    words = word_list(ctx, param, given)
    if words and any(word.startswith(LADDER) for word in words):
        return words
    try:
        return number_list(ctx, param, given)
    except click.BadParameter as problem:
        raise click.BadParameter(f"{problem.message}, or {LADDER}") from None


def key_values(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> Any:
    """``KEY=VALUE`` pairs; numbers and true/false become what they look like."""
    found = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not key or not separator:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE")
        found[key] = _value(value)
    return found or None


def _value(text: str) -> str | int | float | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


_KINDS: dict[str, dict[str, Any]] = {
    "texts": {"multiple": True, "callback": word_list},
    "options": {"multiple": True, "callback": key_values},
    "amount": {"type": float},
}


def setting_options(*only: str) -> Callable[[F], F]:
    """An option for each setting that can be asked for, or ``only`` some, in their order."""

    def add(command: F) -> F:
        for setting in reversed([s for s in askable() if not only or s.name in only]):
            how = dict(_KINDS.get(setting.kind, {}))
            if setting.kind == "word":
                how["type"] = Word(setting.choices)
            elif setting.kind == "whole":
                how["type"] = click.IntRange(min=setting.least)
            if setting.offered == ("*models",):
                how["shell_complete"] = complete_model
            elif setting.offered:
                how["shell_complete"] = completing(partial(_always, setting.offered))
            command = click.option(
                setting.option, setting.name, help=setting.help, metavar=setting.metavar, **how
            )(command)
        return command

    return add


def _always(words: Sequence[str], ctx: click.Context) -> Sequence[str]:
    return words
