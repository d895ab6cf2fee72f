"""Random retrievals that both offline stores can be asked for: repos of one to three views, and entity rows.

Left out is only what `test_differences.py` pins down, where the two stores differ on purpose. Instants are whole
microseconds here, since Feast's store keeps no more; they are written in every unit, with a zone or without.
"""

import itertools
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.types import Int64, String
from feast.value_type import ValueType
from hypothesis import strategies as st

from tests.feast.both_stores import BothStores, both_stores, write_parquet

UNIT_US = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 1}
SECOND = 1_000_000
POOL = (0, SECOND, SECOND, 2 * SECOND, SECOND + 2, SECOND - 2, 1, -1, SECOND + 1, 3 * SECOND, -SECOND)
TTLS = (None, timedelta(0), timedelta(seconds=1), timedelta(microseconds=2), timedelta(days=1))
KEYS = {"city": st.sampled_from([2, 2, 2, 2, 1, None]), "shop": st.sampled_from(["b", "b", "b", "b", "1:b", None])}
KEY_TYPES = {"city": Int64, "shop": String}
ENTITIES = {
    "city": Entity(name="city", join_keys=["city"], value_type=ValueType.INT64),
    "shop": Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING),
}
ALIASES = {"city": "origin", "shop": "origin shop"}


@dataclass(frozen=True)
class Row:
    """A source row; `number` tells it from all others of its view."""

    key: tuple[Any, ...]
    event: int | None
    created: int | None
    number: int


@dataclass(frozen=True)
class View:
    """A feature view and its file.

    `is_mapped`: the file calls its columns differently. `is_aliased`: asked for under another name, and by other
    columns of the entity rows.
    """

    name: str
    keys: tuple[str, ...]
    ttl: timedelta | None
    has_created: bool
    is_mapped: bool
    is_aliased: bool
    unit: str
    zone: str | None
    rows: tuple[Row, ...]

    @property
    def entity_columns(self) -> tuple[str, ...]:
        """The columns of the entity rows that hold this view's keys."""
        return tuple(ALIASES[key] for key in self.keys) if self.is_aliased else self.keys

    @property
    def number(self) -> str:
        """The feature that tells which source row answered."""
        return f"{self.name}_number"

    @property
    def label(self) -> str:
        """A second feature, text derived from the first."""
        return f"{self.name}_label"

    @property
    def asked_as(self) -> str:
        """The name under which the view is asked for."""
        return f"other {self.name}" if self.is_aliased else self.name

    def in_file(self, name: str) -> str:
        """Returns what the file calls a column."""
        return f"file_{name}" if self.is_mapped else name


@dataclass(frozen=True)
class Case:
    """One retrieval; the entity rows' own columns are all that the views may need, and `row`, which numbers them."""

    views: tuple[View, ...]
    entity_rows: tuple[dict[str, Any], ...]
    unit: str
    zone: str | None
    time_column: str
    has_nullable_types: bool
    has_full_names: bool
    is_cut: bool


def instants(unit: str) -> st.SearchStrategy[int | None]:
    """Instants in microseconds of which many are equal, or apart by exactly a ttl or a microsecond more."""
    step = UNIT_US[unit]
    return st.sampled_from([None, *sorted(instant // step * step for instant in POOL)])


def several(rows: st.SearchStrategy[Any], fewest: int = 0) -> st.SearchStrategy[list[Any]]:
    """Lists that are mostly long enough for rows to meet, since short ones answer nothing but nulls."""
    many = st.lists(rows, min_size=12, max_size=25)
    return st.one_of(many, many, many, st.lists(rows, min_size=fewest, max_size=3))


@st.composite
def views(draw: st.DrawFn, name: str) -> View:
    keys = draw(st.sampled_from([(), ("city",), ("shop",), ("city", "shop"), ("shop", "city")]))
    has_created = draw(st.booleans())
    unit = draw(st.sampled_from(sorted(UNIT_US)))
    numbers = itertools.count(1)
    rows = st.builds(
        Row,
        key=st.tuples(*(KEYS[key] for key in keys)),
        event=instants(unit),
        created=instants(unit) if has_created else st.none(),
        number=st.builds(lambda: next(numbers)),
    )
    return View(
        name=name,
        keys=keys,
        ttl=draw(st.sampled_from(TTLS)),
        has_created=has_created,
        is_mapped=draw(st.booleans()),
        is_aliased=draw(st.booleans()),
        unit=unit,
        zone=draw(st.sampled_from([None, "UTC", "America/New_York"])),
        rows=tuple(draw(several(rows))),
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    unit = draw(st.sampled_from(sorted(UNIT_US)))
    columns = {**KEYS, **{ALIASES[key]: values for key, values in KEYS.items()}, "time": instants(unit)}
    rows = draw(several(st.fixed_dictionaries(columns), fewest=1))
    return Case(
        views=tuple(draw(views(f"v{i}")) for i in range(draw(st.sampled_from([1, 1, 2, 3])))),
        entity_rows=tuple(rows),
        unit=unit,
        zone=draw(st.sampled_from([None, "UTC", "Asia/Kolkata"])),
        time_column=draw(st.sampled_from(["event_timestamp", "asked at"])),
        has_nullable_types=draw(st.booleans()),
        has_full_names=draw(st.booleans()),
        is_cut=draw(st.booleans()),
    )


def time_column(instants_us: list[int | None], unit: str, zone: str | None) -> pa.Array:
    """Returns microseconds since the epoch as a timestamp column of a unit that loses none of them."""
    return pa.array(instants_us, pa.int64()).cast(pa.timestamp("us", zone)).cast(pa.timestamp(unit, zone))


def entity_frame(case: Case) -> pd.DataFrame:
    """Returns the entity rows as pandas has them: with integers, or floats where there are nulls."""
    columns: dict[str, pa.Array] = {}
    for key in KEYS:
        for name in (key, ALIASES[key]):
            columns[name] = pa.array([row[name] for row in case.entity_rows], pa.int64() if key == "city" else None)
            if key == "shop":
                columns[name] = columns[name].cast(pa.string())
    columns["row"] = pa.array(range(len(case.entity_rows)))
    frame = pa.table(columns).to_pandas()
    if case.has_nullable_types:
        frame = frame.convert_dtypes(convert_floating=False)
    times = time_column([row["time"] for row in case.entity_rows], case.unit, case.zone)
    frame[case.time_column] = pa.table({"t": times}).to_pandas(coerce_temporal_nanoseconds=False)["t"]
    return frame


def stores_of(case: Case, repo: Path) -> tuple[BothStores, FeatureService]:
    """Writes the files of a case and returns both stores over its views, and the service that asks for all of them."""
    declared = [_feature_view(view, repo) for view in case.views]
    asked = []
    for view, feature_view in zip(case.views, declared, strict=True):
        if view.is_aliased:
            renamed = {key: ALIASES[key] for key in view.keys}
            asked.append(feature_view.with_name(view.asked_as).with_join_key_map(renamed))
        else:
            asked.append(feature_view)
    service = FeatureService(name="asked", features=asked)
    return both_stores(repo, [*ENTITIES.values(), *declared, service]), service


def stores_over(view: View, repo: Path) -> BothStores:
    """Writes the file of a view and returns both stores over it."""
    return both_stores(repo, [*ENTITIES.values(), _feature_view(view, repo)])


def _feature_view(view: View, repo: Path) -> FeatureView:
    names = [*view.keys, "event", *(["created"] if view.has_created else []), view.number, view.label]
    source = FileSource(
        name=f"{view.name}_source",
        path=write_parquet(repo / "data" / f"{view.name}.parquet", _file_columns(view)),
        timestamp_field="event",
        created_timestamp_column="created" if view.has_created else "",
        field_mapping={view.in_file(name): name for name in names} if view.is_mapped else None,
    )
    return FeatureView(
        name=view.name,
        entities=[ENTITIES[key] for key in view.keys],
        ttl=view.ttl,
        schema=[
            *(Field(name=key, dtype=KEY_TYPES[key]) for key in view.keys),
            Field(name=view.number, dtype=Int64),
            Field(name=view.label, dtype=String),
        ],
        source=source,
    )


def _file_columns(view: View) -> dict[str, pa.Array]:
    columns = {
        key: pa.array([row.key[i] for row in view.rows], pa.int64() if key == "city" else pa.string())
        for i, key in enumerate(view.keys)
    }
    columns["event"] = time_column([row.event for row in view.rows], view.unit, view.zone)
    if view.has_created:
        columns["created"] = time_column([row.created for row in view.rows], view.unit, view.zone)
    columns[view.number] = pa.array([row.number for row in view.rows])
    columns[view.label] = pa.array([f"row {row.number}" for row in view.rows])
    return {view.in_file(name): column for name, column in columns.items()}
