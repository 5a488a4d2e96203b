"""What campaigns mean: runs, names, keys, states, what fits and what it costs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.planned import GIB, MATRIX, SHAPES, loaded, made, one, past
from tokrig.errors import SpecError
from tokrig.plan import Plan, PlanInputs, RigMemory, Run, command, run_spec
from tokrig.plan.expand import key_before
from tokrig.quants import OVERHEAD_BYTES, Size
from tokrig.spec.run import RunSpec


def only(plan: Plan) -> Run:
    assert len(plan.runs) == 1
    return plan.runs[0].run


def refused(*entries: dict[str, Any], known: PlanInputs | None = None, **keys: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        made(loaded(*entries, **keys), known=known)
    return caught.value


# What names mean.


@pytest.mark.parametrize(
    ("model", "reference"),
    [
        ("Gemma-3-270M", "gemma-3-270m"),
        ("folder/b.gguf", "folder/b.gguf"),
        ("b.GGUF", "b.GGUF"),
        ("hf:o/n", "hf:o/n"),
        ("hf:o/n@main/f.gguf", "hf:o/n/f.gguf"),
        ("hf:o/n@v1/d/f.gguf", "hf:o/n@v1/d/f.gguf"),
        ("declared", "hf:unsloth/M-GGUF@v2/M-Q4_0.gguf"),
        ("here", "files/F16.gguf"),
        ("wheel", "smollm2-135m"),
    ],
)
def test_a_model_is_a_declared_one_a_path_a_reference_or_in_the_catalog(
    model: str, reference: str
) -> None:
    models = {
        "declared": {"repo": "{creator}/M-GGUF", "revision": "v2", "file": "M-{quant}.gguf"},
        "here": {"file": "files/F16.gguf", "quantize": True},
        "wheel": {"file": "smollm2-135m", "quantize": True},
    }
    matrix = {**MATRIX, "model": model, "quant": "Q4_0", "creator": "unsloth"}
    run = only(made(loaded(one(matrix=matrix), models=models)))
    assert run.weights.reference == reference
    assert run.weights.quantize == ("Q4_0" if model in ("here", "wheel") else None)
    assert run.weights.name == model


def test_an_unknown_word_is_refused_unless_the_backend_knows_models_itself() -> None:
    error = refused(one(matrix={**MATRIX, "model": ["a.gguf", "gemma-3-270"]}))
    assert "unknown model 'gemma-3-270'" in error.message
    assert "queue.yaml:" in error.message
    assert "did you mean 'gemma-3-270m'" in error.hint
    known = one(matrix={"model": "llama3:8b", "backend": "ollama"})
    assert only(made(loaded(known))).weights.reference == "llama3:8b"
    served = one(matrix={"model": "m", "backend": "openai"}, set={"url": "http://127.0.0.1:1"})
    assert only(made(loaded(served))).weights.reference == "m"
    anything = one(matrix={**MATRIX, "model": "whatever"})
    assert only(made(loaded(anything), catalog=None)).weights.reference == "whatever"


def test_a_rig_is_named_or_this_one() -> None:
    assert only(made(loaded(one(), rig=None))).rig == "desktop"
    with pytest.raises(SpecError, match="no rig is named"):
        made(loaded(one(), rig=None), here=None)
    error = refused(one(matrix={**MATRIX, "rig": "desktopp"}))
    assert "unknown rig 'desktopp'" in error.message
    assert "did you mean 'desktop'" in error.hint
    elsewhere = one(matrix={**MATRIX, "rig": ["a", "b"]})
    file = loaded(elsewhere, rigs={"a": {"vram_gib": 8}})
    assert len(made(file, known=PlanInputs(rigs={"b": RigMemory()})).runs) == 2


def test_a_cap_out_of_the_range_of_a_known_card_is_refused() -> None:
    entry = one(matrix={**MATRIX, "power_cap_w": [None, 250, 99]})
    error = refused(entry, known=PlanInputs(rigs={"desktop": RigMemory(power_w=(100, 300))}))
    assert "a cap of 99 W is out of the range of desktop: 100 to 300 W" in error.message


def test_a_draft_model_is_one_file() -> None:
    models = {"small": {"repo": "o/s", "file": "s.gguf"}, "many": {"file": "m-{quant}.gguf"}}
    mode = {"speculative": "draft", "draft_model": "small", "draft_tokens": 3}
    run = only(made(loaded(one(matrix={**MATRIX, "mode": mode}), models=models)))
    assert run.setting("draft_model") == "hf:o/s/s.gguf"
    mode["draft_model"] = "many"
    error = refused(one(matrix={**MATRIX, "mode": mode}), models=models)
    assert "more than one file" in error.message


# What a run is.


def test_a_run_as_a_spec_and_as_a_command() -> None:
    entry = one(
        "sweep",
        level="quick",
        matrix={
            **MATRIX,
            "backend": "llamacpp",
            "model": "m",
            "quant": "Q4_0",
            "build": "new",
            "api": "cuda",
            "mode": {"speculative": "ngram", "draft_tokens": 8},
            "reasoning": "off",
            "kv_type": "q8_0",
            "context": 4096,
            "power_cap_w": 250,
            "workloads": ["rag", "chat"],
            "concurrency": [4, 1],
        },
        set={"threads": 2, "options": {"b": 1, "a": "x"}, "devices": ["CUDA0"]},
    )
    models = {"m": {"file": "m.gguf", "quantize": True}}
    run = only(made(loaded(entry, models=models, builds={"new": "/opt/llama-server"})))
    assert len(run.key) == 16 and int(run.key, 16)
    assert run_spec(run) == RunSpec(
        model="m.gguf",
        quantize="Q4_0",
        backend="llamacpp",
        server_bin="/opt/llama-server",
        level="quick",
        api="cuda",
        speculative="ngram",
        draft_tokens=8,
        reasoning="off",
        kv_type="q8_0",
        context=4096,
        power_cap_w=250,
        workloads=["rag", "chat"],
        concurrency=[4, 1],
        threads=2,
        options={"a": "x", "b": 1},
        devices=["CUDA0"],
        rig="desktop",
        campaign="queue/sweep",
        planned=run.key,
    )
    assert command(run) == "tokrig campaign run campaigns/queue.yaml --only sweep"


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"name": "other", "title": "Other", "about": "x", "priority": 9}, True),
        ({"blocked": {"why": "w", "until": "u"}}, True),
        ({"when": ["fits_vram"]}, True),
        ({"matrix": {**MATRIX, "quant": "a label", "creator": "somebody"}}, True),
        ({"set": {"notes": "idle"}}, True),
        ({"level": "standard"}, True),
        ({"level": "quick"}, False),
        ({"set": {"threads": 2}}, False),
        ({"matrix": {**MATRIX, "kv_type": "q8_0"}}, False),
        ({"matrix": {**MATRIX, "context": 4096}}, False),
        ({"matrix": {**MATRIX, "power_cap_w": 200}}, False),
        ({"matrix": {**MATRIX, "driver": "1.0"}}, False),
        ({"matrix": {**MATRIX, "workloads": "chat"}}, False),
        ({"matrix": {**MATRIX, "concurrency": 1}}, False),
        ({"matrix": {**MATRIX, "mode": "ngram"}}, False),
        ({"matrix": {**MATRIX, "reasoning": "off"}}, False),
        ({"matrix": {**MATRIX, "api": "cpu"}}, False),
    ],
)
def test_a_key_is_of_what_changes_the_measurement(changes: dict[str, Any], same: bool) -> None:
    key = only(made(loaded(one()))).key
    assert (only(made(loaded(one(**changes)))).key == key) is same


def test_the_order_of_shapes_makes_no_other_run() -> None:
    matrices = [{**MATRIX, "workloads": shapes} for shapes in (["chat", "rag"], ["rag", "chat"])]
    keys = {only(made(loaded(one(matrix=matrix)))).key for matrix in matrices}
    assert len(keys) == 1


def test_a_key_is_the_same_tomorrow() -> None:
    """Keys stand in published records: another one would measure everything again."""
    file = loaded(one())
    assert only(made(file, texts={"chat": "aaaaaaaaaaaa"})).key == "6749ea1870542181"
    assert only(made(file, texts={"chat": "bbbbbbbbbbbb"})).key != "6749ea1870542181"


EVERYTHING = one(
    "sweep",
    repeats=2,
    level="quick",
    matrix={
        **MATRIX,
        "backend": "llamacpp",
        "model": "m",
        "quant": "Q4_0",
        "build": "new",
        "api": "cuda",
        "mode": {"speculative": "ngram", "draft_tokens": 8},
        "reasoning": "off",
        "kv_type": "q8_0",
        "context": 4096,
        "power_cap_w": 250,
        "driver": "600.1",
        "workloads": ["rag", "chat"],
        "concurrency": [4, 1],
    },
    set={"threads": 2, "options": {"b": 1, "a": "x"}, "devices": ["C0"], "seed": 3, "notes": "x"},
)


@pytest.mark.parametrize(
    ("entry", "keys"),
    [
        (one(), ["7ae5ed17b1cdbbfe"]),
        (EVERYTHING, ["8843fc677022a99c", "dcf4744545357044"]),
    ],
)
def test_records_with_keys_of_before_answer_their_plans(
    entry: dict[str, Any], keys: list[str]
) -> None:
    models = {"m": {"file": "m.gguf", "quantize": True}}
    file = loaded(entry, models=models, builds={"new": "/opt/llama-server"})
    runs = [p.run for p in made(file).runs]
    assert [key_before(run) for run in runs] == keys
    answered = PlanInputs(past=[past(runs[0], planned=keys[0])], unfinished=frozenset(keys[1:]))
    found = made(file, known=answered).runs
    assert {p.run.key: p.state for p in found} == dict(
        zip((run.key for run in runs), ("done", "unfinished"), strict=False)
    )


def test_two_entries_that_mean_the_same_run_are_refused() -> None:
    error = refused(one("first"), one("second", priority=3))
    assert "'second' and 'first'" in error.message
    assert error.message.count("queue.yaml:") == 2
    error = refused(one(include=[{"api": None}]))
    assert "means the same run twice" in error.message
    with pytest.raises(SpecError, match="two entries mean the same run"):
        made(loaded(one()), loaded(one(), name="other"))
    with pytest.raises(SpecError, match="a campaign 'queue' already"):
        made(loaded(one()), loaded(one(), name="queue"))


def test_include_replaces_axes_and_exclude_leaves_runs_out() -> None:
    matrix = {**MATRIX, "model": ["a.gguf", "b.gguf"], "api": ["cpu", "cuda"]}
    entry = one(
        matrix=matrix,
        include=[{"backend": "llamacpp", "api": [None, "cpu"]}],
        exclude=[{"model": "b.gguf", "api": ["cuda", None]}],
    )
    runs = [p.run for p in made(loaded(entry)).runs]
    assert {(r.weights.name[0], r.backend, r.setting("api")) for r in runs} == {
        ("a", "embedded", "cpu"),
        ("a", "embedded", "cuda"),
        ("b", "embedded", "cpu"),
        ("a", "llamacpp", None),
        ("a", "llamacpp", "cpu"),
        ("b", "llamacpp", "cpu"),
    }
    error = refused(one(exclude=[{"model": "a.gguf"}, {"model": "b.gguf"}]))
    assert "this exclude leaves out no run" in error.message


def test_an_exclude_may_not_break_a_pair() -> None:
    matrix = {**MATRIX, "api": ["cpu", "cuda"], "context": [512, 1024]}
    entry = one(matrix=matrix, ab="api", repeats=2)
    assert len(made(loaded({**entry, "exclude": [{"context": 512}]})).runs) == 4
    error = refused({**entry, "exclude": [{"context": 512, "api": "cpu"}]})
    assert "one of the two values of 'api' alone" in error.message


# States.


def test_records_tell_the_state_the_best_one_first() -> None:
    file = loaded(one())
    run = only(made(file))
    later = "2026-11-23T12:00:00+00:00"
    failed = past(run, "failed", status="failed", failure="it died", started_at=later)
    invalid = past(run, "invalid", verdict="invalid")
    valid, newer = past(run, "valid"), past(run, "newer", started_at=later)
    for records, state, record in (
        ([failed], "failed", "failed"),
        ([failed, invalid], "invalid", "invalid"),
        ([valid, failed, invalid], "done", "valid"),
        ([newer, valid], "done", "newer"),
        ([past(run, "cut", status="interrupted")], "failed", "cut"),
        ([past(run, "other", planned=None)], "todo", None),
    ):
        for order in (records, records[::-1]):
            found = made(file, known=PlanInputs(past=order)).runs[0]
            assert (found.state, found.record) == (state, record)
    assert made(file, known=PlanInputs(past=[failed])).runs[0].why == "it died"


def test_the_first_state_that_holds_wins() -> None:
    blocked = one(when=["fits_vram"], blocked={"why": "no card", "until": "it is bought"})
    run = only(made(loaded(one())))
    none = {"desktop": RigMemory(vram_bytes=0)}
    begun, failed = frozenset({run.key}), [past(run, status="failed", failure="x")]

    def state(entry: dict[str, Any], **known: Any) -> str:
        return made(loaded(entry), known=PlanInputs(rigs=none, **known)).runs[0].state

    assert state(blocked, past=[past(run)], unfinished=begun) == "done"
    assert state(blocked, past=[past(run, verdict="invalid")], unfinished=begun) == "invalid"
    assert state(blocked, past=failed, unfinished=begun) == "unfinished"
    assert state(blocked, past=failed) == "blocked"
    fits = one(when=["fits_vram"])
    assert state(fits, past=failed) == "failed"
    assert state(fits) == "does_not_fit"
    assert state(one()) == "todo"
    told = made(loaded(blocked)).runs[0]
    assert (told.why, told.until) == ("no card", "it is bought")


# What fits.

SIZES = {"repo": "o/m", "file": "m-{quant}.gguf", "parameters": 8e9, "kv_bytes_per_token": 131072}


def fit_of(vram: int | None, known: PlanInputs | None = None, **axes: Any) -> tuple[str, str]:
    matrix = {**MATRIX, "model": "m", "quant": "Q4_K_M", "workloads": "chat", **axes}
    entry = one(matrix=matrix, when=["fits_vram"])
    known = known or PlanInputs(rigs={"desktop": RigMemory(vram_bytes=vram)}, shapes=SHAPES)
    found = made(loaded(entry, models={"m": SIZES}), known=known).runs[0]
    return found.state, found.why


def test_weights_cache_and_overhead_have_to_fit() -> None:
    weights = round(8e9 * 4.89 / 8)
    slot = -(-(773 + 64) // 256) * 256
    need = weights + 131072 * slot + OVERHEAD_BYTES
    assert fit_of(need) == ("todo", "")
    state, why = fit_of(need - 1)
    assert state == "does_not_fit"
    assert "weights of 4.55 GiB (estimated), a cache of 128.0 MiB for 1 × 1,024 tokens" in why
    assert "would fit: a cache in q8_0 instead of f16 or a context of 768 tokens" in why
    four = weights + 4 * 131072 * slot + OVERHEAD_BYTES
    assert fit_of(four, concurrency=[1, 4])[0] == "todo"
    assert fit_of(four - 1, concurrency=[1, 4])[0] == "does_not_fit"
    assert fit_of(need - 1, kv_type="q8_0")[0] == "todo"
    asked = weights + 131072 * 32768 + OVERHEAD_BYTES
    assert fit_of(asked, context=32768)[0] == "todo"
    assert fit_of(asked - 1, context=32768)[0] == "does_not_fit"


def test_what_is_not_known_is_said_and_done() -> None:
    rigs = {"desktop": RigMemory(vram_bytes=GIB)}
    matrix = {**MATRIX, "workloads": "chat"}
    sized = {"a.gguf": Size(10**6)}
    for known, why in (
        (PlanInputs(sizes=sized), "the VRAM of desktop is not known"),
        (PlanInputs(rigs=rigs), "the size of the model is not known"),
        (PlanInputs(rigs=rigs, sizes=sized), "the cache's bytes per token are not known"),
    ):
        file = loaded(one(matrix=matrix, when=["fits_vram"]))
        found = made(file, known=known).runs[0]
        assert (found.state, found.why) == ("todo", f"not known whether it fits: {why}")
    large = PlanInputs(rigs=rigs, sizes={"a.gguf": Size(GIB, source="file")})
    found = made(loaded(one(matrix=matrix, when=["fits_vram"])), known=large).runs[0]
    assert found.state == "does_not_fit"
    assert "1.59 GiB of VRAM needed, 1.00 GiB there: weights of 1.00 GiB (file)" in found.why
    assert "type odd" in fit_of(100 * GIB, kv_type="odd")[1]


def test_a_known_size_comes_before_a_declared_one() -> None:
    rigs = {"desktop": RigMemory(memory_bytes=4 * GIB)}
    models = {"m": {**SIZES, "bytes": {"Q4_K_M": 2 * GIB}}}
    matrix = {**MATRIX, "model": "m", "quant": "Q4_K_M", "workloads": "chat"}
    file = loaded(one(matrix=matrix, when=["fits_memory"]), models=models)
    assert made(file, known=PlanInputs(rigs=rigs)).runs[0].state == "todo"
    sizes = {"hf:o/m/m-Q4_K_M.gguf": Size(5 * GIB, source="repository")}
    found = made(file, known=PlanInputs(rigs=rigs, sizes=sizes)).runs[0]
    assert found.state == "does_not_fit" and "(repository)" in found.why


def test_the_campaign_tells_what_nobody_measured() -> None:
    entry = one(matrix={**MATRIX, "workloads": "chat"}, when=["fits_vram"])
    file = loaded(entry, rigs={"desktop": {"vram_gib": 8}})
    sizes = {"a.gguf": Size(9 * GIB)}
    assert made(file, known=PlanInputs(sizes=sizes)).runs[0].state == "does_not_fit"
    measured = PlanInputs(sizes=sizes, rigs={"desktop": RigMemory(vram_bytes=16 * GIB)})
    assert made(file, known=measured).runs[0].state == "todo"


# What it costs.


def test_time_follows_the_nearest_record_of_the_rig() -> None:
    file = loaded(one(level="standard", matrix={**MATRIX, "workloads": ["chat", "rag"]}))
    run = only(made(file))
    near = past(run, "near", planned=None, level="quick", results=3, duration_s=90, model_bytes=900)
    far = past(run, "far", planned=None, model_bytes=10**9, duration_s=1)
    other = past(run, "other", planned=None, rig="other", model_bytes=1800, duration_s=7)
    engine = past(run, "engine", planned=None, backend="vllm", model_bytes=1800, duration_s=8)
    broken = past(run, "broken", planned=None, status="failed", model_bytes=1800)
    sizes = {"a.gguf": Size(1800)}
    known = PlanInputs(past=[far, other, engine, broken, near], sizes=sizes, shapes=SHAPES)
    planned = made(file, known=known).runs[0]
    assert planned.cells == 3  # rag at 1 and at 4
    # 90 s for 3 cells and 1 start, at twice the bytes, for 3 cells and 6 starts.
    assert planned.time_s == pytest.approx(90 * 2 * 6)
    known = PlanInputs(past=[other, engine], sizes=sizes, shapes=SHAPES)
    assert made(file, known=known).runs[0].time_s == pytest.approx(8 * 3)


def test_requests_that_arrive_by_themselves_take_as_long_as_they_arrive() -> None:
    matrix = {**MATRIX, "workloads": ["chat", "rag"]}
    search = {"find_rate": True, "slo": "ttft=0.5s", "duration_s": 30}
    file = loaded(
        one("search", level="quick", matrix=matrix, set=search),
        one("often", level="standard", matrix=matrix, set=search),
        one("traced", level="standard", set={"trace": "day.csv"}),
    )
    known = PlanInputs(sizes={"a.gguf": Size(10**9)}, shapes=SHAPES)
    search_s, often_s, untold = (planned.time_s for planned in made(file, known=known).runs)
    # Ready after 10 s and a second for the bytes; each shape is looked for in eight probes.
    assert search_s == pytest.approx(11 + 2 * 8 * 30)
    # In each further start the two rates next to the limit are measured again.
    assert often_s == pytest.approx(6 * 11 + 2 * (8 + 5 * 2) * 30)
    assert untold is None
    traced = made(file, known=known).runs[2].run
    planned = made(file, known=replace(known, traces_s={traced.key: 40.0})).runs[2]
    assert planned.cells == 1
    assert planned.time_s == pytest.approx(6 * (11 + 40))


def test_without_records_time_follows_the_bandwidth() -> None:
    matrix = {**MATRIX, "model": "m", "quant": "Q8_0", "workloads": "chat", "concurrency": [1, 4]}
    models = {"m": {**SIZES, "bytes": {"Q8_0": 6 * 10**9}, "active_parameters": 2e9}}
    entry = one(level="quick", matrix=matrix)
    rigs = {"desktop": {"memory_bandwidth_gb_per_s": 100}}
    file = loaded(entry, models=models, rigs=rigs)
    step = 6e9 / 4 / (100e9 * 0.6)
    cells = [4 * (256 + concurrency * 512 / 10) * step for concurrency in (1, 4)]
    plan = made(file, known=PlanInputs(shapes=SHAPES))
    assert plan.runs[0].time_s == pytest.approx(10 + 6 + sum(cells))
    assert (plan.time_s, plan.without_time) == (plan.runs[0].time_s, 0)
    unknown = made(file)
    assert (unknown.runs[0].time_s, unknown.time_s, unknown.without_time) == (None, 0, 1)


def test_a_file_is_downloaded_once_by_each_rig() -> None:
    models = {"m": {**SIZES, "bytes": {"Q4_0": 100, "Q8_0": 200}}}
    matrix = {
        **MATRIX,
        "model": "m",
        "quant": ["Q8_0", "Q4_0"],
        "rig": ["desktop", "laptop"],
        "api": ["cpu", "cuda"],
    }
    file = loaded(one(matrix=matrix), models=models, rigs={"laptop": {}})
    plan = made(file)
    assert [p.download_bytes for p in plan.runs] == [100, 0, 200, 0] * 2
    assert plan.download_bytes == 600
    here = PlanInputs(sizes={"hf:o/m/m-Q8_0.gguf": Size(200, here=True)})
    found = [(p.run.rig, p.run.quant, p.download_bytes) for p in made(file, known=here).runs]
    assert found[::2] == [
        ("desktop", "Q8_0", 0),
        ("desktop", "Q4_0", 100),
        ("laptop", "Q4_0", 100),
        ("laptop", "Q8_0", 200),
    ]
    assert made(loaded(one())).runs[0].download_bytes == 0
    unknown = one(matrix={**MATRIX, "model": "hf:o/n"})
    assert made(loaded(unknown)).runs[0].download_bytes is None


def test_a_draft_model_is_downloaded_and_counted_too() -> None:
    models = {"m": {**SIZES, "bytes": {"Q4_0": GIB}}, "d": {"repo": "o/d", "bytes": {"F16": GIB}}}
    mode = {"speculative": "draft", "draft_model": "d"}
    matrix = {**MATRIX, "model": "m", "quant": "Q4_0", "mode": mode, "workloads": "chat"}
    file = loaded(one(matrix=matrix, when=["fits_vram"]), models=models)
    rigs = {"desktop": RigMemory(vram_bytes=round(2.5 * GIB))}
    found = made(file, known=PlanInputs(rigs=rigs)).runs[0]
    assert found.state == "does_not_fit" and "weights of 2.00 GiB" in found.why
    assert made(file).runs[0].download_bytes == 2 * GIB


def test_what_is_done_costs_nothing() -> None:
    file = loaded(one(matrix={**MATRIX, "model": "hf:o/n"}))
    plan = made(file, known=PlanInputs(past=[past(only(made(file)))]))
    assert (plan.runs[0].download_bytes, plan.runs[0].time_s) == (None, None)
    assert plan.counts["done"] == 1 and plan.of("todo", "unfinished") == []


def test_a_plan_as_plain_data() -> None:
    matrix = {**MATRIX, "mode": {"speculative": "ngram"}}
    plan = made(loaded(one(matrix=matrix, set={"options": {"a": 1}})))
    data = json.loads(json.dumps(plan.as_json()))
    assert data["campaigns"] == ["queue"]
    assert data["counts"]["todo"] == 1 and len(data["counts"]) == 7
    run = data["runs"][0]
    assert (run["state"], run["reference"], run["cells"]) == ("todo", "a.gguf", 2)
    assert run["mode"] == {"speculative": "ngram", "draft_model": None, "draft_tokens": None}
    assert run["settings"] == {"options": {"a": 1}}
