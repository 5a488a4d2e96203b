"""Charts: which figures are drawn, what is said of them, and that nothing in them can do harm."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.unit.records import record_of
from tests.unit.samples import sample
from tokrig.record.block import Summary
from tokrig.record.model import Record, Result, Validity, WorkloadFacts
from tokrig.record.samples import Sample
from tokrig.site import charts
from tokrig.site.charts import (
    CHARACTER,
    DARK,
    FONT_SIZE,
    LIGHT,
    Figure,
    Palette,
    Scale,
    apart,
    log_ticks,
    plain,
    png,
    short,
    svg,
    svg_file,
    ticks,
    x_axis,
    y_axis,
)
from tokrig.site.charts.points import label_runs
from tokrig.site.charts.runs import (
    MAX_ROWS,
    WIDTH,
    by_workload,
    concurrency_drop,
    models_on_rig,
    of_record,
    quant_sweep,
    same_silicon,
)
from tokrig.site.charts.samples import inter_chunk_times, ttft_of_requests
from tokrig.store.load import Run

Draw = Callable[[Sequence[Run]], Figure | None]
decode_by_workload: Draw = partial(by_workload, slug="decode")
ttft_by_workload: Draw = partial(by_workload, slug="ttft")
BY_WORKLOAD: list[Draw] = [
    decode_by_workload,
    partial(by_workload, slug="end-to-end"),
    ttft_by_workload,
    partial(by_workload, slug="prefill"),
]
HOSTILE = {
    "tags": "</text></svg><script>alert(1)</script>",
    "quotes": '"\'`{{ x }} onload="alert(1)" fill="#2477cc"',
    "directions": "\u202eLLM\u2066 \u200fبت\u200e",
    "controls": "a\x00b\x0b\x1b[31m\ud800\ufffe\tc\nd",
    "expression": "datum['x'] + \\'); alert(1); (\\'",
    "long": "W" * 10_000,
    "empty": "",
}


def result(
    workload: str = "chat", concurrency: int = 1, speed: float = 100.0, **changes: Any
) -> Result:
    known = Summary(median=speed, min=speed * 0.9, max=speed * 1.1, n=3)
    made = Result(
        workload=WorkloadFacts(name=workload),
        concurrency=concurrency,
        validity=Validity(verdict="valid"),
        output_tok_per_s=known,
        system_tok_per_s=known,
        end_to_end_tok_per_s=known,
        prefill_tok_per_s=known,
        ttft_s=Summary(median=0.2, min=0.1, max=0.4, n=3),
    )
    return made.model_copy(update=changes)


def run(number: int = 0, results: Sequence[Result] = (), **blocks: dict[str, Any]) -> Run:
    """A run whose blocks are changed field by field: ``model={"quant": "Q8_0"}``."""
    record = record_of([sample()], f"run-{number}")
    changed = {
        name: getattr(record, name).model_copy(update=fields) for name, fields in blocks.items()
    }
    update = {"results": list(results) or [result()], **changed}
    return Run(record.model_copy(update=update), path=f"test-rig/run-{number}.yaml", digest="")


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def labels_of(figure: Figure, x: int = -6) -> list[str]:
    """The texts left of a drawing, from top to bottom."""
    root = ElementTree.fromstring(svg(figure))
    return ["".join(e.itertext()) for e in root.iter() if e.get("x") == str(x)]


def drawn_at(figure: Figure, text: str) -> float:
    """How far to the right a text stands in its panel."""
    root = ElementTree.fromstring(svg(figure))
    (place,) = (e.get("x") for e in root.iter() if e.text == text and e.get("x"))
    return float(place or "")


def texts(drawing: str) -> list[str]:
    """All texts of an SVG, with those of its title and description."""
    return ["".join(e.itertext()) for e in ElementTree.fromstring(drawing).iter() if e.text]


def requests(number: int = 3, **changes: Any) -> list[Sample]:
    return [replace(sample(**changes), iteration=i, sent_ns=i) for i in range(number)]


# By workload


@pytest.mark.parametrize("draw", BY_WORKLOAD)
def test_nothing_to_draw_is_no_figure(draw: Draw) -> None:
    bare = result(
        output_tok_per_s=None, end_to_end_tok_per_s=None, ttft_s=None, prefill_tok_per_s=None
    )
    invalid = result(validity=Validity(verdict="invalid", reasons=["throttled"]))
    assert draw([]) is None
    assert draw([run(results=[bare])]) is None
    assert draw([run(results=[invalid])]) is None


def test_one_run_has_a_row_a_workload_with_its_value_and_range() -> None:
    shapes = [result("chat", speed=35.02), result("rag", speed=30.78)]
    figure = drawn(decode_by_workload([run(results=shapes)]))
    assert labels_of(figure) == ["chat", "rag"]
    assert "chat 35.0 tok/s (range 31.5–38.5), rag 30.8 tok/s" in figure.text
    assert figure.rows[0][1:] == ("chat", "1", "35.0", "31.5", "38.5", "range", "3")
    assert {"35.0", "30.8", "chat", "decode speed, tok/s"} <= {
        part for text in texts(svg(figure)) for part in (text, text.partition("dot:")[0])
    }


def test_invalid_results_and_higher_concurrencies_are_left_out() -> None:
    throttled = Validity(verdict="invalid", reasons=["throttled"])
    results = [result("chat"), result("rag", validity=throttled), result("agent", 4)]
    figure = drawn(decode_by_workload([run(results=results)]))
    assert [row[1] for row in figure.rows] == ["chat"]
    assert "concurrency 1" in figure.title


def test_interval_range_and_bare_median_are_drawn_and_named_apart() -> None:
    sure = Summary(median=100, min=80, max=120, n=60, ci95=(98, 103))
    runs = [
        run(0, [result(output_tok_per_s=sure)], model={"quant": "A"}),
        run(1, [result(speed=90)], model={"quant": "B"}),
        run(2, [result(output_tok_per_s=Summary(median=80))], model={"quant": "C"}),
    ]
    figure = drawn(decode_by_workload(runs))
    assert labels_of(figure) == ["A", "B", "C"]
    assert [row[4:7] for row in figure.rows] == [
        ("98.0", "103.0", "95 % interval"),
        ("81.0", "99.0", "range"),
        ("–", "–", "not known"),
    ]
    # A value stands beside the end of what its result may be.
    assert drawn_at(figure, "100.0") - drawn_at(figure, "90.0") == pytest.approx(4 * 4.49, abs=0.1)
    drawing = svg(figure)
    assert drawing.count('stroke-width="5"') == 1
    told = " ".join(texts(drawing))
    assert "thick line: 95 % interval" in told
    assert "thin line: lowest to highest" in told
    bare = drawn(decode_by_workload(runs[2:]))
    assert not re.search("thick line|thin line", " ".join(texts(svg(bare))))


@pytest.mark.parametrize(
    ("draw", "order"),
    [(decode_by_workload, ["fast", "slow"]), (ttft_by_workload, ["slow", "fast"])],
)
def test_the_best_run_comes_first(draw: Draw, order: list[str]) -> None:
    early, late = Summary(median=0.1), Summary(median=3.0)
    runs = [
        run(0, [result(speed=10, ttft_s=early)], model={"variant": "slow"}),
        run(1, [result(speed=90, ttft_s=late)], model={"variant": "fast"}),
    ]
    assert [label.split()[-1] for label in labels_of(drawn(draw(runs)))] == order


def test_long_lists_are_capped_and_the_table_has_what_is_drawn() -> None:
    runs = [run(i, [result(speed=100 - i)], model={"variant": f"v{i}"}) for i in range(40)]
    figure = drawn(decode_by_workload(runs))
    assert len(labels_of(figure)) == MAX_ROWS
    assert f"the first {MAX_ROWS} of 40 runs" in figure.text
    assert len(figure.rows) == MAX_ROWS


def test_speeds_start_at_zero_and_the_values_have_room() -> None:
    figure = drawn(models_on_rig([run(0, [result(speed=50)])]))
    assert drawn_at(figure, "0") == 0
    root = ElementTree.fromstring(svg(figure))
    (bar,) = (e for e in root.iter() if e.tag.endswith("rect"))
    place = drawn_at(figure, "50.0")
    assert float(bar.get("width", 0)) < place < WIDTH - 40
    assert float(bar.get("width", 0)) == pytest.approx(drawn_at(figure, "40") * 50 / 40, abs=0.1)


def test_a_wait_of_nothing_is_left_out_of_a_logarithmic_axis() -> None:
    nothing = run(0, [result(ttft_s=Summary(median=0.0, min=0.0, max=0.0, n=3))])
    assert ttft_by_workload([nothing]) is None
    some = run(1, [result(ttft_s=Summary(median=0.5, min=0.0, max=0.9, n=3))])
    assert svg(drawn(ttft_by_workload([nothing, some])))


def test_a_speed_of_zero_and_a_ttft_range_of_decades_can_be_drawn() -> None:
    still = result(speed=0.0, ttft_s=Summary(median=1.0, min=0.0001, max=9000.0, n=9))
    for draw in (decode_by_workload, ttft_by_workload):
        assert svg(drawn(draw([run(results=[still])])))


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0.2, 21, 17, [0.2, 0.5, 1, 2, 5, 10, 20]),
        (0.1, 100, 4, [0.1, 1, 10, 100]),
        (0.001, 1000, 4, [0.001, 0.01, 0.1, 1, 10, 100, 1000]),
    ],
)
def test_logarithmic_axes_have_round_ticks(
    low: float, high: float, most: int, expected: list[float]
) -> None:
    found = [value for value, _ in log_ticks(low, high, most)]
    assert len(found) <= most
    assert set(found) <= set(expected)
    assert len(found) >= min(most, len(expected)) / 2


_LABEL = re.compile(r'<text x="([-\d.]+)" y="([-\d.]+)">([^<]*)</text>')


def labels_on(axis: str) -> list[tuple[float, float, str]]:
    """The labels that an axis draws: where, and what they say."""
    return [(float(x), float(y), said) for x, y, said in _LABEL.findall(axis)]


@pytest.mark.parametrize("seed", range(40))
def test_no_two_labels_of_an_axis_touch_and_thousands_are_told_apart(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(25):
        low = 10 ** chance.uniform(-6, 6)
        high = low * 10 ** chance.uniform(0.02, 8)
        length = chance.uniform(90, 520)
        most = chance.randint(2, 20)
        logarithmic = Scale(low, high, length, logarithmic=True)
        for scale, values in (
            (logarithmic, log_ticks(low, high, most)),
            (Scale(0.0, high, length), ticks(0.0, high, most)),
        ):
            across = labels_on(x_axis(scale, values, 100))
            assert across
            for (a, _, one), (b, _, other) in pairwise(across):
                assert b - a >= CHARACTER * (len(one) + len(other)) / 2, (one, other)
            upright = labels_on(y_axis(scale, values, 100))
            for (_, a, one), (_, b, other) in pairwise(upright):
                assert abs(b - a) >= FONT_SIZE, (one, other)
            for _, _, said in across:
                digits = said.partition(".")[0].replace(",", "").lstrip("-")
                assert f"{int(digits):,}" == said.partition(".")[0] or "e" in said


def test_labels_that_have_room_are_all_there() -> None:
    assert apart([(0, 10), (100, 10), (200, 10)]) == [True, True, True]
    assert apart([(0, 90), (40, 90), (80, 90), (120, 90)]) == [True, False, False, False]


# Other subjects


def test_models_on_a_rig_are_bars_of_one_workload() -> None:
    runs = [
        run(0, [result("chat", speed=10), result("rag", speed=999)], model={"variant": "small"}),
        run(1, [result("chat", speed=30)], model={"variant": "large"}),
    ]
    figure = drawn(models_on_rig(runs, "chat"))
    assert [row[3] for row in figure.rows] == ["30.0", "10.0"]
    assert svg(figure).count("<rect") == 2
    assert models_on_rig(runs, "codegen") is None


def test_the_drop_needs_two_concurrencies_and_tells_both_ends() -> None:
    steps = [result("agent", n, speed) for n, speed in ((1, 32.5), (4, 8.39))]
    figure = drawn(concurrency_drop([run(results=[*steps, result("chat")])]))
    assert "32.5 tok/s (range 29.3–35.8) at 1 in flight, 8.39 tok/s" in figure.text
    assert {row[1] for row in figure.rows} == {"each request", "all together"}
    assert {row[2] for row in figure.rows} == {"agent"}
    assert concurrency_drop([run(results=steps[:1])]) is None


def test_lines_differ_in_shape_and_colour() -> None:
    steps = [result(w, n, 9 / n) for w in ("chat", "rag") for n in (1, 4)]
    drawing = svg(drawn(concurrency_drop([run(results=steps)])))
    marks = re.findall(r'd="(M[^"]+)" transform="[^"]+" fill="([^"]+)"', drawing)
    assert set(marks) == {(charts.SHAPES[i], f"var(--chart-{i + 1})") for i in range(2)}
    # Two of each in two panels, and one in the legend.
    assert {marks.count(mark) for mark in marks} == {5}


def test_quants_are_in_the_order_of_their_bits() -> None:
    bits = {"Q8_0": 8.5, "Q2_K": 3.2, "Q4_K_M": 4.85, "odd": None}
    runs = [
        run(i, [result(speed=10 + i)], model={"quant": q, "bits_per_weight": b})
        for i, (q, b) in enumerate(bits.items())
    ]
    figure = drawn(quant_sweep(runs))
    assert [row[1] for row in figure.rows] == ["3.20", "4.85", "8.50", "–"]
    said = texts(svg(figure))
    quants = ["Q2_K", "Q4_K_M", "Q8_0", "odd"]
    assert [text for text in said if text in quants] == quants
    assert quant_sweep(runs[:1]) is None
    elsewhere = run(9, model={"quant": "Q5_K"}, rig={"id": "other"})
    assert quant_sweep([runs[0], elsewhere]) is None


def test_backends_are_compared_on_one_machine_only() -> None:
    def with_api(number: int, api: str, rig: str = "one") -> Run:
        return run(number, backend={"api": api}, rig={"id": rig})

    figure = drawn(same_silicon([with_api(0, "cuda"), with_api(1, "vulkan")]))
    assert set(labels_of(figure)) == {"llama.cpp (cuda)", "llama.cpp (vulkan)"}
    assert same_silicon([with_api(0, "cuda"), with_api(1, "vulkan", "two")]) is None
    assert same_silicon([with_api(0, "cuda"), with_api(1, "cuda")]) is None


# Samples


def test_stalls_are_counted_and_not_drawn() -> None:
    smooth = sample(tokens=1001, gap_s=0.01, concurrency=4)
    last = smooth.chunks[-1]
    stalled = replace(smooth, chunks=(*smooth.chunks, replace(last, t_ns=last.t_ns + 10**10)))
    figure = drawn(inter_chunk_times([stalled]))
    assert "10" in texts(svg(figure))
    assert "20" not in texts(svg(figure))
    assert "the longest 10.00 s" in figure.text
    assert "1 beyond p99" in " ".join(texts(svg(figure)))
    assert figure.rows[0] == ("chat × 4", "1,001", "10", "10", "10", "10", "10000")


def test_percentiles_need_enough_gaps() -> None:
    figure = drawn(inter_chunk_times(requests(1)))
    assert figure.rows[0][2:6] == ("10", "–", "–", "–")


def test_every_request_is_a_point_and_warm_ups_stand_apart() -> None:
    failed = replace(sample(), iteration=9, error="http_500", chunks=())
    warm_up = replace(sample(ttft_s=2.0), phase="warmup")
    figure = drawn(ttft_of_requests([*requests(3, ttft_s=0.5), failed, warm_up]))
    assert [row[1:] for row in figure.rows] == [
        ("1", "warm-up", "2"),
        ("2", "measured", "0.5"),
        ("3", "measured", "0.5"),
        ("4", "measured", "0.5"),
    ]
    assert "median 500 ms, 500 ms to 500 ms over 3 requests" in figure.text


@pytest.mark.parametrize("draw", [inter_chunk_times, ttft_of_requests])
def test_samples_without_chunks_draw_nothing(draw: Callable[[Sequence[Sample]], Any]) -> None:
    assert draw([]) is None
    assert draw([replace(sample(), chunks=())]) is None
    assert draw([replace(sample(), error="timeout")]) is None


def test_chunks_read_at_once_have_no_gap_to_draw() -> None:
    assert inter_chunk_times([sample(gap_s=0)]) is None


# Labels


def labels(*models: dict[str, Any]) -> list[str]:
    return [label.short for label in label_runs([run(i, model=m) for i, m in enumerate(models)])]


def test_labels_say_what_differs() -> None:
    assert labels({"quant": "Q4"}, {"quant": "Q8"}) == ["Q4", "Q8"]
    assert labels({"quant": "Q4"}) == ["Tiny · Q4"]


def test_labels_are_unique_even_where_cut_or_equal() -> None:
    long = "x" * 300
    assert len(set(labels({"quant": long + "a"}, {"quant": long + "b"}))) == 2
    assert len(set(labels({}, {}, {}))) == 3


def test_full_labels_are_not_cut() -> None:
    long = "x" * 10_000
    (label, _) = label_runs([run(0, model={"quant": long}), run(1)])
    assert len(label.short) < 60
    assert long in label.full


def test_plain_text_is_one_line_that_xml_can_hold() -> None:
    assert plain("a\tb\nc\x00\u202ed\ud800") == "a b cd"
    assert short("abcdef", 4) == "ab…f"
    both = [short(f"DeepSeek-R1-Distill-Qwen-{size}-Instruct", 28) for size in ("7B", "14B")]
    assert len(set(both)) == 2


# Drawing


def every_figure(text: str) -> list[Figure]:
    """Each chart there is, with ``text`` wherever a record lets a stranger write."""
    model: dict[str, Any] = {"family": f"f{text}", "variant": text, "quant_creator": text}
    shared: dict[str, Any] = {
        "rig": {"id": text or "rig", "cpu": {"model": text}},
        "mode": {"name": text or "baseline"},
    }

    def one(number: int, quant: str, api: str) -> Run:
        record = run(number).record.model_dump(by_alias=True)
        record["model"] |= {**model, "quant": quant}
        record["rig"] |= shared["rig"]
        record["mode"] |= shared["mode"]
        record["backend"] |= {"engine": text, "api": api}
        results = [result(w, n) for w in (text, "rag") for n in (1, 4)]
        valid = Record.model_validate(record).model_copy(update={"results": results})
        return Run(valid, "", "")

    runs = [one(0, f"a{text}", "x"), one(1, f"a{text}", f"y{text}"), one(2, f"b{text}", "x")]
    mine = [*requests(3, workload=text), *requests(2, workload="rag")]
    charts = [
        *(draw(runs) for draw in (*BY_WORKLOAD, concurrency_drop, quant_sweep, same_silicon)),
        models_on_rig(runs, text),
        *of_record(runs[0], mine).values(),
    ]
    return [drawn(chart) for chart in charts]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_names_can_neither_break_nor_inject(text: str) -> None:
    for figure in every_figure(text):
        drawing = svg(figure)
        root = ElementTree.fromstring(drawing)
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert tags <= {"svg", "title", "desc", "g", "path", "line", "rect", "text", "tspan"}
        attributes = {name for element in root.iter() for name in element.attrib}
        assert not any(name.startswith("on") or "href" in name for name in attributes)
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f]", drawing)
        assert max(map(len, texts(drawing)[2:])) < 160
        assert png(figure, subject=text, scale=1).startswith(b"\x89PNG")


def test_a_drawing_is_small() -> None:
    """No long numbers, no empty groups, and nothing said of each mark that all of them share."""
    runs = [run(i, model={"quant": f"Q{i}"}) for i in range(9)]
    drawing = svg(drawn(decode_by_workload(runs)))
    assert not re.search(r"\d\.\d{3}", drawing)
    assert not re.search(r"<g ?/>|<g></g>|<g>", drawing)
    assert drawing.count("font-size") < 9
    assert drawing.count("A3.74") == 2 * len(runs)


def a_figure() -> Figure:
    steps = [result(w, n, 9 / n) for w in ("chat", "rag") for n in (1, 4)]
    return drawn(concurrency_drop([run(results=steps)]))


def test_an_inline_drawing_takes_its_colours_and_type_from_the_page() -> None:
    drawing = svg(a_figure())
    paints = set(re.findall(r'(?:fill|stroke)="([^"]+)"', drawing))
    assert paints <= {"none", *(f"var({name})" for name in LIGHT.variables())}
    assert {"var(--chart-1)", "var(--chart-2)", "var(--chart-ink)"} <= paints
    assert "font-family" not in drawing


def test_an_inline_drawing_is_named_described_and_scales() -> None:
    figure = a_figure()
    root = ElementTree.fromstring(svg(figure))
    title, description = root[0], root[1]
    assert (title.text, description.text) == (figure.title, figure.text)
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert root.get("viewBox")
    assert root.get("height") is None
    others = [e for e in root.iter() if e is not root]
    named = [e.attrib for e in others if {"role", "aria-label", "id"} & set(e.attrib)]
    assert named == [title.attrib, description.attrib]


def test_drawing_again_gives_the_same_bytes() -> None:
    assert svg(a_figure()) == svg(a_figure())
    assert png(a_figure()) == png(a_figure())


def test_a_file_has_title_subject_colours_and_paper() -> None:
    figure = a_figure()
    light, dark = svg_file(figure, subject="Tiny on a rig"), svg_file(figure, dark=True)
    assert {figure.title, "Tiny on a rig"} <= set(texts(light)[1:])
    assert LIGHT.paper in light
    assert DARK.paper in dark
    assert "var(" not in light + dark
    assert png(figure) != png(figure, dark=True)


def test_nothing_of_a_drawing_lies_elsewhere() -> None:
    """No clips, gradients or fonts by address: a drawing stands on its own, on any page."""
    for figure in every_figure("a"):
        assert "url(" not in svg(figure)


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (0, 80.6, 7, ["0", "10", "20", "30", "40", "50", "60", "70", "80"]),
        (0, 0.16, 3, ["0.00", "0.05", "0.10", "0.15"]),
        (0, 1030, 7, ["0", "200", "400", "600", "800", "1,000"]),
        (0, 0.003, 3, ["0.000", "0.001", "0.002", "0.003"]),
    ],
)
def test_axes_have_round_values(low: float, high: float, count: int, expected: list[str]) -> None:
    assert [text for _, text in charts.ticks(low, high, count)] == expected


def test_a_name_that_looks_like_a_colour_stays_a_name() -> None:
    name = 'fill="var(--chart-ink)"'
    assert name in texts(svg_file(drawn(decode_by_workload([run(results=[result(name)])]))))


# Colours: WCAG's contrast, and differences as people without one kind of cone see them
# (Machado, Oliveira and Fernandes 2009, severity 1).

DEFICIENCIES = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "deutan": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
    "tritan": ((1.256, -0.077, -0.179), (-0.078, 0.931, 0.148), (0.005, 0.691, 0.304)),
}
XYZ = ((0.4339, 0.3762, 0.1899), (0.2126, 0.7152, 0.0722), (0.0178, 0.1095, 0.8729))


def linear(colour: str) -> list[float]:
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]


def times(matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def lab(light: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (
        t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116
        for t in times(XYZ, [min(1, max(0, one)) for one in light])
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def contrast(one: str, other: str) -> float:
    low, high = sorted(times(XYZ, linear(colour))[1] for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_stand_out_from_the_paper(palette: Palette) -> None:
    assert min(contrast(colour, palette.paper) for colour in palette.series) >= 3
    assert min(contrast(colour, palette.paper) for colour in (palette.ink, palette.muted)) >= 4.5


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_differ_for_every_kind_of_eye(palette: Palette, deficiency: str) -> None:
    seen = [lab(times(DEFICIENCIES[deficiency], linear(colour))) for colour in palette.series]
    differences = [
        sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
        for one, other in itertools.combinations(seen, 2)
    ]
    assert min(differences) > 10


def test_the_charts_of_a_record_are_named_and_the_first_is_decode_speed() -> None:
    assert list(of_record(run(), requests())) == [
        "decode",
        "ttft",
        "prefill",
        "end-to-end",
        "chunks",
        "requests",
    ]
    empty = record_of([sample()]).model_copy(update={"results": []})
    assert of_record(Run(empty, "", ""), []) == {}
