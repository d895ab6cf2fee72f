"""Keys of every type find their row: materialized and pushed, over HTTP, through the SDK and in training."""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import feast.types as ft
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureView, Field, FileSource, PushSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.feature_store import FeatureStore
from tests.oracles.values import SCALARS
from tests.redis_servers import private_redis_tcp
from tests.server.live import LiveServer, serving
from tests.stores import yaml_of

NOW = datetime.now(UTC).replace(microsecond=0)
STAMP = pa.timestamp("us", "UTC")


def _draws(name: str) -> st.SearchStrategy[Any]:
    """Values that can be keys: NaN is none, -0.0 is the same as 0.0, and a timestamp is one by its whole seconds."""
    drawn = SCALARS[name].drawn
    if name.startswith("float"):
        return drawn.filter(lambda value: value == value).map(lambda value: value + 0.0)  # noqa: PLR0124
    if name == "timestamp":
        return drawn.map(lambda moment: moment.replace(microsecond=0))
    return drawn


def number_of(key: Any) -> int:
    """The feature of a key's row, told by the key, so that whoever writes the row writes the same."""
    return zlib.crc32(repr(key).encode())


@dataclass(frozen=True)
class Keyed:
    """A repo with a view for each type of key."""

    store: FeatureStore
    repo: Path
    live: LiveServer

    def table(self, name: str, keys: list[Any]) -> pa.Table:
        column = pa.array([SCALARS[name].in_file(key) for key in keys], SCALARS[name].arrow)
        at = pa.array([NOW] * len(keys), STAMP)
        return pa.table({"k": column, "n": pa.array(map(number_of, keys), pa.int64()), "at": at})

    def materialize(self, name: str, keys: list[Any]) -> None:
        pq.write_table(self.table(name, keys), self.repo / "data" / f"by_{name}.parquet")
        self.store.materialize(NOW - timedelta(days=1), NOW + timedelta(seconds=1), feature_views=[f"by_{name}"])

    def push(self, name: str, keys: list[Any]) -> None:
        said = [SCALARS[name].said(key) for key in keys]  # type: ignore[misc] - each of these types has it
        frame = {"k": said, "n": [*map(number_of, keys)], "at": [NOW.isoformat()] * len(keys)}
        answer = self.live.post("/push", {"push_source_name": f"by_{name}_push", "df": frame})
        assert answer.status_code == 200, answer.text

    def over_http(self, name: str, keys: list[Any]) -> list[Any]:
        said = [SCALARS[name].said(key) for key in keys]  # type: ignore[misc] - each of these types has it
        answer = self.live.lookup({"k": said}, f"by_{name}:n")
        assert answer.status_code == 200, answer.text
        return list(answer.json()["results"][1]["values"])

    def by_sdk(self, name: str, keys: list[Any]) -> list[Any]:
        return list(self.store.get_online_features([f"by_{name}:n"], {"k": keys}).to_dict()["n"])

    def in_training(self, name: str, keys: list[Any]) -> list[Any]:
        rows = self.table(name, keys).select(["k"]).append_column("event_timestamp", pa.array([NOW] * len(keys), STAMP))
        return list(self.store.get_historical_features(rows, [f"by_{name}:n"]).to_arrow().column("n").to_pylist())


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("keyed")
    repo = folder / "repo"
    (repo / "data").mkdir(parents=True)
    with private_redis_tcp(folder) as redis:
        (repo / "feature_store.yaml").write_text(yaml_of(redis.url))
        store = FeatureStore(repo_path=str(repo))
        objects: list[Any] = []
        for name, kind in SCALARS.items():
            pq.write_table(
                pa.table({"k": pa.array([], kind.arrow), "n": pa.array([], pa.int64()), "at": pa.array([], STAMP)}),
                repo / "data" / f"by_{name}.parquet",
            )
            source = FileSource(name=f"by_{name}_file", path=f"data/by_{name}.parquet", timestamp_field="at")
            entity = Entity(name=name, join_keys=["k"], value_type=kind.dtype.to_value_type())
            view = FeatureView(
                name=f"by_{name}",
                entities=[entity],
                ttl=timedelta(0),
                schema=[Field(name="k", dtype=kind.dtype), Field(name="n", dtype=ft.Int64)],
                source=PushSource(name=f"by_{name}_push", batch_source=source),
            )
            objects += [entity, view]
        store.apply(objects)
        with serving(repo) as live:
            yield Keyed(store, repo, live)


@pytest.mark.filterwarnings("ignore")  # Feast's own code warns in many ways that are not ours to mend
@pytest.mark.parametrize("name", SCALARS)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_key_finds_its_row_whoever_wrote_it_and_however_it_is_asked_for(
    keyed: Keyed, name: str, data: st.DataObject
) -> None:
    keys = data.draw(st.lists(_draws(name), min_size=1, max_size=4, unique_by=repr))
    expected = [number_of(key) for key in keys]
    keyed.materialize(name, keys)
    assert keyed.over_http(name, keys) == expected
    assert keyed.by_sdk(name, keys) == expected
    assert keyed.in_training(name, keys) == expected
    others = data.draw(st.lists(_draws(name), min_size=1, max_size=4, unique_by=repr))
    keyed.push(name, others)
    assert keyed.by_sdk(name, others) == keyed.over_http(name, others) == [number_of(key) for key in others]


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_nan_is_a_null_in_a_key_everywhere(keyed: Keyed, name: str) -> None:
    nan, stored = math.nan, 1234.5
    keyed.materialize(name, [nan, stored])
    for answered in (keyed.over_http, keyed.by_sdk, keyed.in_training):
        assert answered(name, [nan, stored]) == [None, number_of(stored)]
    frame = {"k": [stored, "NaN"], "n": [1, 2], "at": [NOW.isoformat()] * 2}
    refused = keyed.live.post("/push", {"push_source_name": f"by_{name}_push", "df": frame})
    assert refused.status_code == 422, refused.text
    assert "row 1: column 'k' is null" in refused.json()["detail"]
