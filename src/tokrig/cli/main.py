"""The command ``tokrig``: its commands by name, and the one place where errors become messages.

Commands are imported when they are called; ``--help`` imports none of them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import sys
import traceback
from typing import Any

import click

from tokrig import __version__
from tokrig.errors import (
    EngineError,
    InputError,
    Interrupted,
    StoreError,
    TokrigError,
    did_you_mean,
)
from tokrig.registry import program

# One line each; the same text as the command's own --help begins with.
COMMANDS = {
    "run": "Measure a model on an engine, write a record, print the table.",
    "raw": "Run an engine's own benchmark, write a record of its figures.",
    "campaign": "Work through a declared matrix of runs; show what is left.",
    "list": "List the records of a content folder, newest first.",
    "show": "Show one record: figures, validity, machine, charts.",
    "compare": "Is B slower than A? PASS, FAIL or INCONCLUSIVE, figure by figure.",
    "query": "Ask the records in SQL (DuckDB's).",
    "import": "Import results of other tools as records.",
    "export": "Write records as CSV, Parquet, benchstat, vLLM JSON or Markdown.",
    "fit": "Tell what runs on a machine, how long its context, how fast.",
    "check": "Validate records: schema, recomputation from samples, validity.",
    "site": "Build the public page, or serve it on this machine.",
    "submit": "Make a checked branch of records for a pull request.",
    "review": "Review the records of a pull request: checks, kin, ranks.",
    "models": "Download models of a hub, list and remove those that tokrig keeps.",
    "engine": "Get an engine for the graphics card; runs then take it.",
    "rig": "Show what this machine is, as a record tells it.",
    "doctor": "Tell what can be used here, what is missing, and how to get it.",
    "simulate": "Serve simulated answers of a chosen pace, to try clients on.",
    "instrument": "Measure the measuring client itself against a known server.",
}
EXIT_BUG = 70
EXIT_BROKEN_PIPE = 141  # as a shell says of a program that SIGPIPE ended
LOG_LINES = 8
# ``tokrig`` at the beginning of a command that a hint names.
_TYPED = re.compile(rf"\btokrig(?= (?:--help|{'|'.join(COMMANDS)})\b)")
# Commands that are not called "command" in a module of their name.
PLACES = {
    "import": ("importing", "command"),
    "rig": ("machine", "rig"),
    "doctor": ("machine", "doctor"),
}


class Commands(click.Group):
    """The group, with commands loaded by name and an error boundary around everything."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = PLACES.get(cmd_name, (cmd_name, "command"))
        command: click.Command = getattr(importlib.import_module(f"tokrig.cli.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise InputError(f"unknown command {args[0]!r}", hint=did_you_mean(args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        item = click.shell_completion.CompletionItem
        names = [item(n, help=text) for n, text in COMMANDS.items() if n.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command line and exit with the code that its outcome has."""
        given = dict(zip(("args", "prog_name"), args, strict=False)) | extra
        words = given.pop("args", None)
        words = sys.argv[1:] if words is None else list(words)
        for stream in (sys.stdout, sys.stderr):
            # A terminal that cannot show a character gets a "?", not a traceback.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        given |= {"args": words, "prog_name": "tokrig", "standalone_mode": False}
        try:
            code = super().main(**given)
            sys.stdout.flush()
        except (BrokenPipeError, SystemExit):
            # The reader has what it wanted (``tokrig list | head``): no reason to complain. click
            # and Rich end the program then.
            _silence_stdout()
            code = EXIT_BROKEN_PIPE
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.ctx.get_help())
            code = 0
        except Exception as error:  # noqa: BLE001 (the last resort: one readable message)
            code = report(_told(error), "--json" in words)
        sys.exit(code if isinstance(code, int) else 0)


class Bug(TokrigError):
    """Something that nobody foresaw."""

    exit_code = EXIT_BUG
    code = "bug"


def _silence_stdout() -> None:
    """What could not be written is not tried again when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _told(error: Exception) -> TokrigError:
    """Any error as one of tokrig's: what is wrong, then what to do."""
    if isinstance(error, TokrigError):
        return error
    if isinstance(error, click.Abort):
        return Interrupted("interrupted")
    if isinstance(error, click.ClickException):
        return _usage(error)
    if os.environ.get("TOKRIG_DEBUG"):
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, OSError):
        # What nobody below has put into words, such as a full disk under stdout.
        _silence_stdout()
        where = f"{error.filename}: " if error.filename else ""
        return StoreError(
            f"the system refused: {where}{error.strerror or error}",
            hint="check free space, permissions and redirected output; TOKRIG_DEBUG=1 shows where",
        )
    return Bug(
        f"this is a bug in tokrig: {type(error).__name__}: {error}",
        hint="TOKRIG_DEBUG=1 shows where; please report it with that output",
    )


def _usage(error: click.ClickException) -> InputError:
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "tokrig"
    hint = getattr(error, "hint", "") or f"{path} --help explains"
    if isinstance(error, click.NoSuchOption):
        if error.possibilities:
            hint = f"did you mean {' or '.join(error.possibilities)}?"
        return InputError(f"unknown option {error.option_name}", hint=hint)
    message = error.format_message()
    if isinstance(error, click.BadParameter) and isinstance(error.param, click.Option):
        # Not click's "Invalid value for": the message begins with what was typed.
        message = f"{error.param.opts[0]}: {error.message}"
    return InputError(message.rstrip("."), hint=hint)


def report(error: TokrigError, as_json: bool) -> int:
    """The error for people on stderr, for machines on stdout; its exit code."""
    hint = _TYPED.sub(lambda _: program(), error.hint)
    _say("stopped:" if isinstance(error, Interrupted) else "error:", error.message, "red")
    for line in filter(None, hint.splitlines()):
        _say("hint:", line, "cyan")
    if isinstance(error, EngineError) and error.log_tail:
        _say("log:", "the engine's last lines", "cyan")
        for line in error.log_tail.splitlines()[-LOG_LINES:]:
            _say("  |", line, "bright_black")
    if as_json:
        data = {"code": error.code, "message": error.message, "hint": hint}
        with contextlib.suppress(OSError):
            click.echo(json.dumps({"error": data}, ensure_ascii=False))
    return error.exit_code


def _say(label: str, text: str, color: str) -> None:
    # The terminal may be gone (SIGHUP); the exit code still tells.
    with contextlib.suppress(OSError):
        plain = False if os.environ.get("NO_COLOR") else None
        click.echo(f"{click.style(label, fg=color)} {text}", err=True, color=plain)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExamples:\n  tokrig doctor\n  tokrig run --model smollm2-135m --workload chat\n"
    "  tokrig list",
)
@click.version_option(__version__, prog_name="tokrig", message="%(prog)s %(version)s")
def main() -> None:
    """Measure how fast open-weight language models run on the machines people own."""
