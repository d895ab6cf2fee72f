"""Entity keys as small integers, so that a search compares one number instead of columns of any types."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.kernel.instants import NO_ROW, Ints

_COMBINED_MAX = 2**62


@dataclass(frozen=True, slots=True)
class KeyCodes:
    """The keys of some entity rows.

    Shapes: `codes` has one number per entity row, `NO_ROW` where a part of the key is null; `keys` has one row per
    distinct key, columns `k0..` and `code`, None where rows have no key columns (all codes are then 0).
    """

    codes: Ints
    keys: pa.Table | None


def key_codes(columns: Sequence[pa.Array], row_count: int) -> KeyCodes:
    """Returns codes for the keys in some columns of one length: 0, 1, ... in no particular order."""
    if not columns:
        return KeyCodes(np.zeros(row_count, dtype=np.int64), None)
    encoded = [_storage(column).dictionary_encode() for column in columns]
    is_whole = np.ones(row_count, dtype=bool)
    combined = np.zeros(row_count, dtype=np.int64)
    reach = 1
    for part in encoded:
        is_whole &= pc.is_valid(part.indices).to_numpy(zero_copy_only=False)
        size = max(len(part.dictionary), 1)
        if reach * size > _COMBINED_MAX:
            _, combined = np.unique(combined, return_inverse=True)
            reach = row_count
        combined = combined * size + pc.fill_null(part.indices, 0).to_numpy(zero_copy_only=False)
        reach *= size
    if len(encoded) == 1:
        codes = np.where(is_whole, combined, NO_ROW)
        [part] = encoded
        keys = {"k0": _like(columns[0], part.dictionary)}
        return KeyCodes(codes, pa.table({**keys, "code": np.arange(len(part.dictionary))}))
    distinct, first, codes = np.unique(combined[is_whole], return_index=True, return_inverse=True)
    all_codes = np.full(row_count, NO_ROW)
    all_codes[is_whole] = codes
    examples = pa.array(np.flatnonzero(is_whole)[first])
    found = [pc.take(part.dictionary, part.indices.take(examples)) for part in encoded]
    keys = {f"k{i}": _like(columns[i], part) for i, part in enumerate(found)}
    return KeyCodes(all_codes, pa.table({**keys, "code": np.arange(len(distinct))}))


def _storage(column: pa.Array) -> pa.Array:
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _like(column: pa.Array, values: pa.Array) -> pa.Array:
    """Returns values of a column's storage in its own type."""
    return pa.ExtensionArray.from_storage(column.type, values) if isinstance(column, pa.ExtensionArray) else values
