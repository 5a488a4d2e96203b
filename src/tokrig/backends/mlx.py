"""mlx-lm's ``mlx_lm.server``.

Checked against mlx-lm 0.32.2: HTTP/1.0, SSE comments while a prompt is read, and a
``system_fingerprint`` that names its versions and its device. It has no switch for a fixed
length, no clock of its own, and does not tell what it drafted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tokrig.backends import Ask, Capabilities, Engine, Launch, Loading
from tokrig.backends import _reading as read
from tokrig.backends._python import PythonServer
from tokrig.errors import RequestError, StartError

# mlx-lm's version, MLX's version, the platform, the device's architecture.
_FINGERPRINT = re.compile(r"(\d+\.\d+[\w.]*)-\d+\.\d+[\w.+]*-(?:macOS|Linux|Windows)\b.*-(\w*)$")
# MLX names an Apple GPU, a CUDA compute capability, or the processor's architecture.
_APIS = {r"applegpu": "metal", r"sm_": "cuda", r"(?:x86_64|arm64|aarch64|AMD64)$": "cpu"}


class MLX(PythonServer):
    """Options are ``mlx_lm.server``'s long flags (``kv-bits: 8``)."""

    name = "mlx"
    title = "mlx-lm"
    program = "mlx_lm.server"
    precedence = 60
    ports = (8080,)
    patience_s = 300.0
    # ``/health`` answers 503 for good once a model could not be loaded; see ``load``.
    ready_path = "/v1/models"
    options: Mapping[str, str] = {"<any long flag>": "as mlx_lm.server --help lists it"}
    capabilities = Capabilities(
        apis=("cpu", "cuda", "metal"),
        cache_switch="start",
        reasoning_switch="request",
    )
    flags: Mapping[str, str] = {"model": "{0.model}"}
    # Builds without these flags keep one prompt, or answer one request at a time.
    if_listed: Mapping[str, str] = {
        "prompt-cache-size": "0",
        "decode-concurrency": "{0.slots}",
        "prompt-concurrency": "{0.slots}",
    }
    cache_off = ("prompt-cache-size",)
    own = frozenset({"draft-model", "num-draft-tokens", *if_listed})
    listed = "adapter-path"
    # Its list of models reads the download cache and breaks where there is none.
    environment: Mapping[str, str] = {"HF_HUB_CACHE": "{0.model.parent}"}

    def load(self, ask: Ask, launch: Launch | None, served_model: str | None) -> Iterator[Loading]:
        """It answers before it has loaded, and goes on answering when it cannot: a first token
        tells."""
        if launch is None:
            return
        yield Loading("loading the model")
        try:
            ask(self.chat_path, read.one_token())
        except RequestError as error:
            raise StartError(
                f"mlx-lm could not load the model: {error.message}",
                hint="its log tells the reason",
            ) from None

    def recognises(self, ask: Ask) -> bool:
        """By the fingerprint of one token, asked only of a server that speaks neither llama.cpp's
        nor FastAPI's dialect."""
        if read.answer(ask, "/health") != {"status": "ok"}:
            return False
        for path in ("/props", "/openapi.json"):
            try:
                ask(path)
            except RequestError:
                continue
            return False
        return self._fingerprint(ask) is not None

    def inspect(self, ask: Ask, log: str, launch: Launch | None = None) -> Engine:
        """Build and device as the fingerprint tells them. No models: without a name a request is
        answered by the one the server was started with."""
        found = self._fingerprint(ask)
        build, device = found.groups() if found else (None, "")
        api = next((api for names, api in _APIS.items() if re.match(names, device)), None)
        confirmed = None if api is None else True
        return Engine(engine="mlx-lm", build=build, api=api, api_confirmed=confirmed)

    def _fingerprint(self, ask: Ask) -> re.Match[str] | None:
        told = read.answer(ask, self.chat_path, read.one_token()).get("system_fingerprint")
        return _FINGERPRINT.match(str(told))


BACKEND = MLX()
