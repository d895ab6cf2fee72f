"""Served vectors on their way from lookups to the log: a bounded queue that no lookup ever waits for."""

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from store.audit.forms import Served
from store.kernel.served_log import Counts
from store.limits import SERVED_QUEUE_BYTES_MAX, SERVED_QUEUE_VALUES_MAX
from store.online.conversations import Knowledge
from store.online.lookup import Lookup
from store.online.plan import OnlinePlan
from store.online.stored_rows import ViewRows


class ServiceCounts:
    """How many vectors of one service were served, left out by sampling and dropped; one thread counts.

    Attributes:
        plan: by which the last of them was looked up.
    """

    __slots__ = ("dropped", "plan", "sampled_out", "served")

    def __init__(self, plan: OnlinePlan) -> None:
        self.plan = plan
        self.served = self.sampled_out = self.dropped = 0

    def now(self) -> Counts:
        """Returns the counts as they are now."""
        return Counts(self.served, self.sampled_out, self.dropped)


class ServedQueue:
    """Takes what lookups answered, in the event loop; `take` hands it on, in the log's thread.

    Each side counts what it has put in or taken out, so that neither needs a lock.
    """

    def __init__(
        self,
        values_max: int = SERVED_QUEUE_VALUES_MAX,
        bytes_max: int = SERVED_QUEUE_BYTES_MAX,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._values_max = values_max
        self._bytes_max = bytes_max
        self._draw = draw
        self._waiting: deque[Served] = deque()
        self._values_in = self._values_out = 0
        self._bytes_in = self._bytes_out = 0
        self.counts: dict[str, ServiceCounts] = {}

    def offer(self, lookup: Lookup, found: Sequence[ViewRows], now_us: int, knowledge: Knowledge) -> None:
        """Takes the answer to a lookup of a logged service, unless it is left out by sampling or nothing has room."""
        plan, row_count = lookup.plan, lookup.row_count
        logging = plan.logging
        assert logging is not None, "only the answers of a service that says so are logged"
        counts = self.counts.get(logging.service)
        if counts is None:
            counts = self.counts[logging.service] = ServiceCounts(plan)
        counts.plan = plan
        counts.served += row_count
        if logging.sample_rate < 1 and self._draw() >= logging.sample_rate:
            counts.sampled_out += row_count
            return
        values = row_count * (1 + len(plan.columns))
        waiting_values = self._values_in - self._values_out
        # The largest lookups are larger than the queue; one that finds it empty may have it for itself.
        if waiting_values and (
            waiting_values + values > self._values_max
            or self._bytes_in - self._bytes_out + lookup.stored_bytes > self._bytes_max
        ):
            counts.dropped += row_count
            return
        self._values_in += values
        self._bytes_in += lookup.stored_bytes
        active = knowledge.generations
        generations = tuple([g.active if (g := active.get(name)) else 1 for name in plan.stored_names])
        self._waiting.append(Served(lookup, found, now_us, generations))

    def waiting(self, values: int) -> Iterator[list[Served]]:
        """Yields what waits now, oldest first, in parts of about so many values.

        What comes meanwhile waits for the next time, except that the last part may take some of it along.
        """
        left = len(self._waiting)
        while left > 0 and (taken := self.take(values)):
            left -= len(taken)
            yield taken

    def take(self, values: int) -> list[Served]:
        """Returns what waits, oldest first, up to about so many values; nothing waits if it is empty."""
        taken: list[Served] = []
        waiting = self._waiting
        while waiting and values > 0:
            served = waiting.popleft()
            size = served.lookup.row_count * (1 + len(served.lookup.plan.columns))
            values -= size
            self._values_out += size
            self._bytes_out += served.lookup.stored_bytes
            taken.append(served)
        return taken
