"""Files are left out by what their footers say of their times: never one that holds a row within the bounds."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.kernel.source_scan import EventRange
from store.offline.source_columns import scan_of
from tests.offline.feature_stores import instants, write
from tests.offline.reading import needed, opened, rows_of

NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1, "date": 86_400 * 10**9, "int96": 10**3}
DAY_NS = NS["date"]
YEAR_1_NS, YEAR_9999_NS = -62_135_596_800 * 10**9, 253_402_300_799 * 10**9
NEAR = st.sampled_from(
    [-2 * DAY_NS, -DAY_NS - 1, -1_001, -1_000, -999, -1, 0, 1, 999, 1_000, 1_001, DAY_NS, DAY_NS + 1]
)


@dataclass(frozen=True)
class File:
    kind: str
    zone: str | None
    times: Sequence[int | None]
    has_statistics: bool
    group_rows: int

    def column(self) -> pa.Array:
        counted = pa.array([None if time is None else time // NS[self.kind] for time in self.times], pa.int64())
        if self.kind == "date":
            return counted.cast(pa.int32()).cast(pa.date32())
        return counted.cast(pa.timestamp("us" if self.kind == "int96" else self.kind, self.zone))


@st.composite
def files(draw: st.DrawFn) -> File:
    kind = draw(st.sampled_from(sorted(NS)))
    far = st.sampled_from([YEAR_1_NS, YEAR_9999_NS]) if kind in {"s", "ms", "us", "date"} else st.nothing()
    times = draw(st.lists(st.one_of(st.none(), NEAR, far), max_size=6))
    # Times of a coarse unit are whole ones.
    whole = [None if time is None else time // NS[kind] * NS[kind] for time in times]
    zone = draw(st.sampled_from([None, "UTC", "Asia/Kolkata"])) if kind not in {"date", "int96"} else None
    return File(kind, zone, whole, draw(st.booleans()), draw(st.integers(1, 4)))


def write_files(folder: Path, given_files: Sequence[File]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, file in enumerate(given_files):
        table = pa.table({"event_timestamp": file.column(), "n": pa.array([number] * len(file.times), pa.int64())})
        pq.write_table(
            table, folder / f"{number:02}.parquet", row_group_size=file.group_rows,
            write_statistics=file.has_statistics, use_deprecated_int96_timestamps=file.kind == "int96",
        )  # fmt: skip


BOUND = st.one_of(st.none(), NEAR.map(lambda time: time // 1_000), st.just(YEAR_9999_NS // 1_000))


COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
CASES = {"given_files": st.lists(files(), min_size=1, max_size=5), "low": BOUND, "high": BOUND}


@settings(max_examples=40, **COMMON)
@given(**CASES)
def test_no_row_within_the_bounds_is_lost_and_no_file_outside_them_is_read(
    repo: Path, given_files: list[File], low: int | None, high: int | None
) -> None:
    check_bounds(repo, given_files, low, high)


@pytest.mark.long
@settings(max_examples=1_500, **COMMON)
@given(**CASES)
def test_no_row_within_the_bounds_is_lost_and_no_file_outside_them_is_read_in_full(
    repo: Path, given_files: list[File], low: int | None, high: int | None
) -> None:
    check_bounds(repo, given_files, low, high)


def check_bounds(repo: Path, given_files: list[File], low: int | None, high: int | None) -> None:
    write_files(repo / "data/stats", given_files)
    source = opened(repo)
    scan = scan_of(source, needed("n")).within(low, high)

    def is_within(time_ns: int | None) -> bool:
        if time_ns is None:
            return low is None and high is None
        return (low is None or time_ns // 1_000 >= low) and (high is None or time_ns // 1_000 <= high)

    # HUGEINT comes as a decimal, whose division rounds towards zero.
    found = [
        (None if row["e"] is None else int(row["e"]), row["n"])
        for row in rows_of(source, needed("n"), scan).to_pylist()
    ]
    expected = [(time, i) for i, file in enumerate(given_files) for time in file.times if is_within(time)]
    assert [row for row in found if is_within(row[0])] == expected
    read = {int(Path(path).stem) for path in scan.paths}
    if low is None and high is None:
        assert len(read) == len(given_files)
        return
    # Without rows there is nothing to tell; the old form of Spark's has no order that one could tell.
    told = {i for i, file in enumerate(given_files) if file.kind != "int96" and (file.has_statistics or not file.times)}
    needless = {i for i in told if not any(is_within(time) for time in given_files[i].times)}
    # Where times lie on both sides of the bounds a file cannot tell that none lies within.
    split = {i for i in needless if EventRange(*_ends(given_files[i].times)).meets(low, high)}
    assert read & (needless - split) == set() or len(read) == 1
    assert scan.rows == sum(len(given_files[i].times) for i in read)


def _ends(times: Sequence[int | None]) -> tuple[int, int]:
    known = [time // 1_000 for time in times if time is not None]
    return (min(known), max(known)) if known else (1, 0)


def test_files_that_are_left_out_are_not_opened(repo: Path) -> None:
    paths = [
        write(repo, {"event_timestamp": instants(hour), "n": pa.array([hour])}, f"data/stats/{hour}.parquet")
        for hour in range(4)
    ]
    source = opened(repo)
    scan = scan_of(source, needed("n"))
    for path in (paths[0], paths[3]):
        path.write_bytes(b"no longer Parquet")
    assert rows_of(source, needed("n"), scan.within(1, 2)).column("n").to_pylist() == [1, 2]


def test_positions_in_the_source_stay_what_they_were(repo: Path) -> None:
    for number in range(6):
        table = pa.table({"event_timestamp": instants(number, number), "n": pa.array([number] * 2, pa.int64())})
        if number % 2:
            table = table.set_column(1, "n", table.column("n").cast(pa.int32()))
        (repo / "data/stats").mkdir(exist_ok=True)
        pq.write_table(table, repo / f"data/stats/{number}.parquet")
    scan = scan_of(opened(repo), needed("n"))
    assert [group.positions for group in scan.groups] == [(0, 2, 4), (1, 3, 5)]
    kept = scan.within(1, 4)
    assert [group.positions for group in kept.groups] == [(2, 4), (1, 3)]
    # The type is that of all files, whichever are read.
    alone = rows_of(opened(repo), needed("n"), scan.within(1, 1))
    assert alone.schema.field("n").type == pa.int64()
    assert alone.column("n").to_pylist() == [1, 1]


def test_without_a_file_within_the_bounds_the_columns_are_still_known(repo: Path) -> None:
    write(repo, {"event_timestamp": instants(5), "n": pa.array([1], pa.int16())}, "data/stats/a.parquet")
    scan = scan_of(opened(repo), needed("n")).within(6, 9)
    assert len(scan.paths) == 1
    assert rows_of(opened(repo), needed("n"), scan).schema.field("n").type == pa.int16()


@pytest.mark.parametrize(("low", "high", "expected"), [(None, None, False), (5, None, False), (None, 5, False)])
def test_a_file_without_times_holds_nothing_within_bounds(low: int | None, high: int | None, expected: bool) -> None:
    assert EventRange(1, 0).meets(low, high) is expected
