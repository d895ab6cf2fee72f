"""The application: handlers inside, guards around them, the store opened before the first request."""

import asyncio
import contextlib
import functools
import gc
import sys
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from server.errors import answer_to, refusal
from server.guards import BodyGuard, HostGuard, QueryGuard, TokenGuard
from server.limits import GC_THRESHOLDS
from server.metrics import Metrics
from server.observe import Observe
from server.openapi import describe
from server.retrieval.client import Retrievals
from server.routes import api as api_routes
from server.routes import api_monitoring, historical, login, materialize, online, operations, pages, push
from server.settings import ServerSettings
from server.state import ServerState
from store.errors import LarderError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from store.service import StoreService


def create_app(
    settings: ServerSettings,
    open_store: "Callable[[], StoreService] | None" = None,
    announce: Callable[[str], None] = lambda _: None,
) -> "Application":
    """Returns the application for one worker.

    Args:
        settings: checked settings.
        open_store: opens the store; by default that of the feature repo in the settings.
        announce: called once the application serves, with what is worth a note about it, '' for nothing.

    Raises:
        ConfigError: the feature repo cannot be served as it is configured.
    """
    metrics = Metrics(has_other_workers=settings.workers > 1)
    store = open_store() if open_store is not None else _open(settings)
    api = FastAPI(
        title="Larder",
        version=version("larder"),
        lifespan=functools.partial(_lifespan, announce=announce),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_oauth2_redirect_url=None,
    )
    state = api.state.larder = ServerState(store, metrics, Retrievals(store), settings.tokens)
    metrics.monitor.now_us = store.clock.now_us
    store.on_round_trip(metrics.count_round_trip)
    store.on_logged(metrics.count_logged)
    for module in (online, historical, push, materialize, operations, api_routes, api_monitoring, pages, login):
        api.include_router(module.router)
    api.add_exception_handler(LarderError, _refused)
    api.add_exception_handler(HTTPException, _http_refused)
    describe(api, has_tokens=settings.tokens is not None)
    lookups: ASGIApp = online.Lookups(state)
    for guard, options in _guards(settings, metrics):
        api.add_middleware(guard, **options)
        lookups = guard(lookups, **options)
    return Application(api, lookups)


class Application:
    """The server's application: FastAPI's, and lookups in front of it, both behind guards of the same kinds.

    FastAPI's own layers and its routing take as long as a whole lookup.

    Attributes:
        api: FastAPI's application, with the lookups' route among the others.
    """

    def __init__(self, api: FastAPI, lookups: "ASGIApp") -> None:
        self.api = api
        self._lookups = lookups

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answers a request."""
        is_lookup = scope["type"] == "http" and scope["path"] == online.PATH and scope["method"] == "POST"
        await (self._lookups if is_lookup else self.api)(scope, receive, send)


def _guards(settings: ServerSettings, metrics: Metrics) -> list[tuple[Any, dict[str, Any]]]:
    """Returns the layers around the handlers, the innermost first."""
    return [
        (BodyGuard, {}),
        (QueryGuard, {}),
        (TokenGuard, {"tokens": settings.tokens}),
        (HostGuard, {"allowed": settings.allowed_hosts}),
        (Observe, {"metrics": metrics, "has_access_log": settings.has_access_log}),
    ]


def _open(settings: ServerSettings) -> "StoreService":
    # Imported here because it loads Feast, which sets Prometheus' environment variables for its own server.
    from store.service import StoreService

    return StoreService.open(settings.repo_path)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI, announce: Callable[[str], None]) -> AsyncIterator[None]:
    state: ServerState = app.state.larder
    try:
        await state.store.start()
    except LarderError as error:
        sys.stderr.write(f"larder: {error}\n")
        raise
    state.retrievals.start()
    gauges = asyncio.gather(state.keep_gauges_fresh(), state.keep_monitor_fresh())
    # What was loaded so far lives as long as the process: the collector need not walk it during a lookup.
    gc.collect()
    gc.freeze()
    # A lookup makes some hundred objects and leaves none: looking for cycles after each is time of the next one.
    gc.set_threshold(*GC_THRESHOLDS)
    clock = state.store.clock
    announce("" if clock.is_system else f"on a clock that says {clock.now().isoformat(timespec='seconds')}")
    try:
        yield
    finally:
        gauges.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gauges
        state.pages.close()
        await state.retrievals.close()
        await state.store.close()
        # What is frozen is not collected at exit either, and DuckDB's binding reports it as leaked.
        gc.unfreeze()


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, LarderError)
    return answer_to(error, request.scope)


async def _http_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405 and error.headers:
        detail = f"{request.url.path} does not take {request.method}; use {error.headers['Allow']}"
        return refusal(request.scope, 405, detail, error.headers)
    return refusal(request.scope, error.status_code, error.detail, error.headers)
