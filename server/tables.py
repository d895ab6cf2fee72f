"""Answers of a retrieval, by media type: each an encoder that turns one table into chunks of bytes."""

import base64
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from server.limits import HISTORICAL_BATCH_ROWS, HISTORICAL_JSON_ROWS_MAX
from server.policy import ARROW_STREAM, JSON

Encoder = Callable[[Any], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Format:
    """One form of answer. `rows_max` None means as many as a request may have."""

    media_type: str
    encode: Encoder
    rows_max: int | None = None


def arrow_chunks(table: pa.Table) -> Iterator[bytes]:
    """Yields a table as an Arrow IPC stream, one record batch a chunk."""
    sink = _Sink()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), table.schema) as writer:
        for batch in table.to_batches(max_chunksize=HISTORICAL_BATCH_ROWS):
            writer.write_batch(batch)
            yield sink.take()
    yield sink.take()


def json_chunks(table: pa.Table) -> Iterator[bytes]:
    """Yields a table as one JSON object: `metadata.feature_names` in order, and `columns` by name."""
    columns = {name: plain_column(table.column(name)) for name in table.column_names}
    yield msgspec.json.encode({"metadata": {"feature_names": table.column_names}, "columns": columns})


FORMATS: tuple[Format, ...] = (
    Format(JSON, json_chunks, HISTORICAL_JSON_ROWS_MAX),
    Format(ARROW_STREAM, arrow_chunks),
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


def plain_column(column: pa.ChunkedArray) -> list[Any]:
    """Returns a column as values that JSON has: instants as RFC 3339, bytes as base64, NaN and infinities as text."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _instants(column)
    if pa.types.is_floating(kind) and not pc.all(pc.is_finite(column), min_count=0).as_py():
        return [plain(value) for value in column.to_pylist()]
    is_plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    values: list[Any] = column.to_pylist()
    return values if is_plain or pa.types.is_string(kind) else [plain(value) for value in values]


def _instants(column: pa.ChunkedArray) -> list[str | None]:
    # The digits shown are those of the unit; a zone changes only how an instant is written, so all are shown in UTC.
    in_utc = column.cast(pa.timestamp(column.type.unit, "UTC")) if column.type.tz else column
    text: list[str | None] = pc.strftime(in_utc, format="%Y-%m-%dT%H:%M:%SZ").to_pylist()
    return [None if value is None else _trimmed(value) for value in text]


def _trimmed(text: str) -> str:
    whole, dot, fraction = text.removesuffix("Z").partition(".")
    if not dot or not fraction.strip("0"):
        return f"{whole}Z"
    return f"{whole}.{fraction}Z"


def plain(value: Any) -> Any:
    """Returns one value, also inside of lists and structs, as JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(inner) for inner in value]
    return value


class _Sink:
    """A writable file that gives away what was written to it."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.closed = False

    def write(self, chunk: Any) -> int:
        self._chunks.append(bytes(chunk))
        return len(chunk)

    def flush(self) -> None:
        """Does nothing: nothing is held back."""

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        whole = b"".join(self._chunks)
        self._chunks.clear()
        return whole
