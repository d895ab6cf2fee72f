"""The guards in front of the handlers: same-shaped layers that each check one thing and know no feature.

In the order in which a request meets them: host, token, path, content type, body size.
"""

import asyncio
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from server.auth import TokenTable
from server.errors import refuse
from server.limits import BODY_SECONDS_MAX
from server.policy import policy_for
from store.errors import TooLarge

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
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
            f"host {host!r} is not served here (expected one Host header out of {sorted(self.allowed)}); "
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
            entry = self.tokens.find(_bearer(scope))
            if entry is None:
                detail = "a valid token is needed; send it as 'Authorization: Bearer <token>'"
                await refuse(scope, receive, send, 401, detail, {"WWW-Authenticate": _REALM})
                return
            if policy is not None and policy.scope not in entry.scopes:
                detail = (
                    f"token {entry.name!r} has the scopes {sorted(entry.scopes)}, and {scope['path']} needs "
                    f"{str(policy.scope)!r}; use a token that has it"
                )
                challenge = f'{_REALM}, error="insufficient_scope", scope="{policy.scope}"'
                await refuse(scope, receive, send, 403, detail, {"WWW-Authenticate": challenge})
                return
        if policy is None:
            await refuse(scope, receive, send, 404, f"no such path {scope['path']!r}; /docs lists them all")
            return
        await self.app(scope, receive, send)


class BodyGuard:
    """Refuses a body of a kind or size that its path does not take, also one that hides its size."""

    def __init__(self, app: "ASGIApp", seconds_max: float = BODY_SECONDS_MAX) -> None:
        self.app = app
        self.seconds_max = seconds_max

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
                f"content type {content_type!r} or its encoding is not taken by {scope['path']}; send Content-Type "
                f"{' or '.join(policy.body_bytes_max)}, in UTF-8 and not compressed"
            )
            await refuse(scope, receive, send, 415, detail, {"Accept-Post": ", ".join(policy.body_bytes_max)})
            return
        declared = _declared_bytes(scope)
        if declared > bytes_max:
            detail = _too_large(scope["path"], f"{declared} bytes", bytes_max)
            # The body is not read, so the connection cannot carry another request.
            await refuse(scope, receive, send, 413, detail, {"Connection": "close"})
            return
        await self.app(scope, _counted(receive, scope["path"], bytes_max, self.seconds_max), send)


def _counted(receive: "Receive", path: str, bytes_max: int, seconds_max: float) -> "Receive":
    """Returns a `receive` that raises when the body passes its bound or takes too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds_max
    received = 0
    is_whole = False

    async def counted() -> "Message":
        nonlocal received, is_whole
        if is_whole:
            # What follows a whole body is only the news that the client has gone, which may take its time.
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            detail = f"body of {path}: not whole after {seconds_max:g} seconds ({received} bytes came); send it faster"
            raise HTTPException(408, detail, {"Connection": "close"}) from error
        received += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        if received > bytes_max:
            raise TooLarge(_too_large(path, f"more than {bytes_max} bytes", bytes_max))
        return message

    return counted


def _too_large(path: str, size: str, bytes_max: int) -> str:
    return f"body of {path}: {size}, at most {bytes_max} are taken; send the rows in several requests"


def _content_type(scope: "Scope") -> str:
    """Returns the media type in lower case; with a character set other than UTF-8 it stays as it was sent."""
    values = headers_named(scope, b"content-type")
    sent = values[0].decode("latin-1") if len(values) == 1 else ""
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


def _without_port(host: str) -> str:
    """Returns a Host header's name in lower case, without port and without the dot of a rooted name."""
    name = host.strip().lower()
    if name.startswith("["):
        address, bracket, _ = name.partition("]")
        return address + bracket
    return name.partition(":")[0].removesuffix(".")
