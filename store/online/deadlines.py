"""A deadline over all that a thread waits for Redis at a time, on redis-py's synchronous connections.

redis-py bounds each read by itself, so an answer that comes byte by byte may take for ever. Here a read may take no
longer than is left of the deadline; what it breaks off closes its connection, as every late read does.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from redis.connection import DefaultParser
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.utils import SENTINEL

_ends_at: ContextVar[float | None] = ContextVar("ends_at", default=None)


@contextmanager
def deadline(seconds: float | None) -> Iterator[Callable[[], bool]]:
    """Bounds what is read from Redis inside the block, and yields what tells whether that time is over.

    Args:
        seconds: None bounds nothing.

    Raises:
        RedisTimeoutError: by whatever reads when the time is over.
    """
    ends_at = None if seconds is None else time.monotonic() + seconds
    token = _ends_at.set(ends_at)
    try:
        yield lambda: ends_at is not None and time.monotonic() >= ends_at
    finally:
        _ends_at.reset(token)


class BoundedParser(DefaultParser):  # type: ignore[misc, valid-type]
    """Reads replies until the deadline of the block around, and each time no longer than the connection allows."""

    def read_from_socket(self, timeout: Any = SENTINEL, raise_on_timeout: bool = True) -> bool:
        """Reads what has come; a time of its own, as for a look whether anything has, stands as it is."""
        ends_at = _ends_at.get()
        if timeout is SENTINEL and ends_at is not None:
            left = ends_at - time.monotonic()
            if left <= 0:
                raise RedisTimeoutError("Timeout reading from socket")
            timeout = left if self._socket_timeout is None else min(left, self._socket_timeout)
        return bool(super().read_from_socket(timeout, raise_on_timeout))
