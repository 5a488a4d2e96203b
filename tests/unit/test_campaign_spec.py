"""The campaign file: what it takes, and messages that name the line of the wrong value."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokrig.errors import SpecError
from tokrig.spec.campaign import MAX_CELLS, SETTABLE, CampaignFile, Speculative, load_campaign

HEAD = """\
title: A campaign
rig: desktop
models:
  small: {repo: "{creator}/Small-GGUF", file: "Small-{quant}.gguf"}
  made: {file: small-F16.gguf, quantize: true}
builds:
  new: /opt/new/llama-server
rigs:
  desktop: {power_w: [100, 350]}
entries:
  - name: first
    title: The first entry
"""
MATRIX_LINE = len(HEAD.splitlines()) + 1


def load(folder: Path, text: str, name: str = "queue.yaml") -> CampaignFile:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return load_campaign(path)


def entry(folder: Path, body: str) -> CampaignFile:
    return load(folder, HEAD + body)


def refused(folder: Path, text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        load(folder, text)
    return caught.value


def test_a_file_is_read_with_its_lines(tmp_path: Path) -> None:
    file = entry(
        tmp_path,
        """\
    matrix:
      model: gemma-3-270m
      backend: [embedded, llamacpp]
      kv_type: [null, q8_0]
      mode:
        - baseline
        - mtp
        - {speculative: draft, draft_model: small.gguf, draft_tokens: 4}
      reasoning: ["on", "off", null]
    include:
      - {model: b.gguf, kv_type: null}
""",
    )
    assert file.name == "queue"
    found = file.campaign.entries[0]
    assert found.matrix.backend == ("embedded", "llamacpp")
    assert found.matrix.kv_type == (None, "q8_0")
    assert found.matrix.mode == (
        None,
        Speculative(speculative="mtp"),
        Speculative(speculative="draft", draft_model="small.gguf", draft_tokens=4),
    )
    assert found.matrix.reasoning == ("on", "off", None)
    assert found.matrix.values("driver") == (None,)
    included = found.matrices()["include[0]"]
    assert (included.model, included.kv_type) == (("b.gguf",), (None,))
    assert included.backend == ("embedded", "llamacpp")
    path = str(tmp_path / "queue.yaml")
    assert file.where("first") == f"{path}:{MATRIX_LINE - 2}"
    assert file.where("first", "matrix.mode[2]") == f"{path}:{MATRIX_LINE + 7}"
    assert file.where("first", "matrix.model[0]") == f"{path}:{MATRIX_LINE + 1}"
    assert file.where("first", "exclude[3].rig") == f"{path}:{MATRIX_LINE - 2}"


BASE = "    matrix: {model: a.gguf, backend: embedded}\n"


@pytest.mark.parametrize(
    ("axis", "reason"),
    [
        ("backend: embeded", "unknown backend 'embeded'"),
        ("workloads: [chat, chatt]", "unknown workload 'chatt'"),
        ("build: newer", "unknown build 'newer'"),
        ("quant: 4", "quant[0]: should be a valid string, not 4"),
        ("build: 9174", "build[0]: should be a valid string"),
        ("driver: 595.58", "driver[0]: should be a valid string"),
        ("api: opencl", "api[0]: should be 'cpu'"),
        ("mode: mtb", "unknown mode 'mtb': did you mean 'mtp'"),
        ("mode: {speculative: draft}", "'draft' needs a draft_model"),
        ("mode: draft", "'draft' needs a draft_model"),
        ("mode: {speculative: ngram, draft_model: x.gguf}", "leave draft_model out"),
        ("reasoning: off", 'put it in quotes, "on" or "off"'),
        ("reasoning: never", "should be 'on' or 'off'"),
        ("context: 4k", "should be a valid integer, not '4k'"),
        ("context: 0", "should be greater than or equal to 1"),
        ("power_cap_w: '250'", "should be a valid number"),
        ("power_cap_w: -1", "should be greater than 0"),
        ("power_cap_w: [200, 99]", "a cap of 99 W is out of the range of desktop: 100 to 350 W"),
        ("concurrency: 1025", "less than or equal to 1024"),
        ("concurrency: [1, 1]", "1 is named twice"),
        ("mode: [mtp, {speculative: mtp}]", "'mtp' is named twice"),
        ("quant: []", "the list is empty"),
        ("rig: My Rig", "try 'my-rig'"),
        ("rig: null", "should be a valid string, not empty"),
        ("quants: Q4_0", "unknown key 'quants'"),
        ("model: small", "the model 'small' holds {creator}, but a run here has no creator"),
        ("model: made", "the model 'made' is quantized, but a run here has no quant"),
    ],
)
def test_a_wrong_value_names_its_line(tmp_path: Path, axis: str, reason: str) -> None:
    axes = {"model": "a.gguf", "backend": "embedded"}
    axes.pop(axis.split(":", maxsplit=1)[0], None)
    others = "".join(f"      {name}: {value}\n" for name, value in axes.items())
    error = refused(tmp_path, f"{HEAD}    matrix:\n{others}      {axis}\n")
    assert reason in error.message
    assert f"queue.yaml:{MATRIX_LINE + 1 + len(axes)}: " in error.message


@pytest.mark.parametrize(
    ("axis", "hint"),
    [
        ("quant: 4", "put the value in quotes"),
        ("driver: 595.58", "put the value in quotes"),
        ("backend: embeded", "did you mean 'embedded'"),
        ("build: newer", "did you mean 'new'"),
        ("quants: Q4_0", "did you mean 'quant'"),
    ],
)
def test_a_wrong_value_comes_with_a_hint(tmp_path: Path, axis: str, hint: str) -> None:
    backend = "" if axis.startswith("backend") else "      backend: embedded\n"
    error = refused(tmp_path, f"{HEAD}    matrix:\n      model: a.gguf\n{backend}      {axis}\n")
    assert hint in error.hint


@pytest.mark.parametrize(
    ("body", "line", "reason"),
    [
        ("    matrix: {backend: embedded}\n", 0, "names no model"),
        ("    matrix: {model: a.gguf}\n", 0, "names no backend"),
        (BASE + "    set: {thread: 4}\n", 1, "set takes no 'thread'"),
        (BASE + "    set:\n      notes: x\n      threads: 0\n", 3, "set: threads: should be"),
        (BASE + "    set: {kv_type: q8_0}\n", 1, "set takes no 'kv_type'"),
        (BASE + "    set: {api_key_env: sk-abcdefghijklmnop}\n", 1, "looks like a key itself"),
        (BASE + "    exclude:\n      - {}\n", 2, "leaves out everything"),
        (BASE + "    exclude:\n      - {workloads: chat}\n", 2, "measured inside a run"),
        (BASE + "    ab: api\n    repeats: 2\n", 0, "two values of 'api', the matrix has 1"),
        (BASE + "    ab: rig\n    repeats: 2\n", 0, "two rigs are two"),
        (BASE + "    repeats: 101\n", 1, "less than or equal to 100"),
        (BASE + "    when: [fits]\n", 1, "should be 'fits_vram' or 'fits_memory'"),
        (BASE + "    blocked: {why: x}\n", 1, "missing key 'until'"),
        (BASE + "    include:\n      - {backend: nobody}\n", 2, "unknown backend 'nobody'"),
        (BASE + "  - name: first\n    title: Again\n" + BASE, 1, "the name 'first' is that of"),
        (BASE + "  - name: A b\n    title: Again\n" + BASE, 1, "try 'a-b'"),
    ],
)
def test_a_wrong_entry_names_its_line(tmp_path: Path, body: str, line: int, reason: str) -> None:
    error = refused(tmp_path, HEAD + body)
    assert reason in error.message
    assert f"queue.yaml:{MATRIX_LINE + line}: " in error.message
    assert "sk-abc" not in error.message + error.hint


def test_an_odd_number_of_repeats_is_no_abba(tmp_path: Path) -> None:
    body = "    matrix: {model: a.gguf, backend: embedded, api: [cpu, cuda]}\n    ab: api\n"
    error = refused(tmp_path, HEAD + body + "    repeats: 3\n")
    assert f":{MATRIX_LINE + 2}: " in error.message
    assert "do not make A B B A" in error.message
    assert entry(tmp_path, body + "    repeats: 4\n").campaign.entries[0].repeats == 4


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("{}", "name a repo, a file"),
        ("{revision: x, file: a.gguf}", "a revision belongs to a repo"),
        ("{repo: nobody}", "should match pattern"),
        ("{repo: 'a/b', file: '{quantt}.gguf'}", "unknown placeholder {quantt}: did you mean"),
        ("{repo: a/b, file: c.gguf, quantize: true}", "without a repo"),
        ("{file: 'c-{quant}.gguf', quantize: true}", "leave {quant} out"),
        ("{file: c.gguf, bytes: {Q4_0: 0}}", "greater than or equal to 1"),
        ("{file: c.gguf, parameters: .inf}", "finite"),
    ],
)
def test_a_wrong_model_names_its_line(tmp_path: Path, model: str, reason: str) -> None:
    text = f"title: T\nmodels:\n  m: {model}\nentries:\n  - name: e\n    title: E\n{BASE}"
    error = refused(tmp_path, text)
    assert reason in error.message
    assert "queue.yaml:3: " in error.message


def test_a_rig_takes_its_caps_from_low_to_high(tmp_path: Path) -> None:
    text = "title: T\nrigs:\n  r: {power_w: [300, 100]}\nentries:\n  - name: e\n    title: E\n"
    assert "lowest cap comes first" in refused(tmp_path, text + BASE).message


def test_a_matrix_that_explodes_is_not_expanded(tmp_path: Path) -> None:
    quants = ", ".join(f"q{n}" for n in range(600))
    matrix = f"{{model: m.gguf, backend: embedded, quant: [{quants}], kv_type: [{quants}]}}"
    error = refused(tmp_path, f"{HEAD}    matrix: {matrix}\n")
    assert f":{MATRIX_LINE}: " in error.message
    assert "600 quant × 600 kv_type × 4 workloads" in error.message
    assert "1,440,000 cells" in error.message and f"{MAX_CELLS:,}" in error.message


def test_the_limit_is_one_of_all_entries(tmp_path: Path) -> None:
    values = ", ".join(f"q{n}" for n in range(250))
    matrix = f"{{model: m, backend: ollama, quant: [{values}], kv_type: [{values}]"
    one = f"    matrix: {matrix}, workloads: [chat, rag]}}\n"
    assert len(entry(tmp_path, one).campaign.entries) == 1
    second = (
        f"  - name: second\n    title: S\n    matrix: {matrix}, workloads: [chat, rag, agent]}}"
    )
    assert "entry 'second'" in refused(tmp_path, HEAD + one + second).message


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("My Queue.yaml", BASE, "the file's name is the campaign's"),
        ("queue.yaml", "", "missing key 'title'"),
        ("queue.yaml", "- a\n", "should be a mapping of keys, not a list"),
        ("queue.yaml", "title: T\nentries: []\n", "entries: "),
        ("queue.yaml", "title: T\ntitle: U\n", ":2: duplicate key 'title'"),
    ],
)
def test_what_is_no_campaign(tmp_path: Path, name: str, text: str, reason: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, text, name)
    assert reason in caught.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load_campaign(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"title: \xff\n")
    with pytest.raises(SpecError, match="not UTF-8"):
        load_campaign(tmp_path / "bytes.yaml")


def test_what_an_entry_sets_is_no_axis() -> None:
    assert set(SETTABLE) == {
        *("url", "served_model", "devices", "options", "threads", "seed", "patience_s"),
        *("request_timeout_s", "notes", "api_key_env", "load_from", "load_nodes", "clients"),
        "quality",
        *(
            "arrival",
            "burstiness",
            "duration_s",
            "warm_up_window_s",
            "slo",
            "find_rate",
            "trace",
        ),
    }
