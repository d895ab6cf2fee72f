"""`POST /materialize` and `POST /materialize-incremental`: Feast's shapes, beside the event loop."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from fastapi import APIRouter, Request, Response

from server.limits import ASYNC_REFUSAL_SECONDS
from server.openapi import flag, json_answer, json_body
from server.routes.historical import query_flag
from server.schemas import MaterializeBody, MaterializeIncrementalBody, decode, instant
from server.state import ServerState, state_of
from server.threads import in_thread
from store.errors import BadBody, shown
from store.requests import MaterializeRequest

router = APIRouter(tags=["materialize"])
log = structlog.get_logger("larder.server")
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: json_answer("Done."),
    202: json_answer("Under way; its end is told in the server's log."),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _described(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {**json_body(struct), "parameters": [flag("async", "Answer 202 at once and work in the background.")]}


@router.post("/materialize", openapi_extra=_described(MaterializeBody), responses=_ANSWERS)
async def materialize(request: Request) -> Response:
    """Materializes feature views into the online store over [start_ts, end_ts); answers when it is done."""
    body = decode(await request.body(), MaterializeBody)
    _refuse_version(body.version)
    state = state_of(request)
    if body.disable_event_timestamp:
        start, end = _EPOCH, state.store.clock.now()
    elif body.start_ts is None or body.end_ts is None:
        raise BadBody("start_ts, end_ts: both are needed unless disable_event_timestamp is true; give both")
    else:
        start, end = instant("start_ts", body.start_ts), instant("end_ts", body.end_ts)
        if start >= end:
            raise BadBody(
                f"start_ts {shown(body.start_ts)} is not before end_ts {shown(body.end_ts)}; "
                "the interval is [start, end)"
            )
    asked = MaterializeRequest(
        end=end,
        start=start,
        feature_views=body.feature_views,
        disable_event_timestamp=body.disable_event_timestamp,
    )
    return await _run(request, state, asked)


@router.post("/materialize-incremental", openapi_extra=_described(MaterializeIncrementalBody), responses=_ANSWERS)
async def materialize_incremental(request: Request) -> Response:
    """Materializes from where the last run ended up to end_ts; answers when it is done."""
    body = decode(await request.body(), MaterializeIncrementalBody)
    _refuse_version(body.version)
    end = instant("end_ts", body.end_ts)
    return await _run(request, state_of(request), MaterializeRequest(end=end, feature_views=body.feature_views))


async def _run(request: Request, state: ServerState, asked: MaterializeRequest) -> Response:
    is_async = query_flag(request, "async")
    service = state.store
    state.materialize_slots.take()
    run = asyncio.create_task(in_thread(lambda: service.materialize(asked)))
    run.add_done_callback(lambda _: state.materialize_slots.give_back())
    views = "all" if asked.feature_views is None else list(asked.feature_views)
    if not is_async:
        await run
        return _status(200, "done", views)
    # A run that is refused (unknown view, lease held) is refused at once; 202 would bury that in the log.
    done, _ = await asyncio.wait({run}, timeout=ASYNC_REFUSAL_SECONDS)
    if done:
        run.result()
    else:
        run.add_done_callback(lambda finished: _tell(finished, views))
    return _status(202, "accepted", views)


def _status(code: int, status: str, views: str | list[str]) -> Response:
    return Response(
        msgspec.json.encode({"status": status, "feature_views": views}), code, media_type="application/json"
    )


def _tell(run: "asyncio.Task[None]", views: str | list[str]) -> None:
    if run.cancelled():
        log.warning("materialization cut short", feature_views=views)
    elif error := run.exception():
        log.error("materialization failed", feature_views=views, exc_info=error)
    else:
        log.info("materialization done", feature_views=views)


def _refuse_version(version: str | None) -> None:
    if version is not None:
        raise BadBody(
            f"version: {shown(version)} cannot be materialized by version here; leave it out for the current one"
        )
