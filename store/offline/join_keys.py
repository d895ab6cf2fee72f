"""Join keys of entity rows, checked against a source and brought into a form that compares exactly with its keys.

The entity rows' side is converted, never the source's: a value that the source's type cannot hold equals none of its
keys, so it becomes null, which matches nothing. NaN counts as null.
"""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from store.errors import MissingJoinKey, WrongType, shown
from store.feast_values import arrow_type
from store.kernel.definitions import Column
from store.offline.column_types import are_comparable, is_text, is_uuid, plain_type
from store.offline.common_types import common_key_type, common_type, read_type
from store.offline.entity_rows import EntityRows


def check_join_key(rows: EntityRows, name: str, source_types: Sequence[pa.DataType], owner: str) -> None:
    """Checks that the entity rows have a column that can be compared with a join key of a source.

    Args:
        source_types: the key's type in each kind of file that the source has.
        owner: the view and its key, for messages.

    Raises:
        MissingJoinKey: there is no such column.
        WrongType: its type or a value cannot be compared with the source's.
    """
    if name not in rows.schema.names:
        raise MissingJoinKey(f"{owner} missing from entity rows (got {rows.schema.names}); add the column or rename it")
    kind = plain_type(rows.schema.field(name).type)
    for source_type in source_types:
        if not are_comparable(kind, source_type) and not rows.is_all_null(name):
            raise WrongType(
                f"{owner}: entity column {name!r} has type {kind}, the source has {source_type}; "
                "convert the entity column to the type of the source"
            )
    if pat.is_floating(kind) or (is_text(kind) and any(map(is_uuid, source_types))):
        join_key_column(pa.table({name: rows.source.column(name)}), name, source_types, owner)


def check_declared_key(key: Column, source_types: Iterable[pa.DataType], owner: str) -> None:
    """Checks that a join key of a source can be compared with the type that it is declared to have.

    A lookup asks for keys of the declared type and training for keys of the source's; were text read as a number, or a
    number as text, the two would find different rows.

    Args:
        source_types: the key's type in the source's files.
        owner: the source or view, for messages.

    Raises:
        WrongType: text for a number, a number for text, or another such pair.
    """
    declared = arrow_type(key.type_name)
    for source_type in source_types:
        kind = plain_type(source_type)
        is_epoch = key.type_name == "UNIX_TIMESTAMP" and (pat.is_integer(kind) or pat.is_date(kind))
        if not is_epoch and not are_comparable(declared, kind):
            raise WrongType(
                f"{owner}: join key {key.name!r} is declared as {key.type_name}, the source has {source_type}; declare "
                "the type of the source (value_type of the entity, and the view's schema), or write the column in the "
                "declared type"
            )


def join_key_column(table: pa.Table, name: str, source_types: Sequence[pa.DataType], owner: str) -> pa.Array:
    """Returns a checked column of some entity rows in a form that can be compared with a join key of a source.

    Raises:
        WrongType: a float with a fraction where the source has integers, or a text that is no UUID where it has UUIDs.
    """
    column = table.column(name)
    wanted = common_key_type(map(read_type, source_types))
    assert wanted is not None, "the source's files were checked to have a type in common"
    if pat.is_null(wanted) or column.null_count == len(column):
        return pa.nulls(len(column), wanted)
    combined = column.cast(plain_type(column.type)).combine_chunks()
    values = pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined
    return _fitted(values, wanted, f"{owner}: entity column {name!r}")


def _fitted(values: pa.Array, wanted: pa.DataType, owner: str) -> pa.Array:
    kind = values.type
    if is_uuid(wanted) and is_text(kind):
        return _as_uuids(values, owner)
    if pat.is_floating(kind):
        real = values.cast(pa.float64())
        present = pc.if_else(pc.is_nan(real), None, real)
        return _as_whole_numbers(present, wanted, owner) if pat.is_integer(wanted) else present
    if pat.is_integer(kind) and pat.is_floating(wanted):
        return _as_doubles(values)
    if pat.is_decimal(kind) or (pat.is_integer(kind) and pat.is_decimal(wanted)):
        return _as_exact_numbers(values, wanted)
    return values.cast(pa.binary()) if pat.is_binary_view(kind) else values


def _as_whole_numbers(values: pa.Array, wanted: pa.DataType, owner: str) -> pa.Array:
    """Returns float keys as integers: pandas turns a column of integers with a null in it into floats."""
    broken = values.filter(pc.or_kleene(pc.invert(pc.is_finite(values)), pc.not_equal(values, pc.floor(values))))
    if len(broken):
        raise WrongType(
            f"{owner} has type double with values that are no integers, such as {broken[0].as_py()!r}, "
            "the source has integers; convert the column to integers"
        )
    target = pa.uint64() if pat.is_uint64(wanted) else pa.int64()
    low, high = (0.0, 2.0**64) if pat.is_uint64(target) else (-(2.0**63), 2.0**63)
    is_held = pc.and_(pc.greater_equal(values, low), pc.less(values, high))
    # Each double within the bounds is an integer of 64 bits; Arrow's own check would stop at 2^53.
    return pc.if_else(is_held, values, None).cast(target, safe=False)


def _as_doubles(values: pa.Array) -> pa.Array:
    """Returns integer keys as doubles; one that no double equals is null."""
    present = values.fill_null(0).to_numpy(zero_copy_only=False)
    real = present.astype(np.float64)
    # 2^64 and 2^63 as doubles are beyond the integers that are rounded up to them, and do not fit back.
    is_same = real < 2.0 ** (64 if pat.is_unsigned_integer(values.type) else 63)
    is_same[is_same] = real[is_same].astype(present.dtype) == present[is_same]
    return pc.if_else(pc.and_(values.is_valid(), pa.array(is_same)), pa.array(real), None)


def _as_exact_numbers(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Returns decimal or integer keys in the type that holds both sides', else in the source's."""
    both = common_type([read_type(values.type), wanted])
    if both is not None:
        return values.cast(both)
    # 38 digits do not hold both: DuckDB would fail at the first value of either side that does not fit.
    return _by_value(values, lambda value: _held(value, wanted), wanted)


def _held(value: Decimal | int, wanted: pa.DataType) -> Decimal | int | None:
    """Returns a number as a value of another type, None where that does not have it."""
    try:
        if pat.is_integer(wanted):
            whole = int(value)
            held: Decimal | int | None = pa.scalar(whole, wanted).as_py() if whole == value else None
        else:
            held = pa.scalar(Decimal(value), wanted).as_py()
    except (pa.ArrowInvalid, OverflowError):
        return None
    return held


def _as_uuids(values: pa.Array, owner: str) -> pa.Array:
    """Returns UUIDs that are written as text: Python, and the libraries that pass UUIDs on as text, have them so."""

    def parsed(text: str) -> bytes:
        try:
            return UUID(text).bytes
        except ValueError as error:
            raise WrongType(
                f"{owner} holds {shown(text)}, which is no UUID, and the source has UUIDs; correct it, or leave it null"
            ) from error

    return pa.ExtensionArray.from_storage(pa.uuid(), _by_value(values, parsed, pa.binary(16)))


def _by_value(values: pa.Array, convert: Callable[[Any], Any], kind: pa.DataType) -> pa.Array:
    """Returns values converted in Python, each distinct one once."""
    coded = values.dictionary_encode()
    return pa.array(map(convert, coded.dictionary.to_pylist()), kind).take(coded.indices)
