"""A view's row-level transformation as one function over rows of its source, wherever they come from.

Batch files go through it in chunks, pushes and events of a stream in micro-batches; as it is row-wise by contract, the
same rows come out. What it is handed, and in which types, is told in `handed_rows`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.types as pat

from store.definitions_from_feast import batch_source_of, column_of, join_key_columns
from store.errors import TransformationError, shortened, shown
from store.limits import TRANSFORM_SAMPLE_ROWS
from store.offline.handed_rows import Misfit, are_same, as_handed, fitted, frame_of, lists_of, texts_of
from store.offline.transformation_columns import TransformationColumns
from store.transformations_from_feast import (
    PANDAS,
    function_of,
    has_transformation,
    mode_of,
    takes_a_frame,
    transformation_text,
)
from store.windows_from_feast import is_windowed, windows_of


@dataclass(frozen=True, slots=True)
class TransformedRows:
    """Rows that came out of a transformation, with the place of each among those that went in, ascending or not."""

    table: pa.Table
    places: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class RowTransformation(TransformationColumns):
    """What the rows of a view's source go through."""

    def handed(self, table: pa.Table, given: pa.Schema) -> pa.Table:
        """Returns rows of the source, by their names in the view, as the function is handed them.

        Raises:
            TransformationError: a column that cannot be handed over.
        """
        columns = []
        for field in given:
            if field.name not in table.column_names:
                columns.append(pa.nulls(table.num_rows, field.type))
                continue
            column = table.column(field.name)
            try:
                columns.append(as_handed(column, field.type))
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise TransformationError(
                    f"feature view {self.view!r}: column {field.name!r} of its source has type {column.type} and "
                    f"cannot be handed to its transformation as {field.type}: "
                    f"{shortened(str(error).splitlines()[0])}; write the source's files alike"
                ) from error
        return pa.table(columns, schema=given)

    def rows(self, table: pa.Table) -> pa.Table:
        """Returns what comes out of rows of the source, by their names in the view, in their order.

        Raises:
            TransformationError: the function fails, or gives what does not fit.
        """
        if self.keeps_keys:
            return self.placed_rows(table).table
        return self._applied(self.handed(table, self.given(table.schema)))[0]

    def placed_rows(self, table: pa.Table) -> TransformedRows:
        """Returns the same with the place of each row among those that went in.

        Raises:
            TransformationError: the function fails, or gives what does not fit, or depends on other rows.
        """
        handed = self.handed(table, self.given(table.schema))
        output, index = self._applied(handed)
        places = self._places(handed, output, index)
        if self.keeps_keys:
            self._require_keys(handed, output, places)
        return TransformedRows(output, places)

    def require_row_wise(self, table: pa.Table, *, is_each_alone: bool = False) -> None:
        """Checks by some rows whether the function gives the same for them together and apart.

        Args:
            is_each_alone: whether apart is each row by itself, else two halves.

        Raises:
            TransformationError: it does not; or as `rows`.
        """
        sample = self.handed(table.slice(0, TRANSFORM_SAMPLE_ROWS), self.given(table.schema))
        whole, _ = self._applied(sample)
        step = 1 if is_each_alone else max(1, sample.num_rows // 2)
        parts = [self._applied(sample.slice(start, step))[0] for start in range(0, sample.num_rows, step)]
        if parts and not are_same(whole, pa.concat_tables(parts)):
            raise self._depends()

    def _applied(self, handed: pa.Table) -> tuple[pa.Table, Any]:
        """Returns what comes out, and the index that a DataFrame came with."""
        schema = self.output(handed.schema)
        if not handed.num_rows:
            return schema.empty_table(), None
        if self.mode == PANDAS:
            frame = self._frame(handed)
            columns, count, index = {**frame}, len(frame), frame.index
        else:
            columns, count = self._lists(handed)
            index = None
        if count > handed.num_rows:
            raise TransformationError(
                f"{self.what} gave {count} rows for {handed.num_rows}; it may change rows and leave some out, but not "
                "make new ones"
            )
        fitting = [self._fitted(columns, field, count) for field in schema]
        return pa.table(fitting, schema=schema), index

    def _call(self, rows: Any) -> Any:
        try:
            return self.function(rows)
        except Exception as error:  # A user's function may raise anything; it becomes an error that names the view.
            hint = (
                ""
                if self.mode == PANDAS
                else "; in mode 'python' it is handed a dict of lists, declare mode 'pandas' for a DataFrame"
            )
            raise TransformationError(
                f"{self.what} failed: {type(error).__name__}: {str(error)[:200]}; it has to cope with every row of the "
                f"source, nulls among them, and to import inside what it uses{hint}"
            ) from error

    def _frame(self, handed: pa.Table) -> pd.DataFrame:
        frame = self._call(frame_of(handed))
        if not isinstance(frame, pd.DataFrame):
            raise TransformationError(
                f"{self.what} gave {type(frame).__name__}, expected a DataFrame; return one, or declare mode 'python' "
                "for a function of lists"
            )
        if not frame.columns.is_unique:
            raise TransformationError(f"{self.what} gave columns {shown(list(frame.columns))}, one of them twice")
        return frame

    def _lists(self, handed: pa.Table) -> tuple[dict[str, Any], int]:
        given = lists_of(handed)
        computed = self._call({name: list(values) for name, values in given.items()})
        if isinstance(computed, pd.DataFrame):
            computed = dict(computed.items())
        if not isinstance(computed, Mapping):
            raise TransformationError(
                f"{self.what} gave {type(computed).__name__}, expected a dict of lists by column; return one, or "
                "declare mode 'pandas' for a function of DataFrames"
            )
        for name, values in computed.items():
            if not hasattr(values, "__len__") or isinstance(values, str | bytes | Mapping):
                raise TransformationError(
                    f"{self.what} gave {shown(values)} for {name!r}, expected a list with a value for each row"
                )
        counts = {name: len(values) for name, values in computed.items()}
        if len(set(counts.values())) > 1:
            raise TransformationError(
                f"{self.what} gave columns of different lengths: {shown(counts)}; give one value a row"
            )
        count = next(iter(counts.values()), 0)
        # Columns that it leaves alone need not come back, as in Feast; but then each row has to.
        return ({**given, **computed} if count == handed.num_rows else dict(computed)), count

    def _fitted(self, columns: Mapping[Any, Any], field: pa.Field, count: int) -> pa.Array:
        if field.name not in columns:
            raise TransformationError(
                f"{self.what} gave no column {field.name!r} (it gave {shown(sorted(map(str, columns)))}); it has to "
                f"give {self.why(field.name)}"
            )
        values = columns[field.name]
        try:
            if self.is_only_counted(field.name) and pat.is_string(field.type):
                return texts_of(values)
            if pat.is_floating(field.type) and self.windows and getattr(values, "dtype", None) in ("bool", "boolean"):
                values = values.astype("Int64")
            column = fitted(values, field.type)
        except Misfit as error:
            raise TransformationError(
                f"{self.what} gave for column {field.name!r} {error}, expected {field.type}; change the function, or "
                "declare the type that it gives"
            ) from error
        assert len(column) == count, "columns of a DataFrame have one length, and so have checked lists"
        return column

    # --- places -------------------------------------------------------------------------------

    def _places(self, handed: pa.Table, output: pa.Table, index: Any) -> np.ndarray[Any, Any]:
        """Returns where the rows that came out stood among those that went in.

        As many as went in are these, in order, unless a DataFrame's index says otherwise. What an index names is taken
        if just these rows come out the same; one that was made anew is found out by that. Else the rows are gone
        through in ever smaller parts.
        """
        count = handed.num_rows
        named = _positions(index, count)
        everywhere = np.arange(output.num_rows)
        if not output.num_rows or (output.num_rows == count and (named is None or np.array_equal(named, everywhere))):
            return everywhere
        if named is not None:
            again, _ = self._applied(handed.take(named))
            if are_same(again, output):
                return named
        parts = list(self._parts(handed, 0))
        if not parts or not are_same(pa.concat_tables([part.table for part in parts]), output):
            raise self._depends()
        return np.concatenate([part.places for part in parts])

    def _parts(self, handed: pa.Table, before: int) -> Iterator[TransformedRows]:
        count, (output, _) = handed.num_rows, self._applied(handed)
        if output.num_rows == count:
            yield TransformedRows(output, np.arange(before, before + count))
        elif output.num_rows:
            half = count // 2
            yield from self._parts(handed.slice(0, half), before)
            yield from self._parts(handed.slice(half), before + half)

    def _require_keys(self, handed: pa.Table, output: pa.Table, places: np.ndarray[Any, Any]) -> None:
        for key in self.keys:
            if key.name not in handed.column_names:
                raise TransformationError(
                    f"{self.what} would have to compute join key {key.name!r}, which a windowed stream view's source "
                    "has to have itself: events are brought to where their key belongs before they go through it"
                )
            before = fitted(
                handed.column(key.name).take(pa.array(places)).combine_chunks(), output.field(key.name).type
            )
            if not output.column(key.name).combine_chunks().equals(before):
                raise TransformationError(
                    f"{self.what} changed join key {key.name!r}, which a windowed stream view's has to leave as it is: "
                    "events are brought to where their key belongs before they go through it"
                )

    def _depends(self) -> TransformationError:
        return TransformationError(
            f"{self.what} gave something else for the same rows when they came in other company, so a push would not "
            "be served what training has; it has to be row-wise: no sums, ranks, shifts or duplicates over rows, and "
            "neither chance nor the time of day"
        )


def transformation_of(view: Any) -> RowTransformation | None:
    """Returns the transformation of a feature view, None for a view without one.

    Raises:
        DefinitionError: the view cannot be served as declared.
    """
    if not has_transformation(view):
        return None
    source = batch_source_of(view)
    mapping = dict(source.field_mapping or {})
    keys = join_key_columns(view)
    event = mapping.get(source.timestamp_field, source.timestamp_field)
    created = mapping.get(source.created_timestamp_column, source.created_timestamp_column) or ""
    columns = {field.name: column_of(field) for field in view.features}
    others = sorted(columns.keys() - {key.name for key in keys} - {event, created})
    windows = windows_of(view)
    return RowTransformation(
        view=view.name,
        mode=PANDAS if takes_a_frame(view) else mode_of(view),
        function=function_of(view),
        text=transformation_text(view),
        keys=keys,
        event=event,
        created=created,
        features=() if is_windowed(view) else tuple(columns[name] for name in others),
        windows=windows,
        keeps_keys=bool(windows) and getattr(view, "stream_source", None) is not None,
        in_file={in_view: name for name, in_view in mapping.items()},
    )


def rows_or_the_row(what: str, transformation: RowTransformation, table: pa.Table) -> pa.Table:
    """Returns what comes out of rows that came together, such as those of a push.

    Args:
        what: what they came by, for messages.

    Raises:
        TransformationError: the function fails for a row, which is named, or gives what does not fit.
    """
    try:
        return transformation.rows(table)
    except TransformationError:
        low, high = 0, table.num_rows
        while high - low > 1:
            middle = (low + high) // 2
            if _fails(transformation, table.slice(low, middle - low)) is not None:
                high = middle
            else:
                low = middle
        error = _fails(transformation, table.slice(low, 1))
        if error is None:
            raise
        raise TransformationError(f"{what}, row {low}: {error}; nothing of the rows was written") from error


def _fails(transformation: RowTransformation, table: pa.Table) -> TransformationError | None:
    try:
        transformation.rows(table)
    except TransformationError as error:
        return error
    return None


def names_in(transformation: RowTransformation, names: Sequence[str]) -> list[str]:
    """Returns those of some columns that the function's code mentions, as text or as an attribute."""
    code = getattr(transformation.function, "__code__", None)
    mentioned = _mentioned(code) if code is not None else set(names)
    return [name for name in names if name in mentioned]


def _mentioned(code: Any) -> set[str]:
    found = {*code.co_names}
    for value in code.co_consts:
        if hasattr(value, "co_consts"):
            found |= _mentioned(value)
        elif isinstance(value, str):
            found.add(value)
        elif isinstance(value, tuple | frozenset):
            found |= {part for part in value if isinstance(part, str)}
    return found


def _positions(index: Any, count: int) -> np.ndarray[Any, Any] | None:
    """Returns a DataFrame's index as distinct places among some rows, None if it is something else."""
    if index is None or index.dtype.kind not in "iu" or not index.is_unique:
        return None
    places = np.asarray(index, dtype=np.int64)
    return places if len(places) and places.min() >= 0 and places.max() < count else None
