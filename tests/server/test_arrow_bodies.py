import contextlib
import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import arrow_bodies
from server.arrow_bodies import entity_rows_of
from store.errors import BadBody, TooLarge

ROWS = pa.table({"k": pa.array(range(1000)), "s": pa.array(["abc", None] * 500)})


def stream(table: pa.Table, compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=300)
    return sink.getvalue()


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_a_stream_comes_back_as_the_table_that_was_sent(compression: str | None) -> None:
    assert entity_rows_of(stream(ROWS, compression)).equals(ROWS)


def test_a_stream_without_rows_is_a_table_without_rows() -> None:
    assert entity_rows_of(stream(ROWS.slice(0, 0))).num_rows == 0


def test_dictionaries_are_decoded() -> None:
    table = pa.table(
        {"s": pa.array(["a", "b", None, "a"]).dictionary_encode(), "n": pa.array([1, 1, 2, 2]).dictionary_encode()}
    )
    decoded = entity_rows_of(stream(table))
    assert decoded.to_pydict() == {"s": ["a", "b", None, "a"], "n": [1, 1, 2, 2]}
    assert decoded.schema.types == [pa.string(), pa.int64()]


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_small_body_that_decodes_to_more_than_the_bound_is_refused_undecoded(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow_bodies, "HISTORICAL_DECODED_BYTES_MAX", 1_000_000)
    body = stream(pa.table({"s": ["x" * 1_000_001]}), compression)
    assert len(body) < 20_000
    monkeypatch.setattr(pa.ipc, "open_stream", None)
    with pytest.raises(TooLarge, match="decoded bytes"):
        entity_rows_of(body)


def test_the_bound_on_rows_holds_for_columns_without_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_bodies, "HISTORICAL_ROWS_MAX", 1000)
    assert entity_rows_of(stream(pa.table({"n": pa.nulls(1000)}))).num_rows == 1000
    with pytest.raises(TooLarge, match="1001 rows"):
        entity_rows_of(stream(pa.table({"n": pa.nulls(1001)})))


def test_a_dictionary_that_grows_beyond_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_bodies, "HISTORICAL_DECODED_BYTES_MAX", 1_000_000)
    table = pa.table({"s": pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int8()), pa.array(["x" * 1000]))})
    with pytest.raises(TooLarge, match="decoded bytes"):
        entity_rows_of(stream(table))


def test_run_end_encoding_and_columns_given_twice_are_refused() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([10**6], pa.int32()), pa.array([1]))
    with pytest.raises(BadBody, match="run-end"):
        entity_rows_of(stream(pa.table({"r": runs})))
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["k", "k"])
    with pytest.raises(BadBody, match="given twice"):
        entity_rows_of(stream(twice))


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"ARROW1\0\0", b"\xff\xff\xff\xff\xff\xff\xff\x7f", stream(ROWS)[:500]]
)
def test_what_is_no_stream_is_refused(body: bytes) -> None:
    with pytest.raises(BadBody, match="Arrow IPC stream"):
        entity_rows_of(body)


@given(st.data(), st.sampled_from([None, "zstd", "lz4"]))
def test_a_damaged_stream_is_refused_or_read_and_never_worse(data: st.DataObject, compression: str | None) -> None:
    body = bytearray(stream(ROWS.slice(0, 50), compression))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadBody, TooLarge):
        entity_rows_of(bytes(body)).to_pydict()
