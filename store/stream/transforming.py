"""Logged rows as they come out of a view's row-level transformation; one that does not hides none of the others."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from store.errors import TransformationError
from store.offline.row_transformations import RowTransformation, TransformedRows


@dataclass(frozen=True, slots=True)
class ComeOut:
    """What came out of rows: the places of these among those that went in, and those that the function fails by.

    `failed` has places and reasons.
    """

    table: pa.Table
    places: list[int]
    failed: list[tuple[int, str]]


def transformed_rows(transformation: RowTransformation, table: pa.Table) -> ComeOut:
    """Returns what comes out of rows of the source, by their names in the view; rows that fail are told, not raised.

    Shapes: the table has the join keys, times and input columns of the view; one row per place.
    """
    whole: list[TransformedRows] = []
    places: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    failed: list[tuple[int, str]] = []
    for start, part in _parts(transformation, table, 0):
        if isinstance(part, TransformationError):
            failed.append((start, str(part)))
        else:
            whole.append(part)
            places.append(part.places + start)
    empty = transformation.output(transformation.given(table.schema)).empty_table()
    found = pa.concat_tables([empty, *(part.table for part in whole)])
    return ComeOut(found, np.concatenate(places).tolist() if places else [], failed)


def _parts(
    transformation: RowTransformation, table: pa.Table, start: int
) -> Iterator[tuple[int, TransformedRows | TransformationError]]:
    """Yields what comes out of rows, halved where the function fails, with where each part begins."""
    try:
        yield start, transformation.placed_rows(table)
    except TransformationError as error:
        if table.num_rows <= 1:
            yield start, error
            return
        half = table.num_rows // 2
        yield from _parts(transformation, table.slice(0, half), start)
        yield from _parts(transformation, table.slice(half), start + half)
