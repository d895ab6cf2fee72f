"""Keys of a source against the type that they are declared to have: training, materialization and pushes agree."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Int64, String

from store.errors import WrongType
from store.feature_store import FeatureStore
from tests.stores import NOW

AT = NOW - timedelta(hours=1)


def declare(store: FeatureStore, repo: Path, key: pa.Array, declared: ValueType) -> None:
    """Declares a view of `n` by `k`, whose source holds these keys."""
    at = pa.array([AT] * len(key), pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"k": key, "n": range(len(key)), "at": at}), repo / "data" / "keyed.parquet")
    entity = Entity(name="keyed", join_keys=["k"], value_type=declared)
    view = FeatureView(
        name="keyed",
        entities=[entity],
        ttl=timedelta(0),
        schema=[
            Field(name="k", dtype=Int64 if declared is ValueType.INT64 else String),
            Field(name="n", dtype=Int64),
        ],
        source=PushSource(
            name="keyed_push",
            batch_source=FileSource(path="data/keyed.parquet", timestamp_field="at", name="keyed_file"),
        ),
    )
    store.apply([entity, view])


def trained(store: FeatureStore, keys: list[Any]) -> list[Any]:
    rows = pd.DataFrame({"k": keys, "event_timestamp": [NOW] * len(keys)})
    frame = store.get_historical_features(rows, ["keyed:n"]).to_df()
    return [None if pd.isna(n) else int(n) for n in frame["n"]]


def looked_up(store: FeatureStore, keys: list[Any]) -> list[Any]:
    return list(store.get_online_features(["keyed:n"], {"k": keys}).to_dict()["n"])


@pytest.mark.parametrize(
    ("source", "declared", "asked"),
    [
        (pa.array(["1", "2", "x"]), ValueType.INT64, [1]),
        (pa.array(["1", "2"]), ValueType.INT64, [1]),
        (pa.array(["1", "2"]).dictionary_encode(), ValueType.INT64, [1]),
        (pa.array([1, 2]), ValueType.STRING, ["1"]),
        (pa.array([True, False]), ValueType.INT64, [1]),
    ],
)
def test_keys_of_another_kind_are_refused_alike(
    store: FeatureStore, repo: Path, source: pa.Array, declared: ValueType, asked: list[Any]
) -> None:
    declare(store, repo, source, declared)
    with pytest.raises(WrongType, match=r"'k'.* the source has"):
        trained(store, asked)
    with pytest.raises(WrongType, match=f"'k' is declared as {declared.name}, the source has"):
        store.materialize(NOW - timedelta(days=1), NOW, feature_views=["keyed"])
    with pytest.raises(WrongType, match=f"'k' is declared as {declared.name}, the source has"):
        store.push("keyed_push", pd.DataFrame({"k": [source[0].as_py()], "n": [1], "at": [AT]}))
    assert looked_up(store, asked) == [None]


@pytest.mark.parametrize(
    ("source", "declared", "asked"),
    [
        (pa.array([1, 2], pa.int32()), ValueType.INT64, [2, 3, 1]),
        # pandas makes floats of integers with a null among them.
        (pa.array([1.0, None, 2.0]), ValueType.INT64, [2, 3, 1]),
        (pa.array(["a", "b"]).dictionary_encode(), ValueType.STRING, ["b", "c", "a"]),
        (pa.array(["a", "b"], pa.large_string()), ValueType.STRING, ["b", "c", "a"]),
    ],
)
def test_keys_of_the_same_kind_find_the_same_rows(
    store: FeatureStore, repo: Path, source: pa.Array, declared: ValueType, asked: list[Any]
) -> None:
    declare(store, repo, source, declared)
    store.materialize(NOW - timedelta(days=1), NOW, feature_views=["keyed"])
    expected = [len(source) - 1, None, 0]
    assert looked_up(store, asked) == trained(store, asked) == expected
