"""A server that is told to stop: it takes no new connections, and finishes what is in flight."""

import json
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from feast import FeatureStore

from tests.redis_proxy import redis_proxy
from tests.redis_servers import poll_until, private_redis_tcp
from tests.server.callers import ask, assert_right, tips_of, write
from tests.server.live import LiveServer, copy_repo, serving
from tests.server.retrieval_server import ask as retrieve
from tests.server.retrieval_server import processes

DRIVERS = [1, 2, 3]
START, END = "2000-01-01", "2100-01-01"


def is_open(live: LiveServer) -> bool:
    try:
        return live.get("/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_lookup_push_materialization_and_retrieval_under_way_are_finished(
    obedient_repo: Path, tmp_path: Path, workers: str
) -> None:
    """Redis is silent meanwhile, and the retrieval reads a pipe: each lasts as long as the test wants."""
    with (
        private_redis_tcp(tmp_path) as redis,
        redis_proxy(redis.port or 0) as proxy,
        ThreadPoolExecutor(4) as pool,
    ):
        # Redis may be silent for longer than the server takes to close its door, and shorter than its grace.
        repo = copy_repo(obedient_repo, tmp_path / "repo", f"{proxy.address},socket_timeout=8")
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        with serving(repo, "--workers", workers) as live:
            poll_until(lambda: write(live, DRIVERS).status_code == 200, what="the server finds its Redis")
            retrieval = pool.submit(retrieve, live, f"read {fifo}")
            poll_until(lambda: processes(live), 60, "the retrieval has its process")
            proxy.stall()
            lookup = pool.submit(ask, live, DRIVERS)
            push = pool.submit(write, live, [4])
            body = {"start_ts": START, "end_ts": END, "feature_views": ["driver_stats"]}
            materialization = pool.submit(live.post, "/materialize", body)
            poll_until(lambda: proxy.kept_back >= 3 and "driver_stats:" in live.log(), what="all three wait for Redis")
            live.process.send_signal(signal.SIGTERM)
            poll_until(lambda: not is_open(live), what="the server takes no new connections")
            under_way = (lookup, push, materialization, retrieval)
            assert not any(each.done() for each in under_way)
            proxy.pass_on()
            fifo.write_bytes(b"")
            assert_right(lookup.result(30), DRIVERS)
            assert [each.result(30).status_code for each in under_way] == [200] * 4
            assert retrieval.result().json()["columns"]["done"] == [f"read {fifo}"]
            assert live.process.wait(20) == 0
        store = FeatureStore(str(repo))
        drivers = {"driver_id": [1, 4], "city": ["york"] * 2}
        answer = store.get_online_features(["driver_stats:trips", "areas:tips"], drivers).to_dict()
        assert (answer["trips"], answer["tips"]) == ([10, 2**53], [tips_of(1), tips_of(4)])


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_request_whose_body_is_still_coming_is_answered(
    applied: Path, tmp_path: Path, number: signal.Signals
) -> None:
    repo = copy_repo(applied, tmp_path / "repo", "embedded")
    body = json.dumps({"entities": {"driver_id": [1]}, "features": ["driver_stats:rate"]}).encode()
    with serving(repo, is_cold=True) as live:
        host, _, port = live.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as slow:
            head = "POST /get-online-features HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            slow.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
            poll_until(lambda: live.get("/health").status_code == 200)
            live.process.send_signal(number)
            poll_until(lambda: not is_open(live), what="the server takes no new connections")
            slow.sendall(body[10:])
            assert slow.recv(65_536).startswith(b"HTTP/1.1 200 ")
        live.process.wait(20)
        assert live.process.returncode == 0


@pytest.mark.long
def test_a_materialization_that_outlasts_the_grace_is_told_and_leaves_nothing_behind(
    applied: Path, tmp_path: Path
) -> None:
    repo = copy_repo(applied, tmp_path / "repo", "embedded")
    source = repo / "data" / "stats.parquet"
    source.unlink()
    os.mkfifo(source)
    answers: list[httpx.Response] = []
    body = {"start_ts": "2000-01-01", "end_ts": "2100-01-01", "feature_views": ["driver_stats"]}
    with serving(repo, is_cold=True) as live:
        running = threading.Thread(target=lambda: answers.append(live.post("/materialize", body)))
        running.start()
        poll_until(lambda: "driver_stats:" in live.log(), what="the materialization is under way")
        live.process.send_signal(signal.SIGTERM)
        running.join(30)
        live.process.wait(20)
        assert "Error" not in live.log()
    assert answers[0].status_code == 503, answers[0].text
    assert "stopping" in answers[0].json()["detail"]
    assert int(answers[0].headers["retry-after"]) > 0
