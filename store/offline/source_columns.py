"""What a query needs of a source, checked against every file before any heavy work."""

from collections.abc import Sequence
from dataclasses import dataclass

from feast.infra.offline_stores.file_source import FileSource

from store.errors import SourceColumnMissing, SourceUnreadable
from store.kernel.source_scan import FileGroup, Scan, TimeColumn
from store.offline.column_types import is_instant, plain_type
from store.offline.sources import Source, SourceFile

_VIRTUAL_COLUMNS = frozenset({"file_row_number", "file_index"})
"""Names under which DuckDB tells a row's place in the source; a real column of that name would hide it."""


@dataclass(frozen=True, slots=True)
class NeededColumns:
    """The columns that a query reads, by their names in the file; `owner` says for whom, in messages."""

    owner: str
    keys: tuple[str, ...]
    event: str
    created: str | None
    features: tuple[str, ...]


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

    Raises:
        SourceColumnMissing: a file lacks a needed column; only a landed file may lack a feature (it was written
            before the feature was declared, so its rows have none).
        SourceUnreadable: a column whose type or name cannot be used.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for position, file in enumerate(source.files):
        _check(file, needed)
        types = [file.schema.field(name).type if name in file.schema.names else None for name in _names(needed)]
        groups.setdefault((*types, *(name in file.int96 for name in _names(needed))), []).append(position)
    return Scan(tuple(_group(source, needed, positions) for positions in groups.values()))


def _names(needed: NeededColumns) -> list[str]:
    created = [needed.created] if needed.created else []
    return [*needed.keys, needed.event, *created, *needed.features]


def _group(source: Source, needed: NeededColumns, positions: Sequence[int]) -> FileGroup:
    first = source.files[positions[0]]
    types = {name: plain_type(first.schema.field(name).type) for name in first.schema.names}

    def time(name: str) -> TimeColumn:
        return TimeColumn(name, getattr(types[name], "unit", None) == "ns" and name not in first.int96)

    return FileGroup(
        paths=tuple(source.files[position].path for position in positions),
        positions=tuple(positions),
        keys=tuple(None if str(types[name]) == "null" else name for name in needed.keys),
        event=time(needed.event),
        created=time(needed.created) if needed.created else None,
        features=tuple(name if name in types else None for name in needed.features),
    )


def _check(file: SourceFile, needed: NeededColumns) -> None:
    roles = [("join key", name) for name in needed.keys] + [("timestamp field", needed.event)]
    roles += [("created timestamp column", needed.created)] if needed.created else []
    roles += [] if file.is_landed else [("feature", name) for name in needed.features]
    for role, name in roles:
        if name not in file.schema.names:
            raise SourceColumnMissing(
                f"{needed.owner}: {role} column {name!r} is not in source file {file.path!r} "
                f"(it has {file.schema.names}); add the column, or correct the declaration or its field_mapping"
            )
    for name in filter(None, (needed.event, needed.created)):
        kind = file.schema.field(name).type
        if not is_instant(kind):
            raise SourceUnreadable(
                f"{needed.owner}: column {name!r} of source file {file.path!r} has type {kind}, expected a timestamp "
                "or date; write it as a timestamp"
            )
    _check_names(file, needed)


def _check_names(file: SourceFile, needed: NeededColumns) -> None:
    folded: dict[str, list[str]] = {}
    for name in file.schema.names:
        folded.setdefault(name.lower(), []).append(name)
    for name in _names(needed):
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
