"""Events of some entity keys, as a source has them now or as they were accepted: what audits of windows count."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
from feast.data_source import DataSource
from feast.repo_config import RepoConfig

from store.kernel.definitions import ViewDefinition
from store.kernel.source_scan import ROW_BITS, Bounds, Scan, rows_sql
from store.kernel.windows import input_columns
from store.offline.accepted_events import CREATED, EVENT, TOLD, value_columns
from store.offline.connection import batches_of, connected
from store.offline.join_keys import join_key_column
from store.offline.row_transformations import RowTransformation
from store.offline.settings import settings_of
from store.offline.source_columns import NeededColumns, needed_columns, scan_of, source_types
from store.offline.sources import LARDER_ID, Source, file_source
from store.offline.transformed_files import open_rows

NUMBER, EVENT_US, CREATED_US, FILE = "__number", "__event_us", "__created_us", "__file"
_BATCH_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class EventSearch:
    """Searches a source for the events of some keys.

    Attributes:
        features: columns that come with each event, by the names under which they are answered.
    """

    config: RepoConfig
    source: Source
    scan: Scan
    owner: str
    keys: tuple[str, ...]
    keys_in_file: tuple[str, ...]
    features: tuple[str, ...]

    @classmethod
    def of_source(
        cls,
        config: RepoConfig,
        definition: ViewDefinition,
        declared: DataSource,
        transformation: RowTransformation | None = None,
    ) -> "EventSearch":
        """Returns the search of a view's batch source; `LARDER_ID` comes after the input columns.

        Args:
            transformation: what the source's rows go through first.

        Raises:
            SourceError, DefinitionError: it cannot be read, or lacks a column.
        """
        owner = f"feature view {definition.name!r}"
        file = file_source(declared, owner)
        source = open_rows(config, file, transformation)
        keys, inputs = tuple(key.name for key in definition.join_keys), input_columns(definition.windows)
        needed = needed_columns(owner, file, source, keys, inputs)
        needed = replace(needed, features=(*needed.features, LARDER_ID), optional=frozenset({LARDER_ID}))
        return cls(config, source, scan_of(source, needed), owner, keys, needed.keys, (*inputs, LARDER_ID))

    @classmethod
    def of_accepted(cls, config: RepoConfig, definition: ViewDefinition, accepted: Source) -> "EventSearch":
        """Returns the search of a view's accepted events; what the log tells of each comes after the input columns."""
        owner = f"accepted events of feature view {definition.name!r}"
        keys = tuple(key.name for key in definition.join_keys)
        needed = NeededColumns(owner, keys, EVENT, CREATED, (*value_columns(definition), *TOLD))
        answered = (*input_columns(definition.windows), *TOLD)
        return cls(config, accepted, scan_of(accepted, needed), owner, keys, keys, answered)

    def events(self, asked: pa.Table, low_us: int, high_us: int) -> Iterator[pa.RecordBatch]:
        """Yields the events of keys between two times, both inclusive, in no particular order.

        Args:
            asked: keys by the names of the join keys, each once, and `NUMBER`, which comes back.

        Shapes: `NUMBER`, `EVENT_US`, `CREATED_US` (microseconds, floor), `FILE` (its place in the source), features.
        """
        keys = [
            join_key_column(asked, name, source_types(self.source, in_file), self.owner)
            for name, in_file in zip(self.keys, self.keys_in_file, strict=True)
        ]
        scan = self.scan
        wanted = pa.table([*keys, asked.column(NUMBER)], names=[*scan.key_names, "number"])
        created = ["c_us"] if scan.has_created else []
        within = Bounds(low_us, high_us)
        selected = rows_sql(
            scan.within(low_us, high_us), False, [*scan.key_names, "e_us", *created, "ptr", *scan.feature_names], within
        )
        equal = [*(f"r.{name} = w.{name}" for name in scan.key_names), within.condition("r.e_us")]
        times = f"r.e_us, {'r.c_us' if created else 'CAST(NULL AS BIGINT)'}, r.ptr >> {ROW_BITS}"
        columns = ", ".join([times, *(f"r.{name}" for name in scan.feature_names)])
        names = [NUMBER, EVENT_US, CREATED_US, FILE, *self.features]
        with connected(settings_of(self.config), self.source.paths) as connection:
            connection.register("larder_known", wanted)
            sql = f"SELECT w.number, {columns} FROM ({selected}) r JOIN larder_known w ON {' AND '.join(equal)}"
            for batch in batches_of(connection.sql(sql).to_arrow_reader(_BATCH_ROWS)):
                yield batch.rename_columns(names)
        self.source.require_unchanged()
