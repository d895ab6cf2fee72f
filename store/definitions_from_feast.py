"""Feast's objects as Larder's own definitions, so that everything below works without Feast."""

from datetime import timedelta
from typing import Any

from feast.batch_feature_view import BatchFeatureView
from feast.data_source import PushSource
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.online_stores.helpers import compute_versioned_name

from store.errors import DefinitionError
from store.kernel.definitions import Column, SourceDefinition, ViewDefinition
from store.transformations_from_feast import has_transformation, refuse_transformation, transformation_text
from store.windows_from_feast import is_external, is_windowed, windows_of


def view_definition(project: str, view: Any, *, is_versioned: bool = False) -> ViewDefinition:
    """Returns the definition of a feature view, stream or batch view, or a stored on-demand view.

    Args:
        project: the Feast project.
        view: Feast's object, as declared or as read back from the registry (which lists the join keys of a
            stream view among its features, in changing order: they are left out here).
        is_versioned: whether the registry gives each version of a view its own online rows.
    """
    join_keys = join_key_columns(view)
    names = {column.name for column in join_keys}
    return ViewDefinition(
        project=project,
        name=compute_versioned_name(view, is_versioned),
        join_keys=join_keys,
        features=tuple(sorted(
            (column_of(field) for field in view.features if field.name not in names), key=lambda column: column.name
        )),
        ttl_us=ttl_us(view),
        source=_source_definition(view),
        windows=windows_of(view),
        transformation=transformation_text(view),
        is_external=is_external(view),
    )  # fmt: skip


def join_key_columns(view: Any) -> tuple[Column, ...]:
    """Returns a view's join keys in entity order; none for a view without entities (Feast's dummy is left out)."""
    return tuple(column_of(field) for field in view.entity_columns if field.name != DUMMY_ENTITY_ID)


def column_of(field: Any) -> Column:
    """Returns a Feast field's name and the name of its value type."""
    return Column(field.name, field.dtype.to_value_type().name)


def ttl_us(view: Any) -> int:
    """Returns a view's time to live in microseconds, 0 for no limit (Feast: None or a zero timedelta)."""
    ttl = getattr(view, "ttl", None) or timedelta(0)
    return ttl // timedelta(microseconds=1)


def batch_source_of(view: Any) -> Any:
    """Returns the batch source behind a view's declared source, None if there is none."""
    source = getattr(view, "batch_source", None)
    return source.batch_source if isinstance(source, PushSource) else source


def refuse_unsupported(view: Any) -> None:
    """Raises DefinitionError for a view that cannot be computed as declared, or whose ttl is negative."""
    if ttl_us(view) < 0:
        raise DefinitionError(
            f"feature view {view.name!r}: its ttl {view.ttl} is negative; leave it out, or 0, for no limit"
        )
    if is_windowed(view):
        _check_windowed(view)
    if has_transformation(view):
        refuse_transformation(view)


def _check_windowed(view: Any) -> None:
    windows_of(view)
    is_external(view)
    source = batch_source_of(view)
    if source is None:
        raise DefinitionError(
            f"feature view {view.name!r} aggregates over time windows and has no batch source; declare one, whose rows "
            "are the events"
        )
    if isinstance(view, BatchFeatureView) and not view.online:
        raise DefinitionError(
            f"feature view {view.name!r} aggregates over time windows and has online=False, which is Feast's default "
            "for a BatchFeatureView; declare it with online=True"
        )
    mapped = (source.field_mapping or {}).get(source.timestamp_field, source.timestamp_field)
    declared = getattr(view, "timestamp_field", "")
    if declared and declared not in (source.timestamp_field, mapped):
        raise DefinitionError(
            f"feature view {view.name!r} has timestamp_field {declared!r}, its batch source {source.name!r} has "
            f"{source.timestamp_field!r}; name the same column in both, or the two sides would count different events"
        )


def _source_definition(view: Any) -> SourceDefinition | None:
    source = batch_source_of(view)
    if source is None:
        return None
    path = getattr(source, "path", None)
    if path is None:
        path = source.name
    if not source.timestamp_field:
        raise DefinitionError(
            f"feature view {view.name!r}: its source {source.name!r} has no timestamp_field; "
            "declare the column that holds the event time"
        )
    return SourceDefinition(
        path=path,
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column or "",
        field_mapping=tuple(sorted((source.field_mapping or {}).items())),
    )
