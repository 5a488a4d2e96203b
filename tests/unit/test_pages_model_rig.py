"""The pages of models and rigs and the latency view, from the committed records and made ones."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tokrig.record.block import Summary
from tokrig.record.model import (
    BackendFacts,
    Erratum,
    Failure,
    Gpu,
    Model,
    Provenance,
    Record,
    Result,
    Rig,
    Validity,
    WorkloadFacts,
)
from tokrig.site import Output, Page, table
from tokrig.site.build import open_site
from tokrig.site.context import Site
from tokrig.site.pages import latency, model, rig
from tokrig.store import Store
from tokrig.store.facts import Family, Rate, RigFacts, Variant
from tokrig.store.load import Run

ROOT = Path(__file__).parents[2]
COLUMNS_JS = ROOT / "src" / "tokrig" / "site" / "static" / "table-columns.js"
REAL = "models/gemma-3-270m.html"
SEED = "models/gemma-4-e4b-it.html"
REAL_RIG = "rigs/intel-xeon-processor-2c-24gb.html"
NEWER_RIG = "rigs/amd-epyc-2c-24gb.html"
SEED_RIG = "rigs/geforce-rtx-5070-12gb.html"
HOSTILE = "</script><script>alert('1')</script>\"'\u202e"
VALID = Validity(verdict="valid")
INVALID = Validity(verdict="invalid", reasons=["cached_tokens"])


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return open_site(ROOT / "content", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def pages(committed: Site) -> dict[str, str]:
    """The pages that these tests look at, rendered once."""
    kinds: Sequence[Page] = (model.PAGE, rig.PAGE, latency.PAGE)
    looked_at = {REAL, SEED, SEED_RIG, REAL_RIG, "latency.html"}
    return {
        output.path: output.render().decode()
        for kind in kinds
        for output in kind(committed)
        if output.path in looked_at
    }


def site_of(*runs: Run, **facts: Any) -> Site:
    known: dict[str, Any] = {"families": {}, "rigs": {}, "redirects": {}} | facts
    return Site(Store(Path("nowhere")), runs, **known)


def metric(median: float) -> Summary:
    return Summary(median=median, min=median * 0.98, max=median * 1.02, n=3)


def result(
    shape: str = "chat",
    *,
    gen: float = 40.0,
    ttft: float | None = 0.2,
    concurrency: int = 1,
    validity: Validity = VALID,
) -> Result:
    return Result(
        workload=WorkloadFacts(name=shape),
        concurrency=concurrency,
        validity=validity,
        output_tok_per_s=metric(gen),
        ttft_s=None if ttft is None else metric(ttft),
    )


def run(run_id: str, *results: Result, text: str = "Tiny", **changes: Any) -> Run:
    """A run whose every name is ``text``; ``changes`` are other blocks of its record."""
    blocks: dict[str, Any] = {
        "status": "complete",
        "validity": VALID,
        "provenance": Provenance(kind="measured", level="standard", source=text),
        "model": Model(family=text, variant="1B", quant="Q4_K_M", quant_creator=text, file=text),
        "rig": Rig(id="desk", gpus=[Gpu(name=text, vendor="nvidia", driver="1")], os=text),
        "backend": BackendFacts(name="llamacpp", engine=text, build="b1", api="cuda"),
        "results": list(results),
    }
    record = Record(id=run_id, **(blocks | changes))
    return Run(record, f"desk/{run_id}.yaml", digest=f"digest of {run_id}")


def outputs(page: Page, site: Site) -> dict[str, Output]:
    return {output.path: output for output in page(site)}


def html(page: Page, site: Site, path: str) -> str:
    return outputs(page, site)[path].render().decode()


def seen(source: str) -> str:
    """The page's texts, one space between words."""
    body = re.sub(r"<(svg|details|script)\b.*?</\1>", " ", source, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def section(source: str, heading: str) -> str:
    """What stands between a heading and the next one of its level or above."""
    title = re.search(rf"<h([23])[^>]*>(<a [^>]*>)?{heading}.*?</h\1>", source)
    assert title, heading
    rest = source[title.end() :]
    end = re.search(rf"<h[2-{title[1]}]\b|</main>", rest)
    return rest[: end.start()] if end else rest


class _Outline(HTMLParser):
    """Ids, links and heading levels of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.levels: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.ids += [named["id"] or ""] if "id" in named else []
        self.links += [named["href"] or ""] if tag == "a" else []
        self.levels += [int(tag[1])] if re.fullmatch(r"h\d", tag) else []


# The committed records


def test_every_model_and_rig_has_a_page(committed: Site) -> None:
    models = {(run.record.model.family, run.record.model.variant) for run in committed.runs}
    assert len(outputs(model.PAGE, committed)) == len(models)
    assert {SEED, REAL} < outputs(model.PAGE, committed).keys()
    assert set(outputs(rig.PAGE, committed)) == {SEED_RIG, REAL_RIG, NEWER_RIG}


def test_facts_of_the_real_model(pages: dict[str, str]) -> None:
    text = seen(pages[REAL])
    for fact in ("Gemma-3 · released 2025-03", "268 million", "gemma3", "32,768 tokens"):
        assert fact in text
    assert re.search(r"seen in 0 of \d+ runs that looked", text)
    assert "not known capabilities, checkpoint" in text
    assert "gemma-3-270m-q4_k_m.gguf gguf 0.25 GB 7.36 a5fd3b62230a… " in text


def test_figures_of_the_real_run(pages: dict[str, str]) -> None:
    runs = seen(section(pages[REAL], "All runs"))
    assert "chat 1 35.0 34.8–35.3 range 32.6 238.1 274 ms 273 ms–298 ms range 29 ms 64 128" in runs
    assert "3.92 s 0.50 GB RAM" in runs


def test_drop_compares_the_same_shape(pages: dict[str, str]) -> None:
    drop = seen(section(pages[REAL], "From one request"))
    assert "agent 1 → 4 32.5 → 8.39 ×0.26 17.5 → 23.5 ×1.34 6.81 s → 13.45 s" in drop


def test_a_transcribed_model_says_what_is_missing(pages: dict[str, str]) -> None:
    page = pages[SEED]
    text = seen(page)
    assert "No run of this model has one shape at two concurrencies yet" in text
    assert "variant E4B-it parameters about 4 billion, by its name" in text
    assert "not known architecture, context" in text
    assert "transcribed" in section(page, "All runs")
    assert "Currently Vulkan-only" in section(page, "Errata")


def test_rig_page_of_the_seed(pages: dict[str, str]) -> None:
    page = pages[SEED_RIG]
    names = re.findall(r'<span class="name">(.*?)</span>', page)
    expected = "Gemma-4 granite-4.1 LFM2.5-350M LFM2 Gemma-3 Qwen2.5-Coder"
    assert names == expected.split()
    assert "250 W / 300 W max (83 %)" in seen(page)
    assert "206.5–216.7" in seen(section(page, "All runs"))
    assert page.count("<figure") == 4
    assert page.count("Currently Vulkan-only") == 1 + page.count("stands on its page\nThe page")


def test_pages_are_sound_and_link_to_what_is_there(committed: Site, pages: dict[str, str]) -> None:
    there = {f"runs/{one.id}.html" for one in committed.runs}
    there |= outputs(model.PAGE, committed).keys() | outputs(rig.PAGE, committed).keys()
    for path, source in pages.items():
        outline = _Outline()
        outline.feed(source)
        assert len(set(outline.ids)) == len(outline.ids), path
        assert outline.levels[0] == 1
        steps = zip(outline.levels, outline.levels[1:], strict=False)
        assert all(after <= before + 1 for before, after in steps), path
        links = {link for link in outline.links if not link.startswith("#")}
        targets = {posixpath.join(posixpath.dirname(path), link) for link in links}
        inside = {posixpath.normpath(target) for target in targets}
        mine = {target for target in inside if re.match(r"(models|rigs|runs)/", target)}
        assert mine and mine <= there, path


# Made records


def test_total_is_output_length_by_end_to_end_rate() -> None:
    known = result().model_copy(
        update={"output_tokens": metric(128), "end_to_end_tok_per_s": metric(32)}
    )
    assert model.total_s(known) == 4.0
    assert model.total_s(result()) is None


def test_steps_leave_out_the_invalid_and_other_shapes() -> None:
    results = [
        result("agent", gen=40, concurrency=4),
        result("agent", gen=100),
        result("agent", gen=25, concurrency=8),
        result("chat", gen=90, concurrency=4, validity=INVALID),
        result("chat", gen=100),
        result("rag", gen=50, concurrency=4),
    ]
    found = model.steps(run("a").record, results)
    assert [(s.few.workload.name, s.few.concurrency, s.more.concurrency) for s in found] == [
        ("agent", 1, 4),
        ("agent", 1, 8),
    ]
    assert [s.each.value for s in found] == [0.4, 0.25]
    assert found[0].together.value is None


def test_invalid_results_stand_apart_with_their_reasons() -> None:
    site = site_of(run("a", result(gen=40.0), result("rag", gen=77.7, validity=INVALID)))
    page = html(model.PAGE, site, "models/tiny-1b.html")
    headlines, kept = page.split("Invalid results</h3>")
    assert "77.7" not in headlines
    assert "77.7" in kept and "cached tokens" in kept
    of_rig = section(html(rig.PAGE, site, "rigs/desk.html"), "With invalid")
    assert "rag at 1, cached tokens" in seen(of_rig)
    assert "mark invalid" not in html(rig.PAGE, site, "rigs/desk.html")
    assert "77.7" not in html(latency.PAGE, site, "latency.html")


@pytest.mark.parametrize(
    ("page", "path"), [(model.PAGE, "models/tiny-1b.html"), (rig.PAGE, "rigs/desk.html")]
)
def test_failed_runs_are_listed_with_their_reason(page: Page, path: str) -> None:
    failure = Failure(code="engine_died", message="out of memory at layer 7")
    source = html(page, site_of(run("a", status="failed", failure=failure)), path)
    assert "failed out of memory at layer 7" in seen(section(source, "Failed, interrupted"))
    assert "No valid result yet" in source
    assert "<figure" not in source


def test_rows_can_be_picked_and_lead_to_their_runs() -> None:
    site = site_of(run("a", result(), result(concurrency=4)))
    page = html(model.PAGE, site, "models/tiny-1b.html")
    assert re.findall(r'data-pick="(.*?)"', page) == ["a~1~chat", "a~4~chat"]
    assert '<a href="../runs/a.html">chat</a>' in page
    page = html(rig.PAGE, site, "rigs/desk.html")
    assert re.findall(r'data-pick="(.*?)"', page) == ["a~1", "a~4"]


def test_files_of_weights_and_what_is_written_about_the_model() -> None:
    known: dict[str, Any] = {"family": "Tiny", "variant": "1B", "parameters": 8_300_000_000}
    small = Model(quant="Q4_K_M", bytes=4_000_000_000, sha256="a" * 64, **known)
    large = Model(quant="Q8_0", bytes=8_000_000_000, active_parameters=1_500_000_000, **known)
    runs = [run("a", model=large), run("b", model=small), run("c", model=small)]
    variant = Variant(checkpoint="tiny/1b", commit="c0ffee", capabilities=["text", "images"])
    family = Family(family="Tiny", summary="A *small* one.", variants={"1B": variant})
    page = html(model.PAGE, site_of(*runs, families={"Tiny": family}), "models/tiny-1b.html")
    text = seen(page)
    assert "8.3 billion, 1.5 billion active, 8.3 billion" in text
    assert "tiny/1b @ c0ffee" in text and "text, images" in text
    assert "<p>A <em>small</em> one.</p>" in page
    assert re.findall(r"(Q\S+) – – – (\S+)", text) == [("Q4_K_M", "4.0"), ("Q8_0", "8.0")]
    assert f'title="{"a" * 64}"' in page


def test_quants_and_backends_are_compared_on_one_machine() -> None:
    other = BackendFacts(name="vllm", engine="vLLM", build="1", api="cuda")
    q8 = Model(family="Tiny", variant="1B", quant="Q8_0")
    runs = run("a", result()), run("b", result(), backend=other), run("c", result(), model=q8)
    page = html(model.PAGE, site_of(*runs), "models/tiny-1b.html")
    assert 'id="backends-desk"' in section(page, "Backends on the same silicon")
    assert 'id="quants-desk"' in section(page, "Quants on one machine")
    alone = html(model.PAGE, site_of(runs[0]), "models/tiny-1b.html")
    assert "same silicon" not in alone and "Quants on" not in alone


def test_the_machine_with_most_is_drawn_and_the_others_are_told() -> None:
    def one(run_id: str, quant: str, rig_id: str, gen: float) -> Run:
        weights = Model(family="Tiny", variant="1B", quant=quant)
        return run(run_id, result(gen=gen), model=weights, rig=Rig(id=rig_id))

    runs = [one(f"a{n}", quant, "desk", 9) for n, quant in enumerate(("Q2", "Q4", "Q8"))]
    runs += [one("b", "Q8", "lap", 20.0), one("c", "Q4", "lap", 40.0), one("d", "Q4", "lap", 30.0)]
    page = html(model.PAGE, site_of(*runs), "models/tiny-1b.html")
    quants = section(page, "Quants on one machine")
    assert quants.count("<figure") == 1 and 'id="quants-desk"' in quants
    assert "1 other machine" in seen(quants)
    assert re.findall(r'runs/(.)\.html">(.*?)</a> ([\d.]+)', quants) == [
        ("c", "Q4", "40.0"),
        ("b", "Q8", "20.0"),
    ]


def test_the_fastest_runs_are_shown_in_full_and_every_other_has_a_line() -> None:
    several = [result(gen=g, ttft=w, concurrency=c) for g, w, c in ((1, 0.5, 1), (2, 0.9, 4))]
    most = model.MOST_IN_FULL
    runs = [run(f"fast-{n}", *several, result(gen=90 + n)) for n in range(most)]
    bare = result().model_copy(update={"output_tok_per_s": None})
    slow = run("slow", *several, result("rag", gen=3, ttft=2.0))
    runs += [slow, run("bare", bare), *(run(f"x{n}", *several) for n in range(12))]
    page = html(model.PAGE, site_of(*reversed(runs)), "models/tiny-1b.html")
    listed = section(page, "All runs")
    full, further = listed.split("14 further runs</h3>")
    assert set(re.findall(r"runs/([\w-]+)\.html", full)) == {f"fast-{n}" for n in range(most)}
    assert len(set(re.findall(r"runs/([\w-]+)\.html", further))) == 14
    assert "Q4_K_M 1.00–3.00 chat, rag 500 ms–2.00 s 1 " in seen(further)
    line = r'runs/bare\.html">Q4_K_M</a> +</th>\n<td class="num">–<span class="spread">chat without'
    assert re.search(line, further)
    assert "13 slower runs with several requests in flight are not" in seen(page)
    assert f"Drawn are the 10 best of {len(runs)} runs; all of them are listed" in seen(page)
    assert 'data-pick="slow~1"' in further
    of_rig = html(rig.PAGE, site_of(*runs), "rigs/desk.html")
    assert f"Drawn are at most the 10 best of {len(runs)} runs" in seen(of_rig)


def test_rig_page_tells_capacities_and_changes_of_the_setup() -> None:
    def card(limit: float) -> Rig:
        gpu = Gpu(name="Card", vendor="nvidia", driver="9", power_limit_w=limit, power_max_w=300)
        return Rig(id="desk", gpus=[gpu])

    def on(day: str) -> Provenance:
        return Provenance(kind="measured", started_at=f"{day}T10:00:00Z")

    runs = [
        run("c", rig=card(300), provenance=on("2026-03-01")),
        run("b", rig=card(200), provenance=on("2026-02-01")),
        run("a", rig=card(200), provenance=on("2026-01-01")),
    ]
    facts = RigFacts(
        name="The desk",
        memory_bandwidth_bytes_per_s=Rate(measured=450e9, theoretical=500e9, source="a probe"),
        matrix_flop_per_s=Rate(measured=61e12),
        prose="Under *a* table.",
    )
    page = html(rig.PAGE, site_of(*runs, rigs={"desk": facts}), "rigs/desk.html")
    text = seen(page)
    assert "<h1>The desk</h1>" in page and "<em>a</em>" in page
    assert "memory bandwidth 450.0 GB/s 500.0 GB/s 90 % a probe" in text
    assert "matrix throughput 61.0 TFLOP/s – – –" in text
    assert "2026-03-01 300 W 9 – – – 1 2026-01-01 to 2026-02-01 200 W 9 – – – 2" in text
    alone = html(rig.PAGE, site_of(runs[0]), "rigs/desk.html")
    assert "How it was set up" not in alone and "has not been written down" in alone


def test_one_erratum_of_many_runs_is_told_once() -> None:
    erratum = Erratum(date="2026-01-01", field="backend.api", text="It was vulkan.")
    site = site_of(run("a", errata=[erratum]), run("b", errata=[erratum]))
    assert html(rig.PAGE, site, "rigs/desk.html").count("<dd>It was vulkan.") == 1


# Latency


def test_latency_lists_the_lowest_ttft_first_in_each_shape() -> None:
    site = site_of(
        run("a", result(ttft=0.3), result("rag", ttft=9.0)),
        run("b", result(ttft=0.1), result("rag", ttft=8.0), result("agent", ttft=None)),
    )
    page = html(latency.PAGE, site, "latency.html")
    assert re.findall(r'runs/(.)\.html">(.*?)<', page) == [
        *(("b", "100 ms"), ("a", "300 ms")),
        *(("b", "8.00 s"), ("a", "9.00 s")),
    ]
    assert "5 results, of which 1 without a TTFT are not listed" in seen(page)


def test_latency_counts_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MOST_LINES", 2)
    site = site_of(*(run(f"{n}", result(ttft=n + 1), result("rag", ttft=n + 5)) for n in range(4)))
    page = html(latency.PAGE, site, "latency.html")
    assert re.findall(r'runs/(.)\.html"', page) == ["0", "0"]
    assert seen(page).count("3 more, with a longer wait") == 2


def test_latency_has_the_columns_that_its_script_draws() -> None:
    page = html(latency.PAGE, site_of(run("a", result())), "latency.html")
    columns = re.findall(r'data-sort="(\w+)"', page)
    drawn = re.search(r"const columns = \{(.*?)\n  \};", COLUMNS_JS.read_text(), re.S)
    assert drawn and set(columns) <= set(re.findall(r"^    (\w+)[(:]", drawn[1], re.M))
    row = re.search(r'<tr>\n<td class="pick"></td>\n<td class="num rank".*?</tr>', page, re.S)
    assert row and len(re.findall(r"<t[dh]\b", row[0])) == len(columns) + 1


def test_an_empty_latency_view_says_how_to_begin() -> None:
    assert "No result with a TTFT yet" in html(latency.PAGE, site_of(), "latency.html")


def test_runs_are_quick_by_the_median_over_their_shapes() -> None:
    rows = latency.by_ttft(
        [
            run("slow rag", result(ttft=0.1), result("rag", ttft=9.0)),
            run("chat", result(ttft=1.0)),
            run("many at once", result(ttft=0.01, concurrency=4)),
        ]
    )
    assert [one.id for one in latency.quickest_runs(rows)] == ["chat", "slow rag"]


# What all of them have in common


def test_hostile_names_stay_text() -> None:
    one = run("a", result(HOSTILE), result(HOSTILE, concurrency=4), text=HOSTILE)
    failed = run("b", text=HOSTILE, status="failed", failure=Failure(code="x", message=HOSTILE))
    family = Family(family=HOSTILE, summary=HOSTILE)
    rate = Rate(measured=1.0, source=HOSTILE)
    facts = RigFacts(name=HOSTILE, prose=HOSTILE, memory_bandwidth_bytes_per_s=rate)
    site = site_of(one, failed, families={HOSTILE: family}, rigs={"desk": facts})
    for page in (model.PAGE, rig.PAGE, latency.PAGE):
        for output in page(site):
            source = output.render().decode()
            assert "<script>alert" not in source
            assert "&lt;script&gt;alert" in source or output.path == "assets/waits.js"


def test_keys_change_with_what_is_shown_and_with_nothing_else() -> None:
    desk, lap = run("a", result()), run("b", result(), text="Other", rig=Rig(id="lap"))
    before = site_of(desk, lap)
    assert keys(before) == keys(site_of(desk, lap))
    waits = {"latency.html", "assets/waits.js"}
    own = {"models/tiny-1b.html", "rigs/desk.html", *waits}
    new = Run(desk.record, desk.path, digest="another")
    assert changed(before, site_of(new, lap)) == own
    tiny = {"Tiny": Family(family="Tiny", released="2026-01")}
    assert changed(before, site_of(desk, lap, families=tiny)) == own - waits
    facts = {"desk": RigFacts(prose="new")}
    assert changed(before, site_of(desk, lap, rigs=facts)) == {"rigs/desk.html"}


def keys(site: Site) -> dict[str, str]:
    pages: Sequence[Page] = (model.PAGE, rig.PAGE, latency.PAGE)
    return {path: output.key for page in pages for path, output in outputs(page, site).items()}


def changed(before: Site, after: Site) -> set[str]:
    old = keys(before)
    return {path for path, key in keys(after).items() if old[path] != key}
