"""Materialization by the engine: what is read and what stands afterwards."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import FeatureStore as StockFeatureStore
from feast import Field
from feast.aggregation import Aggregation
from feast.batch_feature_view import BatchFeatureView
from feast.data_source import PushMode, PushSource
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64, String

from store.clock import restart_clock, to_us
from store.errors import DefinitionError, SourceColumnMissing, SourceUnreadable, WrongType
from store.feature_store import FeatureStore
from store.online.client import RedisSession
from store.online.conversations import read_state
from tests.engine.helpers import DAY, orders, write_users
from tests.redis_servers import RedisServer
from tests.stores import NOW, PROJECT, USER, config, objects, user_rows, user_source, user_view


def test_the_newest_row_of_each_key_is_served(store: FeatureStore, repo: Path) -> None:
    at = NOW - timedelta(hours=2)
    write_users(repo, [(1, at, 1), (1, at + timedelta(hours=1), 2), (2, at, 3), (1, at - timedelta(hours=1), 4)])
    store.materialize(NOW - DAY, NOW)
    assert orders(store, [1, 2, 3]) == [2, 3, None]


def test_the_interval_is_half_open(store: FeatureStore, repo: Path) -> None:
    start, end = NOW - timedelta(hours=4), NOW - timedelta(hours=2)
    tick = timedelta(microseconds=1)
    write_users(repo, [(1, start - tick, 1), (2, start, 2), (3, end - tick, 3), (4, end, 4)])
    store.materialize(start, end)
    assert orders(store, [1, 2, 3, 4]) == [None, 2, 3, None]


def test_running_again_changes_no_row(store: FeatureStore, server: RedisServer, session: RedisSession) -> None:
    def dump() -> dict[bytes, Any]:
        client = server.client()
        return {key: client.hgetall(key) for key in client.keys("*{*")}

    store.materialize(NOW - DAY, NOW)
    before, coverage = dump(), session.hold(read_state(PROJECT, "users")).state.coverage
    store.materialize(NOW - DAY, NOW)
    assert before
    assert dump() == before
    assert session.hold(read_state(PROJECT, "users")).state.coverage == coverage


def test_a_row_that_became_known_late_is_picked_up_by_the_next_run(store: FeatureStore, repo: Path) -> None:
    early, before_all = NOW - timedelta(hours=20), NOW - 3 * DAY
    write_users(repo, [(1, early, 1), (3, NOW - timedelta(hours=1), 3)], created=NOW - timedelta(days=30))
    store.materialize(NOW - DAY, NOW - timedelta(hours=2))
    assert orders(store, [1, 2, 3]) == [1, None, None]
    old = pd.read_parquet(repo / "data" / "users.parquet")
    write_users(repo, [(1, early + timedelta(hours=1), 7), (2, early, 2), (4, before_all, 4)], created=NOW)
    late = pd.read_parquet(repo / "data" / "users.parquet")
    pd.concat([old, late]).to_parquet(repo / "data" / "users.parquet")
    store.materialize_incremental(NOW)
    # User 4's row lies before all that was ever asked for.
    assert orders(store, [1, 2, 3, 4]) == [7, 2, 3, None]


def test_a_run_that_ends_early_leaves_late_rows_to_the_next(store: FeatureStore, session: RedisSession) -> None:
    def known_us() -> int:
        known = session.hold(read_state(PROJECT, "users")).state.known_us
        assert known is not None
        return known

    store.materialize(NOW - DAY, NOW - timedelta(hours=2))
    first = known_us()
    # It does not read what lies between its end and that of the run before, where rows may have become known.
    store.materialize(NOW - DAY, NOW - timedelta(hours=10))
    assert known_us() == first
    store.materialize(NOW - timedelta(hours=3), NOW - timedelta(hours=2))
    assert known_us() > first


def test_a_late_row_is_not_served_over_a_newer_one(store: FeatureStore, repo: Path) -> None:
    write_users(repo, [(1, NOW - timedelta(hours=5), 5)], created=NOW - timedelta(days=30))
    store.materialize(NOW - DAY, NOW - timedelta(hours=2))
    write_users(repo, [(1, NOW - timedelta(hours=6), 6)], created=NOW)
    store.materialize_incremental(NOW)
    assert orders(store, [1]) == [5]


def test_an_end_in_the_future_is_clipped_to_the_clock_and_poisons_nothing(
    store: FeatureStore, repo: Path, session: RedisSession
) -> None:
    write_users(repo, [(1, NOW - timedelta(hours=1), 1), (2, NOW + timedelta(hours=3), 2)])
    store.materialize(NOW - DAY, NOW + 365 * DAY)
    assert orders(store, [1, 2]) == [1, None]
    [interval] = session.hold(read_state(PROJECT, "users")).state.coverage
    assert interval.start_us == to_us(NOW - DAY)
    assert to_us(NOW) <= interval.end_us < to_us(NOW + timedelta(hours=1))
    write_users(repo, [(1, NOW - timedelta(hours=1), 1), (3, NOW, 3)])
    store.materialize_incremental(NOW + DAY)  # Feast asks for an interval whose start lies a year ahead.
    assert orders(store, [1]) == [1]


def test_incremental_runs_go_on_where_the_last_one_ended(store: FeatureStore, repo: Path) -> None:
    write_users(repo, [(1, NOW - timedelta(hours=5), 1), (2, NOW - timedelta(hours=3), 2)])
    store.materialize_incremental(NOW - timedelta(hours=4))
    assert orders(store, [1, 2]) == [1, None]
    store.materialize_incremental(NOW)
    assert orders(store, [1, 2]) == [1, 2]


FAR_AHEAD = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("ends", [(FAR_AHEAD, FAR_AHEAD), (FAR_AHEAD, None), (None, FAR_AHEAD, None)])
@pytest.mark.parametrize("online", ["redis", "sqlite"])
def test_new_rows_are_found_after_a_run_with_an_end_far_ahead(
    store: FeatureStore, repo: Path, online: str, ends: tuple[datetime | None, ...]
) -> None:
    settings = config(repo, store.config.online_store.connection_string)
    if online == "sqlite":
        settings.online_config = {"type": "sqlite", "path": "data/online.db"}
    StockFeatureStore(repo_path=str(repo), config=settings).apply(objects())
    rows = []
    for number, end in enumerate(ends):
        now = NOW + timedelta(hours=number)
        restart_clock(repo, now)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LARDER_CLOCK", now.isoformat())
            rows.append((number, now - timedelta(minutes=1), number))
            write_users(repo, rows)
            running = StockFeatureStore(repo_path=str(repo), config=settings)
            running.materialize_incremental(end or now)
            assert orders(running, list(range(len(rows)))) == list(range(len(rows)))


def test_an_emptied_redis_is_made_whole_by_the_next_run(store: FeatureStore, repo: Path, server: RedisServer) -> None:
    write_users(repo, [(1, NOW - timedelta(hours=5), 1), (2, NOW - timedelta(hours=1), 2)])
    store.materialize(NOW - DAY, NOW - timedelta(hours=2))
    server.client().flushall()
    store.materialize_incremental(NOW)
    assert orders(store, [1, 2]) == [1, 2]


def test_a_rolled_back_redis_is_made_whole_by_the_next_run(
    store: FeatureStore, repo: Path, server: RedisServer
) -> None:
    client = server.client()
    write_users(repo, [(user, NOW - timedelta(hours=6 - user), user) for user in (1, 2, 3)])
    store.materialize(NOW - DAY, NOW - timedelta(hours=4))
    backup = {key: client.dump(key) for key in client.keys("*")}
    store.materialize(NOW - timedelta(hours=4), NOW - timedelta(hours=3))
    assert orders(store, [1, 2, 3]) == [1, 2, None]
    client.flushall()
    for key, content in backup.items():
        client.restore(key, 0, content)
    store.materialize(NOW - timedelta(hours=3), NOW)
    assert orders(store, [1, 2, 3]) == [1, 2, 3]


def test_a_batch_row_does_not_replace_a_pushed_one_of_the_same_times(store: FeatureStore) -> None:
    rows = user_rows()
    rows["orders"] = pd.array([7] * len(rows), dtype="Int64")
    store.push("users_push", rows)
    store.materialize(NOW - DAY, NOW)
    assert orders(store, [1, 2]) == [7, 7]


def test_a_push_may_name_columns_as_the_source_or_as_the_view_does(store: FeatureStore, repo: Path) -> None:
    source = user_source()
    source.field_mapping = {"n": "orders"}
    rows = user_rows().rename(columns={"orders": "n"})
    rows.to_parquet(repo / "data" / "users.parquet")
    store.apply([USER, user_view(source=PushSource(name="users_push", batch_source=source))])
    store.push("users_push", rows.assign(n=[1] * 5).astype({"n": "Int64"}))
    assert orders(store, [1]) == [1]
    later = user_rows(5, NOW).rename(columns={"n": "orders"}).assign(orders=[2] * 5).astype({"orders": "Int64"})
    store.push("users_push", later)
    assert orders(store, [1]) == [2]


def test_a_late_batch_row_does_not_replace_a_newer_pushed_one(store: FeatureStore) -> None:
    rows = user_rows(1, NOW)
    rows["orders"] = pd.array([99], dtype="Int64")
    store.push("users_push", rows)
    store.materialize(NOW - DAY, NOW)
    assert orders(store, [1, 2]) == [99, 20]


def test_a_missing_source_is_named_and_nothing_is_recorded(
    store: FeatureStore, repo: Path, session: RedisSession
) -> None:
    (repo / "data" / "users.parquet").unlink()
    with pytest.raises(SourceUnreadable, match=r"users\.parquet"):
        store.materialize(NOW - DAY, NOW)
    assert session.hold(read_state(PROJECT, "users")).state.coverage == ()


def test_a_column_of_the_wrong_type_is_named(store: FeatureStore, repo: Path) -> None:
    rows = user_rows()
    rows["orders"] = ["many"] * len(rows)
    rows.to_parquet(repo / "data" / "users.parquet")
    with pytest.raises((WrongType, DefinitionError), match="orders"):
        store.materialize(NOW - DAY, NOW)


@pytest.mark.filterwarnings("ignore:Stream feature views are experimental:RuntimeWarning")
def test_windowed_views_that_cannot_be_are_refused_at_apply_and_the_registry_stays(
    store: FeatureStore, repo: Path
) -> None:
    before = (repo / "data" / "registry.db").read_bytes()
    windowed = StreamFeatureView(
        name="hourly",
        entities=[USER],
        schema=[Field(name="user_id", dtype=Int64), Field(name="total_spent_3600s", dtype=Float64)],
        source=user_view().stream_source,
        aggregations=[Aggregation(column="spent", function="total", time_window=timedelta(hours=1))],
        timestamp_field="event_timestamp",
        ttl=DAY,
    )
    with pytest.raises(DefinitionError, match=r"'hourly'.*'total'"):
        store.apply([windowed])
    assert (repo / "data" / "registry.db").read_bytes() == before


@pytest.mark.parametrize(("column", "function"), [("name", "sum"), ("last", "count"), ("gone", "count")])
def test_windows_of_columns_that_the_source_has_not_are_refused_at_apply_and_the_registry_stays(
    store: FeatureStore, repo: Path, column: str, function: str
) -> None:
    before = (repo / "data" / "registry.db").read_bytes()
    aggregation = Aggregation(column=column, function=function, time_window=timedelta(hours=1), name="total")
    windowed = BatchFeatureView(
        name="hourly",
        entities=[USER],
        online=True,
        schema=[Field(name="user_id", dtype=Int64), Field(name="total", dtype=Float64 if function == "sum" else Int64)],
        source=user_source(),
        aggregations=[aggregation],
    )
    with pytest.raises((DefinitionError, SourceColumnMissing), match=f"'hourly': feature 'total'.*'{column}'"):
        store.apply([windowed])
    assert (repo / "data" / "registry.db").read_bytes() == before


def test_a_push_lands_once_and_is_in_the_training_set(store: FeatureStore, repo: Path) -> None:
    second = user_view(name="users_again", schema=[user_view().schema[0], Field(name="name", dtype=String)])
    store.apply([second])
    rows = user_rows(1, NOW)
    rows["orders"] = pd.array([55], dtype="Int64")
    store.push("users_push", rows, to=PushMode.ONLINE_AND_OFFLINE)
    assert len(list((repo / "data" / "users.parquet.landed").glob("*.parquet"))) == 1
    entities = pd.DataFrame({"user_id": [1], "event_timestamp": [NOW]})
    answer = store.get_historical_features(entities, features=["users:orders", "users_again:name"]).to_df()
    assert answer["orders"].tolist() == [55]
    assert orders(store, [1]) == [55]
