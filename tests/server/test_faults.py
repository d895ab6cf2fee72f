import shutil
import signal
import time
from pathlib import Path

import httpx

from store.limits import REDIS_CONNECT_TIMEOUT_SECONDS, REDIS_TIMEOUT_SECONDS
from tests.redis_servers import free_port, poll_until, private_redis_tcp
from tests.server.live import LiveServer, copy_repo, serving, write_repo
from tests.server.test_operations import samples

# Above the deadline of one round trip, for a machine that does other things as well.
DEADLINE_SECONDS = REDIS_TIMEOUT_SECONDS + REDIS_CONNECT_TIMEOUT_SECONDS + 1.0
ROW = {"driver_id": [1], "city": ["york"], "tips": [1.0], "event_timestamp": ["2020-01-01T00:00:00Z"]}


def tips(live: LiveServer) -> httpx.Response:
    return live.lookup({"driver_id": [1], "city": ["york"]}, "areas:tips")


def write(live: LiveServer) -> httpx.Response:
    return live.post("/write-to-online-store", {"feature_view_name": "areas", "df": ROW})


def assert_unavailable_in_time(live: LiveServer) -> None:
    for ask in (tips, write):
        started = time.monotonic()
        answer = ask(live)
        assert time.monotonic() - started < DEADLINE_SECONDS
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) > 0
        assert list(answer.json()) == ["detail"]


def test_a_redis_that_goes_stalls_and_comes_back(applied: Path, tmp_path: Path) -> None:
    port = free_port()
    repo = copy_repo(applied, tmp_path / "repo", f"127.0.0.1:{port}")
    with serving(repo) as live:
        assert_unavailable_in_time(live)
        report = live.get("/ready")
        assert report.status_code == 503
        assert report.json()["online_store"]["problem"]
        assert report.json()["detail"]
        assert live.get("/health").status_code == 200

        with private_redis_tcp(tmp_path, port=port) as redis:
            poll_until(lambda: live.get("/ready").status_code == 200, what="the server finds its Redis")
            assert write(live).status_code == 200
            assert tips(live).json()["results"][2]["values"] == [1.0]
            redis.process.send_signal(signal.SIGSTOP)
            try:
                assert_unavailable_in_time(live)
                assert live.get("/ready").status_code == 503
                poll_until(lambda: samples(live)["larder_ready",] == 0, what="the gauges notice the stall")
                # A scrape asks Redis nothing; fifty that did would take a minute and a half.
                started = time.monotonic()
                for _ in range(50):
                    assert live.get("/metrics").status_code == 200
                assert time.monotonic() - started < 20 * REDIS_TIMEOUT_SECONDS
            finally:
                redis.process.send_signal(signal.SIGCONT)
            poll_until(lambda: tips(live).status_code == 200, what="the server recovers from a stall")

        assert_unavailable_in_time(live)


def test_a_server_started_before_the_registry_waits_for_it(applied: Path, tmp_path: Path) -> None:
    repo = write_repo(tmp_path / "repo")
    with serving(repo) as live:
        for answer in (tips(live), write(live), live.get("/ready")):
            assert answer.status_code == 503, answer.text
            assert "registry" in answer.json()["detail"]
            assert int(answer.headers["retry-after"]) > 0
        assert not (repo / "data" / "registry.db").exists()
        shutil.copy(applied / "data" / "registry.db", repo / "data" / "registry.db")
        poll_until(lambda: live.get("/ready").status_code == 200, what="the server finds its registry")
        assert tips(live).status_code == 200


def problem(live: LiveServer) -> str:
    return live.get("/ready").json()["registry"]["problem"] or ""


def test_a_torn_registry_is_told_and_the_last_good_one_is_served(applied: Path, tmp_path: Path) -> None:
    repo = copy_repo(applied, tmp_path / "repo", "embedded")
    registry = repo / "data" / "registry.db"
    whole = registry.read_bytes()
    with serving(repo) as live:
        for torn in (b"", b"torn \xff\xff", whole[: len(whole) // 2]):
            registry.write_bytes(torn)
            poll_until(lambda: problem(live), what="the server notices the torn registry")
            report = live.get("/ready")
            # The last good registry serves, so nobody has to be sent elsewhere.
            assert (report.status_code, report.json()["ready"]) == (200, True)
            assert "registry.db" in problem(live)
            assert tips(live).status_code == 200
            if not torn:
                poll_until(lambda: samples(live)["larder_registry_broken",] == 1, what="the metrics tell of it")
            refused = live.post("/materialize-incremental", {"end_ts": "2026-01-01T00:00:00Z"})
            assert refused.status_code == 503
            assert "registry.db" in refused.json()["detail"]
            assert registry.read_bytes() == torn
            registry.write_bytes(whole)
            poll_until(lambda: not problem(live), what="the server notices the repair")
        registry.write_bytes(b"torn \xff\xff")
    with serving(repo) as live:
        answer = tips(live)
        assert answer.status_code == 503
        assert "registry.db" in answer.json()["detail"]
    assert registry.read_bytes() == b"torn \xff\xff"
