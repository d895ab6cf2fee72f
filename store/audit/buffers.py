"""Logged vectors of one service that wait to be written, and the file that they become."""

from collections import deque
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from store.audit.forms import LogForm
from store.kernel.served_log import NOTE_KEY, REQUEST_TIME, Counts, FileNote, LoggedState

States = Mapping[str, LoggedState | None]
"""What Redis says of views by their names there, None for those of which it says nothing now."""


class LogBuffer:
    """Columns of one service in one form, and what Redis said of its views when it was begun."""

    def __init__(self, form: LogForm, folder: Path, now_us: int, states: States) -> None:
        self.form = form
        self.folder = folder
        self._batches: deque[pa.RecordBatch] = deque()
        self._begun_us = now_us
        self._states = dict(states)
        self.row_count = 0
        self.byte_count = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes in columns."""
        self._batches.append(batch)
        self.row_count += batch.num_rows
        self.byte_count += batch.nbytes

    def drop_oldest(self) -> int:
        """Drops the oldest columns, and returns how many vectors they were."""
        batch = self._batches.popleft()
        self.row_count -= batch.num_rows
        self.byte_count -= batch.nbytes
        return int(batch.num_rows)

    def file(
        self, worker: str, sequence: int, counts: Counts, now_us: int, states: States, *, is_last: bool
    ) -> pa.Table:
        """Returns the file that all of it becomes, its note in the schema's metadata."""
        table = pa.Table.from_batches(self._batches, schema=self.form.schema)
        first_us, last_us = self._begun_us, now_us
        if table.num_rows:
            ends = pc.min_max(table.column(REQUEST_TIME).cast(pa.int64())).as_py()
            first_us, last_us = ends["min"], ends["max"]
        note = FileNote(
            self.form.plan, worker, sequence, is_last, first_us, last_us, counts, self._states, dict(states)
        )
        return table.replace_schema_metadata({NOTE_KEY: note.to_bytes()})

    def begin_anew(self, now_us: int, states: States) -> None:
        """Forgets what was written."""
        self._batches.clear()
        self.row_count = self.byte_count = 0
        self._begun_us, self._states = now_us, dict(states)
