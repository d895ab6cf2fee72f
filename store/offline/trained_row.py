"""The row of one entity key that a training set would see at a time, found by the retrieval itself."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from feast import FeatureView, Field, FileSource
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig
from feast.types import UnixTimestamp

from store.arrow_rows import us_and_ns
from store.definitions_from_feast import batch_source_of, column_of, join_key_columns
from store.feast_values import arrow_type, plain_from_arrow
from store.kernel.codec import RowTimes
from store.kernel.definitions import Column
from store.offline import DuckDBOfflineStore
from store.offline.sources import file_source
from store.windows_from_feast import is_windowed, windows_of

_AT = "event_timestamp"


@dataclass(frozen=True, slots=True)
class TrainedRow:
    """What training sees: the features as plain values of their declared types, and the times of the row they are of.

    `times` is None where no row answers; all values are then None, but for counts of a windowed view. Of a windowed
    view they are those of the newest event in its windows.
    """

    values: Mapping[str, Any]
    times: RowTimes | None


def trained_row(
    config: RepoConfig, registry: BaseRegistry, view: Any, key: Mapping[str, Any], at_us: int
) -> TrainedRow:
    """Returns what a training set would have for one entity key of a view at a time, by one retrieval.

    Args:
        key: plain values by join key.

    Raises:
        InputError, SourceError, OfflineStoreError: as the retrieval raises them.
        WrongType: a feature of the source does not fit its declared type.
    """
    source = file_source(batch_source_of(view), f"feature view {view.name!r}")
    in_view = {name: source.field_mapping.get(name, name) for name in _time_fields(source)}
    join_keys = join_key_columns(view)
    columns = [column_of(field) for field in view.features if field.name not in {c.name for c in join_keys}]
    rows = _entity_rows(join_keys, key, at_us)
    # The times of the row that answers are asked for as if they were features, so that nothing finds it but the join.
    timed = _newest_events(view, source) if is_windowed(view) else copy.copy(view)
    features = {field.name: field for field in timed.features}
    timed.features = list(
        ({name: Field(name=name, dtype=UnixTimestamp) for name in in_view.values()} | features).values()
    )
    names = [column.name for column in columns]
    if is_windowed(view):
        answer = _answer(config, registry, view, names, rows)
        answer |= _answer(config, registry, timed, list(in_view.values()), rows)
    else:
        answer = _answer(config, registry, timed, list(dict.fromkeys([*names, *in_view.values()])), rows)
    values = {column.name: plain_from_arrow(column, answer[column.name])[0] for column in columns}
    times = _times([answer[name] for name in in_view.values()])
    if times is not None and is_windowed(view) and times.event_us < min(w.start_us(at_us) for w in windows_of(view)):
        times = None
    return TrainedRow(values, times)


def _answer(
    config: RepoConfig, registry: BaseRegistry, view: Any, names: list[str], rows: pa.Table
) -> dict[str, pa.ChunkedArray]:
    """Returns features of a view by name, as training has them."""
    table = DuckDBOfflineStore.get_historical_features(
        config,
        [view],
        [f"{view.name}:{name}" for name in names],
        rows,
        registry,
        config.project,
        full_feature_names=True,
    ).to_arrow()
    return {name: table.column(f"{view.name}__{name}") for name in names}


def _newest_events(view: Any, source: FileSource) -> FeatureView:
    """Returns a plain view without features of the events of a windowed one."""
    plain = FeatureView(name=view.name, source=source, ttl=None)
    plain.entities, plain.entity_columns = view.entities, list(view.entity_columns)
    return plain


def _time_fields(source: Any) -> list[str]:
    return [source.timestamp_field, *([source.created_timestamp_column] if source.created_timestamp_column else [])]


def _entity_rows(join_keys: tuple[Column, ...], key: Mapping[str, Any], at_us: int) -> pa.Table:
    columns = {column.name: _key_column(column, key[column.name]) for column in join_keys}
    return pa.table({**columns, _AT: pa.array([at_us], pa.timestamp("us", "UTC"))})


def _key_column(column: Column, value: Any) -> pa.Array:
    # A plain timestamp counts seconds, an Arrow one of Feast's microseconds.
    kind = pa.timestamp("s", "UTC") if column.type_name == "UNIX_TIMESTAMP" else arrow_type(column.type_name)
    return pa.array([value]).cast(kind)


def _times(columns: list[pa.ChunkedArray]) -> RowTimes | None:
    (event_us, event_ns), *created = [us_and_ns(column) for column in columns]
    if not event_us[0].is_valid:
        return None
    created_us, created_ns = created[0] if created else (pa.nulls(1), pa.nulls(1))
    return RowTimes(event_us[0].as_py(), event_ns[0].as_py() or 0, created_us[0].as_py(), created_ns[0].as_py() or 0)
