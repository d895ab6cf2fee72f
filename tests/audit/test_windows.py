"""Windowed values are recomputed from what was known when they were served; planted skew is told by its cause."""

import inspect
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import FileSource, PushSource
from feast.aggregation import Aggregation
from feast.data_source import PushMode

from store.audit.windowed_views import Vectors
from store.definitions_from_feast import view_definition
from store.erasure import Eraser
from store.errors import ConfigError
from store.kernel.keys import entity_key_encoder, stream_tiles_key
from store.kernel.known_events import Known
from store.limits import AUDIT_WINDOW_KEYS as KEYS_MAX
from tests.audit.clicks_shop import NOW, ClicksShop
from tests.audit.logged_shop import causes_of, different, features_of, lost_of
from tests.redis_servers import RedisServer
from tests.stores import PROJECT
from tests.stream.shop import DAY, HOUR, by_page, by_user, clicks, clicks_source

MINUTE = timedelta(minutes=1)
BY_USER = {"by_user:count_worth_1h", "by_user:sum_worth_1d", "by_user:last3"}
COUNT = "count_worth_1h"
ALL = BY_USER | {"page_clicks:sum_worth"}


def _tiles_of_user_1(view: Any) -> bytes:
    definition = view_definition(PROJECT, view)
    key = entity_key_encoder(PROJECT, definition.join_keys).encode([1])
    assert key is not None
    return stream_tiles_key(key, definition.name, definition.fingerprint)


def doubled(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows[rows["worth"] > 0]
    return rows.assign(worth=rows["worth"] * 2)


def later(shop: ClicksShop, worths: list[float | None], user: int = 1, ago: float = 1) -> pd.DataFrame:
    """Returns clicks of some minutes before the shop's time."""
    return clicks(worths, user=user, minutes=(NOW - shop.now) / MINUTE + ago)


def test_what_was_served_is_reproduced_and_as_trained(clicks_shop: ClicksShop) -> None:
    shop = clicks_shop
    shop.push(clicks([1.0, 2.0]))
    shop.push(clicks([5.0], user=2, page="cart"))
    shop.work()
    assert shop.serve([1, 2, 3, None], ["home", "cart", "none", None])["results"][1]["values"] != []
    shop.materialize()
    shop.serve([1, 2])
    shop.wait(2 * HOUR)
    shop.push(later(shop, [7.0, None]))
    shop.work()
    shop.serve([1, 2])
    told = shop.audit()
    assert (causes_of(told), lost_of(told), different(told)) == ({}, {}, {})
    assert told["is_clean"] is True
    assert set(features_of(told)) == ALL
    assert {feature["audited"] for feature in features_of(told).values()} == {8}
    assert told["services"][0]["not_audited"] == {}


def test_an_event_pushed_online_only_is_told(clicks_shop: ClicksShop) -> None:
    clicks_shop.push(clicks([1.0]), PushMode.ONLINE)
    clicks_shop.work()
    clicks_shop.serve([1, 2], ["home", "cart"])
    told = clicks_shop.audit()
    assert (told["is_clean"], lost_of(told)) == (True, {})
    assert causes_of(told) == {name: {"online only": 1} for name in ALL}


def test_an_event_that_came_after_the_request_is_late(clicks_shop: ClicksShop) -> None:
    clicks_shop.serve([1], ["home"])
    clicks_shop.wait(MINUTE)
    clicks_shop.push(clicks([1.0]))
    clicks_shop.work()
    told = clicks_shop.audit()
    assert (told["is_clean"], lost_of(told)) == (True, {})
    assert causes_of(told) == {name: {"late": 1} for name in ALL}


def test_an_event_that_no_worker_had_applied_is_told(clicks_shop: ClicksShop) -> None:
    clicks_shop.push(clicks([1.0]))
    clicks_shop.serve([1], ["home"])
    told = clicks_shop.audit()
    assert (told["is_clean"], lost_of(told)) == (True, {})
    assert causes_of(told) == {name: {"not yet applied": 1} for name in ALL}


def test_an_event_that_never_came_by_the_stream_waits_for_its_materialization(clicks_shop: ClicksShop) -> None:
    shop = clicks_shop
    shop.push(clicks([2.0], minutes=60 * 12 + 5), PushMode.OFFLINE)
    shop.materialize()
    shop.push(clicks([1.0]), PushMode.OFFLINE)
    shop.push(clicks([4.0], minutes=60 * 12 + 6), PushMode.OFFLINE)
    shop.serve([1], ["home"])
    shop.wait(DAY / 2)
    shop.materialize()
    shop.serve([1], ["home"])
    told = shop.audit()
    assert (told["is_clean"], lost_of(told), different(told)) == (True, {}, {})
    assert causes_of(told) == {name: {"not materialized": 1} for name in ALL}


def test_an_event_dropped_from_tiles_fails_the_audit(clicks_shop: ClicksShop) -> None:
    shop = clicks_shop
    shop.push(clicks([1.0], minutes=30))
    shop.work()
    tiles = _tiles_of_user_1(by_user())
    client = shop.server.client()
    (dropped,) = [name for name in client.hkeys(tiles) if name]
    shop.push(clicks([2.0], minutes=2))
    shop.work()
    assert client.hdel(tiles, dropped) == 1
    shop.serve([1, 2], ["home", "cart"])
    told = shop.audit()
    assert told["is_clean"] is False
    assert different(told) == dict.fromkeys(BY_USER, 1)
    assert causes_of(told) == {name: {"None": 1} for name in BY_USER}


def test_a_changed_definition_is_told(clicks_shop: ClicksShop) -> None:
    shop = clicks_shop
    shop.push(clicks([1.0, 2.0]))
    shop.work()
    shop.serve([1])
    shorter = by_user(
        aggregations=[
            Aggregation(column="worth", function="count", time_window=MINUTE * 2, slide_interval=MINUTE, name=COUNT),
            Aggregation(column="worth", function="sum", time_window=DAY, name="sum_worth_1d"),
            Aggregation(column="worth", function="last_3", time_window=DAY, name="last3"),
        ]
    )
    shop.define(shorter, by_page())
    told = shop.audit()
    assert told["is_clean"] is True
    assert lost_of(told)["by_user:count_worth_1h"] == {"older definition": 1}
    assert causes_of(told) == {"by_user:count_worth_1h": {"older definition": 1}}


def test_a_clock_set_back_serves_the_future(clicks_shop: ClicksShop) -> None:
    shop = clicks_shop
    shop.push(clicks([1.0]))
    shop.work()
    shop.set_back(2 * HOUR)
    shop.serve([1], ["home"])
    told = shop.audit()
    assert (told["is_clean"], different(told), lost_of(told)) == (True, {}, {})
    assert causes_of(told) == {name: {"future": 1} for name in ALL}


def test_an_erased_key_is_told(clicks_shop: ClicksShop) -> None:
    shop = clicks_shop
    shop.push(clicks([1.0]))
    shop.push(clicks([2.0], user=2, page="cart"))
    shop.work()
    shop.serve([1, 2], ["home", "cart"])
    shop.wait(MINUTE)
    assert Eraser(shop.store, "user_id=1").erase().is_proven
    assert shop.accepted("by_user") == [2.0]
    told = shop.audit()
    assert {name: lost_of(told)[name] for name in BY_USER} == {name: {"erased": 1} for name in BY_USER}
    assert {name: causes_of(told)[name] for name in BY_USER} == {name: {"erased": 1} for name in BY_USER}


def test_events_of_before_the_view_was_logged_are_no_longer_known(clicks_shop: ClicksShop) -> None:
    shop = clicks_shop
    shop.define(by_user(), is_logged=False)
    shop.push(clicks([1.0]), PushMode.ONLINE)
    shop.work()
    shop.define(by_user())
    shop.push(clicks([2.0], minutes=2))
    shop.work()
    assert shop.accepted("by_user") == [2.0]
    shop.serve([1])
    told = shop.audit()
    assert told["is_clean"] is True
    assert lost_of(told) == {name: {"not kept": 1} for name in BY_USER}
    shop.wait(DAY + 2 * HOUR)
    shop.push(later(shop, [3.0]))
    shop.work()
    shop.serve([1])
    told = shop.audit()
    assert features_of(told)["by_user:sum_worth_1d"]["reproduction"]["equal"] == 1, "no window reaches back so far"


def test_a_key_that_expired_is_told(tmp_path: Path, server: RedisServer) -> None:
    server.client().flushall()
    shop = ClicksShop(tmp_path / "repo", server, key_ttl_seconds=3_600)
    shop.push(clicks([1.0]))
    shop.work()
    assert server.client().delete(_tiles_of_user_1(by_user())) == 1
    shop.wait(MINUTE)
    shop.push(later(shop, [2.0]))
    shop.work()
    shop.serve([1], ["home"])
    told = shop.audit()
    assert told["is_clean"] is True
    assert lost_of(told) == {name: {"key ttl": 1} for name in BY_USER}
    assert causes_of(told) == {name: {"key ttl": 1} for name in BY_USER}
    shop.close()


def test_rows_of_a_users_own_job_count_from_their_materialization_on(tmp_path: Path, server: RedisServer) -> None:
    server.client().flushall()
    source = PushSource(name="clicks", batch_source=clicks_source(), tags={"external": "true"})
    shop = ClicksShop(tmp_path / "repo", server, [by_user(source=source)])
    shop.write_source(clicks([1.0], minutes=60 * 12 + 30))
    shop.materialize()
    shop.wait(10 * MINUTE)
    pushed, unpushed = later(shop, [2.0]), later(shop, [3.0], ago=2)
    shop.push(pushed, PushMode.ONLINE)
    shop.work()
    shop.serve([1])
    both = pd.concat([clicks([1.0], minutes=60 * 12 + 30), pushed], ignore_index=True)
    shop.write_source(both)
    told = shop.audit()
    assert (told["is_clean"], causes_of(told), lost_of(told)) == (True, {}, {}), "the job brought the same event"
    shop.write_source(pd.concat([both, unpushed], ignore_index=True))
    told = shop.audit()
    assert (told["is_clean"], lost_of(told)) == (True, {})
    assert causes_of(told) == {name: {"not materialized": 1} for name in BY_USER}
    shop.write_source(clicks([9.0], minutes=60 * 12 + 30))
    assert lost_of(shop.audit())["by_user:sum_worth_1d"] == {"source rewritten": 1}
    shop.close()


def test_events_of_transformed_rows_are_kept_as_they_come_out(tmp_path: Path, server: RedisServer) -> None:
    server.client().flushall()
    view = by_user(udf=doubled, udf_string=inspect.getsource(doubled), mode="pandas")
    shop = ClicksShop(tmp_path / "repo", server, [view])
    shop.push(clicks([4.0, -1.0], minutes=60 * 12 + 30))
    shop.work()
    shop.materialize()
    shop.push(clicks([2.0, -5.0]))
    shop.push(clicks([8.0]), PushMode.ONLINE)
    shop.work()
    assert shop.accepted("by_user") == [8.0, 4.0, 16.0]
    assert shop.serve([1])["results"][0] is not None
    told = shop.audit()
    assert (told["is_clean"], different(told), lost_of(told)) == (True, {}, {})
    assert causes_of(told) == {name: {"online only": 1} for name in BY_USER}
    shop.close()


def test_files_that_a_job_adds_hide_no_fault(tmp_path: Path, server: RedisServer) -> None:
    server.client().flushall()
    source = FileSource(path="data/clicks", timestamp_field="at", created_timestamp_column="created")
    view = by_user(source=PushSource(name="clicks", batch_source=source))
    shop = ClicksShop(tmp_path / "repo", server)
    shop.write_source(clicks([1.0], minutes=60 * 12 + 30), "clicks/1.parquet")
    shop.define(view)
    shop.materialize()
    shop.push(clicks([2.0]))
    shop.work()
    shop.serve([1])
    shop.wait(MINUTE)
    shop.write_source(clicks([4.0], minutes=60 * 12 + 31), "clicks/0.parquet")
    told = shop.audit()
    assert (told["is_clean"], different(told), lost_of(told)) == (True, {}, {})
    assert causes_of(told)["by_user:sum_worth_1d"] == {"late": 1}
    tiles = _tiles_of_user_1(view)
    (dropped,) = [name for name in server.client().hkeys(tiles) if name]
    server.client().hdel(tiles, dropped)
    shop.serve([1])
    told = shop.audit()
    assert (told["is_clean"], lost_of(told)) == (False, {})
    assert different(told) == dict.fromkeys(BY_USER, 1)
    shop.close()


def test_a_damaged_note_of_kept_events_is_named(clicks_shop: ClicksShop) -> None:
    clicks_shop.push(clicks([1.0]), PushMode.ONLINE)
    clicks_shop.work()
    tiles, client = _tiles_of_user_1(by_user()), clicks_shop.server.client()
    client.hdel(tiles, *[name for name in client.hkeys(tiles) if name])
    clicks_shop.serve([1], ["home"])
    (note,) = (clicks_shop.repo / "data" / "accepted" / "by_user").glob("*/begun.json")
    note.write_text("{")
    with pytest.raises(ConfigError, match=r"begun\.json.*cannot be understood; delete it"):
        clicks_shop.audit()


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (KEYS_MAX, [KEYS_MAX]), (KEYS_MAX + 1, [KEYS_MAX, 1])])
def test_events_of_a_bounded_number_of_keys_are_held_at_a_time(count: int, sizes: list[int]) -> None:
    known = Known(0, None, 0, None, "", "", 0)
    vectors = Vectors([(key % count,) for key in range(2 * count)], [known] * (2 * count))
    chunks = list(vectors.by_keys())
    assert [len(keys) for keys, _ in chunks] == sizes
    assert sorted(place for _, places in chunks for place in places) == list(range(2 * count))
