"""The command line as a whole: help, start-up, errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tokrig import __version__, registry
from tokrig.cli.main import COMMANDS, EXIT_BROKEN_PIPE, EXIT_BUG, main
from tokrig.errors import StartError
from tokrig.store import Store


def tokrig(*words: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner(env=env or {}).invoke(main, words)


def python(code: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words], check=check, capture_output=True, text=True
    )


def test_help_names_every_command() -> None:
    done = tokrig("--help")
    assert done.exit_code == 0
    for name, summary in COMMANDS.items():
        assert name in done.stdout
        assert summary in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_an_example_and_the_shared_options(name: str) -> None:
    done = tokrig(name, "--help")
    assert done.exit_code == 0
    assert COMMANDS[name] in done.stdout, "the summary is the help's first line"
    assert "Example" in done.stdout
    assert f"tokrig {name}" in done.stdout
    for words in lowest(name):
        text = tokrig(*words, "--help").stdout
        assert "Example" in text
        assert "--content" in text
        assert "--json" in text


def lowest(name: str) -> list[list[str]]:
    """A command, or the commands below it: those are what does something."""
    command = main.get_command(click.Context(main), name)
    if isinstance(command, click.Group):
        return [[name, below] for below in command.commands]
    return [[name]]


@pytest.mark.parametrize("words", [[], ["models"], ["site"], ["campaign"]])
def test_without_a_command_there_is_help(words: list[str]) -> None:
    done = tokrig(*words)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == tokrig(*words, "--help").stdout


def test_version() -> None:
    assert tokrig("--version").stdout == f"tokrig {__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["run", "--help"], ["lst"]])
def test_nothing_heavy_is_imported_before_it_is_needed(words: Sequence[str]) -> None:
    code = (
        "import sys\n"
        "from tokrig.cli.main import main\n"
        "try:\n"
        "    main(args=sys.argv[1:], prog_name='tokrig')\n"
        "except SystemExit: pass\n"
        "heavy = {'pydantic', 'rich', 'numpy', 'pyarrow', 'yaml', 'psutil', 'httptools'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    assert python(code, *words).stderr.splitlines()[-1] == "[]"


def test_list_imports_neither_rich_nor_numpy() -> None:
    code = (
        "import sys\n"
        "from tokrig.cli.main import main\n"
        "try:\n"
        "    main(args=['list', '--content', 'nowhere'], prog_name='tokrig')\n"
        "except SystemExit: pass\n"
        "print(sorted({'rich', 'numpy', 'pyarrow'} & set(sys.modules)), file=sys.stderr)\n"
    )
    assert python(code).stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["lst"], "unknown command 'lst'", "did you mean 'list'?"),
        (["run", "--modle", "x"], "unknown option --modle", "did you mean --model or"),
        (["run", "--level", "quik"], "--level: 'quik' is unknown", "did you mean 'quick'?"),
        (["list", "--status", "vlid"], "--status: 'vlid' is unknown", "did you mean 'valid'?"),
        (["run", "--workload", "chta"], "unknown workload 'chta'", "did you mean 'chat'?"),
        (["run", "--backend", "embeded"], "unknown backend 'embeded'", "'embedded'?"),
        (["run", "--model", "smolm2-135m"], "unknown model", "'smollm2-135m'?"),
        (["run", "--model", "no.gguf"], "no.gguf", "hint:"),
        (["run", "--concurrency", "two"], "--concurrency: give whole numbers", "--help"),
        (["run", "--concurrency", "0"], "concurrency", ""),
        (["run", "--threads", "x"], "--threads: 'x'", "tokrig run --help"),
        (["run", "--option", "fast"], "'fast' is not KEY=VALUE", ""),
        (["run", "--option", "ubtach=1"], "no option 'ubtach'", "did you mean 'ubatch'?"),
        (["run", "nowhere.yaml"], "nowhere.yaml", "hint:"),
        (["run", "model.gguf"], "is a model, not a spec", "--model model.gguf"),
        (["run", "smollm2-135m"], "is a model, not a spec", "tokrig run --model smollm2-135m"),
        (["run", "smolm2-135m"], "no spec file smolm2-135m", "--model smollm2-135m"),
        (["run", "hf:a/b"], "is a model, not a spec", "tokrig run --model hf:a/b"),
        (["run", "qwen3"], "no spec file qwen3", "tokrig run --model qwen3"),
        (["run", "-m", "owner/name"], "no such file or folder: owner/name", "hf:owner/name"),
        (["run", "--url", "ftp://x"], "http://", ""),
        (
            ["run", "--url", "http://x.invalid", "--model", "a"],
            "nobody answers",
            "check that the server is running",
        ),
        (["run", "--backend", "openai"], "needs its address", "--url"),
        (["run", "--resume", "--level", "quick"], "--resume takes no --level", "leave --level"),
        (["run", "--discard", "x", "--model", "y"], "--discard takes no --model", ""),
        (["show"], "Missing argument 'ID'", "tokrig show --help"),
        (["show", "2026"], "no record '2026'", "tokrig list"),
        (["check", "no/where.yaml"], "no such file or folder: no/where.yaml", ""),
        (["rig", "prob"], "'prob' is unknown", "did you mean 'probe'?"),
        (["instrument", "--streams", "0"], "--streams: each has to be above 0", "--help"),
    ],
)
def test_bad_input_is_one_message_a_hint_and_exit_2(
    words: list[str], message: str, hint: str, tmp_path: object
) -> None:
    env = {"TOKRIG_STATE": f"{tmp_path}/state", "TOKRIG_CONTENT": f"{tmp_path}/content"}
    done = tokrig(*words, env=env)
    assert done.exit_code == 2, done.stderr
    assert message in done.stderr
    assert hint in done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_error_is_data_with_json() -> None:
    done = tokrig("run", "--workload", "chta", "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout) == {
        "error": {
            "code": "bad_input",
            "message": "unknown workload 'chta'",
            "hint": "did you mean 'chat'? Known: agent, chat, codegen, rag, session",
        }
    }
    assert "error: unknown workload 'chta'" in done.stderr


def test_usage_errors_are_data_with_json_too() -> None:
    done = tokrig("list", "--json", "--modle", "x")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"]["message"] == "unknown option --modle"


def failing(error: BaseException) -> property:
    def fail(self: Store) -> None:
        raise error

    return property(fail)


def test_a_bug_says_so_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "listing", failing(ZeroDivisionError("by zero")))
    done = tokrig("list")
    assert done.exit_code == EXIT_BUG == 70
    assert "this is a bug in tokrig: ZeroDivisionError: by zero" in done.stderr
    assert "TOKRIG_DEBUG=1" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(tokrig("list", "--json").stdout)["error"]["code"] == "bug"


def test_a_bug_shows_where_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "listing", failing(ZeroDivisionError("by zero")))
    assert "Traceback" in tokrig("list", env={"TOKRIG_DEBUG": "1"}).stderr


def test_an_engine_error_is_exit_3_with_the_last_lines_of_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = "\n".join(f"line {n}" for n in range(20))
    error = StartError("it did not start", hint="look at its log", log_tail=log)
    monkeypatch.setattr(Store, "listing", failing(error))
    done = tokrig("list")
    assert done.exit_code == 3
    assert "hint: look at its log" in done.stderr
    assert "line 19" in done.stderr
    assert "line 1\n" not in done.stderr


def test_ctrl_c_anywhere_is_exit_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "listing", failing(KeyboardInterrupt()))
    done = tokrig("list")
    assert done.exit_code == 130
    assert "interrupted" in done.stderr


def test_a_full_disk_under_stdout_is_told() -> None:
    code = "from tokrig.cli.main import main; main(['rig'], prog_name='tokrig')"
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words", [["rig"], ["list", "--content", "content"], ["check", "content"], ["rig", "--json"]]
)
def test_a_reader_that_leaves_is_no_error(words: list[str]) -> None:
    code = f"from tokrig.cli.main import main; main({words}, prog_name='tokrig')"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == EXIT_BROKEN_PIPE


def installed(monkeypatch: pytest.MonkeyPatch, origin: str | None, prefix: Path) -> None:
    class Found:
        def read_text(self, name: str) -> str | None:
            return origin if name == "direct_url.json" else None

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Found())
    monkeypatch.setattr(sys, "prefix", str(prefix))
    registry._installation.cache_clear()


@pytest.mark.parametrize(
    ("origin", "receipt", "extra", "package"),
    [
        (
            '{"url": "file:///home/me/tokrig", "dir_info": {"editable": true}}',
            "",
            "in tokrig's checkout: uv sync --inexact --extra hub",
            "in tokrig's checkout: uv pip install toy",
        ),
        (
            '{"url": "https://x.invalid/t.git", "vcs_info": {"vcs": "git"}}',
            "uv-receipt.toml",
            "uv tool install --force 'tokrig[hub] @ git+https://x.invalid/t.git'",
            f"uv pip install --python {sys.executable} toy",
        ),
        (
            '{"url": "file:///tmp/t.whl", "archive_info": {}}',
            "pipx_metadata.json",
            "pipx install --force 'tokrig[hub] @ file:///tmp/t.whl'",
            "pipx runpip tokrig install toy",
        ),
        (
            None,
            "",
            f"{sys.executable} -m pip install 'tokrig[hub]'",
            f"{sys.executable} -m pip install toy",
        ),
    ],
)
def test_hints_install_into_the_environment_at_hand(
    origin: str | None,
    receipt: str,
    extra: str,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if receipt:
        (tmp_path / receipt).touch()
    installed(monkeypatch, origin, tmp_path)
    try:
        assert (registry.get_extra("hub"), registry.get_package("toy")) == (extra, package)
    finally:
        registry._installation.cache_clear()


@pytest.mark.parametrize("on_the_path", [True, False])
def test_hints_name_the_program_as_it_was_called(
    on_the_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = tmp_path / "tokrig"
    called.write_text("#!/bin/sh\n")
    called.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(called)])
    monkeypatch.setenv("PATH", str(tmp_path) if on_the_path else "/nowhere")
    registry.program.cache_clear()
    try:
        typed = "tokrig" if on_the_path else str(called)
        assert f"hint: {typed} run --model m.gguf\n" in tokrig("run", "m.gguf").stderr
    finally:
        registry.program.cache_clear()


def completions(*words: str, env: dict[str, str] | None = None) -> list[str]:
    """What the shell would offer for the last word."""
    given = {
        "_TOKRIG_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("tokrig", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = CliRunner(env=given | (env or {})).invoke(main, prog_name="tokrig")
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["sh"], ["show"]),
        (["run", "--workload", "ch"], ["chat"]),
        (["run", "--workload", "chat,ra"], ["chat,rag"]),
        (["run", "--backend", "emb"], ["embedded"]),
        (["run", "--model", "smol"], ["smollm2-135m"]),
        (["run", "--level", "st"], ["standard"]),
        (["run", "--dry"], ["--dry-run"]),
    ],
)
def test_the_shell_completes_names(words: list[str], offered: list[str]) -> None:
    assert completions(*words) == offered


def test_a_command_that_does_not_exist_has_no_object() -> None:
    context = click.Context(main)
    assert main.get_command(context, "lst") is None
    assert main.list_commands(context) == list(COMMANDS)
