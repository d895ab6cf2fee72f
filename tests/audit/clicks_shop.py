"""A store of clicks on a replayed clock whose service of windowed views is logged, served and audited."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureService
from feast.data_source import PushMode
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination

from cli.audit import as_json
from store.audit.audit import audit
from store.audit.log import Span
from store.feature_store import FeatureStore
from store.replay import replaying
from store.requests import LookupRequest
from store.service import StoreService
from store.stream.context import StreamContext
from store.stream.lines import landed_line
from tests.redis_servers import RedisServer
from tests.stores import config, yaml_of
from tests.stream.shop import COLUMNS, NOW, PAGE, USER, by_page, by_user, landed

__all__ = ["NOW", "ClicksShop", "landed"]


class ClicksShop:
    """A feature repo whose service `clicks` reads the windows of users and of pages, and is logged."""

    def __init__(self, repo: Path, server: RedisServer, views: Sequence[Any] = (), **online: Any) -> None:
        (repo / "data").mkdir(parents=True, exist_ok=True)
        (repo / "feature_store.yaml").write_text(yaml_of(server.url))
        pq.write_table(COLUMNS.empty_table(), repo / "data" / "clicks.parquet")
        self.repo, self.server = repo, server
        self._online = online
        self._stack = ExitStack()
        self._replay = self._stack.enter_context(replaying(repo, NOW))
        self.now = NOW
        self.store = self._opened()
        self.define(*views)

    def _opened(self) -> FeatureStore:
        return FeatureStore(repo_path=str(self.repo), config=config(self.repo, self.server.url, **self._online))

    def close(self) -> None:
        """Ends the replay."""
        self._stack.close()
        self.store._get_provider().online_store.close_synchronous()

    def define(self, *views: Any, is_logged: bool = True) -> None:
        """Applies views, those of users and pages if none is given, and the service of all of them."""
        declared = list(views) or [by_user(), by_page()]
        service = FeatureService(name="clicks", features=declared)
        other = FeatureService(name="other", features=declared)
        if is_logged:
            service.logging_config = LoggingConfig(FileLoggingDestination(path="data/served/clicks"), sample_rate=1.0)
        self.store.apply([USER, PAGE, *declared, service, other])

    def wait(self, passed: timedelta) -> None:
        """Lets time pass."""
        self.now += passed
        self._replay.advance(self.now)

    def set_back(self, passed: timedelta) -> None:
        """Sets the clock to an earlier instant."""
        self._stack.close()
        self.now -= passed
        self._replay = self._stack.enter_context(replaying(self.repo, self.now))

    def accepted(self, view: str) -> list[float]:
        """Returns the worths of all events of a view that are kept, those of one file after the other."""
        files = sorted((self.repo / "data" / "accepted" / view).glob("*/*.parquet"))
        return [worth for file in files for worth in pq.read_table(file).column("__value_worth").to_pylist()]

    def push(self, rows: pd.DataFrame, to: PushMode = PushMode.ONLINE_AND_OFFLINE) -> None:
        """Pushes clicks."""
        self.store.push("clicks", rows, to=to)

    def work(self) -> None:
        """Has all that was pushed applied, landed and kept, by a worker that lives just as long."""
        context = StreamContext(self.repo, self.store.config)
        try:
            landed_line(context, "")
            landed_line(context, "")
        finally:
            context.close()

    def materialize(self, end: datetime | None = None) -> None:
        """Materializes all views."""
        self.store.materialize(self.now - timedelta(days=1), end or self.now)

    def serve(self, users: Sequence[int | None], pages: Sequence[str | None] | None = None) -> dict[str, Any]:
        """Looks users and pages up as a server does, and returns the answer once it is logged."""

        async def serve() -> dict[str, Any]:
            service = StoreService.open(self.repo)
            await service.start()
            entities: dict[str, list[Any]] = {"user_id": list(users)}
            if self.has_pages:
                entities["page"] = list(pages or ["home"] * len(users))
            answer = await service.lookup(LookupRequest(entities=entities, feature_service="clicks"))
            await service.close()
            told: dict[str, Any] = json.loads(answer.content)
            return told

        return asyncio.run(serve())

    @property
    def has_pages(self) -> bool:
        """Whether the service reads a view of pages."""
        names = [p.name for p in self.store.get_feature_service("clicks").feature_view_projections]
        return "page_clicks" in names

    def audit(self, span: Span | None = None) -> dict[str, Any]:
        """Returns what an audit finds, as its JSON says it."""
        self.store.registry.refresh()
        return as_json(audit(self.store, ["clicks"], span or Span()))

    def write_source(self, rows: pd.DataFrame, name: str = "clicks.parquet") -> None:
        """Writes the file of clicks anew, or another one, by a job of the user's own."""
        (self.repo / "data" / name).parent.mkdir(exist_ok=True)
        columns = [pa.array(rows[field.name], field.type, from_pandas=False) for field in COLUMNS]
        pq.write_table(pa.table(columns, schema=COLUMNS), self.repo / "data" / name)
