"""The columns of a lookup as Feast's response message."""

from collections.abc import Iterable, Sequence
from typing import Any

from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp

from store.clock import is_sayable
from store.feast_values import proto_from_plain
from store.kernel.definitions import Column
from store.online.lookup import Lookup
from store.online.stored_rows import NULL_VALUE, PRESENT, EventTimes, ViewRows

_STATUS_CODES = {name: FieldStatus.Value(name) for name in ("PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE")}


def online_response(lookup: Lookup, found: Sequence[ViewRows], *, with_versions: bool) -> OnlineResponse:
    """Returns Feast's response object: join keys as and in the order given, then the features asked for.

    Where no row was found the event timestamp message is empty.
    """
    plan = lookup.plan
    response = GetOnlineFeaturesResponse()
    types: dict[str, ValueType] = {}

    def add(name: str, column: Column, values: Sequence[Any], statuses: Iterable[str], stamps: list[Timestamp]) -> None:
        response.metadata.feature_names.val.append(name)
        types[name] = ValueType[column.type_name]
        vector = response.results.add()
        vector.values.extend(proto_from_plain(value, column.type_name) for value in values)
        vector.statuses.extend(_STATUS_CODES[status] for status in statuses)
        vector.event_timestamps.extend(stamps)

    for name, values in lookup.entities.items():
        if (column := plan.entity_columns.get(name)) is not None:
            statuses = (NULL_VALUE if value is None else PRESENT for value in values)
            add(name, column, values, statuses, [Timestamp()] * len(values))
    shared = [_stamps(rows.times) for rows in found]
    for place in plan.outputs:
        source, feature = plan.origins[place]
        rows = found[source]
        stamps = shared[source] if rows.feature_times is None else _stamps(rows.times_of(feature))
        add(plan.names[place], plan.columns[place], rows.columns[feature], rows.statuses[feature], stamps)
    if with_versions:
        for view, version in plan.view_versions.items():
            response.metadata.feature_view_metadata.add(name=view, version=version)
    return OnlineResponse(response, feature_types=types)


def _stamps(times: EventTimes) -> list[Timestamp]:
    stamps = []
    for us, ns in zip(times.us, times.ns or [0] * len(times.us), strict=True):
        if us is None or not is_sayable(us):
            stamps.append(Timestamp())
            continue
        seconds, micros = divmod(us, 1_000_000)
        stamps.append(Timestamp(seconds=seconds, nanos=micros * 1_000 + ns))
    return stamps
