"""Clients that are slow or leave, against a real server: others are answered meanwhile, and all is given back."""

import json
import socket
from contextlib import ExitStack

import psutil

from server.limits import PUSH_CONCURRENT_MAX, PUSH_INLINE_BYTES_MAX
from tests.redis_servers import poll_until
from tests.server.live import LiveServer

CLIENTS = 20
JSON_HEAD = "HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def connected(live: LiveServer) -> socket.socket:
    host, _, port = live.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def open_connections(live: LiveServer) -> int:
    found = psutil.Process(live.process.pid).net_connections("tcp")
    return sum(1 for each in found if each.status == psutil.CONN_ESTABLISHED)


def assert_others_are_answered(live: LiveServer) -> None:
    for _ in range(20):
        answer = live.lookup({"driver_id": [1]}, "driver_stats:rate")
        assert (answer.status_code, answer.json()["results"][1]["values"]) == (200, [0.5])


def assert_given_back(live: LiveServer, before: int) -> None:
    poll_until(lambda: open_connections(live) <= before, what="the connections are given back")
    assert_others_are_answered(live)


def test_clients_that_stop_in_a_body_or_before_their_answer(server: LiveServer) -> None:
    body = json.dumps({"entities": {"driver_id": [1] * 10_000}, "features": ["driver_stats:rate"]}).encode()
    head = f"POST /get-online-features {JSON_HEAD}Content-Length: {len(body)}\r\n\r\n".encode()
    before = open_connections(server)
    with ExitStack() as stack:
        for number in range(CLIENTS):
            client = stack.enter_context(connected(server))
            # Half of them stop in the middle of their body, half ask and then read nothing.
            client.sendall(head + (body[: len(body) // 2] if number % 2 else body))
        assert_others_are_answered(server)
    assert_given_back(server, before)


def test_pushes_whose_clients_leave_give_their_places_back(server: LiveServer) -> None:
    rows = {"driver_id": [1], "city": ["york" * PUSH_INLINE_BYTES_MAX], "tips": [1.0]}
    rows["event_timestamp"] = ["2020-01-01T00:00:00Z"]
    body = json.dumps({"feature_view_name": "areas", "df": rows}).encode()
    head = f"POST /write-to-online-store {JSON_HEAD}Content-Length: {len(body)}\r\n\r\n".encode()
    before = open_connections(server)
    for _ in range(3 * PUSH_CONCURRENT_MAX):
        with connected(server) as client:
            client.sendall(head + body[:-1])
        with connected(server) as client:
            client.sendall(head + body)
    assert_given_back(server, before)
    small = {**rows, "city": ["york"] * 3_000, "driver_id": [9] * 3_000, "tips": [1.0] * 3_000}
    small["event_timestamp"] = ["2020-01-01T00:00:00Z"] * 3_000

    def is_taken() -> bool:
        return server.post("/write-to-online-store", {"feature_view_name": "areas", "df": small}).status_code == 200

    poll_until(is_taken, what="a large push finds a place")
