"""``tokrig rig``: this machine as a record tells it. ``tokrig instrument``: how exact the measuring
client is on it, and what it costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokrig.cli import present
from tokrig.cli.options import Word, content_and_json, example

if TYPE_CHECKING:
    from tokrig.bandwidth import Bandwidth
    from tokrig.run.instrument import InstrumentReport, Spread


@click.command("rig", epilog=example("tokrig rig", "tokrig rig --bandwidth --json"))
@click.argument("action", type=Word(["probe"]), default="probe", metavar="[probe]")
@click.option(
    "--bandwidth", is_flag=True, help="Measure the memory bandwidth too (some seconds, all cores)."
)
@content_and_json
def command(action: str, bandwidth: bool, content: Path, as_json: bool) -> None:
    """Show what this machine is, as a record tells it.

    A dash stands for what cannot be read here; nothing is guessed. Nothing personal is read.
    """
    from tokrig.rig import probe_rig, summary_rows

    rig = probe_rig()
    measured = _measured() if bandwidth else None
    if as_json:
        data = rig.model_dump(mode="json")
        found = dataclasses.asdict(measured) if measured else None
        present.print_json({"rig": data, "memory_bandwidth": found})
        return
    rows = summary_rows(rig)
    if measured:
        rows.append(("Memory bandwidth", _bandwidth(measured)))
    present.print_pairs(present.console(), rows)


def _measured() -> Bandwidth:
    from tokrig.bandwidth import measure_memory_bandwidth

    click.echo("measuring memory bandwidth …", err=True)
    return measure_memory_bandwidth()


def _bandwidth(found: Bandwidth) -> str:
    from tokrig.units import human_bytes

    text = (
        f"{found.gb_per_s:.1f} GB/s read by {found.threads} threads over "
        f"{human_bytes(found.bytes)}, best of {found.repeats}"
    )
    if found.cache_bound:
        text += "; may be the cache's: too little memory was free"
    if found.other_cpu_share and found.other_cpu_share > 0.05:
        text += f"; low: other programs took {found.other_cpu_share:.0%} of the processor"
    return text


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
def instrument(streams: int, tokens: int, interval_s: float, content: Path, as_json: bool) -> None:
    """Measure the measuring client itself against a known server.

    A second process sends tokens that carry the time of their sending; the error of a stamp is
    the client's stamp minus that time, the kernel's share included.
    """
    from tokrig.run.instrument import measure

    click.echo(f"receiving {tokens} tokens on each of {streams} streams …", err=True)
    report = measure(streams, tokens, interval_s)
    if as_json:
        cost = {"client_us_per_token": report.client_us_per_token}
        present.print_json({**dataclasses.asdict(report), **cost})
    else:
        present.print_pairs(present.console(), _rows(report))


def _rows(report: InstrumentReport) -> list[tuple[str, str]]:
    """The report for people."""
    asked = report.streams / report.interval_s
    return [
        (
            "Load",
            f"{report.streams} streams, {report.tokens} tokens each, one every "
            f"{report.interval_s * 1e3:g} ms",
        ),
        ("Reached", f"{report.tok_per_s:,.0f} of {asked:,.0f} tokens a second"),
        ("Error of a stamp", _percentiles(report.error_s)),
        ("Server late by", _percentiles(report.server_late_s)),
        ("Sharing a read", f"{report.coalesced_share:.2%} of the tokens"),
        (
            "Cost per token",
            f"{report.client_us_per_token:.1f} µs "
            f"({report.receive_us_per_token:.1f} while measuring, "
            f"{report.decode_us_per_token:.1f} decoding afterwards)",
        ),
        ("Client CPU", f"{report.client_cpu_share:.1%} of one core while measuring"),
    ]


def _percentiles(spread: Spread) -> str:
    known = [("p50", spread.p50), ("p95", spread.p95), ("p99", spread.p99), ("max", spread.max)]
    return ", ".join(f"{name} {value * 1e3:.3f} ms" for name, value in known if value is not None)
