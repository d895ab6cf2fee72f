"""Arrow IPC streams that strangers send: their decoded size is known before anything is decoded.

Source: Arrow's Message.fbs (tables Message, RecordBatch, DictionaryBatch) and Columnar.rst: each buffer of a compressed
batch starts with its decoded length as a little-endian int64, -1 where the buffer is stored as it is.
"""

import struct
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from server.body_bounds import check_schema, check_size, without_dictionaries
from store.errors import BadBody

_WHAT = "body: Arrow IPC stream"
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_NOT_COMPRESSED = -1
# How a stream says that it is whole; streams written before Arrow 0.15 have the second half only.
_CONTINUED, _END = b"\xff\xff\xff\xff", b"\0\0\0\0"


def entity_rows_of(body: Any) -> pa.Table:
    """Returns the table in an Arrow IPC stream, its dictionary columns decoded.

    Args:
        body: bytes or any other buffer; the table may lie in it, so it has to live as long.

    Raises:
        BadBody: not such a stream, not a whole one, or one whose content contradicts itself.
        TooLarge: more columns, rows or decoded bytes than the bounds allow.
    """
    buffer = pa.py_buffer(body)
    try:
        with pa.ipc.open_stream(buffer) as reader:
            check_schema(reader.schema, _WHAT)
            _check_messages(buffer)
            table = reader.read_all()
        # Offsets come from the sender: a wrong one would have us read memory that is not the body's.
        table.validate(full=True)
        return without_dictionaries(table, _WHAT)
    except MemoryError:
        # Arrow's own is also an ArrowException; the bound on memory is told by whoever set it.
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError, struct.error) as error:
        raise BadBody(f"{_WHAT}: cannot be read ({error}); write it with pyarrow.ipc.new_stream") from error


def _check_messages(buffer: pa.Buffer) -> None:
    """Checks rows and bytes of all batches before any is decoded, and that the stream has its end."""
    row_count = decoded_bytes = 0
    source = pa.BufferReader(buffer)
    messages = pa.ipc.MessageReader.open_stream(source)
    end = 0
    for message in _each(messages):
        end = source.tell()
        batch = _batch_of(message)
        if batch is None:
            continue
        if batch.row_count < 0 or batch.decoded_bytes < 0:
            raise BadBody(f"{_WHAT}: a batch of {batch.row_count} rows and {batch.decoded_bytes} bytes")
        row_count += batch.row_count if batch.is_record_batch else 0
        decoded_bytes += batch.decoded_bytes
        check_size(row_count, decoded_bytes, _WHAT)
    rest = buffer.slice(end).to_pybytes() if buffer.size - end <= 2 * len(_END) else b""
    if rest not in {_CONTINUED + _END, _END}:
        raise BadBody(
            f"{_WHAT}: it does not end with its end-of-stream mark ({buffer.size - end} bytes follow the last batch), "
            "so rows may be missing; close the writer before sending, and send one stream"
        )


def _each(messages: Any) -> Any:
    while True:
        try:
            yield messages.read_next_message()
        except StopIteration:
            return


@dataclass(frozen=True, slots=True)
class _Batch:
    row_count: int
    decoded_bytes: int
    is_record_batch: bool


@dataclass(frozen=True, slots=True)
class _FlatTable:
    """A table in a flatbuffer; pyarrow has verified the message, so offsets stay inside of it."""

    buffer: bytes
    position: int

    def field(self, number: int) -> int | None:
        """Returns where field `number` of the table lies, or None where it has its default."""
        vtable = self.position - struct.unpack_from("<i", self.buffer, self.position)[0]
        slot = 4 + 2 * number
        if slot >= struct.unpack_from("<H", self.buffer, vtable)[0]:
            return None
        offset = struct.unpack_from("<H", self.buffer, vtable + slot)[0]
        return self.position + offset if offset else None

    def scalar(self, number: int, form: str) -> int:
        """Returns a number, 0 by default."""
        where = self.field(number)
        return 0 if where is None else int(struct.unpack_from(form, self.buffer, where)[0])

    def follow(self, number: int) -> int | None:
        """Returns where the table or vector lies that field `number` points at."""
        where = self.field(number)
        return None if where is None else where + int(struct.unpack_from("<I", self.buffer, where)[0])


def _batch_of(message: Any) -> _Batch | None:
    metadata = message.metadata.to_pybytes()
    head = _FlatTable(metadata, struct.unpack_from("<I", metadata)[0])
    kind = head.scalar(1, "<B")
    header = head.follow(2)
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH) or header is None:
        return None
    if kind == _DICTIONARY_BATCH:
        header = _FlatTable(metadata, header).follow(1)
        if header is None:
            return None
    batch = _FlatTable(metadata, header)
    return _Batch(batch.scalar(0, "<q"), sum(_decoded_lengths(message.body, batch)), kind == _RECORD_BATCH)


def _decoded_lengths(body: Any, batch: _FlatTable) -> list[int]:
    """Returns the decoded length of each buffer of a batch; buffers may lie on each other, and each counts."""
    vector = batch.follow(2)
    if vector is None:
        return []
    is_compressed = batch.follow(3) is not None
    view = memoryview(body) if body else memoryview(b"")
    lengths = []
    for number in range(struct.unpack_from("<I", batch.buffer, vector)[0]):
        offset, length = struct.unpack_from("<qq", batch.buffer, vector + 4 + 16 * number)
        if length == 0:
            continue
        if not is_compressed:
            lengths.append(length)
            continue
        (decoded,) = struct.unpack_from("<q", view, offset)
        if decoded < _NOT_COMPRESSED:
            raise BadBody(f"{_WHAT}: a buffer that says it has {decoded} bytes")
        lengths.append(length if decoded == _NOT_COMPRESSED else decoded)
    return lengths
