"""One repo, and the four ways to look features up in it: HTTP, Feast's SDK, its async twin, and its remote client."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.types import Array, Float64, Int64, String

from tests.oracles.rows import WrittenRow
from tests.redis_servers import free_port, poll_until, private_redis_tcp
from tests.server.live import START_SECONDS, LiveServer, feast_running, is_listening, serving
from tests.stores import yaml_of

NOW = datetime.now(UTC).replace(microsecond=0)
FRESH, STALE = NOW - timedelta(hours=1, microseconds=120), NOW - timedelta(hours=30)
TTL = timedelta(days=1)
FEATURES = ("spent", "orders", "name", "last")


def _user(at: datetime, number: int, **changes: Any) -> tuple[datetime, dict[str, Any]]:
    values = {"spent": number * 1.5, "orders": number * 10, "name": f"user {number}", "last": [float(number)] * number}
    return at, values | changes


USERS: dict[int, tuple[datetime, dict[str, Any]]] = {
    1: _user(FRESH, 1),
    2: _user(FRESH, 2, name=None, last=None),
    3: _user(FRESH - timedelta(hours=2), 3),
    4: _user(STALE, 4),
    5: _user(STALE, 5, name=None, orders=None),
}
"""Event time and values of each user; nobody is user 99."""
WITHOUT_NAME = 6
"""A user whose row was written without the feature `name`."""
WITH_EMPTY_LIST = 7
"""A user whose feature `last` is an empty list."""


def written_user(number: int) -> WrittenRow | None:
    """Returns the row of a user as the oracle has it, times in microseconds."""
    at, values = USERS.get(number, (None, None))
    if at is None or values is None:
        return None
    return WrittenRow(int(at.timestamp()) * 1_000_000 + at.microsecond, None, is_pushed=False, values=values)


@dataclass(frozen=True)
class Cell:
    """One value of an answer; `time` is None where the way tells none."""

    value: Any
    status: str
    time: datetime | None


Answer = dict[str, list[Cell]]


class Refused(Exception):
    """A lookup was refused; the message is what the caller got to read."""


@dataclass(frozen=True)
class Ways:
    """A server on a repo, the SDK on the same repo, and the SDK on another machine.

    `remote` reaches the server and Feast's registry server by their addresses, and has no file of the repo.
    """

    live: LiveServer
    store: FeatureStore
    remote: FeatureStore

    def http(self, features: list[str] | str, entities: Mapping[str, Any], **options: Any) -> Answer:
        asked = {"feature_service": features} if isinstance(features, str) else {"features": features}
        answer = self.live.post("/get-online-features", {**asked, "entities": entities, **options})
        if answer.status_code != 200:
            raise Refused(answer.json()["detail"])
        body = answer.json()
        return {
            name: [
                Cell(value, status, None if time is None else datetime.fromisoformat(time))
                for value, status, time in zip(*(v[k] for k in ("values", "statuses", "event_timestamps")), strict=True)
            ]
            for name, v in zip(body["metadata"]["feature_names"], body["results"], strict=True)
        }

    def sdk(self, features: list[str] | str, entities: Mapping[str, Any], **options: Any) -> Answer:
        return self._by_sdk(self.store, features, entities, options)

    def sdk_async(self, features: list[str] | str, entities: Mapping[str, Any], **options: Any) -> Answer:
        async def ask() -> Any:
            try:
                return await self.store.get_online_features_async(asked, dict(entities), **options)
            finally:
                await self.store.close()

        asked = self.store.get_feature_service(features) if isinstance(features, str) else features
        try:
            return _cells(asyncio.run(ask()))
        except (ValueError, KeyError) as error:
            raise Refused(str(error)) from error

    def remote_client(self, features: list[str] | str, entities: Mapping[str, Any], **options: Any) -> Answer:
        return self._by_sdk(self.remote, features, entities, options)

    @staticmethod
    def _by_sdk(
        store: FeatureStore, features: list[str] | str, entities: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Answer:
        asked = store.get_feature_service(features) if isinstance(features, str) else features
        try:
            return _cells(store.get_online_features(asked, dict(entities), **options))
        except (ValueError, KeyError, RuntimeError) as error:
            raise Refused(str(error)) from error


WAYS = ("http", "sdk", "sdk_async", "remote_client")
"""By their names in `Ways`."""
KEEPS_TIMES = frozenset({"http", "sdk", "sdk_async"})
"""Feast's remote client drops event timestamps."""


def _cells(response: Any) -> Answer:
    values = response.to_dict()
    return {
        name: [
            Cell(value, FieldStatus.Name(status), None if time is None else time.ToDatetime(UTC))
            for value, status, time in zip(
                values[name],
                vector.statuses,
                # Feast's message cannot say "no time" for one of several rows, so that is second 0.
                [time if time.seconds else None for time in vector.event_timestamps] or [None] * len(values[name]),
                strict=True,
            )
        ]
        for name, vector in zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True)
    }


@contextmanager
def four_ways(folder: Path) -> Iterator[Ways]:
    """Runs a server on a repo of all shapes, with its rows written."""
    repo, client = folder / "repo", folder / "client"
    (repo / "data").mkdir(parents=True)
    client.mkdir()
    with private_redis_tcp(folder) as redis:
        (repo / "feature_store.yaml").write_text(yaml_of(redis.url))
        _write_files(repo / "data")
        store = FeatureStore(repo_path=str(repo))
        store.apply(_objects())
        store.materialize(NOW - timedelta(days=30), NOW)
        port = free_port()
        with feast_running(repo, "serve_registry", "--port", str(port)), serving(repo) as live:
            _write(live, user_id=[WITHOUT_NAME], orders=[60], last=[[6.0]])
            _write(live, user_id=[WITH_EMPTY_LIST], orders=[70], last=[[]])
            # Before, since gRPC waits ever longer between its attempts.
            poll_until(lambda: is_listening(port), START_SECONDS, "the registry server listens")
            config = {
                "project": store.project,
                "provider": "local",
                "registry": {"registry_type": "remote", "path": f"127.0.0.1:{port}"},
                "offline_store": {"type": "file"},
                "online_store": {"type": "remote", "path": live.url, "connection_retries": 0},
                "entity_key_serialization_version": 3,
            }
            (client / "feature_store.yaml").write_text(yaml.safe_dump(config))
            yield Ways(live, store, FeatureStore(repo_path=str(client)))


def _write(live: LiveServer, **columns: list[Any]) -> None:
    frame = {**columns, "at": [FRESH.isoformat()]}
    answer = live.post("/write-to-online-store", {"feature_view_name": "users", "df": frame})
    assert answer.status_code == 200, answer.text


def _write_files(data: Path) -> None:
    users = [{"user_id": number, "at": at, **values} for number, (at, values) in USERS.items()]
    pd.DataFrame(users).astype({"orders": "Int64"}).to_parquet(data / "users.parquet")
    pairs = pd.DataFrame({"a": ["x", "xy"], "b": ["yz", "z"], "n": [1, 2], "at": [FRESH] * 2})
    pairs.to_parquet(data / "pairs.parquet")
    pd.DataFrame({"rate": [1.25], "at": [FRESH]}).to_parquet(data / "rates.parquet")


def _objects() -> list[Any]:
    entities = {
        name: Entity(name=name, join_keys=[name], value_type=value_type)
        for name, value_type in {"user_id": ValueType.INT64, "a": ValueType.STRING, "b": ValueType.STRING}.items()
    }

    def view(name: str, keys: list[str], features: dict[str, Any], ttl: timedelta) -> FeatureView:
        types = {"user_id": Int64, "a": String, "b": String}
        return FeatureView(
            name=name,
            entities=[entities[key] for key in keys],
            ttl=ttl,
            schema=[Field(name=n, dtype=t) for n, t in {**{key: types[key] for key in keys}, **features}.items()],
            source=FileSource(path=f"data/{name}.parquet", timestamp_field="at"),
        )

    users = view(
        "users", ["user_id"], {"spent": Float64, "orders": Int64, "name": String, "last": Array(Float64)}, ttl=TTL
    )
    pairs = view("pairs", ["b", "a"], {"n": Int64}, timedelta(0))
    rates = view("rates", [], {"rate": Float64}, timedelta(0))
    basket = RequestSource(name="basket", schema=[Field(name="amount", dtype=Float64)])

    @on_demand_feature_view(sources=[users, basket], schema=[Field(name="share", dtype=Float64)], mode="python")
    def basket_share(inputs: dict[str, Any]) -> dict[str, Any]:
        pairs = zip(inputs["amount"], inputs["spent"], strict=True)
        return {"share": [None if not spent else amount / spent for amount, spent in pairs]}

    @on_demand_feature_view(sources=[users], schema=[Field(name="shout", dtype=String)], mode="python", singleton=True)
    def shouting(row: dict[str, Any]) -> dict[str, Any]:
        return {"shout": None if row["name"] is None else row["name"].upper()}

    @on_demand_feature_view(sources=[users], schema=[Field(name="twice", dtype=Float64)], mode="pandas")
    def doubled(frame: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame({"twice": frame["spent"] * 2 + frame["users__spent"] * 0})

    giver = users.with_name("giver").with_join_key_map({"user_id": "giver_id"})[["orders"]]
    taker = users.with_name("taker").with_join_key_map({"user_id": "taker_id"})[["orders"]]
    services = [
        FeatureService(name="checkout", features=[users, basket_share]),
        FeatureService(name="gift", features=[giver, taker]),
    ]
    return [*entities.values(), users, pairs, rates, basket_share, shouting, doubled, *services]
