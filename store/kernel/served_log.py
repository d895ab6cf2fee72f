"""What stands in the files of served vectors: the columns, and the note in which a file says what its rows are.

    __request_id      text, the same for the entity rows of one lookup
    __log_timestamp   the request time t, microseconds, UTC
    __log_date        its day
    join keys and request data, by the names that the request uses
    per feature       `<view>__<feature>`, `<view>__<feature>__timestamp` (the row's event time) and
                      `<view>__<feature>__status` (1 PRESENT, 2 NULL_VALUE, 3 NOT_FOUND, 4 OUTSIDE_MAX_AGE)
    per plain view    `<view>__row__event_us`, `__event_ns`, `__created_us`, `__created_ns`, `__is_pushed`,
                      `__generation`: the row that was read; null where there was none
    per windowed view `<view>__tiles__generation`, `__applied_through`, `__batch_end_us`, `__line_id`, `__known_us`,
                      `__files`, `__fingerprint`: the tiles that were merged (`TileMark`)

Up to the last line that is Feast's own form of logged features. A value is stored exactly: as the plain value of its
type (`store.kernel.values`), so that a timestamp is whole seconds since the Unix epoch, and a map, a struct or a nested
list the bytes of Feast's `Value`. The note is JSON in the file's key-value metadata.

Source: `FeatureServiceLoggingSource` and the field statuses of Feast 0.67.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from store.errors import SourceUnreadable
from store.kernel.coverage import Interval, ViewState
from store.kernel.definitions import Column

NOTE_KEY: Final = b"larder"
NOTE_VERSION: Final = 1
REQUEST_ID, REQUEST_TIME, REQUEST_DATE = "__request_id", "__log_timestamp", "__log_date"
STATUS_CODES: Final = {"PRESENT": 1, "NULL_VALUE": 2, "NOT_FOUND": 3, "OUTSIDE_MAX_AGE": 4}
STATUS_NAMES: Final = {code: name for name, code in STATUS_CODES.items()}


class RowColumns(NamedTuple):
    """The names of the columns that tell which row of a view was read."""

    event_us: str
    event_ns: str
    created_us: str
    created_ns: str
    is_pushed: str
    generation: str

    @classmethod
    def of(cls, view: str) -> "RowColumns":
        """Returns the names for a view, as the request calls it."""
        return cls(*(f"{view}__row__{name}" for name in cls._fields))


class TileColumns(NamedTuple):
    """The names of the columns that tell which tiles of a windowed view were merged."""

    generation: str
    applied_through: str
    batch_end_us: str
    line_id: str
    known_us: str
    files: str
    fingerprint: str

    @classmethod
    def of(cls, view: str) -> "TileColumns":
        """Returns the names for a view, as the request calls it."""
        return cls(*(f"{view}__tiles__{name}" for name in cls._fields))


class LoggedView(msgspec.Struct, frozen=True):
    """A view as it was when its rows were served.

    Attributes:
        name: as the request calls it; `stored_name` is its name in Redis.
        join_keys: name in the view and name of the type; `key_columns` are the request's columns of them, in the same
            order.
        is_windowed: its features are aggregates over windows, merged from tiles instead of read from a row.
    """

    name: str
    stored_name: str
    fingerprint: str
    ttl_us: int
    join_keys: tuple[tuple[str, str], ...]
    key_columns: tuple[str, ...]
    is_windowed: bool = False


class LoggedFeature(msgspec.Struct, frozen=True):
    """A feature that is logged: its view as the request calls it, its name there and the name of its type.

    `is_output` says whether callers asked for it; others are inputs of on-demand features.
    """

    view: str
    name: str
    type_name: str
    is_output: bool

    @property
    def column(self) -> str:
        """The name of its values' column."""
        return f"{self.view}__{self.name}"

    @property
    def declared(self) -> Column:
        """The feature as a column of its view."""
        return Column(self.name, self.type_name)


class LoggedOnDemand(msgspec.Struct, frozen=True):
    """An on-demand view that was computed: the columns of its function's inputs by their names, and its fingerprint."""

    name: str
    fingerprint: str
    inputs: tuple[tuple[str, str], ...]


class LoggedPlan(msgspec.Struct, frozen=True):
    """What all rows of a file have in common: the service, its views and features as they were declared."""

    project: str
    service: str
    entity_columns: tuple[tuple[str, str], ...]
    request_columns: tuple[tuple[str, str], ...]
    views: tuple[LoggedView, ...]
    features: tuple[LoggedFeature, ...]
    on_demand: tuple[LoggedOnDemand, ...] = ()

    @property
    def column_names(self) -> list[str]:
        """The names of all columns of a file, in their order."""
        names = [REQUEST_ID, REQUEST_TIME, REQUEST_DATE]
        names += [name for name, _ in (*self.entity_columns, *self.request_columns)]
        for feature in self.features:
            names += [feature.column, f"{feature.column}__timestamp", f"{feature.column}__status"]
        for view in self.views:
            names += TileColumns.of(view.name) if view.is_windowed else RowColumns.of(view.name)
        return names


class LoggedState(msgspec.Struct, frozen=True):
    """What Redis said of a view when a file was begun or ended: which definition its rows follow, what they cover."""

    generation: int
    fingerprint: str
    coverage: tuple[tuple[int, int], ...]
    known_us: int | None

    @classmethod
    def of(cls, state: ViewState) -> "LoggedState":
        """Returns a view's state as it is logged."""
        covered = tuple((interval.start_us, interval.end_us) for interval in state.coverage)
        return cls(state.generation, state.fingerprint, covered, state.known_us)

    def covers(self, event_us: int) -> bool:
        """Whether an event time had been materialized."""
        return any(start_us <= event_us < end_us for start_us, end_us in self.coverage)

    @property
    def state(self) -> ViewState:
        """The state, as far as it was logged."""
        covered = tuple(Interval(*interval) for interval in self.coverage)
        return ViewState(self.generation, self.fingerprint, covered, known_us=self.known_us)


class Counts(msgspec.Struct, frozen=True):
    """How many vectors a worker served since its last file of a service, and what became of them."""

    served: int = 0
    sampled_out: int = 0
    dropped: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Returns both together."""
        return Counts(self.served + other.served, self.sampled_out + other.sampled_out, self.dropped + other.dropped)

    def minus(self, other: "Counts") -> "Counts":
        """Returns what came since the other counts."""
        return Counts(self.served - other.served, self.sampled_out - other.sampled_out, self.dropped - other.dropped)


class FileNote(msgspec.Struct, frozen=True):
    """What a file says of itself.

    Attributes:
        worker: the server worker that wrote it; `sequence` counts its files of the service from 1, and `is_last` is
            the one with which it ended, so that what a killed worker had not written yet can be told.
        first_us: the least request time of the rows, `last_us` the greatest; of a file without rows when it was begun
            and ended.
        states_before: by stored name, what Redis said of each view when the file was begun; None where it did not
            answer. `states_after`: when it was ended.
    """

    plan: LoggedPlan
    worker: str
    sequence: int
    is_last: bool
    first_us: int
    last_us: int
    counts: Counts
    states_before: dict[str, LoggedState | None]
    states_after: dict[str, LoggedState | None]
    version: int = NOTE_VERSION

    def to_bytes(self) -> bytes:
        """Returns the note as it stands in the file."""
        return msgspec.json.encode(self)


_decoder = msgspec.json.Decoder(FileNote)


def parse_note(raw: bytes, path: str) -> FileNote:
    """Returns the note of a file.

    Raises:
        SourceUnreadable: it is none, or one of a later version.
    """
    try:
        note = _decoder.decode(raw)
    except msgspec.DecodeError as error:
        raise SourceUnreadable(
            f"log file {path!r} has a note that cannot be read ({error}); it is damaged or of another version of "
            "Larder: take it away, or audit with that version"
        ) from error
    if note.version != NOTE_VERSION:
        raise SourceUnreadable(
            f"log file {path!r} has note version {note.version}, this version of Larder reads {NOTE_VERSION}; audit "
            "with a later one"
        )
    return note


def repeated_names(names: Sequence[str]) -> list[str]:
    """Returns the names that stand more than once, in order."""
    return sorted({name for name in names if names.count(name) > 1})
