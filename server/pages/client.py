"""A worker's side of pages: it keeps a process that makes them, from the first page until none is asked for."""

import asyncio
import socket
from collections.abc import Callable

import msgspec
from starlette.exceptions import HTTPException

from server.limits import BUSY_RETRY_SECONDS, PAGE_SECONDS_MAX, PAGES_IDLE_SECONDS, PAGES_WAITING_MAX
from server.pages.messages import PageAnswer, PageRequest
from server.retrieval.messages import MESSAGE_BYTES_MAX, Kind, pieces


class PageProcess:
    """Makes pages one after the other in a process of its own; `close` ends it.

    Args:
        begin: forks such a process, and returns the socket to it.
    """

    def __init__(
        self,
        begin: Callable[[], socket.socket],
        seconds_max: float = PAGE_SECONDS_MAX,
        idle_seconds: float = PAGES_IDLE_SECONDS,
        waiting_max: int = PAGES_WAITING_MAX,
    ) -> None:
        self._begin = begin
        self._seconds_max = seconds_max
        self._idle_seconds = idle_seconds
        self._waiting_max = waiting_max
        self._waiting = 0
        self._turn = asyncio.Lock()
        self._socket: socket.socket | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a process just now."""
        return self._socket is not None

    async def ask(self, request: PageRequest) -> PageAnswer:
        """Returns a page.

        Raises:
            HTTPException: 503, too many wait, it took too long, or its process ended.
        """
        if self._waiting >= self._waiting_max:
            raise _busy(f"{self._waiting_max} pages are waited for already, which is all that one worker takes")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._ask_in_time(msgspec.msgpack.encode(request))
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Ends the process."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _ask_in_time(self, request: bytes) -> PageAnswer:
        # One that ended meanwhile, killed for its memory for one, is noticed at the first word, and begun anew.
        has_stood = self.is_running
        try:
            async with asyncio.timeout(self._seconds_max):
                answer = await self._converse(request)
                if answer is None and has_stood:
                    answer = await self._converse(request)
        except TimeoutError as error:
            self.close()
            raise _busy(f"the page was not made within {self._seconds_max:g} seconds") from error
        except BaseException:
            # The answer to somebody who has gone must not be taken for that to the next.
            self.close()
            raise
        if answer is None:
            raise _busy("the process that makes pages ended; the server's log may say why")
        self._end_when_idle()
        return answer

    async def _converse(self, request: bytes) -> PageAnswer | None:
        """Returns the answer to a request, None if the process has gone."""
        if self._socket is None:
            self._socket = self._begin()
        loop = asyncio.get_running_loop()
        try:
            for piece in pieces(request):
                await loop.sock_sendall(self._socket, bytes((Kind.CHUNK,)) + piece)
            await loop.sock_sendall(self._socket, bytes((Kind.END,)))
            content = bytearray()
            while True:
                message = await loop.sock_recv(self._socket, MESSAGE_BYTES_MAX)
                if message and message[0] == Kind.CHUNK:
                    content += message[1:]
                elif message and message[0] == Kind.END:
                    return msgspec.msgpack.decode(content, type=PageAnswer)
                else:
                    break
        except ConnectionError:
            pass
        self.close()
        return None

    def _end_when_idle(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._idle_timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if not self._waiting:
            self.close()


def _busy(what: str) -> HTTPException:
    return HTTPException(
        503, f"{what}; try again in {BUSY_RETRY_SECONDS} seconds", {"Retry-After": str(BUSY_RETRY_SECONDS)}
    )
