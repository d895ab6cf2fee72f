"""The worker's side of the page process, with a real socket and a process's side that is told what to do."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest
from starlette.exceptions import HTTPException

from server.pages.client import PageProcess
from server.pages.messages import PageAnswer, PageRequest
from server.retrieval.messages import MESSAGE_BYTES_MAX, Kind, pieces, say

pytestmark = pytest.mark.anyio
Behaviour = Callable[[socket.socket, PageRequest], bool]


def received(connection: socket.socket) -> PageRequest | None:
    content = b""
    while message := connection.recv(MESSAGE_BYTES_MAX):
        if message[0] == Kind.END:
            return msgspec.msgpack.decode(content, type=PageRequest)
        content += message[1:]
    return None


def answers(connection: socket.socket, request: PageRequest) -> bool:
    answer = PageAnswer(200, "text/html", request.query["text"].encode())
    for piece in pieces(msgspec.msgpack.encode(answer)):
        say(connection, Kind.CHUNK, piece)
    say(connection, Kind.END)
    return True


@contextmanager
def processes(*behaviours: Behaviour) -> Iterator[tuple[Callable[[], socket.socket], list[threading.Thread]]]:
    """Gives what begins processes: each one behaves as the next of those told, the last ones like the last."""
    threads: list[threading.Thread] = []

    def begin() -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        behaviour = behaviours[min(len(threads), len(behaviours) - 1)]

        def run() -> None:
            with theirs:
                while (request := received(theirs)) is not None and behaviour(theirs, request):
                    pass

        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
        return ours

    yield begin, threads
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "a process outlives its socket"


def asked(text: str) -> PageRequest:
    return PageRequest("", {"text": text})


async def test_pages_of_any_size_come_whole_and_in_their_order() -> None:
    with processes(answers) as (begin, begun):
        client = PageProcess(begin)
        texts = ["", "a", "é" * 300_000, "z" * MESSAGE_BYTES_MAX]
        found = await asyncio.gather(*(client.ask(asked(text)) for text in texts))
        assert [each.content.decode() for each in found] == texts
        assert len(begun) == 1
        client.close()


async def test_a_process_that_went_between_two_pages_is_begun_anew() -> None:
    def once(connection: socket.socket, request: PageRequest) -> bool:
        return not answers(connection, request)

    with processes(once, answers) as (begin, begun):
        client = PageProcess(begin)
        assert (await client.ask(asked("a"))).content == b"a"
        begun[0].join(10)
        assert (await client.ask(asked("b"))).content == b"b"
        assert len(begun) == 2
        client.close()


async def test_a_process_that_ends_over_a_page_again_and_again_is_an_error() -> None:
    with processes(lambda *_: False) as (begin, begun):
        client = PageProcess(begin)
        with pytest.raises(HTTPException, match="the process that makes pages ended") as refused:
            await client.ask(asked("a"))
        assert refused.value.status_code == 503
        assert "Retry-After" in refused.value.headers
        assert len(begun) == 1
        client.close()


async def test_half_an_answer_is_none() -> None:
    def half(connection: socket.socket, _request: PageRequest) -> bool:
        say(connection, Kind.CHUNK, b"half")
        return False

    with processes(half) as (begin, _):
        client = PageProcess(begin)
        with pytest.raises(HTTPException, match="ended"):
            await client.ask(asked("a"))
        client.close()


async def test_a_page_that_takes_too_long_ends_its_process() -> None:
    def never(connection: socket.socket, _request: PageRequest) -> bool:
        return bool(connection.recv(1))

    with processes(never, answers) as (begin, begun):
        client = PageProcess(begin, seconds_max=0.05)
        with pytest.raises(HTTPException, match=r"within 0\.05 seconds"):
            await client.ask(asked("a"))
        begun[0].join(10)
        assert not begun[0].is_alive()
        assert (await client.ask(asked("b"))).content == b"b"
        client.close()


async def test_a_reader_that_goes_away_leaves_no_answer_for_the_next() -> None:
    reached, held = threading.Event(), threading.Event()

    def waits(connection: socket.socket, _request: PageRequest) -> bool:
        reached.set()
        held.wait(10)
        with contextlib.suppress(OSError):
            say(connection, Kind.CHUNK, b"x")
        return False

    with processes(waits, answers) as (begin, begun):
        client = PageProcess(begin)
        task = asyncio.create_task(client.ask(asked("a")))
        assert await asyncio.to_thread(reached.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.set()
        assert (await client.ask(asked("b"))).content == b"b"
        assert len(begun) == 2
        client.close()


@pytest.mark.parametrize("waiting_max", [0, 1, 2])
async def test_who_finds_no_place_to_wait_is_told(waiting_max: int) -> None:
    held = threading.Event()

    def waits(connection: socket.socket, request: PageRequest) -> bool:
        return held.wait(10) and answers(connection, request)

    with processes(waits) as (begin, _):
        client = PageProcess(begin, waiting_max=waiting_max)
        tasks = [asyncio.create_task(client.ask(asked("a"))) for _ in range(3)]
        # All have begun, and those that are refused are so at once.
        await asyncio.sleep(0)
        held.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(each, PageAnswer) for each in found) == waiting_max
        assert all(each.status_code == 503 for each in found if isinstance(each, HTTPException))
        client.close()


async def test_a_process_that_nobody_asks_is_ended() -> None:
    with processes(answers) as (begin, begun):
        client = PageProcess(begin, idle_seconds=0.01)
        await client.ask(asked("a"))
        # The end of the socket is what ends the process.
        await asyncio.to_thread(begun[0].join, 10)
        assert not client.is_running
        assert (await client.ask(asked("b"))).content == b"b"
        client.close()
