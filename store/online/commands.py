"""Batches of Redis commands, and the bytes that say the most frequent of them.

Source: Redis serialization protocol (RESP2), "Sending commands to a Redis server".
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, cast, overload

import hiredis

Command = tuple[Any, ...]
"""A command and its arguments."""


class RowReads(Sequence[Command]):
    """One HMGET per entity key, other commands, and a question at the end: the batch of a lookup.

    A lookup of a hundred keys says the same hundred times but for the key, so that all else is made once.
    """

    __slots__ = ("_ask", "_others", "_reads")

    def __init__(
        self,
        reads: Sequence[tuple[Sequence[bytes], tuple[bytes, ...]]],
        ask: Command,
        others: Sequence[Command] = (),
    ) -> None:
        """Takes pairs (entity keys, hash fields to read of each of them), the question, and what stands before it."""
        self._reads = reads
        self._ask = ask
        self._others = others

    def __len__(self) -> int:
        """Returns the number of commands."""
        return sum(len(entity_keys) for entity_keys, _ in self._reads) + len(self._others) + 1

    def __iter__(self) -> Iterator[Command]:
        """Yields the commands."""
        for entity_keys, fields in self._reads:
            for key in entity_keys:
                yield ("HMGET", key, *fields)
        yield from self._others
        yield self._ask

    @overload
    def __getitem__(self, place: int) -> Command: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Command]: ...
    def __getitem__(self, place: int | slice) -> Command | Sequence[Command]:
        """Returns one command, or some."""
        return list(self)[place]

    def packed(self) -> bytes:
        """Returns the batch as it is sent."""
        parts = []
        for entity_keys, fields in self._reads:
            head, tail = _around_key(fields)
            parts += [b"%b%d\r\n%b%b" % (head, len(key), key, tail) for key in entity_keys]
        parts += [hiredis.pack_command(command) for command in self._others]
        parts.append(_packed(self._ask))
        return b"".join(parts)


def packed(commands: Sequence[Command]) -> bytes:
    """Returns a batch as it is sent."""
    if isinstance(commands, RowReads):
        return commands.packed()
    return b"".join([hiredis.pack_command(command) for command in commands])


@lru_cache(maxsize=1_024)
def _packed(command: Command) -> bytes:
    return cast("bytes", hiredis.pack_command(command))


@lru_cache(maxsize=1_024)
def _around_key(fields: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """Returns what stands before the length of the key in an HMGET, and what stands behind the key."""
    tail = b"".join(b"\r\n$%d\r\n%b" % (len(field), field) for field in fields)
    return b"*%d\r\n$5\r\nHMGET\r\n$" % (len(fields) + 2), tail + b"\r\n"
