"""The compare page, the rules that it and its kin go by, and of each run what it needs for a
comparison, loaded when it is picked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial

from tokrig import naming
from tokrig.compare import rules, subject
from tokrig.compare.kin import noise_of, tells_noise
from tokrig.site import Output, sharing
from tokrig.site.context import Site, definitions, key_of, script
from tokrig.store.load import Run


def outputs(site: Site) -> Iterable[Output]:
    """``compare.html``, ``assets/rules.js`` and ``runs/<id>.js``."""
    handed = rules()
    names = [metric["name"] for metric in handed["metrics"]]
    handed["labels"] = {name: definitions()[name].label for name in names}
    telling = [run for run in site.runs if tells_noise(run.record)]

    def rules_script() -> bytes:
        # By rig and not with each run: a new record changes it for all of them.
        return script("rules", handed | {"noise": noise_of(run.record for run in telling)})

    def page() -> bytes:
        return site.page("compare.html", "compare.html", title="Compare", rules=handed)

    yield Output("compare.html", key_of(handed, site.measured), page)
    yield Output("assets/rules.js", key_of(handed, [run.digest for run in telling]), rules_script)
    for run in site.runs:
        yield Output(f"runs/{run.id}.js", run.digest, partial(run_script, run))


def run_script(run: Run) -> bytes:
    """One call with the run's ``Subject`` and what is given away of it: a page opened from a disk
    can load no JSON.

    Plain ASCII, and no ``<`` that could end the script.
    """
    record, address = run.record, naming.model_address(run.record.model)
    newest = {
        "path": f"badges/models/{address}/{record.rig.id}.svg",
        "text": f"tokrig: {naming.model_name(record.model)} on {naming.hardware_name(record.rig)}",
        "link": f"models/{address}.html",
    }
    shared = {
        "link": sharing.short_address(run.id),
        "title": sharing.name(record),
        "newest": newest,
    }
    data = subject(record).as_dict() | shared | {"lines": sharing.lines(record)}
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    safe = text.replace("<", "\\u003c")
    return f"tokrig.run({safe});\n".encode("ascii")


PAGE = outputs
