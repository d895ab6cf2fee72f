"""`python -m bench.served`: what logging costs lookups, by the same server with and without.

Two servers with the same views over the same rows, of which one logs the service that is asked for, take short turns
within one round, so that whatever else the machine does falls on both. Then the same with two plain servers says what
the comparison itself is worth: it should give 1.
"""

import base64
import json
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer

from bench.feature_repos import make_repo
from bench.online import repos, servers
from bench.online.load import Job
from bench.online.runner import http_request, load

_LOGGED = """
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination

everything.logging_config = LoggingConfig(FileLoggingDestination(path="data/served"), sample_rate=1.0)
"""
CASES = {"1 key": (1, 1), "100 keys": (100, 1), "1 key, 16 clients": (1, 16)}
"""Keys of a request, and clients."""
REQUESTS = 512


@dataclass(slots=True)
class Found:
    """All that one server answered in one case."""

    p50_us: list[float] = field(default_factory=list)
    latencies_us: list[int] = field(default_factory=list)
    seconds: float = 0.0


def main(
    keys: Annotated[int, typer.Option(min=200, help="Keys in Redis.")] = 20_000,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each server in each case.")] = 30,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of one turn.")] = 0.5,
    cases: Annotated[str, typer.Option(help="Which cases, with semicolons between.")] = ";".join(CASES),
) -> None:
    """Compare lookups of a logged service with the same lookups of one that is not logged."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="larder-bench-") as folder, ExitStack() as stack:
        port, _ = stack.enter_context(servers.private_redis(Path(folder) / "redis", None))
        repos.write_sources(Path(folder) / "sources", keys)
        plain = repos.definitions(Path(folder) / "sources")
        running = {}
        for name, definitions in (("plain", plain), ("again", plain), ("logged", plain + _LOGGED)):
            repo = make_repo(Path(folder) / name, "larder", f"127.0.0.1:{port}", definitions)
            if name == "plain":
                repos.materialize(repo)
            running[name] = stack.enter_context(servers.larder(repo))
        for case in cases.split(";"):
            keys_asked, clients = CASES[case]
            found = {name: Found() for name in running}
            random = np.random.default_rng(keys_asked)
            chosen = [random.choice(keys, keys_asked, replace=False).tolist() for _ in range(REQUESTS)]
            bodies = [
                json.dumps({"feature_service": "everything", "entities": {repos.KEY: k}}).encode() for k in chosen
            ]
            encoded = [base64.b64encode(http_request("/get-online-features", body)) for body in bodies]
            requests = tuple(each.decode() for each in encoded)
            for number in range(rounds + 1):
                for name, server in running.items():
                    latencies_us, took = load(Job(server.port, requests, clients, seconds))
                    if number:  # the first turn warms up
                        found[name].p50_us.append(median(latencies_us))
                        found[name].latencies_us += latencies_us
                        found[name].seconds += took
            print(json.dumps(_line(case, found)), flush=True)


def _line(case: str, found: dict[str, Found]) -> dict[str, object]:
    line: dict[str, object] = {"case": case}
    for name, each in found.items():
        p50, p99, p999 = np.percentile(each.latencies_us, [50, 99, 99.9])
        rate = len(each.latencies_us) / each.seconds
        line[name] = {
            "n": len(each.latencies_us), "p50_us": p50, "p99_us": p99, "p99.9_us": p999, "per_second": round(rate)
        }  # fmt: skip
    turns = list(zip(found["plain"].p50_us, found["again"].p50_us, found["logged"].p50_us, strict=True))
    line["p50_ratio"] = round(median(2 * logged / (one + two) for one, two, logged in turns), 3)
    line["p50_ratio_of_two_alike"] = round(median(two / one for one, two, _ in turns), 3)
    return line


if __name__ == "__main__":
    typer.run(main)
