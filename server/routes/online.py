"""`POST /get-online-features`: the hot path, in Feast's own JSON, without a model layer in between.

FastAPI's machinery takes as long as the rest of a lookup, so `LookupsFirst` answers this one path in front of it; the
route stands for the OpenAPI document and says the same.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from server.errors import answer, answer_to
from server.openapi import json_answer, json_body
from server.policy import JSON
from server.schemas import (
    LookupAnswerBody,
    LookupBody,
    LookupMetadata,
    ViewVersion,
    check_selection,
    decode,
    row_count_of,
)
from server.state import ServerState, state_of
from store.errors import LarderError
from store.limits import LOOKUP_FEATURES_MAX, LOOKUP_KEYS_MAX
from store.requests import LookupAnswer, LookupRequest

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

router = APIRouter(tags=["online"])
_encode = msgspec.json.Encoder().encode

PATH = "/get-online-features"
REQUEST_TIME_HEADER = "larder-request-time"


@router.post(
    PATH,
    openapi_extra=json_body(LookupBody),
    responses={200: json_answer("Values, statuses and event timestamps, column-major.", LookupAnswerBody)},
)
async def get_online_features(request: Request) -> Response:
    """Looks features up for entity keys: Feast's request and answer."""
    content, request_time = await _looked_up(state_of(request), await request.body())
    return Response(content, 200, {REQUEST_TIME_HEADER: request_time}, JSON)


class LookupsFirst:
    """Answers lookups behind the guards and in front of FastAPI; every other request is passed on."""

    def __init__(self, app: "ASGIApp", state: ServerState) -> None:
        self.app = app
        self.state = state

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answers a lookup, or passes a request on."""
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
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
            (b"content-type", JSON.encode()),
            (REQUEST_TIME_HEADER.encode(), request_time.encode()),
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
    row_count = row_count_of(body.entities, "entities", LOOKUP_KEYS_MAX)
    found = await state.store.lookup(
        LookupRequest(
            entities=body.entities,
            features=body.features,
            feature_service=body.feature_service,
            full_feature_names=body.full_feature_names,
            include_feature_view_version_metadata=body.include_feature_view_version_metadata,
        )
    )
    state.metrics.count_lookup(found, row_count)
    return encoded(found, body.include_feature_view_version_metadata), found.request_time.isoformat()


def encoded(found: LookupAnswer, with_versions: bool) -> bytes:
    """Returns an answer as Feast's JSON."""
    versions = [ViewVersion(name, version) for name, version in found.view_versions.items()] if with_versions else None
    parts = [b'{"metadata":', _encode(LookupMetadata(found.feature_names, versions)), b',"results":[']
    # What follows the values is the same for most columns of a view, and then encoded once.
    statuses: Sequence[str] | None = None
    times: Sequence[str | None] | None = None
    rest = b""
    for values, said, stamps in zip(found.values, found.statuses, found.event_timestamps, strict=True):
        if said is not statuses or stamps is not times:
            statuses, times = said, stamps
            rest = b',"statuses":%b,"event_timestamps":%b},' % (_encode(said), _encode(stamps))
        parts += (b'{"values":', _encode(values), rest)
    if statuses is not None:
        parts[-1] = rest[:-1]
    parts.append(b"]}")
    return b"".join(parts)
