"""Several workers behind one port: whichever answers a scrape, it answers for all of them."""

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from server.limits import WORKER_HEALTH_SECONDS
from tests.redis_servers import poll_until
from tests.server.live import NOW, START_SECONDS, LiveServer, copy_repo, serving
from tests.server.test_operations import samples

LOOKUPS = 100
PATH = "/get-online-features"
ANSWERED = ("larder_requests_total", "method=POST", f"path={PATH}", "status=200")
AGE = timedelta(hours=1)
ROWS = {
    "driver_id": [1],
    "rate": [0.5],
    "trips": [10],
    "photo": [None],
    "marks": [None],
    "event_timestamp": [(NOW - AGE).isoformat()],
    "created": [NOW.isoformat()],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def live(applied: Path, folder: Path) -> Iterator[LiveServer]:
    """Two workers with an access log, and one row of an hour ago."""
    repo = copy_repo(applied, folder / "repo", "embedded")
    (folder / "metrics").mkdir()
    environ = {"PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics")}
    with serving(repo, "--workers", "2", "--access-log", environ=environ) as live:
        written = live.post("/write-to-online-store", {"feature_view_name": "driver_stats", "df": ROWS})
        assert written.status_code == 200, written.text
        assert samples(live)["larder_pushed_rows_total",] == 1
        poll_until(lambda: len(workers(live)) == 2, START_SECONDS, what="both workers are there")
        yield live
        everybody = workers(live)
    poll_until(lambda: not any(psutil.pid_exists(pid) for pid in everybody), what="the workers are gone")
    assert not list((folder / "metrics").iterdir())


def workers(live: LiveServer) -> set[int]:
    found = set()
    for child in psutil.Process(live.process.pid).children():
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.add(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def look_up(live: LiveServer, times: int = LOOKUPS) -> None:
    """Looks up a key that is there and one that is not, that often and over connections of their own."""

    def ask(_: int) -> None:
        assert live.lookup({"driver_id": [1, 99]}, "driver_stats:rate", "driver_stats:trips").status_code == 200

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(times)))


def counting_workers(folder: Path) -> set[int]:
    """Returns the workers that have counted something."""
    return {int(file.stem.rpartition("_")[2]) for file in (folder / "metrics").glob("*/counter_*.db")}


def assert_counted(live: LiveServer, before: Mapping[tuple[str, ...], float], lookups: int) -> None:
    # Whichever worker answers, it answers for both.
    for _ in range(4):
        found = {key: value - before.get(key, 0) for key, value in samples(live).items()}
        assert found[ANSWERED] == found["larder_request_seconds_count", f"path={PATH}"] == lookups
        assert found["larder_request_seconds_bucket", "le=+Inf", f"path={PATH}"] == lookups
        assert 0 < found["larder_request_seconds_sum", f"path={PATH}"] < 60 * lookups
        assert found["larder_lookup_keys_total",] == 2 * lookups
        assert found["larder_lookup_rows_total", "view=driver_stats"] == 2 * lookups
        assert found["larder_lookup_unknown_keys_total", "view=driver_stats"] == lookups
        for status in ("PRESENT", "NOT_FOUND"):
            assert found["larder_lookup_values_total", f"status={status}", "view=driver_stats"] == 2 * lookups
        assert found["larder_lookup_row_age_seconds_count", "view=driver_stats"] == lookups
        hour = AGE.total_seconds()
        age = found["larder_lookup_row_age_seconds_sum", "view=driver_stats"] / lookups
        assert hour <= age < hour + 3_600
        assert found["larder_redis_round_trip_seconds_count",] >= lookups


def test_rates_and_freshness_are_the_same_from_every_worker(live: LiveServer) -> None:
    look_up(live, 10)

    def newest() -> object:
        (view,) = [each for each in live.get("/api/freshness").json()["views"] if each["view"] == "driver_stats"]
        return view["online"]["newest"]

    told = [live.get("/api/status").json() for _ in range(6)]
    assert all((each["since"], each["views"]) == (told[0]["since"], told[0]["views"]) for each in told)
    (rates,) = [each for each in told[0]["views"] if each["view"] == "driver_stats"]
    assert rates["rows"] == 2 * rates["unknown_keys"] == sum(rates["values"].values()) / 2
    # A worker may have looked before the row was written; what it saw is told for some seconds.
    poll_until(lambda: {newest() for _ in range(4)} == {(NOW - AGE).isoformat()}, what="both tell the row")
    gauge = "larder_view_online_freshness_seconds", "view=driver_stats"
    poll_until(lambda: all(gauge in samples(live) for _ in range(4)), what="both workers have looked")
    ages = [samples(live)[gauge] for _ in range(4)]
    assert max(ages) - min(ages) < 60
    assert min(ages) >= AGE.total_seconds()


def test_counts_of_all_workers_are_one_count_and_outlive_a_worker(live: LiveServer, folder: Path) -> None:
    before = samples(live)
    look_up(live)
    assert workers(live) <= counting_workers(folder), "both have answered requests"
    assert_counted(live, before, LOOKUPS)
    victim = max(workers(live))
    # It dies while it owes its parent an answer: that looks twice a second whether its workers are well.
    os.kill(victim, signal.SIGSTOP)
    stopped_at = time.monotonic()
    poll_until(lambda: time.monotonic() > stopped_at + 1.5)
    os.kill(victim, signal.SIGKILL)
    poll_until(lambda: len(workers(live) - {victim}) == 2, WORKER_HEALTH_SECONDS / 2, what="the worker is replaced")
    assert_counted(live, before, LOOKUPS)
    # A worker is there before it takes requests.
    asked = LOOKUPS
    deadline = time.monotonic() + START_SECONDS
    while not workers(live) <= counting_workers(folder):
        assert time.monotonic() < deadline, "the new worker takes no requests"
        look_up(live, 10)
        asked += 10
    assert_counted(live, before, asked)
    assert victim in counting_workers(folder), "what it had counted did happen"
    gauges = {file.stem.rpartition("_")[2] for file in (folder / "metrics").glob("*/gauge_live*.db")}
    assert gauges == {str(pid) for pid in workers(live)}, "its state is nobody's any more"


@pytest.mark.long
def test_gauges_tell_of_the_worst_worker(live: LiveServer, folder: Path) -> None:
    poll_until(lambda: samples(live)["larder_ready",] == 1, START_SECONDS, what="both workers are ready")
    found = samples(live)
    assert found["larder_registry_broken",] == 0
    assert 0 <= found["larder_registry_age_seconds",] < 60
    registry = folder / "repo" / "data" / "registry.db"
    whole = registry.read_bytes()
    registry.write_bytes(b"torn \xff")
    poll_until(lambda: samples(live)["larder_registry_broken",] == 1, what="the metrics tell of the registry")
    broken_at = samples(live)["larder_registry_age_seconds",]
    poll_until(lambda: samples(live)["larder_registry_age_seconds",] > broken_at, what="the registry grows old")
    assert samples(live)["larder_ready",] == 1, "the last good registry serves"
    registry.write_bytes(whole)
    poll_until(lambda: samples(live)["larder_registry_broken",] == 0, what="both workers have read it again")


def test_the_access_log_has_one_line_of_json_for_each_request_of_any_worker(live: LiveServer) -> None:

    def told() -> list[dict[str, object]]:
        lines = [json.loads(line) for line in live.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "request"]

    earlier = len(told())
    look_up(live, 40)
    live.lookup({"driver_id": [1]}, "driver_stats:nothing")
    live.get("/made-up")
    poll_until(lambda: len(told()) >= earlier + 42, what="the last line is there")
    lines = told()[earlier:]
    assert [line["status"] for line in lines if line["path"] == "/made-up"] == [404]
    lookups = [line for line in lines if line["path"] == PATH]
    assert sorted(str(line["status"]) for line in lookups) == ["200"] * 40 + ["404"]
    for line in lookups:
        assert line.keys() == {
            "event",
            "path",
            "method",
            "status",
            "latency_ms",
            "client",
            "level",
            "logger",
            "timestamp",
        }
        assert (line["method"], line["client"], line["level"]) == ("POST", "127.0.0.1", "info")
        assert isinstance(line["latency_ms"], float)
        assert line["latency_ms"] > 0


def test_without_being_asked_for_there_is_no_access_log(whole: LiveServer) -> None:
    assert whole.lookup({"driver_id": [1]}, "driver_stats:rate").status_code == 200
    assert '"request"' not in whole.log()


@pytest.mark.long
def test_workers_go_when_their_parent_is_killed(applied: Path, tmp_path: Path) -> None:
    repo = copy_repo(applied, tmp_path / "repo", "embedded")
    with serving(repo, "--workers", "2", exit_code=-signal.SIGKILL) as live:
        everybody = workers(live)
        live.process.kill()
        live.process.wait(10)
        poll_until(lambda: not any(psutil.pid_exists(pid) for pid in everybody), what="the workers are gone")
