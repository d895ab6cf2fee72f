"""Aggregations of batch feature views, which Feast's registry forgets.

Feast keeps the aggregations of a `StreamFeatureView`; its message for other views has no field for them, so a
`BatchFeatureView` comes back from the registry as a plain view. Larder has them kept as a tag of the view, which every
registry of Feast's stores, serves and hands on.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from feast.aggregation import Aggregation
from feast.batch_feature_view import BatchFeatureView

from store.errors import DefinitionError

TAG = "larder.aggregations"
"""The tag of a batch feature view in the registry that lists its aggregations as JSON."""

_MICROSECOND = timedelta(microseconds=1)


class _Kept(msgspec.Struct, array_like=True):
    """One aggregation; durations in microseconds, None for a missing one."""

    column: str
    function: str
    window_us: int | None
    slide_us: int | None
    name: str


def aggregations_of(view: Any) -> Sequence[Aggregation]:
    """Returns a view's aggregations, whether it is as declared or as read back from the registry.

    Raises:
        DefinitionError: the tag that keeps them is damaged.
    """
    declared = getattr(view, "aggregations", None)
    if declared:
        return list(declared)
    text = (getattr(view, "tags", None) or {}).get(TAG)
    if text is None:
        return ()
    try:
        kept = msgspec.json.decode(text, type=list[_Kept])
    except msgspec.DecodeError as error:
        raise DefinitionError(
            f"feature view {view.name!r}: tag {TAG!r}, in which Larder keeps its aggregations, is {text!r}; remove the "
            "tag and run 'feast apply' again"
        ) from error
    return [
        Aggregation(each.column, each.function, _duration(each.window_us), _duration(each.slide_us), each.name)
        for each in kept
    ]


def keep_aggregations() -> None:
    """Has every registry of this process keep the aggregations of batch feature views, from now on.

    There is no other way: a registry takes the view's message before any plug-in is told of the view.
    """
    if "to_proto_spec" in vars(BatchFeatureView):
        return
    inherited = BatchFeatureView.to_proto_spec

    def to_proto_spec(self: BatchFeatureView, seen: Any) -> Any:
        if self.aggregations:
            self.tags = {**self.tags, TAG: _text(self.aggregations)}
        return inherited(self, seen)

    BatchFeatureView.to_proto_spec = to_proto_spec  # type: ignore[assignment, method-assign]


def _text(aggregations: Sequence[Aggregation]) -> str:
    kept = [_Kept(a.column, a.function, _us(a.time_window), _us(a.slide_interval), a.name) for a in aggregations]
    return msgspec.json.encode(kept).decode()


def _us(duration: timedelta | None) -> int | None:
    return None if duration is None else duration // _MICROSECOND


def _duration(us: int | None) -> timedelta | None:
    return None if us is None else us * _MICROSECOND
