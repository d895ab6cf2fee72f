"""A push is checked whole: one row that does not fit refuses all of them, and is named."""

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from store.errors import PushedRowsError, TooLarge, UnequalLengths
from store.limits import (
    PUSH_CHUNK_ROWS,
    PUSH_ROWS_MAX,
    PUSH_VALUE_BYTES_MAX,
    PUSH_VALUE_DEPTH_MAX,
    PUSH_VALUE_ELEMENTS_MAX,
)
from store.pushed import check_extents, checked_table

SCHEMA = pa.schema(
    [
        ("k", pa.int64()),
        ("at", pa.timestamp("us", "UTC")),
        ("plain_at", pa.timestamp("ms")),
        ("x", pa.float64()),
        ("n", pa.int32()),
        ("s", pa.string()),
        ("b", pa.bool_()),
        ("l", pa.list_(pa.int64())),
        ("raw", pa.binary()),
        ("ns_at", pa.timestamp("ns", "UTC")),
        ("x_list", pa.list_(pa.float64())),
        ("at_list", pa.list_(pa.timestamp("us", "UTC"))),
        ("deep", pa.list_(pa.list_(pa.int64()))),
        ("pair", pa.struct([("n", pa.int64()), ("raw", pa.binary())])),
        ("counts", pa.map_(pa.string(), pa.int64())),
    ]
)
GOOD: dict[str, list[Any]] = {"k": [1, 2], "at": ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00"]}


def check(columns: dict[str, list[Any]]) -> pa.Table:
    return checked_table("push source 'p'", columns, SCHEMA, required=["k", "at"], not_null=["k", "at"])


def test_rows_come_out_in_the_schema_of_the_source() -> None:
    columns = GOOD | {
        "x": [1, "NaN"],
        "n": [None, 5],
        "s": ["a", None],
        "b": [True, None],
        "l": [[1], None],
        "raw": ["/wA=", b"x"],
    }
    table = check(columns)
    assert table.schema.equals(SCHEMA)
    assert table.column("at").to_pylist() == [datetime(2026, 1, 1, tzinfo=UTC)] * 2
    assert table.column("n").to_pylist() == [None, 5]
    first, second = table.column("x").to_pylist()
    assert first == 1.0
    assert math.isnan(second)
    assert table.column("l").to_pylist() == [[1], None]
    assert table.column("raw").to_pylist() == [b"\xff\x00", b"x"]


def test_columns_that_are_not_required_may_be_missing() -> None:
    assert check(GOOD).column("x").to_pylist() == [None, None]


def test_a_time_without_a_zone_is_utc() -> None:
    table = check(GOOD | {"at": ["2026-01-01T00:00:00"] * 2, "plain_at": ["2026-01-01T02:00:00+02:00", None]})
    assert table.column("at").to_pylist()[0] == datetime(2026, 1, 1, tzinfo=UTC)
    assert table.column("plain_at").to_pylist()[0] == datetime.fromisoformat("2026-01-01")


def test_nanoseconds_in_text_are_kept() -> None:
    table = check(GOOD | {"ns_at": ["2026-01-01T00:00:00.000000900Z", None]})
    assert table.column("ns_at").cast(pa.timestamp("ns")).cast(pa.int64()).to_pylist() == [
        1_767_225_600_000_000_900,
        None,
    ]


def test_pandas_and_numpy_values_are_taken() -> None:
    frame = pd.DataFrame({"k": [1], "at": [pd.Timestamp("2026-01-01", tz="UTC")], "x": [np.float64(2)], "s": [None]})
    columns = {name: frame[name].tolist() for name in frame} | {"l": [np.array([1, 2])], "n": [np.int32(3)]}
    row = check(columns).to_pylist()[0]
    assert (row["k"], row["x"], row["l"], row["n"]) == (1, 2.0, [1, 2], 3)


def test_parts_of_values_are_read_like_values() -> None:
    columns = {
        "k": [1],
        "at": GOOD["at"][:1],
        "x_list": [[1, "-Infinity", None]],
        "at_list": [["2026-01-01T02:00:00+02:00"]],
        "deep": [[[1], [], None]],
        "pair": [{"n": 1, "raw": "/wA="}],
        "counts": [{"a": 1, "b": None}],
    }
    row = check(columns).to_pylist()[0]
    assert row["x_list"] == [1.0, -math.inf, None]
    assert row["at_list"] == [datetime(2026, 1, 1, tzinfo=UTC)]
    assert row["deep"] == [[1], [], None]
    assert row["pair"] == {"n": 1, "raw": b"\xff\x00"}
    assert row["counts"] == [("a", 1), ("b", None)]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "0001-01-01T14:00:00+14:00"])
def test_the_first_and_the_last_instant_of_the_years_1_to_9999_are_taken(at: str) -> None:
    assert check(GOOD | {"at": [at, at]}).column("at").to_pylist() == [datetime.fromisoformat(at)] * 2


def test_a_time_is_rounded_down_to_the_unit_of_its_column() -> None:
    table = check(GOOD | {"at": ["1969-12-31T23:59:59.123456789Z"] * 2, "plain_at": ["1969-12-31T23:59:59.9999", None]})
    assert table.column("at").to_pylist()[0] == datetime(1969, 12, 31, 23, 59, 59, 123_456, tzinfo=UTC)
    assert table.column("plain_at").to_pylist()[0] == datetime.fromisoformat("1969-12-31T23:59:59.999")


def test_rows_of_more_than_one_chunk_stay_in_order() -> None:
    count = 2 * PUSH_CHUNK_ROWS + 1
    table = check({"k": list(range(count)), "at": [GOOD["at"][0]] * count, "x": [float("nan"), *[0.5] * (count - 1)]})
    assert table.column("k").to_pylist() == list(range(count))
    assert table.column("x").to_pylist()[:2] == [None, 0.5]


def test_no_rows_are_no_rows() -> None:
    assert check({"k": [], "at": []}).num_rows == 0
    assert check({}).num_rows == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nope": [1, 2]}, r"unknown: \['nope'\]"),
        ({"n": [1, "2"]}, "row 1: column 'n' has the value '2'"),
        ({"n": [1, 2**31]}, "row 1: column 'n'"),
        ({"n": [1.0, 2]}, "row 0: column 'n'"),
        ({"n": [True, 2]}, "row 0: column 'n'"),
        ({"x": [1.0, "high"]}, "row 1: column 'x'"),
        ({"x": [True, 1.0]}, "row 0: column 'x'"),
        ({"s": ["a", 5]}, "row 1: column 's'"),
        ({"b": [1, True]}, "row 0: column 'b'"),
        ({"l": [[1], ["x"]]}, "row 1: column 'l'"),
        ({"l": [[1], 1]}, "row 1: column 'l'"),
        ({"at": ["2026-01-01T00:00:00Z", "soon"]}, "row 1: column 'at' has the value 'soon'.*ISO 8601"),
        ({"at": [1_700_000_000, "2026-01-01T00:00:00Z"]}, "row 0: column 'at'"),
        ({"at": ["2026-01-01T00:00:00Z", None]}, "row 1: column 'at' is null"),
        ({"raw": ["/wA=", "no base64!"]}, "row 1: column 'raw'.*base64"),
        ({"k": [None, 1]}, "row 0: column 'k' is null"),
        ({"at": ["0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00Z"]}, "row 0: column 'at'.*years 1 to 9999"),
        ({"at": ["2026-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00"]}, "row 1: column 'at'.*years 1 to 9999"),
        ({"plain_at": ["9999-12-31T23:59:59-12:00", None]}, "row 0: column 'plain_at'"),
        ({"ns_at": [None, "2026-01-01T00:00:00.0000000001Z"]}, "row 1: column 'ns_at'.*9 digits"),
        ({"ns_at": [None, "1600-01-01"]}, "row 1: column 'ns_at'.*1678 to 2261"),
        ({"at": ["2026-01-01T00:00:00,0000000001", "2026-01-01"]}, "row 0: column 'at'.*9 digits"),
        ({"l": [[1], [1.9]]}, r"row 1: column 'l' has the value \[1.9\]"),
        ({"l": [[1], [2.0]]}, "row 1: column 'l'"),
        ({"l": [[True], [1]]}, "row 0: column 'l'"),
        ({"l": [[np.float64(1.9)], [1]]}, "row 0: column 'l'"),
        ({"deep": [[[1]], [[1], [1.9]]]}, "row 1: column 'deep'"),
        ({"x_list": [[1.0], [True]]}, "row 1: column 'x_list'"),
        ({"x_list": [["high"], [1.0]]}, "row 0: column 'x_list'"),
        ({"at_list": [["0001-01-01T00:00:00+14:00"], []]}, "row 0: column 'at_list'"),
        ({"pair": [{"n": 1.9}, None]}, "row 0: column 'pair'"),
        ({"pair": [{"n": 1, "m": 1}, None]}, "row 0: column 'pair'"),
        ({"pair": [None, 1]}, "row 1: column 'pair'"),
        ({"counts": [{"a": 1.9}, None]}, "row 0: column 'counts'"),
        ({"counts": [None, 1]}, "row 1: column 'counts'"),
        ({"s": ["a", 5 * 10**100]}, "row 1: column 's'"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, list[Any]], words: str) -> None:
    with pytest.raises(PushedRowsError, match=words):
        check(GOOD | change)


def test_a_missing_required_column_is_named() -> None:
    with pytest.raises(PushedRowsError, match=r"missing: \['at'\]"):
        check({"k": [1]})


def test_unequal_columns_are_refused() -> None:
    with pytest.raises(UnequalLengths, match="'at': 2"):
        check(GOOD | {"k": [1]})


def test_a_push_is_bounded() -> None:
    at = ["2026-01-01T00:00:00Z"] * (PUSH_ROWS_MAX + 1)
    assert check({"k": [1] * PUSH_ROWS_MAX, "at": at[:-1]}).num_rows == PUSH_ROWS_MAX
    with pytest.raises(TooLarge, match=str(PUSH_ROWS_MAX)):
        check({"k": [1] * (PUSH_ROWS_MAX + 1), "at": at})


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("column", "largest", "larger", "words"),
    [
        ("s", "é" * (PUSH_VALUE_BYTES_MAX // 2), "é" * (PUSH_VALUE_BYTES_MAX // 2) + "x", "bytes"),
        ("raw", bytes(PUSH_VALUE_BYTES_MAX), bytes(PUSH_VALUE_BYTES_MAX + 1), "bytes"),
        ("l", [1] * PUSH_VALUE_ELEMENTS_MAX, [1] * (PUSH_VALUE_ELEMENTS_MAX + 1), "elements"),
        ("deep", [[1] * (PUSH_VALUE_ELEMENTS_MAX - 1)], [[1] * PUSH_VALUE_ELEMENTS_MAX], "elements"),
    ],
)
def test_one_value_is_bounded(column: str, largest: Any, larger: Any, words: str) -> None:
    assert check(GOOD | {column: [None, largest]}).num_rows == 2
    with pytest.raises(TooLarge, match=f"row 1: column {column!r} has a value of .* {words}"):
        check(GOOD | {column: [None, larger]})


def test_the_depth_of_a_value_is_bounded() -> None:
    check_extents("push", "v", [nested(PUSH_VALUE_DEPTH_MAX)])
    for levels in (PUSH_VALUE_DEPTH_MAX + 1, 100_000):
        with pytest.raises(TooLarge, match="levels"):
            check_extents("push", "v", [nested(levels)])


def test_a_refusal_quotes_little_of_a_long_value() -> None:
    large = {str(number): "y" * 1000 for number in range(99)}
    for column, value in (("n", "x" * 100_000), ("l", ["x" * 1000] * 1000), ("b", large)):
        with pytest.raises(PushedRowsError) as refusal:
            check(GOOD | {column: [None, value]})
        assert len(str(refusal.value)) < 3_000
