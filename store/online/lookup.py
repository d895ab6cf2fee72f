"""One lookup, from entity columns to answer columns: what to read, and what the replies mean."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, cast

import pyarrow as pa

from store.errors import (
    EntityRowsError,
    InputError,
    MissingJoinKey,
    StoredRowError,
    TooLarge,
    UnequalLengths,
    WrongType,
    shown,
)
from store.feast_values import plain_from_python, plain_from_request, python_from_plain
from store.kernel.codec import SCHEMA_TAG, decode_header
from store.limits import LOOKUP_BATCH_KEYS, LOOKUP_KEYS_MAX, LOOKUP_STORED_BYTES_MAX, LOOKUP_VALUES_MAX
from store.online.conversations import Conversation, Knowledge, load_layouts, read_rows
from store.online.plan import KeyGroup, OnDemandRead, OnlinePlan, ViewRead
from store.online.stored_rows import NULL_VALUE, PRESENT, EventTimes, ViewRows, joined_rows, missing_rows, read_view
from store.online.windowed_reads import KeysWanted, TileMark, ViewTiles, marks_of, read_stored, read_windowed

_tag_of = itemgetter(SCHEMA_TAG)


class Lookup:
    """One lookup by a compiled plan; `converse` is held with Redis, then `answer` gives the columns.

    Attributes:
        future_rows: rows read whose event time lies after the request time; counted by `answer`.
        overflows: windowed sums of integers beyond int64, answered as nulls; counted by `answer`.
        view_rows: views, each with the event times of the rows that were read; filled by `answer`.
        unknown_keys: views, each with how many entity rows there are of whose key it has nothing; filled likewise.
        stored_bytes: how many bytes were read; counted by `converse`.
    """

    def __init__(self, plan: OnlinePlan, entities: Mapping[str, Sequence[Any]]) -> None:
        """Checks the entity columns against the plan.

        Raises:
            MissingJoinKey, UnequalLengths, EntityRowsError, WrongType, TooLarge: as their names say.
        """
        self.plan = plan
        self.row_count = _row_count(plan, entities)
        self.entities = _checked_entities(plan, entities)
        self._keys = [_distinct(_keys(group, self.entities, self.row_count)) for group in plan.groups]
        self._rows: list[list[bytes | None]] = []
        self._tiles: dict[int, list[ViewTiles]] = {}
        self.future_rows = 0
        self.overflows = 0
        self.view_rows: list[tuple[str, Sequence[int]]] = []
        self.unknown_keys: list[tuple[str, int]] = []
        self.stored_bytes = 0

    def converse(self, knowledge: Knowledge) -> Conversation[None]:
        """Reads the stored rows and tiles, and the layouts that are not yet known."""
        wanted = [
            KeysWanted(keys, group.stored_names, group.windowed_views)
            for (keys, _), group in zip(self._keys, self.plan.groups, strict=True)
        ]
        tags: set[bytes] = set()
        for batch in _batches(wanted):
            if any(group.windowed for _, group in batch):
                rows, tile_bytes = yield from self._read_both(knowledge, batch)
                self.stored_bytes += tile_bytes
            else:
                rows = yield from read_rows(knowledge, [(group.entity_keys, group.views) for _, group in batch])
            found = [row for row in chain.from_iterable(rows) if row is not None]
            self.stored_bytes += sum(map(len, found))
            _refuse_beyond(self.stored_bytes, "read")
            tags.update(map(_tag_of, found))
            self._rows += rows
        if any(int.from_bytes(tag, "big") not in knowledge.layouts for tag in tags):
            every = [row for row in chain.from_iterable(self._rows) if row is not None]
            yield from load_layouts(knowledge, sorted({decode_header(row).schema_tag for row in every}))

    def _read_both(
        self, knowledge: Knowledge, batch: Sequence[tuple[int, KeysWanted]]
    ) -> Conversation[tuple[list[list[bytes | None]], int]]:
        """Returns the rows of a batch, and of how many bytes its tiles are, which are kept by their view's place."""
        stored = yield from read_stored(knowledge, [group for _, group in batch])
        rows: list[list[bytes | None]] = []
        tile_bytes = 0
        for (number, group), of_group in zip(batch, stored, strict=True):
            rows += of_group.rows if group.views else [[] for _ in group.entity_keys]
            for source, tiles in zip(self.plan.groups[number].windowed_sources, of_group.tiles, strict=True):
                self._tiles.setdefault(source, []).append(tiles)
                tile_bytes += tiles.byte_count
        return rows, tile_bytes

    def stored_rows(self) -> list[Sequence[bytes | None]]:
        """Returns the rows that were read of each view of the plan, one per entity row, None where there is none.

        A windowed view has no rows.
        """
        found: dict[int, Sequence[bytes | None]] = {}
        start = 0
        for group, (keys, places) in zip(self.plan.groups, self._keys, strict=True):
            rows_of_key = self._rows[start : start + len(keys)]
            start += len(keys)
            for source, rows in zip(group.sources, zip(*rows_of_key, strict=True), strict=False):
                found[source] = rows if places is None else [None if place is None else rows[place] for place in places]
        none: Sequence[bytes | None] = [None] * self.row_count
        return [found.get(source, none) for source in range(len(self.plan.views))]

    def tile_marks(self) -> dict[int, Sequence[TileMark | None]]:
        """Returns which tiles were read of each windowed view, by its place, one mark per entity row."""
        found: dict[int, Sequence[TileMark | None]] = {}
        for group, (_, places) in zip(self.plan.groups, self._keys, strict=True):
            for source, view in zip(group.windowed_sources, group.windowed_views, strict=True):
                parts = self._tiles.get(source, ())
                marks = list(chain.from_iterable([marks_of(view, tiles) for tiles in parts]))
                found[source] = (
                    marks if places is None else [None if place is None else marks[place] for place in places]
                )
        return found

    def answer(self, knowledge: Knowledge, now_us: int) -> list[ViewRows]:
        """Returns what each view of the plan says, one entry per entity row: those read, then those computed.

        Args:
            knowledge: with the layouts of all rows read.
            now_us: the request time, from which ages are counted.
        """
        found: dict[int, ViewRows] = {}
        answer_bytes = start = 0
        for group, (keys, places) in zip(self.plan.groups, self._keys, strict=True):
            rows_of_key = self._rows[start : start + len(keys)]
            start += len(keys)
            for position, (source, read) in enumerate(zip(group.sources, group.reads, strict=True)):
                rows = [rows[position] for rows in rows_of_key]
                said = read_view(read, rows, knowledge, now_us)
                self._count(read.name, said.times.us, now_us)
                if places is not None:
                    said = said.taken(places)
                    answer_bytes += _answer_bytes(rows, places, said)
                    _refuse_beyond(answer_bytes, "answered")
                self._count_unknown(read.name, said)
                found[source] = said
            for source, read in zip(group.windowed_sources, group.windowed, strict=True):
                found[source] = self._windowed(source, read, places, now_us)
        views = [found[source] for source in range(len(self.plan.views))]
        # An on-demand view reads no other one.
        return views + [self._computed(read, views) for read in self.plan.on_demand]

    def _windowed(self, source: int, read: ViewRead, places: Sequence[int | None] | None, now_us: int) -> ViewRows:
        """Returns what one windowed view says."""
        # A lookup of many keys takes several round trips, between which a materialization may take over.
        parts = []
        for tiles in self._tiles.get(source, ()):
            part, overflows = read_windowed(read, tiles, now_us)
            self.overflows += overflows
            parts.append(part)
        said = joined_rows(parts) if parts else missing_rows(read, 0)
        self._count(read.name, said.times.us, now_us)
        said = said if places is None else said.taken(places)
        self._count_unknown(read.name, said)
        return said

    def _count(self, view: str, times_us: Sequence[int | None], now_us: int) -> None:
        event_us = cast("Sequence[int]", times_us)
        if None in times_us:
            event_us = [us for us in times_us if us is not None]
        self.view_rows.append((view, event_us))
        if event_us and max(event_us) > now_us:
            self.future_rows += sum(us > now_us for us in event_us)

    def _count_unknown(self, view: str, said: ViewRows) -> None:
        # A view that has all rows, as most have, is told by one look.
        if not said.is_whole and (unknown := said.times.us.count(None)):
            self.unknown_keys.append((view, unknown))

    def _computed(self, read: OnDemandRead, views: Sequence[ViewRows]) -> ViewRows:
        """Returns what one on-demand view says of the rows read."""
        inputs: dict[str, list[Any]] = {}
        for column in (*self.plan.entity_columns.values(), *self.plan.request_columns.values()):
            inputs[column.name] = [python_from_plain(v, column.type_name) for v in self.entities[column.name]]
        for name, place in read.inputs:
            source, feature = self.plan.origins[place]
            type_name = self.plan.columns[place].type_name
            inputs[name] = [_python_from_stored(read, name, v, type_name) for v in views[source].columns[feature]]
        results = run_on_demand(read.view, inputs, self.row_count)
        columns = [plain_from_python(results[column.name], column.type_name) for column in read.features]
        statuses = [[NULL_VALUE if value is None else PRESENT for value in values] for values in columns]
        return ViewRows(columns, statuses, EventTimes([None] * self.row_count))


def _batches(wanted: Sequence[KeysWanted]) -> Iterator[Sequence[tuple[int, KeysWanted]]]:
    """Yields what is to be read in round trips of bounded size, each part with the number of its group."""
    if sum(len(group.entity_keys) for group in wanted) <= LOOKUP_BATCH_KEYS:
        yield list(enumerate(wanted))
        return
    for number, group in enumerate(wanted):
        keys = group.entity_keys
        for start in range(0, len(keys), LOOKUP_BATCH_KEYS):
            yield [(number, group._replace(entity_keys=keys[start : start + LOOKUP_BATCH_KEYS]))]


def _answer_bytes(rows: Sequence[bytes | None], places: Sequence[int | None], found: ViewRows) -> int:
    """Returns how many stored bytes of one view are answered, each row as often as it was asked for.

    Rows that are asked for once need no count: what is read is bounded already.
    """
    sizes = [0 if row is None else len(row) for row in rows]
    whole_bytes = sum([sizes[place] for place in places if place is not None])
    if whole_bytes <= LOOKUP_STORED_BYTES_MAX:
        return whole_bytes
    # Of a large row perhaps only a small feature was asked for; elements of lists take 8 bytes, or are short.
    size_of: dict[type, int] = {str: 1, bytes: 1, list: 8}
    values = chain.from_iterable(found.columns)
    return sum(len(value) * size_of[type(value)] for value in values if type(value) in size_of)


def _python_from_stored(read: OnDemandRead, name: str, value: Any, type_name: str) -> Any:
    try:
        return python_from_plain(value, type_name)
    except (ValueError, OverflowError, OSError) as error:
        raise StoredRowError(
            f"feature {name!r}: the stored {type_name} {shown(value)} cannot be handed to on-demand feature view "
            f"{read.view.name!r} ({error}); correct its source and materialize it again"
        ) from error


def _refuse_beyond(stored_bytes: int, done: str) -> None:
    if stored_bytes > LOOKUP_STORED_BYTES_MAX:
        raise TooLarge(
            f"the rows asked for hold more than {LOOKUP_STORED_BYTES_MAX} bytes, which is all that is {done} at once; "
            "ask for fewer keys in each request"
        )


def run_on_demand(view: Any, inputs: Mapping[str, list[Any]], row_count: int) -> Mapping[str, list[Any]]:
    """Returns the outputs of an on-demand view's function over some rows.

    Raises:
        InputError: the function failed, or gave another number of rows than it was given.
    """
    if row_count == 0:
        return {feature.name: [] for feature in view.features}
    try:
        if view.mode == "python":
            results = _each_row(view, inputs, row_count) if view.singleton else view.transform_dict(dict(inputs))
        else:
            results = view.transform_arrow(pa.Table.from_pydict(dict(inputs))).to_pydict()
        counts = {feature.name: len(results.get(feature.name, ())) for feature in view.features}
    except Exception as error:  # A user's function may raise anything; it becomes an error that names the view.
        raise InputError(
            f"on-demand feature view {view.name!r} failed: {type(error).__name__}: {error}; "
            "its function must cope with missing values"
        ) from error
    for name, count in counts.items():
        if count != row_count:
            raise InputError(
                f"on-demand feature view {view.name!r}: its function gave {count} values of {name!r} "
                f"for {row_count} rows; it must give one per row"
            )
    return dict(results)


def _each_row(view: Any, inputs: Mapping[str, list[Any]], row_count: int) -> dict[str, list[Any]]:
    """Returns the outputs of a function that takes one row; Feast takes the row out of lists of one."""
    rows = [view.transform_dict({name: [values[i]] for name, values in inputs.items()}) for i in range(row_count)]
    return {feature.name: [row[feature.name] for row in rows] for feature in view.features}


def _row_count(plan: OnlinePlan, entities: Mapping[str, Sequence[Any]]) -> int:
    for name, values in entities.items():
        if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
            raise WrongType(
                f"entity column {name!r} is {values!r} ({type(values).__name__}), expected a list with one value per "
                "entity row"
            )
    lengths = {name: len(values) for name, values in entities.items()}
    if len(set(lengths.values())) > 1:
        raise UnequalLengths(
            f"entity columns have different lengths: {shown(lengths)}; give one value per entity row in each"
        )
    # Without any key or request field, a lookup asks for the one row of entity-less views.
    count = next(iter(lengths.values()), 0 if plan.given_columns else 1)
    if count > LOOKUP_KEYS_MAX:
        raise TooLarge(f"{count} entity rows asked for, at most {LOOKUP_KEYS_MAX} are allowed; split the request")
    if count * len(plan.columns) > LOOKUP_VALUES_MAX:
        raise TooLarge(
            f"{count} entity rows x {len(plan.columns)} features is more than {LOOKUP_VALUES_MAX} values; "
            "split the request"
        )
    return count


def _checked_entities(plan: OnlinePlan, entities: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Returns the entity columns as plain values, in the request's order."""
    if entities.keys() != plan.given_columns.keys():
        raise _other_columns(plan, entities)
    return {name: plain_from_request(plan.given_columns[name], values) for name, values in entities.items()}


def _other_columns(plan: OnlinePlan, entities: Mapping[str, Sequence[Any]]) -> InputError:
    """Returns the error for entity columns that are not those of the plan.

    One that nothing asks for is an error too: it is mostly a misspelt one.
    """
    got = f"(got {sorted(entities)})"
    for read in plan.views:
        for column in read.key_columns:
            if column not in entities:
                return MissingJoinKey(
                    f"feature view {read.name!r}: join key {column!r} is missing from the entity columns {got}; "
                    "add the column or rename it"
                )
    for name in plan.request_columns:
        if name not in entities:
            return MissingJoinKey(
                f"request field {name!r} of an on-demand feature view is missing from the entity columns {got}; "
                "add the column"
            )
    name = next(name for name in entities if name not in plan.given_columns)
    return EntityRowsError(
        f"entity column {name!r} is neither a join key nor a request field of the features asked for "
        f"(those are {sorted(plan.given_columns)}); remove it or correct its name"
    )


def _keys(group: KeyGroup, entities: Mapping[str, Sequence[Any]], row_count: int) -> list[bytes | None]:
    """Returns the entity key of each entity row, None where a part of it is null."""
    try:
        return group.encoder.encode_all([entities[column] for column in group.key_columns], row_count)
    except WrongType as error:
        raise WrongType(f"feature view {(*group.reads, *group.windowed)[0].name!r}: {error}") from error


def _distinct(keys: Sequence[bytes | None]) -> tuple[list[bytes], list[int | None] | None]:
    """Returns the keys to read, each once, and which of them each entity row has (None: just as they stand)."""
    distinct = list(dict.fromkeys([key for key in keys if key is not None]))
    if len(distinct) == len(keys):
        return distinct, None
    place_of = {key: place for place, key in enumerate(distinct)}
    return distinct, [None if key is None else place_of[key] for key in keys]
