"""Whether something else loads this machine: its figures would be another machine's."""

from __future__ import annotations

import time

import psutil

from tokrig.errors import PutOff
from tokrig.run.monitor import probes

WATCHED_S = 2.0
MOST_CORES = 0.5
"""Processor time of all other programs, in cores: a desktop at rest uses less."""


def require_quiet(seconds: float = WATCHED_S) -> None:
    """Look at the machine for some seconds. Raises PutOff (``rig_busy``) naming what is busy."""
    if reasons := busy(seconds):
        raise PutOff(
            f"something else loads this machine: {'; '.join(reasons)}",
            hint="stop it, or measure all the same with --even-if-busy: such results may be"
            " marked invalid",
            code="rig_busy",
        )


def busy(seconds: float = WATCHED_S) -> list[str]:
    """What else uses the processor or a graphics card, in words; empty on a quiet machine."""
    watch = probes()
    found = [psutil.Process()]
    others = [p for p in psutil.process_iter() if p.pid != found[0].pid]
    for process in others:
        _percent(process)
    own, began = time.process_time(), time.monotonic()
    before = psutil.cpu_times()
    time.sleep(seconds)
    wall = time.monotonic() - began
    cores = _busy_s(psutil.cpu_times()) - _busy_s(before) - (time.process_time() - own)
    cores /= wall
    reasons = []
    if cores > MOST_CORES:
        most = sorted(((_percent(p), _name(p)) for p in others), reverse=True)[:3]
        named = ", ".join(f"{name} {share:.0f} %" for share, name in most if share >= 5)
        reasons.append(f"{cores:.1f} cores are busy" + (f" ({named})" if named else ""))
    pids = {
        pid
        for probe in watch
        for pid in (probe.read().gpu_process_bytes or {})
        if pid != found[0].pid
    }
    if pids:
        many = f"{len(pids)} processes use" if len(pids) > 1 else "a process uses"
        reasons.append(f"{many} the graphics card ({', '.join(sorted(map(_name_of, pids)))})")
    return reasons


def _busy_s(times: object) -> float:
    fields = ("user", "nice", "system", "irq", "softirq", "steal")
    return float(sum(getattr(times, field, 0.0) for field in fields))


def _percent(process: psutil.Process) -> float:
    try:
        return float(process.cpu_percent())
    except psutil.Error:
        return 0.0


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return "?"


def _name_of(pid: int) -> str:
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return f"process {pid}"
