"""Rows of one view between Feast's messages and Redis: what `online_read` and `online_write_batch` need."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from feast import FeatureView, RepoConfig
from feast.feature_view import DUMMY_ENTITY_ID
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.type_map import _proto_value_to_value_type

from store.clock import from_us, is_sayable, to_us
from store.definitions_from_feast import ttl_us, view_definition
from store.errors import PushedRowsError, UnknownObject, WrongType
from store.feast_values import plain_from_proto, proto_from_plain
from store.kernel.codec import EncodedRow, RowLayout, RowTimes, decode_header, encode_row
from store.kernel.definitions import Column
from store.kernel.keys import EntityKeyEncoder, entity_key_encoder
from store.limits import PUSH_FUTURE_SECONDS_MAX
from store.online.conversations import (
    Conversation,
    Knowledge,
    SlotOf,
    Writing,
    load_layouts,
    read_rows,
    register_layout,
    write_rows,
)
from store.online.plan import ViewRead
from store.online.stored_rows import NOT_FOUND, Row, read_row
from store.online.windowed_reads import KeysWanted, ViewTiles, read_stored, read_windowed
from store.online.windows import WindowedView

ProtoRow = tuple[EntityKeyProto, dict[str, ValueProto], datetime, datetime | None]


class ViewLookup:
    """One read of one view by Feast's entity key messages."""

    def __init__(self, read: ViewRead, keys: Sequence[bytes | None]) -> None:
        self.read = read
        self._keys = keys
        self._row_of: dict[bytes, bytes | None] = {}
        self._tiles: tuple[list[bytes], ViewTiles] | None = None

    def converse(self, knowledge: Knowledge) -> Conversation[None]:
        """Reads the stored rows, and the layouts that are not yet known."""
        view = self.read.definition.name
        asked = list(dict.fromkeys(key for key in self._keys if key is not None))
        if self.read.definition.windows:
            (stored,) = yield from read_stored(
                knowledge, [KeysWanted(asked, (), (WindowedView.of(self.read.definition),))]
            )
            self._tiles = asked, stored.tiles[0]
            return
        rows = yield from read_rows(knowledge, [(asked, (view,))])
        self._row_of = {key: row for key, (row,) in zip(asked, rows, strict=True)}
        tags = {decode_header(row).schema_tag for row in self._row_of.values() if row is not None}
        yield from load_layouts(knowledge, sorted(tags))

    def rows(self, knowledge: Knowledge, now_us: int) -> list[Row | None]:
        """Returns per entity key what its row says at `now_us`, None where there is no row."""
        if self._tiles is not None:
            return self._windowed_rows(*self._tiles, now_us)
        return [
            None if key is None else read_row(self.read, self._row_of[key], knowledge, now_us) for key in self._keys
        ]

    def _windowed_rows(self, asked: Sequence[bytes], tiles: ViewTiles, now_us: int) -> list[Row | None]:
        said, _ = read_windowed(self.read, tiles, now_us)
        of_key = {
            key: Row(
                [column[place] for column in said.columns],
                [statuses[place] for statuses in said.statuses],
                None if (event_us := said.times.us[place]) is None else RowTimes(event_us),
            )
            for place, key in enumerate(asked)
        }
        return [None if key is None else of_key[key] for key in self._keys]


def entity_key_rows(
    config: RepoConfig, table: FeatureView, entity_keys: Sequence[EntityKeyProto], requested: Sequence[str] | None
) -> ViewLookup:
    """Returns the read of some features (None: all) of a view for some entity keys.

    Raises:
        UnknownObject: a feature that the view does not have.
    """
    definition = view_definition(
        config.project, table, is_versioned=config.registry.enable_online_feature_view_versioning
    )
    known = {column.name: column for column in definition.features}
    for name in requested or ():
        if name not in known:
            raise UnknownObject(
                f"feature view {table.name!r} has no feature {name!r}; it has {', '.join(sorted(known))}"
            )
    wanted = tuple(known[name] for name in (sorted(known) if requested is None else requested))
    encoder = entity_key_encoder(config.project, definition.join_keys)
    read = ViewRead(table.name, definition, encoder, encoder.names, wanted, ttl_us(table), 0)
    return ViewLookup(read, [encode_entity_key(config.project, key) for key in entity_keys])


def stored_names(config: RepoConfig, table: FeatureView) -> list[str]:
    """Returns the names under which rows of a view may be stored: its own, and one per version where those are kept."""
    if not config.registry.enable_online_feature_view_versioning:
        return [table.name]
    versions = range(1, (getattr(table, "current_version_number", None) or 0) + 1)
    return [table.name, *(f"{table.name}_v{version}" for version in versions)]


def online_reads(
    lookup: ViewLookup, knowledge: Knowledge, now_us: int
) -> list[tuple[datetime | None, dict[str, ValueProto] | None]]:
    """Returns rows in the form of Feast's `online_read`: a value withheld or null is an unset message.

    The event time is None where a datetime cannot say it.
    """
    result: list[tuple[datetime | None, dict[str, ValueProto] | None]] = []
    for row in lookup.rows(knowledge, now_us):
        if row is None:
            result.append((None, None))
            continue
        values = {
            column.name: proto_from_plain(value, column.type_name)
            for column, value, status in zip(lookup.read.wanted, row.values, row.statuses, strict=True)
            if status != NOT_FOUND
        }
        # The features of a windowed view have values, such as a count of 0, also where there was no event.
        event_us = None if row.times is None else row.times.event_us
        result.append((from_us(event_us) if event_us is not None and is_sayable(event_us) else None, values))
    return result


@dataclass(frozen=True, slots=True)
class ViewWrite:
    """Rows of one view to write, by layout: rows given without some feature have a layout without it."""

    view: str
    groups: dict[RowLayout, list[EncodedRow]]


def rows_to_write(config: RepoConfig, table: FeatureView, data: Sequence[ProtoRow], *, now_us: int) -> ViewWrite:
    """Returns rows of Feast's form ready to be written; one with a null in its key is left out, as nothing finds it.

    Raises:
        WrongType: a value that does not fit its feature's declared type.
        PushedRowsError: an event time that is missing, or too far in the future.
    """
    definition = view_definition(
        config.project, table, is_versioned=config.registry.enable_online_feature_view_versioning
    )
    if definition.windows:
        raise PushedRowsError(
            f"feature view {table.name!r} is computed from events over time windows and takes no rows; push the events "
            "to its push source"
        )
    column_of_name = {column.name: column for column in definition.features}
    groups: dict[RowLayout, list[EncodedRow]] = {}
    plans: dict[frozenset[str], tuple[RowLayout, Any]] = {}
    for number, (entity_key, values, event_time, created_time) in enumerate(data):
        key = encode_entity_key(config.project, entity_key)
        if key is None:
            continue
        names = frozenset(values.keys() & column_of_name.keys())
        if names not in plans:
            layout = RowLayout.of(column_of_name[name] for name in names)
            plans[names] = layout, layout.encoder()
        layout, encode = plans[names]
        plain = [plain_from_proto(values[column.name], column.type_name) for column in layout.columns]
        times = _times(table.name, number, event_time, created_time, now_us)
        groups.setdefault(layout, []).append(EncodedRow(key, times, encode(plain)))
    return ViewWrite(definition.name, groups)


def write_pushed(
    knowledge: Knowledge, write: ViewWrite, key_ttl_seconds: int | None, slot_of: SlotOf | None
) -> Conversation[int]:
    """Writes rows as pushed ones; returns how many replaced what stood there."""
    written = 0
    for layout, encoded in write.groups.items():
        tag = yield from register_layout(knowledge, layout)
        # Made as they are sent: an event loop gets its turn between batches.
        rows = ((row.key, encode_row(tag, row.times, row.body, is_pushed=True)) for row in encoded)
        written += yield from write_rows(knowledge, write.view, rows, Writing(tag, layout, key_ttl_seconds, slot_of))
    return written


def encode_entity_key(project: str, entity_key: EntityKeyProto) -> bytes | None:
    """Returns the Redis key of Feast's entity key message, None if a part of it is null.

    Raises:
        WrongType: a value of a type that entities cannot have.
    """
    columns, values = [], []
    for name, value in sorted(
        zip(entity_key.join_keys, entity_key.entity_values, strict=True), key=lambda pair: pair[0]
    ):
        if name == DUMMY_ENTITY_ID:
            continue
        if value.WhichOneof("val") in (None, "null_val"):
            return None
        try:
            type_name = _proto_value_to_value_type(value).name
        except KeyError as error:
            raise WrongType(
                f"join key {name!r}: a value of kind {value.WhichOneof('val')!r} cannot be a key"
            ) from error
        columns.append(Column(name, type_name))
        values.append(plain_from_proto(value, type_name))
    return _encoder(project, tuple(columns)).encode(values)


@cache
def _encoder(project: str, columns: tuple[Column, ...]) -> EntityKeyEncoder:
    return entity_key_encoder(project, columns)


def _times(view: str, number: int, event_time: Any, created_time: Any, now_us: int) -> RowTimes:
    if event_time is None or event_time != event_time:  # noqa: PLR0124 - pandas' NaT is not equal to itself
        raise PushedRowsError(f"feature view {view!r}, row {number}: no event time; give one to every row")
    event_us = to_us(event_time)
    if not is_sayable(event_us):
        raise PushedRowsError(
            f"feature view {view!r}, row {number}: event time {event_time.isoformat()} lies outside of the years 1 to "
            "9999 UTC; correct it"
        )
    limit_us = now_us + PUSH_FUTURE_SECONDS_MAX * 1_000_000
    if event_us > limit_us:
        raise PushedRowsError(
            f"feature view {view!r}, row {number}: event time {event_time.isoformat()} is more than "
            f"{timedelta(seconds=PUSH_FUTURE_SECONDS_MAX)} after now, {from_us(now_us).isoformat()}; "
            "correct the producer's clock or time zone"
        )
    created_us = to_us(created_time) if created_time is not None and created_time == created_time else None  # noqa: PLR0124
    return RowTimes(
        event_us,
        getattr(event_time, "nanosecond", 0),
        created_us,
        getattr(created_time, "nanosecond", 0) if created_us is not None else 0,
    )
