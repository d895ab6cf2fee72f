"""Reads stored rows: one by one, or many that are alike at once; `store.kernel.codec` has the form of a row."""

import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from store.kernel.codec import (
    BIAS_US,
    HAS_CREATED,
    LONG_SIZE,
    PUSHED,
    SCHEMA_TAG,
    Header,
    RowLayout,
    cut_short,
    first_byte,
)
from store.kernel.definitions import Column
from store.kernel.values import ABSENT, BLOBS, FIXED_FORMATS, TEXTS, element_type, lossless_cast

_ARRAY_ROWS_MIN = 16
"""Rows from which on an array reads them faster than a loop."""

_Unpack = Callable[[bytes], Any]
AlikeRows = tuple[list[int], list[Sequence[Any]]]
"""Event times in microseconds, one per row; then one column per wanted feature, one value per row."""


def _unpacker(type_name: str) -> _Unpack:
    if type_name in TEXTS:
        return bytes.decode
    element = element_type(type_name)
    if element is None:
        return bytes
    if element in FIXED_FORMATS:
        element_format, size = FIXED_FORMATS[element], struct.calcsize("<" + FIXED_FORMATS[element])
        return lambda raw: list(struct.unpack(f"<{len(raw) // size}{element_format}", raw))
    return msgspec.msgpack.Decoder(list[bytes] if element in BLOBS else list[str]).decode


class Decoder:
    """Reads the wanted features out of rows of one layout, with lossless casts; made once per plan and layout."""

    __slots__ = ("_alike", "_bitmap_size", "_fixed", "_fixed_count", "_needs_variable", "_picks", "_unpackers")

    def __init__(self, layout: RowLayout, wanted: Sequence[Column]) -> None:
        positions = {column.name: i for i, column in enumerate(layout.columns)}
        self._fixed = struct.Struct("<" + "".join(FIXED_FORMATS[c.type_name] for c in layout.fixed))
        self._fixed_count = len(layout.fixed)
        self._bitmap_size = (len(layout.columns) + 7) // 8
        self._picks: list[tuple[int, Callable[[Any], Any] | None]] = []
        for column in wanted:
            position = positions.get(column.name, -1)
            stored = layout.columns[position].type_name if position >= 0 else ""
            cast = lossless_cast(stored, column.type_name) if position >= 0 else None
            if cast is None:
                position = -1
            self._picks.append((position, None if stored == column.type_name else cast))
        needed = {position for position, _ in self._picks}
        self._unpackers = [
            _unpacker(c.type_name) if i + self._fixed_count in needed else None for i, c in enumerate(layout.variable)
        ]
        self._needs_variable = any(self._unpackers)
        # By a row's first byte, which tells all there is to know of its form but for the layout.
        is_plain = all(position >= 0 and cast is None for position, cast in self._picks)
        columns = [position for position, _ in self._picks]
        unpackers = self._unpackers if self._needs_variable else []
        self._alike = {
            first_byte(flags): _AlikeReader(layout, columns, unpackers, created_bytes)
            for flags, created_bytes in ((0, 0), (PUSHED, 0), (HAS_CREATED, 8), (HAS_CREATED | PUSHED, 8))
            if is_plain
        }

    def decode_alike(self, rows: Sequence[bytes]) -> AlikeRows | None:
        """Returns what rows that are all alike hold, at a fraction of the cost of reading one by one.

        Rows are alike when they have the same header but for their times, these in whole microseconds, no nulls, and
        all that is wanted as it is wanted; most are. For others the answer is None, and `decode` reads them.

        Raises:
            StoredRowError: a row that is cut short.
        """
        head = rows[0][: SCHEMA_TAG.stop]
        reader = self._alike.get(head[0]) if len(head) == SCHEMA_TAG.stop else None
        if reader is None:
            return None
        try:
            return reader.read(head, rows)
        except (struct.error, IndexError) as error:
            raise cut_short(min(rows, key=len)) from error

    def decode(self, row: bytes, header: Header) -> list[Any]:
        """Returns the wanted values of one row: None for null, `ABSENT` where the row has no such feature.

        Raises:
            StoredRowError: a body that is cut short.
        """
        try:
            nulls, values_start = 0, header.body_start
            if header.has_nulls:
                values_start += self._bitmap_size
                nulls = int.from_bytes(row[header.body_start : values_start], "little")
            values = list(self._fixed.unpack_from(row, values_start))
            if self._needs_variable:
                values += self._variable(row, values_start + self._fixed.size, nulls)
        except (struct.error, IndexError) as error:
            raise cut_short(row) from error
        result: list[Any] = []
        for position, cast in self._picks:
            if position < 0:
                result.append(ABSENT)
            elif nulls >> position & 1:
                result.append(None)
            else:
                result.append(values[position] if cast is None else cast(values[position]))
        return result

    def _variable(self, row: bytes, position: int, nulls: int) -> list[Any]:
        values: list[Any] = []
        for i, unpack in enumerate(self._unpackers, start=self._fixed_count):
            if nulls >> i & 1:
                values.append(None)
                continue
            start, end = _extent(row, position)
            values.append(unpack(row[start:end]) if unpack else None)
            position = end
        return values


def _extent(row: bytes, position: int) -> tuple[int, int]:
    """Returns where a value lies whose length stands at a position."""
    size, start = row[position], position + 1
    if size == LONG_SIZE:
        size, start = int.from_bytes(row[start : start + 4], "little"), start + 4
    if start + size > len(row):
        raise IndexError(start + size)
    return start, start + size


class _AlikeReader:
    """Reads rows with one form of header, all features there and none null, all at once."""

    __slots__ = ("_columns", "_dtype", "_names", "_one", "_unpackers")

    def __init__(
        self, layout: RowLayout, columns: Sequence[int], unpackers: Sequence[_Unpack | None], created_bytes: int
    ) -> None:
        """Takes which of the layout's features are wanted, and how those of variable width are read, if any are."""
        formats = [FIXED_FORMATS[column.type_name] for column in layout.fixed]
        self._columns = columns
        self._unpackers = unpackers
        self._one = struct.Struct(f"<{SCHEMA_TAG.stop}x8s{created_bytes}x{''.join(formats)}")
        self._names = [f"f{i}" for i in range(len(formats))]
        fields = [("event", ">u8"), ("created", f"V{created_bytes}")]
        fields += [(name, f"<{kind}") for name, kind in zip(self._names, formats, strict=True)]
        self._dtype = np.dtype([("head", f"V{SCHEMA_TAG.stop}"), *fields])

    def read(self, head: bytes, rows: Sequence[bytes]) -> AlikeRows | None:
        """Returns the rows' times and columns; None where a row has another head.

        Raises:
            struct.error, IndexError: a row is cut short.
        """
        return self._array(head, rows) if len(rows) >= _ARRAY_ROWS_MIN else self._loop(head, rows)

    def _loop(self, head: bytes, rows: Sequence[bytes]) -> AlikeRows | None:
        times: list[int] = []
        read = []
        for row in rows:
            if not row.startswith(head):
                return None
            event, *values = self._one.unpack_from(row)
            times.append(int.from_bytes(event, "big") - BIAS_US)
            position = self._one.size
            for unpack in self._unpackers:
                start, position = _extent(row, position)
                values.append(unpack(row[start:position]) if unpack else None)
            read.append(values)
        columns = list(zip(*read, strict=True))
        return times, [columns[position] for position in self._columns]

    def _array(self, head: bytes, rows: Sequence[bytes]) -> AlikeRows | None:
        size = self._dtype.itemsize
        joined = b"".join([row[:size] for row in rows])
        if len(joined) < size * len(rows):
            if all(row.startswith(head) for row in rows):
                raise IndexError(size)
            return None
        table = np.frombuffer(joined, self._dtype)
        if table["head"].tobytes() != head * len(rows):
            return None
        variable = self._variable(rows)
        columns = [
            table[self._names[position]].tolist()
            if position < len(self._names)
            else variable[position - len(self._names)]
            for position in self._columns
        ]
        times = (table["event"].astype(np.uint64) ^ np.uint64(BIAS_US)).view(np.int64)
        return times.tolist(), columns

    def _variable(self, rows: Sequence[bytes]) -> list[Sequence[Any]]:
        """Returns the columns of variable width; () for one that is not wanted."""
        ends = [self._one.size] * len(rows)
        extents: list[tuple[Sequence[int], list[int]]] = []
        for i in range(len(self._unpackers)):
            sizes = [row[end] for row, end in zip(rows, ends, strict=True)]
            starts: Sequence[int]
            if i == 0 and LONG_SIZE not in sizes:
                # The first one begins at the same place in all rows.
                first = self._one.size + 1
                starts, ends = [first] * len(rows), [first + size for size in sizes]
            elif LONG_SIZE in sizes:
                both = [_extent(row, end) for row, end in zip(rows, ends, strict=True)]
                starts, ends = [start for start, _ in both], [end for _, end in both]
            else:
                starts = [end + 1 for end in ends]
                ends = [start + size for start, size in zip(starts, sizes, strict=True)]
            extents.append((starts, ends))
        # A row ends with its last value: one that is cut short makes all of them too short.
        if self._unpackers and sum(ends) > sum(map(len, rows)):
            raise IndexError(max(ends))
        return [
            ()
            if unpack is None
            else [unpack(row[start:end]) for row, start, end in zip(rows, starts, ends, strict=True)]
            for unpack, (starts, ends) in zip(self._unpackers, extents, strict=True)
        ]
