"""How the event log stands: owners, lag and totals of its partitions, and dead letters."""

from store.kernel import keys
from store.online.conversations import Conversation
from store.online.dead_letters import letters_kept
from store.online.stream_log import PartitionState
from store.online.stream_owners import owners
from store.requests import PartitionStatus, StreamStatus


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
            partition=p,
            owner=owner.worker if (owner := held[str(p)]) else None,
            entries=length,
            lag_seconds=lags[2 * p],
            landing_lag_seconds=lags[2 * p + 1],
            appended_rows=state.appended,
            applied_rows=state.applied_rows,
            landed_rows=state.landed_rows,
        )
        for p, (length, state) in enumerate(zip(lengths, states, strict=True))
    ]
    return StreamStatus(tuple(partitions), letters, dropped)
