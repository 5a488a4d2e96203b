"""What every backend owes, whoever wrote it: one suite over all of the registry.

A new backend is a file among the backends and, where it attaches, what its server says about
itself as ``tests/data/recordings/about/NAME.json``.
"""

from __future__ import annotations

import inspect
import json
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.contract.recordings import FOLDER
from tokrig import registry
from tokrig.backends import (
    Availability,
    Backend,
    Capabilities,
    Command,
    Counters,
    Engine,
    Launch,
    Loading,
    Request,
    Speculation,
)
from tokrig.errors import EngineDied, InputError, RequestError, TokrigError
from tokrig.record.samples import EngineTimings
from tokrig.run.detect import attaching
from tokrig.run.http import Dialect
from tokrig.spec.reasoning import Switch
from tokrig.spec.settings import Api, SpeculativeType

NAMES = registry.names("backends")
ABOUT = {path.stem: path for path in sorted((FOLDER / "about").glob("*.json"))}
# Known by the OpenAI API alone, so nothing distinguishes its servers.
GENERIC = "openai"
# Has an API of its own instead of OpenAI's.
NATIVE = {"ollama"}

OPENAI_FIELDS = {
    *("messages", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens"),
    *("temperature", "seed", "reasoning_effort"),
}
COUNTERS = {
    *("requests", "prompt_tokens", "cached_tokens", "output_tokens", "prefill_s", "decode_s"),
    *("drafts", "drafted_tokens", "accepted_tokens"),
}
MESSAGES = [{"role": "user", "content": "Hello"}]
SWITCH = Switch("off", template={"enable_thinking": False}, effort="low")


def backend_of(name: str) -> Backend:
    backend: Backend = registry.load("backends", name, "BACKEND")
    return backend


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest) -> Backend:
    return backend_of(request.param)


# Servers


class Server:
    """Answers of a server by path, to GET and to POST; a path it does not know is a 404."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.told = told

    def __call__(self, path: str, body: Any = None, *, text: bool = False) -> Any:
        answers = self.told["answers"] if body is None else self.told.get("posted", {})
        if path not in answers:
            raise RequestError(f"{path} answered 404: not found", code="http_404")
        return Always(answers[path])(path, text=text)


class Always:
    """The same answer to everything: text where no JSON is in it."""

    def __init__(self, answer: Any, status: int = 200) -> None:
        self.answer, self.status = answer, status

    def __call__(self, path: str, body: Any = None, *, text: bool = False) -> Any:
        if self.status != 200:
            raise RequestError(f"{path} answered {self.status}", code=f"http_{self.status}")
        if text:
            return self.answer if isinstance(self.answer, str) else json.dumps(self.answer)
        if isinstance(self.answer, str):
            raise RequestError(f"{path} answered something that is no JSON", code="invalid_json")
        return self.answer


class Nobody:
    def __call__(self, path: str, body: Any = None, *, text: bool = False) -> Any:
        raise EngineDied(f"nobody answers {path}")


_MODELS = ("data", "models")
STRANGERS: dict[str, Always] = {
    "404": Always(None, 404),
    "500": Always(None, 500),
    "401": Always(None, 401),
    "html": Always("<!doctype html><title>Welcome</title>"),
    "object": Always({}),
    "list": Always([]),
    "null": Always(None),
    "number": Always(7),
    "words": Always(["a", "b"]),
    "models null": Always(dict.fromkeys(_MODELS)),
    "models empty": Always({key: [] for key in _MODELS}),
    "models of null": Always({key: [None] for key in _MODELS}),
    "models of text": Always({key: ["m"] for key in _MODELS}),
    "models of objects": Always({key: [{}] for key in _MODELS}),
    "models a number": Always(dict.fromkeys(_MODELS, 3)),
}


def about(name: str) -> dict[str, Any]:
    """``answers`` to GET and, where needed, to what is ``posted``, by path; the ``server`` they
    are of, and whether they were ``made_from`` a recording or from documentation."""
    told: dict[str, Any] = json.loads(ABOUT[name].read_text(encoding="utf-8"))
    return told


# The base class


METHODS = [name for name, member in vars(Backend).items() if callable(member) and name[0] != "_"]


def test_methods_are_called_as_the_base_class_says(backend: Backend) -> None:
    for member in METHODS:
        promised = inspect.signature(getattr(Backend, member)).parameters.values()
        given = list(inspect.signature(getattr(backend, member)).parameters.values())
        for parameter, own in zip([p for p in promised if p.name != "self"], given, strict=False):
            assert parameter.name == own.name, member
            assert (parameter.default is inspect.Parameter.empty) >= (
                own.default is inspect.Parameter.empty
            ), member
        required = [p for p in given if p.default is inspect.Parameter.empty]
        assert len(required) <= len([p for p in promised if p.name != "self"]), member


def test_attributes_are_of_the_declared_types(backend: Backend) -> None:
    missing = [name for name in Backend.__annotations__ if not hasattr(backend, name)]
    assert not missing
    for name in ("name", "title", "chat_path", "ready_path", "bypass_ready_path"):
        assert isinstance(getattr(backend, name), str)
    assert backend.name
    assert backend.title
    for name in ("starts", "attaches", "own_models"):
        assert isinstance(getattr(backend, name), bool)
    assert backend.starts or backend.attaches
    assert isinstance(backend.precedence, int)
    assert all(type(port) is int for port in backend.ports)
    assert all(0 < port < 65536 for port in backend.ports)
    assert backend.patience_s > 0
    assert backend.chat_path.startswith("/")
    assert backend.ready_path.startswith("/")
    assert all(type(word) is str for option in backend.options.items() for word in option)


def test_availability_tells_how_to_get_what_is_missing(backend: Backend) -> None:
    state = backend.availability()
    assert isinstance(state, Availability)
    assert state.detail
    assert state.ok or state.hint


def test_capabilities(backend: Backend) -> None:
    can = backend.capabilities
    assert isinstance(can, Capabilities)
    assert set(can.speculation) <= set(get_args(SpeculativeType))
    assert set(can.apis) <= set(get_args(Api))
    # Speculation that nobody can count could be inactive without anyone noticing.
    assert can.timings is not None or not can.speculation


# Requests


REQUESTS = {
    "bare": Request(MESSAGES, 64, 1),
    "full": Request(MESSAGES, 64, 1, "served", salt="[salt]", reasoning=SWITCH),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_body_streams_greedily_within_its_budget(backend: Backend, kind: str) -> None:
    request = REQUESTS[kind]
    body = backend.body(request)
    assert json.loads(json.dumps(body)) == body
    assert body["stream"] is True
    assert body["messages"]
    options = body.get("options", {})
    budgets = [
        *(body.get(key) for key in ("max_tokens", "max_completion_tokens")),
        options.get("num_predict"),
    ]
    assert [b for b in budgets if b is not None] == [request.answer_tokens]
    assert options.get("temperature", body.get("temperature")) == 0
    if request.served_model is not None:
        assert body["model"] == request.served_model
    assert request.messages == MESSAGES, "the request's own messages are changed"


def test_a_plain_body_has_only_what_openai_defines(backend: Backend) -> None:
    if backend.name in NATIVE:
        assert backend.chat_path == "/api/chat"
        return
    strict, body = Dialect(), backend.body(REQUESTS["full"])
    strict.guess(body)
    assert set(strict.applied(body)) <= OPENAI_FIELDS


# Answers

NONSENSE: list[dict[str, Any]] = [
    {},
    {"choices": None},
    {"choices": []},
    {"choices": [None]},
    {"choices": [{"delta": None}]},
    {"choices": [{"delta": {"content": 3}}]},
    {"error": "no"},
    {"error": {"message": None}},
    {"message": None, "done": "yes"},
    {"message": "text", "done": True},
    {"message": {"content": None, "thinking": 3, "tool_calls": "x"}, "done": False},
    {"message": {"tool_calls": [None, {"function": 3}]}, "done": False},
    {"timings": None},
    {"timings": []},
    {"timings": {"prompt_n": "x"}},
    {"timings": {"prompt_n": None, "prompt_ms": [], "predicted_n": {}, "predicted_ms": "1"}},
    {"timings": {"prompt_n": 1e400, "prompt_ms": 1, "predicted_n": 1, "predicted_ms": 1}},
    {"usage": 3, "stats": "none", "runtime": []},
    {"done": True, "eval_count": "x", "eval_duration": None, "prompt_eval_count": []},
    {"done": True, "eval_count": 1e400, "eval_duration": 1, "prompt_eval_count": 1},
    {"done": True, "done_reason": 3, "total_duration": -1},
]


def test_foreign_events_raise_nothing(backend: Backend) -> None:
    for data in NONSENSE:
        assert isinstance(backend.event(data), dict), data
        timings = backend.timings(data)
        assert timings is None or isinstance(timings, EngineTimings), data


@pytest.mark.parametrize("name", sorted(set(NAMES) - NATIVE))
def test_openai_events_keep_their_text(name: str) -> None:
    event = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}
    assert backend_of(name).event(event)["choices"][0]["delta"]["content"] == "Hi"


def test_a_foreign_log_tells_a_reason_in_one_line_or_none(backend: Backend) -> None:
    for log in ("", "\n" * 3, "error: \x00", "llama " * 1000):
        reason = backend.failure(log)
        assert reason is None or (reason and "\n" not in reason), log


# Strange servers


def within(errors: tuple[type[TokrigError], ...], action: Callable[[], object]) -> object:
    """The result, or None where one of ``errors`` was raised."""
    try:
        return action()
    except errors:
        return None


@pytest.mark.parametrize("stranger", STRANGERS)
def test_strange_servers_raise_only_what_is_documented(backend: Backend, stranger: str) -> None:
    ask, request = STRANGERS[stranger], REQUESTS["full"]
    assert backend.recognises(ask) is False
    engine = within((RequestError,), lambda: backend.inspect(ask, ""))
    assert engine is None or isinstance(engine, Engine)
    assert backend.bypass(ask, None, 1) is None
    backend.unload(ask, "m")
    for count in (
        within((RequestError,), lambda: backend.count_prompt(ask, request)),
        within((RequestError,), lambda: backend.count_text(ask, "text")),
    ):
        assert count is None or (isinstance(count, int) and count >= 0)
    counters: Counters | None = backend.counters(ask)
    assert counters is None or set(counters) <= COUNTERS
    loading = within((TokrigError,), lambda: list(zip(range(3), load(backend, ask), strict=False)))
    assert loading is None or isinstance(loading, list)


def load(backend: Backend, ask: Any) -> Iterable[Loading]:
    return backend.load(ask, None, "m")


def test_a_dead_server_is_told_as_such(backend: Backend) -> None:
    nobody = Nobody()
    assert within((EngineDied,), lambda: backend.recognises(nobody)) in (None, False)
    within((EngineDied,), lambda: backend.inspect(nobody, ""))
    backend.unload(nobody, "m")


# Recognition


def test_every_server_that_can_be_attached_to_says_what_it_is() -> None:
    silent = [b.name for b in attaching() if b.name not in ABOUT and b.name != GENERIC]
    assert not silent, (
        f"{', '.join(silent)}: add tests/data/recordings/about/NAME.json with what the server"
        " answers at the paths by which it is recognised"
    )


@pytest.mark.parametrize("name", ABOUT)
def test_answers_say_where_they_come_from(name: str) -> None:
    assert about(name)["server"]
    assert re.match(r"recording|documentation", about(name)["made_from"])


@pytest.mark.parametrize("name", ABOUT)
def test_each_server_is_recognised_as_what_it_is(name: str) -> None:
    ask = Server(about(name))
    won = next((b.name for b in attaching() if b.recognises(ask)), None)
    assert won == (name if name in NAMES else None)


@pytest.mark.parametrize("name", sorted(set(ABOUT) & set(NAMES)))
def test_what_a_server_says_of_itself_is_understood(name: str) -> None:
    engine = backend_of(name).inspect(Server(about(name)), "")
    assert engine.engine not in ("", "unknown")
    assert all(engine.served_models)


# Command lines


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """A model and a program that exist; nothing here is ever run."""
    model, binary = tmp_path / "model.gguf", tmp_path / "engine"
    model.write_bytes(b"GGUF")
    binary.write_text("#!/bin/sh\nexit 1\n")
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    return Launch(model, 18181, 4096, 2, binary=str(binary))


STARTING = [name for name in NAMES if backend_of(name).starts]
ATTACHING_ONLY = [name for name in NAMES if not backend_of(name).starts]


@pytest.mark.parametrize("name", STARTING)
def test_a_command_serves_on_loopback_alone(name: str, launch: Launch) -> None:
    command = backend_of(name).command(launch)
    assert isinstance(command, Command)
    assert all(
        isinstance(word, str) for word in (*command.argv, *command.env, *command.env.values())
    )
    words = " ".join([*command.argv, *command.env.values()])
    assert "18181" in words
    hosts = set(re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", words))
    assert hosts <= {"127.0.0.1"}
    assert "0.0.0.0" not in words
    assert "::" not in words


@pytest.mark.parametrize("name", STARTING)
def test_the_same_launch_is_the_same_command(name: str, launch: Launch) -> None:
    assert backend_of(name).command(launch) == backend_of(name).command(launch)


@pytest.mark.parametrize("name", STARTING)
def test_options_that_are_tokrigs_own_or_unknown_are_refused(name: str, launch: Launch) -> None:
    backend = backend_of(name)
    closed = not any("<" in option for option in backend.options)
    for option in ("port", "no-such-option") if closed else ("port",):
        with pytest.raises(InputError) as caught:
            backend.command(replace(launch, options={option: "1"}))
        assert caught.value.hint


@pytest.mark.parametrize("name", STARTING)
def test_speculation_it_can_do_is_started_or_refused_for_a_reason(
    name: str, launch: Launch
) -> None:
    """The program here says nothing of its flags: a backend may ask for a newer one."""
    for kind in backend_of(name).capabilities.speculation:
        draft = launch.model if kind in ("draft", "eagle") else None
        asked = replace(launch, speculation=Speculation(kind, draft, 4))
        command = within((InputError,), lambda: backend_of(name).command(asked))  # noqa: B023
        assert command is None or isinstance(command, Command)


# As much of a --help as tells the types of a KV cache, in llama.cpp's words and in argparse's.
KV_HELP = """
-ctk,  --cache-type-k TYPE              KV cache data type for K
                                        allowed values: f32, f16, q8_0
-ctv,  --cache-type-v TYPE              KV cache data type for V
                                        allowed values: f32, f16, q8_0
  --kv-cache-dtype {auto,q8_0,fp8}
                        Data type for kv cache storage.
"""
KV_OPTIONS = {
    "embedded": ("cache_type_k", "cache_type_v"),
    "llamacpp": ("cache-type-k", "cache_type_v"),
    "sglang": ("kv-cache-dtype",),
    "vllm": ("kv-cache-dtype", "kv_cache_dtype"),
}


def with_kv_type(name: str, launch: Launch, kv_type: str = "q8_0", **options: str) -> Launch:
    answers = (KV_HELP,) * len(backend_of(name).questions(launch))
    settings = {"kv_type": kv_type}
    return replace(launch, settings=settings, answers=answers, options=options)


def test_who_can_choose_the_kv_type_says_so() -> None:
    assert {n for n in NAMES if "kv_type" in backend_of(n).takes} == set(KV_OPTIONS)


@pytest.mark.parametrize("name", KV_OPTIONS)
def test_a_kv_type_is_asked_for_keys_and_values(name: str, launch: Launch) -> None:
    plain = backend_of(name).command(replace(with_kv_type(name, launch), settings={}))
    asked = " ".join(backend_of(name).command(with_kv_type(name, launch)).argv)
    assert "q8_0" not in " ".join(plain.argv)
    for option in KV_OPTIONS[name]:
        spelled = option if name == "embedded" else f"--{option.replace('_', '-')}"
        assert re.search(rf'{spelled}"?:? "?q8_0', asked), asked


@pytest.mark.parametrize("name", KV_OPTIONS)
def test_a_kv_type_that_the_engine_does_not_know_is_refused(name: str, launch: Launch) -> None:
    with pytest.raises(InputError, match="does not take 'q8_1' for --kv-type") as caught:
        backend_of(name).command(with_kv_type(name, launch, "q8_1"))
    assert "q8_0" in caught.value.hint


@pytest.mark.parametrize(("name", "option"), [(n, o) for n in KV_OPTIONS for o in KV_OPTIONS[n]])
def test_a_kv_type_said_twice_is_refused(name: str, option: str, launch: Launch) -> None:
    with pytest.raises(InputError, match="twice") as caught:
        backend_of(name).command(with_kv_type(name, launch, **{option: "f16"}))
    assert caught.value.hint


KV_TOLD = {
    "embedded": ("llamacpp", "llama_kv_cache: size = 3 MiB, K (q8_0): 2 MiB, V (q8_0): 1 MiB"),
    "llamacpp": ("llamacpp", "llama_kv_cache: size = 3 MiB, K (q8_0): 2 MiB, V (q8_0): 1 MiB"),
    "sglang": ("sglang", ""),
    "vllm": ("vllm", "Initializing a V1 LLM engine with config: kv_cache_dtype=q8_0, device_"),
}


@pytest.mark.parametrize("name", KV_OPTIONS)
def test_the_kv_type_in_use_is_read_back(name: str) -> None:
    """In the record stands what the engine says, whatever it was asked for."""
    server, log = KV_TOLD[name]
    told = json.loads(
        json.dumps(about(server)).replace('cache_dtype": "auto', 'cache_dtype": "q8_0')
    )
    resolved = backend_of(name).inspect(Server(told), log).resolved
    assert (resolved.cache_type_k, resolved.cache_type_v) == ("q8_0", "q8_0")


@pytest.mark.parametrize("name", STARTING)
def test_questions_end_by_themselves_and_go_to_the_same_program(name: str, launch: Launch) -> None:
    questions = backend_of(name).questions(launch)
    assert all(questions)
    assert all(type(word) is str for question in questions for word in question)


@pytest.mark.parametrize("name", STARTING)
def test_answers_of_another_program_are_refused_or_say_nothing(name: str, launch: Launch) -> None:
    backend = backend_of(name)
    strange = replace(launch, answers=("usage: cat [FILE]",) * len(backend.questions(launch)))
    within((InputError,), lambda: backend.vet(strange))


@pytest.mark.parametrize("name", ATTACHING_ONLY)
def test_who_only_attaches_starts_nothing(name: str, launch: Launch) -> None:
    with pytest.raises(InputError) as caught:
        backend_of(name).command(launch)
    assert "--url" in caught.value.hint
