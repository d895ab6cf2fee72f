"""Whether the columns of a source can be aggregated as a windowed view declares."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as pat
from feast.repo_config import RepoConfig

from store.definitions_from_feast import batch_source_of, view_definition
from store.errors import DefinitionError, SourceColumnMissing, shown
from store.feast_values import arrow_type
from store.kernel.definitions import ViewDefinition
from store.kernel.windows import NUMERIC, WindowFeature
from store.offline.column_types import answer_type, is_instant, is_text
from store.offline.common_types import common_type, read_type
from store.offline.row_transformations import transformation_of
from store.offline.sources import Source, file_source, has_files, open_source

_TESTS = (pat.is_null, pat.is_boolean, pat.is_integer, pat.is_floating, is_text, pat.is_binary, is_instant)
_TYPES_OF_NUMBERS = (pat.is_null, pat.is_boolean, pat.is_integer, pat.is_floating)
_COUNTS = frozenset({"count", "count_distinct"})


def check_declared_windows(config: RepoConfig, view: Any) -> None:
    """Checks a windowed view against its source as it is on disk now; one without any file has nothing to say yet.

    Raises:
        DefinitionError: a column that a function cannot take, or a feature of a type that does not fit its column.
        SourceColumnMissing: a column that the source does not have.
        SourceUnreadable: a file of the source cannot be read.
    """
    declared = file_source(batch_source_of(view), f"feature view {view.name!r}")
    if has_files(config, declared):
        found = open_source(config, declared)
        transformation = transformation_of(view)
        columns = columns_of(found) if transformation is None else transformation.output_in_file(found.schema)
        check_window_columns(view_definition(config.project, view), columns)


def columns_of(source: Source) -> pa.Schema:
    """Returns the columns of a source with the types in which they are read; null where files have none in common."""
    kinds: dict[str, list[pa.DataType]] = {name: [] for name in source.schema.names}
    for schema in {id(file.schema): file.schema for file in source.files}.values():
        for column in schema:
            kinds.setdefault(column.name, []).append(read_type(column.type))
    described = {field.name: read_type(field.type) for field in source.schema}
    # Files that cannot be reconciled are refused by whoever scans them, naming the two.
    return pa.schema(
        [(name, (common_type(found) if found else described[name]) or pa.null()) for name, found in kinds.items()]
    )


def check_window_columns(definition: ViewDefinition, schema: pa.Schema) -> None:
    """Checks that a source has the columns that a windowed view aggregates, in types that its features can have.

    Args:
        schema: the source's columns, by their names in the file.

    Raises:
        DefinitionError: a column that a function cannot take, or a feature of a type that does not fit its column.
        SourceColumnMissing: a column that the source does not have.
    """
    source = definition.source
    assert source is not None, "a windowed view without a source is refused before"
    for feature in definition.windows:
        name = source.file_column(feature.column)
        what = f"feature view {definition.name!r}: feature {feature.name!r}"
        if name not in schema.names:
            raise SourceColumnMissing(
                f"{what} aggregates column {feature.column!r}, which its source {source.path!r} does not have "
                f"(it has {shown(_in_view(schema.names, definition))}); add the column, or correct the aggregation or "
                "the source's field_mapping"
            )
        _check_input(f"{what} aggregates column {feature.column!r}", feature, schema.field(name).type)
        _check_declared(what, feature, schema.field(name).type)


def _in_view(names: Sequence[str], definition: ViewDefinition) -> list[str]:
    mapping = dict(definition.source.field_mapping) if definition.source else {}
    return [mapping.get(name, name) for name in names]


def _check_input(what: str, feature: WindowFeature, stored: pa.DataType) -> None:
    kind, function = read_type(stored), feature.function.name
    if pat.is_decimal(kind):
        raise DefinitionError(
            f"{what}, which has type {kind}: windows take no decimals, since a stream has none; write it as DOUBLE, or "
            "as integers of the smallest unit"
        )
    if not any(test(kind) for test in _TESTS):
        raise DefinitionError(
            f"{what}, which has type {kind}; windows take numbers, truths, text, bytes, timestamps and dates: write "
            "the column as one of these"
        )
    if function in NUMERIC and not any(test(kind) for test in _TYPES_OF_NUMBERS):
        raise DefinitionError(
            f"{what}, which has type {kind}, but {_said(feature)} is of numbers and truths; aggregate a column of "
            "numbers, or use count, count_distinct, min, max, first or last"
        )


def _check_declared(what: str, feature: WindowFeature, stored: pa.DataType) -> None:
    kind, function = read_type(stored), feature.function.name
    if function == "sum" and feature.type_name == "INT64" and pat.is_floating(kind):
        raise DefinitionError(
            f"{what} is declared as INT64, but it is a sum of column {feature.column!r} of type {kind}; declare it as "
            "Float64"
        )
    if function in NUMERIC or function in _COUNTS:
        return
    declared = arrow_type(feature.type_name)
    own = declared.value_type if feature.function.parameter else declared
    if not _fits(kind, own):
        raise DefinitionError(
            f"{what} is declared as {feature.type_name}, but {_said(feature)} gives values of column "
            f"{feature.column!r}, which has type {kind}; declare {'an Array of it' if declared is not own else 'it so'}"
        )


def _fits(kind: pa.DataType, declared: pa.DataType) -> bool:
    """Whether values of a type are answered as a declared one: unchanged, or widened."""
    answered = answer_type(kind, declared)
    if pat.is_timestamp(declared):
        return bool(is_instant(kind) or pat.is_null(kind))
    return bool(answered.equals(declared))


def _said(feature: WindowFeature) -> str:
    function = feature.function
    return f"{function.name}_{function.parameter}" if function.parameter else function.name
