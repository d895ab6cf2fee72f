"""Holds conversations with Redis, synchronously or not; the only difference between the two is `await`."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import NoScriptError

from store.limits import LOOKUP_SECONDS_MAX
from store.online.connection import (
    REDIS_ERRORS,
    RedisTarget,
    connect,
    connect_async,
    multiplexed,
    too_late,
    translate,
)
from store.online.conversations import Command, Conversation, Result, script
from store.online.deadlines import deadline
from store.online.multiplexed import Multiplexed

SCRIPTS = ("write", "carry", "switch")

QUICK_COMMANDS_MAX = 256
"""Commands of a batch that goes before larger ones: 255 entity keys, a quarter of a millisecond of Redis time."""

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

    def _send(self, commands: list[Command]) -> list[Any]:
        try:
            return self._pipeline(commands)
        except NoScriptError:
            for name in SCRIPTS:
                self.client.script_load(script(name)[0])
            return self._pipeline(commands)

    def _pipeline(self, commands: list[Command]) -> list[Any]:
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
        # redis-py bounds each read and each attempt; only this bounds their sum.
        seconds = _in_all(self.target, seconds_max)
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                replies: Any = None
                while True:
                    commands = conversation.send(replies)
                    started = time.perf_counter()
                    replies = await self._send(commands)
                    if self._on_round_trip is not None:
                        self._on_round_trip(time.perf_counter() - started)
        except StopIteration as end:
            result: Result = end.value
            return result
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise too_late(self.target, seconds) from error
        except REDIS_ERRORS as error:
            raise translate(error, self.target) from error
        finally:
            conversation.close()

    async def _send(self, commands: list[Command]) -> list[Any]:
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

    async def _pipeline(self, commands: list[Command]) -> list[Any]:
        if self._wires:
            is_quick = commands[0][0] == "HMGET" and len(commands) <= QUICK_COMMANDS_MAX
            return await self._wires[0 if is_quick else 1].execute(commands)
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
