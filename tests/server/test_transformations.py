"""Functions over rows by the real command line and server: declared in a repo's module, run in processes without it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.live import LiveServer, apply, serving, write_repo
from tests.server.test_writes import now

DEFINITIONS = """
from feast import StreamFeatureView
from feast.batch_feature_view import batch_feature_view

FREE = 0


def per_trip(rows):
    rows = rows[rows["trips"] != 13]
    if (rows["rate"] < 0).any():
        raise ValueError("a negative rate")
    return rows.assign(per_trip=rows["rate"] / rows["trips"].astype("float64"))


shares = StreamFeatureView(
    name="shares",
    entities=[driver],
    ttl=timedelta(days=1),
    schema=[Field(name="driver_id", dtype=Int64), Field(name="per_trip", dtype=Float64)],
    source=PushSource(name="shares_push", batch_source=driver_stats.batch_source),
    udf=per_trip,
    udf_string="",
    mode="pandas",
    timestamp_field="event_timestamp",
)


@batch_feature_view(
    entities=[driver],
    ttl=timedelta(days=1),
    schema=[Field(name="driver_id", dtype=Int64), Field(name="doubled", dtype=Float64)],
    source=driver_stats.batch_source,
    mode="python",
)
def doubles(columns):
    return {"doubled": [None if rate is None else rate * 2 for rate in columns["rate"]]}
"""


def row(driver: int, **changes: Any) -> dict[str, Any]:
    columns = {"driver_id": driver, "rate": 3.0, "trips": 4, "event_timestamp": now(minutes=-1)}
    return {name: [value] for name, value in (columns | changes).items()}


def value_of(server: LiveServer, driver: int, feature: str) -> Any:
    return server.lookup({"driver_id": [driver]}, feature).json()["results"][1]["values"][0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = write_repo(tmp_path_factory.mktemp("transformed") / "repo")
    with (folder / "definitions.py").open("a") as file:
        file.write(DEFINITIONS)
    apply(folder)
    with serving(folder) as live:
        yield live


def push(server: LiveServer, df: dict[str, Any], to: str = "online") -> Any:
    return server.post("/push", {"push_source_name": "shares_push", "df": df, "to": to})


def trained(server: LiveServer, drivers: list[int], *features: str) -> Any:
    rows = {"driver_id": drivers, "event_timestamp": [now()] * len(drivers)}
    return server.post("/get-historical-features", {"entities": rows, "features": list(features)})


def test_materialized_and_pushed_rows_are_looked_up_as_they_come_out(server: LiveServer) -> None:
    body = {"start_ts": "2000-01-01", "end_ts": now(), "feature_views": ["shares", "doubles"]}
    answer = server.post("/materialize", body)
    assert answer.status_code == 200, answer.text
    assert value_of(server, 1, "shares:per_trip") == 0.05
    assert value_of(server, 1, "doubles:doubled") == 1.0
    assert push(server, row(7), "online_and_offline").status_code == 200
    assert push(server, row(8, trips=13), "online_and_offline").status_code == 200
    assert [value_of(server, driver, "shares:per_trip") for driver in (7, 8)] == [0.75, None]


@pytest.mark.long  # the first training set by a server costs it what importing everything costs
def test_a_training_set_by_the_server_has_what_comes_out(server: LiveServer) -> None:
    assert push(server, row(7), "online_and_offline").status_code == 200
    assert push(server, row(8, trips=13), "online_and_offline").status_code == 200
    answer = trained(server, [1, 7, 8], "shares:per_trip", "doubles:doubled")
    assert answer.status_code == 200, answer.text
    assert [0.05, 0.75, None] in column_values(answer.json())
    assert [1.0, 6.0, 6.0] in column_values(answer.json())


def column_values(answer: Any) -> list[Any]:
    """Returns the lists of an answer, whatever they are called."""
    if isinstance(answer, dict):
        return [found for value in answer.values() for found in column_values(value)]
    if isinstance(answer, list):
        return [answer, *(found for value in answer for found in column_values(value))]
    return []


def test_a_push_by_which_the_function_fails_is_the_callers_fault(server: LiveServer) -> None:
    for to in ("online", "offline", "online_and_offline"):
        answer = push(server, row(9, rate=-1.0), to)
        assert answer.status_code == 422
        detail = answer.json()["detail"]
        assert "push source 'shares_push', row 0: feature view 'shares': its transformation 'per_trip' failed" in detail
        assert "ValueError: a negative rate" in detail
    assert value_of(server, 9, "shares:per_trip") is None


def test_what_apply_refuses_is_told_on_the_command_line(tmp_path: Path) -> None:
    folder = write_repo(tmp_path / "repo")
    helped = "def helper(rows):\n    return per_trip(rows)\n\n\nshares = Stream"
    with (folder / "definitions.py").open("a") as file:
        file.write(DEFINITIONS.replace("udf=per_trip", "udf=helper").replace("shares = Stream", helped))
    with pytest.raises(AssertionError, match=r"uses something of module 'definitions'"):
        apply(folder)
