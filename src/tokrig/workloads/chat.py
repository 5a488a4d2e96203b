"""Chat: a short question after a few words of background, and a short answer."""

from __future__ import annotations

from tokrig.workloads import Variant, Workload

# The salt and a wordy template can take 56 of the 64 tokens, so the fixed text is the bare
# question; all that surrounds it is elastic. The endings ask for an explanation, not for
# brevity: an answer that stops early would be too short to time.
_ENDINGS = (
    "",
    " Explain.",
    " Please explain.",
    " Please explain this.",
    " Please explain this well.",
    " Please explain this to me.",
    " Please explain this to me fully.",
    " Please explain this to me in detail.",
    " Please explain this to me in plain words.",
    " Please explain this to me in several sentences.",
    " Please explain this to me in six or seven sentences.",
    " Please explain this to me in six or seven plain sentences.",
    " Please explain this to me in six or seven plain and clear sentences.",
    " Please explain this to me step by step, in six or seven clear sentences.",
    " Please explain this to me step by step, in six or seven plain and clear sentences.",
)

_BAKERY = (
    "I run a small bakery.",
    "We open at six.",
    "Most of our loaves are rye.",
    "Some are plain white wheat.",
    "The oven is quite old.",
    "It burns wood.",
    "We bake twice a day.",
    "The shop is rather damp.",
    "Our shelves are made of pine.",
    "We sell bread in paper bags.",
    "Some customers use a bread bin.",
    "Others use the fridge.",
    "A few freeze half a loaf.",
    "People ask me about old bread.",
    "White loaves last two days.",
    "The rye lasts nearly a week.",
    "Warming a slice helps a little.",
    "I have no training in chemistry.",
    "My answer is always a guess.",
    "I want to do better.",
)

_GLACIER = (
    "I lead walks near a glacier.",
    "Our hut stands above the lake.",
    "We set out at dawn.",
    "The path takes three hours.",
    "Most guests come in summer.",
    "Some bring their children.",
    "We stop beside a tall cliff.",
    "The fresh snow is white.",
    "So is the crushed ice.",
    "The deep cracks look different.",
    "Their colour is very strong.",
    "It is stronger under clouds.",
    "Old ice has few bubbles.",
    "I have seen it melt clear.",
    "The lake itself is green.",
    "Every group asks about the ice.",
    "Last week a teacher asked.",
    "I could not say much.",
    "Our leaflet is silent on it.",
    "I would like to rewrite it.",
)

_BICYCLES = (
    "I help in a bicycle workshop.",
    "We meet on Thursday evenings.",
    "The room is under a library.",
    "People bring their own bikes.",
    "Most of them ride to work.",
    "Our roads are wet in autumn.",
    "In winter they are salted.",
    "We have two repair stands.",
    "Tools hang on the back wall.",
    "Oil is kept on a tray.",
    "We use a thin oil.",
    "We also have some wax.",
    "Few riders clean anything.",
    "Many store their bikes outdoors.",
    "Squeaks come on slowly.",
    "They are worse uphill.",
    "Rain makes them worse too.",
    "New parts are silent at first.",
    "A poster might save us time.",
    "I have been asked to write it.",
)


def _variant(question: str, background: tuple[str, ...]) -> Variant:
    # Each sentence carries its own space, so that none is left over when there is no background.
    return Variant(
        messages=(("user", "{material}" + question + "{ending}"),),
        material=tuple(f"{sentence} " for sentence in background),
        endings=_ENDINGS,
        joiner="",
    )


WORKLOAD = Workload(
    name="chat",
    summary=(
        "A short question and a short answer: almost all of the time goes into generating, "
        "so output tokens per second reads directly as the peak decode rate."
    ),
    prompt_tokens=64,
    answer_tokens=128,
    concurrencies=(1,),
    variants=(
        _variant("Why does bread go stale?", _BAKERY),
        _variant("Why is glacier ice blue?", _GLACIER),
        _variant("Why do bike chains squeak?", _BICYCLES),
    ),
)
