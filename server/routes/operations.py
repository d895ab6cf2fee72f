"""What operators and browsers ask of a server: is it alive, is it ready, how is it doing, what does it take."""

from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse

from server.errors import answer
from server.limits import UNAVAILABLE_RETRY_SECONDS
from server.metrics import CONTENT_TYPE
from server.openapi import json_answer
from server.policy import JSON
from server.state import ServerState, state_of
from store.errors import RegistryUnavailable

if TYPE_CHECKING:
    from store.service import StoreService

router = APIRouter(tags=["operations"])

_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
# The page's one inline script starts Swagger UI; nothing may come from, or go to, another host.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
)


@router.get("/health", responses={200: json_answer("The process is alive.")})
async def health() -> Response:
    """Says that the process is alive; asks nothing of the store."""
    return Response(b'{"status":"alive"}', media_type=JSON)


@router.get("/ready", responses={200: json_answer("Lookups can be answered.")})
async def ready(request: Request) -> Response:
    """Says whether lookups can be answered, and if not, why.

    A registry that has broken is told and does not count as long as the last good one serves. Also told is a clock
    that is not the system's, and partitions of the event log without a worker.
    """
    report, reasons = await ready_report(state_of(request))
    if not reasons:
        return Response(msgspec.json.encode(report), media_type=JSON)
    headers = {"Retry-After": str(UNAVAILABLE_RETRY_SECONDS)}
    return Response(msgspec.json.encode({**report, "detail": "; ".join(reasons)}), 503, headers, JSON)


async def ready_report(state: ServerState) -> tuple[dict[str, Any], list[str]]:
    """Returns how a server stands, and why it cannot answer lookups; no reasons if it can."""
    store = state.store
    readiness = await store.readiness()
    report = {
        "ready": readiness.is_ready,
        "project": store.project,
        "registry": {
            "problem": readiness.registry_problem,
            "version": _registry_version(store),
            "age_seconds": round(readiness.registry_age_seconds, 3),
        },
        "online_store": {"problem": readiness.online_store_problem},
        "stream": {
            "problem": readiness.stream.problem,
            "partitions": len(readiness.stream.partitions),
            "unowned": readiness.stream.unowned,
            "lag_seconds": round(max((each.lag_seconds for each in readiness.stream.partitions), default=0.0), 3),
            "dead_letters": readiness.stream.letters,
        },
        "clock": {
            "is_system": store.clock.is_system,
            "now": store.clock.now().isoformat(),
            "note": readiness.clock_note,
        },
    }
    reasons = [reason for reason in (readiness.registry_problem, readiness.online_store_problem) if reason]
    return report, [] if readiness.is_ready else reasons


def _registry_version(store: "StoreService") -> str | None:
    try:
        return store.registry_version
    except RegistryUnavailable:
        return None


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Returns the server's metrics in Prometheus' text format, of all workers together."""
    # The gauges are renewed in the background: a scrape waits for no Redis.
    return Response(state_of(request).metrics.scrape(), media_type=CONTENT_TYPE)


@router.get("/docs", include_in_schema=False)
async def docs() -> HTMLResponse:
    """Returns the page that shows and tries the API; all that it loads comes from this server."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Larder",
        swagger_js_url="/docs-assets/swagger-ui-bundle.js",
        swagger_css_url="/docs-assets/swagger-ui.css",
        swagger_favicon_url="/docs-assets/favicon.png",
    )
    page.headers["Content-Security-Policy"] = _DOCS_POLICY
    return page


@router.get("/docs-assets/{name}", include_in_schema=False)
async def docs_asset(name: str) -> Response:
    """Returns one of the files that the page of `/docs` loads."""
    if name not in _ASSETS:
        return answer(404, f"no such file {name!r}; /docs loads {sorted(_ASSETS)}")
    # The files come with a package that was made for this; nothing of its code is run.
    path = resources.files("fastapi_offline") / "static" / name
    return FileResponse(str(path), media_type=_ASSETS[name])
