"""Parts are found by their files, or by the entry points of other packages."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from tokrig import registry
from tokrig.errors import InputError


def test_the_folders_are_listed_without_shared_code() -> None:
    assert registry.names("workloads") == ["agent", "chat", "codegen", "rag", "session"]
    assert {"embedded", "llamacpp", "openai"} <= set(registry.names("backends"))
    assert not [name for name in registry.names("backends") if name.startswith("_")]


def test_an_unknown_part_names_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown workload 'chatt'") as caught:
        registry.load("workloads", "chatt", "WORKLOAD")
    assert "did you mean 'chat'?" in caught.value.hint


def test_every_part_is_what_its_name_says() -> None:
    for package, constant in (
        ("backends", "BACKEND"),
        ("workloads", "WORKLOAD"),
        ("probes", "PROBE"),
    ):
        for name in registry.names(package):
            assert registry.load(package, name, constant).name == name


def test_a_part_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("another_package")
    module.BACKEND = part = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "another_package", module)
    entry = EntryPoint("another", "another_package:BACKEND", "tokrig.backends")
    monkeypatch.setattr(registry, "added", {"backends": {"another": entry}}.get)
    assert "another" in registry.names("backends")
    assert registry.load("backends", "another", "BACKEND") is part
