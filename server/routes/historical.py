"""`POST /get-historical-features`: training sets over HTTP, each made in a process of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from server.limits import ANSWER_BYTES_PER_SECOND_MIN, ANSWER_STALL_SECONDS
from server.openapi import flag, json_answer, json_body
from server.policy import ARROW_STREAM, CSV, JSON, PARQUET
from server.retrieval.client import Retrieval, RetrievalFailed
from server.retrieval.messages import Order
from server.schemas import HistoricalBody, check_selection
from server.state import state_of
from server.tables import FORMATS, Format, negotiate
from store.errors import BadBody
from store.limits import LOOKUP_FEATURES_MAX

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

router = APIRouter(tags=["historical"])
_BINARY = {"type": "string", "format": "binary"}
_TABLE_BODY = "With an Arrow or Parquet body"
_DESCRIPTION = {
    "requestBody": {
        "required": True,
        "content": {
            **json_body(HistoricalBody)["requestBody"]["content"],
            ARROW_STREAM: {"schema": _BINARY},
            PARQUET: {"schema": _BINARY},
        },
    },
    "parameters": [
        {
            "name": "features",
            "in": "query",
            "description": f"{_TABLE_BODY}: `view:feature`, repeated.",
            "schema": {"type": "array", "items": {"type": "string"}},
        },
        {
            "name": "feature_service",
            "in": "query",
            "description": f"{_TABLE_BODY}: the service instead of features.",
            "schema": {"type": "string"},
        },
        flag("full_feature_names", f"{_TABLE_BODY}: name columns `view__feature`."),
        flag("filter_by_created_timestamp", f"{_TABLE_BODY}: only what was known at each row's time."),
    ],
}
_ANSWER = json_answer("The entity rows in their order with the features joined: all columns by name.")
_ANSWER["content"].update({ARROW_STREAM: {"schema": _BINARY}, PARQUET: {"schema": _BINARY}})
_ANSWER["content"][CSV] = {"schema": {"type": "string"}}


@router.post("/get-historical-features", openapi_extra=_DESCRIPTION, responses={200: _ANSWER})
async def get_historical_features(request: Request) -> Response:
    """Joins features to entity rows as they were at each row's event timestamp; answers by `Accept`."""
    form = negotiate(request.headers.get("accept"))
    if form is None:
        known = ", ".join(known.media_type for known in FORMATS)
        raise HTTPException(406, f"Accept {request.headers['accept']!r} takes none of the forms offered: {known}")
    order = _order_of(request, form)
    retrievals = state_of(request).retrievals
    retrievals.refuse_if_full()
    # A body is read without a place, so that slow senders keep nobody from computing.
    body = await retrievals.spool.receive(request.stream())
    try:
        retrieval = retrievals.begin(order, body)
    finally:
        body.close()
    try:
        # What goes wrong before the first chunk can still be a refusal.
        first = await _unless_gone(request, retrieval.next_chunk())
    except BaseException:
        retrieval.close()
        raise
    return _Relay(retrieval, first or b"", form.content_type)


def _order_of(request: Request, form: Format) -> Order:
    content_type = request.headers["content-type"].partition(";")[0].strip().lower()
    query = request.query_params
    if content_type == JSON:
        if query:
            raise BadBody(
                f"query parameters {sorted(query)} are for Arrow and Parquet bodies; put them into the JSON body"
            )
        return Order(content_type, form.media_type)
    order = Order(
        content_type,
        form.media_type,
        features=query.getlist("features"),
        feature_service=query.get("feature_service"),
        full_feature_names=query_flag(request, "full_feature_names"),
        filter_by_created_timestamp=query_flag(request, "filter_by_created_timestamp"),
    )
    check_selection(order.features, order.feature_service, LOOKUP_FEATURES_MAX)
    return order


def query_flag(request: Request, name: str) -> bool:
    """Returns a query parameter that is true or false; absent is false.

    Raises:
        BadBody: it is something else.
    """
    text = request.query_params.get(name, "false").lower()
    if text not in {"true", "false", "1", "0"}:
        raise BadBody(f"query parameter {name!r}: {text!r} is neither true nor false")
    return text in {"true", "1"}


async def _unless_gone(request: Request, work: Awaitable[bytes | None]) -> bytes | None:
    """Returns the result of work for a request whose body has been read whole.

    Raises:
        ClientDisconnect: the client went away before.
    """
    working = asyncio.ensure_future(work)
    going = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({working, going}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        going.cancel()


class _Relay(Response):
    """An answer that is passed on as it comes; it ends its retrieval when it is sent, or the client has gone."""

    def __init__(self, retrieval: Retrieval, first: bytes, content_type: str) -> None:
        super().__init__()
        self._retrieval = retrieval
        self._first = first
        self._content_type = content_type

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> Any:
        answer = StreamingResponse(self._chunks(), headers={"content-type": self._content_type})
        try:
            await answer(scope, receive, Patience(send).send)
        finally:
            self._retrieval.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        chunk: bytes | None = self._first
        while chunk is not None:
            yield chunk
            chunk = await self._retrieval.next_chunk()


class Patience:
    """A `send` that waits for its client only so long: a stall, and the time that its bytes take at the least speed.

    Attributes:
        seconds_left: how much longer it waits.
    """

    def __init__(
        self,
        send: "Send",
        stall_seconds: float = ANSWER_STALL_SECONDS,
        bytes_per_second: float = ANSWER_BYTES_PER_SECOND_MIN,
    ) -> None:
        self._send = send
        self.seconds_left = stall_seconds
        self._bytes_per_second = bytes_per_second

    async def send(self, message: "Message") -> None:
        """Sends one message.

        Raises:
            RetrievalFailed: the client reads too slowly.
        """
        loop = asyncio.get_running_loop()
        self.seconds_left += len(message.get("body", b"")) / self._bytes_per_second
        started = loop.time()
        try:
            async with asyncio.timeout(self.seconds_left):
                await self._send(message)
        except TimeoutError as error:
            raise RetrievalFailed(
                f"the client has not read its answer for {self.seconds_left:.0f} seconds; its place is given up"
            ) from error
        self.seconds_left -= loop.time() - started
