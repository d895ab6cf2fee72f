"""Rows that did not fit: a bounded stream of them, each kept once for its place of origin, with reason and state."""

from collections.abc import Sequence
from typing import NamedTuple

from store.kernel import keys
from store.limits import DEAD_LETTER_BYTES_MAX, DEAD_LETTERS_MAX
from store.online.conversations import Conversation, script

WAITING, REPLAYING, REPLAYED = "waiting", "replaying", "replayed"

_PAGE = 500


class DeadLetter(NamedTuple):
    """A row that did not fit.

    Attributes:
        place: where it came from: a feed or a partition of the log, and its position there; never the same twice.
        push_source: its name.
        row: a JSON object, or what came in its stead.
        to: where a replay puts the row, as a push says it; "" for a letter that cannot be replayed.
        reason: why it did not fit.
        at_us: when it was found.
    """

    place: str
    push_source: str
    row: str
    to: str
    reason: str
    at_us: int


class KeptLetter(NamedTuple):
    """A dead letter as it is kept: its number, and what became of it."""

    number: int
    letter: DeadLetter
    state: str


def keep_letters(project: str, letters: Sequence[DeadLetter]) -> Conversation[int]:
    """Keeps dead letters, each once however often it is said, and returns how many were new."""
    _, digest = script("dead_letter")
    names = keys.dead_letters_key(project), keys.dead_states_key(project)
    kept = 0
    for start in range(0, len(letters), _PAGE):
        replies = yield [
            ("EVALSHA", digest, 2, *names, DEAD_LETTERS_MAX, letter.place, *_fields(letter))
            for letter in letters[start : start + _PAGE]
        ]
        kept += sum(replies)
    return kept


def read_letters(project: str, after: int = 0) -> Conversation[list[KeptLetter]]:
    """Returns the next dead letters after a number, the oldest first; none at the end."""
    (entries,) = yield [("XRANGE", keys.dead_letters_key(project), f"({after}-0", "+", "COUNT", _PAGE)]
    if not entries:
        return []
    said = [_parsed(fields) for _, fields in entries]
    (states,) = yield [("HMGET", keys.dead_states_key(project), *(letter.place for letter in said))]
    return [
        KeptLetter(int(name.partition(b"-")[0]), letter, (state or b"").decode())
        for (name, _), letter, state in zip(entries, said, states, strict=True)
    ]


def change_letter(project: str, kept: KeptLetter, state: str) -> Conversation[bool]:
    """Changes the state of a dead letter, "" to remove it; whether nobody else had changed it since it was read."""
    _, digest = script("dead_change")
    names = keys.dead_letters_key(project), keys.dead_states_key(project)
    (is_done,) = yield [("EVALSHA", digest, 2, *names, kept.letter.place, kept.state, state, f"{kept.number}-0")]
    return bool(is_done)


def letters_kept(project: str) -> Conversation[tuple[int, int]]:
    """Returns how many dead letters are kept, and how many had to go for newer ones."""
    kept, dropped = yield [
        ("XLEN", keys.dead_letters_key(project)),
        ("HGET", keys.dead_states_key(project), " dropped"),
    ]
    return int(kept), int(dropped or 0)


def _fields(letter: DeadLetter) -> tuple[str | int, ...]:
    is_whole = len(letter.row.encode()) <= DEAD_LETTER_BYTES_MAX
    row = letter.row if is_whole else letter.row.encode()[:DEAD_LETTER_BYTES_MAX].decode("utf-8", "ignore")
    to = letter.to if is_whole else ""
    reason = letter.reason[:DEAD_LETTER_BYTES_MAX]
    return ("source", letter.push_source, "row", row, "to", to, "reason", reason, "at", letter.at_us)


def _parsed(fields: Sequence[bytes] | dict[bytes, bytes]) -> DeadLetter:
    pairs = fields.items() if isinstance(fields, dict) else zip(fields[::2], fields[1::2], strict=True)
    said = {name.decode(): value.decode() for name, value in pairs}
    return DeadLetter(said["from"], said["source"], said["row"], said["to"], said["reason"], int(said["at"]))
