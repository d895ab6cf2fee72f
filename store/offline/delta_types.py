"""Columns as a Delta table can hold them: casts that keep every value, and refusals by name where there is none.

Source: the Delta protocol, "Schema Serialization Format", which knows signed integers, float and double, decimals of up
to 38 digits, dates, timestamps in microseconds with the zone UTC or with none, text, bytes, booleans, arrays, structs
and maps.
"""

import pyarrow as pa
import pyarrow.types as pat

from store.errors import WrongType, shown

_DECIMAL_DIGITS_MAX = 38

_CAST_TO = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.int64(),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
    pa.string_view(): pa.string(),
    pa.binary_view(): pa.binary(),
}
"""Values of uint64 from 2^63 on fit no integer of Delta's: there the cast itself fails."""

_IS_KEPT = (
    pat.is_boolean,
    pat.is_signed_integer,
    pat.is_float32,
    pat.is_float64,
    pat.is_date32,
    pat.is_string,
    pat.is_large_string,
    pat.is_binary,
    pat.is_large_binary,
    pat.is_fixed_size_binary,
)


class DeltaColumns:
    """The columns of a schema in types that a Delta table has.

    Unsigned integers become the next wider signed ones (uint64: int64), half floats floats, dictionaries their values;
    timestamps become microseconds, those with a zone in UTC, which are the same instants.
    """

    def __init__(self, schema: pa.Schema) -> None:
        """Finds the types.

        Raises:
            WrongType: Delta has no equal of a column's type, or two names differ in upper and lower case only.
        """
        _check_names(schema.names)
        self.schema = pa.schema([(column.name, _delta_type(column.type, column)) for column in schema])

    def cast(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Returns a batch of the schema with its columns in Delta's types.

        Raises:
            WrongType: a value does not fit, such as a timestamp with nanoseconds.
        """
        columns = [_cast(column, target) for column, target in zip(batch.columns, self.schema, strict=True)]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _cast(column: pa.Array, target: pa.Field) -> pa.Array:
    if column.type.equals(target.type):
        return column
    try:
        return column.cast(target.type)
    except pa.ArrowInvalid as error:
        raise WrongType(
            f"column {target.name!r}: a value of {column.type} cannot be held by a Delta table, which has "
            f"{target.type} for it ({str(error).splitlines()[0]}); round the column, or save as Parquet"
        ) from error


def _check_names(names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        folded = name.lower()
        if folded in seen:
            raise WrongType(
                f"columns {seen[folded]!r} and {name!r} have one name to a Delta table, which does not tell upper from "
                "lower case; rename one, or save as Parquet"
            )
        seen[folded] = name


def _delta_type(kind: pa.DataType, column: pa.Field) -> pa.DataType:
    if kind in _CAST_TO:
        return _CAST_TO[kind]
    if any(is_kept(kind) for is_kept in _IS_KEPT):
        return kind
    if pat.is_dictionary(kind):
        return _delta_type(kind.value_type, column)
    if pat.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if pat.is_decimal(kind) and kind.precision <= _DECIMAL_DIGITS_MAX and kind.scale >= 0:
        return pa.decimal128(kind.precision, kind.scale)
    nested = _nested_type(kind, column)
    if nested is None:
        remedy = "give it a type" if pat.is_null(kind) else "cast it"
        raise WrongType(
            f"column {column.name!r} has type {shown(str(column.type))}, and a Delta table has none for {kind}; "
            f"{remedy}, or save as Parquet"
        )
    return nested


def _nested_type(kind: pa.DataType, column: pa.Field) -> pa.DataType | None:
    if pat.is_list(kind):
        return pa.list_(_delta_type(kind.value_type, column))
    if pat.is_large_list(kind):
        return pa.large_list(_delta_type(kind.value_type, column))
    if pat.is_fixed_size_list(kind):
        return pa.list_(_delta_type(kind.value_type, column), kind.list_size)
    if pat.is_map(kind):
        return pa.map_(_delta_type(kind.key_type, column), _delta_type(kind.item_type, column))
    if pat.is_struct(kind) and kind.num_fields:
        fields = [kind.field(number) for number in range(kind.num_fields)]
        _check_names([inner.name for inner in fields])
        return pa.struct([(inner.name, _delta_type(inner.type, column)) for inner in fields])
    return None
