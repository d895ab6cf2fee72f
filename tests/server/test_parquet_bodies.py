import contextlib
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import body_bounds, parquet_bodies
from server.parquet_bodies import entity_rows_of_parquet
from store.errors import BadBody, TooLarge
from store.limits import ENTITY_COLUMNS_MAX

ROWS = pa.table({"k": pa.array(range(1000)), "s": pa.array(["abc", None] * 500)})


def file(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "lz4", "brotli"])
def test_a_file_comes_back_as_the_table_that_was_sent(compression: str) -> None:
    assert entity_rows_of_parquet(file(ROWS, compression=compression, row_group_size=300)).equals(ROWS)


def test_a_file_without_rows_is_a_table_without_rows() -> None:
    empty = ROWS.slice(0, 0)
    assert entity_rows_of_parquet(file(empty)).equals(empty)


def test_dictionaries_are_decoded() -> None:
    table = pa.table({"s": pa.array(["a", "b", None, "a"]).dictionary_encode()})
    assert entity_rows_of_parquet(file(table)).to_pydict() == {"s": ["a", "b", None, "a"]}


def test_a_text_repeated_beyond_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_bounds, "HISTORICAL_DECODED_BYTES_MAX", 20_000_000)
    monkeypatch.setattr(parquet_bodies, "PARQUET_BODY_BATCH_ROWS", 1_000)
    body = file(pa.table({"s": ["x" * 1_000] * 100_000}))
    metadata = pq.read_metadata(io.BytesIO(body))
    assert len(body) < 20_000
    assert sum(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups)) < 200_000
    with pytest.raises(TooLarge, match="decoded bytes"):
        entity_rows_of_parquet(body)


def test_a_footer_that_tells_of_too_much_is_refused_undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_bounds, "HISTORICAL_ROWS_MAX", 1_000)
    assert entity_rows_of_parquet(file(ROWS)).num_rows == 1_000
    monkeypatch.setattr(body_bounds, "HISTORICAL_ROWS_MAX", 999)
    monkeypatch.setattr(parquet_bodies, "_decoded", None)
    with pytest.raises(TooLarge, match="1000 rows"):
        entity_rows_of_parquet(file(ROWS))


def test_too_many_columns_and_nested_nulls_are_refused() -> None:
    with pytest.raises(TooLarge, match="columns"):
        entity_rows_of_parquet(file(pa.table({f"c{number}": [1] for number in range(ENTITY_COLUMNS_MAX + 1)})))
    with pytest.raises(BadBody, match="column 'odd'"):
        entity_rows_of_parquet(file(pa.table({"odd": pa.array([[None] * 9], pa.list_(pa.null()))})))


@pytest.mark.parametrize("body", [b"", b"nonsense", b"PAR1", b"PAR1" * 3, file(ROWS)[:-1], file(ROWS)[:500]])
def test_what_is_no_file_is_refused(body: bytes) -> None:
    with pytest.raises(BadBody, match="Parquet"):
        entity_rows_of_parquet(body)


@given(st.data())
def test_a_damaged_file_is_refused_or_read_and_never_worse(data: st.DataObject) -> None:
    body = bytearray(file(ROWS.slice(0, 50)))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadBody, TooLarge):
        entity_rows_of_parquet(bytes(body)).to_pydict()
