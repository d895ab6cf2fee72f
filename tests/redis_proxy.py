"""A TCP proxy of ours in front of a Redis: it passes bytes on, or stalls, trickles, cuts and resets as a test says."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CHUNK_BYTES = 65_536


class RedisProxy:
    """Passes connections on to a Redis; what it does to the answers can be changed at any moment, from any thread."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.port = 0
        self.kept_back = 0
        """Answers that have come and wait for `pass_on`."""
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cut_after: int | None = None
        self._is_cut_once = False
        self._byte_seconds = 0.0
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def address(self) -> str:
        """What a connection string says of it."""
        return f"127.0.0.1:{self.port}"

    # --- what a test says ---------------------------------------------------------------------

    def stall(self) -> None:
        """Takes connections and requests, and keeps every answer back until `pass_on` delivers it, late."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def cut_answers(self, after_bytes: int) -> None:
        """Passes that much of an answer on, then resets the connection."""
        self._is_cut_once, self._cut_after = False, after_bytes

    def cut_one_answer(self, after_bytes: int) -> None:
        """Does so with the next answer only."""
        self._is_cut_once, self._cut_after = True, after_bytes

    def trickle(self, byte_seconds: float) -> None:
        """Passes answers on byte by byte, with a wait after each."""
        self._byte_seconds = byte_seconds

    def pass_on(self) -> None:
        """Passes everything on again, first what was kept back."""
        self._cut_after, self._byte_seconds = None, 0.0
        self._loop.call_soon_threadsafe(self._flowing.set)

    def reset_all(self) -> None:
        """Resets all connections."""
        for writer in list(self._open):
            self._loop.call_soon_threadsafe(_reset, writer)

    # --- its life -----------------------------------------------------------------------------

    def run(self, started: threading.Event) -> None:
        """Serves until `stop`."""

        async def serve() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            self._stopped = asyncio.Event()
            started.set()
            await self._stopped.wait()
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        with contextlib.closing(self._loop):
            self._loop.run_until_complete(serve())

    def stop(self) -> None:
        """Ends the proxy and its connections."""
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        except OSError:
            _reset(writer)
        else:
            requests = asyncio.create_task(self._requests(reader, upstream_writer))
            try:
                await self._answers(upstream_reader, writer)
            except OSError:
                _reset(writer)
            finally:
                requests.cancel()
                upstream_writer.transport.abort()
        finally:
            writer.close()
            self._open.discard(writer)
            self._tasks.discard(task)

    async def _requests(self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                upstream.write(chunk)
                await upstream.drain()
        # With the caller gone the Redis' answers have no use, and its end ends the other direction.
        upstream.close()

    async def _answers(self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await upstream.read(_CHUNK_BYTES):
            self.kept_back += 1
            await self._flowing.wait()
            self.kept_back -= 1
            if self._cut_after is not None:
                writer.write(chunk[: self._cut_after])
                if self._is_cut_once:
                    self._cut_after = None
                await writer.drain()
                _reset(writer)
                return
            # A piece at a time only while it is to trickle: what is left goes on at once when the proxy is told so.
            while self._byte_seconds and chunk:
                writer.write(chunk[:1])
                chunk = chunk[1:]
                await writer.drain()
                await asyncio.sleep(self._byte_seconds)
            writer.write(chunk)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with a reset, as a peer that crashed does, instead of an orderly end."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def redis_proxy(upstream_port: int) -> Iterator[RedisProxy]:
    """Runs a proxy to a port of 127.0.0.1, on a free port of its own."""
    proxy = RedisProxy(upstream_port)
    started = threading.Event()
    thread = threading.Thread(target=proxy.run, args=(started,))
    thread.start()
    try:
        assert started.wait(10)
        yield proxy
    finally:
        proxy.stop()
        thread.join(10)
    assert not thread.is_alive()
