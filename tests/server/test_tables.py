import io
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import msgspec
import pyarrow as pa
import pytest

from server.limits import HISTORICAL_BATCH_ROWS
from server.policy import ARROW_STREAM, JSON
from server.tables import arrow_chunks, json_chunks, negotiate

INF = float("inf")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        (ARROW_STREAM, ARROW_STREAM),
        (f"{ARROW_STREAM.upper()} ; q=0.5", ARROW_STREAM),
        (f"{ARROW_STREAM}, application/json;q=0.9", ARROW_STREAM),
        (f"application/json;q=0.1, {ARROW_STREAM};q=0.2", ARROW_STREAM),
        ("application/json;q=0, */*", ARROW_STREAM),
        ("text/csv", None),
        ("text/csv, */*;q=0.1", JSON),
        ("application/json;q=0", None),
        ("application/json;q=much", None),
    ],
)
def test_the_answer_takes_the_form_that_is_liked_best(accept: str | None, expected: str | None) -> None:
    form = negotiate(accept)
    assert (form and form.media_type) == expected


def test_an_arrow_answer_is_the_table_in_bounded_batches() -> None:
    table = pa.table(
        {"k": pa.array(range(HISTORICAL_BATCH_ROWS * 2 + 1)), "s": ["x"] * (HISTORICAL_BATCH_ROWS * 2 + 1)}
    )
    chunks = list(arrow_chunks(table))
    assert len(chunks) == 4
    assert pa.ipc.open_stream(io.BytesIO(b"".join(chunks))).read_all().equals(table)


def test_an_arrow_answer_without_rows_keeps_its_columns() -> None:
    table = pa.table({"k": pa.array([], pa.int64())})
    assert pa.ipc.open_stream(io.BytesIO(b"".join(arrow_chunks(table)))).read_all().equals(table)


def test_a_json_answer_says_every_type_so_that_json_has_it() -> None:
    noon = datetime(2013, 6, 1, 12, tzinfo=UTC)
    table = pa.table(
        {
            "int": pa.array([2**63 - 1, None]),
            "float": [1.5, None],
            "odd": [float("nan"), -INF],
            "bool": [True, None],
            "text": ["é", None],
            "bytes": [b"\xff", None],
            "us": pa.array([noon, noon.replace(microsecond=5)], pa.timestamp("us", "UTC")),
            "ns": pa.array([1, None], pa.timestamp("ns")),
            "zoned": pa.array([noon, None], pa.timestamp("us", "America/New_York")),
            "year1": pa.array(["0001-01-01", "9999-12-31T23:59:59.999999"]).cast(pa.timestamp("us")),
            "date": [date(2013, 6, 1), None],
            "time": [time(1, 2), None],
            "span": [timedelta(seconds=1.5), None],
            "decimal": [Decimal("1.10"), None],
            "list": [[1.0, INF], None],
            "struct": [{"a": b"x", "when": noon}, None],
        }
    )
    answer = msgspec.json.decode(b"".join(json_chunks(table)))
    assert answer["metadata"]["feature_names"] == table.column_names
    assert answer["columns"] == {
        "int": [2**63 - 1, None],
        "float": [1.5, None],
        "odd": ["NaN", "-Infinity"],
        "bool": [True, None],
        "text": ["é", None],
        "bytes": ["/w==", None],
        "us": ["2013-06-01T12:00:00Z", "2013-06-01T12:00:00.000005Z"],
        "ns": ["1970-01-01T00:00:00.000000001Z", None],
        "zoned": ["2013-06-01T12:00:00Z", None],
        "year1": ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"],
        "date": ["2013-06-01", None],
        "time": ["01:02:00", None],
        "span": [1.5, None],
        "decimal": ["1.10", None],
        "list": [[1.0, "Infinity"], None],
        "struct": [{"a": "eA==", "when": "2013-06-01T12:00:00Z"}, None],
    }


def test_a_json_answer_without_rows_keeps_its_columns() -> None:
    answer = msgspec.json.decode(b"".join(json_chunks(pa.table({"k": pa.array([], pa.float64())}))))
    assert answer == {"metadata": {"feature_names": ["k"]}, "columns": {"k": []}}
