"""The log of one service in one worker: what waits to be written, when it is due, and what became of each vector."""

import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import structlog

from store.audit.buffers import LogBuffer, States
from store.audit.forms import LogForm, Served
from store.audit.queue import ServiceCounts
from store.errors import LarderError, StoredRowError
from store.kernel.served_log import Counts
from store.limits import SERVED_BUFFER_BYTES_MAX, SERVED_FILE_BYTES, SERVED_FLUSH_SECONDS
from store.online.plan import OnlinePlan
from store.requests import LogTotals

_log = structlog.get_logger("larder.served")
_MISFITS = (pa.ArrowException, StoredRowError, ValueError, TypeError, OverflowError)
"""What making columns of a value may raise that its type cannot hold."""


class Surroundings(Protocol):
    """What a log asks of the store that it belongs to; called in the log's thread."""

    def now_us(self) -> int:
        """Returns the clock's instant."""

    def folder_of(self, plan: OnlinePlan) -> Path:
        """Returns the folder of a service's log; raises DefinitionError if it has none that can be used."""

    def states_of(self, names: Sequence[str]) -> States:
        """Returns what Redis says of views."""

    def append(self, folder: Path, table: pa.Table) -> None:
        """Writes a table as one new file of a folder, whole or not at all; raises LarderError."""

    @property
    def retention_days(self) -> int:
        """How many days a log file is kept."""


class ServiceLog:
    """The log of one service in one worker.

    Attributes:
        folders: those that it has written into.
    """

    def __init__(
        self,
        name: str,
        counts: ServiceCounts,
        around: Surroundings,
        worker: str,
        bytes_max: int = SERVED_BUFFER_BYTES_MAX,
    ) -> None:
        self.name = name
        self._bytes_max = bytes_max
        self.folders: set[Path] = set()
        self._counts = counts
        self._around = around
        self._worker = worker
        self._sequence = 0
        self._written = Counts()
        self._logged = self._dropped = self._failures = 0
        self._told = LogTotals(name)
        self._plan: OnlinePlan | None = None
        self._form: LogForm | None = None
        self._buffer: LogBuffer | None = None
        self._unwritten: list[LogBuffer] = []
        self._due = 0.0

    def follow(self, plan: OnlinePlan) -> None:
        """Begins a buffer for the columns of a plan, unless the one that is there has them."""
        if plan is self._plan:
            return
        self._plan = plan
        try:
            form, folder = LogForm(plan), self._around.folder_of(plan)
        except LarderError as error:
            _log.error("a feature service is not logged", service=self.name, reason=str(error))
            self._form = None
            return
        self._form = form
        before = self._buffer
        if before is not None and before.form.plan == form.plan and before.folder == folder:
            # The registry changed elsewhere: the columns are the same, and what they are made from is new.
            before.form = form
            return
        if before is not None and before.row_count and not self._write(before, is_last=False):
            self._unwritten.append(before)
        self._due = time.monotonic() + SERVED_FLUSH_SECONDS
        self.folders.add(folder)
        self._buffer = LogBuffer(form, folder, self._around.now_us(), self._states_of(form))

    def take(self, vectors: Sequence[tuple[str, Served]]) -> None:
        """Makes columns of vectors of the plan that it follows; what has no place or no columns is dropped."""
        if self._form is None or self._buffer is None:
            self._dropped += sum(served.lookup.row_count for _, served in vectors)
            return
        for batch in self._encoded(self._form, vectors):
            self._buffer.add(batch)
        buffers = [*self._unwritten, self._buffer]
        while sum(buffer.byte_count for buffer in buffers) > self._bytes_max:
            oldest = next(buffer for buffer in buffers if buffer.row_count)
            self._dropped += oldest.drop_oldest()

    def _encoded(self, form: LogForm, vectors: Sequence[tuple[str, Served]]) -> Iterator[pa.RecordBatch]:
        try:
            yield form.encode(vectors)
        except _MISFITS as error:
            if len(vectors) > 1:
                yield from chain.from_iterable(self._encoded(form, [vector]) for vector in vectors)
                return
            [(_, served)] = vectors
            self._dropped += served.lookup.row_count
            _log.error("a lookup cannot be logged", service=self.name, reason=str(error))

    def write_if_due(self, *, is_last: bool) -> None:
        """Writes what waits once it is old or large enough; at last everything, and that it was the last."""
        if self._buffer is None:
            return
        now = time.monotonic()
        if not is_last and now < self._due and self._buffer.byte_count < SERVED_FILE_BYTES:
            return
        self._due = now + SERVED_FLUSH_SECONDS
        self._unwritten = [buffer for buffer in self._unwritten if not self._write(buffer, is_last=False)]
        has_news = self._buffer.row_count or self._served().minus(self._written) != Counts()
        if is_last and self._unwritten:
            # What is left of another form is lost, so this worker's files do not end as they should.
            is_last = False
        if has_news or (is_last and self._sequence):
            self._write(self._buffer, is_last=is_last)

    def _write(self, buffer: LogBuffer, *, is_last: bool) -> bool:
        states, now_us, served = self._states_of(buffer.form), self._around.now_us(), self._served()
        counts = served.minus(self._written)
        table = buffer.file(self._worker, self._sequence + 1, counts, now_us, states, is_last=is_last)
        try:
            self._around.append(buffer.folder, table)
        except LarderError as error:
            self._failures += 1
            _log.error("served vectors cannot be written", service=self.name, reason=str(error))
            return False
        self._sequence += 1
        self._written = served
        self._logged += buffer.row_count
        buffer.begin_anew(now_us, states)
        return True

    def _served(self) -> Counts:
        return self._counts.now().plus(Counts(dropped=self._dropped))

    def _states_of(self, form: LogForm) -> States:
        return self._around.states_of([view.stored_name for view in form.plan.views])

    def totals(self) -> LogTotals | None:
        """Returns what became of vectors since it was last asked, None if nothing did."""
        counts = self._served()
        now = LogTotals(self.name, self._logged, counts.sampled_out, counts.dropped, self._failures)
        told, self._told = self._told, now
        return None if now == told else now.since(told)
