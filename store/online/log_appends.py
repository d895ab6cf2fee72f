"""Appends to the event log: whole or not at all, each once, within the bounds of a log."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_bytes
from typing import Any, NamedTuple

from store.errors import LogFull, OtherPush
from store.kernel import keys
from store.limits import (
    APPEND_ENTRIES_MAX,
    IDEMPOTENCY_DAYS_KEPT,
    IDEMPOTENCY_KEYS_MAX,
    LOG_BYTES_MAX,
    LOG_ENTRIES_MAX,
)
from store.online.commands import Command
from store.online.conversations import Conversation, script
from store.online.stream_log import StreamLog, check_instant

_DAY_US = 86_400_000_000


class LoggedEntry(NamedTuple):
    """An entry to append: its content, how many rows it holds, and the lowest id that its first row may have."""

    content: bytes
    row_count: int
    floor_id: int = 0


@dataclass(frozen=True, slots=True)
class PartitionAppend:
    """What is appended to one partition.

    Attributes:
        origin: where it comes from in an order of its own, "" for a push.
        taken: up to where the partition took from this origin before, as its state has it.
        upto: up to where it then has taken.
        is_bounded: whether a full log refuses it. Copies are not: the room for them was there when they were pushed.
    """

    entries: Sequence[LoggedEntry]
    origin: str = ""
    taken: str = ""
    upto: str = ""
    is_bounded: bool = True


@dataclass(frozen=True, slots=True)
class PushName:
    """What tells a push from others: its idempotency key as a digest, and a digest of what came with it.

    A push without such a key has a name made by chance, kept for some minutes (`is_kept` False): a command whose reply
    was lost with its connection is said again.
    """

    key: bytes
    content: bytes
    is_kept: bool = True
    minute: int = 0

    @classmethod
    def by_chance(cls) -> "PushName":
        """Returns a name that no other push has."""
        # By the system's clock: that of a replay may stand still for as many pushes as one likes.
        return cls(token_bytes(12), b"", is_kept=False, minute=int(time.time()) // 60)


class Moved(Exception):
    """A partition has taken more from an origin than was believed."""

    def __init__(self, partition: int, taken: str) -> None:
        super().__init__(partition, taken)
        self.partition = partition
        self.taken = taken


def append(
    log: StreamLog,
    appends: Mapping[int, PartitionAppend],
    now_us: int,
    *,
    is_clustered: bool = False,
    push: PushName | None = None,
) -> Conversation[dict[int, int]]:
    """Appends entries, each with an id of its own, and returns the last id per partition (0: it was there already).

    Up to `APPEND_ENTRIES_MAX` entries to one Redis are appended as one step, all or none. More, or a cluster, take
    several: then what goes wrong in the middle leaves the first ones, which a push with a name does not repeat.

    Raises:
        LogFull: a partition has no room for the push; of a large one, or on a cluster, some may be there.
        OtherPush: the push's name came with something else before.
        Moved: an origin was taken further than the append says.
    """
    check_instant(now_us)
    last_ids: dict[int, int] = {}
    for number, (call, later) in enumerate(_calls(appends, is_clustered=is_clustered, push=push, log=log)):
        reply = yield [_append_command(log, call, later, now_us, push, number)]
        status, *rest = reply[0]
        partitions = list(call)
        if status != b"ok":
            raise _refusal(log, status, partitions[int(rest[0]) - 1], rest[1:])
        last_ids |= {p: max(int(last), last_ids.get(p, 0)) for p, last in zip(partitions, rest, strict=True)}
    return last_ids


def is_known_push(log: StreamLog, push: PushName, now_us: int) -> Conversation[bool]:
    """Whether a push of this name was appended, or noted by an append of nothing, within the time that names are kept.

    Raises:
        OtherPush: the name came with something else.
    """
    home, unit = _home_of(log, push), now_us // _DAY_US
    names = [keys.partition_pushes_key(log.project, home, unit - back) for back in range(IDEMPOTENCY_DAYS_KEPT)]
    replies = yield [("HGET", name, _call_key(push, 0)) for name in names]
    known = [content for content in replies if content is not None]
    if known and known[0] != push.content:
        raise _refusal(log, b"other", home, ())
    return bool(known)


def _home_of(log: StreamLog, push: PushName) -> int:
    return int.from_bytes(push.key, "big") % log.partitions


def _call_key(push: PushName, number: int) -> bytes:
    # Each call of a push is known by itself, so that a repeated push goes on where it was cut off.
    return b"%b%d" % (push.key, number)


def _calls(
    appends: Mapping[int, PartitionAppend], *, is_clustered: bool, push: PushName | None, log: StreamLog
) -> Iterable[tuple[dict[int, PartitionAppend], dict[int, int]]]:
    """Yields what goes into one call each, and how many entries of each partition come in later calls."""
    if push is not None and push.is_kept:
        # Its first call says the name where every push of this name says it, whatever rows it has.
        home = _home_of(log, push)
        appends = {home: PartitionAppend(()), **{p: a for p, a in appends.items() if p != home or a.entries}}
        first = appends.pop(home)
        appends = {home: first, **appends}
    total = sum(len(each.entries) for each in appends.values())
    # An origin's position moves once for all entries that come with it.
    is_whole = total <= APPEND_ENTRIES_MAX or any(each.origin for each in appends.values())
    if not is_clustered and is_whole:
        yield dict(appends), {p: 0 if each.is_bounded else -1 for p, each in appends.items()}
        return
    for partition, each in appends.items():
        if is_whole:
            yield {partition: each}, {partition: 0 if each.is_bounded else -1}
            continue
        for start in range(0, max(len(each.entries), 1), APPEND_ENTRIES_MAX):
            entries = each.entries[start : start + APPEND_ENTRIES_MAX]
            yield {partition: PartitionAppend(entries)}, {partition: len(each.entries) - start - len(entries)}


def _append_command(
    log: StreamLog,
    call: Mapping[int, PartitionAppend],
    later: Mapping[int, int],
    now_us: int,
    push: PushName | None,
    number: int,
) -> Command:
    _, digest = script("log_append")
    if push is None or push.is_kept:
        unit, kept_seconds = now_us // _DAY_US, IDEMPOTENCY_DAYS_KEPT * _DAY_US // 1_000_000
    else:
        unit, kept_seconds = push.minute, 180
    names: list[bytes] = []
    key = b"" if push is None else _call_key(push, number)
    arguments: list[Any] = [
        now_us, LOG_ENTRIES_MAX, LOG_BYTES_MAX, key, b"" if push is None else push.content,
        kept_seconds, IDEMPOTENCY_KEYS_MAX,
    ]  # fmt: skip
    for partition, each in call.items():
        names += [
            keys.partition_log_key(log.project, partition),
            keys.partition_state_key(log.project, partition),
            keys.partition_pushes_key(log.project, partition, unit),
            keys.partition_pushes_key(log.project, partition, unit - 1),
        ]
        arguments += (each.origin, each.taken, each.upto, later[partition], len(each.entries))
        for entry in each.entries:
            arguments += (entry.row_count, entry.floor_id, entry.content)
    return ("EVALSHA", digest, len(names), *names, *arguments)


def _refusal(log: StreamLog, status: bytes, partition: int, rest: Sequence[bytes]) -> Exception:
    if status == b"moved":
        return Moved(partition, rest[0].decode())
    if status == b"other":
        return OtherPush(
            "Idempotency-Key: another push came with this key before, and nothing of this one was written; give each "
            "push a key of its own, and repeat one unchanged"
        )
    if status == b"keys":
        return LogFull(
            f"partition {partition} of the event log of project {log.project!r} remembers {IDEMPOTENCY_KEYS_MAX} "
            "idempotency keys of today, which is all; push more rows with each key, or raise stream_partitions in a "
            "new project"
        )
    return LogFull(
        f"partition {partition} of the event log of project {log.project!r} is full (at most {LOG_ENTRIES_MAX} entries "
        f"and {LOG_BYTES_MAX} bytes wait); see that 'larder ingest' runs and can land, then push again"
    )


def room(log: StreamLog, partitions: Iterable[int]) -> Conversation[None]:
    """Checks that partitions to which rows will be copied have room.

    Raises:
        LogFull: one has none.
    """
    asked = sorted(partitions)
    replies = yield [("XLEN", keys.partition_log_key(log.project, partition)) for partition in asked]
    for partition, length in zip(asked, replies, strict=True):
        if length >= LOG_ENTRIES_MAX:
            raise _refusal(log, b"full", partition, ())
