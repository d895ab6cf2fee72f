"""`POST /get-historical-features`: training sets over HTTP, in the forms that `server.tables` knows."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from server.arrow_bodies import entity_rows_of
from server.entity_rows import table_from
from server.openapi import flag, json_answer, json_body
from server.policy import ARROW_STREAM
from server.schemas import HistoricalBody, check_selection, decode, row_count_of
from server.state import state_of
from server.tables import FORMATS, Format, negotiate
from server.threads import Slots, in_thread
from store.errors import BadBody, TooLarge
from store.limits import HISTORICAL_ROWS_MAX, LOOKUP_FEATURES_MAX
from store.requests import HistoricalRequest

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from store.service import StoreService

router = APIRouter(tags=["historical"])
_QUERY = {"features", "feature_service", "full_feature_names", "filter_by_created_timestamp"}
_BINARY = {"type": "string", "format": "binary"}
_DESCRIPTION = {
    "requestBody": {
        "required": True,
        "content": {
            **json_body(HistoricalBody)["requestBody"]["content"],
            ARROW_STREAM: {"schema": _BINARY},
        },
    },
    "parameters": [
        {
            "name": "features",
            "in": "query",
            "description": "With an Arrow body: `view:feature`, repeated.",
            "schema": {"type": "array", "items": {"type": "string"}},
        },
        {
            "name": "feature_service",
            "in": "query",
            "description": "With an Arrow body: the service instead of features.",
            "schema": {"type": "string"},
        },
        flag("full_feature_names", "With an Arrow body: name columns `view__feature`."),
        flag("filter_by_created_timestamp", "With an Arrow body: only what was known at each row's time."),
    ],
}
_ANSWER = json_answer("The entity rows in their order with the features joined: all columns by name.")
_ANSWER["content"][ARROW_STREAM] = {"schema": _BINARY}


@router.post("/get-historical-features", openapi_extra=_DESCRIPTION, responses={200: _ANSWER})
async def get_historical_features(request: Request) -> Response:
    """Joins features to entity rows as they were at each row's event timestamp; answers by `Accept`."""
    form = negotiate(request.headers.get("accept"))
    if form is None:
        known = ", ".join(known.media_type for known in FORMATS)
        raise HTTPException(406, f"Accept {request.headers['accept']!r} takes none of the forms offered: {known}")
    state = state_of(request)
    slots = state.historical_slots
    slots.take()
    try:
        service = state.store
        # The body is read with a place taken, so that bodies in memory are bounded by places.
        body = await request.body()
        chunks = await in_thread(lambda: _retrieve(service, request, body, form))
    except BaseException:
        slots.give_back()
        raise
    return _Held(slots, StreamingResponse(chunks, media_type=form.media_type))


def _retrieve(service: "StoreService", request: Request, body: bytes, form: Format) -> Iterator[bytes]:
    """Returns the answer's chunks; runs in a thread of its own, as parsing alone may take a second."""
    asked = _from_arrow(request, body) if _is_arrow(request) else _from_json(request, body)
    check_selection(asked.features, asked.feature_service, LOOKUP_FEATURES_MAX)
    rows_max = form.rows_max
    if rows_max is not None and asked.entity_rows.num_rows > rows_max:
        raise TooLarge(
            f"entities: {asked.entity_rows.num_rows} rows, at most {rows_max} are answered as {form.media_type}; "
            f"ask for Accept: {ARROW_STREAM}"
        )
    chunks = form.encode(service.retrieve(asked).to_arrow())
    # An encoder that fails should fail here, where the answer can still be a refusal.
    first = next(chunks, b"")
    return _chained(first, chunks)


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _is_arrow(request: Request) -> bool:
    return request.headers["content-type"].partition(";")[0].strip().lower() == ARROW_STREAM


def _from_json(request: Request, body: bytes) -> HistoricalRequest:
    if request.query_params:
        raise BadBody(
            f"query parameters {sorted(request.query_params)} are for Arrow bodies; put these fields into the JSON body"
        )
    asked = decode(body, HistoricalBody)
    row_count_of(asked.entities, "entities", HISTORICAL_ROWS_MAX)
    return HistoricalRequest(
        entity_rows=table_from(asked.entities),
        features=asked.features,
        feature_service=asked.feature_service,
        full_feature_names=asked.full_feature_names,
        filter_by_created_timestamp=asked.filter_by_created_timestamp,
    )


def _from_arrow(request: Request, body: bytes) -> HistoricalRequest:
    query = request.query_params
    unknown = sorted(set(query) - _QUERY)
    if unknown:
        raise BadBody(f"query parameters {unknown} are unknown; with an Arrow body they are {sorted(_QUERY)}")
    return HistoricalRequest(
        entity_rows=entity_rows_of(body),
        features=query.getlist("features"),
        feature_service=query.get("feature_service"),
        full_feature_names=query_flag(request, "full_feature_names"),
        filter_by_created_timestamp=query_flag(request, "filter_by_created_timestamp"),
    )


def query_flag(request: Request, name: str) -> bool:
    """Returns a query parameter that is true or false; absent is false.

    Raises:
        BadBody: it is something else.
    """
    text = request.query_params.get(name, "false").lower()
    if text not in {"true", "false", "1", "0"}:
        raise BadBody(f"query parameter {name!r}: {text!r} is neither true nor false")
    return text in {"true", "1"}


class _Held(Response):
    """An answer that keeps its place until it is sent, or the client is gone."""

    def __init__(self, slots: Slots, inner: Response) -> None:
        super().__init__()
        self._slots = slots
        self._inner = inner

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> Any:
        try:
            await self._inner(scope, receive, send)
        finally:
            self._slots.give_back()
