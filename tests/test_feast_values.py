"""Values pass Larder's borders unchanged: Feast's messages, JSON, Python and Arrow against plain values."""

import json
import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast.feature_server_utils import _value_to_native
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType
from hypothesis import given
from hypothesis import strategies as st

from store.errors import WrongType
from store.feast_values import (
    json_converter,
    plain_from_arrow,
    plain_from_proto,
    plain_from_python,
    plain_from_request,
    proto_from_plain,
    python_from_plain,
)
from store.kernel.definitions import Column
from store.kernel.values import is_opaque
from tests.kernel.strategies import VALUES
from tests.kernel.test_codec import same

SAMPLES: dict[str, list[Any]] = {
    "INT32": [1, -(2**31)],
    "INT64": [2**63 - 1, -(2**63)],
    "DOUBLE": [1.5, math.nan, math.inf, -0.0],
    "FLOAT": [0.5, -math.inf],
    "BOOL": [True, False],
    "STRING": ["", "é\0x"],
    "BYTES": [b"", b"\x00\xff"],
    "UNIX_TIMESTAMP": [datetime(1960, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)],
    "INT64_LIST": [[1, 2], [2**62]],
    "DOUBLE_LIST": [[1.5, math.nan]],
    "STRING_LIST": [["a", ""]],
    "BYTES_LIST": [[b"a"]],
    "BOOL_LIST": [[True, False]],
    "UNIX_TIMESTAMP_LIST": [[datetime(2100, 1, 1, tzinfo=UTC)]],
    "INT64_SET": [{5}],
    "MAP": [{"a": 1, "b": "x"}],
    "JSON": ['{"a": [1, 2]}'],
    "STRUCT": [{"a": 1}],
    "UUID": ["3f333df6-90a4-4fda-8dd3-9485d27cee36"],
    "DECIMAL": [Decimal("1.10")],
    "VALUE_LIST": [[[1, 2], [3]]],
    "ZONED_TIMESTAMP": [datetime(2020, 1, 1, 12, tzinfo=UTC)],
}


PLAIN_TYPES = sorted(name for name in VALUES if name in ValueType.__members__ and not is_opaque(name))


@pytest.mark.parametrize("type_name", sorted(SAMPLES))
def test_feasts_messages_round_trip(type_name: str) -> None:
    messages = python_values_to_proto_values([*SAMPLES[type_name], None], ValueType[type_name])
    for message in messages:
        plain = plain_from_proto(message, type_name)
        again = proto_from_plain(plain, type_name)
        if plain is None:
            assert again.WhichOneof("val") is None
        else:
            assert again.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)


@pytest.mark.parametrize("type_name", sorted(SAMPLES))
def test_json_is_what_feasts_server_would_answer(type_name: str) -> None:
    for message in python_values_to_proto_values(SAMPLES[type_name], ValueType[type_name]):
        plain = plain_from_proto(message, type_name)
        convert = json_converter(type_name)
        answer = plain if plain is None or convert is None else convert(plain)
        assert json.loads(json.dumps(answer, allow_nan=False)) == json.loads(json.dumps(_value_to_native(message)))


@given(st.data(), st.sampled_from(PLAIN_TYPES))
def test_every_plain_value_round_trips_through_a_message(data: st.DataObject, type_name: str) -> None:
    value = data.draw(VALUES[type_name])
    if type_name == "FLOAT" and isinstance(value, float):
        value = struct.unpack("<f", struct.pack("<f", value))[0]
    if type_name.startswith("FLOAT_") and isinstance(value, list):
        value = [struct.unpack("<f", struct.pack("<f", item))[0] for item in value]
    assert same(plain_from_proto(proto_from_plain(value, type_name), type_name), value)


def test_an_empty_list_is_not_a_null() -> None:
    assert plain_from_proto(proto_from_plain([], "INT64_LIST"), "INT64_LIST") == []


def test_feasts_missing_timestamp_is_null() -> None:
    [message] = python_values_to_proto_values([None], ValueType.UNIX_TIMESTAMP)
    message.unix_timestamp_val = -(2**63)
    assert plain_from_proto(message, "UNIX_TIMESTAMP") is None


@pytest.mark.parametrize(
    ("type_name", "given", "expected"),
    [
        ("INT64", 5, 5),
        ("INT64", None, None),
        ("INT64", math.nan, None),
        ("STRING", "5", "5"),
        ("BOOL", False, False),
        ("DOUBLE", 5, 5.0),
        ("DOUBLE", "-Infinity", -math.inf),
        ("BYTES", "aGk=", b"hi"),
        ("BYTES", b"hi", b"hi"),
        ("UNIX_TIMESTAMP", "1969-12-31T23:59:59.5Z", -1),
        ("UNIX_TIMESTAMP", datetime.fromisoformat("1970-01-02"), 86_400),
        ("UNIX_TIMESTAMP", 7, 7),
        ("UNIX_TIMESTAMP", np.datetime64("2020-01-01", "ns"), 1_577_836_800),
        ("UNIX_TIMESTAMP", pd.NaT, None),
        ("INT64", pd.NA, None),
        ("INT64", np.int64(5), 5),
    ],
)
def test_request_values_of_the_right_type_are_taken(type_name: str, given: Any, expected: Any) -> None:
    assert plain_from_request(Column("k", type_name), [given]) == [expected]


@pytest.mark.parametrize(
    ("type_name", "given"),
    [
        ("INT64", "5"),
        ("INT64", 5.0),
        ("INT64", True),
        ("STRING", 5),
        ("BOOL", 1),
        ("DOUBLE", "5"),
        ("BYTES", "not base64!"),
        ("UNIX_TIMESTAMP", "soon"),
        ("INT64", [5]),
        ("INT64_LIST", "x"),
        ("UUID", 5),
    ],
)
def test_request_values_of_another_type_are_refused(type_name: str, given: Any) -> None:
    with pytest.raises(WrongType):
        plain_from_request(Column("k", type_name), [None, given])


@pytest.mark.parametrize(
    ("type_name", "array", "expected"),
    [
        ("INT64", pa.array([1, None], pa.int32()), [1, None]),
        ("INT32", pa.array([1, 2], pa.int64()), [1, 2]),
        ("DOUBLE", pa.array([1, None], pa.int64()), [1.0, None]),
        ("STRING", pa.array(["a", None]).dictionary_encode(), ["a", None]),
        ("STRING", pa.array(["a"], pa.large_string()), ["a"]),
        ("BYTES", pa.array([b"a"], pa.binary()), [b"a"]),
        ("BOOL", pa.array([True, None]), [True, None]),
        ("DOUBLE_LIST", pa.array([[1.0, None], None], pa.list_(pa.float64())), [[1.0, math.nan], None]),
        ("STRING_LIST", pa.array([["a"], []], pa.list_(pa.string())), [["a"], []]),
        ("UNIX_TIMESTAMP", pa.array([-500_000, 1_500_000, None], pa.timestamp("us", "UTC")), [-1, 1, None]),
        ("UNIX_TIMESTAMP", pa.array([1], pa.timestamp("ns")), [0]),
        ("UNIX_TIMESTAMP", pa.array([7], pa.int64()), [7]),
        ("UNIX_TIMESTAMP", pa.array([1], pa.date32()), [86_400]),
        ("DECIMAL", pa.array([Decimal("1.10")]), ["1.10"]),
        (
            "UNIX_TIMESTAMP_LIST",
            pa.array([[-500_000, 1_500_000], None, []], pa.list_(pa.timestamp("us"))),
            [[-1, 1], None, []],
        ),
    ],
)
def test_arrow_columns_become_plain_values(type_name: str, array: pa.Array, expected: list[Any]) -> None:
    values = plain_from_arrow(Column("f", type_name), array)
    assert all(map(same, values, expected)), values
    assert len(values) == len(expected)
    assert all(map(same, plain_from_arrow(Column("f", type_name), pa.chunked_array([array])), expected))


@pytest.mark.parametrize(
    ("type_name", "array"),
    [
        ("INT64", pa.array(["a"])),
        ("INT32", pa.array([2**40])),
        ("DOUBLE", pa.array(["x"])),
        ("INT64_LIST", pa.array([[1, None]])),
        ("STRING", pa.array([[1]])),
    ],
)
def test_an_arrow_column_that_does_not_fit_is_named(type_name: str, array: pa.Array) -> None:
    with pytest.raises(WrongType, match="'f'"):
        plain_from_arrow(Column("f", type_name), array)


def test_arrow_maps_become_feasts_maps() -> None:
    maps = pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64()))
    plain, null = plain_from_arrow(Column("f", "MAP"), maps)
    assert python_from_plain(plain, "MAP") == {"a": 1}
    assert null is None


def test_on_demand_functions_get_feasts_python_objects() -> None:
    assert python_from_plain(86_400, "UNIX_TIMESTAMP") == datetime(1970, 1, 2, tzinfo=UTC)
    assert python_from_plain('{"a": 1}', "JSON") == {"a": 1}
    assert python_from_plain(None, "JSON") is None
    assert plain_from_python([datetime(1970, 1, 2, tzinfo=UTC), None], "UNIX_TIMESTAMP") == [86_400, None]


def test_empty_lists_in_lists_are_not_nulls() -> None:
    for type_name in ("VALUE_LIST", "VALUE_SET"):
        [plain] = plain_from_python([[[], [1], None, [[], [2]]]], type_name)
        assert python_from_plain(plain, type_name) == [[], [1], None, [[], [2]]]


def test_maps_with_keys_that_are_no_text_are_objects_in_json() -> None:
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    for given_key, said in ((1, "1"), (True, "true"), (1.5, "1.5"), (b"\xff", "/w=="), (moment, moment.isoformat())):
        [plain] = plain_from_python([{given_key: math.inf}], "SCALAR_MAP")
        convert = json_converter("SCALAR_MAP")
        assert convert is not None
        assert convert(plain) == {said: "Infinity"}
        assert list(python_from_plain(plain, "SCALAR_MAP")) == [given_key]


def test_zoned_timestamps_come_as_such_or_as_text_and_are_rounded_down() -> None:
    zone = timezone(timedelta(hours=2))
    for said in (datetime(1960, 1, 1, 12, 0, 0, 500_000, zone), "1960-01-01T12:00:00.5+02:00"):
        [plain] = plain_from_python([said], "ZONED_TIMESTAMP")
        assert python_from_plain(plain, "ZONED_TIMESTAMP") == datetime(1960, 1, 1, 12, tzinfo=zone)
    [plain] = plain_from_python([pd.Timestamp(-1, tz="UTC")], "ZONED_TIMESTAMP")
    assert python_from_plain(plain, "ZONED_TIMESTAMP") == datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)
    with pytest.raises(WrongType, match="soon"):
        plain_from_python(["soon"], "ZONED_TIMESTAMP")


def test_python_objects_that_do_not_fit_are_refused() -> None:
    with pytest.raises(WrongType, match="INT64"):
        plain_from_python(["x"], "INT64")
