"""``tokrig raw``: an engine's own benchmark program, its figures in a class of their own."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokrig.cli.options import (
    APIS,
    Word,
    complete_model,
    complete_rig,
    content_and_json,
    even_if_busy,
    example,
    key_values,
    number_list,
    word_list,
)
from tokrig.errors import InputError, Interrupted

if TYPE_CHECKING:
    from tokrig.models.shelf import Tell
    from tokrig.run.native_bench import RawOutcome, RawRun
    from tokrig.run.progress import Progress

TOOLS = ("llama-bench", "llama-batched-bench")
TIME_LIMIT_S = 3600.0


@click.command(
    "raw",
    epilog=example(
        "tokrig raw --model FILE.gguf",
        "tokrig raw --model smollm2-135m --prompt 512,2048 --option d=4096 --api cpu",
        "tokrig raw --tool llama-batched-bench --model FILE.gguf --concurrency 1,4,8",
    ),
)
@click.option(
    "--model",
    "-m",
    metavar="NAME|FILE.gguf|hf:OWNER/NAME[@REVISION]/FILE.gguf",
    default="gemma-3-270m",
    show_default=True,
    shell_complete=complete_model,
    help="A model of the catalog (tokrig doctor lists it), a file, or a model of a hub, which is"
    " fetched.",
)
@click.option("--tool", type=Word(TOOLS), default=TOOLS[0], show_default=True, help="The program.")
@click.option(
    "--bin",
    "binary",
    metavar="PATH",
    help="The program itself, its folder, or a llama-server beside it.  [default: on the PATH]",
)
@click.option(
    "--prompt",
    multiple=True,
    callback=number_list,
    metavar="N",
    help="Tokens of prompt; 0 for no such test. Repeat it or use commas.  [default: 512]",
)
@click.option(
    "--output",
    multiple=True,
    callback=number_list,
    metavar="N",
    help="Tokens to generate; 0 for no such test. Repeat it or use commas.  [default: 128]",
)
@click.option(
    "--concurrency",
    multiple=True,
    callback=number_list,
    metavar="N",
    help="Sequences at once, for llama-batched-bench.  [default: 1]",
)
@click.option(
    "--repetitions",
    type=click.IntRange(min=1),
    metavar="N",
    help="How often each test is measured.  [default: the program's own]",
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads of the engine.")
@click.option("--api", type=Word(APIS), help="What is to compute; anything else is INVALID.")
@click.option(
    "--device",
    "devices",
    multiple=True,
    callback=word_list,
    metavar="NAME",
    help="A device as the program lists it. Repeat it or use commas.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    callback=key_values,
    metavar="KEY=VALUE",
    help="A flag of the program's own, without dashes. Repeatable.",
)
@click.option(
    "--time-limit",
    "limit_s",
    type=click.FloatRange(min=0, min_open=True),
    default=TIME_LIMIT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long the program may take.",
)
@click.option(
    "--rig",
    metavar="ID",
    shell_complete=complete_rig,
    help="Name of this machine in the record.  [default: made from its hardware]",
)
@click.option("--notes", metavar="TEXT", help="A remark that goes into the record.")
@even_if_busy
@click.option("--dry-run", is_flag=True, help="Print the command line; measure nothing.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@content_and_json
def command(
    even_if_busy: bool, dry_run: bool, quiet: bool, content: Path, as_json: bool, **asked: Any
) -> None:
    """Run an engine's own benchmark, write a record of its figures.

    Raw figures know no server, no chat template and no client. They are kept apart from served
    ones: pages show them beside those, never among them. Which API computed is read from the
    program's log, never from its own table.

    The table goes to stdout, progress and the record's path to stderr. Exit codes: 0 measured,
    2 bad input, 3 the program failed or the machine is busy, 130 interrupted.
    """
    from tokrig.cli.live import Watch, signals_interrupt
    from tokrig.measure import require_writable
    from tokrig.run.journal import this_rig
    from tokrig.run.monitor import here
    from tokrig.run.native_bench import execute_raw

    watch = Watch(quiet, even_if_busy)
    with signals_interrupt():
        try:
            with watch.preparing() as tell:
                run = _wanted(asked, tell)
            if dry_run:
                _print_command(run, as_json)
                return
            require_writable(content)
            with this_rig(f"a benchmark of {run.launch.model.name}"):
                watch.start(here(run.launch.api))
                outcome = execute_raw(run, (lambda event: None) if quiet else _hear)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; of a benchmark cut short nothing is kept") from None
    _store_and_tell(outcome, content, as_json, quiet)


def _wanted(asked: dict[str, Any], tell: Tell) -> RawRun:
    """The run that was asked for, checked as far as it can be without running it."""
    from tokrig import registry
    from tokrig.models import identity, shelf
    from tokrig.models.gguf import check_file
    from tokrig.native_bench import BenchLaunch, BenchTool
    from tokrig.record.model import Mode
    from tokrig.rig import probe_rig
    from tokrig.run.native_bench import RawRun, find_binary, vetted
    from tokrig.run.prepare import run_id

    tool: BenchTool = registry.load("native_bench", asked["tool"].replace("-", "_"), "NATIVE_BENCH")
    binary = find_binary(tool, asked["binary"])
    path = shelf.resolve(asked["model"], tell).path
    check_file(path)
    launch = BenchLaunch(
        binary=binary,
        model=path,
        prompt_tokens=_lengths("--prompt", asked["prompt"], BenchLaunch.prompt_tokens),
        output_tokens=_lengths("--output", asked["output"], BenchLaunch.output_tokens),
        concurrency=_lengths("--concurrency", asked["concurrency"], BenchLaunch.concurrency),
        repetitions=asked["repetitions"],
        threads=asked["threads"],
        api=asked["api"],
        devices=tuple(asked["devices"] or ()),
        options=asked["options"] or {},
    )
    if not (launch.prompt_tokens or launch.output_tokens) or not launch.concurrency:
        raise InputError(
            "there is no test left", hint="give --prompt, --output or --concurrency above 0"
        )
    launch = vetted(tool, launch)
    model, now = identity.identify(path), datetime.now(UTC)
    return RawRun(
        run_id=run_id(model, tool.name, Mode(), now),
        tool=tool,
        launch=launch,
        model=model,
        rig=probe_rig(asked["rig"]),
        started=now,
        limit_s=asked["limit_s"],
        notes=asked["notes"],
    )


def _lengths(option: str, given: list[int] | None, default: Sequence[int]) -> tuple[int, ...]:
    """The numbers above 0, each once; 0 stands for none."""
    numbers = tuple(dict.fromkeys(default if given is None else given))
    if any(number < 0 for number in numbers):
        raise InputError(f"{option}: a number cannot be negative", hint="give numbers from 0 on")
    return tuple(number for number in numbers if number)


def _print_command(run: RawRun, as_json: bool) -> None:
    from tokrig.cli import present

    line = list(run.tool.command(run.launch))
    if as_json:
        present.print_json({"run_id": run.run_id, "tool": run.tool.name, "command": line})
    else:
        print(shlex.join(line))


def _hear(event: Progress) -> None:
    """Every step a line on stderr."""
    from tokrig.run.progress import Step

    if isinstance(event, Step):
        click.echo(event.text, err=True)


def _store_and_tell(outcome: RawOutcome, content: Path, as_json: bool, quiet: bool) -> None:
    from tokrig.cli import present
    from tokrig.store import Store

    record = outcome.record
    path = Store(content).save(record, [])
    if outcome.error is not None:
        _keep_log(outcome)
    if as_json and outcome.error is None:
        present.print_json({"path": str(path), "record": present.record_json(record)})
    elif record.raw and not as_json:
        out = present.console()
        out.print(present.subject(record), style="bold", soft_wrap=True)
        out.print()
        present.print_raw(out, record)
        present.print_findings(out, record)
    if not quiet:
        click.echo(f"record: {path}", err=True)
    if outcome.error is not None:
        raise outcome.error


def _keep_log(outcome: RawOutcome) -> None:
    """All that the program said, where the log of every failed engine is."""
    from tokrig.files import state_dir

    last = state_dir() / "failed-engine.log"
    with contextlib.suppress(OSError):
        last.parent.mkdir(parents=True, exist_ok=True)
        last.write_text(outcome.log, encoding="utf-8")
        if outcome.error is not None:
            outcome.error.hint = "\n".join(filter(None, (outcome.error.hint, f"its log: {last}")))
