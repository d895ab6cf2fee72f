import io
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from server import tables
from server.limits import HISTORICAL_BATCH_ROWS, HISTORICAL_BATCH_VALUES
from server.policy import ARROW_STREAM, CSV, JSON, PARQUET
from server.tables import Encoder, arrow_chunks, batch_rows, csv_chunks, json_chunks, negotiate, parquet_chunks
from store.errors import TooLarge, WrongType

INF = float("inf")
NOON = datetime(2013, 6, 1, 12, tzinfo=UTC)
EVERY_TYPE = pa.table(
    {
        "int": pa.array([2**63 - 1, None]),
        "float": [1.5, None],
        "odd": [float("nan"), -INF],
        "half": pa.array([1.5, None], pa.float16()),
        "bool": [True, None],
        "text": ["é", None],
        "large": pa.array(["", 'a "b", c'], pa.large_string()),
        "bytes": [b"\xff", None],
        "us": pa.array([NOON, NOON.replace(microsecond=5)], pa.timestamp("us", "UTC")),
        "ns": pa.array([1, None], pa.timestamp("ns")),
        "zoned": pa.array([NOON, None], pa.timestamp("us", "America/New_York")),
        "year1": pa.array(["0001-01-01", "9999-12-31T23:59:59.999999"]).cast(pa.timestamp("us")),
        "date": [date(2013, 6, 1), None],
        "time": [time(1, 2), None],
        "span": [timedelta(seconds=1.5), None],
        "decimal": [Decimal("1.10"), None],
        "list": [[1.0, INF], None],
        "struct": [{"a": b"x", "when": NOON}, None],
        "none": pa.nulls(2),
    }
)


def encoded(encode: Encoder, table: pa.Table, rows_max: int = HISTORICAL_BATCH_ROWS) -> list[bytes]:
    batches = table.to_batches(max_chunksize=rows_max) or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    return list(encode(iter(batches), table.num_rows))


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
        ("text/csv", CSV),
        ("text/csv, */*;q=0.1", CSV),
        ("text/*", CSV),
        (PARQUET, PARQUET),
        (f"{PARQUET}, {ARROW_STREAM}", ARROW_STREAM),
        ("application/xml", None),
        ("application/xml, */*;q=0.1", JSON),
        ("application/json;q=0", None),
        ("application/json;q=much", None),
    ],
)
def test_the_answer_takes_the_form_that_is_liked_best(accept: str | None, expected: str | None) -> None:
    form = negotiate(accept)
    assert (form and form.media_type) == expected


@pytest.mark.parametrize(
    ("encode", "read"),
    [
        (arrow_chunks, lambda content: pa.ipc.open_stream(io.BytesIO(content)).read_all()),
        (parquet_chunks, lambda content: pq.read_table(io.BytesIO(content))),
    ],
)
class TestTableForms:
    def test_the_answer_is_the_table_a_batch_a_chunk(self, encode: Encoder, read: Any) -> None:
        chunks = encoded(encode, EVERY_TYPE, rows_max=1)
        assert len(chunks) == EVERY_TYPE.num_rows + 1
        answer = read(b"".join(chunks))
        assert answer.schema.equals(EVERY_TYPE.schema)
        assert str(answer.to_pylist()) == str(EVERY_TYPE.to_pylist())

    def test_an_answer_without_rows_keeps_its_columns(self, encode: Encoder, read: Any) -> None:
        empty = EVERY_TYPE.slice(0, 0)
        assert read(b"".join(encoded(encode, empty))).equals(empty)

    def test_batches_are_encoded_as_they_come(self, encode: Encoder, read: Any) -> None:
        taken = []

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in EVERY_TYPE.to_batches(max_chunksize=1):
                taken.append(batch)
                yield batch

        chunks = encode(batches(), EVERY_TYPE.num_rows)
        assert next(chunks)
        assert len(taken) == 1


def test_a_parquet_answer_that_is_cut_cannot_be_read() -> None:
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(io.BytesIO(b"".join(encoded(parquet_chunks, EVERY_TYPE, rows_max=1)[:-1])))


def test_a_column_that_parquet_has_not_is_named() -> None:
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(WrongType, match=r"column 'u'.*Parquet"):
        encoded(parquet_chunks, pa.table({"k": [1], "u": union}))


def test_a_csv_answer_says_every_type_as_text() -> None:
    lines = b"".join(encoded(csv_chunks, EVERY_TYPE, rows_max=1)).decode().splitlines()
    assert lines == [
        ",".join(f'"{name}"' for name in EVERY_TYPE.column_names),
        (
            '9223372036854775807,1.5,nan,1.5,true,"é","","/w==","2013-06-01T12:00:00.000000Z",'
            '"1970-01-01T00:00:00.000000001Z","2013-06-01T12:00:00.000000Z","0001-01-01T00:00:00.000000Z",'
            '"2013-06-01","01:02:00.000000","1.5","1.10","[1.0,""Infinity""]",'
            '"{""a"":""eA=="",""when"":""2013-06-01T12:00:00Z""}",'
        ),
        ',,-inf,,,,"a ""b"", c",,"2013-06-01T12:00:00.000005Z",,,"9999-12-31T23:59:59.999999Z",,,,,,,',
    ]


def test_a_csv_answer_tells_null_from_empty_text() -> None:
    content = b"".join(encoded(csv_chunks, pa.table({"s": ["", None, "a\nb"], "k": [1, 2, 3]})))
    options = pa_csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
    read = pa_csv.read_csv(
        io.BytesIO(content), convert_options=options, parse_options=pa_csv.ParseOptions(newlines_in_values=True)
    )
    assert read.to_pydict() == {"s": ["", None, "a\nb"], "k": [1, 2, 3]}


def test_a_csv_answer_without_rows_has_its_header() -> None:
    assert b"".join(encoded(csv_chunks, pa.table({"k": pa.array([], pa.int64())}))) == b'"k"\n'


@pytest.mark.parametrize("encode", [json_chunks, csv_chunks])
def test_a_value_that_has_no_text_is_named_by_its_column(encode: Encoder) -> None:
    beyond = pa.array([[2**62]], pa.list_(pa.timestamp("us", "UTC")))
    with pytest.raises(WrongType, match="column 'far'"):
        encoded(encode, pa.table({"far": beyond}))


def test_a_json_answer_says_every_type_so_that_json_has_it() -> None:
    answer = msgspec.json.decode(b"".join(encoded(json_chunks, EVERY_TYPE, rows_max=1)))
    assert answer["metadata"]["feature_names"] == EVERY_TYPE.column_names
    assert answer["columns"] == {
        "int": [2**63 - 1, None],
        "float": [1.5, None],
        "odd": ["NaN", "-Infinity"],
        "half": [1.5, None],
        "bool": [True, None],
        "text": ["é", None],
        "large": ["", 'a "b", c'],
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
        "none": [None, None],
    }


def test_a_json_answer_without_rows_keeps_its_columns() -> None:
    answer = msgspec.json.decode(b"".join(encoded(json_chunks, pa.table({"k": pa.array([], pa.float64())}))))
    assert answer == {"metadata": {"feature_names": ["k"]}, "columns": {"k": []}}


def test_a_json_answer_has_a_bound_on_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "HISTORICAL_JSON_VALUES_MAX", 6)
    table = pa.table({"a": [1, 2, 3], "b": [1, 2, 3]})
    assert encoded(json_chunks, table)
    with pytest.raises(TooLarge, match=r"3 rows x 3 columns.*arrow"):
        encoded(json_chunks, table.append_column("c", table.column("a")))


def test_wide_answers_come_in_batches_of_fewer_rows() -> None:
    assert batch_rows(0) == batch_rows(1) == HISTORICAL_BATCH_ROWS
    assert batch_rows(1_000) == HISTORICAL_BATCH_VALUES // 1_000
    assert batch_rows(10**9) == 1
