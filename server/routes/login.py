"""Logging in to the pages with a token, and out again."""

import time

from fastapi import APIRouter, Request, Response

from server.auth import Scope
from server.limits import LOGIN_SECONDS
from server.pages.form import fields_of
from server.pages.plain import login_page
from server.same_site import require_same_site
from server.sessions import COOKIE, new_cookie
from server.state import state_of

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def login(request: Request) -> Response:
    """Returns the page that asks for a token; where there are none, there is nothing to log in to."""
    if state_of(request).tokens is None:
        return _to("/")
    return login_page(200, _own_path(request.query_params.get("next", "")))


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Checks a token and keeps the login in a cookie."""
    require_same_site(request)
    tokens = state_of(request).tokens
    if tokens is None:
        return _to("/")
    fields = fields_of(await request.body())
    wanted = _own_path(fields.get("next", ""))
    entry = tokens.find(fields.get("token", "").strip().encode())
    if entry is None:
        return login_page(401, wanted, "This token is not one of this server's. Check that all of it was copied.")
    if Scope.READ not in entry.scopes:
        scopes = ", ".join(sorted(entry.scopes))
        return login_page(403, wanted, f"This token may {scopes} and not read, which pages need. Use one that may.")
    answer = _to(wanted)
    answer.set_cookie(
        COOKIE,
        new_cookie(entry, time.time()),
        max_age=LOGIN_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """Forgets the login."""
    require_same_site(request)
    answer = _to("/login")
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return answer


def _to(path: str) -> Response:
    return Response(status_code=303, headers={"Location": path, "Cache-Control": "no-store"})


def _own_path(text: str) -> str:
    """Returns where to go after the login: a path of this server, and never another site."""
    is_own = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isascii() and text.isprintable()
    return text if is_own else "/"
