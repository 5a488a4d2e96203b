"""``tokrig engine``: which program runs take, what it must show for that, how one is built.

Listings are those of llama.cpp b11434's ``llama-server --list-devices`` on a machine with Mesa's
software Vulkan; ninja's status lines are as its manual has them ([finished/total]).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tokrig import builds, engines
from tokrig.cli import machine
from tokrig.cli.main import main
from tokrig.engines import Added
from tokrig.errors import EngineError, InputError, StoreError
from tokrig.files import locked
from tokrig.record.model import Gpu, Rig
from tokrig.run.detect import Program

LISTED = """Available devices:
  Vulkan0: NVIDIA GeForce RTX 5070 (12227 MiB, 11540 MiB free)
  CUDA0: NVIDIA GeForce RTX 5070 (11940 MiB, 11700 MiB free)
"""
NONE_LISTED = "Available devices:\n  (none)\n"
VERSION = "version: 0.6.0-dev (build 11434, commit unknown)\nbuilt with GNU 12.2.0\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokrig"


def stand_in(path: Path, script: str) -> Path:
    """A program of this Python: ``argv`` is what it is called with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable} -IS\nimport sys\nargv = sys.argv[1:]\n{script}\n", "utf-8")
    path.chmod(0o755)
    return path


def server(path: Path, listing: str = LISTED) -> Path:
    return stand_in(path, f"print({listing!r} if argv == ['--list-devices'] else {VERSION!r})")


def tokrig(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(main, words)


# Which program runs take


def test_nothing_was_added(cache: Path) -> None:
    assert engines.added() is None
    assert engines.forget() is None
    assert "the embedded engine" in tokrig("engine", "show").stderr


def test_what_was_added_comes_before_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path, own = (
        server(tmp_path / "path" / "llama-server"),
        server(tmp_path / "own" / "llama-server"),
    )
    bench = server(tmp_path / "own" / "llama-bench")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert engines.program("llama-server") == str(on_path)
    engines.note(Added("llamacpp", str(own), "vulkan"))
    assert engines.program("llama-server") == str(own)
    assert engines.program("llama-bench") == str(bench)  # of the same build
    assert engines.program(str(on_path)) == str(on_path)
    own.unlink()
    assert engines.added() is None
    assert engines.program("llama-server") == str(on_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"program": 3}', '{"a": 1}', "\x00"])
def test_a_note_that_nobody_can_read_is_none(cache: Path, text: str) -> None:
    (cache / "engines").mkdir(parents=True)
    (cache / "engines" / "added.json").write_text(text, "utf-8")
    assert engines.added() is None


def test_a_note_that_cannot_be_written(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file in the way", "utf-8")
    with pytest.raises(StoreError, match=r"added\.json"):
        engines.note(Added("llamacpp", "/bin/true", "cpu"))


def test_a_run_takes_it_where_no_engine_is_named(tmp_path: Path) -> None:
    from tokrig.cli.run import _wanted
    from tokrig.spec.run import RunSpec

    overrides = dict.fromkeys(("url", "backend", "server_bin", "api"))
    assert _wanted(None, dict(overrides)).backend == RunSpec().backend
    engines.note(Added("llamacpp", str(server(tmp_path / "llama-server")), "cuda"))
    spec = _wanted(None, dict(overrides))
    assert (spec.backend, spec.api) == ("llamacpp", "cuda")
    assert _wanted(None, {**overrides, "backend": "embedded"}).api is None
    assert _wanted(None, {**overrides, "api": "vulkan"}).api == "vulkan"


# What it must show


@pytest.mark.parametrize("api", ["vulkan", "cuda", "cpu"])
def test_a_program_is_taken_by_its_own_list(tmp_path: Path, api: str) -> None:
    path = server(tmp_path / "llama-server")
    done = tokrig("engine", "add", "llamacpp", "--api", api, "--bin", str(path), "--json")
    found = json.loads(done.stdout)
    assert found["program"] == str(path)
    assert (found["api"], found["build"]) == (api, "b11434")
    device = None if api == "cpu" else f"{api.capitalize() if api == 'vulkan' else 'CUDA'}0"
    assert (found["device"] or "").partition(":")[0] == (device or "")
    assert engines.added() == Added(**found)
    assert str(path) in tokrig("engine", "show").stdout
    assert "no longer taken" in tokrig("engine", "remove").stderr
    assert engines.added() is None


@pytest.mark.parametrize(
    ("listing", "says"),
    [
        (LISTED, "finds no rocm device: it has Vulkan0: NVIDIA GeForce RTX 5070, CUDA0"),
        (NONE_LISTED, "finds no rocm device: it has the processor alone"),
        ("error: invalid argument: --list-devices\n", "does not tell its devices"),
    ],
)
def test_one_that_cannot_do_it_is_refused(tmp_path: Path, listing: str, says: str) -> None:
    path = server(tmp_path / "llama-server", listing)
    done = tokrig("engine", "add", "llamacpp", "--api", "rocm", "--bin", str(path))
    assert done.exit_code == 2
    assert says in done.stderr
    assert engines.added() is None


def test_no_program_at_all(tmp_path: Path) -> None:
    done = tokrig("engine", "add", "llamacpp", "--api", "cpu", "--bin", str(tmp_path / "none"))
    assert done.exit_code == 2
    assert "no runnable llama-server" in done.stderr


def test_one_on_the_path_is_found_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = server(tmp_path / "llama-server")
    monkeypatch.setenv("PATH", str(tmp_path))
    told: list[str] = []
    found = builds.add("cuda", jobs=None, tell=lambda step, share: told.append(step))
    assert (found.program, told) == (str(path), [])


# Building


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """cmake, ninja and a compiler; ninja makes the programs."""
    folder = tmp_path / "tools"
    stand_in(folder / "cmake", "print('-- Configuring done')")
    stand_in(folder / "c++", "")
    made = f"""
import os
home = os.path.join(argv[argv.index('-C') + 1], 'bin')
os.makedirs(home)
text = {server(tmp_path / "pattern").read_text("utf-8")!r}
for number, name in enumerate({builds.PROGRAMS!r}):
    print(f"[{{number + 1}}/{len(builds.PROGRAMS)}] Linking bin/{{name}}", flush=True)
    with open(os.path.join(home, name), 'w') as file:
        file.write(text)
    os.chmod(file.name, 0o755)
open(os.path.join(home, 'libggml.so'), 'w').close()
open(os.path.join(home, 'test-quant'), 'w').close()
"""
    stand_in(folder / "ninja", made)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(builds, "source", lambda version, work, tell: work / "llama.cpp")
    return folder


@pytest.mark.usefixtures("tools")
def test_one_is_built_once(cache: Path) -> None:
    told: list[tuple[str, float | None]] = []
    found = builds.add("cpu", jobs=2, tell=lambda *step: told.append(step))
    home = cache / "engines" / f"llama-cpp-{builds.VERSION}" / "cpu"
    assert found.program == str(home / "llama-server")
    assert sorted(p.name for p in home.iterdir()) == sorted((*builds.PROGRAMS, "libggml.so"))
    assert ("compiling llama.cpp", 0.5) in told
    assert told[-1] == ("compiling llama.cpp", 1.0)
    left = {p.name for p in home.parent.iterdir()} | {p.name for p in (cache / "engines").iterdir()}
    assert left == {"cpu", ".lock", home.parent.name, "added.json"}
    told.clear()
    assert builds.add("cpu", jobs=None, tell=lambda *step: told.append(step)) == found
    assert told == []


@pytest.mark.usefixtures("tools")
def test_what_was_built_must_find_the_device(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds.Needs, "missing", lambda self: [])
    with pytest.raises(EngineError, match="finds no rocm device"):
        builds.add("rocm", jobs=None, tell=lambda *step: None)
    assert engines.added() is None


def test_a_build_that_fails_leaves_nothing_and_says_why(cache: Path, tools: Path) -> None:
    stand_in(tools / "ninja", "print('ggml.c:3: error: no such type'); sys.exit(1)")
    with pytest.raises(EngineError, match=r"compiling failed: exit 1") as caught:
        builds.add("cpu", jobs=None, tell=lambda *step: None)
    assert "no such type" in caught.value.log_tail
    root = cache / "engines" / f"llama-cpp-{builds.VERSION}"
    assert [p.name for p in root.iterdir()] == [".lock"]


def test_what_a_build_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(builds, "_VENDORS", ())
    with pytest.raises(InputError, match=r"cmake, ninja, c\+\+, nvcc") as caught:
        builds.add("cuda", jobs=None, tell=lambda *step: None)
    assert "ninja-build g++ nvidia-cuda-toolkit" in caught.value.hint


@pytest.mark.usefixtures("tools")
def test_one_build_at_a_time_and_only_where_there_is_room(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = cache / "engines" / f"llama-cpp-{builds.VERSION}"
    with locked(root / ".lock"), pytest.raises(InputError, match="another tokrig is building"):
        builds.add("cpu", jobs=None, tell=lambda *step: None)
    monkeypatch.setattr(builds, "ROOM_BYTES", 1 << 60)
    with pytest.raises(StoreError, match="a build takes"):
        builds.add("cpu", jobs=None, tell=lambda *step: None)


def test_sources_newer_than_the_vulkan_headers(tmp_path: Path) -> None:
    """What llama.cpp b11434 has in ggml-vulkan.cpp, shortened."""
    path = tmp_path / "ggml/src/ggml-vulkan/ggml-vulkan.cpp"
    path.parent.mkdir(parents=True)
    kept = "    before();\n    vk::InstanceCreateInfo info(vk::InstanceCreateFlags{}, &app, layers"
    path.write_text(
        "    before();\n"
        "    VkBool32 enable_best_practice = VK_TRUE;\n"
        '    std::vector<vk::LayerSettingEXT> settings = { {"VK_LAYER", "validate"} };\n'
        "    vk::LayerSettingsCreateInfoEXT layer_setting_info(settings);\n"
        "    vk::InstanceCreateInfo info(vk::InstanceCreateFlags{}, &app, layers"
        ", &layer_setting_info);\n    after();\n",
        "utf-8",
    )
    whole = path.read_text("utf-8")
    newer = tmp_path / "newer"
    (newer / "vulkan").mkdir(parents=True)
    (newer / "vulkan" / "vulkan_structs.hpp").write_text("struct LayerSettingEXT {};", "utf-8")
    builds.with_old_headers(tmp_path, newer)
    assert path.read_text("utf-8") == whole
    builds.with_old_headers(tmp_path, tmp_path / "older")
    assert path.read_text("utf-8") == kept + ");\n    after();\n"
    path.write_text(whole.replace("enable_best_practice", "enable_it"), "utf-8")
    with pytest.raises(EngineError, match="newer Vulkan headers"):
        builds.with_old_headers(tmp_path, tmp_path / "older")


# A card that nothing uses


@pytest.mark.parametrize(
    ("vendor", "tool", "api"),
    [("nvidia", "nvcc", "cuda"), ("nvidia", "", "vulkan"), ("intel", "nvcc", "vulkan")],
)
def test_doctor_says_how_an_idle_card_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, tool: str, api: str
) -> None:
    card = Gpu.model_validate({"name": "NVIDIA GeForce RTX 5070", "vendor": vendor})
    monkeypatch.setattr("tokrig.rig.probe_rig", lambda: Rig(id="one", gpus=[card]))
    monkeypatch.setenv("PATH", str(tmp_path))
    if tool:
        stand_in(tmp_path / tool, "")
    [found] = machine._idle_card([])
    assert not found.ok
    assert "GeForce RTX 5070" in found.detail
    assert found.hint == f"tokrig engine add llamacpp --api {api}"
    able = Program("llama-server", "/bin/llama-server", apis=("cpu", "cuda"))
    assert list(machine._idle_card([able])) == []
