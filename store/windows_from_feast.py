"""Feast's aggregations as windowed features, checked as far as a declaration alone can be."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from store.batch_aggregations import aggregations_of
from store.errors import DefinitionError
from store.kernel.values import element_type, is_opaque
from store.kernel.windows import FUNCTIONS, Function, WindowFeature, check_windows, hop_of

EXTERNAL_TAG = "external"
"""The tag of a source that the user's own jobs fill as well, "true" or "false"."""

_MICROSECOND = timedelta(microseconds=1)
_FIXED_TYPES = {
    "count": ("INT64",),
    "count_distinct": ("INT64",),
    "sum": ("DOUBLE", "INT64"),
    "mean": ("DOUBLE",),
    "std": ("DOUBLE",),
    "var": ("DOUBLE",),
    "approx_percentile": ("DOUBLE",),
}
"""Types that a feature may be declared as whatever its column is; INT64 sums are of integers."""

_FEAST_NAMES = {"INT64": "Int64", "DOUBLE": "Float64"}


def is_windowed(view: Any) -> bool:
    """Whether a feature view's features are aggregates over time windows."""
    return bool(aggregations_of(view))


def windows_of(view: Any) -> tuple[WindowFeature, ...]:
    """Returns the windowed features of a view that its schema declares, by name; none for a plain view.

    Raises:
        DefinitionError: an unknown function, a window or hop that cannot be, or a feature in the schema that is no
            aggregation's name or has a type that no such aggregate has.
    """
    if not is_windowed(view):
        return ()
    join_keys = {field.name for field in view.entity_columns} | set(getattr(view, "join_keys", ()))
    types = {f.name: f.dtype.to_value_type().name for f in view.features if f.name not in join_keys}
    tiling_us = _us(getattr(view, "tiling_hop_size", None))
    declared = [_feature(view, aggregation, types, tiling_us) for aggregation in aggregations_of(view)]
    check_windows(view.name, declared)
    names = {feature.name for feature in declared}
    for name in types:
        if name not in names:
            raise DefinitionError(
                f"feature view {view.name!r}: feature {name!r} is no aggregation's name (those are "
                f"{_listed(names)}); the schema of a windowed view lists its aggregations by these names"
            )
    windows = [feature for feature in declared if feature.name in types]
    for feature in windows:
        _check_type(view.name, feature)
    return tuple(sorted(windows, key=lambda feature: feature.name))


def is_external(view: Any) -> bool:
    """Whether the user's own jobs fill a view's source as well, by the tag `external` of its stream or batch source.

    Raises:
        DefinitionError: the tag says neither "true" nor "false".
    """
    sources = [getattr(view, "stream_source", None), getattr(view, "batch_source", None)]
    sources += [getattr(source, "batch_source", None) for source in sources]
    for source in sources:
        said = (getattr(source, "tags", None) or {}).get(EXTERNAL_TAG)
        if said not in (None, "true", "false"):
            raise DefinitionError(
                f"source {getattr(source, 'name', None)!r}: tag {EXTERNAL_TAG!r} is {said!r}; write 'true' where jobs "
                "of your own fill it as well, else 'false' or leave it out"
            )
        if said is not None:
            return bool(said == "true")
    return False


def _feature(view: Any, aggregation: Any, types: dict[str, str], tiling_us: int | None) -> WindowFeature:
    what = f"feature view {view.name!r}: aggregation {aggregation.resolved_name(aggregation.time_window)!r}"
    function = Function.parse(aggregation.function)
    if function is None:
        raise DefinitionError(f"{what} has the function {aggregation.function!r}; expected one of {_listed(FUNCTIONS)}")
    if not aggregation.column:
        raise DefinitionError(f"{what} has no column; name the column that it aggregates")
    window_us = _us(aggregation.time_window)
    if window_us is None:
        raise DefinitionError(f"{what} has no time_window; give it one of at least a second")
    name = aggregation.resolved_name(aggregation.time_window)
    hop_us = hop_of(window_us, _us(aggregation.slide_interval), tiling_us)
    return WindowFeature(name, aggregation.column, function, window_us, hop_us, types.get(name, ""))


def _check_type(view: str, feature: WindowFeature) -> None:
    allowed = _FIXED_TYPES.get(feature.function.name)
    what = f"feature view {view!r}: feature {feature.name!r}"
    if allowed is not None:
        if feature.type_name not in allowed:
            expected = " or ".join(_FEAST_NAMES[name] for name in allowed)
            raise DefinitionError(f"{what} is declared as {feature.type_name}, but this aggregate is {expected}")
        return
    is_list = element_type(feature.type_name) is not None and not feature.type_name.endswith("_SET")
    if feature.function.name == "last" and feature.function.parameter:
        if not is_list:
            raise DefinitionError(
                f"{what} is declared as {feature.type_name}, but last_{feature.function.parameter} gives a list; "
                "declare it as an Array of the column's type"
            )
    elif element_type(feature.type_name) is not None or is_opaque(feature.type_name):
        raise DefinitionError(
            f"{what} is declared as {feature.type_name}, but this aggregate is a single value; declare it as the "
            "column's type"
        )


def _us(duration: timedelta | None) -> int | None:
    return None if duration is None else duration // _MICROSECOND


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))
