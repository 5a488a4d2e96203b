"""``tokrig fit``: what runs on a machine, with how long a context, and how fast."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tokrig.cli.options import complete_model, complete_rig, completing, content_and_json, example
from tokrig.cli.present import NULL, bars, console, count, plain_table, print_json, put
from tokrig.errors import InputError, ModelError
from tokrig.naming import gpu_name, hardware_name, model_label, of_hub
from tokrig.units import bytes_of, human_bytes, human_rate, tokens_of

if TYPE_CHECKING:
    from tokrig.fit.estimate import Estimate, Estimator
    from tokrig.fit.evidence import Candidate
    from tokrig.fit.place import Machine, Overhead, Row
    from tokrig.record.model import Record, Rig

CONTEXT, FAST = "4k", 20.0
# GB/s: above what any memory of one machine has.
MOST_GB_PER_S = 1e6
LISTED = 5


def _size(ctx: click.Context, param: click.Parameter, given: str | None) -> int | None:
    try:
        return None if given is None else bytes_of(given)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


def _rate(ctx: click.Context, param: click.Parameter, given: str | None) -> float | None:
    if given is None:
        return None
    text = given.strip().removesuffix("GB/s").strip()
    with suppress(ValueError):
        if 0 < (number := float(text)) <= MOST_GB_PER_S:
            return number * 1e9
    raise click.BadParameter(f"should be a number of GB/s, such as 672, not {given!r}")


def _tokens(ctx: click.Context, param: click.Parameter, given: str) -> int:
    try:
        if (found := tokens_of(given)) > 0:
            return found
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None
    raise click.BadParameter("should be above 0")


def _cards(ctx: click.Context) -> list[str]:
    from tokrig.store import Store

    content = ctx.params.get("content") or ctx.lookup_default("content") or "content"
    records = (run.record for run in _load(Store(Path(content))))
    return sorted({gpu_name(gpu) for record in records for gpu in record.rig.gpus})


@click.command(
    "fit",
    epilog=example(
        "tokrig fit",
        "tokrig fit --vram 12GiB --bandwidth 672 --context 16k",
        "tokrig fit --gpu 5070 --model ./model-Q4_K_M.gguf",
        "tokrig fit --errors",
    ),
)
@click.option("--vram", metavar="SIZE", callback=_size, help="A card of so much memory: 12GiB.")
@click.option("--ram", metavar="SIZE", callback=_size, help="Main memory of so much: 32GiB.")
@click.option(
    "--bandwidth",
    metavar="GB/S",
    callback=_rate,
    help="What can be read a second of --vram, else of --ram.",
)
@click.option(
    "--rig", metavar="TEXT", shell_complete=complete_rig, help="A rig that has records, by its id."
)
@click.option(
    "--gpu", metavar="TEXT", shell_complete=completing(_cards), help="The same by its card: 5070."
)
@click.option(
    "--model",
    "-m",
    "models",
    multiple=True,
    metavar="MODEL",
    shell_complete=complete_model,
    help="A file, folder, catalog name, or hf:owner/name: its quants, asked of the hub. Repeatable."
    "  [default: the models of the records]",
)
@click.option(
    "--context",
    metavar="TOKENS",
    default=CONTEXT,
    show_default=True,
    callback=_tokens,
    help="The context that has to fit.",
)
@click.option(
    "--fast",
    type=click.FloatRange(min=0),
    default=FAST,
    show_default=True,
    metavar="TOK/S",
    help="What is fast enough: those come first, the largest at the top.",
)
@click.option("--all", "every", is_flag=True, help="Those that do not fit, too.")
@click.option("--errors", is_flag=True, help="How far off such estimates are over these records.")
@content_and_json
def command(content: Path, as_json: bool, errors: bool, every: bool, **asked: Any) -> None:
    """Tell what runs on a machine, how long its context, how fast.

    On this machine, on one of --vram, --ram and --bandwidth, or on one that has records (--rig,
    --gpu). What is expected rests on the records of the content folder: on this model here, on it
    elsewhere, or on like models; its interval holds nine of ten. Where they are too few nothing is
    expected. No network is used, unless a model of a hub is named.
    """
    from tokrig.fit.estimate import Estimator
    from tokrig.fit.evidence import candidates, overheads, points
    from tokrig.fit.place import overhead, rows
    from tokrig.store import Store
    from tokrig.store.facts import load_rigs

    store = Store(content)
    records = [run.record for run in _load(store)]
    facts = load_rigs(content)
    stated: dict[str, float] = {}
    for name, fact in facts.items():
        width = fact.memory_bandwidth_bytes_per_s
        if width and (rate := width.measured or width.theoretical):
            stated[name] = rate
    learnt = points(records, stated)
    decode, prefill = Estimator(learnt, "decode"), Estimator(learnt, "prefill")
    if errors:
        _tell_errors(decode, prefill, as_json)
        return
    machine = _machine(records, stated, asked)
    of_files = [found for name in asked["models"] for found in _named(name)]
    known = of_files if asked["models"] else candidates(records)
    if not known:
        raise InputError(
            f"no model is known: {content} has no records",
            hint="name one with --model, or measure one: tokrig run",
        )
    taken = {place: overhead(found) for place, found in overheads(records).items()}
    found = rows(
        known,
        machine,
        taken,
        decode,
        prefill,
        context=asked["context"],
        least=asked["fast"],
    )
    shown = [row for row in found if every or asked["models"] or row.where not in ("no", "unknown")]
    if as_json:
        print_json(_as_json(machine, taken[machine.place], found, asked))
        return
    _tell(machine, taken[machine.place], shown, found, asked)


def _load(store: Any) -> Sequence[Any]:
    from tokrig.compare.marked import load_marked

    with bars() as tell:
        return load_marked(
            store, keep_going=True, progress=lambda done, of: tell("records", done, of)
        ).runs


# The machine


def _machine(records: Sequence[Record], stated: dict[str, float], asked: dict[str, Any]) -> Machine:
    """The machine that is meant: described, one with records, or this one."""
    from tokrig.fit.place import Machine, machine_of

    figures = {name: asked[name] for name in ("vram", "ram", "bandwidth") if asked[name]}
    named = [name for name in ("rig", "gpu") if asked[name]]
    if named and (figures or len(named) > 1):
        other = "--gpu" if len(named) > 1 else f"--{next(iter(figures))}"
        raise InputError(
            f"--{named[0]} and {other} name two machines",
            hint="name a machine that has records, or describe one: --vram 12GiB --bandwidth 672",
        )
    if named:
        rig = _rig_of(records, named[0], asked[named[0]])
        return machine_of(rig, stated.get(rig.id))
    if figures.keys() == {"bandwidth"}:
        raise InputError("--bandwidth of what?", hint="give --vram SIZE too, or --ram SIZE")
    if not figures:
        from tokrig.rig import probe_rig

        rig = probe_rig()
        return machine_of(rig, stated.get(rig.id))
    vram, width = asked["vram"], asked["bandwidth"]
    return Machine(
        vram_bytes=vram,
        ram_bytes=asked["ram"],
        gpu_bytes_per_s=width if vram else None,
        cpu_bytes_per_s=None if vram else width,
    )


def _rig_of(records: Sequence[Record], what: str, text: str) -> Rig:
    """The one rig with records whose id, or whose card, has that text in it."""
    from tokrig.store.filters import holds

    rigs: dict[str, Rig] = {}
    for record in records:
        words = [record.rig.id] if what == "rig" else [gpu.name for gpu in record.rig.gpus]
        if any(holds(text, word) for word in words):
            rigs.setdefault(record.rig.id, record.rig)
    exact = [rig for rig in rigs.values() if rig.id == text] or list(rigs.values())
    if len(exact) == 1 or len({hardware_name(rig) for rig in exact}) == 1:
        return exact[0]
    if not exact:
        raise InputError(
            f"--{what}: no record is of {text!r}",
            hint="tokrig list shows the rigs; describe another: --vram 12GiB --bandwidth 672",
        )
    listed = ", ".join(sorted(rigs)[:LISTED])
    raise InputError(
        f"--{what}: {text!r} could be any of {len(exact)} rigs", hint=f"they are: {listed}"
    )


# Models by name


def _named(name: str) -> Iterator[Candidate]:
    """The models that a path, a catalog name or a reference to a hub stands for."""
    from tokrig.models import catalog

    if of_hub(name):
        yield from _of_repository(name)
        return
    yield _of_file(catalog.resolve(name))


def _of_file(path: Path) -> Candidate:
    from tokrig.fit.evidence import Candidate, model_key
    from tokrig.models.architecture import layout_of
    from tokrig.models.identity import identify
    from tokrig.models.needs import read_bytes_per_token

    model, layout = identify(path, sha256=False), layout_of(path)
    cache, state = None, 0
    if layout is not None:
        cache = tuple((part.bytes_per_token, part.window) for part in layout.kept())
        state = layout.state_bytes
    return Candidate(
        name=model_label(model),
        model=model_key(model),
        bytes=model.bytes,
        read_bytes=read_bytes_per_token(path),
        cache=cache,
        state_bytes=state,
        active_parameters=model.active_parameters or model.parameters,
        context_train=model.context_train,
        source="file",
    )


def _of_repository(name: str) -> Iterator[Candidate]:
    """Each model of a hub's repository by the size of its files, or the one that is named."""
    from tokrig.fit.evidence import Candidate
    from tokrig.models import hub
    from tokrig.models.gguf import part_names
    from tokrig.naming import Reference

    asked = Reference.parse(name)
    try:
        listings = [hub.listing_of(asked)]
    except ModelError:
        whole = hub.kept(asked) if asked.file is None else None
        if whole is None:
            raise
        listings = []
        for file in whole.files:
            first = part_names(file.name)[0]
            if file.name.endswith(".gguf") and file.name == first and "mmproj" not in file.name:
                one = Reference(asked.repo, asked.revision, file.name)
                listings.append(hub.wanted(one, whole))
        if not listings:
            raise
    for listing in listings:
        label = (listing.file or listing.repo).rpartition("/")[2].removesuffix(".gguf")
        yield Candidate(
            name=label,
            model=(listing.repo.casefold(), "", label.casefold()),
            bytes=sum(f.bytes for f in listing.files if f.name.endswith((".gguf", ".safetensors"))),
            read_bytes=None,
            source=str(listing),
        )


# What is told


def _tell(
    machine: Machine,
    taken: Overhead,
    shown: Sequence[Row],
    found: Sequence[Row],
    asked: dict[str, Any],
) -> None:
    out = console()
    click.echo(_machine_line(machine))
    table = plain_table(
        "model", "file", "where", "context", "tok/s", "90 %", "ceiling", "from",
        right=("file", "context", "tok/s", "ceiling"),
    )  # fmt: skip
    for row in shown:
        table.add_row(*_cells(row))
    if shown:
        put(out, table)
    for line in _notes(machine, taken, shown, found, asked):
        click.echo(line)


class _Texts(NamedTuple):
    rate: str
    interval: str
    basis: str


NAME_WIDTH = 30


def _cells(row: Row) -> tuple[str, ...]:
    one, told = row.candidate, _texts(row.decode)
    name = one.name if len(one.name) <= NAME_WIDTH else one.name[: NAME_WIDTH - 1] + "…"
    size = NULL if one.bytes is None else f"{one.bytes / 2**30:.2f}G"
    top = NULL if row.ceiling is None else human_rate(row.ceiling)
    context = "?" if row.context is None else _short(row.context)
    return (name, size, row.where, context, told.rate, told.interval, top, told.basis)


def _texts(found: Estimate | None) -> _Texts:
    if found is None:
        return _Texts(NULL, NULL, "")
    interval = NULL
    if found.low is not None and found.high is not None:
        interval = f"{_round(found.low)}–{_round(found.high)}"
    return _Texts(human_rate(found.tok_per_s), interval, f"{len(found.records)} {found.kind}")


def _round(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"


def _short(tokens: int) -> str:
    return f"{tokens // 1024}k" if tokens >= 1024 else str(tokens)


def _machine_line(machine: Machine) -> str:
    def of(size: int | None, rate: float | None, what: str) -> str:
        if not size:
            return ""
        return f"{human_bytes(size)} of {what}" + (f" at {rate / 1e9:.4g} GB/s" if rate else "")

    parts = [
        machine.hardware,
        of(machine.vram_bytes, machine.gpu_bytes_per_s, "VRAM"),
        of(machine.ram_bytes, machine.cpu_bytes_per_s, "RAM"),
    ]
    return "; ".join(filter(None, parts)) or "a machine of which nothing is known"


def _notes(
    machine: Machine,
    taken: Overhead,
    shown: Sequence[Row],
    found: Sequence[Row],
    asked: dict[str, Any],
) -> Iterator[str]:
    gone = {where: sum(row.where == where for row in found) for where in ("no", "unknown")}
    hidden = len(found) - len(shown)
    if not shown:
        yield "No model fits."
    if gone["no"] and hidden:
        yield f"{count(gone['no'], 'model')} beyond its memory at {_short(asked['context'])}: --all"
    if gone["unknown"]:
        yield f"{count(gone['unknown'], 'model')} of unknown size: their records tell no bytes"
    fast = sum(row.is_fast(asked["fast"]) for row in shown)
    if 0 < fast < len(shown):
        yield f"The first {fast} are expected to reach {asked['fast']:g} tok/s."
    if any(row.decode is None for row in shown):
        yield f"Without tok/s: {_why(machine)}"
    if any(row.context is None for row in shown):
        yield "Context ?: no record or header tells how the cache grows, and none is counted."
    basis = f"measured in {count(taken.records, 'record')}" if taken.records else "not measured yet"
    yield f"Beside weights and cache: {human_bytes(taken.bytes)} for the engine, {basis}."


def _why(machine: Machine) -> str:
    rate = machine.gpu_bytes_per_s if machine.vram_bytes else machine.cpu_bytes_per_s
    if rate is None and machine.hardware:
        return "too little data, and the bandwidth is not known (tokrig rig --bandwidth)."
    if rate is None:
        return "give --bandwidth too."
    return "too little data (tokrig fit --errors)."


def _tell_errors(decode: Estimator, prefill: Estimator, as_json: bool) -> None:
    """How far off each kind of estimate is over the records, each left out in turn."""
    from tokrig.fit.estimate import ERRORS_NEEDED, KINDS

    entries = []
    for of in (decode, prefill):
        for kind in KINDS:
            found = of.errors(kind)
            bound = None if found.bound is None else math.expm1(found.bound)
            entries.append((of.figure, kind, len(found.errors), found.median_share, bound))
    if as_json:
        keys = ("figure", "kind", "n", "median_error", "error_90")
        print_json({"errors": [dict(zip(keys, entry, strict=True)) for entry in entries]})
        return
    table = plain_table("figure", "from", "n", "median", "90 % within", right=("n", "median"))
    for figure, kind, n, middle, bound in entries:
        texts = [NULL if one is None else f"× {1 + one:.2f}" for one in (middle, bound)]
        within = f"too little data: {ERRORS_NEEDED} needed" if bound is None else texts[1]
        table.add_row(figure, kind, str(n), texts[0], within)
    put(console(), table)
    click.echo("here: this model on this hardware, record by record; elsewhere: this model,")
    click.echo("this hardware left out; like: other models, this family left out.")


def _as_json(
    machine: Machine, taken: Overhead, found: Sequence[Row], asked: dict[str, Any]
) -> dict[str, Any]:
    import dataclasses

    return {
        "machine": dataclasses.asdict(machine),
        "context": asked["context"],
        "overhead": taken._asdict(),
        "models": [
            {
                "model": row.candidate.name,
                "source": row.candidate.source,
                "bytes": row.candidate.bytes,
                "where": row.where,
                "needs_bytes": row.needs_bytes,
                "context": row.context,
                "fast_enough": row.is_fast(asked["fast"]),
                "ceiling_tok_per_s": row.ceiling,
                "decode": row.decode._asdict() if row.decode else None,
                "prefill": row.prefill._asdict() if row.prefill else None,
            }
            for row in found
        ],
    }
