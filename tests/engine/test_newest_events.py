"""The newest event noted of a view is that of the rows that Redis serves, whoever wrote them and in whatever order."""

from datetime import datetime, timedelta
from random import Random
from typing import Any

import pandas as pd
import pytest

from store import filling
from store.clock import from_us
from store.definitions_from_feast import view_definition
from store.feature_store import FeatureStore
from store.kernel.keys import newest_key
from store.online.client import RedisSession
from store.online.newest_reads import ServedView, read_newest
from tests.engine.helpers import same_repo, write_users
from tests.engine.test_windows import AGGREGATIONS, SCHEMA, windows, write_events
from tests.redis_servers import RedisServer
from tests.stores import NOW, PROJECT, objects, user_rows, user_view

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
USERS = list(range(1, 9))


def newest(session: RedisSession, view: str = "users", fingerprint: str = "") -> datetime | None:
    (found,) = session.hold(read_newest(PROJECT, [ServedView(view, fingerprint)]))
    return None if found is None else from_us(found)


def newest_served(store: FeatureStore) -> datetime | None:
    """Returns the newest event time that lookups of all users are answered with."""
    answer = store.get_online_features(["users:orders"], {"user_id": USERS}).proto
    (times,) = [result.event_timestamps for result in answer.results[1:]]
    return max((each.ToDatetime(NOW.tzinfo) for each in times if each.seconds), default=None)


@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 20))])
def test_it_is_that_of_the_rows_served_after_every_step_of_a_random_life(
    store: FeatureStore, session: RedisSession, seed: int
) -> None:
    random = Random(seed)
    assert newest(session) is newest_served(store) is None
    for _ in range(12):
        step = random.choice(["push", "push", "write", "materialize", "rewrite", "redefine"])
        user, at = random.choice(USERS), NOW - random.randrange(1, 40) * HOUR
        row = user_rows(user, at + user * MINUTE).tail(1)
        if step == "push":
            store.push("users_push", row)
        elif step == "write":
            store.write_to_online_store("users", row)
        elif step == "materialize":
            store.materialize(at - random.randrange(1, 30) * HOUR, at)
        elif step == "rewrite":
            write_users(store.repo_path, [(each, NOW - random.randrange(1, 60) * HOUR, 1) for each in USERS])
        else:
            left_out = random.choice(["last", "name", None])
            schema = [field for field in user_view().schema if field.name != left_out]
            store.apply(objects(user_view(schema=schema)))
            store.materialize(NOW - 2 * DAY, NOW)
        assert newest(session) == newest_served(same_repo(store)), step


def test_an_older_row_does_not_take_it_back_and_one_of_another_view_is_none_of_its(
    store: FeatureStore, session: RedisSession
) -> None:
    store.push("users_push", user_rows(1, NOW))
    store.push("users_push", user_rows(3, NOW - HOUR))
    assert newest(session) == NOW - MINUTE
    assert newest(session, "user") is newest(session, "sers") is newest(session, "others") is None


def test_a_generation_that_is_being_built_or_was_given_up_is_not_told(
    store: FeatureStore, session: RedisSession
) -> None:
    write_users(store.repo_path, [(1, NOW - 3 * HOUR, 1)])
    store.materialize(NOW - DAY, NOW)
    write_users(store.repo_path, [(1, NOW - HOUR, 2)])
    store.apply(objects(user_view(schema=[field for field in user_view().schema if field.name != "last"])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filling, "carry_pushed", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.materialize(NOW - DAY, NOW)
    assert newest(session) == NOW - 3 * HOUR
    session.client.delete(b"4:shop:lease:5:users")
    write_users(store.repo_path, [(1, NOW - 2 * HOUR, 3)])
    store.materialize(NOW - DAY, NOW)
    assert newest(session) == NOW - 2 * HOUR
    assert session.client.zcard(newest_key(PROJECT)) == 1, "what was noted of dropped generations is gone"


def test_rows_from_before_it_was_noted_are_unknown_until_the_next_ones(
    store: FeatureStore, session: RedisSession
) -> None:
    store.materialize(NOW - DAY, NOW)
    session.client.delete(newest_key(PROJECT))
    assert newest(session) is None
    store.push("users_push", user_rows(1, NOW))
    assert newest(session) == NOW - MINUTE


def test_a_materialization_without_rows_notes_nothing(store: FeatureStore, session: RedisSession) -> None:
    store.materialize(NOW - DAY, NOW - 20 * HOUR)
    assert newest(session) is None


def test_thousands_of_views_are_read_in_pieces(session: RedisSession, server: RedisServer) -> None:
    server.client().zadd(newest_key(PROJECT), {b"\1v0": 1_000_000, b"\1v1200": 2_000_000})
    found = session.hold(read_newest(PROJECT, [ServedView(f"v{number}") for number in range(1201)]))
    assert found == [1_000_000, *[None] * 1199, 2_000_000]
    assert session.hold(read_newest(PROJECT, [])) == []


def test_windowed_views_tell_the_newest_event_taken_in_and_forget_earlier_definitions(
    store: FeatureStore, session: RedisSession
) -> None:
    end = NOW.replace(hour=0)
    rows: list[tuple[int, Any, float | None, int | None, str | None]] = [
        (1, end - 40 * DAY, 1.0, 1, "beyond every window"),
        (1, end - HOUR, 1.0, 1, "a"),
        (1, end + HOUR, 1.0, 1, "later than the batch end"),
    ]
    write_events(store.repo_path, rows)
    view = windows()
    store.apply([view])
    fingerprint = view_definition(PROJECT, view).fingerprint
    store.materialize(NOW - DAY, NOW)
    assert newest(session, "user_windows", fingerprint) == end - HOUR
    write_events(store.repo_path, rows[:1])
    store.apply([windows(schema=SCHEMA[:-1], aggregations=AGGREGATIONS[:-1])])
    # Until the changed definition is built, the earlier tiles are served.
    assert newest(session, "user_windows", fingerprint) == end - HOUR
    store.materialize(NOW - DAY, NOW)
    assert newest(session, "user_windows", fingerprint) is None
    assert not [name for name, _ in session.client.zscan_iter(newest_key(PROJECT)) if b"user_windows" in name]


def test_removing_a_view_takes_its_notes_and_no_others(store: FeatureStore, session: RedisSession) -> None:
    store.apply([user_view(name="sers", source=user_view().batch_source)])
    store.push("users_push", user_rows(1, NOW))
    store.materialize(NOW - DAY, NOW, ["sers"])
    assert newest(session, "sers") == NOW - HOUR - MINUTE
    session.client.zadd(newest_key(PROJECT), {b"\0" + b"f" * 16 + b"sers": 1, b"\0" + b"f" * 16 + b"users": 2})
    online = store._get_provider().online_store
    online.update(store.config, [user_view(name="sers")], [], [], [], partial=True)
    left = {member for member, _ in session.client.zscan_iter(newest_key(PROJECT))}
    assert left == {b"\1users", b"\0" + b"f" * 16 + b"users"}


def test_a_push_into_a_view_under_rebuild_counts_after_the_switch(store: FeatureStore, session: RedisSession) -> None:
    store.materialize(NOW - DAY, NOW)
    store.apply(objects(user_view(schema=[field for field in user_view().schema if field.name != "last"])))
    original = filling.carry_pushed

    def pushed_meanwhile(*arguments: Any, **options: Any) -> None:
        same_repo(store).push("users_push", user_rows(1, NOW))
        original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filling, "carry_pushed", pushed_meanwhile)
        store.materialize(NOW - DAY, NOW)
    assert newest(session) == NOW - MINUTE == newest_served(same_repo(store))


def test_times_before_1970_are_times(store: FeatureStore, session: RedisSession) -> None:
    long_ago = pd.Timestamp("1912-04-14T23:40:00Z").to_pydatetime()
    store.push("users_push", user_rows(1, long_ago))
    assert newest(session) == long_ago - MINUTE
