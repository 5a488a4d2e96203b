"""A small real campaign survives being killed."""

from __future__ import annotations

import random
from pathlib import Path

from tests.engines import real_campaign
from tests.engines.conftest import PATIENT
from tests.integration.cli import Home


def test_a_killed_campaign_ends_with_exactly_the_planned_records(
    home: Home, cpu_build: Path, tmp_path: Path
) -> None:
    """Two quants made on demand, two engines, killed at random moments."""
    env = {**PATIENT, **real_campaign.environment(cpu_build, tmp_path / "cache")}
    source = real_campaign.higher_precision(cpu_build, tmp_path)
    campaign = real_campaign.write_campaign(tmp_path, source, cpu_build, ["Q8_0", "Q4_0"], ["chat"])
    chance = random.Random()
    kills = [round(chance.uniform(3, 15), 1) for _ in range(3)]
    print(f"killed after {kills} s")
    found = real_campaign.killed_on_the_way(home, campaign, env, kills)
    assert real_campaign.require_exactly_the_planned(home, campaign, env) == 4
    made = {
        (record["model"]["quant"], record["model"]["quantized_from"]["quant"])
        for record in home.records()
    }
    assert made == {("Q8_0", "F16"), ("Q4_0", "F16")}
    assert found.summary["failed"] == []
