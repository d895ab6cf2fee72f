"""The columns of a lookup as Feast's JSON."""

import re
from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
from typing import Any, cast

import msgspec
import numpy as np

from store.clock import EARLIEST_US, LATEST_US, from_us, is_sayable
from store.online.json_form import JsonPart, converter
from store.online.lookup import Lookup
from store.online.stored_rows import NULL_VALUE, PRESENT, EventTimes, ViewRows
from store.requests import LookupAnswer

_encode = msgspec.json.Encoder().encode
_ARRAY_TIMES_MIN = 16
"""Event times from which on an array writes them faster than a loop."""
_MINUTE_US = 60_000_000
_MILLISECONDS = re.compile(rb'(\.\d{3})000"')


class _JsonColumn(msgspec.Struct, gc=False):
    """One column of the answer. Statuses and times are the same for most columns of a view, and then encoded once."""

    values: Sequence[Any]
    statuses: msgspec.Raw
    event_timestamps: msgspec.Raw


class _JsonAnswer(msgspec.Struct, gc=False):
    metadata: msgspec.Raw
    results: Sequence[_JsonColumn]


def json_answer(lookup: Lookup, found: Sequence[ViewRows], now_us: int, *, with_versions: bool) -> LookupAnswer:
    """Returns the answer to a lookup: join keys as and in the order given, then the features asked for."""
    form = lookup.plan.json_form
    entity_names, results = _entity_columns(lookup)
    counts: dict[tuple[str, str], int] = {}
    for part in form.parts:
        results += _columns(part, found[part.source], counts)
    names = b",".join((entity_names, form.names)) if entity_names else form.names
    versions = form.versions if with_versions else b""
    metadata = msgspec.Raw(b"".join((b'{"feature_names":[', names, b"]", versions, b"}")))
    content = _encode(_JsonAnswer(metadata, results))
    return LookupAnswer(
        content,
        now_us,
        lookup.row_count,
        counts,
        lookup.view_rows,
        lookup.future_rows,
        lookup.overflows,
        lookup.unknown_keys,
    )


def _columns(part: JsonPart, rows: ViewRows, counts: dict[tuple[str, str], int]) -> list[_JsonColumn]:
    """Returns the columns of one part, and counts their statuses."""
    values = rows.columns
    stamped = msgspec.Raw(times_json(rows.times))
    # A sum is finite only if all its terms are; then no float needs a look at each.
    if rows.is_whole and part.is_plain and isfinite(sum([sum(values[place]) for place in part.floats])):
        row_count = len(rows.times.us)
        key = part.view, PRESENT
        counts[key] = counts.get(key, 0) + row_count * len(part.features)
        said = _all_present(row_count)
        return [_JsonColumn(values[place], said, stamped) for place, _ in part.features]
    columns = []
    own_times = rows.feature_times
    written: dict[int, msgspec.Raw] = {}
    statuses: Sequence[str] | None = None
    said, alike = msgspec.Raw(), 0
    for place, convert in part.features:
        if rows.statuses[place] is not statuses:
            _count(counts, part.view, statuses or (), alike)
            statuses, alike = rows.statuses[place], 0
            said = msgspec.Raw(_encode(statuses))
        alike += 1
        ready = values[place] if convert is None else convert(values[place])
        at = stamped
        if own_times is not None:
            times = own_times[place]
            at = written.get(id(times)) or written.setdefault(id(times), msgspec.Raw(times_json(times)))
        columns.append(_JsonColumn(ready, said, at))
    _count(counts, part.view, statuses or (), alike)
    return columns


def _entity_columns(lookup: Lookup) -> tuple[bytes, list[_JsonColumn]]:
    """Returns the names of the join keys with commas between, and their columns."""
    names, columns = [], []
    no_times = msgspec.Raw(b"[" + b",".join([b"null"] * lookup.row_count) + b"]")
    for name, values in lookup.entities.items():
        if (column := lookup.plan.entity_columns.get(name)) is None:
            continue
        convert = converter(column.type_name)
        statuses = [NULL_VALUE if value is None else PRESENT for value in values]
        names.append(name)
        columns.append(
            _JsonColumn(values if convert is None else convert(values), msgspec.Raw(_encode(statuses)), no_times)
        )
    return _encode(names)[1:-1], columns


@lru_cache(maxsize=256)
def _all_present(row_count: int) -> msgspec.Raw:
    return msgspec.Raw(_encode([PRESENT] * row_count))


def _count(counts: dict[tuple[str, str], int], view: str, statuses: Sequence[str], columns: int) -> None:
    """Counts the statuses of some columns of one view that have them in common."""
    for status in set(statuses):
        counts[view, status] = counts.get((view, status), 0) + columns * statuses.count(status)


def times_json(times: EventTimes) -> bytes:
    """Returns event times as a JSON list; see `rfc3339`."""
    us = times.us
    if times.ns is None and len(us) >= _ARRAY_TIMES_MIN and None not in us:
        known = cast("Sequence[int]", us)
        if min(known) >= EARLIEST_US and max(known) <= LATEST_US:
            # As datetimes without a zone they are written in no time, but for the letter that says UTC, and with six
            # decimals where three are enough.
            written = _encode(np.array(known, np.int64).view("M8[us]").tolist())
            if b'000"' in written:
                written = _MILLISECONDS.sub(rb'\1"', written)
            return written[:-2].replace(b'",', b'Z",') + b'Z"]'
    ns = times.ns or [0] * len(us)
    return _encode([None if each is None else rfc3339(each, more) for each, more in zip(us, ns, strict=True)])


def rfc3339(us: int, ns: int = 0) -> str | None:
    """Returns an event time like `2013-07-01T12:00:00Z`, with as many of 0, 3, 6, 9 decimals as it needs.

    None outside of the years 1 to 9999, which neither RFC 3339 nor Feast's message can say: a source may hold such
    an event time, and one such row must not cost the caller the other rows.

    Source: the protobuf JSON mapping of Timestamp, which Feast's server uses.
    """
    if not is_sayable(us):
        return None
    minute, rest = divmod(us, _MINUTE_US)
    seconds, micros = divmod(rest, 1_000_000)
    if ns:
        return f"{_minute_text(minute)}{seconds:02}.{micros:06}{ns:03}Z"
    if micros % 1_000:
        return f"{_minute_text(minute)}{seconds:02}.{micros:06}Z"
    if micros:
        return f"{_minute_text(minute)}{seconds:02}.{micros // 1_000:03}Z"
    return f"{_minute_text(minute)}{seconds:02}Z"


@lru_cache(maxsize=4_096)
def _minute_text(minute: int) -> str:
    """Returns a minute since the epoch like `2013-07-01T12:00:`."""
    return from_us(minute * _MINUTE_US).isoformat()[:17]
