"""Windowed views through the real FeatureStore, Parquet and DuckDB, judged by the plain oracle."""

import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import BatchFeatureView, Entity, FeatureStore, Field, FileSource, PushSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import Array, Float64, Int64, String, UnixTimestamp
from feast.value_type import ValueType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.offline import budget, window_history
from tests.offline.feature_stores import store_with
from tests.oracles.windows import Event, Feature, answer, is_right

KEY_COLUMNS = ("city", "shop")
SOURCE = "data/events"
SECOND_NS = 10**9
TYPES = {"x": Float64, "n": Int64, "s": String, "at": UnixTimestamp}
ARROW = {"x": pa.float64(), "n": pa.int64(), "s": pa.string(), "at": pa.timestamp("us", "UTC"), "b": pa.bool_()}
WINDOWS = ((10, 3), (24, 6))
"""Windows and hops in seconds."""

_NUMERIC = {"count": Int64, "sum": Float64, "mean": Float64, "std": Float64, "approx_percentile_50": Float64}
_OWN = ("min", "max", "first", "last")


def declared() -> Iterator[tuple[Feature, Any]]:
    """Every feature of the views with its type, windows taking turns."""
    shapes = itertools.cycle(WINDOWS)
    for column in ("x", "n", "b"):
        for function, kind in _NUMERIC.items():
            yield Feature(column, function, *next(shapes)), kind
    yield Feature("n", "sum", 24, 3), Int64
    for column, kind in TYPES.items():
        for function in _OWN:
            yield Feature(column, function, *next(shapes)), kind
        yield Feature(column, "last_2", *next(shapes)), Array(kind)
        yield Feature(column, "count_distinct", *next(shapes)), Int64


FEATURES = list(declared())
NAMES = [f"{f.column}_{f.function}_{f.window}_{f.hop}".replace(".", "_") for f, _ in FEATURES]


@dataclass(frozen=True)
class Case:
    """One retrieval: of which view, what it asks, and the events; times in nanoseconds."""

    key_count: int
    has_created: bool
    is_cut: bool
    files: tuple[tuple[str, str | None, tuple[Event, ...]], ...]
    landed_files: int
    unit: str
    rows: tuple[tuple[tuple[Any, ...], int | None], ...]
    block_rows: int
    chunk_rows: int
    is_spilled: bool

    @property
    def view(self) -> str:
        return f"windows_{self.key_count}_{'created' if self.has_created else 'plain'}"


UNIT_NS = {"us": 1_000, "ns": 1}


def times_in(unit: str, seconds: list[int]) -> st.SearchStrategy[int | None]:
    """Instants of which many are equal, or lie a window apart, give or take a hop or a nanosecond; as nanoseconds."""
    left = st.sampled_from([0, 0, 0, 0, 0, 0, 1_000, -1_000, 1, -1, 999])
    apart = st.sampled_from([0, 0, 0, 0, -3, -6, -10, -12, -24, -27, 3])
    step = UNIT_NS[unit]
    times = st.builds(lambda s, d, n: ((s + d) * SECOND_NS + n) // step * step, st.sampled_from(seconds), apart, left)
    return st.one_of(times, times, times, times, times, times, st.none())


KEYS = st.sampled_from([None, 1, *([2] * 8)])
COLUMNS = st.fixed_dictionaries(
    {
        "x": st.sampled_from([None, 0.5, 1e16, 1.0, -1e16, 0.0, -0.0, float("nan"), float("inf"), 2.25]),
        "n": st.sampled_from([None, 1, 2, 3, -4, 2**40]),
        "s": st.sampled_from([None, "", "a", "b", "ä"]),
        "at": st.sampled_from([None, 0, 1, 1_000_001, -5]),
        "b": st.sampled_from([None, True, False]),
    }
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    key_count = draw(st.sampled_from([0, 1, 1, 2]))
    has_created = draw(st.booleans())
    seconds = draw(st.lists(st.integers(-5, 40), min_size=1, max_size=3))
    files = []
    for _ in range(draw(st.integers(1, 3))):
        unit = draw(st.sampled_from(["us", "us", "ns"]))
        created = times_in(unit, seconds) if has_created else st.none()
        event = st.builds(Event, st.tuples(*[KEYS] * key_count), times_in(unit, seconds), created, COLUMNS)
        files.append(
            (
                unit,
                draw(st.sampled_from([None, "UTC"])),
                tuple(draw(st.lists(event, min_size=draw(st.sampled_from([0, 6])), max_size=14))),
            )
        )
    unit = draw(st.sampled_from(["us", "us", "ns"]))
    return Case(
        key_count=key_count,
        has_created=has_created,
        is_cut=draw(st.booleans()),
        files=tuple(files),
        landed_files=draw(st.integers(0, len(files) - 1)),
        unit=unit,
        rows=tuple(
            draw(
                st.lists(
                    st.tuples(st.tuples(*[KEYS] * key_count), times_in(unit, seconds)),
                    min_size=draw(st.sampled_from([0, 5])),
                    max_size=10,
                )
            )
        ),
        block_rows=draw(st.sampled_from([1, 4, 1000])),
        chunk_rows=draw(st.sampled_from([1, 3, 1000])),
        is_spilled=draw(st.booleans()),
    )


def stamps(times: list[int | None], unit: str, zone: str | None) -> pa.Array:
    return pa.array([None if t is None else t // UNIT_NS[unit] for t in times], pa.int64()).cast(
        pa.timestamp(unit, zone)
    )


def write_events(folder: Path, case: Case) -> None:
    landed = folder.with_name(f"{folder.name}.landed")
    for old in (folder, landed):
        shutil.rmtree(old, ignore_errors=True)
        old.mkdir(parents=True)
    own = len(case.files) - case.landed_files
    for number, (unit, zone, events) in enumerate(case.files):
        columns = {
            name: pa.array([event.key[i] for event in events], pa.int64())
            for i, name in enumerate(KEY_COLUMNS[: case.key_count])
        }
        columns["event_timestamp"] = stamps([event.event for event in events], unit, zone)
        if case.has_created:
            columns["created"] = stamps([event.created for event in events], unit, zone)
        for name, kind in ARROW.items():
            columns[name] = pa.array([event.columns[name] for event in events], kind, from_pandas=False)
        place = (folder if number < own else landed) / f"{number:03}.parquet"
        pq.write_table(pa.table(columns), place, row_group_size=4)


def every_view() -> Iterator[BatchFeatureView | StreamFeatureView]:
    entities = [Entity(name=name, join_keys=[name], value_type=ValueType.INT64) for name in KEY_COLUMNS]
    aggregations = [
        Aggregation(
            column=feature.column,
            function=feature.function,
            time_window=timedelta(seconds=feature.window),
            slide_interval=timedelta(seconds=feature.hop),
            name=name,
        )
        for name, (feature, _) in zip(NAMES, FEATURES, strict=True)
    ]
    for key_count, created in itertools.product((0, 1, 2), ("", "created")):
        name = f"windows_{key_count}_{created or 'plain'}"
        source = FileSource(
            name=f"{name}_source", path=SOURCE, timestamp_field="event_timestamp", created_timestamp_column=created
        )
        options: dict[str, Any] = {
            "name": name,
            "entities": entities[:key_count],
            "ttl": timedelta(seconds=1),  # which plays no part
            "online": True,
            "schema": [Field(name=n, dtype=kind) for n, (_, kind) in zip(NAMES, FEATURES, strict=True)]
            + [Field(name=key, dtype=Int64) for key in KEY_COLUMNS[:key_count]],
            "aggregations": aggregations,
        }
        if key_count == 1:
            pushed = PushSource(name=f"{name}_push", batch_source=source)
            yield StreamFeatureView(**options, source=pushed, timestamp_field="event_timestamp")
        else:
            yield BatchFeatureView(**options, source=source)


@pytest.fixture(scope="module")
def every_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FeatureStore]:
    repo = tmp_path_factory.mktemp("repo")
    # Views are applied while a source stands there, since Feast looks into it.
    columns = {name: stamps([0], "us", None) for name in ("event_timestamp", "created")}
    columns |= {name: pa.array([1], pa.int64()) for name in KEY_COLUMNS}
    columns |= {name: pa.nulls(1, kind) for name, kind in ARROW.items()}
    (repo / SOURCE).mkdir(parents=True)
    pq.write_table(pa.table(columns), repo / SOURCE / "0.parquet")
    entities = [Entity(name=name, join_keys=[name], value_type=ValueType.INT64) for name in KEY_COLUMNS]
    return repo, store_with(repo, [*entities, *every_view()], threads=2, spill_folder="spilled")


def microseconds(event: Event) -> Event:
    """An event with its times in microseconds, as the oracle has them."""
    event_us, created_us = (None if t is None else Fraction(t, 1_000) for t in (event.event, event.created))
    return Event(event.key, event_us, created_us, event.columns)


def check_retrieval(every_store: tuple[Path, FeatureStore], case: Case) -> None:
    repo, store = every_store
    write_events(repo / SOURCE, case)
    columns = {
        name: pa.array([key[i] for key, _ in case.rows], pa.int64())
        for i, name in enumerate(KEY_COLUMNS[: case.key_count])
    }
    columns["event_timestamp"] = stamps([time for _, time in case.rows], case.unit, "UTC")
    rows = pa.table(columns | {"k0": pa.array([f"extra {i}" for i in range(len(case.rows))])})
    job = store.get_historical_features(
        entity_df=rows,
        features=[f"{case.view}:{name}" for name in NAMES],
        filter_by_created_timestamp=case.is_cut,
    )
    with (
        mock.patch.object(budget, "BLOCK_ROWS_MAX", case.block_rows),
        mock.patch.object(budget, "_EVENT_SHARE", 0 if case.is_spilled else 0.1),
        mock.patch.object(window_history, "CHUNK_ROWS", case.chunk_rows),
    ):
        found = job.to_arrow()
    assert found.select(rows.column_names).equals(rows)
    events = [microseconds(event) for _, _, events in case.files for event in events]
    for name, (declared_feature, _) in zip(NAMES, FEATURES, strict=True):
        feature = Feature(
            declared_feature.column,
            declared_feature.function,
            declared_feature.window * 1_000_000,
            declared_feature.hop * 1_000_000,
        )
        for (key, time), answered in zip(case.rows, plain(found.column(name)), strict=True):
            at = None if time is None else Fraction(time, 1_000)
            expected = answer(events, key, at, feature, case.is_cut and case.has_created)
            assert is_right(answered, expected, feature), (name, key, time, answered, expected)


def plain(column: pa.ChunkedArray) -> list[Any]:
    """Values as Python has them; timestamps as microseconds."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return column.cast(pa.int64()).to_pylist()
    if pa.types.is_list(kind) and pa.types.is_timestamp(kind.value_type):
        return column.cast(pa.list_(pa.int64())).to_pylist()
    return column.to_pylist()


COMMON: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}


@settings(max_examples=25, **COMMON)
@given(case=cases())
def test_every_entity_row_gets_the_aggregates_of_its_own_windows(
    every_store: tuple[Path, FeatureStore], case: Case
) -> None:
    check_retrieval(every_store, case)


@pytest.mark.long
@settings(max_examples=int(os.environ.get("LARDER_LONG_EXAMPLES", "3000")), **COMMON)
@given(case=cases())
def test_every_entity_row_gets_the_aggregates_of_its_own_windows_in_full(
    every_store: tuple[Path, FeatureStore], case: Case
) -> None:
    check_retrieval(every_store, case)


def test_types_are_those_declared(every_store: tuple[Path, FeatureStore]) -> None:
    repo, store = every_store
    write_events(repo / SOURCE, Case(1, False, False, (("us", "UTC", ()),), 0, "us", (), 1000, 1000, is_spilled=False))
    rows = pa.table({"city": pa.array([1]), "event_timestamp": stamps([0], "us", "UTC")})
    answered = store.get_historical_features(
        entity_df=rows, features=[f"windows_1_plain:{name}" for name in NAMES]
    ).to_arrow()
    kinds = {Int64: pa.int64(), Float64: pa.float64(), String: pa.string(), UnixTimestamp: pa.timestamp("us", "UTC")}
    for name, (_, kind) in zip(NAMES, FEATURES, strict=True):
        expected = pa.list_(kinds[kind.base_type]) if isinstance(kind, Array) else kinds[kind]
        assert answered.schema.field(name).type == expected, name
