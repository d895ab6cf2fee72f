"""One connection to one Redis that carries the batches of many callers at once.

Redis answers in the order of the commands, so the next replies always belong to the oldest batch under way. A batch
that is not answered within its deadline, or that cannot be read, ends the connection with all that is under way on
it: after that nobody could tell whose a late reply is. The next batch connects anew.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.backoff import AbstractBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError

from store.errors import OnlineStoreUnavailable
from store.limits import REDIS_BATCHES_MAX, REDIS_LATE_GRACE_SECONDS
from store.online.commands import Command, packed

Connect = Callable[[], AbstractConnection]
_SERVER_CLOSED = "the connection was closed by the server"
_CLIENT_CLOSED = "the client was closed"


class _Batch:
    """Commands under way: how many replies are still to come, and who waits for them until when."""

    __slots__ = ("deadline", "left", "replies", "waiter")

    def __init__(self, count: int, waiter: "asyncio.Future[list[Any]]", deadline: float) -> None:
        self.left = count
        self.waiter = waiter
        self.deadline = deadline
        self.replies: list[Any] = []


class _Pipe(asyncio.Protocol):
    """A live connection, taken over from redis-py once it has connected and logged in."""

    def __init__(self, connection: AbstractConnection, timeout_seconds: float) -> None:
        parser: Any = connection._parser  # noqa: SLF001 - redis-py's table from Redis' words to its exceptions
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=parser.parse_error)
        self._timeout_seconds = timeout_seconds
        self._batches: deque[_Batch] = deque()
        self._unsent: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_late = False
        self.is_open = True
        # Kept, as it closes the transport when it goes; redis-py must not close it either.
        self._writer = cast("asyncio.StreamWriter", connection._writer)  # noqa: SLF001 - there is no public way
        connection._reader = connection._writer = None  # noqa: SLF001 - as above
        self._transport = cast("asyncio.Transport", self._writer.transport)
        self._transport.set_protocol(self)
        self._loop = asyncio.get_running_loop()

    def send(self, commands: Sequence[Command]) -> "asyncio.Future[list[Any]]":
        """Sends a batch; the future gets one reply a command, errors among them.

        Raises:
            RedisConnectionError: the connection was lost; nothing is sent.
            OnlineStoreUnavailable: too many batches are under way.
        """
        if self._is_closing():
            raise RedisConnectionError(_SERVER_CLOSED)
        if len(self._batches) >= REDIS_BATCHES_MAX:
            raise OnlineStoreUnavailable(f"{REDIS_BATCHES_MAX} batches already wait for Redis; try again in a moment")
        waiter = self._loop.create_future()
        batch = _Batch(len(commands), waiter, self._loop.time() + self._timeout_seconds)
        self._unsent.append(packed(commands))
        self._batches.append(batch)
        if len(self._unsent) == 1:
            # Other callers of this turn of the loop will share the write, which costs as much as packing ten batches.
            self._loop.call_soon(self._flush)
        if self._timer is None:
            self._timer = self._loop.call_at(batch.deadline, self._check)
        return waiter

    def _flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if self.is_open and not self._is_closing():
            self._transport.write(data)

    def _is_closing(self) -> bool:
        """Whether the other end has hung up; uvloop then refuses to write, with an error that says nothing of it."""
        if self._transport.is_closing():
            self.drop(RedisConnectionError(_SERVER_CLOSED))
            return True
        return False

    def data_received(self, data: bytes) -> None:
        """Gives replies to whom they belong."""
        self._is_late = False
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except InvalidResponse as error:
            self.drop(error)

    def _take(self, reply: Any) -> None:
        if not self._batches:
            raise InvalidResponse("a reply that nobody waits for")
        batch = self._batches[0]
        batch.replies.append(reply)
        batch.left -= 1
        if not batch.left:
            self._batches.popleft()
            if not batch.waiter.done():
                batch.waiter.set_result(batch.replies)

    def _check(self) -> None:
        """Ends the connection if its oldest batch is late; one timer serves all batches."""
        self._timer = None
        if not self._batches:
            return
        now = self._loop.time()
        deadline = self._batches[0].deadline
        if now < deadline:
            self._timer = self._loop.call_at(deadline, self._check)
        elif not self._is_late:
            # An event loop that was busy itself must first read what has come meanwhile.
            self._is_late = True
            self._timer = self._loop.call_later(REDIS_LATE_GRACE_SECONDS, self._check)
        else:
            self.drop(RedisTimeoutError("Timeout reading from the server"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails what is under way."""
        self.drop(RedisConnectionError(str(exc) if exc else _SERVER_CLOSED))

    def eof_received(self) -> None:
        """Lets the transport close itself."""

    def drop(self, error: Exception) -> None:
        """Ends the connection; all who wait get the error."""
        if not self.is_open:
            return
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()
        for batch in self._batches:
            if not batch.waiter.done():
                batch.waiter.set_exception(type(error)(*error.args))
        self._batches.clear()


class Multiplexed:
    """Sends batches over one connection that is made at the first one, and made anew after it was lost."""

    def __init__(self, connect: Connect, timeout_seconds: float, backoff: AbstractBackoff, retries_max: int) -> None:
        """Takes how to make a connection that is not connected yet, and how often what was lost is said again."""
        self._connect = connect
        self._timeout_seconds = timeout_seconds
        self._backoff = backoff
        self._retries_max = retries_max
        self._pipe: _Pipe | None = None
        self._connecting: asyncio.Task[_Pipe] | None = None
        self._is_closed = False

    def begin(self, commands: Sequence[Command]) -> "asyncio.Future[list[Any]] | None":
        """Sends a batch over the connection as it stands; None where there is none, and then nothing is sent.

        The future gets the replies, errors among them, or RedisConnectionError or RedisTimeoutError.

        Raises:
            OnlineStoreUnavailable: too many batches are under way.
        """
        if self._pipe is None or not self._pipe.is_open:
            return None
        try:
            return self._pipe.send(commands)
        except RedisConnectionError:
            return None

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Returns the replies to a batch; an error among them is raised.

        A batch whose connection is lost, or that meets a Redis that still loads, is said again; one whose answer
        came too late is not.

        Raises:
            RedisError: redis-py's classes, as its own client raises them.
            OnlineStoreUnavailable: too many batches are under way.
        """
        failures = 0
        while True:
            if self._is_closed:
                raise RedisConnectionError(_CLIENT_CLOSED)
            pipe = self._pipe
            if pipe is None or not pipe.is_open:
                pipe = await self._opened()
            try:
                return checked(await pipe.send(commands))
            except ReadOnlyError as error:
                # The master has become a replica; its address may lead to another one by now.
                pipe.drop(RedisConnectionError(str(error)))
                raise
            except RedisConnectionError:
                failures += 1
                if failures > self._retries_max or self._is_closed:
                    raise
            await asyncio.sleep(self._backoff.compute(failures))

    async def _opened(self) -> _Pipe:
        """Returns a live connection; callers who come meanwhile wait for the same one."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open())
            self._connecting.add_done_callback(self._connected)
        connecting = self._connecting
        try:
            # Shielded: one caller who gives up must not take the connection from the others.
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            if self._is_closed and connecting.cancelled():
                # It was the connecting that was cancelled, not the caller.
                raise RedisConnectionError(_CLIENT_CLOSED) from None
            raise

    async def _open(self) -> _Pipe:
        connection = self._connect()
        try:
            await connection.connect()
        except asyncio.CancelledError:
            await connection.disconnect(nowait=True)
            raise
        self._pipe = _Pipe(connection, self._timeout_seconds)
        return self._pipe

    def _connected(self, task: "asyncio.Task[_Pipe]") -> None:
        self._connecting = None
        if not task.cancelled():
            # Looked at, so that asyncio does not report a failed connect for which nobody waits any more.
            task.exception()

    async def close(self) -> None:
        """Closes the connection for good; all who wait get an error."""
        self._is_closed = True
        if (connecting := self._connecting) is not None:
            connecting.cancel()
            await asyncio.wait([connecting])
        if self._pipe is not None:
            self._pipe.drop(RedisConnectionError(_CLIENT_CLOSED))
            # The transport ends in the loop's next turn; a loop that is closed before would leave it open.
            await asyncio.sleep(0)


def checked(replies: list[Any]) -> list[Any]:
    """Returns the replies to a batch; an error among them is raised."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
