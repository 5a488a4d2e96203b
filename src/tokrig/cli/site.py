"""``tokrig site``: build the public page, or serve it here and rebuild it on change."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokrig.cli.options import F, content_and_json, example
from tokrig.cli.present import bars
from tokrig.errors import InputError
from tokrig.registry import get_extra

if TYPE_CHECKING:
    from tokrig.site.build import Report

LISTED = 10


def _site_url(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    from tokrig.store.facts import site_url

    try:
        return None if text is None else site_url(text)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


def site_options(command: F) -> F:
    """What both commands take."""
    for one in (
        content_and_json,
        click.option(
            "--campaigns",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Folder of campaign files; the page shows their planned runs as coming soon."
            "  [default: campaigns beside content]",
        ),
        click.option(
            "--keep-going",
            is_flag=True,
            help="Leave out records that cannot be read and list them on the page.",
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            default=Path("site"),
            show_default=True,
            metavar="DIR",
            help="Folder of the site. Files that tokrig did not write there stay untouched.",
        ),
        click.option(
            "--url",
            callback=_site_url,
            metavar="URL",
            help="Where the site is published: previews of links need whole addresses."
            "  [default: url in content/site.yaml]",
        ),
        click.option(
            "--pictures",
            is_flag=True,
            help="Draw a picture of every run for previews of its link, not of models alone; takes "
            "about as long again as the pages.  [default: pictures_of_runs in content/site.yaml]",
        ),
    ):
        command = one(command)
    return command


@click.group("site", epilog=example("tokrig site build --out public", "tokrig site serve"))
def command() -> None:
    """Build the public page, or serve it on this machine."""


@command.command("build", epilog=example("tokrig site build --content content --out public"))
@site_options
@click.option(
    "--record-urls",
    is_flag=True,
    help="Add the site's addresses to content/urls.txt: from then on none may disappear.",
)
def build_command(record_urls: bool, content: Path, as_json: bool, **asked: Any) -> None:
    """Build the site: static files for any host, or to open from disk.

    Only what has changed is built again. A record that cannot be read stops the build and leaves
    the site as it was.
    """
    from tokrig.cli import present

    report = _build(content, **asked)
    if record_urls:
        from tokrig.site.build import record_addresses

        record_addresses(content, report.unguarded)
    for problem in report.problems[:LISTED]:
        click.echo(f"left out: {problem.message}", err=True)
    for problem in report.marked[:LISTED]:
        click.echo(f"shown with a mark: {problem.message}", err=True)
    if len(report.marked) > LISTED:
        click.echo(f"… and {len(report.marked) - LISTED} more; tokrig check names them", err=True)
    if as_json:
        present.print_json(
            {
                "index": str(report.index),
                "written": len(report.written),
                "kept": report.kept,
                "removed": len(report.removed),
                "left_out": [vars(problem) for problem in report.problems],
                "marked": [vars(problem) for problem in report.marked],
                "not_recomputed": report.not_recomputed,
                "new_addresses": len(report.unguarded),
            }
        )
        return
    click.echo(
        f"{len(report.written)} files written, {report.kept} kept, {len(report.removed)} removed",
        err=True,
    )
    if report.not_recomputed:
        click.echo(
            f"note: figures of {report.not_recomputed} runs were not computed again from their "
            "samples; tokrig check does that",
            err=True,
        )
    if report.unguarded and not record_urls:
        click.echo(
            f"note: {len(report.unguarded)} addresses are new; before you publish them, add them "
            "with --record-urls so that they stay",
            err=True,
        )
    click.echo(report.index)


@command.command("serve", epilog=example("tokrig site serve --port 8000"))
@site_options
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
def serve_command(port: int, content: Path, as_json: bool, **asked: Any) -> None:
    """Serve the site on this machine only, and rebuild it when a record or a campaign changes.

    Ctrl-C ends it. A change that cannot be read is reported here; the page stays as it was.
    """
    from tokrig.site.serve import Event, serve

    def tell(event: Event) -> None:
        if as_json:
            click.echo(json.dumps({"event": event.kind, "text": event.text}))
        else:
            click.echo(event.text, err=event.kind != "serving")

    asked["out"] = _build(content, **asked).out
    # Ctrl-C may come while something is told as well as while a change is waited for.
    try:
        with contextlib.closing(serve(content, port=port, **asked)) as events:
            for event in events:
                tell(event)
    except KeyboardInterrupt:
        tell(Event("stopped", "stopped"))


def _build(content: Path, **asked: Any) -> Report:
    try:
        from tokrig.site.build import build
    except ModuleNotFoundError as missing:
        raise InputError(
            f"the site needs the package {missing.name!r}", hint=get_extra("site")
        ) from None
    with bars() as tell:
        return build(content, progress=tell, **asked)
