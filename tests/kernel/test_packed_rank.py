"""One number ranks rows as their event time, created time and position do, and gives all three back."""

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.kernel.packed_rank import PackedRank
from store.kernel.source_scan import ROW_BITS, EventRange, FileGroup, Scan, TimeColumn

YEAR_1_US, YEAR_9999_US = -62_135_596_800_000_000, 253_402_300_799_999_999
NO_TIMES = EventRange(1, 0)


def scan(
    event: EventRange | None, created: EventRange | None, *, rows: int = 10, files: int = 1, is_ns: bool = False
) -> Scan:
    time = TimeColumn("t", is_ns)
    paths, positions = tuple(map(str, range(files))), tuple(range(files))
    group = FileGroup(paths, positions, (), time, time, (), (rows,) * files, (event,) * files, (created,) * files)
    return Scan((group,))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), is_ns=st.booleans(), files=st.sampled_from([1, 2, 300]))
def test_the_number_orders_rows_as_their_parts_do_and_gives_them_back(
    data: st.DataObject, is_ns: bool, files: int
) -> None:
    ranges = []
    for _ in range(2):
        low = data.draw(st.integers(YEAR_1_US, YEAR_9999_US - 2**40))
        ranges.append(EventRange(low, low + data.draw(st.sampled_from([0, 1, 2**20, 2**30]))))
    found = scan(*ranges, rows=1_000, files=files, is_ns=is_ns)
    rank = PackedRank.of(found)
    assert rank is not None
    unit = 1_000 if is_ns else 1
    times = [st.integers(one.low_us * unit, one.high_us * unit + unit - 1) for one in ranges]
    positions = st.builds(lambda file, row: (file << ROW_BITS) + row, st.integers(0, files - 1), st.integers(0, 999))
    rows = data.draw(st.lists(st.tuples(times[0], st.none() | times[1], positions), min_size=1, max_size=8))
    kind = "HUGEINT" if is_ns else "BIGINT"
    values = ", ".join(f"({e}::{kind}, {'NULL' if c is None else c}::{kind}, {ptr}::BIGINT)" for e, c, ptr in rows)
    numbered = f"SELECT {rank.packed()} AS number FROM (VALUES {values}) t(e, c, ptr)"
    given_back = duckdb.sql(f"SELECT {rank.unpacked('number')} FROM ({numbered}) ORDER BY number").fetchall()
    assert given_back == sorted(rows, key=lambda row: (row[0], row[1] is not None, row[1] or 0, row[2]))


def test_all_years_in_microseconds_fit_and_what_does_not_is_not_packed() -> None:
    every = EventRange(YEAR_1_US, YEAR_9999_US)
    # 59 bits for either time leave 10.
    assert PackedRank.of(scan(every, every, rows=1_023)) is not None
    assert PackedRank.of(scan(every, every, rows=1_024)) is None
    assert PackedRank.of(scan(every, every, rows=511, files=2)) is not None
    assert PackedRank.of(scan(every, every, rows=512, files=2)) is None
    assert PackedRank.of(scan(every, every, is_ns=True)) is None


@pytest.mark.parametrize(("event", "created"), [(None, NO_TIMES), (NO_TIMES, None)])
def test_files_that_do_not_tell_their_times_are_not_packed(
    event: EventRange | None, created: EventRange | None
) -> None:
    assert PackedRank.of(scan(NO_TIMES, NO_TIMES)) is not None
    assert PackedRank.of(scan(event, created)) is None
