"""`POST /push` and `POST /write-to-online-store`: rows that come one request at a time, in Feast's shapes."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec
from fastapi import APIRouter, Request, Response

from server.limits import PUSH_INLINE_BYTES_MAX
from server.openapi import json_answer, json_body
from server.policy import JSON
from server.schemas import Columns, PushBody, Refusal, RowsAccepted, WriteBody, decode, row_count_of
from server.state import ServerState, state_of
from server.threads import in_thread
from store.errors import BadBody, InputError, TooLarge
from store.limits import IDEMPOTENCY_KEY_BYTES_MAX, PUSH_ROWS_MAX
from store.requests import PushRequest

router = APIRouter(tags=["write"])
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    200: json_answer("All rows are written; with a refusal (4xx), none is.", RowsAccepted),
    503: json_answer(
        "Redis or a source failed, or too much is under way. If Redis failed in the middle (it was full, or went "
        "away), some rows may be online, and none has landed offline. Repeat the push unchanged: rows that are there "
        "already are not written twice.",
        Refusal,
    ),
}


_IDEMPOTENCY: dict[str, Any] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "A push that is repeated with the key of one before, within 24 hours, is not done again; "
            "another push with that key is refused (422).",
            "schema": {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_BYTES_MAX},
        }
    ]
}

_Body = TypeVar("_Body", PushBody, WriteBody)


@router.post("/push", openapi_extra={**json_body(PushBody), **_IDEMPOTENCY}, responses=_ACCEPTED)
async def push(request: Request) -> Response:
    """Writes rows to every feature view of a push source, online, offline or both."""
    state, content = state_of(request), await request.body()
    with _place_for(state, content):
        key = _idempotency_key(request)
        body = await _decoded(content, PushBody)
        digest = b"" if key is None else blake2b(content, digest_size=16).digest()
        rows = await state.store.push(PushRequest(body.push_source_name, body.df, body.to, key, digest))
    return _accepted(state, rows)


@router.post("/write-to-online-store", openapi_extra=json_body(WriteBody), responses=_ACCEPTED)
async def write_to_online_store(request: Request) -> Response:
    """Writes rows to one feature view, online only."""
    state, content = state_of(request), await request.body()
    with _place_for(state, content):
        body = await _decoded(content, WriteBody)
        rows = await state.store.write_online(body.feature_view_name, body.df)
    return _accepted(state, rows)


def _idempotency_key(request: Request) -> str | None:
    """Returns what the `Idempotency-Key` header says, None where there is none.

    Raises:
        InputError: it is empty or given twice.
        TooLarge: it is longer than keys are.
    """
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    (key, *more) = given
    if more or not key.strip():
        raise InputError("Idempotency-Key: give one that is not empty, such as a UUID, or none")
    if len(key.encode()) > IDEMPOTENCY_KEY_BYTES_MAX:
        raise TooLarge(
            f"Idempotency-Key has {len(key.encode())} bytes, at most {IDEMPOTENCY_KEY_BYTES_MAX} are allowed; a UUID "
            "does"
        )
    return key.strip()


@contextmanager
def _place_for(state: ServerState, content: bytes) -> Iterator[None]:
    """Holds one of the places for large pushes, if this is one; refused where all are taken."""
    if len(content) <= PUSH_INLINE_BYTES_MAX:
        yield
        return
    state.push_slots.take()
    try:
        yield
    finally:
        state.push_slots.give_back()


async def _decoded(content: bytes, kind: type[_Body]) -> _Body:
    """Returns a body, parsed beside the event loop if it is large."""
    if len(content) <= PUSH_INLINE_BYTES_MAX:
        return _checked(content, kind)
    return await in_thread(lambda: _checked(content, kind))


def _checked(content: bytes, kind: type[_Body]) -> _Body:
    body = decode(content, kind)
    _check(body.df)
    return body


def _check(columns: Columns) -> None:
    if not columns:
        raise BadBody("df: no columns; send an object of column name to list of values, one value per row")
    row_count_of(columns, "df", PUSH_ROWS_MAX)


def _accepted(state: ServerState, rows: int) -> Response:
    state.metrics.pushed_rows.inc(rows)
    return Response(msgspec.json.encode(RowsAccepted(rows)), media_type=JSON)
