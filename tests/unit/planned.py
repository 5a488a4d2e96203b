"""Campaigns and plans made by hand."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokrig.plan import Past, Plan, PlanInputs, Run, Shape
from tokrig.plan.order import plan
from tokrig.spec.campaign import CampaignFile, load_campaign

GIB = 1024**3
NEEDS = {"chat": 773, "rag": 4393}
SHAPES = {"chat": Shape(512, 256), "rag": Shape(4096, 256, (1, 4))}
MATRIX = {"model": "a.gguf", "backend": "embedded"}


def one(name: str = "e", **keys: Any) -> dict[str, Any]:
    """An entry of one run, with ``keys`` changed."""
    return {"name": name, "title": name.title(), "matrix": MATRIX, **keys}


def loaded(*entries: dict[str, Any], name: str = "queue", **keys: Any) -> CampaignFile:
    """A campaign of these entries, as it is read from a file."""
    data = {"title": "T", "rig": "desktop", "entries": list(entries), **keys}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(json.dumps(data, indent=1), encoding="utf-8")
        return load_campaign(path)


def made(*files: CampaignFile, known: PlanInputs | None = None, **keys: Any) -> Plan:
    """The plan of ``files`` on the machine ``desktop``."""
    catalog = ["gemma-3-270m", "smollm2-135m"]
    given = {"here": "desktop", "catalog": catalog, "own_models": ["ollama"], "needs": NEEDS}
    return plan(files, replace(known or PlanInputs(), **{**given, **keys}))


def past(run: Run, record: str = "r1", **keys: Any) -> Past:
    """A complete valid record of ``run``, with ``keys`` changed."""
    facts: dict[str, Any] = {
        "id": record,
        "planned": run.key,
        "status": "complete",
        "verdict": "valid",
        "failure": None,
        "rig": run.rig,
        "level": run.level,
        "results": 1,
        "started_at": "2026-11-22T12:00:00+00:00",
        "duration_s": 60.0,
        "model_bytes": 10**9,
        "backend": run.backend,
    }
    return Past(**{**facts, **keys})
