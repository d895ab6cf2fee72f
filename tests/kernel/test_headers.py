"""Headers read as columns are the headers read one by one."""

from hypothesis import given
from hypothesis import strategies as st

from store.kernel.codec import Body, RowTimes, decode_header, encode_row
from store.kernel.headers import decode_headers

instants = st.integers(-(2**63), 2**63 - 1)
nanoseconds = st.integers(0, 999)
times = st.builds(RowTimes, instants, nanoseconds, instants | st.none(), nanoseconds).map(
    lambda at: at if at.created_us is not None else at._replace(created_ns=0)
)
rows = st.builds(
    lambda at, body, is_pushed: encode_row(7, at, Body(body, False), is_pushed=is_pushed),
    times,
    st.binary(max_size=9),
    st.booleans(),
)


@given(st.lists(rows | st.none(), max_size=6) | st.lists(rows, max_size=1).map(lambda one: one * 4))
def test_headers_as_columns_are_those_of_each_row(stored: list[bytes | None]) -> None:
    told = list(zip(*decode_headers(stored), strict=True))
    assert len(told) == len(stored)
    for row, (event_us, event_ns, created_us, created_ns, is_pushed) in zip(stored, told, strict=True):
        if row is None:
            assert (event_us, event_ns, created_us, created_ns, is_pushed) == (None,) * 5
            continue
        header = decode_header(row)
        assert RowTimes(event_us, event_ns, created_us, created_ns or 0) == header.times
        assert (is_pushed, created_ns is None) == (header.is_pushed, created_us is None)


@given(st.lists(times, min_size=2, max_size=5), st.booleans())
def test_rows_of_one_shape_are_read_alike(several: list[RowTimes], is_pushed: bool) -> None:
    same = [at._replace(event_ns=1, created_us=at.created_us or 0) for at in several]
    told = decode_headers([encode_row(1, at, Body(b"", False), is_pushed=is_pushed) for at in same])
    assert [RowTimes(*at) for at in zip(*told[:4], strict=True)] == same
    assert told.is_pushed == [is_pushed] * len(same)
