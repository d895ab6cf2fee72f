"""A digest of a training set's content: the same for the same values, however they are cut into batches or encoded."""

import hashlib
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

_SIZE_BYTES = 16
_VERSION = b"larder-training-set-2"

_UTC_NAMES = frozenset({"UTC", "Etc/UTC", "Z", "+00:00"})
"""Under which libraries write the same zone."""

_LAYOUTS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


_LISTS = (pat.is_list, pat.is_large_list, pat.is_fixed_size_list, pat.is_list_view, pat.is_large_list_view)


class _Hash(Protocol):
    def update(self, content: Any) -> None: ...

    def digest(self) -> bytes: ...


class TableDigest:
    """The digest of rows that come in batches of one schema.

    Columns, their order, names and types count, as do the order of rows, nulls, and the bits of floating-point values.
    For each column the validity, the lengths (of texts and lists) and the values are hashed apart, each as one stream,
    so where batches begin leaves no trace; what lies under a null is left out. Dictionaries count as their values,
    extension types as their name and storage. The names that a list or map has for its own parts do not count, nor
    which of its names UTC goes by.
    """

    def __init__(self, schema: pa.Schema) -> None:
        """Begins with no rows."""
        self._schema = schema
        self._columns = [_ColumnDigest(field.type) for field in schema]
        self._row_count = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes in the next rows."""
        self._row_count += batch.num_rows
        for column, digest in zip(batch.columns, self._columns, strict=True):
            digest.add(_decoded(column))

    def hexdigest(self) -> str:
        """Returns the digest of all rows so far, as 32 hexadecimal digits."""
        whole = hashlib.blake2b(_VERSION, digest_size=_SIZE_BYTES)
        whole.update(self._row_count.to_bytes(8, "little"))
        for field, digest in zip(self._schema, self._columns, strict=True):
            whole.update(_packed(field.name.encode(), _described(field.type), digest.digest()))
        return whole.hexdigest()


class _ColumnDigest:
    def __init__(self, kind: pa.DataType) -> None:
        self._validity, self._lengths, self._values = (_new() for _ in range(3))
        self._children = [_ColumnDigest(inner) for inner in _inner_types(_plain(kind))]

    def add(self, column: pa.Array) -> None:
        is_valid = column.is_valid()
        self._validity.update(is_valid.to_numpy(zero_copy_only=False).tobytes())
        kind = column.type
        present = column if column.null_count == 0 else column.filter(is_valid)
        if pat.is_struct(kind):
            for number, child in enumerate(self._children):
                child.add(_decoded(pc.struct_field(present, [number])))
        elif self._children:
            lists = _pairs(present) if pat.is_map(kind) else present
            self._lengths.update(_lengths(pc.list_value_length(lists)))
            items = lists.flatten()
            parts = [items.field(0), items.field(1)] if pat.is_map(kind) else [items]
            for child, part in zip(self._children, parts, strict=True):
                child.add(_decoded(part))
        elif _is_variable(kind):
            self._lengths.update(_lengths(pc.binary_length(present)))
            self._values.update(_text_bytes(present))
        elif not pat.is_null(kind):
            self._values.update(_fixed_bytes(present))

    def digest(self) -> bytes:
        whole = _new()
        for stream in (self._validity, self._lengths, self._values):
            whole.update(stream.digest())
        for child in self._children:
            whole.update(child.digest())
        return whole.digest()


def _new() -> _Hash:
    return hashlib.blake2b(digest_size=_SIZE_BYTES)


def has_digest(kind: pa.DataType) -> bool:
    """Whether columns of a type can be digested; which is when they can be written as Parquet."""
    if pat.is_dictionary(kind):
        return not pat.is_nested(_plain(kind)) and has_digest(kind.value_type)
    kind = _plain(kind)
    if pat.is_struct(kind) and not kind.num_fields:
        return False
    if pat.is_union(kind) or pat.is_run_end_encoded(kind) or pat.is_interval(kind):
        return False
    if pat.is_fixed_size_binary(kind) and not kind.byte_width:
        return False
    return all(map(has_digest, _inner_types(kind)))


def _packed(*parts: bytes) -> bytes:
    """Returns parts as one text of bytes that no other parts have."""
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def _described(kind: pa.DataType) -> bytes:
    """Returns what of a type counts; types that differ in it have different ones."""
    if pat.is_dictionary(kind):
        return _described(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _packed(b"extension", kind.extension_name.encode(), _described(kind.storage_type))
    if pat.is_struct(kind):
        return _packed(b"struct", *(part for field in kind.fields for part in _described_field(field)))
    inner = _inner_types(kind)
    if inner:
        size = str(kind.list_size) if pat.is_fixed_size_list(kind) else ""
        return _packed(b"map" if pat.is_map(kind) else b"list", size.encode(), *map(_described, inner))
    if pat.is_timestamp(kind) and kind.tz in _UTC_NAMES:
        kind = pa.timestamp(kind.unit, "UTC")
    return _packed(str(kind).encode())


def _described_field(field: pa.Field) -> tuple[bytes, bytes]:
    return field.name.encode(), _described(field.type)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Returns the type in which the values of a column lie in memory, once `_decoded`."""
    while True:
        if pat.is_dictionary(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def _decoded(column: pa.Array) -> pa.Array:
    """Returns a column in a layout that all of Arrow's functions know; the values are the same."""
    while True:
        if pat.is_dictionary(column.type):
            column = column.dictionary_decode()
        elif isinstance(column.type, pa.BaseExtensionType):
            column = column.storage
        else:
            break
    layout = _LAYOUTS.get(column.type)
    return column if layout is None else column.cast(layout)


def _inner_types(kind: pa.DataType) -> list[pa.DataType]:
    if pat.is_struct(kind):
        return [field.type for field in kind.fields]
    if pat.is_map(kind):
        return [kind.key_type, kind.item_type]
    return [kind.value_type] if any(is_list(kind) for is_list in _LISTS) else []


def _pairs(maps: pa.MapArray) -> pa.ListArray:
    """Returns maps without nulls as lists of structs of key and value."""
    pairs = pa.StructArray.from_arrays([maps.keys, maps.items], names=["key", "value"])
    return pa.ListArray.from_arrays(maps.offsets, pairs)


def _lengths(lengths: pa.Array) -> bytes:
    return bytes(lengths.cast(pa.int64()).to_numpy(zero_copy_only=False).tobytes())


def _is_variable(kind: pa.DataType) -> bool:
    return bool(pat.is_string(kind) or pat.is_large_string(kind) or pat.is_binary(kind) or pat.is_large_binary(kind))


def _text_bytes(column: pa.Array) -> memoryview | bytes:
    """Returns the bytes of all values of a text or binary column without nulls, one after another."""
    _, offsets, content = column.buffers()
    if content is None or not len(column):
        return b""
    width = np.dtype(np.int64 if pat.is_large_string(column.type) or pat.is_large_binary(column.type) else np.int32)
    ends = np.frombuffer(offsets, dtype=width)
    first, last = int(ends[column.offset]), int(ends[column.offset + len(column)])
    return memoryview(content)[first:last]


def _fixed_bytes(column: pa.Array) -> bytes | memoryview:
    """Returns the bytes of a column of values of one width, without nulls."""
    kind = column.type
    if pat.is_boolean(kind):
        return bytes(column.to_numpy(zero_copy_only=False).tobytes())
    buffer = column.buffers()[-1]
    if buffer is None or not len(column):
        return b""
    width = kind.bit_width // 8
    return memoryview(buffer)[column.offset * width : (column.offset + len(column)) * width]
