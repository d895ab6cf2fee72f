"""Every value of every Feast type reads as it was written: from a file and by push, through the SDK and over HTTP."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import feast.types as ft
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureView, Field, FileSource, PushSource, ValueType
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from store.feature_store import FeatureStore
from tests.oracles.values import KINDS, is_same
from tests.redis_servers import private_redis_tcp
from tests.server.live import LiveServer, serving
from tests.stores import yaml_of

NOW = datetime.now(UTC).replace(microsecond=0)
Row = dict[str, Any]


def _table(keys: list[int], rows: list[Row]) -> pa.Table:
    def column(name: str) -> pa.Array:
        in_file = KINDS[name].in_file
        return pa.array([None if row[name] is None else in_file(row[name]) for row in rows], KINDS[name].arrow)

    at = pa.array([NOW] * len(rows), pa.timestamp("us", "UTC"))
    return pa.table(
        {"k": pa.array(keys, pa.int64()), **{name: column(name) for name in KINDS}, "at": at, "created": at}
    )


@dataclass
class Ways:
    """A repo whose one view has a feature of each type, its server, and the ways to write and read it."""

    store: FeatureStore
    repo: Path
    live: LiveServer
    numbers: Iterator[int]

    def materialize(self, keys: list[int], rows: list[Row]) -> None:
        pq.write_table(_table(keys, rows), self.repo / "data" / "kinds.parquet")
        self.store.materialize(NOW - timedelta(days=1), NOW + timedelta(seconds=1), feature_views=["kinds"])

    def push_over_http(self, keys: list[int], rows: list[Row]) -> None:
        answer = self.live.post("/push", {"push_source_name": "kinds_push", "df": self._said(keys, rows)})
        assert answer.status_code == 200, answer.text

    def write_over_http(self, keys: list[int], rows: list[Row]) -> None:
        answer = self.live.post("/write-to-online-store", {"feature_view_name": "kinds", "df": self._said(keys, rows)})
        assert answer.status_code == 200, answer.text

    def push_by_sdk(self, keys: list[int], rows: list[Row]) -> None:
        values = {
            name: pd.Series([None if row[name] is None else kind.in_file(row[name]) for row in rows], dtype=object)
            for name, kind in KINDS.items()
        }
        times = [NOW] * len(rows)
        self.store.push("kinds_push", pd.DataFrame({"k": keys, **values, "at": times, "created": times}))

    def _said(self, keys: list[int], rows: list[Row]) -> dict[str, list[Any]]:
        values = {
            name: [None if row[name] is None or kind.said is None else kind.said(row[name]) for row in rows]
            for name, kind in KINDS.items()
        }
        times = [NOW.isoformat()] * len(rows)
        return {"k": keys, **values, "at": times, "created": times}

    def read_by_sdk(self, keys: list[int]) -> dict[str, list[Any]]:
        return dict(self.store.get_online_features([f"kinds:{name}" for name in KINDS], {"k": keys}).to_dict())

    def read_over_http(self, keys: list[int]) -> dict[str, list[tuple[Any, str]]]:
        answer = self.live.lookup({"k": keys}, *(f"kinds:{name}" for name in KINDS)).json()
        vectors = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
        return {name: list(zip(vectors[name]["values"], vectors[name]["statuses"], strict=True)) for name in KINDS}


WRITES = {
    "materialized": Ways.materialize,
    "pushed over HTTP": Ways.push_over_http,
    "written over HTTP": Ways.write_over_http,
    "pushed by SDK": Ways.push_by_sdk,
}


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    folder = tmp_path_factory.mktemp("kinds")
    repo = folder / "repo"
    (repo / "data").mkdir(parents=True)
    with private_redis_tcp(folder) as redis:
        (repo / "feature_store.yaml").write_text(yaml_of(redis.url))
        pq.write_table(_table([], []), repo / "data" / "kinds.parquet")
        store = FeatureStore(repo_path=str(repo))
        source = FileSource(
            name="kinds_file", path="data/kinds.parquet", timestamp_field="at", created_timestamp_column="created"
        )
        key = Entity(name="k", join_keys=["k"], value_type=ValueType.INT64)
        view = FeatureView(
            name="kinds",
            entities=[key],
            ttl=timedelta(0),
            schema=[Field(name="k", dtype=ft.Int64), *(Field(name=n, dtype=kind.dtype) for n, kind in KINDS.items())],
            source=PushSource(name="kinds_push", batch_source=source),
        )
        store.apply([key, view])
        with serving(repo) as live:
            yield Ways(store, repo, live, itertools.count(1))


# A failure names the type and the value, so nothing is gained by minutes of looking for a smaller row.
FAST = settings(
    deadline=None,
    phases=(Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
ROWS = st.lists(st.fixed_dictionaries({n: st.none() | kind.drawn for n, kind in KINDS.items()}), min_size=1, max_size=3)


def check(ways: Ways, rows: list[Row], how: str) -> None:
    keys = [next(ways.numbers) for _ in rows]
    WRITES[how](ways, keys, rows)
    in_python, answered = ways.read_by_sdk(keys), ways.read_over_http(keys)
    for name, kind in KINDS.items():
        for row, python, (value, status) in zip(rows, in_python[name], answered[name], strict=True):
            written = row[name]
            if "HTTP" in how and kind.said is None:
                written = None
            if how == "pushed by SDK" and written != written:  # noqa: PLR0124 - NaN, which is a null in a frame
                written = None
            case = f"{how}: {name} {written!r} reads as {python!r} in Python and as {value!r} over HTTP"
            assert status == ("NULL_VALUE" if written is None else "PRESENT"), case
            assert is_same(python, None if written is None else kind.in_python(written)), case
            if name.startswith("set_of_") and name != "set_of_array":
                expected = None if written is None else {repr(item) for item in kind.answered(written)}
                assert (value if value is None else {repr(item) for item in value}) == expected, case
            else:
                assert is_same(value, None if written is None else kind.answered(written)), case


@pytest.mark.parametrize("how", WRITES)
@settings(FAST, max_examples=15)
@given(rows=ROWS)
def test_values_read_as_they_were_written(ways: Ways, how: str, rows: list[Row]) -> None:
    check(ways, rows, how)


@pytest.mark.long
@pytest.mark.parametrize("how", WRITES)
@settings(FAST, max_examples=200)
@given(rows=ROWS)
def test_many_values_read_as_they_were_written(ways: Ways, how: str, rows: list[Row]) -> None:
    check(ways, rows, how)
