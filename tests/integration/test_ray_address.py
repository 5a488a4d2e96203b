"""Addresses at which no Ray cluster answers, or somebody else does."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest

from tokrig import cluster
from tokrig.campaign.ray_executor import RayExecutor
from tokrig.errors import InputError


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:9", "no Ray cluster answers at 127.0.0.1:9: Connection refused"),
        ("somewhere", "'somewhere' is no address of a Ray cluster"),
        ("ray.invalid:6379", "no Ray cluster answers at ray.invalid:6379"),
    ],
)
def test_nobody_at_the_address(tmp_path: Path, address: str, says: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        RayExecutor(address, tmp_path)
    assert says in caught.value.message
    assert caught.value.hint
    assert time.monotonic() - began < cluster.ANSWER_S + 60


def test_somebody_else_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 5.0)
    this = psutil.Process(os.getpid())
    before = (threading.active_count(), this.children())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match="no Ray cluster"):
            RayExecutor(address, tmp_path)
    assert (threading.active_count(), this.children()) == before, "something was left behind"
