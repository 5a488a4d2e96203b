"""RAG: a question about long retrieved passages.

``texts/rag.md`` holds one corpus about a fictional canal network, one sentence a line, so that
the passages can be cut after any sentence without guessing where it ends.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokrig.workloads import Workload, blocks, question

_INSTRUCTION = (
    "Answer the question at the end from the passages below, which were retrieved from the "
    "archive of a canal network. Rely on nothing else, and name the passages you used."
)
# Each behind the passage that the corpus is rotated to begin with: those that answer it come
# first, so that the cut at the end never takes them away.
_QUESTIONS = {
    0: "How are boats worked through the Brackwell Flight in dry weather, what went wrong "
    "at lock seven, and what was recommended afterwards? Answer in a full paragraph.",
    12: "How do the permitted releases from Ennisford Reservoir change as it empties, and "
    "what did the drought group decide in August? Answer in a full paragraph.",
    24: "When and how are the flood gates at Cawle closed, what failed in the October flood, "
    "and what should change? Answer in a full paragraph.",
}
_PASSAGES = blocks("rag.md")


def _units(start: int) -> Iterator[str]:
    """One unit a sentence; a passage's title travels with its first sentence."""
    for title, first, *rest in _PASSAGES[start:] + _PASSAGES[:start]:
        yield f"\n\n{title}\n{first}"
        yield from (f" {sentence}" for sentence in rest)


WORKLOAD = Workload(
    name="rag",
    summary=(
        "A question over several pages of retrieved passages: reading the prompt decides the "
        "time to the first token, and decoding is slightly slower on the larger KV cache."
    ),
    prompt_tokens=4096,
    answer_tokens=128,
    concurrencies=(1,),
    variants=tuple(
        question(_INSTRUCTION + "{material}\n\nQuestion: " + asked + "{ending}", _units(start))
        for start, asked in _QUESTIONS.items()
    ),
)
