"""The feature repo that is looked up in, and a server over it."""

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

VIEWS, FEATURES = 3, 10
_BIN = Path(sys.executable).parent
_START = datetime(2024, 1, 1, tzinfo=UTC)

_YAML = """\
project: beside
provider: local
registry:
  path: data/registry.db
  registry_store_type: store.registry.AtomicFileRegistryStore
  serve_features_while_materializing: true
offline_store:
  type: store.offline.DuckDBOfflineStore
online_store:
  type: store.online.RedisOnlineStore
  connection_string: {address}
batch_engine:
  type: store.engine.DuckDBComputeEngine
entity_key_serialization_version: 3
"""
_DEFINITIONS = f"""\
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
for number in range({VIEWS}):
    globals()[f"view{{number}}"] = FeatureView(
        name=f"view{{number}}",
        entities=[user],
        schema=[Field(name="user_id", dtype=Int64)]
        + [Field(name=f"f{{number}}_{{column}}", dtype=Float64) for column in range({FEATURES})],
        source=FileSource(name=f"events{{number}}", path=f"data/events{{number}}.parquet", timestamp_field="at"),
    )
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much there is: source rows a view, keys, entity rows of one training set, and keys of a materialization."""

    source_rows: int = 2_000_000
    keys: int = 10_000
    entity_rows: int = 300_000
    materialized_keys: int = 1_000_000


def references() -> list[str]:
    """Returns all features as Feast's references."""
    return [f"view{view}:f{view}_{column}" for view in range(VIEWS) for column in range(FEATURES)]


def make_repo(folder: Path, address: str, sizes: Sizes) -> Path:
    """Makes a feature repo with its sources and applies it; returns the body of a retrieval beside it, as a file."""
    (folder / "data").mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(_YAML.format(address=address))
    (folder / "definitions.py").write_text(_DEFINITIONS)
    random = np.random.default_rng(3)
    for view in range(VIEWS):
        names = [f"f{view}_{column}" for column in range(FEATURES)]
        # Every key has a first row, so that every lookup finds one.
        keys = np.concatenate([np.arange(sizes.keys), random.integers(0, sizes.keys, sizes.source_rows - sizes.keys)])
        columns = {name: random.random(sizes.source_rows) for name in names}
        table = pa.table({"user_id": keys, "at": _instants(random, sizes.source_rows), **columns})
        pq.write_table(table.sort_by("at"), folder / "data" / f"events{view}.parquet")
    rows = {"user_id": random.integers(0, sizes.keys, sizes.entity_rows)}
    body = folder / "entity_rows.parquet"
    pq.write_table(pa.table({**rows, "event_timestamp": _instants(random, sizes.entity_rows)}), body)
    subprocess.run([_BIN / "feast", "--chdir", folder, "apply"], check=True, stdout=subprocess.DEVNULL)
    return body


def _instants(random: np.random.Generator, count: int) -> pa.Array:
    us = int(_START.timestamp() * 1e6) + random.integers(0, 90 * 86_400 * 1_000_000, count)
    return pa.array(us).cast(pa.timestamp("us", "UTC"))


@contextlib.contextmanager
def serving(repo: Path) -> Iterator[int]:
    """Runs a server; the block gets its port."""
    command = [str(_BIN / "larder"), "serve", "--repo", str(repo), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        announced = server.stderr.readline()
        port = int(announced.split("http://")[1].split()[0].rpartition(":")[2])
        _until_answered(port)
        yield port
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
        server.stderr.close()


def fill(port: int) -> None:
    """Materializes what is looked up; a Redis that has been emptied is filled again."""
    body = {"start_ts": _START.isoformat(), "end_ts": (_START + timedelta(days=91)).isoformat()}
    post(port, "/materialize", json.dumps(body).encode(), "application/json")


def _until_answered(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the server on port {port} did not answer within 120 seconds")


def post(port: int, path: str, body: bytes, content_type: str, accept: str = "*/*") -> bytes:
    """Returns the answer to one request.

    Raises:
        RuntimeError: the answer is not 200.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", path, body, {"Content-Type": content_type, "Accept": accept})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {content[:500]!r}")
    return content
