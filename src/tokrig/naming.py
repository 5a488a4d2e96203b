"""What things are called: short names of models, machines, engines, their addresses, references.

Pure, and without the record's model, which takes a while to load. The same words everywhere:
the command line, the pages, the charts, the feed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

from tokrig.errors import ModelError
from tokrig.record.samples import tokens
from tokrig.spec.settings import SETTINGS, Setting
from tokrig.units import duration, human_rate, human_seconds, slug

if TYPE_CHECKING:
    from tokrig.record.block import Percentiles
    from tokrig.record.loads import Ladder, RateLimit, SessionFigures, Slo, Sustained
    from tokrig.record.model import BackendFacts, Cpu, Gpu, Memory, Record, Result, Rig

SHAPES = ("chat", "rag", "codegen", "agent")
"""tokrig's own shapes in the order in which people know them: everywhere, lists have this one."""
_VENDORS = re.compile(r"^(NVIDIA|AMD|Intel\(R\)|Intel|Apple)\s+")
_NOISE = re.compile(r"\((?:R|TM)\)|\b(?:CPU|Processor)\b|\s\d+-Core\b|@.*$")
MAX_SLUG = 80
# The id of every machine that nobody named: two such are never known to be the same one.
UNKNOWN_RIG = "unknown-rig"
# A limit that leaves all but this much of the memory takes nothing that counts.
NEGLIGIBLE_SHARE = 0.07


def shape_order(name: str) -> tuple[int, str]:
    """To sort shapes by: tokrig's own in their order, then others by name."""
    return (SHAPES.index(name) if name in SHAPES else len(SHAPES), name)


class Named(Protocol):
    """A model: of a record, or of a line in a list of records."""

    @property
    def family(self) -> str: ...

    @property
    def variant(self) -> str | None: ...

    @property
    def quant(self) -> str | None: ...


class Built(Protocol):
    """An engine, likewise."""

    @property
    def engine(self) -> str: ...

    @property
    def build(self) -> str | None: ...

    @property
    def api(self) -> str | None: ...


def model_name(model: Named) -> str:
    """``Gemma-4 E2B-it``; a family that ends in its variant is not said twice."""
    if model.variant is None or model.family.endswith(model.variant):
        return model.family
    return f"{model.family} {model.variant}"


def model_label(model: Named) -> str:
    """``Gemma-3 270m · Q4_K_M``."""
    return " · ".join(filter(None, (model_name(model), model.quant)))


def backend_name(backend: Built) -> str:
    """``llama.cpp b9174 (cuda)``."""
    name = " ".join(filter(None, (backend.engine, backend.build)))
    return f"{name} ({backend.api})" if backend.api else name


def gpu_name(gpu: Gpu) -> str:
    """``GeForce RTX 5070``: without the vendor, which the name implies; ``… MIG 1g.10gb`` where
    only a slice of the card was there."""
    mig = f" MIG {gpu.mig_profile}" if gpu.mig_profile else ""
    return _VENDORS.sub("", gpu.name) + mig


def cpu_name(rig: Rig) -> str:
    """``Ryzen 9 7900``; the id where the processor is not known."""
    model = rig.cpu.model
    if not model:
        return rig.id
    short = " ".join(_NOISE.sub(" ", model).split())
    return _VENDORS.sub("", short) or model


def limited_cpus(cpu: Cpu) -> float | None:
    """How many logical CPUs may be used where those are not all; else None."""
    usable = cpu.usable_cpus
    return usable if usable and cpu.threads and usable < cpu.threads else None


def limited_bytes(memory: Memory) -> int | None:
    """How much memory may be used where that is noticeably not all; else None."""
    usable, total = memory.usable_bytes, memory.total_bytes
    if not usable or (total is not None and usable > total * (1 - NEGLIGIBLE_SHARE)):
        return None
    return usable


def gpus_known(rig: Rig) -> bool:
    """Whether an empty list of cards means that there is none."""
    return bool(rig.gpus) or rig.facts_from in (None, "probes")


def hardware_name(rig: Rig) -> str:
    """``GeForce RTX 5070 · 12 GB``, ``2 × … each``, ``Radeon 8060S · 128 GB unified`` where cards
    use main memory, ``Ryzen 9 7900 · 32 GB RAM`` without a card; then how many CPUs could be used
    where a limit left less than there are."""
    if rig.id == UNKNOWN_RIG:
        return "machine not known"
    cpus = limited_cpus(rig.cpu)
    limit = f"{cpus:g} CPU{'' if cpus == 1 else 's'}" if cpus else ""
    if not rig.gpus:
        memory = limited_bytes(rig.memory) or rig.memory.total_bytes
        return _with_memory(" · ".join(filter(None, (cpu_name(rig), limit))), memory, " RAM")
    cards = [_card_name(rig, gpu) for gpu in rig.gpus]
    alike = len(cards) > 1 and len(set(cards)) == 1
    named = f"{len(cards)} × {cards[0]} each" if alike else " + ".join(cards)
    return " · ".join(filter(None, (named, limit)))


def _card_name(rig: Rig, gpu: Gpu) -> str:
    """Of graphics that use main memory, all of it is told: people buy the machine by it. What
    firmware sets aside for an AMD processor's graphics, the kernel does not count as memory."""
    name, own, main = gpu_name(gpu), gpu.vram_bytes, rig.memory.total_bytes
    if not gpu.unified_memory:
        return _with_memory(name, own)
    aside = own or 0 if main and gpu.vendor == "amd" else 0
    return _with_memory(name, (main or own or 0) + aside or None, " unified")


def _with_memory(name: str, count: int | None, kind: str = "") -> str:
    """``H100 80GB HBM3`` tells it already."""
    if count is None:
        return name
    size = memory_text(count)
    if not kind and re.search(rf"(?<![\w.]){size.replace(' ', ' ?')}\b", name, re.IGNORECASE):
        return name
    return f"{name} · {size}{kind}"


# Sizes in which memory is sold, in GB. What is read is up to a tenth less: reserved for error
# correction (an L40S of 48 GB shows 45.0 GiB), firmware or a processor's graphics.
_SOLD = (
    *range(1, 13), 16, 20, 24, 32, 36, 40, 48, 64, 80, 96, 112, 128, 141, 144, 160, 180, 192, 256,
    288, 320, 384, 512, 640, 768, 1024, 1536, 2048, 3072, 4096,
)  # fmt: skip
_LEAST_SHOWN = 0.9


def memory_gb(count: int) -> int:
    """Bytes of a memory as people name it, in GB: 12 for 11.94 GiB, 48 for 45.0 GiB; at least 1."""
    size = count / 2**30
    sold = next((one for one in _SOLD if size <= one * 1.01), None)
    return sold if sold and size >= sold * _LEAST_SHOWN else max(1, round(size))


def memory_text(count: int) -> str:
    """The same with its unit: ``12 GB``, ``1.5 TB``, ``512 MB``."""
    if count < _LEAST_SHOWN * 2**30:
        return f"{max(1, round(count / 2**20))} MB"
    size = memory_gb(count)
    return f"{size / 1024:g} TB" if size % 512 == 0 and size >= 1024 else f"{size} GB"


def vram_gb(rig: Rig) -> int | None:
    """The memory of all cards as people name it, in GB; 0 without a card, None where it is not
    known. Of a processor's graphics that use main memory: what they may use of it."""
    if not rig.gpus:
        return 0 if gpus_known(rig) else None
    sizes = [memory_gb(gpu.vram_bytes) for gpu in rig.gpus if gpu.vram_bytes]
    return sum(sizes) if len(sizes) == len(rig.gpus) else None


def power_share(gpu: Gpu) -> float | None:
    """Power limit now / highest limit, 0 … 1; None where either is unknown."""
    if gpu.power_limit_w is None or not gpu.power_max_w:
        return None
    return gpu.power_limit_w / gpu.power_max_w


# What Markdown, HTML or a forum would act upon: tables, tags, mentions of people, issues.
_ACTIVE = {ord(char): f"&#{ord(char)};" for char in "|<>&*`[]#@~\\"}


def in_markdown(text: str) -> str:
    """A text of a stranger's in one line of Markdown, where it does nothing but stand there."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(shown.split()).translate(_ACTIVE)


def address(text: str) -> str:
    """A name as part of an address: lower case, hyphens, at most 80 characters.

    Names that differ only in what an address cannot hold get a piece of their digest, so that
    two models never share a page: ``slug("Ä") == slug("Ö")``, ``address("Ä") != address("Ö")``.
    """
    plain = slug(text)
    if len(plain) <= MAX_SLUG and re.fullmatch(r"[A-Za-z0-9._ -]+", text):
        return plain
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain[:MAX_SLUG]}-{digest}"


def filter_word(text: str) -> str:
    """A name as the value of a filter: ``llama.cpp-b9174-cuda``. Two names that differ only in
    marks share it, and then a filter lets both through."""
    return slug(text)[:MAX_SLUG]


def model_address(model: Named) -> str:
    """The page of a model: ``gemma-4-e2b-it``."""
    return address(model_name(model))


# Modes and backends

BASELINE = "baseline"
# Parts of a mode's name; other parts, such as a power profile, are called what they are.
_MODE_PARTS = {
    setting.part.format(choice): setting.say(choice)
    for setting in SETTINGS.values()
    if setting.part
    for choice in setting.choices
}


def mode_name(name: str) -> str:
    """``n-gram speculation, reasoning off`` for ``ngram+reasoning-off``."""
    return ", ".join(_MODE_PARTS.get(part, part) for part in re.split(r"\s*\+\s*", name))


def mode_label(name: str) -> str:
    """The same, and nothing for the baseline, which is the absence of a mode."""
    return "" if name == BASELINE else mode_name(name)


def accepted_percent(result: Result) -> int | None:
    """Accepted / drafted tokens in whole percent; None where nothing was drafted."""
    found = result.speculative
    if found is None or not found.drafted_tokens:
        return None
    return round(100 * found.accepted_tokens / found.drafted_tokens)


def mode_accepted(name: str, results: Iterable[Result]) -> str:
    """``n-gram speculation, 52 % accepted``, ``… 31–64 % accepted`` over several shapes; nothing
    for the baseline."""
    shares = sorted(share for one in results if (share := accepted_percent(one)) is not None)
    called = mode_label(name)
    if not called or not shares:
        return called
    return f"{called}, {'–'.join(map(str, dict.fromkeys((shares[0], shares[-1]))))} % accepted"


def backend_label(backend: BackendFacts) -> str:
    """``llama.cpp b9174 (vulkan) via lemonade 11.7.0``, ``llama.cpp b9174 (cpu, vulkan asked)``.

    What was asked for is said only where something else computed.
    """
    asked = backend.api_asked
    if asked not in (None, backend.api):
        api = ", ".join(filter(None, (backend.api, f"{asked} asked")))
        backend = backend.model_copy(update={"api": api})
    name = backend_name(backend)
    return f"{name} via {backend.wrapper}" if backend.wrapper else name


# What tells runs apart that would otherwise be called the same


def full_name(record: Record) -> tuple[str, ...]:
    """What a run is called everywhere: model, quant, machine, engine, mode."""
    return (
        model_name(record.model),
        record.model.quant or "",
        hardware_name(record.rig),
        backend_label(record.backend),
        mode_label(record.mode.name),
    )


def details(record: Record) -> tuple[str, ...]:
    """The settings behind a name, each in its place; "" where one is not known."""
    found, gpu = record.backend.resolved, next(iter(record.rig.gpus), None)
    return (
        _said("by {}", record.model.quant_creator),
        *(_found(setting, record) for setting in SETTINGS.values()),
        _said("flash attention {}", found.flash_attention),
        _said("{}", found.dtype),
        _said("{:.0f} W", gpu.power_limit_w if gpu else None),
        _said("driver {}", gpu.driver if gpu else None),
        _said("kernel {}", record.rig.kernel),
        _said("rig {}", record.rig.id),
    )


def _found(setting: Setting, record: Record) -> str:
    values = [attrgetter(path)(record) for path in setting.found]
    known = [value for value in values if value not in (None, "", [])]
    if len(values) > 1:
        known = ["/".join(dict.fromkeys(map(str, known)))] if known else []
    return setting.say(known[0]) if known else ""


def apart(runs: Iterable[Record]) -> dict[str, str]:
    """By run id, what tells it apart from the other runs of its name: ``KV q8_0, 4 threads``,
    ``2026-11-22 18:31``. Runs whose name nobody else has are left out."""
    by_name: dict[tuple[str, ...], list[Record]] = {}
    for run in runs:
        by_name.setdefault(full_name(run), []).append(run)
    found: dict[str, str] = {}
    for alike in by_name.values():
        if len(alike) > 1:
            found.update(zip((run.id for run in alike), _apart(alike), strict=True))
    return found


def _apart(runs: Sequence[Record]) -> list[str]:
    columns = zip(*(details(run) for run in runs), strict=True)
    differing = [column for column in columns if len(set(column)) > 1]
    words = [", ".join(filter(None, row)) for row in zip(*differing, strict=True)]
    words = words or [""] * len(runs)
    started = [run.provenance.started_at or "" for run in runs]
    for more in (
        _options(runs),
        [time[:10] for time in started],
        [time[11:16] for time in started],
        [run.id.rpartition("-")[2] for run in runs],
    ):
        counts = Counter(words)
        words = [
            ", ".join(filter(None, (word, one))) if counts[word] > 1 else word
            for word, one in zip(words, more, strict=True)
        ]
    return words


def _options(runs: Sequence[Record]) -> list[str]:
    """Of each run the options of its engine's command line that not all of them have, where a
    server listens left out: ``--no-mmap``, ``-ot exps=CPU``."""
    each = []
    for run in runs:
        options: list[str] = []
        for word in run.backend.argv or []:
            if word.startswith("-"):
                options.append(word)
            elif word.startswith("{"):
                options = _handed(word)
            elif options:
                options[-1] += f" {word}"
        each.append(dict.fromkeys(one for one in options if not one.startswith("--port")))
    # A command line that is not known says nothing of how the others differ.
    common = set.intersection(*map(set, filter(None, each))) if any(each) else set()
    return [", ".join(one for one in options if one not in common) for options in each]


def _handed(word: str) -> list[str]:
    """What an engine is handed as one object, as options: ``slots 16``. Model and context have
    their own words, and a port is none of a run's."""
    try:
        found = json.loads(word)
    except (ValueError, RecursionError):
        return [word]
    given = {name: found[name] for name in found.keys() - {"model", "port", "context"}}
    return sorted(
        f"{name.replace('_', ' ')}{'' if value is True else f' {value}'}"
        for name, value in given.items()
        if value is not None
    )


def _said(text: str, value: object) -> str:
    return "" if value is None or value == "" else text.format(value)


def for_scripts() -> dict[str, Any]:
    """What a script needs to call things the same: patterns, sizes, words of modes."""
    return {
        "vendors": _VENDORS.pattern,
        "noise": _NOISE.pattern,
        "unknown_rig": UNKNOWN_RIG,
        "negligible": NEGLIGIBLE_SHARE,
        "sold": _SOLD,
        "least_shown": _LEAST_SHOWN,
        "active": [chr(code) for code in _ACTIVE],
        "longest": MAX_SLUG,
        "modes": _MODE_PARTS,
    }


# References: ``hf:owner/name[@revision][/file.gguf]`` is how a model of a hub is written down

SCHEME = "hf:"
_REFERENCE = re.compile(
    r"hf:(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[^/@\s]{0,127}))?(?:/(?P<file>.+))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A model of a hub: a GGUF file, or without a file a repository's folder of safetensors."""

    repo: str
    revision: str = "main"
    file: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{SCHEME}{self.repo}{revision}{f'/{self.file}' if self.file else ''}"

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The parts of ``text``. Raises ModelError where it is no such reference."""
        match = _REFERENCE.fullmatch(text.strip())
        if match is None or "--" in match["repo"] or ".." in match["repo"]:
            raise ModelError(
                f"{text!r} is not a reference to a model on a hub",
                hint="write hf:owner/name/FILE.gguf, or hf:owner/name for a folder of safetensors; "
                "@revision may follow the name",
            )
        file = match["file"]
        if file is not None and not (file.endswith(".gguf") and stays_inside(file)):
            raise ModelError(
                f"{text!r}: {file!r} is not a GGUF file in a repository",
                hint="name a .gguf file, or the repository alone for its safetensors",
            )
        return cls(match["repo"], match["revision"] or "main", file)


def of_hub(text: str) -> bool:
    """Whether ``text`` is meant as a model of a hub, a broken one included."""
    return text.strip().startswith(SCHEME)


def stays_inside(name: str) -> bool:
    """Whether a file's name is plain and cannot lead out of its repository."""
    return name.isprintable() and not {"", ".", ".."} & {*name.split("/")}


_ENDS = {
    "growth": "ends at {0}: the system rate no longer grew by 5 %",
    "slots": "ends at {0}: more requests would wait for a slot",
    "most": "ends at {0}, the highest step there was to be",
    "failed": "ends at {0}: the next step could not be measured",
    None: "was cut off at {0}",
}


def session_cache(found: SessionFigures) -> str:
    """What became of their prompts: ``84.1 % of the prompt tokens came from the cache``."""
    from tokrig.record.sessions import without_cache

    if found.hit_rate is None:
        return "the engine does not tell what came from its prompt cache"
    if without_cache(found):
        return (
            "every prompt was read whole: the engine has no prompt cache, or it is switched off, or"
            " the chat template changes the beginning from turn to turn"
        )
    most = found.reusable_share
    could = "" if most is None else f", where {100 * most:.1f} % could have"
    return f"{100 * found.hit_rate:.1f} % of the prompt tokens came from the cache{could}"


def ladder_end(ladder: Ladder) -> str:
    """``ends at 16: the system rate no longer grew by 5 %; its knee is at 8``."""
    knee = f"its knee is at {ladder.knee}" if ladder.knee else "its knee is not known"
    return f"{_ENDS[ladder.ended_by].format(ladder.steps[-1])}; {knee}"


_CAUSES = {
    "heat": "the clocks fell to {clock:.0f} %: heat held them down",
    "slowdown": "the clocks fell to {clock:.0f} %: a slowdown or a power brake held them down",
    "power_limit": "the clocks fell to {clock:.0f} %: the power limit held them down",
    "clocks_fell": "the clocks fell to {clock:.0f} %, and nothing says why",
    "same_clocks": "the rate fell, and the clocks did not",
    "unknown": "the rate fell; why is not known, for nothing tells the clocks here",
    None: "neither the rate nor the clocks fell",
}


def sustained_lines(found: Sustained) -> tuple[str, str]:
    """What became of the rate, and why: ``842 tok/s in the first minute of 10m, 790 in the last:
    94 %``."""
    window = "minute" if found.window_s == 60 else f"{found.window_s:.3g} s"
    first, last = map(human_rate, (found.tok_per_s_first, found.tok_per_s_last))
    share = "" if found.last_over_first is None else f": {100 * found.last_over_first:.1f} %"
    lasted = duration(round(found.seconds, 1))
    told = f"{first} tok/s in the first {window} of {lasted}, {last} in the last"
    return told + share, _CAUSES[found.cause].format(clock=100 * (found.clock_last_over_first or 1))


def depth_curves(record: Record) -> list[list[Result]]:
    """The results of a workload at a concurrency over several depths, the shallowest first, of
    each that was measured at more than one."""
    found: dict[tuple[str, int], list[Result]] = {}
    for result in record.results:
        if result.load == "closed":
            found.setdefault((result.workload.name, result.concurrency), []).append(result)
    curves = (sorted(of, key=lambda result: result.depth_tokens) for of in found.values())
    return [curve for curve in curves if len(curve) > 1]


def of_first(curve: Sequence[Result]) -> list[float | None]:
    """The decode rates of a curve as shares of its first one; None where either is not known."""
    rates = [one.output_tok_per_s.median if one.output_tok_per_s else None for one in curve]
    return [rate / rates[0] if rate and rates[0] else None for rate in rates]


def depth_line(curve: Sequence[Result]) -> str:
    """``chat × 1: 52.3 tok/s at depth 0, 47.1 at 4k (90 %), 39.9 at 16k (76 %)``."""
    told: list[str] = []
    for result, share in zip(curve, of_first(curve), strict=True):
        rate = result.output_tok_per_s.median if result.output_tok_per_s else None
        unit, at = ("", " at") if told else (" tok/s", " at depth")
        of = f" ({100 * share:.0f} %)" if told and share is not None else ""
        told.append(f"{human_rate(rate)}{unit}{at} {tokens(result.depth_tokens)}{of}")
    first = curve[0]
    return f"{first.workload.name} × {first.concurrency}: {', '.join(told)}"


# Requests that arrive by themselves

LIMITS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "end to end"}


def slo_text(slo: Slo | None) -> str:
    """``TTFT ≤ 500 ms, TPOT ≤ 50 ms``; nothing without limits."""
    limits = dict(slo) if slo else {}
    return ", ".join(
        f"{LIMITS[name]} ≤ {human_seconds(limit)}" for name, limit in limits.items() if limit
    )


def rate_limit_text(found: RateLimit, results: Iterable[Result]) -> str:
    """``chat, poisson: up to 2.38 requests/s meet TTFT ≤ 500 ms, 2.45/s do not (9 rates)``."""
    slos = (r.arrivals.slo for r in results if r.rate_per_s and r.arrivals and r.load == found.load)
    limits, shape = slo_text(next(slos, None)), found.load_shape
    tried = f"{found.rates} rates tried"
    if found.rate_per_s is None:
        return f"{shape}: not even {found.missed_per_s:g} requests/s meet {limits} ({tried})"
    more = "no higher one was tried"
    if found.missed_per_s is not None:
        more = f"{found.missed_per_s:g}/s do not"
    return f"{shape}: {found.rate_per_s:g} requests/s meet {limits}, {more} ({tried})"


OPEN_LOOP = ("load", "sent/s", "answered/s", "TTFT p50", "TTFT high", "latency p50", "TPOT p50",
             "lag p50", "in flight", "SLO met")  # fmt: skip
"""Columns of results of requests that arrived by themselves; all but the first are numbers."""


def open_loop_row(result: Result) -> tuple[str, ...]:
    """The cells of ``OPEN_LOOP``; empty where something is not known."""
    found = result.open_loop
    assert found is not None
    met = found.goodput_share
    overloaded = ", overloaded" if found.overloaded else ""
    return (
        f"{result.cell.label}{overloaded}",
        human_rate(found.sent_per_s),
        human_rate(found.completed_per_s),
        _at(found.ttft_s, "p50"),
        _highest(found.ttft_s),
        _at(found.latency_s, "p50"),
        _at(found.tpot_s, "p50"),
        _at(found.lag_s, "p50"),
        str(found.in_flight_max),
        "" if met is None else f"{100 * met:.1f} %",
    )


def _at(found: Percentiles | None, name: str) -> str:
    value = getattr(found, name, None)
    return "" if value is None else human_seconds(value)


def _highest(found: Percentiles | None) -> str:
    """The highest percentile for which there are enough values, else the longest of all."""
    for name in ("p99", "p95", "p90", "max"):
        if text := _at(found, name):
            return f"{text} ({name})"
    return ""
