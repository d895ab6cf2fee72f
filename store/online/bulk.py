"""Rows of a batch run on their way into Redis, a batch of columns at a time.

Mostly a run writes rows that nobody has written yet. Such a row needs no script: HSETNX writes it if and only if none
stands there, in half the time, and a batch of them is one text that Arrow composes and one socket takes. Rows that
one stands in the way of go through the write script, which compares the two, as does everything that does not fit
here: a cluster, keys that expire, rows of megabytes, a connection that breaks.
"""

import socket
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.kernel.keys import layouts_key
from store.limits import BULK_BYTES_MAX, SEND_PIECE_BYTES
from store.online.client import RedisSession
from store.online.connection import REDIS_ERRORS
from store.online.conversations import Writing, write_generation

_BYTES = pa.binary()
_REPLY_BYTES = 4
"""HSETNX answers `:0` or `:1` and a line's end."""


@dataclass(slots=True)
class BulkWriter:
    """Writes rows into one hash field, each only if it is not older than what stands there; threads may share it."""

    session: RedisSession
    project: str
    field: bytes
    writing: Writing
    expects_new: bool = True
    """Whether most rows are thought to be the first of their key; no longer once a batch has shown otherwise."""

    def write(self, keys: Any, rows: Any) -> None:
        """Writes a batch.

        Args:
            keys: entity keys, a column of bytes without nulls.
            rows: the same of their rows.

        Raises:
            OnlineStoreError: Redis cannot be reached, did not answer in time, or refused a command.
        """
        if self.expects_new and self._is_fit(keys, rows):
            is_old = self._put_new(keys, rows)
            if is_old is not None:
                self.expects_new = 2 * int(is_old.sum()) <= len(is_old)
                old = pa.array(is_old)
                keys, rows = keys.filter(old), rows.filter(old)
        pairs = list(zip(keys.to_pylist(), rows.to_pylist(), strict=True))
        self.session.hold(write_generation(self.project, self.field, pairs, self.writing))

    def _is_fit(self, keys: Any, rows: Any) -> bool:
        is_plain = not self.session.target.is_cluster and self.writing.key_ttl_seconds is None
        return is_plain and len(keys) > 0 and keys.nbytes + rows.nbytes <= BULK_BYTES_MAX

    def _put_new(self, keys: Any, rows: Any) -> npt.NDArray[np.bool_] | None:
        """Writes the rows whose field is not there, and returns which those are that it is there of.

        None where it is not known: the connection broke, or Redis refused a command. To write those rows once more, by
        the script, does no harm.
        """
        layout = _command(b"HSETNX", layouts_key(self.project), b"%d" % self.writing.schema_tag, self._layout_text)
        commands = [memoryview(new_rows_commands(keys, rows, self.field)), memoryview(layout)]
        pool = self.session.client.connection_pool
        try:
            connection = pool.get_connection()
        except REDIS_ERRORS:
            return None
        is_whole = False
        try:
            replies = _replies(connection, commands, len(keys) + 1)
            is_whole = True
        except (*REDIS_ERRORS, OSError):
            return None
        finally:
            if not is_whole:
                # What is still to come on it would be taken for another's answer.
                connection.disconnect()
            pool.release(connection)
        is_old: npt.NDArray[np.bool_] = replies[:-1] == 0
        return is_old

    @property
    def _layout_text(self) -> bytes:
        return self.writing.layout.text.encode()


def new_rows_commands(keys: Any, rows: Any, field: bytes) -> Any:
    """Returns the commands that write rows into a hash field where it is not there, one after the other as one buffer.

    Source: the Redis serialization protocol, "arrays" of "bulk strings".
    """
    before = b"*4\r\n$6\r\nHSETNX\r\n$"
    between = b"\r\n$%d\r\n%s\r\n$" % (len(field), field)
    pieces = [before, _sizes(keys), b"\r\n", keys, between, _sizes(rows), b"\r\n", rows, b"\r\n"]
    columns = [pa.scalar(piece, _BYTES) if isinstance(piece, bytes) else piece for piece in pieces]
    joined = pc.binary_join_element_wise(*columns, pa.scalar(b"", _BYTES))
    offsets = np.frombuffer(joined.buffers()[1], np.int32)[joined.offset : joined.offset + len(joined) + 1]
    return joined.buffers()[2][int(offsets[0]) : int(offsets[-1])]


def _sizes(column: Any) -> Any:
    return pc.binary_length(column).cast(pa.string()).cast(_BYTES)


def _command(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _replies(connection: Any, commands: list[memoryview], count: int) -> npt.NDArray[np.uint8]:
    """Returns the replies to commands that are answered by 0 or 1.

    Raises:
        OSError: the connection broke, or a command was answered otherwise.
    """
    for text in commands:
        for start in range(0, len(text), SEND_PIECE_BYTES):
            connection.send_packed_command([text[start : start + SEND_PIECE_BYTES]], check_health=False)
    # redis-py would make an object of each reply, which takes longer than Redis takes for the command.
    wire: socket.socket = connection._sock  # noqa: SLF001 - there is no public way
    received = b""
    while len(received) < count * _REPLY_BYTES:
        piece = wire.recv(SEND_PIECE_BYTES)
        if not piece or b"-" in piece:
            raise OSError(f"answered {piece[:200]!r}")
        received += piece
    return np.frombuffer(received, np.uint8).reshape(count, _REPLY_BYTES)[:, 1] - ord("0")
