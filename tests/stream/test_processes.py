"""A real server and a real worker: pushes over HTTP, repeated ones, what operators see, and a worker's end."""

import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cli.ingest import parsed_partitions
from store.errors import InputError
from store.feature_store import FeatureStore
from store.kernel.keys import owner_key
from store.stream.context import StreamContext
from tests.redis_servers import RedisServer, free_port, poll_until
from tests.server.live import LiveServer, serving
from tests.stores import PROJECT
from tests.stream.conftest import wait_until_done
from tests.stream.shop import NOW, landed
from tests.stream.workers import WarmWorkers


def body(*worths: float, **changes: Any) -> dict[str, Any]:
    count = len(worths)
    columns = {"user_id": [1] * count, "page": ["home"] * count, "at": [NOW.isoformat()] * count, "worth": list(worths)}
    return {"push_source_name": "clicks", "df": columns | changes, "to": "online_and_offline"}


def key(name: str) -> dict[str, Any]:
    return {"headers": {"Idempotency-Key": name}}


def read(live: LiveServer) -> Any:
    answer = live.lookup({"user_id": [1]}, "by_user:sum_worth_1d")
    return answer.json()["results"][-1]["values"][0]


def test_pushes_over_http_count_once_and_operators_see_who_works(
    repo: Path, server: RedisServer, shop: FeatureStore, context: StreamContext, workers: WarmWorkers
) -> None:
    with serving(repo, environ={"LARDER_CLOCK": NOW.isoformat()}) as live:
        assert live.post("/push", body(1.0, 2.0), **key("first")).json() == {"rows": 2}
        assert live.post("/push", body(1.0, 2.0), **key("first")).json() == {"rows": 2}
        refused = live.post("/push", body(3.0), **key("first"))
        assert (refused.status_code, "Idempotency-Key" in refused.json()["detail"]) == (422, True)
        for name, status in (("", 422), ("x" * 256, 413), ("x" * 255, 200)):
            assert live.post("/push", body(4.0), **key(name)).status_code == status
        bad = live.post("/push", body(8.0, 16.0, page=["home", None]))
        assert (bad.status_code, "row 1" in bad.json()["detail"]) == (422, True)
        write = {"feature_view_name": "by_user", "df": {"user_id": [1], "at": [NOW.isoformat()]}}
        assert live.post("/write-to-online-store", write).status_code == 422
        files_only = body(32.0) | {"to": "offline"}
        for _ in range(2):
            assert live.post("/push", files_only, **key("files")).json() == {"rows": 1}
        assert landed(repo) == [32.0]
        assert live.post("/push", body(33.0) | {"to": "offline"}, **key("files")).status_code == 422
        unowned = live.get("/ready").json()
        assert (unowned["ready"], unowned["stream"]["unowned"]) == (True, list(range(8)))
        assert "larder ingest" in unowned["stream"]["problem"]
        assert read(live) is None

        port = free_port()
        worker = workers.start(repo, metrics_port=port)
        wait_until_done(context)
        assert read(live) == 7.0
        poll_until(lambda: sorted(landed(repo)) == [1.0, 2.0, 4.0, 32.0], what="all have landed")
        owned = live.get("/ready").json()["stream"]
        assert (owned["problem"], owned["unowned"], owned["lag_seconds"], owned["partitions"]) == (None, [], 0.0, 8)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            metrics = answer.read().decode()
        assert "larder_stream_up 1.0" in metrics
        assert metrics.count("larder_stream_owned{partition=") == 8
        applied = [line for line in metrics.splitlines() if line.startswith("larder_stream_applied_rows_total")]
        assert sum(float(line.split()[1]) for line in applied) >= 3
        poll_until(
            lambda: "larder_stream_landed_rows_total{" in live.get("/metrics").text, what="the gauges are renewed"
        )
        assert workers.end(worker, signal.SIGTERM) == 0
    assert not server.client().exists(*(owner_key(PROJECT, str(p)) for p in range(8)))


@pytest.mark.parametrize("partitions", ["8", "x", "3-", "-1", "2-1"])
def test_partitions_that_there_are_not_are_refused(partitions: str) -> None:
    with pytest.raises(InputError, match="--partitions"):
        parsed_partitions(partitions, 8)
    assert parsed_partitions("0,3-5, 7", 8) == [0, 3, 4, 5, 7]
