"""The catalogue of a registry: Feast's objects as the plain values of `store.catalogue`."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from feast import FeatureStore
from feast.data_source import KafkaSource, PushSource, RequestSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_NAME
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.stream_feature_view import StreamFeatureView

from store.batch_aggregations import TAG
from store.catalogue import (
    Catalogue,
    DataSource,
    Entity,
    Feature,
    Selection,
    Service,
    TrainingSet,
    View,
    Window,
)
from store.errors import DefinitionError
from store.transformations_from_feast import has_transformation
from store.windows_from_feast import windows_of

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
"""What stands between scheme and host of a URL, which may be a password."""

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z][a-z0-9]*|[a-z0-9]+")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Object = TypeVar("Object")


def catalogue_of(store: FeatureStore, version: str) -> Catalogue:
    """Returns the catalogue of the registry that a store holds in its cache."""
    registry, project = store.registry, store.project
    sources = [source for source in registry.list_data_sources(project, allow_cache=True) if source.name]
    views = _by_name(_view(view) for view in registry.list_all_feature_views(project, allow_cache=True))
    entities = (each for each in registry.list_entities(project, allow_cache=True) if each.name != DUMMY_ENTITY_NAME)
    services = registry.list_feature_services(project, allow_cache=True)
    training_sets = registry.list_saved_datasets(project, allow_cache=True)
    return Catalogue(
        project=project,
        version=version,
        entities=_by_name(_entity(each) for each in entities),
        sources=_by_name(_source(each) for each in sources),
        views=views,
        services=_by_name(_service(each) for each in services),
        training_sets=_by_name(_training_set(each) for each in training_sets),
    )


def _by_name(described: Iterable[Object]) -> dict[str, Object]:
    found: dict[str, Object] = {each.name: each for each in described}  # type: ignore[attr-defined]
    return dict(sorted(found.items()))


def _told(declared: Any) -> dict[str, Any]:
    tags = {str(name): str(value) for name, value in (getattr(declared, "tags", None) or {}).items() if name != TAG}
    return {
        "name": declared.name,
        "description": getattr(declared, "description", "") or "",
        "owner": getattr(declared, "owner", "") or "",
        "tags": tags,
    }


def _words(class_name: str) -> str:
    """Returns a class's name in words: `OnDemandFeatureView` is an on-demand feature view."""
    return " ".join(_WORD.findall(class_name)).lower().replace("on demand", "on-demand")


def _entity(entity: Any) -> Entity:
    return Entity(**_told(entity), join_keys=((entity.join_key, entity.value_type.name.title()),))


# --- sources ----------------------------------------------------------------------------------


def _source(source: Any) -> DataSource:
    is_request = isinstance(source, RequestSource)
    batch_source = getattr(source, "batch_source", None)
    return DataSource(
        **_told(source),
        kind=_words(type(source).__name__),
        location=_CREDENTIALS.sub("", _location(source)),
        timestamp_field=source.timestamp_field or "",
        created_timestamp_column=source.created_timestamp_column or "",
        field_mapping=dict(source.field_mapping or {}),
        columns=tuple((each.name, str(each.dtype)) for each in source.schema) if is_request else (),
        batch_source=batch_source.name if batch_source is not None else "",
    )


def _location(source: Any) -> str:
    if isinstance(source, KafkaSource):
        return f"topic {source.kafka_options.topic} on {source.kafka_options.kafka_bootstrap_servers}"
    if isinstance(source, PushSource | RequestSource):
        return ""
    path = getattr(source, "path", None) or getattr(source, "table", None)
    return str(path or "")


# --- views ------------------------------------------------------------------------------------


def _view(view: Any) -> View:
    is_on_demand = isinstance(view, OnDemandFeatureView)
    windows, problem = _windows(view)
    join_keys = tuple(
        (each.name, str(each.dtype))
        for each in getattr(view, "entity_columns", ())
        if each.name != DUMMY_ENTITY_ID
    )  # fmt: skip
    key_names = {name for name, _ in join_keys}
    features = [_feature(view, each, windows) for each in view.features if each.name not in key_names]
    if isinstance(view, StreamFeatureView):
        # Feast's registry gives them in another order after each apply.
        features.sort(key=lambda feature: feature.name)
    ttl = getattr(view, "ttl", None) or timedelta(0)
    intervals = getattr(view, "materialization_intervals", ())
    return View(
        **_told(view),
        kind=_words(type(view).__name__),
        entities=tuple(name for name in getattr(view, "entities", None) or () if name != DUMMY_ENTITY_NAME),
        join_keys=join_keys,
        features=tuple(features),
        sources=_sources_of(view),
        inputs=tuple(sorted(view.source_feature_view_projections)) if is_on_demand else (),
        ttl_us=ttl // timedelta(microseconds=1),
        # What is not stored is computed when it is asked for.
        is_online=is_on_demand or bool(getattr(view, "online", True)),
        mode=_mode(view),
        function=_function(view),
        version=getattr(view, "current_version_number", None) or 0,
        materialized_until=_instant(max((end for _, end in intervals), default=None)),
        created=_instant(view.created_timestamp),
        updated=_instant(view.last_updated_timestamp),
        problem=problem,
    )


def _windows(view: Any) -> tuple[dict[str, Window], str]:
    try:
        return {
            each.name: Window("_".join(filter(None, each.function)), each.column, each.window_us, each.hop_us)
            for each in windows_of(view)
        }, ""
    except DefinitionError as error:
        return {}, str(error)


def _feature(view: Any, declared: Any, windows: Mapping[str, Window]) -> Feature:
    told = _told(declared) | {"owner": getattr(view, "owner", "") or ""}
    return Feature(**told, view=view.name, type_name=str(declared.dtype), window=windows.get(declared.name))


def _sources_of(view: Any) -> tuple[str, ...]:
    if isinstance(view, OnDemandFeatureView):
        return tuple(sorted(source.name for source in view.source_request_sources.values()))
    declared = (getattr(view, "stream_source", None), getattr(view, "batch_source", None))
    return tuple(dict.fromkeys(source.name for source in declared if source is not None and source.name))


def _mode(view: Any) -> str:
    if not isinstance(view, OnDemandFeatureView) and not has_transformation(view):
        return ""
    mode = getattr(view, "mode", "") or ""
    return str(getattr(mode, "value", mode))


def _function(view: Any) -> str:
    transformation = getattr(view, "feature_transformation", None)
    if transformation is None or not (isinstance(view, OnDemandFeatureView) or has_transformation(view)):
        return ""
    return str(getattr(transformation, "udf_string", "") or getattr(transformation, "sql", "") or "")


# --- services and training sets ---------------------------------------------------------------


def _service(service: Any) -> Service:
    logging = service.logging_config
    return Service(
        **_told(service),
        selections=tuple(
            Selection(
                view=projection.name,
                features=tuple(each.name for each in projection.features),
                alias=projection.name_alias or "",
                join_key_map=dict(projection.join_key_map or {}),
            )
            for projection in service.feature_view_projections
        ),
        sample_rate=None if logging is None else float(logging.sample_rate),
        log_location="" if logging is None else _CREDENTIALS.sub("", str(getattr(logging.destination, "path", ""))),
        created=_instant(service.created_timestamp),
        updated=_instant(service.last_updated_timestamp),
    )


def _training_set(saved: Any) -> TrainingSet:
    options = getattr(saved.storage, "file_options", None)
    return TrainingSet(
        **_told(saved),
        references=tuple(saved.features or ()),
        join_keys=tuple(saved.join_keys or ()),
        location=_CREDENTIALS.sub("", str(getattr(options, "uri", "") or "")),
        service=saved.feature_service_name or "",
        is_fully_named=bool(saved.full_feature_names),
        earliest=_lazily(lambda: saved.min_event_timestamp),
        latest=_lazily(lambda: saved.max_event_timestamp),
        created=_instant(saved.created_timestamp),
    )


def _lazily(read: Callable[[], datetime | None]) -> datetime | None:
    """Returns what Feast raises an error for where it was never set."""
    try:
        return _instant(read())
    except ValueError:
        return None


def _instant(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    in_utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    # Feast reads a time that was never set as the epoch.
    return in_utc if in_utc > _EPOCH else None
