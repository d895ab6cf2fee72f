"""The catalogue as JSON under `/api`; made by the page process, as the pages are."""

from typing import Any

from fastapi import APIRouter, Request, Response

from server.openapi import json_answer
from server.routes.pages import page_request, sent
from server.state import state_of

router = APIRouter(tags=["catalogue"])

_NAME = {"name": "name", "in": "query", "required": True, "schema": {"type": "string"}}
_VIEW = {"name": "view", "in": "query", "required": True, "schema": {"type": "string"}}


def _kind(*kinds: str) -> dict[str, Any]:
    return {"name": "kind", "in": "query", "schema": {"type": "string", "enum": list(kinds)}}


_KINDS = ("view", "feature", "service", "entity", "source", "training-set")
_PATHS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "/api/catalogue": (
        "What is registered, or what a search finds, the best first.",
        [
            {"name": "q", "in": "query", "description": "Words that must all match.", "schema": {"type": "string"}},
            _kind(*_KINDS),
            {"name": "offset", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999}},
            {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999}},
        ],
    ),
    "/api/view": ("A feature view.", [_NAME]),
    "/api/feature": ("A feature of a view.", [_VIEW, _NAME]),
    "/api/entity": ("An entity.", [_NAME]),
    "/api/source": ("A data source.", [_NAME]),
    "/api/service": ("A feature service.", [_NAME]),
    "/api/training-set": ("A saved training set.", [_NAME]),
    "/api/lineage": (
        "Who takes from whom: of everything, or around one object.",
        [_kind("view", "service", "source", "training-set"), {**_NAME, "required": False}],
    ),
}


async def described(request: Request) -> Response:
    """Returns what the registry holds, as JSON."""
    return sent(request, await state_of(request).pages.ask(page_request(request, {})))


for _path, (_summary, _parameters) in _PATHS.items():
    router.add_api_route(
        _path,
        described,
        methods=["GET"],
        summary=_summary,
        operation_id=_path.strip("/").replace("/", "_").replace("-", "_"),
        responses={200: json_answer(_summary)},
        openapi_extra={"parameters": _parameters},
    )
