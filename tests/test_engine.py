"""Materialization by the engine: what is read, what stands afterwards, and who sees what meanwhile."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import BatchFeatureView, Field
from feast import FeatureStore as StockFeatureStore
from feast.aggregation import Aggregation
from feast.data_source import PushMode, PushSource
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64, String

from store import engine
from store.clock import to_us
from store.errors import DefinitionError, MaterializationBusy, SourceUnreadable, WrongType
from store.feature_store import FeatureStore
from store.online.client import RedisSession
from store.online.connection import parse_target
from store.online.conversations import read_state
from store.online.views import lease
from tests.redis_servers import RedisServer, poll_until, private_redis
from tests.stores import NOW, PROJECT, USER, config, make_store, objects, user_rows, user_source, user_view, yaml_of

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with private_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def store(repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    return make_store(repo, server.url)


@pytest.fixture
def session(server: RedisServer) -> Iterator[RedisSession]:
    session = RedisSession(parse_target(server.url, "redis", "mymaster", "test"))
    yield session
    session.close()


def orders(store: StockFeatureStore, users: list[int], feature: str = "users:orders") -> list[Any]:
    answer = store.get_online_features([feature], {"user_id": users}).to_dict()
    return list(answer[feature.partition(":")[2]])


def same_repo(store: FeatureStore) -> FeatureStore:
    """Returns another store over the same repo, as another process has it."""
    return FeatureStore(repo_path=str(store.repo_path), config=store.config)


def write_users(repo: Path, rows: list[tuple[int, datetime, int]], created: datetime = NOW) -> None:
    """Writes the users' file anew: rows of (user, event time, orders)."""
    frame = user_rows(len(rows), created)
    frame["user_id"] = [user for user, _, _ in rows]
    frame["event_timestamp"] = [at for _, at, _ in rows]
    frame["orders"] = pd.array([count for _, _, count in rows], dtype="Int64")
    frame.to_parquet(repo / "data" / "users.parquet")


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


def test_running_again_changes_nothing(store: FeatureStore, server: RedisServer) -> None:
    def dump() -> dict[bytes, Any]:
        client = server.client()
        return {key: client.hgetall(key) for key in client.keys("*")}

    store.materialize(NOW - DAY, NOW)
    before = dump()
    store.materialize(NOW - DAY, NOW)
    assert dump() == before


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


def test_a_changed_definition_is_built_whole_and_pushes_are_kept(
    store: FeatureStore, repo: Path, session: RedisSession, server: RedisServer
) -> None:
    store.materialize(NOW - DAY, NOW)
    pushed = user_rows(6, NOW).tail(1)
    store.push("users_push", pushed)
    elsewhere = user_rows(3, NOW - timedelta(hours=3))
    elsewhere["orders"] = pd.array([1000, 2000, 3000], dtype="Int64")
    elsewhere.to_parquet(repo / "data" / "users.parquet")
    schema = [field for field in user_view().schema if field.name != "last"]
    store.apply(objects(user_view(schema=schema)))
    # The old generation serves until the next run, though its rows are newer than those of the new definition.
    assert orders(store, [1, 4, 6]) == [10, 40, 60]
    store.materialize(NOW - timedelta(minutes=1), NOW)
    assert orders(store, [1, 4, 6]) == [1000, None, 60]
    state = session.hold(read_state(PROJECT, "users")).state
    assert (state.generation, state.building) == (2, 0)
    fields = {field for key in server.client().keys(b"4:shop:{*") for field in server.client().hkeys(key)}
    assert fields == {b"users#2"}


class Killed(BaseException):
    """Ends a run in the middle, as a kill does: nothing of the run's own code follows."""


STEPS = ("next_generation", "replace_state", "write_generation", "carry_pushed", "drop_generations")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("is_done", [False, True])
def test_a_rebuild_killed_at_any_step_serves_old_or_new_and_is_finished_by_the_next_run(
    store: FeatureStore, server: RedisServer, session: RedisSession, step: str, turn: int, is_done: bool
) -> None:
    store.materialize(NOW - DAY, NOW)
    store.push("users_push", user_rows(6, NOW).tail(1))
    write_users(Path(str(store.repo_path)), [(user, NOW - timedelta(hours=1), user) for user in (1, 2)])
    store.apply(objects(user_view(schema=[field for field in user_view().schema if field.name != "last"])))
    calls = 0

    def killing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == turn and not is_done:
            raise Killed
        result = original(*arguments, **options)
        if calls == turn:
            if hasattr(result, "send"):
                session.hold(result)
            raise Killed
        return result

    original = getattr(engine, step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, step, killing)
        # A step that is taken fewer times kills nothing, and the run ends well.
        with contextlib.suppress(Killed):
            store.materialize(NOW - DAY, NOW)
    assert orders(same_repo(store), [1, 2, 6]) in ([10, 20, 60], [1, 2, 60])
    same_repo(store).push("users_push", user_rows(7, NOW).tail(1))
    server.client().delete(b"4:shop:lease:5:users")
    same_repo(store).materialize(NOW - DAY, NOW)
    assert orders(same_repo(store), [1, 2, 4, 6, 7]) == [1, 2, None, 60, 70]
    state = session.hold(read_state(PROJECT, "users")).state
    fields = {field for key in server.client().keys("4:shop:{*") for field in server.client().hkeys(key)}
    assert (state.building, fields) == (0, {b"users#%d" % state.generation})


def test_what_two_killed_rebuilds_left_is_not_taken_for_rows_of_the_third(store: FeatureStore, repo: Path) -> None:
    store.materialize(NOW - DAY, NOW)
    for orders_then, dropped in ((666, "last"), (667, "name")):
        write_users(repo, [(user, NOW, orders_then) for user in range(1, 9)])
        store.apply(objects(user_view(schema=[field for field in user_view().schema if field.name != dropped])))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "carry_pushed", lambda *_, **__: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                store.materialize(NOW - DAY, NOW)
    write_users(repo, [(1, NOW - timedelta(hours=2), 1)])
    store.apply(objects(user_view(schema=[f for f in user_view().schema if f.name not in {"last", "name"}])))
    store.materialize(NOW - DAY, NOW)
    assert orders(store, [1, 2, 8]) == [1, None, None]


def test_a_run_whose_lease_lapsed_does_not_undo_a_later_run(store: FeatureStore, server: RedisServer) -> None:
    store.materialize(NOW - DAY, NOW)
    original = engine._Filling.end

    def paused(filling: Any, run: Any) -> None:
        patch.undo()
        server.client().delete(b"4:shop:lease:5:users")
        other = same_repo(store)
        other.apply(objects(user_view(schema=[field for field in user_view().schema if field.name != "last"])))
        other.materialize(NOW - DAY, NOW)
        original(filling, run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine._Filling, "end", paused)
        with pytest.raises(MaterializationBusy, match="'users' was changed by another run"):
            store.materialize(NOW - DAY, NOW)
    assert orders(same_repo(store), [1, 2, 3]) == [10, 20, 30]


def test_a_rebuild_covers_what_the_old_rows_covered_though_the_registry_forgot(store: FeatureStore, repo: Path) -> None:
    store.materialize(NOW - DAY, NOW)
    (repo / "data" / "registry.db").unlink()
    fresh = same_repo(store)
    fresh.apply(objects(user_view(schema=[field for field in user_view().schema if field.name != "last"])))
    fresh.materialize(NOW - timedelta(minutes=1), NOW)
    assert orders(fresh, [1, 2, 3]) == [10, 20, 30]


def test_requests_that_run_side_by_side_all_notice_a_switch(store: FeatureStore) -> None:
    store.materialize(NOW - DAY, NOW)
    other = same_repo(store)

    def rebuild() -> None:
        store.apply(objects(user_view(schema=[field for field in user_view().schema if field.name != "last"])))
        store.materialize(NOW - DAY, NOW)

    def pushed(user: int) -> pd.DataFrame:
        return user_rows(user, NOW).tail(1).assign(orders=[1000 + user]).astype({"orders": "Int64"})

    async def side_by_side() -> list[Any]:
        await other.get_online_features_async(["users:orders"], {"user_id": [1]})
        await asyncio.to_thread(rebuild)
        asked = [other.get_online_features_async(["users:orders"], {"user_id": [1]}) for _ in range(5)]
        answers = await asyncio.gather(*asked)
        await asyncio.to_thread(rebuild_back)
        await asyncio.gather(*(other.push_async("users_push", pushed(user)) for user in range(1, 6)))
        await other.close()
        return [answer.to_dict()["orders"] for answer in answers]

    def rebuild_back() -> None:
        store.apply(objects())
        store.materialize(NOW - DAY, NOW)

    assert asyncio.run(side_by_side()) == [[10]] * 5
    assert orders(same_repo(store), [1, 2, 3, 4, 5]) == [1001, 1002, 1003, 1004, 1005]


def test_a_push_during_a_rebuild_is_in_both_generations(
    store: FeatureStore, session: RedisSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from store import engine

    store.materialize(NOW - DAY, NOW)
    store.apply(objects(user_view(schema=[f for f in user_view().schema if f.name != "last"])))
    original = engine.latest_rows

    def pushing(*arguments: Any) -> Any:
        latest = original(*arguments)
        rows = user_rows(1, NOW)
        rows["orders"] = pd.array([77], dtype="Int64")
        other = same_repo(store)
        other.push("users_push", rows.drop(columns="last") if "last" not in rows else rows)
        assert orders(other, [1, 2]) == [77, 20]
        return latest

    monkeypatch.setattr(engine, "latest_rows", pushing)
    store.materialize(NOW - DAY, NOW)
    assert orders(store, [1, 2]) == [77, 20]
    assert session.hold(read_state(PROJECT, "users")).state.generation == 2


def test_one_view_is_materialized_by_one_run_at_a_time(store: FeatureStore, session: RedisSession) -> None:
    with lease(session, PROJECT, "users"), pytest.raises(MaterializationBusy, match="'users'"):
        store.materialize(NOW - DAY, NOW)
    store.materialize(NOW - DAY, NOW)
    assert orders(store, [1]) == [10]


def test_readers_see_old_or_new_rows_throughout(store: FeatureStore, repo: Path) -> None:
    store.materialize(NOW - DAY, NOW)
    ended = threading.Event()
    seen: set[int] = set()

    def read() -> None:
        own = same_repo(store)
        while not ended.is_set():
            seen.update(orders(own, [1, 2, 3]))

    reader = threading.Thread(target=read)
    reader.start()
    poll_until(lambda: seen == {10, 20, 30})
    schema = [field for field in user_view().schema if field.name != "name"]
    write_users(repo, [(user, NOW - timedelta(hours=1), user) for user in (1, 2, 3)])
    store.apply(objects(user_view(schema=schema)))
    store.materialize(NOW - DAY, NOW)
    poll_until(lambda: {1, 2, 3} <= seen)
    ended.set()
    reader.join()
    assert seen == {10, 20, 30, 1, 2, 3}


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


# Feast says this wherever a stream view is made; nobody can act on it.
@pytest.mark.filterwarnings("ignore:Batch feature views are experimental:RuntimeWarning")
def test_a_transformed_batch_view_is_refused_at_apply(store: FeatureStore) -> None:
    view = BatchFeatureView(
        name="scaled",
        entities=[USER],
        schema=user_view().schema,
        source=user_source(),
        udf=lambda frame: frame,
        mode="pandas",
        ttl=DAY,
        online=True,
    )
    with pytest.raises(DefinitionError, match="'scaled' declares a transformation"):
        store.apply([view])


@pytest.mark.filterwarnings("ignore:Stream feature views are experimental:RuntimeWarning")
def test_windowed_views_are_refused_at_apply_and_the_registry_stays(store: FeatureStore, repo: Path) -> None:
    before = (repo / "data" / "registry.db").read_bytes()
    windowed = StreamFeatureView(
        name="hourly",
        entities=[USER],
        schema=[Field(name="user_id", dtype=Int64), Field(name="sum_spent_3600s", dtype=Float64)],
        source=user_view().stream_source,
        aggregations=[Aggregation(column="spent", function="sum", time_window=timedelta(hours=1))],
        timestamp_field="event_timestamp",
        ttl=DAY,
    )
    with pytest.raises(DefinitionError, match="'hourly'"):
        store.apply([windowed])
    assert (repo / "data" / "registry.db").read_bytes() == before


def test_our_engine_and_offline_store_fill_feasts_sqlite(store: FeatureStore) -> None:
    settings = config(Path(str(store.config.repo_path)), "unused")
    settings.online_config = {"type": "sqlite", "path": "data/online.db"}
    stock = StockFeatureStore(repo_path=str(settings.repo_path), config=settings)
    stock.apply(objects())
    stock.materialize(NOW - DAY, NOW)
    assert orders(stock, [1, 2]) == [10, 20]


def test_feasts_dask_store_feeds_our_engine_and_online_store(store: FeatureStore, server: RedisServer) -> None:
    settings = config(Path(str(store.config.repo_path)), server.url)
    settings.offline_config = {"type": "dask"}
    stock = StockFeatureStore(repo_path=str(settings.repo_path), config=settings)
    stock.materialize(NOW - DAY, NOW)
    assert orders(stock, [1, 2]) == [10, 20]


def test_feasts_engine_fills_our_online_store(store: FeatureStore, server: RedisServer) -> None:
    settings = config(Path(str(store.config.repo_path)), server.url)
    settings.batch_engine_config = {"type": "local"}
    stock = StockFeatureStore(repo_path=str(settings.repo_path), config=settings)
    stock.materialize(NOW - DAY, NOW)
    assert orders(stock, [1, 2]) == [10, 20]


CLI_REPO = """
from tests.stores import objects

user, users, basket_share, checkout = objects()
"""


def feast_cli(repo: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONWARNINGS": "ignore"}
    command = [str(Path(sys.executable).with_name("feast")), *arguments]
    return subprocess.Popen(command, cwd=repo, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run_cli(repo: Path, *arguments: str) -> str:
    process = feast_cli(repo, *arguments)
    output = process.communicate()[0].decode()
    assert process.returncode == 0, output
    return output


def test_the_feast_command_line_applies_and_materializes_and_survives_a_kill(
    repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    user_rows().to_parquet(repo / "data" / "users.parquet")
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    (repo / "definitions.py").write_text(CLI_REPO)
    run_cli(repo, "apply")
    interval = ((NOW - DAY).isoformat(), NOW.isoformat())
    run_cli(repo, "materialize", *interval)
    store = FeatureStore(str(repo))
    assert orders(store, [1, 2]) == [10, 20]
    # A run killed while it writes: the registry says MATERIALIZING from now on, and the lease lapses by itself.
    users = repo / "data" / "users.parquet"
    pipe = repo / "data" / "users.pipe"
    users.rename(pipe)
    os.mkfifo(users)
    process = feast_cli(repo, "materialize", *interval)
    poll_until(lambda: b"MATERIALIZING" in registry_states(repo), seconds=60)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    users.unlink()
    pipe.rename(users)
    server.client().delete(b"4:shop:lease:5:users")
    store = FeatureStore(str(repo))
    assert orders(store, [1, 2]) == [10, 20]
    training = store.get_historical_features(
        pd.DataFrame({"user_id": [1], "event_timestamp": [NOW]}), features=["users:orders"]
    )
    assert training.to_df()["orders"].tolist() == [10]
    run_cli(repo, "materialize-incremental", NOW.isoformat())
    assert orders(FeatureStore(str(repo)), [1, 2]) == [10, 20]


def registry_states(repo: Path) -> bytes:
    from feast.protos.feast.core.FeatureView_pb2 import FeatureViewState
    from feast.protos.feast.core.Registry_pb2 import Registry

    registry = Registry.FromString((repo / "data" / "registry.db").read_bytes())
    return b" ".join(FeatureViewState.Name(view.spec.state if hasattr(view.spec, "state") else view.meta.state).encode()
                     for view in registry.feature_views)  # fmt: skip


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
