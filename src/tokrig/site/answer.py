"""What runs on a machine, for a use, and fast enough: one entry a model, in five sections.

``static/answer.js`` has the same rules for the first page; a browser test holds one against the
other. Both work on the data of the table and of ``finder.Finder.fit``.

A model *runs* where a record of that machine, or of one with as much memory, says so. Else it is
reckoned to fit where its file, the cache of the context that the use needs and what an engine takes
go into the memory, or where a record of any machine saw no more memory taken than this one has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SECTIONS = ("fast", "slower", "unrated", "no", "unknown")
"""Fast enough; runs, but slower; fits, and nobody can say how fast; does not fit; unknown size."""
VALID = 1
WEIGHTS_SHARE = 0.5
"""(t) A record that saw less memory taken than this share of the file saw a part of the model."""

Data = dict[str, Any]
Line = dict[str, Any]
"""One model in one quant: ``of`` its number, ``how`` it is known (``here``, ``size``, ``expected``,
``fits``, ``no``, ``unknown``), ``row`` the result it rests on, ``rate`` with ``low`` and ``high``
(tok/s), ``basis`` of an estimate, ``memory`` (bytes) and whether it was ``seen``, ``missing``
bytes; ``others`` are lowest rate, highest rate and number of all its results on this machine."""


def answer(data: Data, fit: Data, machine: int, use: int, fast: float) -> dict[str, list[Any]]:
    """The sections; in each a list of models, the largest first, of each its quants, the one that
    is to be shown first."""
    by_model: dict[int, list[Line]] = {}
    for line in _lines(data, fit, machine, use):
        by_model.setdefault(fit["models"]["model"][line["of"]], []).append(line)
    found: dict[str, list[Any]] = {section: [] for section in SECTIONS}
    size = fit["models"]["bytes"]
    for lines in by_model.values():
        section = min((_section(line, fast) for line in lines), key=SECTIONS.index)
        inside = [line for line in lines if _section(line, fast) == section]
        first = min(inside, key=lambda line: _quant_order(line, section, size))
        rest = sorted(
            (line for line in lines if line is not first),
            key=lambda line: (-(size[line["of"]] or 0), line["of"]),
        )
        found[section].append([first, *rest])
    for section, models in found.items():
        models.sort(key=lambda lines: _model_order(lines[0], section, data, fit))
    return found


def _section(line: Line, fast: float) -> str:
    if line["how"] in ("no", "unknown"):
        return str(line["how"])
    if line["rate"] is None:
        return "unrated"
    return "fast" if line["rate"] >= fast else "slower"


def _quant_order(line: Line, section: str, size: list[int | None]) -> tuple[float, int]:
    """The largest; of those that are too slow the fastest, of those too large the smallest."""
    if section == "slower":
        return -line["rate"], line["of"]
    return (line["missing"] or 0) if section == "no" else -(size[line["of"]] or 0), line["of"]


def _model_order(line: Line, section: str, data: Data, fit: Data) -> tuple[float, float, int]:
    of = line["of"]
    parameters = data["models"][fit["models"]["model"][of]][4] or 0
    if section == "slower":
        return -line["rate"], -parameters, of
    if section == "no":
        return line["missing"] or 0, -parameters, of
    return -parameters, -(fit["models"]["bytes"][of] or 0), of


def _lines(data: Data, fit: Data, machine: int, use: int) -> list[Line]:
    here, seen = _evidence(data, fit, fit["machines"][machine], fit["uses"][use][2])
    return [
        _measured(data, fit, machine, of, here[of])
        if of in here
        else _reckoned(fit, machine, use, of, seen.get(of))
        for of in range(len(fit["models"]["model"]))
    ]


def _evidence(
    data: Data, fit: Data, asked: Data, shape: str
) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Results of the machine by model, and the least memory that any record saw taken by each."""
    rows, runs, rigs = data["rows"], data["runs"], data["rigs"]
    on_gpu = asked["kind"] in ("size", "card")
    taken = rows["memory.engine_vram_bytes" if on_gpu else "memory.engine_rss_bytes"]
    here: dict[int, list[int]] = {}
    seen: dict[int, int] = {}
    columns = (rows[name] for name in ("run", "shape", "concurrency", "valid", "gen"))
    for row, (run, of_shape, concurrency, valid, gen) in enumerate(zip(*columns, strict=True)):
        if concurrency != 1 or not valid or gen is None or data["shapes"][of_shape] != shape:
            continue
        of, rig = fit["of"][run], runs["rig"][run]
        if rig in asked["rigs"]:
            here.setdefault(of, []).append(row)
        least = WEIGHTS_SHARE * (fit["models"]["bytes"][of] or 0)
        if bool(rigs[rig][4]) == on_gpu and taken[row] and taken[row] >= least:
            seen[of] = min(seen.get(of, taken[row]), taken[row])
    return here, seen


def _measured(data: Data, fit: Data, machine: int, of: int, results: list[int]) -> Line:
    """Of several machines the middle one stands for all, by the rate of its best engine."""
    rows, asked = data["rows"], fit["machines"][machine]
    by_rig: dict[int, list[int]] = {}
    for row in results:
        by_rig.setdefault(data["runs"]["rig"][rows["run"][row]], []).append(row)
    best = sorted((_best(data, on_rig) for on_rig in by_rig.values()), key=_by_rate(rows))
    row = best[(len(best) - 1) // 2]
    gen = [rows["gen"][one] for one in results]
    on_gpu = asked["kind"] in ("size", "card")
    memory = rows["memory.engine_vram_bytes" if on_gpu else "memory.engine_rss_bytes"][row]
    return _line(
        of,
        "size" if asked["kind"] in ("size", "none") else "here",
        row=row,
        rate=rows["gen"][row],
        low=rows["low"][row],
        high=rows["high"][row],
        memory=memory,
        seen=memory is not None,
        others=[min(gen), max(gen), len(gen)] if len(gen) > 1 else None,
    )


def _by_rate(rows: Data) -> Any:
    return lambda row: (rows["gen"][row], -row)


def _best(data: Data, results: Iterable[int]) -> int:
    """The fastest of the newest of each engine; valid ones before unverified ones, the baseline
    before other modes. Results stand newest first."""
    rows, runs = data["rows"], data["runs"]

    def rank(row: int) -> tuple[bool, bool]:
        mode = data["modes"][runs["mode"][rows["run"][row]]][1]
        return rows["valid"][row] != VALID, mode != "baseline"

    top = min(map(rank, results))
    newest: dict[tuple[int, int], int] = {}
    for row in results:
        if rank(row) == top:
            run = rows["run"][row]
            newest.setdefault((runs["engine"][run], runs["api"][run]), row)
    return max(newest.values(), key=_by_rate(rows))


def _reckoned(fit: Data, machine: int, use: int, of: int, seen: int | None) -> Line:
    asked, models = fit["machines"][machine], fit["models"]
    room, size = asked["bytes"], models["bytes"][of]
    on_gpu = asked["kind"] in ("size", "card")
    needs = None
    if size is not None:
        needs = size + (models["cache"][use][of] or 0) + fit["overhead"]["gpu" if on_gpu else "cpu"]
    has_room = room is not None and seen is not None and seen <= room
    memory = {"memory": seen if has_room else needs, "seen": has_room}
    if room is None or (needs is None and not has_room):
        return _line(of, "unknown", **memory)
    if not has_room and needs is not None and needs > room:
        return _line(of, "no", missing=needs - room, **memory)
    rate, low, high, basis = _expected(fit, machine, of, on_gpu)
    how = "fits" if rate is None else "expected"
    return _line(of, how, rate=rate, low=low, high=high, basis=basis, **memory)


def _expected(
    fit: Data, machine: int, of: int, on_gpu: bool
) -> tuple[float | None, float | None, float | None, str | None]:
    """Rate, interval, and what it is made of, the best evidence alone."""
    if (own := fit["here"][machine].get(of)) is not None:
        return *own, "here"
    widths, step = fit["machines"][machine]["widths"], fit["models"]["step"][of]
    like = fit["like"][machine]
    shares = {
        "elsewhere": fit["shares"]["gpu" if on_gpu else "cpu"][0][of],
        "like": like[of] if of < len(like) else None,
    }
    for basis, share in shares.items():
        if widths and step and share and (within := fit["within"][basis]):
            low, middle, high = (share * width / step for width in widths)
            return middle, low / within, high * within, basis
    return None, None, None, None


def _line(of: int, how: str, **facts: Any) -> Line:
    empty = dict.fromkeys(("row", "rate", "low", "high", "basis", "memory", "missing", "others"))
    return {"of": of, "how": how, "seen": False, **empty, **facts}
