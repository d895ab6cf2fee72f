"""Columns of events as integers of 64 bits and back: what the loops of windows work on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from store.kernel.instants import Ints, Truths
from store.kernel.sketches import hash_of
from store.kernel.window_events import Form, InputColumn, ordered_hashes

_US_PER_UNIT = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
_US_PER_DAY = (86_400_000_000, 1)


class ValueColumn:
    """One input column of a scan.

    Args:
        name: what features call it by.
        kind: the type in which DuckDB hands it over.
    """

    def __init__(self, name: str, kind: pa.DataType) -> None:
        self._name = name
        self._kind = kind
        # Each distinct text or run of bytes gets a number when it is first seen.
        self._codes: dict[Any, int] = {}

    def integers(self, array: pa.Array) -> tuple[Ints, Truths | None]:
        """Returns the integers that stand for values, and which are neither null nor NaN (None for all)."""
        is_counted = None if not array.null_count else pc.is_valid(array).to_numpy(zero_copy_only=False)
        kind = self._kind
        if pat.is_null(kind):
            return np.zeros(len(array), dtype=np.int64), np.zeros(len(array), dtype=bool)
        if self._form is Form.CODED:
            return self._coded(array), is_counted
        if pat.is_floating(kind):
            numbers = array.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
            is_number = ~np.isnan(numbers)
            # Adding zero makes one zero of both.
            return (numbers + 0.0).view(np.int64), None if is_number.all() else is_number
        narrow = pa.int32() if pat.is_date(kind) else pa.uint64() if self._form is Form.UNSIGNED else pa.int64()
        whole = array.cast(narrow).fill_null(0).to_numpy(zero_copy_only=False)
        return whole.view(np.int64) if self._form is Form.UNSIGNED else whole.astype(np.int64, copy=False), is_counted

    def input_column(self) -> InputColumn:
        """Returns what the integers mean, once all events were seen."""
        if self._form is Form.CODED:
            known = list(self._codes)
            ranks = np.empty(len(known), dtype=np.int64)
            ranks[sorted(range(len(known)), key=known.__getitem__)] = np.arange(len(known))
            hashes = np.fromiter(map(hash_of, known), np.uint64, len(known))
            return InputColumn(self._name, Form.CODED, ranks, ordered_hashes(hashes))
        scale = (1, 1)
        if pat.is_timestamp(self._kind):
            scale = _US_PER_UNIT[self._kind.unit]
        elif pat.is_date(self._kind):
            scale = _US_PER_DAY
        return InputColumn(self._name, self._form, us_scale=scale)

    def values(self, integers: Ints, is_valid: Truths) -> pa.Array:
        """Returns the values that integers stand for, null where not valid."""
        kind, is_null = self._kind, ~is_valid
        if pat.is_null(kind):
            return pa.nulls(len(integers))
        if self._form is Form.CODED:
            return pa.array(list(self._codes), kind).take(pa.array(integers, mask=is_null))
        if pat.is_floating(kind):
            return pa.array(integers.view(np.float64), mask=is_null, from_pandas=False).cast(kind)
        if pat.is_boolean(kind):
            return pa.array(integers != 0, mask=is_null)
        if self._form is Form.UNSIGNED:
            return pa.array(integers.view(np.uint64), mask=is_null)
        whole = pa.array(integers, mask=is_null)
        return whole.cast(pa.int32()).cast(kind) if pat.is_date(kind) else whole.cast(kind)

    @property
    def _form(self) -> Form:
        kind = self._kind
        if pat.is_floating(kind):
            return Form.FLOAT
        if pat.is_uint64(kind):
            return Form.UNSIGNED
        is_plain = pat.is_null(kind) or pat.is_integer(kind) or pat.is_boolean(kind)
        return Form.SIGNED if is_plain or pat.is_timestamp(kind) or pat.is_date(kind) else Form.CODED

    def _coded(self, array: pa.Array) -> Ints:
        encoded = array.dictionary_encode()
        codes = self._codes
        known = [codes.setdefault(value, len(codes)) for value in encoded.dictionary.to_pylist()]
        numbers = np.array(known or [0], dtype=np.int64)
        taken: Ints = numbers[encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)]
        return taken


def lists_of(elements: pa.Array, lengths: Sequence[int] | Ints, is_valid: Truths) -> pa.Array:
    """Returns lists of given lengths out of their elements, one after the other; null where not valid."""
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]).astype(np.int32)
    made = pa.ListArray.from_arrays(pa.array(offsets), elements)
    return made if is_valid.all() else pc.if_else(pa.array(is_valid), made, pa.scalar(None, made.type))
