"""The columns of a lookup as Feast's response message, or as values ready for JSON."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isfinite
from typing import Any

from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp

from store.clock import from_us, is_sayable
from store.feast_values import json_converter, proto_from_plain
from store.kernel.codec import RowTimes
from store.kernel.definitions import Column
from store.kernel.values import FLOATS
from store.online.lookup import NULL_VALUE, PRESENT, AnswerColumn, Lookup
from store.online.plan import OnlinePlan
from store.requests import LookupAnswer

_STATUS_CODES = {name: FieldStatus.Value(name) for name in ("PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE")}
Answered = tuple[str, Column, AnswerColumn]


def answered(plan: OnlinePlan, entities: Mapping[str, list[Any]], columns: Sequence[AnswerColumn]) -> list[Answered]:
    """Returns the columns of the answer: join keys as and in the order given, then the features asked for."""
    result: list[Answered] = []
    for name, values in entities.items():
        if (column := plan.entity_columns.get(name)) is None:
            continue
        statuses = [NULL_VALUE if value is None else PRESENT for value in values]
        result.append((name, column, AnswerColumn(values, statuses, [None] * len(values))))
    result += [(plan.names[place], plan.columns[place], columns[place]) for place in plan.outputs]
    return result


def online_response(
    plan: OnlinePlan, entities: Mapping[str, list[Any]], columns: Sequence[AnswerColumn], *, with_versions: bool
) -> OnlineResponse:
    """Returns Feast's response object; where no row was found the event timestamp message is empty."""
    response = GetOnlineFeaturesResponse()
    types: dict[str, ValueType] = {}
    stamps: dict[RowTimes | None, Timestamp] = {None: Timestamp()}
    for name, column, answer in answered(plan, entities, columns):
        response.metadata.feature_names.val.append(name)
        types[name] = ValueType[column.type_name]
        vector = response.results.add()
        vector.values.extend(proto_from_plain(value, column.type_name) for value in answer.values)
        vector.statuses.extend(_STATUS_CODES[status] for status in answer.statuses)
        vector.event_timestamps.extend(_stamp(times, stamps) for times in answer.event_times)
    if with_versions:
        for view, version in view_versions(plan).items():
            response.metadata.feature_view_metadata.add(name=view, version=version)
    return OnlineResponse(response, feature_types=types)


def _stamp(times: RowTimes | None, stamps: dict[RowTimes | None, Timestamp]) -> Timestamp:
    if times not in stamps:
        assert times is not None
        seconds, micros = divmod(times.event_us, 1_000_000)
        stamp = Timestamp(seconds=seconds, nanos=micros * 1_000 + times.event_ns)
        stamps[times] = stamp if is_sayable(times.event_us) else Timestamp()
    return stamps[times]


def view_versions(plan: OnlinePlan) -> dict[str, int]:
    """Returns the definition's number of each view read."""
    return {read.name.partition("@")[0]: read.version for read in plan.views}


def lookup_answer(lookup: Lookup, columns: Sequence[AnswerColumn], request_time: datetime) -> LookupAnswer:
    """Returns the columns of a lookup as values ready for JSON."""
    plan, entities = lookup.plan, lookup.entities
    names, values, statuses, event_timestamps = [], [], [], []
    # Columns of one view share their times, and so what is said of them.
    said: dict[int, list[str | None]] = {}
    for name, column, answer in answered(plan, entities, columns):
        names.append(name)
        values.append(_json_values(column.type_name, answer.values))
        statuses.append(answer.statuses)
        times = answer.event_times
        if id(times) not in said:
            said[id(times)] = [None if each is None else rfc3339(each) for each in times]
        event_timestamps.append(said[id(times)])
    views = [None] * len(plan.entity_columns) + [plan.view_names[place] for place in plan.outputs]
    return LookupAnswer(
        feature_names=names,
        values=values,
        statuses=statuses,
        event_timestamps=event_timestamps,
        views=views,
        request_time=request_time,
        view_versions=view_versions(plan),
        future_rows=lookup.future_rows,
        view_rows=lookup.view_rows,
    )


def _json_values(type_name: str, values: list[Any]) -> list[Any]:
    """Returns plain values fit for JSON; a column of finite floats is told by its sum and stays as it is."""
    convert = json_converter(type_name)
    if convert is None:
        return values
    if type_name in FLOATS and None not in values and isfinite(sum(values)):
        return values
    return [None if value is None else convert(value) for value in values]


def rfc3339(times: RowTimes) -> str | None:
    """Returns an event time like `2013-07-01T12:00:00Z`, with as many of 0, 3, 6, 9 decimals as it needs.

    None outside of the years 1 to 9999, which neither RFC 3339 nor Feast's message can say: a source may hold such
    an event time, and one such row must not cost the caller the other rows.

    Source: the protobuf JSON mapping of Timestamp, which Feast's server uses.
    """
    if not is_sayable(times.event_us):
        return None
    instant = from_us(times.event_us)
    if not times.event_ns:
        text = instant.isoformat()[:-6]
        return f"{text[:-3]}Z" if instant.microsecond and not instant.microsecond % 1_000 else f"{text}Z"
    return f"{instant.isoformat(timespec='microseconds')[:-6]}{times.event_ns:03d}Z"
