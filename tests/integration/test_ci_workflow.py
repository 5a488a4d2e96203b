"""The workflow of docs/ci.md: its steps run as they stand, on two builds of a simulated engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.cli import FAKE, Home

DOCS = Path(__file__).parents[2] / "docs"
WORKFLOW = DOCS / "workflows" / "engine-regression.yml"
SPECS, MEASURE = "Say what is measured", "Measure both and judge"


def workflow() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    return found


def steps() -> dict[str, str]:
    """The scripts by the names of their steps."""
    return {
        step.get("name", ""): step.get("run", "") for step in workflow()["jobs"]["compare"]["steps"]
    }


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Two builds of the engine; the one after takes three times as long. tokrig is on the PATH."""
    for side, pace_s, build in (("before", 0.001, "b9998"), ("after", 0.003, "b9999")):
        binary = tmp_path / side / "build" / "bin" / "llama-server"
        binary.parent.mkdir(parents=True)
        text = FAKE.read_text(encoding="utf-8").replace("TOKEN_S = 0.002", f"TOKEN_S = {pace_s}")
        text = text.replace("b9999-fake", f"{build}-fake")
        binary.write_text(f"#!{sys.executable}\n" + text.partition("\n")[2], encoding="utf-8")
        binary.chmod(0o755)
    program = tmp_path / "bin" / "tokrig"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tokrig "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return Home(tmp_path)


def run(home: Home, script: str) -> subprocess.CompletedProcess[str]:
    """As a runner does with ``shell: bash``."""
    environment = home.environment(
        {
            "PATH": f"{home.root / 'bin'}:{os.environ['PATH']}",
            "GITHUB_STEP_SUMMARY": str(home.root / "summary.md"),
            "TOKRIG_EVEN_IF_BUSY": "1",
        }
    )
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=home.root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.mark.alone
def test_a_slower_build_fails_and_the_report_says_so(home: Home) -> None:
    assert run(home, steps()[SPECS]).returncode == 0
    spec = yaml.safe_load((home.root / "after.yaml").read_text())
    assert spec["server_bin"] == "after/build/bin/llama-server"
    for side in ("before", "after"):
        path = home.root / f"{side}.yaml"
        path.write_text(path.read_text().replace("[chat, rag]", "[chat]"))
    script = steps()[MEASURE].replace("--starts 8", "--starts 6")
    done = run(home, script)
    assert done.returncode == 1, done.stderr[-3000:]
    report = (home.root / "report.md").read_text(encoding="utf-8")
    assert report.startswith("### tokrig compare: FAIL\n")
    assert "chat × 1 | gen tok/s" in report and "A/A control: A differs from itself" in report
    assert (home.root / "summary.md").read_text(encoding="utf-8") == report
    assert (home.root / "ratios.svg").read_text(encoding="utf-8").startswith("<svg")
    assert len(home.records()) >= 18 and home.no_engines_left()


def test_a_spec_that_is_wrong_fails_the_step_before_anything_starts(home: Home) -> None:
    assert run(home, steps()[SPECS]).returncode == 0
    with (home.root / "after.yaml").open("a") as file:
        file.write("conccurency: [4]\n")
    done = run(home, steps()[MEASURE])
    assert done.returncode == 2
    assert "after.yaml:6" in done.stderr and "did you mean 'concurrency'" in done.stderr
    assert home.records() == []


def test_a_failure_is_not_lost_behind_a_pipe() -> None:
    assert workflow()["defaults"]["run"]["shell"] == "bash"


def test_the_page_names_the_command_of_the_workflow() -> None:
    page = (DOCS / "ci.md").read_text(encoding="utf-8")
    words = steps()[MEASURE].split()
    assert "tokrig compare --measure before.yaml after.yaml --fail-on gen=5%,ttft=10%" in page
    assert words[words.index("--fail-on") + 1] == "gen=5%,ttft=10%"
