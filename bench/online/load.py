"""The client, in a process of its own: `python -m bench.online.load` reads a job as JSON and prints what it measured.

Each of so many connections sends a request, waits for the whole answer, and sends the next one. Nothing is parsed
but where an answer ends, so that about 40,000 requests a second are possible and the client is not what is measured.
"""

import asyncio
import base64
import gc
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import cast

import hiredis
import uvloop

GRACE_SECONDS = 60.0
"""For the last answer: a worker of Feast's that restarts takes some seconds."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to send, to whom, and for how long.

    Args:
        requests: whole requests in base64, sent in turns; a Redis request has `replies` replies.
        replies: 0 for HTTP.
    """

    port: int
    requests: tuple[str, ...]
    clients: int
    seconds: float
    replies: int = 0

    def to_json(self) -> str:
        """Returns the job as one line."""
        return json.dumps(asdict(self))


class Connection(asyncio.Protocol):
    """One connection that always has one request under way; a server that hangs up is connected anew."""

    def __init__(self, job: Job, requests: list[bytes], number: int) -> None:
        self._job = job
        self._requests = requests
        self._next = number * len(requests) // job.clients
        self._buffer = b""
        self._reader = hiredis.Reader() if job.replies else None
        self._replies_left = 0
        self._sent = 0.0
        self._end = 0.0
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies_us: list[int] = []
        self.failure = ""

    async def connect(self) -> None:
        """Connects."""
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._job.port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection."""
        self._transport = cast("asyncio.Transport", transport)

    def begin(self, end: float) -> None:
        """Sends the first request; the last one is begun before `end`."""
        self._end = end
        self._sent = time.perf_counter()
        self._send()

    def _send(self) -> None:
        self._buffer, self._replies_left = b"", self._job.replies
        assert self._transport is not None
        self._transport.write(self._requests[self._next])

    def data_received(self, data: bytes) -> None:
        """Takes a part of an answer; when it is whole, sends the next request."""
        if not self._is_whole(data):
            return
        now = time.perf_counter()
        self.latencies_us.append(round((now - self._sent) * 1e6))
        if now < self._end and not self.failure:
            self._next = (self._next + 1) % len(self._requests)
            self._sent = time.perf_counter()
            self._send()
        elif not self.done.done():
            self.done.set_result(None)

    def _is_whole(self, data: bytes) -> bool:
        if self._reader is not None:
            self._reader.feed(data)
            while self._replies_left and (reply := self._reader.gets()) is not False:
                self._replies_left -= 1
                # The last reply is about generations, of which a view may not have one yet.
                if isinstance(reply, Exception) or (self._replies_left and None in reply):
                    self.failure = f"Redis answered {reply!r}"
            return not self._replies_left
        self._buffer = self._buffer + data if self._buffer else data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return False
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            self.failure = f"answered {self._buffer[:300]!r}"
        start = self._buffer.lower().find(b"content-length:", 0, head_end)
        length = int(self._buffer[start + 15 : self._buffer.index(b"\r\n", start)]) if start >= 0 else 0
        return len(self._buffer) >= head_end + 4 + length

    def connection_lost(self, exc: Exception | None) -> None:
        """Connects anew and sends the request again, as after the restart of a worker; the wait counts."""
        del exc
        if not self.done.done():
            self._connecting = asyncio.get_running_loop().create_task(self._go_on())

    async def _go_on(self) -> None:
        await self.connect()
        self._send()

    def close(self) -> None:
        """Hangs up."""
        assert self._transport is not None
        self._transport.close()


async def run(job: Job) -> dict[str, object]:
    """Returns all latencies and how long it took."""
    requests = [base64.b64decode(request) for request in job.requests]
    connections = [Connection(job, requests, number) for number in range(job.clients)]
    for connection in connections:
        await connection.connect()
    started = time.perf_counter()
    for connection in connections:
        connection.begin(started + job.seconds)
    async with asyncio.timeout(job.seconds + GRACE_SECONDS):
        for connection in connections:
            await connection.done
    seconds = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return {
        "seconds": seconds,
        "latencies_us": [latency for connection in connections for latency in connection.latencies_us],
        "failures": [connection.failure for connection in connections if connection.failure],
    }


def main() -> None:
    """Serves the parent's one job."""
    values = json.loads(sys.stdin.readline())
    job = Job(**{**values, "requests": tuple(values["requests"])})
    gc.disable()
    print(json.dumps(uvloop.run(run(job))), flush=True)


if __name__ == "__main__":
    main()
