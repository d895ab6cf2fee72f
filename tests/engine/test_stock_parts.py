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
from tests import warm
from tests.engine.helpers import DAY, orders
from tests.redis_servers import RedisServer, poll_until
from tests.stores import NOW, config, objects, user_rows, yaml_of

CLI_REPO = """
from tests.stores import objects

user, users, basket_share, checkout = objects()
"""


def apply_cold(repo: Path) -> None:
    """Runs `feast apply` as a person does, which takes the seconds that Feast's import takes."""
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONWARNINGS": "ignore"}
    command = [str(Path(sys.executable).with_name("feast")), "apply"]
    done = subprocess.run(command, cwd=repo, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def registry_states(repo: Path) -> bytes:
    from feast.protos.feast.core.FeatureView_pb2 import FeatureViewState
    from feast.protos.feast.core.Registry_pb2 import Registry

    registry = Registry.FromString((repo / "data" / "registry.db").read_bytes())
    return b" ".join(FeatureViewState.Name(view.spec.state if hasattr(view.spec, "state") else view.meta.state).encode()
                     for view in registry.feature_views)  # fmt: skip


def test_the_feast_command_line_applies_and_materializes_and_survives_a_kill(
    repo: Path, tmp_path: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    user_rows().to_parquet(repo / "data" / "users.parquet")
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    (repo / "definitions.py").write_text(CLI_REPO)
    apply_cold(repo)
    log, in_repo = tmp_path / "log", ("--chdir", str(repo))
    interval = ((NOW - DAY).isoformat(), NOW.isoformat())
    warm.run("feast", *in_repo, "materialize", *interval, log=log)
    store = FeatureStore(str(repo))
    assert orders(store, [1, 2]) == [10, 20]
    # A run killed while it writes: the registry says MATERIALIZING from now on, and the lease lapses by itself.
    users = repo / "data" / "users.parquet"
    pipe = repo / "data" / "users.pipe"
    users.rename(pipe)
    os.mkfifo(users)
    with log.open("ab") as file:
        process = warm.begin("feast", *in_repo, "materialize", *interval, output=file.fileno())
    poll_until(lambda: b"MATERIALIZING" in registry_states(repo), seconds=60)
    assert process.poll() is None
    process.kill()
    assert process.wait() == -signal.SIGKILL
    users.unlink()
    pipe.rename(users)
    server.client().delete(b"4:shop:lease:5:users")
    store = FeatureStore(str(repo))
    assert orders(store, [1, 2]) == [10, 20]
    training = store.get_historical_features(
        pd.DataFrame({"user_id": [1], "event_timestamp": [NOW]}), features=["users:orders"]
    )
    assert training.to_df()["orders"].tolist() == [10]
    warm.run("feast", *in_repo, "materialize-incremental", NOW.isoformat(), log=log)
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
