"""On-demand feature views over training sets: batch by batch, in the types that they declare."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import from_feast_to_pyarrow_type

from store.errors import InputError

_BATCH_ROWS = 100_000
"""Rows handed to a user's function at a time; it is row-wise by contract, so where they are cut makes no difference."""


class BatchedOnDemandView:
    """An on-demand view as Feast's retrieval job takes one; all but its transformation is the view's own."""

    def __init__(self, view: OnDemandFeatureView) -> None:
        """Takes a view."""
        self._view = view

    def __getattr__(self, name: str) -> Any:
        """Returns what the view has."""
        return getattr(self._view, name)

    def transform_arrow(self, table: pa.Table, full_feature_names: bool = False) -> pa.Table:
        """Returns the features that the view computes from the columns of a table, in their declared types.

        Raises:
            InputError: the view's function failed, or gave another number of rows or another type than it should.
        """
        batches = [
            self._of_batch(table.slice(start, _BATCH_ROWS), full_feature_names)
            for start in range(0, table.num_rows, _BATCH_ROWS)
        ]
        return pa.concat_tables(batches) if batches else self._declared(full_feature_names).empty_table()

    def _of_batch(self, table: pa.Table, has_full_names: bool) -> pa.Table:
        declared = self._declared(has_full_names)
        try:
            if self._view.mode == "python" and self._view.singleton:
                return self._row_by_row(table, declared)
            computed = self._view.transform_arrow(table, has_full_names)
        except Exception as error:  # A user's function may raise anything; it becomes an error that names the view.
            raise InputError(
                f"on-demand feature view {self._view.name!r} failed: {type(error).__name__}: {str(error)[:200]}; its "
                "function must cope with missing values, and entity rows must have the types of its request fields"
            ) from error
        columns = [self._fitted(computed, field, table.num_rows) for field in declared]
        return pa.table(columns, schema=declared)

    def _row_by_row(self, table: pa.Table, declared: pa.Schema) -> pa.Table:
        """Returns what a function that takes one row gives for each; Feast would hand it whole columns here."""
        rows = [self._view.transform_dict({name: [value] for name, value in row.items()}) for row in table.to_pylist()]
        columns = [
            pa.array([row[feature.name] for row in rows], field.type)
            for feature, field in zip(self._view.features, declared, strict=True)
        ]
        return pa.table(columns, schema=declared)

    def _fitted(self, computed: pa.Table, field: pa.Field, row_count: int) -> pa.ChunkedArray:
        count = computed.num_rows if field.name in computed.column_names else 0
        if count != row_count:
            raise InputError(
                f"on-demand feature view {self._view.name!r}: its function gave {count} values of {field.name!r} for "
                f"{row_count} rows; it must give one per row"
            )
        column = computed.column(field.name)
        try:
            return column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"on-demand feature view {self._view.name!r}: its function gave {column.type} for {field.name!r}, "
                f"which is declared as {field.type} ({str(error).splitlines()[0][:200]}); change the function or the "
                "schema"
            ) from error

    def _declared(self, has_full_names: bool) -> pa.Schema:
        prefix = f"{self._view.projection.name_to_use()}__" if has_full_names else ""
        return pa.schema(
            [(prefix + field.name, from_feast_to_pyarrow_type(field.dtype)) for field in self._view.features]
        )


def added_columns(
    views: Sequence[BatchedOnDemandView], references: Sequence[str], *, has_full_names: bool
) -> dict[str, str]:
    """Returns which columns on-demand views add to an answer, by name, with the reference `view:feature` of each."""
    added = {}
    for view in views:
        name = view.projection.name_to_use()
        for field in view.features:
            reference = f"{name}:{field.name}"
            if reference in references or f"{view.name}:{field.name}" in references:
                added[f"{name}__{field.name}" if has_full_names else field.name] = reference
    return added
