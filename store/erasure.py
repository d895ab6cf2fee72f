"""Erasure of one entity's rows from all that Larder owns, Redis and landed files; the user's own are only told."""

import struct
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feast import FeatureStore
from feast.infra.offline_stores.file_source import FileSource

from store.audit.erasures import Erasures
from store.clock import clock_for
from store.definitions_from_feast import batch_source_of, join_key_columns, view_definition
from store.entity_key_text import parse_key_text, typed_key
from store.errors import ConfigError, InputError, SourceError, UnknownObject, WrongType
from store.kernel.definitions import Column
from store.kernel.keys import encode_value
from store.offline.accepted_events import accepted_folder
from store.offline.erasure import (
    FileRows,
    KeyPart,
    WantedKey,
    erase_landed,
    landed_rows,
    rows_of_files,
    users_rows,
)
from store.offline.sources import landed_folder, resolve_path
from store.offline.transformed_files import forget_transformed, transformed_paths
from store.online import RedisOnlineStore, RedisOnlineStoreConfig, repo_path_of
from store.online.erasure import KeysAndRows, count_keys, erase_keys, rows_looked_up
from store.online.views import lease
from store.stream.context import StreamContext
from store.stream.erasing import StreamRows, StreamSearch, WantedEvent, WantedPart
from store.transformations_from_feast import has_transformation


@dataclass(frozen=True, slots=True)
class Holdings:
    """What holds rows of an entity.

    `landed` are files of Larder's, transformed ones among them; `users` are files that it never changes, and `unread`
    says of which of these it cannot be told, and why. `stream` are rows on their way: in the event log, in inboxes, and
    dead letters.
    """

    redis: KeysAndRows
    landed: tuple[FileRows, ...]
    users: tuple[FileRows, ...]
    unread: tuple[str, ...]
    stream: StreamRows

    @property
    def is_clean(self) -> bool:
        """Whether Larder itself holds none."""
        return not self.redis.keys and not self.landed and not self.stream.total


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure removed, and the proof: what is held after it, and what lookups of the erased keys found."""

    redis: KeysAndRows
    landed: tuple[FileRows, ...]
    after: Holdings
    looked_up_keys: int
    looked_up_rows: int
    stream: StreamRows

    @property
    def is_proven(self) -> bool:
        """Whether nothing remains in what Larder owns, and the user's own files could be searched."""
        return self.after.is_clean and not self.looked_up_rows and not self.after.unread


class Eraser:
    """Finds and erases the rows of all views whose entity key contains some columns with some values.

    Attributes:
        views: the feature views that have all of these columns as join keys.
    """

    def __init__(self, store: FeatureStore, key_text: str) -> None:
        """Reads `column=value[,column=value]` by the declared types of the join keys.

        Raises:
            InputError: no column is given.
            UnknownObject: no feature view has these columns as join keys.
            WrongType: a value fits the type of none of them.
            ConfigError: the online store is not Larder's.
        """
        if not isinstance(store.config.online_store, RedisOnlineStoreConfig):
            raise ConfigError(
                f"online_store type {store.config.online_store.type!r} cannot be erased from; use "
                "store.online.RedisOnlineStore"
            )
        self._config = store.config
        self._project = store.project
        self._online = RedisOnlineStore()
        texts = parse_key_text(key_text)
        self._columns = frozenset(texts)
        self._keys = _keys_of_views(store, texts)
        self.views = sorted(self._keys)
        named = _stored_names(store, self.views)
        self._declared, self._stored_names = list(named), list(named.values())
        self._wanted_parts = _distinct(
            {c.name: encode_value(c.name, c.type_name, value) for c, value in key.items()}
            for key in self._keys.values()
        )
        self._sources = self._files(store)
        self._store = store
        self._transformed = self._transformed_views(store)

    def _search(self) -> StreamSearch:
        return StreamSearch(self._online.session(self._config), self._store, self._wanted_events())

    def _wanted_events(self) -> list[WantedEvent]:
        """Returns the keys as rows on their way have them: under the names of the views or of the files."""
        wanted: dict[WantedEvent, None] = {}
        for view in self._store.list_all_feature_views():
            if view.name in self._keys:
                mapping = getattr(batch_source_of(view), "field_mapping", None) or {}
                in_file = {in_view: name for name, in_view in mapping.items()}
                parts = [
                    WantedPart(c, frozenset({c.name, in_file.get(c.name, c.name)}), value)
                    for c, value in self._keys[view.name].items()
                ]
                wanted[tuple(parts)] = None
        return list(wanted)

    def holdings(self) -> Holdings:
        """Returns what holds such rows now; nothing is changed.

        Raises:
            SourceError: a landed file cannot be read.
            OnlineStoreError: Redis cannot serve.
        """
        redis = count_keys(self._online.session(self._config), self._project, self._wanted_parts)
        landed = [found for folder, wanted in self._folders().items() for found in landed_rows(folder, wanted)]
        for view, wanted in self._transformed.items():
            landed += rows_of_files(transformed_paths(self._config, view), wanted)
        users: dict[str, FileRows] = {}
        unread = []
        for source, wanted in self._sources.values():
            try:
                users |= {found.path: found for found in users_rows(self._config, source, wanted)}
            except SourceError as error:
                unread.append(str(error))
        return Holdings(redis, tuple(landed), tuple(users.values()), tuple(unread), self._search().count())

    def erase(self) -> Erasure:
        """Erases them, then looks whether any are left.

        Meanwhile no view of them is materialized, which would write rows back that it has read before. What is pushed
        meanwhile may stay, and is then told as held after it.

        Raises:
            MaterializationBusy: one is being materialized; nothing was erased.
            SourceError, OutOfSpace: a landed file cannot be replaced; those before it were.
            OnlineStoreError: Redis cannot serve, or events in the log cannot land; what was erased until then is.
        """
        session = self._online.session(self._config)
        with ExitStack() as leases:
            for name in self._stored_names:
                leases.enter_context(lease(session, self._project, name))
            stream = self._erase_stream()
            # Files first: rows that are only in Redis cannot come back, those of files could.
            landed = [row for folder, wanted in self._folders().items() for row in erase_landed(folder, wanted)]
            for view, wanted in self._transformed.items():
                # Whoever needs them makes them anew, of what is left.
                landed += rows_of_files(transformed_paths(self._config, view), wanted)
                forget_transformed(self._config, view)
            redis = erase_keys(session, self._project, self._wanted_parts)
        # An audit will not find what was served from these rows, and has to know why.
        repo = repo_path_of(self._config)
        Erasures(repo).note(clock_for(repo).now_us(), self._columns)
        knowledge = self._online.knowledge(self._project)
        found = rows_looked_up(session, knowledge, self._stored_names, redis.examples)
        return Erasure(redis, tuple(landed), self.holdings(), len(redis.examples), found, stream)

    def _erase_stream(self) -> StreamRows:
        search = self._search()
        if not search.has_log():
            return search.erase(None)
        context = StreamContext(repo_path_of(self._config), self._config)
        try:
            return search.erase(context)
        finally:
            context.close()

    def _files(self, store: FeatureStore) -> dict[Any, tuple[FileSource, list[WantedKey]]]:
        """Returns the file sources of the views, each once, with the keys as its files have them."""
        sources: dict[Any, tuple[FileSource, list[WantedKey]]] = {}
        for view in store.list_all_feature_views():
            source = batch_source_of(view)
            if view.name not in self._keys or not isinstance(source, FileSource):
                continue
            in_file = {in_view: name for name, in_view in source.field_mapping.items()}
            key = tuple(
                KeyPart(Column(in_file.get(c.name, c.name), c.type_name), _as_materialized(c, value))
                for c, value in self._keys[view.name].items()
            )
            path = resolve_path(self._config, source.path)
            _, wanted = sources.setdefault((path, repr(source.file_format)), (source, []))
            if key not in wanted:
                wanted.append(key)
        return sources

    def _transformed_views(self, store: FeatureStore) -> dict[str, list[WantedKey]]:
        """Returns the views of which transformed files of these sources are kept, with the keys as files have them."""
        found = {}
        for view in store.list_all_feature_views():
            source = batch_source_of(view)
            if has_transformation(view) and isinstance(source, FileSource):
                known = self._sources.get((resolve_path(self._config, source.path), repr(source.file_format)))
                if known is not None:
                    found[view.name] = known[1]
        return found

    def _folders(self) -> dict[Path, list[WantedKey]]:
        folders: dict[Path, list[WantedKey]] = {}
        for (path, _), (_, wanted) in self._sources.items():
            folders.setdefault(landed_folder(path), []).extend(wanted)
        # Events that are kept for audits lie under the names of the views.
        for stored_name, view in zip(self._stored_names, self._declared, strict=True):
            kept = tuple(KeyPart(c, _as_materialized(c, value)) for c, value in self._keys[view].items())
            for folder in accepted_folder(repo_path_of(self._config), stored_name).glob("*"):
                if folder.is_dir():
                    folders.setdefault(folder, []).append(kept)
        return folders


def _keys_of_views(store: FeatureStore, texts: Mapping[str, str]) -> dict[str, dict[Column, Any]]:
    """Returns the typed values by view, for all views that have the columns as join keys."""
    if not texts:
        raise InputError("no column was given to erase by; write column=value[,column=value]")
    join_keys = {
        view.name: {column.name: column for column in join_key_columns(view)}
        for view in store.list_all_feature_views()
        if hasattr(view, "entity_columns")
    }
    known = sorted({name for columns in join_keys.values() for name in columns})
    for name in texts:
        if name not in known:
            raise UnknownObject(f"no feature view has a join key {name!r}; the join keys are {known}")
    found: dict[str, dict[Column, Any]] = {}
    misfit: WrongType | None = None
    for view, columns in join_keys.items():
        if not texts.keys() <= columns.keys():
            continue
        try:
            typed = typed_key([columns[name] for name in texts], texts)
        except WrongType as error:
            # A view whose keys are of another type holds no such key; another view may.
            misfit = error
        else:
            found[view] = {columns[name]: value for name, value in typed.items()}
    if not found:
        raise misfit or UnknownObject(
            f"no feature view has all of the join keys {sorted(texts)}; erase them one by one"
        )
    return found


def _stored_names(store: FeatureStore, views: list[str]) -> dict[str, str]:
    """Returns the names in Redis of some views, by their names."""
    is_versioned = store.config.registry.enable_online_feature_view_versioning
    return {
        view.name: view_definition(store.project, view, is_versioned=is_versioned).name
        for view in store.list_all_feature_views()
        if view.name in views
    }


def _as_materialized(column: Column, value: Any) -> Any:
    """Returns a key value as a materialization takes it from a file: a 32-bit float is rounded."""
    return struct.unpack("<f", struct.pack("<f", value))[0] if column.type_name == "FLOAT" else value


def _distinct(wanted: Any) -> list[dict[str, bytes]]:
    return list({tuple(sorted(parts.items())): parts for parts in wanted}.values())
