"""The application: handlers inside, guards around them, the store opened before the first request."""

import asyncio
import contextlib
import functools
import gc
import sys
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from server.errors import answer, answer_to
from server.guards import BodyGuard, HostGuard, QueryGuard, TokenGuard
from server.limits import GC_THRESHOLDS
from server.metrics import Metrics
from server.observe import Observe
from server.openapi import describe
from server.retrieval.client import Retrievals
from server.routes import historical, materialize, online, operations, push
from server.settings import ServerSettings
from server.state import ServerState
from store.errors import LarderError

if TYPE_CHECKING:
    from store.service import StoreService


def create_app(
    settings: ServerSettings,
    open_store: "Callable[[], StoreService] | None" = None,
    announce: Callable[[str], None] = lambda _: None,
) -> FastAPI:
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
    app = FastAPI(
        title="Larder",
        version=version("larder"),
        lifespan=functools.partial(_lifespan, announce=announce),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_oauth2_redirect_url=None,
    )
    state = app.state.larder = ServerState(store, metrics, Retrievals(store))
    store.on_round_trip(metrics.redis_round_trip.observe)
    for module in (online, historical, push, materialize, operations):
        app.include_router(module.router)
    app.add_exception_handler(LarderError, _refused)
    app.add_exception_handler(HTTPException, _http_refused)
    describe(app, has_tokens=settings.tokens is not None)
    # The last one added is the outermost.
    app.add_middleware(online.LookupsFirst, state=state)
    app.add_middleware(BodyGuard)
    app.add_middleware(QueryGuard)
    app.add_middleware(TokenGuard, tokens=settings.tokens)
    app.add_middleware(HostGuard, allowed=settings.allowed_hosts)
    app.add_middleware(Observe, metrics=metrics, has_access_log=settings.has_access_log)
    return app


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
    gauges = asyncio.create_task(state.keep_gauges_fresh())
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
        await state.retrievals.close()
        await state.store.close()
        # What is frozen is not collected at exit either, and DuckDB's binding reports it as leaked.
        gc.unfreeze()


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, LarderError)
    return answer_to(error)


async def _http_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405 and error.headers:
        detail = f"{request.url.path} does not take {request.method}; use {error.headers['Allow']}"
        return answer(405, detail, error.headers)
    return answer(error.status_code, error.detail, error.headers)
