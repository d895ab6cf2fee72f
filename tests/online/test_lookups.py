"""What a lookup answers, through Feast's own SDK, synchronous and asynchronous alike."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.types import Float64, Int64, String

from store.errors import EntityRowsError, InputError, MissingJoinKey, TooLarge, UnequalLengths, UnknownObject, WrongType
from store.feature_store import FeatureStore
from store.kernel.keys import row_field
from store.limits import LOOKUP_FEATURES_MAX, LOOKUP_KEYS_MAX
from tests.redis_servers import RedisServer
from tests.stores import NOW, USER, make_store, user_rows, user_view

Answer = dict[str, list[tuple[Any, str]]]
Look = Callable[..., Answer]


@pytest.fixture(params=["sync", "async"])
def look(request: pytest.FixtureRequest, store: FeatureStore) -> Look:
    """Looks up and returns (value, status) by feature name."""

    def by_sync(features: Any, entities: Any, **options: Any) -> Answer:
        return readable(store.get_online_features(features, entities, **options))

    def by_async(features: Any, entities: Any, **options: Any) -> Answer:
        async def ask() -> Any:
            try:
                return await store.get_online_features_async(features, entities, **options)
            finally:
                await store.close()

        return readable(asyncio.run(ask()))

    return by_sync if request.param == "sync" else by_async


def readable(response: Any) -> Answer:
    values = response.to_dict()
    statuses = {
        name: [FieldStatus.Name(code) for code in vector.statuses]
        for name, vector in zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True)
    }
    return {name: list(zip(values[name], statuses[name], strict=True)) for name in values}


def test_values_and_statuses_come_in_the_order_asked(look: Look) -> None:
    answer = look(["users:name", "users:orders", "users:last"], {"user_id": [2, 1, 99, 1, None]})
    assert list(answer) == ["user_id", "name", "orders", "last"]
    user_1 = ("user 1", "PRESENT")
    assert answer["name"] == [(None, "NULL_VALUE"), user_1, (None, "NOT_FOUND"), user_1, (None, "NOT_FOUND")]
    assert answer["orders"][:3] == [(20, "PRESENT"), (10, "PRESENT"), (None, "NOT_FOUND")]
    assert answer["last"][0] == ([2.0, 2.0], "PRESENT")
    assert answer["user_id"][4] == (None, "NULL_VALUE")


def test_entity_rows_may_be_a_list_of_rows(look: Look) -> None:
    assert look(["users:orders"], [{"user_id": 1}, {"user_id": 3}])["orders"] == [(10, "PRESENT"), (30, "PRESENT")]


def test_an_empty_list_gets_an_empty_answer(look: Look) -> None:
    assert look(["users:orders"], {"user_id": []}) == {"user_id": [], "orders": []}
    assert look(["users:orders"], []) == {"user_id": [], "orders": []}


def test_a_row_past_its_ttl_is_withheld(look: Look, store: FeatureStore) -> None:
    store.apply([user_view(ttl=timedelta(minutes=63))])
    answer = look(["users:orders"], {"user_id": [1, 5]})
    assert answer["orders"] == [(10, "PRESENT"), (None, "OUTSIDE_MAX_AGE")]


def test_event_timestamps_are_the_rows_own(store: FeatureStore) -> None:
    response = store.get_online_features(["users:orders"], {"user_id": [1, 99]})
    found, missing = response.proto.results[1].event_timestamps
    assert found.ToDatetime() == (NOW - timedelta(minutes=61)).replace(tzinfo=None)
    assert (missing.seconds, missing.nanos) == (0, 0)


def test_a_service_computes_its_on_demand_view(look: Look, store: FeatureStore) -> None:
    service = store.get_feature_service("checkout")
    answer = look(service, {"user_id": [1, 99], "amount": [3.0, 3.0]})
    assert answer["share"] == [(2.0, "PRESENT"), (None, "NULL_VALUE")]
    assert "amount" not in answer


def test_an_on_demand_view_alone_reads_its_sources_and_does_not_show_them(look: Look) -> None:
    answer = look(["basket_share:share"], {"user_id": [1], "amount": [3.0]})
    assert answer == {"user_id": [(1, "PRESENT")], "share": [(2.0, "PRESENT")]}


def test_a_function_of_one_row_is_run_row_by_row(look: Look, store: FeatureStore) -> None:
    @on_demand_feature_view(
        sources=[store.get_feature_view("users")],
        schema=[Field(name="shout", dtype=String)],
        mode="python",
        singleton=True,
    )
    def shouting(row: dict[str, Any]) -> dict[str, Any]:
        return {"shout": None if row["name"] is None else row["name"].upper()}

    store.apply([shouting])
    answer = look(["shouting:shout"], {"user_id": [1, 2, 3]})
    assert answer["shout"] == [("USER 1", "PRESENT"), (None, "NULL_VALUE"), ("USER 3", "PRESENT")]


def test_a_pandas_function_gets_each_input_once(look: Look, store: FeatureStore) -> None:
    @on_demand_feature_view(
        sources=[store.get_feature_view("users")], schema=[Field(name="twice", dtype=Float64)], mode="pandas"
    )
    def doubled(frame: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"twice": frame["spent"] * 2 + frame["users__spent"] * 0})

    store.apply([doubled])
    assert look(["doubled:twice", "users:spent"], {"user_id": [1, 2]})["twice"] == [(3.0, "PRESENT"), (6.0, "PRESENT")]


def test_a_service_whose_view_lost_a_feature_is_named(store: FeatureStore) -> None:
    store.apply([user_view(schema=[field for field in user_view().schema if field.name != "name"])])
    with pytest.raises(UnknownObject, match="'checkout' asks feature view 'users'"):
        store.get_online_features(store.get_feature_service("checkout"), {"user_id": [1], "amount": [1.0]})


def test_full_feature_names_carry_the_view(look: Look, store: FeatureStore) -> None:
    service = store.get_feature_service("checkout")
    answer = look(service, {"user_id": [1], "amount": [3.0]}, full_feature_names=True)
    assert answer["users__orders"] == [(10, "PRESENT")]
    assert answer["basket_share__share"] == [(2.0, "PRESENT")]


def test_aliases_and_join_key_maps_of_a_service(look: Look, store: FeatureStore) -> None:
    view = store.get_feature_view("users")
    giver = view.with_name("giver").with_join_key_map({"user_id": "giver_id"})[["orders"]]
    taker = view.with_name("taker").with_join_key_map({"user_id": "taker_id"})[["orders"]]
    store.apply([FeatureService(name="gift", features=[giver, taker])])
    answer = look(store.get_feature_service("gift"), {"giver_id": [1], "taker_id": [3]}, full_feature_names=True)
    assert answer["giver__orders"] == [(10, "PRESENT")]
    assert answer["taker__orders"] == [(30, "PRESENT")]


def test_a_composite_key_finds_its_row_and_no_other(look: Look, store: FeatureStore, repo: Path) -> None:
    rows = pd.DataFrame({"a": ["x", "xy"], "b": ["yz", "z"], "event_timestamp": [NOW] * 2, "n": [1, 2]})
    rows.to_parquet(repo / "data" / "pairs.parquet")
    first, second = (Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in "ab")
    view = FeatureView(
        name="pairs",
        entities=[second, first],
        schema=[Field(name="a", dtype=String), Field(name="b", dtype=String), Field(name="n", dtype=Int64)],
        source=FileSource(path="data/pairs.parquet", timestamp_field="event_timestamp"),
    )
    store.apply([first, second, view])
    store.write_to_online_store("pairs", rows)
    answer = look(["pairs:n", "users:orders"], {"b": ["z", "yz", "y"], "a": ["xy", "x", "xz"], "user_id": [1, 1, 2]})
    assert answer["n"] == [(2, "PRESENT"), (1, "PRESENT"), (None, "NOT_FOUND")]
    assert answer["orders"] == [(10, "PRESENT"), (10, "PRESENT"), (20, "PRESENT")]


def test_a_view_without_entities_has_one_row(look: Look, store: FeatureStore, repo: Path) -> None:
    rows = pd.DataFrame({"event_timestamp": [NOW], "rate": [1.25]})
    rows.to_parquet(repo / "data" / "rates.parquet")
    source = FileSource(path="data/rates.parquet", timestamp_field="event_timestamp")
    view = FeatureView(name="rates", entities=[], schema=[Field(name="rate", dtype=Float64)], source=source)
    store.apply([view])
    store.write_to_online_store("rates", rows)
    assert look(["rates:rate"], {})["rate"] == [(1.25, "PRESENT")]
    answer = look(["rates:rate", "users:orders"], {"user_id": [1, 2]})
    assert answer["rate"] == [(1.25, "PRESENT")] * 2


def test_a_feature_added_later_is_not_found_in_older_rows(look: Look, store: FeatureStore) -> None:
    schema = [*user_view().schema, Field(name="visits", dtype=Int64)]
    store.apply([user_view(schema=[field for field in schema if field.name != "name"])])
    answer = look(["users:visits", "users:orders"], {"user_id": [1]})
    assert answer["visits"] == [(None, "NOT_FOUND")]
    assert answer["orders"] == [(10, "PRESENT")]


def test_a_changed_service_takes_effect(look: Look, store: FeatureStore) -> None:
    service = store.get_feature_service("checkout")
    look(service, {"user_id": [1], "amount": [1.0]})
    changed = FeatureService(name="checkout", features=[store.get_feature_view("users")[["orders"]]])
    store.apply([changed])
    assert list(look(changed, {"user_id": [1]})) == ["user_id", "orders"]


@pytest.mark.parametrize(
    ("features", "entities", "error", "words"),
    [
        (["users:nope"], {"user_id": [1]}, UnknownObject, "'users' has no feature 'nope'"),
        (["nope:a"], {"user_id": [1]}, UnknownObject, "'nope' is not registered"),
        (FeatureService(name="nope", features=[]), {"user_id": [1]}, UnknownObject, "'nope' is not registered"),
        (["users"], {"user_id": [1]}, InputError, "'view:feature'"),
        ([], {"user_id": [1]}, InputError, "no features"),
        (["users:name", "users:name"], {"user_id": [1]}, InputError, "ask for it once"),
        (["users:name"], {}, MissingJoinKey, "'user_id' is missing"),
        (["basket_share:share"], {"user_id": [1]}, MissingJoinKey, "'amount'"),
        (["users:name"], {"user_id": [1], "usr": [1]}, EntityRowsError, "'usr'"),
        (["basket_share:share"], {"user_id": [1, 2], "amount": [1.0]}, UnequalLengths, "different lengths"),
        (["users:name"], {"user_id": ["1"]}, WrongType, "'user_id', row 0"),
        (["users:name"], {"user_id": [1, 2**63]}, WrongType, "'user_id'"),
        (["users:name"], {"user_id": [True]}, WrongType, "bool"),
        (["users:name"], {"user_id": 5}, WrongType, "expected a list"),
        (["users:name"], {"user_id": "5"}, WrongType, "expected a list"),
        (["users:name"], [5], WrongType, "entity row 0"),
        ([5], {"user_id": [1]}, InputError, "no text"),
        (["users:name"], {"user_id": [0] * (LOOKUP_KEYS_MAX + 1)}, TooLarge, str(LOOKUP_KEYS_MAX)),
        (["users:name"] * (LOOKUP_FEATURES_MAX + 1), {"user_id": [0]}, TooLarge, str(LOOKUP_FEATURES_MAX)),
    ],
)
def test_a_wrong_request_is_refused_by_name(
    store: FeatureStore, features: Any, entities: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        store.get_online_features(features, entities)


def test_as_many_keys_as_allowed_are_answered(store: FeatureStore) -> None:
    answer = readable(store.get_online_features(["users:orders"], {"user_id": [1] * LOOKUP_KEYS_MAX}))
    assert answer["orders"] == [(10, "PRESENT")] * LOOKUP_KEYS_MAX


def test_a_failing_on_demand_function_is_named(store: FeatureStore) -> None:
    with pytest.raises(InputError, match="'basket_share' failed: TypeError"):
        store.get_online_features(["basket_share:share"], {"user_id": [1], "amount": [None]})


def test_online_read_withholds_an_expired_value(store: FeatureStore) -> None:
    view = store.get_feature_view("users")
    view.ttl = timedelta(minutes=1)
    keys = [row[0] for row in store._get_provider()._prep_rows_to_write_for_ingestion(view, user_rows())]
    [(event, values), *_] = store._get_provider().online_read(store.config, view, keys, ["orders"])
    assert event == NOW - timedelta(minutes=61)
    assert values is not None
    assert values["orders"].WhichOneof("val") is None


def test_removing_a_view_removes_its_rows_and_no_other_projects(store: FeatureStore, server: RedisServer) -> None:
    client = server.client()
    client.hset(b"7:webshop:{7:user_idi1,}", row_field("users", 1), b"theirs")
    before = {key for key in client.keys("*") if key.startswith(b"4:shop:{")}
    assert before
    store.apply([USER], objects_to_delete=[store.get_feature_view("users")], partial=False)
    assert {key for key in client.keys("*") if key.startswith(b"4:shop:{")} == set()
    assert client.hget(b"7:webshop:{7:user_idi1,}", row_field("users", 1)) == b"theirs"


def test_teardown_leaves_nothing_of_the_project_and_all_of_others(store: FeatureStore, server: RedisServer) -> None:
    client = server.client()
    client.set(b"7:webshop:x", b"theirs")
    client.set(b"5:shop2:x", b"theirs")
    store.teardown()
    assert set(client.keys("*")) == {b"7:webshop:x", b"5:shop2:x"}


def test_keys_expire_where_that_is_asked_for(repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    store = make_store(repo, server.url, key_ttl_seconds=1000)
    store.write_to_online_store("users", user_rows())
    assert 900 < server.client().ttl(b"4:shop:{7:user_idi1,}") <= 1000
