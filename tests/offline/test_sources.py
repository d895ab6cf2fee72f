"""Where the files of a source are found: files, folders, globs, partitions, and what is not there or not allowed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.errors import SourceColumnMissing, SourceUnreadable
from store.offline import footers
from store.offline.footers import read_footers
from store.offline.landed_files import ScratchFile, publish_next
from store.offline.source_columns import scan_of
from tests.offline.feature_stores import DRIVER, driver_view, instants, store_with, write
from tests.offline.reading import needed, opened, rows_of, values_of


def put(repo: Path, path: str, *numbers: int, **columns: Any) -> Path:
    given = {"event_timestamp": instants(*numbers), "n": pa.array(numbers, pa.int64())} | columns
    return write(repo, {name: column for name, column in given.items() if column is not None}, path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/stats/a.parquet", [1]),
        ("data/stats", [1, 2, 3]),
        ("data/stats/", [1, 2, 3]),
        ("data/stats/*.parquet", [1, 2]),
        ("data/stats/**/*.parquet", [1, 2, 3]),
        ("data/stats/**", [1, 2, 3]),
        ("data/**/?.parquet", [1, 2, 3]),
        ("data/*/[!a].parquet", [2]),
        ("data/stats/deep/**/c.parquet", [3]),
    ],
)
def test_a_file_a_folder_and_a_glob_hold_their_files_in_path_order(repo: Path, path: str, expected: list[int]) -> None:
    put(repo, "data/stats/a.parquet", 1)
    put(repo, "data/stats/b.parquet", 2)
    put(repo, "data/stats/deep/er/c.parquet", 3)
    assert values_of(repo, "n", path) == expected


@pytest.mark.parametrize("path", ["data/stats", "data/stats/**/*.parquet", "data/**/*.parquet"])
def test_scratch_hidden_and_landed_files_of_others_are_no_part_of_a_source(repo: Path, path: str) -> None:
    put(repo, "data/stats/a.parquet", 1)
    (repo / "data/stats/.b.parquet").write_bytes(b"half")
    for other in ("data/stats/a.parquet.landed", "data/stats/.hidden"):
        put(repo, f"{other}/00000000000000000001-0000000000000000.parquet", 9)
    assert values_of(repo, "n", path) == [1]


@pytest.mark.parametrize("path", ["data/**/*.parquet", "data/stats", "data/stats/a.parquet"])
def test_landed_files_of_a_source_count_once_and_stand_last(repo: Path, path: str) -> None:
    put(repo, "data/stats/a.parquet", 1)
    landed = opened(repo, path).path.replace("*", "_") + ".landed"
    scratch = ScratchFile(Path(landed))
    pq.write_table(pa.table({"event_timestamp": instants(2), "n": [2]}), scratch.file)
    scratch.sync()
    publish_next(scratch, 0)
    assert values_of(repo, "n", path) == [1, 2]


def test_landed_files_alone_can_be_asked_for_by_their_folder(repo: Path) -> None:
    put(repo, "data/stats.landed/00000000000000000001-0000000000000000.parquet", 9)
    for path in ("data/stats.landed", "data/*.landed/*.parquet"):
        assert values_of(repo, "n", path) == [9]


def test_a_link_to_a_folder_is_followed_and_one_that_leads_back_is_refused(repo: Path) -> None:
    put(repo, "elsewhere/a.parquet", 1)
    put(repo, "data/stats/b.parquet", 2)
    (repo / "data/stats/linked").symlink_to(repo / "elsewhere")
    assert sorted(values_of(repo, "n")) == [1, 2]
    (repo / "data/stats/back").symlink_to(repo / "data/stats")
    with pytest.raises(SourceUnreadable, match=r"'.*/back/back'.*link"):
        opened(repo)


@pytest.mark.parametrize(
    "path", ["data/none", "data/none.parquet", "data/none/*.parquet", "data/none/**", "data/empty"]
)
def test_nothing_there_is_refused_with_the_declared_path(repo: Path, path: str) -> None:
    (repo / "data/empty").mkdir()
    (repo / "data/empty/readme.txt").write_text("no Parquet")
    with pytest.raises(SourceUnreadable) as caught:
        opened(repo, path)
    assert f"{path!r}" in str(caught.value)
    assert str(repo / path) in str(caught.value)


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Runs the block without root's power to read anything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    "path", ["data/stats", "data/stats/**/*.parquet", "data/stats/*/*.parquet", "data/stats/in/a.parquet"]
)
@pytest.mark.parametrize("closed", ["data/stats/in", "data/stats/in/a.parquet"])
def test_what_may_not_be_read_is_refused_by_name_and_never_left_out(path: str, closed: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder)
        repo.chmod(0o755)
        put(repo, "data/stats/in/a.parquet", 1)
        put(repo, "data/stats/out/b.parquet", 2)
        (repo / closed).chmod(0)
        try:
            with as_somebody_else(), pytest.raises(SourceUnreadable, match=f"{closed}.*Permission denied"):
                opened(repo, path)
        finally:
            (repo / closed).chmod(0o755)


def test_a_file_cut_in_the_middle_is_refused_by_name_though_it_was_whole_before(repo: Path) -> None:
    put(repo, "data/stats/a.parquet", 1)
    path = put(repo, "data/stats/b.parquet", *range(1_000))
    assert opened(repo).rows == 1_001
    content = path.read_bytes()
    for size in (0, 4, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(SourceUnreadable, match=r"stats/b\.parquet"):
            opened(repo)


def test_a_file_that_has_changed_is_read_anew_and_one_that_has_not_is_not(repo: Path) -> None:
    path = put(repo, "data/stats/a.parquet", 1)
    # Long ago enough for the time to say that the file has not changed since it was read.
    cache = footers._footer
    settled = footers.SETTLED_NS
    footers.SETTLED_NS = 0
    try:
        cache.cache_clear()
        first = read_footers([str(path)] * 2)
        assert (cache.cache_info().misses, cache.cache_info().hits) == (1, 1)
        assert first[0] is first[1]
        put(repo, "data/stats/a.parquet", 5)
        [second] = read_footers([str(path)])
        assert second.ranges["event_timestamp"].low_us == 5
    finally:
        footers.SETTLED_NS = settled


def test_a_file_written_a_moment_ago_is_read_each_time(repo: Path) -> None:
    path = put(repo, "data/stats/a.parquet", 1)
    footers._footer.cache_clear()
    for number in range(2, 20):
        # The same length, and maybe the same tick of the file system's clock.
        put(repo, "data/stats/a.parquet", number)
        [footer] = read_footers([str(path)])
        assert footer.ranges["event_timestamp"].low_us == number


def test_files_of_equal_columns_share_what_is_known_of_them(repo: Path) -> None:
    for number in range(5):
        put(repo, f"data/stats/{number}.parquet", number)
    source = opened(repo)
    assert len({id(file.schema) for file in source.files}) == 1
    [group] = scan_of(source, needed("n")).groups
    assert group.rows == (1,) * 5


def partitioned(repo: Path) -> None:
    put(repo, "data/stats/city=Rome/date=2024-01-01/a.parquet", 1)
    put(repo, "data/stats/city=Rome/date=2024-01-02/a.parquet", 2)
    put(repo, "data/stats/city=S%C3%A3o%20Paulo%2F1/date=2024-01-02/b.parquet", 3, 4)
    put(repo, "data/stats/city=__HIVE_DEFAULT_PARTITION__/date=2024-01-03/c.parquet", 5)


@pytest.mark.parametrize("path", ["data/stats", "data/stats/**/*.parquet", "data/stats/*/*/*.parquet"])
def test_partitions_are_columns_as_text(repo: Path, path: str) -> None:
    partitioned(repo)
    found = rows_of(opened(repo, path), needed("city", "date", "n", keys=("city",)))
    rows = [(row["n"], row["city"], row["date"]) for row in found.to_pylist()]
    assert sorted(rows) == [
        (1, "Rome", "2024-01-01"), (2, "Rome", "2024-01-02"), (3, "São Paulo/1", "2024-01-02"),
        (4, "São Paulo/1", "2024-01-02"), (5, None, "2024-01-03"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "02", "-3"], [1, 2, -3]),
        (["1", "two"], ["1", "two"]),
        (["1.5", "2"], ["1.5", "2"]),
        (["9" * 18, "__HIVE_DEFAULT_PARTITION__"], [int("9" * 18), None]),
        (["9" * 19], ["9" * 19]),
        (["it's", "a=b"], ["it's", "a=b"]),
    ],
)
def test_partitions_are_integers_where_all_values_are(repo: Path, values: list[str], expected: list[Any]) -> None:
    for number, value in enumerate(values):
        put(repo, f"data/stats/part={value}/{number}.parquet", number)
    found = rows_of(opened(repo), needed("part", "n")).to_pylist()
    assert [row["part"] for row in sorted(found, key=lambda row: int(row["n"]))] == expected


def test_a_partition_can_be_join_key_and_feature_of_a_training_set(repo: Path) -> None:
    for driver in (1, 2):
        put(repo, f"data/stats/driver_id={driver}/month=0{driver}/a.parquet", driver)
    store = store_with(repo, [DRIVER, driver_view("data/stats", field_mapping={"month": "trips"})])
    given = pa.table({"driver_id": [2, 1, 3], "event_timestamp": instants(9, 9, 9)})
    answer = store.get_historical_features(given, ["driver_stats:trips"]).to_arrow()
    assert answer.column("trips").to_pylist() == [2, 1, None]


def test_a_partition_can_be_the_event_time_and_files_are_left_out_by_it(repo: Path) -> None:
    days = ["2024-01-01", "2024-01-02T12:00:00+02:00", "1969-12-31", "__HIVE_DEFAULT_PARTITION__"]
    for number, day in enumerate(days):
        put(repo, f"data/stats/date={day}/{number}.parquet", number, event_timestamp=None)
    source = opened(repo, timestamp_field="date")
    scan = scan_of(source, needed("n", event="date"))
    second, day_us = 1_000_000, 86_400_000_000
    first = 1_704_067_200 * second
    expected = {0: first, 1: first + day_us + 36_000 * second, 2: -day_us, 3: None}
    found = rows_of(source, needed("n", event="date"), scan).to_pylist()
    assert {row["n"]: row["e"] and row["e"] // 1_000 for row in found} == expected
    assert [Path(path).name for path in scan.within(first, first).paths] == ["0.parquet"]
    assert [Path(path).name for path in scan.within(None, first - 1).paths] == ["2.parquet"]
    (repo / "data/stats/date=soon").mkdir()
    put(repo, "data/stats/date=soon/a.parquet", 1, event_timestamp=None)
    with pytest.raises(SourceUnreadable, match=r"'date'.*date=soon.*'soon'"):
        scan_of(opened(repo, timestamp_field="date"), needed("n", event="date"))


def test_a_column_in_the_file_stands_before_one_of_the_path(repo: Path) -> None:
    put(repo, "data/stats/city=1/a.parquet", 1, city=pa.array([7]))
    put(repo, "data/stats/city=2/b.parquet", 2)
    assert values_of(repo, "city") == [7, 2]


def test_a_file_outside_the_partitions_lacks_their_column(repo: Path) -> None:
    put(repo, "data/stats/city=1/a.parquet", 1)
    put(repo, "data/stats/b.parquet", 2)
    with pytest.raises(SourceColumnMissing, match=r"'city' is not in source file '.*stats/b\.parquet'"):
        values_of(repo, "city")
    assert sorted(values_of(repo, "n")) == [1, 2]


def test_signs_in_the_declared_path_itself_are_no_partition(repo: Path) -> None:
    put(repo, "data/env=prod/stats/a.parquet", 1)
    assert opened(repo, "data/env=prod/stats").files[0].schema.names == ["event_timestamp", "n"]


def test_a_column_that_one_file_lacks_is_refused_by_the_name_of_that_file(repo: Path) -> None:
    put(repo, "data/stats/a.parquet", 1, m=pa.array([1]))
    put(repo, "data/stats/b.parquet", 2)
    with pytest.raises(SourceColumnMissing, match=r"feature column 'm' is not in source file '.*b\.parquet'"):
        values_of(repo, "m")
