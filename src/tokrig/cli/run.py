"""``tokrig run``: options, and what they ask for. The measuring itself is in ``measuring``."""

from __future__ import annotations

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

if TYPE_CHECKING:
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
    from tokrig.cli import measuring

    ctx = click.get_current_context()
    if discard is not None:
        _alone(ctx, "--discard", {"discard", "content", "as_json", "quiet"})
        measuring.discard(discard, as_json)
        return
    how = measuring.How(content=content, quiet=quiet, as_json=as_json, even_if_busy=even_if_busy)
    if resume is not None:
        _alone(ctx, "--resume", BESIDE_RESUME)
        how.content_was_given = _given(ctx, "content")
        measuring.resume(None if resume == NEWEST else resume, how, overrides)
        return
    wanted = _wanted(spec, overrides)
    if dry_run:
        from tokrig.cli import dry_run as dry
        from tokrig.measure import switches

        dry.print_plan(dry.foresee(wanted, datetime.now(UTC), switches(content)), as_json)
        return
    measuring.measure(wanted, how)


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

    if path is not None and path.suffix.lower() == ".gguf":
        raise InputError(f"{path} is a model, not a spec", hint=f"tokrig run --model {path}")
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
