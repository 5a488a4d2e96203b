"""Session: a coding agent at work, turn by turn, on an engine that keeps its prompts.

Each turn sends the messages of the turn before, what the assistant said then, and what its tool
gave back. What it said is written, not the model's own answer: so all models walk the same way.
System prompt and tool schemas are the same in all sessions. Calls and results are text inside
ordinary messages, as in the agent shape.
"""

from __future__ import annotations

import re

from tokrig.workloads import Role, Turn, Variant, Workload, lines

_MARK = re.compile(r"^@@ (\w+)$", re.MULTILINE)
# Prompts by the tokenizers of Gemma 3 and SmolLM2, which are within 5 % of them. An agent's calls
# are short; its last message is the report.
_PROMPTS = (1500, 2150, 3850, 4600, 5750, 7200, 8900, 11750, 12250, 14050, 16350)
_CALL_TOKENS, _REPORT_TOKENS = 64, 256


def _session(name: str) -> Variant:
    messages: list[tuple[Role, str]] = [("system", "\n".join(lines("session_system.md")))]
    _, *parts = _MARK.split("\n".join(lines(name)))
    for kind, text in zip(parts[::2], parts[1::2], strict=True):
        said = text.strip("\n")
        said = f"<tool_result>\n{said}\n</tool_result>" if kind == "result" else said
        messages.append(("assistant" if kind == "call" else "user", said))
    return Variant(tuple(messages), ())


WORKLOAD = Workload(
    name="session",
    summary=(
        "Eleven turns of a coding agent whose context grows from 1.5k to 16k tokens, with the "
        "engine's prompt cache on: how long a turn takes when only what is new is read."
    ),
    prompt_tokens=_PROMPTS[-1],
    answer_tokens=_REPORT_TOKENS,
    concurrencies=(1,),
    variants=(),
    sessions=(_session("session_bookings.txt"), _session("session_gauges.txt")),
    turns=(
        *(Turn(prompt, _CALL_TOKENS) for prompt in _PROMPTS[:-1]),
        Turn(_PROMPTS[-1], _REPORT_TOKENS),
    ),
)
