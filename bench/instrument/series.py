"""What was measured together, kept so that an interruption costs nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.instrument.loads import HERE, Load
from bench.instrument.peers import Peer
from bench.instrument.report import Facts
from bench.processes import Failed


@dataclass(frozen=True)
class Series:
    """What was measured together, a file a run. An interrupted one of the same tools, loads and
    programs is gone on with; a finished one is no part of the next."""

    folder: Path

    @property
    def about(self) -> Path:
        return self.folder / "series.json"

    def path(self, load: str, repeat: int, tool: str) -> Path:
        return self.folder / f"{load}-{repeat}-{tool}.json"

    def begin(self, key: str, facts: Facts, *, fresh: bool) -> None:
        with suppress(OSError, ValueError, LookupError):
            about = json.loads(self.about.read_text("utf-8"))
            if about["key"] == key and not about["finished"] and not fresh:
                return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.write({"key": key, "finished": False, "facts": asdict(facts)})

    def finish(self) -> None:
        self.write(json.loads(self.about.read_text("utf-8")) | {"finished": True})

    def write(self, about: dict[str, Any]) -> None:
        self.about.write_text(json.dumps(about), "utf-8")

    def facts(self) -> Facts:
        try:
            return Facts(**json.loads(self.about.read_text("utf-8"))["facts"])
        except (OSError, ValueError, LookupError, TypeError):
            raise Failed(f"nothing has been measured yet: no {self.about}") from None

    def found(self, peers: list[Peer], loads: list[Load]) -> list[dict[str, Any]]:
        """The runs of these tools and loads, in the order that they were measured in."""
        return [
            json.loads(path.read_text("utf-8"))
            for load in loads
            for repeat in range(len(list(self.folder.glob("*.json"))))
            for peer in peers
            if (path := self.path(load.name, repeat, peer.name)).exists()
        ]


def digest(words: list[str], folder: Path = HERE) -> str:
    """What a series is of: tools, loads, processors, the start of the machine, and the programs
    that measure."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    paths = [path for path in folder.rglob("*") if path.suffix in (".c", ".py")]
    paths = [path for path in paths if path.name != "report.py"]
    paths += [HERE.parent / "processes.py", *(HERE.parent.parent / "src").rglob("*.py")]
    sources = b"".join(path.read_bytes() for path in sorted(paths))
    return hashlib.sha256("".join([*words, boot]).encode() + sources).hexdigest()[:16]
