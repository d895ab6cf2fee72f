"""One connection that many callers share: each gets its own answer or an error, whatever becomes of the connection.

Every caller asks for an echo of its own number, so somebody else's answer would show.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from store.errors import OnlineStoreUnavailable
from store.limits import REDIS_BATCHES_MAX
from store.online.connection import connect_async, multiplexed, parse_target
from store.online.multiplexed import Multiplexed
from tests.redis_proxy import RedisProxy
from tests.redis_servers import RedisServer, poll_until

CALLERS = 50


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """Runs on either event loop; they tell of lost connections in different ways."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


@asynccontextmanager
async def wire_to(address: str, seconds: float = 10.0) -> AsyncIterator[Multiplexed]:
    target = parse_target(f"{address},socket_timeout={seconds}", "redis", "mymaster", "test")
    client = connect_async(target)
    wire = multiplexed(client, target)
    try:
        yield wire
    finally:
        await wire.close()
        await client.aclose()


async def echo(wire: Multiplexed, number: int) -> int:
    """Asks for two echoes of a number in one batch."""
    first, second = await wire.execute([("ECHO", number), ("ECHO", -number)])
    assert int(first) == -int(second)
    return int(first)


async def connection_id(wire: Multiplexed) -> int:
    """Returns the number that Redis gave the connection."""
    (number,) = await wire.execute([("CLIENT", "ID")])
    return int(number)


def callers(wire: Multiplexed, count: int = CALLERS, first: int = 0) -> list["asyncio.Task[int]"]:
    return [asyncio.create_task(echo(wire, number)) for number in range(first, first + count)]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it is the proxy's thread that makes it true
            await asyncio.sleep(0.005)


async def stalled_callers(wire: Multiplexed, proxy: RedisProxy, count: int = CALLERS) -> list["asyncio.Task[int]"]:
    """Returns callers whose answers the proxy keeps back."""
    await echo(wire, 1)
    proxy.stall()
    waiting = callers(wire, count)
    await until(lambda: proxy.kept_back)
    return waiting


def test_answers_that_come_byte_by_byte_go_to_whom_they_belong(runner: asyncio.Runner, proxy: RedisProxy) -> None:
    async def ask() -> None:
        async with wire_to(proxy.address) as wire:
            await echo(wire, 1)
            proxy.trickle(0.0002)
            assert await asyncio.gather(*callers(wire)) == list(range(CALLERS))

    runner.run(ask())


def test_a_connection_lost_in_the_middle_of_an_answer_costs_no_caller_its_answer(
    runner: asyncio.Runner, proxy: RedisProxy
) -> None:
    async def ask() -> None:
        async with wire_to(proxy.address) as wire:
            for after_bytes in (1, 9, 30):
                before = await connection_id(wire)
                proxy.cut_one_answer(after_bytes)
                assert await asyncio.gather(*callers(wire)) == list(range(CALLERS))
                assert await connection_id(wire) != before

    runner.run(ask())


def test_answers_that_are_always_cut_are_an_error_for_all_and_no_answer_for_anyone(
    runner: asyncio.Runner, proxy: RedisProxy
) -> None:
    async def ask() -> None:
        async with wire_to(proxy.address) as wire:
            await echo(wire, 1)
            proxy.cut_answers(after_bytes=9)
            failures = await asyncio.gather(*callers(wire), return_exceptions=True)
            assert {type(failure) for failure in failures} == {RedisConnectionError}
            proxy.pass_on()
            assert await asyncio.gather(*callers(wire)) == list(range(CALLERS))

    runner.run(ask())


def test_callers_who_give_up_cost_others_nothing_and_their_answers_go_to_nobody(
    runner: asyncio.Runner, proxy: RedisProxy
) -> None:
    async def ask() -> None:
        async with wire_to(proxy.address) as wire:
            before = await connection_id(wire)
            waiting = await stalled_callers(wire, proxy)
            for number in range(0, CALLERS, 3):
                waiting[number].cancel()
            later = callers(wire, first=1_000)
            # They are under way as well before anything is answered.
            await asyncio.sleep(0)
            proxy.pass_on()
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            for number, answer in enumerate(answers):
                assert isinstance(answer, asyncio.CancelledError) if number % 3 == 0 else answer == number
            assert await asyncio.gather(*later) == list(range(1_000, 1_000 + CALLERS))
            assert await connection_id(wire) == before

    runner.run(ask())


def test_a_caller_who_gives_up_while_it_connects_takes_no_connection_from_others(
    runner: asyncio.Runner, proxy: RedisProxy
) -> None:
    async def ask() -> None:
        async with wire_to(proxy.address) as wire:
            proxy.stall()
            first, *others = callers(wire)
            await until(lambda: proxy.kept_back)
            first.cancel()
            await asyncio.wait([first])
            proxy.pass_on()
            assert await asyncio.gather(*others) == list(range(1, CALLERS))

    runner.run(ask())


def test_answers_that_come_too_late_are_an_error_and_are_given_to_nobody(
    runner: asyncio.Runner, proxy: RedisProxy
) -> None:
    async def ask() -> None:
        async with wire_to(proxy.address, seconds=0.5) as wire:
            waiting = await stalled_callers(wire, proxy)
            failures = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(failure) for failure in failures} == {RedisTimeoutError}
            assert proxy.kept_back
            # Others wait already when the late answers come.
            others = callers(wire, first=1_000)
            await asyncio.sleep(0)
            proxy.pass_on()
            assert await asyncio.gather(*others) == list(range(1_000, 1_000 + CALLERS))

    runner.run(ask())


def test_one_callers_error_is_nobody_elses(runner: asyncio.Runner, proxy: RedisProxy, tcp_server: RedisServer) -> None:
    tcp_server.client().set("text", "no hash")

    async def ask() -> None:
        async with wire_to(proxy.address) as wire:
            before = await connection_id(wire)
            wrong: list[Any] = [
                wire.execute([("ECHO", 1), ("HGET", "text", "field"), ("ECHO", 2)]),
                wire.execute([("EVALSHA", "0" * 40, 0)]),
                wire.execute([("NO-SUCH-COMMAND",)]),
            ]
            others = callers(wire)
            failures = await asyncio.gather(*wrong, return_exceptions=True)
            assert [type(failure) for failure in failures] == [ResponseError, NoScriptError, ResponseError]
            assert "WRONGTYPE" in str(failures[0])
            assert await asyncio.gather(*others, *callers(wire)) == [*range(CALLERS)] * 2
            assert await connection_id(wire) == before

    runner.run(ask())


def test_as_many_may_wait_as_the_bound_says_and_one_more_is_refused_at_once(
    runner: asyncio.Runner, proxy: RedisProxy
) -> None:
    async def ask() -> None:
        async with wire_to(proxy.address, seconds=60) as wire:
            waiting = await stalled_callers(wire, proxy, REDIS_BATCHES_MAX)
            with pytest.raises(OnlineStoreUnavailable, match=f"{REDIS_BATCHES_MAX} batches already wait"):
                await echo(wire, 7)
            proxy.pass_on()
            assert await asyncio.gather(*waiting) == list(range(REDIS_BATCHES_MAX))
            assert await echo(wire, 7) == 7

    runner.run(ask())


def test_a_connection_that_redis_has_closed_is_made_anew_and_shared_again(
    runner: asyncio.Runner, tcp_server: RedisServer
) -> None:
    async def ask() -> None:
        async with wire_to(tcp_server.address) as wire:
            before = await connection_id(wire)
            with tcp_server.client() as other:
                connected = other.info("clients")["connected_clients"]
                other.execute_command("CLIENT", "KILL", "ID", before)
                assert await asyncio.gather(*callers(wire)) == list(range(CALLERS))
                assert other.info("clients")["connected_clients"] == connected
            assert await connection_id(wire) != before

    runner.run(ask())


@pytest.mark.parametrize("stage", ["under way", "connecting", "about to connect"])
def test_closing_ends_whoever_waits_with_an_error_and_leaves_no_connection(
    runner: asyncio.Runner, proxy: RedisProxy, tcp_server: RedisServer, stage: str
) -> None:
    async def ask(wire: Multiplexed) -> None:
        if stage == "under way":
            waiting = await stalled_callers(wire, proxy)
        else:
            proxy.stall()
            waiting = callers(wire)
            await (until(lambda: proxy.kept_back) if stage == "connecting" else asyncio.sleep(0))
        await wire.close()
        failures = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(failure) for failure in failures} == {RedisConnectionError}
        proxy.pass_on()
        with pytest.raises(RedisConnectionError, match="closed"):
            await echo(wire, 1)

    async def close_meanwhile() -> None:
        async with wire_to(proxy.address) as wire:
            await ask(wire)

    with tcp_server.client() as other:
        runner.run(close_meanwhile())
        poll_until(lambda: len(other.client_list()) == 1, what="only the test's own connection is left")
