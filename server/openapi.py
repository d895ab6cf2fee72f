"""The OpenAPI document: bodies and answers are described by the structs that really parse and build them."""

from typing import TYPE_CHECKING, Any

import msgspec

from server import schemas
from server.policy import POLICIES

if TYPE_CHECKING:
    from fastapi import FastAPI

_STRUCTS = (
    schemas.LookupBody,
    schemas.LookupAnswerBody,
    schemas.HistoricalBody,
    schemas.PushBody,
    schemas.WriteBody,
    schemas.MaterializeBody,
    schemas.MaterializeIncrementalBody,
    schemas.RowsAccepted,
    schemas.Refusal,
)
_REFUSAL = {
    "description": "Refused or failed; `detail` says what was wrong and what to do.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
}


def json_body(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Returns the description of a JSON request body."""
    schema = {"$ref": f"#/components/schemas/{struct.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def json_answer(description: str, struct: type[msgspec.Struct] | None = None) -> dict[str, Any]:
    """Returns the description of a JSON answer; without a struct it is any object."""
    schema = {"$ref": f"#/components/schemas/{struct.__name__}"} if struct else {"type": "object"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def flag(name: str, description: str) -> dict[str, Any]:
    """Returns the description of a query parameter that is true or false."""
    return {"name": name, "in": "query", "description": description, "schema": {"type": "boolean", "default": False}}


def describe(app: "FastAPI", *, has_tokens: bool) -> None:
    """Makes an app's OpenAPI document complete, computed once when it is first asked for."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            _, components = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
            document.setdefault("components", {})["schemas"] = components
            if has_tokens:
                document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    operation["responses"].setdefault("default", _REFUSAL)
                    if has_tokens and POLICIES[path].scope is not None:
                        operation["security"] = [{"token": []}]
        assert app.openapi_schema is not None, "FastAPI keeps the document that it generates"
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
