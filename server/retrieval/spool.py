"""Bodies on their way in: kept in memory that another process can be given, and counted together."""

import os
from collections.abc import AsyncIterator

from starlette.exceptions import HTTPException

from server.limits import BUSY_RETRY_SECONDS


class Body:
    """A body in memory with a descriptor; `close` gives the memory back."""

    def __init__(self, spool: "Spool") -> None:
        self._spool = spool
        self.descriptor = os.memfd_create("larder-body", os.MFD_CLOEXEC)
        self.size_bytes = 0

    def append(self, chunk: bytes) -> None:
        """Adds what has come in.

        Raises:
            HTTPException: 503, all bodies together are at their bound.
        """
        self._spool.reserve(len(chunk))
        self.size_bytes += len(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(self.descriptor, view) :]

    def close(self) -> None:
        """Gives the memory back, unless another process holds the body too."""
        os.close(self.descriptor)
        self._spool.release(self.size_bytes)


class Spool:
    """All bodies that one worker is reading. A slow sender holds the bytes that it has sent, and no place."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held_bytes = 0

    async def receive(self, chunks: AsyncIterator[bytes]) -> Body:
        """Returns a body once it is whole.

        Raises:
            HTTPException: 503 with Retry-After, all bodies together are at their bound.
        """
        body = Body(self)
        try:
            async for chunk in chunks:
                body.append(chunk)
        except BaseException:
            body.close()
            raise
        return body

    def reserve(self, size_bytes: int) -> None:
        """Counts bytes that have come in.

        Raises:
            HTTPException: 503 with Retry-After, there is no room for them.
        """
        if self.held_bytes + size_bytes > self.bytes_max:
            raise HTTPException(
                503,
                f"the bodies of retrievals under way take {self.held_bytes} bytes, and one worker keeps at most "
                f"{self.bytes_max}; try again in {BUSY_RETRY_SECONDS} seconds",
                # The rest of the body is not read, so the connection cannot carry another request.
                {"Retry-After": str(BUSY_RETRY_SECONDS), "Connection": "close"},
            )
        self.held_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Uncounts bytes that are held no longer."""
        self.held_bytes -= size_bytes
