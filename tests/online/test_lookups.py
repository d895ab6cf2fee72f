"""Lookups through Feast's own SDK while definitions change, its errors and its other calls.

What a lookup answers is told by `tests/server/test_four_ways.py`, for the SDK as for the other ways.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureService, Field
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.types import Int64

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


def test_entity_rows_may_be_a_list_of_rows(look: Look) -> None:
    assert look(["users:orders"], [{"user_id": 1}, {"user_id": 3}])["orders"] == [(10, "PRESENT"), (30, "PRESENT")]


def test_an_empty_list_gets_an_empty_answer(look: Look) -> None:
    assert look(["users:orders"], {"user_id": []}) == {"user_id": [], "orders": []}
    assert look(["users:orders"], []) == {"user_id": [], "orders": []}


def test_a_service_whose_view_lost_a_feature_is_named(store: FeatureStore) -> None:
    store.apply([user_view(schema=[field for field in user_view().schema if field.name != "name"])])
    with pytest.raises(UnknownObject, match="'checkout' asks feature view 'users'"):
        store.get_online_features(store.get_feature_service("checkout"), {"user_id": [1], "amount": [1.0]})


def test_a_feature_added_later_is_not_found_in_older_rows(look: Look, store: FeatureStore) -> None:
    schema = [*user_view().schema, Field(name="visits", dtype=Int64)]
    store.apply([user_view(schema=[field for field in schema if field.name != "name"])])
    answer = look(["users:visits", "users:orders"], {"user_id": [1]})
    assert answer["visits"] == [(None, "NOT_FOUND")]
    assert answer["orders"] == [(10, "PRESENT")]


def test_a_changed_ttl_takes_effect(look: Look, store: FeatureStore) -> None:
    assert look(["users:orders"], {"user_id": [1, 5]})["orders"] == [(10, "PRESENT"), (50, "PRESENT")]
    store.apply([user_view(ttl=timedelta(minutes=63))])
    assert look(["users:orders"], {"user_id": [1, 5]})["orders"] == [(10, "PRESENT"), (None, "OUTSIDE_MAX_AGE")]


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
