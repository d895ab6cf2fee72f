"""The engine and the stores beside Feast's own parts and under its command line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from feast import FeatureStore as StockFeatureStore

from store.feature_store import FeatureStore
from tests.engine.helpers import DAY, orders
from tests.redis_servers import RedisServer, poll_until
from tests.stores import NOW, config, objects, user_rows, yaml_of

CLI_REPO = """
from tests.stores import objects

user, users, basket_share, checkout = objects()
"""


def feast_cli(repo: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONWARNINGS": "ignore"}
    command = [str(Path(sys.executable).with_name("feast")), *arguments]
    return subprocess.Popen(command, cwd=repo, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run_cli(repo: Path, *arguments: str) -> str:
    process = feast_cli(repo, *arguments)
    output = process.communicate()[0].decode()
    assert process.returncode == 0, output
    return output


def registry_states(repo: Path) -> bytes:
    from feast.protos.feast.core.FeatureView_pb2 import FeatureViewState
    from feast.protos.feast.core.Registry_pb2 import Registry

    registry = Registry.FromString((repo / "data" / "registry.db").read_bytes())
    return b" ".join(FeatureViewState.Name(view.spec.state if hasattr(view.spec, "state") else view.meta.state).encode()
                     for view in registry.feature_views)  # fmt: skip


def test_the_feast_command_line_applies_and_materializes_and_survives_a_kill(
    repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    user_rows().to_parquet(repo / "data" / "users.parquet")
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    (repo / "definitions.py").write_text(CLI_REPO)
    run_cli(repo, "apply")
    interval = ((NOW - DAY).isoformat(), NOW.isoformat())
    run_cli(repo, "materialize", *interval)
    store = FeatureStore(str(repo))
    assert orders(store, [1, 2]) == [10, 20]
    # A run killed while it writes: the registry says MATERIALIZING from now on, and the lease lapses by itself.
    users = repo / "data" / "users.parquet"
    pipe = repo / "data" / "users.pipe"
    users.rename(pipe)
    os.mkfifo(users)
    process = feast_cli(repo, "materialize", *interval)
    poll_until(lambda: b"MATERIALIZING" in registry_states(repo), seconds=60)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    users.unlink()
    pipe.rename(users)
    server.client().delete(b"4:shop:lease:5:users")
    store = FeatureStore(str(repo))
    assert orders(store, [1, 2]) == [10, 20]
    training = store.get_historical_features(
        pd.DataFrame({"user_id": [1], "event_timestamp": [NOW]}), features=["users:orders"]
    )
    assert training.to_df()["orders"].tolist() == [10]
    run_cli(repo, "materialize-incremental", NOW.isoformat())
    assert orders(FeatureStore(str(repo)), [1, 2]) == [10, 20]


def test_our_engine_and_offline_store_fill_feasts_sqlite(store: FeatureStore) -> None:
    settings = config(Path(str(store.config.repo_path)), "unused")
    settings.online_config = {"type": "sqlite", "path": "data/online.db"}
    stock = StockFeatureStore(repo_path=str(settings.repo_path), config=settings)
    stock.apply(objects())
    stock.materialize(NOW - DAY, NOW)
    assert orders(stock, [1, 2]) == [10, 20]


def test_feasts_dask_store_feeds_our_engine_and_online_store(store: FeatureStore, server: RedisServer) -> None:
    settings = config(Path(str(store.config.repo_path)), server.url)
    settings.offline_config = {"type": "dask"}
    stock = StockFeatureStore(repo_path=str(settings.repo_path), config=settings)
    stock.materialize(NOW - DAY, NOW)
    assert orders(stock, [1, 2]) == [10, 20]


def test_feasts_engine_fills_our_online_store(store: FeatureStore, server: RedisServer) -> None:
    settings = config(Path(str(store.config.repo_path)), server.url)
    settings.batch_engine_config = {"type": "local"}
    stock = StockFeatureStore(repo_path=str(settings.repo_path), config=settings)
    stock.materialize(NOW - DAY, NOW)
    assert orders(stock, [1, 2]) == [10, 20]
