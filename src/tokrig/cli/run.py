"""``tokrig run``: options, what they ask for, and the table at the end."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tokrig import engines
from tokrig.cli.options import (
    F,
    Word,
    complete_backend,
    complete_model,
    complete_rig,
    complete_unfinished,
    complete_workload,
    content_and_json,
    even_if_busy,
    example,
    in_flight,
    setting_options,
    word_list,
)
from tokrig.errors import EngineError, InputError, Interrupted, TokrigError
from tokrig.registry import program

if TYPE_CHECKING:
    from tokrig.cli.live import Watch
    from tokrig.record.model import Record
    from tokrig.spec.run import RunSpec

NEWEST = "newest"
LEVELS = ("quick", "standard", "publish")
ARRIVALS = ("poisson", "constant", "gamma", "ramp")
# What may be given beside --resume: it changes nothing that is measured.
BESIDE_RESUME = {"content", "as_json", "quiet", "patience_s", "request_timeout_s", "resume",
                 "even_if_busy"}  # fmt: skip

option = click.option
model_option = partial(option, "--model", "-m", shell_complete=complete_model)
seconds_option = partial(option, metavar="SECONDS")


def record_options(command: F) -> F:
    """What both commands take that measure and write a record."""
    for one in (
        content_and_json,
        option("--quiet", "-q", is_flag=True, help="No progress and no notes."),
        option("--dry-run", is_flag=True, help="Print what would be measured; start nothing."),
        even_if_busy,
        option("--notes", metavar="TEXT", help="A remark that goes into the record."),
        option(
            "--rig",
            metavar="ID",
            shell_complete=complete_rig,
            help="Name of this machine in the record.  [default: derived from its hardware]",
        ),
    ):
        command = one(command)
    return command


@click.command(
    "run",
    epilog=example(
        "tokrig run",
        "tokrig run --model smollm2-135m --workload chat,agent --concurrency 1,4",
        "tokrig run --depth 0,4k,16k",
        "tokrig run --url http://127.0.0.1:8000 --level standard",
        "tokrig run --concurrency ladder",
        "tokrig run --sustain 10m --concurrency 4",
        "tokrig run --backend llamacpp --server-bin llama-server --model FILE.gguf",
        "tokrig run --model hf:OWNER/NAME/FILE-Q4_K_M.gguf --kv-type q8_0",
        "tokrig run --rate 2/s --duration 60s --slo ttft=0.5s,tpot=50ms",
        "tokrig run --trace FILE.csv --rate 2/s --duration 10m",
        "tokrig run --find-rate --slo ttft=0.5s,tpot=50ms",
        "tokrig run --model FILE-F16.gguf --quantize Q6_K --power-cap 250",
    ),
)
@click.argument("spec", required=False, metavar="[SPEC.yaml]", type=click.Path(path_type=Path))
@model_option(
    metavar="NAME|FILE.gguf|FOLDER|hf:OWNER/NAME[@REVISION][/FILE.gguf]",
    help="A model of the catalog (listed by tokrig doctor), a file, a folder of safetensors, or a"
    " model to fetch from a hub; with --url, its name there.  [default: gemma-3-270m]",
)
@option(
    "--backend",
    metavar="NAME",
    shell_complete=complete_backend,
    help="The engine.  [default: embedded, or the one that tokrig engine added; detected with"
    " --url; llamacpp with --server-bin]",
)
@option("--url", metavar="URL", help="Measure a server that is already running.")
@option(
    "--load-from",
    metavar="HOST:PORT|auto",
    help="Send the requests from the load nodes of the Ray cluster at this address, with --url.",
)
@option(
    "--load-nodes",
    type=int,
    metavar="N",
    help="How many of them send.  [default: all there are]",
)
@option(
    "--clients",
    type=int,
    metavar="N",
    help="Send the requests from so many processes of this machine.  [default: 1]",
)
@option("--server-bin", metavar="PATH", help="The llama-server to start.")
@option("--served-model", metavar="NAME", help="The same as --model, with --url.")
@option(
    "--workload",
    "workloads",
    multiple=True,
    callback=word_list,
    metavar="NAME",
    shell_complete=complete_workload,
    help="Workloads: chat, rag, codegen, agent; session, an agent's turns on a warm prompt cache."
    " Repeat it or use commas.  [default: all but session; chat with a ladder or --sustain]",
)
@option(
    "--concurrency",
    multiple=True,
    callback=in_flight,
    metavar="N|ladder[:N]",
    help="Requests in flight. Repeat it or use commas. A ladder doubles them while that pays, up to"
    " 64 or N.  [default: the workload's own]",
)
@option(
    "--sustain",
    metavar="TIME",
    help="Keep one workload going for so long: 90s, 10m, 1h. How its rate holds, and why not.",
)
@option(
    "--depth",
    multiple=True,
    callback=word_list,
    metavar="TOKENS",
    help="Tokens of context before the measured turn: 0,4k,16k. Repeat it or use commas; without"
    " --workload it is chat that is measured.  [default: 0]",
)
@option(
    "--level",
    type=Word(LEVELS),
    help="How often to measure: 1, 6 or 10 server starts, 3 iterations each.  [default: quick]",
)
@option(
    "--quality/--no-quality",
    default=None,
    help="Look at the model's answers, too: 24 short ones, held against the store's most precise"
    " run of this model.  [default: but for --level quick]",
)
@option(
    "--rate",
    multiple=True,
    callback=word_list,
    metavar="RATE",
    help="Requests arrive by themselves: 2/s, 30/min; 1-4/s with --arrival ramp. Repeat it or use"
    " commas.",
)
@option(
    "--arrival",
    type=Word(ARRIVALS),
    help="How their intervals are distributed.  [default: poisson]",
)
@option(
    "--burstiness",
    type=float,
    metavar="X",
    help="Shape of --arrival gamma: below 1 in bursts, above 1 more regular than poisson.",
)
@option("--duration", "duration_s", metavar="TIME", help="How long they arrive.  [default: 60s]")
@option(
    *("--warm-up-window", "warm_up_window_s"),
    metavar="TIME",
    help="What of that is not measured.  [default: a sixth]",
)
@option(
    "--trace",
    metavar="FILE",
    help="Requests arrive as in a trace: CSV of timestamp,input,output, Azure's, BurstGPT's,"
    " Mooncake's.",
)
@option(
    "--slo",
    metavar="LIMITS",
    help="What a request has to meet, for goodput: ttft=0.5s,tpot=50ms,e2e=10s.",
)
@option(
    "--find-rate",
    is_flag=True,
    default=None,
    help="Look for the highest rate that meets the SLO, beginning at --rate.",
)
@setting_options()
@option("--seed", type=int, metavar="N", help="Sampling seed.  [default: 1]")
@seconds_option(
    *("--patience", "patience_s"),
    type=float,
    help="How long the engine may take to become ready.  [default: the engine's own]",
)
@seconds_option(
    *("--request-timeout", "request_timeout_s"),
    type=float,
    help="The longest wait for a token, heartbeats not counted; 0.1 s more for each token of depth."
    "  [default: 600]",
)
@option("--api-key-env", metavar="NAME", help="The environment variable that holds the API key.")
@option(
    "--resume",
    is_flag=False,
    flag_value=NEWEST,
    metavar="[RUN_ID]",
    shell_complete=complete_unfinished,
    help="Resume an interrupted run; without an id, the newest.",
)
@option(
    "--discard",
    metavar="RUN_ID",
    shell_complete=complete_unfinished,
    help="Discard an interrupted run.",
)
@record_options
def command(
    spec: Path | None,
    resume: str | None,
    discard: str | None,
    even_if_busy: bool,
    dry_run: bool,
    quiet: bool,
    content: Path,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Measure a model on an engine, write a record, print the table.

    What to measure comes from SPEC.yaml, from options, or from both: options win. Without any,
    the embedded engine measures gemma-3-270m over all four workloads in a few minutes.

    The table goes to stdout, progress and the record's path to stderr. Ctrl-C keeps what has been
    measured; --resume continues. If other programs load the machine, tokrig waits up to a minute.
    Exit codes: 0 measured, 2 bad input, 3 the engine failed or the machine is busy,
    130 interrupted.
    """
    ctx = click.get_current_context()
    if discard is not None:
        _alone(ctx, "--discard", {"discard", "content", "as_json", "quiet"})
        _discard(discard, as_json)
        return
    if resume is not None:
        _alone(ctx, "--resume", BESIDE_RESUME)
    with _blaming_the_file(spec, overrides):
        wanted = _wanted(spec, overrides) if resume is None else None
        if dry_run and wanted is not None:
            from tokrig.cli import dry_run as dry
            from tokrig.measure import switches

            dry.print_plan(dry.foresee(wanted, datetime.now(UTC), switches(content)), as_json)
            return
        from tokrig import measure
        from tokrig.cli.live import Watch, signals_interrupt

        watch = Watch(quiet, even_if_busy)
        with signals_interrupt(), watch.preparing() as tell:
            ways = measure.Ways(view=watch.view, tell=tell, start=watch.start)
            if wanted is not None:
                _mention_unfinished(watch)
                ended = measure.begin(wanted, content, **ways)
            else:
                run = resume if resume and resume != NEWEST else _newest()
                elsewhere = content if _given(ctx, "content") else None
                ended = measure.go_on(run, elsewhere, overrides, **ways)
        show_ended(ended.record, ended.path, ended.error, as_json, quiet)


@contextlib.contextmanager
def _blaming_the_file(path: Path | None, overrides: Mapping[str, Any]) -> Iterator[None]:
    """Errors name settings by their options. What came from the spec file is named by its key
    there, with the line."""
    try:
        yield
    except InputError as error:
        if path is not None:
            with contextlib.suppress(TokrigError):  # a file that could not be read at all
                _name_keys(error, path, overrides)
        raise


def _name_keys(error: InputError, path: Path, overrides: Mapping[str, Any]) -> None:
    from tokrig.documents import lines_of
    from tokrig.spec.run import load_spec, option_of

    keys = [key for key in load_spec(path).model_fields_set if overrides.get(key) is None]
    lines = lines_of(path.read_text(encoding="utf-8-sig"), [(key,) for key in keys])
    for key, line in zip(keys, lines, strict=True):
        option = rf"(?<![\w-]){option_of(key)}(?![\w-])"
        at = f"{path}:{line}"
        message = re.sub(rf"^{option}", f"{at}: {key}", error.message)
        error.message = re.sub(option, f"{key} ({at})", message)
        error.hint = re.sub(option, key, error.hint)


def _newest() -> str:
    from tokrig.run import journal

    if unfinished := journal.unfinished():
        return unfinished[-1]
    raise InputError("there is no unfinished run", hint="start one with: tokrig run")


def _discard(run_id: str, as_json: bool) -> None:
    from tokrig.cli.present import print_json
    from tokrig.run import journal

    with journal.reopen(run_id) as kept:
        kept.discard()
    if as_json:
        print_json({"discarded": run_id})
    else:
        click.echo(f"discarded {run_id}", err=True)


def _mention_unfinished(watch: Watch) -> None:
    from tokrig.cli.present import count
    from tokrig.run import journal

    if kept := {run: journal.finished_cells(run) for run in journal.unfinished()}:
        named = ", ".join(f"{run} ({count(n, 'result')})" for run, n in kept.items())
        watch.note(
            f"{count(len(kept), 'unfinished run')}: {named}; resume with: {program()} run --resume"
            f" ID, or discard with: {program()} run --discard ID"
        )


def show_ended(
    record: Record, path: Path, error: EngineError | None, as_json: bool, quiet: bool
) -> None:
    """The result table on stdout. A run without any result has only its error to tell."""
    from tokrig.cli import present

    if as_json and error is None:
        present.print_json({"path": str(path), "record": present.record_json(record)})
    elif not as_json:
        out, measured = present.console(), bool(record.results or record.raw)
        if measured:
            out.print(present.subject(record), style="bold", soft_wrap=True)
            out.print()
        present.print_figures(out, record)
        if measured:
            present.print_findings(out, record)
    if not quiet:
        click.echo(f"record: {path}", err=True)
    if error is not None:
        raise error
    if record.status == "interrupted":
        raise Interrupted("ended early; what was measured is kept")


def _given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _alone(ctx: click.Context, flag: str, allowed: set[str]) -> None:
    """Refuse options that would contradict the run that was begun."""
    for param in ctx.command.params:
        if param.name and param.name not in allowed and _given(ctx, param.name):
            what = param.opts[0] if isinstance(param, click.Option) else "a spec"
            raise InputError(
                f"{flag} takes no {what}: the run keeps what it was started with",
                hint=f"leave {what} out, or start a new run without {flag}",
            )


def _wanted(path: Path | None, overrides: dict[str, Any]) -> RunSpec:
    """The spec file with the options on top, and the backend that they imply."""
    from tokrig.spec.run import RunSpec, load_spec, merge

    if path is not None:
        _refuse_model(path)
    base = RunSpec() if path is None else load_spec(path)
    url, backend = overrides["url"] or base.url, overrides["backend"]
    if url:
        _name_served(base, overrides)
    if backend is None and "backend" not in base.model_fields_set:
        if url:
            backend = _behind(merge(base, overrides))
        elif overrides["server_bin"] or base.server_bin:
            backend = "llamacpp"
        elif added := engines.added():
            backend = added.backend
            overrides["api"] = overrides["api"] or base.api or added.api
    return merge(base, {**overrides, "backend": backend})


def _refuse_model(path: Path) -> None:
    """A model in the place of a spec file is told as what it is."""
    from tokrig.models.catalog import CATALOG

    name = str(path)
    near = difflib.get_close_matches(name.lower(), CATALOG, n=1)
    if path.suffix.lower() == ".gguf" or name.startswith("hf:") or path.is_dir():
        raise InputError(f"{name} is a model, not a spec", hint=f"tokrig run --model {name}")
    if path.suffix.lower() in (".yaml", ".yml") or path.exists():
        return
    if near:
        same = near[0] == name.lower()
        message = f"{name} is a model, not a spec" if same else f"no spec file {name}"
        hint = "" if same else "did you mean the model? "
        raise InputError(message, hint=f"{hint}tokrig run --model {near[0]}")
    raise InputError(
        f"no spec file {name}",
        hint=f"a spec is a YAML file; a model is named with: tokrig run --model {name}",
    )


def _name_served(base: RunSpec, overrides: dict[str, Any]) -> None:
    """The model of a running server is the name that it serves it by: ``--model`` says so as
    ``--served-model`` does. Raises InputError where the two say different things."""
    served = overrides["served_model"] or base.served_model
    model = overrides["model"] or (base.model if "model" in base.model_fields_set else None)
    if served and model and served != model:
        raise InputError(
            f"two names for the model at the address: {model!r} and {served!r}",
            hint="give one of them, with --model",
        )
    overrides["served_model"], overrides["model"] = served or model, None


def _behind(spec: RunSpec) -> str:
    """The backend for the server at the address, as it is recognised; the generic one for a
    server that is not. Where nobody answers the run will say so.

    Raises InputError for a server that wants a key, or is somewhere else."""
    from tokrig.run.detect import recognise
    from tokrig.run.prepare import endpoint

    try:
        found = recognise(endpoint(spec))
    except EngineError as error:
        if error.code in ("locked", "redirected", "no_tls"):
            raise InputError(error.message, hint=error.hint, code=error.code) from None
        found = None
    return found.name if found else "openai"
