"""The proof finds what it is there to find, and nothing else."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from demo.lookups import Answer, as_training_columns, entities_of, prove, rows_ahead

NOW = datetime(2013, 12, 5, 19, 6, 30, tzinfo=UTC)
KEYS = pd.DataFrame({
    "origin": ["JFK", "JFK"], "dest": ["LAX", "LAX"], "tailnum": ["N1", None], "carrier": ["UA", "UA"],
    "scheduled_minute_of_day": [846, 846], "scheduled_block_minutes": [370, 370],
})  # fmt: skip


def answer_of(values: list[Any], statuses: list[str] | None = None, known_from: datetime | None = None) -> Answer:
    found = statuses or ["NULL_VALUE" if value is None else "PRESENT" for value in values]
    return Answer(NOW, {"feature": values}, {"feature": found}, {"feature": [known_from] * len(values)})


def training_of(values: list[Any], declared: pa.DataType) -> pa.Table:
    return pa.table({"feature": pa.array(values, type=declared)})


@pytest.mark.parametrize(
    ("online", "training", "declared"),
    [
        (3, 3, pa.int64()),
        (0.1, 0.1, pa.float64()),
        (0.1, 0.1, pa.float32()),
        ("Delta", "Delta", pa.string()),
        (True, True, pa.bool_()),
        ([3, -1], [3, -1], pa.list_(pa.int64())),
        ([], [], pa.list_(pa.int64())),
        (1_386_270_000, datetime(2013, 12, 5, 19, 0, tzinfo=UTC), pa.timestamp("us", tz="UTC")),
        (None, None, pa.int64()),
    ],
)
def test_equal_values_are_no_difference(online: Any, training: Any, declared: pa.DataType) -> None:
    proof = prove(answer_of([online] * 2), KEYS, training_of([training] * 2, declared), on_demand=[])
    assert not proof.differences
    assert (proof.keys, proof.compared) == (2, 2)


@pytest.mark.parametrize(
    ("online", "training", "declared"),
    [
        (4, 3, pa.int64()),
        (0.1 + 0.2, 0.3, pa.float64()),
        (0.1, 0.10000001, pa.float32()),
        (1, True, pa.bool_()),
        ([3, -1], [-1, 3], pa.list_(pa.int64())),
        ([3], [3, 3], pa.list_(pa.int64())),
        (1_386_270_001, datetime(2013, 12, 5, 19, 0, tzinfo=UTC), pa.timestamp("us", tz="UTC")),
        (None, 0, pa.int64()),
        (0, None, pa.int64()),
        ([], None, pa.list_(pa.int64())),
    ],
)
def test_unequal_values_are_differences(online: Any, training: Any, declared: pa.DataType) -> None:
    proof = prove(answer_of([online] * 2), KEYS, training_of([training] * 2, declared), on_demand=[])
    assert [each.online for each in proof.differences] == [online] * 2
    assert proof.differences[0].key["tailnum"] == "N1"


def test_present_null_is_a_difference_unless_it_is_computed() -> None:
    answer, training = answer_of([None, None], ["PRESENT", "NOT_FOUND"]), training_of([None, None], pa.int64())
    assert len(prove(answer, KEYS, training, on_demand=[]).differences) == 1
    assert not prove(answer, KEYS, training, on_demand=["feature"]).differences


def test_statuses_are_counted() -> None:
    proof = prove(answer_of([1, None]), KEYS, training_of([1, None], pa.int64()), on_demand=[])
    assert proof.statuses == {"PRESENT": 1, "NULL_VALUE": 1}


def test_rows_pushed_ahead_of_the_clock_are_found() -> None:
    assert rows_ahead(answer_of([1, 1], known_from=NOW), []) == []
    ahead = answer_of([1, 1], known_from=NOW + timedelta(seconds=1))
    assert rows_ahead(ahead, []) == [0, 1]
    assert rows_ahead(ahead, ["feature"]) == []


def test_missing_key_is_asked_for_as_null() -> None:
    assert entities_of(KEYS)["tailnum"] == ["N1", None]


def test_looked_up_columns_have_the_types_of_the_training_set() -> None:
    like = pa.schema([("feature", pa.timestamp("us", tz="UTC"))])
    answers = [answer_of([1_386_270_000]), replace(answer_of([None]), request_time=NOW + timedelta(hours=1))]
    columns = as_training_columns(answers, KEYS, like)
    assert columns["feature"].tolist() == [pd.Timestamp("2013-12-05 19:00", tz="UTC"), pd.NaT]
    assert columns["event_timestamp"].tolist() == [NOW, NOW + timedelta(hours=1)]
