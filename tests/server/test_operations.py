import asyncio
import json
import re
from pathlib import Path

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from server import state as server_state
from server.metrics import Metrics
from server.retrieval.client import Retrievals
from server.state import ServerState
from store.service import StoreService
from tests.redis_servers import poll_until
from tests.server.live import LiveServer, copy_repo


def samples(server: LiveServer) -> dict[tuple[str, ...], float]:
    text = server.get("/metrics").text
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_ready_tells_of_registry_redis_and_clock(server: LiveServer) -> None:
    answer = server.get("/ready")
    report = answer.json()
    assert answer.status_code == 200
    assert report["ready"] is True
    assert report["project"] == "cabs"
    assert report["registry"]["version"]
    assert 0 <= report["registry"]["age_seconds"] < 60
    assert report["clock"]["is_system"] is True


def test_lookups_are_counted_by_keys_and_by_statuses_of_each_view(server: LiveServer) -> None:
    before = samples(server)
    server.lookup({"driver_id": [1, 2, 99]}, "driver_stats:rate", "driver_stats:trips")
    after = samples(server)

    def grown(*key: str) -> float:
        return after.get(key, 0) - before.get(key, 0)

    assert grown("larder_lookup_keys_total") == 3
    for status in ("PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"):
        assert grown("larder_lookup_values_total", f"status={status}", "view=driver_stats") == 2
    labels = ("method=POST", "path=/get-online-features", "status=200")
    assert grown("larder_requests_total", *labels) == 1
    assert grown("larder_request_seconds_count", "path=/get-online-features") == 1
    # Two rows were read; one is an hour old and one three days.
    assert grown("larder_lookup_row_age_seconds_count", "view=driver_stats") == 2
    assert grown("larder_lookup_row_age_seconds_bucket", "le=21600.0", "view=driver_stats") == 1
    assert grown("larder_redis_round_trip_seconds_count") >= 1
    assert after["larder_registry_broken",] == 0
    assert after["larder_ready",] == 1
    assert after["larder_registry_age_seconds",] < 60


def test_what_feast_prints_is_told_as_events_without_colours(server: LiveServer) -> None:
    poll_until(lambda: '"larder.printed"' in server.log())
    told = [json.loads(line) for line in server.log().splitlines() if '"larder.printed"' in line]
    assert any(event["event"].startswith("Materializing") for event in told)
    assert "\\u001b" not in server.log()


def test_gauges_are_renewed_again_after_a_failure_that_nobody_foresaw(
    applied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_state, "GAUGE_SECONDS", 0.0)
    monkeypatch.setenv("LARDER_EMBEDDED_IDLE_SECONDS", "2")
    service = StoreService.open(copy_repo(applied, tmp_path / "repo", "embedded"))
    metrics = Metrics()
    state = ServerState(service, metrics, Retrievals(service))

    async def watch() -> None:
        gauges = asyncio.create_task(state.keep_gauges_fresh())
        # No store at all is what no code foresees.
        whole, service._online = service._online, None  # type: ignore[assignment]
        while not told:  # noqa: ASYNC110 - nothing of the server's could set an event here
            await asyncio.sleep(0)
        assert metrics.is_ready._value.get() == 0
        service._online = whole
        while metrics.is_ready._value.get() == 0:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        gauges.cancel()
        await service.close()

    with structlog.testing.capture_logs() as told:
        asyncio.run(asyncio.wait_for(watch(), 60))
    assert {event["event"] for event in told} == {"gauges cannot be renewed"}


def test_paths_that_clients_make_up_are_no_labels(server: LiveServer) -> None:
    for number in range(3):
        server.get(f"/made-up-{number}")
    assert "made-up" not in server.get("/metrics").text


def test_docs_load_nothing_from_outside(server: LiveServer) -> None:
    page = server.get("/docs")
    links = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
    assert len(links) >= 3
    for link in links:
        assert link.startswith("/docs-assets/")
        assert server.get(link).status_code == 200
    assert "https://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/docs-assets/none.js", "/docs-assets/../app.py", "/docs-assets/%2e%2e/core.py"])
def test_docs_give_away_no_other_file(server: LiveServer, path: str) -> None:
    assert server.get(path).status_code == 404
