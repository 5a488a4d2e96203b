"""Records and samples as they lie in the content folder: every number leads to its file."""

from __future__ import annotations

from collections.abc import Iterable

from tokrig.site import Output
from tokrig.site.context import Site


class Raw:
    """``data/runs/<rig>/<run>.yaml`` and ``data/samples/<run>.parquet``, byte by byte."""

    name = "raw"

    def outputs(self, site: Site) -> Iterable[Output]:
        """One record a run, and its samples where there are any."""
        for run in site.runs:
            record = site.store.runs / run.path
            yield Output(f"data/runs/{run.path}", run.digest, record.read_bytes)
            if run.samples_digest:
                samples = site.store.samples_path(run.id)
                yield Output(
                    f"data/samples/{run.id}.parquet", run.samples_digest, samples.read_bytes
                )


PAGE = Raw()
