"""Some of the events of a source, as entity rows: the same ones whenever the same events are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from store.kernel.source_scan import Bounds, Scan, identifier, rows_sql
from store.offline.connection import ConnectionSettings, connected
from store.offline.profiling import Stretch
from store.offline.sources import Source

_STAMP = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True)
class EventSamples:
    """The events of a source that have a key, of which some are taken by stretches of time.

    Attributes:
        scan: of the source, with its keys.
        names: what the keys are called in the answer, and then the time.
        rows_max: how many events of a stretch are taken at most: those whose key and time have the least hashes.
    """

    source: Source
    scan: Scan
    settings: ConnectionSettings
    names: tuple[str, ...]
    rows_max: int

    def counts(self, stretches: Sequence[Stretch]) -> list[int]:
        """Returns how many events each stretch has.

        Raises:
            SourceUnreadable, OfflineStoreError, OutOfSpace: as DuckDB fails.
        """
        sql = f"SELECT number, count(*) FROM ({self._rows(stretches)}) GROUP BY number"
        found = dict(self._answer(sql, stretches).to_pandas().itertuples(index=False, name=None))
        return [int(found.get(number, 0)) for number in range(len(stretches))]

    def events(self, stretches: Sequence[Stretch]) -> pa.Table:
        """Returns some events of each stretch.

        Shapes: keys, then event times in microseconds, UTC, rounded up: at that time the event has happened.

        Raises:
            SourceUnreadable, OfflineStoreError, OutOfSpace: as DuckDB fails.
        """
        keys = self.scan.key_names
        names = [f"{key} AS {identifier(name)}" for key, name in zip(keys, self.names[:-1], strict=True)]
        order = f"hash({', '.join([*keys, 'e_us'])}), {', '.join([*keys, 'e_us'])}"
        chosen = self._answer(
            f"SELECT {', '.join([*names, 'e_us + CASE WHEN e_ns > 0 THEN 1 ELSE 0 END'])} "
            f"FROM ({self._rows(stretches)}) "
            f"QUALIFY row_number() OVER (PARTITION BY number ORDER BY {order}) <= {self.rows_max}",
            stretches,
        )
        times = chosen.column(len(keys)).cast(pa.int64()).cast(_STAMP)
        return pa.table([*chosen.columns[: len(keys)], times], list(self.names))

    def _rows(self, stretches: Sequence[Stretch]) -> str:
        low, high = stretches[0][0], stretches[-1][1] - 1
        rows = rows_sql(self.scan.within(low, high), False, [*self.scan.key_names, "e_us", "e_ns"], Bounds(low, high))
        have_keys = [f"{key} IS NOT NULL" for key in self.scan.key_names] or ["true"]
        return (
            f"SELECT r.*, s.number FROM ({rows}) r JOIN larder_stretches s ON r.e_us >= s.low AND r.e_us < s.high "
            f"WHERE {' AND '.join(have_keys)}"
        )

    def _answer(self, sql: str, stretches: Sequence[Stretch]) -> pa.Table:
        known = pa.table(
            {
                "number": pa.array(range(len(stretches)), pa.int64()),
                "low": pa.array([low for low, _ in stretches], pa.int64()),
                "high": pa.array([high for _, high in stretches], pa.int64()),
            }
        )
        with connected(self.settings, self.source.paths) as connection:
            connection.register("larder_stretches", known)
            found = connection.sql(sql).to_arrow_table()
        self.source.require_unchanged()
        return found
