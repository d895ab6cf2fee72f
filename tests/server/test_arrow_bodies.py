import contextlib
import io
import struct

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import arrow_bodies, body_bounds
from server.arrow_bodies import entity_rows_of
from store.errors import BadBody, TooLarge
from store.limits import ENTITY_COLUMNS_MAX

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
    monkeypatch.setattr(body_bounds, "HISTORICAL_DECODED_BYTES_MAX", 1_000_000)
    body = stream(pa.table({"s": ["x" * 1_000_001]}), compression)
    assert len(body) < 20_000
    # Reading the schema decodes no batch; what would is not reached.
    monkeypatch.setattr(arrow_bodies, "without_dictionaries", None)
    with pytest.raises(TooLarge, match="decoded bytes"):
        entity_rows_of(body)


def test_the_bound_on_rows_holds_for_columns_without_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_bounds, "HISTORICAL_ROWS_MAX", 1000)
    assert entity_rows_of(stream(pa.table({"n": pa.nulls(1000)}))).num_rows == 1000
    with pytest.raises(TooLarge, match="1001 rows"):
        entity_rows_of(stream(pa.table({"n": pa.nulls(1001)})))


def test_a_dictionary_that_grows_beyond_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_bounds, "HISTORICAL_DECODED_BYTES_MAX", 1_000_000)
    table = pa.table({"s": pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int8()), pa.array(["x" * 1000]))})
    with pytest.raises(TooLarge, match="decoded bytes"):
        entity_rows_of(stream(table))


def test_a_dictionary_of_wide_fixed_values_is_counted_by_their_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_bounds, "HISTORICAL_DECODED_BYTES_MAX", 1_000_000)
    values = pa.array([b"x" * 1000], pa.binary(1000))
    table = pa.table({"s": pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int8()), values)})
    with pytest.raises(TooLarge, match="decoded bytes"):
        entity_rows_of(stream(table))


RUNS = pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array([1]))
LETTERS = pa.array(["a"]).dictionary_encode()
UNBOUNDED = {
    "runs": RUNS,
    "text views": pa.array(["a"], pa.string_view()),
    "byte views": pa.array([b"a"], pa.binary_view()),
    "list views": pa.array([[1]], pa.list_view(pa.int64())),
    "large list views": pa.array([[1]], pa.large_list_view(pa.int64())),
    "unions": pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]),
    "structs of nothing": pa.array([{}], pa.struct([])),
    "lists of nulls": pa.array([[None] * 9], pa.list_(pa.null())),
    "large lists of nulls": pa.array([[None] * 9], pa.large_list(pa.null())),
    "fixed lists of nulls": pa.array([[None] * 9], pa.list_(pa.null(), 9)),
    "fixed lists of nothing": pa.array([[]], pa.list_(pa.int64(), 0)),
    "nulls deep within": pa.array([[{"a": [None]}]], pa.list_(pa.struct([("a", pa.list_(pa.null()))]))),
    "lists of structs of nothing": pa.array([[{}]], pa.list_(pa.struct([]))),
    "lists of runs": pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), RUNS),
    "lists of dictionaries": pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), LETTERS),
    "dictionaries of lists": pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array([[1]])),
}


@pytest.mark.parametrize("column", UNBOUNDED.values(), ids=UNBOUNDED)
def test_types_that_no_bound_on_bytes_holds_are_refused_by_name(column: pa.Array) -> None:
    with pytest.raises(BadBody, match="column 'odd'"):
        entity_rows_of(stream(pa.table({"k": [1], "odd": column})))


def test_nested_values_that_have_bytes_are_taken() -> None:
    table = pa.table(
        {
            "list": [[1, 2], None],
            "fixed": pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)),
            "struct": [{"a": ["x"], "b": None}, {"a": None, "b": 1.5}],
            "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
            "none": pa.nulls(2),
        }
    )
    assert entity_rows_of(stream(table)).equals(table)


def test_columns_given_twice_are_refused() -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["k", "k"])
    with pytest.raises(BadBody, match="given twice"):
        entity_rows_of(stream(twice))


def test_the_bound_on_columns_counts_nested_fields() -> None:
    at_the_bound = pa.table({f"c{number}": [1] for number in range(ENTITY_COLUMNS_MAX)})
    assert entity_rows_of(stream(at_the_bound)).num_columns == ENTITY_COLUMNS_MAX
    with pytest.raises(TooLarge, match="columns"):
        entity_rows_of(stream(at_the_bound.append_column("more", pa.array([1]))))
    fields = [{f"f{number}": 1 for number in range(ENTITY_COLUMNS_MAX)}]
    with pytest.raises(TooLarge, match="columns"):
        entity_rows_of(stream(pa.table({"nested": fields})))


def test_buffers_that_lie_on_each_other_count_each(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two columns of 2,400 bytes each in one batch, and then both made to be the same 2,400.
    body = stream(pa.table({"a": pa.array(range(300)), "b": pa.array(range(300))}))
    apart = struct.pack("<8q", 0, 0, 0, 2_400, 2_400, 0, 2_400, 2_400)
    assert body.count(apart) == 1
    shared = body.replace(apart, struct.pack("<8q", 0, 0, 0, 2_400, 0, 0, 0, 2_400))
    monkeypatch.setattr(body_bounds, "HISTORICAL_DECODED_BYTES_MAX", 4_800)
    assert entity_rows_of(shared).column("b").equals(entity_rows_of(shared).column("a"))
    monkeypatch.setattr(body_bounds, "HISTORICAL_DECODED_BYTES_MAX", 4_799)
    with pytest.raises(TooLarge, match="decoded bytes"):
        entity_rows_of(shared)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_stream_that_is_cut_anywhere_is_refused(compression: str | None) -> None:
    body = stream(ROWS, compression)
    messages = pa.ipc.MessageReader.open_stream(source := pa.BufferReader(body))
    ends = [source.tell() for _ in iter(lambda: next(messages, None), None)]
    assert len(ends) == 1 + 4
    for end in (*ends, *(end + 1 for end in ends), len(body) - 1):
        with pytest.raises(BadBody, match="Arrow IPC stream"):
            entity_rows_of(body[:end])


def test_what_follows_the_end_of_a_stream_is_refused_and_not_dropped() -> None:
    with pytest.raises(BadBody, match="one stream"):
        entity_rows_of(stream(ROWS) + stream(ROWS))


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
