"""Keys of entity rows are compared exactly with a source's, whatever type either side has, or refused by name."""

from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Int64
from feast.value_type import ValueType

from store.errors import SourceUnreadable, WrongType
from tests.offline.feature_stores import DRIVER, driver_view, instants, store_with, write

HOUR = 3_600_000_000
FEATURES = ["driver_stats:trips"]
ONE = UUID("0123abcd-4567-89ab-cdef-0123456789ab")


def found(repo: Path, source: pa.Array, asked: pa.Array) -> list[Any]:
    """Returns for each asked key the place of its row in the source."""
    places = pa.array(range(len(source)))
    write(repo, {"driver_id": source, "event_timestamp": instants(*[HOUR] * len(source)), "trips": places})
    store = store_with(repo, [DRIVER, driver_view()])
    return answers(store, pa.table({"driver_id": asked, "event_timestamp": instants(*[HOUR] * len(asked))}))


def answers(store: FeatureStore, rows: pa.Table) -> list[Any]:
    places: list[Any] = store.get_historical_features(rows, FEATURES).to_arrow().column("trips").to_pylist()
    return places


def decimals(kind: pa.DataType, *values: str | None) -> pa.Array:
    return pa.array([None if value is None else Decimal(value) for value in values], kind)


@pytest.mark.parametrize(
    ("source", "asked", "expected"),
    [
        ([2.0**53, -5.0, 2.0**63], pa.array([2**53 + 1, 2**53, -5, 2**63 - 1, None]), [None, 0, 1, None, None]),
        ([2.0**63, 2.0**64], pa.array([2**63, 2**63 + 1, 2**64 - 1], pa.uint64()), [0, None, None]),
        (pa.array([0.5, 7.0], pa.float32()), pa.array([7, 0, 2**24 + 1]), [1, None, None]),
        ([float("nan"), 0.0], [float("nan"), -0.0, None], [None, 1, None]),
        (pa.array([1.5], pa.float16()), pa.array([1.5, 2.5], pa.float16()), [0, None]),
        (pa.array([2**63 + 2048, 7], pa.uint64()), [2.0**63 + 2048, 7.0, -7.0, 2.0**64], [0, 1, None, None]),
        ([-(2**63), 7], [-(2.0**63), 2.0**63, 1e300, float("nan")], [0, None, None, None]),
    ],
)
def test_integers_and_floats_meet_only_where_they_are_equal(
    repo: Path, source: Any, asked: Any, expected: list[Any]
) -> None:
    assert found(repo, pa.array(source), pa.array(asked)) == expected


@pytest.mark.parametrize(
    "kind", [pa.decimal32(5, 1), pa.decimal64(12, 2), pa.decimal128(20, 1), pa.decimal256(30, 1)], ids=str
)
@pytest.mark.parametrize("source", [decimals(pa.decimal128(38, 10), "1", "2.5"), pa.array([1, 2])], ids=["38", "int"])
def test_decimals_of_any_width_are_keys(repo: Path, kind: pa.DataType, source: pa.Array) -> None:
    has_fractions = source.type != pa.int64()
    assert found(repo, source, decimals(kind, "2.5", None, "1", "3")) == [1 if has_fractions else None, None, 0, None]


@pytest.mark.parametrize(
    ("source", "asked", "expected"),
    [
        (
            decimals(pa.decimal128(38, 10), "1", "2.5"),
            decimals(pa.decimal128(38, 0), "1", "1e35", None),
            [0, None, None],
        ),
        (decimals(pa.decimal128(38, 0), "1e35", "7"), decimals(pa.decimal128(38, 10), "7", "7.5"), [1, None]),
        (decimals(pa.decimal128(38, 30), "1", "2.5"), pa.array([2**62, 1]), [None, 0]),
        (pa.array([2**62, 1]), decimals(pa.decimal128(38, 30), "1", "1.5"), [1, None]),
        (pa.array([5, 1], pa.int8()), decimals(pa.decimal128(38, 37), "5", "-5"), [0, None]),
    ],
)
def test_numbers_that_no_decimal_holds_together_are_compared_too(
    repo: Path, source: pa.Array, asked: pa.Array, expected: list[Any]
) -> None:
    assert found(repo, source, asked) == expected


UUIDS = pa.array([ONE.bytes, UUID(int=7).bytes], pa.uuid())


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (pa.array([UUID(int=7).bytes, None, ONE.bytes, UUID(int=8).bytes], pa.uuid()), [1, None, 0, None]),
        (pa.array([str(ONE), str(ONE).upper(), ONE.hex, None, str(UUID(int=8))]), [0, 0, 0, None, None]),
        (pa.nulls(2, pa.uuid()), [None, None]),
        (pa.nulls(1, pa.float64()), [None]),
    ],
)
def test_uuids_are_keys_as_themselves_and_as_text(repo: Path, asked: pa.Array, expected: list[Any]) -> None:
    assert found(repo, UUIDS, asked) == expected


def test_a_uuid_is_a_part_of_a_key(repo: Path) -> None:
    places = {"event_timestamp": instants(HOUR, HOUR, HOUR), "trips": pa.array([0, 1, 2])}
    write(repo, {"a": UUIDS.take(pa.array([0, 0, 1])), "b": pa.array([1, 2, 1]), **places})
    entities = [Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in ("a", "b")]
    source = FileSource(name="s", path="data/stats.parquet", timestamp_field="event_timestamp")
    view = FeatureView(
        name="driver_stats", entities=entities, ttl=None, schema=[Field(name="trips", dtype=Int64)], source=source
    )
    rows = {"a": UUIDS.take(pa.array([1, 1, 0])), "b": pa.array([1, 2, 2]), "event_timestamp": instants(*[HOUR] * 3)}
    store = store_with(repo, [*entities, view])
    assert answers(store, pa.table(rows)) == [2, None, 1]


def test_bytes_in_any_layout_are_keys(repo: Path) -> None:
    source = pa.array([b"\0", b"ab"])
    for layout in (pa.binary(), pa.large_binary(), pa.binary_view()):
        assert found(repo, source, pa.array([b"ab", None, b"\0", b""], layout)) == [1, None, 0, None]


def test_a_source_whose_keys_are_all_null_answers_no_text(repo: Path) -> None:
    assert found(repo, pa.nulls(1), pa.array(["a", None])) == [None, None]


@pytest.mark.parametrize(
    ("source", "asked", "words"),
    [
        (UUIDS, pa.array([str(ONE), "nobody"]), "'driver_id' holds 'nobody', which is no UUID"),
        (UUIDS, pa.array([ONE.bytes]), "'driver_id' has type binary, the source has extension<arrow.uuid>"),
        (pa.array([str(ONE)]), UUIDS, "'driver_id' has type extension<arrow.uuid>, the source has string"),
        (pa.array([1]), pa.array([np.inf]), "no integers, such as inf"),
        (pa.array([1]), pa.array([1.0, 2.5, None]), "no integers, such as 2.5"),
        (pa.array([1]), decimals(pa.decimal256(50, 0), "1"), r"'driver_id' has type decimal256\(50, 0\)"),
        (pa.array([1]), pa.array([{"a": 1}]), "'driver_id' has type struct"),
    ],
)
def test_keys_that_cannot_be_compared_are_refused_before_any_work(
    repo: Path, source: pa.Array, asked: pa.Array, words: str
) -> None:
    write(repo, {"driver_id": source, "event_timestamp": instants(*[HOUR] * len(source)), "trips": source})
    store = store_with(repo, [DRIVER, driver_view()])
    rows = pa.table({"driver_id": asked, "event_timestamp": instants(*[HOUR] * len(asked))})
    with pytest.raises(WrongType, match=words):
        store.get_historical_features(rows, FEATURES)


@pytest.mark.parametrize("key", [pa.array([{"a": 1}]), pa.array([[1]])], ids=["struct", "list"])
def test_a_nested_key_of_a_source_is_refused_before_any_work(repo: Path, key: pa.Array) -> None:
    write(repo, {"driver_id": key, "event_timestamp": instants(HOUR), "trips": pa.array([1])})
    store = store_with(repo, [DRIVER, driver_view()])
    rows = pa.table({"driver_id": key, "event_timestamp": instants(HOUR)})
    with pytest.raises(SourceUnreadable, match=r"join key column 'driver_id' .* expected a single value"):
        store.get_historical_features(rows, FEATURES)
