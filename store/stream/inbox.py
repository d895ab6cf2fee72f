"""The inbox of a push source: a Redis stream onto which anyone may put rows, without a server in between.

`XADD <project>inbox:<push source> * row <JSON object>`, with the field `to` besides where a row shall also land. What
was passed on is deleted, so that what is left is what is to be done.
"""

from collections.abc import Sequence
from typing import Any

from store.kernel.keys import inbox_key
from store.limits import INBOX_BYTES_MAX, INBOX_ENTRIES_MAX
from store.online.views import say
from store.stream.context import StreamContext
from store.stream.feeding import FedRow

_FIRST_COUNT = 8


class Inbox:
    """The inbox of one push source, as a feed."""

    def __init__(self, context: StreamContext, push_source: str) -> None:
        self.push_source = push_source
        self.task = f"inbox:{push_source}"
        self.key = inbox_key(context.project, push_source)
        self._context = context
        self._count = _FIRST_COUNT

    def read(self) -> Sequence[FedRow]:
        """Returns the next rows: more at a time as long as they are small."""
        (entries,) = self._context.session.hold(say([("XRANGE", self.key, "-", "+", "COUNT", self._count)]))
        rows = [self._row(*entry) for entry in entries]
        size = sum(len(row.content) for row in rows)
        self._count = max(1, self._count // 2) if size > INBOX_BYTES_MAX else min(self._count * 2, INBOX_ENTRIES_MAX)
        return rows

    def done(self, rows: Sequence[FedRow]) -> None:
        """Deletes rows that were passed on."""
        self._context.session.hold(say([("XDEL", self.key, *("{}-{}".format(*row.position) for row in rows))]))

    def close(self) -> None:
        """Has nothing to end."""

    def _row(self, name: bytes, fields: Any) -> FedRow:
        pairs = fields.items() if isinstance(fields, dict) else zip(fields[::2], fields[1::2], strict=True)
        said = dict(pairs)
        milliseconds, _, number = name.partition(b"-")
        position = int(milliseconds), int(number)
        unknown = sorted(said.keys() - {b"row", b"to"})
        problem = ""
        if unknown or b"row" not in said:
            shown = [field.decode("utf-8", "backslashreplace") for field in unknown]
            problem = f"the entry has no field 'row', or others than 'row' and 'to': {shown}; put the row there as JSON"
        to = said.get(b"to", b"online").decode("utf-8", "backslashreplace")
        return FedRow(self.task, position, said.get(b"row", b""), to, problem)
