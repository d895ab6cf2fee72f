"""Rows put beside the entity rows that they answer."""

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from store.kernel.instants import Ints, Truths

_WIDTHS = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}


class Gatherer:
    """Takes, for each entity row, the row at one place; a row without an answer gets nulls.

    Args:
        places: of the answers among the rows; they mean nothing where there is none.
        is_answered: whether there is one.
    """

    def __init__(self, places: Ints, is_answered: Truths) -> None:
        self._places = np.where(is_answered, places, 0)
        self._indices = pa.array(places, mask=~is_answered)
        self._null_count = int(len(places) - np.count_nonzero(is_answered))
        self._validity = None
        if self._null_count:
            self._validity = pa.py_buffer(np.packbits(is_answered, bitorder="little"))

    def taken(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Returns a column of the rows, aligned with the entity rows."""
        kind = column.type
        # Numbers and times without nulls are the common case, and NumPy takes them three times as fast as Arrow.
        is_plain = pat.is_integer(kind) or pat.is_floating(kind) or pat.is_timestamp(kind)
        if not is_plain or column.null_count or not len(column):
            return column.take(self._indices)
        array = column.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks)
        values = np.frombuffer(array.buffers()[1], dtype=_WIDTHS[kind.bit_width])
        taken = values[array.offset : array.offset + len(array)][self._places]
        buffers = [self._validity, pa.py_buffer(taken)]
        return pa.chunked_array([pa.Array.from_buffers(kind, len(taken), buffers, self._null_count)])
