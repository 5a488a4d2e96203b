"""Sessions: turns of one conversation, from their texts to their figures, checks and pages."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.unit.planned import MATRIX, SHAPES, loaded, made, one
from tests.unit.records import record_of
from tests.unit.samples import sample
from tests.unit.test_page_run import page_of
from tokrig import naming
from tokrig.backends import Launch, Request
from tokrig.backends.embedded import BACKEND as EMBEDDED
from tokrig.backends.llamacpp import Help
from tokrig.backends.mlx import BACKEND as MLX
from tokrig.backends.sglang import BACKEND as SGLANG
from tokrig.backends.vllm import BACKEND as VLLM
from tokrig.cli.present import print_figures
from tokrig.errors import SpecError
from tokrig.plan import PlanInputs, RigMemory
from tokrig.plan.expand import expand
from tokrig.quants import OVERHEAD_BYTES
from tokrig.record.checks import Seen, judge
from tokrig.record.consistency import differences
from tokrig.record.loads import SessionFigures
from tokrig.record.metrics import figures
from tokrig.record.model import BackendFacts, Prompting, WorkloadFacts
from tokrig.record.samples import Cell, Sample
from tokrig.run.room import turn_need, turns_in
from tokrig.site.charts.sessions import by_turn
from tokrig.spec.campaign import load_campaign
from tokrig.spec.run import RunSpec, merge
from tokrig.workloads import texts
from tokrig.workloads.agent import WORKLOAD as AGENT
from tokrig.workloads.session import WORKLOAD as SESSION

PROMPTS = (1000, 1600, 3000)
ANSWERS = (21, 21, 41)
FACTS = WorkloadFacts(
    name="session",
    prompt_tokens=16350,
    answer_tokens=256,
    turn_answer_tokens=list(ANSWERS),
    turn_prompt_tokens=[list(PROMPTS)],
)


def walk(
    *, repeat: int = 0, worker: int = 0, concurrency: int = 1, cached: tuple[int | None, ...] = ()
) -> list[Sample]:
    """A session of three turns, 2 s each, with a pause of 0.1 s between them; the engine's cache
    has every earlier prompt but for its last three tokens."""
    cached = cached or (0, 997, 1597)
    turns = []
    for turn, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        gap_s = 1.5 / (answer - 1)
        one = sample(ttft_s=0.5, gap_s=gap_s, tokens=answer)
        turns.append(
            replace(
                one,
                workload="session",
                load="session",
                concurrency=concurrency,
                repeat=repeat,
                iteration=turn,
                worker=worker,
                sent_ns=round(turn * 2.1e9),
                prompt_tokens=prompt,
                cached_tokens=cached[turn],
            )
        )
    return turns


def session_of(samples: list[Sample], counters: dict[str, float] | None = None) -> SessionFigures:
    found: SessionFigures = figures(samples, counters)["session"]
    return found


# The texts


def test_each_prompt_begins_with_the_one_before() -> None:
    for number in range(len(SESSION.sessions)):
        prompts = SESSION.prompts(number, "A123456", system_role=True)
        assert len(prompts) == len(SESSION.turns) == 11
        for before, after in pairwise(prompts):
            assert after[: len(before)] == before
            assert [m["role"] for m in after[len(before) :]] == ["assistant", "user"]


def test_two_sessions_share_what_agents_share_and_their_salt_comes_first() -> None:
    one, other = (SESSION.prompts(n, f"{n}A", system_role=True)[-1] for n in (0, 1))
    assert one[0]["content"].removeprefix("0A ") == other[0]["content"].removeprefix("1A ")
    assert one[0]["content"][0] != other[0]["content"][0]
    assert one[1]["content"].startswith("0A ")  # for templates that move the system text
    said = {m["content"] for m in one[1:]} & {m["content"] for m in other[1:]}
    assert said == set()


def test_calls_fit_the_schemas_and_results_follow_them() -> None:
    for number in range(len(SESSION.sessions)):
        system, _, *rest = SESSION.prompts(number, "A", system_role=True)[-1]
        schemas = [
            json.loads(line) for line in system["content"].splitlines() if line.startswith("{")
        ]
        tools = {schema["name"]: schema["parameters"] for schema in schemas}
        for call, result in zip(rest[::2], rest[1::2], strict=True):
            found = re.search(r"<tool_call>(.*)</tool_call>$", call["content"], re.DOTALL)
            assert found is not None
            asked = json.loads(found[1])
            parameters = tools[asked["name"]]
            assert set(parameters["required"]) <= asked["arguments"].keys()
            assert asked["arguments"].keys() <= parameters["properties"].keys()
            assert result["content"].startswith("<tool_result>\n")
            assert result["content"].endswith("\n</tool_result>")


def test_an_edit_replaces_what_was_read() -> None:
    """The old text of an edit stands in the file as it was shown before."""
    for number in range(len(SESSION.sessions)):
        messages = SESSION.prompts(number, "A", system_role=True)[-1]
        shown = "\n".join(m["content"] for m in messages if m["role"] == "user")
        plain = re.sub(r"^ *\d+  ?", "", shown, flags=re.MULTILINE)
        edits = [
            m["content"] for m in messages if '<tool_call>{"name": "edit_file"' in m["content"]
        ]
        for text in edits:
            call = re.search(r"<tool_call>(.*)</tool_call>", text, re.DOTALL)
            assert call is not None
            assert json.loads(call[1])["arguments"]["old"] in plain


def test_lengths_grow_as_they_are_told() -> None:
    """By characters, of which code and logs have 2.3 to 4 a token."""
    for number in range(len(SESSION.sessions)):
        for prompt, turn in zip(
            SESSION.prompts(number, "A", system_role=True), SESSION.turns, strict=True
        ):
            characters = sum(len(message["content"]) for message in prompt)
            assert 2.2 < characters / turn.prompt_tokens < 4.2
    assert [turn.answer_tokens for turn in SESSION.turns] == [64] * 10 + [256]
    assert SESSION.turns[0].prompt_tokens == 1500
    assert 16_000 <= SESSION.prompt_tokens <= 16_384


def test_sessions_side_by_side_walk_different_texts() -> None:
    assert [SESSION.variant_number(index, 1) for index in range(3)] == [0, 0, 0]
    assert [SESSION.variant_number(index, 3) for index in range(6)] == [0, 1, 0, 0, 1, 0]
    assert [AGENT.variant_number(index, 4) for index in range(5)] == [0, 1, 2, 0, 1]


def test_a_context_takes_as_many_turns_as_fit() -> None:
    needs = [turn_need(turn) for turn in SESSION.turns]
    assert needs == sorted(needs)
    assert turns_in(SESSION, needs[-1]) == 11
    assert turns_in(SESSION, needs[-1] - 1) == 10
    assert 5 <= turns_in(SESSION, 8192) <= 7
    assert turns_in(SESSION, 1000) == 0


# What is asked for


@pytest.mark.parametrize("others", [["chat"], ["agent", "rag"]])
def test_a_session_has_a_run_of_its_own_where_tokrig_starts_the_engine(others: list[str]) -> None:
    with pytest.raises(SpecError, match="give session a run of its own"):
        merge(RunSpec(), {"workloads": [*others, "session"]})
    merge(RunSpec(), {"workloads": [*others, "session"], "url": "http://127.0.0.1:1"})
    merge(RunSpec(), {"workloads": ["session"]})


@pytest.mark.parametrize("given", [{"sustain": "1m"}, {"depth": [4096]}, {"rate": [2.0]}])
def test_a_session_is_walked_as_it_is(given: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"leave --{next(iter(given))} out"):
        merge(RunSpec(), {"workloads": ["session"], **given})


CAMPAIGN = """
title: t
entries:
  - name: all
    title: All shapes
    matrix: {model: gemma-3-270m, backend: embedded%s}
"""


def keys(tmp_path: Path, matrix: str, versions: dict[str, str]) -> list[str]:
    file = tmp_path / "made.yaml"
    file.write_text(CAMPAIGN % matrix)
    known = PlanInputs(here="rig", catalog=frozenset({"gemma-3-270m"}), texts=versions)
    return [run.key for run in expand(load_campaign(file), known)]


def test_the_text_of_sessions_is_in_no_other_key(tmp_path: Path) -> None:
    without = {name: version for name, version in texts().items() if name != "session"}
    assert keys(tmp_path, "", texts()) == keys(tmp_path, "", without)
    named = ", workloads: session"
    other = {**texts(), "session": "0" * 12}
    assert keys(tmp_path, named, texts()) != keys(tmp_path, named, other)


def test_an_entry_mixes_sessions_with_nothing(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"made\.yaml:6: entry 'all': session needs"):
        keys(tmp_path, ", workloads: [chat, session]", texts())


def test_a_plan_reckons_with_the_turns_that_fit() -> None:
    """A model of 8k takes a session of fewer turns, and its cache has to fit all the same."""
    model = {"repo": "o/m", "file": "m-{quant}.gguf", "parameters": 8e9, "context": 8192}
    model["kv_bytes_per_token"] = 131072
    matrix = {**MATRIX, "model": "m", "quant": "Q4_K_M", "workloads": "session"}
    entry = one(matrix=matrix, when=["fits_vram"])
    weights, cache = round(8e9 * 4.89 / 8), 131072 * 8192

    def state(vram: int) -> str:
        known = PlanInputs(rigs={"desktop": RigMemory(vram_bytes=vram)}, shapes=SHAPES)
        needs = {"session": turn_need(SESSION.turns[-1])}
        file = loaded(entry, models={"m": model})
        return made(file, known=known, needs=needs).runs[0].state

    assert state(weights + cache + OVERHEAD_BYTES) == "todo"
    assert state(weights + cache + OVERHEAD_BYTES - 1) == "does_not_fit"


# What engines are told


def launch(tmp_path: Path, **changes: Any) -> Launch:
    made = Launch(model=tmp_path / "m.gguf", port=0, context_per_slot=8, slots=1, binary="true")
    return replace(made, **changes)


def test_engines_start_with_their_prompt_cache_on(tmp_path: Path) -> None:
    cold, warm = launch(tmp_path), launch(tmp_path, keeps_prompts=True)
    for backend, off, on in (
        (VLLM, "--no-enable-prefix-caching", "--enable-prefix-caching"),
        (SGLANG, "--disable-radix-cache", None),
    ):
        assert off in backend.command(cold).argv
        assert off not in backend.command(warm).argv
        assert on is None or (on in backend.command(warm).argv) > (on in backend.command(cold).argv)
    listed = ("--prompt-cache-size N",)
    assert "--prompt-cache-size" in MLX.command(replace(cold, answers=listed)).argv
    assert "--prompt-cache-size" not in MLX.command(replace(warm, answers=listed)).argv
    assert json.loads(EMBEDDED.command(warm).argv[-1])["keeps_prompts"] is True
    assert "keeps_prompts" not in json.loads(EMBEDDED.command(cold).argv[-1])


def test_llama_server_keeps_its_defaults(tmp_path: Path) -> None:
    from tokrig.backends.llamacpp import BACKEND

    flags = "-m,    --model FNAME\n-c,    --ctx-size N\n-np,   --parallel N\n-t,    --threads N\n"
    flags += "--host HOST\n--port PORT\n--no-cache-prompt\n-cram, --cache-ram N\n"
    flags += "--ctx-checkpoints N\n"
    cold = launch(tmp_path, answers=("", "", flags))
    assert Help.of(cold).spelling("cache-ram")
    switches = {"--no-cache-prompt", "--cache-ram", "--ctx-checkpoints"}
    assert switches <= {*BACKEND.command(cold).argv}
    assert not switches & {*BACKEND.command(replace(cold, keeps_prompts=True)).argv}


def test_a_turn_may_use_the_cache_and_nothing_else_may() -> None:
    turn = Request([{"role": "user", "content": "?"}], 8, 1, keeps_prompt=True)
    assert EMBEDDED.body(turn)["cache_prompt"] is True
    assert EMBEDDED.body(replace(turn, keeps_prompt=False))["cache_prompt"] is False


# Figures


def test_the_figures_of_a_session() -> None:
    found = figures(walk())
    assert found["session_s"].median == pytest.approx(2 * 2.1 + 2.0)
    session = found["session"]
    assert (session.turns, session.sessions) == (3, 1)
    assert session.hit_rate == pytest.approx((997 + 1597) / 5600, rel=1e-5)
    assert session.reusable_share == pytest.approx((1000 + 1600) / 5600, rel=1e-5)
    last = session.by_turn[2]
    assert (last.prompt_tokens, last.reusable_tokens) == (3000, 1600)
    assert (last.cached_tokens, last.new_tokens, last.output_tokens) == (1597, 1403, 41)
    assert (last.ttft_s, last.total_s) == (0.5, pytest.approx(2.0))
    assert session.by_turn[0].reusable_tokens == 0
    assert naming.session_cache(session) == (
        "46.3 % of the prompt tokens came from the cache, where 46.4 % could have"
    )


def test_only_sessions_have_such_figures() -> None:
    found = figures([sample()])
    assert found["session"] is None
    assert found["session_s"] is None


def test_medians_are_over_sessions_and_repeats() -> None:
    slow = [replace(s, sent_ns=s.sent_ns * 2) for s in walk(repeat=1)]
    found = figures([*walk(), *slow, *walk(repeat=2)], starts=3)
    assert found["session_s"].n == 3
    assert found["session_s"].median == pytest.approx(6.2)
    assert found["session_s"].max == pytest.approx(10.4)
    assert found["session"].sessions == 3


def test_starts_are_told_one_by_one_and_older_records_without_them_stand() -> None:
    samples = [*walk(), *walk(repeat=1)]
    record = record_of(samples)
    (result,) = record.results
    assert result.session_s is not None
    assert result.session_s.starts == [pytest.approx(6.2)] * 2
    assert not differences(record, samples)
    for starts, stands in (([], True), ([6.1, 6.3], False)):
        told = result.session_s.model_copy(update={"starts": starts})
        other = result.model_copy(update={"session_s": told})
        found = differences(record.model_copy(update={"results": [other]}), samples)
        assert (not found) == stands


def test_an_engine_without_a_cache_is_told_so() -> None:
    session = session_of(walk(cached=(4, 4, 4)))
    assert session.hit_rate == pytest.approx(12 / 5600, rel=1e-4)
    assert "has no prompt cache, or it is switched off" in naming.session_cache(session)


def test_an_engine_that_says_nothing_leaves_it_open() -> None:
    silent = walk(cached=(None, None, None))
    session = session_of(silent)
    assert session.hit_rate is None
    assert session.by_turn[1].new_tokens is None
    assert session.reusable_share == pytest.approx(2600 / 5600, rel=1e-5)
    assert "does not tell" in naming.session_cache(session)
    assert session_of(silent, {"cached_tokens": 2800.0}).hit_rate == 0.5


def test_a_session_with_a_failed_turn_is_not_whole() -> None:
    first, second, third = walk()
    broken = [first, replace(second, error="http_500", chunks=()), third, *walk(repeat=1)]
    found = figures(broken, starts=2)
    assert found["session"].sessions == 1
    assert found["session_s"].n == 1
    # Between the first turn and the third there is no turn before.
    assert found["session"].reusable_share == pytest.approx(2600 / 9600, rel=1e-4)


# Checks


def verdict(samples: list[Sample], **changes: Any) -> set[str]:
    backend = BackendFacts(name="x", engine="x", prompting=Prompting(template_tokens=12))
    cell = samples[0].cell
    seen = replace(Seen(workload=FACTS, cell=cell, backend=backend), **changes)
    return {*judge(samples, seen).reasons}


def test_cached_tokens_are_what_a_session_is_for() -> None:
    assert "cached_tokens" not in verdict(walk(), counters={"cached_tokens": 2594.0})
    assert "warm_first_turn" not in verdict(walk(cached=(32, 997, 1597)))


def test_a_first_turn_that_was_there_already_is_told() -> None:
    assert "warm_first_turn" in verdict(walk(cached=(900, 997, 1597)))


def test_a_prompt_that_was_cut_is_told() -> None:
    cut = [replace(s, prompt_tokens=min(s.prompt_tokens or 0, 2000)) for s in walk()]
    assert "prompt_length" in verdict(cut)
    assert "prompt_length" not in verdict(walk())


def test_where_nobody_counted_prompts_have_to_grow() -> None:
    uncounted = FACTS.model_copy(update={"turn_prompt_tokens": []})
    cut = [replace(s, prompt_tokens=min(s.prompt_tokens or 0, 1600)) for s in walk()]
    assert "prompt_length" in verdict(cut, workload=uncounted)
    assert "prompt_length" not in verdict(walk(), workload=uncounted)


def test_each_turn_has_its_own_answer_length() -> None:
    assert "output_length" not in verdict(walk())
    short = walk()
    short[2] = replace(short[2], output_tokens=21)
    assert "output_length" in verdict(short)


def test_sessions_side_by_side_count_until_the_first_has_ended() -> None:
    """One worker ends long before the other: what the other then does alone is no lack of slots."""
    both = walk(concurrency=2)
    for turn in walk(worker=1, concurrency=2):
        slow = tuple(replace(chunk, t_ns=chunk.t_ns * 3) for chunk in turn.chunks)
        both.append(replace(turn, sent_ns=turn.sent_ns * 3, chunks=slow))
    assert "concurrency_not_reached" not in verdict(both, cell=Cell("session", 2, load="session"))


# Where they are shown


def printed(samples: list[Sample]) -> str:
    out = io.StringIO()
    print_figures(Console(file=out, width=160, markup=False, highlight=False), record_of(samples))
    return out.getvalue()


def test_show_has_a_line_a_turn_and_one_for_the_whole() -> None:
    text = printed(walk())
    assert re.search(r"3 +3,000 +1,597 +1,403 +41 +500 ms +2\.00 s", text)
    assert "session × 1: 1 session of 3 turns in 6.20 s each; 46.3 %" in text
    assert "turns in" not in printed([sample()])


def test_check_computes_them_again() -> None:
    record = record_of(walk())
    assert record.results[0].cell == Cell("session", 1, load="session")
    assert differences(record, walk()) == []
    warmer = [replace(s, cached_tokens=(s.cached_tokens or 0) + 1) for s in walk()]
    places = {one.place for one in differences(record, warmer)}
    assert ("results", 0, "session", "hit_rate") in places
    assert ("results", 0, "session", "by_turn", 2, "cached_tokens") in places


def test_the_chart_has_every_turn_of_every_result() -> None:
    one = record_of(walk()).results[0]
    two = record_of([*walk(concurrency=2), *walk(worker=1, concurrency=2)]).results[0]
    figure = by_turn([one, two])
    assert figure is not None
    assert [row[:2] for row in figure.rows] == [
        (name, turn) for name in ("session × 1", "session × 2") for turn in ("1", "2", "3")
    ]
    assert figure.rows[2] == (
        *("session × 1", "3", "3,000", "1,600", "1,597", "1,403", "41", "500 ms", "2.00 s"),
    )
    assert by_turn(record_of([sample()]).results) is None


def test_what_nobody_told_is_not_drawn_as_new() -> None:
    figure = by_turn(record_of(walk(cached=(None, None, None))).results)
    assert figure is not None
    assert "prompt tokens, cached or not" in figure.drawing.parts
    assert "new tokens" not in figure.drawing.parts


def test_a_runs_page_has_a_table_for_each_result(tmp_path: Path) -> None:
    text = page_of(tmp_path, record_of(walk())).text
    assert "Session, turn by turn" in text
    assert "Sessions of 3 turns, 1 in all, 6.20 s each: 46.3 % of the prompt tokens" in text
    row = ["3", "3,000", "1,600", "1,597", "1,403", "41", "500 ms", "2.00 s"]
    assert "\n".join(row).replace("\n", "") in text
    other = page_of(tmp_path / "other", record_of([sample()])).text
    assert "Session, turn by turn" not in other
