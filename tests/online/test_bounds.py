"""What a lookup may cost, and rows whose times or values cannot be said: the other rows are answered all the same."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Int64, UnixTimestamp

from store.clock import EARLIEST_US, LATEST_US, to_us
from store.errors import PushedRowsError, StoredRowError, TooLarge, WrongType
from store.feature_store import FeatureStore
from store.kernel.codec import RowLayout, RowTimes, encode_row
from store.kernel.definitions import Column
from store.kernel.keys import entity_key_encoder, row_field
from store.limits import LOOKUP_BATCH_KEYS, LOOKUP_KEYS_MAX, LOOKUP_STORED_BYTES_MAX, PUSH_VALUE_BYTES_MAX
from store.online import lookup
from store.online.conversations import register_layout
from tests.stores import NOW, PROJECT, user_rows, user_view

LAYOUT = RowLayout.of([Column("orders", "INT64")])


def users(store: FeatureStore, ids: list[int], *features: str) -> dict[str, list[Any]]:
    answer: dict[str, list[Any]] = store.get_online_features(list(features), {"user_id": ids}).to_dict()
    return answer


def store_row(store: FeatureStore, user: int, event_us: int) -> None:
    """Puts a row into Redis that no push would be allowed to write, as a materialization of an odd source does."""
    online = store._get_provider().online_store
    session, knowledge = online.session(store.config), online.knowledge(PROJECT)
    tag = session.hold(register_layout(knowledge, LAYOUT))
    key = entity_key_encoder(PROJECT, [Column("user_id", "INT64")]).encode((user,))
    body = LAYOUT.encoder()((7,))
    row = encode_row(tag, RowTimes(event_us), body, is_pushed=False)
    session.client.hset(key, row_field("users", 1), row)


@pytest.mark.parametrize("event_us", [LATEST_US + 1, 2**62])
def test_a_row_with_a_time_that_cannot_be_said_is_answered_without_it(store: FeatureStore, event_us: int) -> None:
    store_row(store, 50, event_us)
    response = store.get_online_features(["users:orders"], {"user_id": [1, 50]})
    assert response.to_dict()["orders"] == [10, 7]
    first, second = response.proto.results[1].event_timestamps
    assert first.seconds > 0
    assert second.seconds == 0


def test_a_row_older_than_the_year_1_is_too_old_and_told_without_a_time(store: FeatureStore) -> None:
    store_row(store, 50, EARLIEST_US - 1)
    assert users(store, [1, 50], "users:orders")["orders"] == [10, None]


def test_the_last_instant_that_can_be_said_is_said(store: FeatureStore) -> None:
    store_row(store, 50, LATEST_US)
    response = store.get_online_features(["users:orders"], {"user_id": [50]})
    (stamp,) = response.proto.results[1].event_timestamps
    assert to_us(stamp.ToDatetime(UTC)) == LATEST_US


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_a_pushed_time_that_cannot_be_said_is_refused(store: FeatureStore, repo: Path, at: str) -> None:
    user_rows().astype({"event_timestamp": "datetime64[us, UTC]"}).to_parquet(repo / "data" / "users.parquet")
    with pytest.raises(PushedRowsError, match=r"row 0: column 'event_timestamp'.*years 1 to 9999"):
        store.push("users_push", user_rows(1).astype({"event_timestamp": object}).assign(event_timestamp=[at]))
    rows = user_rows(1).astype({"event_timestamp": object}).assign(event_timestamp=[datetime.fromisoformat(at)])
    with pytest.raises(PushedRowsError, match="years 1 to 9999"):
        store.push("users_push", rows)


def test_the_first_instant_that_can_be_said_is_pushed_and_too_old(store: FeatureStore, repo: Path) -> None:
    user_rows().astype({"event_timestamp": "datetime64[us, UTC]"}).to_parquet(repo / "data" / "users.parquet")
    rows = user_rows(6).tail(1).astype({"event_timestamp": object}).assign(event_timestamp=["0001-01-01T00:00:00Z"])
    store.push("users_push", rows)
    response = store.get_online_features(["users:orders"], {"user_id": [6]})
    assert to_us(response.proto.results[1].event_timestamps[0].ToDatetime(UTC)) == EARLIEST_US


def test_keys_of_more_than_one_round_trip_come_in_their_order(store: FeatureStore) -> None:
    count = 2 * LOOKUP_BATCH_KEYS + 1
    store.write_to_online_store("users", user_rows(count, NOW).assign(event_timestamp=[NOW] * count))
    ids = list(range(count, 0, -1))
    assert users(store, ids, "users:orders")["orders"] == [user * 10 for user in ids]


def test_keys_times_features_are_bounded(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "LOOKUP_VALUES_MAX", 6)
    features = ["users:orders", "users:spent"]
    for users in ([], [1, 2, 3]):
        answer = store.get_online_features(features, {"user_id": users}).to_dict()
        assert answer["orders"] == [user * 10 for user in users]
    with pytest.raises(TooLarge, match=r"4 entity rows x 2 features is more than 6 values; split"):
        store.get_online_features(features, {"user_id": [1, 2, 3, 4]})


def test_the_bytes_of_an_answer_are_bounded_and_small_features_of_large_rows_are_answered(store: FeatureStore) -> None:
    largest = "x" * PUSH_VALUE_BYTES_MAX
    fitting = LOOKUP_STORED_BYTES_MAX // (PUSH_VALUE_BYTES_MAX + 100)
    store.push("users_push", user_rows(1, NOW).assign(name=[largest]))
    assert users(store, [1] * fitting, "users:name")["name"] == [largest] * fitting
    with pytest.raises(TooLarge, match=f"{LOOKUP_STORED_BYTES_MAX} bytes"):
        users(store, [1] * (fitting + 2), "users:name")
    assert users(store, [1] * LOOKUP_KEYS_MAX, "users:orders")["orders"] == [10] * LOOKUP_KEYS_MAX


def test_the_bytes_that_are_read_are_bounded(store: FeatureStore) -> None:
    count = LOOKUP_STORED_BYTES_MAX // PUSH_VALUE_BYTES_MAX + 1
    store.push("users_push", user_rows(count, NOW).assign(name=["x" * PUSH_VALUE_BYTES_MAX] * count))
    with pytest.raises(TooLarge, match="fewer keys"):
        users(store, list(range(1, count + 1)), "users:orders")


def test_request_data_keep_their_types_within_lists_and_instants_within_the_calendar(store: FeatureStore) -> None:
    asked = RequestSource(
        name="asked", schema=[Field(name="sizes", dtype=Array(Int64)), Field(name="at", dtype=UnixTimestamp)]
    )

    @on_demand_feature_view(sources=[asked], schema=[Field(name="total", dtype=Int64)], mode="python")
    def totals(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"total": [sum(sizes) for sizes in inputs["sizes"]]}

    store.apply([totals])

    def total(sizes: Any, at: Any = 0) -> Any:
        return store.get_online_features(["totals:total"], {"sizes": [sizes], "at": [at]}).to_dict()["total"]

    assert total([1, 2]) == [3]
    for sizes in ([1.9], [1, None], [True], 1, "12"):
        with pytest.raises(WrongType, match="'sizes', row 0"):
            total(sizes)
    for at in (2**62, -(2**62), LATEST_US // 1_000_000 + 1):
        with pytest.raises(WrongType, match="'at', row 0"):
            total([1], at)


def test_a_stored_instant_that_python_cannot_hold_is_named_where_a_function_needs_it(store: FeatureStore) -> None:
    schema = [Field(name="user_id", dtype=Int64), Field(name="seen", dtype=UnixTimestamp)]
    view = user_view(name="visits", schema=schema)

    @on_demand_feature_view(sources=[view], schema=[Field(name="year", dtype=Int64)], mode="python")
    def years(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"year": [seen.year for seen in inputs["seen"]]}

    store.apply([view, years])
    rows = pd.DataFrame({"user_id": [1], "event_timestamp": [NOW], "seen": [NOW]})
    store.write_to_online_store("visits", rows.assign(created=[NOW]))
    assert store.get_online_features(["years:year"], {"user_id": [1]}).to_dict()["year"] == [NOW.year]
    online = store._get_provider().online_store
    key = entity_key_encoder(PROJECT, [Column("user_id", "INT64")]).encode((1,))
    client = online.session(store.config).client
    row = client.hget(key, row_field("visits", 1))
    client.hset(key, row_field("visits", 1), row[:-8] + (2**40).to_bytes(8, "little"))
    with pytest.raises(StoredRowError, match="'seen'"):
        store.get_online_features(["years:year"], {"user_id": [1]})
