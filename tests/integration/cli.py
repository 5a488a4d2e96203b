"""Runs the real command line in a process of its own, with its own content, state and cache."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from click.testing import CliRunner

from tokrig.cli.main import main

FAKE = Path(__file__).with_name("fake_llama_server.py")
TIMEOUT_S = 600


LOAD = {"foreign_cpu_load", "client_bound", "clock_mismatch", "coarse_stream"}
"""What the other tests on the same processors do to a run."""


def is_sound(validity: Mapping[str, Any]) -> bool:
    """Whether nothing speaks against a result, or only that other tests ran beside it."""
    found = {*validity.get("reasons", []), *validity.get("unverified", [])}
    return found <= LOAD


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Home:
    """Folders of one test."""

    root: Path

    @property
    def content(self) -> Path:
        return self.root / "content"

    @property
    def state(self) -> Path:
        return self.root / "state"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            **os.environ,
            "TOKRIG_CONTENT": str(self.content),
            "TOKRIG_STATE": str(self.state),
            "COLUMNS": "120",
            **(extra or {}),
        }

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tokrig", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(env),
            cwd=self.root,
        )

    def tokrig(
        self, *words: str, env: Mapping[str, str] | None = None, within_s: float = TIMEOUT_S
    ) -> Done:
        process = self.start(*words, env=env)
        try:
            out, err = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return Done(process.returncode, out, err)

    def in_process(self, *words: str, env: Mapping[str, str] | None = None) -> Done:
        """The same command line without a process of its own, which takes seconds to import what
        is here already: nothing can be sent to it."""
        # All that the tests hold is not its garbage: looking through it would be a stall in a run.
        gc.freeze()
        try:
            done = CliRunner(env=self.environment(env)).invoke(main, words)
        finally:
            gc.unfreeze()
        return Done(done.exit_code, done.stdout, done.stderr)

    def checks(self) -> bool:
        """Whether ``tokrig check`` finds nothing, asked in this process."""
        return self.in_process("check").code == 0

    def records(self) -> list[dict[str, Any]]:
        return [yaml.safe_load(path.read_text()) for path in self.record_paths()]

    def record_paths(self) -> list[Path]:
        return sorted((self.content / "benchmarks" / "runs").glob("*/*.yaml"))

    def files(self) -> list[str]:
        """Everything in the content folder, temporary files included."""
        return sorted(
            str(p.relative_to(self.content)) for p in self.content.rglob("*") if p.is_file()
        )

    def unfinished(self) -> list[str]:
        return sorted(p.name for p in (self.state / "runs").glob("*"))

    def engines(self) -> list[psutil.Process]:
        """Engine and guard processes of this test that are alive; they inherit its folders."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if any(word in line for word in ("fake_llama", "backends.embedded", "guard.py")):
                with contextlib.suppress(psutil.Error):
                    if process.environ().get("TOKRIG_STATE") == str(self.state):
                        found.append(process)
        return found

    def no_engines_left(self, within_s: float = 60) -> bool:
        deadline = time.monotonic() + within_s
        while self.engines():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def wait_for_cells(self, count: int, within_s: float = 300) -> None:
        """Until the unfinished run holds ``count`` finished cells."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for path in (self.state / "runs").glob("*/cells.jsonl"):
                if path.read_bytes().count(b"\n") >= count:
                    return
            time.sleep(0.02)
        raise AssertionError(f"no {count} finished cells within {within_s} s")


def faulty(fault: str = "", *words: str) -> Sequence[str]:
    """A short run on the fake server."""
    option = ["--option", f"fault={fault}"] if fault else []
    return [
        "run",
        *("--backend", "llamacpp", "--server-bin", str(FAKE)),
        *("--model", "smollm2-135m", "--workload", "chat"),
        *option,
        *words,
    ]
