"""``tokrig instrument``: how exact the measuring client is on this machine, and what it costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokrig.cli.options import content_and_json, example

if TYPE_CHECKING:
    from tokrig.run.instrument import InstrumentReport, Spread


@click.command("instrument", epilog=example("tokrig instrument --streams 8 --interval 0.01"))
@click.option("--streams", type=int, default=64, show_default=True, help="Streams at once.")
@click.option("--tokens", type=int, default=1000, show_default=True, help="Tokens a stream.")
@click.option(
    "--interval",
    "interval_s",
    type=float,
    default=0.001,
    show_default=True,
    metavar="SECONDS",
    help="Time between two tokens of a stream.",
)
@content_and_json
def command(streams: int, tokens: int, interval_s: float, content: Path, as_json: bool) -> None:
    """Measure the measuring client itself against a known server.

    A second process sends tokens that carry the time of their sending; the error of a stamp is
    the client's stamp minus that time, the kernel's share included.
    """
    from tokrig.cli import present
    from tokrig.run.instrument import measure

    click.echo(f"receiving {tokens} tokens on each of {streams} streams …", err=True)
    report = measure(streams, tokens, interval_s)
    if as_json:
        cost = {"client_us_per_token": report.client_us_per_token}
        present.print_json({**dataclasses.asdict(report), **cost})
    else:
        present.print_pairs(present.console(), rows(report))


def rows(report: InstrumentReport) -> list[tuple[str, str]]:
    """The report for people."""
    asked = report.streams / report.interval_s
    return [
        (
            "Load",
            f"{report.streams} streams, {report.tokens} tokens each, one every "
            f"{report.interval_s * 1e3:g} ms",
        ),
        ("Reached", f"{report.tok_per_s:,.0f} of {asked:,.0f} tokens a second"),
        ("Error of a stamp", _spread(report.error_s)),
        ("Server late by", _spread(report.server_late_s)),
        ("Sharing a read", f"{report.coalesced_share:.2%} of the tokens"),
        (
            "Cost per token",
            f"{report.client_us_per_token:.1f} µs "
            f"({report.receive_us_per_token:.1f} while measuring, "
            f"{report.decode_us_per_token:.1f} decoding afterwards)",
        ),
        ("Client CPU", f"{report.client_cpu_share:.1%} of one core while measuring"),
    ]


def _spread(spread: Spread) -> str:
    known = [("p50", spread.p50), ("p95", spread.p95), ("p99", spread.p99), ("max", spread.max)]
    return ", ".join(f"{name} {value * 1e3:.3f} ms" for name, value in known if value is not None)
