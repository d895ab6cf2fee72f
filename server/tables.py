"""Answers of a retrieval, by media type: each an encoder that turns batches into chunks of bytes as they come."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from server.limits import (
    HISTORICAL_BATCH_ROWS,
    HISTORICAL_BATCH_VALUES,
    HISTORICAL_JSON_ROWS_MAX,
    HISTORICAL_JSON_VALUES_MAX,
)
from server.plain_values import plain_column, text_column
from server.policy import ARROW_STREAM, CSV, JSON, PARQUET
from store.errors import TooLarge, WrongType

Batches = Iterator[pa.RecordBatch]
Encoder = Callable[[Batches, int], Iterator[bytes]]
"""Takes the batches of an answer, at least one, and the number of rows in all of them."""

_UNBOUNDED_FORMS = f"Accept: {ARROW_STREAM}, {PARQUET} or {CSV}"


@dataclass(frozen=True, slots=True)
class Format:
    """One form of answer. `rows_max` None means as many as a request may have; `content_type` is what is sent."""

    media_type: str
    encode: Encoder
    rows_max: int | None = None
    parameters: str = ""

    @property
    def content_type(self) -> str:
        """The media type as it stands in an answer's header."""
        return self.media_type + self.parameters

    def check_rows(self, row_count: int) -> None:
        """Checks that an answer of so many rows can be given in this form.

        Raises:
            TooLarge: it cannot.
        """
        if self.rows_max is not None and row_count > self.rows_max:
            raise TooLarge(
                f"entities: {row_count} rows, at most {self.rows_max} are answered as {self.media_type}; "
                f"ask for {_UNBOUNDED_FORMS}"
            )


def batch_rows(column_count: int) -> int:
    """Returns how many rows of an answer are held at once."""
    return max(1, min(HISTORICAL_BATCH_ROWS, HISTORICAL_BATCH_VALUES // max(column_count, 1)))


def arrow_chunks(batches: Batches, _row_count: int) -> Iterator[bytes]:
    """Yields batches as an Arrow IPC stream, one record batch a chunk."""
    sink = _Sink()
    first = next(batches)
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), first.schema) as writer:
        for batch in chain((first,), batches):
            writer.write_batch(batch)
            yield sink.take()
    yield sink.take()


def parquet_chunks(batches: Batches, _row_count: int) -> Iterator[bytes]:
    """Yields batches as a Parquet file, one row group a chunk; a file that is cut has no footer and cannot be read.

    Raises:
        WrongType: a column of a type that Parquet does not have.
    """
    first = next(batches)
    _check_has_parquet(first.schema)
    sink = _Sink()
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), first.schema) as writer:
        for batch in chain((first,), batches):
            writer.write_batch(batch)
            yield sink.take()
    yield sink.take()


def csv_chunks(batches: Batches, _row_count: int) -> Iterator[bytes]:
    """Yields batches as CSV with a header; null is nothing between two commas, and empty text is `""`.

    Raises:
        WrongType: a value that cannot be said in text.
    """
    sink = _Sink()
    first = _as_text(next(batches))
    with pa_csv.CSVWriter(pa.PythonFile(sink, mode="w"), first.schema) as writer:
        for batch in chain((first,), map(_as_text, batches)):
            writer.write_batch(batch)
            yield sink.take()
    yield sink.take()


def json_chunks(batches: Batches, row_count: int) -> Iterator[bytes]:
    """Yields one JSON object, a column a chunk: `metadata.feature_names` in order, and `columns` by name.

    Raises:
        TooLarge: more values than are answered in this form.
        WrongType: a value that JSON does not have.
    """
    first = next(batches)
    names = first.schema.names
    if row_count * len(names) > HISTORICAL_JSON_VALUES_MAX:
        raise TooLarge(
            f"entities: {row_count} rows x {len(names)} columns, at most {HISTORICAL_JSON_VALUES_MAX} values are "
            f"answered as {JSON}; ask for {_UNBOUNDED_FORMS}"
        )
    table = pa.Table.from_batches([first, *batches])
    # All columns are turned into text before the first is sent: a failure can still be a refusal.
    columns = [msgspec.json.encode(plain_column(table.column(name), name)) for name in names]
    yield b'{"metadata":' + msgspec.json.encode({"feature_names": names}) + b',"columns":{'
    for number, (name, column) in enumerate(zip(names, columns, strict=True)):
        yield (b"," if number else b"") + msgspec.json.encode(name) + b":" + column
    yield b"}}"


FORMATS: tuple[Format, ...] = (
    Format(JSON, json_chunks, HISTORICAL_JSON_ROWS_MAX),
    Format(ARROW_STREAM, arrow_chunks),
    Format(PARQUET, parquet_chunks),
    Format(CSV, csv_chunks, parameters="; charset=utf-8; header=present"),
)
"""All forms of answer; the first is the one for clients that take anything."""


def negotiate(accept: str | None) -> Format | None:
    """Returns the form of answer that an Accept header likes best, or None if it takes none of ours.

    Ties go to the order of `FORMATS`; no header takes anything.
    """
    ranges = [_media_range(part) for part in (accept or "*/*").split(",") if part.strip()]
    best, best_quality = None, 0.0
    for form in FORMATS:
        quality = _quality(form.media_type, ranges)
        if quality > best_quality:
            best, best_quality = form, quality
    return best


def _media_range(part: str) -> tuple[str, float]:
    media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((value for key, _, value in (p.partition("=") for p in parameters) if key.strip() == "q"), "1")
    try:
        return media_type, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return media_type, 0.0


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """Returns how much a media type is wanted; the most specific range that fits it decides."""
    wanted = dict(ranges)
    family = media_type.partition("/")[0] + "/*"
    return next((wanted[known] for known in (media_type, family, "*/*") if known in wanted), 0.0)


def _check_has_parquet(schema: pa.Schema) -> None:
    for column in schema:
        try:
            pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([column])).close()
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            raise WrongType(
                f"column {column.name!r} of type {column.type} cannot be written as Parquet ({error}); leave it out, "
                f"or ask for Accept: {ARROW_STREAM}"
            ) from error


def _as_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [text_column(column, name) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


class _Sink:
    """A writable file that gives away what was written to it."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size_bytes = 0
        self.closed = False

    def write(self, chunk: Any) -> int:
        self._chunks.append(bytes(chunk))
        self._size_bytes += len(chunk)
        return len(chunk)

    def tell(self) -> int:
        """Returns how much was written so far."""
        return self._size_bytes

    def flush(self) -> None:
        """Does nothing: nothing is held back."""

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        whole = b"".join(self._chunks)
        self._chunks.clear()
        return whole
