"""Lookups over HTTP as a service would make them, and the proof that they equal the training set's features."""

import http.client
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from demo.processes import Refused

REQUEST_TIME_HEADER = "larder-request-time"
LOOKUP_SECONDS = 30.0
SHOWN_MAX = 10
_KEYS = ("origin", "dest", "tailnum", "carrier")
_REQUEST_FIELDS = ("scheduled_minute_of_day", "scheduled_block_minutes")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of `/get-online-features`.

    Shapes: `features` (the values), `statuses` and `known_from` by feature, each with one element per key in the
        order asked.

    Units: `latency_ms` is from sending the request to having its answer, not read yet.
    """

    request_time: datetime
    features: Mapping[str, list[Any]]
    statuses: Mapping[str, list[str]]
    known_from: Mapping[str, list[datetime | None]]
    latency_ms: float = 0.0

    @property
    def count(self) -> int:
        """How many keys it is of."""
        return len(next(iter(self.features.values())))


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that was looked up and is not the training set's."""

    key: Mapping[str, Any]
    feature: str
    online: Any
    status: str
    training: Any


@dataclass(frozen=True, slots=True)
class Proof:
    """The outcome of comparing an answer with a training set for the same keys at the same time."""

    keys: int
    compared: int
    statuses: Mapping[str, int]
    differences: Sequence[Difference]


class LookupClient:
    """One connection to a Larder server."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LOOKUP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def look_up(self, rows: pd.DataFrame, feature_service: str) -> Answer:
        """Looks the features of entity rows up.

        Raises:
            Refused: the server refused; the message carries its reason.
        """
        body = json.dumps({"feature_service": feature_service, "entities": entities_of(rows)})
        started = time.perf_counter()
        self._connection.request("POST", "/get-online-features", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        text = response.read()
        latency_ms = (time.perf_counter() - started) * 1_000
        if response.status != http.HTTPStatus.OK:
            raise Refused(f"/get-online-features answered {response.status}: {text[:500].decode(errors='replace')}")
        answer = json.loads(text)
        names, results = answer["metadata"]["feature_names"], answer["results"]
        columns = {name: result for name, result in zip(names, results, strict=True) if name not in _KEYS}
        return Answer(
            request_time=datetime.fromisoformat(response.headers[REQUEST_TIME_HEADER]),
            features={name: column["values"] for name, column in columns.items()},
            statuses={name: column["statuses"] for name, column in columns.items()},
            known_from={
                name: [_instant(text) for text in column.get("event_timestamps", [])]
                for name, column in columns.items()
            },
            latency_ms=latency_ms,
        )


def entities_of(rows: pd.DataFrame) -> dict[str, list[Any]]:
    """Returns keys and request fields of entity rows as a lookup's `entities`, null for a missing key."""
    columns = rows[[*_KEYS, *_REQUEST_FIELDS]]
    return {str(name): [None if pd.isna(value) else value for value in columns[name].tolist()] for name in columns}


def as_training_columns(answers: Sequence[Answer], rows: pd.DataFrame, like: pa.Schema) -> pd.DataFrame:
    """Returns the rows with the looked-up features as the training set has them, for the model to score.

    Shapes: the rows' columns, `event_timestamp` being the instant of the lookup, and one column per feature with
        the type that it has in `like`, the schema of the training set.

    Args:
        answers: that hold the rows, one after the other, at least one.
    """
    columns: dict[str, Any] = {}
    for name in answers[0].features:
        values = [value for answer in answers for value in answer.features[name]]
        declared = like.field(name).type
        if pa.types.is_timestamp(declared):
            columns[name] = pd.to_datetime(pd.Series(values, dtype="Int64"), unit="s", utc=True)
        else:
            columns[name] = pa.array(values, type=declared).to_pandas()
    times = [pd.Timestamp(answer.request_time) for answer in answers for _ in range(answer.count)]
    scored = rows.reset_index(drop=True).assign(event_timestamp=times)
    return pd.concat([scored, pd.DataFrame(columns)], axis=1)


def together(answers: Sequence[Answer]) -> Answer:
    """Returns answers to the same request for different keys as one, at the last one's time."""

    def joined(lists: Callable[[Answer], Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
        return {name: [item for answer in answers for item in lists(answer)[name]] for name in answers[0].features}

    return Answer(
        answers[-1].request_time,
        joined(lambda answer: answer.features),
        joined(lambda answer: answer.statuses),
        joined(lambda answer: answer.known_from),
    )


def prove(answer: Answer, keys: pd.DataFrame, training: pa.Table, on_demand: Sequence[str]) -> Proof:
    """Compares every value of an answer with the training set's for the same keys at the same time.

    Integers, strings, booleans, lists and instants have to be equal, floats equal to the last bit of their declared
    type. A null in the training set has to be one of the statuses without a value (for on-demand features only the
    value counts: they are computed, not stored, and Feast calls them present).

    Args:
        on_demand: the features that are computed at the lookup.
    """
    statuses: Counter[str] = Counter()
    differences = []
    for name, online in answer.features.items():
        expected = training.column(name)
        for row, (value, status, wanted) in enumerate(
            zip(online, answer.statuses[name], expected.to_pylist(), strict=True)
        ):
            statuses[status] += 1
            status_fits = name in on_demand or (status == "PRESENT") == (wanted is not None)
            if not (status_fits and _is_equal(value, wanted, expected.type)):
                key = {column: keys[column].iloc[row] for column in _KEYS}
                differences.append(Difference(key, name, value, status, wanted))
    distinct = len(keys.drop_duplicates(list(_KEYS)))
    return Proof(distinct, sum(statuses.values()), dict(statuses), differences)


def rows_ahead(answer: Answer, on_demand: Sequence[str]) -> list[int]:
    """Returns which keys of an answer carry a row from later than the lookup.

    The replay brings none: such a row was pushed by hand, from within the minute that producers' clocks may be ahead.
    """
    return sorted(
        {
            row
            for name, instants in answer.known_from.items()
            if name not in on_demand
            for row, instant in enumerate(instants)
            if instant is not None and instant > answer.request_time
        }
    )


def _is_equal(online: Any, training: Any, declared: pa.DataType) -> bool:
    if online is None or training is None:
        return online is None and training is None
    if pa.types.is_list(declared) or pa.types.is_large_list(declared):
        return len(online) == len(training) and all(
            _is_equal(one, other, declared.value_type) for one, other in zip(online, training, strict=True)
        )
    if pa.types.is_timestamp(declared):
        return bool(int(online) == training.timestamp())
    if pa.types.is_float32(declared):
        return bool(np.float32(online).tobytes() == np.float32(training).tobytes())
    if pa.types.is_float64(declared):
        return bool(np.float64(online).tobytes() == np.float64(training).tobytes())
    return type(online) is type(training) and bool(online == training)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
