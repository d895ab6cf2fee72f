"""What is served and what training would see for one key, side by side, each with its reason."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast.data_source import PushMode
from typer.testing import CliRunner

from cli.explain import as_json
from cli.main import app
from store.clock import to_us
from store.errors import InputError, LarderError, MissingJoinKey, UnknownObject, WrongType
from store.explain import Explanation, explain
from store.feature_store import FeatureStore
from store.kernel.reasons import Reason
from tests.redis_servers import RedisServer
from tests.stores import NOW, make_store, objects, user_rows, user_view, yaml_of

DAY = timedelta(days=1)


@pytest.fixture
def store(repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    return make_store(repo, server.url)


def at(moment: datetime) -> int:
    return to_us(moment)


def one(store: FeatureStore, key: str = "user_id=1", moment: datetime | None = None) -> Explanation:
    store.registry.refresh()
    return explain(store, "users", key, None if moment is None else at(moment))


def differing(explanation: Explanation) -> dict[str, Reason | None]:
    return {feature.column.name: feature.reason for feature in explanation.features if not feature.agrees}


def write_source(repo: Path, rows: pd.DataFrame) -> None:
    rows.to_parquet(repo / "data" / "users.parquet")


def one_user(moment: datetime, orders: int, created: datetime | None = None) -> pd.DataFrame:
    rows = user_rows(1, moment + timedelta(minutes=1))
    rows["event_timestamp"] = [moment]
    rows["created"] = [created or moment]
    rows["orders"] = pd.array([orders], dtype="Int64")
    return rows


def test_a_materialized_row_is_the_one_that_training_sees(store: FeatureStore) -> None:
    store.materialize(NOW - DAY, NOW)
    explanation = one(store)
    assert (explanation.reason, explanation.agrees, differing(explanation)) == (Reason.SAME_ROW, True, {})
    told = as_json(explanation)
    event = (NOW - timedelta(hours=1, minutes=1)).isoformat()
    assert told["online_row"]["event_time"] == told["training_row"]["event_time"] == event
    assert told["online_row"]["created_time"] == told["training_row"]["created_time"]
    assert told["online_row"]["created_time"] == (NOW - timedelta(hours=1)).isoformat()
    assert not told["online_row"]["came_by_push"]
    assert told["online_row"]["layout"] == {
        "orders": "INT64",
        "spent": "DOUBLE",
        "name": "STRING",
        "last": "DOUBLE_LIST",
    }
    assert (told["ttl_seconds"], told["generation"], told["generation_being_built"]) == (86_400, 1, None)
    assert 3_660 <= told["online_row"]["age_seconds"] < 3_720
    [orders] = [feature for feature in told["features"] if feature["name"] == "orders"]
    assert orders == {
        "name": "orders", "type": "INT64", "status": "PRESENT", "online": 10, "training": 10, "agrees": True,
        "reason": None,
    }  # fmt: skip


def test_it_says_what_a_lookup_says(store: FeatureStore) -> None:
    store.materialize(NOW - DAY, NOW)
    for user in (1, 2, 9):
        features = ["spent", "orders", "name", "last"]
        answer = store.get_online_features([f"users:{f}" for f in features], {"user_id": [user]})
        values = answer.to_dict()
        explained = {feature.column.name: feature.online for feature in one(store, f"user_id={user}").features}
        assert explained == {name: values[name][0] for name in features}


def test_a_null_on_both_sides_agrees(store: FeatureStore) -> None:
    store.materialize(NOW - DAY, NOW)
    [name] = [f for f in one(store, "user_id=2").features if f.column.name == "name"]
    assert (name.status, name.training, name.agrees) == ("NULL_VALUE", None, True)


def test_an_unknown_key_has_no_row_on_either_side(store: FeatureStore) -> None:
    store.materialize(NOW - DAY, NOW)
    explanation = one(store, "user_id=99")
    assert (explanation.reason, explanation.agrees) == (Reason.NO_ROW, True)
    assert {feature.status for feature in explanation.features} == {"NOT_FOUND"}


def test_a_row_that_no_run_has_read_is_not_materialized_yet(store: FeatureStore) -> None:
    explanation = one(store)
    assert explanation.inspection.stored is None
    assert set(differing(explanation).values()) == {Reason.NOT_MATERIALIZED}
    store.materialize(NOW - DAY, NOW - timedelta(hours=1, minutes=1))
    assert one(store).reason is Reason.NOT_MATERIALIZED, "the end of a run is not covered by it"


def test_a_row_that_came_after_its_time_was_materialized_is_late(store: FeatureStore, repo: Path) -> None:
    store.materialize(NOW - DAY, NOW)
    write_source(repo, one_user(NOW - timedelta(minutes=30), 11))
    assert differing(one(store)) == {"orders": Reason.LATE}
    assert one(store).reason is Reason.LATE


def test_a_later_version_of_the_row_is_a_correction(store: FeatureStore, repo: Path) -> None:
    store.materialize(NOW - DAY, NOW)
    event = NOW - timedelta(hours=1, minutes=1)
    write_source(repo, one_user(event, 11, created=NOW - timedelta(minutes=5)))
    assert differing(one(store)) == {"orders": Reason.CORRECTED}


def test_a_row_past_its_ttl_is_withheld_on_both_sides(store: FeatureStore) -> None:
    store.materialize(NOW - DAY, NOW)
    explanation = one(store, moment=NOW + DAY)
    assert (explanation.reason, explanation.agrees) == (Reason.EXPIRED, True)
    assert {feature.status for feature in explanation.features} == {"OUTSIDE_MAX_AGE"}
    assert one(store, moment=NOW + DAY - timedelta(hours=1, minutes=1)).reason is Reason.SAME_ROW


def test_a_row_pushed_online_only_is_nothing_that_training_sees(store: FeatureStore) -> None:
    store.materialize(NOW - DAY, NOW)
    store.push("users_push", one_user(NOW, 77))
    explanation = one(store, moment=NOW + timedelta(seconds=1))
    assert differing(explanation) == {"orders": Reason.ONLINE_ONLY}
    assert explanation.inspection.stored is not None
    assert explanation.inspection.stored.header.is_pushed
    store.push("users_push", one_user(NOW + timedelta(seconds=2), 78), to=PushMode.ONLINE_AND_OFFLINE)
    assert one(store, moment=NOW + timedelta(seconds=3)).reason is Reason.SAME_ROW


def test_a_row_of_the_future_is_served_and_not_trained_on(store: FeatureStore) -> None:
    store.materialize(NOW - DAY, NOW)
    explanation = one(store, moment=NOW - timedelta(hours=2))
    assert explanation.reason is Reason.FUTURE
    assert set(differing(explanation).values()) == {Reason.FUTURE}


def test_rows_of_an_older_definition_are_told(store: FeatureStore) -> None:
    fields = user_view().schema
    store.apply(objects(user_view(schema=[field for field in fields if field.name != "last"])))
    store.materialize(NOW - DAY, NOW)
    store.apply(objects(user_view(schema=fields)))
    explanation = one(store)
    assert explanation.reason is Reason.SAME_ROW
    assert differing(explanation) == {"last": Reason.OLDER_DEFINITION}


def test_a_source_that_was_written_anew_is_told(store: FeatureStore, repo: Path) -> None:
    store.materialize(NOW - DAY, NOW)
    rows = user_rows()
    rows["spent"] = 0.0
    write_source(repo, rows)
    assert differing(one(store)) == {"spent": Reason.SOURCE_REWRITTEN}
    write_source(repo, user_rows(5).tail(1))
    assert one(store).reason is Reason.SOURCE_REWRITTEN


def test_nanoseconds_decide_and_are_shown(store: FeatureStore, repo: Path) -> None:
    rows = one_user(NOW - timedelta(minutes=30), 1)
    rows["event_timestamp"] = pd.to_datetime([rows["event_timestamp"][0].value + 123_456_789], utc=True, unit="ns")
    write_source(repo, rows)
    store.materialize(NOW - DAY, NOW)
    told = as_json(one(store))
    assert told["reason"] == Reason.SAME_ROW
    assert told["online_row"]["event_time"] == "2026-03-01T11:30:00.123456789+00:00"


@pytest.mark.parametrize(
    ("view", "key", "error", "said"),
    [
        ("nothing", "user_id=1", UnknownObject, "'nothing'"),
        ("basket_share", "user_id=1", InputError, "'users'"),
        ("users", "user=1", UnknownObject, "'user'"),
        ("users", "", MissingJoinKey, "'user_id'"),
        ("users", "user_id=one", WrongType, "'one'"),
        ("users", "user_id=1,city=Rome", UnknownObject, "'city'"),
    ],
)
def test_a_wrong_question_is_refused_by_name(
    store: FeatureStore, view: str, key: str, error: type[LarderError], said: str
) -> None:
    with pytest.raises(error, match=said):
        explain(store, view, key)


def command(repo: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["explain", *arguments, "--repo", str(repo)])


def test_the_command_answers_people_and_machines(store: FeatureStore, repo: Path, server: RedisServer) -> None:
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    store.materialize(NOW - DAY, NOW)
    store.push("users_push", one_user(NOW, 77))
    moment = (NOW + timedelta(seconds=1)).isoformat()
    done = command(repo, "users", "user_id=1", "--at", moment)
    assert done.exit_code == 0, done.output
    assert "pushed online only: the online row was pushed" in done.stdout
    assert "orders   77" in done.stdout
    assert f"event {NOW.isoformat()}" in done.stdout
    assert "ttl 1 day, 0:00:00, pushed" in done.stdout
    told = json.loads(command(repo, "users", "user_id=1", "--at", moment, "--json").stdout)
    assert (told["at"], told["agrees"], told["reason"]) == (moment, False, "pushed online only")
    for wrong in ("yesterday", "2026-03-01T12:00:00.0000001Z", "9999-99-99"):
        assert isinstance(command(repo, "users", "user_id=1", "--at", wrong).exception, InputError)
    assert "no row on either side" in command(repo, "users", "user_id=99").stdout


def test_times_are_utc_where_none_is_said(store: FeatureStore, repo: Path, server: RedisServer) -> None:
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    told = json.loads(command(repo, "users", "user_id=1", "--at", "2026-03-01T12:00", "--json").stdout)
    assert told["at"] == datetime(2026, 3, 1, 12, tzinfo=UTC).isoformat()
