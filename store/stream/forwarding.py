"""Copies of events for the partitions of other entity sets, taken by each exactly once and in order."""

from collections.abc import Sequence

from store.kernel.log_entries import Events
from store.limits import APPEND_ENTRIES_MAX
from store.online.log_appends import LoggedEntry, Moved, PartitionAppend, append
from store.stream.appending import cut
from store.stream.context import StreamContext


class Forwarder:
    """Passes rows of one partition on; a target keeps up to where it has taken from each origin."""

    def __init__(self, context: StreamContext, partition: int) -> None:
        self._context = context
        self._partition = partition
        self._taken: dict[tuple[int, str], str] = {}

    def forward(self, target: int, events: Events, line_ids: Sequence[int], places: Sequence[int]) -> None:
        """Appends copies of some rows to a partition, those that it has not taken yet.

        Args:
            events: of one push source, for one entity set.
            line_ids: by row, in ascending order.
            places: of the rows to pass on.

        Raises:
            OnlineStoreError: Redis cannot serve; the same rows are to be passed on again.
        """
        origin = f"{self._partition}:{events.push_source}:{'+'.join(events.entity_set)}"
        left = list(places)
        while left:
            taken = self._taken.get((target, origin), "")
            left = [place for place in left if line_ids[place] > int(taken or 0)]
            if not left:
                return
            entries: list[LoggedEntry] = []
            count = 0
            for entry, rows in cut(events, left, [line_ids[place] for place in left]):
                entries.append(entry)
                count += rows
                if len(entries) == APPEND_ENTRIES_MAX:
                    break
            upto = str(line_ids[left[count - 1]])
            try:
                self._append(target, PartitionAppend(entries, origin, taken, upto, is_bounded=False))
            except Moved as moved:
                self._taken[target, origin] = moved.taken
            else:
                self._taken[target, origin] = upto
                left = left[count:]

    def _append(self, target: int, copies: PartitionAppend) -> None:
        context = self._context
        conversation = append(
            context.log,
            {target: copies},
            context.clock.now_us(),
            is_clustered=not context.knowledge.is_ordered,
        )
        context.session.hold(conversation)
