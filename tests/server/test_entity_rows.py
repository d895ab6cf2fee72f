from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.entity_rows import instants, table_from
from store.errors import EntityRowsError, TooLarge, WrongType
from store.limits import ENTITY_COLUMNS_MAX

NOON = datetime(2013, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        "2013-06-01T12:00:00Z",
        "2013-06-01T12:00:00",
        "2013-06-01 12:00",
        "2013-06-01T14:00:00+02:00",
        NOON.timestamp(),
        int(NOON.timestamp()),
    ],
)
def test_an_instant_is_read_in_any_of_its_forms(value: Any) -> None:
    assert instants([value]).to_pylist() == [NOON]
    assert instants([None, value, "2013-06-01T12:00:00.000Z"]).to_pylist() == [None, NOON, NOON]


def test_forms_may_be_mixed_within_a_column() -> None:
    assert instants(["2013-06-01T12:00:00Z", "2013-06-01T12:00", NOON.timestamp()]).to_pylist() == [NOON] * 3


def test_nanoseconds_are_kept() -> None:
    column = instants(["2013-06-01T12:00:00.123456789Z", "2013-06-01T12:00:00.000000001", None, 0])
    assert column.type == pa.timestamp("ns", "UTC")
    noon_ns = int(NOON.timestamp()) * 10**9
    assert column.cast(pa.int64()).to_pylist() == [noon_ns + 123_456_789, noon_ns + 1, None, 0]


def test_years_1_and_9999_are_legal() -> None:
    column = instants(["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
    assert column.to_pylist() == [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    assert instants([-62_135_596_800, 253_402_300_799])[0].as_py() == datetime.min.replace(tzinfo=UTC)


def test_nanoseconds_beside_a_sentinel_are_refused_and_not_cut() -> None:
    with pytest.raises(WrongType, match="nanoseconds"):
        instants(["2013-06-01T12:00:00.123456789Z", "9999-12-31T00:00:00Z"])


@pytest.mark.parametrize("value", ["soon", "", True, [], {}, 1e300, 1_370_088_000_000, "0000-01-01", "2013-13-01"])
def test_what_is_no_instant_is_refused_with_its_row(value: Any) -> None:
    with pytest.raises(WrongType, match="row 1"):
        instants(["2013-06-01T12:00:00Z", value])


@given(st.lists(st.datetimes(timezones=st.just(UTC)) | st.none()))
def test_instants_come_back_as_they_were_written(moments: list[datetime | None]) -> None:
    assert instants([None if m is None else m.isoformat() for m in moments]).to_pylist() == moments


def test_columns_keep_their_order_and_types() -> None:
    table = table_from({"k": [1, None], "event_timestamp": ["2013-06-01", None], "s": ["a", "b"], "x": [1, 2.5]})
    assert table.column_names == ["k", "event_timestamp", "s", "x"]
    assert [str(column.type) for column in table.columns] == ["int64", "timestamp[us, tz=UTC]", "string", "double"]


def test_no_rows_are_a_table_without_rows() -> None:
    assert table_from({"k": [], "event_timestamp": []}).num_rows == 0


def test_a_missing_event_timestamp_is_named() -> None:
    with pytest.raises(EntityRowsError, match="event_timestamp"):
        table_from({"k": [1]})


@pytest.mark.parametrize("values", [[1, "a"], [True, 1], [2**70], [[1], 2]])
def test_a_column_that_mixes_types_is_named(values: list[Any]) -> None:
    with pytest.raises(WrongType, match="column 'k'"):
        table_from({"k": values, "event_timestamp": [None] * len(values)})


BEYOND = ["9999-12-31T23:59:59.999999-00:01", "0001-01-01T00:00:00+00:01", "0000-01-01T00:00:00"]


@pytest.mark.parametrize("value", BEYOND)
@pytest.mark.parametrize("other", ["2013-06-01T12:00:00Z", "2013-06-01T12:00:00", 0])
def test_an_instant_outside_of_years_1_to_9999_is_refused_with_its_row(value: str, other: Any) -> None:
    with pytest.raises(WrongType, match="event_timestamp', row 1"):
        table_from({"k": [1, 2], "event_timestamp": [other, value]})


def test_objects_whose_fields_are_all_different_are_refused() -> None:
    rows = [{f"f{number}": 1} for number in range(ENTITY_COLUMNS_MAX + 1)]
    assert table_from({"o": rows[:-1], "event_timestamp": [None] * ENTITY_COLUMNS_MAX}).num_rows == ENTITY_COLUMNS_MAX
    for values in (rows, [[row] for row in rows], [{"a": {"b": row}} for row in rows]):
        with pytest.raises(TooLarge, match="column 'o'"):
            table_from({"o": values, "event_timestamp": [None] * len(values)})


def test_values_nested_too_deeply_are_refused() -> None:
    value: Any = 1
    for _ in range(100):
        value = [value]
    with pytest.raises(WrongType, match="nested deeper"):
        table_from({"o": [value], "event_timestamp": [None]})
