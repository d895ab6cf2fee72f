"""Entity rows from a range of time alone: each key and event time that the requested feature views have in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.types as pat
from feast.repo_config import RepoConfig

from store.clock import clock_for, to_us
from store.definitions_from_feast import batch_source_of, join_key_columns, refuse_unsupported
from store.errors import EntityRowsError
from store.kernel.source_scan import Bounds, Scan, identifier, rows_sql
from store.offline.column_types import are_comparable
from store.offline.common_types import read_type
from store.offline.connection import ConnectionSettings, batches_of, connected
from store.offline.entity_rows import DEFAULT_TIMESTAMP_COLUMN, EntityRows, checked_rows
from store.offline.entity_sources import SpooledRows
from store.offline.planned import RequestedView
from store.offline.row_transformations import transformation_of
from store.offline.source_columns import needed_columns, scan_of, source_types
from store.offline.sources import Source, file_source
from store.offline.transformed_files import open_rows

_BATCH_ROWS = 65_536
_JUST_NOW = timedelta(minutes=1)

_Instant = tuple[int, int]
"""Floor microseconds since the Unix epoch, and the nanoseconds left."""


@dataclass(frozen=True, slots=True)
class _Keyed:
    """A view's scan of nothing but its keys, which are in order of their names in the request.

    `types` has, per key, the types in which the source's files are read.
    """

    view: str
    source: Source
    scan: Scan
    names: tuple[str, ...]
    types: tuple[tuple[pa.DataType, ...], ...]


def rows_between(
    config: RepoConfig,
    views: Sequence[RequestedView],
    settings: ConnectionSettings,
    start: datetime | None,
    end: datetime | None,
) -> EntityRows:
    """Returns one row per distinct key and event time that the views have from `start` to `end`, both inclusive.

    Rows are in order of event time, then of key; those with a null in the key or a null event time are left out.

    Shapes: the join keys under their names in the request, in order of name, then `event_timestamp`.

    Raises:
        EntityRowsError: no start, one after the end, or views whose join keys differ in name or type.
    """
    if start is None:
        raise EntityRowsError(
            "entity rows are none at all, and there is no start_date; pass entity rows as `entity_df`, or a start_date "
            "for one row per key and event time from then on"
        )
    first, last = _range(config, start, end)
    keyed = [_keyed(config, requested) for requested in views]
    _check_join_keys(keyed)
    readable = sorted({path for view in keyed for path in view.source.paths})
    with connected(settings, readable) as connection:
        reader = connection.sql(_rows_sql(keyed, first, last)).to_arrow_reader(_BATCH_ROWS)
        in_utc = reader.cast(_in_utc(reader.schema))
        return checked_rows(SpooledRows.keep(in_utc.schema, batches_of(in_utc), settings.spill_folder))


def _keyed(config: RepoConfig, requested: RequestedView) -> _Keyed:
    view = requested.view
    refuse_unsupported(view)
    owner = f"feature view {view.name!r}"
    declared = file_source(batch_source_of(view), owner)
    source = open_rows(config, declared, transformation_of(view))
    asked = {view.projection.join_key_map.get(key.name, key.name): key.name for key in join_key_columns(view)}
    names = sorted(asked)
    needed = needed_columns(owner, declared, source, [asked[name] for name in names], ())
    types = tuple(_key_types(source, name) for name in needed.keys)
    return _Keyed(view.name, source, scan_of(source, needed), tuple(names), types)


def _key_types(source: Source, name: str) -> tuple[pa.DataType, ...]:
    known = tuple(dict.fromkeys(map(read_type, source_types(source, name))))
    # Beside integers in other files of the source, floats are read as integers.
    has_integers = any(map(pat.is_integer, known))
    return tuple(kind for kind in known if not (has_integers and pat.is_floating(kind)))


def _check_join_keys(keyed: Sequence[_Keyed]) -> None:
    if not keyed:
        raise EntityRowsError("entity rows are none at all, and no feature view is asked for that could give them")
    first = keyed[0]
    for other in keyed[1:]:
        if other.names != first.names:
            found = {view.view: list(view.names) for view in keyed}
            raise EntityRowsError(
                f"entity rows by start_date/end_date alone need views of the same join keys, but they have {found}; "
                "ask for them apart, or pass entity rows as `entity_df`"
            )
        for name, left, right in zip(first.names, first.types, other.types, strict=True):
            if not all(_is_one_key(*pair) for pair in product(left, right)):
                raise EntityRowsError(
                    "entity rows by start_date/end_date alone need views whose join keys have the same types, but join "
                    f"key {name!r} is {_named(left)} in feature view {first.view!r} and {_named(right)} in "
                    f"{other.view!r}; write both sources alike, or pass entity rows as `entity_df`"
                )


def _is_one_key(left: pa.DataType, right: pa.DataType) -> bool:
    """Whether one column can hold the keys of both types as they are; a double does not hold every integer."""
    kinds = {pat.is_floating(kind) for kind in (left, right) if not pat.is_null(kind)}
    return len(kinds) < 2 and are_comparable(left, right)


def _named(types: Sequence[pa.DataType]) -> str:
    return " or ".join(map(str, types))


def _rows_sql(keyed: Sequence[_Keyed], first: _Instant, last: _Instant) -> str:
    is_ns = any(view.scan.is_ns for view in keyed)
    keys = keyed[0].scan.key_names
    complete = "".join(f" AND {key} IS NOT NULL" for key in keys)
    wanted = [*keys, "e_us", "e_ns"]
    window = Bounds(first[0], last[0]).condition("e_us")
    histories = " UNION ALL ".join(
        f"SELECT {', '.join(wanted)} FROM ({rows_sql(view.scan.within(first[0], last[0]), False, wanted)}) "
        f"WHERE {window}{complete}"
        for view in keyed
    )
    # Both ends are inclusive to the nanosecond.
    within = f"(e_us > {first[0]} OR e_ns >= {first[1]}) AND (e_us < {last[0]} OR e_ns <= {last[1]})"
    time = "make_timestamp_ns(e_us * 1000 + e_ns)" if is_ns else "make_timestamp(e_us)"
    columns = "".join(f"{key} AS {identifier(name)}, " for key, name in zip(keys, keyed[0].names, strict=True))
    order = ", ".join(["e_us", "e_ns", *keys])
    return (
        f"SELECT {columns}{time} AS {DEFAULT_TIMESTAMP_COLUMN} "
        f"FROM (SELECT DISTINCT * FROM ({histories}) WHERE {within}) ORDER BY {order}"
    )


def _in_utc(schema: pa.Schema) -> pa.Schema:
    place = schema.get_field_index(DEFAULT_TIMESTAMP_COLUMN)
    unit = schema.field(place).type.unit
    return schema.set(place, pa.field(DEFAULT_TIMESTAMP_COLUMN, pa.timestamp(unit, "UTC")))


def _range(config: RepoConfig, start: datetime, end: datetime | None) -> tuple[_Instant, _Instant]:
    """Returns the first and last instant; the last is the clock's where the caller gave none, and never after it.

    Where the caller gave none, Feast passes the system's time of day, without a zone; a caller who means just that
    means now as well. A range that lies in the future is legal, and has no rows yet.
    """
    first, now = _instant(start), (clock_for(Path(config.repo_path or ".")).now_us(), 0)
    if end is None or (end.tzinfo is None and abs(datetime.now() - end) < _JUST_NOW):  # noqa: DTZ005 - as Feast asks
        return first, now
    last = _instant(end)
    if first > last:
        raise EntityRowsError(
            f"entity rows: start_date {start.isoformat()!r} is after end_date {end.isoformat()!r}; exchange them"
        )
    return first, min(last, now)


def _instant(moment: datetime) -> _Instant:
    """Returns a time as an instant; one of pandas' may have nanoseconds."""
    return to_us(moment), getattr(moment, "nanosecond", 0)
