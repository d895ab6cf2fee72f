"""The outermost layer: counts and times every request, logs it if asked to, and answers what nobody foresaw."""

import asyncio
import secrets
import sys
import time
from typing import TYPE_CHECKING

import structlog
from starlette.requests import ClientDisconnect

from server.errors import feast_status_of, refuse
from server.limits import UNAVAILABLE_RETRY_SECONDS
from server.metrics import Metrics
from server.policy import policy_for
from store.errors import LarderError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOGGED_CHARS = 200
"""Of a path that a client made up, in a line of the log."""

_CLIENT_GONE = 499
"""What nginx logs for a client that left before its answer; nobody receives it."""


class Observe:
    """Counts, times and logs requests; turns an unforeseen exception into an answer without a traceback."""

    def __init__(self, app: "ASGIApp", metrics: Metrics, *, has_access_log: bool = False) -> None:
        self.app = app
        self.metrics = metrics
        self.has_access_log = has_access_log
        self.log = structlog.get_logger("larder.server")

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Passes a request on and keeps account of what becomes of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, _without_traceback(send))
            return
        started = time.perf_counter()
        status = 0

        async def noting(message: "Message") -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except ClientDisconnect:
            status = _CLIENT_GONE
        except asyncio.CancelledError:
            # Only the end of the grace of a stopping server cancels a request.
            if status:
                # The answer has begun; uvicorn cuts the connection, which tells the client that it is not whole.
                self.log.warning("answer cut short by the end of the server", path=scope["path"])
                return
            headers = {"Retry-After": str(UNAVAILABLE_RETRY_SECONDS), "Connection": "close"}
            detail = f"the server is stopping and {scope['path']} was not done in time; ask again"
            await refuse(scope, receive, noting, 503, detail, headers)
        except Exception as error:  # the edge of a request: nothing above this can answer
            if status:
                self._log_failure(scope, error)
                # The answer has begun; only cutting the connection tells the client that it is not whole.
                raise
            await self._answer_failure(scope, receive, noting, error)
        finally:
            self._account(scope, status or _CLIENT_GONE, time.perf_counter() - started)

    async def _answer_failure(self, scope: "Scope", receive: "Receive", send: "Send", error: Exception) -> None:
        feast_status = feast_status_of(error)
        if feast_status is not None and feast_status < 500:
            await refuse(scope, receive, send, feast_status, str(error))
            return
        request_id = self._log_failure(scope, error)
        detail = f"internal error {type(error).__name__}, see the server's log (request id {request_id})"
        await refuse(scope, receive, send, feast_status or 500, detail)

    def _log_failure(self, scope: "Scope", error: Exception) -> str:
        request_id = secrets.token_hex(8)
        self.log.error(
            "request failed",
            path=scope["path"][:_LOGGED_CHARS],
            method=scope["method"],
            request_id=request_id,
            exc_info=error,
        )
        return request_id

    def _account(self, scope: "Scope", status: int, seconds: float) -> None:
        # Paths and methods that clients make up must not become labels: each would be a new time series.
        path = scope["path"] if policy_for(scope["path"]) is not None else "other"
        path = next((prefix for prefix in ("/docs-assets", "/static") if path.startswith(f"{prefix}/")), path)
        method = scope["method"] if scope["method"] in {"GET", "POST"} else "other"
        self.metrics.count_request(path, method, status, seconds)
        if self.has_access_log:
            self.log.info(
                "request",
                path=scope["path"][:_LOGGED_CHARS],
                method=scope["method"],
                status=status,
                latency_ms=round(seconds * 1000, 3),
                client=scope["client"][0] if scope.get("client") else None,
            )


def _without_traceback(send: "Send") -> "Send":
    """Returns a `send` that leaves the traceback out of a start that failed for a reason already told."""

    async def quiet(message: "Message") -> None:
        is_told = message["type"] == "lifespan.startup.failed" and isinstance(sys.exc_info()[1], LarderError)
        await send({"type": message["type"]} if is_told else message)

    return quiet
