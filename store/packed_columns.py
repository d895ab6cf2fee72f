"""Arrow columns as packed rows, a whole batch at a time: what a materialization stores.

The bytes are those of `store.kernel.codec` and `store.kernel.keys`, whose encoders take one row of plain values; here
columns become columns of bytes that Arrow joins row by row, in a tenth of the time. Types that Arrow cannot turn into
their stored bytes go through those encoders, value by value.
"""

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.arrow_rows import TIME_COLUMNS
from store.errors import WrongType, shown
from store.feast_values import arrow_scalars, plain_from_arrow
from store.kernel.codec import HAS_CREATED, HAS_NANOSECONDS, HAS_NULLS, LONG_SIZE, RowLayout, first_byte, packer
from store.kernel.definitions import Column, ViewDefinition
from store.kernel.keys import INT_TYPES, TEXT_TYPES, encode_value, key_parts, too_large
from store.kernel.values import BLOBS, FIXED_FORMATS, FLOATS, TEXTS, element_type
from store.limits import REDIS_KEY_BYTES_MAX

_BYTES = pa.binary()
_BIAS = np.uint64(2**63)
_EMPTY = pa.scalar(b"", _BYTES)
_DTYPES = {"i": np.dtype("<i4"), "q": np.dtype("<i8"), "f": np.dtype("<f4"), "d": np.dtype("<f8"), "?": np.dtype("?")}
_LISTED = FLOATS.keys() | {"INT32", "INT64"}
"""Types whose lists lie in Arrow as they are stored."""

Truths = npt.NDArray[np.bool_]
Blocks = npt.NDArray[np.uint8]
"""One row of bytes for each row."""


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows ready to be stored: one entry per row with a whole key, in the order of the batch.

    Shapes: `keys` and `rows` are columns of bytes of the same length, without nulls.
    """

    keys: Any
    rows: Any


def packed_rows(definition: ViewDefinition, layout: RowLayout, schema_tag: int, batch: pa.RecordBatch) -> PackedRows:
    """Returns the rows of a batch that holds join keys and features by name, and `TIME_COLUMNS`.

    A row with a null in its key is left out, as nothing finds it.

    Raises:
        WrongType: a column that does not fit its declared type.
        TooLarge: an entity key of more than `REDIS_KEY_BYTES_MAX` bytes.
    """
    keys = entity_keys_of(definition, batch)
    pieces = _Pieces(batch.num_rows)
    fixed = [arrow_scalars(column, batch.column(column.name)) for column in layout.fixed]
    variable = [_raw(column, batch.column(column.name)) for column in layout.variable]
    nulls = np.empty((batch.num_rows, len(layout.columns)), dtype=np.bool_)
    for i, column in enumerate((*fixed, *variable)):
        nulls[:, i] = _truths(column.is_null())
    has_nulls: Truths = np.any(nulls, axis=1)
    _add_header(pieces, schema_tag, has_nulls, batch)
    _add_where(pieces, has_nulls, np.packbits(nulls, axis=1, bitorder="little"))
    _add_body(pieces, layout, fixed, variable)
    rows = pieces.joined()
    if keys.null_count:
        is_whole = keys.is_valid()
        keys, rows = keys.filter(is_whole), rows.filter(is_whole)
    return PackedRows(keys, rows)


@dataclass(slots=True)
class _Pieces:
    """Rows of bytes under construction, piece after piece; what has the same width in all rows is kept together."""

    count: int
    _columns: list[Any] = field(default_factory=list)
    _fixed: list[Blocks] = field(default_factory=list)

    def add_fixed(self, block: Blocks) -> None:
        """Adds a piece of the same width in each row."""
        self._fixed.append(block)

    def add(self, column: Any) -> None:
        """Adds a column of bytes; where it is null the whole row will be."""
        self._flush()
        self._columns.append(column)

    def joined(self) -> Any:
        """Returns the rows as a column of bytes."""
        self._flush()
        if len(self._columns) == 1:
            return self._columns[0]
        return pc.binary_join_element_wise(*self._columns, _EMPTY)

    def _flush(self) -> None:
        if self._fixed:
            block = np.concatenate(self._fixed, axis=1)
            self._columns.append(_column(block.tobytes(), np.full(self.count, block.shape[1])))
            self._fixed = []


def _add_header(pieces: _Pieces, schema_tag: int, has_nulls: Truths, batch: pa.RecordBatch) -> None:
    """Adds the header of rows that did not come by push, as `encode_row` has it."""
    event_us, event_ns, created_us, created_ns = (batch.column(name) for name in TIME_COLUMNS)
    has_created = _truths(created_us.is_valid())
    left = np.stack([_ints(event_ns), _ints(created_ns)], axis=1).astype(">u2")
    has_ns: Truths = np.any(left != 0, axis=1)
    head = np.empty(pieces.count, dtype=[("first", "u1"), ("tag", ">u2"), ("event", ">u8")])
    head["tag"], head["event"] = schema_tag, _biased(event_us)
    head["first"] = first_byte(0) + HAS_CREATED * has_created + HAS_NANOSECONDS * has_ns + HAS_NULLS * has_nulls
    pieces.add_fixed(_blocks(head))
    _add_where(pieces, has_created, _blocks(_biased(created_us).astype(">u8")))
    _add_where(pieces, has_ns, _blocks(left))


def _add_where(pieces: _Pieces, has_it: Truths, block: Blocks) -> None:
    """Adds a piece that only some rows have."""
    if has_it.all():
        pieces.add_fixed(block)
    elif has_it.any():
        pieces.add(_column(block[has_it].tobytes(), has_it * block.shape[1]))


def _add_body(pieces: _Pieces, layout: RowLayout, fixed: Sequence[Any], variable: Sequence[Any]) -> None:
    """Adds the values as the layout's encoder has them."""
    for column, values in zip(layout.fixed, fixed, strict=True):
        filled = pc.fill_null(values, pa.scalar(0).cast(values.type)) if values.null_count else values
        numbers = filled.to_numpy(zero_copy_only=False)
        pieces.add_fixed(_blocks(numbers.astype(_DTYPES[FIXED_FORMATS[column.type_name]])))
    for raw in variable:
        sizes = _sizes(raw)
        is_null = _truths(raw.is_null())
        is_long = sizes >= LONG_SIZE
        _add_where(pieces, ~is_null, np.where(is_long, LONG_SIZE, sizes).astype(np.uint8).reshape(-1, 1))
        _add_where(pieces, is_long, _blocks(sizes.astype("<u4")))
        pieces.add(pc.fill_null(raw, b"") if raw.null_count else raw)


def _raw(column: Column, array: Any) -> Any:
    """Returns the stored bytes of a feature whose values differ in width."""
    if column.type_name in TEXTS or column.type_name in BLOBS:
        return arrow_scalars(column, array).cast(_BYTES)
    element = element_type(column.type_name)
    if element in _LISTED:
        lists = _list_bytes(column, element, array)
        if lists is not None:
            return lists
    return _each(packer(column.type_name), column, array)


def _list_bytes(column: Column, element: str, array: Any) -> Any:
    """Returns lists of numbers as their bytes; None where a list holds a null that cannot be stored."""
    items = arrow_scalars(Column(column.name, element), array.flatten())
    if items.null_count:
        if element not in FLOATS:
            return None
        # Feast's messages have no null inside a list of numbers; its own reader turns one into NaN.
        items = pc.fill_null(items, math.nan)
    numbers = items.to_numpy(zero_copy_only=False).astype(_DTYPES[FIXED_FORMATS[element]])
    widths = _ints(pc.list_value_length(array)) * numbers.itemsize
    return _column(numbers.tobytes(), widths, array.is_valid())


def _each(pack: Callable[[Any], bytes], column: Column, array: Any) -> Any:
    """Returns the stored bytes of a column, value by value."""
    packed = []
    for value in plain_from_arrow(column, array):
        try:
            packed.append(None if value is None else pack(value))
        except (struct.error, TypeError, AttributeError, OverflowError, UnicodeEncodeError) as error:
            raise WrongType(
                f"feature {column.name!r}: value {shown(value)} ({type(value).__name__}) does not fit the declared "
                f"type {column.type_name}; correct the value or the schema"
            ) from error
    return pa.array(packed, _BYTES)


def entity_keys_of(definition: ViewDefinition, batch: pa.RecordBatch) -> Any:
    """Returns the Redis keys of a batch that holds join keys by name; null where a part of the key is.

    Raises:
        WrongType: a column that does not fit its declared type.
        TooLarge: an entity key of more than `REDIS_KEY_BYTES_MAX` bytes.
    """
    parts = key_parts(definition.project, definition.join_keys)
    pieces: list[Any] = [parts.head]
    for head, column in parts.columns:
        pieces += [head, *_key_value(column, batch.column(column.name))]
    pieces.append(parts.tail)
    if not parts.columns:
        return pa.array([b"".join(pieces)] * batch.num_rows, _BYTES)
    columns = [pa.scalar(piece, _BYTES) if isinstance(piece, bytes) else piece for piece in pieces]
    keys = pc.binary_join_element_wise(*columns, _EMPTY)
    size_max = int(_sizes(keys).max(initial=0))
    if size_max > REDIS_KEY_BYTES_MAX:
        raise too_large([column.name for _, column in parts.columns], size_max)
    return keys


def _key_value(column: Column, array: Any) -> list[Any]:
    """Returns the pieces of one join key's values, as `encode_value` has them together."""
    if column.type_name in INT_TYPES:
        return [b"i", arrow_scalars(column, array).cast(pa.string()).cast(_BYTES), b","]
    if column.type_name in TEXT_TYPES or column.type_name == "BYTES":
        raw = arrow_scalars(column, array).cast(_BYTES)
        sizes = pc.binary_length(raw).cast(pa.string()).cast(_BYTES)
        return [b"b" if column.type_name == "BYTES" else b"s", sizes, b":", raw]
    values = plain_from_arrow(column, array)
    # NaN, which alone is not itself, is a null in training too.
    is_null = [value is None or value != value for value in values]  # noqa: PLR0124
    encoded = [
        None if null else encode_value(column.name, column.type_name, value)
        for null, value in zip(is_null, values, strict=True)
    ]
    return [pa.array(encoded, _BYTES)]


def _column(content: bytes, widths: npt.NDArray[np.int64], is_valid: Any = None) -> Any:
    """Returns a column of bytes from all of them one after the other, and the width of each row's."""
    offsets = np.zeros(len(widths) + 1, dtype=np.int64)
    np.cumsum(widths, out=offsets[1:])
    whole = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(widths), [None, pa.py_buffer(offsets), pa.py_buffer(content)]
    ).cast(_BYTES)
    return whole if is_valid is None else pc.if_else(is_valid, whole, pa.scalar(None, _BYTES))


def _blocks(values: npt.NDArray[Any]) -> Blocks:
    """Returns numbers or records as their bytes, a row each."""
    width = values.dtype.itemsize * int(np.prod(values.shape[1:]))
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), width)


def _biased(instants: Any) -> npt.NDArray[np.uint64]:
    """Returns instants, 0 for null ones, as unsigned numbers of the same order."""
    return _ints(instants).view(np.uint64) + _BIAS


def _ints(column: Any) -> npt.NDArray[np.int64]:
    filled: npt.NDArray[np.int64] = pc.fill_null(column, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return filled


def _sizes(raw: Any) -> npt.NDArray[np.int64]:
    return _ints(pc.binary_length(raw))


def _truths(column: Any) -> Truths:
    truths: Truths = column.to_numpy(zero_copy_only=False)
    return truths
