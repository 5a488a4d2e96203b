"""The charts that one record and its samples have, by name."""

from __future__ import annotations

from collections.abc import Sequence

from tokrig.query.load import Run
from tokrig.record.samples import Sample
from tokrig.site.charts import Figure
from tokrig.site.charts.latency import prefill_by_workload, ttft_by_workload
from tokrig.site.charts.samples import inter_chunk_times, ttft_of_requests
from tokrig.site.charts.speed import (
    concurrency_drop,
    decode_by_workload,
    end_to_end_by_workload,
)

_OF_RESULTS = (
    decode_by_workload,
    ttft_by_workload,
    prefill_by_workload,
    end_to_end_by_workload,
    concurrency_drop,
)


def of_record(run: Run, samples: Sequence[Sample]) -> dict[str, Figure]:
    """Figures by slug, the most telling first."""
    drawn = [draw([run]) for draw in _OF_RESULTS]
    drawn += [inter_chunk_times(samples), ttft_of_requests(samples)]
    return {figure.slug: figure for figure in drawn if figure is not None}
