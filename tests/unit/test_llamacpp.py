"""llama.cpp's two backends: the command lines they build, what they refuse, what they read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tokrig.backends import Launch, Request, Speculation
from tokrig.backends.embedded import BACKEND as EMBEDDED
from tokrig.backends.embedded import parameters
from tokrig.backends.llamacpp import BACKEND, Help
from tokrig.errors import InputError, RequestError
from tokrig.spec.reasoning import Switch

LOGS = Path(__file__).parent.parent / "data" / "logs"

# As b11434 prints it, in parts.
HELP = """----- common params -----

-h,    --help, --usage                  print usage and exit
-t,    --threads N                      number of CPU threads to use during generation (default: -1)
                                        (env: LLAMA_ARG_THREADS)
-c,    --ctx-size N                     size of the prompt context (default: 0)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto')
-ctk,  --cache-type-k TYPE              KV cache data type for K
-dev,  --device <dev1,dev2,..>          comma-separated list of devices to use for offloading (none = don't
                                        offload)
-ngl,  --gpu-layers, --n-gpu-layers N   max. number of layers to store in VRAM, either an exact number,
                                        'auto', or 'all' (default: auto)
-fit,  --fit [on|off]                   whether to adjust unset arguments to fit in device memory ('on' or
                                        'off', default: 'on')
-m,    --model FNAME                    model path to load
-lv,   --verbosity, --log-verbosity N   Set the verbosity threshold. Messages with a higher verbosity will be
                                        ignored. Values:
                                         - 3: info
                                         - 4: trace (more info)
--spec-draft-n-max N                    number of tokens to draft for speculative decoding (default: 3)
--spec-draft-device, -devd, --device-draft <dev1,dev2,..>
                                        (none = don't offload, default: follows --device)
--spec-draft-model, -md, --model-draft FNAME
                                        draft model for speculative decoding (default: unused)
--spec-type none,draft-simple,draft-eagle3,draft-mtp,ngram-simple,ngram-map-k,ngram-mod
                                        comma-separated list of types of speculative decoding to use (default:
                                        none)
--spec-ngram-mod-n-max N                maximum number of ngram tokens to use for ngram-based speculative
--spec-ngram-simple-size-m N            ngram size M for ngram-simple speculative decoding, length of draft
--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max or
                                        --spec-ngram-mod-n-max

----- example-specific params -----

-ctxcp, --ctx-checkpoints, --swa-checkpoints N
                                        max number of context checkpoints to create per slot (default:
                                        32)[(more info)](https://github.com/ggml-org/llama.cpp/pull/15293)
-cram, --cache-ram N                    set the maximum cache size in MiB (default: 8192, -1 - no limit, 0 -
                                        disable)
-np,   --parallel N                     number of server slots (default: -1, -1 = auto)
--host HOST                             ip address to listen (default: 127.0.0.1)
--port PORT                             port to listen (default: 8080)
--ui,  --webui, --no-ui, --no-webui     whether to enable the Web UI (default: enabled)
--cache-prompt, --no-cache-prompt       whether to enable prompt caching (default: enabled)
--metrics                               enable prometheus compatible metrics endpoint (default: disabled)
-rea,  --reasoning [on|off|auto]        Use reasoning/thinking in the chat ('on', 'off', or 'auto', default:
                                        'auto' (detect from template))
--reasoning-budget N                    token budget for thinking: -1 for unrestricted, 0 for immediate end,
"""  # noqa: E501
# As builds of 2025 print it, in parts.
OLDER = """-t,    --threads N                      number of threads to use during generation
-c,    --ctx-size N                     size of the prompt context (default: 4096)
-m,    --model FNAME                    model path
-dev,  --device <dev1,dev2,..>          comma-separated list of devices to use for offloading
-ngl,  --gpu-layers, --n-gpu-layers N   number of layers to store in VRAM
-lv,   --verbosity, --log-verbosity N   Set the verbosity threshold
-md,   --model-draft FNAME              draft model for speculative decoding (default: unused)
--draft-max, --draft, --draft-n N       number of tokens to draft (default: 16)
-np,   --parallel N                     number of parallel sequences to decode (default: 1)
--host HOST                             ip address to listen
--port PORT                             port to listen (default: 8080)
--no-webui                              Disable the Web UI (default: enabled)
--metrics                               enable prometheus compatible metrics endpoint
--reasoning-budget N                    controls the amount of thinking allowed
"""
VERSION = "version: 0.6.0-dev (build 11434, commit unknown)\n"
TWO_APIS = """load_backend: loaded CUDA backend from libggml-cuda.so
load_backend: loaded Vulkan backend from libggml-vulkan.so
Available devices:
  CUDA0: NVIDIA GeForce RTX 3090 (24135 MiB, 23867 MiB free)
  CUDA1: NVIDIA GeForce RTX 3090 (24135 MiB, 23867 MiB free)
  Vulkan0: AMD Radeon Graphics (RADV) (2048 MiB, 2048 MiB free)
"""
NO_DEVICE = "0.00.030.314 I ggml_vulkan: No devices found.\nAvailable devices:\n  (none)\n"
NO_API = "load_backend: loaded CPU backend from libggml-cpu.so\nAvailable devices:\n  (none)\n"


def launch(listing: str = TWO_APIS, about: str = HELP, **settings: Any) -> Launch:
    settings.setdefault("binary", "true")
    return Launch(
        model=Path("model.gguf"),
        port=9,
        context_per_slot=512,
        slots=2,
        answers=(VERSION, listing, about),
        **settings,
    )


def flags(wanted: Launch) -> dict[str, str]:
    """The command line as ``flag → value``, ``""`` where it has none; each flag once."""
    BACKEND.vet(wanted)
    found: dict[str, str] = {}
    name = ""
    for word in BACKEND.command(wanted).argv[1:]:
        if word.startswith("--"):
            assert word not in found
            name = word
            found[name] = ""
        else:
            found[name] = word
    return found


def test_nothing_is_kept_or_fitted_behind_our_back() -> None:
    assert flags(launch(settings={"threads": 3})) == {
        "--model": "model.gguf",
        "--host": "127.0.0.1",
        "--port": "9",
        "--ctx-size": "1024",
        "--parallel": "2",
        "--threads": "3",
        "--metrics": "",
        "--no-ui": "",
        "--fit": "off",
        "--no-cache-prompt": "",
        "--cache-ram": "0",
        "--ctx-checkpoints": "0",
        "--verbosity": "4",
    }


def test_an_older_build_gets_only_what_it_knows() -> None:
    """Verbosity 4 was its debug level: a line for every token."""
    found = flags(launch(about=OLDER))
    assert {"--no-webui", "--metrics"} <= found.keys()
    assert not {"--fit", "--cache-ram", "--verbosity", "--no-cache-prompt"} & found.keys()


def test_all_devices_of_the_api_and_no_other() -> None:
    found = flags(launch(api="cuda"))
    assert found["--device"] == "CUDA0,CUDA1"
    assert found["--n-gpu-layers"] == "all"
    assert flags(launch(api="vulkan", about=OLDER))["--n-gpu-layers"] == "999"


def test_pinned_devices() -> None:
    found = flags(launch(devices=("CUDA1",)))
    assert found["--device"] == "CUDA1"
    assert found["--n-gpu-layers"] == "all"


def test_the_cpu_alone() -> None:
    found = flags(launch(api="cpu"))
    assert found["--device"] == "none"
    assert "--n-gpu-layers" not in found


def test_a_build_that_finds_no_device_runs_and_is_found_out_later() -> None:
    found = flags(launch(listing=NO_DEVICE, api="vulkan"))
    assert "--device" not in found
    assert found["--n-gpu-layers"] == "all"


@pytest.mark.parametrize(
    ("settings", "says", "hint"),
    [
        ({"listing": NO_API, "api": "vulkan"}, "built without vulkan", "devices: none"),
        ({"api": "sycl"}, "built without sycl", "CUDA0"),
        ({"devices": ("CUDA7",)}, "no device 'CUDA7'", "CUDA0"),
        ({"devices": ("CUDA0",), "listing": NO_DEVICE}, "no device 'CUDA0'", "found no devices"),
        ({"devices": ("Vulkan0",), "api": "cuda"}, "is not a cuda device", "go together"),
        ({"devices": ("CUDA0",), "api": "cpu"}, "is not a cpu device", "go together"),
        ({"options": {"n-gpu-layer": 3}}, "has no --n-gpu-layer", "--n-gpu-layers"),
        ({"options": {"nlg": 3}}, "has no --nlg", "too old"),
        ({"options": {"np": 3}}, "set by tokrig itself", "--model"),
        ({"options": {"draft-max": 3}}, "no longer takes --draft-max", "--spec-draft-n-max"),
        ({"options": {"fit": "off"}, "about": OLDER}, "has no --fit", "too old"),
        (
            {"settings": {"gpu_layers": 4}, "options": {"gpu-layers": 3}},
            "set the same thing twice",
            "leave one",
        ),
        ({"options": {"port": 3}}, "set by tokrig itself", "--model"),
        ({"options": {"spec-type": "ngram-mod"}}, "set by tokrig itself", "--speculative"),
        ({"speculation": Speculation("mtp"), "about": OLDER}, "too old for --spec-type", "no --"),
        ({"about": "Usage: ls [OPTION]... [FILE]..."}, "is not llama-server", "--server-bin"),
        (
            {"about": "true: error while loading shared libraries: libllama.so: no such file"},
            "error while loading shared libraries: libllama.so",
            "LD_LIBRARY_PATH",
        ),
        ({"binary": "no-such-program"}, "no runnable llama-server", "--server-bin"),
    ],
)
def test_what_cannot_be_is_refused(settings: Mapping[str, Any], says: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        flags(launch(**settings))
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_options_replace_our_own_and_words_stay_words() -> None:
    options = {"fit": True, "gpu_layers": 10, "flash-attn": False, "swa-checkpoints": 3}
    found = flags(launch(api="cuda", options=options))
    assert found["--fit"] == "on"
    assert found["--flash-attn"] == "off"
    assert found["--gpu-layers"] == "10"
    assert "--n-gpu-layers" not in found
    assert found["--swa-checkpoints"] == "3"
    assert "--ctx-checkpoints" not in found


@pytest.mark.parametrize(
    ("speculation", "options", "expected"),
    [
        (
            Speculation("ngram", None, 16),
            {},
            {"--spec-type": "ngram-simple", "--spec-ngram-simple-size-m": "16"},
        ),
        (
            Speculation("ngram", None, 16),
            {"spec-type": "ngram-mod"},
            {"--spec-type": "ngram-mod", "--spec-ngram-mod-n-max": "16"},
        ),
        (
            Speculation("draft", Path("small.gguf"), 4),
            {},
            {
                "--spec-type": "draft-simple",
                "--spec-draft-model": "small.gguf",
                "--spec-draft-n-max": "4",
            },
        ),
        (Speculation("mtp"), {}, {"--spec-type": "draft-mtp"}),
        (
            Speculation("eagle", Path("head.gguf")),
            {},
            {"--spec-type": "draft-eagle3", "--spec-draft-model": "head.gguf"},
        ),
    ],
)
def test_speculation(
    speculation: Speculation, options: dict[str, Any], expected: dict[str, str]
) -> None:
    found = flags(launch(speculation=speculation, options=options))
    assert {name: value for name, value in found.items() if "spec" in name} == expected


def test_older_builds_draft_as_soon_as_they_have_a_model() -> None:
    found = flags(launch(about=OLDER, speculation=Speculation("draft", Path("small.gguf"), 4)))
    assert found["--model-draft"] == "small.gguf"
    assert found["--draft-max"] == "4"
    assert "--spec-type" not in found


def test_a_draft_is_pinned_with_its_model() -> None:
    wanted = launch(api="cuda", speculation=Speculation("draft", Path("small.gguf")))
    assert flags(wanted)["--spec-draft-device"] == "CUDA0,CUDA1"


@pytest.mark.parametrize(
    ("switch", "about", "expected"),
    [
        (Switch("off"), HELP, {"--reasoning": "off"}),
        (Switch("on"), HELP, {"--reasoning": "on"}),
        (Switch("off"), OLDER, {"--reasoning-budget": "0"}),
        (Switch("on"), OLDER, {}),
        (Switch("off", engine_flag=False), HELP, {}),
        (None, HELP, {}),
    ],
)
def test_reasoning(switch: Switch | None, about: str, expected: dict[str, str]) -> None:
    found = flags(launch(about=about, reasoning=switch))
    assert {name: value for name, value in found.items() if "reasoning" in name} == expected


def test_help_is_read_under_all_names() -> None:
    known = Help.of(launch())
    assert known.same("gpu-layers", "n-gpu-layers")
    assert not known.same("ui", "metrics")
    assert not known.same("no-such", "metrics")
    assert "ngram-map-k" in known.flags["spec-type"].choices
    assert "draft-max" in known.removed
    assert known.spelling("env", "none", "more") is None


class Server:
    """Answers by path; what is missing answers 404."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {
            "/props": {
                "default_generation_settings": {"n_ctx": 512},
                "total_slots": 2,
                "build_info": "b11434-unknown",
                "chat_template": "{{ '<|im_start|>' }}",
            },
            "/v1/models": {"data": [{"id": "served", "owned_by": "llamacpp"}]},
            "/slots": [{"id": 0, "speculative": False}],
        } | {f"/{name}": answer for name, answer in answers.items()}
        self.bodies: list[Any] = []

    def __call__(self, path: str, body: Any = None, *, text: bool = False) -> Any:
        self.bodies.append(body)
        if path not in self.answers:
            raise RequestError(f"{path} answered 404")
        return self.answers[path]


def log(name: str) -> str:
    return (LOGS / f"llamacpp-{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "settings", "api", "asked", "spilled"),
    [
        ("vulkan", {"api": "vulkan"}, "vulkan", 31, None),
        ("vulkan-10-layers", {"api": "vulkan"}, "vulkan", 31, "10 of 31 layers on the GPU"),
        ("vulkan-10-layers", {"options": {"n_gpu_layers": 10}}, "vulkan", 10, None),
        ("vulkan", {"options": {"gpu-layers": 999}}, "vulkan", 31, None),
        ("vulkan", {"options": {"gpu-layers": "all"}}, "vulkan", 31, None),
        ("vulkan-0-layers", {"api": "vulkan", "options": {"n-gpu-layers": 0}}, "cpu", 0, None),
        ("vulkan-no-device", {"api": "vulkan"}, "cpu", 31, None),
        ("vulkan-device-none", {"api": "cpu"}, "cpu", None, None),
        ("vulkan", {}, "vulkan", None, None),
    ],
)
def test_layers_asked_and_found(
    name: str, settings: dict[str, Any], api: str, asked: int | None, spilled: str | None
) -> None:
    engine = BACKEND.inspect(Server(), log(name), launch(**settings))
    # Without a layer on it the device still holds a compute buffer, for long prompts.
    assert (engine.api, engine.api_confirmed) == (api, name != "vulkan-0-layers")
    assert engine.asked_gpu_layers == asked
    assert engine.spilled == spilled


def test_an_attached_server_without_a_log_confirms_no_api() -> None:
    engine = BACKEND.inspect(Server(), "", None)
    assert (engine.api, engine.api_confirmed, engine.asked_gpu_layers) == (None, None, None)
    assert engine.build == "b11434"
    assert engine.resolved.context_per_slot == 512
    assert engine.resolved.slots == 2
    assert engine.served_models == ("served",)


@pytest.mark.parametrize(
    ("answers", "text", "expected"),
    [
        ({"slots": [{"speculative": True}]}, "", True),
        ({"slots": [{"speculative": False}]}, log("draft"), False),
        ({"slots": {"error": {}}}, log("draft"), True),
        ({"slots": {"error": {}}}, log("draft-mismatch"), False),
        ({"slots": {"error": {}}}, "", None),
    ],
)
def test_whether_it_speculates(answers: dict[str, Any], text: str, expected: bool | None) -> None:
    assert BACKEND.inspect(Server(**answers), text).speculation is expected


@pytest.mark.parametrize(
    ("types", "kind"),
    [
        ("none", None),
        ("ngram-map-k", "ngram"),
        ("draft-mtp", "mtp"),
        ("draft-eagle3", "eagle"),
        ("draft-simple,ngram-mod", "draft"),
        ("draft-dflash", "draft"),
        (None, None),
    ],
)
def test_how_it_speculates(types: str | None, kind: str | None) -> None:
    settings = {"n_ctx": 512, "params": {"speculative.types": types}}
    server = Server(props={"default_generation_settings": settings})
    assert BACKEND.inspect(server, "", None).speculates_by == kind


def test_only_llama_cpps_own_server_is_recognised() -> None:
    other = {"data": [{"id": "m", "owned_by": "koboldcpp"}]}
    assert BACKEND.recognises(Server())
    assert not BACKEND.recognises(Server(**{"v1/models": other}))
    assert not BACKEND.recognises(Server(props={"role": "router"}))
    assert not BACKEND.recognises(Server(props=None))
    assert not EMBEDDED.recognises(Server())


def test_prompts_are_counted_as_they_will_be_rendered() -> None:
    server = Server(**{"v1/chat/completions/input_tokens": {"input_tokens": 31}})
    switch = Switch("off", template={"enable_thinking": False}, effort="low")
    messages = [{"role": "user", "content": "hi"}]
    request = Request(messages, 8, 1, reasoning=switch)
    assert BACKEND.count_prompt(server, request) == 31
    assert server.bodies == [
        {
            "messages": messages,
            "chat_template_kwargs": {"enable_thinking": False},
            "reasoning_effort": "low",
        }
    ]
    older = Server(**{"apply-template": {"prompt": "hi"}, "tokenize": {"tokens": [1, 2]}})
    assert BACKEND.count_prompt(older, request) == 2
    assert BACKEND.count_prompt(Server(), request) is None


def embedded(**settings: Any) -> dict[str, Any]:
    wanted = Launch(model=Path("m.gguf"), port=9, context_per_slot=512, slots=2, **settings)
    found: dict[str, Any] = json.loads(EMBEDDED.command(wanted).argv[-1])
    return found


def test_the_embedded_engine_is_told_the_same() -> None:
    import xllamacpp

    settings = embedded(
        api="cpu",
        speculation=Speculation("ngram", None, 16),
        reasoning=Switch("off"),
        options={"ngram_size_n": 4},
    )
    p = parameters(xllamacpp, settings)
    [kind] = p.speculative.types
    assert kind.name == "COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE"
    assert (p.speculative.ngram_simple.size_n, p.speculative.ngram_simple.size_m) == (4, 16)
    assert p.enable_reasoning == 0
    assert (p.n_gpu_layers, p.no_op_offload, p.fit_params) == (0, True, False)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("draft", "COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE"),
        ("mtp", "COMMON_SPECULATIVE_TYPE_DRAFT_MTP"),
        ("eagle", "COMMON_SPECULATIVE_TYPE_DRAFT_EAGLE3"),
    ],
)
def test_embedded_drafts(kind: Any, expected: str) -> None:
    import xllamacpp

    p = parameters(xllamacpp, embedded(speculation=Speculation(kind, Path("small.gguf"), 4)))
    assert [t.name for t in p.speculative.types] == [expected]
    assert p.speculative.draft.mparams.path == "small.gguf"
    assert p.speculative.draft.n_max == 4


def test_embedded_ngrams_of_another_kind() -> None:
    import xllamacpp

    options = {"spec_type": "ngram-mod", "ngram_size_n": 8, "ngram_size_m": 32}
    p = parameters(xllamacpp, embedded(speculation=Speculation("ngram"), options=options))
    assert (p.speculative.ngram_mod.n_match, p.speculative.ngram_mod.n_max) == (8, 32)
    with pytest.raises(ValueError, match="ngram-map-k"):
        parameters(
            xllamacpp,
            embedded(speculation=Speculation("ngram"), options={"spec_type": "ngram-x"}),
        )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"options": {"n-gpu": 3}}, "has no option"),
        ({"options": {"ngram_size_n": 3}}, "n-gram speculation, which is off"),
        ({"devices": ("CUDA0",)}, "no switch for --device"),
    ],
)
def test_what_the_wheel_has_no_switch_for_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        embedded(**settings)
