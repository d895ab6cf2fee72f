"""The headers of many stored rows at a time, as columns."""

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple, cast

import numpy as np

from store.kernel.codec import HAS_CREATED, HAS_NANOSECONDS, PUSHED, decode_header

_EVENT_END = 11
"""Where the bytes end that every header has."""
_SIGN = np.uint64(2**63)


class HeaderColumns(NamedTuple):
    """When rows were true and known, in microseconds since the epoch and remaining nanoseconds; None for no row."""

    event_us: Sequence[int | None]
    event_ns: Sequence[int | None]
    created_us: Sequence[int | None]
    created_ns: Sequence[int | None]
    is_pushed: Sequence[bool | None]


def decode_headers(rows: Sequence[bytes | None]) -> HeaderColumns:
    """Returns the headers of stored rows, of which those that are all of one shape are read as arrays.

    Raises:
        StoredRowError: a row of a format that this version does not know, or cut short.
    """
    if not rows or None in rows:
        return _one_by_one(rows)
    whole = cast("Sequence[bytes]", rows)
    first = whole[0]
    if len(set(map(itemgetter(slice(0, 1)), whole))) > 1:
        return _one_by_one(rows)
    decode_header(first)  # refuses a format that is not known
    has_created, has_ns = bool(first[0] & HAS_CREATED), bool(first[0] & HAS_NANOSECONDS)
    created_end = _EVENT_END + 8 * has_created
    size = created_end + 4 * has_ns
    heads = b"".join(map(itemgetter(slice(size)), whole))
    if len(heads) != size * len(rows):
        return _one_by_one(rows)
    table = np.frombuffer(heads, np.uint8).reshape(len(rows), size)
    no_ns = [0] * len(rows)
    ns = _numbers(table[:, created_end:], ">u2") if has_ns else None
    return HeaderColumns(
        _instants(table[:, 3:_EVENT_END]),
        no_ns if ns is None else ns[:, 0].tolist(),
        _instants(table[:, _EVENT_END:created_end]) if has_created else [None] * len(rows),
        (no_ns if ns is None else ns[:, 1].tolist()) if has_created else [None] * len(rows),
        [bool(first[0] & PUSHED)] * len(rows),
    )


def _numbers(
    columns: "np.ndarray[tuple[int, int], np.dtype[np.uint8]]", kind: str
) -> "np.ndarray[tuple[int, int], np.dtype[np.uint64]]":
    return np.ascontiguousarray(columns).view(kind)


def _instants(columns: "np.ndarray[tuple[int, int], np.dtype[np.uint8]]") -> list[int]:
    unsigned = _numbers(columns, ">u8")[:, 0].astype(np.uint64)
    instants: list[int] = (unsigned ^ _SIGN).view(np.int64).tolist()
    return instants


def _one_by_one(rows: Sequence[bytes | None]) -> HeaderColumns:
    columns: list[tuple[int | bool | None, ...]] = []
    for row in rows:
        if row is None:
            columns.append((None,) * 5)
            continue
        times, is_pushed, *_ = decode_header(row)
        created_ns = None if times.created_us is None else times.created_ns
        columns.append((times.event_us, times.event_ns, times.created_us, created_ns, is_pushed))
    found = [list(column) for column in zip(*columns, strict=True)] or [[], [], [], [], []]
    return HeaderColumns(*found)
