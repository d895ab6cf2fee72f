"""A small shop that serves through the server's own store service and logs what it serves."""

import asyncio
import json
import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast.data_source import PushMode
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from typer.testing import CliRunner

from cli.audit import as_json
from cli.main import app
from store.audit.audit import audit
from store.audit.log import Span
from store.clock import clock_for, restart_clock, to_us
from store.feature_store import FeatureStore
from store.kernel.definitions import Column
from store.kernel.keys import entity_key_encoder
from store.requests import LookupRequest
from store.service import StoreService
from tests.redis_servers import RedisServer
from tests.stores import NOW, config, objects, user_rows, user_view, yaml_of

DAY = timedelta(days=1)
LOG = "data/served/checkout"


class LoggedShop:
    """A feature repo whose service `checkout` is logged.

    Every change of time goes by the repo's shared clock.
    """

    def __init__(self, repo: Path, server: RedisServer) -> None:
        self.repo = repo
        self.server = server
        settings = yaml_of(server.url)
        (repo / "feature_store.yaml").write_text(settings)
        self.store = FeatureStore(repo_path=str(repo), config=config(repo, server.url))

    @classmethod
    def make(cls, repo: Path, server: RedisServer) -> "LoggedShop":
        """Returns a shop whose users' file is written and whose definitions are applied."""
        (repo / "data").mkdir(parents=True)
        restart_clock(repo, NOW)
        user_rows().to_parquet(repo / "data" / "users.parquet")
        shop = cls(repo, server)
        shop.define()
        return shop

    def copied(self, repo: Path) -> "LoggedShop":
        """Returns the same shop in another folder, over the same Redis, which is emptied."""
        shutil.copytree(self.repo, repo)
        self.server.client().flushall()
        return LoggedShop(repo, self.server)

    def define(self, view: Any = None, sample_rate: float = 1.0, path: str = LOG) -> None:
        """Applies the shop's definitions, its service logged."""
        declared = objects(view)
        declared[-1].logging_config = LoggingConfig(FileLoggingDestination(path=path), sample_rate)
        self.store.apply(declared)

    def materialize(self, start: datetime = NOW - DAY, end: datetime | None = None) -> None:
        """Materializes all views up to now."""
        self.store.materialize(start, end or self.now())

    def now(self) -> datetime:
        """Returns the clock's instant."""
        return clock_for(self.repo).now()

    def set_clock(self, moment: datetime) -> None:
        """Makes all processes that start from now on believe in a time."""
        restart_clock(self.repo, moment)
        self.store = FeatureStore(repo_path=str(self.repo), config=self.store.config)

    def serve(self, *batches: Sequence[int | None], amount: float = 3.0) -> list[dict[str, Any]]:
        """Looks users up as a server does, one request a batch, and returns the answers once all is logged."""
        return self._served([{"user_id": list(users), "amount": [amount] * len(users)} for users in batches])

    def serve_users(self, *batches: Sequence[int | None]) -> list[dict[str, Any]]:
        """Does the same where the service asks for no amount."""
        return self._served([{"user_id": list(users)} for users in batches])

    def _served(self, requests: Sequence[dict[str, list[Any]]]) -> list[dict[str, Any]]:
        async def serve() -> list[dict[str, Any]]:
            service = StoreService.open(self.repo)
            await service.start()
            answers = []
            for entities in requests:
                answer = await service.lookup(LookupRequest(entities=entities, feature_service="checkout"))
                answers.append(json.loads(answer.content))
            await service.close()
            return answers

        return asyncio.run(serve())

    def audit(self, span: Span | None = None, sample: int | None = None) -> dict[str, Any]:
        """Returns what an audit finds, as its JSON says it."""
        self.store.registry.refresh()
        return as_json(audit(self.store, [], span or Span(), sample))

    def command(self, *arguments: str) -> Any:
        """Runs `larder audit`."""
        return CliRunner().invoke(app, ["audit", "--repo", str(self.repo), *arguments])

    def write_source(self, rows: pd.DataFrame) -> None:
        """Writes the users' file anew."""
        rows.to_parquet(self.repo / "data" / "users.parquet")

    def push(self, rows: pd.DataFrame, to: PushMode = PushMode.ONLINE) -> None:
        """Pushes rows of users."""
        self.store.push("users_push", rows, to=to)

    def row_of(self, user: int) -> tuple[bytes, bytes, bytes]:
        """Returns the Redis key, field and content of a user's stored row."""
        key = entity_key_encoder("shop", (Column("user_id", "INT64"),)).encode([user])
        assert key is not None
        ((field, row),) = self.server.client().hgetall(key).items()
        return key, field, row


def one_user(user: int, moment: datetime, orders: int, created: datetime | None = None) -> pd.DataFrame:
    """Returns one row of a user."""
    rows = user_rows(user).tail(1).reset_index(drop=True)
    rows["event_timestamp"] = [moment]
    rows["created"] = [created or moment]
    rows["orders"] = pd.array([orders], dtype="Int64")
    return rows


def added(rows: pd.DataFrame, more: pd.DataFrame) -> pd.DataFrame:
    """Returns rows with others after them."""
    return pd.concat([rows, more], ignore_index=True)


def features_of(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the features of a report by name."""
    return {feature["feature"]: feature for service in told["services"] for feature in service["features"]}


def causes_of(told: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Returns the causes of skew of each feature that has any; differences without a cause as `None`."""
    found = {}
    for name, feature in features_of(told).items():
        causes = dict(feature["skew"]["causes"])
        if feature["skew"]["without_cause"]:
            causes["None"] = feature["skew"]["without_cause"]
        if causes:
            found[name] = causes
    return found


def lost_of(told: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Returns per feature what can no longer be reproduced, by cause."""
    found = {name: feature["reproduction"]["no_longer_known"] for name, feature in features_of(told).items()}
    return {name: causes for name, causes in found.items() if causes}


def different(told: dict[str, Any]) -> dict[str, int]:
    """Returns the features with differences in reproduction."""
    found = {name: feature["reproduction"]["different"] for name, feature in features_of(told).items()}
    return {name: number for name, number in found.items() if number}


def span(start: datetime | None = None, end: datetime | None = None) -> Span:
    """Returns a span of request times."""
    return Span(None if start is None else to_us(start), None if end is None else to_us(end))


__all__ = ["DAY", "LoggedShop", "user_view"]
