"""``tokrig run``: options, what they ask for, and the table at the end."""

from __future__ import annotations

import difflib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tokrig.cli.options import (
    Word,
    complete_backend,
    complete_model,
    complete_rig,
    complete_unfinished,
    complete_workload,
    content_and_json,
    even_if_busy,
    example,
    number_list,
    setting_options,
    word_list,
)
from tokrig.errors import EngineError, InputError
from tokrig.registry import program

if TYPE_CHECKING:
    from tokrig.cli.live import Watch
    from tokrig.measure import Ended
    from tokrig.spec.run import RunSpec

NEWEST = "newest"
LEVELS = ("quick", "standard", "publish")
# What may be given beside --resume: it changes nothing that is measured.
BESIDE_RESUME = {"content", "as_json", "quiet", "patience_s", "request_timeout_s", "resume",
                 "even_if_busy"}  # fmt: skip


@click.command(
    "run",
    epilog=example(
        "tokrig run",
        "tokrig run --model smollm2-135m --workload chat,agent --concurrency 1,4",
        "tokrig run --url http://127.0.0.1:8000 --level standard",
        "tokrig run --backend llamacpp --server-bin llama-server --model FILE.gguf",
        "tokrig run --model hf:OWNER/NAME/FILE-Q4_K_M.gguf --kv-type q8_0",
        "tokrig run --model FILE-F16.gguf --quantize Q6_K --power-cap 250",
    ),
)
@click.argument("spec", required=False, metavar="[SPEC.yaml]", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "-m",
    metavar="NAME|FILE.gguf|FOLDER|hf:OWNER/NAME[@REVISION][/FILE.gguf]",
    shell_complete=complete_model,
    help="A model of the catalog (tokrig doctor lists it), a file, a folder of safetensors, or a"
    " model of a hub, which is fetched; with --url its name there.  [default: gemma-3-270m]",
)
@click.option(
    "--backend",
    metavar="NAME",
    shell_complete=complete_backend,
    help="The engine.  [default: embedded; told by itself with --url; llamacpp with --server-bin]",
)
@click.option("--url", metavar="URL", help="Measure a server that is already running.")
@click.option("--server-bin", metavar="PATH", help="The llama-server to start.")
@click.option("--served-model", metavar="NAME", help="The same as --model, with --url.")
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    callback=word_list,
    metavar="NAME",
    shell_complete=complete_workload,
    help="Shapes: chat, rag, codegen, agent. Repeat it or use commas.  [default: all]",
)
@click.option(
    "--concurrency",
    multiple=True,
    callback=number_list,
    metavar="N",
    help="Requests in flight. Repeat it or use commas.  [default: the workload's own]",
)
@click.option(
    "--level",
    type=Word(LEVELS),
    help="How often: 1, 6 or 10 server starts of 3 iterations.  [default: quick]",
)
@setting_options
@click.option("--seed", type=int, metavar="N", help="Seed of sampling.  [default: 1]")
@click.option(
    "--patience",
    "patience_s",
    type=float,
    metavar="SECONDS",
    help="How long the engine may take to become ready.  [default: the engine's own]",
)
@click.option(
    "--request-timeout",
    "request_timeout_s",
    type=float,
    metavar="SECONDS",
    help="The longest wait for a token; heartbeats are none.  [default: 600]",
)
@click.option(
    "--rig",
    metavar="ID",
    shell_complete=complete_rig,
    help="Name of this machine in the record.  [default: made from its hardware]",
)
@click.option("--notes", metavar="TEXT", help="A remark that goes into the record.")
@click.option("--api-key-env", metavar="NAME", help="The environment variable with the key.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value=NEWEST,
    metavar="[RUN_ID]",
    shell_complete=complete_unfinished,
    help="Go on with an interrupted run; without an id with the newest.",
)
@click.option(
    "--discard",
    metavar="RUN_ID",
    shell_complete=complete_unfinished,
    help="Throw an interrupted run away.",
)
@even_if_busy
@click.option("--dry-run", is_flag=True, help="Print what would be measured; start nothing.")
@click.option("--quiet", "-q", is_flag=True, help="No progress and no notes.")
@content_and_json
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

    The table goes to stdout, progress and the record's path to stderr. Ctrl-C keeps what is
    measured; --resume goes on. A machine that something else loads is waited for, for a minute.
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
        if wanted is not None:
            _mention_unfinished(watch)
            ended = measure.begin(wanted, content, view=watch.view, tell=tell, start=watch.start)
        else:
            elsewhere = content if _given(ctx, "content") else None
            run_id, view, start = _unfinished(resume), watch.view, watch.start
            ended = measure.go_on(run_id, elsewhere, overrides, view=view, tell=tell, start=start)
    _tell(ended, as_json, quiet)


def _unfinished(wanted: str | None) -> str:
    """The run to go on with: the one that is named, else the newest."""
    from tokrig.run import journal

    unfinished = journal.unfinished()
    if wanted == NEWEST and not unfinished:
        raise InputError("there is no unfinished run", hint="begin one with: tokrig run")
    return unfinished[-1] if wanted == NEWEST or wanted is None else wanted


def _discard(run_id: str, as_json: bool) -> None:
    """Throw an unfinished run away."""
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
        many = "an unfinished run is" if len(kept) == 1 else "unfinished runs are"
        watch.note(
            f"{many} kept: {named}; go on with: {program()} run --resume ID, "
            f"or throw it away with: {program()} run --discard ID"
        )


def _tell(ended: Ended, as_json: bool, quiet: bool) -> None:
    """The result table on stdout. A run without any result has only its error to tell."""
    from tokrig.cli import present

    record = ended.record
    if as_json and ended.error is None:
        present.print_json({"path": str(ended.path), "record": present.record_json(record)})
    elif not as_json:
        out = present.console()
        if record.results:
            out.print(present.subject(record), style="bold", soft_wrap=True)
            out.print()
            present.print_results(out, record.results)
            out.print()
            out.print(present.caption(record), style="dim")
        present.print_skipped(out, record)
        if record.results:
            present.print_findings(out, record)
    if not quiet:
        click.echo(f"record: {ended.path}", err=True)
    if ended.error is not None:
        raise ended.error


def _given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _alone(ctx: click.Context, flag: str, allowed: set[str]) -> None:
    """Refuse options that would contradict the run that was begun."""
    for param in ctx.command.params:
        if param.name and param.name not in allowed and _given(ctx, param.name):
            what = param.opts[0] if isinstance(param, click.Option) else "a spec"
            raise InputError(
                f"{flag} takes no {what}: the run keeps what it was begun with",
                hint=f"leave {what} out, or begin anew without {flag}",
            )


def _wanted(path: Path | None, overrides: dict[str, Any]) -> RunSpec:
    """The spec file with the options on top, and the backend that they imply."""
    from tokrig.spec.run import RunSpec, load_spec, merge

    if path is not None:
        _refuse_model(path)
    base = RunSpec() if path is None else load_spec(path)
    if overrides["url"] or base.url:
        _name_served(base, overrides)
    told = overrides["backend"] is not None or "backend" in base.model_fields_set
    if not told and not (overrides["url"] or base.url):
        overrides["backend"] = "llamacpp" if overrides["server_bin"] or base.server_bin else None
    spec = merge(base, overrides)
    if spec.url and not told:
        spec = merge(spec, {"backend": _behind(spec)})
    return spec


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
    server that nobody knows. Where nobody answers the run will say so.

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
