"""How the event log stands: owners, lag and totals of its partitions, dead letters and inboxes."""

from typing import NamedTuple

from store.kernel import keys
from store.online.conversations import Conversation
from store.online.dead_letters import letters_kept
from store.online.stream_log import PartitionState
from store.online.stream_owners import owners


class PartitionStatus(NamedTuple):
    """How one partition stands.

    Attributes:
        owner: the name of the worker that owns it, None for nobody.
        entries: in its log: those that wait to be applied or to land.
        lag_seconds: age of the oldest event that is not applied yet, 0 for none.
        landing_lag_seconds: age of the oldest event that may not have landed yet, 0 for none.
    """

    partition: int
    owner: str | None
    entries: int
    lag_seconds: float
    landing_lag_seconds: float
    state: PartitionState


class StreamStatus(NamedTuple):
    """How an event log stands; without partitions if there is none yet.

    Attributes:
        letters: dead letters kept; `dropped_letters` had to go for newer ones.
    """

    partitions: tuple[PartitionStatus, ...] = ()
    letters: int = 0
    dropped_letters: int = 0

    @property
    def unowned(self) -> list[int]:
        """Returns the partitions without an owner that have something to do."""
        return [each.partition for each in self.partitions if each.owner is None and each.entries]

    @property
    def problem(self) -> str | None:
        """Returns what is wrong, None for nothing."""
        if not self.unowned:
            return None
        return (
            f"partitions {self.unowned} of the event log have events and no worker: windowed features stand still "
            "there; start 'larder ingest'"
        )


def read_status(project: str, now_us: int) -> Conversation[StreamStatus]:
    """Returns how the event log of a project stands."""
    (kept,) = yield [("HGET", keys.stream_key(project), "partitions")]
    count = int(kept or 0)
    letters, dropped = yield from letters_kept(project)
    if not count:
        return StreamStatus((), letters, dropped)
    replies = yield [("HGETALL", keys.partition_state_key(project, p)) for p in range(count)]
    states = [PartitionState.parse(reply) for reply in replies]
    held = yield from owners(project, [str(p) for p in range(count)])
    lengths = yield [("XLEN", keys.partition_log_key(project, p)) for p in range(count)]
    marks = [(p, mark) for p, state in enumerate(states) for mark in (state.applied, state.landed)]
    firsts = yield [("XRANGE", keys.partition_log_key(project, p), f"({mark}-1", "+", "COUNT", 1) for p, mark in marks]
    lags = [max(0.0, (now_us - int(first[0][0].partition(b"-")[0])) / 1e6) if first else 0.0 for first in firsts]
    partitions = [
        PartitionStatus(
            p, owner.worker if (owner := held[str(p)]) else None, length, lags[2 * p], lags[2 * p + 1], state
        )
        for p, (length, state) in enumerate(zip(lengths, states, strict=True))
    ]
    return StreamStatus(tuple(partitions), letters, dropped)
