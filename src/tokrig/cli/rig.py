"""``tokrig rig``: this machine as a record tells it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokrig.cli.options import Word, content_and_json, example

if TYPE_CHECKING:
    from tokrig.bandwidth import Bandwidth


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
    from tokrig.cli import present
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
        rows.append(("Memory bandwidth", _text(measured)))
    present.print_pairs(present.console(), rows)


def _measured() -> Bandwidth:
    from tokrig.bandwidth import measure_memory_bandwidth

    click.echo("measuring memory bandwidth …", err=True)
    return measure_memory_bandwidth()


def _text(found: Bandwidth) -> str:
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
