"""A small feature repo and real servers on it: `larder serve` in a process of its own, on a free port."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from tests import warm

START_SECONDS = 60.0
# An orderly end takes up to 15 s by the server's own limits, and longer on a machine that does other things as well.
STOP_SECONDS = 60.0
BIN = Path(sys.executable).parent

NOW = datetime.now(UTC).replace(microsecond=0)
FRESH, STALE = NOW - timedelta(hours=1), NOW - timedelta(days=3)

_STORE_YAML = """\
project: cabs
provider: local
registry:
  path: data/registry.db
  registry_store_type: store.registry.AtomicFileRegistryStore
  cache_ttl_seconds: 60
  serve_features_while_materializing: true
offline_store:
  type: store.offline.DuckDBOfflineStore
online_store:
  type: store.online.RedisOnlineStore
  connection_string: {connection}
batch_engine:
  type: store.engine.DuckDBComputeEngine
entity_key_serialization_version: 3
"""

_DEFINITIONS = """\
from datetime import timedelta

from feast import BatchFeatureView, Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource
from feast import ValueType
from feast.aggregation import Aggregation
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bytes, Float64, Int64, String

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
city = Entity(name="city", join_keys=["city"], value_type=ValueType.STRING)


def file(name):
    return FileSource(
        name=name,
        path=f"data/{name}.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )


stats = file("stats")
driver_stats = FeatureView(
    name="driver_stats",
    entities=[driver],
    ttl=timedelta(days=1),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="rate", dtype=Float64),
        Field(name="trips", dtype=Int64),
        Field(name="photo", dtype=Bytes),
        Field(name="marks", dtype=Array(Int64)),
    ],
    source=PushSource(name="stats_push", batch_source=stats),
)
areas = FeatureView(
    name="areas",
    entities=[driver, city],
    ttl=timedelta(0),
    schema=[Field(name="driver_id", dtype=Int64), Field(name="city", dtype=String), Field(name="tips", dtype=Float64)],
    source=file("areas"),
)
lost = FeatureView(
    name="lost",
    entities=[driver],
    schema=[Field(name="driver_id", dtype=Int64), Field(name="gone", dtype=Float64)],
    source=file("lost"),
)
lacking = FeatureView(
    name="lacking",
    entities=[driver],
    schema=[Field(name="driver_id", dtype=Int64), Field(name="ghost", dtype=Float64)],
    source=file("lacking"),
)
recent = BatchFeatureView(
    name="recent",
    entities=[driver],
    online=True,
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="recent_trips", dtype=Int64),
        Field(name="recent_photos", dtype=Array(Bytes)),
    ],
    source=stats,
    aggregations=[
        Aggregation("trips", "sum", timedelta(hours=2), timedelta(minutes=5), "recent_trips"),
        Aggregation("photo", "last_2", timedelta(hours=2), timedelta(minutes=5), "recent_photos"),
    ],
)


@on_demand_feature_view(
    sources=[driver_stats, RequestSource(name="extra", schema=[Field(name="bonus", dtype=Int64)])],
    schema=[Field(name="trips_and_bonus", dtype=Int64)],
    mode="python",
)
def with_bonus(inputs):
    return {"trips_and_bonus": [None if t is None else t + b for t, b in zip(inputs["trips"], inputs["bonus"])]}


drivers = FeatureService(name="drivers", features=[driver_stats[["rate", "trips"]], with_bonus])
"""


def write_repo(folder: Path, connection: str = "embedded") -> Path:
    """Writes a feature repo with its sources; nothing is applied yet."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(_STORE_YAML.format(connection=connection))
    (folder / "definitions.py").write_text(_DEFINITIONS)
    times = pa.array([FRESH, STALE, FRESH, FRESH], pa.timestamp("us", "UTC"))
    stats = pa.table(
        {
            "driver_id": pa.array([1, 2, 3, 4]),
            "rate": [0.5, 0.25, None, float("nan")],
            "trips": pa.array([10, 20, None, 2**53]),
            "photo": [b"\xff\x00", None, None, b""],
            "marks": pa.array([[1, 2], [3], None, []], pa.list_(pa.int64())),
            "event_timestamp": times,
            "created": times,
        }
    )
    pq.write_table(stats, folder / "data" / "stats.parquet")
    areas = stats.select(["driver_id", "event_timestamp", "created"])
    areas = areas.append_column("city", pa.array(["york"] * 4)).append_column("tips", pa.array([1.0, 2.0, 3.0, 4.0]))
    pq.write_table(areas, folder / "data" / "areas.parquet")
    lacking = stats.select(["driver_id", "event_timestamp", "created"])
    for name in ("lost", "lacking"):
        # Whole at first: it is after `feast apply` that a file goes or loses a column.
        column = {"lost": "gone", "lacking": "ghost"}[name]
        pq.write_table(lacking.append_column(column, pa.array([1.0] * 4)), folder / "data" / f"{name}.parquet")
    return folder


def break_sources(folder: Path) -> None:
    """Takes a file away from one view and a column from another."""
    (folder / "data" / "lost.parquet").unlink()
    path = folder / "data" / "lacking.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["ghost"]), path)


def apply(folder: Path) -> None:
    """Runs the real `feast apply`."""
    warm.run("feast", "--chdir", str(folder), "apply", log=folder / "apply.log", environ=environment())


@contextmanager
def feast_running(repo: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs a command of the real `feast` that serves, until the block ends; at first it may not answer yet."""
    command = [str(BIN / "feast"), "--chdir", str(repo), *arguments]
    with (repo / f"{arguments[0]}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment(), start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_listening(port: int) -> bool:
    """Whether somebody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def copy_repo(repo: Path, folder: Path, connection: str) -> Path:
    """Copies an applied repo, to be served from another Redis."""
    shutil.copytree(repo, folder, ignore=shutil.ignore_patterns("redis", "__pycache__"))
    (folder / "feature_store.yaml").write_text(_STORE_YAML.format(connection=connection))
    return folder


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process under test: nothing of the caller's settings, and no Redis left behind."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("LARDER_", "REDIS_", "PROMETHEUS_"))
    }
    return {**kept, "LARDER_EMBEDDED_IDLE_SECONDS": "2", **(changes or {})}


@dataclass
class LiveServer:
    """A running `larder serve`."""

    process: subprocess.Popen[str] | warm.WarmCommand
    url: str
    lines: list[str] = field(default_factory=list)
    token: str | None = None
    # A connection for each request, so that several workers all get some; no proxy of the caller's.
    client: httpx.Client = field(
        default_factory=lambda: httpx.Client(
            trust_env=False, timeout=180, limits=httpx.Limits(max_keepalive_connections=0)
        )
    )

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = dict(options.pop("headers", {}))
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        return self.client.request(method, self.url + path, headers=headers, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return self.request("POST", path, **({"json": body} if body is not None else {}), **options)

    def lookup(self, entities: dict[str, list[Any]], *features: str, **more: Any) -> httpx.Response:
        asked = {"features": list(features)} if features else {}
        return self.post("/get-online-features", {"entities": entities, **asked, **more})

    def log(self) -> str:
        return "".join(self.lines)


def start_cold(arguments: list[str], environ: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Starts `larder` as a person does, which takes the seconds that Feast's import takes."""
    command = [str(BIN / "larder"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environ)


@contextmanager
def serving(
    repo: Path,
    *options: str,
    environ: Mapping[str, str] | None = None,
    exit_code: int = 0,
    is_cold: bool = False,
) -> Iterator[LiveServer]:
    """Runs `larder serve` until the block ends, and checks that it ended in order.

    Args:
        is_cold: the process imports all by itself, for tests of starting and stopping. Servers of several workers
            always do: their parent starts each worker anew.
    """
    arguments = ["serve", "--repo", str(repo), "--port", "0", *options]
    if is_cold or "--workers" in options:
        process: subprocess.Popen[str] | warm.WarmCommand = start_cold(arguments, environment(environ))
    else:
        process = warm.begin("larder", *arguments, environ=environment(environ))
    server = LiveServer(process, "")
    assert process.stderr is not None
    reader = threading.Thread(target=lambda: server.lines.extend(iter(process.stderr.readline, "")), daemon=True)
    reader.start()
    try:
        _wait_until_alive(server)
        yield server
    finally:
        server.client.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(STOP_SECONDS)
        process.stderr.close()
    assert process.returncode == exit_code, server.log()
    # Nothing that a person would not understand; DuckDB's binding tells of leaks when a process ends in disorder.
    assert not any(word in server.log() for word in ("Traceback", "leaked")), server.log()


def _wait_until_alive(server: LiveServer) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert server.process.poll() is None, f"the server ended at its start: {server.log()}"
        assert time.monotonic() < deadline, f"the server did not start: {server.log()}"
        found = re.search(r"on http://(\S+)", server.log())
        if found:
            server.url = f"http://{found[1].replace('0.0.0.0', '127.0.0.1')}"
            try:
                if server.get("/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
        time.sleep(0.05)
