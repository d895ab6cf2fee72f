"""What is written in one turn of the event loop leaves at once, in order, and nothing of it is lost."""

import asyncio
from collections.abc import Callable, Iterable

import pytest

from server.joined_writes import JoinedWrites


class Recorder(asyncio.Transport):
    """A transport that notes what is done to it, call by call."""

    def __init__(self) -> None:
        super().__init__({"peername": "somebody"})
        self.calls: list[object] = []

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.calls.append(b"".join(list_of_data))

    def write_eof(self) -> None:
        self.calls.append("eof")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls


async def after(*steps: Callable[[JoinedWrites], None]) -> list[object]:
    """Returns what a transport is told by steps of one turn, once the turn has ended."""
    recorder = Recorder()
    joined = JoinedWrites(recorder, asyncio.get_running_loop())
    assert joined.get_extra_info("peername") == "somebody"
    for step in steps:
        step(joined)
    await asyncio.sleep(0)
    return recorder.calls


def write(data: bytes) -> Callable[[JoinedWrites], None]:
    return lambda joined: joined.write(data)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([write(b"head"), write(b"body")], [b"headbody"]),
        ([write(b"head"), write(b"body"), JoinedWrites.flush, write(b"more")], [b"headbody", b"more"]),
        ([JoinedWrites.flush], []),
        ([write(b"last"), JoinedWrites.close], [b"last", "close"]),
        ([write(b"last"), JoinedWrites.write_eof], [b"last", "eof"]),
        ([write(b"lost"), JoinedWrites.abort], ["abort"]),
        ([JoinedWrites.close, write(b"too late")], ["close"]),
    ],
)
def test_writes_of_one_turn(steps: list[Callable[[JoinedWrites], None]], expected: list[object]) -> None:
    assert asyncio.run(after(*steps)) == expected


def test_the_next_turn_writes_anew() -> None:
    async def two_turns() -> list[object]:
        recorder = Recorder()
        joined = JoinedWrites(recorder, asyncio.get_running_loop())
        joined.write(b"one")
        await asyncio.sleep(0)
        joined.write(b"two")
        await asyncio.sleep(0)
        return recorder.calls

    assert asyncio.run(two_turns()) == [b"one", b"two"]
