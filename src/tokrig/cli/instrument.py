"""``tokrig instrument``: how exact the measuring client is here, and up to which rate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokrig.cli import present
from tokrig.cli.options import content_and_json, even_if_busy, example
from tokrig.units import human_rate

if TYPE_CHECKING:
    from rich.table import Table

    from tokrig.run.ceiling import Ceiling
    from tokrig.run.instrument import InstrumentReport, Load, Reach


def numbers(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> list[float]:
    """Comma separated numbers above 0."""
    try:
        found = [float(word) for text in given for word in text.split(",")]
    except ValueError:
        raise click.BadParameter("give numbers, such as 1,16,64") from None
    if not all(0 < number < 1e6 for number in found):
        raise click.BadParameter("each has to be above 0")
    return found


@click.command(
    "instrument",
    epilog=example(
        "tokrig instrument",
        "tokrig instrument --quick",
        "tokrig instrument --streams 8,256 --interval 0.01 --no-ceiling",
    ),
)
@click.option(
    "--streams",
    multiple=True,
    default=["1,16,64"],
    show_default=True,
    callback=numbers,
    metavar="N,N",
    help="Streams at once.",
)
@click.option(
    "--interval",
    "intervals_s",
    multiple=True,
    default=["0.01,0.001"],
    show_default=True,
    callback=numbers,
    metavar="SECONDS",
    help="Time between two tokens of a stream; each is measured with each --streams.",
)
@click.option("--tokens", type=int, help="Tokens a stream.  [default: what a second takes]")
@click.option("--quick", is_flag=True, help="One load, and a third of a second a rate.")
@click.option(
    "--ceiling/--no-ceiling",
    default=True,
    show_default=True,
    help="Look for the rate up to which the client is true, and keep it: runs on this"
    " machine are judged by it.",
)
@even_if_busy
@content_and_json
def command(
    streams: list[float],
    intervals_s: list[float],
    tokens: int | None,
    quick: bool,
    ceiling: bool,
    even_if_busy: bool,
    content: Path,
    as_json: bool,
) -> None:
    """Measure the measuring client itself against a known server.

    A simulated server sends tokens that carry the time of their sending. What the client makes of
    them is held against that, over several numbers of streams and rates; then the rate of all
    streams together goes up until the client is not true any more. What is found on a busy machine
    is told, and not kept.
    """
    from tokrig.run.instrument import LADDER, Load, climb

    seconds = 0.3 if quick else 1.0
    if quick:
        streams, intervals_s = streams[-1:], intervals_s[-1:]
    loads = [
        Load(round(n), interval_s, tokens)
        if tokens is not None
        else Load.lasting(round(n), interval_s, seconds)
        for interval_s in intervals_s
        for n in streams
    ]
    busy = "" if even_if_busy or not ceiling else _busy()
    reports = [*map(_measured, loads)]
    ladder = [*climb(_measured, LADDER if ceiling else (), seconds)]
    found = ladder[-1][1] if ladder else None
    busy = busy or ("" if even_if_busy or not ceiling else _busy())
    kept = None if busy or found is None else _kept(found)
    if as_json:
        present.print_json(
            {
                "loads": [report.to_json() for report in reports],
                "ladder": [report.to_json() for report, _ in ladder],
                "reached": found and vars(found),
                "ceiling": kept and vars(kept),
                "busy": busy,
            }
        )
        return
    out = present.console()
    present.put(out, _loads(reports))
    if found is not None:
        out.print()
        present.print_pairs(out, _ceiling_rows(found, busy))


def _measured(load: Load) -> InstrumentReport:
    from tokrig.run.instrument import measure

    click.echo(f"{load}: {load.tok_per_s:,.0f} tok/s …", err=True)
    return measure(load)


def _busy() -> str:
    """What loads this machine so that an engine on the processor would not be measured."""
    from tokrig.run.monitor import load

    seen = load()
    return "; ".join(seen.in_words()) if seen.matters(frozenset({"cpu"})) else ""


def _kept(found: Reach) -> Ceiling | None:
    """The rate that was found, where runs look for it."""
    from tokrig.rig import probe_rig
    from tokrig.run.ceiling import Ceiling

    if found.tok_per_s is None:
        return None
    return Ceiling(found.tok_per_s, found.at_least, probe_rig().cpu.model).keep()


def _loads(reports: list[InstrumentReport]) -> Table:
    headings = (
        *("streams", "every", "tok/s", "stamp p50", "stamp p99"),
        *("TTFT p50", "ICL p99", "TPOT", "CPU"),
    )
    table = present.plain_table(*headings, right=headings)
    for r in reports:
        p99 = r.icl_error_s.get("p99")
        table.add_row(
            str(r.streams),
            f"{r.interval_s * 1e3:g} ms",
            human_rate(r.tok_per_s),
            _ms(r.error_s.p50),
            _ms(r.error_s.p99),
            _ms(r.ttft_error_s.p50),
            _ms(p99),
            f"{r.tpot_off:.2%}",
            f"{r.client_us_per_token:.1f} µs",
        )
    return table


def _ceiling_rows(found: Reach, busy: str) -> list[tuple[str, str]]:
    kept = "runs here beyond half of it are client_bound"
    if busy:
        kept = f"no, unless --even-if-busy: {busy}"
    if found.tok_per_s is None:
        rate, kept = "at no rate", "no" if not busy else kept
    else:
        rate = f"up to {'at least ' * found.at_least}{found.tok_per_s:,.0f} tokens a second"
    return [("Client true", rate), ("Ended by", found.limit), ("Kept", kept)]


def _ms(seconds: float | None) -> str:
    return present.NULL if seconds is None else f"{seconds * 1e3:.3f} ms"
