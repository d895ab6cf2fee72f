"""`python -m bench.beside`: online lookups alone, and beside training sets that the same server makes.

A lookup is asked for at fixed instants, and its latency counts from its instant: one that is late because the one
before was slow is late. The phases take turns, so that whatever else the machine does falls on all of them. Beside two
processes that only count (the baseline) lookups share the machine with just as much work that is none of the server's.
"""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from bench.offline.report import machine
from server.limits import RETRIEVAL_NICENESS

DATA = Path(__file__).resolve().parent / ".data"
VIEWS, FEATURES = 3, 10
_BIN = Path(sys.executable).parent
_START = datetime(2024, 1, 1, tzinfo=UTC)
_PERCENTILES = (50.0, 99.0, 99.9)

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
# Asks for one training set after another, and throws the answers away.
_ASKER = """\
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
body = open(sys.argv[3], "rb").read()
headers = {"Content-Type": "application/vnd.apache.parquet", "Accept": sys.argv[4]}
while True:
    connection.request("POST", sys.argv[2], body, headers)
    answer = connection.getresponse()
    size = 0
    while chunk := answer.read(1 << 20):
        size += len(chunk)
    print(answer.status, size, flush=True)
"""
_COUNTER = "while True: pass"
# As little of the machine as a retrieval has, by niceness and by session.
_LOWERED = """\
import contextlib, os, pathlib
os.nice(NICENESS)
with contextlib.suppress(OSError):
    pathlib.Path("/proc/self/autogroup").write_text("NICENESS")
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much there is: source rows a view, keys, entity rows of one training set."""

    source_rows: int = 2_000_000
    keys: int = 10_000
    entity_rows: int = 300_000


@dataclass(slots=True)
class Phase:
    """What was measured in one kind of company; latencies in milliseconds."""

    name: str
    latencies_ms: list[float] = field(default_factory=list)
    retrievals: int = 0
    answer_bytes: int = 0
    seconds: float = 0.0

    def figures(self) -> dict[str, Any]:
        """Returns the phase as plain numbers."""
        shares = {f"p{share:g}_ms": round(float(np.percentile(self.latencies_ms, share)), 3) for share in _PERCENTILES}
        return {
            "company": self.name,
            "n": len(self.latencies_ms),
            **shares,
            "max_ms": round(max(self.latencies_ms), 3),
            "retrievals": self.retrievals,
            "answer_mb_per_second": round(self.answer_bytes / 1e6 / self.seconds, 1) if self.answer_bytes else 0.0,
        }


class Lookups:
    """A client that looks up one key and all features, at fixed instants."""

    def __init__(self, port: int, sizes: Sizes, rate: float) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._connection.connect()
        self._interval = 1 / rate
        self._keys = np.random.default_rng(7).integers(0, sizes.keys, 100_000)
        self._asked = 0

    def run(self, seconds: float) -> list[float]:
        """Returns the latency of each lookup in milliseconds, counted from the instant at which it was due."""
        latencies = []
        start = time.perf_counter()
        for number in range(int(seconds / self._interval)):
            due = start + number * self._interval
            time.sleep(max(0.0, due - time.perf_counter()))
            self._look_up()
            latencies.append((time.perf_counter() - due) * 1_000)
        return latencies

    def _look_up(self) -> None:
        self._asked += 1
        key = int(self._keys[self._asked % len(self._keys)])
        body = json.dumps({"entities": {"user_id": [key]}, "features": _features()})
        self._connection.request("POST", "/get-online-features", body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        statuses = {status for column in json.loads(content)["results"] for status in column["statuses"]}
        if answer.status != 200 or statuses != {"PRESENT"}:
            raise RuntimeError(f"lookup of key {key}: status {answer.status}, {statuses}; expected all PRESENT")


def _features() -> list[str]:
    return [f"view{view}:f{view}_{column}" for view in range(VIEWS) for column in range(FEATURES)]


def make_repo(folder: Path, sizes: Sizes) -> Path:
    """Makes a feature repo with its sources and applies it; returns the body of a retrieval beside it, as a file."""
    (folder / "data").mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(_YAML)
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
    """Runs a server with everything materialized; the block gets its port."""
    command = [str(_BIN / "larder"), "serve", "--repo", str(repo), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        announced = server.stderr.readline()
        port = int(announced.split("http://")[1].split()[0].rpartition(":")[2])
        _until_answered(port)
        body = {"start_ts": _START.isoformat(), "end_ts": (_START + timedelta(days=91)).isoformat()}
        _post(port, "/materialize", json.dumps(body).encode(), "application/json")
        yield port
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
        server.stderr.close()


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


def _post(port: int, path: str, body: bytes, content_type: str, accept: str = "*/*") -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", path, body, {"Content-Type": content_type, "Accept": accept})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {content[:500]!r}")
    return content


@contextlib.contextmanager
def retrievals(port: int, body: Path, phase: Phase) -> Iterator[None]:
    """Asks for one training set after another while the block runs; it begins when the first is under way."""
    path = f"/get-historical-features?{'&'.join(f'features={feature}' for feature in _features())}"
    arguments = [str(port), path, str(body), "application/vnd.apache.arrow.stream"]
    with _running([_ASKER, *arguments]) as (asker,):
        yield
        asker.kill()
        assert asker.stdout is not None
        told = asker.stdout.read().splitlines()
    for line in told:
        status, size = line.split()
        if status != "200":
            raise RuntimeError(f"a retrieval was answered {status}")
        phase.retrievals += 1
        phase.answer_bytes += int(size)


@contextlib.contextmanager
def counters() -> Iterator[None]:
    """Keeps every core busy with processes that only count, at the priority of a retrieval."""
    with _running(*[[_COUNTER]] * (os.cpu_count() or 1)):
        yield


@contextlib.contextmanager
def _running(*scripts: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    lowered = _LOWERED.replace("NICENESS", str(RETRIEVAL_NICENESS))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", lowered + script, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for script, *arguments in scripts
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def measure(port: int, body: Path, sizes: Sizes, rounds: int, seconds: float, rate: float) -> list[Phase]:
    """Returns the phases, which took turns so many times."""
    lookups = Lookups(port, sizes, rate)
    lookups.run(min(seconds, 2.0))
    phases = [Phase("none"), Phase("training sets"), Phase("counting processes")]
    company: list[Callable[[], contextlib.AbstractContextManager[None]]] = [
        contextlib.nullcontext,
        lambda: retrievals(port, body, phases[1]),
        counters,
    ]
    for _ in range(rounds):
        for phase, beside in zip(phases, company, strict=True):
            started = time.perf_counter()
            with beside():
                phase.latencies_ms += lookups.run(seconds)
            phase.seconds += time.perf_counter() - started
    return phases


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often the phases take turns.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of one phase.")] = 10.0,
    rate: Annotated[float, typer.Option(min=1, help="Lookups a second.")] = 200.0,
    scale: Annotated[int, typer.Option(min=1, help="Divide all numbers of rows by this.")] = 1,
) -> None:
    """Measure the latency of online lookups alone and beside training sets."""
    sizes = Sizes(2_000_000 // scale, 10_000 // scale, 300_000 // scale)
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    print(f"# Lookups beside training sets\n\n{facts}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="larder-bench-") as folder:
        repo = Path(folder) / "repo"
        body = make_repo(repo, sizes)
        with serving(repo) as port:
            # The first one waits for the warm process, which belongs to none of the phases.
            asked = "&".join(f"features={feature}" for feature in _features())
            kind = "application/vnd.apache.parquet"
            _post(port, f"/get-historical-features?{asked}", body.read_bytes(), kind, kind)
            phases = measure(port, body, sizes, rounds, seconds, rate)
    figures = [phase.figures() for phase in phases]
    print(f"| {' | '.join(figures[0])} |\n|{'---|' * len(figures[0])}")
    for row in figures:
        print(f"| {' | '.join(map(str, row.values()))} |")
    record = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "rate": rate}
    data = Path(os.environ.get("LARDER_BENCH_DATA") or DATA) / "results"
    data.mkdir(parents=True, exist_ok=True)
    with (data / "beside.jsonl").open("a") as out:
        out.writelines(json.dumps({**record, "source_rows": sizes.source_rows, **row}) + "\n" for row in figures)


if __name__ == "__main__":
    typer.run(main)
