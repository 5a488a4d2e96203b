"""Trace files in the public formats of the field, and what is wrong with others.

The first lines are those of the published files: Azure/AzurePublicDataset
(data/AzureLLMInferenceTrace_conv.csv), HPMLL/BurstGPT (data/BurstGPT_1.csv, and the eight columns
of its third part), kvcache-ai/Mooncake (FAST25-release/traces/conversation_trace.jsonl).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tokrig.errors import InputError
from tokrig.run import traces

AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2225670,879,55
"""
AZURE_2024 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.017335+00:00,2399,6
"""
BURSTGPT = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,276,693,Conversation log
"""
BURSTGPT_3 = """\
Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,1,2.5,ChatGPT,472,18,490,API log
6,1,2.5,ChatGPT,472,18,490,API log
"""
MOONCAKE = """\
{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2, 3]}
{"timestamp": 0, "input_length": 7322, "output_length": 490, "hash_ids": [0, 14, 15]}
{"timestamp": 3000, "input_length": 7237, "output_length": 794, "hash_ids": [0, 28]}
"""
PLAIN = "timestamp,input,output\n0.5,100,10\n1.5,200,20\n"


def written(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "kind", "due_s", "answers"),
    [
        (AZURE, "azure", [0, 4.314579, 4.541977], [44, 109, 55]),
        (AZURE_2024, "azure", [0, 0.007405], [5, 6]),
        (BURSTGPT, "burstgpt", [0, 40, 113], [18, 230, 276]),
        (BURSTGPT_3, "burstgpt", [0, 1], [18, 18]),
        (MOONCAKE, "mooncake", [0, 0, 3], [500, 490, 794]),
        (PLAIN, "csv", [0, 1], [10, 20]),
        ("\ufeff" + PLAIN.replace("\n", "\r\n"), "csv", [0, 1], [10, 20]),
    ],
)
def test_the_formats_of_the_field(
    tmp_path: Path, text: str, kind: str, due_s: list[float], answers: list[int]
) -> None:
    found = traces.read(written(tmp_path, text))
    assert (found.facts.format, found.facts.requests) == (kind, len(due_s))
    assert found.facts.file == "trace.csv"
    assert [a.due_s for a in found.arrivals] == pytest.approx(due_s, abs=2e-6)
    assert [a.answer_tokens for a in found.arrivals] == answers
    # As many as the mean rate gives in that time.
    own = (len(due_s) - 1) / due_s[-1]
    assert found.duration_s == pytest.approx(len(due_s) / own, rel=1e-3)


def test_prompt_lengths_are_rounded_to_steps(tmp_path: Path) -> None:
    lines = "\n".join(f"{n},{n},5" for n in range(1, 5000))
    found = traces.read(written(tmp_path, f"timestamp,input,output\n{lines}\n"))
    for asked, one in enumerate(found.arrivals, 1):
        assert abs(one.prompt_tokens - asked) <= 1 + 0.025 * asked
    assert len(traces.steps(found.arrivals)) < 170


def test_a_rate_stretches_it_evenly(tmp_path: Path) -> None:
    path = written(tmp_path, BURSTGPT)
    own, slower = traces.read(path), traces.read(path, rate=0.001)
    factor = (2 / 113) / 0.001
    assert [a.due_s for a in slower.arrivals] == pytest.approx(
        [a.due_s * factor for a in own.arrivals]
    )
    assert len(slower.arrivals) / slower.duration_s == pytest.approx(0.001)
    assert own.facts.sha256 != slower.facts.sha256


def test_only_its_beginning_is_read(tmp_path: Path) -> None:
    """What stands behind it, however broken and however long, is nobody's business."""
    path = written(tmp_path, BURSTGPT + "200,GPT-4,,,,\n" * 10)
    assert traces.read(path, duration_s=119).facts.requests == 3
    with pytest.raises(InputError, match=r"trace\.csv:5: request tokens is missing"):
        traces.read(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (PLAIN + "1.0,5,5\n", r":4: time goes back by 0\.5 s"),
        (PLAIN + "2.0,,5\n", r":4: input is missing"),
        (PLAIN + "2.0,5\n", r":4: output is missing"),
        (PLAIN + ",5,5\n", r":4: timestamp is missing"),
        (PLAIN + "2.0,-5,5\n", r":4: input is -5: a length is a whole number from 1 on"),
        (PLAIN + "2.0,5,0\n", r":4: output is 0: a length"),
        (PLAIN + "2.0,5.5,5\n", r":4: input is 5\.5: a length"),
        (PLAIN + "soon,5,5\n", r":4: timestamp is no number: 'soon'"),
        (PLAIN + "nan,5,5\n", r":4: timestamp is no number: 'nan'"),
        (PLAIN + "2.0,many,5\n", r":4: input is no number: 'many'"),
        ("when,what\n1,2\n", r":1: the columns of no known trace: when, what"),
        ("", r":1: the columns of no known trace: none"),
        ("timestamp,input,output\n", r": 0 requests in no time"),
        ("timestamp,input,output\n1,5,5\n1,5,5\n", r": 2 requests in no time"),
        (MOONCAKE + "{broken\n", r":4: no JSON object"),
        (MOONCAKE + "[1]\n", r":4: no JSON object"),
        (MOONCAKE + '{"timestamp": 4000, "input_length": 5}\n', r":4: output_length is missing"),
        (AZURE + "yesterday,5,5\n", r":5: timestamp is no date and time: 'yesterday'"),
        (PLAIN + "9,9,5000001\n", r": answers of 5,000,031 tokens, and 5,000,000 are the limit"),
    ],
)
def test_what_is_no_trace_is_told_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(InputError, match=r"trace\.csv" + why) as caught:
        traces.read(written(tmp_path, text))
    assert caught.value.hint


def test_a_trace_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MOST_REQUESTS", 10)
    lines = "\n".join(f"{n},5,5" for n in range(100))
    path = written(tmp_path, f"timestamp,input,output\n{lines}\n")
    with pytest.raises(InputError, match=r":12: more than 10 requests") as caught:
        traces.read(path)
    assert "--duration" in caught.value.hint
    assert traces.read(path, duration_s=5).facts.requests == 5


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.csv", tmp_path, tmp_path / "trace.csv"):
        with pytest.raises(InputError, match="cannot read the trace"):
            traces.read(path)


def test_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    found = traces.read(written(tmp_path, MOONCAKE))
    assert traces.too_long(found, 16384) is None
    told = traces.too_long(found, 7600) or ""
    assert told.startswith("1 of the 3 requests of trace.csv fit into a context of 7,600 tokens")
    shape = traces.shape(found, 4)
    assert shape.answer_tokens == found.longest.answer_tokens == 794
    assert shape.content_hash != traces.shape(traces.read(written(tmp_path, PLAIN)), 4).content_hash
