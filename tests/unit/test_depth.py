"""Cells at a depth: which there are, whether there is room for them, how long their prompts are,
what is told of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.unit.planned import MATRIX, SHAPES, loaded, made, one, past
from tests.unit.records import record_of
from tests.unit.samples import sample
from tests.unit.test_fit import Tokenizer
from tests.unit.test_page_run import page_of
from tokrig import naming, registry
from tokrig.backends import Launch
from tokrig.cli.main import main
from tokrig.errors import InputError, RequestError, SpecError
from tokrig.models.cache import CacheLayout, Layers
from tokrig.plan import CONTEXT, PlanInputs, RigMemory, run_spec
from tokrig.plan.expand import key_before
from tokrig.quants import OVERHEAD_BYTES, Size
from tokrig.record.block import Summary
from tokrig.record.consistency import own_contradictions
from tokrig.record.model import Model, Record
from tokrig.record.samples import Cell
from tokrig.run import fitting, memory, room
from tokrig.run.fitting import Prompt
from tokrig.run.prepare import Prepared, outline, prepare
from tokrig.run.session import salt, silence_s
from tokrig.site.charts.depth import speed_by_depth
from tokrig.spec.run import RunSpec, load_spec, merge
from tokrig.units import GIB, tokens_of
from tokrig.workloads import Messages, Workload, texts, tolerance

NOW = datetime(2026, 11, 22, tzinfo=UTC)
WORKLOADS: dict[str, Workload] = {
    name: registry.load("workloads", name, "WORKLOAD")
    for name in ("chat", "rag", "codegen", "agent")
}


# What is asked for


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("4096", 4096), ("4k", 4096), (" 16K ", 16384), ("1024k", 2**20)]
)
def test_a_length_in_words(text: str, number: int) -> None:
    assert tokens_of(text) == number


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("deep", "should be a number of tokens such as 4096 or 4k, not 'deep'"),
        ("-1", "should be a number of tokens"),
        ("1.5k", "should be a number of tokens"),
        ("255", "a depth is 0, or from 256 to 1024k tokens, not 255"),
        ("1025k", "a depth is 0, or from 256 to 1024k"),
        ("4k,4096", "4096 is named twice"),
    ],
)
def test_a_depth_that_is_none_is_refused_by_its_option(given: str, says: str) -> None:
    with pytest.raises(SpecError, match=f"^--depth: {re.escape(says)}"):
        merge(RunSpec(), {"depth": given.split(",")})


def test_a_spec_file_names_the_line_of_a_wrong_depth(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("workloads: [chat]\ndepth: [0, 4k]\n", encoding="utf-8")
    assert load_spec(path).depth == [0, 4096]
    for depth in ("[]", "[7]", "[true]", "[0.5]", "[null]"):
        path.write_text(f"workloads: [chat]\ndepth: {depth}\n", encoding="utf-8")
        with pytest.raises(SpecError, match=r"spec\.yaml:2: depth"):
            load_spec(path)


def test_cells_are_workloads_by_depths_by_concurrencies() -> None:
    wanted = RunSpec(workloads=["chat", "agent"], depth=[4096, 0])
    assert outline(wanted, NOW).cells == (
        Cell("chat", 1),
        Cell("chat", 1, 4096),
        Cell("agent", 1),
        Cell("agent", 4),
        Cell("agent", 1, 4096),
        Cell("agent", 4, 4096),
    )
    assert [cell.label for cell in outline(RunSpec(depth=[16384]), NOW).cells] == [
        "chat at depth 16k × 1"
    ]
    assert {cell.depth_tokens for cell in outline(RunSpec(), NOW).cells} == {0}


@pytest.mark.parametrize(
    "wanted",
    [{"concurrency": "ladder", "depth": [0, 4096]}, {"sustain": "1m", "depth": [0, 4096]}],
)
def test_loads_of_one_cell_take_one_depth(wanted: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="depth"):
        merge(RunSpec(), wanted)


def test_a_session_has_no_depth() -> None:
    with pytest.raises(SpecError, match="leave --depth out"):
        merge(RunSpec(), {"workloads": ["session"], "depth": [0, 4096]})


# Room


def ready(**wanted: Any) -> Prepared:
    return prepare(RunSpec(model="smollm2-135m", **wanted), NOW)


def test_the_context_holds_the_deepest() -> None:
    launch = ready(depth=[0, 4096]).launch
    assert launch is not None
    deepest = room.need(WORKLOADS["chat"], 64 + 4096)
    assert deepest + 64 <= launch.context_per_slot < deepest + 64 + 256


def test_deeper_than_the_model_was_made_for_is_refused_with_what_fits() -> None:
    with pytest.raises(InputError) as caught:
        ready(depth=[0, 4096, 8192, 131072])
    assert re.fullmatch(
        r"--depth 8k: chat needs 8,467 tokens of context there, and .+\.gguf was made for 8,192",
        caught.value.message,
    )
    assert caught.value.hint == "--depth 0,4k fits; the deepest that does is 7k"
    assert ready(depth=[7 * 1024]).launch


def test_deeper_than_the_context_that_was_asked_for_is_refused() -> None:
    with pytest.raises(InputError, match=r"each slot has 4,096 \(--context\)") as caught:
        ready(depth=[4096], context=4096)
    assert caught.value.hint == "the deepest that does is 3k"
    with pytest.raises(InputError) as caught:
        ready(depth=[256], context=300)
    assert caught.value.hint == "leave --depth out"


def test_a_planned_run_leaves_out_what_does_not_fit() -> None:
    """A campaign asks the same depths of many models."""
    prepared = ready(depth=[0, 4096, 131072], planned="0" * 16)
    assert prepared.launch is not None
    assert [cell.depth_tokens for cell in prepared.cells] == [0, 4096, 131072]
    wanted = room.contexts(prepared.cells, prepared.workloads)
    held = [cell for cell, number in wanted.items() if number <= prepared.launch.context_per_slot]
    assert [cell.depth_tokens for cell in held] == [0, 4096]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Launch:
    """A model of 1 GiB whose cache takes 1 KiB a token, and 2 GiB of free memory."""
    monkeypatch.setattr(memory, "free_bytes", lambda *, gpu: 0 if gpu else 2 * GIB)
    monkeypatch.setattr(
        room, "layout_of", lambda path: CacheLayout((Layers(1, 256, 256, (256, 256)),))
    )
    return Launch(Path("m.gguf"), 0, 100_000, 1, api="cpu")


LARGE = Model(family="M", file="m.gguf", bytes=GIB, context_train=2**20)
LEFT = (GIB - OVERHEAD_BYTES) // 1024


def deep(depth: int) -> dict[Cell, int]:
    cells = [Cell("chat", 1), Cell("chat", 1, depth)]
    return room.contexts(cells, WORKLOADS)


def test_more_than_memory_holds_is_refused_with_what_takes_it(small: Launch) -> None:
    assert room.with_room(small, LARGE, deep(LEFT - 10_000), asked=None, planned=False) == small
    with pytest.raises(InputError) as caught:
        room.with_room(small, LARGE, deep(512 * 1024), asked=None, planned=False)
    assert "--depth 512k: chat needs 529,724 tokens of context there" in caught.value.message
    assert "2.00 GiB are free" in caught.value.message
    assert "weights of 1.00 GiB" in caught.value.message
    deepest = int(caught.value.hint.split()[-1].removesuffix("k"))
    fits = deep(deepest * 1024)
    assert room.with_room(small, LARGE, fits, asked=None, planned=False) == small
    with pytest.raises(InputError):
        room.with_room(small, LARGE, deep((deepest + 2) * 1024), asked=None, planned=False)


def test_slots_and_types_of_the_cache_count(small: Launch) -> None:
    quarter = deep(LEFT // 4)
    four = replace(small, slots=4)
    with pytest.raises(InputError, match="in each of 4 slots"):
        room.with_room(four, LARGE, quarter, asked=None, planned=False)
    halved = replace(four, settings={"kv_type": "q8_0"})
    assert room.with_room(halved, LARGE, quarter, asked=None, planned=False) == halved


@pytest.mark.parametrize(
    "unknown",
    [
        {"settings": {"gpu_layers": 10}},
        {"options": {"n-cpu-moe": 4}},
        {"settings": {"kv_type": "some-type"}},
    ],
)
def test_where_nobody_knows_what_takes_memory_nothing_is_refused(
    small: Launch, unknown: dict[str, Any]
) -> None:
    launch = replace(small, **unknown)
    assert room.with_room(launch, LARGE, deep(2**19), asked=None, planned=False) == launch


def test_a_cache_that_no_header_settles_is_not_reckoned_with(
    small: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "layout_of", lambda path: None)
    assert room.with_room(small, LARGE, deep(2**19), asked=None, planned=False) == small


def test_a_cache_that_stops_growing_leaves_room_for_more(
    small: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three layers of four keep 1,024 tokens: four times the context fits, nearly."""
    parts = (Layers(1, 64, 64, (64, 64)), Layers(3, 64, 64, (64, 64), window=1024))
    monkeypatch.setattr(room, "layout_of", lambda path: CacheLayout(parts))
    endless = LARGE.model_copy(update={"context_train": None})
    assert room.with_room(small, endless, deep(3 * LEFT), asked=None, planned=False) == small
    with pytest.raises(InputError, match=r"3 of 4 layers up to 1,024 tokens"):
        room.with_room(small, endless, deep(5 * LEFT), asked=None, planned=False)


def test_a_dry_run_shows_cells_by_depth_and_how_long_one_is_waited_for() -> None:
    asked = ["run", "--dry-run", "--model", "smollm2-135m", "--depth", "0,4k"]
    done = CliRunner().invoke(main, [*asked, "--json"])
    cells = json.loads(done.stdout)["cells"]
    lengths = [(cell["depth_tokens"], cell["prompt_tokens"]) for cell in cells]
    assert lengths == [(0, 64), (4096, 4160)]
    shown = CliRunner().invoke(main, asked).stdout
    assert re.search(r"chat\s+4k\s+1\s+4160\s+128", shown)
    assert "16 min 50 s without a token, for chat at depth 4k × 1" in shown


# The prompt


def counted(shape: Workload, index: int, per_token: float, template: int) -> tuple[Prompt, int]:
    own = fitting.fit(shape, shape.variants[index], Tokenizer(per_token, template))
    return own, shape.prompt_tokens


@pytest.mark.parametrize("depth", [256, 1000, 4096, 16384, 131072])
@pytest.mark.parametrize("per_token", [3.2, 4.4, 5.2])
@pytest.mark.parametrize("shape", WORKLOADS.values(), ids=lambda shape: shape.name)
def test_any_tokenizer_is_met_at_any_depth(shape: Workload, per_token: float, depth: int) -> None:
    own, target = counted(shape, 0, per_token, 20)
    count = Tokenizer(per_token, 20)
    found, characters = fitting.behind(own, depth, target + depth, 0, count)
    assert found.tokens is not None
    assert abs(found.tokens - target - depth) <= tolerance(target + depth)
    assert found.tokens == count(found.render(salt(3)))
    assert characters == pytest.approx(per_token, rel=0.15 if depth < 4096 else 0.02)
    if depth >= 4096:
        assert count.asked <= 4  # the last one is the test's own


@pytest.mark.parametrize("depth", range(256, 420, 16))
@pytest.mark.parametrize("shape", WORKLOADS.values(), ids=lambda shape: shape.name)
def test_a_short_context_is_met_to_a_word_where_a_sentence_is_too_long(
    shape: Workload, depth: int
) -> None:
    for index in range(len(shape.variants)):
        for per_token in (2.8, 3.2, 3.9, 4.4, 5.2):
            own, target = counted(shape, index, per_token, 14)
            count = Tokenizer(per_token, 14)
            found, _ = fitting.behind(own, depth, target + depth, index, count)
            assert found.tokens is not None
            assert abs(found.tokens - target - depth) <= tolerance(target + depth)


def test_a_context_after_another_is_counted_once() -> None:
    """A count of 128k tokens may cost a prefill of minutes."""
    shape = WORKLOADS["chat"]
    characters, asked = None, []
    for depth in (4096, 16384, 131072):
        for index in range(3):
            own, target = counted(shape, index, 4.13, 37)
            count = Tokenizer(4.13, 37)
            _, characters = fitting.behind(own, depth, target + depth, index, count, characters)
            asked.append(count.asked)
    assert asked[0] <= 3
    assert set(asked[1:]) == {1}


def test_no_count_is_of_more_than_the_context_holds() -> None:
    """A first guess beyond the context would be refused by servers that count by answering."""
    own, target = counted(WORKLOADS["chat"], 0, 3.9, 20)
    longest = 16384 + target + tolerance(16384 + target)
    fitting.behind(own, 16384, 16384 + target, 0, Tokenizer(3.9, 20, limit=longest))


def test_without_anyone_to_count_a_depth_is_guessed() -> None:
    own = fitting.fit(WORKLOADS["chat"], WORKLOADS["chat"].variants[0], lambda messages: None)
    found, characters = fitting.behind(own, 4096, 4160, 0, lambda messages: None)
    assert (found.tokens, characters) == (None, None)
    length = sum(len(message["content"]) for message in found.render("A1"))
    assert length == pytest.approx(4160 * 4.4, rel=0.1)


def test_a_context_that_cannot_hold_a_depth_is_told_in_the_servers_words() -> None:
    own, target = counted(WORKLOADS["chat"], 0, 4.1, 12)
    whole, asked = Tokenizer(4.1, 12, limit=4096), []

    def count(messages: Messages) -> int | None:
        asked.append(messages)
        return whole(messages)

    with pytest.raises(RequestError, match="available context size") as caught:
        fitting.behind(own, 8192, target + 8192, 0, count)
    assert caught.value.code == "context_too_small"
    assert len(asked) <= 4, "how much does fit was looked for"


@pytest.mark.parametrize("room", [8000, 8190, 8200, 8300, 8500, 9000])
def test_a_context_that_is_nearly_too_small_is_used(room: int) -> None:
    """Prompts refused on the way do not end the search where one of the right length fits."""
    own, target = counted(WORKLOADS["chat"], 0, 4.1, 12)
    wanted = target + 8192
    try:
        found, _ = fitting.behind(own, 8192, wanted, 0, Tokenizer(4.1, 12, limit=room))
    except RequestError as error:
        assert error.code == "context_too_small" and room < wanted
    else:
        tokens = found.tokens or 0
        assert abs(tokens - wanted) <= tolerance(wanted) and tokens <= room


def test_a_server_that_cuts_a_deep_prompt_is_found_out() -> None:
    own, target = counted(WORKLOADS["chat"], 0, 4.1, 12)
    whole, asked = Tokenizer(4.1, 12), []

    def cut(messages: Messages) -> int | None:
        asked.append(whole(messages))
        return min(asked[-1] or 0, 4096)

    with pytest.raises(RequestError, match="the server cuts long prompts") as caught:
        fitting.behind(own, 16384, target + 16384, 0, cut)
    assert caught.value.code == "context_too_small"
    assert len(asked) <= 8


def test_prompts_at_a_depth_share_no_beginning() -> None:
    def opening(messages: Messages) -> str:
        return "".join(message["content"] for message in messages)[:200]

    found = []
    for index in range(3):
        own, target = counted(WORKLOADS["chat"], index, 4.1, 12)
        prompt, _ = fitting.behind(own, 4096, target + 4096, index, Tokenizer(4.1, 12))
        found.append(opening(prompt.render(salt(index))))
    assert len({text[0] for text in found}) == 3
    assert len({text[7:107] for text in found}) == 3


def test_a_prefill_of_a_deep_context_is_waited_for() -> None:
    assert silence_s(600.0, Cell("chat", 4)) == 600.0
    assert silence_s(600.0, Cell("chat", 1, 16384)) == pytest.approx(600 + 1638.4)
    assert silence_s(60.0, Cell("chat", 4, 16384)) == pytest.approx(60 + 4 * 1638.4)


# Campaigns


def planned(**matrix: Any) -> Any:
    [found] = made(loaded(one(matrix={**MATRIX, **matrix})), texts=texts()).runs
    return found


def test_a_matrix_takes_depths_and_makes_one_run_of_them() -> None:
    found = planned(workloads="chat", depth=[0, "4k"])
    assert (found.run.depth, found.cells) == ((0, 4096), 2)
    assert run_spec(found.run).depth == [0, 4096]
    assert key_before(found.run) == ""
    assert planned(depth=[0, "4k"]).cells == 2
    assert run_spec(planned(depth=[0, "4k"]).run).workloads == ["chat"]


def test_depths_are_in_the_key_and_change_no_other_key() -> None:
    file = loaded(one())
    assert made(file, texts={"chat": "aaaaaaaaaaaa"}).runs[0].run.key == "6749ea1870542181"
    with_context = {"chat": "aaaaaaaaaaaa", CONTEXT: "cccccccccccc"}
    assert made(file, texts=with_context).runs[0].run.key == "6749ea1870542181"
    matrix = {**MATRIX, "workloads": "chat", "depth": [0, "4k"]}
    keys = {
        made(loaded(one(matrix={**matrix, "depth": depths})), texts={**with_context, **more})
        .runs[0]
        .run.key
        for depths, more in (
            ([0, "4k"], {}),
            ([4096, 0], {}),  # the same
            ([0, "8k"], {}),
            ([0, "4k"], {CONTEXT: "dddddddddddd"}),
        )
    }
    assert len(keys) == 3


def test_a_depth_takes_longer_and_more_memory() -> None:
    known = PlanInputs(
        shapes=SHAPES,
        sizes={"a.gguf": Size(GIB, 1024, True, "file")},
        rigs={"desktop": RigMemory(memory_bytes=2 * GIB, bandwidth_bytes_per_s=1e10)},
    )

    def plan(depth: list[int], known: PlanInputs = known) -> Any:
        matrix = {**MATRIX, "workloads": "chat", "depth": depth}
        return made(loaded(one(matrix=matrix, when=["fits_memory"])), known=known).runs[0]

    shallow, deep = plan([0]), plan([16384])
    assert (shallow.state, deep.state) == ("todo", "todo")
    # 256 steps of an answer, a tenth of one for each token of a prompt of 512.
    steps = (256 + (512 + 16384) / 10) / (256 + 51.2)
    start = 6 * (10 + GIB / 1e9)
    assert deep.time_s - start == pytest.approx((shallow.time_s - start) * steps)
    by_records = replace(known, past=[past(plan([0]).run, record="r", planned="x")])
    by_records = replace(by_records, past=[replace(by_records.past[0], model_bytes=GIB)])
    ratio = plan([16384], by_records).time_s / plan([0], by_records).time_s
    assert ratio == pytest.approx(steps)
    too_deep = plan([2**20])
    assert too_deep.state == "does_not_fit"
    assert "tokens" in too_deep.why


def test_records_of_depths_tell_nothing_of_plain_times() -> None:
    file = loaded(one(matrix={**MATRIX, "workloads": "chat"}))
    known = PlanInputs(shapes=SHAPES, sizes={"a.gguf": Size(GIB, 1024, True, "file")})
    [run] = made(file, known=known).runs
    for results, told in ((1, True), (0, False)):
        other = past(run.run, planned="x", results=results)
        [found] = made(file, known=replace(known, past=[other])).runs
        assert (found.time_s is not None) is told


def test_depths_cannot_be_excluded() -> None:
    with pytest.raises(SpecError, match="depth is measured inside a run"):
        loaded(one(matrix={**MATRIX, "depth": [0, 4096]}, exclude=[{"depth": 0}]))


# What is told


def curve(*rates: float, concurrency: int = 1) -> Record:
    """A chat at depths 0, 4k, 16k of these rates."""
    whole = record_of([sample()])
    results = []
    for depth, rate in zip((0, 4096, 16384), rates, strict=False):
        shape = whole.results[0].workload.model_copy(
            update={"target_prompt_tokens": 64 + depth if depth else None}
        )
        changes = {
            "workload": shape,
            "depth_tokens": depth,
            "concurrency": concurrency,
            "output_tok_per_s": Summary(median=rate, min=rate, max=rate, n=3),
            "prefill_tok_per_s": Summary(median=8 * rate, min=rate, max=9 * rate, n=3),
            "ttft_s": Summary(median=(64 + depth) / 800, n=3),
        }
        results.append(whole.results[0].model_copy(update=changes))
    return whole.model_copy(update={"results": results})


def test_a_curve_is_told_in_one_line() -> None:
    [found] = naming.depth_curves(curve(50.0, 45.0, 40.0))
    assert naming.depth_line(found) == (
        "chat × 1: 50.0 tok/s at depth 0, 45.0 at 4k (90 %), 40.0 at 16k (80 %)"
    )
    assert naming.depth_curves(curve(50.0)) == []


def test_a_curve_is_drawn_with_its_figures() -> None:
    figure = speed_by_depth(curve(50.0, 45.0, 40.0))
    assert figure is not None
    assert [row[1] for row in figure.rows] == ["0", "4,096", "16,384"]
    assert [row[3] for row in figure.rows] == ["50.0", "45.0", "40.0"]
    # Two panels, each a line over three points; 4k and 16k are two doublings apart.
    lines = re.findall(r'<path d="M([-\d.,L]+)"', figure.drawing.parts)
    points = [[tuple(map(float, p.split(","))) for p in line.split("L")] for line in lines]
    assert [len(line) for line in points] == [3, 3]
    for line in points:
        (first, _), (second, _), (third, _) = line
        assert (third - second) == pytest.approx(2 * (second - first), abs=0.1)
    assert figure.drawing.parts.count(">16k<") == 2


def test_invalid_results_are_told_and_not_drawn() -> None:
    record = curve(50.0, 45.0, 40.0)
    worst = record.results[1].validity.model_copy(
        update={"verdict": "invalid", "reasons": ["cached_tokens"]}
    )
    results = list(record.results)
    results[1] = results[1].model_copy(update={"validity": worst})
    figure = speed_by_depth(record.model_copy(update={"results": results}))
    assert figure is not None
    assert [row[-1] for row in figure.rows] == ["valid", "invalid", "valid"]
    assert "4k" not in figure.text
    assert speed_by_depth(curve(50.0)) is None


def test_a_prompt_shorter_than_its_context_contradicts_itself() -> None:
    record = curve(50.0, 45.0)
    assert not [one for one in own_contradictions(record) if "behind" in one.text]
    shape = record.results[1].workload.model_copy(update={"target_prompt_tokens": 64})
    results = [record.results[0], record.results[1].model_copy(update={"workload": shape})]
    found = own_contradictions(record.model_copy(update={"results": results}))
    assert "prompts of 64 tokens behind 4096 of context" in " ".join(one.text for one in found)


def test_the_page_of_a_run_has_its_curve(tmp_path: Path) -> None:
    page = page_of(tmp_path, curve(50.0, 45.0, 40.0))
    assert "Speed by depth" in page.text
    assert re.search(r"chat × 1\s*16,384\s*320\.0", page.text)
    assert re.search(r"40\.0\s*range [\d.–]+\s*80 %", page.text)
    assert "Speed by depth" not in page_of(tmp_path, curve(50.0)).text
