"""Answers to "why": one entity key of one view, as lookups have it and as training would, side by side."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feast import FeatureStore
from feast.errors import FeastObjectNotFoundException, FeatureViewNotFoundException
from feast.repo_config import RepoConfig

from store.definitions_from_feast import batch_source_of
from store.entity_key_text import parse_key_text, typed_key
from store.errors import ConfigError, InputError, MissingJoinKey, UnknownObject
from store.kernel.codec import RowTimes
from store.kernel.definitions import Column, ViewDefinition
from store.kernel.reasons import OnlineSide, Reason, reason_for_rows, reason_for_values
from store.offline import DuckDBOfflineStoreConfig
from store.offline.trained_row import TrainedRow, trained_row
from store.online import RedisOnlineStore, RedisOnlineStoreConfig
from store.online.inspection import Inspection, inspect
from store.online.plan import ViewRead, compile_plan
from store.online.stored_rows import NOT_FOUND, PRESENT
from store.windows_from_feast import is_windowed


@dataclass(frozen=True, slots=True)
class ExplainedFeature:
    """One feature on both sides.

    `online` and `training` are plain values, None where there is none or it is withheld; `reason` says why they
    differ, None where they agree.
    """

    column: Column
    online: Any
    status: str
    training: Any
    reason: Reason | None

    @property
    def agrees(self) -> bool:
        """Whether a model is served what it was trained on."""
        return self.reason is None


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of one entity key of a view at one time.

    `training_times` are those of the row that training sees, None for none; `reason` says why the two rows are the
    same or not, which is more than the features tell: equal values may come from different rows.
    """

    view: str
    key: Mapping[str, Any]
    definition: ViewDefinition
    at_us: int
    inspection: Inspection
    training_times: RowTimes | None
    reason: Reason
    features: tuple[ExplainedFeature, ...]

    @property
    def agrees(self) -> bool:
        """Whether all features agree."""
        return all(feature.agrees for feature in self.features)


def explain(store: FeatureStore, view_name: str, key_text: str, at_us: int | None = None) -> Explanation:
    """Returns what is served online and what training would see for one entity key of a view, and why they differ.

    Args:
        key_text: the entity key as `column=value[,column=value]`.
        at_us: the time as of which to compare, microseconds since the Unix epoch; the repo's clock by default.

    Raises:
        UnknownObject: no such view, or a column that is none of its join keys.
        MissingJoinKey, WrongType, InputError: the key does not say one of the view's.
        InputError: the view is computed at request time, or windowed.
        ConfigError: online or offline store are not Larder's.
        SourceError, OnlineStoreError: a side cannot be read.
    """
    config = store.config
    _require_own_stores(config)
    view = _view(store, view_name)
    read = _read_of(store, view)
    key = _key(read, key_text)
    online = RedisOnlineStore()
    clock_us = online.clock(config).now_us()
    moment_us = clock_us if at_us is None else at_us
    encoded = read.encoder.encode([key[name] for name in read.encoder.names])
    assert encoded is not None, "no value of a typed key is null"
    session = online.session(config)
    try:
        inspection = session.hold(inspect(online.knowledge(config.project), read, encoded, moment_us))
    finally:
        session.close()
    trained = _trained(store, view, key, moment_us)
    side = _side(inspection, read, config)
    reason = reason_for_rows(side, trained.times, at_us=moment_us, ttl_us=read.ttl_us)
    features = _compared(read, inspection, trained, reason, side)
    return Explanation(view_name, key, read.definition, moment_us, inspection, trained.times, reason, features)


def _require_own_stores(config: RepoConfig) -> None:
    for name, own in (("online_store", RedisOnlineStoreConfig), ("offline_store", DuckDBOfflineStoreConfig)):
        setting = getattr(config, name)
        if not isinstance(setting, own):
            raise ConfigError(
                f"{name} type {setting.type!r} cannot be explained; use {own.model_fields['type'].default}"
            )


def _view(store: FeatureStore, name: str) -> Any:
    try:
        view = store.registry.get_any_feature_view(name, store.project, allow_cache=True)
    except (FeatureViewNotFoundException, FeastObjectNotFoundException) as error:
        known = sorted(view.name for view in store.list_all_feature_views())
        raise UnknownObject(
            f"feature view {name!r} is not registered in project {store.project!r}, which has {known}; correct the "
            "name or run 'feast apply'"
        ) from error
    if hasattr(view, "source_feature_view_projections") and not getattr(view, "write_to_online_store", False):
        sources = sorted(projection.name for projection in view.source_feature_view_projections.values())
        raise InputError(
            f"feature view {name!r} is computed at request time, so no row of it is stored; explain its "
            f"sources {sources}"
        )
    if is_windowed(view):
        raise InputError(
            f"feature view {name!r} aggregates over time windows, so no one row answers for it; look its features up, "
            "and compare them with get_historical_features at the same time"
        )
    return view


def _read_of(store: FeatureStore, view: Any) -> ViewRead:
    """Returns what a lookup of all features of a view reads."""
    join_keys = {field.name for field in view.entity_columns}
    references = [f"{view.name}:{field.name}" for field in view.features if field.name not in join_keys]
    [read] = compile_plan(store.registry, store.project, references, full_feature_names=False).views
    return read


def _key(read: ViewRead, text: str) -> dict[str, Any]:
    texts = parse_key_text(text)
    names = [column.name for column in read.definition.join_keys]
    for name in texts:
        if name not in names:
            raise UnknownObject(f"feature view {read.name!r} has no join key {name!r}; its join keys are {names}")
    missing = [name for name in names if name not in texts]
    if missing:
        raise MissingJoinKey(
            f"feature view {read.name!r}: join key {missing[0]!r} is missing; its join keys are {names}"
        )
    return dict(typed_key(read.definition.join_keys, texts))


def _trained(store: FeatureStore, view: Any, key: Mapping[str, Any], at_us: int) -> TrainedRow:
    if batch_source_of(view) is None:
        # Nothing of such a view is ever in a training set, whatever was pushed to it.
        return TrainedRow({}, None)
    return trained_row(store.config, store.registry, view, key, at_us)


def _side(inspection: Inspection, read: ViewRead, config: RepoConfig) -> OnlineSide:
    stored, state = inspection.stored, inspection.view.state
    return OnlineSide(
        times=None if stored is None else stored.header.times,
        is_pushed=stored is not None and stored.header.is_pushed,
        is_older_definition=state.fingerprint not in ("", read.definition.fingerprint),
        coverage=state.coverage,
        has_key_ttl=config.online_store.key_ttl_seconds is not None,
    )


def _compared(
    read: ViewRead, inspection: Inspection, trained: TrainedRow, reason: Reason, side: OnlineSide
) -> tuple[ExplainedFeature, ...]:
    row = None if inspection.stored is None else inspection.stored.row
    features = []
    for place, column in enumerate(read.wanted):
        value, status = (None, NOT_FOUND) if row is None else (row.values[place], row.statuses[place])
        expected = trained.values.get(column.name)
        is_same = _are_same(value, expected) if status == PRESENT else expected is None
        why = None if is_same else reason_for_values(reason, side, is_found=status != NOT_FOUND)
        features.append(ExplainedFeature(column, value, status, expected, why))
    return tuple(features)


def _are_same(left: Any, right: Any) -> bool:
    """Whether two plain values are equal; a NaN is equal to a NaN."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_are_same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return type(left) is type(right) and bool(left == right)
