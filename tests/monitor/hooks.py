"""A webhook that takes, refuses, breaks off, hangs or babbles as a test wants it: a real server on a free port."""

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class Hook:
    """What is answered to each connection in turn, the last of them again and again; and what was posted.

    An answer is bytes to send, after which the connection is closed; HANG sends nothing and keeps it open; ENDLESS
    never stops sending a body, and DRIP never ends the head.
    """

    HANG = b"hang"
    ENDLESS = b"endless"
    DRIP = b"drip"

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = list(answers)
        self.posted: list[tuple[str, dict[str, str], Any]] = []
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/T0/s3cr3t"
        self._threads = [threading.Thread(target=self._listen)]
        self._threads[0].start()

    def stop(self) -> None:
        self._stopped.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _listen(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._stopped.is_set():
                connection.close()
                return
            answer = self._answers[min(len(self._threads) - 1, len(self._answers) - 1)]
            thread = threading.Thread(target=self._answer, args=(connection, answer))
            self._threads.append(thread)
            thread.start()

    def _answer(self, connection: socket.socket, answer: bytes) -> None:
        with connection:
            self.posted.append(_read(connection))
            try:
                if answer == self.ENDLESS:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    while True:
                        connection.sendall(b"x" * 65_536)
                if answer == self.DRIP:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n")
                    while not self._stopped.wait(0.02):
                        connection.sendall(b"X: y\r\n")
                if answer == self.HANG:
                    connection.recv(1)  # until the other end goes away
                    return
                connection.sendall(answer)
            except OSError:
                return  # The other end has hung up, as it should.


def _read(connection: socket.socket) -> tuple[str, dict[str, str], Any]:
    content = b""
    while b"\r\n\r\n" not in content:
        content += connection.recv(65_536)
    head, _, body = content.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65_536)
    return first, headers, json.loads(body)


@contextmanager
def hook(*answers: bytes) -> Iterator[Hook]:
    """Runs a webhook that answers so."""
    running = Hook(answers)
    try:
        yield running
    finally:
        running.stop()


def status(code: int, more: str = "") -> bytes:
    """Returns an answer with a status and no body."""
    return f"HTTP/1.1 {code} X\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
