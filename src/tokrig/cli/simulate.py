"""``tokrig simulate``: a server whose figures are chosen, to try clients on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from tokrig.cli import present
from tokrig.cli.options import F, Word, content_and_json, example
from tokrig.simulate.simulation import Simulation, load
from tokrig.units import human_rate

if TYPE_CHECKING:
    from tokrig.simulate.report import Report

# By how a field's name ends; N otherwise.
METAVARS = {
    "_per_s": "RATE",
    "_s": "SECONDS",
    "_bytes": "BYTES",
    "model": "NAME",
    **dict.fromkeys(("_share", "jitter", "ramp", "reasoning"), "SHARE"),
}


def option_of(name: str) -> str:
    """``ttft_s`` is ``--ttft``."""
    rate = name.endswith("_per_s")
    return "--" + (name if rate else name.removesuffix("_s")).replace("_", "-")


NAMES = {name: option_of(name) for name in Simulation.model_fields}


def recipe_options(command: F) -> F:
    """An option for each field of a Simulation; what is not given stays out."""
    for name, field in reversed(Simulation.model_fields.items()):
        default = "" if field.default in (None, 0) else f"  [default: {field.default}]"
        words = [w for w in get_args(field.annotation) if isinstance(w, str)]
        kind: dict[str, Any] = {"type": Word(words)} if words else {}
        if field.annotation is bool:
            kind = {"is_flag": True, "flag_value": True, "default": None}
        elif not words:
            kind = {"metavar": next((m for end, m in METAVARS.items() if name.endswith(end)), "N")}
        text = f"{field.description}{default}"
        command = click.option(NAMES[name], name, help=text, **kind)(command)
    return command


@click.command(
    "simulate",
    epilog=example(
        "tokrig simulate --port 8123 --ttft 0.2 --itl 0.01",
        "tokrig simulate --slots 4 --cache slot --prefill-tok-per-s 2000 --timings",
        "tokrig simulate recipe.yaml --log stamps.jsonl",
    ),
)
@click.argument("recipe", type=click.Path(path_type=Path), required=False, metavar="[RECIPE.yaml]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8123,
    show_default=True,
    help="0 takes a free one.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where to listen; another address than loopback serves other machines too.",
)
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write when each token was due and sent, a line of JSON a request.",
)
@recipe_options
@content_and_json
def command(
    recipe: Path | None,
    port: int,
    host: str,
    log: Path | None,
    content: Path,
    as_json: bool,
    **asked: Any,
) -> None:
    """Serve simulated answers of a chosen pace, to try clients on.

    An OpenAI-compatible server without a model: the same seed and the same order of requests give
    the same answers at the same times. RECIPE.yaml has the options' names with _ for -, and ttft_s,
    itl_s, stall_s, burst_s for the seconds; options win. Ctrl-C ends it and prints how exact it
    was; GET /simulation tells that meanwhile.
    """
    from tokrig.simulate.server import Server

    given = {name: value for name, value in asked.items() if value is not None}
    made = load(recipe, given, NAMES)
    server = Server(made, host, port, log)
    with _interrupts() as stop:
        shown = f"[{server.address[0]}]" if ":" in server.address[0] else server.address[0]
        url = f"http://{shown}:{server.address[1]}"
        if as_json:
            click.echo(json.dumps({"url": url, "simulation": made.model_dump()}))
        else:
            click.echo(url)
            click.echo("Ctrl-C ends it", err=True)
        report = server.serve(stop)
    if as_json:
        click.echo(json.dumps({"report": vars(report)}))
    else:
        present.print_pairs(present.console(), _rows(report))


@contextlib.contextmanager
def _interrupts() -> Iterator[int]:
    """A descriptor that becomes readable with the first SIGINT or SIGTERM."""
    read, write = os.pipe()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(n, lambda *_: os.write(write, b"x") and None) for n in numbers]
    try:
        yield read
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        os.close(read)
        os.close(write)


def _rows(report: Report) -> list[tuple[str, str]]:
    counts = ", ".join(f"{count:,} {name}" for name, count in report.outcomes.items())
    rows = [("Requests", f"{report.requests:,}" + (f": {counts}" if counts else ""))]
    if report.late_s:
        late = ", ".join(f"{name} {s * 1e3:.3f} ms" for name, s in report.late_s.items())
        rows += [
            ("Tokens", f"{report.tokens:,}, {human_rate(report.tok_per_s)} a second"),
            ("Sent late by", late),
            ("Held up", f"{report.held_up:,} of {report.sends:,} sends, by slow readers"),
            ("CPU", f"{report.cpu_s / max(report.tokens, 1) * 1e6:.1f} µs a token"),
        ]
    return rows
