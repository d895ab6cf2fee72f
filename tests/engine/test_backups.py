"""What the README says of backups, of restoring them, and of rows that a newer Larder has written."""

import shutil
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from feast.data_source import PushMode

from store.errors import LarderError, StoredRowError
from store.feature_store import FeatureStore
from store.kernel.keys import row_field
from tests.engine.helpers import DAY, orders, write_users
from tests.redis_servers import RedisServer, poll_until, private_redis
from tests.stores import NOW, config, make_store, objects, user_rows

HOUR = timedelta(hours=1)


def rdb_of(server: RedisServer, target: Path) -> None:
    """Copies the snapshot of a running server, as the README says."""
    client = server.client()
    client.bgsave()
    poll_until(lambda: client.info("persistence")["rdb_bgsave_in_progress"] == 0)
    target.mkdir()
    shutil.copy(Path(str(client.config_get("dir")["dir"])) / "dump.rdb", target)


def aof_of(server: RedisServer, target: Path) -> None:
    """Copies the append-only file of a running server."""
    target.mkdir()
    shutil.copy(Path(str(server.client().config_get("dir")["dir"])) / "appendonly.aof", target)


def restored(repo: Path, target: Path, server: RedisServer) -> FeatureStore:
    """Returns the store of a copied repo folder over another Redis."""
    shutil.copytree(repo, target)
    return FeatureStore(repo_path=str(target), config=config(target, server.url))


@pytest.mark.parametrize(("copy", "options"), [(rdb_of, ()), (aof_of, ("--appendonly", "yes"))])
def test_a_copy_of_a_running_redis_answers_the_same_and_the_next_run_adds_what_came_after_it(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy: object, options: tuple[str, ...]
) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    (tmp_path / "redis").mkdir()
    with private_redis(tmp_path / "redis", *options) as server:
        store = make_store(repo, server.url)
        write_users(repo, [(1, NOW - 5 * HOUR, 1), (2, NOW - HOUR, 2)])
        store.materialize(NOW - DAY, NOW - 2 * HOUR)
        store.push("users_push", user_rows(3, NOW - 3 * HOUR).tail(1), to=PushMode.ONLINE_AND_OFFLINE)
        assert orders(store, [1, 2, 3]) == [1, None, 30]
        copy(server, tmp_path / "backup")  # type: ignore[operator]
        # Redis first, the repo last: what the copied registry promises and the copied Redis lacks is read again.
        store.materialize(NOW - 2 * HOUR, NOW)
        other = tmp_path / "restored"
        with private_redis(tmp_path / "backup", *options) as elsewhere:
            copied = restored(repo, other, elsewhere)
            assert orders(copied, [1, 2, 3]) == [1, None, 30]
            copied.materialize_incremental(NOW)
            assert orders(copied, [1, 2, 3]) == [1, 2, 30]
            frame = pd.DataFrame({"user_id": [3], "event_timestamp": pd.to_datetime([NOW], utc=True)})
            trained = copied.get_historical_features(frame, ["users:orders"]).to_df()
            assert trained["orders"].tolist() == [30], "what was pushed to both sides is in the copied folder"


def as_if_newer(server: RedisServer, key: bytes = b"4:shop:{7:user_idi1,}") -> bytes:
    """Makes a stored row one of a newer format, and returns it."""
    row = b"\x30" + server.client().hget(key, row_field("users", 1))[1:]
    server.client().hset(key, row_field("users", 1), row)
    return row


def test_a_row_of_a_newer_format_is_refused_and_never_overwritten(store: FeatureStore, server: RedisServer) -> None:
    store.materialize(NOW - DAY, NOW)
    row = as_if_newer(server)
    with pytest.raises(StoredRowError, match="format version 3, this version of Larder reads 2; upgrade Larder"):
        orders(store, [1])
    assert orders(store, [2]) == [20], "other rows are served"
    with pytest.raises(LarderError, match="format version 3"):
        store.push("users_push", user_rows(1, NOW))
    with pytest.raises(LarderError, match="format version 3"):
        store.materialize(NOW - DAY, NOW)
    assert server.client().hget(b"4:shop:{7:user_idi1,}", row_field("users", 1)) == row


def test_after_going_back_a_view_that_is_removed_and_applied_again_is_filled_anew(
    store: FeatureStore, server: RedisServer
) -> None:
    store.materialize(NOW - DAY, NOW)
    as_if_newer(server)
    user, *defined = objects()
    store.apply([user], objects_to_delete=defined, partial=False)
    store.apply([user, *defined])
    store.materialize(NOW - DAY, NOW)
    assert orders(store, [1, 2]) == [10, 20]


def test_a_row_pushed_into_covered_time_after_the_copy_comes_back_by_a_run_from_before_it(
    store: FeatureStore, server: RedisServer
) -> None:
    client = server.client()
    store.materialize(NOW - DAY, NOW)
    backup = {key: client.dump(key) for key in client.keys("*")}
    store.push("users_push", user_rows(6, NOW - HOUR).tail(1), to=PushMode.ONLINE_AND_OFFLINE)
    client.flushall()
    for key, content in backup.items():
        client.restore(key, 0, content)
    store.materialize_incremental(NOW)
    assert orders(store, [6]) == [None]
    store.materialize(NOW - DAY, NOW)
    assert orders(store, [5, 6]) == [50, 60]


def test_a_redis_of_before_format_2_is_taken_for_an_emptied_one(store: FeatureStore, server: RedisServer) -> None:
    client = server.client()
    store.materialize(NOW - DAY, NOW)
    for name in ("views", "layouts"):
        client.rename(f"4:shop:{name}:2", f"4:shop:{name}")
    for key in client.keys("4:shop:{*"):
        row = client.hget(key, row_field("users", 1))
        client.hset(key, b"users#1", b"\x01\x00" + row)
        client.hdel(key, row_field("users", 1))
    assert orders(store, [1, 2]) == [None, None]
    store.materialize_incremental(NOW)
    assert orders(store, [1, 2]) == [10, 20]
    store.teardown()
    assert client.keys("4:shop:*") == []
