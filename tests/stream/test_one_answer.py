"""One definition, three executions: what is served, what training sees and what a plain rescan says are the same.

A scenario lets a store live for some days of a replayed clock: events are pushed late, early, out of order, twice and
at the edges of hops and windows; some land and some do not; workers come and go; materializations run up to any END.
Every key is a case of its own, judged at many instants.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FileSource, PushSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.data_source import PushMode
from feast.field import Field
from feast.types import Array, Float64, Int64, String

from store.clock import from_us, to_us
from store.feature_store import FeatureStore
from store.replay import replaying
from store.stream.context import StreamContext
from store.stream.lines import landed_line
from tests.oracles.windows import Event, Feature, is_right, value
from tests.redis_servers import RedisServer
from tests.stores import config
from tests.stream.shop import COLUMNS, NOW, PAGE, USER

SECOND, MINUTE, HOUR, DAY = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000
SHAPES = {"10m": (10 * MINUTE, MINUTE), "5h": (5 * HOUR, 5 * MINUTE), "2d": (2 * DAY, HOUR)}
FUNCTIONS = ("count", "sum", "mean", "std", "min", "max", "first", "last", "last_3", "count_distinct")
PERCENTILE = "approx_percentile_90"
USERS, PAGES = 12, 3
FEATURES = {
    f"{function}_{name}": Feature("worth", function, *shape)
    for name, shape in SHAPES.items()
    for function in (*FUNCTIONS, PERCENTILE)
}
TYPES: dict[str, Any] = {"count": Int64, "count_distinct": Int64, "last_3": Array(Float64)}


def view(name: str, entity: Any, key: str, kind: Any, *, is_external: bool) -> StreamFeatureView:
    """Returns a view of all functions over all windows."""
    source = FileSource(
        name="clicks_file", path="data/clicks.parquet", timestamp_field="at", created_timestamp_column="created"
    )
    return StreamFeatureView(
        name=name,
        entities=[entity],
        ttl=timedelta(hours=1),
        schema=[
            Field(name=key, dtype=kind),
            *(Field(name=n, dtype=TYPES.get(f.function, Float64)) for n, f in FEATURES.items()),
        ],
        source=PushSource(name="clicks", batch_source=source, tags={"external": "true"} if is_external else {}),
        timestamp_field="at",
        aggregations=[
            Aggregation(
                column="worth",
                function=f.function,
                time_window=timedelta(microseconds=f.window),
                slide_interval=timedelta(microseconds=f.hop),
                name=name,
            )
            for name, f in FEATURES.items()
        ],
    )


@dataclass
class Model:
    """What has been pushed, and what counts where, by the rules of the seam."""

    is_external: bool
    streamed: list[Event] = field(default_factory=list)
    landed: list[Event] = field(default_factory=list)
    direct: list[Event] = field(default_factory=list)
    taken: list[Event] = field(default_factory=list)
    batch_end_us: int = -(2**62)

    def materialized(self, end_us: int) -> None:
        """Moves the batch end, if it goes on, and takes in what the source holds before it."""
        self.batch_end_us = max(self.batch_end_us, end_us // HOUR * HOUR)
        self.taken = [event for event in self.direct if event.event < self.batch_end_us]

    def online(self) -> list[Event]:
        """Returns the events that lookups count."""
        if self.is_external:
            return self.taken + [event for event in self.streamed if event.event >= self.batch_end_us]
        return self.taken + self.streamed

    def training(self) -> list[Event]:
        """Returns the events that training counts."""
        return self.direct + self.landed


class Scenario:
    """One store that lives for some days."""

    def __init__(self, repo: Path, redis_url: str, seed: int, *, is_external: bool) -> None:
        self.rng = random.Random(seed)
        self.repo, self.redis_url, self.is_external = repo, redis_url, is_external
        self.model = Model(is_external)
        (repo / "data").mkdir(parents=True, exist_ok=True)
        self._write_file([])
        self._stack = ExitStack()
        self._replay = self._stack.enter_context(replaying(repo, NOW))
        self.now_us = to_us(NOW)
        self.store = self._opened()
        views = [
            view("by_user", USER, "user_id", Int64, is_external=is_external),
            view("by_page", PAGE, "page", String, is_external=is_external),
        ]
        self.store.apply([USER, PAGE, *views])
        self.compared = 0

    def _opened(self) -> FeatureStore:
        return FeatureStore(repo_path=str(self.repo), config=config(self.repo, self.redis_url))

    def close(self) -> None:
        """Ends the replay, and closes the connections."""
        self._stack.close()
        self._disconnect()

    def _disconnect(self) -> None:
        self.store._get_provider().online_store.close_synchronous()

    def live(self, steps: int) -> None:
        """Lets time pass and things happen, and compares after each of them."""
        for _ in range(steps):
            self._go_on()
            self.rng.choice([self._push, self._push, self._push, self._push, self._materialize, self._reopen])()
            if self.rng.random() < 0.7:
                self._work()
                self.compare()

    def _go_on(self) -> None:
        passed = self.rng.choice([1, SECOND, MINUTE, 7 * MINUTE, HOUR, 5 * HOUR, 13 * HOUR]) * self.rng.random()
        self.now_us += int(passed)
        if self.rng.random() < 0.3:
            self.now_us = -(-self.now_us // MINUTE) * MINUTE  # at the very edge of a hop
        self._replay.advance(from_us(self.now_us))

    def _event_us(self) -> int:
        window_us, hop_us = self.rng.choice(list(SHAPES.values()))
        tail_us = (self.now_us - window_us) // hop_us * hop_us
        edge_us = self.rng.choice([self.now_us, tail_us, self.now_us // hop_us * hop_us, self.model.batch_end_us])
        near = edge_us + self.rng.choice([-1, 0, 0, 1, -hop_us, hop_us])
        anywhere = self.now_us - int(self.rng.random() ** 3 * 3 * DAY)
        ahead = self.now_us + self.rng.randint(0, 59 * SECOND)
        chosen = self.rng.choices([near, anywhere, ahead], [4, 5, 1])[0]
        return min(max(chosen, self.now_us - 4 * DAY), self.now_us + 60 * SECOND)

    def _events(self, count: int) -> list[tuple[int, str, int, int, float | None]]:
        values = [None, float("nan"), 1e16, -1e16, 1.0, 0.1, -2.5, 7.25, 1e9, 1e9 + 1]
        return [
            (
                self.rng.randint(1, USERS),
                f"page {self.rng.randint(1, PAGES)}",
                self._event_us(),
                self.now_us - self.rng.randint(0, 2) * SECOND,
                self.rng.choice(values) if self.rng.random() < 0.7 else self.rng.gauss(0, 10),
            )
            for _ in range(count)
        ]

    def _push(self) -> None:
        rows = self._events(self.rng.randint(1, 12))
        if self.rng.random() < 0.3:
            rows = rows + rows[:3]  # the same event twice is two events
        modes = [PushMode.ONLINE, PushMode.ONLINE_AND_OFFLINE, PushMode.OFFLINE]
        mode = PushMode.ONLINE if self.is_external else self.rng.choices(modes, [2, 5, 1])[0]
        events = [Event((user, page), at, created, {"worth": worth}) for user, page, at, created, worth in rows]
        if self.is_external and self.rng.random() < 0.8:
            self._write_file(events)  # the user's own job brings the same events to the warehouse
        frame = pd.DataFrame(
            {
                "user_id": [row[0] for row in rows],
                "page": [row[1] for row in rows],
                "at": [from_us(row[2]) for row in rows],
                "created": [from_us(row[3]) for row in rows],
                "worth": [row[4] for row in rows],
            }
        )
        self.store.push("clicks", frame, to=mode)
        if mode is PushMode.OFFLINE:
            self.model.direct += events
        else:
            self.model.streamed += events
            if mode is PushMode.ONLINE_AND_OFFLINE:
                self.model.landed += events

    def _write_file(self, more: Sequence[Event]) -> None:
        self.model.direct += more
        rows = self.model.direct if self.is_external else []
        stamps = [[from_us(getattr(e, name)) for e in rows] for name in ("event", "created")]
        columns = [[e.key[0] for e in rows], [e.key[1] for e in rows], *stamps, [e.columns["worth"] for e in rows]]
        arrays = [pa.array(column, kind.type) for column, kind in zip(columns, COLUMNS, strict=True)]
        target = self.repo / "data" / "clicks.parquet"
        pq.write_table(pa.table(arrays, schema=COLUMNS), target.with_suffix(".new"))
        target.with_suffix(".new").replace(target)

    def _materialize(self) -> None:
        end_us = self.now_us - self.rng.choice([0, 1, HOUR, 26 * HOUR]) + self.rng.choice([0, 0, DAY])
        self.store.materialize(from_us(min(self.now_us, end_us) - DAY), from_us(end_us))
        self.model.materialized(min(end_us, self.now_us))

    def _reopen(self) -> None:
        """Another process goes on."""
        self._disconnect()
        self.store = self._opened()

    def _work(self) -> None:
        """Has all that was logged applied and landed, by a worker that lives just as long."""
        context = StreamContext(self.repo, self.store.config)
        try:
            # The second comes after what the first had forwarded to the partitions of other entities.
            landed_line(context, "")
            landed_line(context, "")
        finally:
            context.close()

    def compare(self) -> None:
        """Compares both views of all keys, served and trained, with the rescan of what counts."""
        cases: tuple[tuple[str, str, list[Any], int], ...] = (
            ("by_user", "user_id", list(range(1, USERS + 2)), 0),
            ("by_page", "page", [f"page {number}" for number in range(1, PAGES + 2)], 1),
        )
        for name, key, keys, place in cases:
            references = [f"{name}:{feature}" for feature in FEATURES]
            served = self.store.get_online_features(references, {key: keys}).to_dict()
            rows = pd.DataFrame({key: keys, "event_timestamp": [from_us(self.now_us)] * len(keys)})
            trained = self.store.get_historical_features(rows, references).to_arrow().to_pydict()
            self._judge("served", served, self.model.online(), keys, place)
            self._judge("trained", trained, self.model.training(), keys, place)

    def _judge(self, what: str, answers: Any, events: Sequence[Event], keys: Sequence[Any], place: int) -> None:
        by_key = {key: [event for event in events if event.key[place] == key] for key in keys}
        for name, feature in FEATURES.items():
            for key, answered in zip(keys, answers[name], strict=True):
                expected = value(by_key[key], self.now_us, feature)
                self.compared += 1
                assert is_right(answered, expected, feature), (what, key, name, answered, expected, self.now_us)


@pytest.fixture
def scenario(repo: Path, server: RedisServer, request: pytest.FixtureRequest) -> Iterator[Scenario]:
    seed, is_external = request.param
    server.client().flushall()
    scenario = Scenario(repo, server.url, seed, is_external=is_external)
    yield scenario
    scenario.close()


@pytest.mark.parametrize("scenario", [(1, False), (2, True)], indirect=True, ids=str)
def test_served_trained_and_rescanned_are_one(scenario: Scenario) -> None:
    scenario.live(12)
    assert scenario.compared > 2_000


@pytest.mark.long
@pytest.mark.parametrize("scenario", [(n, n % 2 == 1) for n in range(10, 30)], indirect=True, ids=str)
def test_served_trained_and_rescanned_are_one_for_long(scenario: Scenario) -> None:
    scenario.live(60)
    assert scenario.compared > 10_000
