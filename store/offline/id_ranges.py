"""Of which events of the log a landed file holds the rows: ranges of ids by partition, in its metadata."""

import json
from collections.abc import Iterable, Mapping

import pyarrow as pa

from store.errors import SourceUnreadable

ID_RANGES_KEY = b"larder.ids"

IdRange = tuple[int, int]
"""The first and last id of some rows."""

IdRanges = Mapping[str, IdRange]
"""By log and partition the first and last id of the rows of a file."""


def id_ranges(path: str, metadata: Mapping[bytes, bytes] | None) -> IdRanges:
    """Returns what the metadata of a file says; nothing for one that did not come from the log.

    Raises:
        SourceUnreadable: it is nothing that Larder wrote.
    """
    if not metadata or ID_RANGES_KEY not in metadata:
        return {}
    try:
        return {name: (int(first), int(last)) for name, (first, last) in json.loads(metadata[ID_RANGES_KEY]).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise SourceUnreadable(
            f"source file {path!r} says under {ID_RANGES_KEY.decode()!r} nothing that Larder wrote; take it away"
        ) from error


def united(parts: Iterable[IdRanges]) -> dict[str, IdRange]:
    """Returns the ranges of ids of a file that holds the rows of several files."""
    whole: dict[str, IdRange] = {}
    for ranges in parts:
        for name, (first, last) in ranges.items():
            low, high = whole.get(name, (first, last))
            whole[name] = min(low, first), max(high, last)
    return whole


def with_ranges(schema: pa.Schema, ranges: IdRanges) -> pa.Schema:
    """Returns the schema of a file that says such ranges; the same one where there are none."""
    if not ranges:
        return schema
    said = json.dumps({name: list(ends) for name, ends in sorted(ranges.items())})
    return schema.with_metadata({ID_RANGES_KEY: said.encode()})
