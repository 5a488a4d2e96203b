"""What is said of a model's answers: beside a run, and beside two that are compared. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tokrig.record.model import Record
from tokrig.record.quality import FAULTS, NOT_COMPARED, Interval, Quality


def lines(told: Quality) -> list[str]:
    """A run's answers: how far they are from the reference's, then what is wrong with them."""
    against = told.reference
    if told.top1_agreement and told.kl_nats and against:
        found = [
            f"{differ(told)} from those of {against.quant or 'the reference'} ({against.id});"
            f" KL at least {_spread(told.kl_nats, 1, '.2g', ' nats')};"
            f" {told.positions:,} positions of {told.prompts} prompts"
        ]
    else:
        why = told.not_compared or "no_reference"
        found = [f"not compared: {NOT_COMPARED.get(why, why)}"]
    if told.other_prompts:
        found.append(
            f"{told.other_prompts} of {told.prompts} prompts reached the model as other tokens than"
            " the reference's: another chat template, or a date in it"
        )
    if told.faults:
        counts = (f"{count} {FAULTS.get(code, code)}" for code, count in told.faults.items())
        found.append(f"of {told.prompts} answers {'; '.join(counts)}")
    return found


def differ(told: Quality) -> str:
    """``3.1 % (2.2–4.0) of tokens differ``; empty where nothing was compared."""
    agreed = told.top1_agreement
    if agreed is None:
        return ""
    low, high = agreed.ci95 or (agreed.value, agreed.value)
    ends = (1 - high, 1 - low) if agreed.ci95 else None
    apart = Interval.model_construct(value=1 - agreed.value, ci95=ends)
    return f"{_spread(apart, 100, '.1f', ' %')} of tokens differ"


def between(a: Record, b: Record) -> list[str]:
    """The answers of two runs: against each other where one is the other's reference, else both
    against the reference that they share."""
    sides = {"A": a.quality, "B": b.quality}
    for side, told, other in (("B", b.quality, a), ("A", a.quality, b)):
        if told and told.reference and told.reference.id == other.id and differ(told):
            found = [f"{side} against {'AB'.replace(side, '')}: {lines(told)[0]}"]
            return [*found, *_faults(sides)]
    refs = [told.reference.id if told and told.reference else None for told in sides.values()]
    found = []
    if refs[0] is not None and refs[0] == refs[1]:
        found = [f"{side}: {lines(told)[0]}" for side, told in sides.items() if told]
    elif any(told is not None for told in sides.values()):
        found = ["not compared: neither was held against the other, nor both against one"]
    return [*found, *_faults(sides)]


def _faults(sides: dict[str, Quality | None]) -> Iterator[str]:
    for side, told in sides.items():
        if told and told.faults:
            yield f"{side}, {lines(told)[-1]}"


def _spread(figure: Interval, times: float, form: str, unit: str) -> str:
    shown = f"{times * figure.value:{form}}{unit}"
    if figure.ci95 is not None:
        low, high = figure.ci95
        shown += f" ({times * low:{form}}–{times * high:{form}})"
    return shown
