"""Point-in-time retrieval: plans checked against files and entity rows first, run as a stream of aligned batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from feast.feature_view import FeatureView
from feast.repo_config import RepoConfig
from feast.types import from_feast_to_pyarrow_type

from store.definitions_from_feast import batch_source_of, join_key_columns, refuse_unsupported, ttl_us
from store.errors import EntityRowsError, UnknownObject
from store.kernel.point_in_time import ENTITY_TABLE, PointInTimeJoin
from store.offline.column_types import answer_type
from store.offline.connection import ConnectionSettings, connected
from store.offline.entity_rows import EntityRows, join_key_column
from store.offline.source_columns import needed_columns, scan_of
from store.offline.sources import Source, file_source, open_source

FEW_ROWS_FACTOR = 20
"""Below one entity row per this many source rows, the source is first cut to the keys asked for: the cut costs a
hash probe per source row, sorting what it would remove costs several times that."""

_GIVEN = "larder_given_entity_rows"


@dataclass(frozen=True, slots=True)
class RequestedView:
    """A feature view of a retrieval: the features asked for, their columns in the answer, their declared types."""

    view: FeatureView
    features: tuple[str, ...]
    columns: tuple[str, ...]
    types: tuple[pa.DataType | None, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    requested: RequestedView
    source: Source
    join: PointInTimeJoin


@dataclass(frozen=True, slots=True)
class HistoricalAnswer:
    """A retrieval that is ready to run: entity rows, and one join per feature view."""

    rows: EntityRows
    keys: pa.Table
    parts: tuple[_Part, ...]
    settings: ConnectionSettings

    @property
    def sql(self) -> str:
        """Returns all that runs inside DuckDB, as text; the entity rows are the table `larder_entity_rows`."""
        return ";\n\n".join(text for part in self.parts for text in (*part.join.statements, part.join.answer_sql))

    def table(self) -> pa.Table:
        """Returns the entity rows, untouched, with the feature columns after them."""
        features = pa.Table.from_batches(list(self._feature_batches(duckdb_batch_rows(self.rows.table.num_rows))))
        table = self.rows.table
        for field, column in zip(features.schema, features.columns, strict=True):
            table = table.append_column(field, column)
        return table

    def batches(self, rows_max: int) -> Iterator[pa.RecordBatch]:
        """Yields the answer in order, in batches of at most `rows_max` rows; one empty batch if there are no rows."""
        start = 0
        for features in self._feature_batches(rows_max):
            table = self.rows.table.slice(start, features.num_rows)
            start += features.num_rows
            for field, column in zip(features.schema, features.columns, strict=True):
                table = table.append_column(field, column)
            whole = table.combine_chunks().to_batches()
            yield whole[0] if whole else pa.RecordBatch.from_pylist([], schema=table.schema)

    def _feature_batches(self, rows_max: int) -> Iterator[pa.RecordBatch]:
        """Yields the feature columns alone, aligned with the entity rows; at least one batch."""
        readable = sorted({path for part in self.parts for path in part.source.paths})
        with connected(self.settings, readable) as connection:
            connection.register(_GIVEN, self.keys)
            connection.sql(f"FROM {_GIVEN}").create(ENTITY_TABLE)
            connection.unregister(_GIVEN)
            for part in self.parts:
                for statement in part.join.statements:
                    connection.execute(statement)
            streams = [self._aligned(connection.cursor(), part, rows_max) for part in self.parts]
            for start in range(0, max(self.rows.table.num_rows, 1), rows_max):
                count = min(rows_max, self.rows.table.num_rows - start)
                yield _side_by_side([next(stream) for stream in streams], count)

    def _aligned(self, cursor: duckdb.DuckDBPyConnection, part: _Part, rows_max: int) -> Iterator[pa.RecordBatch]:
        """Yields one view's columns for the entity rows in order, `rows_max` at a time, null where it has no answer."""
        reader = cursor.sql(part.join.answer_sql).to_arrow_reader(rows_max)
        total = self.rows.table.num_rows
        pending = reader.schema.empty_table()
        for start in range(0, max(total, 1), rows_max):
            end = min(start + rows_max, total)
            while pending.num_rows == 0 or pending.column("rid")[-1].as_py() < end - 1:
                batch = next(reader, None)
                if batch is None:
                    break
                pending = pa.concat_tables([pending, pa.Table.from_batches([batch])])
            numbers = pending.column("rid").to_numpy()
            cut = int(np.searchsorted(numbers, end))
            places = np.full(end - start, -1, dtype=np.int64)
            places[numbers[:cut] - start] = np.arange(cut)
            found = pending.slice(0, cut).drop_columns(["rid"]).combine_chunks()
            yield _named(part.requested, _taken(found, places))
            pending = pending.slice(cut)


def duckdb_batch_rows(rows: int) -> int:
    """Returns how many rows to take at a time when the whole answer is wanted anyway."""
    return max(1, min(rows, 1_000_000))


def plan_retrieval(
    config: RepoConfig,
    views: Sequence[RequestedView],
    rows: EntityRows,
    settings: ConnectionSettings,
    is_cut_by_created: bool,
) -> HistoricalAnswer:
    """Returns a retrieval after all checks that need no scan.

    Raises:
        InputError: the entity rows do not fit the views.
        DefinitionError: a view that this version does not serve.
        SourceError: a source that is not there, or lacks a column.
    """
    _refuse_clashes(rows, views)
    columns: dict[str, pa.Array] = {
        "rid": pa.array(np.arange(rows.table.num_rows, dtype=np.int64)),
        "t": rows.instants,
    }
    parts: list[_Part] = []
    for requested in views:
        source, join = _plan_view(config, requested, rows, columns, is_cut_by_created)
        parts.append(_Part(requested, source, replace(join, number=len(parts))))
    return HistoricalAnswer(rows, pa.table(columns), tuple(parts), settings)


def requested_view(view: FeatureView, references: Sequence[str], has_full_names: bool) -> RequestedView:
    """Returns what is asked of a feature view by references `view:feature`, in their order.

    Raises:
        UnknownObject: a feature that the view does not have.
    """
    prefix = f"{view.projection.name_to_use()}:"
    features = tuple(dict.fromkeys(ref.removeprefix(prefix) for ref in references if ref.startswith(prefix)))
    types = {field.name: field.dtype for field in view.features}
    unknown = [name for name in features if name not in types]
    if unknown:
        raise UnknownObject(f"feature view {view.name!r} has no feature {unknown[0]!r}; it has {sorted(types)}")
    base = view.projection.name_alias or view.name
    columns = tuple(f"{base}__{name}" if has_full_names else name for name in features)
    return RequestedView(view, features, columns, tuple(_arrow_type(types[name]) for name in features))


def _arrow_type(declared: Any) -> pa.DataType | None:
    try:
        return from_feast_to_pyarrow_type(declared)
    except ValueError:
        # A type that Feast cannot say in Arrow is answered as the file has it.
        return None


def _plan_view(
    config: RepoConfig, requested: RequestedView, rows: EntityRows, columns: dict[str, pa.Array], is_cut: bool
) -> tuple[Source, PointInTimeJoin]:
    """Returns the source and the join of one view, adding the key columns that it needs to `columns`."""
    view = requested.view
    refuse_unsupported(view)
    owner = f"feature view {view.name!r}"
    declared = file_source(batch_source_of(view), owner)
    source = open_source(config, declared)
    keys = [column.name for column in join_key_columns(view)]
    needed = needed_columns(owner, declared, source, keys, requested.features)
    scan = scan_of(source, needed)
    entity_keys = []
    for key, in_file in zip(keys, needed.keys, strict=True):
        name = view.projection.join_key_map.get(key, key)
        types = list(dict.fromkeys(file.schema.field(in_file).type for file in source.files))
        label = f"join key {name!r}" if name == key else f"join key {key!r} (asked for as {name!r})"
        entity_keys.append(f"k{len(columns)}")
        columns[entity_keys[-1]] = join_key_column(rows, name, types, f"{owner}: {label}")
    t_min, t_max = rows.t_range
    join = PointInTimeJoin(
        number=0,
        scan=scan,
        entity_keys=tuple(entity_keys),
        ttl_us=ttl_us(view),
        is_entity_ns=rows.is_ns,
        t_min=t_min,
        t_max=t_max,
        has_cutoff=is_cut and scan.has_created,
        has_few_rows=rows.table.num_rows * FEW_ROWS_FACTOR < source.rows,
    )
    return source, join


def _refuse_clashes(rows: EntityRows, views: Sequence[RequestedView]) -> None:
    taken = dict.fromkeys(rows.table.column_names, "the entity rows")
    for requested in views:
        for feature, column in zip(requested.features, requested.columns, strict=True):
            if column in taken:
                raise EntityRowsError(
                    f"feature '{requested.view.projection.name_to_use()}:{feature}' would stand in the answer as "
                    f"{column!r}, which {taken[column]} already have; pass full_feature_names=True or rename the column"
                )
            taken[column] = f"the features of view {requested.view.projection.name_to_use()!r}"


def _taken(table: pa.Table, places: "np.ndarray[Any, Any]") -> pa.Table:
    if table.num_rows == len(places):
        return table
    return table.take(pa.array(places, mask=places < 0))


def _named(requested: RequestedView, table: pa.Table) -> pa.RecordBatch:
    arrays = []
    for column, declared in zip(table.columns, requested.types, strict=True):
        wanted = answer_type(column.type, declared)
        combined = column.combine_chunks()
        array = pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined
        arrays.append(array if array.type.equals(wanted) else array.cast(wanted))
    return pa.RecordBatch.from_arrays(arrays, names=list(requested.columns))


def _side_by_side(pieces: Sequence[pa.RecordBatch], count: int) -> pa.RecordBatch:
    arrays = [column for piece in pieces for column in piece.columns]
    names = [name for piece in pieces for name in piece.schema.names]
    if not arrays:
        # A batch without columns still has to say how many rows it stands for.
        return pa.RecordBatch.from_struct_array(pa.array([{}] * count, type=pa.struct([])))
    return pa.RecordBatch.from_arrays(arrays, names=names)
