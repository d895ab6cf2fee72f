"""Connections with bounds that uvicorn does not have: on heads, their time, unread answers, and how many there are."""

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from server.guards import BODY_STATE, BodyState
from server.joined_writes import JoinedWrites
from server.limits import (
    ANSWER_BYTES_PER_SECOND_MIN,
    ANSWER_STALL_SECONDS,
    BUSY_RETRY_SECONDS,
    CONNECTIONS_MAX,
    HEAD_BYTES_MAX,
    HEAD_SECONDS_MAX,
    REFUSED_LINGER_SECONDS,
    URL_BYTES_MAX,
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1, refusing in our one form what has no end: endless heads, slow heads, ever more connections.

    A head is what stands before the body: request line and headers. Its bytes are counted as they come, since the
    parser keeps all of an unfinished line.
    """

    head_seconds_max = HEAD_SECONDS_MAX
    connections_max = CONNECTIONS_MAX
    stall_seconds_max = ANSWER_STALL_SECONDS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.url = b""
        self._body = BodyState()
        self._is_in_head = True
        self._is_refused = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None

    # --- the connection -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a connection, unless there are as many as one worker keeps."""
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
        if len(self.connections) > self.connections_max:
            detail = f"{self.connections_max} connections are open, which is all that one worker keeps; try again"
            self._refuse(503, detail, f"retry-after: {BUSY_RETRY_SECONDS}\r\n")
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._stop_timer()
        self._stop_answer_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes bytes of a request; of a refused one they are thrown away."""
        if self._is_refused:
            return
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes and not self._is_refused:
            # Also lines without anything in them, which begin no request, may not go on for ever.
            self._await_head()
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse_head()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP; uvicorn has a word for it."""
        self._refuse(400, f"{msg} Send HTTP/1.1 as RFC 9112 has it")

    def pause_writing(self) -> None:
        """Waits for a client to read its answer, but not for ever: until then the answer lies in memory."""
        super().pause_writing()
        seconds = self.stall_seconds_max + self.transport.get_write_buffer_size() / ANSWER_BYTES_PER_SECOND_MIN
        self._stop_answer_timer()
        self._answer_timer = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Goes on once the client has read."""
        self._stop_answer_timer()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Sends an answer that is whole, at once if no other request is under way."""
        if len(self.tasks) == 1:
            joined: Any = self.transport
            joined.flush()
        super().on_response_complete()

    # --- the parser's callbacks ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begins a head."""
        super().on_message_begin()
        self._is_in_head = True

    def on_headers_complete(self) -> None:
        """Ends a head: begins the request, or refuses it."""
        head_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if self._is_refused:
            return
        if head_bytes > HEAD_BYTES_MAX or len(self.url) > URL_BYTES_MAX:
            self._refuse_head()
            return
        self._is_in_head, self._head_bytes = False, 0
        self._stop_timer()
        super().on_headers_complete()
        # Not the cycle itself, which holds the scope: such a ring would be left to the garbage collector.
        self._body = BodyState()
        extensions: Any = {BODY_STATE: self._body}
        self.scope["extensions"] = extensions

    def on_body(self, body: bytes) -> None:
        """Takes bytes of a body."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Ends a request; what comes next is a head."""
        if not self._is_refused:
            super().on_message_complete()
            self._body.is_whole = True
            self._is_in_head = True

    # --- refusing -----------------------------------------------------------------------------

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds_max, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_answer_timer(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if not self._head_bytes:
            self.transport.close()
            return
        self._refuse(408, f"request head: not whole after {self.head_seconds_max:g} seconds; send it faster")

    def _refuse_head(self) -> None:
        if len(self.url) > URL_BYTES_MAX:
            self._refuse(414, f"request URL: more than {URL_BYTES_MAX} bytes; send what is long in the body")
        else:
            self._refuse(431, f"request head: more than {HEAD_BYTES_MAX} bytes; send fewer or shorter headers")

    def _refuse(self, status: int, detail: str, headers: str = "") -> None:
        """Answers and ends the connection; what still comes is read for a moment, so that the answer arrives."""
        self._is_refused = True
        self._stop_timer()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            # The answer to the request before is under way, and nothing may be put into its middle.
            self.transport.close()
            return
        body = msgspec.json.encode({"detail": detail})
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{headers}\r\n"
        self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self._unset_keepalive_if_required()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(REFUSED_LINGER_SECONDS, self.transport.close)
