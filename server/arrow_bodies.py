"""Arrow IPC streams that strangers send: their decoded size is known before anything is decoded.

Source: Arrow's Message.fbs (tables Message, RecordBatch, DictionaryBatch) and Columnar.rst: each buffer of a compressed
batch starts with its decoded length as a little-endian int64, -1 where the buffer is stored as it is.
"""

import struct
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from server.limits import HISTORICAL_DECODED_BYTES_MAX
from store.errors import BadBody, TooLarge
from store.limits import HISTORICAL_ROWS_MAX

_WHAT = "body: Arrow IPC stream"
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_NOT_COMPRESSED = -1


def entity_rows_of(body: bytes) -> pa.Table:
    """Returns the table in an Arrow IPC stream, its dictionary columns decoded.

    Raises:
        BadBody: not such a stream, or one whose content contradicts itself.
        TooLarge: more rows or decoded bytes than the bounds allow.
    """
    try:
        _check_size(body)
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            _check_types(reader.schema)
            table = reader.read_all()
        # Offsets come from the sender: a wrong one would have us read memory that is not the body's.
        table.validate(full=True)
        return _without_dictionaries(table)
    except (pa.ArrowException, OSError, UnicodeDecodeError, struct.error) as error:
        raise BadBody(f"{_WHAT}: cannot be read ({error}); write it with pyarrow.ipc.new_stream") from error


def _check_size(body: bytes) -> None:
    row_count = decoded_bytes = 0
    for message in _each(pa.ipc.MessageReader.open_stream(pa.py_buffer(body))):
        batch = _batch_of(message)
        if batch is None:
            continue
        if batch.row_count < 0 or batch.decoded_bytes < 0:
            raise BadBody(f"{_WHAT}: a batch of {batch.row_count} rows and {batch.decoded_bytes} bytes")
        row_count += batch.row_count if batch.is_record_batch else 0
        decoded_bytes += batch.decoded_bytes
        _check_bounds(row_count, decoded_bytes)


def _check_bounds(row_count: int, decoded_bytes: int) -> None:
    if row_count > HISTORICAL_ROWS_MAX or decoded_bytes > HISTORICAL_DECODED_BYTES_MAX:
        raise TooLarge(
            f"{_WHAT}: {row_count} rows or {decoded_bytes} decoded bytes so far, at most {HISTORICAL_ROWS_MAX} rows "
            f"and {HISTORICAL_DECODED_BYTES_MAX} bytes are taken; send the rows in several requests"
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
    is_compressed = batch.follow(3) is not None
    lengths = _decoded_lengths(message.body, batch) if is_compressed else [message.body.size if message.body else 0]
    return _Batch(batch.scalar(0, "<q"), sum(lengths), kind == _RECORD_BATCH)


def _decoded_lengths(body: Any, batch: _FlatTable) -> list[int]:
    """Returns the decoded length of each buffer of a compressed batch."""
    vector = batch.follow(2)
    if vector is None:
        return []
    view = memoryview(body)
    lengths = []
    for number in range(struct.unpack_from("<I", batch.buffer, vector)[0]):
        offset, length = struct.unpack_from("<qq", batch.buffer, vector + 4 + 16 * number)
        if length == 0:
            continue
        (decoded,) = struct.unpack_from("<q", view, offset)
        if decoded < _NOT_COMPRESSED:
            raise BadBody(f"{_WHAT}: a buffer that says it has {decoded} bytes")
        lengths.append(length if decoded == _NOT_COMPRESSED else decoded)
    return lengths


def _check_types(schema: pa.Schema) -> None:
    """Refuses types whose rows need no bytes of their own, so that no bound on bytes holds them."""
    names = schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadBody(f"{_WHAT}: columns {twice} are given twice; give each column a name of its own")
    for column in schema:
        if pa.types.is_run_end_encoded(column.type):
            raise BadBody(f"{_WHAT}: column {column.name!r} is run-end encoded; send it plain or as a dictionary")


def _without_dictionaries(table: pa.Table) -> pa.Table:
    decoded_bytes = 0
    for number, column in enumerate(table.schema):
        if not pa.types.is_dictionary(column.type):
            continue
        chunked = table.column(number)
        decoded_bytes += sum(_plain_bytes(chunk) for chunk in chunked.chunks)
        _check_bounds(table.num_rows, decoded_bytes)
        table = table.set_column(number, column.name, chunked.cast(column.type.value_type))
    return table


def _plain_bytes(chunk: Any) -> int:
    """Returns how many bytes a dictionary array takes once each row has its own copy of the value."""
    values = chunk.dictionary
    if pa.types.is_nested(values.type):
        raise BadBody(f"{_WHAT}: a dictionary of {values.type}; send such a column plain")
    if not len(values):
        return 0
    if not (
        pa.types.is_string(values.type) or pa.types.is_binary(values.type) or hasattr(values, "total_values_length")
    ):
        return len(chunk) * 16
    return int(pc.sum(pc.take(pc.binary_length(values), chunk.indices)).as_py() or 0)
