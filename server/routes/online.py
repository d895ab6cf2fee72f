"""`POST /get-online-features`: the hot path, in Feast's own JSON, without a model layer in between.

FastAPI's machinery takes as long as the rest of a lookup, so `Lookups` answers this one path in front of it; the
route stands for the OpenAPI document and says the same.
"""

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from server.errors import answer, answer_to
from server.openapi import json_answer, json_body
from server.policy import JSON
from server.schemas import (
    LookupAnswerBody,
    LookupBody,
    check_selection,
    decode,
)
from server.state import ServerState, state_of
from store.clock import from_us
from store.errors import LarderError
from store.limits import LOOKUP_FEATURES_MAX
from store.requests import LookupRequest

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

router = APIRouter(tags=["online"])

PATH = "/get-online-features"
REQUEST_TIME_HEADER = "larder-request-time"
_REQUEST_TIME = REQUEST_TIME_HEADER.encode()
_CONTENT_TYPE = (b"content-type", JSON.encode())


@router.post(
    PATH,
    openapi_extra=json_body(LookupBody),
    responses={200: json_answer("Values, statuses and event timestamps, column-major.", LookupAnswerBody)},
)
async def get_online_features(request: Request) -> Response:
    """Looks features up for entity keys: Feast's request and answer."""
    content, request_time = await _looked_up(state_of(request), await request.body())
    return Response(content, 200, {REQUEST_TIME_HEADER: request_time}, JSON)


class Lookups:
    """Answers lookups alone, where FastAPI would answer them: behind the guards."""

    def __init__(self, state: ServerState) -> None:
        self.state = state

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answers a lookup."""
        try:
            content, request_time = await _looked_up(self.state, await _whole_body(receive))
        except LarderError as error:
            await answer_to(error)(scope, receive, send)
            return
        except HTTPException as error:
            await answer(error.status_code, error.detail, error.headers)(scope, receive, send)
            return
        headers = [
            (b"content-length", b"%d" % len(content)),
            _CONTENT_TYPE,
            (_REQUEST_TIME, request_time.encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


async def _whole_body(receive: "Receive") -> bytes:
    message = await receive()
    parts = []
    while True:
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
        message = await receive()


async def _looked_up(state: ServerState, raw: bytes) -> tuple[bytes, str]:
    """Returns the answer to a body, and the instant by which ages were judged."""
    body = decode(raw, LookupBody)
    check_selection(body.features, body.feature_service, LOOKUP_FEATURES_MAX)
    found = await state.store.lookup(
        LookupRequest(
            entities=body.entities,
            features=body.features,
            feature_service=body.feature_service,
            full_feature_names=body.full_feature_names,
            include_feature_view_version_metadata=body.include_feature_view_version_metadata,
        )
    )
    state.metrics.count_lookup(found)
    return found.content, from_us(found.now_us).isoformat()
