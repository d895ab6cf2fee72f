"""Connections against uvicorn itself: heads without end, slow heads, too many connections, and the end of the grace."""

import asyncio
import contextlib
import gc
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from server import connections
from server.connections import BoundedHttpProtocol
from server.limits import HEAD_BYTES_MAX, URL_BYTES_MAX
from server.metrics import Metrics
from server.observe import Observe
from server.run import bound_socket
from tests.redis_servers import poll_until
from tests.server.live import LiveServer


class Hasty(BoundedHttpProtocol):
    head_seconds_max = 0.3
    connections_max = 3
    stall_seconds_max = 0.3


LARGE_BYTES = 20 * 1024 * 1024


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once; at /slow never, at /half never the second half, at /large with more than buffers hold."""
    assert scope["type"] == "http"
    if scope["path"] == "/slow":
        await asyncio.Event().wait()
    if scope["path"] == "/large":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * LARGE_BYTES})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"o", "more_body": True})
    if scope["path"] == "/half":
        await asyncio.Event().wait()
    await send({"type": "http.response.body", "body": b"k"})


@dataclass
class Running:
    server: uvicorn.Server
    address: tuple[str, int]

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=30)


@contextmanager
def running(protocol: type[BoundedHttpProtocol] = Hasty) -> Iterator[Running]:
    """Runs uvicorn in a thread, with our layer for what nobody foresaw around a small application."""
    listener = bound_socket("127.0.0.1", 0)
    config = uvicorn.Config(
        Observe(app, Metrics()), http=protocol, lifespan="off", log_config=None, timeout_graceful_shutdown=1, ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        poll_until(lambda: server.started)
        yield Running(server, listener.getsockname())
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
    assert not thread.is_alive()


def answer_on(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Returns status, headers and body of what comes until the server ends the connection; 0 for nothing."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        got = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = got.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return (int(first.split()[1]) if first else 0), headers, body


def refused(connection: socket.socket) -> tuple[int, str]:
    status, headers, body = answer_on(connection)
    assert headers["content-type"] == "application/json"
    assert headers["connection"] == "close"
    return status, json.loads(body)["detail"]


def asked(live: LiveServer, content: bytes) -> tuple[int, dict[str, str], bytes]:
    host, _, port = live.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(content)
        return answer_on(connection)


def get(path: bytes = b"/health", *headers: bytes) -> bytes:
    return b"\r\n".join([b"GET " + path + b" HTTP/1.1", b"Host: localhost", b"Connection: close", *headers, b"", b""])


def test_a_head_up_to_its_bound_is_taken(server: LiveServer) -> None:
    room = HEAD_BYTES_MAX - len(get(b"/health")) - 100
    assert asked(server, get(b"/health", b"x: " + b"y" * room))[0] == 200
    assert asked(server, get(b"/docs-assets/" + b"y" * (URL_BYTES_MAX - 100)))[0] == 404


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (get(b"/health", b"x: " + b"y" * HEAD_BYTES_MAX), 431),
        (get(b"/health", *[b"x: y" * 10] * (HEAD_BYTES_MAX // 20)), 431),
        (b"GET /health HTTP/1.1\r\nx: " + b"y" * 2 * HEAD_BYTES_MAX, 431),
        (b"GET /health HTTP/1.1\r\n" + b"y" * 2 * HEAD_BYTES_MAX, 431),
        (get(b"/health?" + b"y" * URL_BYTES_MAX), 414),
        (get(b"/" + b"y" * 10 * URL_BYTES_MAX), 414),
        (b"hello\r\n\r\n", 400),
        (b"\xff" * 100, 400),
    ],
    ids=["header", "headers", "unfinished", "unnamed", "query", "path", "words", "bytes"],
)
def test_a_head_beyond_its_bound_or_none_at_all_is_refused_in_the_one_form(
    server: LiveServer, content: bytes, status: int
) -> None:
    found, headers, body = asked(server, content)
    assert (found, headers["content-type"]) == (status, "application/json")
    assert list(json.loads(body)) == ["detail"]


def test_lines_without_anything_in_them_have_an_end(server: LiveServer) -> None:
    assert asked(server, b"\r\n" * HEAD_BYTES_MAX)[0] == 431


def test_a_head_that_is_not_whole_in_time_is_refused() -> None:
    with running() as it, it.connect() as slow, it.connect() as silent:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: local")
        assert refused(slow)[0] == 408
        # Who says nothing at all is told nothing.
        assert answer_on(silent)[0] == 0


def test_a_second_head_on_the_same_connection_has_to_be_whole_in_time_too() -> None:
    with running() as it, it.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        first = connection.recv(65_536)
        assert first.startswith(b"HTTP/1.1 200")
        connection.sendall(b"\r\n")
        assert refused(connection)[0] == 408


def test_a_head_in_time_is_answered_however_long_the_answer_takes() -> None:
    with running() as it, it.connect() as connection:
        connection.sendall(b"GET /half HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got = b""
        while not got.endswith(b"o"):
            got += connection.recv(65_536)
        with it.connect() as late:
            late.sendall(b"GET / HTTP/1.1\r\n")
            assert refused(late)[0] == 408
        connection.setblocking(False)
        # Were the connection cut, this would be the end of it.
        with pytest.raises(BlockingIOError):
            connection.recv(1)


def test_an_answer_that_nobody_reads_is_given_up_and_others_are_answered_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "ANSWER_BYTES_PER_SECOND_MIN", LARGE_BYTES)
    with running() as it, it.connect() as unread:
        unread.sendall(get(b"/large"))
        poll_until(lambda: it.server.server_state.connections)
        with it.connect() as other:
            other.sendall(get())
            assert answer_on(other)[0] == 200
        poll_until(lambda: not it.server.server_state.connections, what="the unread answer is given up")
        assert not it.server.server_state.tasks
        # What the kernel still had is not the whole of it.
        assert len(answer_on(unread)[2]) < LARGE_BYTES


def test_an_answer_that_is_read_comes_whole() -> None:
    with running() as it, it.connect() as reader:
        reader.sendall(get(b"/large"))
        got = sum(iter(lambda: len(reader.recv(1024 * 1024)), 0))
        assert got > LARGE_BYTES


def test_connections_beyond_the_bound_are_refused_and_come_again_later() -> None:
    class Few(BoundedHttpProtocol):
        connections_max = 3

    with running(Few) as it:
        held = [it.connect() for _ in range(3)]
        poll_until(lambda: len(it.server.server_state.connections) == 3)
        with it.connect() as beyond:
            status, headers, body = answer_on(beyond)
        assert (status, headers["retry-after"]) == (503, "5")
        assert "3 connections" in json.loads(body)["detail"]
        for connection in held:
            connection.close()
        poll_until(lambda: not it.server.server_state.connections)
        with it.connect() as again:
            again.sendall(get())
            assert answer_on(again)[0] == 200


def test_a_request_that_outlasts_the_grace_is_told_to_come_again(caplog: pytest.LogCaptureFixture) -> None:
    with running(BoundedHttpProtocol) as it, it.connect() as slow, it.connect() as half:
        slow.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        half.sendall(b"GET /half HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert half.recv(15) == b"HTTP/1.1 200 OK"
        poll_until(lambda: len(it.server.server_state.tasks) == 2)
        it.server.should_exit = True
        status, headers, body = answer_on(slow)
        assert (status, headers["retry-after"]) == (503, "1")
        assert "stopping" in json.loads(body)["detail"]
        assert not answer_on(half)[2].endswith(b"ok")
    assert not [record for record in caplog.records if record.exc_info]


def test_a_request_leaves_nothing_for_the_garbage_collector() -> None:
    """Rings of objects made the collector stop a busy worker for milliseconds, several times a second."""
    with running(BoundedHttpProtocol) as server, server.connect() as connection:
        gc.collect()
        gc.disable()
        try:
            for _ in range(30):
                connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi")
                received = b""
                while not received.endswith(b"ok"):
                    received += connection.recv(4096)
            left = sum(type(each) is RequestResponseCycle for each in gc.get_objects())
        finally:
            gc.enable()
    assert left <= 2, "the last request's, and the one before it"
