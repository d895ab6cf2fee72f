"""Whether two training sets are the same: a digest per column, in row order, of values and nulls."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.offline.shapes import ALL_FEATURES, EVENT, KEY, ROW_ID

COLUMNS = (ROW_ID, KEY, EVENT, *ALL_FEATURES)


class UnexpectedAnswer(Exception):
    """An answer has other columns, or columns of other types, than were asked for."""


@dataclass(frozen=True, slots=True)
class AnswerDigest:
    """What tells answers apart: how many rows, and a digest of each column."""

    rows: int
    columns: dict[str, str]

    @property
    def short(self) -> str:
        """Returns one digest of the whole answer."""
        whole = "".join(f"{name}={self.columns[name]};" for name in COLUMNS)
        return hashlib.blake2b(f"{self.rows};{whole}".encode(), digest_size=8).hexdigest()

    def difference(self, other: "AnswerDigest") -> str | None:
        """Returns how this answer differs from another one, None if they are the same."""
        if self.rows != other.rows:
            return f"{self.rows} rows instead of {other.rows}"
        names = [name for name in COLUMNS if self.columns[name] != other.columns[name]]
        return f"{len(names)} of {len(COLUMNS)} columns differ, first {names[0]!r}" if names else None


def digest_of(answer: pa.Table | Path, *, keeps_order: bool) -> AnswerDigest:
    """Returns the digest of an answer, in memory or in a Parquet file.

    Numbers count by value whatever their width, NaN and null are one, times are microseconds in UTC. How the answer is
    cut into chunks plays no part.

    Args:
        keeps_order: False sorts a table by `row_id` first.

    Raises:
        UnexpectedAnswer: a column is missing, not asked for, or neither number nor time.
    """
    if isinstance(answer, Path):
        with pq.ParquetFile(answer) as file:
            return _digest(file.schema_arrow.names, file.iter_batches())
    table = answer if keeps_order else answer.sort_by(ROW_ID)
    return _digest(table.column_names, table.to_batches())


def _digest(names: list[str], batches: Iterable[pa.RecordBatch]) -> AnswerDigest:
    if sorted(names) != sorted(COLUMNS):
        raise UnexpectedAnswer(f"columns are {names}, expected {list(COLUMNS)} in any order")
    values = {name: hashlib.blake2b(digest_size=16) for name in COLUMNS}
    nulls = {name: hashlib.blake2b(digest_size=16) for name in COLUMNS}
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        for name in COLUMNS:
            numbers, is_null = _canonical(name, batch.column(name))
            values[name].update(np.ascontiguousarray(numbers).tobytes())
            nulls[name].update(is_null.tobytes())
    return AnswerDigest(rows, {name: values[name].hexdigest() + nulls[name].hexdigest() for name in COLUMNS})


def _canonical(name: str, column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Returns a column as 64-bit numbers, zero where it is null, and where that is."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64())
    elif pa.types.is_integer(kind):
        column = column.cast(pa.int64())
    elif pa.types.is_floating(kind):
        column = column.cast(pa.float64())
    else:
        raise UnexpectedAnswer(f"column {name!r} is {kind}, expected a number or a time")
    is_null = pc.is_null(column, nan_is_null=True)
    numbers = pc.if_else(is_null, pa.scalar(0, column.type), column).to_numpy(zero_copy_only=False)
    # Adding zero makes one zero of both.
    return numbers + 0, is_null.to_numpy(zero_copy_only=False)
