"""One lookup, from entity columns to answer columns: what to read, and what the replies mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

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
from store.kernel.codec import SCHEMA_TAG, RowTimes, decode_header
from store.kernel.definitions import Column
from store.kernel.values import ABSENT
from store.limits import LOOKUP_BATCH_KEYS, LOOKUP_KEYS_MAX, LOOKUP_STORED_BYTES_MAX, LOOKUP_VALUES_MAX
from store.online.conversations import Conversation, Knowledge, load_layouts, read_rows
from store.online.plan import OnDemandRead, OnlinePlan, ViewRead

PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE = "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"


@dataclass(slots=True)
class AnswerColumn:
    """One column of an answer, one entry per entity row.

    Shapes: `values` are plain values, None unless the status is PRESENT; `event_times` are None where no row
    was found, and for entity columns and computed features. Columns share lists of statuses and times that are equal.
    """

    values: list[Any]
    statuses: Sequence[str]
    event_times: Sequence[RowTimes | None]


class Lookup:
    """One lookup by a compiled plan; `converse` is held with Redis, then `answer` gives the columns.

    Attributes:
        future_rows: rows read whose event time lies after the request time; counted by `answer`.
        view_rows: views, each with the event times of the rows that were read; filled by `answer`.
    """

    def __init__(self, plan: OnlinePlan, entities: Mapping[str, Sequence[Any]]) -> None:
        """Checks the entity columns against the plan.

        Raises:
            MissingJoinKey, UnequalLengths, EntityRowsError, WrongType, TooLarge: as their names say.
        """
        self.plan = plan
        self.row_count = _row_count(plan, entities)
        self.entities = _checked_entities(plan, entities)
        self._reads, self._requests = _requests(plan, self.entities, self.row_count)
        self._rows: list[list[bytes | None]] = []
        self.future_rows = 0
        self.view_rows: list[tuple[str, list[int]]] = []

    def converse(self, knowledge: Knowledge) -> Conversation[None]:
        """Reads the stored rows, and the layouts that are not yet known."""
        views = list(dict.fromkeys(read.definition.name for read in self.plan.views))
        stored_bytes = 0
        for start in range(0, len(self._requests), LOOKUP_BATCH_KEYS):
            rows = yield from read_rows(knowledge, views, self._requests[start : start + LOOKUP_BATCH_KEYS])
            stored_bytes += sum(len(row) for found in rows for row in found if row is not None)
            _refuse_beyond(stored_bytes, "read")
            self._rows += rows
        tags = {row[SCHEMA_TAG]: row for rows in self._rows for row in rows if row is not None}
        unknown = [row for tag, row in tags.items() if int.from_bytes(tag, "big") not in knowledge.layouts]
        yield from load_layouts(knowledge, sorted(decode_header(row).schema_tag for row in unknown))

    def answer(self, knowledge: Knowledge, now_us: int) -> list[AnswerColumn]:
        """Returns one column per column of the plan.

        Args:
            knowledge: with the layouts of all rows read.
            now_us: the request time, from which ages are counted.
        """
        columns: list[AnswerColumn | None] = [None] * len(self.plan.columns)
        answer_bytes = 0
        for read, (request_of_row, position) in zip(self.plan.views, self._reads, strict=True):
            missing = _missing_row(read)
            row_of: dict[int | None, Row] = {None: missing}
            for i in request_of_row:
                if i not in row_of:
                    assert i is not None
                    row_of[i] = row = read_row(read, self._rows[i][position], knowledge, now_us) or missing
                    self.future_rows += row.times is not None and row.times.event_us > now_us
            found = [row_of[i] for i in request_of_row]
            self.view_rows.append((read.name, [row.times.event_us for row in row_of.values() if row.times is not None]))
            answer_bytes += self._bytes_of(request_of_row, position, found)
            _refuse_beyond(answer_bytes, "answered")
            _fill(columns, read, found)
        for computed in self.plan.on_demand:
            self._compute(computed, columns)
        return [column for column in columns if column is not None]

    def _bytes_of(self, request_of_row: "RequestOfRow", position: int, found: "list[Row]") -> int:
        """Returns how many stored bytes of one view are answered; a row counts as often as it was asked for."""
        rows = (self._rows[i][position] for i in request_of_row if i is not None)
        whole_bytes = sum(len(row) for row in rows if row is not None)
        if whole_bytes <= LOOKUP_STORED_BYTES_MAX:
            return whole_bytes
        # Of a large row perhaps only a small feature was asked for; elements of lists take 8 bytes, or are short.
        sizes: dict[type, int] = {str: 1, bytes: 1, list: 8}
        return sum(len(v) * sizes[type(v)] for row in found for v in row.values if type(v) in sizes)

    def _compute(self, read: OnDemandRead, columns: list[AnswerColumn | None]) -> None:
        """Runs one on-demand view over the columns read and puts its results among them."""
        inputs: dict[str, list[Any]] = {}
        for column in (*self.plan.entity_columns.values(), *self.plan.request_columns.values()):
            inputs[column.name] = [python_from_plain(v, column.type_name) for v in self.entities[column.name]]
        for name, place in read.inputs:
            source = columns[place]
            assert source is not None
            type_name = self.plan.columns[place].type_name
            inputs[name] = [_python_from_stored(read, name, value, type_name) for value in source.values]
        results = run_on_demand(read.view, inputs, self.row_count)
        for name, place in read.outputs:
            values = plain_from_python(results[name], self.plan.columns[place].type_name)
            statuses = [NULL_VALUE if value is None else PRESENT for value in values]
            columns[place] = AnswerColumn(values, statuses, [None] * self.row_count)


def _fill(columns: list[AnswerColumn | None], read: ViewRead, found: "list[Row]") -> None:
    """Turns the rows of one view into its columns."""
    if not found:
        for slot in read.slots:
            columns[slot] = AnswerColumn([], [], [])
        return
    times = [row.times for row in found]
    first = found[0].statuses
    values = zip(*[row.values for row in found], strict=True)
    if all(row.statuses is first for row in found):
        shared = {status: [status] * len(found) for status in set(first)}
        for slot, column, status in zip(read.slots, values, first, strict=True):
            columns[slot] = AnswerColumn(list(column), shared[status], times)
        return
    statuses = zip(*[row.statuses for row in found], strict=True)
    for slot, column, told in zip(read.slots, values, statuses, strict=True):
        columns[slot] = AnswerColumn(list(column), told, times)


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


@dataclass(frozen=True, slots=True)
class Row:
    """What one stored row says at request time: one value and status per wanted feature."""

    values: Sequence[Any]
    statuses: Sequence[str]
    times: RowTimes | None


@cache
def _all(status: str, count: int) -> tuple[str, ...]:
    """Returns one status for all features of a row: always the same object, by which equal rows are known."""
    return (status,) * count


def _missing_row(read: ViewRead) -> Row:
    count = len(read.wanted)
    return Row((None,) * count, _all(NOT_FOUND, count), None)


def read_row(read: ViewRead, row: bytes | None, knowledge: Knowledge, now_us: int) -> Row | None:
    """Returns what one stored row says at request time, None where there is no row."""
    if row is None:
        return None
    header = decode_header(row)
    try:
        values = read.decoder(header.schema_tag, knowledge.layouts).decode(row, header.body_start)
    except StoredRowError as error:
        raise StoredRowError(f"feature view {read.name!r}: {error}") from error
    is_outside = read.ttl_us and header.times.event_us < now_us - read.ttl_us
    if type(values) is tuple:
        count = len(values)
        if is_outside:
            return Row((None,) * count, _all(OUTSIDE_MAX_AGE, count), header.times)
        return Row(values, _all(PRESENT, count), header.times)
    if is_outside:
        statuses = [NOT_FOUND if v is ABSENT else OUTSIDE_MAX_AGE for v in values]
        return Row((None,) * len(values), statuses, header.times)
    statuses = [NOT_FOUND if v is ABSENT else NULL_VALUE if v is None else PRESENT for v in values]
    return Row([None if v is ABSENT else v for v in values], statuses, header.times)


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
        raise UnequalLengths(f"entity columns have different lengths: {lengths}; give one value per entity row in each")
    # Without any key or request field, a lookup asks for the one row of entity-less views.
    needs_columns = bool(plan.entity_columns or plan.request_columns)
    count = next(iter(lengths.values()), 0 if needs_columns else 1)
    if count > LOOKUP_KEYS_MAX:
        raise TooLarge(f"{count} entity rows asked for, at most {LOOKUP_KEYS_MAX} are allowed; split the request")
    if count * len(plan.columns) > LOOKUP_VALUES_MAX:
        raise TooLarge(
            f"{count} entity rows x {len(plan.columns)} features is more than {LOOKUP_VALUES_MAX} values; "
            "split the request"
        )
    return count


def _checked_entities(plan: OnlinePlan, entities: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Returns the entity columns as plain values, in the request's order.

    A column that nothing asks for is refused: it is mostly a misspelt one.
    """
    known: dict[str, Column] = {**plan.request_columns, **plan.entity_columns}
    for read in plan.views:
        for column in read.key_columns:
            if column not in entities:
                raise MissingJoinKey(
                    f"feature view {read.name!r}: join key {column!r} is missing from the entity columns "
                    f"(got {sorted(entities)}); add the column or rename it"
                )
    for name in plan.request_columns:
        if name not in entities:
            raise MissingJoinKey(
                f"request field {name!r} of an on-demand feature view is missing from the entity columns "
                f"(got {sorted(entities)}); add the column"
            )
    checked = {}
    for name, values in entities.items():
        if (column := known.get(name)) is None:  # type: ignore[assignment]
            raise EntityRowsError(
                f"entity column {name!r} is neither a join key nor a request field of the features asked for "
                f"(those are {sorted(known)}); remove it or correct its name"
            )
        checked[name] = plain_from_request(column, values)
    return checked


RequestOfRow = list[int | None]


def _requests(
    plan: OnlinePlan, entities: Mapping[str, list[Any]], row_count: int
) -> tuple[list[tuple[RequestOfRow, int]], list[tuple[bytes, list[str]]]]:
    """Returns, per view, which request answers each entity row and where in it, and the requests themselves.

    Views with the same keys share requests, and so do equal keys, however often they are asked for.
    """
    reads: list[tuple[RequestOfRow, int]] = []
    requests: list[tuple[bytes, list[str]]] = []
    request_of_key: dict[bytes, int] = {}
    groups: dict[tuple[Any, ...], tuple[RequestOfRow, list[str]]] = {}
    for read in plan.views:
        group_key = (read.encoder.names, read.key_columns, tuple(c.type_name for c in read.definition.join_keys))
        if group_key not in groups:
            views: list[str] = []
            request_of_row: RequestOfRow = []
            for key in _keys(read, entities, row_count):
                if key is None:
                    request_of_row.append(None)
                    continue
                if key not in request_of_key:
                    request_of_key[key] = len(requests)
                    requests.append((key, views))
                request_of_row.append(request_of_key[key])
            groups[group_key] = (request_of_row, views)
            request_of_key = {}
        request_of_row, views = groups[group_key]
        reads.append((request_of_row, len(views)))
        views.append(read.definition.name)
    return reads, requests


def _keys(read: ViewRead, entities: Mapping[str, list[Any]], row_count: int) -> list[bytes | None]:
    columns = [entities[column] for column in read.key_columns]
    encode = read.encoder.encode
    if not columns:
        return [encode(())] * row_count
    try:
        return [encode(values) for values in zip(*columns, strict=True)]
    except WrongType as error:
        raise WrongType(f"feature view {read.name!r}: {error}") from error
