import io
import math
from datetime import timedelta
from typing import Any

import httpx
import pyarrow as pa
import pytest

from server.limits import HISTORICAL_JSON_ROWS_MAX
from server.policy import ARROW_STREAM
from tests.server.live import FRESH, NOW, STALE, LiveServer

ASK = "/get-historical-features"
RATE = ["driver_stats:rate"]


def rows(**columns: list[Any]) -> dict[str, list[Any]]:
    return columns


def arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def post_arrow(server: LiveServer, table: pa.Table, query: str, accept: str = ARROW_STREAM) -> httpx.Response:
    headers = {"Content-Type": ARROW_STREAM, "Accept": accept}
    return server.post(f"{ASK}?{query}", content=arrow(table), headers=headers)


def table_in(answer: httpx.Response) -> pa.Table:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == ARROW_STREAM
    return pa.ipc.open_stream(io.BytesIO(answer.content)).read_all()


def test_rows_come_back_in_order_with_features_as_they_were(server: LiveServer) -> None:
    before, at, after = FRESH - timedelta(seconds=1), FRESH, NOW
    entities = rows(
        driver_id=[1, 1, 1, 2, 99, 1],
        event_timestamp=[t.isoformat() for t in (after, before, at, STALE + timedelta(days=1))]
        + [NOW.timestamp(), None],
        note=["a", "b", "c", "d", "e", "f"],
    )
    answer = server.post(ASK, {"entities": entities, "features": ["driver_stats:rate", "driver_stats:trips"]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["metadata"]["feature_names"] == ["driver_id", "event_timestamp", "note", "rate", "trips"]
    columns = answer.json()["columns"]
    assert columns["note"] == ["a", "b", "c", "d", "e", "f"]
    assert columns["rate"] == [0.5, None, 0.5, 0.25, None, None]
    assert columns["trips"] == [10, None, 10, 20, None, None]


def test_arrow_in_and_out_keeps_types(server: LiveServer) -> None:
    times = pa.array([NOW, NOW], pa.timestamp("ns", "UTC"))
    table = pa.table({"driver_id": pa.array([4, 1]), "event_timestamp": times})
    features = "&".join(f"features=driver_stats:{name}" for name in ("rate", "trips", "photo", "marks"))
    answer = table_in(post_arrow(server, table, features))
    assert answer.schema.field("trips").type == pa.int64()
    assert answer.schema.field("marks").type == pa.list_(pa.int64())
    assert math.isnan(answer.column("rate")[0].as_py())
    assert answer.column("trips").to_pylist() == [2**53, 10]
    assert answer.column("photo").to_pylist() == [b"", b"\xff\x00"]


def test_a_service_with_a_computed_feature_and_long_names(server: LiveServer) -> None:
    table = pa.table({"driver_id": [1], "bonus": [5], "event_timestamp": pa.array([NOW], pa.timestamp("us", "UTC"))})
    answer = table_in(post_arrow(server, table, "feature_service=drivers&full_feature_names=true"))
    assert answer.column("with_bonus__trips_and_bonus").to_pylist() == [15]
    assert answer.column("driver_stats__rate").to_pylist() == [0.5]


def test_arrow_in_may_be_answered_as_json(server: LiveServer) -> None:
    table = pa.table({"driver_id": [4], "event_timestamp": pa.array([NOW], pa.timestamp("us", "UTC"))})
    answer = post_arrow(server, table, "features=driver_stats:rate&features=driver_stats:photo", "application/json")
    assert answer.json()["columns"]["rate"] == ["NaN"]
    assert answer.json()["columns"]["photo"] == [""]


def test_what_was_known_then_can_be_asked_for(server: LiveServer) -> None:
    entities = rows(driver_id=[1], event_timestamp=[NOW.isoformat()])
    answer = server.post(ASK, {"entities": entities, "features": RATE, "filter_by_created_timestamp": True})
    assert answer.json()["columns"]["rate"] == [0.5]


def test_windowed_features_come_beside_plain_ones(server: LiveServer) -> None:
    times = [t.isoformat() for t in (NOW, NOW, FRESH - timedelta(seconds=1))]
    entities = rows(driver_id=[1, 99, 1], event_timestamp=times)
    features = ["driver_stats:trips", "recent:recent_trips", "recent:recent_photos"]
    answer = server.post(ASK, {"entities": entities, "features": features})
    assert answer.status_code == 200, answer.text
    columns = answer.json()["columns"]
    assert columns["recent_trips"] == columns["trips"] == [10, None, None]
    assert columns["recent_photos"] == [["/wA="], None, None]


def test_empty_lists_get_an_empty_answer(server: LiveServer) -> None:
    answer = server.post(ASK, {"entities": rows(driver_id=[], event_timestamp=[]), "features": RATE})
    assert answer.status_code == 200, answer.text
    assert answer.json()["columns"] == {"driver_id": [], "event_timestamp": [], "rate": []}


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"entities": rows(driver_id=[1], event_timestamp=[0]), "features": ["nope:rate"]}, 404, "nope"),
        ({"entities": rows(driver_id=[1], event_timestamp=[0]), "features": ["driver_stats:nope"]}, 404, "nope"),
        ({"entities": rows(driver_id=[1], event_timestamp=[0]), "feature_service": "nope"}, 404, "nope"),
        ({"entities": rows(driver_id=[1], event_timestamp=[0])}, 422, "neither"),
        ({"entities": rows(driver=[1], event_timestamp=[0]), "features": RATE}, 422, "driver_id"),
        ({"entities": rows(driver_id=["one"], event_timestamp=[0]), "features": RATE}, 422, "driver_id"),
        ({"entities": rows(driver_id=[1]), "features": RATE}, 422, "event_timestamp"),
        ({"entities": rows(driver_id=[1], event_timestamp=["soon"]), "features": RATE}, 422, "soon"),
        ({"entities": rows(driver_id=[1, "x"], event_timestamp=[0, 0]), "features": RATE}, 422, "driver_id"),
        ({"entities": rows(driver_id=[1], event_timestamp=[0, 1]), "features": RATE}, 422, "'event_timestamp': 2"),
        ({"entities": rows(driver_id=[1], event_timestamp=[0]), "feature_service": "drivers"}, 422, "bonus"),
        ({"entities": "SELECT 1", "features": RATE}, 422, "$.entities"),
        ({"entities": rows(driver_id=[1], event_timestamp=[0]), "features": RATE, "limit": 1}, 422, "limit"),
        ({"entities": rows(driver_id=[1], event_timestamp=[0]), "features": ["lost:gone"]}, 503, "lost.parquet"),
        ({"entities": rows(driver_id=[1], event_timestamp=[0]), "features": ["lacking:ghost"]}, 503, "ghost"),
    ],
)
def test_a_wrong_retrieval_is_refused_and_names_what_is_wrong(
    server: LiveServer, body: object, status: int, named: str
) -> None:
    answer = server.post(ASK, body)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["detail"]
    assert named in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "neither"),
        ("features=driver_stats:rate&limit=1", "limit"),
        ("features=driver_stats:rate&full_feature_names=maybe", "maybe"),
    ],
)
def test_wrong_options_of_an_arrow_body_are_refused(server: LiveServer, query: str, named: str) -> None:
    table = pa.table({"driver_id": [1], "event_timestamp": pa.array([NOW], pa.timestamp("us", "UTC"))})
    answer = post_arrow(server, table, query)
    assert answer.status_code == 422
    assert named in answer.json()["detail"]


def test_options_of_a_json_body_do_not_go_into_the_query(server: LiveServer) -> None:
    body = {"entities": rows(driver_id=[1], event_timestamp=[0]), "features": RATE}
    assert server.post(f"{ASK}?full_feature_names=true", body).status_code == 422


def test_a_body_that_is_no_arrow_stream_is_refused(server: LiveServer) -> None:
    headers = {"Content-Type": ARROW_STREAM}
    answer = server.post(f"{ASK}?features=driver_stats:rate", content=b"PAR1", headers=headers)
    assert answer.status_code == 422
    assert "Arrow IPC stream" in answer.json()["detail"]


def test_a_form_that_is_not_offered_is_406(server: LiveServer) -> None:
    body = {"entities": rows(driver_id=[1], event_timestamp=[0]), "features": RATE}
    answer = server.post(ASK, body, headers={"Accept": "application/xml"})
    assert answer.status_code == 406
    assert ARROW_STREAM in answer.json()["detail"]


def test_more_rows_than_json_is_good_for_are_asked_for_as_arrow(server: LiveServer) -> None:
    count = HISTORICAL_JSON_ROWS_MAX + 1
    times = pa.array([NOW] * count, pa.timestamp("us", "UTC"))
    table = pa.table({"driver_id": pa.array([1] * count), "event_timestamp": times})
    answer = post_arrow(server, table, "features=driver_stats:rate", "application/json")
    assert answer.status_code == 413
    assert ARROW_STREAM in answer.json()["detail"]
    assert table_in(post_arrow(server, table, "features=driver_stats:rate")).num_rows == count


def test_refusals_give_their_places_back(server: LiveServer) -> None:
    for _ in range(5):
        assert server.post(ASK, {"entities": {}, "features": RATE}).status_code == 422
    body = {"entities": rows(driver_id=[1], event_timestamp=[NOW.isoformat()]), "features": RATE}
    assert server.post(ASK, body).status_code == 200
