import base64
from collections.abc import Iterator
from datetime import datetime

import pytest

from store.limits import LOOKUP_BODY_BYTES_MAX, LOOKUP_FEATURES_MAX, LOOKUP_KEYS_MAX
from tests.server.live import FRESH, STALE, LiveServer


def test_an_answer_has_feasts_shape_and_the_four_statuses(server: LiveServer) -> None:
    answer = server.lookup({"driver_id": [1, 2, 3, 99]}, "driver_stats:rate", "driver_stats:trips")
    assert answer.status_code == 200, answer.text
    fresh, stale = FRESH.isoformat().replace("+00:00", "Z"), STALE.isoformat().replace("+00:00", "Z")
    ids, rate, trips = answer.json()["results"]
    assert answer.json()["metadata"] == {"feature_names": ["driver_id", "rate", "trips"]}
    assert ids["values"] == [1, 2, 3, 99]
    assert rate == {
        "values": [0.5, None, None, None],
        "statuses": ["PRESENT", "OUTSIDE_MAX_AGE", "NULL_VALUE", "NOT_FOUND"],
        "event_timestamps": [fresh, stale, fresh, None],
    }
    assert trips["values"] == [10, None, None, None]
    assert datetime.fromisoformat(answer.headers["larder-request-time"]).tzinfo is not None


def test_values_that_json_lacks_are_said_as_feast_says_them(server: LiveServer) -> None:
    answer = server.lookup({"driver_id": [4, 1]}, "driver_stats:rate", "driver_stats:trips", "driver_stats:photo")
    assert [result["values"] for result in answer.json()["results"]][1:] == [
        ["NaN", 0.5],
        [2**53, 10],
        ["", base64.b64encode(b"\xff\x00").decode()],
    ]


def test_versions_of_views_come_when_asked_for(server: LiveServer) -> None:
    asked = {"include_feature_view_version_metadata": True}
    answer = server.lookup({"driver_id": [1]}, "driver_stats:rate", **asked)
    metadata = answer.json()["metadata"]["feature_view_metadata"]
    # A version of 0, for none, is left out, as Feast's own server does.
    assert metadata == [{"name": "driver_stats"}]


def test_join_keys_come_back_in_the_order_in_which_they_were_asked_for(server: LiveServer) -> None:
    for names in (["driver_id", "city"], ["city", "driver_id"]):
        values = {"driver_id": [1], "city": ["york"]}
        answer = server.lookup({name: values[name] for name in names}, "areas:tips").json()
        assert answer["metadata"]["feature_names"] == [*names, "tips"]
        assert [result["values"] for result in answer["results"]][:2] == [values[name] for name in names]


def test_empty_lists_get_an_empty_answer(server: LiveServer) -> None:
    answer = server.lookup({"driver_id": []}, "driver_stats:rate")
    assert answer.status_code == 200
    assert [result["values"] for result in answer.json()["results"]] == [[], []]


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"entities": {"driver_id": [1]}, "features": ["nope:rate"]}, 404, "nope"),
        ({"entities": {"driver_id": [1]}, "features": ["driver_stats:nope"]}, 404, "nope"),
        ({"entities": {"driver_id": [1]}, "feature_service": "nope"}, 404, "nope"),
        ({"entities": {"driver_id": [1]}, "features": ["malformed"]}, 422, "malformed"),
        ({"entities": {"driver_id": [1]}}, 422, "neither"),
        ({"entities": {"driver_id": [1]}, "features": ["a:b"], "feature_service": "drivers"}, 422, "both"),
        ({"entities": {"driver": [1]}, "features": ["driver_stats:rate"]}, 422, "driver_id"),
        ({"entities": {"driver_id": [1], "shoe": [1]}, "features": ["driver_stats:rate"]}, 422, "shoe"),
        ({"entities": {"driver_id": [1]}, "feature_service": "drivers"}, 422, "bonus"),
        ({"entities": {"driver_id": ["one"]}, "features": ["driver_stats:rate"]}, 422, "one"),
        ({"entities": {"driver_id": [1.5]}, "features": ["driver_stats:rate"]}, 422, "1.5"),
        ({"entities": {"driver_id": [2**64]}, "features": ["driver_stats:rate"]}, 422, "driver_id"),
        ({"entities": {"driver_id": [[1]]}, "features": ["driver_stats:rate"]}, 422, "driver_id"),
        ({"entities": {"driver_id": [1], "city": ["a", "b"]}, "features": ["areas:tips"]}, 422, "'city': 2"),
        ({"entities": [1], "features": ["driver_stats:rate"]}, 422, "$.entities"),
        ({"entities": {"driver_id": 1}, "features": ["driver_stats:rate"]}, 422, "$.entities"),
        ({"features": ["driver_stats:rate"]}, 422, "entities"),
        ({"entities": {"driver_id": [1]}, "features": [1]}, 422, "$.features[0]"),
        ({"entities": {"driver_id": [1]}, "features": ["driver_stats:rate"], "full_names": True}, 422, "full_names"),
        (
            {"entities": {"driver_id": list(range(LOOKUP_KEYS_MAX + 1))}, "features": ["driver_stats:rate"]},
            413,
            "10001",
        ),
        ({"entities": {"driver_id": [1]}, "features": ["a:b"] * (LOOKUP_FEATURES_MAX + 1)}, 413, "5001"),
        ({"entities": {"driver_id": [1]}, "features": [f"a:b{n}" for n in range(LOOKUP_FEATURES_MAX)]}, 404, "'a'"),
        ([], 422, "body"),
    ],
)
def test_a_wrong_lookup_is_refused_and_names_what_is_wrong(
    server: LiveServer, body: object, status: int, named: str
) -> None:
    answer = server.post("/get-online-features", body)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["detail"]
    assert named in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"entities": {"driver_id": [1,]}}',
        b"\xff\xfe",
        b'{"entities": {"driver_id": [NaN]}}',
        b'{"entities": {"k": ["\\ud800"]}}',
        b'{"entities": {"k": ' + b"[" * 100_000,
        b'{"entities": {"\xff": []}}',
    ],
)
def test_an_unparsable_body_is_refused_and_says_where(server: LiveServer, body: bytes) -> None:
    answer = server.post("/get-online-features", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"].startswith("body: ")


def test_as_many_keys_as_the_bound_allows(server: LiveServer) -> None:
    answer = server.lookup({"driver_id": [1] * LOOKUP_KEYS_MAX}, "driver_stats:rate")
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"][1]["values"] == [0.5] * LOOKUP_KEYS_MAX


def test_a_body_is_bounded_by_its_declared_and_by_its_real_size(server: LiveServer) -> None:
    headers = {"Content-Type": "application/json"}
    body = b'{"entities": {"driver_id": [1]}, "features": ["driver_stats:rate"]}'
    at_bound = body.ljust(LOOKUP_BODY_BYTES_MAX)

    def chunked(whole: bytes) -> Iterator[bytes]:
        yield from (whole[start : start + 65_536] for start in range(0, len(whole), 65_536))

    for content, status in ((at_bound, 200), (chunked(at_bound), 200), (at_bound + b" ", 413)):
        answer = server.post("/get-online-features", content=content, headers=headers)
        assert answer.status_code == status, answer.text
    answer = server.post("/get-online-features", content=chunked(at_bound + b" "), headers=headers)
    assert answer.status_code == 413
    assert str(LOOKUP_BODY_BYTES_MAX) in answer.json()["detail"]
