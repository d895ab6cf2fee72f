"""Skew that is planted is found, each with its cause; where there is none, none is found."""

from datetime import timedelta

from feast import FileSource, PushSource
from feast.data_source import PushMode

from store.kernel.codec import decode_header
from tests.audit.logged_shop import (
    DAY,
    LoggedShop,
    added,
    causes_of,
    different,
    features_of,
    lost_of,
    one_user,
)
from tests.stores import NOW, user_rows, user_view

ALL = {"users:spent", "users:orders", "users:name", "users:last", "basket_share:share"}


def test_what_was_served_as_trained_is_clean(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1, 2, 3], [4, 99, 1])
    told = shop.audit()
    assert told["is_clean"] is True
    assert set(features_of(told)) == ALL
    for feature in features_of(told).values():
        assert (feature["audited"], feature["reproduction"]["equal"], feature["skew"]["equal"]) == (6, 6, 6)
    assert told["differences"] == []
    coverage = told["services"][0]["coverage"]
    assert coverage == {
        "served": 6, "logged": 6, "sampled_out": 0, "dropped": 0, "audited": 6, "workers_without_last_file": 0,
        "missing_files": 0,
    }  # fmt: skip


def test_rows_past_their_ttl_and_null_keys_are_clean(shop: LoggedShop) -> None:
    shop.materialize()
    shop.set_clock(NOW + DAY)
    answers = shop.serve([1, None, 2])
    assert answers[0]["results"][1]["statuses"] == ["OUTSIDE_MAX_AGE", "NOT_FOUND", "OUTSIDE_MAX_AGE"]
    told = shop.audit()
    assert (told["is_clean"], causes_of(told), lost_of(told)) == (True, {}, {})


def test_a_value_changed_in_redis_fails_the_reproduction(shop: LoggedShop) -> None:
    shop.materialize()
    key, field, row = shop.row_of(3)
    place = row.index((30).to_bytes(8, "little"), decode_header(row).body_start)
    shop.server.client().hset(key, field, row[:place] + (31).to_bytes(8, "little") + row[place + 8 :])
    shop.serve([1, 3])
    told = shop.audit()
    assert told["is_clean"] is False
    assert different(told) == {"users:orders": 1}
    assert causes_of(told) == {"users:orders": {"None": 1}}
    difference = told["differences"][0]
    assert (difference["key"], difference["served"], difference["training"]) == ({"user_id": 3}, 31, 30)
    assert shop.command().exit_code == 1


def test_a_row_dropped_from_redis_has_no_cause(shop: LoggedShop) -> None:
    shop.materialize()
    key, _, _ = shop.row_of(3)
    shop.server.client().delete(key)
    shop.serve([1, 3])
    told = shop.audit()
    assert (told["is_clean"], different(told)) == (False, {})
    assert causes_of(told)["users:orders"] == {"None": 1}
    assert causes_of(told)["basket_share:share"] == {"None": 1}, "as its inputs do"


def test_a_row_dropped_from_the_source_was_rewritten(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1, 3])
    shop.write_source(user_rows(2))
    told = shop.audit()
    assert told["is_clean"] is True
    assert lost_of(told)["users:orders"] == {"source rewritten": 1}
    assert causes_of(told)["users:orders"] == {"source rewritten": 1}


def test_a_source_rewritten_with_other_values_is_told(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1, 3])
    rows = user_rows()
    rows["spent"] = 1.0
    shop.write_source(rows)
    told = shop.audit()
    assert (told["is_clean"], lost_of(told)) == (True, {"users:spent": {"source rewritten": 2}})
    assert causes_of(told) == {
        "users:spent": {"source rewritten": 2},
        "basket_share:share": {"source rewritten": 2},
    }


def test_a_changed_definition_is_told(shop: LoggedShop) -> None:
    fields = user_view().schema
    shop.define(user_view(schema=[field for field in fields if field.name != "last"]))
    shop.materialize()
    shop.define(user_view())
    shop.serve([1, 3])
    told = shop.audit()
    assert (told["is_clean"], lost_of(told)) == (True, {"users:last": {"older definition": 2}})
    assert causes_of(told) == {"users:last": {"older definition": 2}}


def test_a_definition_changed_since_is_told(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1, 3])
    rows = user_rows()
    rows["orders"] += 1
    rows.to_parquet(shop.repo / "data" / "other.parquet")
    source = FileSource(
        path="data/other.parquet", timestamp_field="event_timestamp", created_timestamp_column="created"
    )
    shop.define(user_view(source=PushSource(name="users_push", batch_source=source)))
    told = shop.audit()
    assert (told["is_clean"], lost_of(told)) == (True, {"users:orders": {"older definition": 2}})
    assert causes_of(told) == {"users:orders": {"older definition": 2}}


def test_a_row_that_no_run_had_read_is_not_materialized(shop: LoggedShop) -> None:
    shop.materialize(end=NOW - timedelta(hours=1, minutes=2, seconds=30))
    shop.serve([1, 3])
    told = shop.audit()
    assert (told["is_clean"], lost_of(told)) == (True, {})
    assert causes_of(told) == {key: {"not materialized": 1} for key in ALL}
    assert [each["key"] for each in told["differences"]] == [{"user_id": 1}] * len(ALL)


def test_a_row_that_came_after_the_request_is_late(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1, 3])
    shop.write_source(added(user_rows(), one_user(3, NOW - timedelta(minutes=30), 77, NOW + timedelta(hours=1))))
    told = shop.audit()
    assert (told["is_clean"], lost_of(told)) == (True, {})
    assert causes_of(told) == {"users:orders": {"late": 1}}


def test_a_row_that_came_after_its_time_was_materialized_is_late(shop: LoggedShop) -> None:
    shop.materialize()
    shop.write_source(added(user_rows(), one_user(3, NOW - timedelta(minutes=30), 77)))
    shop.serve([1, 3])
    assert causes_of(shop.audit()) == {"users:orders": {"late": 1}}


def test_a_later_version_of_the_row_is_a_correction(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1, 3])
    moment = NOW - timedelta(hours=1, minutes=3)
    shop.write_source(added(user_rows(), one_user(3, moment, 77, NOW + timedelta(hours=1))))
    told = shop.audit()
    assert (told["is_clean"], lost_of(told)) == (True, {})
    assert causes_of(told) == {"users:orders": {"corrected": 1}}


def test_a_correction_with_the_same_times_is_one_too(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([3])
    row = one_user(3, NOW - timedelta(hours=1, minutes=3), 77, NOW - timedelta(hours=1))
    shop.push(row, PushMode.OFFLINE)
    told = shop.audit()
    assert (told["is_clean"], different(told), lost_of(told)) == (True, {}, {})
    assert causes_of(told) == {"users:orders": {"corrected": 1}}


def test_a_row_pushed_online_only_is_told(shop: LoggedShop) -> None:
    shop.materialize()
    shop.push(one_user(3, NOW, 77))
    shop.serve([1, 3])
    told = shop.audit()
    assert told["is_clean"] is True
    assert lost_of(told) == {f"users:{name}": {"online only": 1} for name in ("spent", "orders", "name", "last")}
    assert causes_of(told) == {"users:orders": {"online only": 1}}, "the other values are the same"


def test_a_row_pushed_to_both_sides_is_clean(shop: LoggedShop) -> None:
    shop.materialize()
    shop.push(one_user(3, NOW, 77), PushMode.ONLINE_AND_OFFLINE)
    shop.serve([1, 3])
    told = shop.audit()
    assert (told["is_clean"], causes_of(told), lost_of(told)) == (True, {}, {})


def test_a_shifted_clock_serves_rows_of_the_future(shop: LoggedShop) -> None:
    shop.materialize()
    shop.set_clock(NOW - timedelta(hours=2))
    shop.serve([1, 3])
    told = shop.audit()
    assert (told["is_clean"], lost_of(told)) == (True, {})
    assert causes_of(told) == {key: {"future": 2} for key in ALL}


def test_an_erased_key_is_told(shop: LoggedShop) -> None:
    shop.materialize()
    shop.push(one_user(9, NOW, 77), PushMode.ONLINE_AND_OFFLINE)
    shop.serve([1, 9])
    assert shop.audit()["is_clean"]
    from store.erasure import Eraser

    assert Eraser(shop.store, "user_id=9").erase().is_proven
    told = shop.audit()
    assert told["is_clean"] is True
    assert lost_of(told)["users:orders"] == {"erased": 1}
    assert causes_of(told)["users:orders"] == {"erased": 1}


def test_a_ttl_that_was_another_is_told(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1, 3])
    shop.define(user_view(ttl=timedelta(minutes=30)))
    told = shop.audit()
    assert (told["is_clean"], lost_of(told)) == (True, {})
    assert causes_of(told) == {key: {"expired": 2} for key in ALL}
