"""``tokrig engine``: get an engine that uses the graphics card, and take it for runs."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokrig.cli.options import Word, content_and_json, example
from tokrig.errors import Interrupted

if TYPE_CHECKING:
    from tokrig.engines import Added

APIS = ("vulkan", "cuda", "rocm", "cpu")


@click.group(
    "engine", epilog=example("tokrig engine add llamacpp --api vulkan", "tokrig engine show")
)
def command() -> None:
    """Get an engine for the graphics card; runs then take it."""


@command.command("add", epilog=example("tokrig engine add llamacpp --api vulkan"))
@click.argument("name", type=Word(["llamacpp"]), metavar="llamacpp")
@click.option("--api", type=Word(APIS), required=True, help=f"One of {', '.join(APIS)}.")
@click.option("--bin", "program", metavar="PATH", help="Take this llama-server.")
@click.option("--version", help="Of the source package that is built.  [default: a tested one]")
@click.option("--jobs", type=click.IntRange(min=1), help="Compilers at once.  [default: all CPUs]")
@content_and_json
def add(
    name: str,
    api: str,
    program: str | None,
    version: str | None,
    jobs: int | None,
    content: Path,
    as_json: bool,
) -> None:
    """Find a llama-server that computes with an API, or build one from source.

    Whether it does is what its own list of devices says. A build takes some minutes, with CUDA
    longer, and is kept in the cache. From then on tokrig run takes it where no engine is named.
    """
    from tokrig import builds
    from tokrig.cli import live, present

    steps = live.Status(sys.stderr)
    try:
        with live.signals_interrupt():
            found = builds.add(
                api,
                program=program,
                version=version or builds.VERSION,
                jobs=jobs,
                tell=steps.tell,
            )
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted: nothing was kept of the build",
            hint=f"begin again with: tokrig engine add {name} --api {api}",
        ) from None
    finally:
        steps.end()
    if as_json:
        present.print_json(asdict(found))
    else:
        click.echo(_words(found))
        click.echo("measure with it: tokrig run", err=True)


@command.command("show", epilog=example("tokrig engine show --json"))
@content_and_json
def show(content: Path, as_json: bool) -> None:
    """Show the engine that tokrig run takes where none is named."""
    from tokrig import engines
    from tokrig.cli import present

    found = engines.added()
    if as_json:
        present.print_json(asdict(found) if found else None)
    elif found:
        click.echo(_words(found))
    else:
        click.echo("none was added: tokrig run takes the embedded engine", err=True)


@command.command("remove", epilog=example("tokrig engine remove"))
@click.option("--builds", "builds_too", is_flag=True, help="Delete what was built, too.")
@content_and_json
def remove(builds_too: bool, content: Path, as_json: bool) -> None:
    """Take the embedded engine again where none is named."""
    import shutil

    from tokrig import engines
    from tokrig.cli import present

    was = engines.forget()
    if builds_too:
        for built in engines.folder().glob("llama-cpp-*"):
            shutil.rmtree(built, ignore_errors=True)
    if as_json:
        present.print_json(asdict(was) if was else None)
    else:
        click.echo(f"no longer taken: {_words(was)}" if was else "none was added", err=True)


def _words(found: Added) -> str:
    """``llama.cpp b11434 (vulkan), Vulkan0: NVIDIA GeForce RTX 5070, /usr/bin/llama-server``."""
    words = " ".join(filter(None, ("llama.cpp", found.build, f"({found.api})")))
    return ", ".join(filter(None, (words, found.device, found.program)))
