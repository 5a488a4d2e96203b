"""Planned runs and records of them, made by hand."""

from __future__ import annotations

from typing import Any

from tests.unit.compared import measured, with_value
from tokrig.plan import Plan, Planned, Run, State, Weights
from tokrig.record.model import Record
from tokrig.spec.campaign import Campaign, CampaignFile
from tokrig.store import load

RIG = "geforce-rtx-5070-12gb"


def campaign(name: str, *entries: dict[str, Any], **keys: Any) -> CampaignFile:
    """A file whose entries have these keys; each means whatever runs are planned for it."""
    whole = [
        {"title": f"The {one['name']}", "matrix": {"model": "m", "backend": "embedded"}, **one}
        for one in entries
    ]
    data = {"title": name, "rig": RIG, "entries": whole, **keys}
    return CampaignFile(name, f"campaigns/{name}.yaml", Campaign.model_validate(data), {})


def planned(
    entry: str,
    state: State = "todo",
    *,
    word: str = "gemma-4-e2b-it",
    weights: Weights | None = None,
    rig: str = RIG,
    campaign: str = "first",
    backend: str = "llamacpp",
    **said: Any,
) -> Planned:
    run = Run(
        key="0" * 16,
        campaign=campaign,
        entry=entry,
        priority=0,
        rig=rig,
        weights=weights or Weights(word, local=word),
        quant="Q4_K_M",
        creator=None,
        backend=backend,
        build=None,
        server_bin=None,
        driver=None,
        workloads=None,
        concurrency=None,
        level="standard",
    )
    return Planned(run, state, **said)


def plan(*runs: Planned, files: tuple[CampaignFile, ...] | None = None) -> Plan:
    """The runs as a plan; without ``files`` every entry named is one of the campaign ``first``."""
    entries = dict.fromkeys(one.run.entry for one in runs)
    if files is None:
        files = (campaign("first", *({"name": name} for name in entries)),) if entries else ()
    return Plan(files, runs)


def record(run_id: str, **values: Any) -> load.Run:
    """A valid record; ``values`` by dotted path, with ``__`` for the dots."""
    return as_run(changed(measured(), id=run_id, **values))


def changed(record: Record, **values: Any) -> Record:
    for path, value in values.items():
        record = with_value(record, path.replace("__", "."), value)
    return record


def as_run(record: Record) -> load.Run:
    return load.Run(record, f"{record.rig.id}/{record.id}.yaml", record.id)
