"""The web pages: a handler gathers what only this worker knows, and the page process makes the page."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from server.errors import answer, status_of
from server.pages import plain
from server.pages.assets import assets
from server.pages.form import entities_from, fields_of, references_of
from server.pages.messages import PageAnswer, PageRequest
from server.routes.operations import ready_report
from server.same_site import require_same_site
from server.state import ServerState, state_of
from store.errors import LarderError
from store.requests import LookupRequest

router = APIRouter(include_in_schema=False)
Facts = dict[str, Any]


async def _no_facts(_state: ServerState) -> Facts:
    return {}


async def _standing(state: ServerState) -> Facts:
    """Returns how the store stands: whether it is ready, how fresh views are, and what the last audit found."""
    report, _ = await ready_report(state)
    return {"ready": report, **await _freshness(state), **await _audit(state)}


async def _looked_up(state: ServerState) -> Facts:
    """Returns how the store stands, and what lookups of each view were answered with."""
    # Several workers keep their counts in files.
    rates = await asyncio.to_thread(state.metrics.rates)
    since_us = state.store.clock.of_system_us(rates.since_us)
    return {**await _standing(state), "rates": {"since_us": since_us, "views": rates.views}}


async def _freshness(state: ServerState) -> Facts:
    try:
        return {"freshness": await state.store.freshness()}
    except LarderError as error:
        return {"freshness_problem": str(error)}


async def _audit(state: ServerState) -> Facts:
    kept, problems = await asyncio.to_thread(state.store.last_audit)
    return {"audit": None if kept is None else kept.report, "audit_problems": problems}


PAGES: dict[str, Callable[[ServerState], Awaitable[Facts]]] = {
    "/": _standing,
    "/view": _looked_up,
    "/feature": _no_facts,
    "/entity": _no_facts,
    "/source": _no_facts,
    "/service": _no_facts,
    "/training-set": _no_facts,
    "/lineage": _no_facts,
    "/freshness": _looked_up,
    "/drift": _no_facts,
    "/audit": _audit,
    "/lookup": _no_facts,
}
"""Each page's path, and what only the worker knows of what it shows."""


async def page(request: Request) -> Response:
    """Returns a page."""
    state = state_of(request)
    facts = await PAGES[request.url.path](state)
    return sent(request, await state.pages.ask(page_request(request, facts)))


for path in PAGES:
    router.add_api_route(path, page, methods=["GET"])


@router.post("/lookup")
async def look_up(request: Request) -> Response:
    """Looks the key up that a person typed, and returns the page of the form with the answer."""
    require_same_site(request)
    state = state_of(request)
    fields = fields_of(await request.body())
    chosen = {name: fields.get(name, "") for name in ("service", "features")}
    told: Facts = {"fields": fields}
    try:
        told |= await _answer(state, chosen, fields)
    except LarderError as error:
        told |= {"problem": str(error), "status": status_of(error)}
    return sent(request, await state.pages.ask(page_request(request, {"lookup": told}, chosen)))


async def _answer(state: ServerState, chosen: dict[str, str], fields: dict[str, str]) -> Facts:
    service = chosen["service"] or None
    references = [] if service else references_of(chosen["features"])
    entities = entities_from(state.store.given_columns(references, service), fields)
    began = time.perf_counter()
    request = LookupRequest(entities=entities, features=references, feature_service=service, full_feature_names=True)
    found = await state.store.lookup(request)
    ms = 1000 * (time.perf_counter() - began)
    state.metrics.count_lookup(found)
    return {"content": found.content.decode(), "now_us": found.now_us, "ms": round(ms, 2)}


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    """Returns one of the files that pages load; under the address of its content it never changes."""
    asset = assets().get(name)
    if asset is None:
        return answer(404, f"no such file {name!r}; pages load {sorted(assets())}")
    is_addressed = request.query_params.get("v") == asset.digest
    keeping = "public, max-age=31536000, immutable" if is_addressed else "no-cache"
    headers = {"Cache-Control": keeping, "X-Content-Type-Options": "nosniff"}
    return Response(asset.content, headers=headers, media_type=asset.content_type)


def page_request(request: Request, facts: Facts, query: dict[str, str] | None = None) -> PageRequest:
    """Returns what the page process needs to know of a request.

    Args:
        query: stands for the parameters of a form that was posted.
    """
    state = state_of(request)
    return PageRequest(
        page=request.url.path.removeprefix("/"),
        query=dict(request.query_params) if query is None else query,
        base_url=f"{request.url.scheme}://{request.headers['host']}",
        user=request.scope.get("larder.user", ""),
        has_tokens=state.tokens is not None,
        now_us=state.store.clock.now_us(),
        facts=msgspec.to_builtins(facts),
    )


def sent(request: Request, made: PageAnswer) -> Response:
    """Returns a page as it is sent: with the headers that keep it to itself, or 304 where the reader has it already."""
    headers = dict(plain.HEADERS)
    if made.status == 200 and request.method == "GET":
        headers["ETag"] = f'"{blake2b(made.content, digest_size=12).hexdigest()}"'
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
    elif request.method != "GET":
        headers["Cache-Control"] = "no-store"
    return Response(made.content, made.status, headers, made.content_type)
