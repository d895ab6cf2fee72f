"""What features are declared as: Feast's names of types, and how values of them are summed up."""

from typing import Any, NamedTuple

import pyarrow as pa
from feast.type_map import pa_to_feast_value_type
from feast.types import from_feast_to_pyarrow_type, from_value_type
from feast.value_type import ValueType

from store.kernel.profiles import ColumnProfile, Kind
from store.offline.column_sums import SummedColumn, kind_of


class Declared(NamedTuple):
    """A feature as it is declared: its name, Feast's name of its type, and how that is summed up, if it says so."""

    name: str
    type_name: str
    kind: Kind | None

    @classmethod
    def of(cls, field: Any) -> "Declared":
        """Returns what a Feast field declares."""
        try:
            kind = kind_of(from_feast_to_pyarrow_type(field.dtype))
        except ValueError:
            kind = None
        return cls(field.name, type_name_of(field.dtype.to_value_type()), kind)


def type_name_of(value_type: ValueType) -> str:
    """Returns Feast's name of a type as people write it in a schema, such as `Float64` or `Array(String)`."""
    try:
        return str(from_value_type(value_type)).partition("({")[0]
    except ValueError:
        return value_type.name


def type_name_of_arrow(kind: pa.DataType) -> str:
    """Returns the name of the Feast type that a column without a declaration would be declared as."""
    try:
        return type_name_of(pa_to_feast_value_type(str(kind)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return str(kind)


def summed_column(declared: Declared, read: pa.DataType) -> tuple[SummedColumn, str]:
    """Returns how a column is summed up, and a sentence if it has values of another kind than declared, else ''."""
    kind = kind_of(read)
    if pa.types.is_null(read):
        kind = declared.kind or Kind.OPAQUE
    note = ""
    if declared.kind is not None and kind is not declared.kind:
        note = (
            f"feature {declared.name!r} is declared as {declared.type_name}, and its source has {read}: its values are "
            f"summed up as {read}; correct the declaration or the source"
        )
    return SummedColumn(declared.name, declared.type_name, kind), note


def note_of_values(declared: Declared, found: ColumnProfile) -> str:
    """Returns a sentence if values are not what their declared type can hold, or ''."""
    is_whole = declared.type_name in {"Int32", "Int64"} and found.kind is Kind.NUMBER
    if is_whole and found.numbers is not None and not found.numbers.is_integral:
        return (
            f"feature {declared.name!r} is declared as {declared.type_name}, and its source has numbers with a "
            "fraction; correct the declaration or the source"
        )
    return ""
