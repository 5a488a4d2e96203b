"""One run's configuration, and how fast it is: bytes over bandwidth, FLOPs over FLOP/s."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from bench.many.market import Machine, Quant, Variant, machines, quants, tables, variants

LAUNCH_S = 30e-6  # the kernels of one layer, for each token, on a GPU
PREFILL_START_S = 0.004
COMPUTE_SHARE = 0.35  # of the dense FP16 rate
CONTEXT, SLOTS = 8192, 4  # tokens a slot
MODE_SHARE = 0.3  # of the runs that could have a mode


@dataclass(frozen=True)
class Setup:
    """What one run measures. ``luck`` is the run's own factor on the engine's efficiency."""

    variant: Variant
    machine: Machine
    engine: dict[str, Any]
    build: str
    api: str
    quant: Quant
    mode: str = "baseline"
    luck: float = 1.0
    context: int = CONTEXT
    slots: int = SLOTS

    @property
    def weights_bytes(self) -> float:
        """All weights."""
        return self.variant.parameters * self.quant.bits_per_weight / 8

    @property
    def kv_bytes(self) -> int:
        """The KV cache of one token: keys and values of 16 bit."""
        return 4 * self.variant.layers * self.variant.kv_width

    @property
    def needed_bytes(self) -> float:
        """Weights and the cache of all slots."""
        return self.weights_bytes + self.slots * self.context * self.kv_bytes

    @property
    def fits(self) -> bool:
        """Whether the rig's memory holds it."""
        return self.needed_bytes < self.machine.memory

    @property
    def bandwidth(self) -> float:
        """Bytes/s the engine gets out of the memory."""
        return float(self.machine.bandwidth * self.engine["efficiency"][self.api] * self.luck)

    @property
    def reasons(self) -> bool:
        """Whether answers begin with reasoning."""
        traits = self.variant.traits
        return "reasoning" in traits or ("switchable" in traits and self.mode != "reasoning-off")

    def step_bytes(self, context: float, concurrency: int) -> float:
        """What one decode step reads; more streams meet more of the experts."""
        experts: float = min(concurrency, self.variant.parameters / self.variant.active) ** 0.6
        active_bytes = self.variant.active * self.quant.bits_per_weight / 8
        return active_bytes * experts + concurrency * self.kv_bytes * context

    def token_s(self, context: float, concurrency: int) -> float:
        """Seconds per token of one stream at ``context`` tokens."""
        reading_s = self.step_bytes(context, concurrency) / self.bandwidth
        computing_s = self._computing_s(concurrency)
        launching_s = 0.0 if self.api == "cpu" else self.variant.layers * LAUNCH_S
        step_s = max(reading_s, computing_s) + launching_s
        draft = tables()["drafts"].get(self.mode)
        if draft is None:
            return step_s
        return float(step_s * (1 + draft["cost"]) / (1 + self.accepted_a_step))

    @property
    def accepted_a_step(self) -> float:
        """Drafted tokens accepted in a step, on average: a token counts when all before it do."""
        draft = tables()["drafts"][self.mode]
        return float(sum(draft["chance"] ** (i + 1) for i in range(draft["tokens"])))

    def prefill_s(self, prompt: int) -> float:
        """Seconds the engine takes for a prompt of so many tokens."""
        return PREFILL_START_S + max(self._computing_s(prompt), self.weights_bytes / self.bandwidth)

    def _computing_s(self, tokens: int) -> float:
        """2 FLOPs per active parameter and token."""
        return 2 * self.variant.active * tokens / (self.machine.flops * COMPUTE_SHARE * self.luck)


def draw(chance: Random) -> Setup:
    """A configuration that fits its rig."""
    rigs = machines()
    machine = chance.choices(rigs, [rig.share for rig in rigs])[0]
    while True:
        setup = _any_on(machine, chance)
        if setup.fits:
            return setup


def _any_on(machine: Machine, chance: Random) -> Setup:
    """Any model with any quant, engine and mode, whether it fits or not."""
    api = chance.choice(tables()["vendors"][machine.vendor]["apis"])
    engines = [engine for engine in tables()["engines"] if api in engine["efficiency"]]
    engine = chance.choices(engines, [engine["share"] for engine in engines])[0]
    known = quants(engine["format"])
    variant = chance.choice(variants())
    modes = []
    if "mtp" in variant.traits:
        modes.append("mtp")
    if "switchable" in variant.traits:
        modes.append("reasoning-off")
    if variant.parameters > 12e9 and variant.active == variant.parameters:
        modes.append("draft")
    return Setup(
        variant=variant,
        machine=machine,
        engine=engine,
        build=chance.choice(engine["builds"]),
        api=api,
        quant=chance.choices(known, [quant.share for quant in known])[0],
        mode=chance.choice(modes) if modes and chance.random() < MODE_SHARE else "baseline",
        luck=chance.lognormvariate(0, 0.05),
    )
