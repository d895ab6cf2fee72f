"""The event log in Redis: its partitions, lines through them, and what is said to read them and to record a place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Any

from store.errors import ConfigError, LogFull, OwnershipLost
from store.kernel import keys
from store.kernel.log_entries import encode_line
from store.limits import LINE_ATTEMPTS_MAX, LINE_SLACK_US
from store.online.commands import Command
from store.online.conversations import Conversation, Knowledge, script

_DAY_US = 86_400_000_000
_IDS_MAX_US = 2**53
"""Beyond it (the year 2255) a script's numbers do not tell every microsecond."""


@dataclass(frozen=True, slots=True)
class StreamLog:
    """The event log of a project.

    Attributes:
        name: made by chance when the log was, so that one that was lost is not taken for the one that came after it.
    """

    project: str
    partitions: int
    name: str


def open_log(knowledge: Knowledge, partitions: int, besides: Sequence[Command] = ()) -> Conversation[StreamLog]:
    """Returns the event log of a project; the first to ask makes it with the partitions that it is to have.

    Args:
        besides: commands that are said in the same round trip.

    Raises:
        ConfigError: it has another number of partitions.
    """
    key = keys.stream_key(knowledge.project)
    made: list[Command] = [("HSETNX", key, "partitions", partitions), ("HSETNX", key, "name", token_bytes(8).hex())]
    *_, (kept, name) = yield [*besides, *made, ("HMGET", key, "partitions", "name")]
    if int(kept) != partitions:
        raise ConfigError(
            f"online_store.stream_partitions is {partitions}, but the event log of project {knowledge.project!r} has "
            f"{int(kept)} partitions, and which entity key is in which depends on it; set it to {int(kept)}"
        )
    return StreamLog(knowledge.project, partitions, name.decode())


def check_instant(now_us: int) -> None:
    """Refuses a clock whose instants cannot be ids.

    Raises:
        ConfigError: it is before 1970 or beyond the year 2255.
    """
    if not 0 < now_us < _IDS_MAX_US - _DAY_US:
        raise ConfigError(
            f"the clock says {now_us} us since 1970, which cannot be the id of an event; ids lie in the years 1970 to "
            "2255: set LARDER_CLOCK to an instant there"
        )


# --- lines --------------------------------------------------------------------------------------


def draw_line(log: StreamLog, view: str, now_us: int) -> Conversation[int]:
    """Marks all partitions with one id, which it returns: events with an id up to it lie on one side, others after it.

    Raises:
        LogFull: other pushes were always faster.
    """
    check_instant(now_us)
    _, digest = script("log_line")
    content = encode_line(view)
    states = [keys.partition_state_key(log.project, p) for p in range(log.partitions)]
    logs = [keys.partition_log_key(log.project, p) for p in range(log.partitions)]
    known = yield [("HGET", state, "last") for state in states]
    slack = LINE_SLACK_US
    line = max(now_us, max(int(last or 0) for last in known) + slack)
    for _ in range(LINE_ATTEMPTS_MAX):
        replies = yield [
            ("EVALSHA", digest, 2, entries, state, line, content) for entries, state in zip(logs, states, strict=True)
        ]
        highest = max(map(int, replies))
        if highest == line:
            return line
        slack *= 2
        line = highest + slack
    raise LogFull(
        f"no line could be drawn through the event log of project {log.project!r}: each of {LINE_ATTEMPTS_MAX} "
        "attempts came after a push; try again"
    )


# --- schemas ------------------------------------------------------------------------------------


def keep_schema(project: str, tag: bytes, schema: bytes) -> Command:
    """Returns the command that keeps a schema of logged rows beside the log, should it not be there yet."""
    return ("HSETNX", keys.schemas_key(project), tag, schema)


def load_schema(project: str, tag: bytes) -> Conversation[bytes | None]:
    """Returns a schema of logged rows, None where it is not known."""
    (schema,) = yield [("HGET", keys.schemas_key(project), tag)]
    return bytes(schema) if schema is not None else None


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PartitionState:
    """How far a partition has come; ids in microseconds, 0 for nothing yet.

    Attributes:
        last: of the row that was appended last.
        applied: up to which rows count online, and copies were passed on.
        landed: up to which rows have landed, of those that land.
        lines: by view the last line that was passed.
        taken: by origin how far it was taken.
        appended: rows ever appended; `applied_rows` and `landed_rows` likewise.
        bytes: of all entries ever appended; `done_bytes` of those that were taken out.
    """

    last: int = 0
    applied: int = 0
    landed: int = 0
    appended: int = 0
    applied_rows: int = 0
    landed_rows: int = 0
    bytes: int = 0
    done_bytes: int = 0
    lines: Mapping[str, int] = field(default_factory=dict)
    taken: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: Any) -> "PartitionState":
        """Returns what the hash of a partition says."""
        pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
        said = {name.decode(): value for name, value in pairs}
        numbers = (
            "last", "applied", "landed", "appended", "applied_rows", "landed_rows", "bytes", "done_bytes",
        )  # fmt: skip
        return cls(
            **{name: int(said.get(name, 0)) for name in numbers},
            lines={name[5:]: int(value) for name, value in said.items() if name.startswith("line:")},
            taken={name[5:]: value.decode() for name, value in said.items() if name.startswith("from:")},
        )


def read_states(log: StreamLog, partitions: Sequence[int]) -> Conversation[list[PartitionState]]:
    """Returns the states of some partitions."""
    replies = yield [("HGETALL", keys.partition_state_key(log.project, p)) for p in partitions]
    return [PartitionState.parse(reply) for reply in replies]


Raw = tuple[int, bytes]
"""The id of an entry, which is that of its last row, and its content."""


def read_entries(log: StreamLog, after: Mapping[int, int], count: int) -> Conversation[dict[int, list[Raw]]]:
    """Returns of each partition the next entries after an id, in order."""
    commands: list[Command] = [
        ("XRANGE", keys.partition_log_key(log.project, partition), f"({last}-18446744073709551615", "+", "COUNT", count)
        for partition, last in after.items()
    ]
    replies = yield commands
    return {partition: [_raw(entry) for entry in reply] for partition, reply in zip(after, replies, strict=True)}


def wait_entries(
    log: StreamLog, after: Mapping[int, int], inboxes: Sequence[bytes], block_ms: int
) -> Conversation[None]:
    """Returns when any of some partitions of one Redis has an entry after an id, or an inbox has any.

    Args:
        block_ms: at the latest after so many milliseconds.
    """
    names = [*(keys.partition_log_key(log.project, partition) for partition in after), *inboxes]
    ids = [*(f"{last}-1" for last in after.values()), *("0" for _ in inboxes)]
    yield [("XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", *names, *ids)]


def _raw(entry: Any) -> Raw:
    name, fields = entry
    content = fields[1] if isinstance(fields, list) else fields[b"e"]
    return int(name.partition(b"-")[0]), bytes(content)


def advance(
    log: StreamLog, partition: int, token: str, fields: Mapping[str, int], trim_to: int | None = None
) -> Conversation[None]:
    """Records how far the owner of a partition has come, and takes entries up to an id out of its log.

    Args:
        fields: at least one; what they say stands for itself, so that it may be said twice.

    Raises:
        OwnershipLost: the token is not the last owner's; nothing was changed.
    """
    _, digest = script("log_advance")
    names = keys.partition_log_key(log.project, partition), keys.partition_state_key(log.project, partition)
    said = [part for pair in fields.items() for part in pair]
    (is_done,) = yield [("EVALSHA", digest, 2, *names, token, "" if trim_to is None else trim_to, *said)]
    if not is_done:
        raise OwnershipLost(
            f"partition {partition} of the event log of project {log.project!r} has another owner by now; "
            "it goes on where this one's work was recorded last"
        )
