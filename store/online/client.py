"""Holds conversations with Redis, synchronously or not; the only difference between the two is `await`."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError

from store.limits import LOOKUP_SECONDS_MAX
from store.online.commands import Command
from store.online.connection import (
    REDIS_ERRORS,
    RedisTarget,
    connect,
    connect_async,
    multiplexed,
    too_late,
    translate,
)
from store.online.conversations import Conversation, Result, script
from store.online.deadlines import deadline
from store.online.multiplexed import Multiplexed, checked

SCRIPTS = (
    "write", "carry", "switch", "tiles",
    "log_append", "log_line", "log_advance", "log_own", "log_keep", "dead_letter", "dead_change",
)  # fmt: skip

QUICK_COMMANDS_MAX = 256
"""Commands of a batch that goes before larger ones: 255 entity keys, a quarter of a millisecond of Redis time."""

READING = frozenset({"HMGET", "GET"})
"""What the batches of lookups begin with."""

OnRoundTrip = Callable[[float], None]


def _in_all(target: RedisTarget, seconds_max: float) -> float:
    """Returns what a conversation may take: a caller who allows each read more than that allows it to all of them."""
    return float(max(seconds_max, target.options.get("socket_timeout", 0.0)))


class RedisSession:
    """A synchronous session: one Redis client and what it is connected to."""

    def __init__(self, target: RedisTarget) -> None:
        self.target = target
        self.client: Any = connect(target)

    def hold(self, conversation: Conversation[Result], seconds_max: float | None = None) -> Result:
        """Returns the result of a conversation.

        Args:
            seconds_max: all that it may take; a `socket_timeout` above it goes before it. Without it, as for the runs
                of a materialization, and on a cluster each read is bounded by itself.

        Raises:
            OnlineStoreError: Redis cannot be reached, did not answer in time, or refused a command.
        """
        seconds = None if seconds_max is None else _in_all(self.target, seconds_max)
        with deadline(seconds) as is_over:
            try:
                replies: Any = None
                while True:
                    commands = conversation.send(replies)
                    replies = self._send(commands)
            except StopIteration as end:
                result: Result = end.value
                return result
            except REDIS_ERRORS as error:
                if seconds and is_over():
                    raise too_late(self.target, seconds) from error
                raise translate(error, self.target) from error
            finally:
                conversation.close()

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        try:
            return self._pipeline(commands)
        except NoScriptError:
            for name in SCRIPTS:
                self.client.script_load(script(name)[0])
            return self._pipeline(commands)

    def _pipeline(self, commands: Sequence[Command]) -> list[Any]:
        if len(commands) == 1:
            return [self.client.execute_command(*commands[0])]
        with self.client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            replies: list[Any] = pipe.execute()
            return replies

    def slot_of(self) -> Callable[[bytes], int] | None:
        """Returns the function from a key to its cluster slot, None where there is no cluster."""
        return self.client.keyslot if self.target.is_cluster else None

    def close(self) -> None:
        """Closes the connections."""
        self.client.close()


class AsyncRedisSession:
    """An asynchronous session of one event loop.

    One Redis is spoken to over two connections that all callers share: one for lookups, and one for what takes Redis
    or the network longer, so that no lookup waits behind it. A cluster, or a master that Sentinel knows, is left to
    redis-py's own client.
    """

    def __init__(self, target: RedisTarget, on_round_trip: OnRoundTrip | None = None) -> None:
        """Takes the target, and what is told the seconds of each round trip."""
        self.target = target
        self._on_round_trip = on_round_trip
        self.client: Any = connect_async(target)
        self._wires: tuple[Multiplexed, ...] = ()
        if not target.is_cluster and not target.is_sentinel:
            self._wires = (multiplexed(self.client, target), multiplexed(self.client, target))

    async def hold(self, conversation: Conversation[Result], seconds_max: float = LOOKUP_SECONDS_MAX) -> Result:
        """Returns the result of a conversation.

        Args:
            seconds_max: all that it may take; a `socket_timeout` above it goes before it.

        Raises:
            OnlineStoreError: Redis cannot be reached, did not answer in time, or refused a command.
        """
        # Each read and each attempt has its bound; only this bounds their sum.
        seconds = _in_all(self.target, seconds_max)
        started = asyncio.get_running_loop().time()
        bound: asyncio.Timeout | None = None
        try:
            commands = conversation.send(None)  # type: ignore[arg-type]
            # Most conversations are one batch on an open connection, which has a deadline of its own.
            replies = await self._at_once(commands)
            if replies is not None:
                commands = conversation.send(replies)
            async with asyncio.timeout_at(started + seconds) as bound:
                while True:
                    sent = time.perf_counter()
                    replies = await self._send(commands)
                    self._tell(sent)
                    commands = conversation.send(replies)
        except StopIteration as end:
            result: Result = end.value
            return result
        except TimeoutError as error:
            if bound is None or not bound.expired():
                raise
            raise too_late(self.target, seconds) from error
        except REDIS_ERRORS as error:
            raise translate(error, self.target) from error
        finally:
            conversation.close()

    async def _at_once(self, commands: Sequence[Command]) -> list[Any] | None:
        """Returns the replies to rows' reads; None where one attempt does not bring them."""
        begun = self._wires[0].begin(commands) if self._wires and _is_quick(commands) else None
        if begun is None:
            return None
        sent = time.perf_counter()
        try:
            replies = checked(await begun)
        except RedisConnectionError:
            return None
        self._tell(sent)
        return replies

    def _tell(self, sent: float) -> None:
        if self._on_round_trip is not None:
            self._on_round_trip(time.perf_counter() - sent)

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        try:
            return await self._pipeline(commands)
        except NoScriptError:
            for name in SCRIPTS:
                text = script(name)[0]
                if self._wires:
                    await self._wires[1].execute([("SCRIPT", "LOAD", text)])
                else:
                    await self.client.script_load(text)
            return await self._pipeline(commands)

    async def _pipeline(self, commands: Sequence[Command]) -> list[Any]:
        if self._wires:
            return await self._wires[0 if _is_quick(commands) else 1].execute(commands)
        if len(commands) == 1:
            return [await self.client.execute_command(*commands[0])]
        async with self.client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            replies: list[Any] = await pipe.execute()
            return replies

    def slot_of(self) -> Callable[[bytes], int] | None:
        """Returns the function from a key to its cluster slot, None where there is no cluster."""
        return self.client.keyslot if self.target.is_cluster else None

    async def close(self) -> None:
        """Closes the connections."""
        for wire in self._wires:
            await wire.close()
        await self.client.aclose()


def _is_quick(commands: Sequence[Command]) -> bool:
    return next(iter(commands))[0] in READING and len(commands) <= QUICK_COMMANDS_MAX
