"""The newest event of a source is what going through all its rows gives, whatever its footers tell."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from feast.data_format import DeltaFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from store.clock import to_us
from store.errors import SourceColumnMissing, SourceUnreadable
from store.offline import newest_event
from store.offline.newest_event import NewestEventReader, NewestEvents
from tests.offline.feature_stores import config_for
from tests.offline.reading import source_at

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW_US = to_us(NOW)
HOUR_US = 3_600_000_000

instants_us = st.one_of(
    st.none(), st.sampled_from([NOW_US - 1, NOW_US, NOW_US + 1]), st.integers(NOW_US - 9 * HOUR_US, NOW_US + HOUR_US)
)
files = st.lists(
    st.tuples(
        st.lists(instants_us, max_size=12),
        st.sampled_from(["s", "ms", "us", "ns", "int96", "date"]),
        st.booleans(),  # with statistics
        st.integers(1, 12),  # rows of a row group
    ),
    min_size=1,
    max_size=4,
)


def stored(times_us: list[int | None], kind: str) -> tuple[Any, list[int | None]]:
    """Returns times as a column of a kind, and what it holds of them in microseconds."""
    per_us = {"s": 1_000_000, "ms": 1_000, "date": 86_400_000_000}.get(kind, 1)
    units = [None if us is None else us // per_us for us in times_us]
    held = [None if unit is None else unit * per_us for unit in units]
    if kind == "date":
        return pa.array(units, pa.int32()).cast(pa.date32()), held
    if kind in {"ns", "int96"}:
        # 999 nanoseconds more: what is told is the whole microsecond below.
        more = 999 if kind == "ns" else 0
        return pa.array([None if us is None else us * 1_000 + more for us in units], pa.timestamp("ns", "UTC")), held
    return pa.array(units, pa.timestamp(kind, "UTC")), held


@settings(max_examples=60)
@given(files, st.integers(-2 * HOUR_US, 2 * HOUR_US))
def test_what_is_told_is_what_all_rows_say(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[list[int | None], str, bool, int]], later_us: int
) -> None:
    repo = tmp_path_factory.mktemp("repo")
    folder = repo / "data" / "stats"
    folder.mkdir(parents=True)
    expected: list[int] = []
    for number, (times_us, kind, has_statistics, group_rows) in enumerate(drawn):
        column, held = stored(times_us, kind)
        expected += [us for us in held if us is not None]
        pq.write_table(
            pa.table({"event_timestamp": column}),
            folder / f"{number}.parquet",
            row_group_size=group_rows,
            write_statistics=has_statistics,
            use_deprecated_int96_timestamps=kind == "int96",
        )
    reader = NewestEventReader()
    # Twice, at different instants: what was kept of files has to be right at the other one as well.
    for now_us in (NOW_US, NOW_US + later_us, NOW_US):
        found = reader.newest(config_for(repo), source_at("data/stats"), now_us)
        past, future = [us for us in expected if us <= now_us], [us for us in expected if us > now_us]
        assert found == NewestEvents(
            max(past, default=None), min(future, default=None), max(future, default=None)
        )  # fmt: skip


def write(path: Path, *hours: float, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = pa.array([NOW + timedelta(hours=hour) for hour in hours], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"event_timestamp": times}), path, **options)


def test_a_file_is_read_once_until_it_changes_or_one_of_its_events_comes(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repo / "data" / "stats.parquet"
    write(path, -3, -2, 1, write_statistics=False)
    original, read = newest_event._times, []

    def counting(*arguments: Any) -> Any:
        read.append(arguments[0].path)
        return original(*arguments)

    monkeypatch.setattr(newest_event, "_times", counting)
    reader, source = NewestEventReader(), source_at("data/stats.parquet")

    def newest(hours: float) -> int | None:
        found = reader.newest(config_for(repo), source, NOW_US + int(hours * HOUR_US)).newest_us
        return None if found is None else (found - NOW_US) // HOUR_US

    assert [newest(0), newest(0.5), newest(-1)] == [-2, -2, -2]
    assert len(read) == 1
    assert newest(1) == 1
    assert len(read) == 2
    write(path, -3, -1, write_statistics=False)
    assert newest(1) == -1
    assert len(read) == 3
    write(path, -3, -1, 0)
    assert newest(1) == 0
    assert len(read) == 3, "its footer tells"


def test_landed_rows_count(repo: Path) -> None:
    write(repo / "data" / "stats.parquet", -5)
    write(repo / "data" / "stats.parquet.landed" / "00000000000000000001-a.parquet", -1)
    found = NewestEventReader().newest(config_for(repo), source_at("data/stats.parquet"), NOW_US)
    assert found.newest_us == NOW_US - HOUR_US


def test_a_delta_table_and_times_in_paths_and_mapped_columns_tell(repo: Path) -> None:
    times = pa.array([NOW - timedelta(hours=2)], pa.timestamp("us", "UTC"))
    write_deltalake(repo / "data" / "table", pa.table({"at": times}))
    reader, config = NewestEventReader(), config_for(repo)
    delta = source_at(
        "data/table", file_format=DeltaFormat(), timestamp_field="event_timestamp",
        field_mapping={"at": "event_timestamp"},
    )  # fmt: skip
    assert reader.newest(config, delta, NOW_US).newest_us == NOW_US - 2 * HOUR_US
    for day in ("2026-02-27", "2026-02-28", "2026-03-09"):
        (repo / "data" / "days" / f"day={day}").mkdir(parents=True)
        pq.write_table(pa.table({"x": [1]}), repo / "data" / "days" / f"day={day}" / "a.parquet")
    days = source_at("data/days", timestamp_field="day")
    found = reader.newest(config, days, NOW_US)
    ends = datetime(2026, 2, 28, tzinfo=UTC), datetime(2026, 3, 9, tzinfo=UTC)
    assert (found.newest_us, found.last_us) == tuple(map(to_us, ends))


def test_an_empty_source_has_no_newest_event(repo: Path) -> None:
    write(repo / "data" / "stats.parquet")
    assert NewestEventReader().newest(config_for(repo), source_at("data/stats.parquet"), NOW_US) == NewestEvents()


def test_what_cannot_be_read_is_named(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, config, path = NewestEventReader(), config_for(repo), repo / "data" / "stats.parquet"
    source = source_at("data/stats.parquet")
    with pytest.raises(SourceUnreadable, match=r"no Parquet file at .*stats\.parquet"):
        reader.newest(config, source, NOW_US)
    write(path, -1)
    with pytest.raises(SourceColumnMissing, match="timestamp field column 'at' is not in source file"):
        reader.newest(config, source_at("data/stats.parquet", timestamp_field="at"), NOW_US)
    pq.write_table(pa.table({"event_timestamp": ["yesterday"]}), path)
    with pytest.raises(SourceUnreadable, match="has type string, expected a timestamp or date"):
        reader.newest(config, source, NOW_US)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(SourceUnreadable, match=r"stats\.parquet' cannot be read as Parquet"):
        reader.newest(config, source, NOW_US)
    # A footer that is whole tells nothing of the pages before it.
    write(path, *range(-500, 0), write_statistics=False, compression="none", use_dictionary=False)
    whole = path.read_bytes()
    path.write_bytes(b"PAR1" + b"\xff" * 300 + whole[304:])
    with pytest.raises(
        SourceUnreadable, match=r"column 'event_timestamp' of source file .*stats\.parquet' cannot be r"
    ):
        reader.newest(config, source, NOW_US)
    monkeypatch.setattr(newest_event, "FRESHNESS_SCAN_ROWS_MAX", 3)
    write(path, -4, -3, -2, write_statistics=False)
    assert reader.newest(config, source, NOW_US).newest_us == NOW_US - 2 * HOUR_US
    write(path, -5, -4, -3, -2, write_statistics=False)
    with pytest.raises(SourceUnreadable, match=r"source 'stats': .* 4 rows are more than the 3 that are read for it"):
        reader.newest(config, source, NOW_US)
