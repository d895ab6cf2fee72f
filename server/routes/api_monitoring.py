"""How fresh the views are, what lookups were answered with, and the last audit, as JSON."""

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request, Response

from server.openapi import json_answer
from server.policy import JSON
from server.rates import LookupRates
from server.state import state_of

if TYPE_CHECKING:
    from store.monitor.freshness import ViewFreshness

router = APIRouter(prefix="/api", tags=["monitoring"])


@router.get("/freshness", responses={200: json_answer("The newest event of each view, offline and online.")})
async def freshness(request: Request) -> Response:
    """Returns how fresh each view is; what is not known is null, with the reason where there is one.

    Ages are seconds from the newest event to now, on the server's clock.
    """
    from store.clock import said

    store = state_of(request).store
    views = await store.freshness()
    now_us = store.clock.now_us()

    def of_view(view: "ViewFreshness") -> dict[str, Any]:
        def side(newest_us: int | None, problem: str | None) -> dict[str, Any]:
            if newest_us is None:
                return {"newest": None, "age_seconds": None, "problem": problem}
            return {"newest": said(newest_us), "age_seconds": (now_us - newest_us) / 1e6, "problem": problem}

        future_us, until_us = view.offline_future_us, view.materialized_until_us
        return {
            "view": view.view,
            "ttl_seconds": view.ttl_seconds,
            "offline": {
                **side(view.offline_newest_us, view.offline_problem),
                "future_until": None if future_us is None else said(future_us),
            },
            "online": side(view.online_newest_us, view.online_problem),
            "materialized_until": None if until_us is None else said(until_us),
        }

    return _json({"now": said(now_us), "views": [of_view(view) for view in views]})


@router.get("/status", responses={200: json_answer("What lookups were answered with, by view.")})
async def status(request: Request) -> Response:
    """Returns what lookups of each view were answered with since the server began, by all its workers."""
    from store.clock import said

    state = state_of(request)
    # Several workers keep their counts in files.
    rates: LookupRates = await asyncio.to_thread(state.metrics.rates)
    views = [
        {"view": each.view, "rows": each.rows, "unknown_keys": each.unknown_keys, "values": each.statuses}
        for each in rates.views
    ]
    since_us = state.store.clock.of_system_us(rates.since_us)
    return _json({"since": said(since_us), "now": said(state.store.clock.now_us()), "views": views})


@router.get("/audit", responses={200: json_answer("The last audit, as `larder audit --json` prints it.")})
async def audit(request: Request) -> Response:
    """Returns the report of the last audit, null if there was none, and which kept reports are damaged."""
    store = state_of(request).store
    kept, problems = await asyncio.to_thread(store.last_audit)
    return _json({"audit": None if kept is None else kept.report, "problems": problems})


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type=JSON)
