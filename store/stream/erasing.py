"""Erasure of an entity's rows from the stream: the event log, inboxes and dead letters.

Entries of the log hold rows of many entities and cannot be changed. So they are not: a line is drawn, everything before
it is applied and lands, where it is erased from tiles and files, and then the log is cut off behind the line.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
from feast import FeatureStore
from feast.data_source import PushSource

from store.errors import LarderError
from store.feast_values import plain_from_arrow
from store.kernel import keys
from store.kernel.definitions import Column
from store.kernel.log_entries import Events, decode_entry
from store.limits import INBOX_ENTRIES_MAX, READ_ENTRIES_MAX
from store.online.client import RedisSession
from store.online.dead_letters import KeptLetter, change_letter, read_letters
from store.online.stream_log import StreamLog, load_schema, read_entries
from store.online.views import say
from store.stream.context import StreamContext
from store.stream.lines import landed_line
from store.stream.rows import parsed_schema, table_of


@dataclass(frozen=True, slots=True)
class WantedPart:
    """One join key that a row has to have: its column, the names by which rows call it, and the value."""

    column: Column
    names: frozenset[str]
    value: Any


WantedEvent = tuple[WantedPart, ...]


@dataclass(frozen=True, slots=True)
class StreamRows:
    """How many rows of wanted keys there are in the log, in inboxes and among the dead letters."""

    log: int = 0
    inboxes: int = 0
    letters: int = 0

    @property
    def total(self) -> int:
        """Returns how many there are in all."""
        return self.log + self.inboxes + self.letters


class StreamSearch:
    """Looks for rows of wanted keys in the stream of a project, and erases them."""

    def __init__(self, session: RedisSession, store: FeatureStore, wanted: Sequence[WantedEvent]) -> None:
        self._session = session
        self._project = store.project
        self._wanted = wanted
        views = [*store.list_feature_views(allow_cache=True), *store.list_stream_feature_views(True)]
        sources = [view.stream_source for view in views]
        self._sources = sorted({source.name for source in sources if isinstance(source, PushSource)})
        self._schemas: dict[bytes, pa.Schema | None] = {}

    def count(self) -> StreamRows:
        """Returns how many rows there are; nothing is changed."""
        log = self._log()
        return StreamRows(
            0 if log is None else sum(self._in_log(log)),
            sum(1 for source in self._sources for _ in self._in_inbox(source)),
            sum(1 for _ in self._in_letters()),
        )

    def erase(self, context: StreamContext | None) -> StreamRows:
        """Erases the rows, and returns how many there were; those of the log go on to where they land and count.

        Args:
            context: the stream, by which the log is worked on; None where there is no log.

        Raises:
            OnlineStoreTimeout: what is in the log cannot land.
        """
        inboxes = letters = 0
        for source in self._sources:
            for name in list(self._in_inbox(source)):
                inboxes += self._session.hold(say([("XDEL", keys.inbox_key(self._project, source), name)]))[0]
        for kept in list(self._in_letters()):
            letters += self._session.hold(change_letter(self._project, kept, ""))
        rows = 0
        if context is not None:
            rows = sum(self._in_log(context.log))
            # Copies for other entities may come into their partitions behind the first line, and before the second.
            for _ in range(2):
                landed_line(context, "")
        return StreamRows(rows, inboxes, letters)

    def has_log(self) -> bool:
        """Whether there is an event log."""
        return self._log() is not None

    def _log(self) -> StreamLog | None:
        ((partitions, name),) = self._session.hold(
            say([("HMGET", keys.stream_key(self._project), "partitions", "name")])
        )
        return None if partitions is None else StreamLog(self._project, int(partitions), name.decode())

    # --- the log --------------------------------------------------------------------------------

    def _in_log(self, log: StreamLog) -> Iterator[int]:
        """Yields how many rows each entry has that holds any."""
        for partition in range(log.partitions):
            after = 0
            while entries := self._session.hold(read_entries(log, {partition: after}, READ_ENTRIES_MAX))[partition]:
                after = entries[-1][0]
                for _, content in entries:
                    if rows := self._in_entry(content):
                        yield rows

    def _in_entry(self, content: bytes) -> int:
        try:
            said = decode_entry(content)
            if not isinstance(said, Events):
                return 0
            schema = self._schema(said.schema_tag)
            table = None if schema is None else table_of(schema, said.columns)
        except (LarderError, pa.ArrowException, TypeError, ValueError):
            # Its worker finds it out too, and makes a dead letter of it.
            return 0
        if table is None:
            return 0
        matches = [self._matches(table, key) for key in self._wanted]
        return sum(any(row) for row in zip(*matches, strict=True))

    def _matches(self, table: pa.Table, key: WantedEvent) -> list[bool]:
        found = [True] * table.num_rows
        for part in key:
            name = next((name for name in part.names if name in table.column_names), None)
            if name is None:
                return [False] * table.num_rows
            values = plain_from_arrow(part.column, table.column(name))
            found = [one and value == part.value for one, value in zip(found, values, strict=True)]
        return found

    def _schema(self, tag: bytes) -> pa.Schema | None:
        if tag not in self._schemas:
            content = self._session.hold(load_schema(self._project, tag))
            self._schemas[tag] = None if content is None else parsed_schema(content)
        return self._schemas[tag]

    # --- inboxes and dead letters ---------------------------------------------------------------

    def _in_inbox(self, source: str) -> Iterator[bytes]:
        after = b"-"
        while True:
            command = ("XRANGE", keys.inbox_key(self._project, source), after, "+", "COUNT", INBOX_ENTRIES_MAX)
            (entries,) = self._session.hold(say([command]))
            for name, fields in entries:
                values = list(fields.values()) if isinstance(fields, dict) else fields[1::2]
                if any(self._is_wanted(bytes(value)) for value in values):
                    yield name
            if len(entries) < INBOX_ENTRIES_MAX:
                return
            after = b"(" + entries[-1][0]

    def _in_letters(self) -> Iterator[KeptLetter]:
        after = 0
        while letters := self._session.hold(read_letters(self._project, after)):
            yield from (kept for kept in letters if self._is_wanted(kept.letter.row.encode()))
            after = letters[-1].number

    def _is_wanted(self, content: bytes) -> bool:
        """Whether a row is of a wanted key; of one that cannot be read, whether it names all the values."""
        try:
            row = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            row = None
        if not isinstance(row, dict):
            text = content.decode("utf-8", "replace")
            return any(all(_names(text, part.value) for part in key) for key in self._wanted)
        return any(
            all(any(_is_same(row[name], part.value) for name in part.names if name in row) for part in key)
            for key in self._wanted
        )


def _is_same(said: Any, value: Any) -> bool:
    # A row that does not fit may have a number as text.
    return bool(said == value or str(said) == str(value))


def _names(text: str, value: Any) -> bool:
    return re.search(rf"(?<!\w){re.escape(str(value))}(?!\w)", text) is not None
