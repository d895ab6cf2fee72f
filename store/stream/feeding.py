"""Feeds: rows that others put onto a Redis stream or a Kafka topic, checked like pushes and passed on into the log.

A feed is read in order by one worker. Each partition of the log keeps up to which position it took from a feed, changed
in the step that appends; what a killed worker has passed on already is left out by the next. Rows that do not fit go to
the dead letters, each once for its position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import msgspec

from store.errors import InputError
from store.limits import INBOX_ROW_BYTES_MAX, PUSH_SECONDS_MAX
from store.online.conversations import Conversation
from store.online.dead_letters import DeadLetter
from store.online.log_appends import Moved, PartitionAppend, append, room
from store.online.rows import write_pushed
from store.online.stream_log import keep_schema, read_states
from store.pushing import PUSH_TARGETS, Push, checked_push
from store.requests import PushRequest
from store.stream.appending import by_partition, cut, events_of
from store.stream.context import StreamContext

Position = tuple[int, int]
"""Where a row stands in its feed: two numbers that rise together."""


@dataclass(frozen=True, slots=True)
class FedRow:
    """A row of a feed as it came.

    Attributes:
        origin: what it stands in the order of: the feed, or a partition of it.
        content: a JSON object.
        problem: why it is no row at all, "" where it may be one.
    """

    origin: str
    position: Position
    content: bytes
    to: str = "online"
    problem: str = ""


class Feed(Protocol):
    """Rows for one push source, in an order of their own."""

    @property
    def task(self) -> str:
        """The name of the feed, and of the task of reading it."""

    @property
    def push_source(self) -> str:
        """Whose rows they are."""

    def read(self) -> Sequence[FedRow]:
        """Returns the next rows, in their order; none where there are none now."""

    def done(self, rows: Sequence[FedRow]) -> None:
        """Takes note that rows that were read need not be read again."""

    def close(self) -> None:
        """Ends the reading."""


class Feeder:
    """Passes the rows of a feed on into the log."""

    def __init__(self, context: StreamContext, feed: Feed) -> None:
        self.feed = feed
        self._context = context
        self._taken: dict[tuple[str, int], str] = {}

    def step(self) -> bool:
        """Passes the next rows on; whether there were any.

        Raises:
            LogFull: a partition has no room; the rows stay in the feed.
            OnlineStoreError, SourceError: as their names say; likewise.
        """
        rows = self.feed.read()
        if not rows:
            return False
        for _, group in groupby(rows, key=lambda row: row.origin):
            self._pass_on(list(group))
        self.feed.done(rows)
        return True

    def close(self) -> None:
        """Ends the reading."""
        self.feed.close()

    # --- checking -------------------------------------------------------------------------------

    def _pass_on(self, rows: list[FedRow]) -> None:
        parsed: list[tuple[FedRow, dict[str, Any]]] = []
        for row in rows:
            try:
                parsed.append((row, parsed_row(row)))
            except InputError as error:
                self._bury(row, str(error))
        for _, group in groupby(parsed, key=lambda pair: (pair[0].to, sorted(pair[1]))):
            self._check(list(group))

    def _check(self, rows: list[tuple[FedRow, dict[str, Any]]]) -> None:
        """Passes on rows of the same columns; where one does not fit, the others are."""
        try:
            push = self._checked(rows)
        except InputError as error:
            if len(rows) == 1:
                self._bury(rows[0][0], str(error))
                return
            middle = len(rows) // 2
            self._check(rows[:middle])
            self._check(rows[middle:])
            return
        self.write(push, [row for row, _ in rows])

    def _checked(self, rows: list[tuple[FedRow, dict[str, Any]]]) -> Push:
        columns = {name: [values[name] for _, values in rows] for name in rows[0][1]}
        return checked_fed(self._context, PushRequest(self.feed.push_source, columns, rows[0][0].to))

    def _bury(self, row: FedRow, reason: str) -> None:
        place = f"{row.origin}/{row.position[0]}-{row.position[1]}"
        text = row.content.decode("utf-8", "backslashreplace")
        to = row.to if row.to in PUSH_TARGETS else "online"
        letter = DeadLetter(place, self.feed.push_source, text, to, reason, self._context.clock.now_us())
        self._context.bury([letter])

    # --- writing --------------------------------------------------------------------------------

    def write(self, push: Push, rows: Sequence[FedRow]) -> None:
        """Writes checked rows of one origin, each once however often it is said.

        Raises:
            LogFull, OnlineStoreError: as their names say.
        """
        context = self._context
        session = context.session
        for write in push.writes:
            ttl_seconds = context.key_ttl_seconds
            session.hold(write_pushed(context.knowledge, write, ttl_seconds, session.slot_of()), PUSH_SECONDS_MAX)
        session.hold(self._append(push, rows), PUSH_SECONDS_MAX)

    def _append(self, push: Push, rows: Sequence[FedRow]) -> Conversation[None]:
        """Appends to each partition the rows that it has not taken from this feed yet."""
        logged, context = push.logged, self._context
        assert logged is not None, "rows of feeds go into the log"
        log, origin = context.log, rows[0].origin
        events, schema = events_of(logged)
        yield [keep_schema(context.project, events.schema_tag, schema)]
        places = by_partition(logged.route.readers[logged.route.home].keys(logged.table), log.partitions)
        if logged.is_applied:
            targets = [
                by_partition(logged.route.readers[other].keys(logged.table), log.partitions)
                for other in logged.route.other_sets(logged.route.home)
            ]
            yield from room(log, {partition for target in targets for partition in target})
        left = {partition: list(of) for partition, of in places.items()}
        while left:
            yield from self._learn_taken(origin, left)
            appends: dict[int, PartitionAppend] = {}
            for partition, of in list(left.items()):
                taken = self._taken[origin, partition]
                fresh = [place for place in of if not taken or rows[place].position > _position(taken)]
                if fresh:
                    upto = "{}-{}".format(*rows[fresh[-1]].position)
                    appends[partition] = PartitionAppend([e for e, _ in cut(events, fresh)], origin, taken, upto)
                else:
                    del left[partition]
            if not appends:
                return
            try:
                yield from append(log, appends, context.clock.now_us(), is_clustered=not context.knowledge.is_ordered)
            except Moved as moved:
                # On a cluster, some partitions may have taken theirs before this one was asked.
                for partition in appends:
                    self._taken.pop((origin, partition), None)
                self._taken[origin, moved.partition] = moved.taken
            else:
                self._taken |= {(origin, partition): each.upto for partition, each in appends.items()}
                return

    def _learn_taken(self, origin: str, partitions: dict[int, list[int]]) -> Conversation[None]:
        unknown = [partition for partition in partitions if (origin, partition) not in self._taken]
        if unknown:
            states = yield from read_states(self._context.log, unknown)
            for partition, state in zip(unknown, states, strict=True):
                self._taken[origin, partition] = state.taken.get(origin, "")


def checked_fed(context: StreamContext, request: PushRequest) -> Push:
    """Returns rows of a feed that fit, all of which go through the log.

    Raises:
        InputError: one does not fit.
        SourceError, DefinitionError, RegistryUnavailable: it cannot be told, for no fault of the rows.
    """
    views = context.views_of(request.push_source_name)
    return checked_push(context.config, request, views, context.clock.now_us(), is_logged=True)


def _position(text: str) -> Position:
    first, _, second = text.partition("-")
    return int(first), int(second)


def parsed_row(row: FedRow) -> dict[str, Any]:
    """Returns the columns of a row.

    Raises:
        InputError: it is no JSON object, too large, or has nowhere to go.
    """
    if row.problem:
        raise InputError(row.problem)
    if row.to not in PUSH_TARGETS:
        raise InputError(f"'to' is {row.to!r}; expected one of {sorted(PUSH_TARGETS)}")
    if len(row.content) > INBOX_ROW_BYTES_MAX:
        raise InputError(f"the row has {len(row.content)} bytes, at most {INBOX_ROW_BYTES_MAX} are taken")
    try:
        values = msgspec.json.decode(row.content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"the row is no JSON ({error}); write an object of column name to value") from error
    if not isinstance(values, dict) or not values:
        raise InputError("the row is no JSON object with columns; write one of column name to value")
    return values
