"""Where the events of a push source go: the windowed views that they feed, and by whose entity keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import structlog
from feast import FeatureStore
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from store.definitions_from_feast import batch_source_of, view_definition
from store.errors import DefinitionError
from store.feast_values import plain_from_arrow
from store.kernel.definitions import ViewDefinition
from store.kernel.keys import EntityKeyEncoder, entity_key_encoder
from store.kernel.log_entries import EntitySet
from store.kernel.windows import input_columns
from store.offline.row_transformations import RowTransformation, transformation_of
from store.offline.sources import file_source
from store.offline.window_columns import check_window_columns
from store.windows_from_feast import is_windowed

_log = structlog.get_logger("larder.ingest")


def entity_set_of(definition: ViewDefinition) -> EntitySet:
    """Returns what is the same for views that have the same entity keys."""
    return tuple(sorted(f"{column.name}:{column.type_name}" for column in definition.join_keys))


@dataclass(frozen=True)
class KeyReader:
    """Makes the entity keys of a table's rows."""

    definition: ViewDefinition

    @cached_property
    def _encoder(self) -> EntityKeyEncoder:
        return entity_key_encoder(self.definition.project, self.definition.join_keys)

    def keys(self, table: pa.Table) -> list[bytes | None]:
        """Returns the entity key of each row, None where a part of it is null.

        Raises:
            WrongType, TooLarge: a value that can be no key.
        """
        types = {column.name: column for column in self.definition.join_keys}
        if not types.keys() <= set(table.column_names):
            # Rows from before the view was declared.
            return [None] * table.num_rows
        columns = [plain_from_arrow(types[name], table.column(name)) for name in self._encoder.names]
        if len(columns) != 1 or set(map(type, columns[0])) == {int}:
            return self._encoder.encode_all(columns, table.num_rows)
        # Events come in bursts of few keys, and texts are encoded one by one. NaNs are no key, and each is its own.
        known = {value: self._encoder.encode((value,)) for value in set(columns[0])}
        return [known[value] for value in columns[0]]


@dataclass(frozen=True)
class StreamedView:
    """A windowed view that a push source feeds."""

    definition: ViewDefinition
    entity_set: EntitySet
    inputs: tuple[str, ...]
    transformation: RowTransformation | None = None

    @classmethod
    def of(cls, definition: ViewDefinition, transformation: RowTransformation | None = None) -> "StreamedView":
        """Returns the view of a definition, and what rows go through before they are its events."""
        return cls(definition, entity_set_of(definition), input_columns(definition.windows), transformation)

    @property
    def name(self) -> str:
        """Its name."""
        return self.definition.name


@dataclass(frozen=True)
class Route:
    """What becomes of the rows of one push source.

    Attributes:
        home: the entity set by which rows get their first partition: of the first windowed view by name, else of the
            first view.
        readers: of the entity keys, by entity set, `home` among them.
        timestamp_field: its name in the views; `created` likewise, "" where there is none.
    """

    push_source: str
    source: FileSource
    home: EntitySet
    views: tuple[StreamedView, ...]
    readers: dict[EntitySet, KeyReader]
    timestamp_field: str
    created: str

    def views_of(self, entity_set: EntitySet) -> list[StreamedView]:
        """Returns the windowed views of an entity set."""
        return [view for view in self.views if view.entity_set == entity_set]

    def other_sets(self, entity_set: EntitySet) -> list[EntitySet]:
        """Returns the entity sets of windowed views but for one, each once, in the order of their views."""
        return list(dict.fromkeys(view.entity_set for view in self.views if view.entity_set != entity_set))


def check_inputs(route: Route, schema: pa.Schema) -> None:
    """Checks that the columns that windows aggregate are there, and of types that their functions take.

    Args:
        schema: of the batch source.

    Raises:
        DefinitionError, SourceColumnMissing: as `check_window_columns`.
    """
    for view in route.views:
        columns = schema if view.transformation is None else view.transformation.output_in_file(schema)
        check_window_columns(view.definition, columns)


def route_of(config: RepoConfig, push_source: str, views: Sequence[Any]) -> Route:
    """Returns the route of a push source's rows.

    Args:
        views: Feast's views that it feeds, at least one, by name.

    Raises:
        DefinitionError: a view that cannot be served as declared, or a batch source that is no file source.
    """
    is_versioned = config.registry.enable_online_feature_view_versioning
    source = file_source(batch_source_of(views[0]), f"feature view {views[0].name!r}")
    definitions = [view_definition(config.project, view, is_versioned=is_versioned) for view in views]
    windowed = tuple(
        StreamedView.of(definition, transformation_of(view))
        for definition, view in zip(definitions, views, strict=True)
        if is_windowed(view)
    )  # fmt: skip
    first = windowed[0].definition if windowed else definitions[0]
    readers = {entity_set_of(first): KeyReader(first)}
    for view in windowed:
        readers.setdefault(view.entity_set, KeyReader(view.definition))
    mapping = source.field_mapping or {}
    created = source.created_timestamp_column or ""
    return Route(
        push_source=push_source,
        source=source,
        home=entity_set_of(first),
        views=windowed,
        readers=readers,
        timestamp_field=mapping.get(source.timestamp_field, source.timestamp_field),
        created=mapping.get(created, created),
    )


def logged_windows(store: FeatureStore) -> dict[str, ViewDefinition]:
    """Returns the windowed views that any logged feature service reads, by their names in Redis.

    One that cannot be served as declared is none of them, and keeps no worker from its work.
    """
    views = {view.name: view for view in store.list_all_feature_views()}
    wanted: dict[str, Any] = {}
    for service in store.list_feature_services():
        if service.logging_config is None:
            continue
        for projection in service.feature_view_projections:
            view = views.get(projection.name)
            # An on-demand view reads others, whose values are logged with its own.
            sources = getattr(view, "source_feature_view_projections", {})
            for name in (projection.name, *(source.name for source in sources.values())):
                if name in views and is_windowed(views[name]):
                    wanted[name] = views[name]
    is_versioned = store.config.registry.enable_online_feature_view_versioning
    logged: dict[str, ViewDefinition] = {}
    for view in wanted.values():
        try:
            definition = view_definition(store.project, view, is_versioned=is_versioned)
        except DefinitionError as error:
            _log.error("events of a logged view are not kept", view=view.name, reason=str(error))
        else:
            logged[definition.name] = definition
    return logged
