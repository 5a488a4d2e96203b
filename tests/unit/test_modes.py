"""What is switched on beside the baseline is said in words wherever a run stands in a list."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.unit.compared import measured, speculating, with_value
from tokrig import naming
from tokrig.cli import present
from tokrig.cli.main import main
from tokrig.record.model import Record, Speculative, Validity, record_text
from tokrig.site import Page, formats, table
from tokrig.site.context import Site
from tokrig.site.pages import index, latency, rig
from tokrig.site.pages.model import quants, silicon
from tokrig.store import Store
from tokrig.store.load import Run

RIG = "rigs/geforce-rtx-5070-12gb.html"
PLAIN, DRAFTED = "20261122-120000-gemma-plain", "20261122-130000-gemma-ngram"
SPECULATION = "n-gram speculation, 40–60 % accepted"


def a_run(record: Record, run_id: str) -> Run:
    return Run(with_value(record, "id", run_id), f"{record.rig.id}/{run_id}.yaml", run_id)


def two_runs() -> tuple[Run, Run]:
    return a_run(measured(), PLAIN), a_run(speculating(40, 50, 60), DRAFTED)


def site_of(*runs: Run) -> Site:
    return Site(Store(Path("nowhere")), runs, families={}, rigs={}, redirects={})


def html(page: Page, path: str, *runs: Run) -> str:
    (output,) = (one for one in page(site_of(*runs)) if one.path == path)
    return output.render().decode()


def seen(source: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", source)).split())


def lines_of(source: str, run_id: str) -> list[str]:
    """The lines of tables and the bars that lead to a run, as text."""
    found = re.findall(r"<tr>.*?</tr>|<li>.*?</li>", source, re.DOTALL)
    return [seen(line) for line in found if f"runs/{run_id}.html" in line]


# Words


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("ngram", "n-gram speculation"),
        ("draft", "draft-model speculation"),
        ("mtp", "MTP"),
        ("eagle", "EAGLE"),
        ("reasoning-off", "reasoning off"),
        ("ngram+reasoning-off", "n-gram speculation, reasoning off"),
        ("mtp + 200 W", "MTP, 200 W"),
        ("a mode of its own", "a mode of its own"),
    ],
)
def test_modes_as_people_call_them(name: str, called: str) -> None:
    assert naming.mode_name(name) == naming.mode_label(name) == called


def test_the_baseline_is_the_absence_of_a_mode() -> None:
    assert naming.mode_name("baseline") == "baseline"
    assert naming.mode_label("baseline") == formats.mode(measured()) == ""
    assert formats.mode(measured(), speculating().results) == ""


def test_what_was_accepted_is_a_share_or_the_range_of_the_shapes() -> None:
    assert formats.mode(speculating()) == "n-gram speculation"
    alike, apart = speculating(52, 52, 52), speculating(31, 64, 40)
    assert formats.mode(alike, alike.results) == "n-gram speculation, 52 % accepted"
    assert formats.mode(apart, apart.results) == "n-gram speculation, 31–64 % accepted"
    nothing = Speculative(drafted_tokens=0, accepted_tokens=0)
    idle = [one.model_copy(update={"speculative": nothing}) for one in apart.results]
    assert formats.mode(apart, idle) == "n-gram speculation"
    off = speculating(name="reasoning-off", reasoning_asked="off")
    assert formats.mode(with_value(off, "results", measured().results)) == "reasoning off"


@pytest.mark.parametrize(
    ("api", "asked", "wrapper", "called"),
    [
        ("cuda", None, None, "llama.cpp b9174 (cuda)"),
        ("cuda", "cuda", None, "llama.cpp b9174 (cuda)"),
        ("cpu", "vulkan", None, "llama.cpp b9174 (cpu, vulkan asked)"),
        (None, "vulkan", None, "llama.cpp b9174 (vulkan asked)"),
        ("vulkan", "vulkan", "lemonade 11.7.0", "llama.cpp b9174 (vulkan) via lemonade 11.7.0"),
    ],
)
def test_backends_say_what_was_asked_and_what_is_in_front(
    api: str | None, asked: str | None, wrapper: str | None, called: str
) -> None:
    record = measured()
    for name, value in (("api", api), ("api_asked", asked), ("wrapper", wrapper)):
        record = with_value(record, f"backend.{name}", value)
    assert formats.backend(record.backend) == called
    assert called in formats.configuration(record, "model")
    assert called in present.subject(record)
    (line,) = lines_of(html(latency.PAGE, "latency.html", a_run(record, PLAIN)), PLAIN)[:1]
    assert called in line


def test_a_run_in_one_line_names_its_mode() -> None:
    _, drafted = two_runs()
    assert formats.configuration(drafted.record, "model").endswith("(cuda) · n-gram speculation")
    assert "(cuda) · n-gram speculation · rig geforce" in present.subject(drafted.record)
    assert present.subject(measured()).endswith("(cuda) · rig geforce-rtx-5070-12gb")


# Tables and bars


@pytest.mark.parametrize(
    ("page", "path", "told", "plainly"),
    [
        (index.PAGE, "index.html", f"E2B-it {SPECULATION} Q4_K_M", "E2B-it Q4_K_M"),
        (rig.PAGE, RIG, f"llama.cpp b9174 (cuda) {SPECULATION}", "(cuda) –"),
    ],
)
def test_a_line_of_the_table_tells_its_mode(page: Page, path: str, told: str, plainly: str) -> None:
    source = html(page, path, *two_runs())
    drafted, plain = lines_of(source, DRAFTED), lines_of(source, PLAIN)
    assert told in drafted[0]
    assert "speculation" not in plain[0] and plainly in plain[0]


def test_the_latency_view_tells_it_beside_the_variant() -> None:
    source = html(latency.PAGE, "latency.html", *two_runs())
    assert sorted(lines_of(source, DRAFTED)) == sorted(
        line.replace("E2B-it", f"E2B-it n-gram speculation, {share} % accepted", 1)
        for line, share in zip(lines_of(source, PLAIN), (40, 50, 60), strict=True)
    )


def test_the_fastest_of_a_shape_name_their_mode() -> None:
    bars = html(index.PAGE, "index.html", *two_runs()).partition('id="bars"')[2]
    assert (
        "12 GB · llama.cpp b9174 (cuda) · n-gram speculation, 40 % accepted 100.0 tok/s"
        in lines_of(bars, DRAFTED)[0]
    )
    assert "12 GB · llama.cpp b9174 (cuda) 100.0 tok/s" in lines_of(bars, PLAIN)[0]


def test_a_result_whose_api_is_not_the_one_asked_for_is_no_headline() -> None:
    wrong = Validity(verdict="invalid", reasons=["api_not_confirmed"])
    record = with_value(with_value(measured(), "backend.api", "cpu"), "backend.api_asked", "vulkan")
    results = [one.model_copy(update={"validity": wrong}) for one in record.results]
    run = a_run(with_value(record, "results", results), PLAIN)
    assert table.lines([run], 1) == []
    source = html(rig.PAGE, RIG, run)
    assert "(cpu, vulkan asked) : chat at 1, api not confirmed" in seen(source)
    assert lines_of(html(index.PAGE, "index.html", run), PLAIN) == []


def test_the_script_gets_modes_and_what_was_accepted() -> None:
    data = json.loads(json.dumps(table.columns(two_runs(), {})))
    assert data["modes"] == [
        ["baseline", "baseline", "baseline"],
        ["n-gram speculation", "ngram", "ngram"],
    ]
    assert data["runs"]["mode"] == [0, 1]
    first = len(measured().results)
    assert data["accepted"] == {str(first): 40, str(first + 1): 50, str(first + 2): 60}
    assert table.columns([two_runs()[0]], {})["accepted"] == {}


def test_a_combined_mode_has_an_address_of_its_own() -> None:
    both = speculating(name="ngram+reasoning-off", reasoning_asked="off")
    (mode,) = table.columns([a_run(both, DRAFTED)], {})["modes"]
    assert mode == [
        "n-gram speculation, reasoning off",
        "ngram-reasoning-off",
        "ngram+reasoning-off",
    ]


def test_other_machines_are_compared_in_a_mode_that_is_named() -> None:
    def drafted(run_id: str, path: str, value: str, rig_id: str) -> Run:
        return a_run(with_value(with_value(speculating(), path, value), "rig.id", rig_id), run_id)

    quants_of = [drafted(f"{n}{r}", "model.quant", n, r) for r in ("x", "y") for n in ("Q4", "Q8")]
    found = quants(quants_of)
    assert found
    assert found.elsewhere[0].alike == "llama.cpp b9174 (cuda), n-gram speculation"
    apis = [drafted(f"{n}{r}", "backend.api", n, r) for r in ("x", "y") for n in ("cuda", "vulkan")]
    compared = silicon(apis)
    assert compared
    assert compared.elsewhere[0].alike == "Q4_K_M ggml-org, n-gram speculation"


# The list


@pytest.fixture
def content(tmp_path: Path) -> Path:
    folder = tmp_path / "content" / "benchmarks" / "runs" / measured().rig.id
    folder.mkdir(parents=True)
    for run in two_runs():
        (folder / f"{run.id}.yaml").write_text(record_text(run.record), encoding="utf-8")
    return tmp_path / "content"


def listed(content: Path, *asked: str, columns: int = 300) -> Result:
    env = {"TOKRIG_CONTENT": str(content), "COLUMNS": str(columns)}
    done = CliRunner(env=env).invoke(main, ["list", *asked])
    assert done.exit_code == 0
    return done


def test_the_list_tells_modes_where_there_are_any(content: Path) -> None:
    heading, *lines = listed(content).stdout.splitlines()
    assert "mode" in heading.split()
    assert {line.split()[0]: "n-gram speculation" in line for line in lines} == {
        DRAFTED: True,
        PLAIN: False,
    }
    narrow = listed(content, columns=80).stdout
    assert "n-gram speculation" in narrow and "llama.cpp" not in narrow
    next(content.rglob(f"{DRAFTED}.yaml")).unlink()
    assert "mode" not in listed(content).stdout.split()


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("n-gram", [DRAFTED]),
        ("ngram", [DRAFTED]),
        ("speculation", [DRAFTED]),
        ("baseline", [PLAIN]),
        ("mtp", []),
    ],
)
def test_the_list_chooses_by_mode(content: Path, asked: str, found: list[str]) -> None:
    rows = json.loads(listed(content, "--mode", asked, "--json").stdout)
    assert [row["id"] for row in rows] == found
