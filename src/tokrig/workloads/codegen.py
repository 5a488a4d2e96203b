"""Codegen: a short specification, and a long piece of code as the answer."""

from __future__ import annotations

from tokrig.workloads import Variant, Workload

# The endings ask for everything to be written out: the answer has to last for 1,024 tokens.
_ENDINGS = (
    "",
    "\n\nBegin.",
    "\n\nWrite it all.",
    "\n\nWrite all of it.",
    "\n\nWrite all of it out.",
    "\n\nPlease write all of it out.",
    "\n\nPlease write all of the code out.",
    "\n\nPlease write all of the code out in full.",
    "\n\nPlease write all of the code out in full, with comments.",
    "\n\nPlease write all of the code out in full, with helpful comments.",
    "\n\nPlease write all of the code out in full, with short, helpful comments.",
    "\n\nPlease write all of the code out in full, with short, helpful comments and tests.",
    "\n\nPlease write all of the code out in full, with short, helpful comments and a few tests.",
    "\n\nPlease write all of the code out in full, with short, helpful comments and a few unit "
    "tests.",
    "\n\nPlease write all of the code out in full, with short, helpful comments and a few good "
    "unit tests.",
)

_BERTHS = (
    "- Each berth has a length and a depth.",
    "- Each boat has a length and a draught.",
    "- A boat may book several nights.",
    "- Two boats never share a berth.",
    "- Choose the smallest berth that fits.",
    "- Reject boats that are too long.",
    "- Allow a booking to be moved.",
    "- Allow a booking to be cancelled.",
    "- Price stays by length and season.",
    "- Give weekly guests a discount.",
    "- List all arrivals for a day.",
    "- List the free berths as well.",
    "- Load the berths from a CSV file.",
    "- Save the bookings as JSON.",
    "- Use dataclasses for the records.",
    "- Add type hints everywhere.",
    "- Raise clear errors on bad input.",
    "- Keep a waiting list when full.",
    "- Print a monthly occupancy report.",
    "- Add a small command line.",
    "- Use the standard library only.",
    "- Give every function a docstring.",
    "- Round prices to whole cents.",
    "- Show dates in ISO format.",
)

_LOANS = (
    "- A title can have many copies.",
    "- Readers borrow up to eight items.",
    "- A loan lasts three weeks.",
    "- Loans can be renewed twice.",
    "- Reserved copies cannot be renewed.",
    "- Reservations form a queue.",
    "- Late returns cost a small fee.",
    "- Fees stop growing at a limit.",
    "- Children never pay fees.",
    "- Search by author or title.",
    "- Ignore case and accents there.",
    "- Sort the results by relevance.",
    "- Split the results into pages.",
    "- Mark lost and damaged copies.",
    "- Send reminders before the due date.",
    "- Hide the clock behind an interface.",
    "- Store everything in memory.",
    "- Return typed results, not exceptions.",
    "- Keep a history of each copy.",
    "- Report the most borrowed titles.",
    "- Export open loans as CSV.",
    "- Comment all the public methods.",
    "- Avoid external packages.",
    "- Include a short usage example.",
)

_IRRIGATION = (
    "- A farm has fields and valves.",
    "- Each field has a soil type.",
    "- Each crop needs its own depth of water.",
    "- Rain reduces the amount needed.",
    "- Hot days raise the amount.",
    "- Sandy soil is watered more often.",
    "- Pumps have a maximum flow.",
    "- Only two valves open at once.",
    "- Prefer the hours before sunrise.",
    "- Never water in strong wind.",
    "- Skip fields that are being harvested.",
    "- Young plants come first.",
    "- Plan one week ahead.",
    "- Replan when a sensor fails.",
    "- Read sensor values through a trait.",
    "- Log each decision with its reason.",
    "- Report litres used per field.",
    "- Warn when the tank runs low.",
    "- Parse the settings from a text file.",
    "- Define an error type.",
    "- Simulate a dry month.",
    "- Print the plan as a table.",
    "- Document each public item.",
    "- Use no external crates.",
)


def _variant(task: str, requirements: tuple[str, ...]) -> Variant:
    # Each bullet carries its own line break, so that none is left over when there are none.
    return Variant(
        messages=(("user", task + "{material}{ending}"),),
        material=tuple(f"\n{bullet}" for bullet in requirements),
        endings=_ENDINGS,
        joiner="",
    )


WORKLOAD = Workload(
    name="codegen",
    summary=(
        "A short specification and a long program: one unbroken decode loop, the closest of "
        "the shapes to the speed that a model can sustain."
    ),
    prompt_tokens=96,
    answer_tokens=1024,
    concurrencies=(1,),
    variants=(
        _variant("Write a complete Python module that books harbour berths:", _BERTHS),
        _variant("Write a complete TypeScript module for library loans:", _LOANS),
        _variant("Write a complete Rust library that schedules irrigation:", _IRRIGATION),
    ),
)
