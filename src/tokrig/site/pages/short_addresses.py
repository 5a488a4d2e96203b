"""Short addresses of runs, which stay: ``r/k3v7q2ma.html`` leads to the run, wherever it is now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from tokrig.errors import InputError
from tokrig.site import Output, sharing
from tokrig.site.context import Site, key_of
from tokrig.store.load import Run

RUNS, PAGE_ENDS = "runs/", ".html"


def outputs(site: Site) -> Iterable[Output]:
    """A page a run that is or was: content/redirects.yaml tells where those are that moved."""
    runs = {run.id: run for run in site.runs}
    for address, run_id in addresses([*runs, *moved(site.redirects)]).items():
        run, target = runs.get(run_id), f"{RUNS}{run_id}{PAGE_ENDS}"
        key = key_of(run.digest if run else None, target)
        yield Output(address, key, partial(_page, site, address, target, run))


def moved(redirects: Mapping[str, str]) -> list[str]:
    """The ids of runs whose pages lead elsewhere."""
    return [
        old.removeprefix(RUNS).removesuffix(PAGE_ENDS)
        for old in redirects
        if old.startswith(RUNS) and old.endswith(PAGE_ENDS)
    ]


def addresses(run_ids: Iterable[str]) -> dict[str, str]:
    """Run ids by their short addresses. Raises InputError where two would share one: either would
    lead somewhere else than it once did."""
    found: dict[str, str] = {}
    for run_id in run_ids:
        address = sharing.short_address(run_id)
        other = found.setdefault(address, run_id)
        if other != run_id:
            raise InputError(
                f"the runs {other} and {run_id} would have the same short address {address}",
                hint="give the one that is not published yet another id: its file's name and 'id'",
            )
    return found


def _page(site: Site, address: str, target: str, run: Run | None) -> bytes:
    title = sharing.name(run.record) if run else "A run that has moved"
    card = sharing.of_run(site, run) if run else None
    return site.page(
        address, "redirect.html", title=title, target=target, card=card, about="This run is at"
    )


PAGE = outputs
