"""What a push gives for views with a row-level transformation, and what comes out of it for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from store.arrow_rows import EVENT_US, with_time_columns
from store.kernel.windows import input_columns
from store.offline.row_transformations import RowTransformation, names_in, rows_or_the_row
from store.windows_from_feast import is_windowed, windows_of


def columns_to_give(
    view: Any, transformation: RowTransformation | None, known: Sequence[str], in_file: Mapping[str, str]
) -> list[str]:
    """Returns the columns, by their names in the file, that a push has to give for a view, but for keys and times.

    Those of its features, or that its windows aggregate; of a view with a transformation only what the source has of
    them, and what its function mentions.

    Args:
        known: the source's columns.
        in_file: names in the file of columns that have other names in the view.
    """
    of_features = input_columns(windows_of(view)) if is_windowed(view) else [field.name for field in view.features]
    names = [in_file.get(name, name) for name in of_features]
    if transformation is None:
        return names
    in_view = {name: view_name for view_name, name in in_file.items()}
    mentioned = names_in(transformation, [in_view.get(name, name) for name in known])
    times = {in_file.get(name, name) for name in (transformation.event, transformation.created)}
    wanted = {*names, *(in_file.get(name, name) for name in mentioned)} - times
    return [name for name in known if name in wanted]


def transformed_push(what: str, transformation: RowTransformation, table: pa.Table) -> pa.Table:
    """Returns what comes out of pushed rows, by their names in the view, with time columns; rows without time are out.

    Raises:
        TransformationError: the function fails for a row, which is named, or gives what does not fit.
    """
    rows = rows_or_the_row(what, transformation, table)
    timed = with_time_columns(rows, transformation.event, transformation.created or None)
    return timed.filter(pc.is_valid(timed.column(EVENT_US)))
