"""Can these two runs be compared, and how much faster is the one than the other?

Pure. ``subject`` reduces a record to what a comparison needs; ``comparison`` answers for two of
them. The compare page does the same from ``Subject.as_dict`` in the browser, by the rules that
``rules`` hands it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tokrig.query import classes, pairs, ratios, spread, variables
from tokrig.query.classes import Grade, classify, notes
from tokrig.query.pairs import METRICS, Mean, Pair, Subject, matches, means, subject
from tokrig.query.variables import Differences, differences
from tokrig.record.model import Metric

__all__ = ["Comparison", "Subject", "comparison", "rules", "subject"]


@dataclass(frozen=True)
class Comparison:
    """``b`` against the reference ``a``: the class, why, what differs, the figures."""

    a: Subject
    b: Subject
    grade: Grade
    reason: str
    notes: tuple[str, ...]
    differences: Differences
    pairs: tuple[Pair, ...]
    means: tuple[Mean, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, as the browser's ``tokrig.compare`` makes it, too."""
        return {
            "a": self.a.id,
            "b": self.b.id,
            "class": self.grade,
            "reason": self.reason,
            "notes": list(self.notes),
            "changed": list(self.differences.changed),
            "differing": [dataclasses.asdict(entry) for entry in self.differences.differing],
            "unknown": [dataclasses.asdict(entry) for entry in self.differences.unknown],
            "pairs": [_plain(pair) for pair in self.pairs],
            "means": [_plain(mean) for mean in self.means],
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Metric):
        return value.model_dump(mode="json")
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def rules() -> dict[str, Any]:
    """What the compare page needs to know to do the same in the browser."""
    return {
        "smallest_effect": ratios.SMALLEST_EFFECT,
        "widest": ratios.WIDEST,
        "starts_needed": spread.STARTS_NEEDED,
        "most_starts": spread.MOST_STARTS,
        "level": spread.LEVEL,
        "normal_95": spread.NORMAL_95,
        "power_80": spread.POWER_80,
        "length_share": pairs.LENGTH_SHARE,
        "length_tokens": pairs.LENGTH_TOKENS,
        # A list: JSON objects keep no order.
        "metrics": [{"name": name, "higher_is_better": higher} for name, higher in METRICS.items()],
        "classes": classes.CLASSES,
        "essential": list(classes.ESSENTIAL),
        "other_work": list(classes.OTHER_WORK),
        "of_the_machine": list(classes.OF_THE_MACHINE),
        "left_out": [list(one) for one in classes.LEFT_OUT.items()],
        "where": classes.WHERE,
        "of_the_file": list(variables.OF_THE_FILE),
        "started_by": list(variables.STARTED_BY),
        "variables": [_plain(variable) for variable in variables.VARIABLES],
    }


def comparison(a: Subject, b: Subject) -> Comparison:
    """``b`` compared with the reference ``a``. Class D has no ratios."""
    found = differences(a.keys, b.keys)
    together = matches(a, b, found)
    grade, reason = classify(found, together)
    alike = grade == "A" and not found.changed
    least = pairs.least_effects(a, b, alike=alike)
    shown = pairs.pairs(together, least, rated=grade != "D")
    return Comparison(
        a=a,
        b=b,
        grade=grade,
        reason=reason,
        notes=notes(a, b, (grade, reason), found, together),
        differences=found,
        pairs=shown,
        means=means(a, b, shown),
    )
