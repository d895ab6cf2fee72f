"""`larder explain` for views of every shape: composite keys, none at all, mapped columns, computed on writing."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import Entity, FeatureView, Field, FileSource, PushSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String
from typer.testing import CliRunner

from cli.explain import as_json
from cli.main import app
from store.errors import MissingJoinKey
from store.explain import explain
from store.feature_store import FeatureStore
from store.kernel.reasons import Reason
from tests.redis_servers import RedisServer
from tests.stores import NOW, USER, make_store, yaml_of

DAY = timedelta(days=1)
EVENT = NOW - timedelta(hours=2)


@pytest.fixture
def store(repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    return make_store(repo, server.url)


def source(name: str, rows: pd.DataFrame, repo: Path, **options: Any) -> FileSource:
    rows.to_parquet(repo / "data" / f"{name}.parquet")
    return FileSource(name=f"{name}_file", path=f"data/{name}.parquet", **options)


def told(store: FeatureStore, view: str, key: str) -> dict[str, Any]:
    return as_json(explain(store, view, key))


def on_command_line(repo: Path, *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["explain", *arguments, "--repo", str(repo), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_composite_key_is_one_key_in_any_order_and_quoted_where_a_part_has_a_comma(
    store: FeatureStore, repo: Path
) -> None:
    rows = pd.DataFrame({"city": ["Rome", "Rome, NY"], "shop": [1, 1], "sold": [5, 7], "event_timestamp": [EVENT] * 2})
    city, shop = (
        Entity(name=name, join_keys=[name], value_type=kind)
        for name, kind in (("city", ValueType.STRING), ("shop", ValueType.INT64))
    )
    sales = FeatureView(
        name="sales",
        entities=[city, shop],
        schema=[Field(name="city", dtype=String), Field(name="shop", dtype=Int64), Field(name="sold", dtype=Int64)],
        source=source("sales", rows, repo, timestamp_field="event_timestamp"),
    )
    store.apply([city, shop, sales])
    store.materialize(NOW - DAY, NOW)
    for key, sold in (("city=Rome,shop=1", 5), ("shop=1,city=Rome", 5), ('shop=1,"city=Rome, NY"', 7)):
        answer = told(store, "sales", key)
        [feature] = answer["features"]
        assert (feature["online"], feature["training"], answer["reason"]) == (sold, sold, Reason.SAME_ROW)
    assert told(store, "sales", "city=Rome,shop=2")["reason"] == Reason.NO_ROW
    with pytest.raises(MissingJoinKey, match="'shop' is missing"):
        told(store, "sales", "city=Rome")
    assert on_command_line(repo, "sales", 'shop=1,"city=Rome, NY"')["key"] == {"city": "Rome, NY", "shop": 1}


def test_a_view_without_entities_is_explained_by_an_empty_key(store: FeatureStore, repo: Path) -> None:
    rows = pd.DataFrame({"rate": [1.25], "event_timestamp": [EVENT]})
    rates = FeatureView(
        name="rates",
        entities=[],
        schema=[Field(name="rate", dtype=Float64)],
        source=source("rates", rows, repo, timestamp_field="event_timestamp"),
    )
    store.apply([rates])
    assert told(store, "rates", "")["reason"] == Reason.NOT_MATERIALIZED
    store.materialize(NOW - DAY, NOW)
    answer = on_command_line(repo, "rates", "")
    assert (answer["key"], answer["reason"], answer["agrees"]) == ({}, Reason.SAME_ROW, True)
    assert answer["features"][0]["training"] == answer["features"][0]["online"] == 1.25


def test_columns_that_have_other_names_in_the_file_are_found(store: FeatureStore, repo: Path) -> None:
    """The times too: they are asked for as columns of the training set."""
    rows = pd.DataFrame({"who": [1], "n": [5], "at": [EVENT], "known": [EVENT + timedelta(minutes=1)]})
    mapping = {"who": "member", "n": "visits", "at": "event_timestamp", "known": "created"}
    times = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created"}
    member = Entity(name="member", join_keys=["member"], value_type=ValueType.INT64)
    members = FeatureView(
        name="members",
        entities=[member],
        schema=[Field(name="member", dtype=Int64), Field(name="visits", dtype=Int64)],
        source=PushSource(
            name="members_push", batch_source=source("members", rows, repo, field_mapping=mapping, **times)
        ),
    )
    store.apply([member, members])
    store.materialize(NOW - DAY, NOW)
    answer = told(store, "members", "member=1")
    assert answer["reason"] == Reason.SAME_ROW
    expected = {"event_time": EVENT.isoformat(), "created_time": (EVENT + timedelta(minutes=1)).isoformat()}
    assert answer["training_row"] == expected
    assert {name: answer["online_row"][name] for name in expected} == expected
    later = rows.assign(n=[6], known=[EVENT + timedelta(hours=1)])
    later.to_parquet(repo / "data" / "members.parquet")
    [visits] = told(store, "members", "member=1")["features"]
    assert (visits["online"], visits["training"], visits["reason"]) == (5, 6, Reason.CORRECTED)


def test_a_view_computed_on_writing_has_rows_that_training_never_sees(repo: Path, server: RedisServer) -> None:
    # Feast stamps such rows by the system's clock, so it is the repo's here.
    server.client().flushall()
    store = make_store(repo, server.url)

    @on_demand_feature_view(
        entities=[USER],
        sources=[store.get_feature_view("users")],
        schema=[Field(name="user_id", dtype=Int64), Field(name="doubled", dtype=Float64)],
        mode="python",
        write_to_online_store=True,
    )
    def doubling(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"doubled": [None if spent is None else 2 * spent for spent in inputs["spent"]]}

    store.apply([doubling])
    store.write_to_online_store("doubling", pd.DataFrame({"user_id": [1], "spent": [1.5], "event_timestamp": [EVENT]}))
    answer = told(store, "doubling", "user_id=1")
    assert (answer["reason"], answer["training_row"]) == (Reason.ONLINE_ONLY, None)
    values = {feature["name"]: (feature["online"], feature["training"]) for feature in answer["features"]}
    assert values["doubled"] == (3.0, None)
