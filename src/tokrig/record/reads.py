"""What a step of decoding reads, as a record tells it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tokrig.record.block import Block, Count

Place = Literal["cpu", "gpu"]
"""Main memory, and that of the graphics cards."""


class CacheRead(Block):
    """The cache of layers that are alike: bytes that each token of the context adds to what a step
    reads; of the last ``window_tokens`` alone, where these layers look no further back."""

    place: Place
    bytes_per_token: Count
    window_tokens: Count | None = None


class Reads(Block):
    """What one step of decoding reads at least, by the model's file and by where its parts lie.

    ``weight_bytes``: all weights but tables of which single rows are looked up; of experts those
    that one token uses, which ``routed`` says: requests served together may need others; with them
    states of constant size. ``cache`` is empty where the file does not tell how the cache grows.
    ``multiplied`` are the parameters that each token of a prompt is multiplied with: those of the
    layers, for embeddings are looked up and the output serves a prompt's last token alone; null
    where the file packs its weights so that their number is not told.
    """

    weight_bytes: dict[Place, Count]
    routed: bool = False
    multiplied: Count | None = None
    cache: list[CacheRead] = Field([])
