"""Chat: a short question after a few words of background, and a short answer."""

from __future__ import annotations

from tokrig.workloads import Workload, blocks, question

# The salt and a wordy template can take 56 of the 64 tokens, so the fixed text is the bare
# question; all that surrounds it is elastic. The endings ask for an explanation, not for
# brevity: an answer that stops early would be too short to time.
_ENDINGS, *_QUESTIONS = blocks("chat.txt")

WORKLOAD = Workload(
    name="chat",
    summary=(
        "A short question and a short answer: almost all of the time goes into generating, "
        "so output tokens per second reads directly as the peak decode rate."
    ),
    prompt_tokens=64,
    answer_tokens=128,
    concurrencies=(1,),
    variants=tuple(
        question(
            "{material}" + asked + "{ending}",
            (f"{sentence} " for sentence in background),
            (f" {ending}" for ending in _ENDINGS),
        )
        for asked, *background in _QUESTIONS
    ),
)
