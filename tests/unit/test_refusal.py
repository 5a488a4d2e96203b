"""What servers say when they refuse a request, each in its own way. The words are those of the
public reports named beside them."""

from __future__ import annotations

import time

import pytest

from tests.unit.samples import sample
from tokrig.errors import RequestError
from tokrig.record.samples import Sample
from tokrig.run.http import CONTEXT, ROLE, code_of, refused, wait_s


def failed(error: str, words: str = "") -> Sample:
    return sample(tokens=0, error=error, error_detail=words)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        # ggml-org/llama.cpp#15780, #19774, lemonade-sdk/lemonade#3276
        ("http_400", "request (4390 tokens) exceeds the available context size (4096 tokens)"),
        ("http_500", "the request exceeds the available context size. try increasing it"),
        ("error_event", "Context size has been exceeded."),
        # abetlen/llama-cpp-python, as in fedora-copr/logdetective#100
        ("http_500", "Requested tokens (2138) exceed context window of 2048"),
        # vllm-project/vllm#20409, #33418
        ("http_400", "This model's maximum context length is 16384 tokens. However, you requested"),
        ("http_400", "The decoder prompt (length 9) is longer than the maximum model length of 8"),
        # sgl-project/sglang#8096, #4048, anomalyco/opencode#25230
        ("http_400", "The input (61709 tokens) is longer than the model's context length (40960"),
        ("error_event", "Input length (160062 tokens) exceeds the maximum allowed length (59862"),
        ("http_400", "Requested token count exceeds the model's maximum context length of 202752"),
        # lmstudio-ai/lmstudio-bug-tracker#546, #1251, Gitlawb/openclaude#353
        ("error_event", "Trying to keep the first 111490 tokens when context the overflows."
         " However, the model is loaded with context length of only 32768 tokens"),
        ("error_event", "Reached context length of 4096 tokens with model"),
        ("http_400", "(n_keep: 13055>= n_ctx: 4096). Try to load the model with a larger context"),
        # huggingface/text-generation-inference, as in huggingface/llm-vscode#94
        ("http_422", "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048"),
        ("http_422", "Input validation error: `inputs` must have less than 1024 tokens"),
        # ollama/ollama#17889, jaylfc/taOS#1738
        ("http_400", "the input length exceeds the context length"),
        ("http_400", "Prompt is 11543 tokens but the model context window is 4096 tokens."),
        ("http_400", "Prompt length 9000 is greater than max_seq_len 8192"),
        ("http_413", "Payload Too Large"),
        ("http_400", "context_length_exceeded"),
        ("http_400", "prompt is too long: 210000 tokens > 200000 maximum"),
    ],
)  # fmt: skip
def test_a_context_that_is_too_small(error: str, words: str) -> None:
    assert code_of(failed(error, words)) == CONTEXT
    assert code_of(RequestError(f"/v1/chat/completions answered: {words}", code=error)) == CONTEXT


@pytest.mark.parametrize(
    ("error", "words"),
    [
        # huggingface/chat-ui#1386, sgl-project/sglang#892, abetlen/llama-cpp-python#1580
        ("http_400", "System role not supported"),
        # microsoft/autogen#1037, vllm-project/vllm#6862, SWE-agent/mini-swe-agent#759
        ("http_400", "Conversation roles must alternate user/assistant/user/assistant/..."),
        ("http_500", "Error: Jinja Exception: After the optional system message, conversation roles"
         " must alternate user and assistant roles except for tool calls and results."),
        # withcatai/node-llama-cpp#263
        ("http_500", "Only user and assistant roles are supported!"),
        ("error_event", "jinja2.exceptions.TemplateError: something of the template's own"),
        ("http_422", "Unexpected role 'system' after role 'user'"),
    ],
)  # fmt: skip
def test_a_template_that_refuses_a_role(error: str, words: str) -> None:
    assert code_of(failed(error, words)) == ROLE


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("http_500", "CUDA error: out of memory"),
        ("http_401", "invalid api key"),
        ("http_400", "unknown field: ignore_eos"),
        ("error_event", "slot was lost"),
        ("no_tokens", "the stream ended properly but carried no token"),
        ("timeout", "the server was silent for 10 s"),
        ("stream_cut", "context"),
    ],
)
def test_everything_else_keeps_its_own_code(error: str, words: str) -> None:
    assert code_of(failed(error, words)) == error


def test_one_request_that_a_full_context_ended_speaks_for_all() -> None:
    """ggml-org/llama.cpp#23652: slots share one context, and some answers fit in."""
    full = failed("error_event", "Context size has been exceeded.")
    why = refused([sample(), full])
    assert why is not None
    assert (why.code, why.message) == (CONTEXT, "Context size has been exceeded.")


def test_one_lost_request_of_several_is_no_refusal() -> None:
    assert refused([sample(), failed("stream_cut")]) is None
    assert refused([sample()]) is None
    assert refused([]) is None
    why = refused([failed("http_500", "made to fail"), failed("http_500", "again")])
    assert why is not None
    assert (why.code, why.message) == ("http_500", "made to fail")


def test_a_prompt_that_came_back_halved_was_cut() -> None:
    assert refused([sample(prompt_tokens=4096)], 4096) is None
    assert refused([sample(prompt_tokens=None)], 4096) is None
    why = refused([sample(prompt_tokens=2047)], 4096)
    assert why is not None
    assert why.code == CONTEXT
    assert "4096 tokens to 2047" in why.message


@pytest.mark.parametrize(
    ("error", "words", "seconds"),
    [
        ("http_429", "slow down (retry after 7 s)", 7),
        ("http_503", "loading (retry after 0.5 s)", 0.5),
        ("http_429", "quota (retry after 86400 s)", None),
        ("http_429", "slow down (retry after -1 s)", None),
        ("http_429", "slow down (retry after soon s)", None),
        ("http_429", "slow down (retry after Wed, 21 Oct 2015 07:28:00 GMT s)", None),
        ("http_429", "slow down", None),
        ("http_500", "broken (retry after 7 s)", None),
    ],
)
def test_a_server_is_waited_for_as_long_as_it_asks_and_no_longer_than_a_moment(
    error: str, words: str, seconds: float | None
) -> None:
    assert wait_s(failed(error, words)) == seconds


def test_a_date_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1445412470.0)
    words = "slow down (retry after Wed, 21 Oct 2015 07:28:00 GMT s)"
    assert wait_s(failed("http_429", words)) == pytest.approx(10)
