"""`POST /push` and `POST /write-to-online-store`: rows that come one request at a time, in Feast's shapes."""

from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from server.openapi import json_answer, json_body
from server.policy import JSON
from server.schemas import Columns, PushBody, RowsAccepted, WriteBody, decode, row_count_of
from server.state import ServerState, state_of
from store.errors import BadBody
from store.limits import PUSH_ROWS_MAX
from store.requests import PushRequest

router = APIRouter(tags=["write"])
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    200: json_answer("All rows are written; with a refusal, none is.", RowsAccepted)
}


@router.post("/push", openapi_extra=json_body(PushBody), responses=_ACCEPTED)
async def push(request: Request) -> Response:
    """Writes rows to every feature view of a push source, online, offline or both."""
    body = decode(await request.body(), PushBody)
    _check(body.df)
    state = state_of(request)
    rows = await state.store.push(PushRequest(body.push_source_name, body.df, body.to))
    return _accepted(state, rows)


@router.post("/write-to-online-store", openapi_extra=json_body(WriteBody), responses=_ACCEPTED)
async def write_to_online_store(request: Request) -> Response:
    """Writes rows to one feature view, online only."""
    body = decode(await request.body(), WriteBody)
    _check(body.df)
    state = state_of(request)
    rows = await state.store.write_online(body.feature_view_name, body.df)
    return _accepted(state, rows)


def _check(columns: Columns) -> None:
    if not columns:
        raise BadBody("df: no columns; send an object of column name to list of values, one value per row")
    row_count_of(columns, "df", PUSH_ROWS_MAX)


def _accepted(state: ServerState, rows: int) -> Response:
    state.metrics.pushed_rows.inc(rows)
    return Response(msgspec.json.encode(RowsAccepted(rows)), media_type=JSON)
