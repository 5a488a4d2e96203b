"""What a run is called elsewhere: its figure with its verdict, whatever stands in its names."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.compared import cell, measured, with_value
from tokrig.errors import InputError
from tokrig.record.block import Summary
from tokrig.record.checks import judge_run
from tokrig.record.model import Raw, Record
from tokrig.site import fewer_colours, picture, sharing
from tokrig.site.pages import badges, short_addresses
from tokrig.store.facts import load_site, site_url
from tokrig.store.load import Run

HOSTILE = "a](javascript:x) <b>&amp;|`"
SCRIPTS = ["العربية", "漢字かな한국어", "עברית", "Привет", "\u202eevil"]
NAMES = st.text(max_size=300) | st.sampled_from([*SCRIPTS, HOSTILE, "W" * 10_000, "]](("])


def a_run(record: Record) -> Run:
    return Run(record, "rig/run.yaml", "digest")


def with_results(record: Record, *cells: object) -> Record:
    return with_value(record, "results", list(cells))


def test_chat_with_one_request_in_flight_stands_for_a_run() -> None:
    record = with_results(
        measured(), cell("rag", 1, 300.0), cell("chat", 4, 500.0), cell("chat", 1, 100.0)
    )
    found = sharing.headline(record)
    assert (found.value, found.what, found.verdict) == (100.0, "chat × 1", "valid")
    assert sharing.sentence(record).startswith("100.0 tok/s (")


def test_an_invalid_run_has_no_figure_anywhere() -> None:
    record = with_results(measured(), cell("chat", 1, 123.4, valid=False))
    record = with_value(record, "validity", judge_run(record.results, complete=True))
    told = [
        sharing.sentence(record),
        sharing.headline_line(record),
        *sharing.lines(record).values(),
        badges.said(a_run(record))[0],
    ]
    assert all("INVALID" in one and "123" not in one for one in told), told
    assert b">INVALID" not in badges.svg("valid", "valid")


def test_raw_figures_are_called_raw() -> None:
    rates = {"pp512": (512, 0, 2000.0), "tg128": (0, 128, 101.0)}
    raw = [
        Raw(test=name, prompt_tokens=p, output_tokens=o, tok_per_s=Summary(median=rate))
        for name, (p, o, rate) in rates.items()
    ]
    record = with_value(with_results(measured()), "raw", raw)
    found = sharing.headline(record)
    assert (found.value, found.what) == (101.0, "tg128, raw engine figure")
    told = sharing.of_many([a_run(record)], "Gemma-4", "pictures/x.png").text
    assert told == "Gemma-4: 1 run, no valid figure yet."
    served = a_run(with_results(measured(), cell("chat", speed=50.0)))
    told = sharing.of_many([a_run(record), served], "Gemma-4", "pictures/x.png").text
    assert "50.0 tok/s" in told and "101" not in told


@settings(max_examples=25, deadline=None)
@given(family=NAMES, quant=NAMES, build=NAMES)
def test_names_of_strangers_stay_texts(family: str, quant: str, build: str) -> None:
    record = measured()
    model = record.model.model_copy(update={"family": family, "variant": None, "quant": quant})
    record = with_value(record, "model", model)
    record = with_value(record, "backend", record.backend.model_copy(update={"build": build}))
    sentence = sharing.sentence(record)
    assert len(sentence) <= sharing.TEXT_LENGTH
    assert not re.search("[\u202a-\u202e\u2066-\u2069\n]", sentence)
    for line in (sharing.headline_line(record), *sharing.lines(record).values()):
        assert line.count("](") == 1  # the only link is ours
        assert not re.search("[<>\n|`]", line)
    drawn = badges.svg(*badges.said(a_run(record)))
    root = ElementTree.fromstring(drawn)
    assert [child.tag.rpartition("}")[2] for child in root] == ["title", "rect", "path"] + 2 * [
        "text"
    ]
    ElementTree.fromstring(picture.svg(picture.Picture(family, quant, "1", "tok/s", (build,))))


@pytest.mark.parametrize("name", ["العربية", "漢字かな한국어", "🙂", "\u202e"])
def test_a_name_that_cannot_be_written_is_never_drawn_as_boxes(name: str) -> None:
    shown = picture.drawable(name)
    assert re.fullmatch(r"[ -~…]*", shown)
    assert picture.drawable(f"Qwen {name}").startswith("Qwen")
    assert picture.drawable(name) == shown


def test_a_long_name_is_cut_inside_the_picture() -> None:
    drawn = picture.svg(picture.Picture("W" * 300, "x", "1.0", "tok/s", ()))
    title = max(re.findall(r">([^<]*…)<", drawn), key=len)
    assert picture.width(title, 62, bold=True) <= picture.WIDTH


# Pictures


def decoded(png: bytes) -> tuple[tuple[int, int], bytes, bytes]:
    """Size, palette and rows of a file with a palette and no filters."""
    chunks, place = {}, 8
    while place < len(png):
        length, name = struct.unpack_from(">I4s", png, place)
        data = png[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack_from(">I", png, place + 8 + length)
        assert checksum == zlib.crc32(name + data)
        chunks[name] = data
        place += 12 + length
    width, height, depth, kind, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, kind, rest) == (8, 3, [0, 0, 0])
    return (width, height), chunks[b"PLTE"], zlib.decompress(chunks[b"IDAT"])


def test_a_picture_has_few_colours_and_is_the_same_each_time() -> None:
    bars = tuple(picture.Bar(f"{one}", one, f"{one}", one == 2) for one in (3, 2, 1))
    drawn = picture.Picture("A model", "A card", "2.00", "tok/s", ("chat × 1",), "valid", bars)
    png = picture.png(drawn)
    assert png == picture.png(drawn)
    assert len(png) < 60_000
    size, palette, rows = decoded(png)
    assert size == (1200, 630)
    colours = {palette[3 * one : 3 * one + 3] for one in set(rows)}
    for name in (picture.ACCENT, picture.ACCENT_SOFT):
        wanted = bytes.fromhex(name[1:])
        assert any(
            all(abs(a - b) < 16 for a, b in zip(one, wanted, strict=True)) for one in colours
        )


def rgba(rows: list[bytes], filters: bytes) -> bytes:
    """A file of 8-bit RGBA rows as they are stored, as the standard has it."""
    header = struct.pack(">IIBBBBB", len(rows[0]) // 4, len(rows), 8, 6, 0, 0, 0)
    data = zlib.compress(b"".join(bytes([f]) + row for f, row in zip(filters, rows, strict=True)))
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return fewer_colours.SIGNATURE + b"".join(
        struct.pack(">I", len(one)) + name + one + struct.pack(">I", zlib.crc32(name + one))
        for name, one in chunks
    )


def test_filters_are_undone_as_the_standard_says() -> None:
    red, blue = b"\xff\x00\x00\xff", b"\x00\x00\xff\xff"
    same, to_blue = b"\0\0\0\0", b"\x01\x00\xff\x00"
    stored = [red + blue, red + to_blue, same + same]
    size, palette, rows = decoded(fewer_colours.with_palette(rgba(stored, b"\0\1\2")))
    assert size == (2, 3)
    pixels = [palette[3 * one : 3 * one + 3] for line in (1, 4, 7) for one in rows[line : line + 2]]
    assert pixels == 3 * [red[:3], blue[:3]]


@pytest.mark.parametrize("filters", [b"\3", b"\4"])
def test_what_cannot_be_read_stays_as_it_came(filters: bytes) -> None:
    strange = rgba([b"\1\2\3\xff"], filters)
    assert fewer_colours.with_palette(strange) == strange
    assert fewer_colours.with_palette(b"no picture") == b"no picture"


# Addresses


def test_short_addresses_never_change() -> None:
    # Given away: printf seed-lfm2-1.2b-q4_k_m | sha256sum | xxd -r -p | base32
    assert sharing.short_address("seed-lfm2-1.2b-q4_k_m") == "r/yr5z2v2z.html"
    assert len(short_addresses.addresses(f"run-{n}" for n in range(10_000))) == 10_000


def test_runs_with_one_short_address_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "SHORT_LENGTH", 1)
    with pytest.raises(InputError, match=r"run-\d+ and run-\d+ would have the same short address"):
        short_addresses.addresses(f"run-{n}" for n in range(33))


def test_a_run_that_moved_keeps_its_short_address() -> None:
    assert short_addresses.moved({"runs/old.html": "runs/new.html", "models/a.html": "b.html"}) == [
        "old"
    ]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://example.org", "https://example.org/"),
        ("http://example.org:8080/a/b/", "http://example.org:8080/a/b/"),
        ("https://[::1]/x", "https://[::1]/x/"),
    ],
)
def test_the_address_of_a_site_is_a_folder(given: str, kept: str) -> None:
    assert site_url(given) == kept


@pytest.mark.parametrize(
    "given",
    ["", "example.org", "//example.org/", "/bench/", "ftp://example.org/", "https://", "https:///x",
     "https://user@example.org/", "https://example.org/?a=1", "https://example.org/#a",
     "https://example.org/index.html", "https://example.org:99999/", "https://exa mple.org/",
     'https://example.org/"><script>', "https://example.org/(x)", "javascript:alert(1)",
     "https://" + "a" * 300],
)  # fmt: skip
def test_what_is_no_address_of_a_site_is_refused(given: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no address of a site"):
        site_url(given)
    (tmp_path / "site.yaml").write_text(f"# ours\nurl: {given!r}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"site\.yaml:2: "):
        load_site(tmp_path)


@pytest.mark.parametrize("build", ["b9174", "0.11.0", None])
def test_a_badge_says_what_the_record_says(build: str | None) -> None:
    older = with_results(measured(), cell("chat", speed=90.0), cell("rag", speed=95.0))
    record = with_results(measured(), cell("rag", speed=120.0), cell("chat", speed=103.4))
    record = with_value(record, "backend.build", build)
    text, verdict = badges.said(a_run(record))
    assert text == f"103.4 tok/s · valid · {build or 'llama.cpp'}"
    drawn = ElementTree.fromstring(badges.svg(text, verdict))
    assert drawn.attrib["aria-label"] == f"tokrig: {text}"
    # Runs come newest first: the badge of a model, and of a model on a machine, is of the newest.
    invalid = with_results(measured(), cell("chat", speed=999.0, valid=False))
    invalid = with_value(invalid, "validity", judge_run(invalid.results, complete=True))
    newest = sharing.newest([a_run(invalid), a_run(record), a_run(older)])
    assert newest is not None and newest.record is record
