"""Feast's `FeatureStore` with the calls that its class keeps from plug-ins."""

import asyncio
from typing import Any

import feast
import pandas as pd
from feast.data_source import PushMode, PushSource

from store.clock import clock_for
from store.errors import UnknownObject
from store.limits import PUSH_SECONDS_MAX
from store.online import RedisOnlineStore, repo_path_of
from store.online.rows import write_pushed
from store.pushing import Landing, Push, checked_push
from store.requests import PushRequest
from store.stream.appending import PreparedPush


class FeatureStore(feast.FeatureStore):
    """Feast's `FeatureStore` whose pushes are checked whole, land once per batch source, and feed windowed views.

    The stock class works as well, but it lands a push once per feature view that the source feeds, writes what it has
    checked row by row, and raises KeyError for a source that feeds a windowed view.
    """

    def push(
        self,
        push_source_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,
        to: PushMode = PushMode.ONLINE,
        transform_on_write: bool = True,
    ) -> None:
        """Pushes rows to all feature views of a push source.

        Raises:
            UnknownObject: no feature view has such a push source.
            PushedRowsError: a row that does not fit the batch source; nothing was written.
            SourceError, OutOfSpace: the rows cannot land; nothing was written.
            OnlineStoreError: Redis failed, maybe in the middle; no row has landed, so the push can be repeated.
        """
        online = self._get_provider().online_store
        if not isinstance(online, RedisOnlineStore):
            super().push(push_source_name, df, allow_registry_cache, to, transform_on_write)
            return
        push = self._checked(push_source_name, df, to, is_cached=allow_registry_cache)
        landing = Landing(self.config, push)
        try:
            session, knowledge = online.session(self.config), online.knowledge(self.project)
            for write in push.writes:
                ttl_seconds = self.config.online_store.key_ttl_seconds
                session.hold(write_pushed(knowledge, write, ttl_seconds, session.slot_of()), PUSH_SECONDS_MAX)
            if push.logged is not None:
                prepared = PreparedPush(push.logged, self.config.online_store.stream_partitions)
                session.hold(prepared.converse(knowledge, online.clock(self.config).now_us()), PUSH_SECONDS_MAX)
        except BaseException:
            landing.discard()
            raise
        landing.publish()

    async def push_async(
        self,
        push_source_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,
        to: PushMode = PushMode.ONLINE,
        **kwargs: Any,
    ) -> None:
        """Pushes rows to all feature views of a push source, like `push`."""
        online = self._get_provider().online_store
        if not isinstance(online, RedisOnlineStore):
            await super().push_async(push_source_name, df, allow_registry_cache, to, **kwargs)
            return
        push = await asyncio.to_thread(self._checked, push_source_name, df, to, is_cached=allow_registry_cache)
        landing = await asyncio.to_thread(Landing, self.config, push)
        try:
            session, knowledge = await online.async_session(self.config), online.knowledge(self.project)
            for write in push.writes:
                ttl_seconds = self.config.online_store.key_ttl_seconds
                await session.hold(write_pushed(knowledge, write, ttl_seconds, session.slot_of()), PUSH_SECONDS_MAX)
            if push.logged is not None:
                partitions = self.config.online_store.stream_partitions
                prepared = await asyncio.to_thread(PreparedPush, push.logged, partitions)
                now_us = online.clock(self.config).now_us()
                await session.hold(prepared.converse(knowledge, now_us), PUSH_SECONDS_MAX)
        except BaseException:
            landing.discard()
            raise
        await asyncio.to_thread(landing.publish)

    def _checked(self, name: str, df: pd.DataFrame, to: PushMode, *, is_cached: bool) -> Push:
        views = pushed_views(self, name, is_cached=is_cached)
        target = {PushMode.ONLINE: "online", PushMode.OFFLINE: "offline"}.get(to, "online_and_offline")
        request = PushRequest(name, {str(column): df[column].tolist() for column in df.columns}, target)
        return checked_push(self.config, request, views, clock_for(repo_path_of(self.config)).now_us())


def pushed_views(
    store: feast.FeatureStore, name: str, *, is_cached: bool = True, kinds: tuple[type, ...] = (PushSource,)
) -> list[Any]:
    """Returns the feature views that a push source feeds, by name.

    Args:
        kinds: of stream sources that count.

    Raises:
        UnknownObject: there is none.
    """
    views = [
        *store.list_feature_views(allow_cache=is_cached),
        *store.list_stream_feature_views(allow_cache=is_cached),
    ]
    fed = [view for view in views if isinstance(view.stream_source, kinds) and _name_of(view.stream_source) == name]
    if not fed:
        raise UnknownObject(
            f"push source {name!r} feeds no feature view of project {store.project!r}; "
            "declare it as the source of a view and run 'feast apply', or correct the name"
        )
    return sorted(fed, key=lambda view: view.name)


def _name_of(source: Any) -> str:
    return str(source.name)
