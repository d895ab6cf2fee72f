"""The process that makes pages: one request after the other, until the worker is gone."""

import socket
import time
import traceback
from pathlib import Path

import msgspec

from server.errors import status_of
from server.pages.messages import PageAnswer, PageRequest
from server.pages.site import Site
from server.retrieval.messages import MESSAGE_BYTES_MAX, Kind, pieces, say
from store.errors import LarderError
from store.limits import REGISTRY_REFRESH_SECONDS
from store.service import StoreService


def serve(connection: socket.socket, repo_path: Path) -> None:
    """Answers requests for pages that come by a socket, until its other end is closed."""
    maker = PageMaker(repo_path)
    while (request := _received(connection)) is not None:
        answer = maker.answer(msgspec.msgpack.decode(request, type=PageRequest))
        try:
            for piece in pieces(msgspec.msgpack.encode(answer)):
                say(connection, Kind.CHUNK, piece)
            say(connection, Kind.END)
        except ConnectionError:
            return
        maker.warm()


def _received(connection: socket.socket) -> bytes | None:
    content = bytearray()
    while True:
        try:
            message = connection.recv(MESSAGE_BYTES_MAX)
        except ConnectionError:
            return None
        if not message:
            return None
        if message[0] == Kind.END:
            return bytes(content)
        content += message[1:]


class PageMaker:
    """A repo's site with a store of its own, whose registry is looked after between requests."""

    def __init__(self, repo_path: Path) -> None:
        self._service = StoreService.open(repo_path)
        self._site = Site(self._service)
        self._refreshed = time.monotonic()
        self._is_warm = False

    def answer(self, request: PageRequest) -> PageAnswer:
        """Returns the answer to a request; what nobody foresaw is told in the log and is a page, too."""
        try:
            self._refresh()
            return self._site.answer(request)
        except LarderError as error:
            return self._site.refusal(request, status_of(error), str(error))
        except Exception as error:  # noqa: BLE001 - the edge of a process: told, and answered
            traceback.print_exc()
            detail = f"internal error {type(error).__name__}; the server's log has more"
            return self._site.refusal(request, 500, detail)

    def warm(self) -> None:
        """Loads what draws charts, once a first page was answered: the next one most likely wants one."""
        if not self._is_warm:
            self._is_warm = True
            self._site.warm()

    def _refresh(self) -> None:
        is_due = time.monotonic() - self._refreshed >= REGISTRY_REFRESH_SECONDS
        if is_due or self._service.is_registry_quick:
            self._service.refresh_registry()
            self._refreshed = time.monotonic()
