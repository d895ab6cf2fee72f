"""Erasure in Redis: every entity key that holds some values of join keys goes, with the rows of all views in it.

An entity key is one hash with a field per view and generation, so removing it removes all of them, also what a rebuild
under way has written; tiles of windowed views stand beside it under names that begin with it. Keys are taken apart by
the encoding that made them, never searched by text.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from store.kernel.keys import split_entity_key, split_tiles_key
from store.limits import ERASE_LOOKUP_KEYS
from store.online.client import RedisSession
from store.online.conversations import Knowledge, read_rows
from store.online.views import keys_of_entities, say

WantedParts = Mapping[str, bytes]
"""Encoded values by join key, all of which an entity key has to hold."""


@dataclass(frozen=True, slots=True)
class KeysAndRows:
    """How many entity keys there were and how many rows they held, over all views and generations.

    `examples` are the first `ERASE_LOOKUP_KEYS` of them.
    """

    keys: int = 0
    rows: int = 0
    examples: tuple[bytes, ...] = ()


def count_keys(session: RedisSession, project: str, wanted: Sequence[WantedParts]) -> KeysAndRows:
    """Returns how many entity keys of a project hold any of the wanted values; nothing is changed."""
    return _over_keys(session, project, wanted, is_erasing=False)


def erase_keys(session: RedisSession, project: str, wanted: Sequence[WantedParts]) -> KeysAndRows:
    """Removes the entity keys of a project that hold any of the wanted values, in bounded batches; returns what went.

    A killed erasure has removed some of them; the next one removes the others.
    """
    return _over_keys(session, project, wanted, is_erasing=True)


def rows_looked_up(session: RedisSession, knowledge: Knowledge, views: Sequence[str], keys: Sequence[bytes]) -> int:
    """Returns how many rows lookups of some views find under some entity keys, at most `ERASE_LOOKUP_KEYS`."""
    rows = session.hold(read_rows(knowledge, [(keys[:ERASE_LOOKUP_KEYS], tuple(views))]))
    return sum(row is not None for found in rows for row in found)


def _over_keys(session: RedisSession, project: str, wanted: Sequence[WantedParts], *, is_erasing: bool) -> KeysAndRows:
    keys = rows = 0
    examples: list[bytes] = []
    for batch in _matching(session, project, wanted):
        counts = [("HLEN", key) if key.endswith(b"}") else ("EXISTS", key) for key in batch]
        removals = [("UNLINK", key) for key in batch] if is_erasing else []
        # One batch, so that what is counted is what goes; a key that SCAN brought twice is then empty.
        replies = session.hold(say([*counts, *removals]))[: len(batch)]
        present = [(key, count) for key, count in zip(batch, replies, strict=True) if count]
        keys += len(present)
        rows += sum(count for _, count in present)
        examples += [key for key, _ in present if key.endswith(b"}")][: ERASE_LOOKUP_KEYS - len(examples)]
    return KeysAndRows(keys, rows, tuple(examples))


def _matching(session: RedisSession, project: str, wanted: Sequence[WantedParts]) -> Iterator[list[bytes]]:
    for batch in keys_of_entities(session, project):
        found = [key for key in dict.fromkeys(batch) if _holds_any(_parts(project, key), wanted)]
        if found:
            yield found


def _parts(project: str, key: bytes) -> dict[str, bytes] | None:
    tiles = split_tiles_key(project, key)
    return split_entity_key(project, key if tiles is None else tiles.entity_key)


def _holds_any(parts: Mapping[str, bytes] | None, wanted: Sequence[WantedParts]) -> bool:
    return parts is not None and any(wished.items() <= parts.items() for wished in wanted)
