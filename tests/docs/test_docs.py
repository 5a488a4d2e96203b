"""The documents say what is true: links, commands, codes, fields and thresholds."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

import tokrig
from tokrig import registry
from tokrig.cli.main import main
from tokrig.record import METHODOLOGY_VERSION, checks, conditions, formulas, samples, sessions
from tokrig.record.metrics import leaves
from tokrig.run import client, counting, fitting, instrument, interference, preflight
from tokrig.workloads import Workload

ROOT = Path(__file__).parents[2]
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = sorted([*TOP, *(ROOT / "docs").rglob("*.md"), *(ROOT / "content").rglob("*.md")])
METHODOLOGY = ROOT / "docs" / "methodology.md"
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


@cache
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name(page: object) -> str:
    return str(page.relative_to(ROOT)) if isinstance(page, Path) else str(page)


# Links


def anchors(page: Path) -> set[str]:
    """Anchors of the page's headings, made as GitHub makes them."""
    titles = re.findall(r"^#+ +(.+?)\s*$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


# Commands


def shell_lines(page: Path) -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)
    return [words for block in blocks for line in block.splitlines() if (words := split(line))]


def split(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def shown(program: str) -> list[tuple[Path, list[str]]]:
    return [(p, words[1:]) for p in PAGES for words in shell_lines(p) if words[0] == program]


def complaint(command: click.Command, context: click.Context, words: list[str]) -> str | None:
    """What the real command line would say against these words, or None.

    Options, their number of values and their choices are looked at; files need not exist.
    """
    try:
        values, rest, _ = command.make_parser(context).parse_args(list(words))
        for parameter in command.params:
            value = values.get(parameter.name or "")
            if isinstance(parameter.type, click.Choice) and isinstance(value, str | list | tuple):
                for one in [value] if isinstance(value, str) else value:
                    parameter.type.convert(one, parameter, context)
    except click.UsageError as error:
        return error.format_message()
    if isinstance(command, click.Group) and rest:
        sub = command.get_command(context, rest[0])
        if sub is None:
            return f"no command {rest[0]}"
        return complaint(sub, click.Context(sub, parent=context, info_name=rest[0]), rest[1:])
    if rest:
        return f"too many words: {rest}"
    return hidden(command, words)


def hidden(command: click.Command, words: list[str]) -> str | None:
    """An option that works but that ``--help`` does not tell of."""
    told = command.get_help(click.Context(command))
    options = [w.partition("=")[0] for w in words if w.startswith("--")]
    missing = [o for o in options if not re.search(rf"(?<![\w-]){o}(?![\w-])", told)]
    return f"--help does not list {missing}" if missing else None


def refused(words: list[str]) -> str | None:
    return complaint(main, click.Context(main, info_name="tokrig"), words)


def subcommands() -> dict[str, click.Command]:
    context = click.Context(main, info_name="tokrig")
    found = {n: main.get_command(context, n) for n in main.list_commands(context)}
    return {n: command for n, command in found.items() if command is not None}


def test_every_command_that_is_shown_parses() -> None:
    commands = shown("tokrig")
    assert len(commands) >= 5
    wrong = {" ".join(w): why for _, w in commands if (why := refused(w)) is not None}
    assert not wrong


@pytest.mark.parametrize("words", [["rnu"], ["run", "--modle", "x"], ["run", "--level", "hasty"]])
def test_a_command_that_does_not_exist_would_be_found(words: list[str]) -> None:
    assert refused(words) is not None


def test_every_subcommand_is_shown() -> None:
    assert {w[0] for _, w in shown("tokrig") if w} >= set(subcommands())


@pytest.mark.parametrize("subcommand", sorted(subcommands()))
def test_every_help_has_an_example_that_parses(subcommand: str) -> None:
    command = subcommands()[subcommand]
    told = f"{command.help or ''}\n{command.epilog or ''}"
    examples = re.findall(rf"^\W*tokrig ({subcommand}\b.*)$", told, re.MULTILINE)
    assert examples
    assert [why for line in examples if (why := refused(split(line))) is not None] == []


def test_every_make_target_that_is_shown_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {w[0] for _, w in shown("make")}
    assert {"bench", "test", "check"} <= asked <= targets


# Methodology


def table(mark: str) -> set[str]:
    """The words in the first column of a marked table."""
    found = re.search(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", text(METHODOLOGY), re.DOTALL)
    assert found
    return set(re.findall(r"^\| `([^`]+)` \|", found[1], re.MULTILINE))


def test_every_reason_code_is_documented_and_no_other() -> None:
    assert table("codes") == set(checks.HINTS)


def error_codes() -> set[str]:
    """All error codes in the source: class attributes ``code``, arguments ``code=``, and the
    codes given to ``fail`` and ``skip``; ``http_<>`` where a part is put in at run time."""
    found: set[str] = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for value in code_values(node):
                found |= set(words(value))
    return found


def code_values(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.ClassDef):
        for line in node.body:
            if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "code":
                yield line.value
    if isinstance(node, ast.Call):
        yield from (k.value for k in node.keywords if k.arg == "code")
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("fail", "skip"):
            yield from node.args[:2]


def words(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.JoinedStr):
        parts = [p.value if isinstance(p, ast.Constant) else "<>" for p in value.values]
        found = ["".join(map(str, parts))]
    else:
        found = [str(n.value) for n in ast.walk(value) if isinstance(n, ast.Constant)]
    yield from (code for code in found if re.fullmatch(r"[a-z_<>]+", code))


def test_every_error_code_is_documented() -> None:
    documented = {re.sub(r"<\w+>", "<>", code) for code in table("errors")}
    assert {"bad_model", "engine_died", "http_<>"} <= error_codes()
    assert error_codes() - documented == set()


def test_every_metric_is_defined_in_the_words_of_the_code() -> None:
    row = r"^\| (.+?) \| `(.+?)` \| (.+?) \| (.*?) ?\|$"
    rows = re.findall(row, text(METHODOLOGY), re.MULTILINE)
    documented = {name: (label, definition, unit) for label, name, definition, unit in rows}
    known = {one.name: (one.label, one.definition, one.unit) for one in leaves()}
    assert {name: documented.get(name) for name in known} == known


def limit(what: str) -> str:
    thresholds = text(METHODOLOGY).partition("### Thresholds")[2]
    found = re.search(rf"^\| {re.escape(what)} \| (.+?) \|$", thresholds, re.MULTILINE)
    assert found
    return found[1]


def percent(share: float) -> str:
    return f"{share * 100:g} %"


def test_thresholds_of_sessions_are_the_documented_ones() -> None:
    least = f"the template's, at least {checks.OPENING_TOKENS}"
    assert limit("cached tokens of a session's first turn") == least
    none = "hit rate below which an engine has no prompt cache"
    assert limit(none) == percent(sessions.HITS_SHOW)


def test_thresholds_in_the_code_are_the_documented_ones() -> None:
    assert limit("two token counts of one request") == percent(checks.COUNT_MISMATCH)
    assert limit("client and server decode rate") == percent(formulas.CLOCK_MISMATCH)
    assert limit("client CPU share of one core") == percent(conditions.CLIENT_CPU_SHARE)
    waited, late = conditions.CLIENT_WAIT_SHARE, conditions.CLIENT_LATE_SHARE
    assert limit("client's clock waited for a processor") == percent(waited)
    assert limit("client's loop in rounds that are long beside the usual gap") == percent(late)
    assert limit("a long round") == (
        f"{percent(client.LATE_ROUND_STAMPED)} of the gap, "
        f"{percent(client.LATE_ROUND)} without the kernel's stamps"
    )
    others = limit("others' share of a CPU engine's processors")
    assert others == percent(conditions.FOREIGN_CPU_SHARE)
    together = limit("threads of a CPU engine waited for others, all together")
    assert together == percent(conditions.CPU_ENGINE_WAIT_SHARE)
    waited = conditions.GPU_ENGINE_WAIT_SHARE
    assert limit("a thread of a GPU engine waited for others") == percent(waited)
    woken = limit("waking a thread up, which is no waiting")
    assert woken == f"{interference.WAKE_NS / 1000:g} µs"
    assert limit("a fault held a card down") == percent(conditions.THROTTLED_SHARE)
    busy = limit("card busy before the start, or drawn on")
    assert busy == percent(conditions.GPU_BUSY_SHARE)
    assert limit("another process computed on the card") == percent(interference.USED_SHARE)
    prompt = f"{percent(checks.PROMPT_SHARE)}, at least {checks.PROMPT_TOKENS} tokens"
    assert limit("prompt length") == prompt
    for percentile, need in formulas.PERCENTILES_NEED.items():
        assert f"{percentile} from {need}" in text(METHODOLOGY)


def test_thresholds_of_counts_and_stamps_are_the_documented_ones() -> None:
    assert limit("two readings of one stream that are the same") == percent(counting.SAME_RATE)
    assert limit("a count by tokenizer that is the length asked for") == percent(counting.AS_ASKED)
    at_once = f"{percent(samples.AT_ONCE_SHARE)} of a token's mean time, at most 1 ms"
    assert (limit("chunks that came at once"), samples.AT_ONCE_NS) == (at_once, 1_000_000)
    factor = f"a factor of {counting.IMPLAUSIBLE:g}"
    assert limit("running counts against the text's tokens") == factor
    fewest, most = counting.PLAUSIBLE_BYTES
    assert limit("text of so many tokens") == f"{fewest:g} to {most:g} bytes a token"
    assert limit("fewest bursts that show a pace") == str(samples.FEWEST_STAMPS)
    assert limit("longest gap, of the decode window") == percent(samples.LONGEST_GAP_SHARE)
    assert limit("text that came after a gap, of what was due in it") == percent(samples.HELD_BACK)
    assert limit("tokens at once that make deliveries of bursts") == f"{samples.BURSTY:g}"
    assert limit("what count and deliveries may leave open of a rate") == percent(
        samples.RATE_UNCERTAINTY
    )
    assert limit("bursts that are steps of speculative decoding") == percent(samples.STEPS_SHOWN)
    assert limit("their ninth decile, of the first") == f"{samples.STEPS_ALIKE:g}"
    assert limit("further tokens of the first chunk, of TTFT") == percent(
        formulas.TTFT_DECODE_SHARE
    )
    assert limit("client's rate and the clock that confirms it") == percent(samples.CLOCK_CONFIRMS)
    others = limit("what a clock's further tokens may leave open")
    assert others == percent(samples.OTHER_TOKENS)
    multiples = limit("gaps of a timer, from whole multiples of the usual one")
    assert multiples == percent(samples.ON_TIMER)


def test_thresholds_of_the_client_are_the_documented_ones() -> None:
    near = limit("system rate, of the rate up to which the client is true")
    assert near == percent(conditions.CLIENT_CEILING_SHARE)
    p99 = "error of the p99 of inter-chunk latency at which the client is true, of the interval"
    assert limit(p99) == percent(instrument.P99_OFF)
    assert limit("error of its mean") == percent(instrument.MEAN_OFF)


def test_thresholds_of_a_cell_are_the_documented_ones() -> None:
    asked = "mean number of requests served at once, of what was asked"
    assert limit(asked) == percent(checks.CONCURRENCY_SHARE)
    beside = "share of chunks that the most streams at once stand beside"
    assert limit(beside) == percent(samples.PEAK_SHARE)
    own = "tokens of a prompt that are the shape's own, beside the chat template's"
    assert limit(own) == str(fitting.LEAST_OWN_TOKENS)
    saved = f"{percent(preflight.APART)}; from {percent(preflight.SHARED)} on the prompt was cached"
    assert limit("share of a prefill that a second salt may save") == saved


def test_the_workloads_are_the_documented_ones() -> None:
    for shape in registry.names("workloads"):
        workload: Workload = registry.load("workloads", shape, "WORKLOAD")
        row = f"| {shape} | {workload.prompt_tokens} | {workload.answer_tokens} |"
        assert row in text(METHODOLOGY)


def test_the_methodology_version_is_the_records() -> None:
    assert f"**Methodology version {METHODOLOGY_VERSION}.**" in text(METHODOLOGY)
    assert f"- Version {METHODOLOGY_VERSION}:" in text(ROOT / "CHANGELOG.md")


# Other promises


def test_the_changelog_has_this_version_or_an_unreleased_part() -> None:
    changelog = text(ROOT / "CHANGELOG.md")
    assert "## [Unreleased]" in changelog or f"## [{tokrig.__version__}]" in changelog
    assert "### Methodology" in changelog


def test_decisions_are_numbered_in_order() -> None:
    assert [p.name[:4] for p in DECISIONS] == [f"{n:04}" for n in range(1, len(DECISIONS) + 1)]


@pytest.mark.parametrize("page", DECISIONS, ids=name)
def test_a_decision_is_one_page_of_context_decision_consequences(page: Path) -> None:
    headings = re.findall(r"^## (.+)$", text(page), re.MULTILINE)
    assert [h for h in headings if h in ("Context", "Decision", "Consequences")] == [
        "Context",
        "Decision",
        "Consequences",
    ]
    assert text(page).startswith(f"# {page.name[:4]} ")
    assert len(text(page).split()) < 600


def engine_rows() -> list[str]:
    """The table of docs/engines.md as the backends would write it."""
    rows = []
    for name in registry.names("backends"):
        backend = registry.load("backends", name, "BACKEND")
        can = backend.capabilities
        cells = [
            f"`{name}`",
            backend.title,
            "yes" if backend.starts else "–",
            "yes" if backend.attaches else "–",
            can.timings or "–",
            ", ".join(can.speculation) or "–",
            "yes" if can.fixed_length else "–",
            {"request": "off by request", "start": "off at start", None: "–"}[can.cache_switch],
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def test_every_engine_is_in_the_table() -> None:
    text = (ROOT / "docs" / "engines.md").read_text("utf-8")
    table = text.partition("<!-- engines -->")[2].partition("<!-- /engines -->")[0]
    assert table.strip().splitlines()[2:] == engine_rows()
