"""``tokrig raw``: an engine's own benchmark, in a record of its own class."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokrig.cli.options import Word, example, number_list, setting_options, token_list
from tokrig.cli.run import model_option, option, record_options, seconds_option, show_ended
from tokrig.errors import InputError, Interrupted

if TYPE_CHECKING:
    from tokrig.models.shelf import Tell
    from tokrig.run.native_bench import RawRun
    from tokrig.run.progress import Progress

TOOLS = ("llama-bench", "llama-batched-bench")

numbers_option = partial(option, multiple=True, callback=number_list, metavar="N")


@click.command(
    "raw",
    epilog=example(
        "tokrig raw --model FILE.gguf",
        "tokrig raw --model smollm2-135m --prompt 512,2048 --depth 0,4k --api cpu",
        "tokrig raw --tool llama-batched-bench --model FILE.gguf --concurrency 1,4,8",
    ),
)
@model_option(
    metavar="NAME|FILE.gguf|hf:OWNER/NAME[@REVISION]/FILE.gguf",
    default="gemma-3-270m",
    show_default=True,
    help="A model of the catalog (listed by tokrig doctor), a file, or a model to fetch from a"
    " hub.",
)
@option("--tool", type=Word(TOOLS), default=TOOLS[0], show_default=True, help="The program.")
@option(
    "--bin",
    "binary",
    metavar="PATH",
    help="The program itself, its folder, or a llama-server beside it.  [default: on the PATH]",
)
@numbers_option(
    *("--prompt", "prompt_tokens"),
    default=["512"],
    show_default=True,
    help="Prompt tokens; 0 for no such test. Repeat it or use commas.",
)
@numbers_option(
    *("--output", "output_tokens"),
    default=["128"],
    show_default=True,
    help="Tokens to generate; 0 for no such test. Repeat it or use commas.",
)
@option(
    *("--depth", "depth_tokens"),
    multiple=True,
    callback=token_list,
    metavar="TOKENS",
    help="Tokens in the cache before each test, for llama-bench: 0,4k,16k. Repeat it or use commas."
    "  [default: 0]",
)
@numbers_option(
    "--concurrency",
    default=["1"],
    show_default=True,
    help="Sequences at once, for llama-batched-bench.",
)
@option(
    "--repetitions",
    type=click.IntRange(min=1),
    metavar="N",
    help="How often each test is measured.  [default: the program's own]",
)
@setting_options("api", "devices", "threads", "options")
@seconds_option(
    *("--time-limit", "limit_s"),
    type=click.FloatRange(min=0, min_open=True),
    default=3600.0,
    show_default=True,
    help="How long the program may take.",
)
@record_options
def command(
    even_if_busy: bool, dry_run: bool, quiet: bool, content: Path, as_json: bool, **asked: Any
) -> None:
    """Run an engine's own benchmark, write a record of its figures.

    Raw figures involve no server, no chat template and no client. They are kept apart from served
    ones: pages show them beside those, never among them. Which API computed is read from the
    program's log, never from its own table.

    The table goes to stdout, progress and the record's path to stderr. Exit codes: 0 measured,
    2 bad input, 3 the program failed or the machine is busy, 130 interrupted.
    """
    from tokrig.cli import present
    from tokrig.cli.live import Watch, signals_interrupt
    from tokrig.measure import require_writable
    from tokrig.run.journal import this_rig
    from tokrig.run.monitor import here
    from tokrig.run.native_bench import execute_raw
    from tokrig.store import Store

    watch = Watch(quiet, even_if_busy)
    with signals_interrupt():
        try:
            with watch.preparing() as tell:
                run = _bench(asked, tell)
            if dry_run:
                line = run.tool.command(run.launch)
                if as_json:
                    known = {"run_id": run.run_id, "tool": run.tool.name, "command": line}
                    present.print_json(known)
                else:
                    print(shlex.join(line))
                return
            require_writable(content)
            with this_rig(f"a benchmark of {run.launch.model.name}"):
                watch.start(here(run.launch.api))
                outcome = execute_raw(run, (lambda event: None) if quiet else _hear)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; nothing of the benchmark is kept") from None
    path = Store(content).save(outcome.record, [])
    show_ended(outcome.record, path, outcome.error, as_json, quiet)


def _bench(asked: dict[str, Any], tell: Tell) -> RawRun:
    """The benchmark that was asked for, checked as far as it can be without running it."""
    from tokrig.models import identity, shelf
    from tokrig.models.gguf import check_file
    from tokrig.native_bench import TOOLS, BenchLaunch
    from tokrig.record.model import Mode
    from tokrig.rig import probe_rig
    from tokrig.run.native_bench import RawRun, find_binary, vetted
    from tokrig.run.prepare import run_id

    # 0 stands for no such test.
    prompt, output, concurrency = (
        tuple(filter(None, dict.fromkeys(asked[name] or ())))
        for name in ("prompt_tokens", "output_tokens", "concurrency")
    )
    if not (prompt or output) or not concurrency:
        raise InputError(
            "there is no test to run", hint="give --prompt, --output or --concurrency above 0"
        )
    tool = TOOLS[asked["tool"]]
    binary = find_binary(tool, asked["binary"])
    path = shelf.resolve(asked["model"], tell)
    check_file(path)
    launch = BenchLaunch(
        binary,
        path,
        prompt,
        output,
        concurrency,
        asked["repetitions"],
        asked["threads"],
        asked["api"],
        tuple(asked["devices"] or ()),
        asked["options"] or {},
        depth_tokens=tuple(dict.fromkeys(asked["depth_tokens"] or ())),
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


def _hear(event: Progress) -> None:
    from tokrig.run.progress import Step

    if isinstance(event, Step):
        click.echo(event.text, err=True)
