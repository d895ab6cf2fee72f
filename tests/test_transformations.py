"""Row-level transformations: training, materialization, pushes and lookups have what one function makes of the rows."""

import gc
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import BatchFeatureView, Field, PushSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.data_source import PushMode
from feast.transformation.base import Transformation
from feast.types import Array, Float64, Int64, Map, String

from store.definitions_from_feast import refuse_unsupported
from store.erasure import Eraser
from store.errors import DefinitionError, PushedRowsError, SourceUnreadable, TransformationError
from store.explain import explain
from store.feature_store import FeatureStore
from store.transformations_from_feast import transformation_text
from tests.engine.helpers import same_repo
from tests.redis_servers import RedisServer
from tests.stores import NOW, USER, make_store, user_source, user_view

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

pytestmark = [
    # Feast says this wherever such a view is made; nobody can act on it.
    pytest.mark.filterwarnings("ignore:Batch feature views are experimental:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Stream feature views are experimental:RuntimeWarning"),
]


def per_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Leaves out rows of few orders, and computes what an order is worth."""
    frame = frame[frame["orders"] >= 20]
    return frame.assign(worth=frame["spent"] / frame["orders"].astype("Float64"), name=frame["name"].str.upper())


def per_order_in_lists(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    kept = [row for row in rows if row["orders"] is not None and row["orders"] >= 20]
    for row in kept:
        row["worth"] = None if row["spent"] is None else row["spent"] / row["orders"]
        row["name"] = row["name"] and row["name"].upper()
    return {name: [row[name] for row in kept] for name in [*columns, "worth"]}


SCHEMA = [Field(name="user_id", dtype=Int64), Field(name="worth", dtype=Float64), Field(name="name", dtype=String)]
FEATURES = ["worth:worth", "worth:name"]


def batch_view(**changes: Any) -> BatchFeatureView:
    arguments: dict[str, Any] = {
        "name": "worth",
        "entities": [USER],
        "online": True,
        "ttl": DAY,
        "schema": SCHEMA,
        "source": user_source(),
        "udf": per_order,
        "udf_string": "",
        "mode": "pandas",
    }
    return BatchFeatureView(**(arguments | changes))


def stream_view(**changes: Any) -> StreamFeatureView:
    arguments: dict[str, Any] = {
        "name": "worth",
        "entities": [USER],
        "ttl": DAY,
        "schema": SCHEMA,
        "source": PushSource(name="worth_push", batch_source=user_source()),
        "udf": per_order,
        "udf_string": "",
        "mode": "pandas",
        "timestamp_field": "event_timestamp",
    }
    return StreamFeatureView(**(arguments | changes))


@pytest.fixture
def store(repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    return make_store(repo, server.url)


def looked_up(store: FeatureStore, users: list[int], features: list[str] = FEATURES) -> list[tuple[Any, ...]]:
    answer = store.get_online_features(features, {"user_id": users}).to_dict()
    return list(zip(*(answer[name.partition(":")[2]] for name in features), strict=True))


def trained(
    store: FeatureStore, users: list[int], features: list[str] = FEATURES, **more: Any
) -> list[tuple[Any, ...]]:
    rows = pa.table({"user_id": users, "event_timestamp": [NOW] * len(users)})
    table = store.get_historical_features(rows, features, **more).to_arrow()
    return list(zip(*(table.column(name.partition(":")[2]).to_pylist() for name in features), strict=True))


EXPECTED = [(None, None), (0.15, None), (0.15, "USER 3"), (0.15, "USER 4")]
"""User 1 has too few orders, and user 2 no name."""


@pytest.mark.parametrize(
    ("function", "mode"), [(per_order, "pandas"), (per_order_in_lists, "python"), (per_order, "python")]
)
@pytest.mark.parametrize("view", [batch_view, stream_view])
def test_training_and_lookups_have_what_the_function_makes(
    store: FeatureStore, view: Any, function: Any, mode: str
) -> None:
    store.apply([view(udf=function, mode=mode)])
    store.materialize(NOW - DAY, NOW)
    assert looked_up(store, [1, 2, 3, 4]) == [pytest.approx(row) for row in EXPECTED]
    assert trained(store, [1, 2, 3, 4]) == [pytest.approx(row) for row in EXPECTED]
    ranged = store.get_historical_features(None, FEATURES, start_date=NOW - DAY, end_date=NOW).to_df()
    assert sorted(ranged["user_id"]) == [2, 3, 4, 5]  # no row of user 1 comes out
    explained = explain(store, "worth", "user_id=3", None)
    assert explained.agrees
    assert explained.training_times is not None


AGGREGATIONS = [
    Aggregation(column="worth", function="sum", time_window=DAY),
    Aggregation(column="worth", function="count", time_window=DAY),
    Aggregation(column="name", function="count_distinct", time_window=15 * DAY),
    Aggregation(column="name", function="last_2", time_window=15 * DAY, name="last_names"),
]
WINDOWS = [
    Field(name="user_id", dtype=Int64),
    Field(name="sum_worth_86400s", dtype=Float64),
    Field(name="count_worth_86400s", dtype=Int64),
    Field(name="count_distinct_name_1296000s", dtype=Int64),
    Field(name="last_names", dtype=Array(String)),
]
WINDOWED = [f"worth:{field.name}" for field in WINDOWS[1:]]


def write_events(repo: Path) -> None:
    end = NOW.replace(hour=0)
    events = [
        (1, end - MINUTE, 30.0, 20, "a"),
        (1, end - 2 * MINUTE, 60.0, 30, "b"),
        (1, end - HOUR, 5.0, 1, "of few orders"),
        (1, end - HOUR, 5.0, None, "of none"),
        (1, end - 10 * DAY, 5.0, 50, "A"),
        (2, end - HOUR, None, 100, None),
        (3, end - HOUR, 1.0, 1, "of few orders"),
    ]
    frame = pd.DataFrame(events, columns=["user_id", "event_timestamp", "spent", "orders", "name"])
    frame["orders"] = frame["orders"].astype("Int64")
    frame["created"] = frame["event_timestamp"]
    frame["last"] = [[1.0]] * len(frame)
    frame.to_parquet(repo / "data" / "users.parquet")


@pytest.mark.parametrize("view", [batch_view, stream_view])
def test_windows_are_of_what_comes_out(store: FeatureStore, repo: Path, view: Any) -> None:
    write_events(repo)
    store.apply([view(schema=WINDOWS, aggregations=AGGREGATIONS)])
    store.materialize(NOW - DAY, NOW)
    expected = [(3.5, 2, 2, ["A", "B"]), (None, 0, None, None), (None, 0, None, None)]
    assert looked_up(store, [1, 2, 3], WINDOWED) == expected
    assert trained(store, [1, 2, 3], WINDOWED) == expected


# --- pushes -------------------------------------------------------------------------------------


def pushed(users: list[int], **changes: Any) -> pd.DataFrame:
    """Returns rows that were pushed a minute ago, of a hundred orders each."""
    columns: dict[str, list[Any]] = {
        "user_id": users,
        "event_timestamp": [NOW - MINUTE] * len(users),
        "spent": [5.0] * len(users),
        "orders": [100] * len(users),
        "name": [f"new {user}" for user in users],
    }
    return pd.DataFrame(columns | changes)


@pytest.fixture
def streamed(store: FeatureStore) -> FeatureStore:
    store.apply([stream_view()])
    store.materialize(NOW - DAY, NOW)
    return store


def landed(repo: Path) -> list[Path]:
    return sorted((repo / "data" / "users.parquet.landed").glob("*.parquet"))


def test_pushed_rows_are_served_as_they_come_out_and_land_as_they_came(streamed: FeatureStore, repo: Path) -> None:
    rows = pushed([1, 3, 9], orders=[100, 1, 50])
    streamed.push("worth_push", rows, to=PushMode.ONLINE_AND_OFFLINE)
    # The row of user 3 has too few orders, so an older one is still the newest that comes out.
    expected = [(0.05, "NEW 1"), (0.15, "USER 3"), (0.1, "NEW 9")]
    assert looked_up(streamed, [1, 3, 9]) == expected
    assert trained(streamed, [1, 3, 9]) == expected
    [file] = landed(repo)
    assert pd.read_parquet(file)["orders"].tolist() == [100, 1, 50]
    # A later run changes nothing of it.
    streamed.materialize(NOW - DAY, NOW)
    assert looked_up(streamed, [1, 3, 9]) == expected


@pytest.mark.anyio
async def test_asynchronous_pushes_go_through_it_too(streamed: FeatureStore) -> None:
    await streamed.push_async("worth_push", pushed([1]), to=PushMode.ONLINE)
    answer = await streamed.get_online_features_async(FEATURES, {"user_id": [1]})
    assert answer.to_dict()["worth"] == [0.05]
    await streamed.close()


def test_both_sides_hand_over_the_same_types(store: FeatureStore) -> None:
    def telling(frame: pd.DataFrame) -> pd.DataFrame:
        told = ", ".join(f"{name} {dtype}" for name, dtype in frame.dtypes.items())
        return frame.assign(worth=1.0, name=told)

    store.apply([stream_view(udf=telling)])
    # Neither null nor number of rows makes another type.
    for frame in (
        pushed([1]),
        pushed([1, 2], orders=pd.array([None, 5], dtype="Int64"), spent=[None, None], name=["a", None]),
    ):
        store.push("worth_push", frame, to=PushMode.ONLINE)
        [(_, told)] = looked_up(store, [1])
        assert told == trained(store, [2])[0][1]
    assert "orders Int64, name object, last object" in told
    assert "event_timestamp datetime64[ns, UTC]" in told or "event_timestamp datetime64[us, UTC]" in told


def failing_beyond_forty(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {"worth": [[1.0, 2.0, 3.0, 4.0, 5.0][count // 10 - 1] for count in columns["orders"]]}


@pytest.mark.parametrize("target", [PushMode.ONLINE, PushMode.OFFLINE, PushMode.ONLINE_AND_OFFLINE])
def test_a_push_by_which_the_function_fails_writes_nothing(store: FeatureStore, repo: Path, target: PushMode) -> None:
    store.apply([stream_view(udf=failing_beyond_forty, mode="python")])
    with pytest.raises(TransformationError, match=r"'worth_push', row 1: .*'failing_beyond_forty' failed: IndexError"):
        store.push("worth_push", pushed([8, 9], orders=[20, 90]), to=target)
    assert looked_up(store, [8, 9]) == [(None, None)] * 2
    assert landed(repo) == []
    store.push("worth_push", pushed([8], orders=[20]), to=target)
    assert looked_up(store, [8]) == [(None, None) if target == PushMode.OFFLINE else (2.0, "new 8")]


def test_a_push_has_to_give_what_the_function_mentions(streamed: FeatureStore) -> None:
    for name in ("orders", "spent", "name", "user_id", "event_timestamp"):
        with pytest.raises(PushedRowsError, match=rf"missing: \['{name}'\]"):
            streamed.push("worth_push", pushed([1]).drop(columns=name))
    # It does not mention `last`, nor is it a feature.
    streamed.push("worth_push", pushed([1]))


def test_times_that_a_function_makes_count(store: FeatureStore) -> None:
    def later(frame: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        return frame.assign(event_timestamp=frame["event_timestamp"] + pd.Timedelta(days=1), worth=1.0)

    store.apply([stream_view(udf=later)])
    with pytest.raises(PushedRowsError, match="more than 60 s after now"):
        store.push("worth_push", pushed([1]))
    store.push("worth_push", pushed([1], event_timestamp=[NOW - DAY]))
    assert looked_up(store, [1])[0][0] == 1.0
    store.materialize(NOW - DAY, NOW)
    assert trained(store, [3]) == [(None, None)]  # of an hour ago, which is tomorrow by then


def test_a_view_and_a_transformed_one_are_fed_by_one_push(store: FeatureStore) -> None:
    source = PushSource(name="worth_push", batch_source=user_source())
    plain = user_view(name="as_pushed", source=source)
    store.apply([stream_view(source=source), plain])
    with pytest.raises(PushedRowsError, match=r"missing: \['last'\]"):
        store.push("worth_push", pushed([1]))
    store.push("worth_push", pushed([1], last=[[2.0]]), to=PushMode.ONLINE_AND_OFFLINE)
    assert looked_up(store, [1], ["worth:name", "as_pushed:orders"]) == [("NEW 1", 100)]
    # One retrieval sees the same rows of the source by either view.
    assert trained(store, [1], ["worth:name", "as_pushed:orders"]) == [("NEW 1", 100)]


# --- what apply refuses -------------------------------------------------------------------------

RATE = 2.0


def by_a_global(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(worth=frame["spent"] * RATE)


BY_A_GLOBAL = "def by_a_global(frame):\n    return frame.assign(worth=frame['spent'] * RATE)\n"


def test_apply_refuses_what_cannot_run(store: FeatureStore, repo: Path) -> None:
    before = (repo / "data" / "registry.db").read_bytes()

    def lacking(frame: pd.DataFrame) -> pd.DataFrame:
        return frame

    def of_all(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(worth=frame["spent"] - frame["spent"].mean())

    def of_an_empty_frame(frame: pd.DataFrame) -> pd.DataFrame:
        # To a frame without rows, pandas' assignment brings back those that are assigned.
        return frame[frame["orders"] > 20].assign(worth=frame["spent"])

    refused = [
        (batch_view(udf=of_an_empty_frame), "row-wise"),
        (batch_view(mode="sql"), "transformation of mode 'sql', which Larder does not run.*'pandas' or 'python'"),
        (batch_view(mode="ray", udf=lambda rows: rows), "transformation of mode 'ray'"),
        (batch_view(udf=lacking), "gave no column 'worth'.*first rows of source 'users_file'"),
        (batch_view(udf=of_all), "row-wise"),
        (batch_view(udf=by_a_global, udf_string=BY_A_GLOBAL), "its function uses 'RATE'"),
        (batch_view(source=None), "has no batch source whose rows could go through it"),
        (batch_view(schema=[*SCHEMA, Field(name="extra", dtype=Map)]), "'extra' is declared as MAP"),
    ]
    for view, message in refused:
        with pytest.raises(DefinitionError, match=rf"feature view 'worth'.*{message}"):
            store.apply([view])
    assert (repo / "data" / "registry.db").read_bytes() == before


@pytest.mark.parametrize("mode", ["spark", "spark_sql", "flink"])
def test_modes_of_other_engines_are_refused_by_name(mode: str) -> None:
    view = stream_view()
    view.mode = view.feature_transformation.mode = mode
    with pytest.raises(DefinitionError, match=rf"'worth' declares a transformation of mode '{mode}'"):
        refuse_unsupported(view)


def test_a_source_that_is_not_written_yet_can_be_declared(store: FeatureStore, repo: Path) -> None:
    (repo / "data" / "users.parquet").unlink()
    store.apply([batch_view()])
    with pytest.raises(SourceUnreadable, match=r"users\.parquet"):
        trained(store, [1])


def test_a_stream_views_transformation_object_is_kept(store: FeatureStore) -> None:
    """Feast's registry would keep `udf` alone, though `feature_transformation` has precedence."""
    transformation = Transformation(mode="pandas", udf=per_order, udf_string="")
    store.apply([stream_view(udf=by_a_global, mode="python", feature_transformation=transformation)])
    assert trained(same_repo(store), [3]) == [pytest.approx(EXPECTED[2])]


def test_a_changed_function_is_built_by_the_next_run(store: FeatureStore) -> None:
    store.apply([stream_view()])
    store.materialize(NOW - DAY, NOW)
    assert trained(store, [3]) == [pytest.approx(EXPECTED[2])]
    store.apply([stream_view(udf=lambda frame: frame.assign(worth=7.0))])
    assert trained(store, [1, 3]) == [(7.0, "user 1"), (7.0, "user 3")]
    assert looked_up(store, [3]) == [pytest.approx(EXPECTED[2])]
    store.materialize(NOW - MINUTE, NOW)
    assert looked_up(store, [1, 3]) == [(7.0, "user 1"), (7.0, "user 3")]


def test_what_tells_functions_apart(store: FeatureStore) -> None:
    def scaled_by(rate: float) -> Any:
        return lambda frame: frame.assign(worth=frame["spent"] * rate)

    store.apply([stream_view()])
    texts = {
        "declared": transformation_text(stream_view()),
        "registered": transformation_text(store.get_stream_feature_view("worth")),
        "in python": transformation_text(stream_view(mode="python")),
        "doubled": transformation_text(stream_view(udf=scaled_by(2))),
        "doubled again": transformation_text(stream_view(udf=scaled_by(2))),
        "tripled": transformation_text(stream_view(udf=scaled_by(3))),
        "global": transformation_text(stream_view(udf=by_a_global)),
        "by text": transformation_text(batch_view(udf=by_a_global, udf_string=BY_A_GLOBAL)),
        "decorated": transformation_text(
            batch_view(udf=by_a_global, udf_string="@batch_feature_view(ttl=1)\n" + BY_A_GLOBAL)
        ),
    }
    assert texts["declared"] == texts["registered"]
    assert texts["doubled"] == texts["doubled again"]
    assert texts["by text"] == texts["decorated"]
    assert len(set(texts.values())) == len(texts) - 3


# --- erasure ------------------------------------------------------------------------------------


def test_erasure_leaves_nothing_in_transformed_files(streamed: FeatureStore, repo: Path) -> None:
    streamed.push("worth_push", pushed([77]), to=PushMode.ONLINE_AND_OFFLINE)
    assert trained(streamed, [77]) == [(0.05, "NEW 77")]
    kept = repo / "data" / "transformed"
    assert any(77 in pd.read_parquet(file)["user_id"].tolist() for file in kept.rglob("*.parquet"))
    gc.collect()  # what a retrieval holds of files, it holds until it is gone
    eraser = Eraser(streamed, "user_id=77")
    assert len(eraser.holdings().landed) == 2
    erasure = eraser.erase()
    assert erasure.is_proven
    assert not [*kept.rglob("*.parquet")]
    assert trained(streamed, [77, 3]) == [(None, None), pytest.approx(EXPECTED[2])]


def test_transformed_files_go_with_their_view(streamed: FeatureStore, repo: Path) -> None:
    trained(streamed, [1])
    assert [*(repo / "data" / "transformed").rglob("*.parquet")]
    gc.collect()
    streamed.apply([USER], objects_to_delete=[streamed.get_stream_feature_view("worth")], partial=False)
    assert not [*(repo / "data" / "transformed").rglob("*.parquet")]
