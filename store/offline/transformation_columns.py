"""Which columns a row-level transformation is handed and has to give, in which types, and what they are called."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.types as pat

from store.errors import DefinitionError
from store.feast_values import arrow_type
from store.kernel.definitions import Column
from store.kernel.values import element_type, is_opaque
from store.kernel.windows import NUMERIC, WindowFeature, input_columns
from store.offline.column_types import answer_type, is_instant
from store.offline.handed_rows import handed_type

_INSTANT = pa.timestamp("us", tz="UTC")
_FORMAT = b"larder-transformed-1"
_COUNTS = frozenset({"count", "count_distinct"})
_OTHER_TEXTS = frozenset({"JSON", "UUID", "TIME_UUID", "DECIMAL"})
"""Feast types of text that a source may have in types of its own."""


@dataclass(frozen=True, slots=True)
class TransformationColumns:
    """The function that the rows of a view's source go through; all names are those in the view.

    Attributes:
        mode: pandas (a DataFrame in and out) or python (a list per column in and out).
        text: what tells the function from another one.
        features: of a plain view; one of windows has `windows` instead.
        keeps_keys: whether the function has to leave the join keys as they are: events of a stream have been brought to
            where their key belongs before they go through it.
        in_file: the names in the source's files of columns that have other names in the view.
    """

    view: str
    mode: str
    function: Callable[[Any], Any]
    text: str
    keys: tuple[Column, ...]
    event: str
    created: str
    features: tuple[Column, ...]
    windows: tuple[WindowFeature, ...]
    keeps_keys: bool
    in_file: Mapping[str, str]

    @property
    def what(self) -> str:
        """Returns what messages begin with."""
        return f"feature view {self.view!r}: its transformation {getattr(self.function, '__name__', 'function')!r}"

    # --- columns ------------------------------------------------------------------------------

    def given(self, schema: pa.Schema) -> pa.Schema:
        """Returns the columns that the function is handed, of rows that have those of the source."""
        in_view = {name: known for known, name in self.in_file.items()}
        names = [in_view.get(field.name, field.name) for field in schema]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DefinitionError(
                f"feature view {self.view!r}: two columns of its source are called {twice!r} in the view; correct the "
                "source's field_mapping"
            )
        return pa.schema([(name, handed_type(field.type)) for name, field in zip(names, schema, strict=True)])

    def output(self, given: pa.Schema) -> pa.Schema:
        """Returns the columns that the function has to give: join keys, times, and what features are made of.

        Raises:
            DefinitionError: a feature of a type that a function cannot compute.
        """
        known = {field.name: field.type for field in given}
        fields = {key.name: self._declared(key, known.get(key.name)) for key in self.keys}
        for name in filter(None, (self.event, self.created)):
            fields[name] = known[name] if name in known and is_instant(known[name]) else _INSTANT
        for feature in self.features:
            fields.setdefault(feature.name, self._declared(feature, known.get(feature.name)))
        for name in input_columns(self.windows):
            fields.setdefault(name, self._aggregated(name, known.get(name)))
        return pa.schema(list(fields.items()))

    def output_in_file(self, schema: pa.Schema) -> pa.Schema:
        """Returns the columns that rows of a source have after it, by their names in the files."""
        output = self.output(self.given(schema))
        return pa.schema([(self.in_file.get(field.name, field.name), field.type) for field in output])

    def _declared(self, column: Column, given: pa.DataType | None) -> pa.DataType:
        name = column.type_name
        if name == "UNIX_TIMESTAMP":
            return pa.timestamp(given.unit, "UTC") if given is not None and pat.is_timestamp(given) else _INSTANT
        if (name in _OTHER_TEXTS or is_opaque(name)) and given is not None:
            return given
        if name == "ZONED_TIMESTAMP":
            return _INSTANT
        if is_opaque(name):
            raise DefinitionError(
                f"feature view {self.view!r}: feature {column.name!r} is declared as {name}, which a transformation "
                "can only pass on: its source has no column of that name; compute single values or lists"
            )
        return arrow_type(name)

    def _aggregated(self, name: str, given: pa.DataType | None) -> pa.DataType:
        """Returns the type of a column that windows aggregate, by what its features say of it.

        Those that answer its values say it all; numbers are doubles where they do not. What is only counted has the
        source's type; what it does not have is text, whatever the function makes it.
        """
        of_it = [feature for feature in self.windows if feature.column == name]
        said = [
            self._declared(Column(feature.name, element_type(feature.type_name) or feature.type_name), given)
            for feature in of_it
            if feature.function.name not in NUMERIC | _COUNTS
        ]
        if any(feature.function.name == "sum" and feature.type_name == "INT64" for feature in of_it):
            said.append(pa.int64())
        narrowest = next((k for k in said if all(answer_type(k, other).equals(other) for other in said)), None)
        if said and narrowest is None:
            raise DefinitionError(
                f"feature view {self.view!r}: column {name!r} is aggregated into features of types "
                f"{sorted({str(kind) for kind in said})}, which no one column has; declare them alike"
            )
        if narrowest is not None:
            return narrowest
        if any(feature.function.name in NUMERIC for feature in of_it):
            return pa.float64()
        return pa.string() if given is None else given

    def digest(self, schema: pa.Schema) -> str:
        """Returns 16 hex digits that change when the rows that come out of those of a source do."""
        given = self.given(schema)
        parts = [
            _FORMAT,
            self.text.encode(),
            given.serialize().to_pybytes(),
            self.output(given).serialize().to_pybytes(),
        ]
        joined = b"".join(len(part).to_bytes(8, "big") + part for part in (*parts, self.event.encode()))
        return hashlib.blake2b(joined, digest_size=8).hexdigest()

    def is_only_counted(self, name: str) -> bool:
        """Whether windows only count the values of a column."""
        of_it = {feature.function.name for feature in self.windows if feature.column == name}
        return bool(of_it) and of_it <= _COUNTS

    def why(self, name: str) -> str:
        """Returns for what the function has to give a column, for messages."""
        if name in {key.name for key in self.keys}:
            return "the join keys of each row"
        if name in (self.event, self.created):
            return "the times of each row, as they came"
        return "the columns that features are " + ("aggregated from" if self.windows else "declared of")
