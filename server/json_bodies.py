"""JSON bodies that give the same key twice: parsers keep one value of the two, and the caller never learns which."""

import json
import re
from mmap import mmap
from typing import Any

import msgspec

from store.errors import BadBody, shown

_SPACED_KEY = re.compile(rb'"[ \t\r\n]+:')
_Parts = dict[str, msgspec.Raw]
_parts_of = msgspec.json.Decoder(_Parts).decode


def refuse_repeated_keys(body: bytes | mmap, distinct_min: int = 0) -> None:
    """Checks that no object of a valid JSON object gives a key twice.

    Args:
        distinct_min: how many distinct keys the body is known to have at least.

    Counting comes first, a hundred times as fast as looking: a key is text and then a colon, so where there are not
    more of these than distinct keys, none is given twice.

    Raises:
        BadBody: a key is given twice; it is named.
    """
    # A mapped file finds but does not count.
    body = body if isinstance(body, bytes) else bytes(body)
    keys_max = body.count(b'":') + len(_SPACED_KEY.findall(body))
    if keys_max <= distinct_min:
        return
    fields = _parts_of(body)
    columns = [_parts_of(value) for value in fields.values() if memoryview(value)[:1].tobytes() == b"{"]
    if keys_max > len(fields) + sum(map(len, columns)):
        # Text with a quote and a colon in it, or objects within values, or indeed a key given twice.
        json.loads(body, object_pairs_hook=_without_repetition, parse_int=str, parse_float=str)


def _without_repetition(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise BadBody(f"body: the key {shown(key)} is given twice in one object; give it once")
        seen.add(key)
