"""Code to copy: how a training set is fetched and a key looked up, for exactly one object, ready to run."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from server.pages.shown import visible
from store.kernel.definitions import Column

TOKEN_VARIABLE = "LARDER_TOKEN"  # noqa: S105 - the name of a variable in code to copy
_INTEGERS = frozenset({"INT32", "INT64"})
_FLOATS = frozenset({"FLOAT", "DOUBLE", "DECIMAL"})
_LINE_CHARS = 88


@dataclass(frozen=True, slots=True)
class Code:
    """One piece of code: what it is for, and its text."""

    title: str
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Asking:
    """What code asks for, and where.

    Attributes:
        references: features as `view:feature`, where no service is asked for.
        given: columns to give, join keys and request data.
        folder: the feature repo's.
        base_url: of the server.
        now_us: the store's time.
    """

    references: Sequence[str]
    service: str
    given: Mapping[str, Column]
    folder: str
    base_url: str
    now_us: int
    has_tokens: bool


def code_for(asking: Asking) -> list[Code]:
    """Returns the ways to use something: for training, and for lookups by curl, by Python, and by Feast's SDK."""
    return [
        Code("Train (Python)", "python", _training(asking)),
        Code("Look up (curl)", "shell", _curl(asking)),
        Code("Look up (Python)", "python", _requests(asking)),
        Code("Look up (Feast SDK)", "python", _feast(asking)),
    ]


def _training(asking: Asking) -> str:
    at = datetime.fromtimestamp(asking.now_us // 60_000_000 * 60, UTC)
    columns = [f"        {literal(name)}: [{literal(_example(column))}],"
               for name, column in asking.given.items()]  # fmt: skip
    features = f"store.get_feature_service({literal(asking.service)})" if asking.service else _list(asking, "    ")
    return "\n".join([
        "import pandas as pd",
        "from feast import FeatureStore",
        "",
        f"store = FeatureStore({literal(asking.folder)})",
        "entity_df = pd.DataFrame(",
        "    {",
        *columns,
        f'        "event_timestamp": pd.to_datetime([{literal(f"{at:%Y-%m-%d %H:%M}")}], utc=True),',
        "    }",
        ")",
        f"training_df = store.get_historical_features(\n    entity_df=entity_df,\n    features={features},\n).to_df()",
        "print(training_df)",
    ])  # fmt: skip


def _feast(asking: Asking) -> str:
    features = f"store.get_feature_service({literal(asking.service)})" if asking.service else _list(asking, "    ")
    row = ", ".join(f"{literal(name)}: {literal(_example(column))}" for name, column in asking.given.items())
    return "\n".join([
        "from feast import FeatureStore",
        "",
        f"store = FeatureStore({literal(asking.folder)})",
        "answer = store.get_online_features(",
        f"    features={features},",
        f"    entity_rows=[{{{row}}}],",
        ")",
        "print(answer.to_dict())",
    ])  # fmt: skip


def _body(asking: Asking) -> dict[str, Any]:
    asked = {"feature_service": asking.service} if asking.service else {"features": list(asking.references)}
    return asked | {"entities": {name: [_plain(column)] for name, column in asking.given.items()}}


def _curl(asking: Asking) -> str:
    lines = [f"curl -s {shlex.quote(asking.base_url + '/get-online-features')}"]
    if asking.has_tokens:
        lines.append(f'-H "Authorization: Bearer ${TOKEN_VARIABLE}"')
    lines += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(_json(_body(asking)))}"]
    return " \\\n  ".join(lines)


def _requests(asking: Asking) -> str:
    headers = [f'    headers={{"Authorization": "Bearer " + os.environ[{literal(TOKEN_VARIABLE)}]}},']
    body = _body(asking)
    asked = (
        f'"feature_service": {literal(asking.service)}'
        if asking.service
        else f'"features": {_list(asking, "        ")}'
    )
    return "\n".join([
        *(["import os", ""] if asking.has_tokens else []),
        "import requests",
        "",
        "answer = requests.post(",
        f"    {literal(asking.base_url + '/get-online-features')},",
        *(headers if asking.has_tokens else []),
        "    json={",
        f"        {asked},",
        f'        "entities": {literal(body["entities"])},',
        "    },",
        "    timeout=5,",
        ")",
        "answer.raise_for_status()",
        "print(answer.json())",
    ])  # fmt: skip


def _list(asking: Asking, indent: str) -> str:
    listed = [literal(reference) for reference in asking.references]
    joined = ", ".join(listed)
    if len(joined) + len(indent) <= _LINE_CHARS:
        return f"[{joined}]"
    inner = f",\n{indent}    ".join(listed)
    return f"[\n{indent}    {inner},\n{indent}]"


# --- values and literals ----------------------------------------------------------------------


def _example(column: Column) -> Any:
    """Returns a value of a column's type, for Python: one that is to be replaced."""
    if column.type_name == "BYTES":
        return b"key"
    if column.type_name == "UNIX_TIMESTAMP":
        return 0
    return _plain(column)


def _plain(column: Column) -> Any:
    """Returns a value of a column's type, for JSON: one that is to be replaced."""
    kind = column.type_name
    if kind in _INTEGERS:
        return 1
    if kind in _FLOATS:
        return 1.5
    if kind == "BOOL":
        return True
    if kind == "BYTES":
        return "a2V5"
    if kind == "UNIX_TIMESTAMP":
        return "1970-01-01T00:00:00Z"
    if kind == "UUID":
        return "00000000-0000-0000-0000-000000000000"
    if kind.endswith(("_LIST", "_SET")):
        return []
    if kind in {"MAP", "STRUCT", "JSON"}:
        return {}
    return f"<{column.name}>" if len(column.name) <= _LINE_CHARS // 2 else "..."


def literal(value: Any) -> str:
    """Returns a value as Python has it, texts in double quotes and invisible characters escaped."""
    if isinstance(value, str):
        quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{_escaped(quoted)}"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(name)}: {literal(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(literal(each) for each in value) + "]"
    return repr(value)


def _escaped(text: str) -> str:
    # The joiner of emoji may be seen on a page, but not in code.
    return visible(text, len(text) + 1).replace("\u200d", "\\u200d")


def _json(value: Any) -> str:
    """Returns a value as JSON on one line, invisible characters escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)
