"""The stored form of one feature view's row: a header that orders rows, and a body that packs the values.

    byte  0      format version, 2, in the upper four bits; in the lower ones flags: 1 = has a created time,
                 2 = has nanoseconds, 4 = came by push, 8 = has nulls
    bytes 1-2    schema tag, unsigned, big-endian: which layout the body has
    bytes 3-10   event time in microseconds since the Unix epoch plus 2**63, unsigned, big-endian
    [8 bytes]    created time in the same form, if flag 1
    [4 bytes]    nanoseconds (0-999) of event and created time, two unsigned 16-bit numbers, if flag 2
    body         if flag 8, null bitmap (bit i of byte i // 8 is feature i); little-endian fixed-width values in layout
                 order (zero where null), then the non-null other values, each behind its length: one byte,
                 or 255 and four little-endian bytes

Times stand first and big-endian so that the write script compares rows without knowing any layout. A layout
is the view's features in alphabetical order; its tag is kept in every row, and the layouts are kept beside the
rows, so a row written under an older definition is still read rightly.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from store.errors import StoredRowError, WrongType, shown
from store.kernel.definitions import Column
from store.kernel.values import FIXED_FORMATS, TEXTS, element_type

FORMAT_VERSION = 2
HAS_CREATED, HAS_NANOSECONDS, PUSHED, HAS_NULLS = 1, 2, 4, 8
SCHEMA_TAG = slice(1, 3)
"""Where a row says which layout it has."""
EVENT_TIME = slice(3, 11)
"""Where a row says when it was true; as bytes in the order of the times."""
SCHEMA_TAGS = 2**16
"""How many layouts the rows of a project can tell apart."""

_HEAD = struct.Struct(">BHQ")
_CREATED = struct.Struct(">Q")
_NANOSECONDS = struct.Struct(">HH")
BIAS_US = 2**63
"""Makes event times unsigned, in the same order."""
LONG_SIZE = 255
"""A length byte of this value is followed by the length itself, in four bytes."""


class RowTimes(NamedTuple):
    """When a row was true and when it was known, in microseconds since the epoch and remaining nanoseconds."""

    event_us: int
    event_ns: int = 0
    created_us: int | None = None
    created_ns: int = 0


class Header(NamedTuple):
    """A stored row's header, and where its body begins."""

    times: RowTimes
    is_pushed: bool
    has_nulls: bool
    schema_tag: int
    body_start: int


class Body(NamedTuple):
    """A row's values, packed."""

    content: bytes
    has_nulls: bool


class EncodedRow(NamedTuple):
    """A row ready to be stored but for its schema tag, which is known once its layout is registered."""

    key: bytes
    times: RowTimes
    body: Body


def first_byte(flags: int) -> int:
    """Returns a row's first byte."""
    return FORMAT_VERSION << 4 | flags


def encode_row(schema_tag: int, times: RowTimes, body: Body, *, is_pushed: bool) -> bytes:
    """Returns a row as it is stored."""
    has_created = times.created_us is not None
    has_nanoseconds = bool(times.event_ns or times.created_ns)
    flags = HAS_CREATED * has_created | HAS_NANOSECONDS * has_nanoseconds | PUSHED * is_pushed
    header = _HEAD.pack(first_byte(flags | HAS_NULLS * body.has_nulls), schema_tag, times.event_us + BIAS_US)
    if times.created_us is not None:
        header += _CREATED.pack(times.created_us + BIAS_US)
    if has_nanoseconds:
        header += _NANOSECONDS.pack(times.event_ns, times.created_ns)
    return header + body.content


def decode_header(row: bytes) -> Header:
    """Returns the header of a stored row.

    Raises:
        StoredRowError: a format version that this code does not know, or a row cut short.
    """
    try:
        first, schema_tag, event = _HEAD.unpack_from(row)
        flags, version = first & 15, first >> 4
        if version != FORMAT_VERSION:
            raise StoredRowError(
                f"stored row has format version {version}, this version of Larder reads {FORMAT_VERSION}; "
                "upgrade Larder, or remove the view, apply it again and materialize it"
            )
        position = _HEAD.size
        created_us, event_ns, created_ns = None, 0, 0
        if flags & HAS_CREATED:
            created_us = _CREATED.unpack_from(row, position)[0] - BIAS_US
            position += _CREATED.size
        if flags & HAS_NANOSECONDS:
            event_ns, created_ns = _NANOSECONDS.unpack_from(row, position)
            position += _NANOSECONDS.size
    except struct.error as error:
        raise cut_short(row) from error
    times = RowTimes(event - BIAS_US, event_ns, created_us, created_ns)
    return Header(times, bool(flags & PUSHED), bool(flags & HAS_NULLS), schema_tag, position)


def cut_short(row: bytes) -> StoredRowError:
    """Returns the error for a stored row that ends too early."""
    return StoredRowError(f"stored row of {len(row)} bytes is cut short; materialize the view again")


@dataclass(frozen=True, slots=True)
class RowLayout:
    """How the features of one definition lie in a row's body: fixed-width ones first, each group by name."""

    fixed: tuple[Column, ...]
    variable: tuple[Column, ...]

    @classmethod
    def of(cls, features: Iterable[Column]) -> "RowLayout":
        """Returns the layout of a view's features; their order in the definition plays no part."""
        ordered = sorted(features, key=lambda column: column.name)
        return cls(
            tuple(column for column in ordered if column.type_name in FIXED_FORMATS),
            tuple(column for column in ordered if column.type_name not in FIXED_FORMATS),
        )

    @property
    def columns(self) -> tuple[Column, ...]:
        """The features in the order in which `encoder` takes their values."""
        return self.fixed + self.variable

    @property
    def text(self) -> str:
        """The layout as JSON, as it is kept beside the rows."""
        return json.dumps([[column.name, column.type_name] for column in self.columns])

    @classmethod
    def parse(cls, text: str) -> "RowLayout":
        """Returns the layout that `text` describes."""
        return cls.of(Column(name, type_name) for name, type_name in json.loads(text))

    @property
    def tag(self) -> int:
        """The schema tag: 16 bits of a hash of the layout, which whoever registers it checks for collisions."""
        return int.from_bytes(hashlib.sha256(self.text.encode()).digest()[:2], "big")

    def encoder(self) -> Callable[[Sequence[Any]], Body]:
        """Returns a function from one row's plain values, in the order of `columns`, to its body.

        The function raises WrongType for a value that does not fit its feature's type.
        """
        return _Encoder(self).encode


class _Encoder:
    def __init__(self, layout: RowLayout) -> None:
        self._columns = layout.columns
        self._fixed_count = len(layout.fixed)
        self._fixed = struct.Struct("<" + "".join(FIXED_FORMATS[c.type_name] for c in layout.fixed))
        self._packers = [packer(c.type_name) for c in layout.variable]
        self._bitmap_size = (len(self._columns) + 7) // 8

    def encode(self, values: Sequence[Any]) -> Body:
        has_nulls = None in values
        try:
            if not has_nulls:
                body = self._fixed.pack(*values[: self._fixed_count])
            else:
                nulls = sum(1 << i for i, value in enumerate(values) if value is None)
                filled = [0 if value is None else value for value in values[: self._fixed_count]]
                body = nulls.to_bytes(self._bitmap_size, "little") + self._fixed.pack(*filled)
            if not self._packers:
                return Body(body, has_nulls)
            parts = [body]
            for pack, value in zip(self._packers, values[self._fixed_count :], strict=True):
                if value is not None:
                    raw = pack(value)
                    size = len(raw)
                    parts.append(bytes((size,)) if size < LONG_SIZE else b"\xff" + size.to_bytes(4, "little"))
                    parts.append(raw)
            return Body(b"".join(parts), has_nulls)
        except (struct.error, TypeError, AttributeError, OverflowError, UnicodeEncodeError) as error:
            raise self._misfit(values) from error

    def _misfit(self, values: Sequence[Any]) -> WrongType:
        """Returns the error that names the first value that cannot be packed alone."""
        for column, value in zip(self._columns, values, strict=True):
            if value is None:
                continue
            try:
                packer(column.type_name)(value)
            except (struct.error, TypeError, AttributeError, OverflowError, UnicodeEncodeError):
                return WrongType(
                    f"feature {column.name!r}: value {shown(value)} ({type(value).__name__}) does not fit "
                    f"the declared type {column.type_name}; correct the value or the schema"
                )
        return WrongType(f"{len(values)} values do not fit the layout of {len(self._columns)} features")


def packer(type_name: str) -> Callable[[Any], bytes]:
    """Returns the function from a plain value of a type to its stored bytes."""
    if type_name in FIXED_FORMATS:
        return struct.Struct("<" + FIXED_FORMATS[type_name]).pack
    if type_name in TEXTS:
        return str.encode
    element = element_type(type_name)
    if element is None:
        return _same_bytes
    if element in FIXED_FORMATS:
        element_format = FIXED_FORMATS[element]
        return lambda values: struct.pack(f"<{len(values)}{element_format}", *values)
    return msgspec.msgpack.encode


def _same_bytes(value: bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"expected bytes, got {type(value).__name__}")
    return value
