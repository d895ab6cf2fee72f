"""The guards in front of the handlers: same-shaped layers that each check one thing and know no feature.

In the order in which a request meets them: host, token, path, query, content type, body size.
"""

import asyncio
import re
import time
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from starlette.exceptions import HTTPException
from starlette.responses import Response

from server.auth import TokenEntry, TokenTable
from server.errors import refuse
from server.limits import BODY_SECONDS_MAX, BUSY_RETRY_SECONDS
from server.policy import RoutePolicy, policy_for
from server.sessions import cookie_of, find_login
from store.errors import TooLarge, shown

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_HOST = re.compile(r"(?P<name>\[[^\[\]]*\]|[^:\[\]]*)(:\d*)?")
_HEADERS_KEPT_MAX = 256
"""Headers whose meaning is kept, as clients send the same ones again and again."""

_REALM = 'Bearer realm="larder"'


def headers_named(scope: "Scope", name: bytes) -> list[bytes]:
    """Returns all values of a header of a request, in order; `name` is in lower case."""
    return [value for key, value in scope["headers"] if key == name]


class HostGuard:
    """Refuses a Host header that is not on the list: a page elsewhere cannot rebind a name to this machine."""

    def __init__(self, app: "ASGIApp", allowed: frozenset[str]) -> None:
        self.app = app
        self.allowed = allowed

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Passes a request on if it names a host that this server answers for."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        hosts = headers_named(scope, b"host")
        host = _without_port(hosts[0].decode("latin-1")) if len(hosts) == 1 else ""
        if host in self.allowed:
            await self.app(scope, receive, send)
            return
        await refuse(
            scope,
            receive,
            send,
            400,
            f"host {shown(host)} is not served here (expected one Host header out of {sorted(self.allowed)}); "
            "call the server by one of these names, or add yours to LARDER_ALLOWED_HOSTS",
        )


class TokenGuard:
    """Refuses a request without a token, with an unknown one, or with one that lacks the path's scope."""

    def __init__(self, app: "ASGIApp", tokens: TokenTable | None) -> None:
        self.app = app
        self.tokens = tokens

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Passes a request on if its token allows what its path demands, and the path is known at all."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        policy = policy_for(scope["path"])
        if self.tokens is not None and (policy is None or policy.scope is not None):
            entry = self.tokens.find(_bearer(scope)) or self._logged_in(scope, policy)
            if entry is None:
                if policy is not None and policy.is_page and scope["method"] == "GET":
                    await _to_the_login(scope, receive, send)
                    return
                detail = "a valid token is needed; send it as 'Authorization: Bearer <token>'"
                await refuse(scope, receive, send, 401, detail, {"WWW-Authenticate": _REALM})
                return
            if policy is not None and policy.scope not in entry.scopes:
                detail = (
                    f"token {entry.name!r} has the scopes {[str(s) for s in sorted(entry.scopes)]}, and "
                    f"{scope['path']} needs {str(policy.scope)!r}; use a token that has it"
                )
                challenge = f'{_REALM}, error="insufficient_scope", scope="{policy.scope}"'
                await refuse(scope, receive, send, 403, detail, {"WWW-Authenticate": challenge})
                return
        if policy is None:
            await refuse(scope, receive, send, 404, f"no such path {shown(scope['path'])}; /docs lists them all")
            return
        await self.app(scope, receive, send)

    def _logged_in(self, scope: "Scope", policy: RoutePolicy | None) -> TokenEntry | None:
        """Returns the token by which a person has logged in to the pages, where that counts: pages, and reads."""
        if policy is None or not policy.takes_cookie or not (policy.is_page or scope["method"] == "GET"):
            return None
        cookie = cookie_of(headers_named(scope, b"cookie"))
        assert self.tokens is not None
        entry = find_login(self.tokens, cookie, time.time()) if cookie else None
        if entry is not None:
            scope["larder.user"] = entry.name
        return entry


async def _to_the_login(scope: "Scope", receive: "Receive", send: "Send") -> None:
    """Sends a person to the login, from which they come back."""
    query = scope["query_string"].decode("latin-1")
    wanted = scope["path"] + (f"?{query}" if query else "")
    headers = {"Location": f"/login?{urlencode({'next': wanted})}", "Cache-Control": "no-store"}
    await Response(status_code=303, headers=headers)(scope, receive, send)


class QueryGuard:
    """Refuses a query parameter that its path does not take: a misspelt one must not be skipped in silence."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Passes a request on if its path takes all of its query parameters."""
        if scope["type"] == "http" and scope["query_string"]:
            policy = policy_for(scope["path"])
            assert policy is not None, "the token guard stands in front and knows every path"
            given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            unknown = sorted({name for name, _ in given} - policy.query)
            if unknown:
                taken = f"it takes {sorted(policy.query)}" if policy.query else "it takes none"
                detail = f"query parameters {shown(unknown)} are unknown to {scope['path']}; {taken}"
                await refuse(scope, receive, send, 422, detail)
                return
        await self.app(scope, receive, send)


BODY_STATE = "larder.body_state"
"""The ASGI extension that tells whether a request's body has come; a server that is not ours does not have it."""


class BodyState:
    """Whether all of a request's body has come."""

    __slots__ = ("is_whole",)

    def __init__(self) -> None:
        self.is_whole = False


class BodyGuard:
    """Refuses a body of a kind or size that its path does not take, also one that hides its size.

    Attributes:
        held_bytes: by path, the bodies of requests that are not answered yet.
    """

    def __init__(self, app: "ASGIApp", seconds_max: float = BODY_SECONDS_MAX) -> None:
        self.app = app
        self.seconds_max = seconds_max
        self.held_bytes: Counter[str] = Counter()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Passes a request on with a body that is counted as it is read."""
        if scope["type"] != "http" or scope["method"] not in _METHODS_WITH_BODY:
            await self.app(scope, receive, send)
            return
        policy = policy_for(scope["path"])
        assert policy is not None, "the token guard stands in front and knows every path"
        if not policy.body_bytes_max:
            await self.app(scope, receive, send)
            return
        content_type = _content_type(scope)
        bytes_max = policy.body_bytes_max.get(content_type)
        if bytes_max is None or headers_named(scope, b"content-encoding") not in ([], [b"identity"]):
            detail = (
                f"content type {shown(content_type)} or its encoding is not taken by {scope['path']}; send "
                f"Content-Type {' or '.join(policy.body_bytes_max)}, in UTF-8 and not compressed"
            )
            await refuse(scope, receive, send, 415, detail, {"Accept-Post": ", ".join(policy.body_bytes_max)})
            return
        declared = _declared_bytes(scope)
        if declared > bytes_max:
            detail = _too_large(scope["path"], f"{declared} bytes", bytes_max)
            # The body is not read, so the connection cannot carry another request.
            await refuse(scope, receive, send, 413, detail, {"Connection": "close"})
            return
        state = scope.get("extensions", {}).get(BODY_STATE)
        body = _CountedBody(receive, scope["path"], bytes_max, self.seconds_max, self.held_bytes, state)
        try:
            await self.app(scope, body.receive, send)
        finally:
            self.held_bytes[scope["path"]] -= body.received


class _CountedBody:
    """A body as it is read: an error when it passes its bound, takes too long, or finds the worker's memory taken."""

    def __init__(
        self,
        receive: "Receive",
        path: str,
        bytes_max: int,
        seconds_max: float,
        held_bytes: Counter[str],
        state: BodyState | None,
    ) -> None:
        self._receive = receive
        self._path = path
        self._bytes_max = bytes_max
        self._seconds_max = seconds_max
        self._deadline = asyncio.get_running_loop().time() + seconds_max
        self._held_bytes = held_bytes
        self._state = state
        self._is_whole = False
        self.received = 0

    async def receive(self) -> "Message":
        if self._is_whole:
            # What follows a whole body is only the news that the client has gone, which may take its time.
            return await self._receive()
        # What has come needs no timer, which would take a good part of a lookup's time.
        has_come = self._state is not None and self._state.is_whole
        message = await (self._receive() if has_come else self._in_time())
        self._count(len(message.get("body", b"")))
        self._is_whole = not message.get("more_body", False)
        return message

    async def _in_time(self) -> "Message":
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._receive()
        except TimeoutError as error:
            detail = (
                f"body of {self._path}: not whole after {self._seconds_max:g} seconds ({self.received} bytes came); "
                "send it faster"
            )
            raise HTTPException(408, detail, {"Connection": "close"}) from error

    def _count(self, size: int) -> None:
        self.received += size
        self._held_bytes[self._path] += size
        if self.received > self._bytes_max:
            raise TooLarge(_too_large(self._path, f"more than {self._bytes_max} bytes", self._bytes_max))
        policy = policy_for(self._path)
        assert policy is not None, "the token guard stands in front and knows every path"
        most = policy.bodies_bytes_max
        if most is not None and self._held_bytes[self._path] > most:
            detail = f"bodies of {self._path} take {most} bytes, which is all that one worker holds at once; try again"
            raise HTTPException(503, detail, {"Retry-After": str(BUSY_RETRY_SECONDS), "Connection": "close"})


def _too_large(path: str, size: str, bytes_max: int) -> str:
    return f"body of {path}: {size}, at most {bytes_max} are taken; send the rows in several requests"


def _content_type(scope: "Scope") -> str:
    values = headers_named(scope, b"content-type")
    return _media_type(values[0].decode("latin-1")) if len(values) == 1 else ""


@lru_cache(maxsize=_HEADERS_KEPT_MAX)
def _media_type(sent: str) -> str:
    """Returns the media type in lower case; with a character set other than UTF-8 it stays as it was sent."""
    media_type, _, parameters = sent.partition(";")
    _, has_charset, charset = parameters.lower().partition("charset=")
    if has_charset and charset.split(";")[0].strip(' "') not in {"utf-8", "utf8"}:
        return sent
    return media_type.strip().lower()


def _declared_bytes(scope: "Scope") -> int:
    values = headers_named(scope, b"content-length")
    # A server in front of us has checked the form; a body without a length is counted as it comes.
    return int(values[0]) if values and values[0].isdigit() else 0


def _bearer(scope: "Scope") -> bytes:
    values = headers_named(scope, b"authorization")
    scheme, _, token = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
    return token.strip() if scheme.lower() == b"bearer" else b""


@lru_cache(maxsize=_HEADERS_KEPT_MAX)
def _without_port(host: str) -> str:
    """Returns a Host header's name in lower case, without port and without the dot of a rooted name."""
    found = _HOST.fullmatch(host.strip().lower())
    return found["name"].removesuffix(".") if found else host
