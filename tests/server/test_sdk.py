"""Feast's own client against our server: `online_store: {type: remote}`, with and without a token."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.server.conftest import TOKENS
from tests.server.live import LiveServer

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's own code warns in many ways that are not ours to mend


@pytest.fixture(params=["without a token", "with a token"])
def live(request: pytest.FixtureRequest) -> LiveServer:
    return request.getfixturevalue("server" if request.param == "without a token" else "guarded")


def client_of(live: LiveServer, cabs: Path, folder: Path, token: str | None) -> Any:
    from feast import FeatureStore

    config = {
        "project": "cabs",
        "provider": "local",
        "registry": {"path": str(cabs / "data" / "registry.db"), "cache_ttl_seconds": 60},
        "offline_store": {"type": "file"},
        "online_store": {"type": "remote", "path": live.url, "connection_retries": 0},
        "entity_key_serialization_version": 3,
        **({"auth": {"type": "oidc", "token": token}} if token else {}),
    }
    folder.mkdir(exist_ok=True)
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(config))
    return FeatureStore(repo_path=str(folder))


@pytest.fixture(autouse=True)
def _no_session_of_another_test() -> Iterator[None]:
    from feast.permissions.client.http_auth_requests_wrapper import HttpSessionManager

    HttpSessionManager.close_session()
    yield
    HttpSessionManager.close_session()


@pytest.fixture
def store(live: LiveServer, cabs: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    is_guarded = request.node.callspec.params["live"] == "with a token"
    return client_of(live, cabs, tmp_path / "client", TOKENS["read"] if is_guarded else None)


def test_lookups_by_features(store: Any) -> None:
    rows = [{"driver_id": 1}, {"driver_id": 2}, {"driver_id": 99}]
    response = store.get_online_features(["driver_stats:rate", "driver_stats:trips"], rows)
    assert response.to_dict() == {
        "driver_id": [1, 2, 99],
        "rate": [0.5, None, None],
        "trips": [10, None, None],
    }
    statuses = dict(zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True))
    # In Feast's enumeration: PRESENT, OUTSIDE_MAX_AGE, NOT_FOUND.
    assert list(statuses["rate"].statuses) == [1, 4, 3]


def test_composite_keys_and_frames(store: Any) -> None:
    rows = {"driver_id": [1, 3], "city": ["york", "york"]}
    frame = store.get_online_features(["areas:tips"], rows).to_df()
    assert frame["tips"].tolist() == [1.0, 3.0]


def test_a_refusal_reaches_the_caller_with_its_message(store: Any) -> None:
    with pytest.raises(RuntimeError, match="join key 'driver_id' is missing"):
        store.get_online_features(["driver_stats:rate"], [{"driver": 1}])


def test_writes_go_through_the_client(server: LiveServer, cabs: Path, tmp_path: Path) -> None:
    store = client_of(server, cabs, tmp_path / "client", None)
    now = datetime.now(UTC)
    frame = pd.DataFrame(
        {"driver_id": [201], "city": ["york"], "tips": [4.5], "event_timestamp": [now], "created": [now]}
    )
    store.write_to_online_store("areas", frame)
    answer = store.get_online_features(["areas:tips"], [{"driver_id": 201, "city": "york"}])
    assert answer.to_dict()["tips"] == [4.5]


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("wrong", 401), (TOKENS["write"], 403)])
def test_a_client_without_the_right_token_is_told(
    guarded: LiveServer, cabs: Path, tmp_path: Path, token: str | None, status: int
) -> None:
    store = client_of(guarded, cabs, tmp_path / "client", token)
    with pytest.raises(RuntimeError, match=str(status)):
        store.get_online_features(["driver_stats:rate"], [{"driver_id": 1}])
