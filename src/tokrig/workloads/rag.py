"""RAG: a question about long retrieved passages.

``texts/rag.md`` holds one corpus about a fictional canal network, one sentence a line, so that
the passages can be cut after any sentence without guessing where it ends.
"""

from __future__ import annotations

from importlib.resources import files

from tokrig.workloads import Variant, Workload, paragraphs

_INSTRUCTION = (
    "Answer the question at the end from the passages below, which were retrieved from the "
    "archive of a canal network. Rely on nothing else, and name the passages you used."
)


def _passages() -> list[list[str]]:
    """The corpus as passages, each a title line followed by its sentences."""
    text = files("tokrig.workloads").joinpath("texts", "rag.md").read_text(encoding="utf-8")
    return [passage.splitlines() for passage in paragraphs(text)]


def _units(passages: list[list[str]]) -> tuple[str, ...]:
    """One unit a sentence; a passage's title travels with its first sentence.

    The units bring their own white space, because a sentence follows either another sentence
    or a title.
    """
    units: list[str] = []
    for title, first, *rest in passages:
        units.append(f"\n\n{title}\n{first}")
        units.extend(f" {sentence}" for sentence in rest)
    return tuple(units)


def _variant(passages: list[list[str]], start: int, question: str) -> Variant:
    # The corpus is rotated to begin with the passages that answer the question, so that the
    # cut at the end never takes them away.
    return Variant(
        messages=(("user", _INSTRUCTION + "{material}\n\nQuestion: " + question + "{ending}"),),
        material=_units(passages[start:] + passages[:start]),
        joiner="",
    )


_PASSAGES = _passages()

WORKLOAD = Workload(
    name="rag",
    summary=(
        "A question over several pages of retrieved passages: reading the prompt decides the "
        "time to the first token, and decoding is slightly slower on the larger KV cache."
    ),
    prompt_tokens=4096,
    answer_tokens=128,
    concurrencies=(1,),
    variants=(
        _variant(
            _PASSAGES,
            0,
            "How are boats worked through the Brackwell Flight in dry weather, what went wrong "
            "at lock seven, and what was recommended afterwards? Answer in a full paragraph.",
        ),
        _variant(
            _PASSAGES,
            12,
            "How do the permitted releases from Ennisford Reservoir change as it empties, and "
            "what did the drought group decide in August? Answer in a full paragraph.",
        ),
        _variant(
            _PASSAGES,
            24,
            "When and how are the flood gates at Cawle closed, what failed in the October flood, "
            "and what should change? Answer in a full paragraph.",
        ),
    ),
)
