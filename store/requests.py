"""What callers ask of Larder and what it answers, as plain values: the language between server and store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import msgspec


class LookupRequest(msgspec.Struct, frozen=True):
    """One online lookup: entity columns (join keys and request data) and what to look up for them.

    Shapes: `entities` maps a column name to one value per entity row; all columns have the same length.
    Exactly one of `features` (references `view:feature`) and `feature_service` is given.
    """

    entities: Mapping[str, Sequence[Any]]
    features: Sequence[str] = ()
    feature_service: str | None = None
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False


class LookupAnswer(msgspec.Struct, frozen=True):
    """The answer to a lookup, and what is worth counting of it.

    Attributes:
        content: the answer in Feast's JSON, column-major: join keys first, then features in request order.
        now_us: the instant by which ages were judged, in microseconds since the epoch.
        row_count: entity rows asked for.
        status_counts: how many values of each view have each status.
        view_rows: views, each with the event times of its rows read, in microseconds since the epoch.
        future_rows: rows read whose event time lies after the request time.
        overflows: windowed sums of integers beyond int64, answered as nulls.
        unknown_keys: views, each with how many of the entity rows have a key of which it has nothing.
    """

    content: bytes
    now_us: int
    row_count: int
    status_counts: Mapping[tuple[str, str], int]
    view_rows: Sequence[tuple[str, Sequence[int]]]
    future_rows: int
    overflows: int
    unknown_keys: Sequence[tuple[str, int]] = ()


class LogTotals(NamedTuple):
    """What became of served vectors of one feature service, and how often a file could not be written."""

    service: str
    logged: int = 0
    sampled_out: int = 0
    dropped: int = 0
    failures: int = 0

    def since(self, told: "LogTotals") -> "LogTotals":
        """Returns what came since it was last told."""
        return LogTotals(self.service, *(now - then for now, then in zip(self[1:], told[1:], strict=True)))


@dataclass(frozen=True, slots=True)
class HistoricalRequest:
    """One training-set retrieval: `entity_rows` is an Arrow table (typed Any here, as server code never opens it)."""

    entity_rows: Any
    features: Sequence[str] = ()
    feature_service: str | None = None
    full_feature_names: bool = False
    filter_by_created_timestamp: bool = False


@dataclass(frozen=True, slots=True)
class PushRequest:
    """Rows pushed to a push source: `columns` maps a column name to one value per row.

    `to` is `online`, `offline` or `online_and_offline`. A push with the `idempotency_key` of one before is taken for
    the same, if its `digest` is too.
    """

    push_source_name: str
    columns: Mapping[str, Sequence[Any]]
    to: str = "online"
    idempotency_key: str | None = None
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class MaterializeRequest:
    """A materialization over [start, end); `start` None means incrementally from where the last one ended.

    `feature_views` None means all of them.
    """

    end: datetime
    start: datetime | None = None
    feature_views: Sequence[str] | None = None
    disable_event_timestamp: bool = False


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """How one partition of the event log stands.

    Attributes:
        owner: the name of the worker that owns it, None for nobody.
        entries: in its log: those that wait to be applied or to land.
        lag_seconds: age of the oldest event that does not count online yet, 0 for none.
        landing_lag_seconds: age of the oldest event that may not have landed yet, 0 for none.
        appended_rows: that ever came into it, copies for other entities included; likewise the other two.
    """

    partition: int
    owner: str | None
    entries: int
    lag_seconds: float
    landing_lag_seconds: float
    appended_rows: int
    applied_rows: int
    landed_rows: int


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """How the event log stands; without partitions if there is none yet.

    `letters` dead letters are kept, `dropped_letters` had to go for newer ones.
    """

    partitions: Sequence[PartitionStatus] = ()
    letters: int = 0
    dropped_letters: int = 0

    @property
    def unowned(self) -> list[int]:
        """The partitions that no worker owns."""
        return [each.partition for each in self.partitions if each.owner is None]

    @property
    def problem(self) -> str | None:
        """What stands still, None if nothing does."""
        waiting = [each.partition for each in self.partitions if each.owner is None and each.entries]
        if not waiting:
            return None
        return (
            f"partitions {waiting} of the event log have events and no worker, so windowed features stand still there; "
            "start 'larder ingest'"
        )


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the store can serve: one statement per part, None where that part is well.

    `has_registry`: there is a last good registry, which serves also while `registry_problem` lasts.
    """

    has_registry: bool
    registry_problem: str | None
    online_store_problem: str | None
    clock_note: str | None
    registry_age_seconds: float
    stream: StreamStatus = StreamStatus()

    @property
    def is_ready(self) -> bool:
        """Whether lookups can be answered; a shifted clock, an outdated registry, a log without workers are notes."""
        return self.has_registry and self.online_store_problem is None
