"""The worker of the event log: owns partitions and feeds, and goes round them until it is told to stop."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import structlog

from store.errors import LarderError, OutOfSpace, OwnershipLost, SourceError
from store.limits import LAND_RETRY_SECONDS, READ_BLOCK_MS, READ_BYTES_MAX, READ_ENTRIES_MAX, TOGETHER_BYTES_MAX
from store.online.conversations import Conversation, together
from store.online.stream_log import Raw, read_entries, read_states, wait_entries
from store.online.stream_owners import Owner
from store.stream.context import StreamContext
from store.stream.feeds import Feeds
from store.stream.landing import LandingQueue
from store.stream.ownership import Ownership, worker_name
from store.stream.partition import PartitionRun

_IDLE_SECONDS = 0.005
"""Between two looks at a cluster's logs, whose nodes cannot be waited for together."""

_FIRST_COUNT = 16
"""Entries of each partition that are read before it is known how large they are."""

_RETRY_SECONDS = 0.5
"""Before work is begun anew that Redis, or a source, could not serve."""

_log = structlog.get_logger("larder.ingest")


class Partitions:
    """The partitions that one owner works on: read together, applied one after the other, landed together."""

    def __init__(self, context: StreamContext) -> None:
        self.runs: dict[int, PartitionRun] = {}
        self._context = context
        self._landing = LandingQueue(context)
        self._is_broken: dict[int, Owner] = {}
        self._count = _FIRST_COUNT
        self._retry_at = 0.0
        self._land_at = 0.0

    def begin(self, partition: int, owner: Owner) -> None:
        """Begins to work on a partition at the place that was recorded last."""
        self._is_broken[partition] = owner
        log = self._context.open_log()
        (state,) = self._context.session.hold(read_states(log, [partition]))
        self.runs[partition] = PartitionRun(self._context, partition, owner, state, self._landing)
        self._is_broken.pop(partition, None)

    def end(self, partition: int, *, is_lost: bool) -> None:
        """Stops working on a partition; one that is still owned lands its rows first, if they can land."""
        run = self.runs.get(partition)
        if run is not None and not is_lost:
            self._land()
        self._drop(partition)
        self._is_broken.pop(partition, None)

    def step(self) -> bool:
        """Does what there is to do now; whether there was anything."""
        self._begin_anew()
        # A queue that is full and cannot land holds the reading: the log keeps the rows.
        after = {} if self._landing.is_full else {partition: run.cursor for partition, run in self.runs.items()}
        read: dict[int, list[Raw]] = {}
        if after:
            self._context.refresh(is_due=False)
            read = self._context.session.hold(read_entries(self._context.log, after, self._count))
            size = sum(len(content) for entries in read.values() for _, content in entries)
            # Entries may be as large as a row; after large ones fewer are read.
            self._count = min(2 * self._count, READ_ENTRIES_MAX) if size < READ_BYTES_MAX else max(1, self._count // 4)
        for group in _groups(read):
            self._attempt({p: self.runs[p].take(entries) for p, entries in group.items() if p in self.runs})
        if self._landing.due_in_seconds() <= 0 and time.monotonic() >= self._land_at:
            self._land()
        return any(read.values())

    def wait(self, seconds: float, inboxes: Sequence[bytes] = ()) -> None:
        """Waits until there may be something to do, or an inbox has an entry, at most so long."""
        seconds = min(seconds, max(self._landing.due_in_seconds(), self._land_at - time.monotonic(), 0.0))
        has_streams = bool(self.runs or inboxes)
        if not has_streams or self._landing.is_full or not self._context.knowledge.is_ordered:
            time.sleep(min(seconds, _IDLE_SECONDS if has_streams else seconds))
        elif (block_ms := int(seconds * 1_000)) > 0:
            after = {partition: run.cursor for partition, run in self.runs.items()}
            self._context.session.hold(wait_entries(self._context.log, after, inboxes, block_ms))

    def _attempt(self, works: Mapping[int, Conversation[None]]) -> None:
        """Does some work of partitions in the same round trips; one where it fails begins anew, or ends."""
        raised: dict[int, Exception | None]
        try:
            raised = self._context.session.hold(together(works))
        except Exception as failure:  # noqa: BLE001 - the edge of streams: told of each of them, and done again
            raised = dict.fromkeys(works, failure)
        for partition, error in raised.items():
            if error is not None:
                self._fail(partition, error)

    def _fail(self, partition: int, error: Exception) -> None:
        if isinstance(error, OwnershipLost):
            _log.info("partition taken over by another worker", partition=partition, detail=str(error))
            self._drop(partition)
            return
        is_foreseen = isinstance(error, LarderError)
        _log.warning(
            "partition begins anew", partition=partition, error=str(error), exc_info=None if is_foreseen else error
        )
        self._is_broken[partition] = self.runs[partition].owner
        self._drop(partition)
        self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _begin_anew(self) -> None:
        if self._is_broken and time.monotonic() >= self._retry_at:
            for partition, owner in list(self._is_broken.items()):
                self.begin(partition, owner)

    def _drop(self, partition: int) -> None:
        self.runs.pop(partition, None)
        self._landing.forget(partition)

    def _land(self) -> None:
        try:
            self._landing.flush()
        except (SourceError, OutOfSpace) as error:
            _log.error("rows cannot land", error=str(error))
            self._land_at = time.monotonic() + LAND_RETRY_SECONDS
        self._attempt({partition: run.landed() for partition, run in self.runs.items()})


def _groups(read: Mapping[int, Sequence[Raw]]) -> Iterator[dict[int, Sequence[Raw]]]:
    """Yields the partitions that have entries, those together whose entries are small together."""
    group: dict[int, Sequence[Raw]] = {}
    room = TOGETHER_BYTES_MAX
    for partition, entries in read.items():
        size = sum(len(content) for _, content in entries)
        if group and size > room:
            yield group
            group, room = {}, TOGETHER_BYTES_MAX
        if entries:
            group[partition] = entries
            room -= size
    if group:
        yield group


class Worker:
    """One worker: takes its share of all partitions, and works on them until it is stopped."""

    def __init__(self, context: StreamContext, only: Sequence[int] | None = None) -> None:
        """Takes the stream, and the partitions to which this worker restricts itself (None: any)."""
        self.name = worker_name(only)
        self.partitions = Partitions(context)
        self._context = context
        self._feeds = Feeds(context)
        self._ownership = Ownership(context, self.name)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Has the worker come to an end: what it has read is finished, landed and recorded, its leases given back."""
        self._stopped.set()

    def run(self) -> None:
        """Works until it is stopped.

        Raises:
            OnlineStoreError: Redis cannot serve at the very start; later the worker waits for it.
        """
        self._ownership.start()
        _log.info("worker started", worker=self.name, partitions=self._context.log.partitions)
        try:
            while not self._stopped.is_set():
                try:
                    self._turn()
                except Exception as error:  # noqa: BLE001 - the edge of a process that shall go on
                    is_foreseen = isinstance(error, LarderError)
                    _log.warning(
                        "stream cannot be worked on", error=str(error), exc_info=None if is_foreseen else error
                    )
                    self._stopped.wait(_RETRY_SECONDS)
        finally:
            self._end()
            _log.info("worker stopped", worker=self.name)

    def _turn(self) -> None:
        partitions = [str(partition) for partition in range(self._context.log.partitions)]
        ended, taken = self._ownership.turn([*partitions, *self._feeds.tasks()])
        for task in ended:
            is_lost = task not in self._ownership.owned
            if task.isdigit():
                self.partitions.end(int(task), is_lost=is_lost)
            else:
                self._feeds.end(task)
            self._ownership.release(task)
            _log.info("given up", task=task, is_lost=is_lost)
        for task in taken:
            if task.isdigit():
                self.partitions.begin(int(task), self._ownership.owned[task])
            else:
                self._feeds.begin(task)
            _log.info("taken", task=task)
        is_busy = self._feeds.step()
        if not self.partitions.step() and not is_busy:
            self.partitions.wait(min(READ_BLOCK_MS / 1_000, self._feeds.wait_seconds_max()), self._feeds.inboxes())

    def _end(self) -> None:
        try:
            for task in self._feeds.owned():
                self._feeds.end(task)
            for partition in list(self.partitions.runs):
                self.partitions.end(partition, is_lost=False)
            self._ownership.close()
        except LarderError as error:
            _log.warning("worker could not finish", error=str(error))
