"""Where our server answers otherwise than Feast's on purpose: each difference by the name it has in ARCHITECTURE.md."""

import json
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from typing import Any

import httpx

LOOKUP, PUSH, WRITE = "/get-online-features", "/push", "/write-to-online-store"
EPOCH = "1970-01-01T00:00:00Z"
COMPUTED = ("added", "doubled", "asked_only", "sum", "twice", "more")
"""On-demand views and their features."""
UNLOADABLE = ("int64_null", "map", "array_of_map", "zoned", "scalar_map")
"""Views that Feast cannot materialize, beside those without entities."""


@dataclass(frozen=True)
class Cell:
    """One value of an answer."""

    value: Any
    status: str
    time: str | None


@dataclass(frozen=True)
class Seen:
    """Something in which two answers to one request differ.

    Args:
        what: `status`, the status codes; `refusal`, the bodies of refusals with one code; `body`, those of accepted
            writes; `metadata`, what stands beside the names of columns; `names`, these names; or `cell`.
        feasts, ours: both sides of it, of the kind that `what` says; statuses with the body that came.
        column: of a cell.
    """

    path: str
    body: Any
    what: str
    feasts: Any
    ours: Any
    column: str = ""

    @property
    def view(self) -> str:
        """The view of the first feature asked for."""
        features = self.body.get("features") if isinstance(self.body, dict) else None
        return str(features[0]).split(":")[0] if features else ""


def differences(path: str, body: Any, feasts: httpx.Response, ours: httpx.Response) -> Iterator[Seen]:
    """Yields all in which two answers differ."""
    if feasts.status_code != ours.status_code:
        yield Seen(path, body, "status", (feasts.status_code, feasts.text), (ours.status_code, ours.text))
    elif feasts.status_code != 200:
        yield Seen(path, body, "refusal", feasts.json(), ours.json())
    elif path != LOOKUP:
        yield Seen(path, body, "body", feasts.content, ours.json())
    else:
        yield from _of_answers(body, feasts.json(), ours.json())


def _of_answers(body: Any, feasts: Any, ours: Any) -> Iterator[Seen]:
    their_names, our_names = (answer["metadata"].pop("feature_names") for answer in (feasts, ours))
    if their_names != our_names:
        yield Seen(LOOKUP, body, "names", their_names, our_names)
    for name in ("metadata", *sorted((feasts.keys() | ours.keys()) - {"metadata", "results"})):
        if feasts.get(name) != ours.get(name):
            yield Seen(LOOKUP, body, "metadata", feasts.get(name), ours.get(name))
    by_name = dict(zip(our_names, ours["results"], strict=True))
    for name, vector in zip(their_names, feasts["results"], strict=True):
        for theirs, our in zip(_cells(vector), _cells(by_name[name]), strict=True):
            if not is_same(astuple(theirs), astuple(our)):
                yield Seen(LOOKUP, body, "cell", theirs, our, column=name)


def is_same(theirs: Any, ours: Any) -> bool:
    """Whether two values are the same JSON: 1 and 1.0 are not, nor are 0.0 and -0.0; objects have no order."""
    return json.dumps(theirs, sort_keys=True) == json.dumps(ours, sort_keys=True)


def _cells(vector: dict[str, list[Any]]) -> list[Cell]:
    assert vector.keys() == {"values", "statuses", "event_timestamps"}
    return [Cell(*cell) for cell in zip(vector["values"], vector["statuses"], vector["event_timestamps"], strict=True)]


def _statuses(feasts: int | tuple[int, ...], ours: int | tuple[int, ...], *said: str) -> Callable[[Seen], bool]:
    """Returns whether the codes are these, and ours comes with one of some words."""
    theirs = (feasts,) if isinstance(feasts, int) else feasts
    our = (ours,) if isinstance(ours, int) else ours

    def matches(seen: Seen) -> bool:
        is_these = seen.what == "status" and seen.feasts[0] in theirs and seen.ours[0] in our
        return is_these and (not said or any(words in seen.ours[1] for words in said))

    return matches


def _cell(check: Callable[[Seen, Cell, Cell], bool]) -> Callable[[Seen], bool]:
    return lambda seen: seen.what == "cell" and check(seen, seen.feasts, seen.ours)


def _is_entity_or_computed(seen: Seen) -> bool:
    name = seen.column
    return name in seen.body["entities"] or name.split("__")[0] in COMPUTED


def _is_unknown_key(seen: Seen, feasts: Cell, ours: Cell) -> bool:
    return feasts == Cell(None, "PRESENT", EPOCH) and ours == Cell(None, "NOT_FOUND", None)


def _is_expired(seen: Seen, feasts: Cell, ours: Cell) -> bool:
    return feasts.status == "PRESENT" and ours == Cell(None, "OUTSIDE_MAX_AGE", feasts.time)


def _is_null(seen: Seen, feasts: Cell, ours: Cell) -> bool:
    is_null = feasts.value in (None, -(2**63)) and feasts.status == "PRESENT" and ours.value is None
    is_of_the_row = ours.time is not None and feasts.time in (ours.time, EPOCH)
    return is_null and ours.status == "NULL_VALUE" and is_of_the_row and seen.view not in UNLOADABLE


def _is_without_time(seen: Seen, feasts: Cell, ours: Cell) -> bool:
    is_null = (feasts.value, feasts.status, ours.status) == (None, "PRESENT", "NULL_VALUE")
    is_equal = is_same(feasts.value, ours.value) and (feasts.status == ours.status or is_null)
    return _is_entity_or_computed(seen) and is_equal and feasts.time == EPOCH and ours.time is None


def _is_nan(seen: Seen, feasts: Cell, ours: Cell) -> bool:
    return seen.view == "nan" and feasts == Cell(None, "PRESENT", ours.time) and ours.value == "NaN"


def _is_float_in_struct(seen: Seen, feasts: Cell, ours: Cell) -> bool:
    return seen.column.endswith("struct") and feasts == ours and isinstance(feasts.value["a"], float)


def _is_empty_list_in_list(seen: Seen, feasts: Cell, ours: Cell) -> bool:
    return feasts == Cell([None], "PRESENT", ours.time) and ours.value == [[]]


def _is_unloaded(views: tuple[str, ...]) -> Callable[[Seen, Cell, Cell], bool]:
    def check(seen: Seen, feasts: Cell, ours: Cell) -> bool:
        is_there = ours.status in ("PRESENT", "NULL_VALUE") and ours.time is not None
        return seen.view in views and feasts == Cell(None, "PRESENT", EPOCH) and is_there

    return check


def _is_zero_for_null(seen: Seen, feasts: Cell, ours: Cell) -> bool:
    return feasts.value == [0.0] and ours == Cell(["NaN"], "PRESENT", feasts.time)


def _is_last_of_a_tie(seen: Seen, feasts: Cell, ours: Cell) -> bool:
    first_and_last = {"n": (1, 2), "x": (1.0, 2.0), "s": ("a", "b")}.get(seen.column)
    is_twice = len(set(seen.body["entities"].get("k", ()))) < len(seen.body["entities"].get("k", ()))
    return is_twice and (feasts.value, ours.value) == first_and_last and feasts.time == ours.time


def _is_another_order(seen: Seen) -> bool:
    if seen.what != "names" or sorted(seen.feasts) != sorted(seen.ours):
        return False
    features = [name for name in seen.ours if name not in seen.body["entities"]]
    asked = [reference.split(":")[-1] for reference in seen.body.get("features", [])]
    return not asked or [name.split("__")[-1] for name in features] == asked


def _is_lost_computation(seen: Seen) -> bool:
    return (
        seen.what == "names" and set(seen.ours) - set(seen.feasts) == {"added__sum"} and seen.body["full_feature_names"]
    )


def _has_no_rows_or_null_keys(seen: Seen) -> bool:
    columns = seen.body["entities"].values() if isinstance(seen.body, dict) else []
    return any(column == [] or None in column for column in columns)


def _frame(seen: Seen) -> dict[str, Any]:
    """Returns the rows of a push or write; none of a body that has no rows."""
    frame = seen.body.get("df") if isinstance(seen.body, dict) else None
    return frame if isinstance(frame, dict) else {}


def _is_typed_json(seen: Seen) -> bool:
    is_typed = seen.path != LOOKUP and _frame(seen).keys() >= {"k", "created"}
    return is_typed and ("v" in _frame(seen) or _frame(seen).get("x") == ["NaN"]) and _statuses(500, 200)(seen)


def _is_incomplete_row(seen: Seen) -> bool:
    is_lacking = "k" in _frame(seen) and not _frame(seen).keys() >= {"n", "created"} and "v" not in _frame(seen)
    return is_lacking and _statuses(500, 200)(seen)


def _is_bad_request(seen: Seen) -> bool:
    is_both = "got both" in seen.ours[1] if seen.what == "status" else False
    return _statuses(500, (404, 422))(seen) and not is_both


@dataclass(frozen=True)
class Intended:
    """A difference on purpose: its name, which is what Feast does, and whether something seen is an instance of it."""

    name: str
    explains: Callable[[Seen], bool]


INTENDED = (
    Intended("an unknown key is PRESENT, from 1970", _cell(_is_unknown_key)),
    Intended("ttl plays no part online", _cell(_is_expired)),
    Intended("a null is PRESENT, a null timestamp -2^63; a row of nulls is from 1970", _cell(_is_null)),
    Intended("join keys and computed features are from 1970", _cell(_is_without_time)),
    Intended("features come in any order", _is_another_order),
    Intended("full_feature_names lose what on-demand views of mode python compute", _is_lost_computation),
    Intended("a NaN in a file is materialized as a null", _cell(_is_nan)),
    Intended(
        "2^63-1 beside a null, maps, lists of maps and zoned timestamps cannot be materialized",
        _cell(_is_unloaded(UNLOADABLE)),
    ),
    Intended(
        "views without entities can neither be materialized nor asked for alone",
        lambda seen: (
            _cell(_is_unloaded(("world",)))(seen)
            or (seen.path == LOOKUP and seen.view == "world" and _statuses(500, 200)(seen))
        ),
    ),
    Intended("integers in structs, beside a null, are materialized as floats", _cell(_is_float_in_struct)),
    Intended("an empty list in a list is a null", _cell(_is_empty_list_in_list)),
    Intended("a null in a pushed list of numbers is 0", _cell(_is_zero_for_null)),
    Intended(
        'keys and values of another type are converted: "1", 1.0, 1.5 and true to 1, 5 to "5"',
        _statuses(200, 422, "does not fit the declared type", "has the value"),
    ),
    Intended(
        "unknown columns and fields are ignored",
        _statuses(200, 422, "neither a join key nor", "unknown field", "unknown: ["),
    ),
    Intended(
        "a join key may be missing, or go by the name of its entity or by its own beside an alias",
        _statuses(200, 422, "is missing from the entity columns"),
    ),
    Intended(
        '"yes" is true, 5 is a column of 5s, and no columns at all are a push',
        _statuses(200, 422, "Expected `bool`", "Expected `array`", "no columns"),
    ),
    Intended(
        "features beside a feature service are ignored",
        lambda seen: seen.what == "status" and ("got both" in seen.ours[1]),
    ),
    Intended("500 for what the caller got wrong", _is_bad_request),
    Intended(
        "500 for null keys and empty lists",
        lambda seen: seen.path == LOOKUP and _statuses(500, 200)(seen) and _has_no_rows_or_null_keys(seen),
    ),
    Intended(
        "500 for timestamps, bytes, numbers that are not finite, lists of maps and zoned timestamps in pushed JSON",
        _is_typed_json,
    ),
    Intended("500 for a row without its created time, or without one of the features", _is_incomplete_row),
    Intended("rows from the future are taken", _statuses(200, 422, "s after now")),
    Intended("of pushed rows that tie the first stands", _cell(_is_last_of_a_tie)),
    Intended(
        "500 for a reference to a version where versions are off",
        lambda seen: seen.path == LOOKUP and "@" in seen.view and _statuses(500, 200)(seen),
    ),
    Intended(
        "404 for a request field that is missing, 422 for an unknown push source",
        lambda seen: _statuses(404, 422, "request field")(seen) or _statuses(422, 404, "push source")(seen),
    ),
    Intended(
        "refusals have several forms",
        lambda seen: seen.what == "refusal" and seen.ours.keys() == {"detail"} and isinstance(seen.ours["detail"], str),
    ),
    Intended(
        "pushes and writes answer nothing",
        lambda seen: seen.what == "body" and seen.feasts in (b"", b"null") and seen.ours.keys() == {"rows"},
    ),
)
"""All of them; a stale one fails the test, as does something seen that is not an instance of exactly one."""
