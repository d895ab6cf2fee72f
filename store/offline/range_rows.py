"""Entity rows from a range of time alone: each key and event time that the requested feature views have in it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from feast.repo_config import RepoConfig

from store.clock import clock_for, to_us
from store.definitions_from_feast import batch_source_of, join_key_columns, refuse_unsupported
from store.errors import EntityRowsError
from store.kernel.source_scan import Bounds, Scan, identifier, rows_sql
from store.offline.connection import ConnectionSettings, connected
from store.offline.entity_rows import DEFAULT_TIMESTAMP_COLUMN, EntityRows, checked_rows
from store.offline.entity_sources import SpooledRows
from store.offline.requested import RequestedView
from store.offline.source_columns import needed_columns, scan_of
from store.offline.sources import Source, file_source, open_source

_BATCH_ROWS = 65_536
_JUST_NOW = timedelta(minutes=1)


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
        EntityRowsError: no start, or views whose join keys differ.
    """
    if start is None:
        raise EntityRowsError(
            "entity rows are none at all, and there is no start_date; pass entity rows as `entity_df`, or a start_date "
            "for one row per key and event time from then on"
        )
    scans = [_scan(config, requested) for requested in views]
    names = _shared_join_keys(views, scans)
    sql = _rows_sql(names, [scan for _, scan, _ in scans], to_us(_aware(start)), _end_us(config, end))
    readable = sorted({path for source, _, _ in scans for path in source.paths})
    with connected(settings, readable) as connection:
        reader = connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
        return checked_rows(SpooledRows.keep(reader.cast(_in_utc(reader.schema)), settings.spill_folder))


def _scan(config: RepoConfig, requested: RequestedView) -> tuple[Source, Scan, list[str]]:
    """Returns a view's source, the scan of its keys in order of their names in the request, and these names."""
    view = requested.view
    refuse_unsupported(view)
    owner = f"feature view {view.name!r}"
    declared = file_source(batch_source_of(view), owner)
    source = open_source(config, declared)
    asked = {view.projection.join_key_map.get(key.name, key.name): key.name for key in join_key_columns(view)}
    names = sorted(asked)
    return source, scan_of(source, needed_columns(owner, declared, source, [asked[name] for name in names], ())), names


def _shared_join_keys(views: Sequence[RequestedView], scans: Sequence[tuple[Source, Scan, list[str]]]) -> list[str]:
    found = {requested.view.name: names for requested, (_, _, names) in zip(views, scans, strict=True)}
    if not found:
        raise EntityRowsError("entity rows are none at all, and no feature view is asked for that could give them")
    if len({tuple(names) for names in found.values()}) > 1:
        raise EntityRowsError(
            f"entity rows by start_date/end_date alone need views of the same join keys, but they have {found}; ask "
            "for them apart, or pass entity rows as `entity_df`"
        )
    return next(iter(found.values()))


def _rows_sql(names: Sequence[str], scans: Sequence[Scan], start_us: int, end_us: int) -> str:
    is_ns = any(scan.is_ns for scan in scans)
    keys = scans[0].key_names
    window = Bounds(start_us, end_us).condition("e_us")
    complete = "".join(f" AND {key} IS NOT NULL" for key in keys)
    wanted = [*keys, "e_us", "e_ns"]
    histories = " UNION ALL ".join(
        f"SELECT {', '.join(wanted)} FROM ({rows_sql(scan.within(start_us, end_us), False, wanted)}) "
        f"WHERE {window}{complete}"
        for scan in scans
    )
    # The end is inclusive to the microsecond; nanoseconds beyond it are after it.
    last = f" WHERE e_us < {end_us} OR e_ns = 0"
    time = "make_timestamp_ns(e_us * 1000 + e_ns)" if is_ns else "make_timestamp(e_us)"
    columns = "".join(f"{key} AS {identifier(name)}, " for key, name in zip(keys, names, strict=True))
    order = ", ".join(["e_us", "e_ns", *keys])
    return (
        f"SELECT {columns}{time} AS {DEFAULT_TIMESTAMP_COLUMN} FROM (SELECT DISTINCT * FROM ({histories}){last}) "
        f"ORDER BY {order}"
    )


def _in_utc(schema: pa.Schema) -> pa.Schema:
    place = schema.get_field_index(DEFAULT_TIMESTAMP_COLUMN)
    unit = schema.field(place).type.unit
    return schema.set(place, pa.field(DEFAULT_TIMESTAMP_COLUMN, pa.timestamp(unit, "UTC")))


def _end_us(config: RepoConfig, end: datetime | None) -> int:
    """Returns the last instant: the clock's where the caller gave none, never one after it.

    Where the caller gave none, Feast passes the system's time of day, without a zone; a caller who means just that
    means now as well.
    """
    now_us = clock_for(Path(config.repo_path or ".")).now_us()
    if end is None or (end.tzinfo is None and abs(datetime.now() - end) < _JUST_NOW):  # noqa: DTZ005 - as Feast asks
        return now_us
    return min(to_us(_aware(end)), now_us)


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
