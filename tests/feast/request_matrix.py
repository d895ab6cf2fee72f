"""The requests that both servers are asked: lookups of every type and shape, pushes and writes in their shapes."""

import random
from collections.abc import Iterator
from typing import Any

from tests.feast.both_servers import FRESH
from tests.feast.intended import PUSH, WRITE
from tests.feast.value_matrix import ALONE, TYPES

ONE, MANY = {"k": [1]}, {"k": [1, 2, 3]}


def _ask(*features: str, **more: Any) -> dict[str, Any]:
    return {**({"features": list(features)} if features else {}), **more}


def of_types() -> list[dict[str, Any]]:
    """Lookups of each type: all its values, nulls and a key that nobody has."""
    rows = max(len(typed.rows) for typed in TYPES.values()) + 1
    keys = [*range(1, rows + 1), 99]
    return [
        *(_ask(f"kinds:{name}", entities={"k": keys}) for name in TYPES),
        _ask(*(f"kinds:{name}" for name in TYPES), entities={"k": keys}, full_feature_names=True),
        *(_ask(f"{name}:v", entities={"k": [*range(1, len(typed.rows) + 1), 99]}) for name, typed in ALONE.items()),
    ]


SHAPES: list[Any] = [
    _ask("users:n", entities=ONE),
    _ask("users:n", "users:s", "users:x", entities=MANY),
    _ask("users:n", entities={"k": [99]}),
    _ask("users:n", entities={"k": [1, 1, 99, 1]}),
    _ask("users:n", entities={"k": [None, 1]}),
    _ask("users:n", entities={"k": [None]}),
    _ask("users:n", entities={"k": []}),
    _ask("pairs:n", entities={"k": [], "city": []}),
    _ask("users:n", entities={}),
    _ask("users:n", entities={"k": list(range(1, 200))}),
    _ask("users:s", "users:n", "towns:n", entities={"k": [1], "city": ["york"]}, full_feature_names=True),
    _ask("users:n", "towns:n", "users:s", entities={"k": [1], "city": ["york"]}, full_feature_names=True),
    _ask("users:s", "towns:n", entities={"city": ["york"], "k": [1]}),
    _ask("pairs:n", "users:x", entities={"k": [1, 1, 2, 2], "city": ["york", "leeds", "york", "leeds"]}),
    _ask("pairs:n", entities={"city": ["york", "york"], "k": [2, 1]}),
    _ask("pairs:n", entities={"city": ["york", None], "k": [None, 1]}),
    _ask("towns:n", entities={"city": ["é", "", "york"]}),
    _ask("world:rate", entities={}),
    _ask("world:rate", entities=ONE),
    _ask("world:rate", "users:n", entities={"k": [1, 2]}),
    _ask("aging:n", entities=MANY),
    _ask("others:n", entities={"k": [1, 2]}),
    _ask("users:n", "others:n", entities={"k": [1, 2]}),
    _ask("users:n", "others:n", entities={"k": [1, 2]}, full_feature_names=True),
    _ask("users:n", "users:n", entities=ONE),
    _ask("users:n", "users:n", entities=ONE, full_feature_names=True),
    _ask("users:n", entities={"k": [2**63 - 1, -(2**63)]}),
    _ask(feature_service="plain", entities={"k": [1], "city": ["york"]}),
    _ask(feature_service="plain", entities={"k": [1], "city": ["york"]}, full_feature_names=True),
    _ask(feature_service="computed", entities={"k": [1, 3], "bonus": [1, 2]}),
    _ask(feature_service="computed", entities={"k": [1, 3], "bonus": [1, 2]}, full_feature_names=True),
    _ask(feature_service="computed", entities={"k": [2, 99], "bonus": [1, 2]}),
    _ask("added:sum", entities={"k": [1, 3], "bonus": [1, 2]}),
    _ask("added:sum", entities={"k": [], "bonus": []}),
    _ask("doubled:twice", entities={"k": [1, 3]}),
    _ask("doubled:twice", entities={"k": [2, 99]}),
    _ask("doubled:twice", "users:x", entities={"k": [1, 3]}),
    _ask("asked_only:more", entities={"bonus": [1, 3]}),
    _ask("asked_only:more", "users:n", entities={"bonus": [1, 3], "k": [1, 2]}),
    _ask(feature_service="renamed", entities={"giver_id": [1, 2], "taker_id": [3, 99]}, full_feature_names=True),
    _ask(feature_service="renamed", entities={"giver_id": [1, 2], "taker_id": [3, 99]}),
    _ask(feature_service="renamed", entities={"k": [1]}, full_feature_names=True),
    _ask(feature_service="clashing", entities=ONE),
    _ask(feature_service="clashing", entities=ONE, full_feature_names=True),
    _ask("users:n", entities=ONE, include_feature_view_version_metadata=True),
    _ask("users:n", "others:n", entities=ONE, include_feature_view_version_metadata=True, full_feature_names=True),
    _ask("users@v0:n", entities=ONE),
    _ask("users@v7:n", entities=ONE),
    # --- wrong in some way ---
    _ask("nope:n", entities=ONE),
    _ask("users:nope", entities=ONE),
    _ask(feature_service="nope", entities=ONE),
    _ask("users", entities=ONE),
    _ask(features=[], entities=ONE),
    _ask(entities=ONE),
    _ask("users:n"),
    _ask("users:n", feature_service="plain", entities=ONE),
    _ask("users:n", feature_service="nope", entities=ONE),
    _ask("users:n", feature_service="plain", entities={"k": [1], "city": ["york"]}, full_feature_names=True),
    _ask("users:n", entities={"key": [1]}),
    _ask("users:n", entities={"other": [1]}),
    _ask("users:n", entities={"k": [1], "typo": [1]}),
    _ask("pairs:n", entities={"k": [1]}),
    _ask("pairs:n", entities={"k": [1, 2], "city": ["york"]}),
    _ask("users:n", entities={"k": ["1"]}),
    _ask("users:n", entities={"k": [1.0]}),
    _ask("users:n", entities={"k": [1.5]}),
    _ask("users:n", entities={"k": ["x"]}),
    _ask("users:n", entities={"k": [True]}),
    _ask("users:n", entities={"k": [[1]]}),
    _ask("users:n", entities={"k": [{"a": 1}]}),
    _ask("users:n", entities={"k": [1, "1"]}),
    _ask("users:n", entities={"k": [2**63]}),
    _ask("users:n", entities={"k": 1}),
    _ask("towns:n", entities={"city": [5]}),
    _ask("towns:n", entities={"city": [True]}),
    _ask("users:n", entities=ONE, surplus=1),
    _ask("users:n", entities=ONE, full_feature_names="yes"),
    _ask("users:n", entities=ONE, full_feature_names=None),
    _ask(features="users:n", entities=ONE),
    _ask(features=[1], entities=ONE),
    _ask(feature_service=1, entities=ONE),
    _ask(feature_service="computed", entities=ONE),
    _ask("added:sum", entities={"k": [1], "bonus": ["x"]}),
    _ask("added:sum", entities={"k": [1], "bonus": [None]}),
    _ask("users:n", entities=[1]),
    [],
    "users:n",
]
"""Bodies of lookups."""


def _users(**changes: Any) -> dict[str, Any]:
    at = FRESH.isoformat()
    return {"k": [1000], "n": [7], "x": [0.5], "s": ["a"], "at": [at], "created": [at], **changes}


def _less(frame: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values for name, values in frame.items() if name not in names}


FRAMES: list[Any] = [
    _users(),
    _users(
        k=[1001, 1002],
        n=[1, None],
        x=[None, 1.5],
        s=["", None],
        at=[FRESH.isoformat()] * 2,
        created=[FRESH.isoformat()] * 2,
    ),
    _users(
        k=[1003, 1003],
        n=[1, 2],
        x=[1.0, 2.0],
        s=["a", "b"],
        at=[FRESH.isoformat()] * 2,
        created=[FRESH.isoformat()] * 2,
    ),
    _less(_users(k=[1004]), "created"),
    _users(k=[1005], created=[None]),
    _users(k=[]) | {name: [] for name in ("n", "x", "s", "at", "created")},
    {},
    _users(k=[None]),
    _users(k=["1"]),
    _users(k=["x"]),
    _users(k=[1006.0]),
    _less(_users(), "k"),
    _less(_users(k=[1007]), "n"),
    _less(_users(k=[1008]), "at"),
    _users(k=[1009], typo=[1]),
    _users(k=[1010], n=["5"]),
    _users(k=[1011], n=["x"]),
    _users(k=[1012], n=[1.5]),
    _users(k=[1013], n=[True]),
    _users(k=[1014], s=[5]),
    _users(k=[1015], x=["NaN"]),
    _users(k=[1016], at=[None]),
    _users(k=[1017], at=["soon"]),
    _users(k=[1018], at=["2100-01-01T00:00:00"]),
    _users(k=[1019], at=[FRESH.replace(tzinfo=None).isoformat()]),
    _users(k=[1020], n=[1, 2]),
    _users(k=[1021], n=[2**63]),
    _users(k=[1022], n=5),
    [1],
]
"""Rows for the view `users` and its push source."""

ENVELOPES: list[tuple[str, Any]] = [
    (PUSH, {"push_source_name": "users_push", "df": _users(k=[2000]), "to": "online"}),
    (PUSH, {"push_source_name": "users_push", "df": _users(k=[2001]), "to": "offline"}),
    (PUSH, {"push_source_name": "users_push", "df": _users(k=[2002]), "to": "online_and_offline"}),
    (PUSH, {"push_source_name": "users_push", "df": _users(k=[2003]), "to": "nowhere"}),
    (PUSH, {"push_source_name": "nope", "df": _users(k=[2004])}),
    (PUSH, {"df": _users(k=[2005])}),
    (PUSH, {"push_source_name": "users_push"}),
    (PUSH, {"push_source_name": "users_push", "df": _users(k=[2006]), "surplus": 1}),
    (
        PUSH,
        {
            "push_source_name": "users_push",
            "df": _users(k=[2007]),
            "allow_registry_cache": False,
            "transform_on_write": False,
        },
    ),
    (PUSH, []),
    (WRITE, {"feature_view_name": "users", "df": _users(k=[2010]), "allow_registry_cache": False}),
    (WRITE, {"feature_view_name": "users", "df": _users(k=[2011]), "surplus": 1}),
    (WRITE, {"feature_view_name": "nope", "df": _users(k=[2012])}),
    (WRITE, {"feature_view_name": "others", "df": _less(_users(k=[2013]), "x", "s")}),
    (WRITE, {"df": _users(k=[2014])}),
    (WRITE, {"feature_view_name": "users"}),
    (WRITE, {"feature_view_name": "pairs", "df": {**_less(_users(k=[2015]), "x", "s"), "city": ["york"]}}),
    (WRITE, []),
]
"""Whole requests of pushes and writes, right and wrong."""


def writes() -> Iterator[tuple[str, Any]]:
    """Yields pushes and writes of right and wrong rows, each to keys of its own."""
    for number, path in enumerate((PUSH, WRITE)):
        for frame in FRAMES:
            yield _write(path, "users", _shifted(frame, 3000 * number))
    yield from ENVELOPES


def _shifted(frame: Any, shift: int) -> Any:
    is_shifted = isinstance(frame, dict) and all(type(key) is int for key in frame.get("k", ()))
    return {**frame, "k": [key + shift for key in frame["k"]]} if is_shifted and "k" in frame else frame


def _write(path: str, view: str, frame: Any) -> tuple[str, Any]:
    return path, {"push_source_name": f"{view}_push", "df": frame} if path == PUSH else {
        "feature_view_name": view,
        "df": frame,
    }


def writes_of_types(*, is_whole: bool) -> Iterator[tuple[str, str, Any]]:
    """Yields view, path and body for pushes and writes of values of each type, one by one.

    Args:
        is_whole: all values over both paths, or the last value and null, each over one.
    """
    at = FRESH.isoformat()
    for name, typed in {**TYPES, **ALONE}.items():
        said = [*(None if value is None else typed.as_json(value) for value in typed.rows), None]
        for number, value in enumerate(said):
            for path in (PUSH, WRITE):
                if (
                    is_whole
                    or (number == len(said) - 1 and path == WRITE)
                    or (number == len(said) - 2 and path == PUSH)
                ):
                    frame = {"k": [number + 100 * (path == PUSH)], "v": [value], "at": [at], "created": [at]}
                    yield (f"p_{name}", *_write(path, f"p_{name}", frame))


def random_lookup(generator: random.Random) -> dict[str, Any]:
    """Returns a lookup of some features by some keys, known, unknown, repeated."""
    features = [
        *(f"users:{name}" for name in "nxs"),
        "others:n",
        "aging:n",
        *(f"kinds:{name}" for name in TYPES),
        *(("pairs:n", "towns:n") if generator.random() < 0.5 else ()),
    ]
    asked = generator.sample(features, generator.randint(1, 8))
    count = generator.randint(1, 12)
    entities = {"k": [generator.choice([1, 2, 3, 4, 99, -1]) for _ in range(count)]}
    if any(feature.startswith(("pairs:", "towns:")) for feature in asked):
        entities["city"] = [generator.choice(["york", "leeds", "é", ""]) for _ in range(count)]
    if not any(not feature.startswith("towns:") for feature in asked):
        del entities["k"]
    return _ask(*asked, entities=entities, full_feature_names=True)
