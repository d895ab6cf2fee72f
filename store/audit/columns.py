"""Logged columns beside what training sees, compared as whole columns where their types allow it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.arrow_rows import us_and_ns
from store.errors import WrongType
from store.feast_values import arrow_scalars, plain_from_arrow
from store.kernel.definitions import Column
from store.kernel.equality import FLOAT_TOLERANCE, are_equal
from store.kernel.served_log import LoggedPlan
from store.kernel.values import FLOATS, element_type, is_opaque

Truths = npt.NDArray[np.bool_]


class Answer:
    """A block of logged rows with what training sees beside them, as `Recomputation.answers` gives it."""

    def __init__(self, table: pa.Table, names: list[str]) -> None:
        """Takes a block; `names` are those of the logged columns in their order."""
        self.table = table
        self._names = names
        self._place_of = {name: place for place, name in enumerate(names)}

    def __len__(self) -> int:
        """Returns the number of rows."""
        return int(self.table.num_rows)

    def logged(self, name: str) -> pa.ChunkedArray:
        """Returns a logged column."""
        return self.table.column(f"l{self._place_of[name]}")

    def trained(self, name: str) -> pa.ChunkedArray | None:
        """Returns a column of what training sees, None where it was not asked for."""
        return self.table.column(name) if name in self.table.column_names else None

    def taken(self, is_taken: Truths) -> "Answer":
        """Returns some of the rows."""
        return Answer(self.table.filter(pa.array(is_taken)), self._names)


def together(answers: list[Answer]) -> Answer:
    """Returns blocks as one."""
    first = answers[0]
    return Answer(pa.concat_tables([answer.table for answer in answers]).combine_chunks(), first._names)  # noqa: SLF001 - its own


def equal_values(column: Column, logged: pa.ChunkedArray, trained: pa.ChunkedArray | None) -> Truths:
    """Returns for each row whether the logged value is the one that training sees (None: it sees none)."""
    if trained is None:
        return _truths(pc.is_null(logged))
    try:
        if is_opaque(column.type_name) or element_type(column.type_name):
            pairs = zip(logged.to_pylist(), plain_from_arrow(column, trained), strict=True)
            return np.fromiter((are_equal(left, right) for left, right in pairs), bool, len(logged))
        seen = arrow_scalars(column, trained).cast(logged.type)
    except (WrongType, pa.ArrowException):
        # What does not fit the type that was served is another value.
        return _truths(pc.and_(pc.is_null(logged), pc.is_null(trained)))
    if column.type_name in FLOATS:
        return _equal_floats(logged, seen)
    both_null = pc.and_(pc.is_null(logged), pc.is_null(seen))
    return _truths(pc.or_(both_null, pc.fill_null(pc.equal(logged, seen), False)))


def _equal_floats(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Truths:
    are_null = [_truths(pc.is_null(side)) for side in (left, right)]
    a, b = (pc.fill_null(side.cast(pa.float64()), 0.0).to_numpy() for side in (left, right))
    with np.errstate(invalid="ignore", over="ignore"):
        bound = FLOAT_TOLERANCE * np.maximum(1.0, np.maximum(np.abs(a), np.abs(b)))
        are_close = np.isfinite(a) & np.isfinite(b) & (np.abs(a - b) <= bound)
    are_same = are_close | (a == b) | (np.isnan(a) & np.isnan(b))
    return np.asarray((are_null[0] & are_null[1]) | (~are_null[0] & ~are_null[1] & are_same))


def plain_values(column: Column, trained: pa.ChunkedArray | None, row_count: int) -> list[Any]:
    """Returns what training sees as plain values of the type that was served; what does not fit it as it is."""
    if trained is None:
        return [None] * row_count
    try:
        return plain_from_arrow(column, trained)
    except WrongType:
        values: list[Any] = trained.to_pylist()
        return values


def times_of(columns: list[pa.ChunkedArray]) -> tuple[list[pa.Array], Truths]:
    """Returns event and created times as microseconds and nanoseconds, and whether there is a row at all."""
    found: list[pa.Array] = []
    for column in columns:
        found += us_and_ns(column)
    return found, _truths(pc.is_valid(found[0]))


def integers(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.int64]:
    """Returns a column of integers with 0 for nulls."""
    filled = pc.fill_null(column.cast(pa.int64()), 0)
    return np.asarray(filled.to_numpy(zero_copy_only=False) if isinstance(filled, pa.Array) else filled.to_numpy())


def truths(column: Any) -> Truths:
    """Returns a column of truths without nulls as an array."""
    return _truths(column)


def _truths(column: Any) -> Truths:
    return np.asarray(
        column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy(), bool
    )


def wanted_columns(plan: LoggedPlan) -> list[str]:
    """Returns the logged columns that an audit reads: all but the dates, and the times that Feast has per feature."""
    left_out = {"__log_date", *(f"{feature.column}__timestamp" for feature in plan.features)}
    return [name for name in plan.column_names if name not in left_out]
