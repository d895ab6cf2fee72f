"""Columns of Arrow batches summed up into profiles, by what their types are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from store.kernel.instants import Ints
from store.kernel.profiles import ColumnProfile, Kind, Profile
from store.kernel.profiling import CategorySum, MomentSum, NumberSum, Texts
from store.offline.column_types import is_text, is_uuid, plain_type

_US_OF_UNIT: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
_US_OF_DAY: Final = 86_400_000_000
_TRUTHS: Final = Texts(np.array([0, 5, 9], np.int64), np.frombuffer(b"falsetrue", np.uint8))


def kind_of(arrow_type: pa.DataType) -> Kind:
    """Returns how a column of a type is summed up."""
    kind = plain_type(arrow_type)
    if pat.is_integer(kind) or pat.is_floating(kind) or pat.is_decimal(kind):
        return Kind.NUMBER
    if pat.is_boolean(kind) or is_text(kind) or is_uuid(kind) or _is_bytes(kind):
        return Kind.CATEGORY
    if _is_list(kind):
        return Kind.LIST
    return Kind.MOMENT if pat.is_timestamp(kind) or pat.is_date(kind) else Kind.OPAQUE


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pat.is_binary(kind) or pat.is_large_binary(kind) or pat.is_fixed_size_binary(kind) or pat.is_binary_view(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pat.is_list(kind) or pat.is_large_list(kind) or pat.is_fixed_size_list(kind))


@dataclass(frozen=True, slots=True)
class SummedColumn:
    """A feature that is summed up.

    Attributes:
        type_name: Feast's name of its declared type, such as `Float64`.
        kind: by the type in which it is read, or by the declared one where it has no values.
        is_sized: of a list the batches have the number of items.
    """

    name: str
    type_name: str
    kind: Kind
    is_sized: bool = False


class _Sum(Protocol):
    """One column in the making."""

    def add(self, values: pa.Array) -> None:
        """Adds values, none of them null."""

    def merge(self, other: Any) -> None:
        """Adds the values of another sum of the same column."""

    def content(self) -> Mapping[str, Any]:
        """Returns what was added, as attributes of a `ColumnProfile`."""


class _Numbers:
    def __init__(self) -> None:
        self.sum = NumberSum()

    def add(self, values: pa.Array) -> None:
        if pat.is_integer(values.type):
            self.sum.add_integers(values.to_numpy(zero_copy_only=False))
        else:
            doubles = values if pat.is_float64(values.type) else values.cast(pa.float64())
            self.sum.add_floats(doubles.to_numpy(zero_copy_only=False))

    def merge(self, other: "_Numbers") -> None:
        self.sum.merge(other.sum)

    def content(self) -> Mapping[str, Any]:
        return {"numbers": self.sum.numbers(), "sketch": self.sum.sketch()}


class _Categories:
    def __init__(self) -> None:
        self.sum = CategorySum()
        self.lengths = NumberSum(has_distinct=False)

    def add(self, values: pa.Array) -> None:
        if pat.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if pat.is_boolean(values.type):
            self._add_truths(values)
            return
        if _is_bytes(values.type):
            self.lengths.add_integers(pc.binary_length(values).to_numpy(zero_copy_only=False))
            values = _hexadecimal(values)
        else:
            values = _as_text(values)
            self.lengths.add_integers(pc.utf8_length(values).to_numpy(zero_copy_only=False))
        counted = pc.value_counts(values)
        texts, counts = counted.field("values"), counted.field("counts")
        self.sum.add(_texts(texts), counts.to_numpy(zero_copy_only=False))

    def _add_truths(self, values: pa.Array) -> None:
        true = pc.sum(values).as_py() or 0
        counts = np.array([len(values) - true, true], np.int64)
        for place in np.flatnonzero(counts).tolist():
            offsets = _TRUTHS.offsets[place : place + 2]
            self.sum.add(Texts(offsets, _TRUTHS.content), counts[place : place + 1])

    def merge(self, other: "_Categories") -> None:
        self.sum.merge(other.sum)
        self.lengths.merge(other.lengths)

    def content(self) -> Mapping[str, Any]:
        lengths = self.lengths.numbers()
        return {
            "categories": self.sum.categories(),
            "sketch": self.sum.sketch(),
            "lengths": lengths if lengths.finite else None,
        }


class _Lists:
    def __init__(self) -> None:
        self.sum = NumberSum(has_distinct=False)

    def add(self, values: pa.Array) -> None:
        sizes = values if pat.is_integer(values.type) else pc.list_value_length(values)
        self.sum.add_integers(sizes.to_numpy(zero_copy_only=False))

    def merge(self, other: "_Lists") -> None:
        self.sum.merge(other.sum)

    def content(self) -> Mapping[str, Any]:
        return {"lengths": self.sum.numbers()}


class _Moments:
    def __init__(self) -> None:
        self.sum = MomentSum()

    def add(self, values: pa.Array) -> None:
        self.sum.add(instants_us(values))

    def merge(self, other: "_Moments") -> None:
        self.sum.merge(other.sum)

    def content(self) -> Mapping[str, Any]:
        return {"moments": self.sum.moments, "sketch": self.sum.sketch()}


class _Nothing:
    def add(self, values: pa.Array) -> None:
        pass

    def merge(self, other: "_Nothing") -> None:
        pass

    def content(self) -> Mapping[str, Any]:
        return {"skipped": "values of this type are not summed up: only nulls are counted"}


_SUMS: Final[Mapping[Kind, type[_Sum]]] = {
    Kind.NUMBER: _Numbers,
    Kind.CATEGORY: _Categories,
    Kind.LIST: _Lists,
    Kind.MOMENT: _Moments,
    Kind.OPAQUE: _Nothing,
}


def instants_us(values: pa.Array) -> Ints:
    """Returns timestamps or dates without a null as microseconds since the epoch, rounded down."""
    if pat.is_date32(values.type):
        return values.view(pa.int32()).to_numpy(zero_copy_only=False).astype(np.int64) * _US_OF_DAY  # type: ignore[no-any-return]
    if pat.is_date64(values.type):
        return values.view(pa.int64()).to_numpy(zero_copy_only=False) * 1_000  # type: ignore[no-any-return]
    if pat.is_integer(values.type):
        return values.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    counted = values.view(pa.int64()).to_numpy(zero_copy_only=False)
    unit = values.type.unit
    return counted // 1_000 if unit == "ns" else counted * _US_OF_UNIT[unit]  # type: ignore[no-any-return]


def _as_text(values: pa.Array) -> pa.Array:
    if pat.is_string(values.type) or pat.is_large_string(values.type):
        return values
    if is_uuid(values.type):
        return pa.array([str(value) for value in values.to_pylist()], pa.string())
    return values.cast(pa.large_string())


def _hexadecimal(values: pa.Array) -> pa.Array:
    """Returns bytes as hexadecimal digits."""
    return pa.array([value.hex() for value in values.to_pylist()], pa.large_string())


def _texts(values: pa.Array) -> Texts:
    """Returns an array of texts without a null as its bytes and their offsets."""
    width = np.int64 if pat.is_large_string(values.type) else np.int32
    _, offsets, content = values.buffers()
    ends = np.frombuffer(offsets, width)[values.offset : values.offset + len(values) + 1].astype(np.int64)
    return Texts(ends, np.frombuffer(content, np.uint8) if content is not None else np.empty(0, np.uint8))


@dataclass(slots=True)
class ColumnSum:
    """One feature in the making."""

    column: SummedColumn
    rows: int = 0
    nulls: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    _sum: _Sum = field(init=False)

    def __post_init__(self) -> None:
        self._sum = _SUMS[self.column.kind]()

    def add(self, values: pa.Array) -> None:
        """Adds values of a batch, nulls among them."""
        self.rows += len(values)
        self.nulls += values.null_count
        if values.null_count < len(values):
            self._sum.add(values.drop_null() if values.null_count else values)

    def merge(self, other: "ColumnSum") -> None:
        """Adds the values of another sum of the same feature."""
        self.rows += other.rows
        self.nulls += other.nulls
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count
        self._sum.merge(other._sum)  # noqa: SLF001 - one of its own kind

    def profile(self) -> ColumnProfile:
        """Returns all that was added."""
        column = self.column
        return ColumnProfile(
            column.name,
            column.type_name,
            column.kind,
            self.rows,
            self.nulls,
            dict(sorted(self.statuses.items())),
            **self._sum.content(),
        )


class TableSum:
    """The columns of one stretch of time in the making."""

    def __init__(self, columns: Sequence[SummedColumn]) -> None:
        self.rows = 0
        self.columns = [ColumnSum(column) for column in columns]

    def add(self, columns: Sequence[pa.Array], rows: int) -> None:
        """Adds a batch, given by its columns in their order."""
        self.rows += rows
        for each, values in zip(self.columns, columns, strict=True):
            each.add(values)

    def merge(self, other: "TableSum") -> None:
        """Adds the rows of another sum of the same columns."""
        self.rows += other.rows
        for mine, theirs in zip(self.columns, other.columns, strict=True):
            mine.merge(theirs)

    def profile(self, notes: Sequence[str] = ()) -> Profile:
        """Returns all that was added."""
        return Profile(self.rows, {each.column.name: each.profile() for each in self.columns}, tuple(notes))
