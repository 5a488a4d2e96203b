"""Agent: a system prompt with tool schemas, and turns with tool calls and their results.

Calls and results are written as text, and results come back in user messages, because many
chat templates know neither a tool role nor two user messages in a row.
"""

from __future__ import annotations

import json

from tokrig.workloads import Role, Variant, Workload, lines


def _call(name: str, **arguments: str | int | bool) -> tuple[Role, str]:
    call = json.dumps({"name": name, "arguments": arguments})
    return ("assistant", f"<tool_call>{call}</tool_call>")


def _result(text: str) -> tuple[Role, str]:
    return ("user", f"<tool_result>\n{text}\n</tool_result>")


def _variant(text: str, *turns: tuple[Role, str]) -> Variant:
    # The last result is the elastic part: a log, a list of hits or a stock list, of which the
    # lines that matter most come first.
    role, last = _result("{material}")
    messages = (("system", _SYSTEM), *turns, (role, last + "{ending}"))
    return Variant(messages, tuple(lines(text)), joiner="\n")


_SYSTEM = "\n".join(lines("agent_system.md"))

_BRIDGE = _variant(
    "agent_bridge.txt",
    (
        "user",
        "Drivers say that the harbour bridge was out of use for part of Saturday, 14 June. Find "
        "out what happened and write a handover note of about 200 words for the Monday crew: "
        "the course of events, the likely cause, and what to do next.",
    ),
    _call("find_asset", text="harbour bridge", kind="bridge"),
    _result("B-03, harbour swing bridge, two spans, motor and hand crank, one keeper on duty"),
    _call("read_log", asset_id="B-03", day="2025-06-14"),
)

_BRAKES = _variant(
    "agent_brakes.txt",
    (
        "user",
        "Several riders of the hire bicycles complain about weak brakes. Search the repair notes "
        "and write a report of about 200 words for the workshop: which patterns you see, what "
        "is behind them, and which bicycles to call in first.",
    ),
    _call("find_asset", text="hire bicycles", kind="bicycle"),
    _result("H-10, hire fleet, 62 bicycles, 8 cargo bicycles, 5 stands, one workshop"),
    _call("search_records", query="brake", asset_id="H-10", limit=150),
)

_STOCK = _variant(
    "agent_stock.txt",
    (
        "user",
        "Watering starts in three weeks. Look through the stock of the irrigation depot and "
        "write a purchase proposal of about 200 words: what is short, what would stop the work "
        "if it ran out, and in which order to buy.",
    ),
    _call("find_asset", text="irrigation depot", kind="depot"),
    _result("D-07, irrigation depot, four aisles, a yard rack and a cupboard for electronics"),
    _call("list_stock", depot_id="D-07", below_minimum_first=True),
)

WORKLOAD = Workload(
    name="agent",
    summary=(
        "Tool schemas, calls and results with a mid-length answer: a moderate prompt and a "
        "moderate decode, where the drop from one request to four at a time tells the most."
    ),
    prompt_tokens=1536,
    answer_tokens=256,
    concurrencies=(1, 4),
    variants=(_BRIDGE, _BRAKES, _STOCK),
)
