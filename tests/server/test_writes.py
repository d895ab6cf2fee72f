from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.limits import PUSH_CONCURRENT_MAX
from store.limits import PUSH_ROWS_MAX, PUSH_VALUE_BYTES_MAX, PUSH_VALUE_ELEMENTS_MAX
from tests.redis_servers import poll_until
from tests.server.live import LiveServer


def now(**shift: float) -> str:
    return (datetime.now(UTC) + timedelta(**shift)).isoformat()


def drivers(*ids: Any, **changes: list[Any]) -> dict[str, list[Any]]:
    count = len(ids)
    return {
        "driver_id": list(ids),
        "rate": [0.75] * count,
        "trips": [7] * count,
        "photo": [None] * count,
        "marks": [[1, 2]] * count,
        "event_timestamp": [now()] * count,
        "created": [now()] * count,
        **changes,
    }


def area(driver_id: int, **changes: list[Any]) -> dict[str, list[Any]]:
    # The two times have the names under which Feast's remote client sends them, whatever the source calls them.
    frame = {"driver_id": [driver_id], "city": ["york"], "tips": [9.5], "event_timestamp": [now()], "created": [None]}
    return {**frame, **changes}


def tips_of(server: LiveServer, driver_id: int) -> Any:
    found = server.lookup({"driver_id": [driver_id], "city": ["york"]}, "areas:tips")
    return found.json()["results"][2]["values"][0]


def rate_of(server: LiveServer, driver_id: int) -> Any:
    return server.lookup({"driver_id": [driver_id]}, "driver_stats:rate").json()["results"][1]["values"][0]


def test_pushed_rows_are_looked_up_at_once(server: LiveServer) -> None:
    answer = server.post("/push", {"push_source_name": "stats_push", "df": drivers(101, 102), "to": "online"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"rows": 2}
    assert rate_of(server, 101) == 0.75


def test_a_push_to_both_sides_is_found_on_both(server: LiveServer) -> None:
    body = {
        "push_source_name": "stats_push",
        "df": drivers(103),
        "to": "online_and_offline",
        "allow_registry_cache": False,
        "transform_on_write": True,
    }
    answer = server.post("/push", body)
    assert answer.status_code == 200, answer.text
    assert rate_of(server, 103) == 0.75
    entities = {"driver_id": [103], "event_timestamp": [now(seconds=5)]}
    trained = server.post("/get-historical-features", {"entities": entities, "features": ["driver_stats:rate"]})
    assert trained.json()["columns"]["rate"] == [0.75]


def test_an_older_row_does_not_replace_a_newer(server: LiveServer) -> None:
    older = drivers(104, rate=[0.1], event_timestamp=[now(hours=-1)])
    for frame in (drivers(104), older):
        assert server.post("/push", {"push_source_name": "stats_push", "df": frame}).status_code == 200
    assert rate_of(server, 104) == 0.75


def test_an_empty_push_writes_nothing(server: LiveServer) -> None:
    answer = server.post("/push", {"push_source_name": "stats_push", "df": drivers()})
    assert (answer.status_code, answer.json()) == (200, {"rows": 0})


@pytest.mark.parametrize(
    ("changes", "status", "named"),
    [
        ({"push_source_name": "nope"}, 404, "nope"),
        ({"df": {}}, 422, "df"),
        ({"df": [1]}, 422, "$.df"),
        ({"df": {"driver_id": 1}}, 422, "$.df"),
        ({"to": "everywhere"}, 422, "everywhere"),
        ({"too": "online"}, 422, "too"),
        ({"df": drivers(105, rate=["high"])}, 422, "high"),
        ({"df": drivers(105, 105, rate=[1.0, "high"])}, 422, "row 1"),
        ({"df": drivers(None)}, 422, "driver_id"),
        ({"df": drivers(105, event_timestamp=[now(minutes=9)])}, 422, "more than 60 s after now"),
        ({"df": drivers(105, event_timestamp=[None])}, 422, "event_timestamp"),
        ({"df": drivers(105, event_timestamp=["soon"])}, 422, "soon"),
        ({"df": {**drivers(105), "shoe": [1]}}, 422, "shoe"),
        ({"df": {k: v for k, v in drivers(105).items() if k != "rate"}}, 422, "rate"),
        ({"df": drivers(105, rate=[1.0, 2.0])}, 422, "'rate': 2"),
        ({"df": drivers(105, event_timestamp=["0001-01-01T00:00:00+14:00"])}, 422, "row 0"),
        ({"df": drivers(105, event_timestamp=["9999-12-31T23:59:59-12:00"])}, 422, "years 1 to 9999"),
        ({"df": drivers(105, created=["0001-01-01T00:00:00+14:00"])}, 422, "created"),
        ({"df": drivers(105, event_timestamp=["2020-01-01T00:00:00.0000000001Z"])}, 422, "9 digits"),
        ({"df": drivers(105, marks=[[1.9]])}, 422, "marks"),
        ({"df": drivers(105, 105, marks=[[1], [1, None]])}, 422, "row 1"),
        ({"df": drivers(105, photo=["A" * (2 * PUSH_VALUE_BYTES_MAX)])}, 413, str(PUSH_VALUE_BYTES_MAX)),
        ({"df": drivers(105, marks=[[1] * (PUSH_VALUE_ELEMENTS_MAX + 1)])}, 413, str(PUSH_VALUE_ELEMENTS_MAX)),
        ({"df": {"driver_id": [105] * (PUSH_ROWS_MAX + 1)}}, 413, str(PUSH_ROWS_MAX)),
    ],
)
def test_one_bad_row_refuses_the_whole_push(
    server: LiveServer, changes: dict[str, Any], status: int, named: str
) -> None:
    body = {"push_source_name": "stats_push", "df": drivers(105), "to": "online_and_offline", **changes}
    answer = server.post("/push", body)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["detail"]
    assert named in answer.json()["detail"]
    assert rate_of(server, 105) is None


def test_the_first_and_last_instants_of_the_calendar_are_no_faults(server: LiveServer) -> None:
    ancient = drivers(110, event_timestamp=["0001-01-01T00:00:00Z"])
    assert server.post("/push", {"push_source_name": "stats_push", "df": ancient}).status_code == 200
    found = server.lookup({"driver_id": [110]}, "driver_stats:rate").json()["results"][1]
    assert found["event_timestamps"] == ["0001-01-01T00:00:00Z"]
    for body in (
        {"start_ts": "0001-01-01T00:00:00Z", "end_ts": "9999-12-31T23:59:59.999999Z", "feature_views": ["areas"]},
        {"start_ts": "0001-01-01T00:00:00-14:00", "end_ts": "9999-12-31T23:59:59+12:00", "feature_views": ["areas"]},
    ):
        assert server.post("/materialize", body).status_code == 200
    last = {"end_ts": "9999-12-31T23:59:59.999999Z", "feature_views": ["areas"]}
    for _ in range(2):
        answer = server.post("/materialize-incremental", last)
        assert answer.status_code == 200, answer.text


def test_a_push_as_large_as_its_bound_is_taken_and_many_at_once_are_told_to_come_again(server: LiveServer) -> None:
    count = 20_000
    frame = {name: values * count for name, values in drivers(111, marks=[list(range(20))]).items()}
    body = {"push_source_name": "stats_push", "df": frame}
    with ThreadPoolExecutor(PUSH_CONCURRENT_MAX + 4) as pool:
        answers = list(pool.map(lambda _: server.post("/push", body), range(PUSH_CONCURRENT_MAX + 4)))
    statuses = {answer.status_code for answer in answers}
    assert statuses <= {200, 503}
    assert 200 in statuses
    for answer in answers:
        assert answer.status_code == 200 or int(answer.headers["retry-after"]) > 0
    assert rate_of(server, 111) == 0.75


def test_rows_written_to_one_view_are_looked_up_at_once(server: LiveServer) -> None:
    answer = server.post("/write-to-online-store", {"feature_view_name": "areas", "df": area(106)})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"rows": 1}
    assert tips_of(server, 106) == 9.5


def test_bytes_are_written_and_answered_as_base64(server: LiveServer) -> None:
    frame = drivers(108, photo=["/wA="])
    answer = server.post("/write-to-online-store", {"feature_view_name": "driver_stats", "df": frame})
    assert answer.status_code == 200, answer.text
    found = server.lookup({"driver_id": [108]}, "driver_stats:photo", "driver_stats:marks")
    assert [column["values"][0] for column in found.json()["results"][1:]] == ["/wA=", [1, 2]]


@pytest.mark.parametrize(
    ("changes", "status", "named"),
    [
        ({"feature_view_name": "nope"}, 404, "nope"),
        ({"df": {}}, 422, "df"),
        ({"df": area(107, tips=["high"])}, 422, "high"),
        ({"df": area(107, shoe=[1])}, 422, "shoe"),
        ({"df": area(107, tips=[1.0, 2.0])}, 422, "'tips': 2"),
    ],
)
def test_a_wrong_write_is_refused(server: LiveServer, changes: dict[str, Any], status: int, named: str) -> None:
    answer = server.post("/write-to-online-store", {"feature_view_name": "areas", "df": area(107), **changes})
    assert answer.status_code == status, answer.text
    assert named in answer.json()["detail"]
    assert tips_of(server, 107) is None


def test_materialize_and_incremental_answer_when_done(server: LiveServer) -> None:
    body = {"start_ts": "2000-01-01T00:00:00", "end_ts": now(), "feature_views": ["areas"]}
    answer = server.post("/materialize", body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"status": "done", "feature_views": ["areas"]}
    answer = server.post("/materialize-incremental", {"end_ts": now(), "feature_views": ["areas"]})
    assert answer.status_code == 200, answer.text


def test_materialize_may_run_in_the_background(server: LiveServer) -> None:
    body = {"start_ts": "2000-01-01", "end_ts": now(), "feature_views": ["areas"]}
    answer = server.post("/materialize?async=true", body)
    assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
    poll_until(lambda: server.post("/materialize", body).status_code == 200, what="the background run is over")


def test_materialize_without_event_timestamps(server: LiveServer) -> None:
    answer = server.post("/materialize", {"disable_event_timestamp": True, "feature_views": ["areas"]})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("query", ["", "?async=true"])
@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({}, 422, "start_ts"),
        ({"start_ts": "2020-01-01"}, 422, "end_ts"),
        ({"start_ts": "2020-01-02", "end_ts": "2020-01-01"}, 422, "2020-01-02"),
        ({"start_ts": "2020-01-01", "end_ts": "2020-01-01T00:00:00Z"}, 422, "before"),
        ({"start_ts": "0001-01-01T00:00:00+14:00", "end_ts": "2020-01-01"}, 422, "years 1 to 9999"),
        ({"start_ts": "2020-01-01", "end_ts": "9999-12-31T23:59:59-12:00"}, 422, "years 1 to 9999"),
        ({"start_ts": "then", "end_ts": "2020-01-01"}, 422, "then"),
        ({"start_ts": "2020-01-01", "end_ts": "2020-01-02", "feature_views": ["nope"]}, 404, "nope"),
        ({"start_ts": "2020-01-01", "end_ts": "2020-01-02", "feature_views": "areas"}, 422, "$.feature_views"),
        ({"start_ts": "2020-01-01", "end_ts": "2020-01-02", "version": "v2"}, 422, "v2"),
        ({"start_ts": "2000-01-01", "end_ts": "2100-01-01", "feature_views": ["lost"]}, 503, "lost.parquet"),
        ({"start_ts": "2000-01-01", "end_ts": "2100-01-01", "feature_views": ["lacking"]}, 503, "ghost"),
    ],
)
def test_a_wrong_materialization_is_refused_also_in_the_background(
    server: LiveServer, query: str, body: dict[str, Any], status: int, named: str
) -> None:
    answer = server.post(f"/materialize{query}", body)
    assert answer.status_code == status, answer.text
    assert named in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({}, 422, "end_ts"),
        ({"end_ts": "soon"}, 422, "soon"),
        ({"end_ts": "9999-12-31T23:59:59-12:00"}, 422, "years 1 to 9999"),
        ({"end_ts": "2020-01-01", "feature_views": ["no"]}, 404, "no"),
    ],
)
def test_a_wrong_incremental_materialization_is_refused(
    server: LiveServer, body: dict[str, Any], status: int, named: str
) -> None:
    answer = server.post("/materialize-incremental", body)
    assert answer.status_code == status, answer.text
    assert named in answer.json()["detail"]
