"""The parts of pages by themselves: texts, numbers, code, charts, drawing."""

import ast
import json
import math
import shlex
import unicodedata
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.pages import charts
from server.pages.code import Asking, code_for, literal
from server.pages.drawing import Drawing, cleaned
from server.pages.form import entities_from, fields_of, references_of
from server.pages.profile_lines import figures, line_of
from server.pages.shown import DASH, duration, instant, link, number, sentence, share, visible
from server.pages.site import environment
from store.errors import BadBody, TooLarge, WrongType
from store.kernel.definitions import Column
from store.kernel.histograms import Histogram
from store.kernel.profiles import Categories, ColumnProfile, Kind, Numbers
from tests.server.pages.shop import HOSTILE, column, numbers, texts

ANY_TEXT = st.text(st.characters(), max_size=30) | st.sampled_from(HOSTILE)

# --- texts and numbers ------------------------------------------------------------------------


@given(ANY_TEXT)
def test_what_is_shown_has_no_invisible_characters(text: str) -> None:
    seen = visible(text)
    assert all(unicodedata.category(each) not in {"Cc", "Cf", "Cs"} for each in seen if each not in "\n\t\u200d")
    seen.encode()


@pytest.mark.parametrize(("length", "seen"), [(5, 5), (6, 5)])
def test_a_text_is_cut_at_its_bound(length: int, seen: int) -> None:
    assert len(visible("x" * length, 5)) == seen
    assert visible("x" * length, 5).endswith("…") == (length > 5)


@given(ANY_TEXT)
def test_templates_escape_everything(text: str) -> None:
    rendered = environment().from_string('<p title="{{ t }}">{{ t }}</p>').render(t=text)
    tree = ET.fromstring(rendered.encode("utf-8"))
    assert len(list(tree)) == 0
    assert set(tree.attrib) == {"title"}


@pytest.mark.parametrize(
    ("us", "told"),
    [
        (0, "0 s"), (250_000, "0.25 s"), (59_000_000, "59 s"), (60_000_000, "1 min"), (3_600_000_000, "1 h"),
        (3_661_000_000, "1 h 1 min"), (86_400_000_000, "1 d"), (90_000_000_000, "1 d 1 h"), (-60_000_000, "-1 min"),
        (86_460_000_000, "1 d"),
    ],
)  # fmt: skip
def test_durations_are_told_in_two_units(us: int, told: str) -> None:
    assert duration(us) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, DASH), (0, "0"), (1234567, "1,234,567"), (1.5, "1.5"), (2.0, "2"), (1 / 3, "0.33333"), (1e-9, "1e-09"),
        (1e300, "1e+300"), (float("nan"), "NaN"), (float("-inf"), "-infinity"), (123456.7, "123,457"),
        (2**63, f"{2**63:,}"),
    ],
)  # fmt: skip
def test_numbers_are_told_shortly(value: float | None, told: str) -> None:
    assert number(value) == told


@pytest.mark.parametrize(
    ("part", "whole", "told"),
    [
        (0, 0, DASH),
        (0, 5, "0 %"),
        (5, 5, "100 %"),
        (1, 10**6, "< 0.1 %"),
        (10**6 - 1, 10**6, "> 99.9 %"),
        (1, 3, "33.3 %"),
    ],
)
def test_shares_say_neither_none_nor_all_of_what_is_not(part: int, whole: int, told: str) -> None:
    assert share(part, whole) == told


def test_instants_of_any_age_have_a_text() -> None:
    assert instant(datetime(2013, 12, 5, 23, 59, tzinfo=UTC)).striptags() == "2013-12-05 23:59 UTC"
    assert instant(1).striptags() == "1970-01-01 00:00 UTC"
    assert "µs since 1970" in instant(2**62)
    assert instant(None) == DASH
    assert sentence("as it was") == "As it was."


@given(ANY_TEXT, ANY_TEXT)
def test_links_hold_any_name(view: str, name: str) -> None:
    from urllib.parse import parse_qs, urlsplit

    parts = urlsplit(link("feature", name, view))
    assert parts.path == "/feature"
    query = parse_qs(parts.query, errors="surrogatepass")
    assert query.get("name", [""])[0] == name
    assert query.get("view", [""])[0] == view


# --- code -------------------------------------------------------------------------------------

PRINTABLE = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(HOSTILE)


@given(PRINTABLE)
def test_literals_are_the_text_and_show_all_of_it(text: str) -> None:
    written = literal(text)
    assert ast.literal_eval(written) == text
    assert written.isascii() or all(unicodedata.category(each) not in {"Cc", "Cf"} for each in written)


@given(PRINTABLE, PRINTABLE)
@settings(max_examples=50)
def test_code_holds_any_name(view: str, name: str) -> None:
    given_columns = {name: Column(name, "STRING"), f"{name}2": Column(f"{name}2", "INT64")}
    asking = Asking([f"{view}:{name}"], "", given_columns, "repo", "http://127.0.0.1:1", 0, has_tokens=True)
    train, curl, over_http, by_sdk = code_for(asking)
    for code in (train, over_http, by_sdk):
        constants = {each.value for each in ast.walk(ast.parse(code.text)) if isinstance(each, ast.Constant)}
        assert {f"{view}:{name}", name, f"{name}2"} <= constants
    words = shlex.split(curl.text.replace("\\\n", ""))
    assert json.loads(words[-1])["features"] == [f"{view}:{name}"]
    assert "Authorization: Bearer $LARDER_TOKEN" in words
    assert not any(unicodedata.category(each) in {"Cc", "Cf"} for each in curl.text.replace("\n", ""))


# --- the form ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "typed", "value"),
    [
        ("INT64", " 5 ", 5), ("INT64", "", None), ("DOUBLE", "1e3", 1000.0), ("BOOL", "true", True), ("BOOL", "", None),
        ("STRING", "", ""), ("STRING", " x ", " x "), ("INT64_LIST", "[1, 2]", [1, 2]),
        ("UNIX_TIMESTAMP", "2013-01-01", "2013-01-01"),
    ],
)  # fmt: skip
def test_what_is_typed_becomes_a_value_of_its_type(kind: str, typed: str, value: object) -> None:
    assert entities_from({"a": Column("a", kind)}, {"key.a": typed, "service": "s"}) == {"a": [value]}


@pytest.mark.parametrize(("kind", "typed"), [("INT64", "1.5"), ("BOOL", "yes"), ("DOUBLE", "x"), ("INT64_LIST", "[1")])
def test_what_says_no_value_is_refused(kind: str, typed: str) -> None:
    with pytest.raises(WrongType, match=kind):
        entities_from({"a": Column("a", kind)}, {"key.a": typed})


def test_forms_that_are_not_ours_are_refused() -> None:
    assert fields_of(b"") == {}
    assert fields_of(b"a=%E2%82%AC&b=") == {"a": "€", "b": ""}
    for body in (b"a=1&a=2", b"a", b"\xff=1", b"a=%ff"):
        with pytest.raises(BadBody):
            fields_of(body)
    with pytest.raises(TooLarge):
        references_of("v:f\n" * 100_000)


# --- charts -----------------------------------------------------------------------------------

FLOATS = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=60)
INTEGERS = st.lists(st.integers(-(2**40), 2**40).map(float), max_size=60)


def middle_of_bucket(value: float) -> float:
    """The naive twin of what a histogram knows of a value: the middle of one of 64 buckets of its octave."""
    if value == 0:
        return 0.0
    mantissa, exponent = math.frexp(abs(value))
    return math.copysign(math.ldexp((math.floor(mantissa * 128) + 0.5) / 128, exponent), value)


@given(st.one_of(st.tuples(FLOATS, FLOATS | st.none()), st.tuples(INTEGERS, INTEGERS | st.none())))
def test_bars_hold_each_value_once_and_both_sides_share_them(both: tuple[list[float], list[float] | None]) -> None:
    ours, theirs = both
    bars = charts.bars_of(numbers(ours), None if theirs is None else numbers(theirs))
    is_integral = all(value == int(value) for value in [*ours, *(theirs or [])])
    for values, shown in ((ours, bars.current), (theirs or [], bars.reference)):
        assert not shown or values
        assert all(before.low < before.high <= after.low for before, after in pairwise(shown))
        # Where all are integers, so is the value that stands for a bucket.
        known = [float(math.trunc(v)) if is_integral else v for v in map(middle_of_bucket, values)]
        places = [[place for place, bar in enumerate(shown) if bar.low <= value < bar.high] for value in known]
        assert all(len(each) <= 1 for each in places)
        counts = Counter(each[0] for each in places if each)
        for place, bar in enumerate(shown):
            assert bar.share == pytest.approx(counts[place] / len(values))
        if shown:
            assert 1 - sum(counts.values()) / len(values) <= bars.left_out + 1e-9
    if bars.current and bars.reference:
        assert [(bar.low, bar.high) for bar in bars.current] == [(bar.low, bar.high) for bar in bars.reference]
        assert len(bars.current) <= 49


def test_small_integers_have_a_bar_each() -> None:
    bars = charts.bars_of(numbers([0.0, 0.0, 1.0, 3.0]), None).current
    assert [((bar.low + bar.high) / 2, bar.share) for bar in bars if bar.share] == [(0, 0.5), (1, 0.25), (3, 0.25)]


def test_a_tail_that_would_hide_the_rest_is_left_out_and_told() -> None:
    bars = charts.bars_of(numbers([float(each % 100) for each in range(10_000)] + [1e9]), None)
    assert bars.current[-1].high < 1_000
    assert bars.left_out == pytest.approx(1 / 10_001)


@pytest.mark.parametrize("values", [[], [5.0], [0.0], [-1e308, 1e308], [5e-324], [1e-300, 2e-300], [-0.0, 0.0]])
def test_any_numbers_make_a_chart_or_none(values: list[float]) -> None:
    bars = charts.bars_of(numbers(values), numbers(values[:1]))
    spec = charts.histogram(bars)
    json.dumps(spec, allow_nan=False)


DRAWING = Drawing(kept_max=2)


def test_a_drawn_chart_holds_shapes_and_texts_only() -> None:
    shares = [charts.CategoryShare(name, 0.5, 0.25) for name in HOSTILE]
    svg = DRAWING.chart(charts.bars_of_categories(shares), f'what{HOSTILE[1]}"')
    tree = ET.fromstring(svg)
    names = {each.tag.partition("}")[2] for each in tree.iter()}
    assert names <= {"svg", "g", "path", "text", "rect", "line"}
    attributes = {name for each in tree.iter() for name in each.attrib}
    assert not {name for name in attributes if name.startswith("on") or name in {"style", "href", "id"}}
    assert tree.attrib["role"] == "img"
    seen = [each.text for each in tree.iter() if each.text]
    assert any(each.startswith("<script>") for each in seen)
    assert not any("\u202e" in each for each in seen)


def test_what_a_drawing_should_not_hold_is_taken_out() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" onload="x()" width="5"><script>x()</script><style>a{}</style>'
        '<a href="javascript:x()"><text>in a link</text></a><image href="//x"/><g style="x" id="a">'
        '<rect fill="url(//evil)" width="3"/><text onclick="x()">kept</text></g><foreignObject/></svg>'
    )
    kept = str(cleaned(svg, "label"))
    for word in ("script", "style", "href", "on", "url", "image", "id=", "foreign", "in a link"):
        assert word not in kept.replace("xmlns", "").replace("label", ""), word
    assert "kept" in kept
    assert 'width="3"' in kept


def test_charts_are_kept_by_what_they_show_up_to_a_bound() -> None:
    drawing = Drawing(kept_max=2)
    specs = [charts.histogram(charts.bars_of(numbers([1.0, float(each)]), None)) for each in (2, 3, 4)]
    first = [drawing.chart(spec, "x") for spec in specs]
    assert drawing.chart(specs[2], "x") is first[2]
    assert drawing.chart(specs[0], "x") is not first[0]
    assert drawing.chart(specs[0], "x") == first[0]


def test_drift_and_freshness_are_drawn() -> None:
    points = [charts.Measured(1_700_000_000_000 + each * 86_400_000, each / 10, each > 2) for each in range(5)]
    assert "<path" in DRAWING.chart(charts.drift_over_time(points, 0.25, "PSI"), "drift")
    ages = [(HOSTILE[0], {"offline": 0.0, "online": 5e9, "ttl": 60.0}), (HOSTILE[0], {"online": -5.0})]
    assert "script" in DRAWING.chart(charts.freshness(ages), "fresh")


# --- lines of profiles ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        column("a", [1.0, 2.0, 2.5]),
        ColumnProfile("a", "Float64", Kind.NUMBER, 3, 3, numbers=Numbers(Histogram.empty())),
        ColumnProfile("a", "Float64", Kind.NUMBER, numbers=Numbers(Histogram.empty(), nans=2, positive_infinities=1)),
        texts("a", {}),
        texts("a", dict.fromkeys(HOSTILE, 2)),
        ColumnProfile("a", "String", Kind.CATEGORY, 9, categories=Categories(None, np.ones(1024, np.int64), {"x": 3})),
        ColumnProfile("a", "Bytes", Kind.OPAQUE, 9, 0, skipped="it is opaque"),
        ColumnProfile("a", "Array(Int64)", Kind.LIST, 9, 0, lengths=numbers([1.0, 2.0])),
    ],
)  # fmt: skip
def test_any_column_has_a_line_and_figures(column: ColumnProfile) -> None:
    line = line_of(column)
    if line["spark"]:
        ET.fromstring(line["spark"])
    for _, current, reference in figures(column, column):
        assert current == reference
    nothing = ColumnProfile("a", "x", Kind.OPAQUE)
    assert all(row[2] == DASH for row in figures(column, nothing) if row[0] not in {"Rows", "Missing"})
