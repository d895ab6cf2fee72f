"""Feast's own server and ours over the same definitions and rows, each with its own files and a Redis of its own."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import feast.types as ft
import httpx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    RequestSource,
    ValueType,
)
from feast.on_demand_feature_view import on_demand_feature_view

from tests.feast.value_matrix import ALONE, TYPES, TypeRows
from tests.redis_servers import free_port, poll_until, private_redis_tcp
from tests.server.live import feast_running, serving

START_SECONDS = 120.0
NOW = datetime.now(UTC).replace(microsecond=0)
FRESH = NOW - timedelta(hours=1, microseconds=-120)
STALE = NOW - timedelta(days=3)

_YAML = """\
project: matrix
provider: local
registry:
  path: data/registry.db
  cache_ttl_seconds: 600
  serve_features_while_materializing: true
offline_store:
  type: {offline}
online_store:
  type: {online}
  connection_string: {connection}
batch_engine:
  type: {engine}
entity_key_serialization_version: 3
"""

KEY = Entity(name="key", join_keys=["k"], value_type=ValueType.INT64)
CITY = Entity(name="city", join_keys=["city"], value_type=ValueType.STRING)
_JOIN_KEYS = {"key": Field(name="k", dtype=ft.Int64), "city": Field(name="city", dtype=ft.String)}


def _view(folder: Path, name: str, entities: list[Entity], features: dict[str, Any], **options: Any) -> FeatureView:
    source = FileSource(
        name=f"{name}_file",
        path=str(folder / "data" / f"{name}.parquet"),
        timestamp_field="at",
        created_timestamp_column="created",
        field_mapping=options.pop("mapping", {}),
    )
    return FeatureView(
        name=name,
        entities=entities,
        ttl=options.pop("ttl", timedelta(0)),
        schema=[
            *(_JOIN_KEYS[entity.name] for entity in entities),
            *(Field(name=feature, dtype=dtype) for feature, dtype in features.items()),
        ],
        source=PushSource(name=f"{name}_push", batch_source=source) if options.pop("is_pushed", False) else source,
    )


def definitions(folder: Path) -> list[Any]:
    """Returns what both servers serve; Feast takes relative paths from its caller's folder, so these are absolute."""
    users = _view(folder, "users", [KEY], {"n": ft.Int64, "x": ft.Float64, "s": ft.String}, is_pushed=True)
    others = _view(folder, "others", [KEY], {"n": ft.Int64}, mapping={"raw": "n"})
    towns = _view(folder, "towns", [CITY], {"n": ft.Int64})
    kinds = _view(folder, "kinds", [KEY], {name: rows.dtype for name, rows in TYPES.items()})
    extra = RequestSource(name="extra", schema=[Field(name="bonus", dtype=ft.Int64)])

    @on_demand_feature_view(sources=[users, extra], schema=[Field(name="sum", dtype=ft.Int64)], mode="python")
    def added(inputs: dict[str, Any]) -> dict[str, Any]:
        pairs = zip(inputs["n"], inputs["bonus"], strict=True)
        return {"sum": [None if n is None else n + bonus for n, bonus in pairs]}

    @on_demand_feature_view(sources=[users], schema=[Field(name="twice", dtype=ft.Float64)], mode="pandas")
    def doubled(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[["x"]].rename(columns={"x": "twice"}) * 2

    @on_demand_feature_view(sources=[extra], schema=[Field(name="more", dtype=ft.Int64)], mode="python")
    def asked_only(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"more": [bonus + 1 for bonus in inputs["bonus"]]}

    giver = users.with_name("giver").with_join_key_map({"k": "giver_id"})[["n"]]
    taker = users.with_name("taker").with_join_key_map({"k": "taker_id"})[["n", "s"]]
    return [
        KEY,
        CITY,
        users,
        others,
        towns,
        kinds,
        _view(folder, "pairs", [CITY, KEY], {"n": ft.Int64}, is_pushed=True),
        _view(folder, "world", [], {"rate": ft.Float64}),
        _view(folder, "aging", [KEY], {"n": ft.Int64}, ttl=timedelta(days=1)),
        *(_view(folder, name, [KEY], {"v": rows.dtype}) for name, rows in ALONE.items()),
        *(
            _view(folder, f"p_{name}", [KEY], {"v": rows.dtype}, is_pushed=True)
            for name, rows in {**TYPES, **ALONE}.items()
        ),
        added,
        doubled,
        asked_only,
        FeatureService(name="plain", features=[users[["s", "n"]], towns]),
        FeatureService(name="computed", features=[users[["n"]], added, doubled]),
        FeatureService(name="renamed", features=[giver, taker]),
        FeatureService(name="clashing", features=[users[["n"]], others]),
    ]


def _typed_columns(types: dict[str, TypeRows]) -> dict[str, pa.Array]:
    """Returns a column per type: its values, and then nulls, one at least."""
    count = max(len(typed.rows) for typed in types.values()) + 1
    return {
        name: pa.array([*typed.rows, *[None] * (count - len(typed.rows))], typed.arrow) for name, typed in types.items()
    }


def _tables() -> dict[str, pa.Table]:
    """Returns the rows of each view: user 2 has nulls, nobody has key 99."""

    def rows(count: int, **columns: Any) -> pa.Table:
        at = pa.array([FRESH] * count, pa.timestamp("us", "UTC"))
        return pa.table({**columns, "at": at, "created": at})

    kinds = _typed_columns(TYPES)
    count = len(kinds["int32"])
    aging = rows(2, k=[1, 2], n=pa.array([1, 2]))
    tables = {
        "users": rows(3, k=[1, 2, 3], n=pa.array([10, None, 30]), x=pa.array([1.5, None, -0.5]), s=["a", None, ""]),
        "others": rows(2, k=[1, 3], raw=pa.array([-1, -3])),
        "pairs": rows(3, k=[1, 1, 2], city=["york", "leeds", "york"], n=pa.array([11, 12, 21])),
        "towns": rows(2, city=["york", "é"], n=pa.array([100, 200])),
        "world": rows(1, rate=[0.25]),
        "aging": aging.set_column(2, "at", pa.array([FRESH, STALE], pa.timestamp("us", "UTC"))),
        "kinds": rows(count, k=range(1, count + 1), **kinds),
    }
    for name, typed in ALONE.items():
        values = pa.array(typed.rows, typed.arrow)
        tables[name] = rows(len(values), k=range(1, len(values) + 1), v=values)
    for name, typed in {**TYPES, **ALONE}.items():
        tables[f"p_{name}"] = rows(0, k=pa.array([], pa.int64()), v=pa.array([], typed.arrow))
    return tables


def write_repo(folder: Path, online: str, connection: str, offline: str, engine: str) -> Path:
    """Writes a feature repo of all shapes and types with its sources, and applies it."""
    (folder / "data").mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(
        _YAML.format(online=online, connection=connection, offline=offline, engine=engine)
    )
    for name, table in _tables().items():
        pq.write_table(table, folder / "data" / f"{name}.parquet")
    FeatureStore(repo_path=str(folder)).apply(definitions(folder))
    return folder


def materialize(repo: Path) -> list[str]:
    """Materializes view by view, and returns the names of those that cannot be."""
    store = FeatureStore(repo_path=str(repo))
    refused = []
    for view in store.list_feature_views():
        if view.name.startswith("p_"):
            continue
        try:
            store.materialize(NOW - timedelta(days=30), NOW, feature_views=[view.name])
        except (TypeError, ValueError):
            refused.append(view.name)
    return refused


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@dataclass(frozen=True)
class BothServers:
    """Feast's server and ours, to be asked the same; `refused` are the views that each could not materialize."""

    feasts_url: str
    our_url: str
    client: httpx.Client
    refused: tuple[list[str], list[str]]

    def ask(self, path: str, body: object) -> tuple[httpx.Response, httpx.Response]:
        """Returns Feast's answer and ours to one request."""
        feasts, ours = (self.client.post(f"{url}{path}", json=body) for url in (self.feasts_url, self.our_url))
        return feasts, ours


@contextmanager
def both_serving(folder: Path) -> Iterator[BothServers]:
    """Runs both servers on repos of the same definitions and rows until the block ends."""
    with ExitStack() as stack:
        for name in ("feasts", "ours"):
            (folder / f"{name}-redis").mkdir(parents=True)
        redis = {name: stack.enter_context(private_redis_tcp(folder / f"{name}-redis")) for name in ("feasts", "ours")}
        feasts = write_repo(folder / "feasts", "redis", redis["feasts"].address, "duckdb", "local")
        port = free_port()
        stack.enter_context(feast_running(feasts, "serve", "--port", str(port), "--workers", "1"))
        ours = write_repo(
            folder / "ours",
            "store.online.RedisOnlineStore",
            redis["ours"].address,
            "store.offline.DuckDBOfflineStore",
            "store.engine.DuckDBComputeEngine",
        )
        live = stack.enter_context(serving(ours))
        # What the servers read of a materialization is in Redis; meanwhile Feast's takes its ten seconds to start.
        refused = materialize(feasts), materialize(ours)
        # Feast's server closes the connection after an error of its own.
        limits = httpx.Limits(max_keepalive_connections=0)
        client = stack.enter_context(httpx.Client(trust_env=False, timeout=60, limits=limits))
        feasts_url = f"http://127.0.0.1:{port}"
        poll_until(lambda: _answers(feasts_url), START_SECONDS, f"Feast's server answers; see {feasts / 'serve.log'}")
        yield BothServers(feasts_url, live.url, client, refused)
