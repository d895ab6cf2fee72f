"""Random tables through the real FeatureStore, Parquet and DuckDB, judged by the plain oracle."""

import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Int64, String
from feast.value_type import ValueType
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from store.offline import budget, searches
from tests.offline.feature_stores import store_with
from tests.oracles.point_in_time import EntityRow, SourceRow, answers

UNIT_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
TTLS = {"forever": None, "zero": timedelta(0), "second": timedelta(seconds=1), "micro": timedelta(microseconds=2)}
KEY_COLUMNS = ("city", "shop")
YEAR_1_NS, YEAR_9999_NS = -62_135_596_800 * 10**9, 253_402_300_799 * 10**9
SECOND, MICRO = 10**9, 10**3
POOL = (0, SECOND, SECOND, 2 * SECOND, 2 * MICRO, SECOND + 2 * MICRO, MICRO, 1, -1, SECOND + 1, SECOND - 1, -SECOND)
SOURCE = "data/source"


@dataclass(frozen=True)
class Case:
    """One retrieval: what it asks, of which view, and the rows on both sides with times in nanoseconds."""

    key_count: int
    ttl: str
    has_created: bool
    is_cut: bool
    files: tuple[tuple[str, str | None, tuple[SourceRow, ...]], ...]
    landed_files: int
    entity_unit: str
    entity_zone: str | None
    is_pandas: bool
    entity_rows: tuple[EntityRow, ...]
    block_rows: int
    chunk_rows: int

    @property
    def view(self) -> str:
        return f"view_{self.key_count}_{self.ttl}_{'created' if self.has_created else 'plain'}"

    @property
    def source_rows(self) -> list[SourceRow]:
        return [row for _, _, rows in self.files for row in rows]


def instants_in(unit: str, is_far: bool = True) -> st.SearchStrategy[int | None]:
    """Instants of which many are equal, or apart by exactly a ttl, give or take a nanosecond; as nanoseconds."""
    step = UNIT_NS[unit]
    near = sorted({instant // step * step for instant in POOL})
    far = [] if unit == "ns" or not is_far else [YEAR_1_NS, YEAR_9999_NS]
    return st.sampled_from([None, *near, *near, *far])


def created_in(unit: str) -> st.SearchStrategy[int | None]:
    """Created times: few different ones, so that rows of one event time differ in them or not, or have none."""
    step = UNIT_NS[unit]
    return st.sampled_from([None, None, *(instant // step * step for instant in (-SECOND, 0, 1, 2 * MICRO, SECOND))])


KEYS = st.sampled_from([None, 1, 2, 2, 2])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    key_count = draw(st.sampled_from([0, 1, 1, 2]))
    has_created = draw(st.booleans())
    numbers = itertools.count(1)
    files = []
    for _ in range(draw(st.integers(1, 3))):
        unit = draw(st.sampled_from(["us", "us", "ns", "ms", "s"]))
        rows = draw(
            st.lists(
                st.builds(
                    SourceRow,
                    st.tuples(*[KEYS] * key_count),
                    instants_in(unit),
                    created_in(unit) if has_created else st.none(),
                    st.none(),
                ),
                max_size=10,
            )
        )
        numbered = tuple(replace(row, value=next(numbers)) for row in rows)
        files.append((unit, draw(st.sampled_from([None, "UTC", "America/New_York"])), numbered))
    entity_unit = draw(st.sampled_from(["us", "ns", "ms", "s"]))
    is_pandas = draw(st.booleans())
    times = instants_in(entity_unit, is_far=not is_pandas)
    return Case(
        key_count=key_count,
        ttl=draw(st.sampled_from(sorted(TTLS))),
        has_created=has_created,
        is_cut=draw(st.booleans()),
        files=tuple(files),
        landed_files=draw(st.integers(0, len(files) - 1)),
        entity_unit=entity_unit,
        entity_zone=draw(st.sampled_from([None, "UTC", "Asia/Kolkata"])),
        is_pandas=is_pandas,
        entity_rows=tuple(
            draw(st.lists(st.builds(EntityRow, st.tuples(*[KEYS] * key_count), times), min_size=0, max_size=15))
        ),
        # How much is taken at a time: one row, a few, or all.
        block_rows=draw(st.sampled_from([1, 4, 1000])),
        chunk_rows=draw(st.sampled_from([1, 3, 1000])),
    )


def time_column(instants_ns: list[int | None], unit: str, zone: str | None) -> pa.Array:
    counted = [None if instant is None else instant // UNIT_NS[unit] for instant in instants_ns]
    return pa.array(counted, pa.int64()).cast(pa.timestamp(unit, zone))


def write_source(folder: Path, case: Case) -> None:
    landed = folder.with_name(f"{folder.name}.landed")
    for old in (folder, landed):
        shutil.rmtree(old, ignore_errors=True)
        old.mkdir(parents=True)
    own = len(case.files) - case.landed_files
    for number, (unit, zone, rows) in enumerate(case.files):
        columns = {
            name: pa.array([row.key[i] for row in rows], pa.int64())
            for i, name in enumerate(KEY_COLUMNS[: case.key_count])
        }
        columns["event_timestamp"] = time_column([row.event for row in rows], unit, zone)
        if case.has_created:
            columns["created"] = time_column([row.created for row in rows], unit, zone)
        columns["number"] = pa.array([row.value for row in rows], pa.int64())
        columns["rn"] = pa.array([f"row {row.value}" for row in rows], pa.string())
        place = (folder if number < own else landed) / f"{number:03}.parquet"
        pq.write_table(pa.table(columns), place, row_group_size=4)


def entity_table(case: Case) -> pa.Table:
    columns = {
        name: pa.array([row.key[i] for row in case.entity_rows], pa.int64())
        for i, name in enumerate(KEY_COLUMNS[: case.key_count])
    }
    columns["event_timestamp"] = time_column([row.time for row in case.entity_rows], case.entity_unit, case.entity_zone)
    columns["k0"] = pa.array([f"extra {i}" for i in range(len(case.entity_rows))])
    return pa.table(columns)


def every_view() -> Iterator[FeatureView]:
    entities = [Entity(name=name, join_keys=[name], value_type=ValueType.INT64) for name in KEY_COLUMNS]
    for key_count, ttl, created in itertools.product((0, 1, 2), TTLS, ("", "created")):
        name = f"view_{key_count}_{ttl}_{created or 'plain'}"
        yield FeatureView(
            name=name,
            entities=entities[:key_count],
            ttl=TTLS[ttl],
            schema=[Field(name="number", dtype=Int64), Field(name="rn", dtype=String)]
            + [Field(name=key, dtype=Int64) for key in KEY_COLUMNS[:key_count]],
            source=FileSource(
                name=f"{name}_source",
                path=SOURCE,
                timestamp_field="event_timestamp",
                created_timestamp_column=created,
            ),
        )


@pytest.fixture(scope="module")
def every_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FeatureStore]:
    repo = tmp_path_factory.mktemp("repo")
    # Views are applied while a source stands there, since Feast looks into it.
    columns = {"event_timestamp": time_column([0], "us", None), "created": time_column([0], "us", None)}
    columns |= {name: pa.array([1], pa.int64()) for name in ("city", "shop", "number")}
    (repo / SOURCE).mkdir(parents=True)
    pq.write_table(pa.table({**columns, "rn": pa.array(["row 0"])}), repo / SOURCE / "0.parquet")
    entities = [Entity(name=name, join_keys=[name], value_type=ValueType.INT64) for name in KEY_COLUMNS]
    return repo, store_with(repo, [*entities, *every_view()])


def retrieve(store: FeatureStore, case: Case, rows: Any) -> pa.Table:
    job = store.get_historical_features(
        entity_df=rows,
        features=[f"{case.view}:number", f"{case.view}:rn"],
        filter_by_created_timestamp=case.is_cut,
    )
    with (
        mock.patch.object(budget, "BLOCK_ROWS_MAX", case.block_rows),
        mock.patch.object(searches, "CHUNK_ROWS", case.chunk_rows),
    ):
        return job.to_arrow()


def expected(case: Case, source_rows: list[SourceRow]) -> list[Any]:
    ttl = TTLS[case.ttl]
    ttl_ns = 0 if ttl is None else ttl // timedelta(microseconds=1) * 1_000
    return answers(case.entity_rows, source_rows, ttl_ns, case.is_cut and case.has_created)


def check_retrieval(every_store: tuple[Path, FeatureStore], case: Case) -> None:
    repo, store = every_store
    write_source(repo / SOURCE, case)
    given_rows = entity_table(case)
    rows: Any = given_rows.to_pandas() if case.is_pandas else given_rows
    before = rows.copy(deep=True) if case.is_pandas else None
    answer = retrieve(store, case, rows)
    if before is None:
        assert answer.select(given_rows.column_names).equals(given_rows)
    else:
        pd.testing.assert_frame_equal(rows, before)
        for name in set(given_rows.column_names) - {"event_timestamp"}:
            assert answer.column(name).to_pylist() == given_rows.column(name).to_pylist()
    values = expected(case, case.source_rows)
    assert answer.column("number").to_pylist() == values
    assert answer.column("rn").to_pylist() == [None if value is None else f"row {value}" for value in values]
    assert answer.schema.field("number").type == pa.int64()
    assert answer.schema.field("rn").type == pa.string()


def check_future(every_store: tuple[Path, FeatureStore], case: Case) -> None:
    repo, store = every_store
    times = [row.time for row in case.entity_rows if row.time is not None]
    assume(times and abs(max(times)) < 10**15)
    future = max(times) // 10**9 * 10**9 + 2 * 10**9
    write_source(repo / SOURCE, case)
    before = retrieve(store, case, entity_table(case)).column("number")
    late = tuple(SourceRow((2,) * case.key_count, future, future, 1_000 + i) for i in range(2))
    unit, zone, rows = case.files[-1]
    write_source(repo / SOURCE, replace(case, files=(*case.files[:-1], (unit, zone, rows + late))))
    assert retrieve(store, case, entity_table(case)).column("number").equals(before)


COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}
LONG_EXAMPLES = int(os.environ.get("LARDER_LONG_EXAMPLES", "3000"))


@settings(max_examples=100, **COMMON)
@given(case=cases())
def test_every_entity_row_gets_exactly_the_row_known_at_its_time(
    every_store: tuple[Path, FeatureStore], case: Case
) -> None:
    check_retrieval(every_store, case)


@settings(max_examples=30, **COMMON)
@given(case=cases())
def test_a_future_row_changes_no_past_answer(every_store: tuple[Path, FeatureStore], case: Case) -> None:
    check_future(every_store, case)


@pytest.mark.long
@settings(max_examples=LONG_EXAMPLES, **COMMON)
@given(case=cases())
def test_every_entity_row_gets_exactly_the_row_known_at_its_time_in_full(
    every_store: tuple[Path, FeatureStore], case: Case
) -> None:
    check_retrieval(every_store, case)
