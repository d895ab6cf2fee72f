"""A server whose registry is on another machine, behind Feast's registry server."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from feast import FeatureService, FeatureStore
from feast.registry_server import start_server

from tests.redis_servers import free_port, poll_until, private_redis_tcp
from tests.server.live import LiveServer, serving
from tests.stores import NOW, make_store, user_rows, yaml_of

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's own code warns in many ways that are not ours to mend


@dataclass
class Away:
    """The repo that owns the registry, its registry server, and a server that has only its address."""

    store: FeatureStore
    registry_server: Any
    live: LiveServer


@pytest.fixture
def away(repo: Path, tmp_path: Path) -> Iterator[Away]:
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    with private_redis_tcp(tmp_path) as redis:
        (repo / "feature_store.yaml").write_text(yaml_of(redis.url))
        store = make_store(repo, redis.url)
        user_rows(at=NOW).to_parquet(other / "data" / "users.parquet")
        port = free_port()
        registry_server = start_server(store, port, wait_for_termination=False)
        settings = yaml.safe_load(yaml_of(redis.url))
        settings["registry"] = {"registry_type": "remote", "path": f"127.0.0.1:{port}"}
        (other / "feature_store.yaml").write_text(yaml.safe_dump(settings))
        # The users' rows are of that day.
        with serving(other, environ={"LARDER_CLOCK": NOW.isoformat()}) as live:
            yield Away(store, registry_server, live)
        registry_server.stop(None).wait()


def materialize(live: LiveServer) -> Any:
    return live.post("/materialize", {"start_ts": "2026-02-01", "end_ts": NOW.isoformat(), "feature_views": ["users"]})


def orders(live: LiveServer, **asked: Any) -> list[Any]:
    answer = live.lookup({"user_id": [1, 99]}, **(asked or {"features": ["users:orders"]}))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return list(body["results"][body["metadata"]["feature_names"].index("orders")]["values"])


def test_all_goes_through_a_remote_registry_and_lookups_go_on_without_it(away: Away) -> None:
    live = away.live
    done = materialize(live)
    assert done.status_code == 200, done.text
    assert orders(live) == [10, None]
    away.store.refresh_registry()
    assert away.store.get_feature_view("users").materialization_intervals, "the run is told to the registry"
    trained = live.post(
        "/get-historical-features",
        {"entities": {"user_id": [1], "event_timestamp": [NOW.isoformat()]}, "features": ["users:orders"]},
    )
    assert trained.status_code == 200, trained.text
    assert trained.json()["columns"]["orders"] == [10]

    # What is applied there is served here.
    away.store.apply([FeatureService(name="few", features=[away.store.get_feature_view("users")[["orders"]]])])
    lookup = {"entities": {"user_id": [1]}, "feature_service": "few"}
    poll_until(lambda: live.post("/get-online-features", lookup).status_code == 200, what="the service is served")

    away.registry_server.stop(None).wait()
    poll_until(lambda: live.get("/ready").json()["registry"]["problem"], what="the loss is noticed")
    ready = live.get("/ready")
    assert ready.status_code == 200
    assert "failed to connect" in ready.json()["registry"]["problem"]
    assert "\n" not in ready.json()["registry"]["problem"]
    assert orders(live, feature_service="few") == [10, None]
    # Also what nobody has asked for before: no request waits for the network.
    assert orders(live, features=["users:name", "users:orders"]) == [10, None]
    refused = materialize(live)
    assert refused.status_code == 503, refused.text
