"""Nothing private leaves the machine."""

from __future__ import annotations

import pytest

from tokrig.run.assemble import scrub, scrub_argv


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/home/anna/models/gemma.gguf", "gemma.gguf"),
        ("~/models/gemma.gguf", "gemma.gguf"),
        (r"C:\Users\Anna\gemma.gguf", "gemma.gguf"),
        ("loading '/mnt/data/x y/m.gguf'", "loading 'm.gguf'"),
        ("listening on 192.168.1.20:8080", "listening on [address]:8080"),
        ("listening on 127.0.0.1:8080", "listening on 127.0.0.1:8080"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [key]"),
        ("key sk-abcdefghijklmnop123", "key [key]"),
        ("hf_ABCDEFGHIJKLMNOP1234", "[key]"),
        ("3 tokens / s and 1/2 done", "3 tokens / s and 1/2 done"),
        ("12.5 tok/s", "12.5 tok/s"),
    ],
)
def test_scrub(text: str, clean: str) -> None:
    assert "anna" not in scrub(text).lower()
    assert scrub(text) == clean


def test_user_and_machine_names_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokrig.run.assemble._names", lambda: ("annabel", "workstation7"))
    assert scrub("annabel@workstation7: failed") == "[private]@[private]: failed"


def test_a_command_line_keeps_its_flags_and_loses_its_places() -> None:
    argv = ["/opt/llama/llama-server", "--model", "/home/anna/m.gguf", "--api-key", "s3cret", "-c"]
    assert scrub_argv(argv) == ["llama-server", "--model", "m.gguf", "--api-key", "[key]", "-c"]
