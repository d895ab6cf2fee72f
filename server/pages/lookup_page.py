"""The page that looks a key up: choose a service or features, fill in the key, see the answer."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from server.pages.asked import Asked, Screen
from server.pages.form import FLOATS, INTEGERS, KEY_PREFIX, references_of
from server.pages.shown import DASH, duration, instant, number
from store.clock import to_us
from store.errors import LarderError
from store.kernel.definitions import Column

_LEVELS = {"PRESENT": "good", "NULL_VALUE": "calm", "NOT_FOUND": "warn", "OUTSIDE_MAX_AGE": "warn"}
_ROWS_MAX = 12


def lookup(asked: Asked) -> Screen:
    """Returns the form, and the answer if it was sent."""
    query, told = asked.request.query, asked.request.facts.get("lookup") or {}
    service, features = query.get("service", ""), query.get("features", "").replace("\r\n", "\n")
    # A service that is chosen counts; the other field may still hold what was named before.
    features = "" if service else features
    is_chosen = bool(service or features.strip())
    fields, problem, references = [], "", []
    if is_chosen:
        try:
            references = references_of(features)
            given = asked.service.given_columns(references, service or None)
            fields = [_field(column, told.get("fields") or {}) for column in given.values()]
        except LarderError as error:
            problem = str(error)
    values = {
        "service_names": list(asked.catalogue.services),
        "service": service,
        "features": features,
        "feature_rows": min(_ROWS_MAX, max(3, len(references))),
        "feature_count": len(references),
        "is_chosen": is_chosen,
        "choice_problem": problem,
        "fields": fields,
        "problem": "" if problem else told.get("problem", ""),
        "problem_status": told.get("status", ""),
        "answer": _answer(told) if told.get("content") else None,
    }
    return Screen("lookup.html", "Lookup", values)


def _field(column: Column, typed: Mapping[str, str]) -> dict[str, Any]:
    kind = column.type_name
    hints = {"UNIX_TIMESTAMP": "2013-12-05T18:00:00Z", "BYTES": "base64"}
    is_listed = kind.endswith(("_LIST", "_SET")) or kind in {"MAP", "STRUCT", "JSON"}
    return {
        "name": column.name,
        "key": f"{KEY_PREFIX}{column.name}",
        "type": kind,
        "is_choice": kind == "BOOL",
        "mode": "numeric" if kind in INTEGERS else "decimal" if kind in FLOATS else "text",
        "value": typed.get(f"{KEY_PREFIX}{column.name}", ""),
        "hint": hints.get(kind, "JSON" if is_listed else ""),
    }


def _answer(told: Mapping[str, Any]) -> dict[str, Any]:
    answer = json.loads(told["content"])
    rows = [
        _row(name, column, told["now_us"])
        for name, column in zip(answer["metadata"]["feature_names"], answer["results"], strict=True)
    ]
    return {"at": told["now_us"], "ms": number(told.get("ms")), "rows": rows}


def _row(name: str, column: Mapping[str, Any], now_us: int) -> dict[str, Any]:
    [value], [status], [event] = column["values"], column["statuses"], column["event_timestamps"]
    event_us = None if event is None else to_us(datetime.fromisoformat(event))
    return {
        "name": name,
        "value": None if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
        "status": status,
        "level": _LEVELS.get(status, "calm"),
        "event": instant(event_us),
        "age": DASH if event_us is None else duration(now_us - event_us),
    }
