"""What endpoints say when they refuse a field, and what is sent to them after it.

Each line of the table names the public report, or the server whose validation words it so.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.contract.loopback import Script, Talk, answer, plain, serving
from tokrig.errors import RequestError
from tokrig.run.http import Dialect, named
from tokrig.run.monitor import Monitor
from tokrig.run.preflight import probe
from tokrig.run.prepare import prepare
from tokrig.run.progress import Note
from tokrig.run.session import Session
from tokrig.spec.run import RunSpec

BODY: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 16,
    "temperature": 0,
    "seed": 1,
    "stream": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    "chat_template_kwargs": {"enable_thinking": False},
    "ignore_eos": True,
    "cache_prompt": False,
}

# (who and where, the words, the fields they are about)
REPORTED = [
    (
        "OpenAI, ITSpecialist111/ai_automation_suggester#38",
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
        " 'max_completion_tokens' instead.",
        ["max_tokens"],
    ),
    (
        "OpenAI, QwenLM/qwen-code#921",
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1)"
        " value is supported.",
        ["temperature"],
    ),
    (
        "raycast/extensions#18038",
        "400 Model incompatible request argument supplied: temperature",
        ["temperature"],
    ),
    (
        "Azure, in the words of nashsu/llm_wiki#336",
        "Unrecognized request arguments supplied: cache_prompt, ignore_eos",
        ["ignore_eos", "cache_prompt"],
    ),
    (
        "older vLLM, modelscope/evalscope#252",
        "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not"
        " permitted', 'input': 42}, {'type': 'extra_forbidden', 'loc': ('body', 'stream_options'),"
        " 'msg': 'Extra inputs are not permitted', 'input': {'include_usage': True}}]",
        ["seed", "stream_options"],
    ),
    (
        "Mistral, partITech/php-mistral#76",
        "{'object': 'Error', 'detail': [{'type': 'extra_forbidden', 'loc': ['body', 'ignore_eos'],"
        " 'msg': 'Extra inputs are not permitted', 'input': True}]}",
        ["ignore_eos"],
    ),
    (
        "Fireworks, FlowiseAI/Flowise#2866",
        "Extra inputs are not permitted, field: 'stream_options'",
        ["stream_options"],
    ),
    (
        "Azure AI, microsoft/semantic-kernel#10510",
        "Validation error at #/stream_options: Extra inputs are not permitted",
        ["stream_options"],
    ),
    (
        "Groq, immersive-translate/immersive-translate#3016",
        "property 'chat_template_kwargs' is unsupported",
        ["chat_template_kwargs"],
    ),
    (
        "Groq, fanenr/chatbot#21",
        "property 'cache_prompt' is unsupported, did you mean 'seed'?",
        ["cache_prompt"],
    ),
    (
        "Cerebras, egoist/chatwise-releases#1442",
        "body.ignore_eos: property 'body.ignore_eos' is unsupported",
        ["ignore_eos"],
    ),
    (
        "Gemini, MinLL/SkyrimNet-GamePlugin#77",
        'Invalid JSON payload received. Unknown name "seed": Cannot find field.\nInvalid JSON'
        ' payload received. Unknown name "ignore_eos": Cannot find field.',
        ["seed", "ignore_eos"],
    ),
    (
        "text-generation-inference, opea-project/GenAIInfra#1026",
        "Failed to deserialize the JSON body into the target type: stream_options: missing field"
        " `include_usage` at line 1 column 273",
        ["stream_options"],
    ),
    (
        "a server in Rust that denies unknown fields (serde)",
        "unknown field `ignore_eos`, expected one of `messages`, `model`, `max_tokens`, `seed`,"
        " `temperature` at line 1 column 90",
        ["ignore_eos"],
    ),
    (
        "a server in Go that disallows unknown fields (encoding/json)",
        'json: unknown field "cache_prompt"',
        ["cache_prompt"],
    ),
    (
        "JSON Schema (jsonschema)",
        "Additional properties are not allowed ('ignore_eos' was unexpected)",
        ["ignore_eos"],
    ),
    (
        "Bedrock",
        "Malformed input request: extraneous key [chat_template_kwargs] is not permitted",
        ["chat_template_kwargs"],
    ),
    (
        "LiteLLM's UnsupportedParamsError",
        "litellm.UnsupportedParamsError: bedrock does not support parameters: ['seed'], for"
        " model=m. To drop these, set `litellm.drop_params=True`",
        ["seed"],
    ),
    ("Moonshot", "invalid temperature: only 1 is allowed for this model", ["temperature"]),
    (
        "baidu/vLLM-Kunlun#30 and the like",
        "Sampling with a seed is not supported on this device",
        ["seed"],
    ),
    ("a server in Chinese", "参数 stream_options 不支持", ["stream_options"]),
    ("Zhipu, code 1210", "temperature 参数非法。取值范围是 0.0 到 1.0", ["temperature"]),
    # What is about something else.
    ("a model", "The model `m` does not exist or you do not have access to it", []),
    ("a context", "This model's maximum context length is 4096 tokens, you asked for 5000", []),
    ("a key", "Incorrect API key provided", []),
    ("Zhipu, code 1210, names no field", "API 调用参数有误", []),
    (
        "a missing field, with the request repeated",
        "[{'type': 'missing', 'loc': ('body', 'prompt'), 'msg': 'Field required, unknown request',"
        " 'input': {'seed': 1, 'temperature': 0}}]",
        [],
    ),
]


@pytest.mark.parametrize(("who", "words", "fields"), REPORTED, ids=[r[0] for r in REPORTED])
def test_a_refusal_names_its_field(who: str, words: str, fields: list[str]) -> None:
    assert sorted(named(BODY, words)) == sorted(fields)


def test_max_tokens_gets_its_new_name() -> None:
    dialect = Dialect()
    said = dialect.learn(BODY, REPORTED[0][1])
    body = dialect.applied(BODY)
    assert "max_completion_tokens for max_tokens" in str(said)
    assert (body["max_completion_tokens"], "max_tokens" in body) == (16, False)
    assert dialect.learn(body, "'max_completion_tokens' is not supported") is None


def test_usage_of_each_chunk_goes_before_usage_at_all() -> None:
    dialect = Dialect()
    words = "Extra inputs are not permitted, field: 'stream_options'"
    assert dialect.learn(BODY, words) is not None
    body = dialect.applied(BODY)
    assert body["stream_options"] == {"include_usage": True}
    assert dialect.learn(body, words) is not None
    assert "stream_options" not in dialect.applied(BODY)
    named_alone = Dialect()
    assert named_alone.learn(BODY, "Unknown parameter: 'stream_options.continuous_usage_stats'.")
    assert named_alone.applied(BODY)["stream_options"] == {"include_usage": True}


def test_a_guess_leaves_out_more_and_more() -> None:
    dialect = Dialect()
    assert "OpenAI API" in str(dialect.guess(BODY))
    assert set(dialect.applied(BODY)) == set(BODY) - {
        "chat_template_kwargs",
        "ignore_eos",
        "cache_prompt",
    }
    assert "shortest" in str(dialect.guess(dialect.applied(BODY)))
    assert set(dialect.applied(BODY)) == {"model", "messages", "stream", "max_tokens"}
    assert dialect.guess(dialect.applied(BODY)) is None
    native = {"model": "m", "messages": [], "stream": True, "options": {}, "think": False}
    assert dialect.guess(native) is None, "an engine's own body has no shorter form"
    assert named(native, '"llama3" does not support thinking') == ["think"]


def refusing(*fields: str, status: bytes = b"422 Unprocessable Content") -> Script:
    """A server that validates strictly, one field at a time, in pydantic's words."""

    def script(talk: Talk) -> None:
        body = json.loads(talk.body)
        wrong = next((name for name in fields if name in body), None)
        if wrong is None:
            talk.send(answer("a", "b"))
            return
        error = {"type": "extra_forbidden", "loc": ["body", wrong], "msg": "Extra inputs are not"}
        talk.send(plain(status, json.dumps({"detail": [error]}).encode()))

    return script


def probed(script: Script, backend: str = "openai") -> tuple[list[str], dict[str, Any], str | None]:
    """What the user is told, what was sent last, and the error that is left."""
    told: list[str] = []
    with serving(script) as server:
        url = f"http://{server.endpoint.host_header}/v1"
        spec = RunSpec(url=url, backend=backend, served_model="m")
        prepared = prepare(spec, datetime.now(UTC))
        assert prepared.endpoint is not None
        session = Session(prepared, prepared.endpoint, None, Monitor([], list))
        session.served_model = "m"

        def listen(event: object) -> None:
            if isinstance(event, Note):
                told.append(event.text)

        error = None
        try:
            probe(session, listen)
        except RequestError as failed:
            error = failed.code
        chats = [talk for talk in server.talks if b"/v1/chat/completions " in talk.head]
        return told, json.loads(chats[-1].body), error


@pytest.mark.parametrize("status", [b"422 X", b"400 X", b"500 X"])
def test_only_what_is_refused_is_left_out(status: bytes) -> None:
    told, sent, error = probed(refusing("seed", "ignore_eos", status=status))
    assert error is None
    assert len(told) == 2
    assert "no seed" in told[0]
    assert {"seed", "ignore_eos"} & set(sent) == set()
    assert {"temperature", "max_tokens", "cache_prompt", "stream_options"} <= set(sent)


def test_a_server_that_names_nothing_gets_less_and_less() -> None:
    def script(talk: Talk) -> None:
        bare = {"model", "messages", "stream", "max_tokens"} >= set(json.loads(talk.body))
        talk.send(answer("a", "b") if bare else plain(b"400 X", b'{"error":{"code":"1210"}}'))

    told, sent, error = probed(script)
    assert (error, told) == (
        None,
        ["the endpoint refuses a request without saying why: sending the shortest requests"],
    )
    assert set(sent) == {"model", "messages", "stream", "max_tokens"}


def test_a_refusal_that_is_about_something_else_stands() -> None:
    told, _, error = probed(lambda talk: talk.send(plain(b"400 X", b'{"error":"no such model"}')))
    assert (told, error) == ([], "http_400")
