"""What a query needs of a source, checked against every file before any heavy work."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pat
from feast.infra.offline_stores.file_source import FileSource

from store.errors import SourceColumnMissing, SourceUnreadable
from store.kernel.source_scan import EventRange, FileGroup, Scan, SourceColumn, TimeColumn, literal
from store.offline.column_types import holds, is_instant
from store.offline.common_types import common_key_type, common_type, read_type, sql_type
from store.offline.source_files import partition_instant_us
from store.offline.sources import Source, SourceFile

_VIRTUAL_COLUMNS = frozenset({"file_row_number", "file_index"})
"""Names under which DuckDB tells a row's place in the source; a real column of that name would hide it."""


@dataclass(frozen=True, slots=True)
class NeededColumns:
    """The columns that a query reads, by their names in the file; `owner` says for whom, in messages.

    A file may lack those features that are `optional`: its rows have nulls there.
    """

    owner: str
    keys: tuple[str, ...]
    event: str
    created: str | None
    features: tuple[str, ...]
    optional: frozenset[str] = frozenset()


def needed_columns(
    owner: str, source: FileSource, found: Source, keys: Sequence[str], features: Sequence[str]
) -> NeededColumns:
    """Returns the columns in the file behind join keys and features of a view, through the source's field mapping."""
    in_file = {in_view: name for name, in_view in source.field_mapping.items()}
    times = [
        # Feast lets a timestamp field be given in the file's name or in the mapped one.
        name if name in found.schema.names else in_file.get(name, name)
        for name in (source.timestamp_field, source.created_timestamp_column or "")
    ]
    return NeededColumns(
        owner,
        tuple(in_file.get(name, name) for name in keys),
        times[0],
        times[1] or None,
        tuple(in_file.get(name, name) for name in features),
    )


def scan_of(source: Source, needed: NeededColumns) -> Scan:
    """Returns the scan of a source's files, grouped by the types that their needed columns have.

    A column has one type in all groups, whichever of them are read: that which holds the values of all files.

    Raises:
        SourceColumnMissing: a file lacks a needed column. A landed file may lack a feature, and a file of a Delta
            table a key or feature: it was written before the column was declared, so its rows have none.
        SourceUnreadable: a column whose type or name cannot be used, or whose types in two files have nothing in
            common.
    """
    shapes: dict[object, list[int]] = {}
    for position, file in enumerate(source.files):
        shapes.setdefault(_shape(file), []).append(position)
    for positions in shapes.values():
        _check(source.files[positions[0]], needed)
    firsts = [source.files[positions[0]] for positions in shapes.values()]
    kinds = {name: _one_type(firsts, name, needed) for name in (*needed.keys, *needed.features)}
    if not firsts:
        return Scan((_empty_group(source, needed),))
    groups: dict[tuple[object, ...], list[int]] = {}
    for positions in shapes.values():
        file = source.files[positions[0]]
        groups.setdefault(tuple(_placed(file, name) for name in _names(needed)), []).extend(positions)
    return Scan(tuple(_group(source, needed, sorted(positions), kinds) for positions in groups.values()))


def source_types(source: Source, in_file: str) -> tuple[pa.DataType, ...]:
    """Returns the types that a column has in the files of a source, each once; null if none has it."""
    known = (file.schema.field(in_file).type for file in source.files if in_file in file.schema.names)
    return tuple(dict.fromkeys(known)) or (pa.null(),)


def _shape(file: SourceFile) -> object:
    """Returns what is equal for files that hold the same columns in the same types."""
    return id(file.schema), file.int96, file.is_landed, file.footer.schema is file.schema


def _names(needed: NeededColumns) -> list[str]:
    created = [needed.created] if needed.created else []
    return [*needed.keys, needed.event, *created, *needed.features]


def _placed(file: SourceFile, name: str) -> tuple[str, pa.DataType | None]:
    """Returns where a column stands, and the type in which it is read; files that agree in all share a scan."""
    if name not in file.schema.names:
        return "absent", None
    where = "file" if name in file.footer.schema.names else "path"
    return where, read_type(file.schema.field(name).type, name in file.int96)


def _one_type(firsts: Sequence[SourceFile], name: str, needed: NeededColumns) -> pa.DataType | None:
    """Returns the type of a column in all groups, None if no file has it."""
    files = {kind: file for file in reversed(firsts) if (kind := _placed(file, name)[1]) is not None}
    if not files:
        return None
    kinds = list(reversed(files))
    common = common_key_type(kinds) if name in needed.keys else common_type(kinds)
    if common is None or (len(kinds) > 1 and sql_type(common) is None):
        first, other = files[kinds[0]], next(file for kind, file in files.items() if not kind.equals(kinds[0]))
        raise SourceUnreadable(
            f"{needed.owner}: column {name!r} is {first.schema.field(name).type} in source file {first.path!r} and "
            f"{other.schema.field(name).type} in {other.path!r}, which have no type in common; "
            "write one of the files anew"
        )
    return common


def _group(
    source: Source, needed: NeededColumns, positions: Sequence[int], kinds: dict[str, pa.DataType | None]
) -> FileGroup:
    files = [source.files[position] for position in positions]
    return FileGroup(
        paths=tuple(file.path for file in files),
        positions=tuple(positions),
        keys=tuple(_column(files, name, kinds[name]) for name in needed.keys),
        event=_time(files, needed.event, needed.owner),
        created=_time(files, needed.created, needed.owner) if needed.created else None,
        features=tuple(_column(files, name, kinds[name]) for name in needed.features),
        rows=tuple(file.rows for file in files),
        event_ranges=tuple(_range(file, needed.event, needed.owner) for file in files),
        created_ranges=tuple(_range(file, needed.created, needed.owner) for file in files) if needed.created else (),
    )


def _empty_group(source: Source, needed: NeededColumns) -> FileGroup:
    """Returns the group of a source without any file, which only a Delta table can be."""

    def column(name: str) -> SourceColumn:
        return SourceColumn(cast=sql_type(read_type(source.schema.field(name).type)))

    _require_columns(source.schema, source.path, needed, frozenset())
    created = TimeColumn(None, False) if needed.created else None
    keys, features = map(column, needed.keys), map(column, needed.features)
    return FileGroup((), (), tuple(keys), TimeColumn(None, False), created, tuple(features), (), (), ())


def _column(files: Sequence[SourceFile], name: str, kind: pa.DataType | None) -> SourceColumn:
    where, stored = _placed(files[0], name)
    cast = None if kind is None else sql_type(kind)
    if where == "absent":
        return SourceColumn(cast=cast)
    if where == "path":
        values = [dict(file.partition)[name] for file in files]
        return SourceColumn(constants=tuple("NULL" if v is None else literal(v) for v in values), cast=cast)
    if kind is None or kind.equals(stored):
        return SourceColumn(name)
    return SourceColumn(name, cast=cast, is_whole_only=pat.is_integer(kind) and pat.is_floating(stored))


def _time(files: Sequence[SourceFile], name: str, owner: str) -> TimeColumn:
    where, kind = _placed(files[0], name)
    if where == "file":
        unit, zone = getattr(kind, "unit", None), getattr(kind, "tz", None)
        return TimeColumn(name, unit == "ns", is_zoned=zone is not None if unit == "us" else None)
    instants = [_path_instant_us(file, name, owner) for file in files]
    return TimeColumn(None, False, tuple("NULL" if instant is None else str(instant) for instant in instants))


def _path_instant_us(file: SourceFile, name: str, owner: str) -> int | None:
    what = f"{owner}: column {name!r} of source file {file.path!r}"
    return partition_instant_us(dict(file.partition)[name], what)


def _range(file: SourceFile, name: str, owner: str) -> EventRange | None:
    if name in file.footer.schema.names:
        return file.footer.ranges.get(name)
    instant = _path_instant_us(file, name, owner)
    return EventRange(1, 0) if instant is None else EventRange(instant, instant)


def _check(file: SourceFile, needed: NeededColumns) -> None:
    _require_columns(file.schema, file.path, needed, file.may_lack)
    for name in filter(None, (needed.event, needed.created)):
        kind = file.schema.field(name).type
        if not is_instant(kind):
            raise SourceUnreadable(
                f"{needed.owner}: column {name!r} of source file {file.path!r} has type {kind}, expected a timestamp "
                "or date; write it as a timestamp"
            )
    for name in (*needed.keys, *needed.features):
        kind = file.schema.field(name).type if name in file.schema.names else pa.null()
        if name in needed.keys and pat.is_nested(kind):
            raise SourceUnreadable(
                f"{needed.owner}: join key column {name!r} of source file {file.path!r} has type {kind}, expected a "
                "single value; write its parts as columns, and declare each as a join key"
            )
        if holds(kind, _is_read_otherwise):
            raise SourceUnreadable(
                f"{needed.owner}: column {name!r} of source file {file.path!r} has type {kind}, which DuckDB reads "
                "as another; write it as integers, or as a decimal of at most 38 digits"
            )
    _check_names(file, needed)


def _is_read_otherwise(kind: pa.DataType) -> bool:
    return bool(pat.is_duration(kind) or pat.is_decimal256(kind))


def _require_columns(schema: pa.Schema, path: str, needed: NeededColumns, may_lack: frozenset[str] | None) -> None:
    """Refuses a file that lacks a needed column.

    Args:
        may_lack: the keys and features that may be missing; None for any feature and no key.
    """
    roles = [("join key", name) for name in needed.keys if may_lack is None or name not in may_lack]
    roles += [("timestamp field", needed.event)]
    roles += [("created timestamp column", needed.created)] if needed.created else []
    may_lack_feature = needed.optional | (may_lack or frozenset())
    roles += [] if may_lack is None else [("feature", name) for name in needed.features if name not in may_lack_feature]
    for role, name in roles:
        if name not in schema.names:
            raise SourceColumnMissing(
                f"{needed.owner}: {role} column {name!r} is not in source file {path!r} "
                f"(it has {schema.names}); add the column, or correct the declaration or its field_mapping"
            )


def _check_names(file: SourceFile, needed: NeededColumns) -> None:
    folded: dict[str, list[str]] = {}
    for name in file.schema.names:
        folded.setdefault(name.lower(), []).append(name)
    for name in _names(needed):
        if not name and name in folded:
            raise SourceUnreadable(
                f"{needed.owner}: source file {file.path!r} has a column called {name!r}, which is no name to DuckDB; "
                "rename the column"
            )
        # DuckDB does not tell upper case from lower case in names, so it could read the wrong one of the two.
        if len(folded.get(name.lower(), ())) > 1:
            raise SourceUnreadable(
                f"{needed.owner}: source file {file.path!r} has columns {folded[name.lower()]} that differ only in "
                "case; rename all but one"
            )
    reserved = _VIRTUAL_COLUMNS & folded.keys()
    if reserved:
        raise SourceUnreadable(
            f"{needed.owner}: source file {file.path!r} has a column {folded[min(reserved)][0]!r}, a name that DuckDB "
            "keeps for the place of a row; rename the column"
        )
