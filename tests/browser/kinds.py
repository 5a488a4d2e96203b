"""One page of each kind, and a small site that has what the repository's own records lack."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.unit.compared import cell, measured, with_value
from tokrig.documents import dump
from tokrig.record.block import Summary
from tokrig.record.checks import judge_run
from tokrig.record.model import Erratum, Failure, Raw, Record, Skipped, record_text
from tokrig.site.build import build
from tokrig.store import Store

RIG = "geforce-rtx-5070-12gb"
OLD, NEW = "models/gemma-four.html", "models/gemma-4-e2b-it.html"
SWEEP = {"Q4_K_M": 3_000_000_000, "Q8_0": 5_000_000_000, "F16": 9_800_000_000}
FAILED = "20261122-130000-gemma-fail"
RAW = "20261122-140000-gemma-raw"
FACTS: dict[str, dict[str, Any]] = {
    "models/gemma-4.yaml": {
        "family": "Gemma-4",
        "released": "2026-04",
        "summary": "A family with a [link](https://example.org/gemma) and a table.\n\n"
        "| size | for |\n|---|---|\n| E2B | phones |\n",
        "variants": {"E2B-it": {"summary": "The small one.", "capabilities": ["text", "images"]}},
    },
    "redirects.yaml": {OLD: NEW},
}
PROSE = """---
name: A desktop
memory_bandwidth_bytes_per_s: {measured: 590.0e+9, theoretical: 672.0e+9, source: its maker}
---

A desktop with one card. See [the maker](https://example.org/card).
"""

REVERSED = ("codegen", "rag", "chat")
"""A record may have its shapes in any order; pages have one."""

CAMPAIGN = f"""\
title: What is missing
rig: {RIG}
models:
  gemma-4-e2b-it: {{repo: example/gemma, file: "gemma-{{quant}}.gguf"}}
  huge: {{repo: example/huge, file: huge.gguf, bytes: {{Q4_K_M: 90_000_000_000}}}}
  small: {{repo: example/small, file: small.gguf}}
rigs:
  strix-halo: {{title: Strix Halo, vram_gib: 96, memory_gib: 128}}
entries:
  - name: vulkan
    title: Vulkan on the other machine
    matrix: {{rig: strix-halo, model: gemma-4-e2b-it, quant: [Q4_K_M, Q8_0], backend: llamacpp}}
  - name: huge
    title: A model for a bigger card
    when: [fits_vram]
    matrix: {{model: huge, quant: Q4_K_M, backend: llamacpp, context: 4096}}
  - name: blocked
    title: FP8
    blocked: {{why: the engine does not start, until: a build that starts is out}}
    matrix: {{model: small, backend: vllm}}
"""


class Kind(NamedTuple):
    """A kind of page: the site it is on (the repository's own records, many made ones, few made
    ones), its address, and parts that all have to see, whether or not scripts run."""

    site: str
    path: str
    parts: tuple[str, ...] = ()

    @property
    def is_framed(self) -> bool:
        """Whether only a part of the page is shown, for a frame elsewhere."""
        return "?embed=" in self.path


RESULTS = "#results tbody .gen a"
KINDS = {
    "index": Kind(
        "own", "index.html", (RESULTS, ".bars .figure", ".hardware td.num", ".errata dd")
    ),
    "index with a file left out": Kind(
        "few", "index.html", (".warning li code", RESULTS, ".queue .command code")
    ),
    "long index": Kind("many", "index.html?machine=8gb&use=coding", (RESULTS,)),
    "what runs": Kind("many", "fits/8gb-agent.html", ("table.fits .gen", "table.fits .how")),
    "latency": Kind("own", "latency.html", ("#results .latency a", "#ttft svg")),
    "gpus": Kind("many", "gpus.html", (".gpus tbody th a", ".gpus .beside", ".gpus td.num")),
    "versus": Kind("many", "versus.html?a=rtx-5090&b=rtx-3090&concurrency=all", (".note p",)),
    "builds": Kind("few", f"builds.html?rig={RIG}", (".note p",)),
    "curves": Kind("own", "curves.html", (".view:not([hidden]) h2",)),
    "curves of many runs": Kind("many", "curves.html", (".view:not([hidden]) h2",)),
    "chart in a frame": Kind("few", f"{NEW}?embed=decode", ("#decode svg",)),
    "compare": Kind(
        "few", "compare.html?rows=sweep-q4_k_m~1,sweep-q8_0~1,sweep-f16~4~chat", (".facts dd",)
    ),
    "add": Kind("own", "add.html", (".steps .command code", "[data-size='12'] th a")),
    "gaps": Kind(
        "few",
        "gaps.html",
        (
            ".legend .state.stale",
            "#gaps-map .state.measured",
            "#gaps-map .state.queued",
            "#gaps-map .state.blocked",
            "#gaps-map .state.does_not_fit",
            "#gaps-map .state.never",
        ),
    ),
    "methodology": Kind("own", "methodology.html", ("#ttft_s td", ".contents a")),
    "data": Kind("own", "data.html", ("a[href='data/results.csv']", ".terms td")),
    "model": Kind(
        "few",
        NEW,
        (
            ".by-run td.num",
            "#decode svg",
            "#concurrency svg",
            f"#quants-{RIG} svg",
            f"#backends-{RIG} svg",
            "[aria-labelledby=raw] td.num",
        ),
    ),
    "model with one run": Kind("own", "models/lfm2-1.2b.html", (".by-run td.num", "#decode svg")),
    "rig": Kind("few", f"rigs/{RIG}.html", (".results .gen a", "#models-chat svg", ".facts dd")),
    "rig with one run": Kind(
        "own", "rigs/intel-xeon-processor-2c-24gb.html", (".results .gen a", "#decode svg")
    ),
    "run with samples": Kind(
        "own",
        "runs/20261122-183111-gemma-3-270m-q4_k_m-embedded-55a3.html",
        (
            "[aria-labelledby=results] td .mark",
            "#chunks svg",
            "#requests svg",
            "[aria-labelledby=fields] dd",
        ),
    ),
    "run without samples": Kind(
        "own",
        "runs/seed-lfm2-1.2b-q4_k_m.html",
        ("[aria-labelledby=results] td .mark", "[aria-labelledby=fields] dd"),
    ),
    "run of raw figures": Kind(
        "few",
        f"runs/{RAW}.html",
        ("[aria-labelledby=raw] td.num", "[aria-labelledby=fields] dd"),
    ),
    "failed run": Kind(
        "few",
        f"runs/{FAILED}.html",
        ("[aria-labelledby=failure] p code", "[aria-labelledby=fields] dd"),
    ),
}


def write(content: Path, records: Iterable[Record]) -> None:
    """Records without samples, as files of a content folder."""
    store = Store(content)
    for record in records:
        path = store.record_path(record)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record_text(record), encoding="utf-8")


def few_runs() -> Iterable[Record]:
    """A model in three quants at two concurrencies, on two backends; one run that failed, one of
    the engine's own benchmark."""
    plain = measured()
    for place, (quant, size) in enumerate(SWEEP.items()):
        record = with_value(plain, "id", f"sweep-{quant.lower()}")
        bits = 8 * size / (plain.model.parameters or 1)
        changed = {"quant": quant, "bytes": size, "sha256": str(place) * 64}
        changed["bits_per_weight"] = bits
        record = with_value(record, "model", plain.model.model_copy(update=changed))
        speeds = [(shape, level) for level in (1, 4) for shape in REVERSED]
        # The first and the second cannot be told apart in rag.
        cells = [
            cell(
                shape, level, 100.4 if (place, shape) == (1, "rag") else 100.0 - 30 * place / level
            )
            for shape, level in speeds
        ]
        yield with_value(record, "results", cells)
    other = with_value(with_value(plain, "id", "sweep-vulkan"), "backend.api", "vulkan")
    invalid = [cell("chat", speed=91.0), cell("rag", valid=False)]
    erratum = Erratum(date="2026-11-23", field="rig.kernel", text="Read after an update.")
    judged = with_value(other, "validity", judge_run(invalid, complete=True))
    yield with_value(with_value(judged, "results", invalid), "errata", [erratum])
    failure = Failure(code="engine_exited", message="it went", log_tail="out of memory\n" * 30)
    skipped = Skipped(workload="agent", concurrency=1, code="context", message="does not fit")
    failed = plain.model_copy(
        update={
            "id": FAILED,
            "status": "failed",
            "validity": judge_run([], complete=False),
            "results": [],
            "failure": failure,
            "skipped": [skipped],
        }
    )
    yield failed
    figures = [
        Raw(
            test="pp512",
            prompt_tokens=512,
            tok_per_s=Summary(median=2e3, min=1.9e3, max=2.1e3, n=5),
        ),
        Raw(test="tg128", output_tokens=128, tok_per_s=Summary(median=101, min=99, max=102, n=5)),
    ]
    yield plain.model_copy(
        update={
            "id": RAW,
            "results": [],
            "raw": figures,
            "backend": plain.backend.model_copy(update={"name": "llama-bench"}),
        }
    )


def build_few(folder: Path) -> Path:
    """The site of few made records, with prose, a redirect and a file that cannot be read."""
    content, out = folder / "content", folder / "site"
    write(content, few_runs())
    for name, facts in FACTS.items():
        path = content / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dump(facts), encoding="utf-8")
    (content / "rigs").mkdir()
    (content / "rigs" / f"{RIG}.md").write_text(PROSE, encoding="utf-8")
    (Store(content).runs / RIG / "broken.yaml").write_text("id: [\n", encoding="utf-8")
    (folder / "campaigns").mkdir()
    (folder / "campaigns" / "missing.yaml").write_text(CAMPAIGN, encoding="utf-8")
    build(content, out, keep_going=True, cache=folder / "cache")
    return out
