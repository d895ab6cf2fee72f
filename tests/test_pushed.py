"""A push is checked whole: one row that does not fit refuses all of them, and is named."""

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from store.errors import PushedRowsError, TooLarge, UnequalLengths
from store.limits import PUSH_ROWS_MAX
from store.pushed import checked_table

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
