"""One scan of a source: every type of column as a slow model has it, row by row in its stretch of time."""

import datetime as dt
import math
import uuid
from collections import Counter
from decimal import Decimal
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FileSource

from store.errors import SourceUnreadable
from store.kernel.profiles import Categories, Kind, Moments, Profile
from store.offline import profiling
from store.offline.column_sums import SummedColumn, kind_of
from store.offline.connection import ConnectionSettings
from store.offline.profiling import Extent, SourceScan, column_types, extent_of, summed_stretches
from store.offline.source_columns import needed_columns, scan_of
from store.offline.sources import open_source
from tests.offline.feature_stores import config_for
from tests.oracles import profiles as oracle

DAY_US = 86_400_000_000
START_US = 15_706 * DAY_US


def opened(repo: Path, columns: list[str], threads: int = 2) -> SourceScan:
    file = FileSource(name="rows", path="data/rows", timestamp_field="at")
    config = config_for(repo)
    source = open_source(config, file)
    scan = scan_of(source, needed_columns("rows", file, source, [], columns))
    return SourceScan(source, scan, ConnectionSettings(threads=threads))


def write(repo: Path, table: pa.Table, name: str = "1.parquet", **options: Any) -> None:
    (repo / "data" / "rows").mkdir(exist_ok=True)
    pq.write_table(table, repo / "data" / "rows" / name, **options)


def profiles(repo: Path, columns: list[str], stretches: list[tuple[int, int]], threads: int = 2) -> list[Profile]:
    found = opened(repo, columns, threads)
    kinds = [SummedColumn(name, "x", kind_of(kind)) for name, kind in zip(columns, column_types(found), strict=True)]
    return [table.profile() for table in summed_stretches(found, kinds, stretches)]


def times(*offsets: int | None, unit: str = "us") -> pa.Array:
    stamps = [None if each is None else START_US + each for each in offsets]
    return pa.array(stamps, pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, "UTC"))


VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "int8": (pa.int8(), [-128, 127, None, 5]),
    "int64": (pa.int64(), [-(2**63), 2**63 - 1, None, 5]),
    "uint8": (pa.uint8(), [0, 255, None, 5]),
    "uint64": (pa.uint64(), [0, 2**64 - 1, 2**63, None]),
    "float32": (pa.float32(), [0.5, -1e30, math.nan, None]),
    "float64": (pa.float64(), [0.1, 1e300, math.inf, -math.inf]),
    "decimal": (pa.decimal128(10, 2), [Decimal("1.25"), Decimal("-3.50"), None, Decimal("99999999.99")]),
    "text": (pa.string(), ["", "é", None, "é"]),
    "large_text": (pa.large_string(), ["x" * 300, "a", None, "a"]),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), ["a", "b", None, "a"]),
    "bytes": (pa.binary(), [b"\x00", b"\xff\xfe", None, b"\x00"]),
    "truth": (pa.bool_(), [True, False, None, True]),
    "list": (pa.list_(pa.float64()), [[1.0], [], None, [1.0, 2.0, 3.0]]),
    "stamp": (pa.timestamp("us", "UTC"), [dt.datetime(1969, 12, 31, 23, tzinfo=dt.UTC), None, None, None]),
    "stamp_ns": (pa.timestamp("ns"), [-1, 1_500, None, 1_500]),
    "date": (pa.date32(), [dt.date(1969, 12, 31), dt.date(2013, 1, 1), None, dt.date(2013, 1, 1)]),
    "struct": (pa.struct({"a": pa.int64()}), [{"a": 1}, {"a": None}, None, {"a": 2}]),
    "map": (pa.map_(pa.string(), pa.int64()), [[("a", 1)], [], None, []]),
    "nothing": (pa.float64(), [None] * 4),
}


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    repo = tmp_path_factory.mktemp("typed")
    (repo / "data").mkdir()
    columns = {name: pa.array(values, kind) for name, (kind, values) in VALUES.items()}
    write(repo, pa.table({"at": times(0, 1, 2, 3), **columns}))
    [found] = profiles(repo, list(VALUES), [(START_US, START_US + 4)])
    assert found.rows == 4
    return dict(found.columns)


@pytest.mark.parametrize("name", [name for name in VALUES if kind_of(VALUES[name][0]) is Kind.NUMBER])
def test_numbers_of_every_type_are_summed_up(typed: dict[str, Any], name: str) -> None:
    kind, values = VALUES[name]
    there = [value for value in values if value is not None]
    if pa.types.is_decimal(kind):
        there = [float(value) for value in there]
    if name == "float32":
        there = [float(np.float32(value)) for value in there]
    column, expected = typed[name], oracle.numbers(there)
    numbers = column.numbers
    assert (column.kind, column.rows, column.nulls) == (Kind.NUMBER, 4, 4 - len(there))
    assert dict(zip(numbers.histogram.numbers.tolist(), numbers.histogram.counts.tolist(), strict=True)) == (
        expected.buckets
    )
    assert (numbers.least, numbers.greatest) == (expected.least, expected.greatest)
    assert (numbers.nans, numbers.positive_infinities, numbers.negative_infinities) == (
        expected.nans,
        expected.positive,
        expected.negative,
    )
    assert column.sketch == expected.sketch
    size = max((abs(value) for value in there if math.isfinite(value)), default=0)
    assert expected.mean is None or numbers.mean == pytest.approx(float(expected.mean), rel=1e-12, abs=1e-15 * size)


@pytest.mark.parametrize(
    ("name", "categories", "lengths"),
    [
        ("text", {"": 1, "é": 2}, (0, 1)),
        ("dictionary", {"a": 2, "b": 1}, (1, 1)),
        ("bytes", {"00": 2, "fffe": 1}, (1, 2)),
        ("truth", {"true": 2, "false": 1}, None),
    ],
)
def test_texts_truths_and_bytes_are_counted(
    typed: dict[str, Any], name: str, categories: dict[str, int], lengths: tuple[int, int] | None
) -> None:
    column = typed[name]
    assert (column.kind, column.nulls, column.distinct) == (Kind.CATEGORY, 1, len(categories))
    assert column.categories == Categories(categories)
    assert (column.lengths and (column.lengths.least, column.lengths.greatest)) == lengths


def test_long_texts_are_shortened_and_measured_whole(typed: dict[str, Any]) -> None:
    column = typed["large_text"]
    assert column.lengths.greatest == 300
    assert max(map(len, column.categories.counts)) == 200


def test_lists_are_told_by_their_sizes(typed: dict[str, Any]) -> None:
    column = typed["list"]
    assert (column.kind, column.nulls) == (Kind.LIST, 1)
    assert (column.lengths.least, column.lengths.greatest, column.lengths.finite) == (0, 3, 3)


@pytest.mark.parametrize(
    ("name", "first", "last", "distinct"),
    [
        ("stamp", -3_600_000_000, -3_600_000_000, 1),
        ("stamp_ns", -1, 1, 2),
        ("date", -DAY_US, 15_706 * DAY_US, 2),
    ],
)
def test_instants_have_a_first_and_a_last(
    typed: dict[str, Any], name: str, first: int, last: int, distinct: int
) -> None:
    assert typed[name].moments == Moments(first, last)
    assert typed[name].distinct == distinct


@pytest.mark.parametrize("name", ["struct", "map"])
def test_of_what_is_not_summed_up_nulls_are_counted(typed: dict[str, Any], name: str) -> None:
    assert (typed[name].kind, typed[name].rows, typed[name].nulls) == (Kind.OPAQUE, 4, 1)
    assert "not summed up" in typed[name].skipped


def test_uuids_are_categories(repo: Path) -> None:
    known = uuid.UUID(int=7)
    column = pa.array([known.bytes, None], pa.uuid())
    write(repo, pa.table({"at": times(0, 1), "id": column}))
    [found] = profiles(repo, ["id"], [(START_US, START_US + 2)])
    assert found.columns["id"].categories == Categories({str(known): 1})


# --- stretches of time --------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_row_is_in_the_stretch_of_its_time(
    repo: Path, order: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(5)
    at = np.sort(chance.integers(0, 10 * DAY_US, 6_000))
    if order == "shuffled":
        chance.shuffle(at)
    value, text = chance.normal(size=6_000), chance.integers(0, 9, 6_000).astype(str)
    for part in range(3):
        rows = slice(part * 2_000, part * 2_000 + 2_000)
        table = pa.table({"at": times(*at[rows].tolist()), "value": value[rows], "text": text[rows]})
        write(repo, table, f"{part}.parquet", row_group_size=500)
    # A gap between two stretches, and rows before and after all of them.
    days = [(1, 2), (2, 3), (5, 7), (7, 9)]
    stretches = [(START_US + low * DAY_US, START_US + high * DAY_US) for low, high in days]
    monkeypatch.setattr(profiling, "PROFILE_SUMS_MAX", 4)
    found = profiles(repo, ["value", "text"], stretches, threads)
    for profile, (low, high) in zip(found, days, strict=True):
        inside = (at >= low * DAY_US) & (at < high * DAY_US)
        assert profile.rows == inside.sum()
        expected = oracle.numbers(value[inside].tolist())
        numbers = profile.columns["value"].numbers
        assert numbers is not None
        assert (numbers.least, numbers.greatest) == (expected.least, expected.greatest)
        assert profile.columns["value"].sketch == expected.sketch
        assert profile.columns["text"].categories == Categories(dict(Counter(text[inside].tolist())))
    whole = profiles(repo, ["value", "text"], [(stretches[2][0], stretches[3][1])], threads)[0]
    merged = reduce(Profile.merge, found[2:])
    for name in ("value", "text"):
        assert merged.columns[name].sketch == whole.columns[name].sketch
        assert merged.columns[name].categories == whole.columns[name].categories
    assert merged.columns["value"].numbers.histogram == whole.columns["value"].numbers.histogram  # type: ignore[union-attr]


def test_a_stretch_without_rows_is_an_empty_profile(repo: Path) -> None:
    write(repo, pa.table({"at": times(0), "value": [1.5]}))
    [found] = profiles(repo, ["value"], [(START_US + DAY_US, START_US + 2 * DAY_US)])
    column = found.columns["value"]
    assert (found.rows, column.rows, column.nulls, column.distinct) == (0, 0, 0, 0)
    assert column.numbers is not None
    assert (column.numbers.finite, column.numbers.least, column.numbers.quantile(0.5)) == (0, None, None)


def test_ends_of_a_stretch_count_as_they_are_said_to(repo: Path) -> None:
    write(repo, pa.table({"at": times(0, 9, 10), "value": [1.0, 2.0, 3.0]}))
    [found] = profiles(repo, ["value"], [(START_US, START_US + 10)])
    assert found.columns["value"].numbers.greatest == 2.0  # type: ignore[union-attr]


def test_the_extent_of_a_source_tells_rows_without_a_time(repo: Path) -> None:
    write(repo, pa.table({"at": times(5, None, 7), "value": [1.0, 2.0, 3.0]}))
    assert extent_of(opened(repo, ["value"])) == Extent(START_US + 5, START_US + 7, 1)
    write(repo, pa.table({"at": times(None), "value": [1.0]}))
    assert extent_of(opened(repo, ["value"])) == Extent(None, None, 1)


def test_what_fails_in_one_thread_is_raised_and_ends_the_others(repo: Path) -> None:
    write(repo, pa.table({"at": times(*range(3_000)), "value": np.arange(3_000.0)}), row_group_size=100)
    found = opened(repo, ["value"])
    path = repo / "data" / "rows" / "1.parquet"
    content = bytearray(path.read_bytes())
    content[2_000:6_000] = bytes(4_000)
    path.write_bytes(content)
    with pytest.raises(SourceUnreadable, match=r"1\.parquet"):
        summed_stretches(found, [SummedColumn("value", "Float64", Kind.NUMBER)], [(START_US, START_US + 3_000)])
