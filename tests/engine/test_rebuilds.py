"""A changed definition is built whole beside the old one, whatever runs or dies meanwhile."""

import asyncio
import contextlib
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from store import filling
from store.errors import MaterializationBusy
from store.feature_store import FeatureStore
from store.kernel.keys import row_field
from store.online.bulk import BulkWriter
from store.online.client import RedisSession
from store.online.conversations import read_state
from store.online.views import lease
from tests.engine.helpers import DAY, orders, same_repo, write_users
from tests.redis_servers import RedisServer, poll_until
from tests.stores import NOW, PROJECT, objects, user_rows, user_view


class Killed(BaseException):
    """Ends a run in the middle, as a kill does: nothing of the run's own code follows."""


STEPS = ("next_generation", "replace_state", "write", "carry_pushed", "drop_generations")


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
    assert fields == {row_field("users", 2)}


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

    owner = BulkWriter if step == "write" else filling
    original = getattr(owner, step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, step, killing)
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
    assert (state.building, fields) == (0, {row_field("users", state.generation)})


def test_what_two_killed_rebuilds_left_is_not_taken_for_rows_of_the_third(store: FeatureStore, repo: Path) -> None:
    store.materialize(NOW - DAY, NOW)
    for orders_then, dropped in ((666, "last"), (667, "name")):
        write_users(repo, [(user, NOW, orders_then) for user in range(1, 9)])
        store.apply(objects(user_view(schema=[field for field in user_view().schema if field.name != dropped])))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(filling, "carry_pushed", lambda *_, **__: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                store.materialize(NOW - DAY, NOW)
    write_users(repo, [(1, NOW - timedelta(hours=2), 1)])
    store.apply(objects(user_view(schema=[f for f in user_view().schema if f.name not in {"last", "name"}])))
    store.materialize(NOW - DAY, NOW)
    assert orders(store, [1, 2, 8]) == [1, None, None]


def test_a_run_whose_lease_lapsed_does_not_undo_a_later_run(store: FeatureStore, server: RedisServer) -> None:
    store.materialize(NOW - DAY, NOW)
    original = filling.Filling.end

    def paused(filling: Any, run: Any, known_us: int) -> None:
        patch.undo()
        server.client().delete(b"4:shop:lease:5:users")
        other = same_repo(store)
        other.apply(objects(user_view(schema=[field for field in user_view().schema if field.name != "last"])))
        other.materialize(NOW - DAY, NOW)
        original(filling, run, known_us)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filling.Filling, "end", paused)
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
