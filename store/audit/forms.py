"""Served vectors as Arrow columns, in the form of `store.kernel.served_log`."""

import contextlib
import hashlib
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from time import sleep
from typing import Any, NamedTuple

import pyarrow as pa

from store.errors import DefinitionError
from store.kernel.definitions import Column
from store.kernel.headers import decode_headers
from store.kernel.served_log import (
    STATUS_CODES,
    LoggedFeature,
    LoggedOnDemand,
    LoggedPlan,
    LoggedView,
    repeated_names,
)
from store.kernel.values import BLOBS, TEXTS, element_type, is_opaque
from store.online.lookup import Lookup
from store.online.plan import OnDemandRead, OnlinePlan, sorted_join_keys
from store.online.stored_rows import PRESENT, ViewRows
from store.online.windowed_reads import TileMark

STAMP = pa.timestamp("us", "UTC")
_SIMPLE = {
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "UNIX_TIMESTAMP": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "BOOL": pa.bool_(),
}
_ROW_TYPES = (pa.int64(), pa.int16(), pa.int64(), pa.int16(), pa.bool_(), pa.int32())
_TILE_TYPES = (pa.int32(), pa.int64(), pa.int64(), pa.int64(), pa.int64(), pa.string(), pa.string())
_ARRAY_CODES = {pa.int16(): "h", pa.int32(): "i", pa.int64(): "q", pa.float32(): "f", pa.float64(): "d"}
"""How Python's own arrays call types of fixed width."""
_COLUMNS_AT_ONCE = 4
"""Columns that are made before lookups get their turn: some 100 microseconds."""
_codes_of = STATUS_CODES.__getitem__


class Served(NamedTuple):
    """What one lookup answered, as it stood in its hands: nothing is copied for the log.

    `generations` are those of the plan's views that the rows were read from.
    """

    lookup: Lookup
    found: Sequence[ViewRows]
    now_us: int
    generations: tuple[int, ...]


def stored_type(type_name: str) -> pa.DataType:
    """Returns the Arrow type in which plain values of a type stand in the log, exactly."""
    if type_name in TEXTS:
        return pa.string()
    if type_name in BLOBS or is_opaque(type_name):
        return pa.binary()
    element = element_type(type_name)
    return pa.list_(stored_type(element)) if element else _SIMPLE[type_name]


def log_schema(plan: LoggedPlan) -> pa.Schema:
    """Returns the columns of the files of a plan."""
    features = [kind for feature in plan.features for kind in (stored_type(feature.type_name), STAMP, pa.int8())]
    given = [stored_type(kind) for _, kind in (*plan.entity_columns, *plan.request_columns)]
    kinds = [pa.string(), STAMP, pa.date32(), *given, *features]
    for view in plan.views:
        kinds += _TILE_TYPES if view.is_windowed else _ROW_TYPES
    return pa.schema(list(zip(plan.column_names, kinds, strict=True)))


def on_demand_fingerprint(view: Any) -> str:
    """Returns what changes when an on-demand view's function does."""
    function = view.feature_transformation
    text = getattr(function, "udf_string", "") or ""
    return hashlib.sha256(f"{view.mode}:{view.singleton}:{text}".encode()).hexdigest()[:16]


class LogForm:
    """The columns of the log of one service, as it is declared now.

    Attributes:
        plan: what the notes of its files say.
    """

    def __init__(self, plan: OnlinePlan) -> None:
        """Lays the columns out.

        Raises:
            DefinitionError: two of them would have the same name.
        """
        assert plan.logging is not None, "only the answers of a service that says so are logged"
        self._online = plan
        self.plan = _logged_plan(plan)
        if repeated := repeated_names(self.plan.column_names):
            raise DefinitionError(
                f"feature service {plan.logging.service!r} cannot be logged: two columns of its log would be called "
                f"{repeated[0]!r}; rename an entity column, feature or view"
            )
        self.schema = log_schema(self.plan)
        self._has_windows = any(view.is_windowed for view in self.plan.views)
        self._value_types = [stored_type(feature.type_name) for feature in self.plan.features]

    def encode(self, vectors: Sequence[tuple[str, Served]]) -> pa.RecordBatch:
        """Returns served vectors, each under the id of its request, one row per entity row.

        Raises:
            pa.ArrowException, ValueError, TypeError, OverflowError: a value that its type cannot hold.
            StoredRowError: a stored row that cannot be read.
        """
        served = [each for _, each in vectors]
        sizes = [each.lookup.row_count for each in served]
        ids = list(chain.from_iterable([name] * size for (name, _), size in zip(vectors, sizes, strict=True)))
        times = chain.from_iterable([each.now_us] * size for each, size in zip(served, sizes, strict=True))
        stamps = _array(list(times), pa.int64()).view(STAMP)
        columns = [pa.array(ids, pa.string()), stamps, stamps.cast(pa.date32())]
        for name, kind in (*self.plan.entity_columns, *self.plan.request_columns):
            values = chain.from_iterable([each.lookup.entities[name] for each in served])
            columns.append(_array(list(values), stored_type(kind)))
        columns += self._features(served, sum(sizes))
        columns += self._rows(served, sizes)
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _features(self, served: Sequence[Served], row_count: int) -> list[pa.Array]:
        by_source = [
            _SourceColumns.of([each.found[source] for each in served], row_count)
            for source in range(len(self._online.views) + len(self._online.on_demand))
        ]
        columns = []
        for number, ((source, place), kind) in enumerate(zip(self._online.origins, self._value_types, strict=True)):
            found = by_source[source]
            columns += [_array(list(chain.from_iterable(found.values[place])), kind), found.stamps]
            columns.append(found.statuses(place))
            if number % _COLUMNS_AT_ONCE == 0:
                # A lookup may go on.
                sleep(0)
        return columns

    def _rows(self, served: Sequence[Served], sizes: Sequence[int]) -> list[pa.Array]:
        by_lookup = [each.lookup.stored_rows() for each in served]
        alike = {each.generations for each in served}
        marks = [each.lookup.tile_marks() for each in served] if self._has_windows else []
        columns = []
        for source, view in enumerate(self.plan.views):
            if view.is_windowed:
                columns += _tile_columns([mark for of_lookup in marks for mark in of_lookup[source]])
                continue
            told = decode_headers(list(chain.from_iterable([views[source] for views in by_lookup])))
            columns += [_array(values, kind) for values, kind in zip(told, _ROW_TYPES, strict=False)]
            if len(alike) == 1:
                [generations] = alike
                columns.append(pa.repeat(pa.scalar(generations[source], pa.int32()), sum(sizes)))
            else:
                each_row = [[each.generations[source]] * size for each, size in zip(served, sizes, strict=True)]
                columns.append(pa.array(list(chain.from_iterable(each_row)), pa.int32()))
            sleep(0)
        return columns


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Returns values as an Arrow array; numbers without a null among them by a shorter way."""
    code = _ARRAY_CODES.get(kind)
    if code is not None:
        with contextlib.suppress(TypeError):
            numbers = array(code, values)
            return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])
    return pa.array(values, kind)


def _tile_columns(marks: Sequence[TileMark | None]) -> list[pa.Array]:
    none = (None,) * len(_TILE_TYPES)
    columns = zip(*[mark or none for mark in marks], strict=True)
    return [pa.array(values, kind) for values, kind in zip(columns, _TILE_TYPES, strict=True)]


class _SourceColumns(NamedTuple):
    """What one view said to several lookups; `all_present` where all statuses are PRESENT."""

    values: Sequence[Sequence[Sequence[Any]]]
    found: Sequence[ViewRows]
    stamps: pa.Array
    all_present: pa.Array | None

    @classmethod
    def of(cls, found: Sequence[ViewRows], row_count: int) -> "_SourceColumns":
        values = list(zip(*[rows.columns for rows in found], strict=True))
        times = _array(list(chain.from_iterable([rows.times.us for rows in found])), pa.int64())
        is_whole = all(rows.is_whole for rows in found)
        codes = pa.repeat(pa.scalar(STATUS_CODES[PRESENT], pa.int8()), row_count) if is_whole else None
        return cls(values, found, times.view(STAMP), codes)

    def statuses(self, place: int) -> pa.Array:
        """Returns the statuses of one feature as codes."""
        if self.all_present is not None:
            return self.all_present
        names = chain.from_iterable([rows.statuses[place] for rows in self.found])
        return pa.array(list(map(_codes_of, names)), pa.int8())


def _logged_plan(plan: OnlinePlan) -> LoggedPlan:
    assert plan.logging is not None
    names = [*(read.name for read in plan.views), *(read.name for read in plan.on_demand)]
    outputs = set(plan.outputs)
    features = tuple(
        LoggedFeature(names[source], column.name, column.type_name, place in outputs)
        for place, (column, (source, _)) in enumerate(zip(plan.columns, plan.origins, strict=True))
    )
    views = tuple(
        LoggedView(
            read.name,
            read.definition.name,
            read.definition.fingerprint,
            read.ttl_us,
            tuple((column.name, column.type_name) for column in sorted_join_keys(read)),
            read.key_columns,
            bool(read.definition.windows),
        )
        for read in plan.views
    )
    on_demand = tuple(_logged_on_demand(read, features) for read in plan.on_demand)
    return LoggedPlan(
        plan.views[0].definition.project if plan.views else "",
        plan.logging.service,
        _typed(plan.entity_columns.values()),
        _typed(plan.request_columns.values()),
        views,
        features,
        on_demand,
    )


def _logged_on_demand(read: OnDemandRead, features: Sequence[LoggedFeature]) -> LoggedOnDemand:
    inputs = tuple((name, features[place].column) for name, place in read.inputs)
    return LoggedOnDemand(read.name, on_demand_fingerprint(read.view), inputs)


def _typed(columns: Iterable[Column]) -> tuple[tuple[str, str], ...]:
    return tuple((column.name, column.type_name) for column in columns)
