"""Writes of one turn of the event loop joined into one: head and body of an answer leave in one packet.

Each write is a call into the kernel and wakes the reader, which together take longer than a lookup's own work.
"""

import asyncio
from typing import Any


class JoinedWrites:
    """A transport that keeps what is written until it is flushed or the turn ends; in all else it is another one."""

    __slots__ = ("_call_soon", "_parts", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._call_soon = loop.call_soon
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        """Returns what the other transport has under a name."""
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether the transport is closed or about to be."""
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Takes data; it is written with what else comes in this turn."""
        if not self._parts:
            self._call_soon(self.flush)
        self._parts.append(data)

    def flush(self) -> None:
        """Writes what is left."""
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.writelines(parts)

    def write_eof(self) -> None:
        """Writes what is left, then the end."""
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Writes what is left, then closes."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Closes at once; what is left is lost, as is what the other transport has not written yet."""
        self._parts.clear()
        self._transport.abort()
