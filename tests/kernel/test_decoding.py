"""Rows that are read all at once say what they say one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import StoredRowError
from store.kernel.codec import RowLayout, RowTimes, decode_header, encode_row
from store.kernel.decoding import Decoder
from store.kernel.definitions import Column
from tests.kernel.strategies import columns, rows
from tests.kernel.test_codec import instants_us, nanoseconds, same

# Few rows are read in a loop and many in an array, so there are both.
sizes = st.integers(1, 6) | st.integers(16, 40)
DECLARED = [Column("count", "INT64"), Column("rate", "DOUBLE"), Column("name", "STRING"), Column("items", "INT32_LIST")]
LAYOUT = RowLayout.of(DECLARED)


def stored(declared: list[Column], row: dict[str, object], times: RowTimes, *, is_pushed: bool = False) -> bytes:
    """Returns a row as it is stored."""
    layout = RowLayout.of(declared)
    body = layout.encoder()([row[column.name] for column in layout.columns])
    return encode_row(layout.tag, times, body, is_pushed=is_pushed)


def one_by_one(decoder: Decoder, written: list[bytes]) -> list[list[object]]:
    """Returns what `decode` says of each row."""
    return [decoder.decode(row, decode_header(row)) for row in written]


@given(st.data(), columns, sizes, st.booleans(), st.booleans())
def test_alike_rows_are_read_as_they_are_one_by_one(
    data: st.DataObject, declared: list[Column], size: int, is_pushed: bool, has_created: bool
) -> None:
    one = data.draw(rows(declared))
    other = data.draw(rows(declared))
    times = [
        RowTimes(data.draw(instants_us), created_us=data.draw(instants_us) if has_created else None)
        for _ in range(size)
    ]
    given_rows = [one if i % 3 else other for i in range(size)]
    written = [stored(declared, row, at, is_pushed=is_pushed) for row, at in zip(given_rows, times, strict=True)]
    wanted = data.draw(st.permutations(declared).map(lambda them: them[: max(1, len(them) - 1)]))
    decoder = Decoder(RowLayout.of(declared), wanted)
    alike = decoder.decode_alike(written)
    if any(value is None for row in given_rows for value in row.values()):
        assert alike is None
        return
    assert alike is not None
    event_us, found = alike
    assert event_us == [at.event_us for at in times]
    expected = one_by_one(decoder, written)
    assert all(same(found[i][row], expected[row][i]) for i in range(len(wanted)) for row in range(size))


def whole_row(number: int) -> dict[str, object]:
    return {"count": number, "rate": number / 2, "name": "é" * number, "items": list(range(number))}


@pytest.mark.parametrize("size", [1, 15, 16, 300])
def test_values_of_all_lengths_are_read_at_once(size: int) -> None:
    written = [stored(DECLARED, whole_row(i), RowTimes(i)) for i in range(size)]
    decoder = Decoder(LAYOUT, DECLARED)
    alike = decoder.decode_alike(written)
    assert alike is not None
    assert [list(values) for values in zip(*alike[1], strict=True)] == one_by_one(decoder, written)


@pytest.mark.parametrize("size", [2, 40])
@pytest.mark.parametrize(
    "other",
    [
        stored(DECLARED, whole_row(1) | {"rate": None}, RowTimes(1)),
        stored(DECLARED, whole_row(1), RowTimes(1), is_pushed=True),
        stored(DECLARED, whole_row(1), RowTimes(1, created_us=5)),
        stored(DECLARED, whole_row(1), RowTimes(1, event_ns=5)),
        b"\x90" + stored(DECLARED, whole_row(1), RowTimes(1))[1:],
    ],
    ids=["null", "pushed", "created", "nanoseconds", "other version"],
)
@pytest.mark.parametrize("place", [0, -1])
def test_one_row_that_differs_leaves_all_to_be_read_one_by_one(size: int, other: bytes, place: int) -> None:
    written = [stored(DECLARED, whole_row(i), RowTimes(i)) for i in range(size)]
    written[place] = other
    assert Decoder(LAYOUT, DECLARED).decode_alike(written) is None


@pytest.mark.parametrize("size", [2, 40])
@pytest.mark.parametrize("features", [0, 1, 3])
def test_a_row_of_another_layout_leaves_all_to_be_read_one_by_one(size: int, features: int) -> None:
    written = [stored(DECLARED, whole_row(i), RowTimes(i)) for i in range(size)]
    other = stored(DECLARED[:features], whole_row(1), RowTimes(1))
    assert Decoder(LAYOUT, DECLARED).decode_alike([*written, other]) is None


@given(nanoseconds.filter(bool))
def test_rows_with_nanoseconds_are_read_one_by_one(event_ns: int) -> None:
    assert Decoder(LAYOUT, DECLARED).decode_alike([stored(DECLARED, whole_row(1), RowTimes(1, event_ns))]) is None


def test_a_feature_that_must_be_cast_is_read_one_by_one() -> None:
    written = [stored(DECLARED, whole_row(1), RowTimes(1))]
    assert Decoder(LAYOUT, [Column("count", "INT32")]).decode_alike(written) is None
    assert Decoder(LAYOUT, [Column("count", "INT64"), Column("ghost", "INT64")]).decode_alike(written) is None


@pytest.mark.parametrize("size", [1, 40])
def test_a_row_that_is_cut_short_is_refused(size: int) -> None:
    decoder = Decoder(LAYOUT, DECLARED)
    whole = [stored(DECLARED, whole_row(3), RowTimes(i)) for i in range(size)]
    for length in range(3, len(whole[0])):
        with pytest.raises(StoredRowError, match=f"{length} bytes is cut short"):
            decoder.decode_alike([*whole[:-1], whole[-1][:length]])
